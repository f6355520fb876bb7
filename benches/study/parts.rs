//! Which files are measured together.

use std::io;
use std::path::{Path, PathBuf};

/// Two states of the same files.
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) old: PathBuf,
    pub(crate) new: PathBuf,
    /// Paths below `old`, sorted.
    pub(crate) old_files: Vec<PathBuf>,
    /// Paths below `new`, sorted.
    pub(crate) new_files: Vec<PathBuf>,
}

const WAL: &str = "pg_wal";

/// The parts of two states: their subfolders, and the write-ahead log in one apart, as nothing in it is like before.
pub(crate) fn find(old: &Path, new: &Path) -> io::Result<Vec<Part>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(old)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name());
        }
    }
    names.sort();
    let mut parts = Vec::new();
    for name in names {
        let (old, new) = (old.join(&name), new.join(&name));
        let name = name.to_string_lossy().into_owned();
        let (old_files, new_files) = (files(&old)?, files(&new)?);
        let in_wal = |file: &PathBuf| file.components().any(|part| part.as_os_str() == WAL);
        let (old_wal, old_files): (Vec<_>, Vec<_>) = old_files.into_iter().partition(in_wal);
        let (new_wal, new_files): (Vec<_>, Vec<_>) = new_files.into_iter().partition(in_wal);
        if !old_wal.is_empty() || !new_wal.is_empty() {
            let name = format!("{name} {WAL}");
            parts.push(Part { name, old: old.clone(), new: new.clone(), old_files: old_wal, new_files: new_wal });
        }
        parts.push(Part { name, old, new, old_files, new_files });
    }
    Ok(parts)
}

fn files(root: &Path) -> io::Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Makes small data below `root`: pages of a database with some rewritten, files of this host, noise. Returns the two states.
pub(crate) fn make(root: &Path) -> io::Result<Vec<PathBuf>> {
    const PAGE: usize = 8 << 10;
    const PAGES: usize = 8 << 10;
    let (old, new) = (root.join("old"), root.join("new"));
    for state in [&old, &new] {
        for part in ["pages", "small", "noise"] {
            std::fs::create_dir_all(state.join(part))?;
        }
    }
    let mut random = Random::new(1);
    let mut pages = vec![0; PAGES * PAGE];
    pages.chunks_mut(PAGE).enumerate().for_each(|(number, page)| fill_page(page, number, &mut random));
    std::fs::write(old.join("pages/table"), &pages)?;
    for _ in 0..PAGES / 12 {
        let at = random.below(PAGES) * PAGE + random.below(PAGE - 64);
        let stamp = random.next().to_le_bytes();
        pages[at..at + 8].copy_from_slice(&stamp);
    }
    std::fs::write(new.join("pages/table"), &pages)?;

    let sources = ["/usr/include", "/usr/share/doc", "/usr/lib/python3"].map(Path::new);
    let mut copied = 0;
    for source in sources.into_iter().filter(|source| source.is_dir()) {
        for file in files(source)?.into_iter().take(3_000) {
            let Ok(mut bytes) = std::fs::read(source.join(&file)) else { continue };
            let name = format!("small/{copied}");
            std::fs::write(old.join(&name), &bytes)?;
            if copied % 100 == 0 {
                bytes.extend_from_slice(b"edited\n");
            }
            std::fs::write(new.join(&name), &bytes)?;
            copied += 1;
        }
    }
    let mut noise = vec![0; 32 << 20];
    noise.chunks_mut(8).for_each(|word| word.copy_from_slice(&random.next().to_le_bytes()[..word.len()]));
    std::fs::write(old.join("noise/media"), &noise)?;
    noise.truncate(24 << 20);
    std::fs::write(new.join("noise/media"), &noise)?;
    Ok(vec![old, new])
}

/// Rows that differ in a few numbers, as in a table.
fn fill_page(page: &mut [u8], number: usize, random: &mut Random) {
    for (row, line) in page.chunks_mut(128).enumerate() {
        let text = format!("{:012}|{:08x}|balance {:6}|{:84}|", number * 64 + row, random.next() as u32, random.below(1000), "");
        line.iter_mut().zip(text.bytes().chain(std::iter::repeat(0))).for_each(|(byte, from)| *byte = from);
    }
}

/// A small generator (xorshift64*): the same data in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }
}
