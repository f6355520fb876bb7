//! One bit of every byte of every object of a small repository is flipped, every object is cut off at every length: what
//! comes of it is found by `verify --data=deep` or harms nobody. Nothing panics, nothing wrong is ever restored.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test; it prints what it walked")]

use std::sync::atomic::{AtomicUsize, Ordering};

use icecore::ErrorKind;
use icecore::ops::verify::Depth;
use icecore::storage::Key;

use crate::harness::State;
use crate::harness::restored_with_report;
use crate::harness::state::{prune_below, verify_all};
use crate::harness::trees::tiny;

/// Everything that a repository consists of, in little: two snapshots, one forgotten, a cycle of prune behind it.
fn small(encrypted: bool) -> State {
    let mut state = State::create(encrypted);
    let source = tiny(1);
    let first = state.snapshot("/a", &source).snapshot.id;
    state.forget(&[first]);
    source.edit(|tree| {
        tree.file("dir/chunk", crate::harness::trees::noise(2, 700));
    });
    state.snapshot("/a", &source);
    prune_below(&state.open().unwrap(), 70).unwrap();
    source.edit(|tree| {
        tree.file("more", crate::harness::trees::noise(3, 600));
    });
    let forgotten = state.snapshot("/a", &source).snapshot.id;
    source.edit(|tree| {
        tree.append("more", "x");
    });
    state.snapshot("/a", &source);
    state.forget(&[forgotten]);
    verify_all(&state.open().unwrap(), Depth::Scrub).unwrap();
    state
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Flip(usize, u8),
    CutOff(usize),
}

/// Opens, verifies and restores everything. Whether anything said that something is wrong.
fn noticed(base: &State, key: &Key, change: Change) -> bool {
    let what = || format!("{key} {change:?}");
    let state = base.fork();
    state.storage.with_objects(|objects| {
        let bytes = objects.get_mut(key).unwrap();
        match change {
            Change::Flip(at, bit) => bytes[at] ^= 1 << bit,
            Change::CutOff(len) => bytes.truncate(len),
        }
    });
    let repo = match state.open_anew() {
        Ok(repo) => repo,
        Err(error) => {
            let kinds = [ErrorKind::Damaged, ErrorKind::WrongKey, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{}: {error}", what());
            return true;
        }
    };
    let (snapshots, problems) = repo.snapshots_checked().unwrap();
    let report = verify_all(&repo, Depth::Deep).unwrap_or_else(|e| panic!("{}: verify ends with {e}", what()));
    let found = !problems.is_empty() || !report.damaged.is_empty();
    let there = snapshots.iter().filter(|snapshot| state.snapshots.contains_key(&snapshot.id)).count();
    assert!(found || (there == state.snapshots.len() && snapshots.len() == there), "{}: the list of snapshots is another one", what());
    for snapshot in &snapshots {
        let Some(tree) = state.snapshots.get(&snapshot.id) else { continue };
        let (restored, restore) = match restored_with_report(&repo, &snapshot.record) {
            Ok(restored) => restored,
            Err(error) => {
                assert!(found && error.kind() == ErrorKind::Damaged, "{}: {error}", what());
                continue;
            }
        };
        for (path, plain) in &restored {
            let expected = tree.get(path).unwrap_or_else(|| panic!("{}: {path} came back and never was", what()));
            assert!(plain.body == expected.body && plain.mode == expected.mode, "{}: {path} came back wrong", what());
        }
        assert!(restored == **tree || (found && !restore.warnings.is_empty()), "{}: entries are missing and nobody says so", what());
    }
    found
}

/// All changes, on all cores; returns how many there were and how many harmed nobody.
fn walk(base: &State, changes: &[(Key, Change)]) -> usize {
    let (next, harmless) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some((key, change)) = changes.get(next.fetch_add(1, Ordering::SeqCst)) {
                    if !noticed(base, key, *change) {
                        harmless.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    harmless.into_inner()
}

/// Without optimisation only a part of the walk is done in reasonable time, unless `FULL` is set.
fn stride() -> usize {
    if cfg!(debug_assertions) && std::env::var_os("FULL").is_none() { 17 } else { 1 }
}

#[test]
fn every_byte_of_a_small_repository() {
    for encrypted in [true, false] {
        let base = small(encrypted);
        let objects = base.storage.objects();
        let flips: Vec<_> = objects
            .iter()
            .flat_map(|(key, bytes)| (0..bytes.len()).map(|at| (key.clone(), Change::Flip(at, (at % 8) as u8))))
            .step_by(stride())
            .collect();
        let harmless = walk(&base, &flips);
        eprintln!("flips: {} of {} objects, encrypted {encrypted}: {harmless} harmless, all others found", flips.len(), objects.len());
        let allowed = objects.iter().filter(|(key, _)| key.as_str().ends_with("/condemned")).map(|(_, bytes)| bytes.len()).sum::<usize>();
        assert!(harmless <= allowed, "only prune's undecided sets may be changed unnoticed, of {allowed} bytes: {harmless}");
    }
}

#[test]
fn every_length_of_small_objects() {
    let base = small(true);
    let objects = base.storage.objects();
    let mut cuts = Vec::new();
    for (key, bytes) in objects.iter().filter(|(key, _)| !key.as_str().ends_with("/condemned")) {
        let lengths: Box<dyn Iterator<Item = usize>> = if bytes.len() < 2_000 {
            Box::new(0..bytes.len())
        } else {
            // Of a pack, around its sections and now and then between.
            let around = |at: usize| at.saturating_sub(2)..(at + 2).min(bytes.len());
            Box::new(around(0).chain(around(128)).chain(around(4096)).chain(around(bytes.len() - 64)).chain((0..bytes.len()).step_by(331)))
        };
        cuts.extend(lengths.map(|len| (key.clone(), Change::CutOff(len))));
    }
    let cuts: Vec<_> = cuts.into_iter().step_by(stride()).collect();
    let harmless = walk(&base, &cuts);
    eprintln!("cut off: {} lengths of {} objects, {harmless} harmless", cuts.len(), objects.len());
    assert_eq!(harmless, 0, "what is too short is found");
}
