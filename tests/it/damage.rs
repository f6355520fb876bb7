//! Damage is a matrix: what is damaged, how, and what each verb then says. Each expectation stands in [`TABLE`].
//!
//! For every cell hold, beside the table: nothing panics, nothing is ever returned that is not what was stored, snapshots
//! that do not depend on the object restore whole, and what `verify` counts as broken is what a restore misses.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test; it prints what it walked")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use icecore::model::SnapshotId;
use icecore::ops::verify::{Damage, Depth, VerifyReport};
use icecore::repo::{self, Entry, Repository};
use icecore::source::scripted::{self, ScriptedSource};
use icecore::storage::Key;
use icecore::{ErrorKind, Result};

use crate::harness::invariants::chunks_of;
use crate::harness::state::{prune_below, take, verify_all};
use crate::harness::trees::{change, noise, varied};
use crate::harness::{PlainTree, State, TestIndex, plain_copy, restored_with_report};

/// A repository with one of everything.
struct Specimen {
    state: State,
    /// Which snapshots need an object: a pack those with chunks in it, a SNAPSHOT entry that one, nothing else any.
    needed: BTreeMap<Key, BTreeSet<SnapshotId>>,
    /// The source of the rest, as it is now.
    source: ScriptedSource,
    objects: BTreeMap<What, Vec<Key>>,
}

/// What is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Config,
    Slot,
    DataPack,
    TreePack,
    Begin,
    Checkpoint,
    Snapshot,
    End,
    Delta,
    Forget,
    Condemned,
    Final,
    Verified,
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Flip,
    Truncate,
    Delete,
    Swap,
}

const ALL: [How; 4] = [How::Flip, How::Truncate, How::Delete, How::Swap];

fn specimen(encrypted: bool) -> Specimen {
    let mut state = State::create(encrypted);
    // A cycle of prune that did something, and another: two sets of each kind.
    for seed in [20, 30] {
        let gone = ScriptedSource::build(|tree| {
            tree.file("gone", noise(seed, 30_000));
        });
        let id = state.snapshot("/gone", &gone).snapshot.id;
        state.forget(&[id]);
        prune_below(&state.open().unwrap(), 70).unwrap();
    }
    state.snapshot("/other", &varied(50));
    // Snapshots with checkpoints and deltas.
    let source = varied(1);
    for seed in [100, 200] {
        let clock = state.clock.clone();
        source.edit(|tree| {
            change(tree, seed);
            tree.file("large", noise(seed + 9, 900_000));
        });
        let at_rest = plain_copy(&source);
        source.on_step(move |step, _| {
            if step.operation == scripted::Operation::Read {
                clock.advance(Duration::from_secs(301));
            }
        });
        let taken = take(&state.open().unwrap(), "/a", &source, false).unwrap().snapshot.id;
        source.clear_hook();
        state.snapshots.insert(taken, Arc::new(at_rest));
    }
    // Two markers.
    for seed in [60, 70] {
        let id = state.snapshot("/forgotten", &varied(seed)).snapshot.id;
        state.forget(&[id]);
    }
    // Two records of what was proved, as two verifies at once leave them.
    let beside = state.fork();
    for state in [&state, &beside] {
        verify_all(&state.open().unwrap(), Depth::Scrub).unwrap();
    }
    let record = beside.storage.objects().into_iter().find(|(key, _)| key.as_str().starts_with("verified/")).unwrap();
    state.storage.with_objects(|objects| objects.insert(record.0, record.1));
    let objects = sort_objects(&state);
    let needed = needed(&state);
    Specimen { state, needed, source, objects }
}

fn needed(state: &State) -> BTreeMap<Key, BTreeSet<SnapshotId>> {
    let repo = state.open().unwrap();
    let mut needed: BTreeMap<Key, BTreeSet<SnapshotId>> = BTreeMap::new();
    for snapshot in repo.snapshots().unwrap() {
        needed.entry(repo::entry_key(&snapshot.session, snapshot.sequence).unwrap()).or_default().insert(snapshot.id);
        for chunk in chunks_of(&repo, &snapshot) {
            let pack = repo.index().pack(repo.index().get(&chunk).unwrap().unwrap().pack).unwrap();
            needed.entry(repo::pack_key(&pack.id).unwrap()).or_default().insert(snapshot.id);
        }
    }
    needed
}

/// Every object by what it is. A kind of which there are not two (or, for the config, one) would leave cells untested.
fn sort_objects(state: &State) -> BTreeMap<What, Vec<Key>> {
    let repo = state.open().unwrap();
    let mut objects: BTreeMap<What, Vec<Key>> = BTreeMap::new();
    for (key, bytes) in state.storage.objects() {
        let top = key.as_str().split('/').next().unwrap();
        let what = match top {
            "config" => What::Config,
            "keys" => What::Slot,
            "idx" => What::Delta,
            "forget" => What::Forget,
            "verified" => What::Verified,
            "gc" if key.as_str().ends_with("final") => What::Final,
            "gc" => What::Condemned,
            "packs" => {
                let (_, footer) = repo::read_footer(&repo, &repo::parse_pack_key(&key).unwrap(), bytes.len() as u64).unwrap();
                if footer.entries.iter().all(|entry| entry.kind == 0) { What::DataPack } else { What::TreePack }
            }
            "log" => match repo::decode_entry(repo.keys(), &repo.id(), &key, &mut bytes.clone()).unwrap().1 {
                Entry::Begin(_) => What::Begin,
                Entry::Checkpoint(_) => What::Checkpoint,
                Entry::Snapshot { .. } | Entry::Member { .. } => What::Snapshot,
                Entry::End => What::End,
                other => panic!("{key}: {other:?}"),
            },
            _ => panic!("{key} is of no known kind"),
        };
        objects.entry(what).or_default().push(key);
    }
    objects
}

impl Specimen {
    /// Damages the object `key` of kind `what`. Gives the keys of what is damaged now, none when the change changes nothing.
    fn damage(&self, state: &State, what: What, how: How, key: &Key) -> Vec<Key> {
        let other = self.objects[&what].iter().find(|other| *other != key).cloned();
        state.storage.with_objects(|objects| match how {
            How::Flip => {
                let bytes = objects.get_mut(key).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
                vec![key.clone()]
            }
            How::Truncate => {
                let bytes = objects.get_mut(key).unwrap();
                bytes.truncate(bytes.len() / 2);
                vec![key.clone()]
            }
            How::Delete => {
                objects.remove(key).unwrap();
                vec![key.clone()]
            }
            How::Swap => {
                let Some(other) = other else { return Vec::new() };
                let (a, b) = (objects[key].clone(), objects[&other].clone());
                objects.insert(key.clone(), b);
                objects.insert(other.clone(), a);
                vec![key.clone(), other]
            }
        })
    }
}

/// What came of one cell, as far as the table speaks of it.
#[derive(Clone, PartialEq, Eq)]
struct Outcome {
    /// Opening: `ok`, `noted` (it opens and names the object) or the kind of the error.
    open: String,
    /// Snapshots that are listed, of those that must be.
    listed: String,
    verify: String,
    data: String,
    /// How the snapshots restore that are listed.
    affected: String,
    /// How a new snapshot restores, here and on another host.
    next: String,
    prune: String,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { open, listed, verify, data, affected, next, prune } = self;
        write!(f, "open {open}, listed {listed}, verify {verify}, data {data}, affected {affected}, next {next}, prune {prune}")
    }
}

fn is_pack(damage: &Damage) -> bool {
    damage.object.starts_with("packs/") && damage.problem != "the pack is missing"
}

fn kind<T>(result: &Result<T>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{:?}", error.kind()),
    }
}

/// Runs every verb on a damaged repository, each on its own fork.
fn run(specimen: &Specimen, damaged: &State, how: How, keys: &[Key], index: &TestIndex, cell: &str) -> Outcome {
    let open = || {
        let fork = damaged.fork();
        let repo = fork.open_on(Arc::new(fork.storage.clone()), index.copy());
        repo.map(|repo| (fork, repo))
    };
    let (_, repo) = match open() {
        Err(error) => {
            let none = "-".to_owned();
            let open = format!("{:?}", error.kind());
            return Outcome {
                open,
                listed: none.clone(),
                verify: none.clone(),
                data: none.clone(),
                affected: none.clone(),
                next: none.clone(),
                prune: none,
            };
        }
        Ok(opened) => opened,
    };
    let names = |found: &str| keys.iter().any(|key| key.as_str() == found);
    let (snapshots, problems) = repo.snapshots_checked().unwrap();
    let noted = problems.iter().any(|problem| names(&problem.key));
    let expected = &specimen.state.snapshots;
    let more = snapshots.iter().filter(|snapshot| !expected.contains_key(&snapshot.id)).count();
    let missing = expected.len() + more - snapshots.len();

    let verify = |depth| {
        let (_, repo) = open().unwrap();
        let report = verify_all(&repo, depth).unwrap_or_else(|e| panic!("{cell}: verify ends with {e}"));
        let named = report.damaged.iter().any(|damage| names(&damage.object));
        let other = report.damaged.iter().filter(|damage| !names(&damage.object)).count();
        (
            format!(
                "{}{}",
                if named {
                    "names it"
                } else if other > 0 {
                    "names another"
                } else {
                    "clean"
                },
                if report.affected_count > 0 { ", affected" } else { "" }
            ),
            report,
        )
    };
    let (verify_word, _) = verify(Depth::Structure);
    let (data_word, report) = verify(Depth::Deep);
    // A flipped byte of a pack is no less exactly found by its shard than by its blob.
    let (scrub_word, scrubbed) = verify(Depth::Scrub);
    assert_eq!((&scrub_word, &scrubbed.affected, &scrubbed.damaged), (&data_word, &report.affected, &report.damaged), "{cell}");
    // (A delta whose base is gone can't be opened, but its pack is as it was.)
    let is_proved = |report: &VerifyReport| (report.never_proved.packs > 0, report.proved.packs > 0);
    assert_eq!(is_proved(&scrubbed), (scrubbed.damaged.iter().any(is_pack), true), "{cell}");
    assert!(is_proved(&report) >= is_proved(&scrubbed), "{cell}");

    // Nothing wrong is ever given back, and the snapshot that does not depend on the object is whole.
    let mut lost_paths = 0;
    for snapshot in snapshots.iter().filter(|snapshot| expected.contains_key(&snapshot.id)) {
        let (_, repo) = open().unwrap();
        let lost = restore_checked(&repo, snapshot, &expected[&snapshot.id], cell);
        let needs = keys.iter().any(|key| specimen.needed.get(key).is_some_and(|ids| ids.contains(&snapshot.id)));
        assert!(needs || lost == 0, "{cell}: {lost} entries of a snapshot are lost that does not need the object");
        lost_paths += lost;
    }
    let affected_paths = report.affected.iter().filter(|affected| affected.source != "/forgotten" && affected.source != "/gone").count();
    // A pack that was cut off may still give some chunks back; verify promises none of a pack without a footer.
    let cut_off = how == How::Truncate && affected_paths > 0;
    assert!(
        cut_off || (affected_paths > 0) == (lost_paths > 0),
        "{cell}: verify says {:?}, a restore misses {lost_paths}",
        report.affected
    );

    let (fork, repo) = open().unwrap();
    let next = match take(&repo, "/a", &specimen.source, false) {
        Ok(report) => {
            let anew = fork.open_anew().unwrap();
            let lost = [&repo, &anew].map(|repo| restore_checked(repo, &report.snapshot, &plain_copy(&specimen.source), cell));
            if lost == [0, 0] {
                "whole"
            } else if lost[0] == 0 {
                "whole here"
            } else {
                "in part"
            }
            .to_owned()
        }
        failed => kind(&failed),
    };
    drop(repo);
    let (fork, repo) = open().unwrap();
    let prune = prune_below(&repo, 70);
    drop(repo);
    // Whatever prune did, what restored before restores afterwards.
    let repo = fork.open_on(Arc::new(fork.storage.clone()), index.copy()).unwrap();
    let mut lost_after = 0;
    for snapshot in repo.snapshots().unwrap().iter().filter(|snapshot| expected.contains_key(&snapshot.id)) {
        lost_after += restore_checked(&repo, snapshot, &expected[&snapshot.id], cell);
    }
    assert!(lost_after <= lost_paths, "{cell}: prune ({}) made it worse: {lost_paths} paths were lost, now {lost_after}", kind(&prune));

    Outcome {
        open: if noted { "noted" } else { "ok" }.to_owned(),
        listed: match (missing, more) {
            (0, 0) => "all".to_owned(),
            (missing, 0) => format!("-{missing}"),
            (0, more) => format!("+{more}"),
            (missing, more) => format!("-{missing}+{more}"),
        },
        verify: verify_word,
        data: data_word,
        affected: if lost_paths > 0 { "in part" } else { "whole" }.to_owned(),
        next,
        prune: kind(&prune),
    }
}

/// Restores a snapshot and compares each entry that came with what it must be. Returns how many did not come, which the
/// restore must have said.
fn restore_checked(repo: &Repository, snapshot: &repo::Committed, expected: &PlainTree, cell: &str) -> usize {
    let (tree, report) = match restored_with_report(repo, &snapshot.record) {
        Ok(restored) => restored,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound), "{cell}: {error}");
            return expected.len();
        }
    };
    let mut lost = 0;
    for (path, plain) in expected {
        match tree.get(path) {
            Some(found) => {
                // A group of hard links whose first name is missing has another first name.
                let same = (&found.body, found.mode, found.owner, found.mtime, &found.xattrs)
                    == (&plain.body, plain.mode, plain.owner, plain.mtime, &plain.xattrs);
                assert!(same, "{cell}: {path} came back as {found:?} and is {plain:?}");
            }
            None => lost += 1,
        }
    }
    for path in tree.keys() {
        assert!(expected.contains_key(path), "{cell}: {path} came back and never was");
    }
    assert_eq!(lost > 0, !report.warnings.is_empty(), "{cell}: {lost} entries are missing and the restore says {:?}", report.warnings);
    lost
}

use How::{Delete, Flip, Swap, Truncate};
use What::{Begin, Checkpoint, Condemned, Config, DataPack, Delta, End, Final, Forget, Slot, Snapshot, TreePack, Verified};

/// One line of the table: what, how, with which index (`any`, `empty`, `kept`), and what each verb may say, alternatives
/// separated by `/`. `-`: it did not come to that.
struct Row(&'static [What], &'static [How], &'static str, [&'static str; 7]);

const ANY_PACK: &str = "whole/in part";

/// The columns: open, snapshots listed, verify, verify --data, how listed snapshots restore, how the next snapshot does,
/// prune with the default options.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    Row(&[Config], &[Flip, Truncate], "any", ["Damaged", "-", "-", "-", "-", "-", "-"]),
    Row(&[Config], &[Delete], "any", ["NoRepository", "-", "-", "-", "-", "-", "-"]),
    Row(&[Slot], &[Flip, Truncate, Delete], "any", ["WrongKey", "-", "-", "-", "-", "-", "-"]),
    // A flipped blob shows when it is read; a pack with one that nobody rewrites does not stop a prune. The next snapshot
    // relies on the chunk, which is there by its pack's length.
    Row(&[DataPack, TreePack], &[Flip], "any", ["ok", "all", "clean/clean, affected/names it/names it, affected", "names it/names it, affected", ANY_PACK, ANY_PACK, "ok/Damaged"]),
    // The next snapshot stores again what was lost. `whole here`: only the index of this host knows that it did.
    Row(&[DataPack, TreePack], &[Truncate, Delete], "any", ["ok", "all", "names it/names it, affected", "names it/names it, affected", ANY_PACK, "whole/whole here", "Damaged"]),
    Row(&[DataPack, TreePack], &[Swap], "any", ["ok", "all", "names it/names it, affected", "names it/names it, affected", ANY_PACK, "whole/whole here/in part", "ok/Damaged"]),
    Row(&[Begin, Checkpoint, End], &[Flip, Truncate, Swap], "empty", ["noted", "all", "names it", "names it", "whole", "whole", "Damaged"]),
    Row(&[Begin, Checkpoint, End], &[Flip, Truncate, Swap], "kept", ["ok", "all", "names it", "names it", "whole", "whole", "ok"]),
    // It may have been a snapshot.
    Row(&[Begin, Checkpoint], &[Delete], "any", ["ok", "all", "names it", "names it", "whole", "whole", "Damaged"]),
    // As after a crash.
    Row(&[End], &[Delete], "any", ["ok", "all", "clean", "clean", "whole", "whole", "ok"]),
    // `all`: it was a forgotten one.
    Row(&[Snapshot], &[Flip, Truncate, Swap], "empty", ["noted", "all/-1/-2", "names it", "names it", "whole", "whole", "Damaged"]),
    Row(&[Snapshot], &[Flip, Truncate, Swap], "kept", ["ok", "all", "names it", "names it", "whole", "whole", "Damaged"]),
    Row(&[Snapshot], &[Delete], "empty", ["ok", "all/-1", "names it", "names it", "whole", "whole", "Damaged"]),
    Row(&[Snapshot], &[Delete], "kept", ["noted", "all/-1", "names it", "names it", "whole", "whole", "Damaged"]),
    // The packs tell the same.
    Row(&[Delta], &ALL, "empty", ["noted", "all", "names it", "names it", "whole", "whole", "ok"]),
    Row(&[Delta], &ALL, "kept", ["ok", "all", "names it", "names it", "whole", "whole", "ok"]),
    // A marker that does not open forgets nothing.
    Row(&[Forget], &[Flip, Truncate], "any", ["noted", "+1", "names it", "names it", "whole", "whole", "ok"]),
    Row(&[Forget], &[Swap], "any", ["noted", "+2", "names it", "names it", "whole", "whole", "ok"]),
    Row(&[Forget], &[Delete], "any", ["ok", "+1", "clean", "clean", "whole", "whole", "ok"]),
    // Nobody reads what was decided since. A decision that was carried out is missed by nobody.
    Row(&[Condemned], &ALL, "any", ["ok", "all", "clean", "clean", "whole", "whole", "ok"]),
    Row(&[Final], &[Flip, Truncate, Swap], "any", ["noted", "all", "names it", "names it", "whole", "whole", "Damaged"]),
    // It is only a note.
    Row(&[Verified], &[Flip, Truncate, Swap], "any", ["ok", "all", "names it", "names it", "whole", "whole", "ok"]),
    Row(&[Verified], &[Delete], "any", ["ok", "all", "clean", "clean", "whole", "whole", "ok"]),
    Row(&[Final], &[Delete], "any", ["ok", "all", "clean", "clean", "whole", "whole", "ok"]),
];

fn expect(what: What, how: How, index: &str, outcome: &Outcome, cell: &str) {
    let row = TABLE.iter().find(|row| row.0.contains(&what) && row.1.contains(&how) && ["any", index].contains(&row.2));
    let Row(_, _, _, expected) = row.unwrap_or_else(|| panic!("{cell}: the table says nothing, it came to {outcome:?}"));
    let Outcome { open, listed, verify, data, affected, next, prune } = outcome;
    for (said, expected) in [open, listed, verify, data, affected, next, prune].into_iter().zip(expected) {
        assert!(expected.split('/').any(|expected| expected == said), "{cell}: `{said}` is not {expected}: {outcome:?}");
    }
}

#[test]
fn every_kind_of_damage_to_every_kind_of_object() {
    let mut walked: BTreeSet<What> = BTreeSet::new();
    let mut cells = 0;
    for encrypted in [true, false] {
        let specimen = specimen(encrypted);
        for (what, keys) in &specimen.objects {
            for how in ALL {
                // A few of many of one kind are enough.
                for (number, key) in keys.iter().enumerate().step_by(keys.len().div_ceil(4)) {
                    let damaged = specimen.state.fork();
                    let broken = specimen.damage(&damaged, *what, how, key);
                    if broken.is_empty() {
                        continue;
                    }
                    for (index, which) in [(TestIndex::new(), "empty"), (specimen.state.index.copy(), "kept")] {
                        let cell = format!("{what:?} {number} {how:?}, {which} index, encrypted {encrypted}");
                        expect(*what, how, which, &run(&specimen, &damaged, how, &broken, &index, &cell), &cell);
                        walked.insert(*what);
                        cells += 1;
                    }
                }
            }
        }
    }
    eprintln!("damage: {cells} cells of {} kinds of objects x {} kinds of damage", walked.len(), ALL.len());
    assert_eq!(walked.len(), 13, "one of everything was damaged: {walked:?}");
}
