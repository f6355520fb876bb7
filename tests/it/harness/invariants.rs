//! What must hold after whatever happened to a repository. One function, used by all fault tests.
//!
//! 1. It opens, with an empty index and with the one that was left over.
//! 2. Its snapshots are those committed before, and the one that was under way wholly or not at all.
//! 3. Each of them restores to what its source was.
//! 4. `verify` with all data finds nothing.
//! 5. A new snapshot succeeds, restores, and a second one of the same stores nothing.
//! 6. After forget and prune nothing is left but what is in use: every chunk of the index is live and stands once, and the
//!    packs are no longer than these chunks make them. An index built anew from the packs equals the one that lived.
//! 7. No hold, marker, probe or unnamed object is left.
//! 8. What was reported as done is there.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use icecore::model::{ChunkId, NodeKind, PackId, SnapshotId, Stream, Xattrs};
use icecore::ops::verify::Depth;
use icecore::pack::{ENTRY_BYTES, HEADER_BYTES, PACK_ALIGN_BYTES, SHARD_BYTES, SHARD_HASH_BYTES, TRAILER_BYTES};
use icecore::repo::{self, ChunkReader, Committed, NodeReader, Repository, StreamReader};
use icecore::source::Source;
use icecore::storage::Storage;

use super::state::{prune_below, take, verify_all, words};
use super::{PlainTree, State, TestIndex, plain_copy, restored};

/// What may be different from the state's own record of what must be there.
#[derive(Clone, Default)]
pub(crate) struct Expected {
    /// Snapshots that were under way hold these trees; each may be there or not.
    pub(crate) in_flight: Vec<Arc<PlainTree>>,
    /// The snapshot was reported as committed, so it must be there.
    pub(crate) reported: Option<SnapshotId>,
    /// Snapshots that were being forgotten: they may be there or not.
    pub(crate) may_be_gone: BTreeSet<SnapshotId>,
}

/// Checks all of it, once with the index that `state` has and once without; `state` stays as it is. `source` is what the
/// new snapshot is taken of; `what` says in a failure what had happened.
pub(crate) fn check(state: &State, expected: &Expected, source: &dyn Source, what: &str) {
    for (index, which) in [(state.index.copy(), "left-over index"), (TestIndex::new(), "empty index")] {
        let what = format!("{what}, {which}");
        let mut fork = state.fork();
        fork.index = index;
        check_one(&mut fork, expected, source, &what);
    }
}

fn check_one(state: &mut State, expected: &Expected, source: &dyn Source, what: &str) {
    let repo = state.open().unwrap_or_else(|e| panic!("{what}: does not open: {e}"));
    let listed = check_snapshots(state, &repo, expected, what);
    check_verified(&repo, what, "as it was found");
    for snapshot in &listed {
        assert_eq!(*state.snapshots[&snapshot.id], restored(&repo, &snapshot.record, what), "{what}: snapshot {} restores", snapshot.id);
    }

    let copy = plain_copy(source);
    let first = take(&repo, "/fresh", source, true);
    let first = first.unwrap_or_else(|e| panic!("{what}: the next snapshot fails: {e}")).snapshot;
    assert_eq!(copy, restored(&repo, &first.record, what), "{what}: the next snapshot restores");
    assert!(!first.record.is_partial(), "{what}: the next snapshot is whole");

    // A second repository object, as the next command would have.
    drop(repo);
    let repo = state.open().unwrap();
    repo_forget_all_but(&repo, first.id, what);
    let pruned = prune_below(&repo, 100);
    assert!(pruned.is_ok(), "{what}: prune: {}", words(&pruned));
    let again = take(&repo, "/fresh", source, true).unwrap().snapshot;
    assert_eq!(again.record.stats.new_chunks, 0, "{what}: a snapshot of the same stores nothing");
    check_no_garbage(&repo, &[first.clone(), again.clone()], what);
    check_no_leftovers(&*state.storage_of(), &repo, what);
    check_verified(&repo, what, "after prune");
    assert_eq!(copy, restored(&repo, &again.record, what), "{what}: restores after prune");
    let lived = places(&repo);
    let view = repo.reindex().unwrap_or_else(|e| panic!("{what}: reindex: {e}"));
    assert!(view.problems.is_empty(), "{what}: {:?}", view.problems);
    assert_eq!(lived, places(&repo), "{what}: the index built anew equals the one that lived");
    assert_eq!(repo.snapshots().unwrap().len(), 2, "{what}: the survivors are listed");
    assert_eq!(copy, restored(&repo, &first.record, what), "{what}: restores after reindex");
}

fn check_verified(repo: &Repository, what: &str, when: &str) {
    let report = verify_all(repo, Depth::Deep).unwrap_or_else(|e| panic!("{what}: verify, {when}: {e}"));
    assert!(report.damaged.is_empty() && report.affected.is_empty(), "{what}: verify, {when}: {:?} {:?}", report.damaged, report.affected);
    assert_eq!(report.proved.packs, report.packs, "{what}: verify, {when}: all packs are proved");
    let records = repo.storage().list("verified").unwrap();
    assert!(records.len() <= 1, "{what}: verify, {when}: the record takes the place of those before it: {records:?}");
}

/// Rules 2 and 8. Notes a snapshot that was under way and is there.
fn check_snapshots(state: &mut State, repo: &Repository, expected: &Expected, what: &str) -> Vec<Committed> {
    let (listed, problems) = repo.snapshots_checked().unwrap();
    assert!(problems.is_empty(), "{what}: {problems:?}");
    let ids: BTreeSet<SnapshotId> = listed.iter().map(|snapshot| snapshot.id).collect();
    for id in state.ids().difference(&ids) {
        assert!(expected.may_be_gone.contains(id), "{what}: snapshot {id} is lost");
    }
    let more: Vec<SnapshotId> = ids.difference(&state.ids()).copied().collect();
    assert!(more.len() <= expected.in_flight.len(), "{what}: there are snapshots that nobody took: {more:?}");
    for snapshot in listed.iter().filter(|snapshot| more.contains(&snapshot.id)) {
        let tree = restored(repo, &snapshot.record, what);
        let whole = expected.in_flight.iter().find(|in_flight| ***in_flight == tree);
        let whole = whole.unwrap_or_else(|| panic!("{what}: the snapshot that was under way is there in part"));
        state.snapshots.insert(snapshot.id, whole.clone());
    }
    if let Some(id) = expected.reported {
        assert!(ids.contains(&id), "{what}: snapshot {id} was reported and is not there");
    }
    listed
}

fn repo_forget_all_but(repo: &Repository, kept: SnapshotId, what: &str) {
    let ids: Vec<SnapshotId> = repo.snapshots().unwrap().iter().map(|s| s.id).filter(|id| *id != kept).collect();
    icecore::ops::forget::forget(repo, &ids).unwrap_or_else(|e| panic!("{what}: forget: {e}"));
}

/// Where the index has each chunk.
fn places(repo: &Repository) -> BTreeSet<(ChunkId, PackId, u32)> {
    let mut places = BTreeSet::new();
    repo.index()
        .for_each(&mut |location| {
            places.insert((location.blob.id, repo.index().pack(location.pack)?.id, location.blob.offset));
            Ok(())
        })
        .unwrap();
    places
}

/// Rule 6: what is there is what is in use, once.
fn check_no_garbage(repo: &Repository, snapshots: &[Committed], what: &str) {
    let live: BTreeSet<ChunkId> = snapshots.iter().flat_map(|snapshot| chunks_of(repo, snapshot)).collect();
    let mut stored: Vec<ChunkId> = Vec::new();
    let mut bytes: BTreeMap<PackId, (usize, usize)> = BTreeMap::new();
    repo.index()
        .for_each(&mut |location| {
            stored.push(location.blob.id);
            let (blobs, sum) = bytes.entry(repo.index().pack(location.pack)?.id).or_default();
            *blobs += 1;
            // A delta names its base in the pack's index.
            *sum += location.blob.stored_len as usize + if location.blob.base.is_some() { ChunkId::LEN } else { 0 };
            Ok(())
        })
        .unwrap();
    let distinct: BTreeSet<ChunkId> = stored.iter().copied().collect();
    assert_eq!(live, distinct, "{what}: after prune the index has the live chunks and no other");
    assert_eq!(stored.len(), distinct.len(), "{what}: after prune each chunk stands once");
    let listed = repo.storage().list("packs").unwrap();
    assert_eq!(listed.len(), bytes.len(), "{what}: after prune all packs are in the index");
    for (listed, (id, (blobs, sum))) in listed.iter().zip(&bytes) {
        assert_eq!(listed.key, repo::pack_key(id).unwrap(), "{what}");
        let fixed = HEADER_BYTES + TRAILER_BYTES + PACK_ALIGN_BYTES + 64;
        let most = fixed + sum + blobs * ENTRY_BYTES + (sum / SHARD_BYTES + 3) * SHARD_HASH_BYTES;
        assert!(listed.len as usize <= most, "{what}: a pack of {} bytes holds {sum} bytes in {blobs} blobs", listed.len);
    }
}

/// Every chunk that a snapshot refers to, and every base that one of these is encoded against; read from the repository
/// itself.
pub(crate) fn chunks_of(repo: &Repository, snapshot: &Committed) -> BTreeSet<ChunkId> {
    let reader = ChunkReader::new(repo);
    let found = RefCell::new(BTreeSet::new());
    let stream = |stream: &Stream| {
        let mut list = |id| {
            found.borrow_mut().insert(id);
            true
        };
        let mut leaves = StreamReader::with_lists(&reader, stream, &mut list);
        while let Some(leaf) = leaves.next_leaf().unwrap() {
            if !leaf.id.is_hole() {
                found.borrow_mut().insert(leaf.id);
            }
        }
    };
    let mut nodes = vec![snapshot.record.root.clone()];
    while let Some(node) = nodes.pop() {
        if let Xattrs::Stream(xattrs) = &node.meta.xattrs {
            stream(xattrs);
        }
        match &node.kind {
            NodeKind::File(content) => stream(content),
            NodeKind::Directory(entries) => {
                stream(entries);
                let mut below = NodeReader::new(&reader, entries);
                while let Some(node) = below.next_node().unwrap() {
                    nodes.push(node);
                }
            }
            _ => {}
        }
    }
    drop(nodes);
    let mut found = found.into_inner();
    let bases: Vec<ChunkId> = found.iter().filter_map(|id| repo.index().get(id).unwrap()?.blob.base).collect();
    found.extend(bases);
    found
}

/// Rule 7.
fn check_no_leftovers(storage: &dyn Storage, repo: &Repository, what: &str) {
    for prefix in ["hb", "forget", "probe"] {
        let left = storage.list(prefix).unwrap();
        assert!(left.is_empty(), "{what}: left over: {left:?}");
    }
    let mut named = BTreeSet::new();
    for listed in storage.list("log").unwrap() {
        let (session, sequence) = repo::parse_key(&listed.key).unwrap();
        named.extend(repo.published(&session, sequence).unwrap().into_iter().flat_map(|(published, _)| published.deltas));
    }
    for listed in storage.list("idx").unwrap() {
        assert!(named.contains(listed.key.as_str()), "{what}: no journal names {}", listed.key);
    }
    for listed in storage.list("").unwrap() {
        let top = listed.key.as_str().split('/').next().unwrap();
        assert!(["config", "keys", "packs", "log", "idx", "gc", "verified"].contains(&top), "{what}: left over: {}", listed.key);
    }
}

impl State {
    fn storage_of(&self) -> Arc<dyn Storage> {
        Arc::new(self.storage.clone())
    }
}
