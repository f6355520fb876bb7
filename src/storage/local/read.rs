//! Objects of a local repository opened for reading, with a few of the last packs kept open: a restore reads one pack in
//! many ranges.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;

use super::{failed, folder::Tree, not_an_object, not_found, place};
use crate::error::Result;
use crate::storage::Key;

/// The most packs kept open; well under the usual limit of 1024 files per process, and above the threads that read.
const OPEN_PACKS_MAX: usize = 32;

/// The packs read last, the most recent first.
#[derive(Default)]
pub(super) struct OpenPacks(Mutex<VecDeque<(Key, Arc<File>)>>);

impl OpenPacks {
    /// Opens an object, or finds it open, and returns it with its length.
    pub(super) fn open(&self, tree: &Tree, key: &Key) -> Result<(Arc<File>, u64)> {
        if !key.as_str().starts_with("packs/") {
            let (file, len) = open_object(tree, key)?;
            return Ok((Arc::new(file), len));
        }
        if let Some(file) = self.take(key) {
            let stat = fstat(&file).map_err(|errno| failed("cannot read", key, errno))?;
            // A pack without a name was deleted, perhaps by another process, and must not be found any more.
            if stat.st_nlink > 0 {
                self.keep(key, &file);
                return Ok((file, len_of(&stat)));
            }
        }
        let (file, len) = open_object(tree, key)?;
        let file = Arc::new(file);
        self.keep(key, &file);
        Ok((file, len))
    }

    /// Closes a pack that is deleted, which also frees its space.
    pub(super) fn forget(&self, key: &Key) {
        drop(self.take(key));
    }

    fn take(&self, key: &Key) -> Option<Arc<File>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = open.iter().position(|(other, _)| other == key)?;
        open.remove(at).map(|(_, file)| file)
    }

    fn keep(&self, key: &Key, file: &Arc<File>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Two threads may have opened the same pack at once; one handle is enough.
        open.retain(|(other, _)| other != key);
        open.push_front((key.clone(), Arc::clone(file)));
        open.truncate(OPEN_PACKS_MAX);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Opens an object for reading and returns it with its length.
pub(super) fn open_object(tree: &Tree, key: &Key) -> Result<(File, u64)> {
    const WHAT: &str = "cannot read";
    let (path, name) = place(key)?;
    let folder = tree.open(path).map_err(|cause| absent_or_failed(WHAT, key, cause))?;
    // Without NONBLOCK a named pipe in the place of an object would stop us for good.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(&folder, name, flags, Mode::empty()).map_err(|errno| match errno {
        Errno::LOOP => not_an_object(WHAT, key),
        errno => absent_or_failed(WHAT, key, errno.into()),
    })?;
    let stat = fstat(&file).map_err(|errno| failed(WHAT, key, errno))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok((File::from(file), len_of(&stat))),
        FileType::Directory => Err(not_found(WHAT, key)),
        _ => Err(not_an_object(WHAT, key)),
    }
}

/// A file's length. The kernel never reports a negative one.
pub(super) fn len_of(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

fn absent_or_failed(what: &str, key: &Key, cause: std::io::Error) -> crate::Error {
    if cause.kind() == std::io::ErrorKind::NotFound { not_found(what, key) } else { failed(what, key, cause) }
}
