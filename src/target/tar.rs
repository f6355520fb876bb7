//! A tar archive as a target, for `export`: POSIX pax, which GNU tar restores whole with
//! `tar -x -p --numeric-owner --xattrs --xattrs-include='*'`. Holes take no space in it (GNU sparse format 1.0). Of names
//! that are not UTF-8 GNU tar says that it ignores `hdrcharset`, and takes them as they are, which is right.
//!
//! Entries come one after another, in the order of the tree. A directory's entry stands before what it holds.

use std::collections::HashSet;
use std::io::{self, BufWriter, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use tar::EntryType;

use crate::error::{Error, ErrorKind, Result};
use crate::model::node::decode_xattrs;
use crate::model::{Meta, Name, Node, NodeKind, TreePath, XattrSet, Xattrs};

use super::chain::Chain;
use super::outcome::{Shortfalls, lock};
use super::pax::{self, Entry};
use super::sparse::{BLOCK_BYTES, Parts};
use super::{Content, Placed, Shortfall, Target, TargetDir};

/// Output is gathered to strokes of this size.
const STROKE_BYTES: usize = 256 << 10;
/// Contents up to this length are read whole before their header is written, so that a failure leaves no trace.
const READ_FIRST_BYTES_MAX: u64 = 1 << 20;

/// A restore into a tar archive.
pub struct TarTarget {
    shared: Arc<Shared>,
}

struct Shared {
    archive: Mutex<Archive>,
    shortfalls: Shortfalls,
    /// Files that get more names: the only ones that a link may lead to.
    linkable: Mutex<HashSet<TreePath>>,
}

struct Archive {
    writer: BufWriter<Box<dyn Write + Send>>,
    /// A write failed: what follows would stand in the wrong place.
    broken: bool,
}

/// A directory of the archive.
struct TarDir {
    shared: Arc<Shared>,
    dir: Arc<Chain<()>>,
}

impl TarTarget {
    /// Writes the archive to `writer`. [`Target::finish`] ends it and flushes; whether that makes it durable is up to the
    /// writer.
    pub fn new(writer: Box<dyn Write + Send>) -> Self {
        let archive = Mutex::new(Archive { writer: BufWriter::with_capacity(STROKE_BYTES, writer), broken: false });
        Self { shared: Arc::new(Shared { archive, shortfalls: Shortfalls::default(), linkable: Mutex::default() }) }
    }
}

impl Target for TarTarget {
    fn begin(&self, node: &Node) -> Result<Arc<dyn TargetDir>> {
        if !node.is_dir() {
            return Err(Error::new(ErrorKind::Usage, "only a directory can be written as an archive"));
        }
        let root = TarDir { shared: Arc::clone(&self.shared), dir: Chain::root(()) };
        root.announce(node)?;
        Ok(Arc::new(root))
    }

    fn finish(&self) -> Result<()> {
        let mut archive = self.shared.archive();
        archive.write(&[0; 2 * BLOCK_BYTES as usize])?;
        archive.guarded(|writer| writer.flush())
    }

    fn sequential(&self) -> bool {
        true
    }

    fn shortfalls(&self) -> Vec<Shortfall> {
        self.shared.shortfalls.list()
    }
}

impl TargetDir for TarDir {
    fn is_vacant(&self) -> bool {
        true
    }

    fn directory(&self, node: &Node) -> Result<Arc<dyn TargetDir>> {
        let dir = Self { shared: Arc::clone(&self.shared), dir: Chain::child(&self.dir, self.name(node)?, ()) };
        dir.announce(node)?;
        Ok(Arc::new(dir))
    }

    fn file(&self, node: &Node, xattrs: &XattrSet, content: &dyn Content) -> Result<Placed> {
        let name = self.name(node)?;
        if !matches!(node.kind, NodeKind::File(_) | NodeKind::InlineFile(_)) || node.size() != content.len() {
            return Err(Error::damaged("a file's record and its content are of different sizes").on(self.path_of(name)));
        }
        let placed = self.write_file(name, &node.meta, xattrs, content).map_err(|e| e.on(self.path_of(name)))?;
        self.remember(name, &node.meta);
        Ok(placed)
    }

    fn link(&self, node: &Node, first: &TreePath) -> Result<()> {
        let name = self.name(node)?;
        if !lock(&self.shared.linkable).contains(first) {
            return Err(Error::new(ErrorKind::Target, "a hard link to something that is not in the archive").on(self.path_of(name)));
        }
        let link = [b"./", first.as_bytes()].concat();
        let none = XattrSet::new();
        self.write_entry(name, Entry { link: Some(&link), ..entry(EntryType::Link, &node.meta, &none) })
    }

    fn special(&self, node: &Node, xattrs: &XattrSet) -> Result<()> {
        let name = self.name(node)?;
        let of = |kind| entry(kind, &node.meta, xattrs);
        let entry = match &node.kind {
            NodeKind::Symlink(target) => Entry { link: Some(target), ..of(EntryType::Symlink) },
            NodeKind::Fifo => of(EntryType::Fifo),
            NodeKind::CharDevice { major, minor } => Entry { device: Some((*major, *minor)), ..of(EntryType::Char) },
            NodeKind::BlockDevice { major, minor } => Entry { device: Some((*major, *minor)), ..of(EntryType::Block) },
            NodeKind::Socket => {
                self.shared.shortfalls.add(|| self.path_of(name), "left out: a tar archive can't hold a socket".into());
                return Ok(());
            }
            NodeKind::File(_) | NodeKind::InlineFile(_) | NodeKind::Directory(_) => {
                return Err(Error::damaged("a file or directory where a special entry was expected").on(self.path_of(name)));
            }
        };
        if entry.device.is_some_and(|(major, minor)| !pax::holds_device(major, minor)) {
            return Err(Error::damaged("no device has such a number").on(self.path_of(name)));
        }
        self.write_entry(name, entry)?;
        self.remember(name, &node.meta);
        Ok(())
    }

    /// An archive is new: it holds nothing else.
    fn remove_others(&self, _keep: &[Name]) -> Result<u64> {
        Ok(0)
    }

    fn close(&self, node: &Node, xattrs: &XattrSet) -> Result<()> {
        match node.meta.xattrs {
            // They were not known when the directory was announced: it is announced again, and readers take the last.
            Xattrs::Stream(_) => self.write_directory(&node.meta, xattrs),
            Xattrs::None | Xattrs::Inline(_) => Ok(()),
        }
    }
}

impl TarDir {
    fn name<'a>(&self, node: &'a Node) -> Result<&'a Name> {
        node.name.as_ref().ok_or_else(|| Error::damaged("an entry without a name").on(self.dir.path()))
    }

    fn path_of(&self, name: &Name) -> TreePath {
        self.dir.path().join(name)
    }

    fn remember(&self, name: &Name, meta: &Meta) {
        if meta.links.is_some() {
            lock(&self.shared.linkable).insert(self.path_of(name));
        }
    }

    /// Writes the directory's own entry, with the attributes as far as they stand in the node.
    fn announce(&self, node: &Node) -> Result<()> {
        let xattrs = match &node.meta.xattrs {
            Xattrs::Inline(bytes) => decode_xattrs(bytes).map_err(|e| e.on(self.dir.path()))?,
            Xattrs::None | Xattrs::Stream(_) => XattrSet::new(),
        };
        self.write_directory(&node.meta, &xattrs)
    }

    fn write_directory(&self, meta: &Meta, xattrs: &XattrSet) -> Result<()> {
        let path = [b"./", self.dir.prefix().as_slice()].concat();
        let head = pax::headers(&Entry { path: &path, ..entry(EntryType::Directory, meta, xattrs) });
        self.shared.archive().write(&head).map_err(|e| e.on(self.dir.path()))
    }

    /// Writes an entry that is nothing but its header.
    fn write_entry(&self, name: &Name, entry: Entry<'_>) -> Result<()> {
        let path = self.archive_path(name);
        self.shared.archive().write(&pax::headers(&Entry { path: &path, ..entry })).map_err(|e| e.on(self.path_of(name)))
    }

    fn archive_path(&self, name: &Name) -> Vec<u8> {
        [b"./", self.dir.prefix().as_slice(), name.as_bytes()].concat()
    }

    fn write_file(&self, name: &Name, meta: &Meta, xattrs: &XattrSet, content: &dyn Content) -> Result<Placed> {
        let parts = Parts::of(content)?;
        let stored = parts.stored_bytes();
        let (map, sparse_len) = if parts.is_sparse() { (parts.map(), Some(content.len())) } else { (Vec::new(), None) };
        let mut first = Vec::new();
        if stored <= READ_FIRST_BYTES_MAX {
            parts.bytes(content, |bytes| {
                first.extend_from_slice(bytes);
                if first.len() as u64 > stored { Err(uneven()) } else { Ok(()) }
            })?;
            if first.len() as u64 != stored {
                return Err(uneven());
            }
        }
        let path = self.archive_path(name);
        let stored_bytes = stored + map.len() as u64;
        let head = pax::headers(&Entry { path: &path, stored_bytes, sparse_len, ..entry(EntryType::Regular, meta, xattrs) });
        let mut archive = self.shared.archive();
        archive.write(&head)?;
        archive.write(&map)?;
        let result = if stored <= READ_FIRST_BYTES_MAX { archive.write(&first) } else { archive.stream(&parts, content, stored) };
        archive.zeros(stored.next_multiple_of(BLOCK_BYTES) - stored)?;
        result.map(|()| Placed { written_bytes: stored, ..Placed::default() })
    }
}

/// An entry with nothing but what all have.
fn entry<'a>(kind: EntryType, meta: &'a Meta, xattrs: &'a XattrSet) -> Entry<'a> {
    Entry { kind, path: b"", link: None, meta, xattrs, stored_bytes: 0, sparse_len: None, device: None }
}

fn uneven() -> Error {
    Error::damaged("the pieces of a file do not add up to its size")
}

impl Shared {
    fn archive(&self) -> MutexGuard<'_, Archive> {
        lock(&self.archive)
    }
}

impl Archive {
    fn guarded(&mut self, work: impl FnOnce(&mut BufWriter<Box<dyn Write + Send>>) -> io::Result<()>) -> Result<()> {
        let what = "cannot write the archive";
        if self.broken {
            return Err(Error::new(ErrorKind::Target, what).because(io::Error::other("an earlier write failed")));
        }
        work(&mut self.writer).map_err(|cause| {
            self.broken = true;
            // Whatever the cause, it ends the archive; these kinds say so by themselves.
            let telling = matches!(cause.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
            Error::new(ErrorKind::Target, what).because(if telling { cause } else { io::Error::other(cause) })
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.guarded(|writer| writer.write_all(bytes))
    }

    fn zeros(&mut self, count: u64) -> Result<()> {
        self.guarded(|writer| io::copy(&mut io::repeat(0).take(count), writer).map(|_| ()))
    }

    /// Writes the parts of a large file behind its header. When its content can't be read the rest is zeros, because the
    /// header has promised the length; the error says so.
    fn stream(&mut self, parts: &Parts, content: &dyn Content, stored: u64) -> Result<()> {
        let mut left = stored;
        let result = parts.bytes(content, |bytes| {
            left = left.checked_sub(bytes.len() as u64).ok_or_else(uneven)?;
            self.write(bytes)
        });
        let result = if result.is_ok() && left > 0 { Err(uneven()) } else { result };
        if result.is_err() && !self.broken {
            self.zeros(left)?;
        }
        result.map_err(|e| if self.broken { e } else { e.hint("the rest of this file is zeros in the archive") })
    }
}
