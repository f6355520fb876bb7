//! Walks a source and stores what it finds. All threads list directories, compare them with the stat cache and read the
//! files that are new or changed, as it comes. A directory is written when its last entry is done, by whoever finished
//! that entry, so that trees come about from the leaves up and nothing waits for the whole walk.
//!
//! Where the source's writers are held still, the walk only sets aside the files that have to be read ([`Capture::run`]);
//! they are read when the writers run again ([`Capture::resume`]), and directories that wait for them are written then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::aside::{Aside, AsideFile, Copying, Stretch};
use super::cache::{Record, Remembered, StatCache};
use super::crew::{Crew, Task};
use super::file::{self, FileBuffers, Past};
use super::large::{Large, Piece, Windows};
use crate::chunk::META;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::model::manifest::{FAULTS_KEPT_MAX, Fault, SnapshotStats};
use crate::model::node::{SYMLINK_BYTES_MAX, XATTRS_BYTES_MAX, XATTRS_INLINE_BYTES_MAX, encode_xattrs};
use crate::model::path::NESTING_MAX;
use crate::model::{LinkGroup, Meta, Name, Node, NodeKind, Stream, TreePath, Xattrs};
use crate::progress::Progress;
use crate::repo::{ChunkWriter, StreamWriter, Totals};
use crate::seal::keys::ChunkKind;
use crate::source::{EntryKind, SourceDir, SourceFile, Stat, XattrSet};

/// A fault's path and message are cut to this: a record must stay readable whatever names a volume holds.
const FAULT_PATH_BYTES_MAX: usize = 4096;
const FAULT_MESSAGE_BYTES_MAX: usize = 1024;

/// A captured tree.
pub(super) struct Captured {
    /// The root's node.
    pub(super) root: Node,
    /// Entries that are missing from the tree, and their count.
    pub(super) unreadable: (Vec<Fault>, u64),
    /// Entries that changed while they were read, and their count.
    pub(super) changed: (Vec<Fault>, u64),
    /// Directories whose cache records stand for a tree that is not the newest any more.
    pub(super) replaced: Vec<(TreePath, Stream)>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    files: AtomicU64,
    directories: AtomicU64,
    bytes: AtomicU64,
    read_bytes: AtomicU64,
    read_files: AtomicU64,
}

impl Captured {
    /// The record's statistics.
    pub(super) fn stats(&self, stored: &Stored) -> SnapshotStats {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SnapshotStats {
            files: value(&self.counts.files),
            directories: value(&self.counts.directories),
            bytes: value(&self.counts.bytes),
            read_bytes: value(&self.counts.read_bytes),
            new_bytes: stored.new_bytes,
            stored_bytes: stored.stored_bytes,
            new_chunks: stored.new_chunks,
            tree_bytes: stored.tree_bytes,
            read_files: value(&self.counts.read_files),
        }
    }
}

/// What a writer stored up to a moment, or between two.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stored {
    new_bytes: u64,
    stored_bytes: u64,
    new_chunks: u64,
    tree_bytes: u64,
}

impl Stored {
    /// Up to now.
    pub(super) fn of(writer: &ChunkWriter<'_>) -> Self {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Totals { new_chunks, new_bytes, stored_bytes, tree_bytes, .. } = writer.totals();
        Self {
            new_bytes: value(new_bytes),
            stored_bytes: value(stored_bytes),
            new_chunks: value(new_chunks),
            tree_bytes: value(tree_bytes),
        }
    }

    /// What was stored since an earlier moment.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        Self {
            new_bytes: self.new_bytes - earlier.new_bytes,
            stored_bytes: self.stored_bytes - earlier.stored_bytes,
            new_chunks: self.new_chunks - earlier.new_chunks,
            tree_bytes: self.tree_bytes - earlier.tree_bytes,
        }
    }

    /// Both together.
    pub(super) fn plus(&self, other: &Self) -> Self {
        Self {
            new_bytes: self.new_bytes + other.new_bytes,
            stored_bytes: self.stored_bytes + other.stored_bytes,
            new_chunks: self.new_chunks + other.new_chunks,
            tree_bytes: self.tree_bytes + other.tree_bytes,
        }
    }
}

/// What the threads of one capture have in common.
pub(super) struct Gear {
    threads: usize,
    crew: Crew<Below, Job, Piece>,
    windows: Arc<Windows>,
}

impl Gear {
    /// For one capture, on all cores.
    pub(super) fn new() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        Self { threads, crew: Crew::new(threads), windows: Windows::new(threads) }
    }
}

/// What is done with files that have to be read.
pub(super) enum Mode<'c> {
    /// They are read.
    Read,
    /// They are set aside, to be read later.
    Aside(&'c Aside<'c>),
    /// Their lengths are added up. Nothing comes of such a capture but the sum.
    Survey(AtomicU64),
}

/// A directory whose entries are not all done.
struct Pending {
    parent: Option<(Arc<Pending>, usize)>,
    handle: Arc<dyn SourceDir>,
    path: TreePath,
    depth: usize,
    stat: Stat,
    scanned: Timestamp,
    /// Its tree in the parent snapshot.
    before: Option<Stream>,
    /// Everything but subdirectories was taken over from its cache record, which need not be written again then.
    kept: AtomicBool,
    /// It has the entries of its cache record, no more and no fewer, and none was found to differ so far.
    same: AtomicBool,
    entries: Mutex<Vec<Slot>>,
    /// Its own attributes, as they were when it was listed.
    xattrs: OnceLock<XattrSet>,
    /// Entries that are not done, and one for the walk itself.
    outstanding: AtomicUsize,
}

impl Pending {
    /// The name and the stat of an entry.
    fn entry(&self, slot: usize) -> (Name, Stat) {
        let slot = &lock(&self.entries)[slot];
        (slot.name.clone(), slot.stat)
    }

    fn differs(&self) {
        self.same.store(false, Ordering::SeqCst);
    }
}

/// A chain of directories is taken apart one by one: one inside the other, a deep one would use up the stack.
impl Drop for Pending {
    fn drop(&mut self) {
        let mut above = self.parent.take();
        while let Some((pending, _)) = above {
            above = Arc::try_unwrap(pending).ok().and_then(|mut last| last.parent.take());
        }
    }
}

/// One entry of a pending directory; `node` is its record once it is done, empty when it is missing.
struct Slot {
    name: Name,
    stat: Stat,
    read_day: u32,
    node: Vec<u8>,
    /// Of a directory, its record in the parent snapshot.
    before: Option<Vec<u8>>,
}

/// A file to read.
struct Job {
    directory: Arc<Pending>,
    slot: usize,
    past: Option<Box<Past>>,
    /// What was set aside of it.
    aside: Option<Arc<AsideFile>>,
}

/// A directory to list, an entry of another one.
struct Below {
    parent: Arc<Pending>,
    slot: usize,
    /// Its tree in the parent snapshot.
    before: Option<Stream>,
}

/// A capture that goes on.
pub(super) struct Capture<'c, 'r> {
    gear: &'c Gear,
    large: Large<'c, 'r, Below, Job>,
    writer: &'c ChunkWriter<'r>,
    cache: &'c StatCache<'r>,
    progress: &'c Progress,
    mode: Mode<'c>,
    device: Option<u64>,
    /// The device of the root, whose file system was settled. What is remembered of another one is not trusted.
    settled: u64,
    counts: Counts,
    unreadable: Mutex<(Vec<Fault>, u64)>,
    changed: Mutex<(Vec<Fault>, u64)>,
    replaced: Mutex<Vec<(TreePath, Stream)>>,
    /// Content of inodes with several names, so that it is read once.
    linked: Mutex<HashMap<(u64, u64), (Stat, Node)>>,
    /// Files that were set aside, and those of them that have several names.
    aside: Mutex<Vec<Job>>,
    aside_linked: Mutex<HashMap<(u64, u64), Arc<AsideFile>>>,
    root: Mutex<Option<Node>>,
    failure: Mutex<Option<Error>>,
}

/// Captures the tree below `root`. The first error of the repository, or a wish to stop, ends it.
pub(super) fn capture(
    writer: &ChunkWriter<'_>,
    root: Arc<dyn SourceDir>,
    cache: &StatCache<'_>,
    one_file_system: bool,
    progress: &Progress,
) -> Result<Captured> {
    let gear = Gear::new();
    let capture = Capture::new(&gear, writer, cache, Mode::Read, progress);
    capture.run(root, one_file_system)?.finish()
}

impl<'c, 'r> Capture<'c, 'r> {
    pub(super) fn new(
        gear: &'c Gear,
        writer: &'c ChunkWriter<'r>,
        cache: &'c StatCache<'r>,
        mode: Mode<'c>,
        progress: &'c Progress,
    ) -> Self {
        Self {
            gear,
            large: Large { writer, crew: &gear.crew, windows: &gear.windows, progress },
            writer,
            cache,
            progress,
            mode,
            device: None,
            settled: 0,
            counts: Counts::default(),
            unreadable: Mutex::default(),
            changed: Mutex::default(),
            replaced: Mutex::default(),
            linked: Mutex::default(),
            aside: Mutex::default(),
            aside_linked: Mutex::default(),
            root: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Walks the tree below `root`.
    pub(super) fn run(mut self, root: Arc<dyn SourceDir>, one_file_system: bool) -> Result<Self> {
        let stat = root.stat()?;
        self.device = one_file_system.then_some(stat.device);
        self.settled = stat.device;
        // What is in it waits for the threads.
        self.list(self.enter(None, root, TreePath::root(), stat, self.cache.anchor()), &mut Vec::new())?;
        self.work_all()?;
        Ok(self)
    }

    /// Reads what was set aside.
    pub(super) fn resume(self) -> Result<Self> {
        let jobs = std::mem::take(&mut *lock(&self.aside));
        lock(&self.aside_linked).clear();
        self.gear.crew.add(jobs, Vec::new());
        self.work_all()?;
        Ok(self)
    }

    fn work_all(&self) -> Result<()> {
        std::thread::scope(|scope| {
            for _ in 0..self.gear.threads {
                scope.spawn(|| self.work());
            }
        });
        lock(&self.failure).take().map_or(Ok(()), Err)
    }

    /// How many bytes a survey found that have to be read.
    pub(super) fn surveyed(&self) -> u64 {
        match &self.mode {
            Mode::Survey(bytes) => bytes.load(Ordering::Relaxed),
            Mode::Read | Mode::Aside(_) => 0,
        }
    }

    /// The tree.
    pub(super) fn finish(self) -> Result<Captured> {
        let root = lock(&self.root).take().ok_or_else(|| Error::new(ErrorKind::Source, "the walk ended before the root was done"))?;
        Ok(Captured {
            root,
            unreadable: std::mem::take(&mut lock(&self.unreadable)),
            changed: std::mem::take(&mut lock(&self.changed)),
            replaced: std::mem::take(&mut lock(&self.replaced)),
            counts: self.counts,
        })
    }
}

impl Capture<'_, '_> {
    fn enter(
        &self,
        parent: Option<(Arc<Pending>, usize)>,
        handle: Arc<dyn SourceDir>,
        path: TreePath,
        stat: Stat,
        before: Option<Stream>,
    ) -> Arc<Pending> {
        let depth = parent.as_ref().map_or(0, |(parent, _)| parent.depth + 1);
        let scanned = self.cache.began();
        Arc::new(Pending {
            parent,
            handle,
            path,
            depth,
            stat,
            scanned,
            before,
            kept: AtomicBool::new(false),
            same: AtomicBool::new(false),
            entries: Mutex::default(),
            xattrs: OnceLock::new(),
            outstanding: AtomicUsize::new(1),
        })
    }

    /// Opens a subdirectory and lists it.
    fn descend(&self, below: Below, buffer: &mut Vec<u8>) -> Result<()> {
        let Below { parent, slot, before } = below;
        let (name, stat) = parent.entry(slot);
        let path = parent.path.join(&name);
        let opened = if path.is_too_deep(parent.depth + 1) {
            Err(Error::new(ErrorKind::Source, format!("the directory is more than {NESTING_MAX} deep or its path too long")))
        } else {
            parent.handle.open_dir(&name, &stat).and_then(|handle| Ok((handle.stat()?, handle)))
        };
        match opened {
            Ok((stat, handle)) => self.list(self.enter(Some((parent, slot)), handle, path, stat, before), buffer),
            Err(error) => {
                self.missing(&path, &error);
                parent.differs();
                self.done(parent, buffer)
            }
        }
    }

    /// Lists a directory: what is unchanged is done at once, files and subdirectories become tasks.
    fn list(&self, directory: Arc<Pending>, buffer: &mut Vec<u8>) -> Result<()> {
        self.check()?;
        let xattrs = directory.handle.xattrs().unwrap_or_else(|error| {
            self.fault(&self.unreadable, &directory.path, &error);
            XattrSet::new()
        });
        let _ = directory.xattrs.set(xattrs);
        let other_device = self.device.is_some_and(|device| device != directory.stat.device);
        let entries = if other_device { Ok(Vec::new()) } else { directory.handle.entries() };
        let entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                self.missing(&directory.path, &error.on("its entries"));
                directory.differs();
                return self.done(directory, buffer);
            }
        };
        let record = directory.before.and_then(|before| self.cache.record(&directory.path, &before));
        let trusted = directory.stat.device == self.settled;
        // Only what this host noted is vouched for: after the loss of a pack no note is left, and the tree tells nothing of it.
        let vouched = record.as_ref().is_some_and(Record::is_noted);
        let mut slots = Vec::with_capacity(entries.len());
        let (mut files, mut specials, mut below) = (Vec::new(), Vec::new(), Vec::new());
        for entry in entries {
            let stat = match entry.stat {
                Ok(stat) => stat,
                Err(error) => {
                    self.missing(&directory.path.join(&entry.name), &error);
                    continue;
                }
            };
            let slot = slots.len();
            let mut done = Slot { name: entry.name, stat, read_day: self.cache.today(), node: Vec::new(), before: None };
            let remembered = record.as_ref().and_then(|record| record.get(&done.name));
            if stat.kind == EntryKind::Directory {
                done.before = remembered.map(|remembered| remembered.node.to_vec());
                let before = remembered.as_ref().and_then(Remembered::directory);
                below.push(Below { parent: directory.clone(), slot, before });
            } else if !(trusted && self.reuse(record.as_ref(), remembered.as_ref(), &mut done)) {
                if stat.kind == EntryKind::File {
                    let past = record.as_ref().and_then(|record| record.content(&done.name, &stat));
                    let past = past.map(|content| Box::new(Past { content, vouched: vouched && self.cache.vouched() }));
                    files.push(Job { directory: directory.clone(), slot, past, aside: None });
                } else {
                    specials.push((slot, done.name.clone()));
                }
            }
            slots.push(done);
        }
        let unread = files.is_empty() && specials.is_empty();
        directory.kept.store(unread && vouched, Ordering::SeqCst);
        directory.same.store(unread && vouched && record.is_some_and(|record| record.len() == slots.len()), Ordering::SeqCst);
        directory.outstanding.fetch_add(files.len() + below.len(), Ordering::SeqCst);
        *lock(&directory.entries) = slots;
        for (slot, name) in specials {
            self.special(&directory, slot, &name, buffer)?;
        }
        self.gear.crew.add(files, below);
        self.done(directory, buffer)
    }

    /// Takes over what the cache remembers of an entry that did not change.
    fn reuse(&self, record: Option<&Record>, remembered: Option<&Remembered<'_>>, slot: &mut Slot) -> bool {
        let (Some(record), Some(remembered)) = (record, remembered) else { return false };
        let Some(node) = self.cache.unchanged(record, remembered, &slot.stat) else { return false };
        slot.node.extend_from_slice(remembered.node);
        slot.read_day = remembered.read_day;
        self.count(&node);
        true
    }

    /// Symlinks, fifos, sockets and devices: nothing to read but a link's target.
    fn special(&self, directory: &Arc<Pending>, slot: usize, name: &Name, buffer: &mut Vec<u8>) -> Result<()> {
        let stat = lock(&directory.entries)[slot].stat;
        let look = || {
            let kind = match stat.kind {
                EntryKind::Symlink => NodeKind::Symlink(link_target(directory.handle.read_link(name)?)?),
                EntryKind::Fifo => NodeKind::Fifo,
                EntryKind::Socket => NodeKind::Socket,
                EntryKind::CharDevice(major, minor) => NodeKind::CharDevice { major, minor },
                EntryKind::BlockDevice(major, minor) => NodeKind::BlockDevice { major, minor },
                EntryKind::File | EntryKind::Directory => return Err(Error::new(ErrorKind::Source, "the entry is of an unexpected kind")),
            };
            Ok((kind, directory.handle.entry_xattrs(name)?))
        };
        match look() {
            Ok((kind, xattrs)) => {
                let meta = self.meta(&stat, self.xattrs(xattrs, buffer)?, false);
                self.finish_entry(directory, slot, &Node { name: Some(name.clone()), meta, kind }, None);
            }
            Err(error) => self.missing(&directory.path.join(name), &error),
        }
        Ok(())
    }

    fn work(&self) {
        let mut buffers = FileBuffers::default();
        self.gear.crew.work(|task| {
            let done = self.check().and_then(|()| match task {
                Task::Directory(below) => self.descend(below, &mut buffers.meta),
                Task::File(job) => self.file(job, &mut buffers),
                Task::Piece(piece) => {
                    self.large.work(piece);
                    Ok(())
                }
            });
            if let Err(error) = done {
                self.fail(error);
            }
        });
    }

    fn file(&self, mut job: Job, buffers: &mut FileBuffers) -> Result<()> {
        let (name, listed) = job.directory.entry(job.slot);
        match &self.mode {
            Mode::Survey(bytes) => {
                bytes.fetch_add(listed.size, Ordering::Relaxed);
                return Ok(());
            }
            Mode::Aside(aside) if job.aside.is_none() => match self.set_aside(aside, &job, &name, &listed) {
                Ok(held) => {
                    job.aside = Some(held);
                    lock(&self.aside).push(job);
                    return Ok(());
                }
                Err(error) if is_entry_error(&error) => {
                    self.missing(&job.directory.path.join(&name), &error);
                    return self.done(job.directory, &mut buffers.meta);
                }
                Err(error) => return Err(error),
            },
            Mode::Aside(_) | Mode::Read => {}
        }
        let inode = (listed.device, listed.inode);
        let known = if listed.links > 1 {
            lock(&self.linked).get(&inode).filter(|(stat, _)| *stat == listed).map(|(_, node)| node.clone())
        } else {
            None
        };
        match known {
            Some(node) => {
                let node = Node { name: Some(name), ..node };
                self.count(&node);
                self.finish_slot(&job.directory, job.slot, &node, None);
            }
            None => self.read_file(&job, &name, &listed, buffers)?,
        }
        self.done(job.directory, &mut buffers.meta)
    }

    fn set_aside(&self, aside: &Aside<'_>, job: &Job, name: &Name, listed: &Stat) -> Result<Arc<AsideFile>> {
        let inode = (listed.device, listed.inode);
        if let Some(held) = lock(&self.aside_linked).get(&inode) {
            return Ok(Arc::clone(held));
        }
        let file: Arc<dyn SourceFile> = job.directory.handle.open_file(name, listed)?.into();
        let share = |parts: Vec<Stretch>, copying: &Copying| {
            self.gear.crew.add_pieces(parts.into_iter().map(Piece::Aside));
            while !copying.is_done() {
                if let Err(error) = aside.check() {
                    copying.fail(error);
                }
                match self.gear.crew.piece_until(|| copying.is_done()) {
                    Some(piece) => self.large.work(piece),
                    None if self.gear.crew.is_stopped() => return Err(Error::new(ErrorKind::Interrupted, "another worker failed")),
                    None => {}
                }
            }
            Ok(())
        };
        let held = Arc::new(aside.copy(&file, &share)?);
        if listed.links > 1 {
            lock(&self.aside_linked).insert(inode, Arc::clone(&held));
        }
        Ok(held)
    }

    fn read_file(&self, job: &Job, name: &Name, listed: &Stat, buffers: &mut FileBuffers) -> Result<()> {
        let past = job.past.as_deref().copied();
        let read = match &job.aside {
            Some(held) => file::read_aside(&self.large, Arc::clone(held), past, buffers),
            None => file::read(&self.large, &*job.directory.handle, name, listed, past, buffers),
        };
        match read {
            Ok(read) => {
                let meta = self.meta(&read.stat, self.xattrs(read.xattrs, &mut buffers.meta)?, read.changed.is_some());
                let node = Node { name: Some(name.clone()), meta, kind: read.kind };
                if let Some(how) = &read.changed {
                    self.fault(&self.changed, &job.directory.path.join(name), how);
                } else if read.stat.links > 1 {
                    lock(&self.linked).insert((read.stat.device, read.stat.inode), (read.stat, node.clone()));
                }
                self.counts.read_bytes.fetch_add(node.size(), Ordering::Relaxed);
                self.counts.read_files.fetch_add(1, Ordering::Relaxed);
                self.finish_entry(&job.directory, job.slot, &node, Some(read.stat));
                Ok(())
            }
            Err(error) if is_entry_error(&error) => {
                self.missing(&job.directory.path.join(name), &error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn finish_entry(&self, directory: &Pending, slot: usize, node: &Node, stat: Option<Stat>) {
        self.counts.files.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(file_size(node), Ordering::Relaxed);
        Progress::add(&self.progress.files_done, 1);
        self.finish_slot(directory, slot, node, stat);
    }

    fn finish_slot(&self, directory: &Pending, slot: usize, node: &Node, stat: Option<Stat>) {
        let mut entries = lock(&directory.entries);
        let slot = &mut entries[slot];
        node.encode(&mut slot.node);
        if slot.before.take().is_none_or(|before| before != slot.node) {
            directory.differs();
        }
        if let Some(stat) = stat {
            slot.stat = stat;
        }
    }

    /// One entry of `directory` is done; when it was the last, the directory is written and is itself one entry less for
    /// its parent, and so on up.
    fn done(&self, directory: Arc<Pending>, buffer: &mut Vec<u8>) -> Result<()> {
        if matches!(self.mode, Mode::Survey(_)) {
            return Ok(());
        }
        let mut current = directory;
        while current.outstanding.fetch_sub(1, Ordering::SeqCst) == 1 {
            let node = self.write_directory(&current, buffer)?;
            self.counts.directories.fetch_add(1, Ordering::Relaxed);
            let Some((parent, slot)) = current.parent.clone() else {
                *lock(&self.root) = Some(node);
                return Ok(());
            };
            self.finish_slot(&parent, slot, &node, Some(current.stat));
            current = parent;
        }
        Ok(())
    }

    fn write_directory(&self, directory: &Pending, buffer: &mut Vec<u8>) -> Result<Node> {
        let entries = std::mem::take(&mut *lock(&directory.entries));
        let stream = match directory.before {
            // Entry by entry what the parent has, whose tree is in the repository for certain.
            Some(before) if directory.same.load(Ordering::SeqCst) && self.cache.vouched() => before,
            before => self.stream(entries.iter().map(|entry| &entry.node[..]), before.as_ref(), buffer)?,
        };
        let here = entries.iter().filter(|entry| !entry.node.is_empty());
        let same = directory.before.is_some_and(|before| before.id == stream.id);
        if !same || !directory.kept.load(Ordering::SeqCst) {
            self.cache.remember(
                &directory.path,
                &stream,
                directory.scanned,
                here.map(|entry| (&entry.stat, entry.read_day, &entry.node[..])),
            );
        }
        if let Some(before) = directory.before.filter(|before| before.id != stream.id) {
            lock(&self.replaced).push((directory.path.clone(), before));
        }
        let xattrs = self.xattrs(directory.xattrs.get().cloned().unwrap_or_default(), buffer)?;
        let name = directory.path.names().last().map(Name::new).transpose()?;
        Ok(Node { name, meta: Meta { links: None, ..self.meta(&directory.stat, xattrs, false) }, kind: NodeKind::Directory(stream) })
    }

    fn meta(&self, stat: &Stat, xattrs: Xattrs, changed: bool) -> Meta {
        let links = (stat.links > 1).then(|| {
            let group = self.writer.repository().keys().fingerprint("hard links", &[&stat.device.to_le_bytes(), &stat.inode.to_le_bytes()]);
            LinkGroup(group.iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
        });
        Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: stat.mtime, xattrs, links, changed }
    }

    /// Small sets of attributes stand in the node, larger ones are streams of their own.
    fn xattrs(&self, set: XattrSet, buffer: &mut Vec<u8>) -> Result<Xattrs> {
        if set.is_empty() {
            return Ok(Xattrs::None);
        }
        let encoded = encode_xattrs(set);
        if encoded.len() <= XATTRS_INLINE_BYTES_MAX {
            return Ok(Xattrs::Inline(encoded));
        }
        debug_assert!(encoded.len() as u64 <= XATTRS_BYTES_MAX);
        Ok(Xattrs::Stream(self.stream([&encoded[..]].into_iter(), None, buffer)?))
    }

    /// Stores a directory's nodes or an xattr set.
    fn stream<'a>(&self, parts: impl Iterator<Item = &'a [u8]>, earlier: Option<&Stream>, buffer: &mut Vec<u8>) -> Result<Stream> {
        let mut stream = StreamWriter::new(self.writer, ChunkKind::Tree, &META, earlier, std::mem::take(buffer));
        for part in parts {
            stream.write(part)?;
        }
        let (stream, spare) = stream.finish()?;
        *buffer = spare;
        Ok(stream)
    }

    fn count(&self, node: &Node) {
        self.counts.files.fetch_add(1, Ordering::Relaxed);
        self.counts.bytes.fetch_add(file_size(node), Ordering::Relaxed);
        Progress::add(&self.progress.files_done, 1);
        Progress::add(&self.progress.bytes_done, file_size(node));
    }

    fn missing(&self, path: &TreePath, error: &Error) {
        // What is gone by the time it is opened changed while it was read; all else could not be read.
        let faults = if error.kind() == ErrorKind::NotFound { &self.changed } else { &self.unreadable };
        self.fault(faults, path, error);
    }

    fn fault(&self, faults: &Mutex<(Vec<Fault>, u64)>, path: &TreePath, message: &dyn std::fmt::Display) {
        let fault =
            Fault { path: bounded(path.to_string(), FAULT_PATH_BYTES_MAX), message: bounded(message.to_string(), FAULT_MESSAGE_BYTES_MAX) };
        self.progress.warn(&fault.path, &fault.message);
        let mut faults = lock(faults);
        faults.1 += 1;
        if faults.0.len() < FAULTS_KEPT_MAX {
            faults.0.push(fault);
        }
    }

    fn check(&self) -> Result<()> {
        self.progress.check()
    }

    /// The first failure is the one that counts; what follows it is other threads stopping.
    fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
        self.gear.crew.stop();
    }
}

/// Whether a node and a stat are of the same kind, with what the stat knows of it.
pub(super) fn same_kind(node: &Node, stat: &Stat) -> bool {
    match (&node.kind, stat.kind) {
        (NodeKind::File(_) | NodeKind::InlineFile(_), EntryKind::File) => node.size() == stat.size,
        (NodeKind::Symlink(target), EntryKind::Symlink) => target.len() as u64 == stat.size,
        (NodeKind::Fifo, EntryKind::Fifo) | (NodeKind::Socket, EntryKind::Socket) => true,
        (NodeKind::CharDevice { major, minor }, EntryKind::CharDevice(a, b)) => (*major, *minor) == (a, b),
        (NodeKind::BlockDevice { major, minor }, EntryKind::BlockDevice(a, b)) => (*major, *minor) == (a, b),
        _ => false,
    }
}

/// An error that costs one entry, not the run.
fn is_entry_error(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Source | ErrorKind::NotFound)
}

/// The end of a text that is too long, which for a path is what tells most.
fn bounded(text: String, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text;
    }
    let start = (text.len() - bytes_max..text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    format!("...{}", &text[start..])
}

fn file_size(node: &Node) -> u64 {
    match node.kind {
        NodeKind::File(_) | NodeKind::InlineFile(_) => node.size(),
        _ => 0,
    }
}

fn link_target(target: Vec<u8>) -> Result<Vec<u8>> {
    if target.is_empty() || target.len() > SYMLINK_BYTES_MAX {
        return Err(Error::new(ErrorKind::Source, "a symlink's target is empty or too long"));
    }
    Ok(target)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
