//! A directory of this machine as a target. All work is relative to directory handles; no symlink below the root is ever
//! followed, whatever the snapshot holds and whoever else writes there. What is already right is left as it is.
//!
//! ```text
//! create   root made (0700), .icecore-incomplete made and synced     a crash from here on leaves the mark
//! begin    directories 0700, files with content and metadata, close() per directory
//! finish   syncfs, mark removed, root's time set, root synced         the mark goes only after everything is durable
//! ```
//!
//! An interrupted restore is simply run again: it finds what is right, and files that were being replaced are swept.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, Mode, OFlags};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Node, SnapshotId};

use super::beneath::Inode;
use super::handles::{DirHandle, Handles};
use super::metadata::{Subject, set_mtime};
use super::outcome::{Shortfalls, failed, lock};
use super::place::OpenDir;
use super::reflink::SafetyCopy;
use super::{Reflinks, Shortfall, Target, TargetDir, marker};

/// How to restore into a directory.
#[derive(Debug, Clone)]
pub struct DirTargetOptions {
    /// The snapshot that is restored; the mark of an unfinished restore names it.
    pub snapshot: SnapshotId,
    /// The most directories to keep open at once; none: as the process's limit of open files allows.
    pub open_dirs_max: Option<usize>,
    /// A directory that may hold the same files: where the file system can, new files begin as clones of its files.
    pub reflink_from: Option<PathBuf>,
}

/// A restore into a directory.
pub struct DirTarget {
    shared: Arc<Shared>,
}

/// What all directories of one restore share.
pub(super) struct Shared {
    pub(super) handles: Handles,
    pub(super) root: Arc<DirHandle>,
    pub(super) shortfalls: Shortfalls,
    /// Inodes that this restore placed and that get more names: the only ones that a link may lead to.
    pub(super) linkable: Mutex<HashSet<Inode>>,
    /// A mark stood in the root: an interrupted restore may have left files with temporary names.
    pub(super) resumed: bool,
    /// The root's time once the root is closed; removing the mark changes it.
    pub(super) root_mtime: Mutex<Option<Timestamp>>,
    /// What new files are cloned from.
    pub(super) safety_copy: Option<SafetyCopy>,
    device: u64,
    /// Other file systems mounted below the root in which entries are placed, one open directory each.
    others: Mutex<Vec<(u64, Arc<OwnedFd>)>>,
}

impl DirTarget {
    /// Opens `path`, making it (0700) and its parents where they are missing, and marks it durably as unfinished. Symlinks
    /// in `path` itself are followed: it is the user's word. Raises the process's soft limit of open files to the hard one.
    pub fn create(path: impl AsRef<Path>, options: DirTargetOptions) -> Result<Self> {
        let path = path.as_ref();
        // Before anything is made: where it is not there, nothing is to be done.
        let safety_copy = options.reflink_from.as_deref().map(SafetyCopy::open).transpose()?;
        let handles = Handles::new(options.open_dirs_max);
        let fd = marker::open_root(path)?;
        let resumed = marker::set(&fd, &options.snapshot).map_err(|e| e.on(path.display()))?;
        let device = fs::fstat(&fd).map_err(|e| failed("cannot look at the directory to restore to", e).on(path.display()))?.st_dev;
        let shared = Shared {
            handles,
            root: Handles::root(fd),
            shortfalls: Shortfalls::default(),
            linkable: Mutex::default(),
            resumed,
            root_mtime: Mutex::default(),
            safety_copy,
            device,
            others: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    #[cfg(test)]
    pub(super) fn open_now(&self) -> usize {
        self.shared.handles.open_now()
    }
}

impl Target for DirTarget {
    fn begin(&self, node: &Node) -> Result<Arc<dyn TargetDir>> {
        if !node.is_dir() {
            return Err(
                Error::new(ErrorKind::Usage, "only a directory can be restored into a directory").on(node.name_bytes().escape_ascii())
            );
        }
        // The root may be older than this restore, or have inherited something from its parent: nothing is taken for granted.
        Ok(Arc::new(OpenDir::existing(&self.shared, Arc::clone(&self.shared.root))?))
    }

    fn finish(&self) -> Result<()> {
        let root = self.shared.handles.fd(&self.shared.root)?;
        for fd in lock(&self.shared.others).iter().map(|(_, fd)| fd).chain([&root]) {
            fs::syncfs(fd).map_err(|e| failed("cannot write the restored files to the disk", e))?;
        }
        marker::remove(&root)?;
        if let Some(mtime) = *lock(&self.shared.root_mtime)
            && let Err(cause) = set_mtime(&Subject::Open(root.as_fd()), mtime)
        {
            self.shared
                .shortfalls
                .add(crate::model::TreePath::root, format!("cannot set the time {mtime}: {}", std::io::Error::from(cause)));
        }
        fs::fsync(&root).map_err(|e| failed("cannot write the restored directory to the disk", e))
    }

    fn settle(&self) {
        // Opened anew: the system tells an error of writing back once to each open file, and it is `finish` that has to hear it.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(root) = self.shared.handles.fd(&self.shared.root)
            && let Ok(again) = fs::openat(&root, ".", flags, Mode::empty())
        {
            let _ = fs::syncfs(&again);
        }
    }

    fn sequential(&self) -> bool {
        false
    }

    fn shortfalls(&self) -> Vec<Shortfall> {
        self.shared.shortfalls.list()
    }

    fn reflinks(&self) -> Reflinks {
        self.shared.safety_copy.as_ref().map_or(Reflinks::Untried, SafetyCopy::outcome)
    }
}

impl Shared {
    /// Remembers a file system other than the root's, to be synced at the end.
    pub(super) fn note_device(&self, device: u64, fd: &Arc<OwnedFd>) {
        if device != self.device {
            let mut others = lock(&self.others);
            if !others.iter().any(|(known, _)| *known == device) {
                others.push((device, Arc::clone(fd)));
            }
        }
    }
}
