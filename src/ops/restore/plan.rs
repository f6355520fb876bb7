//! What a restore would bring back, and whether the index has every chunk of it; asked before anything is touched.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};

use super::{RestoreOptions, check_paths, lock, tree, wanted, workers};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Node, NodeKind, Snapshot, Stream, TreePath};
use crate::progress::Progress;
use crate::repo::{ChunkReader, Repository, StreamReader};

/// What a restore would do.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct RestorePlan {
    /// Entries that are not directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of file content, holes included.
    pub bytes: u64,
}

/// Files whose chunks one worker looks up before it asks for more.
const FILES_PER_BATCH: usize = 256;
/// Batches that wait; with the paths of their files some hundred KiB.
const BATCHES_WAITING_MAX: usize = 16;

type Batch = Vec<(TreePath, Stream)>;

/// Counts what a restore would bring back, and checks that the index has every chunk of it.
pub fn plan(repo: &Repository, snapshot: &Snapshot, options: &RestoreOptions, progress: &Progress) -> Result<RestorePlan> {
    let _reading = repo.reading()?;
    check_paths(repo, snapshot, options)?;
    let NodeKind::Directory(root) = &snapshot.root.kind else { return Ok(RestorePlan { directories: 1, ..RestorePlan::default() }) };
    let planning = Planning { reader: &ChunkReader::new(repo), options, progress, stop: AtomicBool::new(false), failure: Mutex::default() };
    let (sender, receiver) = crossbeam_channel::bounded(BATCHES_WAITING_MAX);
    let plan = std::thread::scope(|scope| {
        for _ in 0..workers() {
            let receiver = receiver.clone();
            scope.spawn(|| planning.look_up(receiver));
        }
        drop(receiver);
        planning.walk(root, sender)
    });
    match planning.failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => plan,
    }
}

struct Planning<'c, 'r> {
    reader: &'c ChunkReader<'r>,
    options: &'c RestoreOptions,
    progress: &'c Progress,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Planning<'_, '_> {
    fn walk(&self, root: &Stream, queue: Sender<Batch>) -> Result<RestorePlan> {
        let stopped = || Error::new(ErrorKind::Interrupted, "the workers stopped");
        let mut plan = RestorePlan { directories: 1, ..RestorePlan::default() };
        let mut batch = Batch::new();
        tree::walk(self.reader, root, &TreePath::root(), &mut |path, node: &Node| {
            self.progress.check()?;
            if !wanted(self.options, path) {
                return Ok(false);
            }
            match &node.kind {
                NodeKind::Directory(_) => plan.directories += 1,
                _ => plan.files += 1,
            }
            if let NodeKind::File(_) | NodeKind::InlineFile(_) = node.kind {
                plan.bytes += node.size();
            }
            if let NodeKind::File(stream) = &node.kind {
                batch.push((path.clone(), *stream));
                if batch.len() == FILES_PER_BATCH {
                    queue.send(std::mem::take(&mut batch)).map_err(|_| stopped())?;
                }
            }
            Ok(true)
        })?;
        queue.send(batch).map_err(|_| stopped())?;
        Ok(plan)
    }

    /// Looks up the chunks of file after file. The first failure is the one that counts, and ends the others.
    fn look_up(&self, queue: Receiver<Batch>) {
        for (path, stream) in queue.into_iter().flatten() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = self.locate_all(&stream) {
                lock(&self.failure).get_or_insert(error.on(&path));
                self.stop.store(true, Ordering::Relaxed);
                return;
            }
        }
    }

    fn locate_all(&self, stream: &Stream) -> Result<()> {
        let mut leaves = StreamReader::new(self.reader, stream);
        let mut last = None;
        while let Some(leaf) = leaves.next_leaf()? {
            self.progress.check()?;
            // Runs of one chunk are common: empty pages of databases.
            if !leaf.id.is_hole() && last.replace(leaf.id) != Some(leaf.id) {
                self.reader.locate(&leaf.id)?;
            }
        }
        Ok(())
    }
}
