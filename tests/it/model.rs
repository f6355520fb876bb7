//! Random sequences of everything that a host does to a repository, beside a model of plain copies. The seed is printed
//! and taken from `SEED`; a failure names it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test; it prints its seeds")]

use std::sync::Arc;
use std::time::Duration;

use icecore::model::{NodeKind, SnapshotId};
use icecore::ops::verify::Depth;
use icecore::source::scripted::{ScriptedSource, Tree};
use icecore::storage::fault::{FaultStorage, Plan};
use icecore::storage::memory::MemoryStorage;

use crate::harness::invariants::{Expected, check};
use crate::harness::state::{prune_below, take, verify_all};
use crate::harness::trees::{Random, noise, varied};
use crate::harness::{State, TestIndex, plain_copy, restored};

const SEQUENCES: u64 = 12;
const STEPS: u64 = 60;

#[test]
fn random_sequences_agree_with_plain_copies() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    eprintln!("model: SEED={seed}, {SEQUENCES} sequences of {STEPS} steps");
    for sequence in 0..SEQUENCES {
        run(seed + sequence);
    }
}

/// A file of the tree; the same few names come again and again, so that entries meet their own past.
fn name(random: &mut Random) -> String {
    let folders = ["", "a/", "a/b/", "c/"];
    format!("{}{}", folders[random.below(4) as usize], random.below(6))
}

fn mutate(tree: &mut Tree, random: &mut Random) {
    let at = name(random);
    // What the name is below must be a directory, else it is made one.
    let is_file = tree.exists(&at) && tree.stat(&at).kind == icecore::source::EntryKind::File;
    let content = match random.below(4) {
        0 => Vec::new(),
        1 => noise(random.below(3), 300),
        2 => noise(random.below(3), 90_000),
        _ => b"text ".repeat(2_000),
    };
    match random.below(10) {
        0 if is_file => {
            let size = tree.stat(&at).size;
            tree.keeping_mtime(&at, |tree| {
                tree.write(&at, size / 2, b"changed");
            });
        }
        1 if is_file => {
            tree.truncate(&at, random.below(100_000));
        }
        2 if tree.exists(&at) => {
            tree.remove(&at);
        }
        3 if is_file => {
            let to = name(random);
            if to != at && !tree.exists(&to) {
                tree.rename(&at, &to);
            }
        }
        4 if is_file => {
            let to = name(random);
            if to != at && !tree.exists(&to) {
                tree.hard_link(&at, &to);
            }
        }
        5 => {
            tree.symlink(&at, "somewhere");
        }
        6 if tree.exists(&at) => {
            tree.set_mode(&at, random.below(0o7777) as u16).set_xattr(&at, "user.x", noise(random.below(9), 2_000));
        }
        7 if is_file => {
            tree.append(&at, content);
        }
        _ => {
            tree.file(&at, content);
        }
    }
}

/// What a process works on that dies at storage operation `n`.
fn dying(state: &State, n: u64) -> (FaultStorage<MemoryStorage>, TestIndex) {
    let storage = FaultStorage::with_plan(state.storage.clone(), Plan::stop(n));
    let (watched, index) = (storage.clone(), state.index.copy());
    index.die_when(move || watched.count() > n);
    (storage, index)
}

fn run(seed: u64) {
    let mut random = Random(seed);
    let source = varied(seed);
    source.edit(|tree| {
        tree.dir("a/b").dir("c");
    });
    let mut state = State::create(random.below(2) == 0);
    let mut other = TestIndex::new();
    for step in 0..STEPS {
        let what = format!("SEED={seed} step {step}");
        state.clock.advance(Duration::from_secs(random.below(100_000)));
        match random.below(16) {
            0..5 => source.edit(|tree| (0..=random.below(6)).for_each(|_| mutate(tree, &mut random))),
            5..8 => {
                let force = random.below(3) == 0;
                let copy = Arc::new(plain_copy(&source));
                let report = take(&state.open().unwrap(), "/a", &source, force).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(!report.snapshot.record.is_partial(), "{what}");
                state.snapshots.insert(report.snapshot.id, copy);
            }
            8 => {
                // The process dies somewhere in it.
                let copy = Arc::new(plain_copy(&source));
                let n = random.below(40);
                let (storage, index) = dying(&state, n);
                let taken = state.open_on(Arc::new(storage.clone()), index.clone()).and_then(|repo| take(&repo, "/a", &source, false));
                state.index = index.copy();
                if let (Ok(report), true) = (taken, storage.count() <= n) {
                    state.snapshots.insert(report.snapshot.id, copy);
                } else {
                    // It may be there all the same.
                    let repo = state.open().unwrap();
                    let listed = repo.snapshots().unwrap();
                    for snapshot in &listed {
                        state.snapshots.entry(snapshot.id).or_insert_with(|| copy.clone());
                    }
                }
            }
            9 => {
                let ids: Vec<SnapshotId> = state.ids().into_iter().filter(|_| random.below(3) == 0).collect();
                state.forget(&ids);
            }
            10 => {
                let percent = random.below(101) as u8;
                if random.below(3) == 0 {
                    let (storage, index) = dying(&state, random.below(150));
                    let _ = state.open_on(Arc::new(storage), index.clone()).and_then(|repo| prune_below(&repo, percent));
                    state.index = index.copy();
                }
                let pruned = prune_below(&state.open().unwrap(), percent);
                pruned.unwrap_or_else(|e| panic!("{what}: prune: {e}"));
            }
            11 => {
                state.open().unwrap().reindex().unwrap();
            }
            12 if random.below(2) == 0 => state.index = TestIndex::new(),
            // Another state folder, which knows how things were when it was last used.
            12 => std::mem::swap(&mut state.index, &mut other),
            13 => {
                let report = verify_all(&state.open().unwrap(), Depth::Deep).unwrap();
                assert!(report.damaged.is_empty() && report.affected.is_empty(), "{what}: {:?} {:?}", report.damaged, report.affected);
            }
            _ => {
                let repo = state.open().unwrap();
                let listed = repo.snapshots().unwrap();
                assert_eq!(listed.len(), state.snapshots.len(), "{what}: the list");
                if !listed.is_empty() {
                    let snapshot = &listed[random.below(listed.len() as u64) as usize];
                    assert_eq!(*state.snapshots[&snapshot.id], restored(&repo, &snapshot.record, &what), "{what}: {}", snapshot.id);
                }
            }
        }
    }
    check(&state, &Expected::default(), &source, &format!("SEED={seed}, in the end"));
}

/// With and without the stat cache, with and without what the index knows: the same source gives the same tree.
#[test]
fn fast_ways_and_slow_ways_give_the_same_tree() {
    let mut random = Random(3);
    let source: ScriptedSource = varied(3);
    source.edit(|tree| {
        tree.dir("a/b").dir("c");
    });
    let mut state = State::create(true);
    let root = |state: &State, force: bool| {
        let record = take(&state.open().unwrap(), "/a", &source, force).unwrap().snapshot.record;
        let NodeKind::Directory(stream) = record.root.kind else { panic!("the root is a directory") };
        (stream, record.root.meta, record.stats.files, record.stats.directories, record.stats.bytes)
    };
    for round in 0..20 {
        state.clock.advance(Duration::from_secs(1000));
        source.edit(|tree| (0..3).for_each(|_| mutate(tree, &mut random)));
        let roots: Vec<_> = [(false, false), (true, false), (false, true), (true, true)]
            .into_iter()
            .map(|(force, lost)| {
                let mut fork = state.fork();
                if lost {
                    fork.index = TestIndex::new();
                }
                root(&fork, force)
            })
            .collect();
        assert!(roots.iter().all(|other| *other == roots[0]), "round {round}: {roots:?}");
        state.snapshot("/a", &source);
    }
}
