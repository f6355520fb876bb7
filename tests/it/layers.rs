//! A module imports only lower ranks, modules of one rank do not know each other, and each heavy dependency has one door.

use std::fs;
use std::path::{Path, PathBuf};

/// Modules by rank. `main` is above all.
const RANKS: &[&[&str]] = &[
    &["error", "clock", "progress", "model"],
    &["chunk", "seal", "pack", "storage", "index", "source", "target", "docker"],
    &["repo"],
    &["ops"],
    &["volume"],
    &["live"],
    &["cli"],
];

/// A dependency and the paths (prefixes below `src`) that may name it.
const DOORS: &[(&str, &[&str])] = &[
    ("aws_lc_rs", &["seal/encrypt.rs", "seal/sha256.rs"]),
    ("argon2", &["seal/slot.rs"]),
    ("blake3", &["model/hash.rs"]),
    ("bollard", &["docker/bollard"]),
    ("clap", &["cli", "main.rs"]),
    ("fastcdc", &["chunk/"]),
    ("indicatif", &["cli/"]),
    ("rocksdb", &["index/rocks"]),
    ("tar", &["target/"]),
    ("toml", &["cli/config"]),
    ("tokio", &["docker/"]),
    ("zstd", &["seal/compress/"]),
];

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                // Unit tests may use what they like.
                let code = text.split("#[cfg(test)]\n#[allow(clippy::unwrap_used)]\nmod tests {").next().unwrap().to_owned();
                found.push((path.strip_prefix(&root).unwrap().to_owned(), code));
            }
        }
    }
    assert!(found.len() > 50, "the walk found the sources");
    found
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|modules| modules.contains(&module))
}

fn code_lines(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter(|line| !line.trim_start().starts_with("//"))
}

#[test]
fn modules_import_lower_ranks_only() {
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        let top = path.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let module = top.trim_end_matches(".rs").to_owned();
        let is_test_file = path.file_stem().unwrap().to_string_lossy().ends_with("tests");
        if ["lib", "main"].contains(&module.as_str()) || is_test_file {
            continue;
        }
        let own = rank(&module).unwrap_or_else(|| panic!("{} has no rank; add it to the table", path.display()));
        for line in code_lines(&code) {
            for (start, _) in line.match_indices("crate::") {
                let target: String = line[start + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let allowed = target == module || rank(&target).is_none_or(|other| other < own || (own == 0 && other == 0));
                if !allowed {
                    wrong.push(format!("{}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that go up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn heavy_dependencies_have_one_door() {
    let mut wrong = Vec::new();
    for (path, code) in sources() {
        let name = path.to_string_lossy().into_owned();
        if name.ends_with("tests.rs") {
            continue;
        }
        for (dependency, doors) in DOORS {
            let used = code_lines(&code).any(|line| {
                [format!("use {dependency}::"), format!(" {dependency}::"), format!("({dependency}::"), format!("<{dependency}::")]
                    .iter()
                    .any(|used| line.contains(used.as_str()))
            });
            if used && !doors.iter().any(|door| name.starts_with(door)) {
                wrong.push(format!("{name} names {dependency}, whose door is {doors:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_test_module_is_forgotten() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = fs::read_to_string(folder.join("main.rs")).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_module = path.is_dir() || path.extension().is_some_and(|e| e == "rs");
        assert!(!is_module || name == "main" || main.contains(&format!("mod {name};")), "tests/it/{name} is not listed in main.rs");
    }
}
