//! The file system in memory behind a [`super::scripted::ScriptedSource`]: what a test builds and changes.
//!
//! It behaves as a file system does where a snapshot could notice: a change stamps mtime and ctime from the tree's own
//! clock, a replaced entry is a new inode, an open file outlives its name, blocks that were never written are holes.
//!
//! Paths are bytes as in [`TreePath::parse`]. A path that makes no sense (an entry that isn't there, a file used as a
//! directory) is a mistake of the test and panics.
#![allow(clippy::panic, reason = "a test that names what is not there must fail where it does")]

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::time::Duration;

use rustix::fs::makedev;

use crate::clock::Timestamp;
use crate::model::path::escape;
use crate::model::{Name, TreePath};

use super::{EntryKind, Extent, Stat, XattrSet};

/// Contents are kept in blocks of this size, and holes are whole blocks, as on most file systems.
pub const BLOCK_BYTES: usize = 4096;
const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES as u64 / 512;
/// The root's inode number, as on ext4. Others follow in the order of their making and are never used again.
const ROOT_INODE: u64 = 2;
/// The tree's clock starts here (2023-11-14) and moves by one jiffy with each change.
const START_SECONDS: i64 = 1_700_000_000;
const JIFFY: Duration = Duration::from_millis(4);

/// A file system in memory. Made and changed by its methods; those that return `&mut Self` can be chained.
///
/// An entry made where there is one already replaces it, as after `rename(2)`: a new inode, the old one gone from this
/// name. Missing directories above are made.
#[derive(Debug)]
pub struct Tree {
    inodes: HashMap<u64, Inode>,
    next_inode: u64,
    now: Timestamp,
    tick: Duration,
    failure: Option<io::Error>,
}

#[derive(Debug)]
struct Inode {
    body: Body,
    mode: u16,
    uid: u32,
    gid: u32,
    mtime: Timestamp,
    ctime: Timestamp,
    device: u64,
    names: u64,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// A memory mapping has written since the last settling, so that further writes leave no trace in the times.
    mapped_dirty: bool,
}

#[derive(Debug)]
enum Body {
    File(Blocks),
    Directory(BTreeMap<Name, u64>),
    Symlink(Vec<u8>),
    Special(EntryKind),
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// An empty root directory.
    pub fn new() -> Self {
        let now = Timestamp::new(START_SECONDS, 0);
        let mut tree = Self { inodes: HashMap::new(), next_inode: ROOT_INODE, now, tick: JIFFY, failure: None };
        tree.allocate(Body::Directory(BTreeMap::new()), makedev(8, 1));
        tree
    }

    /// A directory; nothing happens where there is one.
    pub fn dir(&mut self, path: impl AsRef<[u8]>) -> &mut Self {
        let path = parse(path);
        if !self.find(&path).is_some_and(|inode| matches!(self.inodes[&inode].body, Body::Directory(_))) {
            self.put(&path, Body::Directory(BTreeMap::new()));
        }
        self
    }

    /// A regular file with this content and no holes.
    pub fn file(&mut self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> &mut Self {
        self.sparse_file(path, content.as_ref().len() as u64, &[(0, content.as_ref())])
    }

    /// A regular file of `size` bytes with holes but for these pieces, given by offset.
    pub fn sparse_file(&mut self, path: impl AsRef<[u8]>, size: u64, pieces: &[(u64, &[u8])]) -> &mut Self {
        let mut blocks = Blocks::default();
        blocks.truncate(size);
        for (offset, bytes) in pieces {
            blocks.write(*offset, bytes);
        }
        self.put(&parse(path), Body::File(blocks));
        self
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> &mut Self {
        self.put(&parse(path), Body::Symlink(target.as_ref().to_vec()));
        self
    }

    /// A named pipe.
    pub fn fifo(&mut self, path: impl AsRef<[u8]>) -> &mut Self {
        self.special(path, EntryKind::Fifo)
    }

    /// A Unix socket.
    pub fn socket(&mut self, path: impl AsRef<[u8]>) -> &mut Self {
        self.special(path, EntryKind::Socket)
    }

    /// A character device.
    pub fn char_device(&mut self, path: impl AsRef<[u8]>, major: u32, minor: u32) -> &mut Self {
        self.special(path, EntryKind::CharDevice(major, minor))
    }

    /// A block device.
    pub fn block_device(&mut self, path: impl AsRef<[u8]>, major: u32, minor: u32) -> &mut Self {
        self.special(path, EntryKind::BlockDevice(major, minor))
    }

    /// One more name for what `existing` names (not a directory).
    pub fn hard_link(&mut self, existing: impl AsRef<[u8]>, path: impl AsRef<[u8]>) -> &mut Self {
        let (existing, path) = (parse(existing), parse(path));
        let inode = self.inode(&existing);
        assert!(!matches!(self.inodes[&inode].body, Body::Directory(_)), "{existing}: a directory has one name only");
        if self.find(&path).is_some() {
            self.unlink(&path);
        }
        let now = self.advance_by_tick();
        self.link(&path, inode, now);
        self.at(inode).ctime = now;
        self
    }

    /// Takes a name away, and all below it. Open handles go on with what they hold.
    pub fn remove(&mut self, path: impl AsRef<[u8]>) -> &mut Self {
        self.unlink(&parse(path));
        self
    }

    /// Gives an entry another name, replacing what was there. The inode stays; its ctime moves.
    pub fn rename(&mut self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> &mut Self {
        let (from, to) = (parse(from), parse(to));
        let inode = self.inode(&from);
        assert!(!to.starts_with(&from), "{from}: can't be moved below itself");
        if self.find(&to).is_some() {
            self.unlink(&to);
        }
        let now = self.advance_by_tick();
        self.detach(&from, now);
        self.link(&to, inode, now);
        self.at(inode).ctime = now;
        self
    }

    /// Adds bytes at a file's end.
    pub fn append(&mut self, path: impl AsRef<[u8]>, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.change_content(path, |blocks| blocks.write(blocks.size, bytes.as_ref()))
    }

    /// Writes bytes into a file, extending it where they reach beyond its end.
    pub fn write(&mut self, path: impl AsRef<[u8]>, offset: u64, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.change_content(path, |blocks| blocks.write(offset, bytes.as_ref()))
    }

    /// Writes through a shared memory mapping: only the first write after [`Source::settle`](super::Source::settle) moves
    /// the times, the following ones change the content alone. Doesn't extend the file.
    pub fn write_mapped(&mut self, path: impl AsRef<[u8]>, offset: u64, bytes: impl AsRef<[u8]>) -> &mut Self {
        let inode = self.inode(&parse(path));
        if !self.at(inode).mapped_dirty {
            self.touch_content(inode);
        }
        let node = self.at(inode);
        node.mapped_dirty = true;
        let Body::File(blocks) = &mut node.body else { panic!("only files can be mapped") };
        assert!(offset + bytes.as_ref().len() as u64 <= blocks.size, "a mapping ends with the file");
        blocks.write(offset, bytes.as_ref());
        self
    }

    /// Cuts a file off or extends it with a hole.
    pub fn truncate(&mut self, path: impl AsRef<[u8]>, size: u64) -> &mut Self {
        self.change_content(path, |blocks| blocks.truncate(size))
    }

    /// Makes a hole: whole blocks are given up, parts of blocks zeroed. The size stays.
    pub fn punch_hole(&mut self, path: impl AsRef<[u8]>, offset: u64, len: u64) -> &mut Self {
        self.change_content(path, |blocks| blocks.punch(offset, len))
    }

    /// Sets the permission bits.
    pub fn set_mode(&mut self, path: impl AsRef<[u8]>, mode: u16) -> &mut Self {
        self.change_inode(path, |node| node.mode = mode & 0o7777)
    }

    /// Sets owner and group.
    pub fn set_owner(&mut self, path: impl AsRef<[u8]>, uid: u32, gid: u32) -> &mut Self {
        self.change_inode(path, |node| (node.uid, node.gid) = (uid, gid))
    }

    /// Sets the mtime, as `utimensat(2)` does: the ctime still moves.
    pub fn set_mtime(&mut self, path: impl AsRef<[u8]>, mtime: Timestamp) -> &mut Self {
        self.change_inode(path, |node| node.mtime = mtime)
    }

    /// Makes a change and puts back the mtime that the entry had before it, as rsync and tar do. Only the ctime tells.
    pub fn keeping_mtime(&mut self, path: impl AsRef<[u8]>, change: impl FnOnce(&mut Self)) -> &mut Self {
        let mtime = self.stat(path.as_ref()).mtime;
        change(self);
        self.set_mtime(path, mtime)
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&mut self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.change_inode(path, |node| {
            node.xattrs.insert(name.as_ref().to_vec(), value.as_ref().to_vec());
        })
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&mut self, path: impl AsRef<[u8]>, name: impl AsRef<[u8]>) -> &mut Self {
        self.change_inode(path, |node| {
            node.xattrs.remove(name.as_ref());
        })
    }

    /// Puts an entry on another file system, as a mount would; what is made below it later is there too.
    pub fn set_device(&mut self, path: impl AsRef<[u8]>, device: u64) -> &mut Self {
        let inode = self.inode(&parse(path));
        self.at(inode).device = device;
        self
    }

    /// Sets the clock that stamps changes, forwards or backwards.
    pub fn set_time(&mut self, now: Timestamp) -> &mut Self {
        self.now = now;
        self
    }

    /// How far each change moves the clock before it is stamped: 4 ms at first. Zero makes all changes from now on fall
    /// into one moment, as on a file system whose clock is coarser than the changes are fast.
    pub fn set_tick(&mut self, tick: Duration) -> &mut Self {
        self.tick = tick;
        self
    }

    /// In a hook: makes the operation that is about to happen fail with this error instead.
    pub fn fail_step(&mut self, cause: io::Error) {
        self.failure = Some(cause);
    }

    /// The stat of an entry.
    pub fn stat(&self, path: impl AsRef<[u8]>) -> Stat {
        self.stat_inode(self.inode(&parse(path)))
    }

    /// Whether an entry is there.
    pub fn exists(&self, path: impl AsRef<[u8]>) -> bool {
        self.find(&parse(path)).is_some()
    }

    /// The whole content of a file, holes as zeros.
    pub fn content(&self, path: impl AsRef<[u8]>) -> Vec<u8> {
        let path = parse(path);
        let Body::File(blocks) = &self.inodes[&self.inode(&path)].body else { panic!("{path}: is no file") };
        let mut content = vec![0; usize::try_from(blocks.size).unwrap_or_else(|_| panic!("{path}: too large for memory"))];
        blocks.read(0, &mut content);
        content
    }

    /// The root's inode number.
    pub(super) fn root(&self) -> u64 {
        ROOT_INODE
    }

    pub(super) fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    pub(super) fn stat_inode(&self, inode: u64) -> Stat {
        let node = &self.inodes[&inode];
        let (kind, size, blocks, links) = match &node.body {
            Body::File(content) => (EntryKind::File, content.size, content.count() * SECTORS_PER_BLOCK, node.names),
            Body::Directory(entries) => {
                let below = entries.values().filter(|inode| matches!(self.inodes[inode].body, Body::Directory(_))).count();
                let links = if node.names == 0 && inode != ROOT_INODE { 0 } else { 2 + below as u64 };
                (EntryKind::Directory, BLOCK_BYTES as u64, SECTORS_PER_BLOCK, links)
            }
            Body::Symlink(target) => (EntryKind::Symlink, target.len() as u64, 0, node.names),
            Body::Special(kind) => (*kind, 0, 0, node.names),
        };
        Stat {
            kind,
            mode: node.mode,
            uid: node.uid,
            gid: node.gid,
            size,
            mtime: node.mtime,
            ctime: node.ctime,
            inode,
            device: node.device,
            links,
            blocks,
        }
    }

    /// The names in a directory; none when the inode is no directory.
    pub(super) fn names(&self, dir: u64) -> Vec<Name> {
        match &self.inodes[&dir].body {
            Body::Directory(entries) => entries.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// The inode that `name` stands for in the directory `dir`, or the system's answer where there is none.
    pub(super) fn lookup(&self, dir: u64, name: &Name) -> io::Result<u64> {
        match &self.inodes[&dir].body {
            Body::Directory(entries) => entries.get(name).copied().ok_or_else(|| rustix::io::Errno::NOENT.into()),
            _ => Err(rustix::io::Errno::NOTDIR.into()),
        }
    }

    pub(super) fn target(&self, inode: u64) -> Option<Vec<u8>> {
        match &self.inodes[&inode].body {
            Body::Symlink(target) => Some(target.clone()),
            _ => None,
        }
    }

    pub(super) fn xattrs(&self, inode: u64) -> XattrSet {
        self.inodes[&inode].xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    pub(super) fn read(&self, inode: u64, offset: u64, buffer: &mut [u8]) -> usize {
        match &self.inodes[&inode].body {
            Body::File(blocks) => blocks.read(offset, buffer),
            _ => 0,
        }
    }

    pub(super) fn next_data(&self, inode: u64, offset: u64, end: u64) -> Option<Extent> {
        match &self.inodes[&inode].body {
            Body::File(blocks) => blocks.next_data(offset, end),
            _ => None,
        }
    }

    /// Mapped writers fault again from here on.
    pub(super) fn settle(&mut self) {
        self.inodes.values_mut().for_each(|node| node.mapped_dirty = false);
    }

    fn special(&mut self, path: impl AsRef<[u8]>, kind: EntryKind) -> &mut Self {
        self.put(&parse(path), Body::Special(kind));
        self
    }

    fn put(&mut self, path: &TreePath, body: Body) {
        if self.find(path).is_some() {
            self.unlink(path);
        }
        let Some(parent) = path.parent() else { panic!("the root can't be replaced") };
        self.dir(parent.as_bytes());
        let device = self.inodes[&self.inode(&parent)].device;
        let now = self.advance_by_tick();
        let inode = self.allocate(body, device);
        self.link(path, inode, now);
    }

    fn allocate(&mut self, body: Body, device: u64) -> u64 {
        let mode = match body {
            Body::Directory(_) => 0o755,
            Body::Symlink(_) => 0o777,
            Body::File(_) | Body::Special(_) => 0o644,
        };
        let inode = self.next_inode;
        self.next_inode += 1;
        let (mtime, ctime, xattrs) = (self.now, self.now, BTreeMap::new());
        let node = Inode { body, mode, uid: 0, gid: 0, mtime, ctime, device, names: 0, xattrs, mapped_dirty: false };
        self.inodes.insert(inode, node);
        inode
    }

    fn link(&mut self, path: &TreePath, inode: u64, now: Timestamp) {
        if let Some(parent) = path.parent() {
            self.dir(parent.as_bytes());
        }
        let (dir, name) = self.place(path);
        self.entries(dir, path).insert(name, inode);
        self.stamp(dir, now);
        self.at(inode).names += 1;
    }

    /// Takes the name away and counts it off.
    fn detach(&mut self, path: &TreePath, now: Timestamp) -> u64 {
        let (dir, name) = self.place(path);
        let Some(inode) = self.entries(dir, path).remove(&name) else { panic!("{path}: is not there") };
        self.stamp(dir, now);
        let node = self.at(inode);
        node.names -= 1;
        node.ctime = now;
        inode
    }

    fn unlink(&mut self, path: &TreePath) {
        let now = self.advance_by_tick();
        let mut emptied = vec![self.detach(path, now)];
        while let Some(inode) = emptied.pop() {
            if let Body::Directory(entries) = &mut self.at(inode).body {
                let below = std::mem::take(entries);
                for inode in below.into_values() {
                    let node = self.at(inode);
                    node.names -= 1;
                    node.ctime = now;
                    emptied.push(inode);
                }
                self.stamp(inode, now);
            }
        }
    }

    fn change_content(&mut self, path: impl AsRef<[u8]>, change: impl FnOnce(&mut Blocks)) -> &mut Self {
        let path = parse(path);
        let inode = self.inode(&path);
        let Body::File(blocks) = &mut self.at(inode).body else { panic!("{path}: is no file") };
        change(blocks);
        self.touch_content(inode);
        self
    }

    fn change_inode(&mut self, path: impl AsRef<[u8]>, change: impl FnOnce(&mut Inode)) -> &mut Self {
        let inode = self.inode(&parse(path));
        let now = self.advance_by_tick();
        let node = self.at(inode);
        change(node);
        node.ctime = now;
        self
    }

    fn touch_content(&mut self, inode: u64) {
        let now = self.advance_by_tick();
        self.stamp(inode, now);
    }

    fn stamp(&mut self, inode: u64, now: Timestamp) {
        let node = self.at(inode);
        (node.mtime, node.ctime) = (now, now);
    }

    fn advance_by_tick(&mut self) -> Timestamp {
        let nanos = u64::from(self.now.nanos) + u64::from(self.tick.subsec_nanos());
        let seconds = self.tick.as_secs() + nanos / 1_000_000_000;
        let seconds = self.now.seconds.saturating_add_unsigned(seconds);
        self.now = Timestamp::new(seconds, u32::try_from(nanos % 1_000_000_000).unwrap_or(0));
        self.now
    }

    fn place(&self, path: &TreePath) -> (u64, Name) {
        let (Some(parent), Some(name)) = (path.parent(), path.names().last()) else { panic!("the root has no name") };
        let name = Name::new(name).unwrap_or_else(|error| panic!("{error}"));
        (self.inode(&parent), name)
    }

    fn entries(&mut self, dir: u64, path: &TreePath) -> &mut BTreeMap<Name, u64> {
        match &mut self.at(dir).body {
            Body::Directory(entries) => entries,
            _ => panic!("{path}: does not lie in a directory"),
        }
    }

    fn at(&mut self, inode: u64) -> &mut Inode {
        self.inodes.get_mut(&inode).unwrap_or_else(|| panic!("inode {inode} was never made"))
    }

    fn inode(&self, path: &TreePath) -> u64 {
        self.find(path).unwrap_or_else(|| panic!("{path}: is not there"))
    }

    fn find(&self, path: &TreePath) -> Option<u64> {
        path.names().try_fold(ROOT_INODE, |dir, name| self.lookup(dir, &Name::new(name).ok()?).ok())
    }
}

fn parse(path: impl AsRef<[u8]>) -> TreePath {
    TreePath::parse(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", escape(path.as_ref())))
}

/// A file's content: the blocks that were written, by number.
#[derive(Debug, Default)]
struct Blocks {
    size: u64,
    written: BTreeMap<u64, Box<[u8]>>,
}

impl Blocks {
    fn count(&self) -> u64 {
        self.written.len() as u64
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, start, piece) in pieces(offset, bytes.len()) {
            let block = self.written.entry(number).or_insert_with(|| vec![0; BLOCK_BYTES].into());
            block[start..start + piece.len()].copy_from_slice(&bytes[piece]);
        }
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = left.min(buffer.len());
        for (number, start, piece) in pieces(offset, len) {
            match self.written.get(&number) {
                Some(block) => buffer[piece.clone()].copy_from_slice(&block[start..start + piece.len()]),
                None => buffer[piece].fill(0),
            }
        }
        len
    }

    fn truncate(&mut self, size: u64) {
        if size < self.size {
            self.punch(size, self.size - size);
            let whole = size.div_ceil(BLOCK_BYTES as u64);
            self.written.retain(|number, _| *number < whole);
        }
        self.size = size;
    }

    fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.size);
        let block_bytes = BLOCK_BYTES as u64;
        let touched: Vec<u64> = self.written.range(offset / block_bytes..end.div_ceil(block_bytes)).map(|(n, _)| *n).collect();
        for number in touched {
            let first = number * block_bytes;
            let (from, to) = (offset.max(first) - first, end.min(first + block_bytes) - first);
            if from == 0 && to == block_bytes {
                self.written.remove(&number);
            } else if let Some(block) = self.written.get_mut(&number)
                && from < to
            {
                block[from as usize..to as usize].fill(0);
            }
        }
    }

    fn next_data(&self, offset: u64, end: u64) -> Option<Extent> {
        let end = end.min(self.size);
        if offset >= end {
            return None;
        }
        let block_bytes = BLOCK_BYTES as u64;
        let mut numbers = self.written.range(offset / block_bytes..).map(|(number, _)| *number);
        let first = numbers.next()?;
        let mut after = first + 1;
        while numbers.next() == Some(after) {
            after += 1;
        }
        let start = offset.max(first * block_bytes);
        (start < end).then(|| Extent { start, end: end.min(after * block_bytes) })
    }
}

/// A stretch of a file cut at block boundaries: number of the block, where in it, which part of the stretch.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let start = (at % BLOCK_BYTES as u64) as usize;
        let end = len.min(done + BLOCK_BYTES - start);
        let piece = (at / BLOCK_BYTES as u64, start, done..end);
        done = end;
        Some(piece)
    })
}
