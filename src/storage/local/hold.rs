//! Holds of a local repository: a file that its holder keeps locked. The kernel lets go when the process ends, however it
//! ends; the file that is left over means nothing without the lock.

use std::io;
use std::thread;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock, fstat, openat, statat, unlinkat};
use rustix::io::Errno;

use crate::storage::Hold;

/// How often a lock is tried. Somebody who asks with [`is_held`] has the file locked for microseconds, which must not look
/// like a holder; a file replaced under us costs a try too.
const ATTEMPTS_MAX: usize = 20;

/// The pause between two tries.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(2);

/// A locked file. The lock belongs to this handle and not to the process, so a second hold in one process is refused too.
pub(super) struct LocalHold {
    folder: OwnedFd,
    name: String,
    file: OwnedFd,
}

impl Hold for LocalHold {}

impl LocalHold {
    /// Locks the file `name` in `folder`, made when missing; none when somebody else has it locked.
    pub(super) fn take(folder: OwnedFd, name: &str) -> io::Result<Option<Self>> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        for _ in 0..ATTEMPTS_MAX {
            let file = openat(&folder, name, flags, Mode::RUSR | Mode::WUSR)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                // A holder that let go between our two calls took the name with it; its file, locked, would hold nothing.
                Ok(()) if has_name(&file, &folder, name)? => return Ok(Some(Self { folder, name: name.to_owned(), file })),
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => thread::sleep(ATTEMPT_PAUSE),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(None)
    }
}

impl Drop for LocalHold {
    fn drop(&mut self) {
        // Removed while still locked: whoever opened it before finds out by `has_name`. Unlocked by name rather than by
        // closing, because a child process about to exec has this handle too for a moment.
        if has_name(&self.file, &self.folder, &self.name).unwrap_or(false) {
            let _ = unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Whether somebody has the file `name` in `folder` locked; creates nothing.
pub(super) fn is_held(folder: &OwnedFd, name: &str) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    for _ in 0..ATTEMPTS_MAX {
        let file = match openat(folder, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(false),
            opened => opened?,
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) if has_name(&file, folder, name)? => return Ok(false),
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
    // Taken and let go at every look: somebody is at work with it, and "held" is the answer that deletes nothing.
    Ok(true)
}

/// Whether `name` in `folder` still is the open `file`.
fn has_name(file: &OwnedFd, folder: &OwnedFd, name: &str) -> io::Result<bool> {
    let own = fstat(file)?;
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok((found.st_dev, found.st_ino) == (own.st_dev, own.st_ino)),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
