//! The stat cache: what each directory looked like when it was last captured, one record a directory, on this host.
//!
//! A record is trusted only along a chain from an earlier snapshot, usually the parent: it is found under the directory's
//! own tree id, which must be the one that the record above names for it, and the root's must be that snapshot's. So a record can only vouch for
//! content that a snapshot which is not forgotten refers to, whatever else was written here meanwhile.
//!
//! ```text
//! key    16 source, 16 directory (both keyed hashes), 8 first bytes of the tree id
//! value  8 + 4 time of the scan (s, ns), then for each entry: 8 device, 8 inode, 8 + 4 ctime (s, ns), 4 day that the
//!        content was last read, the node's record
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::index::Table;
use crate::model::wire::Fields;
use crate::model::{Name, Node, NodeKind, SourceIdentity, Stream, TreePath};
use crate::repo::{Committed, Repository};
use crate::source::Stat;

/// A file whose inode changed less than this before it was looked at may change again without a new time.
const RACY: Duration = Duration::from_millis(100);
/// Likewise on file systems that keep whole seconds.
const RACY_COARSE: Duration = Duration::from_secs(2);
/// Every file is read again after this many days and up to twice that, spread by inode, whatever its times say.
const REREAD_DAYS: u32 = 20;

/// What is remembered of one entry.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    device: u64,
    inode: u64,
    ctime: Timestamp,
    pub(super) read_day: u32,
    pub(super) node: Node,
}

/// One directory's record.
#[derive(Debug, Default)]
pub(super) struct Record {
    scanned: Timestamp,
    entries: BTreeMap<Name, Remembered>,
}

/// The cache of one source, as far as the parent snapshot vouches for it.
pub(super) struct StatCache<'r> {
    repo: &'r Repository,
    source: [u8; 16],
    anchor: Option<Stream>,
    read_only: bool,
    today: u32,
}

impl<'r> StatCache<'r> {
    /// Compares with the newest of `history` (oldest first; none of it forgotten) that this host has records of. Without
    /// one nothing is trusted.
    pub(super) fn new(repo: &'r Repository, identity: &SourceIdentity, history: &[Committed], read_only: bool) -> Self {
        let name = format!("{:?}\0{}\0{}", identity.kind, identity.name, identity.host);
        let source = half(repo.keys().fingerprint("stat cache source", &[name.as_bytes()]));
        let today = u32::try_from(repo.clock().now().seconds / 86_400).unwrap_or(0);
        let mut cache = Self { repo, source, anchor: None, read_only, today };
        let mut roots = history.iter().rev().filter_map(|snapshot| directory_stream(&snapshot.record.root));
        cache.anchor = roots.find(|root| cache.record(&TreePath::root(), root).is_some());
        cache
    }

    /// The tree that the root's record must be of.
    pub(super) fn anchor(&self) -> Option<Stream> {
        self.anchor
    }

    /// Today, as records note it.
    pub(super) fn today(&self) -> u32 {
        self.today
    }

    /// The record of a directory whose tree was `tree` in the parent. Whatever is wrong with it, it is only not there.
    pub(super) fn record(&self, path: &TreePath, tree: &Stream) -> Option<Record> {
        let note = self.repo.index().note(Table::Stat, &self.key(path, tree)).ok()??;
        decode(&note).ok()
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
        let mut note = Vec::new();
        put_time(&mut note, scanned);
        for (stat, read_day, node) in entries {
            note.extend_from_slice(&stat.device.to_le_bytes());
            note.extend_from_slice(&stat.inode.to_le_bytes());
            put_time(&mut note, stat.ctime);
            note.extend_from_slice(&read_day.to_le_bytes());
            note.extend_from_slice(node);
        }
        if let Err(error) = self.repo.index().set_notes(Table::Stat, &[(self.key(path, tree), Some(note))]) {
            tracing::warn!("the stat cache could not be written: {error}");
        }
    }

    /// Drops the records of directories that have another tree now, once the new snapshot is the one to compare with.
    pub(super) fn drop_records(&self, replaced: &[(TreePath, Stream)]) {
        let notes: Vec<_> = replaced.iter().map(|(path, tree)| (self.key(path, tree), None)).collect();
        if self.read_only || notes.is_empty() {
            return;
        }
        if let Err(error) = self.repo.index().set_notes(Table::Stat, &notes) {
            tracing::warn!("the stat cache could not be cleaned: {error}");
        }
    }

    fn key(&self, path: &TreePath, tree: &Stream) -> Vec<u8> {
        let directory = half(self.repo.keys().fingerprint("stat cache directory", &[path.as_bytes()]));
        [&self.source[..], &directory, &tree.id.as_bytes()[..8]].concat()
    }
}

impl Record {
    /// What is remembered of an entry, when nothing says that it changed since: kind, size, mtime, ctime, inode, device,
    /// mode and owner are equal, and the ctime is old enough for a later change to have moved it.
    pub(super) fn unchanged(&self, name: &Name, stat: &Stat, today: u32) -> Option<&Remembered> {
        let remembered = self.entries.get(name)?;
        let meta = &remembered.node.meta;
        let racy = if stat.ctime.nanos == 0 { RACY_COARSE } else { RACY };
        let same = remembered.device == stat.device
            && remembered.inode == stat.inode
            && remembered.ctime == stat.ctime
            && meta.mtime == stat.mtime
            && (meta.mode, meta.uid, meta.gid) == (stat.mode, stat.uid, stat.gid)
            && !meta.changed
            && meta.links.is_some() == (stat.links > 1)
            && super::capture::same_kind(&remembered.node, stat)
            && stat.ctime < self.scanned.minus(racy);
        let lifetime = REREAD_DAYS + u32::try_from(stat.inode % u64::from(REREAD_DAYS)).unwrap_or(0);
        let fresh = today >= remembered.read_day && today - remembered.read_day < lifetime;
        (same && fresh).then_some(remembered)
    }

    /// The tree that a directory below was in the parent.
    pub(super) fn directory(&self, name: &Name) -> Option<Stream> {
        directory_stream(&self.entries.get(name)?.node)
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

fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    out.extend_from_slice(&time.seconds.to_le_bytes());
    out.extend_from_slice(&time.nanos.to_le_bytes());
}

pub(super) fn decode(note: &[u8]) -> crate::error::Result<Record> {
    let mut fields = Fields::new(note, "a stat cache record");
    let time = |fields: &mut Fields<'_>| Ok::<_, crate::error::Error>(Timestamp::new(fields.i64()?, fields.u32()?));
    let mut record = Record { scanned: time(&mut fields)?, entries: BTreeMap::new() };
    while !fields.is_empty() {
        let (device, inode) = (fields.u64()?, fields.u64()?);
        let ctime = time(&mut fields)?;
        let read_day = fields.u32()?;
        let node = Node::decode(fields.counted()?)?;
        if let Some(name) = node.name.clone() {
            record.entries.insert(name, Remembered { device, inode, ctime, read_day, node });
        }
    }
    Ok(record)
}
