//! Locks that end with the process, and folders that belong to one process and go with it.
//!
//! A lock is an advisory lock (`flock`) on a file: the kernel lets it go when the process ends, however it ends. A folder
//! `x` is accompanied by a locked file `x.lock`, which is there before the folder and goes after it. Whoever can take that
//! lock knows that the owner is dead, and may remove both.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, IoContext, Result};

/// Attempts at a name or lock that others remove at the same moment; more than one is already unlikely.
const ATTEMPTS_MAX: u32 = 16;
const LOCK_SUFFIX: &str = ".lock";

/// A folder for this value alone; it is removed with it.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes an empty folder of a new name in `parent`.
    pub(super) fn create(parent: &Path) -> Result<Self> {
        make_dir(parent)?;
        for _ in 0..ATTEMPTS_MAX {
            let name = random_name()?;
            // Nobody else uses this name, but a sweep may hold the fresh lock for an instant.
            let Some(lock) = try_lock(&lock_of(parent, &name))? else { continue };
            let path = parent.join(name);
            make_dir(&path)?;
            return Ok(Self { path, _lock: lock });
        }
        Err(Error::new(ErrorKind::Cache, "cannot make a folder of its own").on(parent.display()))
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folders in `parent` whose owners are dead. What cannot be removed now is left to the next sweep.
    pub(super) fn sweep(parent: &Path) {
        let Ok(entries) = fs::read_dir(parent) else { return };
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let names: BTreeSet<String> = names.map(|name| name.strip_suffix(LOCK_SUFFIX).unwrap_or(&name).to_owned()).collect();
        for name in names {
            if let Ok(Some(_lock)) = try_lock(&lock_of(parent, &name)) {
                remove(parent, &name);
            }
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name().and_then(|name| name.to_str())) {
            remove(parent, name);
        }
    }
}

/// Takes the lock of a file, which is made if need be; `None` when somebody else has it. Locks of one process exclude each
/// other too.
pub(super) fn try_lock(path: &Path) -> Result<Option<File>> {
    let failed = "cannot lock";
    for _ in 0..ATTEMPTS_MAX {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(path);
        let file = file.context(ErrorKind::Cache, failed, path.display())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(cause)) => return Err(cause).context(ErrorKind::Cache, failed, path.display()),
        }
        if is_named(&file, path).context(ErrorKind::Cache, failed, path.display())? {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// Whether `path` still leads to the open `file`. The lock's last owner may have removed the file between our opening and
/// our locking it, and a lock on a file without a name excludes nobody.
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(cause),
    }
}

/// Makes a folder (and those above it) that only its owner enters; one that is there stays as it is.
pub(super) fn make_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).context(ErrorKind::Cache, "cannot make the folder", path.display())
}

/// A name that nobody else has.
pub(super) fn random_name() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|cause| Error::new(ErrorKind::Cache, "the system gives no random bytes").because(cause.to_string()))?;
    Ok(format!("{:016x}", u64::from_le_bytes(bytes)))
}

fn lock_of(parent: &Path, name: &str) -> PathBuf {
    parent.join(format!("{name}{LOCK_SUFFIX}"))
}

/// Removes a folder, then the lock, which the caller holds.
fn remove(parent: &Path, name: &str) {
    match fs::remove_dir_all(parent.join(name)) {
        Ok(()) => {}
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        // The lock stays with what is left, for the next sweep.
        Err(_) => return,
    }
    let _ = fs::remove_file(lock_of(parent, name));
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn names(parent: &Path) -> Vec<String> {
        fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_scratch_folder_goes_with_its_value() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(parent.path()).unwrap();
        fs::write(scratch.path().join("x"), "x").unwrap();
        assert_eq!(fs::metadata(scratch.path()).unwrap().mode() & 0o777, 0o700);
        drop(scratch);
        assert_eq!(names(parent.path()), [""; 0]);
    }

    #[test]
    fn a_sweep_takes_the_dead_and_leaves_the_living() {
        let parent = tempfile::tempdir().unwrap();
        let living = Scratch::create(parent.path()).unwrap();
        fs::write(living.path().join("x"), "x").unwrap();
        // What a killed process leaves: a folder with an unlocked lock; cut short earlier or later, only one of the two.
        fs::create_dir(parent.path().join("dead")).unwrap();
        fs::write(parent.path().join("dead/x"), "x").unwrap();
        fs::write(parent.path().join("dead.lock"), "").unwrap();
        fs::create_dir(parent.path().join("unlocked")).unwrap();
        fs::write(parent.path().join("lonely.lock"), "").unwrap();
        Scratch::sweep(parent.path());
        assert!(living.path().join("x").exists());
        assert_eq!(names(parent.path()).len(), 2, "{:?}", names(parent.path()));
    }

    #[test]
    fn a_lock_excludes_until_it_is_dropped() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("lock");
        let lock = try_lock(&path).unwrap().unwrap();
        assert!(try_lock(&path).unwrap().is_none());
        drop(lock);
        assert!(try_lock(&path).unwrap().is_some());
    }

    #[test]
    fn a_removed_or_replaced_lock_is_told_from_a_named_one() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("lock");
        let file = File::create(&path).unwrap();
        assert!(is_named(&file, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_named(&file, &path).unwrap());
        fs::write(&path, "").unwrap();
        assert!(!is_named(&file, &path).unwrap());
    }

    #[test]
    fn sweeps_and_creators_do_not_hurt_each_other() {
        let parent = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..100 {
                        let scratch = Scratch::create(parent.path()).unwrap();
                        fs::write(scratch.path().join("x"), "x").unwrap();
                        std::thread::yield_now();
                        assert!(scratch.path().join("x").exists());
                    }
                });
                scope.spawn(|| (0..100).for_each(|_| Scratch::sweep(parent.path())));
            }
        });
        Scratch::sweep(parent.path());
        assert_eq!(names(parent.path()), [""; 0]);
    }
}
