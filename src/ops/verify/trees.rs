//! Walks snapshots' trees, one snapshot after another, each on all cores: a thread that has nothing to do is given a
//! directory that another one found. What was found clean in one snapshot is not walked again for the next.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::clean::Clean;
use super::packs::Packs;
use super::report::{AFFECTED_KEPT_MAX, Affected};
use super::{Damage, Run, VerifyReport, damage_of, ends_the_run, lock, workers};
use crate::chunk::CHUNK_BYTES_MAX;
use crate::error::{Error, Result};
use crate::index::{Location, PackNumber};
use crate::model::{ChunkId, Node, NodeKind, PackId, Stream, TreePath};
use crate::ops::tree;
use crate::repo::{self, Committed, Leaf, NodeReader, StreamReader};
use crate::seal::keys::ChunkKind;

/// Checks that everything which these snapshots refer to is there and good.
pub(super) fn verify_snapshots(run: &Run<'_>, packs: &Packs, snapshots: &[&Committed], report: &mut VerifyReport) -> Result<()> {
    let trees = Trees {
        run,
        packs,
        snapshots,
        clean: Mutex::default(),
        work: Mutex::default(),
        changed: Condvar::new(),
        waiting: AtomicUsize::new(0),
        found: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 0..workers() {
            scope.spawn(|| trees.work());
        }
    });
    let mut found = std::mem::take(&mut *lock(&trees.found));
    if let Some(error) = found.failure.take() {
        return Err(error);
    }
    report.snapshots += snapshots.len() as u64;
    found.damaged.sort_by(|a, b| a.object.cmp(&b.object));
    found.damaged.into_iter().for_each(|damage| report.add(damage));
    report.affected_count += found.affected_count;
    found.affected.sort_by(|(a, path_a, _), (b, path_b, _)| a.cmp(b).then_with(|| path_a.names().cmp(path_b.names())));
    report.affected.extend(found.affected.into_iter().map(|(_, _, affected)| affected));
    Ok(())
}

struct Trees<'a> {
    run: &'a Run<'a>,
    packs: &'a Packs,
    snapshots: &'a [&'a Committed],
    clean: Mutex<Clean>,
    work: Mutex<Work>,
    changed: Condvar,
    /// Threads that wait for work. They are given directories; otherwise whoever finds one walks it.
    waiting: AtomicUsize,
    found: Mutex<Found>,
}

/// What is to do.
#[derive(Default)]
struct Work {
    /// The next snapshot.
    next: usize,
    /// Threads that are at work.
    active: usize,
    /// Directories for those that wait; never more than these.
    shared: Vec<Directory>,
    stopped: bool,
}

enum Task {
    Snapshot(usize),
    Directory(Directory),
}

/// What is wrong.
#[derive(Default)]
struct Found {
    affected: Vec<(usize, TreePath, Affected)>,
    affected_count: u64,
    damaged: Vec<Damage>,
    failure: Option<Error>,
}

/// A directory that is to be walked.
struct Directory {
    /// The number of its snapshot.
    snapshot: usize,
    path: TreePath,
    /// How many directories lead to it.
    depth: usize,
    tally: Arc<Tally>,
}

/// What was found of a directory and all that is below it so far.
struct Tally {
    stream: Stream,
    is_broken: AtomicBool,
    /// See [`Clean::cost`].
    cost: AtomicU64,
    /// Directories in it that are not done, and one for itself.
    left: AtomicUsize,
    above: Option<Arc<Tally>>,
}

impl Tally {
    fn new(stream: &Stream, above: Option<&Arc<Self>>) -> Arc<Self> {
        if let Some(above) = above {
            above.left.fetch_add(1, Ordering::AcqRel);
        }
        let above = above.map(Arc::clone);
        Arc::new(Self { stream: *stream, is_broken: AtomicBool::new(false), cost: AtomicU64::new(1), left: AtomicUsize::new(1), above })
    }

    /// A forged tree in which directories stand in each other twice stands for more than can be counted.
    fn add_cost(&self, cost: u64) {
        let add = |now: u64| Some(now.saturating_add(cost));
        let _ = self.cost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

impl Drop for Tally {
    /// Directories may be nested so deep that a recursion over them does not fit on a stack.
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(tally) = above {
            above = Arc::into_inner(tally).and_then(|mut tally| tally.above.take());
        }
    }
}

/// A directory that is being walked.
struct Open<'s, 'r> {
    path: TreePath,
    nodes: NodeReader<'s, 'r>,
    tally: Arc<Tally>,
}

/// The packs that a thread met, so that it does not ask the index for each chunk.
type Known = HashMap<PackNumber, (PackId, State)>;

/// At most so many packs are known to each thread: 4 MiB.
const KNOWN_MAX: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Good,
    Bad,
    /// It came after the packs were listed.
    Unseen,
}

impl<'a> Trees<'a> {
    /// What one thread does until nothing is left.
    fn work(&self) {
        let mut known = Known::new();
        while let Some(task) = self.take() {
            let active = Active(self);
            let done = match task {
                Task::Snapshot(number) => self.snapshot(number, &mut known),
                Task::Directory(directory) => self.walk(directory, &mut known),
            };
            if let Err(error) = done {
                lock(&self.found).failure.get_or_insert(error);
                let mut work = lock(&self.work);
                work.stopped = true;
                work.shared.clear();
            }
            drop(active);
        }
    }

    /// The next thing to do; none when nothing is left. Waits while others may find something. A snapshot is begun when the
    /// one before is done: the two have nearly everything in common.
    fn take(&self) -> Option<Task> {
        let mut work = lock(&self.work);
        loop {
            if work.stopped {
                return None;
            }
            if let Some(directory) = work.shared.pop() {
                work.active += 1;
                return Some(Task::Directory(directory));
            }
            if work.active == 0 {
                if work.next == self.snapshots.len() {
                    return None;
                }
                work.active += 1;
                work.next += 1;
                return Some(Task::Snapshot(work.next - 1));
            }
            self.waiting.fetch_add(1, Ordering::Relaxed);
            work = self.changed.wait(work).unwrap_or_else(PoisonError::into_inner);
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Gives a directory to a thread that waits, if one does; else gives it back.
    fn share(&self, directory: Directory) -> Option<Directory> {
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return Some(directory);
        }
        let mut work = lock(&self.work);
        if work.stopped || work.shared.len() >= self.waiting.load(Ordering::Relaxed) {
            return Some(directory);
        }
        work.shared.push(directory);
        drop(work);
        self.changed.notify_one();
        None
    }

    fn snapshot(&self, number: usize, known: &mut Known) -> Result<()> {
        let Some(snapshot) = self.snapshots.get(number) else { return Ok(()) };
        self.run.progress.check()?;
        // The record as the repository has it, not this host's copy of it.
        if let Err(error) = self.run.repo.load_snapshot_from_storage(&snapshot.session, snapshot.sequence) {
            let damage = damage_of(&repo::entry_key(&snapshot.session, snapshot.sequence)?, error)?;
            lock(&self.found).damaged.push(damage);
        }
        match self.look_at(number, &snapshot.record.root, TreePath::root(), 0, None, known)? {
            Some(directory) => self.walk(directory, known),
            None => Ok(()),
        }
    }

    /// Walks a directory and all below it, but for what is given to others.
    fn walk(&self, directory: Directory, known: &mut Known) -> Result<()> {
        let (snapshot, depth) = (directory.snapshot, directory.depth);
        let mut stack = vec![self.open(directory)];
        while let Some(open) = stack.last_mut() {
            self.run.progress.check()?;
            match open.nodes.next_node() {
                Ok(Some(node)) => {
                    let Some(name) = &node.name else { continue };
                    let path = open.path.join(name);
                    let tally = Arc::clone(&open.tally);
                    let below = depth + stack.len();
                    let Some(directory) = self.look_at(snapshot, &node, path, below, Some(&tally), known)? else { continue };
                    if let Err(error) = tree::check_nesting(&directory.path, below) {
                        self.end(snapshot, &directory.path, Some(error), directory.tally)?;
                    } else if let Some(directory) = self.share(directory) {
                        stack.push(self.open(directory));
                    }
                }
                ended => {
                    let Some(Open { path, tally, .. }) = stack.pop() else { break };
                    self.end(snapshot, &path, ended.err(), tally)?;
                }
            }
        }
        Ok(())
    }

    fn open(&self, directory: Directory) -> Open<'a, 'a> {
        let nodes = NodeReader::new(&self.run.reader, &directory.tally.stream);
        Open { path: directory.path, nodes, tally: directory.tally }
    }

    /// Checks one entry. Returns a directory that is not known to be clean.
    fn look_at(
        &self,
        snapshot: usize,
        node: &Node,
        path: TreePath,
        depth: usize,
        above: Option<&Arc<Tally>>,
        known: &mut Known,
    ) -> Result<Option<Directory>> {
        let checked = tree::xattrs(&self.run.reader, node).and_then(|_| match &node.kind {
            NodeKind::File(stream) => self.content(stream, known),
            _ => Ok(0),
        });
        let mut cost: u64 = 1;
        match checked {
            Ok(more) => cost = cost.saturating_add(more),
            Err(error) => {
                self.broken(snapshot, &path, error)?;
                if let Some(above) = above {
                    above.is_broken.store(true, Ordering::Relaxed);
                }
            }
        }
        let mut directory = None;
        if let NodeKind::Directory(stream) = &node.kind
            && stream.len > 0
        {
            match lock(&self.clean).cost(ChunkKind::Tree, stream) {
                Some(clean) => cost = cost.saturating_add(clean),
                None => directory = Some(Directory { snapshot, path, depth, tally: Tally::new(stream, above) }),
            }
        }
        if let Some(above) = above {
            above.add_cost(cost);
        }
        Ok(directory)
    }

    /// A directory has been walked to its end, or as far as it could be.
    fn end(&self, snapshot: usize, path: &TreePath, error: Option<Error>, tally: Arc<Tally>) -> Result<()> {
        if let Some(error) = error {
            self.broken(snapshot, path, error)?;
            tally.is_broken.store(true, Ordering::Relaxed);
        }
        self.leave(tally);
        Ok(())
    }

    /// A directory has been walked, or one below it is done: if that was the last, so is the directory.
    fn leave(&self, tally: Arc<Tally>) {
        let mut done = Some(tally);
        while let Some(tally) = done.take() {
            if tally.left.fetch_sub(1, Ordering::AcqRel) > 1 {
                return;
            }
            let (is_broken, cost) = (tally.is_broken.load(Ordering::Relaxed), tally.cost.load(Ordering::Relaxed));
            if !is_broken {
                lock(&self.clean).add(ChunkKind::Tree, &tally.stream, cost);
            }
            if let Some(above) = &tally.above {
                above.add_cost(cost);
                above.is_broken.fetch_or(is_broken, Ordering::Relaxed);
            }
            done = tally.above.clone();
        }
    }

    /// Every chunk of a file is in a pack that is good, of the kind and with the length that the list says. Returns how many
    /// chunks were looked up, or what it cost when the file was known to be clean.
    fn content(&self, stream: &Stream, known: &mut Known) -> Result<u64> {
        if stream.depth == 0 && !stream.id.is_hole() && (1..=CHUNK_BYTES_MAX as u64).contains(&stream.len) {
            return self.chunk(&Leaf { offset: 0, len: stream.len, id: stream.id }, known).map(|()| 1);
        }
        if let Some(cost) = lock(&self.clean).cost(ChunkKind::Data, stream) {
            return Ok(cost);
        }
        let mut leaves = StreamReader::new(&self.run.reader, stream);
        let mut cost = 0;
        while let Some(leaf) = leaves.next_leaf()? {
            if cost % 1024 == 0 {
                self.run.progress.check()?;
            }
            if !leaf.id.is_hole() {
                self.chunk(&leaf, known)?;
            }
            cost += 1;
        }
        lock(&self.clean).add(ChunkKind::Data, stream, cost);
        Ok(cost)
    }

    fn chunk(&self, leaf: &Leaf, known: &mut Known) -> Result<()> {
        let first = self.run.reader.locate(&leaf.id)?;
        let Err(error) = self.copy(leaf, &first, known) else { return Ok(()) };
        // A reader would find another copy, too.
        let others = self.run.repo.index().copies(&leaf.id)?;
        if others.iter().any(|copy| *copy != first && self.copy(leaf, copy, known).is_ok()) { Ok(()) } else { Err(error) }
    }

    /// Whether one copy of a file's chunk is what the file needs, in a pack that was found good.
    fn copy(&self, leaf: &Leaf, copy: &Location, known: &mut Known) -> Result<()> {
        if copy.blob.kind != ChunkKind::Data.number() {
            return Err(Error::damaged("a chunk is of another kind than the reference to it").on(leaf.id));
        }
        if u64::from(copy.blob.raw_len) != leaf.len {
            return Err(Error::damaged("a chunk has another length than its list says").on(leaf.id));
        }
        self.blob(&leaf.id, copy, known)?;
        match &copy.blob.base {
            None => Ok(()),
            Some(base) => match self.base(base, known) {
                Err(error) if !ends_the_run(&error) => {
                    Err(Error::damaged("the chunk that it is encoded against is missing or damaged").on(leaf.id).because(error))
                }
                found => found,
            },
        }
    }

    /// Whether there is a good copy of a chunk that others are encoded against. A delta does not count as one.
    fn base(&self, base: &ChunkId, known: &mut Known) -> Result<()> {
        let is_full = |copy: &Location| copy.blob.base.is_none() && copy.blob.kind == ChunkKind::Data.number();
        let first = self.run.reader.locate(base)?;
        if is_full(&first) && self.blob(base, &first, known).is_ok() {
            return Ok(());
        }
        let mut why = Error::damaged("there is no full copy of it").on(base);
        for copy in self.run.repo.index().copies(base)?.iter().filter(|copy| is_full(copy)) {
            match self.blob(base, copy, known) {
                Ok(()) => return Ok(()),
                Err(error) if ends_the_run(&error) => return Err(error),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    /// Whether the blob of a chunk is good.
    fn blob(&self, chunk: &ChunkId, copy: &Location, known: &mut Known) -> Result<()> {
        let (pack, state) = self.pack(copy.pack, known)?;
        match state {
            State::Unseen if self.run.reader.is_good(ChunkKind::Data, copy) => Ok(()),
            State::Good if !self.packs.is_bad(chunk, &pack) => Ok(()),
            State::Good => Err(Error::damaged(format!("its blob in pack {pack} is damaged")).on(chunk)),
            _ => Err(Error::damaged(format!("its pack {pack} is missing or damaged")).on(chunk)),
        }
    }

    fn pack(&self, number: PackNumber, known: &mut Known) -> Result<(PackId, State)> {
        if let Some(pack) = known.get(&number) {
            return Ok(*pack);
        }
        let id = self.run.repo.index().pack(number)?.id;
        let state = match (self.packs.is_seen(&id), self.packs.is_good(&id)) {
            (false, _) => State::Unseen,
            (_, true) => State::Good,
            _ => State::Bad,
        };
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert(number, (id, state));
        Ok((id, state))
    }

    /// Notes what damage breaks.
    fn broken(&self, snapshot: usize, path: &TreePath, error: Error) -> Result<()> {
        if ends_the_run(&error) {
            return Err(error);
        }
        let Some(record) = self.snapshots.get(snapshot) else { return Ok(()) };
        let mut found = lock(&self.found);
        found.affected_count += 1;
        if found.affected.len() < AFFECTED_KEPT_MAX {
            let affected = Affected {
                snapshot: record.id.to_string(),
                source: record.record.source.name.clone(),
                path: path.to_string(),
                problem: error.to_string(),
            };
            found.affected.push((snapshot, path.clone(), affected));
        }
        Ok(())
    }
}

/// A thread that is at work. When the last one is done, those that wait look again.
struct Active<'t, 'a>(&'t Trees<'a>);

impl Drop for Active<'_, '_> {
    fn drop(&mut self) {
        let mut work = lock(&self.0.work);
        work.active -= 1;
        let idle = work.active == 0 || work.stopped;
        drop(work);
        if idle {
            self.0.changed.notify_all();
        }
    }
}
