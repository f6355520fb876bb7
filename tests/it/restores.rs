//! Restores into real directories: the same tree whatever stood there before and however the reading is planned, and no
//! more reads of the repository than that needs.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

use std::path::Path;
use std::sync::Arc;

use icecore::model::SnapshotId;
use icecore::ops::restore::{RestoreOptions, RestoreReport, plan, restore};
use icecore::progress::Progress;
use icecore::repo::{Committed, Repository};
use icecore::source::EntryKind;
use icecore::source::dir::DirSource;
use icecore::source::scripted::{ScriptedSource, Tree};
use icecore::storage::fault::{FaultStorage, Operation};
use icecore::storage::memory::MemoryStorage;
use icecore::target::dir::{DirTarget, DirTargetOptions};
use proptest::prelude::*;

use crate::harness::state::take;
use crate::harness::trees::{change, noise, varied};
use crate::harness::{PlainTree, State, plain_copy, restored};
use crate::program::is_root;

fn restore_to(repo: &Repository, snapshot: &Committed, dir: &Path, delete: bool) -> RestoreReport {
    let options = DirTargetOptions { snapshot: snapshot.id, open_dirs_max: None, reflink_from: None };
    let target = DirTarget::create(dir, options).unwrap();
    let options = RestoreOptions { delete, ..RestoreOptions::default() };
    let report = restore(repo, &snapshot.record, &target, &options, &Progress::new()).unwrap();
    assert!(report.warnings.is_empty() && report.failed == 0, "{report:?}");
    report
}

fn found(dir: &Path) -> PlainTree {
    plain_copy(&DirSource::open(dir).unwrap())
}

/// A step in the life of a volume. Names are few, so that steps meet.
#[derive(Debug, Clone)]
enum Change {
    /// A file: its name, length and content; what repeats has few different chunks.
    File(u8, usize, u64, bool),
    /// Some bytes of a file in place.
    Edit(u8, usize, u64),
    Append(u8, usize),
    Truncate(u8, usize),
    /// A file with one piece of data between two holes.
    Sparse(u8, usize, usize),
    Link(u8, u8),
    Symlink(u8),
    Directory(u8),
    Remove(u8),
    Mode(u8, u16),
}

fn change_strategy() -> impl Strategy<Value = Change> {
    let len = prop_oneof![4 => 0..700_usize, 4 => 700..60_000_usize, 2 => 60_000..900_000_usize, 1 => 4_000_000..10_000_000_usize];
    let name = 0..14_u8;
    prop_oneof![
        6 => (name.clone(), len.clone(), 0..40_u64, any::<bool>()).prop_map(|(n, l, s, r)| Change::File(n, l, s, r)),
        6 => (name.clone(), 0..8_000_000_usize, any::<u64>()).prop_map(|(n, a, s)| Change::Edit(n, a, s)),
        2 => (name.clone(), 0..50_000_usize).prop_map(|(n, l)| Change::Append(n, l)),
        2 => (name.clone(), len).prop_map(|(n, l)| Change::Truncate(n, l)),
        2 => (name.clone(), 4096..6_000_000_usize, 1..300_000_usize).prop_map(|(n, a, l)| Change::Sparse(n, a, l)),
        1 => (name.clone(), name.clone()).prop_map(|(a, b)| Change::Link(a, b)),
        1 => name.clone().prop_map(Change::Symlink),
        1 => name.clone().prop_map(Change::Directory),
        2 => name.clone().prop_map(Change::Remove),
        1 => (name, 0o400..0o777_u16).prop_map(|(n, m)| Change::Mode(n, m)),
    ]
}

fn name_of(number: u8) -> String {
    match number % 7 {
        0 | 1 => format!("file-{number}"),
        2 => format!("a/file-{number}"),
        3 => format!("a/b/file-{number}"),
        4 => format!("z/file-{number}"),
        5 => "z".to_owned(),
        _ => format!("a/x-{}", number / 7),
    }
}

/// The length of a file, if it is one.
fn file_len(tree: &Tree, name: &str) -> Option<usize> {
    let stat = tree.exists(name).then(|| tree.stat(name)).filter(|stat| stat.kind == EntryKind::File)?;
    Some(usize::try_from(stat.size).unwrap())
}

fn apply(tree: &mut Tree, change: &Change) {
    // `z` is sometimes a directory and sometimes something else.
    let clear_way = |tree: &mut Tree, name: &str| {
        if name.starts_with("z/") {
            tree.dir("z");
        }
    };
    match change {
        Change::File(n, len, seed, repeats) => {
            let content = if *repeats { noise(*seed, 40_000).into_iter().cycle().take(*len).collect() } else { noise(*seed, *len) };
            clear_way(tree, &name_of(*n));
            tree.file(name_of(*n), content);
        }
        Change::Edit(n, at, seed) => {
            if let Some(len) = file_len(tree, &name_of(*n)).filter(|len| *len > 0) {
                let at = at % len;
                tree.write(name_of(*n), at as u64, noise(*seed, 300.min(len - at)));
            }
        }
        Change::Append(n, len) => {
            if file_len(tree, &name_of(*n)).is_some() {
                tree.append(name_of(*n), noise(*len as u64, *len));
            }
        }
        Change::Truncate(n, len) => {
            if file_len(tree, &name_of(*n)).is_some() {
                tree.truncate(name_of(*n), *len as u64);
            }
        }
        Change::Sparse(n, at, len) => {
            clear_way(tree, &name_of(*n));
            tree.sparse_file(name_of(*n), (at + len + 9_000_000) as u64, &[(*at as u64, &noise(*len as u64, *len))]);
        }
        Change::Link(a, b) => {
            let (a, b) = (name_of(*a), name_of(*b));
            let apart = a != b && !a.starts_with(&format!("{b}/")) && !b.starts_with(&format!("{a}/"));
            if apart && file_len(tree, &a).is_some() {
                clear_way(tree, &b);
                tree.hard_link(a, b);
            }
        }
        Change::Symlink(n) => {
            clear_way(tree, &name_of(*n));
            tree.symlink(name_of(*n), "a/b");
        }
        Change::Directory(n) => {
            clear_way(tree, &name_of(*n));
            tree.dir(name_of(*n));
        }
        Change::Remove(n) => {
            if file_len(tree, &name_of(*n)).is_some() {
                tree.remove(name_of(*n));
            }
        }
        Change::Mode(n, mode) => {
            if file_len(tree, &name_of(*n)).is_some() {
                tree.set_mode(name_of(*n), *mode);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 64, ..ProptestConfig::default() })]

    /// Into an empty directory, and over an older and a newer state of the same, a restore gives what the sequential
    /// target in memory gives: the snapshot.
    #[test]
    fn every_way_gives_the_same_tree(
        first in prop::collection::vec(change_strategy(), 1..25),
        second in prop::collection::vec(change_strategy(), 0..12),
        encrypted in any::<bool>(),
    ) {
        if rustix::process::geteuid().is_root() {
            let source = ScriptedSource::build(|tree| first.iter().for_each(|change| apply(tree, change)));
            let mut state = State::create(encrypted);
            let old = state.snapshot("/v", &source).snapshot;
            source.edit(|tree| second.iter().for_each(|change| apply(tree, change)));
            let new = state.snapshot("/v", &source).snapshot;
            let repo = state.open().unwrap();
            let [expected_old, expected_new] = [&old, &new].map(|snapshot| restored(&repo, &snapshot.record, "in memory"));
            prop_assert!(*state.snapshots[&old.id] == expected_old && *state.snapshots[&new.id] == expected_new);
            let place = tempfile::tempdir().unwrap();
            let out = place.path().join("out");
            // Fresh, forward over the old state, back over the new one, and over itself.
            for (snapshot, expected) in [(&old, &expected_old), (&new, &expected_new), (&old, &expected_old)] {
                restore_to(&repo, snapshot, &out, true);
                prop_assert!(found(&out) == *expected, "{:#?}\n{:#?}", found(&out), expected);
            }
            let again = restore_to(&repo, &old, &out, true);
            // A file with several names is replaced: some of them could be elsewhere.
            let mut linked = expected_old.iter().filter(|(path, plain)| plain.first != **path);
            prop_assert!(again.removed == 0 && (again.written_bytes == 0 || linked.next().is_some()), "{again:?}");
        }
    }
}

/// Every kind of entry, restored fresh and over what it was before and became later.
#[test]
fn varied_trees_come_back_over_each_other() {
    if !is_root("varied_trees_come_back_over_each_other") {
        return;
    }
    let mut state = State::create(true);
    let source = varied(7);
    // Of a length that all file systems hold.
    let shorten =
        |tree: &mut Tree| _ = tree.set_xattr("empty", "user.large", noise(3, 1500)).set_xattr("data", "user.large", noise(4, 1500));
    source.edit(shorten);
    let mut taken = vec![state.snapshot("/v", &source).snapshot];
    for seed in 1..4 {
        source.edit(|tree| change(tree, seed * 100));
        source.edit(shorten);
        taken.push(state.snapshot("/v", &source).snapshot);
    }
    let repo = state.open().unwrap();
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    for number in [0, 1, 3, 2, 0, 3] {
        restore_to(&repo, &taken[number], &out, true);
        assert_eq!(*state.snapshots[&taken[number].id], found(&out), "state {number}");
    }
}

struct Counted {
    storage: FaultStorage<MemoryStorage>,
    repo: Repository,
    taken: Committed,
}

/// A repository, read through a storage that records, with a snapshot of this tree.
fn counted(build: impl FnOnce(&mut Tree)) -> Counted {
    let state = State::create(false);
    let storage = FaultStorage::new(state.storage.clone());
    let repo = state.open_on(Arc::new(storage.clone()), state.index.clone()).unwrap();
    let taken = take(&repo, "/v", &ScriptedSource::build(build), false).unwrap().snapshot;
    Counted { storage, repo, taken }
}

impl Counted {
    fn reads(&self, act: impl FnOnce()) -> usize {
        self.storage.disarm();
        act();
        self.storage.record().iter().filter(|asked| asked.operation == Operation::GetRange).count()
    }

    /// Reads of the tree alone.
    fn tree_reads(&self) -> usize {
        self.reads(|| {
            plan(&self.repo, &self.taken.record, &RestoreOptions::default(), &Progress::new()).unwrap();
        })
    }
}

#[test]
fn neighbouring_small_files_are_read_together() {
    if !is_root("neighbouring_small_files_are_read_together") {
        return;
    }
    const FILES: usize = 1500;
    let counted = counted(|tree| {
        for n in 0..FILES {
            tree.file(format!("d{}/f{n}", n / 300), noise(n as u64, 600 + n % 1000));
        }
    });
    let place = tempfile::tempdir().unwrap();
    let tree = counted.tree_reads();
    let all = counted.reads(|| {
        restore_to(&counted.repo, &counted.taken, place.path(), false);
    });
    // 1.7 MB of data in packs of 64 KiB (the harness's): each pack is read for each of the batches that it has files of.
    let record = counted.storage.record();
    let packs = record.iter().filter(|asked| asked.operation == Operation::GetRange).map(|asked| &asked.key);
    let packs = packs.collect::<std::collections::BTreeSet<_>>().len();
    assert!(all - tree <= packs + 4 * FILES / 256, "{} reads of data in {packs} packs for {FILES} files", all - tree);
    // What is right is compared, not read again.
    let again = counted.reads(|| {
        let report = restore_to(&counted.repo, &counted.taken, place.path(), false);
        assert_eq!(report.written_bytes, 0);
    });
    assert_eq!(again, tree, "the tree, and no data");
}

#[test]
fn what_differs_in_a_large_file_is_read_and_the_rest_is_not() {
    if !is_root("what_differs_in_a_large_file_is_read_and_the_rest_is_not") {
        return;
    }
    const LEN: usize = 24 << 20;
    let content = noise(5, LEN);
    let counted = counted(|tree| {
        tree.file("large", &content);
    });
    let place = tempfile::tempdir().unwrap();
    let tree = counted.tree_reads();
    let fresh = counted.reads(|| {
        let report = restore_to(&counted.repo, &counted.taken, place.path(), false);
        assert_eq!(report.written_bytes, LEN as u64);
    });
    assert!(fresh - tree >= LEN >> 20, "packs are far smaller than a range may be: {fresh} {tree}");
    let file = place.path().join("large");
    assert!(std::fs::read(&file).unwrap() == content);
    let mut damaged = content.clone();
    for at in [0, LEN / 2, LEN - 1] {
        damaged[at] ^= 1;
    }
    std::fs::write(&file, &damaged).unwrap();
    let few = counted.reads(|| {
        let report = restore_to(&counted.repo, &counted.taken, place.path(), false);
        assert_eq!(report.written_bytes, 3 * 4096, "{report:?}");
        assert_eq!(report.written_bytes + report.kept_bytes, LEN as u64);
    });
    assert!(std::fs::read(&file).unwrap() == content);
    assert!(few - tree <= 3, "{few} reads, {tree} of the tree");
}

#[test]
fn a_file_of_one_chunk_again_and_again_is_read_once_for_each_part() {
    if !is_root("a_file_of_one_chunk_again_and_again_is_read_once_for_each_part") {
        return;
    }
    const LEN: usize = 16 << 20;
    // No cut is found in equal bytes, so that all chunks are of the greatest length and equal.
    let counted = counted(|tree| {
        tree.file("equal", vec![7; LEN]);
    });
    let place = tempfile::tempdir().unwrap();
    let tree = counted.tree_reads();
    let reads = counted.reads(|| {
        restore_to(&counted.repo, &counted.taken, place.path(), false);
    });
    assert!(reads - tree <= LEN / (4 << 20), "{reads} reads, {tree} of the tree");
    assert!(std::fs::read(place.path().join("equal")).unwrap() == vec![7; LEN]);
}

#[test]
fn a_snapshot_is_named_by_the_mark_until_the_restore_is_done() {
    let counted = counted(|tree| {
        tree.file("a", noise(1, 5000));
    });
    let place = tempfile::tempdir().unwrap();
    let options = DirTargetOptions { snapshot: SnapshotId([7; 32]), open_dirs_max: None, reflink_from: None };
    let target = DirTarget::create(place.path(), options).unwrap();
    let progress = Progress::new();
    progress.request_stop();
    restore(&counted.repo, &counted.taken.record, &target, &RestoreOptions::default(), &progress).unwrap_err();
    assert!(place.path().join(".icecore-incomplete").exists() && !place.path().join("a").exists());
}
