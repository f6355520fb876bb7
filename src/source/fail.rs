//! What a failed operation on a source means: the one table from the system's errors to ours, shared by all sources.

use std::fmt::Display;
use std::io;

use rustix::io::Errno;

use crate::error::{Error, ErrorKind};

use super::{EntryKind, Stat};

/// `attempt` ("cannot read") on `subject` failed: [`ErrorKind::NotFound`] when the entry is gone, else
/// [`ErrorKind::Source`].
pub(super) fn failed(cause: impl Into<io::Error>, attempt: &str, subject: impl Display) -> Error {
    let cause = cause.into();
    let kind = if cause.kind() == io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Source };
    let error = Error::new(kind, attempt).on(subject);
    let error = match cause.kind() {
        io::ErrorKind::PermissionDenied => error.hint("run as root, or as a user who may read all of the source"),
        _ => error,
    };
    error.because(cause)
}

/// As [`failed`], for an open that follows no symlink and asks for one type: that the type is wrong means that the entry
/// was swapped since it was listed.
pub(super) fn open_failed(cause: impl Into<io::Error>, subject: impl Display) -> Error {
    let cause = cause.into();
    match Errno::from_io_error(&cause) {
        Some(Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => replaced(subject),
        _ => failed(cause, "cannot open", subject),
    }
}

/// The entry is no longer the one that was listed.
pub(super) fn replaced(subject: impl Display) -> Error {
    Error::new(ErrorKind::Source, "was replaced while it was read").on(subject)
}

/// Whether `found` is the entry that `expected` described: the same file system and inode, and of type `kind`.
pub(super) fn is_same(expected: &Stat, found: &Stat, kind: EntryKind) -> bool {
    expected.kind == kind && found.kind == kind && expected.device == found.device && expected.inode == found.inode
}
