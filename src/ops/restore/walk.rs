//! The walk over the snapshot's tree: makes directories, puts files into batches, closes what is done.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crossbeam_channel::Sender;

use super::{Restore, lock, tree, wanted};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Name, Node, NodeKind, TreePath};
use crate::repo::NodeReader;
use crate::target::TargetDir;

/// Files of one batch: enough that neighbours in a pack are read together and that two workers seldom make files in the same
/// directory at once, which the kernel does one after the other; few enough that all workers end at the same time.
const BATCH_FILES_MAX: usize = 256;
/// Bytes of the files of one batch, as each worker may have them in memory (see `content::PART_BYTES`).
const BATCH_BYTES_MAX: u64 = 4 << 20;
/// Batches that wait, for each worker. They hold nodes, some hundred bytes each.
pub(super) const QUEUED_PER_WORKER: usize = 2;

/// A directory of the target whose entries are not all done.
pub(super) struct Pending {
    pub(super) parent: Option<Arc<Pending>>,
    pub(super) handle: Arc<dyn TargetDir>,
    pub(super) path: TreePath,
    pub(super) node: Node,
    /// Names that stay when the user asked to remove others.
    keep: Mutex<Vec<Name>>,
    outstanding: AtomicUsize,
}

/// A chain of directories is taken apart one by one: one inside the other, a deep one would use up the stack.
impl Drop for Pending {
    fn drop(&mut self) {
        let mut above = self.parent.take();
        while let Some(pending) = above {
            above = Arc::try_unwrap(pending).ok().and_then(|mut last| last.parent.take());
        }
    }
}

/// An entry that is not a directory.
pub(super) struct Job {
    pub(super) directory: Arc<Pending>,
    pub(super) node: Node,
}

/// Neighbouring entries, in the order of the tree.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) jobs: Vec<Job>,
    bytes: u64,
}

/// Where batches go: to the workers, or, where entries must come one after another, to this thread.
struct Outlet<'o, 'c, 'r> {
    restore: &'o Restore<'c, 'r>,
    queue: Option<Sender<Batch>>,
    batch: Batch,
}

impl Outlet<'_, '_, '_> {
    fn push(&mut self, job: Job) -> Result<()> {
        let bytes = job.node.size();
        if !self.batch.jobs.is_empty() && self.batch.bytes.saturating_add(bytes) > BATCH_BYTES_MAX {
            self.flush()?;
        }
        self.batch.jobs.push(job);
        self.batch.bytes = self.batch.bytes.saturating_add(bytes);
        if self.batch.jobs.len() >= BATCH_FILES_MAX || self.batch.bytes >= BATCH_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let batch = std::mem::take(&mut self.batch);
        match &self.queue {
            _ if batch.jobs.is_empty() => Ok(()),
            Some(queue) => queue.send(batch).map_err(|_| Error::new(ErrorKind::Interrupted, "the workers stopped")),
            None => self.restore.place_batch(batch),
        }
    }

    /// A directory is about to be made. In an archive it comes after what stands before it in the tree.
    fn before_directory(&mut self) -> Result<()> {
        if self.queue.is_none() { self.flush() } else { Ok(()) }
    }
}

impl Restore<'_, '_> {
    /// Goes over the tree below the root. Without a queue everything is placed by this thread, in the order of the tree.
    pub(super) fn walk(&self, root: Arc<dyn TargetDir>, node: &Node, queue: Option<Sender<Batch>>) -> Result<()> {
        let pending = |parent, handle, path, node: &Node| {
            Arc::new(Pending { parent, handle, path, node: node.clone(), keep: Mutex::default(), outstanding: AtomicUsize::new(1) })
        };
        let mut outlet = Outlet { restore: self, queue, batch: Batch::default() };
        let mut next = Some(pending(None, root, TreePath::root(), node));
        let mut stack: Vec<(Arc<Pending>, NodeReader<'_, '_>)> = Vec::new();
        loop {
            if let Some(directory) = next.take() {
                let NodeKind::Directory(stream) = &directory.node.kind else {
                    return Err(Error::damaged("a directory is none").on(&directory.path));
                };
                let nodes = NodeReader::new(self.reader, stream);
                stack.push((directory, nodes));
            }
            let Some((directory, nodes)) = stack.last_mut() else { break };
            self.check()?;
            let node = match nodes.next_node() {
                Ok(Some(node)) => node,
                Ok(None) => {
                    if let Some((directory, _)) = stack.pop() {
                        self.done(directory)?;
                    }
                    continue;
                }
                Err(error) => {
                    // The rest of this directory is lost; the others are not.
                    self.entry_failed(&directory.path, error)?;
                    if let Some((directory, _)) = stack.pop() {
                        lock(&directory.keep).clear();
                        self.done(directory)?;
                    }
                    continue;
                }
            };
            let Some(name) = node.name.clone() else { continue };
            let path = directory.path.join(&name);
            if self.options.delete {
                lock(&directory.keep).push(name);
            }
            if !wanted(self.options, &path) {
                continue;
            }
            if node.is_dir() {
                tree::check_nesting(&path, stack.len())?;
                outlet.before_directory()?;
                let (directory, _) = &stack[stack.len() - 1];
                match directory.handle.directory(&node) {
                    Ok(handle) => {
                        directory.outstanding.fetch_add(1, Ordering::SeqCst);
                        next = Some(pending(Some(directory.clone()), handle, path, &node));
                    }
                    Err(error) => self.entry_failed(&path, error)?,
                }
                continue;
            }
            directory.outstanding.fetch_add(1, Ordering::SeqCst);
            outlet.push(Job { directory: directory.clone(), node })?;
        }
        outlet.flush()
    }

    /// One entry of `directory` is done; the last one closes it, and so on up.
    pub(super) fn done(&self, directory: Arc<Pending>) -> Result<()> {
        let mut current = directory;
        while current.outstanding.fetch_sub(1, Ordering::SeqCst) == 1 {
            let close = || {
                if self.options.delete && self.options.paths.is_empty() {
                    let keep = std::mem::take(&mut *lock(&current.keep));
                    if !keep.is_empty() || is_empty(&current.node) {
                        self.counts.removed.fetch_add(current.handle.remove_others(&keep)?, Ordering::Relaxed);
                    }
                }
                let xattrs = tree::xattrs(self.reader, &current.node)?;
                current.handle.close(&current.node, &xattrs)
            };
            match close() {
                Ok(()) => {
                    self.counts.directories.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => self.entry_failed(&current.path, error)?,
            }
            match current.parent.clone() {
                Some(parent) => current = parent,
                None => return Ok(()),
            }
        }
        Ok(())
    }
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.kind, NodeKind::Directory(stream) if stream.len == 0)
}
