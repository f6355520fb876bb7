//! Deltas end to end: what changed is stored as its difference from what stood in its place, every version comes back, and
//! what a delta needs is never lost to prune, or noticed when it is lost to something else.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use icecore::model::{ChunkId, PackId, SnapshotId};
use icecore::ops::verify::Depth;
use icecore::repo::{self, Repository};
use icecore::source::scripted::ScriptedSource;
use icecore::storage::Storage;

use crate::harness::state::{prune_below, take, verify_all};
use crate::harness::trees::noise;
use crate::harness::{State, restored};

/// A database of one file that does not compress, beside files that never change.
fn database() -> ScriptedSource {
    ScriptedSource::build(|tree| {
        tree.file("data/many/table", noise(1, 900_000)).file("data/other", noise(2, 30_000));
        for n in 0..200 {
            tree.file(format!("data/many/{n}"), noise(n, 20));
        }
    })
}

/// Some pages change, here and there, as in a database.
fn transaction(source: &ScriptedSource, round: u64) {
    source.edit(|tree| {
        for page in [round % 100, (round * 7 + 3) % 100] {
            tree.write("data/many/table", page * 8192 + 100, noise(1000 + round, 60));
        }
    });
}

fn next(state: &mut State, source: &ScriptedSource) -> icecore::ops::snapshot::SnapshotReport {
    state.clock.advance(Duration::from_secs(1000));
    state.snapshot("/db", source)
}

/// Every blob of every pack, from the packs' own footers: chunk, pack, base.
fn blobs(repo: &Repository) -> Vec<(ChunkId, PackId, Option<ChunkId>)> {
    let mut blobs = Vec::new();
    for listed in repo.storage().list("packs").unwrap() {
        let id = repo::parse_pack_key(&listed.key).unwrap();
        let (_, footer) = repo::read_footer(repo, &id, listed.len).unwrap();
        blobs.extend(footer.entries.iter().map(|entry| (entry.id, id, entry.base)));
    }
    blobs
}

fn restore_all(state: &State, what: &str) {
    let repo = state.open().unwrap();
    let snapshots = repo.snapshots().unwrap();
    assert_eq!(snapshots.len(), state.snapshots.len(), "{what}");
    for snapshot in snapshots {
        assert_eq!(*state.snapshots[&snapshot.id], restored(&repo, &snapshot.record, what), "{what}: {}", snapshot.id);
    }
}

fn verify_clean(state: &State, what: &str) {
    let report = verify_all(&state.open().unwrap(), Depth::Deep).unwrap();
    assert!(report.damaged.is_empty() && report.affected.is_empty(), "{what}: {:?} {:?}", report.damaged, report.affected);
}

#[test]
fn a_snapshot_costs_what_changed() {
    let mut state = State::create(true);
    let source = database();
    let first = next(&mut state, &source).snapshot.record.stats;
    assert!(first.stored_bytes > 900_000);
    let idle = next(&mut state, &source).snapshot.record.stats;
    assert_eq!((idle.read_files, idle.new_chunks, idle.stored_bytes), (0, 0, 0), "nothing changed, nothing is read");
    for round in 0..20 {
        transaction(&source, round);
        let stats = next(&mut state, &source).snapshot.record.stats;
        assert_eq!(stats.read_files, 1);
        // Two pages, the list of chunks and two directories: some hundred bytes each.
        assert!(stats.new_bytes > 20_000 && stats.stored_bytes < 12_000, "round {round}: {stats:?}");
    }
    restore_all(&state, "after twenty rounds");
    verify_clean(&state, "after twenty rounds");
}

#[test]
fn no_chain_is_longer_than_one_step_and_trees_take_part() {
    // Where chunks end depends on the repository's key: the one that changes of a directory may be too short for a delta.
    let trees = (0..8).any(|_| {
        let mut state = State::create(false);
        let source = database();
        for round in 0..30 {
            next(&mut state, &source);
            transaction(&source, round);
        }
        let repo = state.open().unwrap();
        let blobs = blobs(&repo);
        let full: BTreeMap<ChunkId, PackId> = blobs.iter().filter(|blob| blob.2.is_none()).map(|blob| (blob.0, blob.1)).collect();
        let deltas: Vec<_> = blobs.iter().filter_map(|blob| Some((blob.0, blob.2?))).collect();
        for (delta, base) in &deltas {
            assert!(full.contains_key(base), "the base of {delta} has a full copy");
        }
        let kinds = |kind: u8| deltas.iter().filter(|(id, _)| repo.index().get(id).unwrap().unwrap().blob.kind == kind).count();
        assert!(kinds(0) >= 29, "{} deltas of data", kinds(0));
        kinds(1) >= 29
    });
    assert!(trees, "no directory was ever stored as a delta");
}

/// The snapshot whose chunks are the bases goes; the bases stay as long as anything is encoded against them.
#[test]
fn prune_keeps_bases_as_long_as_a_delta_needs_them() {
    for percent in [0, 70, 100] {
        let mut state = State::create(true);
        let source = database();
        let mut taken: Vec<SnapshotId> = Vec::new();
        for round in 0..8 {
            taken.push(next(&mut state, &source).snapshot.id);
            transaction(&source, round);
        }
        let what = format!("rewriting below {percent} %");
        for (step, gone) in [&taken[..1], &taken[2..5], &taken[5..7]].into_iter().enumerate() {
            state.forget(gone);
            let report = prune_below(&state.open().unwrap(), percent).unwrap();
            assert_eq!(report.snapshots_dropped, gone.len() as u64);
            restore_all(&state, &format!("{what}, step {step}"));
            verify_clean(&state, &format!("{what}, step {step}"));
            state.open().unwrap().reindex().unwrap();
            restore_all(&state, &format!("{what}, step {step}, index built anew"));
        }
        // What is left of the bases serves the next version too, on a host that has only the repository.
        transaction(&source, 50);
        let stats = next(&mut state, &source).snapshot.record.stats;
        assert!(stats.stored_bytes < 20_000, "{what}: {stats:?}");
        restore_all(&state, &what);
        // With the last delta its base goes.
        let all: Vec<SnapshotId> = state.ids().into_iter().collect();
        state.forget(&all);
        prune_below(&state.open().unwrap(), percent).unwrap();
        assert!(state.storage.list("packs").unwrap().is_empty(), "{what}: nothing is left");
    }
}

/// The pack with the bases is lost: verify says which snapshots that breaks, and the next one is whole again although the
/// deltas are still there.
#[test]
fn a_lost_base_is_told_and_relied_on_no_more() {
    let mut state = State::create(true);
    let source = database();
    let first = next(&mut state, &source).snapshot.id;
    transaction(&source, 1);
    let second = next(&mut state, &source).snapshot.id;
    let lost: Vec<PackId> = {
        let repo = state.open().unwrap();
        let blobs = blobs(&repo);
        let bases: Vec<ChunkId> = blobs.iter().filter_map(|blob| blob.2).collect();
        blobs.iter().filter(|blob| bases.contains(&blob.0)).map(|blob| blob.1).collect()
    };
    for id in &lost {
        state.storage.with_objects(|objects| drop(objects.remove(&repo::pack_key(id).unwrap())));
    }
    let report = verify_all(&state.open().unwrap(), Depth::Structure).unwrap();
    for id in [first, second] {
        let broken =
            |path: &str| report.affected.iter().any(|affected| affected.snapshot == id.to_string() && affected.path.contains(path));
        assert!(broken("table") || broken("data") || broken(""), "{id}: {:?}", report.affected);
    }
    // Nothing changed since, so every chunk of it is known: as a delta whose base is gone.
    state.clock.advance(Duration::from_secs(1000));
    let repo = state.open().unwrap();
    let whole = take(&repo, "/db", &source, false).unwrap().snapshot;
    assert_eq!(*state.snapshots[&second], restored(&repo, &whole.record, "after the loss"));
    let report = verify_all(&repo, Depth::Deep).unwrap();
    assert!(!report.affected.iter().any(|affected| affected.snapshot == whole.id.to_string()), "{:?}", report.affected);
}

/// A base that can't be read is no base: the chunk is stored whole, and the run goes on.
#[test]
fn a_damaged_base_costs_space_only() {
    let mut state = State::create(true);
    let source = database();
    next(&mut state, &source);
    // In the first half of each pack, bits of every blob.
    state.storage.with_objects(|objects| {
        for (_, bytes) in objects.iter_mut().filter(|(key, _)| key.as_str().starts_with("packs/")) {
            let middle = bytes.len() / 2;
            (200..middle).step_by(3000).for_each(|at| bytes[at] ^= 1);
        }
    });
    transaction(&source, 1);
    state.clock.advance(Duration::from_secs(1000));
    let taken = take(&state.open().unwrap(), "/db", &source, true);
    // Directories are read on the way; where those are hit too, nothing can be taken over from them and all is read.
    let stats = taken.unwrap().snapshot.record.stats;
    assert!(stats.stored_bytes > 30_000, "{stats:?}");
}
