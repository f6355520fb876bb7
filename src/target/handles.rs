//! Open directories, as many as fit. Trees can be deeper than a process may have files open, so handles that were not
//! used for a while are closed, and opened again from the nearest ancestor that is still open: name by name, without
//! following symlinks, and only if the directory is still the same inode.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};

use rustix::fd::OwnedFd;
use rustix::fs;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::error::{Error, ErrorKind, Result};
use crate::model::Name;

use super::beneath::{Inode, open_dir};
use super::chain::Chain;
use super::outcome::{failed, lock};

/// The most directories kept open. More than a walk with many threads works in at once; far below the usual limit.
const OPEN_MAX: usize = 256;
/// The fewest that make sense: a directory, its parent and some on the way.
const OPEN_MIN: usize = 4;

/// A directory that is open or can be opened again.
pub(super) type DirHandle = Chain<Held>;

/// What a [`DirHandle`] keeps.
pub(super) struct Held {
    slot: Mutex<Slot>,
    used: AtomicBool,
}

enum Slot {
    Open(Arc<OwnedFd>),
    Closed(Inode),
}

/// Decides which directories stay open (the clock algorithm). The root always does: its descriptor must live from the
/// first write to the last `syncfs`, or errors of writing back would be missed.
pub(super) struct Handles {
    open_max: usize,
    clock: Mutex<Clock>,
}

#[derive(Default)]
struct Clock {
    slots: Vec<Weak<DirHandle>>,
    hand: usize,
}

impl Handles {
    /// Keeps at most `open_max` directories open besides the root; without a wish, what the process's limit allows.
    pub(super) fn new(open_max: Option<usize>) -> Self {
        let allowed = raise_open_files_limit() / 4;
        let open_max = open_max.unwrap_or(OPEN_MAX).min(usize::try_from(allowed).unwrap_or(OPEN_MAX)).max(OPEN_MIN);
        Self { open_max, clock: Mutex::default() }
    }

    pub(super) fn root(fd: OwnedFd) -> Arc<DirHandle> {
        Chain::root(Held::open(Arc::new(fd)))
    }

    /// Takes over an open directory found as `name` in `parent`.
    pub(super) fn child(&self, parent: &Arc<DirHandle>, name: &Name, fd: OwnedFd) -> Arc<DirHandle> {
        let dir = Chain::child(parent, name, Held::open(Arc::new(fd)));
        self.admit(&dir);
        dir
    }

    /// The directory's descriptor. It stays open while the caller holds it, whatever becomes of the handle.
    pub(super) fn fd(&self, dir: &Arc<DirHandle>) -> Result<Arc<OwnedFd>> {
        let mut closed: Vec<(&Arc<DirHandle>, &Name, Inode)> = Vec::new();
        let mut at = dir;
        let mut fd = loop {
            match (at.value.get(), at.above()) {
                (Ok(fd), _) => break fd,
                (Err(inode), Some((parent, name))) => {
                    closed.push((at, name, inode));
                    at = parent;
                }
                (Err(_), None) => return Err(Error::new(ErrorKind::Target, "the root of the target is closed")),
            }
        };
        while let Some((dir, name, inode)) = closed.pop() {
            fd = Arc::new(reopen(&fd, name, inode).map_err(|e| e.on(dir.path()))?);
            // The way down keeps its last part open: whoever climbs up next finds it, so that a deep tree is not opened
            // from the top again for each of its levels.
            if closed.len() < self.open_max / 2 && dir.value.reopened(&fd) {
                self.admit(dir);
            }
        }
        Ok(fd)
    }

    /// Counts an open directory in, and closes another one where there are too many.
    fn admit(&self, dir: &Arc<DirHandle>) {
        let mut clock = lock(&self.clock);
        if clock.slots.len() < self.open_max {
            clock.slots.push(Arc::downgrade(dir));
            return;
        }
        loop {
            let at = clock.hand;
            clock.hand = (at + 1) % clock.slots.len();
            let free = match clock.slots[at].upgrade() {
                None => true,
                Some(held) if held.value.used.swap(false, Ordering::Relaxed) => false,
                Some(held) => {
                    held.value.close();
                    true
                }
            };
            if free {
                clock.slots[at] = Arc::downgrade(dir);
                return;
            }
        }
    }

    #[cfg(test)]
    pub(super) fn open_now(&self) -> usize {
        lock(&self.clock).slots.iter().filter_map(Weak::upgrade).filter(|dir| dir.value.get().is_ok()).count()
    }
}

impl Held {
    fn open(fd: Arc<OwnedFd>) -> Self {
        Self { slot: Mutex::new(Slot::Open(fd)), used: AtomicBool::new(true) }
    }

    fn get(&self) -> Result<Arc<OwnedFd>, Inode> {
        match &*lock(&self.slot) {
            Slot::Open(fd) => {
                self.used.store(true, Ordering::Relaxed);
                Ok(Arc::clone(fd))
            }
            Slot::Closed(inode) => Err(*inode),
        }
    }

    /// Keeps a descriptor again; false when another thread was faster.
    fn reopened(&self, fd: &Arc<OwnedFd>) -> bool {
        let mut slot = lock(&self.slot);
        let closed = matches!(*slot, Slot::Closed(_));
        if closed {
            *slot = Slot::Open(Arc::clone(fd));
        }
        closed
    }

    /// Lets go of the descriptor. Where `fstat` of an open descriptor fails nothing works any more; the directory then
    /// matches no inode and is refused on reopening.
    fn close(&self) {
        let mut slot = lock(&self.slot);
        if let Slot::Open(fd) = &*slot {
            let inode = fs::fstat(fd).map_or(Inode { device: 0, number: 0 }, |stat| Inode::of(&stat));
            *slot = Slot::Closed(inode);
        }
    }
}

fn reopen(parent: &OwnedFd, name: &Name, inode: Inode) -> Result<OwnedFd> {
    let fd = open_dir(parent, name).map_err(|e| failed("cannot open the directory again", e))?;
    let stat = fs::fstat(&fd).map_err(|e| failed("cannot look at the directory", e))?;
    if Inode::of(&stat) != inode {
        return Err(Error::new(ErrorKind::Target, "the directory was replaced during the restore")
            .hint("stop whatever else writes to the target, then restore again"));
    }
    Ok(fd)
}

/// Raises the process's soft limit of open files to the hard one and tells what holds now.
fn raise_open_files_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).is_ok();
    let holds = if raised { limit.maximum } else { limit.current };
    holds.unwrap_or(u64::MAX)
}
