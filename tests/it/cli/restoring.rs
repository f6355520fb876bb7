//! Restores: where to, over what, and what is left alone.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::program::{Sandbox, assert_same_tree, noise, run};

fn changed(path: &Path) -> (i64, i64) {
    let meta = fs::metadata(path).unwrap();
    (meta.ctime(), meta.ctime_nsec())
}

#[test]
fn over_a_directory_with_contents_only_what_differs_is_written() {
    let sandbox = Sandbox::new();
    let source = sandbox.source(
        "data",
        &[
            ("right", &noise(2 << 20, 1)),
            ("wrong", &noise(2 << 20, 2)),
            ("sub/short", b"short"),
            ("sub/missing", b"missing"),
            ("touched", b"same"),
        ],
    );
    sandbox.snapshot(&source);
    let out = sandbox.path("out");
    let whole = sandbox.json(0, ["restore", "latest", "--to", "out"]);
    assert_eq!((whole["files"].as_u64(), whole["bytes"].as_u64()), (Some(5), Some((4 << 20) + 16)));
    assert_eq!((whole["written_bytes"].clone(), whole["kept_bytes"].as_u64()), (whole["bytes"].clone(), Some(0)));
    assert_same_tree(&source, &out);

    let right = changed(&out.join("right"));
    let mut wrong = fs::read(out.join("wrong")).unwrap();
    wrong[1 << 20] ^= 1;
    fs::write(out.join("wrong"), &wrong).unwrap();
    fs::write(out.join("sub/short"), b"much longer than it was").unwrap();
    fs::remove_file(out.join("sub/missing")).unwrap();
    fs::write(out.join("extra"), b"not in the snapshot").unwrap();
    fs::create_dir_all(out.join("extra-dir/below")).unwrap();
    run(Command::new("touch").args(["-d", "2001-01-01"]).arg(out.join("touched"))).expect(0);

    sandbox.run(["restore", "latest", "--to", "out"]).expect(2).says(&["not empty", "--yes"]);
    assert_eq!(fs::read(out.join("wrong")).unwrap(), wrong, "nothing was done without a yes");
    let again = sandbox.json(0, ["restore", "latest", "--to", "out", "--yes"]);
    let written = again["written_bytes"].as_u64().unwrap();
    assert!((12..=300 << 10).contains(&written), "one chunk and the small files: {again}");
    assert_eq!(written + again["kept_bytes"].as_u64().unwrap(), (4 << 20) + 16, "{again}");
    assert_eq!(changed(&out.join("right")), right, "a file that is right is not even touched");
    assert!(out.join("extra").exists() && out.join("extra-dir/below").exists(), "nothing is removed unasked");

    sandbox.run(["restore", "latest", "--to", "out", "--delete"]).expect(2).says(&["REMOVED", "--yes"]);
    assert!(out.join("extra").exists());
    let exact = sandbox.json(0, ["restore", "latest", "--to", "out", "--delete", "--yes"]);
    assert!(exact["removed"].as_u64().unwrap() >= 2 && exact["written_bytes"] == 0, "{exact}");
    assert_same_tree(&source, &out);
    assert_eq!(changed(&out.join("right")), right);
}

#[test]
fn kinds_that_changed_are_replaced_and_symlinks_in_the_way_are_not_followed() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("file", b"file"), ("dir/a", b"a"), ("sub/b", b"b")]);
    std::os::unix::fs::symlink("target", source.join("link")).unwrap();
    sandbox.snapshot(&source);
    let outside = sandbox.source("outside", &[("a", b"outside"), ("b", b"outside")]);
    let out = sandbox.source("out", &[("file/was/a/directory", b"x"), ("link", b"was a file")]);
    std::os::unix::fs::symlink(&outside, out.join("dir")).unwrap();
    std::os::unix::fs::symlink(outside.join("b"), out.join("sub")).unwrap();
    let ran = sandbox.run(["restore", "latest", "--to", "out", "--yes", "--delete"]).expect(0);
    assert_same_tree(&source, &out);
    assert!(
        fs::read(outside.join("a")).unwrap() == b"outside" && fs::read(outside.join("b")).unwrap() == b"outside",
        "{}",
        ran.transcript()
    );
}

#[test]
fn single_entries_dry_runs_and_archives() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("a", b"a"), ("sub/b", &noise(70_000, 1)), ("sub/deep/c", b"c"), ("other/d", b"d")]);
    sandbox.snapshot(&source);
    sandbox.run(["restore", "latest", "--to", "out", "--path", "sub/deep", "--path", "a"]).expect(0);
    assert_eq!(fs::read(sandbox.path("out/sub/deep/c")).unwrap(), b"c");
    assert!(sandbox.path("out/a").exists() && !sandbox.path("out/other").exists() && !sandbox.path("out/sub/b").exists());
    // What was not asked for is not removed either.
    sandbox.run(["restore", "latest", "--to", "out", "--yes", "--delete", "--path", "other"]).expect(0);
    assert!(sandbox.path("out/a").exists() && sandbox.path("out/sub/deep/c").exists() && sandbox.path("out/other/d").exists());

    sandbox.run(["restore", "latest", "--to", "dry", "--dry-run"]).expect(0);
    assert!(!sandbox.path("dry").exists());

    sandbox.run(["restore", "latest", "--tar", "out.tar"]).expect(0);
    let archive = fs::read(sandbox.path("out.tar")).unwrap();
    assert_eq!(sandbox.run(["restore", "latest", "--tar", "-"]).expect(0).stdout, archive);
    fs::create_dir(sandbox.path("untarred")).unwrap();
    run(Command::new("tar").arg("-xpf").arg(sandbox.path("out.tar")).arg("-C").arg(sandbox.path("untarred"))).expect(0);
    assert_same_tree(&source, &sandbox.path("untarred"));
    sandbox.run(["restore", "latest", "--tar", "out.tar"]).expect(2).says(&["exists", "--yes"]);
    sandbox.run(["restore", "latest", "--tar", "out"]).expect(2).says(&["directory"]);
    sandbox.run(["restore", "latest", "--tar", "absent/out.tar"]).expect(1).says(&["absent"]);

    // Into places that need care.
    sandbox.run(["restore", "latest", "--to", "a/b/c/d"]).expect(0);
    sandbox.run(["restore", "latest", "--to", "data/a"]).expect(1).says(&["data/a"]);
    std::os::unix::fs::symlink("untarred", sandbox.path("link")).unwrap();
    sandbox.run(["restore", "latest", "--to", "link", "--yes"]).expect(0);
    assert_same_tree(&source, &sandbox.path("untarred"));
}

#[test]
fn nothing_is_a_source_too() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[]);
    let empty = sandbox.snapshot(&source);
    assert_eq!((empty["files"].as_u64(), empty["bytes"].as_u64()), (Some(0), Some(0)));
    fs::write(source.join("empty file"), b"").unwrap();
    fs::create_dir(source.join("empty folder")).unwrap();
    sandbox.snapshot(&source);
    fs::remove_dir_all(&source).unwrap();
    fs::create_dir(&source).unwrap();
    sandbox.snapshot(&source);
    for (number, snapshot) in sandbox.json(0, ["snapshots"]).as_array().unwrap().iter().enumerate() {
        let out = format!("out{number}");
        sandbox.run(["restore", snapshot["id"].as_str().unwrap(), "--to", &out]).expect(0);
        assert_eq!(fs::read_dir(sandbox.path(&out)).unwrap().count(), if number == 1 { 2 } else { 0 });
    }
    sandbox.run(["verify", "--data"]).expect(0);
    assert_eq!(sandbox.run(["cat", sandbox.json(0, ["snapshots"])[1]["id"].as_str().unwrap(), "empty file"]).expect(0).stdout, b"");
}

#[test]
fn an_unchanged_source_costs_nothing_and_a_change_costs_itself() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("big", &noise(8 << 20, 1)), ("sub/a", b"a"), ("sub/b", b"b")]);
    sandbox.snapshot(&source);
    // Times must be older than the clock is coarse before a file counts as unchanged.
    std::thread::sleep(std::time::Duration::from_millis(50));
    sandbox.snapshot(&source);
    let idle = sandbox.snapshot(&source);
    assert_eq!((idle["new_bytes"].as_u64(), idle["stored_bytes"].as_u64()), (Some(0), Some(0)), "{idle}");
    let mut big = fs::read(source.join("big")).unwrap();
    big.splice(4 << 20..4 << 20, *b"inserted");
    fs::write(source.join("big"), &big).unwrap();
    let changed = sandbox.snapshot(&source);
    assert!((1..600 << 10).contains(&changed["stored_bytes"].as_u64().unwrap()), "{changed}");
    sandbox.run(["restore", "latest", "--to", "out"]).expect(0);
    assert_same_tree(&source, &sandbox.path("out"));
    sandbox.run(["verify", "--data"]).expect(0);
}
