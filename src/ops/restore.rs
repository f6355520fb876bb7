//! Restores a snapshot, whole or in part, to a target: one thread walks the tree and makes directories, workers place the
//! files, and a directory is closed (its metadata set) by whoever finished its last entry.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender};

use super::tree;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{ChunkId, LinkGroup, Name, Node, NodeKind, Snapshot, TreePath};
use crate::progress::{Progress, Warning};
use crate::repo::{ChunkReader, Leaf, NodeReader, Repository, StreamReader};
use crate::seal::keys::ChunkKind;
use crate::target::{self, Content, Piece, Placed, Target, TargetDir};

/// What to restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Only these entries and what is below them; all when empty. One that the snapshot has not is an error.
    pub paths: Vec<TreePath>,
    /// Remove what the target has and the snapshot has not.
    pub delete: bool,
}

/// What a restore did.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct RestoreReport {
    /// Entries that are not directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of file content, holes included.
    pub bytes: u64,
    /// Bytes written to the target.
    pub written_bytes: u64,
    /// Bytes that were already right and left alone.
    pub kept_bytes: u64,
    /// Entries removed from the target.
    pub removed: u64,
    /// Entries that are missing or not whole in the target; it stays marked as unfinished then.
    pub failed: u64,
    /// Of those, entries that the repository does not have whole any more.
    pub damaged: u64,
    /// What could not be restored as it was.
    pub warnings: Vec<Warning>,
    /// Seconds that it took.
    pub seconds: f64,
}

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

/// Files that wait for a worker.
const QUEUE_MAX: usize = 1024;

/// Counts what a restore would bring back, and checks that the index has every chunk of it.
pub fn plan(repo: &Repository, snapshot: &Snapshot, options: &RestoreOptions, progress: &Progress) -> Result<RestorePlan> {
    let _reading = repo.reading()?;
    let reader = ChunkReader::new(repo);
    let mut plan = RestorePlan { directories: 1, ..RestorePlan::default() };
    check_paths(repo, snapshot, options)?;
    let NodeKind::Directory(root) = &snapshot.root.kind else { return Ok(plan) };
    tree::walk(&reader, root, &TreePath::root(), &mut |path, node| {
        progress.check()?;
        if !wanted(options, path) {
            return Ok(false);
        }
        match &node.kind {
            NodeKind::Directory(_) => plan.directories += 1,
            NodeKind::File(stream) => {
                let mut leaves = StreamReader::new(&reader, stream);
                while let Some(leaf) = leaves.next_leaf().map_err(|e| e.on(path))? {
                    if !leaf.id.is_hole() {
                        reader.locate(&leaf.id).map_err(|e| e.on(path))?;
                    }
                }
                plan.files += 1;
            }
            _ => plan.files += 1,
        }
        plan.bytes += if matches!(node.kind, NodeKind::File(_) | NodeKind::InlineFile(_)) { node.size() } else { 0 };
        Ok(true)
    })?;
    Ok(plan)
}

/// Restores `snapshot` to `target`. Damage or a failure of one entry costs that entry and is in the report; a full disk, an
/// error of the local index or a wish to stop ends it. In all these cases the target stays marked as unfinished.
pub fn restore(
    repo: &Repository,
    snapshot: &Snapshot,
    target: &dyn Target,
    options: &RestoreOptions,
    progress: &Progress,
) -> Result<RestoreReport> {
    let start = repo.clock().monotonic();
    let _reading = repo.reading()?;
    check_paths(repo, snapshot, options)?;
    if options.paths.is_empty() {
        progress.bytes_total.store(snapshot.stats.bytes, Ordering::Relaxed);
        progress.files_total.store(snapshot.stats.files, Ordering::Relaxed);
    }
    let reader = ChunkReader::new(repo);
    let restore = Restore {
        reader: &reader,
        options,
        progress,
        counts: Counts::default(),
        warnings: Mutex::default(),
        linked: Mutex::default(),
        late_links: Mutex::default(),
        stop: AtomicBool::new(false),
        failure: Mutex::default(),
    };
    let root = target.begin(&snapshot.root)?;
    let workers = if target.sequential() { 0 } else { std::thread::available_parallelism().map_or(2, usize::from) };
    let (sender, receiver) = crossbeam_channel::bounded(QUEUE_MAX);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            let receiver = receiver.clone();
            scope.spawn(|| restore.work(receiver));
        }
        drop(receiver);
        let queue = (workers > 0).then_some(sender);
        if let Err(error) = restore.walk(root, &snapshot.root, queue) {
            restore.fail(error);
        }
    });
    if let Some(error) = lock(&restore.failure).take() {
        return Err(error);
    }
    // A tree with holes in it must not look like the snapshot.
    let failed = restore.counts.failed.load(Ordering::Relaxed);
    if failed == 0 {
        target.finish()?;
    }
    let mut warnings = std::mem::take(&mut *lock(&restore.warnings));
    warnings
        .extend(target.shortfalls().into_iter().map(|shortfall| Warning { path: shortfall.path.to_string(), message: shortfall.message }));
    let counts = &restore.counts;
    Ok(RestoreReport {
        files: counts.files.load(Ordering::Relaxed),
        directories: counts.directories.load(Ordering::Relaxed),
        bytes: counts.bytes.load(Ordering::Relaxed),
        written_bytes: counts.written.load(Ordering::Relaxed),
        kept_bytes: counts.kept.load(Ordering::Relaxed),
        removed: counts.removed.load(Ordering::Relaxed),
        failed,
        damaged: counts.damaged.load(Ordering::Relaxed),
        warnings,
        seconds: repo.clock().monotonic().saturating_sub(start).as_secs_f64(),
    })
}

fn check_paths(repo: &Repository, snapshot: &Snapshot, options: &RestoreOptions) -> Result<()> {
    options.paths.iter().try_for_each(|path| tree::find(repo, snapshot, path).map(|_| ()))
}

/// Whether an entry is asked for, or leads to one that is.
fn wanted(options: &RestoreOptions, path: &TreePath) -> bool {
    options.paths.is_empty() || options.paths.iter().any(|asked| path.starts_with(asked) || asked.starts_with(path))
}

#[derive(Default)]
struct Counts {
    files: AtomicU64,
    directories: AtomicU64,
    bytes: AtomicU64,
    written: AtomicU64,
    kept: AtomicU64,
    removed: AtomicU64,
    failed: AtomicU64,
    damaged: AtomicU64,
}

/// A directory of the target whose entries are not all done.
struct Pending {
    parent: Option<Arc<Pending>>,
    handle: Arc<dyn TargetDir>,
    path: TreePath,
    node: Node,
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

struct Job {
    directory: Arc<Pending>,
    node: Node,
}

/// Links of one group: where its first name was (or is being) placed, and whether it is there yet.
struct Linked {
    first: TreePath,
    placed: bool,
}

/// A further name of an inode whose first name is still being placed.
struct LateLink {
    directory: Arc<Pending>,
    node: Node,
    group: LinkGroup,
}

struct Restore<'c, 'r> {
    reader: &'c ChunkReader<'r>,
    options: &'c RestoreOptions,
    progress: &'c Progress,
    counts: Counts,
    warnings: Mutex<Vec<Warning>>,
    linked: Mutex<HashMap<LinkGroup, Linked>>,
    late_links: Mutex<Vec<LateLink>>,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl Restore<'_, '_> {
    fn walk(&self, root: Arc<dyn TargetDir>, node: &Node, queue: Option<Sender<Job>>) -> Result<()> {
        let pending = |parent, handle, path, node: &Node| {
            Arc::new(Pending { parent, handle, path, node: node.clone(), keep: Mutex::default(), outstanding: AtomicUsize::new(1) })
        };
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
            let job = Job { directory: directory.clone(), node };
            match &queue {
                Some(queue) => queue.send(job).map_err(|_| Error::new(ErrorKind::Interrupted, "the workers stopped"))?,
                None => self.place(job)?,
            }
        }
        Ok(())
    }

    fn work(&self, queue: Receiver<Job>) {
        for job in queue {
            if self.check().and_then(|()| self.place(job)).map_err(|error| self.fail(error)).is_err() {
                return;
            }
        }
    }

    fn place(&self, job: Job) -> Result<()> {
        let Some(name) = &job.node.name else { return Ok(()) };
        let path = job.directory.path.join(name);
        if let Some(group) = job.node.meta.links
            && let Some(first) = self.claim_link(group, &path, &job)
        {
            return match first {
                Some(first) => self.link(job.directory, &job.node, &path, &first),
                None => Ok(()),
            };
        }
        let placed = self.place_first(&job, &path);
        match placed {
            Ok(placed) => self.count(&job.node, placed),
            Err(error) => self.entry_failed(&path, error)?,
        }
        self.done(job.directory)?;
        match job.node.meta.links {
            Some(group) => self.link_late(group),
            None => Ok(()),
        }
    }

    fn place_first(&self, job: &Job, path: &TreePath) -> Result<Placed> {
        let xattrs = tree::xattrs(self.reader, &job.node).map_err(|e| e.on(path))?;
        match &job.node.kind {
            NodeKind::File(_) | NodeKind::InlineFile(_) => {
                let content = Stored { reader: self.reader, node: &job.node, progress: self.progress, current: Mutex::default() };
                job.directory.handle.file(&job.node, &xattrs, &content)
            }
            _ => job.directory.handle.special(&job.node, &xattrs).map(|()| Placed::default()),
        }
    }

    /// Decides who places a group's content: none when this entry does; otherwise the path to link to, or nothing yet when
    /// that is still being placed (the link is made when it is).
    fn claim_link(&self, group: LinkGroup, path: &TreePath, job: &Job) -> Option<Option<TreePath>> {
        let mut linked = lock(&self.linked);
        match linked.get(&group) {
            None => {
                linked.insert(group, Linked { first: path.clone(), placed: false });
                None
            }
            Some(Linked { first, placed: true }) => Some(Some(first.clone())),
            Some(_) => {
                lock(&self.late_links).push(LateLink { directory: job.directory.clone(), node: job.node.clone(), group });
                Some(None)
            }
        }
    }

    fn link(&self, directory: Arc<Pending>, node: &Node, path: &TreePath, first: &TreePath) -> Result<()> {
        match directory.handle.link(node, first) {
            Ok(()) => self.count(node, Placed::default()),
            Err(error) => self.entry_failed(path, error)?,
        }
        self.done(directory)
    }

    /// The first name of a group is there: makes the links that waited for it.
    fn link_late(&self, group: LinkGroup) -> Result<()> {
        let mut waiting = Vec::new();
        let first = {
            let mut linked = lock(&self.linked);
            let mut late = lock(&self.late_links);
            let mut index = 0;
            while index < late.len() {
                if late[index].group == group { waiting.push(late.swap_remove(index)) } else { index += 1 }
            }
            match linked.get_mut(&group) {
                Some(link) => {
                    link.placed = true;
                    link.first.clone()
                }
                None => return Ok(()),
            }
        };
        for late in waiting {
            let Some(name) = &late.node.name else { continue };
            let path = late.directory.path.join(name);
            self.link(late.directory.clone(), &late.node, &path, &first)?;
        }
        Ok(())
    }

    fn count(&self, node: &Node, placed: Placed) {
        self.counts.files.fetch_add(1, Ordering::Relaxed);
        if matches!(node.kind, NodeKind::File(_) | NodeKind::InlineFile(_)) {
            self.counts.bytes.fetch_add(node.size(), Ordering::Relaxed);
        }
        self.counts.written.fetch_add(placed.written_bytes, Ordering::Relaxed);
        self.counts.kept.fetch_add(placed.kept_bytes, Ordering::Relaxed);
        Progress::add(&self.progress.files_done, 1);
        Progress::add(&self.progress.bytes_stored, placed.written_bytes);
    }

    /// One entry of `directory` is done; the last one closes it, and so on up.
    fn done(&self, directory: Arc<Pending>) -> Result<()> {
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

    /// Notes what costs one entry; passes on what ends the run.
    fn entry_failed(&self, path: &TreePath, error: Error) -> Result<()> {
        let fatal = match error.kind() {
            ErrorKind::Target => target::ends_run(&error),
            ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::Unsupported => false,
            _ => true,
        };
        if fatal {
            return Err(error);
        }
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
        if error.kind() != ErrorKind::Target {
            self.counts.damaged.fetch_add(1, Ordering::Relaxed);
        }
        self.progress.warn(path, &error);
        lock(&self.warnings).push(Warning { path: path.to_string(), message: error.to_string() });
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Interrupted, "another worker failed"));
        }
        self.progress.check()
    }

    fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.kind, NodeKind::Directory(stream) if stream.len == 0)
}

/// A file's content in the repository, as a target wants it.
struct Stored<'a, 'r> {
    reader: &'a ChunkReader<'r>,
    node: &'a Node,
    progress: &'a Progress,
    /// The piece that was visited last: a target asks for that one.
    current: Mutex<Option<Leaf>>,
}

impl Stored<'_, '_> {
    fn leaf(&self, piece: Piece) -> Result<Leaf> {
        if let Some(leaf) = lock(&self.current).filter(|leaf| leaf.offset == piece.offset) {
            return Ok(leaf);
        }
        let mut found = None;
        self.pieces(&mut |visited| {
            if visited.offset == piece.offset {
                found = *lock(&self.current);
            }
            Ok(())
        })?;
        found.ok_or_else(|| Error::damaged("a file has no piece at this offset"))
    }

    fn visited(&self, leaf: Leaf) -> Piece {
        *lock(&self.current) = Some(leaf);
        Progress::add(&self.progress.bytes_done, leaf.len);
        Piece { offset: leaf.offset, len: leaf.len, hole: leaf.id.is_hole() }
    }
}

impl Content for Stored<'_, '_> {
    fn len(&self) -> u64 {
        self.node.size()
    }

    fn pieces(&self, visit: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
        match &self.node.kind {
            NodeKind::InlineFile(bytes) => visit(self.visited(Leaf { offset: 0, len: bytes.len() as u64, id: INLINE })),
            NodeKind::File(stream) => {
                let mut leaves = StreamReader::new(self.reader, stream);
                while let Some(leaf) = leaves.next_leaf()? {
                    self.progress.check()?;
                    visit(self.visited(leaf))?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn read(&self, piece: Piece) -> Result<Vec<u8>> {
        match &self.node.kind {
            NodeKind::InlineFile(bytes) => Ok(bytes.clone()),
            _ => tree::read_chunk(self.reader, ChunkKind::Data, &self.leaf(piece)?.id, piece.len),
        }
    }

    fn matches(&self, piece: Piece, bytes: &[u8]) -> Result<bool> {
        match &self.node.kind {
            NodeKind::InlineFile(content) => Ok(content == bytes),
            _ => Ok(self.reader.repository().keys().chunk_id(ChunkKind::Data, bytes) == self.leaf(piece)?.id),
        }
    }
}

/// Stands for the one piece of a file whose content is in its node; no chunk has this id.
const INLINE: ChunkId = ChunkId([0xff; 32]);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
