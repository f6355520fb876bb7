//! A whole repository in memory whose chunks and snapshot record are the input: directories, lists and contents that no
//! honest writer makes. Every verb runs over it.
//!
//! Input: chunks, each 1 kind (0 data, 1 tree, 2 list), 2 length, bytes; then 1 byte of 255 and the snapshot record. An id
//! can't be known before its chunk is hashed, so wherever 31 bytes of `0xee` and one byte k stand, the id of chunk k takes
//! their place.

use std::sync::Arc;

use icecore::clock::ManualClock;
use icecore::index::memory::MemoryIndex;
use icecore::model::{ChunkId, Node, NodeKind, Snapshot, Stream, TreePath};
use icecore::ops::prune::{PruneOptions, prune};
use icecore::ops::restore::{RestoreOptions, plan, restore};
use icecore::ops::verify::{Depth, VerifyOptions, VerifyReport, verify};
use icecore::ops::{diff, tree};
use icecore::progress::Progress;
use icecore::repo::{ChunkReader, ChunkWriter, CreateOptions, Locked, Operation, Repository, StreamReader, WriterOptions};
use icecore::seal::keys::ChunkKind;
use icecore::storage::memory::MemoryStorage;
use icecore::target::tar::TarTarget;
use icecore::{Error, Result};

/// Marks the place of an id.
pub const PLACE: [u8; 31] = [0xee; 31];
/// Ends the chunks.
pub const END: u8 = 255;

const CHUNKS_MAX: usize = 64;
/// Lists and directories can name the same chunk many times, so a short input can stand for an endless tree.
const PIECES_MAX: u64 = 2000;
const BYTES_MAX: u64 = 8 << 20;

/// Runs every verb over what the input describes.
pub(super) fn store(input: &[u8]) -> bool {
    let repo = repository();
    let Some(record) = fill(&repo, input) else { return false };
    if !is_small(&repo, &record) {
        return false;
    }
    let clean = check(&repo).is_some_and(|report| report.damaged.is_empty() && report.affected_count == 0);
    let read = read_all(&repo, &record);
    if clean {
        read.expect("what verify finds no fault with can be read");
        prune(&repo, &PruneOptions::default(), &Progress::new()).expect("a sound repository can be pruned");
        let report = check(&repo).expect("and verified again");
        assert!(
            report.damaged.is_empty() && report.affected_count == 0,
            "prune broke something: {:?} {:?}",
            report.damaged,
            report.affected
        );
        read_all(&repo, &record).expect("prune took something that was needed");
    } else {
        let _ = prune(&repo, &PruneOptions { dry_run: true, ..PruneOptions::default() }, &Progress::new());
    }
    clean
}

fn repository() -> Repository {
    let (storage, clock) = (MemoryStorage::new(), ManualClock::at(1_795_000_000));
    let options = CreateOptions { pack_bytes: Some((1 << 16, 1 << 16)), ..CreateOptions::default() };
    Repository::create(&storage, &options, &clock).expect("a new repository");
    let locked = Locked::read(Arc::new(storage)).expect("it was just made");
    locked.unlock(None, Box::new(MemoryIndex::new()), Arc::new(clock), "host").expect("it has no key")
}

/// Stores the chunks and commits the record. None when there is no record that could be committed.
fn fill(repo: &Repository, input: &[u8]) -> Option<Snapshot> {
    let progress = Progress::new();
    let options = WriterOptions { compression: 1, dry_run: false, purpose: "fuzz", operation: Operation::Write };
    let writer = ChunkWriter::begin(repo, options, &progress).expect("a session");
    let (mut rest, mut ids) = (input, Vec::new());
    while let Some((&kind, after)) = rest.split_first() {
        rest = after;
        if kind == END || ids.len() >= CHUNKS_MAX {
            break;
        }
        let (len, after) = rest.split_first_chunk()?;
        let (bytes, after) = after.split_at_checked(u16::from_le_bytes(*len).into())?;
        rest = after;
        let kind = [ChunkKind::Data, ChunkKind::Tree, ChunkKind::List][usize::from(kind % 3)];
        if !bytes.is_empty() {
            ids.push(writer.put(kind, &in_place(bytes, &ids)).expect("room in memory").id);
        }
    }
    let record = Snapshot::decode(&in_place(rest, &ids)).ok();
    let flushed = writer.finish().expect("room in memory");
    match record {
        Some(record) => Some(repo.commit(record, flushed).expect("room in memory").record),
        None => {
            repo.abandon(flushed).expect("room in memory");
            None
        }
    }
}

fn in_place(bytes: &[u8], ids: &[ChunkId]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let mut at = 0;
    while at + 32 <= bytes.len() {
        if bytes[at..at + 31] == PLACE
            && let Some(id) = ids.get(usize::from(bytes[at + 31]))
        {
            bytes[at..at + 32].copy_from_slice(id.as_bytes());
            at += 32;
        } else {
            at += 1;
        }
    }
    bytes
}

/// Whether the tree is small enough to go through it several times. What can't be read counts as small: verbs must cope.
fn is_small(repo: &Repository, record: &Snapshot) -> bool {
    let reader = ChunkReader::new(repo);
    let (mut pieces, mut bytes) = (0, 0);
    let mut add = |stream: &Stream| {
        let mut leaves = StreamReader::new(&reader, stream);
        while let Ok(Some(leaf)) = leaves.next_leaf() {
            pieces += 1;
            bytes += if leaf.id.is_hole() { 0 } else { leaf.len };
            if pieces > PIECES_MAX || bytes > BYTES_MAX {
                return false;
            }
        }
        true
    };
    let NodeKind::Directory(root) = &record.root.kind else { return false };
    if !add(root) {
        return false;
    }
    let (mut entries, mut small) = (0, true);
    let _ = tree::walk(&reader, root, &TreePath::root(), &mut |_, node| {
        entries += 1;
        small &= entries <= PIECES_MAX && stream_of(node).is_none_or(&mut add);
        if small { Ok(true) } else { Err(Error::damaged("too large")) }
    });
    small
}

fn stream_of(node: &Node) -> Option<&Stream> {
    match &node.kind {
        NodeKind::File(stream) | NodeKind::Directory(stream) => Some(stream),
        _ => None,
    }
}

fn check(repo: &Repository) -> Option<VerifyReport> {
    verify(repo, &VerifyOptions { depth: Depth::Deep, ..VerifyOptions::default() }, &Progress::new()).ok()
}

/// List, plan, restore, compare, read every file.
fn read_all(repo: &Repository, record: &Snapshot) -> Result<()> {
    let (progress, options) = (Progress::new(), RestoreOptions { paths: Vec::new(), delete: false });
    let restored = restore(repo, record, &TarTarget::new(Box::new(std::io::sink())), &options, &progress);
    let mut files = Vec::new();
    let listed = tree::list(repo, record, &TreePath::root(), true, &mut |path, node| {
        if matches!(node.kind, NodeKind::File(_) | NodeKind::InlineFile(_)) {
            files.push((path.clone(), node.size()));
        }
        Ok(())
    });
    let planned = plan(repo, record, &options, &progress);
    let compared = diff::diff(repo, record, record, &progress, &mut |difference| panic!("a snapshot differs from itself: {difference:?}"));
    for (path, len) in files {
        // A hole of an exabyte is legal, and reading it takes years.
        if len <= BYTES_MAX {
            tree::cat(repo, record, &path, &mut std::io::sink(), &progress)?;
        }
    }
    restored.and(planned.map(drop)).and(listed).and(compared)
}
