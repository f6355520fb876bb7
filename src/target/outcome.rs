//! What goes wrong while placing entries: errors with the operating system's cause, and shortfalls, which end nothing.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::error::{Error, ErrorKind};
use crate::model::TreePath;

use super::Shortfall;

/// How many shortfalls are kept in words; the rest is counted. A restore by an ordinary user can have one for each of
/// millions of files, and nobody reads more than this.
const SHORTFALLS_MAX: usize = 10_000;

/// Whether an error of a target concerns the target as a whole (full, read-only, failing or gone) so that no other entry
/// would fare better. Any other error of kind [`ErrorKind::Target`] costs its own entry only.
pub fn ends_run(error: &Error) -> bool {
    use io::ErrorKind as Io;
    error.kind() == ErrorKind::Target
        && matches!(
            error.io_kind(),
            Some(Io::StorageFull | Io::QuotaExceeded | Io::ReadOnlyFilesystem | Io::BrokenPipe | Io::WriteZero | Io::Other)
        )
}

/// Whether an errno is one of those that [`ends_run`] recognises.
pub(super) fn is_fatal(cause: Errno) -> bool {
    matches!(cause, Errno::IO | Errno::ROFS | Errno::NOSPC | Errno::DQUOT)
}

/// An operation on the target that failed. The caller adds the path.
pub(super) fn failed(what: &str, cause: Errno) -> Error {
    let error = Error::new(ErrorKind::Target, what);
    match cause {
        // The standard library has no public kind for EIO; `Other` is how `ends_run` knows it.
        Errno::IO => error.because(io::Error::other("input/output error")),
        Errno::PERM => error.because(io::Error::from(cause)).hint("an immutable or append-only file (lsattr) has to be released first"),
        Errno::NOSPC | Errno::DQUOT => {
            error.because(io::Error::from(cause)).hint("make room and run the restore again: it goes on where it stopped")
        }
        _ => error.because(io::Error::from(cause)),
    }
}

/// The shortfalls of one restore.
#[derive(Default)]
pub(super) struct Shortfalls {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    list: Vec<Shortfall>,
    more: u64,
}

impl Shortfalls {
    pub(super) fn add(&self, path: impl FnOnce() -> TreePath, message: String) {
        let mut kept = lock(&self.kept);
        if kept.list.len() < SHORTFALLS_MAX {
            kept.list.push(Shortfall { path: path(), message });
        } else {
            kept.more += 1;
        }
    }

    /// Those kept, and at the end one on the root that counts the others.
    pub(super) fn list(&self) -> Vec<Shortfall> {
        let kept = lock(&self.kept);
        let mut list = kept.list.clone();
        if kept.more > 0 {
            list.push(Shortfall { path: TreePath::root(), message: format!("{} more entries have shortfalls like these", kept.more) });
        }
        list
    }
}

/// Locks, also after another thread panicked: nothing here is left half-changed by a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_concerns_the_whole_target_ends_the_run() {
        for cause in [Errno::IO, Errno::ROFS, Errno::NOSPC, Errno::DQUOT] {
            assert!(is_fatal(cause) && ends_run(&failed("x", cause)), "{cause:?}");
        }
        for cause in [Errno::ACCESS, Errno::NAMETOOLONG, Errno::INVAL, Errno::PERM, Errno::MLINK, Errno::FBIG] {
            assert!(!is_fatal(cause) && !ends_run(&failed("x", cause)), "{cause:?}");
        }
        assert!(!ends_run(&failed("x", Errno::IO).with_kind(ErrorKind::Storage)), "the repository's errors are its own");
    }

    #[test]
    fn shortfalls_beyond_the_bound_are_counted() {
        let shortfalls = Shortfalls::default();
        for _ in 0..SHORTFALLS_MAX + 3 {
            shortfalls.add(TreePath::root, "owner".into());
        }
        let list = shortfalls.list();
        assert_eq!(list.len(), SHORTFALLS_MAX + 1);
        assert_eq!(list.last().map(|s| s.message.as_str()), Some("3 more entries have shortfalls like these"));
    }
}
