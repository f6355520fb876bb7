//! Contents in memory, nodes and file-system helpers for the tests of targets.

use std::cell::Cell;
use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::clock::Timestamp;
use crate::error::Result;
use crate::model::{ChunkId, LinkGroup, Meta, Name, Node, NodeKind, SnapshotId, Stream, XattrSet, Xattrs};

use super::dir::{DirTarget, DirTargetOptions};
use super::{Bytes, Content, Part, Piece};

/// A file's content, piece by piece. Counts what is read of it.
#[derive(Default)]
pub(super) struct MemoryContent {
    pieces: Vec<(u64, Option<Vec<u8>>)>,
    len: u64,
    /// Data pieces handed out.
    reads: Mutex<u64>,
    /// The data piece (by number) whose reading fails.
    fails_at: Option<u64>,
}

impl MemoryContent {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// One piece, or none.
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bytes.is_empty() { Self::new() } else { Self::new().data(bytes) }
    }

    pub(super) fn data(mut self, bytes: &[u8]) -> Self {
        self.pieces.push((self.len, Some(bytes.to_vec())));
        self.len += bytes.len() as u64;
        self
    }

    pub(super) fn hole(mut self, len: u64) -> Self {
        self.pieces.push((self.len, None));
        self.len += len;
        self
    }

    /// Makes reading the data piece with this number fail.
    pub(super) fn failing_at(mut self, piece: u64) -> Self {
        self.fails_at = Some(piece);
        self
    }

    /// How many data pieces were handed out.
    pub(super) fn reads(&self) -> u64 {
        *self.reads.lock().unwrap()
    }

    /// The whole content; not for large holes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut all = vec![0; self.len as usize];
        for (offset, bytes) in self.pieces.iter().filter_map(|(offset, bytes)| Some((*offset as usize, bytes.as_ref()?))) {
            all[offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        all
    }

    fn list(&self) -> Vec<Piece> {
        let ends = self.pieces.iter().skip(1).map(|(offset, _)| *offset).chain([self.len]);
        self.pieces
            .iter()
            .zip(ends)
            .map(|((offset, bytes), end)| Piece { offset: *offset, len: end - offset, hole: bytes.is_none() })
            .collect()
    }
}

/// Pieces of one part: so few that a file of some pieces comes in several parts.
const PART_PIECES: usize = 3;

struct MemoryPart<'a> {
    content: &'a MemoryContent,
    first: usize,
    pieces: Vec<Piece>,
}

impl Content for MemoryContent {
    fn len(&self) -> u64 {
        self.len
    }

    fn pieces(&self, visit: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
        self.list().into_iter().try_for_each(visit)
    }

    fn parts(&self, visit: &mut dyn FnMut(&mut dyn Part) -> Result<()>) -> Result<()> {
        let pieces = self.list();
        let parts = pieces.chunks(PART_PIECES).enumerate();
        parts
            .into_iter()
            .try_for_each(|(number, part)| visit(&mut MemoryPart { content: self, first: number * PART_PIECES, pieces: part.to_vec() }))
    }

    /// From the last part to the first, each on a thread of its own.
    fn spread(&self, place: &(dyn Fn(&mut dyn Part) -> Result<()> + Sync)) -> Result<()> {
        let pieces = self.list();
        let parts: Vec<_> = pieces.chunks(PART_PIECES).enumerate().collect();
        parts.into_iter().rev().try_for_each(|(number, part)| {
            let mut part = MemoryPart { content: self, first: number * PART_PIECES, pieces: part.to_vec() };
            std::thread::scope(|scope| scope.spawn(|| place(&mut part)).join().unwrap())
        })
    }
}

impl Part for MemoryPart<'_> {
    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn matches(&self, number: usize, bytes: &[u8]) -> Result<bool> {
        Ok(self.content.pieces[self.first + number].1.as_deref().unwrap() == bytes)
    }

    fn read(&mut self, numbers: &[usize], give: &mut dyn FnMut(usize, Bytes) -> Result<()>) -> Result<()> {
        for &number in numbers {
            let which = {
                let mut reads = self.content.reads.lock().unwrap();
                *reads += 1;
                *reads - 1
            };
            if self.content.fails_at == Some(which) {
                return Err(crate::error::Error::damaged("a chunk is gone"));
            }
            give(number, Arc::new(self.content.pieces[self.first + number].1.clone().unwrap()))?;
        }
        Ok(())
    }
}

pub(super) fn name(bytes: impl AsRef<[u8]>) -> Name {
    Name::new(bytes.as_ref()).unwrap()
}

/// A node of root's, 0644, of some moment with nanoseconds.
pub(super) fn node(called: impl AsRef<[u8]>, kind: NodeKind) -> Node {
    let mtime = Timestamp::new(1_600_000_000, 123_456_789);
    let meta = Meta { mode: 0o644, uid: 0, gid: 0, mtime, xattrs: Xattrs::None, links: None, changed: false };
    let called = called.as_ref();
    Node { name: (!called.is_empty()).then(|| name(called)), meta, kind }
}

pub(super) fn file_node(called: impl AsRef<[u8]>, content: &MemoryContent) -> Node {
    node(called, NodeKind::File(Stream { len: content.len(), profile: 1, depth: 0, id: ChunkId([1; 32]) }))
}

/// A directory, 0755; the root without a name.
pub(super) fn dir_node(called: impl AsRef<[u8]>) -> Node {
    let mut node = node(called, NodeKind::Directory(Stream::EMPTY));
    node.meta.mode = 0o755;
    node
}

pub(super) fn linked(mut node: Node, group: u64) -> Node {
    node.meta.links = Some(LinkGroup(group));
    node
}

pub(super) fn no_xattrs() -> XattrSet {
    XattrSet::new()
}

pub(super) fn xattrs(of: &[(&str, &[u8])]) -> XattrSet {
    of.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
}

pub(super) fn open(path: &Path) -> DirTarget {
    open_with(path, None)
}

pub(super) fn open_with(path: &Path, open_dirs_max: Option<usize>) -> DirTarget {
    DirTarget::create(path, DirTargetOptions { snapshot: SnapshotId([7; 32]), open_dirs_max, reflink_from: None }).unwrap()
}

/// All extended attributes of an entry, symlinks not followed.
pub(super) fn xattrs_of(path: &Path) -> XattrSet {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut *names).unwrap();
    let names = names[..len].split(|&b| b == 0).filter(|name| !name.is_empty());
    let mut set: XattrSet = names
        .map(|name| {
            let mut value = vec![0; 65536];
            let len = rustix::fs::lgetxattr(path, name, &mut *value).unwrap();
            (name.to_vec(), value[..len].to_vec())
        })
        .collect();
    set.sort();
    set
}

/// An ACL as the kernel keeps it: owner rw-, user 1234 r--, group r--, mask r--, others ---.
pub(super) const ACL: &[u8] = &[
    2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xd2, 4, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255,
    32, 0, 0, 0, 255, 255, 255, 255,
];

/// The capability `cap_net_bind_service=ep` as the kernel keeps it (version 2).
pub(super) const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Whether the tests run as root; most of what they check needs it.
pub(super) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A number that tests can draw from without a dependency.
pub(super) struct Dice(Cell<u64>);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(Cell::new(seed | 1))
    }

    pub(super) fn bytes(&self, len: usize) -> Vec<u8> {
        (0..len)
            .map(|_| {
                let next = self.0.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                self.0.set(next);
                (next >> 56) as u8
            })
            .collect()
    }
}
