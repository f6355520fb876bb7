//! The stat cache: what each directory looked like when it was last captured, one record a directory, on this host.
//!
//! A record is trusted only along a chain from an earlier snapshot, usually the parent: it is found under the directory's
//! own tree id, which must be the one that the record above names for it, and the root's must be that snapshot's. So a record can only vouch for
//! content that a snapshot which is not forgotten refers to, whatever else was written here meanwhile.
//!
//! ```text
//! key    16 source, 16 directory (both keyed hashes), 8 first bytes of the tree id; of further parts 4 number (big-endian)
//! value  8 + 4 time of the scan (s, ns), 4 number of parts, then for each entry: 8 device, 8 inode, 8 + 4 ctime (s, ns),
//!        4 day that the content was last read, the node's record; of further parts the entries alone
//! ```
//!
//! A large directory's record has several parts, so that its size is no burden on the index. The first is written last. Each
//! entry is true by itself, so that parts of two moments, which a crash may leave, tell nothing wrong.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::index::Table;
use crate::model::node::INLINE_BYTES_MAX;
use crate::model::wire::Fields;
use crate::model::{Name, Node, NodeKind, SourceIdentity, Stream, TreePath};
use crate::repo::{ChunkReader, Committed, NodeReader, Repository};
use crate::source::Stat;

/// A file whose inode changed less than this before it was looked at may change again without a new time.
const RACY: Duration = Duration::from_millis(100);
/// Likewise on file systems that keep whole seconds.
const RACY_COARSE: Duration = Duration::from_secs(2);
/// A part of a record ends with the entry that makes it this long.
const PART_BYTES: usize = if cfg!(test) { 1 << 10 } else { 1 << 20 };
/// Every file is read again after this many days and up to twice that, spread by inode, whatever its times say.
const REREAD_DAYS: u32 = 20;

/// One directory's record: its bytes, and where in them the entries stand, sorted by name.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// None when this host has none of the directory: it was made from the parent's tree, and says what was there, but
    /// nothing of inodes and times.
    scanned: Option<Timestamp>,
    bytes: Vec<u8>,
    entries: Vec<Place>,
    /// Where an inode stands; made when a name is new.
    by_inode: OnceCell<HashMap<(u64, u64), usize>>,
}

/// Where an entry stands in a record: its fields, its node's record, and the name in that.
#[derive(Debug, Clone, Copy)]
struct Place {
    fields: usize,
    node: (usize, usize),
    name: (usize, usize),
}

/// What is remembered of one entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Remembered<'a> {
    device: u64,
    inode: u64,
    ctime: Timestamp,
    pub(super) read_day: u32,
    /// The node's record.
    pub(super) node: &'a [u8],
}

/// What stands before an entry's node: device, inode, ctime, day.
const FIELDS_BYTES: usize = 8 + 8 + 12 + 4;

/// How far the cache is relied on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trust {
    /// What seems unchanged is not read.
    pub(super) files: bool,
    /// What the parent snapshot refers to is in the repository for certain.
    pub(super) chunks: bool,
    /// The source was synced, so that what is written from then on shows by its times.
    pub(super) settled: bool,
}

/// The cache of one source, as far as the parent snapshot vouches for it.
pub(super) struct StatCache<'r> {
    repo: &'r Repository,
    reader: ChunkReader<'r>,
    source: [u8; 16],
    anchor: Option<Stream>,
    trust: Trust,
    read_only: bool,
    today: u32,
    /// A moment before the source was settled: what changed later may go on changing through a mapping without a new time.
    began: Timestamp,
}

impl<'r> StatCache<'r> {
    /// Compares with the newest of `history` (oldest first; none of it forgotten) that this host has records of; where it has
    /// of none, with the newest, whose trees say what stood where.
    pub(super) fn new(
        repo: &'r Repository,
        identity: &SourceIdentity,
        history: &[Committed],
        began: Timestamp,
        trust: Trust,
        read_only: bool,
    ) -> Self {
        let name = format!("{:?}\0{}\0{}", identity.kind, identity.name, identity.host);
        let source = half(repo.keys().fingerprint("stat cache source, in parts", &[name.as_bytes()]));
        let today = u32::try_from(began.seconds / 86_400).unwrap_or(0);
        let mut cache = Self { repo, reader: ChunkReader::new(repo), source, anchor: None, trust, read_only, today, began };
        let roots = || history.iter().rev().filter_map(|snapshot| directory_stream(&snapshot.record.root));
        cache.anchor = roots().find(|root| cache.noted(&TreePath::root(), root).is_some()).or_else(|| roots().next());
        cache
    }

    /// Compares with this tree from now on, whose records were written by this process. Its chunks are stored, if not durable
    /// yet, by the writer that will commit what is compared with it.
    pub(super) fn follow(&mut self, root: &Node) {
        self.anchor = directory_stream(root);
        self.trust = Trust { files: self.trust.settled, chunks: true, settled: self.trust.settled };
    }

    /// The tree that the root's record must be of.
    pub(super) fn anchor(&self) -> Option<Stream> {
        self.anchor
    }

    /// What records count as the moment of their scan.
    pub(super) fn began(&self) -> Timestamp {
        self.began
    }

    /// Today, as records note it.
    pub(super) fn today(&self) -> u32 {
        self.today
    }

    /// The record of a directory whose tree was `tree` in the parent: the one of this host, else what the tree says. Whatever
    /// is wrong with it, it is only not there.
    pub(super) fn record(&self, path: &TreePath, tree: &Stream) -> Option<Record> {
        self.noted(path, tree).or_else(|| Record::of_tree(&self.reader, tree).ok())
    }

    fn noted(&self, path: &TreePath, tree: &Stream) -> Option<Record> {
        let key = self.key(path, tree);
        let mut note = self.note(&key)?;
        for number in 1..parts(&note)? {
            note.extend_from_slice(&self.note(&part_key(&key, number))?);
        }
        decode(note).ok()
    }

    fn note(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.repo.index().note(Table::Stat, key).ok()?
    }

    /// Remembers a directory whose tree is `tree` now. A cache that can't be written costs time only.
    pub(super) fn remember<'a>(
        &self,
        path: &TreePath,
        tree: &Stream,
        scanned: Timestamp,
        entries: impl Iterator<Item = (&'a Stat, u32, &'a [u8])>,
    ) {
        if self.read_only || tree.len == 0 {
            return;
        }
        let key = self.key(path, tree);
        let (mut first, mut part, mut number) = (Vec::new(), Vec::new(), 0);
        for (stat, read_day, node) in entries {
            if part.len() >= PART_BYTES {
                match number {
                    0 => first = std::mem::take(&mut part),
                    _ => self.set(&[(part_key(&key, number), Some(std::mem::take(&mut part)))]),
                }
                number += 1;
            }
            part.extend_from_slice(&stat.device.to_le_bytes());
            part.extend_from_slice(&stat.inode.to_le_bytes());
            put_time(&mut part, stat.ctime);
            part.extend_from_slice(&read_day.to_le_bytes());
            part.extend_from_slice(node);
        }
        match number {
            0 => first = part,
            _ => self.set(&[(part_key(&key, number), Some(part))]),
        }
        let mut note = Vec::with_capacity(HEADER_BYTES + first.len());
        put_header(&mut note, scanned, number + 1);
        note.extend_from_slice(&first);
        self.set(&[(key, Some(note))]);
    }

    fn set(&self, notes: &[(Vec<u8>, Option<Vec<u8>>)]) {
        if let Err(error) = self.repo.index().set_notes(Table::Stat, notes) {
            tracing::warn!("the stat cache could not be written: {error}");
        }
    }

    /// The node of an entry, when nothing says that it changed since: kind, size, mtime, ctime, inode, device, mode and owner
    /// are equal, and the ctime is old enough for a later change to have moved it.
    pub(super) fn unchanged(&self, record: &Record, remembered: &Remembered<'_>, stat: &Stat) -> Option<Node> {
        let racy = if stat.ctime.nanos == 0 { RACY_COARSE } else { RACY };
        let lifetime = REREAD_DAYS + u32::try_from(stat.inode % u64::from(REREAD_DAYS)).unwrap_or(0);
        let fresh = self.today >= remembered.read_day && self.today - remembered.read_day < lifetime;
        let same = (remembered.device, remembered.inode, remembered.ctime) == (stat.device, stat.inode, stat.ctime);
        if !(self.trust.files && same && fresh && record.scanned.is_some_and(|scanned| stat.ctime < scanned.minus(racy))) {
            return None;
        }
        let node = Node::decode(remembered.node).ok()?;
        let meta = &node.meta;
        let same = meta.mtime == stat.mtime
            && (meta.mode, meta.uid, meta.gid) == (stat.mode, stat.uid, stat.gid)
            && !meta.changed
            && meta.links.is_some() == (stat.links > 1)
            && super::capture::same_kind(&node, stat);
        same.then_some(node)
    }

    /// Whether what its records refer to is in the repository for certain.
    pub(super) fn vouched(&self) -> bool {
        self.trust.chunks
    }

    /// Drops the records of directories that have another tree now, once the new snapshot is the one to compare with.
    pub(super) fn drop_records(&self, replaced: &[(TreePath, Stream)]) {
        if self.read_only {
            return;
        }
        for (path, tree) in replaced {
            let key = self.key(path, tree);
            let parts = self.note(&key).and_then(|note| parts(&note)).unwrap_or(1);
            let further = (1..parts).map(|number| (part_key(&key, number), None));
            self.set(&further.chain([(key.clone(), None)]).collect::<Vec<_>>());
        }
    }

    fn key(&self, path: &TreePath, tree: &Stream) -> Vec<u8> {
        let directory = half(self.repo.keys().fingerprint("stat cache directory", &[path.as_bytes()]));
        [&self.source[..], &directory, &tree.id.as_bytes()[..8]].concat()
    }
}

impl Record {
    /// What a tree of the repository says of a directory.
    fn of_tree(reader: &ChunkReader<'_>, tree: &Stream) -> crate::error::Result<Self> {
        let mut note = Vec::new();
        put_header(&mut note, Timestamp::default(), 1);
        let mut nodes = NodeReader::new(reader, tree);
        while let Some(node) = nodes.next_node()? {
            note.extend_from_slice(&[0; FIELDS_BYTES]);
            node.encode(&mut note);
        }
        Ok(Self { scanned: None, ..decode(note)? })
    }

    /// Whether this host noted it, so that it need not be noted again.
    pub(super) fn is_noted(&self) -> bool {
        self.scanned.is_some()
    }

    /// How many entries it has.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What is remembered of an entry.
    pub(super) fn get(&self, name: &Name) -> Option<Remembered<'_>> {
        let at = self.entries.binary_search_by(|place| self.bytes[place.name.0..place.name.1].cmp(name.as_bytes())).ok()?;
        self.at(at)
    }

    /// The content that a file had: under its name, else under another name, which it was renamed from.
    pub(super) fn content(&self, name: &Name, stat: &Stat) -> Option<Stream> {
        let content = |remembered: Remembered<'_>| match Node::decode(remembered.node).ok()?.kind {
            NodeKind::File(stream) if stream.len > 0 => Some(stream),
            _ => None,
        };
        if stat.size <= INLINE_BYTES_MAX as u64 {
            return None;
        }
        if let Some(remembered) = self.get(name) {
            return content(remembered);
        }
        if !self.is_noted() {
            return None;
        }
        let by_inode = self.by_inode.get_or_init(|| {
            let inode = |at| self.at(at).map(|remembered| ((remembered.device, remembered.inode), at));
            (0..self.len()).filter_map(inode).collect()
        });
        self.at(*by_inode.get(&(stat.device, stat.inode))?).and_then(content)
    }

    fn at(&self, at: usize) -> Option<Remembered<'_>> {
        let place = self.entries.get(at)?;
        let mut fields = Fields::new(&self.bytes[place.fields..], "a stat cache record");
        let (device, inode) = (fields.u64().ok()?, fields.u64().ok()?);
        let ctime = Timestamp::new(fields.i64().ok()?, fields.u32().ok()?);
        Some(Remembered { device, inode, ctime, read_day: fields.u32().ok()?, node: &self.bytes[place.node.0..place.node.1] })
    }
}

impl Remembered<'_> {
    /// The tree that a directory had.
    pub(super) fn directory(&self) -> Option<Stream> {
        directory_stream(&Node::decode(self.node).ok()?)
    }
}

fn directory_stream(node: &Node) -> Option<Stream> {
    match &node.kind {
        NodeKind::Directory(stream) => Some(*stream),
        _ => None,
    }
}

fn half(hash: [u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    half
}

fn part_key(key: &[u8], number: u32) -> Vec<u8> {
    [key, &number.to_be_bytes()].concat()
}

/// What stands before the entries: the time of the scan, the number of parts.
const HEADER_BYTES: usize = 12 + 4;

fn put_header(out: &mut Vec<u8>, scanned: Timestamp, parts: u32) {
    put_time(out, scanned);
    out.extend_from_slice(&parts.to_le_bytes());
}

/// How many parts a record has, by the first.
fn parts(first: &[u8]) -> Option<u32> {
    first.get(12..HEADER_BYTES)?.try_into().ok().map(u32::from_le_bytes)
}

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend_from_slice(&time.seconds.to_le_bytes());
    out.extend_from_slice(&time.nanos.to_le_bytes());
}

pub(super) fn decode(note: Vec<u8>) -> crate::error::Result<Record> {
    let mut fields = Fields::new(&note, "a stat cache record");
    let time = |fields: &mut Fields<'_>| Ok::<_, crate::error::Error>(Timestamp::new(fields.i64()?, fields.u32()?));
    let scanned = time(&mut fields)?;
    fields.u32()?;
    let mut entries: Vec<Place> = Vec::new();
    while !fields.is_empty() {
        let start = note.len() - fields.left();
        let _ = (fields.u64()?, fields.u64()?, time(&mut fields)?, fields.u32()?);
        let node_start = note.len() - fields.left();
        fields.counted()?;
        let node = (node_start, note.len() - fields.left());
        let name = Node::name_range(&note[node.0..node.1])?;
        if !name.is_empty() {
            entries.push(Place { fields: start, node, name: (node.0 + name.start, node.0 + name.end) });
        }
    }
    // Directories are listed in this order; nothing is found in a record that was made otherwise.
    entries.sort_by(|a, b| note[a.name.0..a.name.1].cmp(&note[b.name.0..b.name.1]));
    Ok(Record { scanned: Some(scanned), entries, bytes: note, by_inode: OnceCell::new() })
}
