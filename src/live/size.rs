//! Measures a volume by walking it, for those who want its size and have no snapshot of it. Engines can tell sizes, too, but
//! only of all volumes at once and by walking them all.

use std::sync::Arc;

use crate::error::Result;
use crate::model::Name;
use crate::model::path::NESTING_MAX;
use crate::source::{EntryKind, Source, SourceDir, Stat};

/// A directory and those in it that are still to be gone through.
type Open = (Arc<dyn SourceDir>, Vec<(Name, Stat)>);

/// What a walk found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Entries that are not directories.
    pub files: u64,
    /// Bytes of file content, holes included; a file with several names counts with each.
    pub bytes: u64,
    /// Entries that could not be looked at.
    pub unreadable: u64,
}

/// Walks `source`. `go_on` is asked at each directory.
pub fn measure(source: &dyn Source, go_on: &dyn Fn() -> Result<()>) -> Result<Size> {
    let mut size = Size::default();
    let root = source.root()?;
    let below = look_into(&*root, &mut size)?;
    // The directories that the walk is in, each with those below it that are still to be seen.
    let mut walk: Vec<Open> = vec![(root, below)];
    while let Some((directory, below)) = walk.last_mut() {
        go_on()?;
        let Some((name, stat)) = below.pop() else {
            walk.pop();
            continue;
        };
        let opened = directory.open_dir(&name, &stat);
        let looked = opened.and_then(|opened| look_into(&*opened, &mut size).map(|below| (opened, below)));
        match looked {
            Ok(next) if walk.len() < NESTING_MAX => walk.push(next),
            _ => size.unreadable += 1,
        }
    }
    Ok(size)
}

/// Counts a directory's entries and returns the directories among them.
fn look_into(directory: &dyn SourceDir, size: &mut Size) -> Result<Vec<(Name, Stat)>> {
    let mut below = Vec::new();
    for entry in directory.entries()? {
        match entry.stat {
            Ok(stat) if stat.kind == EntryKind::Directory => below.push((entry.name, stat)),
            Ok(stat) => {
                size.files += 1;
                if stat.kind == EntryKind::File {
                    size.bytes = size.bytes.saturating_add(stat.size);
                }
            }
            Err(_) => size.unreadable += 1,
        }
    }
    Ok(below)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};
    use crate::source::dir::DirSource;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_walk_counts_files_and_follows_no_links() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b/c")).unwrap();
        fs::write(dir.path().join("a/one"), vec![0; 1000]).unwrap();
        fs::write(dir.path().join("a/b/c/two"), vec![0; 24]).unwrap();
        symlink("/", dir.path().join("a/b/root")).unwrap();
        let source = DirSource::open(dir.path()).unwrap();
        assert_eq!(measure(&source, &|| Ok(())).unwrap(), Size { files: 3, bytes: 1024, unreadable: 0 });
        let stop = || Err(Error::new(ErrorKind::Interrupted, "stop"));
        assert_eq!(measure(&source, &stop).unwrap_err().kind(), ErrorKind::Interrupted);
    }
}
