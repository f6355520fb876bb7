//! Folders of a local repository: found and made from one handle of its root, component by component, so that a symbolic
//! link inside the repository leads nowhere; and made durable.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fsync, mkdirat, openat};
use rustix::io::Errno;

/// How every folder is opened: for reading, because a handle made with `O_PATH` cannot be synced.
pub(super) const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The folders below an open root. Paths are relative to it, components joined by `/`; the root itself is the empty path.
pub(super) struct Tree {
    root: OwnedFd,
    /// Folders whose own entries, and those of all folders above, are known to be durable. Folders are never removed.
    settled: Mutex<BTreeSet<String>>,
    /// Set for good once syncing a folder failed. The kernel reports such a failure once and then forgets it, so a second
    /// try that succeeds would prove nothing.
    broken: AtomicBool,
}

impl Tree {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self { root, settled: Mutex::new(BTreeSet::new()), broken: AtomicBool::new(false) }
    }

    /// Opens the folder at `path`. `NOENT` when it or one above is not there, `NOTDIR` or `LOOP` when something else is in
    /// its place.
    pub(super) fn open(&self, path: &str) -> io::Result<OwnedFd> {
        let mut folder = openat(&self.root, ".", FOLDER, Mode::empty())?;
        for name in components(path) {
            folder = open_below(&folder, name)?;
        }
        Ok(folder)
    }

    /// Opens the folder at `path` and makes it, and those above, where they are missing. They are not durable yet.
    pub(super) fn make(&self, path: &str) -> io::Result<OwnedFd> {
        let mut folder = openat(&self.root, ".", FOLDER, Mode::empty())?;
        for name in components(path) {
            // Opened before made: on a read-only repository an existing folder must not be an error.
            folder = match open_below(&folder, name) {
                Err(Errno::NOENT) => {
                    match mkdirat(&folder, name, Mode::RWXU) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(errno) => return Err(errno.into()),
                    }
                    open_below(&folder, name)?
                }
                found => found?,
            };
        }
        Ok(folder)
    }

    /// Makes the entries in `folder`, which is at `path`, durable, and those of the folders that lead to it.
    ///
    /// That a folder was there already says nothing: another process may have made it and not synced its entry yet. So
    /// what leads to a folder is synced at its first use, whoever made it.
    pub(super) fn settle(&self, path: &str, folder: &OwnedFd) -> io::Result<()> {
        self.check_intact()?;
        let result = sync_folder(folder).and_then(|()| self.settle_above(path));
        if result.is_err() {
            self.broken.store(true, Ordering::SeqCst);
        }
        result
    }

    /// An error once [`Tree::settle`] has failed.
    pub(super) fn check_intact(&self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("an earlier write to this repository could not be made durable"));
        }
        Ok(())
    }

    fn settle_above(&self, path: &str) -> io::Result<()> {
        if path.is_empty() || self.settled.lock().unwrap_or_else(PoisonError::into_inner).contains(path) {
            return Ok(());
        }
        let (above, _) = split(path);
        sync_folder(&self.open(above)?)?;
        self.settle_above(above)?;
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned());
        Ok(())
    }
}

/// The folder part and the last component of a path.
pub(super) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Makes the entries of a folder durable.
pub(super) fn sync_folder(folder: impl AsFd) -> io::Result<()> {
    match fsync(folder) {
        // Some network and user-space file systems cannot sync a folder and say so; their entries are as durable as they
        // get. A real failure has another code.
        Ok(()) | Err(Errno::INVAL | Errno::NOTSUP) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn components(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

fn open_below(folder: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    openat(folder, name, FOLDER.union(OFlags::NOFOLLOW), Mode::empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rustix::fs::CWD;

    use super::*;

    #[test]
    fn after_a_failed_sync_nothing_counts_as_durable_any_more() {
        let place = tempfile::tempdir().unwrap();
        let tree = Tree::new(openat(CWD, place.path(), FOLDER, Mode::empty()).unwrap());
        let folder = tree.make("log/0").unwrap();
        tree.settle("log/0", &folder).unwrap();
        // A handle that cannot be synced stands for a disk that fails.
        let failing = openat(CWD, place.path(), OFlags::PATH, Mode::empty()).unwrap();
        assert!(tree.settle("log/0", &failing).is_err());
        assert!(tree.settle("log/0", &folder).is_err() && tree.check_intact().is_err());
        assert!(tree.open("log/0").is_ok());
    }
}
