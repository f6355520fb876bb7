//! Open directories for trees deeper than a process may have files open. A [`DirHandle`] knows how to come back to its
//! directory from the ones above it; a [`Pool`] keeps a bounded number of them open and closes the least used.
//!
//! A directory that was closed is reached again name by name from the nearest one that is still open, each step without
//! following symlinks and checked against the device and inode that it had at first. No path is ever built, so `PATH_MAX`
//! means nothing here.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::Result;
use crate::model::Name;
use crate::model::path::escape;

use super::fail::{is_same, open_failed, replaced};
use super::stat::stat_handle;
use super::{EntryKind, Stat};

/// How any entry is opened: no symlink is followed, no terminal taken, and no open waits for a peer.
pub(super) const OPEN: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NOCTTY).union(OFlags::NONBLOCK);

/// Fewer open directories than this would have a walk reopen its ancestors all the time.
const OPEN_DIRS_MIN: u64 = 16;
/// More open directories than this gain a walk nothing, and each holds kernel memory.
const OPEN_DIRS_MAX: u64 = 4096;
/// The soft limit on open files is raised this far, if the hard limit lets it. Not further: hooks inherit it, and there are
/// programs that close every number below the limit when they start.
const DESCRIPTORS_WANTED: u64 = 65_536;
/// A path in an error message is cut from the left beyond this; trees may be deep enough for paths of megabytes.
const SUBJECT_BYTES_MAX: usize = 4096;

/// The open directories of one source.
pub(super) struct Pool {
    /// The root is always open: there is nothing above it to reopen it from.
    root: Arc<OwnedFd>,
    limit: usize,
    next_id: AtomicU64,
    open: Mutex<OpenDirs>,
}

#[derive(Default)]
struct OpenDirs {
    by_handle: HashMap<u64, (Arc<OwnedFd>, u64)>,
    by_use: BTreeMap<u64, u64>,
    uses: u64,
}

/// A directory of the source, open or not.
pub(super) struct DirHandle {
    pool: Arc<Pool>,
    id: u64,
    /// The directory above and this one's name in it; none for the root.
    above: Option<(Arc<DirHandle>, Name)>,
    expected: Stat,
    /// Held while the directory is listed: a listing moves the position that all users of the open directory share.
    listing: Mutex<()>,
}

/// How many directories to keep open: a quarter of the files that the process may open, which is first raised towards the
/// hard limit. The rest is for files being read, the repository and the index.
pub(super) fn open_dirs_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS_WANTED, |hard| hard.min(DESCRIPTORS_WANTED));
    let mut soft = limit.current.unwrap_or(DESCRIPTORS_WANTED);
    // Failure costs speed only: the walk then works with the limit that there is.
    if soft < wanted && setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }).is_ok() {
        soft = wanted;
    }
    usize::try_from((soft / 4).clamp(OPEN_DIRS_MIN, OPEN_DIRS_MAX)).unwrap_or(usize::MAX)
}

impl DirHandle {
    /// The handle of a source's root, which stays open, with at most `limit` directories open below it.
    pub(super) fn root(fd: OwnedFd, limit: usize) -> Result<Arc<Self>> {
        let expected = stat_handle(&fd, || "/".into())?;
        let pool = Pool { root: Arc::new(fd), limit, next_id: AtomicU64::new(1), open: Mutex::default() };
        Ok(Arc::new(Self { pool: Arc::new(pool), id: 0, above: None, expected, listing: Mutex::default() }))
    }

    /// The handle of the directory `name` in this one, open, if it is still the one of `expected`.
    pub(super) fn open_dir(self: &Arc<Self>, name: &Name, expected: &Stat) -> Result<Arc<Self>> {
        let fd = self.open_below(&*self.fd()?, name, expected)?;
        let id = self.pool.next_id.fetch_add(1, Ordering::Relaxed);
        self.pool.put(id, Arc::new(fd));
        let above = Some((self.clone(), name.clone()));
        Ok(Arc::new(Self { pool: self.pool.clone(), id, above, expected: *expected, listing: Mutex::default() }))
    }

    /// The open directory. It stays open for as long as the caller keeps it, pool or not.
    pub(super) fn fd(&self) -> Result<Arc<OwnedFd>> {
        let mut closed = Vec::new();
        let mut handle = self;
        let mut fd = loop {
            match (handle.pool.get(handle.id), &handle.above) {
                (Some(fd), _) => break fd,
                (None, None) => break handle.pool.root.clone(),
                (None, Some((above, name))) => {
                    closed.push((handle, above, name));
                    handle = above;
                }
            }
        };
        while let Some((handle, above, name)) = closed.pop() {
            fd = Arc::new(above.open_below(&fd, name, &handle.expected)?);
            // On its way up a walk wants the directories above this one next, so the nearest ones stay open. Only half the
            // pool: other threads are in other places.
            if closed.len() < self.pool.limit.div_ceil(2) {
                self.pool.put(handle.id, fd.clone());
            }
        }
        Ok(fd)
    }

    /// Runs `open` and, where the process has too many files open, once more after the pool has given up its own.
    pub(super) fn with_room<T>(&self, open: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        match retry_on_intr(&open) {
            Err(Errno::MFILE | Errno::NFILE) => {
                self.pool.close_all();
                retry_on_intr(&open)
            }
            done => done,
        }
    }

    /// Keeps other threads from listing this directory meanwhile.
    pub(super) fn lock_listing(&self) -> MutexGuard<'_, ()> {
        self.listing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This directory's path below the root, or with `name` that of an entry, escaped, for messages.
    pub(super) fn subject(&self, name: Option<&Name>) -> String {
        let mut names: Vec<&[u8]> = name.iter().map(|name| name.as_bytes()).collect();
        let mut bytes = 0;
        let mut handle = self;
        while let Some((above, name)) = &handle.above {
            bytes += name.as_bytes().len() + 1;
            if bytes > SUBJECT_BYTES_MAX {
                names.push("…".as_bytes());
                break;
            }
            names.push(name.as_bytes());
            handle = above;
        }
        names.reverse();
        if names.is_empty() { "/".into() } else { escape(&names.join(&b'/')) }
    }

    fn open_below(&self, fd: impl AsFd, name: &Name, expected: &Stat) -> Result<OwnedFd> {
        let subject = || self.subject(Some(name));
        // With O_DIRECTORY nothing but a directory is opened, so a device put in its place never is.
        let found = self
            .with_room(|| open_without_atime(&fd, name.as_bytes(), OPEN | OFlags::DIRECTORY))
            .map_err(|cause| open_failed(cause, subject()))?;
        if !is_same(expected, &stat_handle(&found, subject)?, EntryKind::Directory) {
            return Err(replaced(subject()));
        }
        Ok(found)
    }
}

/// Opens so that reading leaves the access time alone, where the system allows it (owner or root).
pub(super) fn open_without_atime(dir: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    match openat(dir.as_fd(), path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => openat(dir.as_fd(), path, flags, Mode::empty()),
        done => done,
    }
}

impl Drop for DirHandle {
    /// Takes the chain of directories above apart in a loop: a hostile tree is deeper than the stack.
    fn drop(&mut self) {
        self.pool.forget(self.id);
        let mut above = self.above.take();
        while let Some((handle, _)) = above {
            above = Arc::into_inner(handle).and_then(|mut handle| handle.above.take());
        }
    }
}

impl Pool {
    fn get(&self, id: u64) -> Option<Arc<OwnedFd>> {
        let mut guard = self.lock();
        let open = &mut *guard;
        let (fd, used) = open.by_handle.get_mut(&id)?;
        open.by_use.remove(used);
        open.uses += 1;
        *used = open.uses;
        open.by_use.insert(open.uses, id);
        Some(fd.clone())
    }

    fn put(&self, id: u64, fd: Arc<OwnedFd>) {
        // Closed after the lock is released: closing can take time on network file systems.
        let mut closed = Vec::new();
        let mut open = self.lock();
        closed.extend(open.remove(id));
        open.uses += 1;
        let used = open.uses;
        open.by_handle.insert(id, (fd, used));
        open.by_use.insert(used, id);
        while open.by_handle.len() > self.limit {
            let Some((_, oldest)) = open.by_use.first_key_value() else { break };
            let oldest = *oldest;
            closed.extend(open.remove(oldest));
        }
        drop(open);
    }

    fn forget(&self, id: u64) {
        let closed = self.lock().remove(id);
        drop(closed);
    }

    fn close_all(&self) {
        let closed = std::mem::take(&mut *self.lock());
        drop(closed);
    }

    fn lock(&self) -> MutexGuard<'_, OpenDirs> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenDirs {
    fn remove(&mut self, id: u64) -> Option<Arc<OwnedFd>> {
        let (fd, used) = self.by_handle.remove(&id)?;
        self.by_use.remove(&used);
        Some(fd)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use rustix::fs::{AtFlags, CWD, mkdirat, unlinkat};

    use super::super::stat::stat_entry;
    use super::*;
    use crate::error::ErrorKind;

    fn root(path: &Path, limit: usize) -> Arc<DirHandle> {
        let fd = openat(CWD, path, OPEN | OFlags::DIRECTORY, Mode::empty()).unwrap();
        DirHandle::root(fd, limit).unwrap()
    }

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn enter(dir: &Arc<DirHandle>, text: &str) -> Arc<DirHandle> {
        let stat = stat_entry(&*dir.fd().unwrap(), &name(text), || text.into()).unwrap();
        dir.open_dir(&name(text), &stat).unwrap()
    }

    fn open_count(dir: &DirHandle) -> usize {
        let open = dir.pool.lock();
        assert_eq!(open.by_handle.len(), open.by_use.len());
        open.by_handle.len()
    }

    /// Makes `depth` directories in each other; the path of the last is far longer than PATH_MAX.
    fn make_deep(path: &Path, name: &str, depth: usize) {
        let mut dir = openat(CWD, path, OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&dir, name, Mode::RWXU).unwrap();
            dir = openat(&dir, name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
    }

    /// Takes it away again from below: what cleans up after a test may need a file descriptor for each level.
    fn remove_deep(path: &Path, name: &str, depth: usize) {
        let mut dir = openat(CWD, path, OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..depth {
            dir = openat(&dir, name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        for _ in 0..depth {
            dir = openat(&dir, "..", OFlags::DIRECTORY, Mode::empty()).unwrap();
            unlinkat(&dir, name, AtFlags::REMOVEDIR).unwrap();
        }
    }

    #[test]
    fn a_tree_deeper_than_the_pool_is_walked_down_and_up() {
        const DEPTH: usize = 2000;
        let long = "d".repeat(200);
        let temp = tempfile::tempdir().unwrap();
        make_deep(temp.path(), &long, DEPTH);
        let mut chain = vec![root(temp.path(), 16)];
        for _ in 0..DEPTH {
            chain.push(enter(chain.last().unwrap(), &long));
            assert!(open_count(&chain[0]) <= 16);
        }
        for (depth, dir) in chain.iter().enumerate().rev() {
            let stat = stat_handle(&*dir.fd().unwrap(), String::new).unwrap();
            assert_eq!((stat.inode, stat.device), (dir.expected.inode, dir.expected.device), "at depth {depth}");
            assert!(open_count(dir) <= 16);
        }
        let subject = chain[DEPTH].subject(None);
        assert!(subject.starts_with("…/dddd") && subject.len() <= SUBJECT_BYTES_MAX + 8, "{}", subject.len());
        drop(chain);
        remove_deep(temp.path(), &long, DEPTH);
    }

    #[test]
    fn threads_share_a_pool_smaller_than_their_number() {
        let temp = tempfile::tempdir().unwrap();
        let top = root(temp.path(), 2);
        let mut dirs = Vec::new();
        for number in 0..8 {
            std::fs::create_dir_all(temp.path().join(format!("{number}/x/y"))).unwrap();
            let x = enter(&enter(&top, &number.to_string()), "x");
            dirs.push(enter(&x, "y"));
            dirs.push(x);
        }
        std::thread::scope(|scope| {
            for start in 0..4 {
                let dirs = &dirs;
                scope.spawn(move || {
                    for step in 0..500 {
                        let dir = &dirs[(start * 3 + step * 7) % dirs.len()];
                        let stat = stat_handle(&*dir.fd().unwrap(), String::new).unwrap();
                        assert_eq!(stat.inode, dir.expected.inode);
                    }
                });
            }
        });
        assert_eq!(open_count(&top), 2);
        drop(dirs);
        assert_eq!(open_count(&top), 0, "a handle that is gone keeps nothing open");
    }

    #[test]
    fn a_directory_swapped_while_it_was_closed_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path();
        std::fs::create_dir_all(path.join("a/b/c")).unwrap();
        let top = root(path, 16);
        let c = enter(&enter(&enter(&top, "a"), "b"), "c");
        std::fs::rename(path.join("a/b"), path.join("a/old")).unwrap();
        std::fs::create_dir_all(path.join("a/b/c")).unwrap();
        c.fd().unwrap();
        top.pool.close_all();
        let error = c.fd().unwrap_err();
        assert_eq!((error.kind(), error.subject()), (ErrorKind::Source, Some("a/b")));
        assert!(error.to_string().contains("was replaced"), "{error}");

        std::fs::remove_dir_all(path.join("a/b")).unwrap();
        std::os::unix::fs::symlink("old", path.join("a/b")).unwrap();
        assert!(c.fd().unwrap_err().to_string().contains("was replaced"));

        std::fs::remove_file(path.join("a/b")).unwrap();
        assert_eq!(c.fd().unwrap_err().kind(), ErrorKind::NotFound);

        std::fs::rename(path.join("a/old"), path.join("a/b")).unwrap();
        c.fd().unwrap();
    }

    #[test]
    fn a_process_out_of_descriptors_gives_up_the_pools_own() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("a")).unwrap();
        let top = root(temp.path(), 16);
        let _a = enter(&top, "a");
        let opened = top.with_room(|| if open_count(&top) > 0 { Err(Errno::MFILE) } else { Ok(7) });
        assert_eq!(opened, Ok(7));
        assert_eq!(top.with_room(|| Err::<(), _>(Errno::MFILE)), Err(Errno::MFILE), "tried once more, not for ever");
    }

    #[test]
    fn a_hundred_thousand_nested_handles_are_dropped_on_a_small_stack() {
        let temp = tempfile::tempdir().unwrap();
        let top = root(temp.path(), 16);
        let mut dir = top.clone();
        for id in 1..=100_000 {
            let above = Some((dir, name("d")));
            dir = Arc::new(DirHandle { pool: top.pool.clone(), id, above, expected: top.expected, listing: Mutex::default() });
        }
        let branch = dir.above.as_ref().unwrap().0.clone();
        let dropping = std::thread::Builder::new().stack_size(128 << 10).spawn(move || drop((dir, branch))).unwrap();
        dropping.join().unwrap();
        assert_eq!(Arc::strong_count(&top), 1);
    }

    #[test]
    fn the_limit_follows_the_processs_own() {
        let limit = open_dirs_limit();
        assert!((16..=4096).contains(&limit), "{limit}");
        let now = getrlimit(Resource::Nofile);
        let hard = now.maximum.unwrap_or(u64::MAX).min(DESCRIPTORS_WANTED);
        assert!(now.current.is_none_or(|soft| soft >= hard), "{now:?}");
    }
}
