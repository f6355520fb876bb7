//! Crash walks: for each verb, for every storage operation n that it does: operation n fails, n and all after it fail, n
//! takes effect and fails all the same, the process dies at n, the process dies between the effect of n and its answer.
//! Then the invariants must hold. The walk ends by itself when n is beyond the last operation, so a new operation in a
//! verb is walked without anybody adding it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test; it prints what it walked")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use icecore::model::SnapshotId;
use icecore::ops::verify::Depth;
use icecore::repo::Repository;
use icecore::source::scripted::{self, ScriptedSource};
use icecore::storage::Storage;
use icecore::storage::fault::{FaultStorage, Operation, Plan};
use icecore::{ErrorKind, Result};

use crate::harness::invariants::{Expected, check};
use crate::harness::state::{prune_below, take, verify_all, words};
use crate::harness::trees::{change, noise, varied};
use crate::harness::{Frozen, State, plain_copy};

/// How operation n goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Fails,
    FailsFromThenOn,
    FailsAfterEffect,
    Dies,
    DiesAfterEffect,
}

const MODES: [Mode; 5] = [Mode::Fails, Mode::FailsFromThenOn, Mode::FailsAfterEffect, Mode::Dies, Mode::DiesAfterEffect];

impl Mode {
    fn plan(self, n: u64) -> Plan {
        match self {
            Self::Fails => Plan::once(n),
            Self::FailsFromThenOn => Plan::from(n),
            Self::FailsAfterEffect => Plan::once(n).after_effect(),
            Self::Dies => Plan::stop(n),
            Self::DiesAfterEffect => Plan::stop(n).after_effect(),
        }
    }

    fn is_death(self) -> bool {
        matches!(self, Self::Dies | Self::DiesAfterEffect)
    }
}

/// One verb on one repository.
struct Walk<'a> {
    name: &'static str,
    base: &'a Frozen,
    source: &'a ScriptedSource,
    verb: &'a (dyn Fn(&Repository) -> Result<Option<SnapshotId>> + Sync),
    /// The verb takes a snapshot of `source`.
    takes: bool,
    /// Reading takes so long that the writer names what it has packed in checkpoints.
    slow: bool,
    /// Operations that the verb must come by, or the walk proves less than it says.
    census: &'a [Operation],
    /// The verb forgets these.
    forgets: Vec<SnapshotId>,
}

impl Walk<'_> {
    /// One process runs the verb with operation n going wrong. Returns what it left behind, what must hold of it, and
    /// whether the verb got to operation n at all.
    fn run(&self, base: &State, mode: Mode, n: u64, seen: &mut BTreeSet<Operation>) -> (State, Expected, bool, String) {
        let mut state = base.fork();
        let storage = FaultStorage::with_plan(state.storage.clone(), mode.plan(n));
        if mode.is_death() {
            let watched = storage.clone();
            state.index.die_when(move || watched.count() > n);
        }
        if self.slow {
            take_slowly(&state, self.source);
        }
        let result = state.open_on(Arc::new(storage.clone()), state.index.clone()).and_then(|repo| (self.verb)(&repo));
        self.source.clear_hook();
        let record = storage.record();
        let reached = record.len() as u64 > n;
        seen.extend(record.iter().map(|asked| asked.operation));
        let what = match record.get(usize::try_from(n).unwrap()) {
            Some(asked) => format!("{}: operation {n} ({:?} {}) {mode:?}: {}", self.name, asked.operation, asked.key, words(&result)),
            None => format!("{}: operation {n} was not reached: {}", self.name, words(&result)),
        };
        if mode.is_death() && reached {
            // A killed process leaves the files of its holds.
            let holds = record.iter().take(usize::try_from(n).unwrap()).filter(|asked| asked.operation == Operation::Hold);
            state.storage.with_objects(|objects| {
                for hold in holds {
                    objects.entry(hold.key.parse().unwrap()).or_default();
                }
            });
        }
        state.index = state.index.copy();
        let mut expected = Expected::default();
        if self.takes {
            expected.in_flight.push(Arc::new(plain_copy(self.source)));
        }
        match result {
            // A dead process reports nothing.
            Ok(id) if !(mode.is_death() && reached) => {
                expected.reported = id;
                state.snapshots.retain(|id, _| !self.forgets.contains(id));
            }
            _ => expected.may_be_gone.extend(&self.forgets),
        }
        (state, expected, reached, what)
    }

    /// Every n, every mode. Returns how many operations the verb does.
    fn walk(&self) -> u64 {
        let mut seen = BTreeSet::new();
        let mut longest = 0;
        let mut points = 0;
        for mode in MODES {
            for n in 0.. {
                let (state, expected, reached, what) = self.run(self.base, mode, n, &mut seen);
                if !reached {
                    assert!(what.ends_with(": ok"), "{what}");
                    longest = longest.max(n);
                    break;
                }
                points += 1;
                check(&state, &expected, self.source, &what);
            }
        }
        let missing: Vec<_> = self.census.iter().filter(|operation| !seen.contains(operation)).collect();
        assert!(missing.is_empty(), "{}: the walk never came by {missing:?}", self.name);
        eprintln!("crash points: {} {longest} operations x {} modes = {points}", self.name, MODES.len());
        longest
    }

    /// The process dies at some points; the next one, which recovers, meets a fault of its own at some points.
    fn walk_recovery(&self, recovery: &Walk<'_>, stride: (usize, usize)) -> u64 {
        let mut points = 0;
        for n in (0..).step_by(stride.0) {
            let (crashed, expected, reached, what) =
                self.run(self.base, if n % 2 == 0 { Mode::Dies } else { Mode::DiesAfterEffect }, n, &mut BTreeSet::new());
            if !reached {
                break;
            }
            for m in ((n % stride.1 as u64)..).step_by(stride.1) {
                let mode = MODES[usize::try_from(n + m).unwrap() % MODES.len()];
                let (state, second, reached, then) = recovery.run(&crashed, mode, m, &mut BTreeSet::new());
                if !reached {
                    break;
                }
                points += 1;
                let mut both = expected.clone();
                both.may_be_gone.extend(&second.may_be_gone);
                both.reported = second.reported;
                both.in_flight.extend(second.in_flight);
                check(&state, &both, self.source, &format!("{what}; then {then}"));
            }
        }
        eprintln!("crash points: {} then {} {points}", self.name, recovery.name);
        points
    }
}

/// Makes reading take so long that a writer names what it has packed in checkpoints.
fn take_slowly(state: &State, source: &ScriptedSource) {
    let clock = state.clock.clone();
    source.on_step(move |step, _| {
        if step.operation == scripted::Operation::Read {
            clock.advance(Duration::from_secs(301));
        }
    });
}

/// A repository with a history: two snapshots of `/a`, the source changed between them.
fn history(encrypted: bool) -> (State, ScriptedSource) {
    let source = varied(1);
    let mut state = State::create(encrypted);
    state.snapshot("/a", &source);
    source.edit(|tree| change(tree, 100));
    state.snapshot("/a", &source);
    (state, source)
}

/// Likewise, with most of it forgotten: packs to drop and packs to rewrite. What stands in which pack depends on how the
/// threads met, so that it may take some tries to get both.
fn forgotten() -> (State, ScriptedSource) {
    let useful = |(state, _): &(State, ScriptedSource)| {
        let report = prune_below(&state.fork().open().unwrap(), PERCENT).unwrap();
        let deltas = state.storage.list("idx").unwrap().len();
        deltas > 0 && report.packs_rewritten > 0 && report.packs_removed > report.packs_rewritten && report.snapshots_dropped == 3
    };
    (0..50).map(|_| forget_most()).find(useful).unwrap()
}

fn forget_most() -> (State, ScriptedSource) {
    let (mut state, source) = history(true);
    source.edit(|tree| change(tree, 200));
    let third = state.snapshot("/a", &source).snapshot.id;
    // One with checkpoints and deltas, all of which go.
    let slow = varied(50);
    let copy = Arc::new(plain_copy(&slow));
    take_slowly(&state, &slow);
    let report = take(&state.open().unwrap(), "/b", &slow, false).unwrap();
    slow.clear_hook();
    state.snapshots.insert(report.snapshot.id, copy);
    let other: Vec<SnapshotId> = state.ids().into_iter().filter(|id| *id != third).collect();
    state.forget(&other);
    (state, source)
}

fn snapshot_a(source: &ScriptedSource) -> impl Fn(&Repository) -> Result<Option<SnapshotId>> + Sync {
    move |repo| take(repo, "/a", source, false).map(|report| Some(report.snapshot.id))
}

fn prune_some(repo: &Repository) -> Result<Option<SnapshotId>> {
    prune_below(repo, PERCENT).map(|_| None)
}

#[test]
fn init() {
    let (base, source) = (State::none(true), varied(1));
    let mut seen = BTreeSet::new();
    let mut points = 0;
    for mode in MODES {
        for n in 0.. {
            let state = base.fork();
            let storage = FaultStorage::with_plan(state.storage.clone(), mode.plan(n));
            let result = state.init(&storage);
            seen.extend(storage.record().iter().map(|asked| asked.operation));
            if storage.count() <= n {
                assert!(result.is_ok());
                break;
            }
            points += 1;
            let what = format!("init: operation {n} {mode:?}: {}", words(&result));
            // Whoever was told that it failed tries again; that works, or says that it had worked.
            match state.init(&state.storage) {
                Ok(()) => {}
                Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{what}; again: {error}"),
            }
            check(&state, &Expected::default(), &source, &what);
        }
    }
    eprintln!("crash points: init {points}");
    assert!(points > 30);
}

/// Packs with less in use are rewritten.
const PERCENT: u8 = 80;

const READS: [Operation; 2] = [Operation::Get, Operation::List];
const WRITES: [Operation; 4] = [Operation::PutNew, Operation::Hold, Operation::List, Operation::SweepLeftovers];
const DELETES: [Operation; 6] =
    [Operation::PutNew, Operation::Get, Operation::GetRange, Operation::List, Operation::Delete, Operation::Hold];

fn plain_walk<'a>(
    name: &'static str,
    base: &'a Frozen,
    source: &'a ScriptedSource,
    verb: &'a (dyn Fn(&Repository) -> Result<Option<SnapshotId>> + Sync),
) -> Walk<'a> {
    Walk { name, base, source, verb, takes: false, slow: false, census: &READS, forgets: Vec::new() }
}

#[test]
fn first_snapshot() {
    let (base, source) = (State::create(true), varied(1));
    let verb = snapshot_a(&source);
    let walk = Walk { takes: true, census: &WRITES, ..plain_walk("first snapshot", &base, &source, &verb) };
    assert!(walk.walk() > 15);
}

#[test]
fn second_snapshot_with_checkpoints() {
    let (base, source) = history(false);
    source.edit(|tree| {
        change(tree, 300);
        tree.file("more", noise(301, 120_000));
    });
    let verb = snapshot_a(&source);
    let census = [WRITES.as_slice(), &[Operation::Size, Operation::Get]].concat();
    let walk = Walk { takes: true, slow: true, census: &census, ..plain_walk("second snapshot", &base, &source, &verb) };
    assert!(walk.walk() > 20);
}

#[test]
fn forget() {
    let (base, source) = history(true);
    let forgets: Vec<SnapshotId> = base.ids().into_iter().take(1).collect();
    let ids = forgets.clone();
    let verb = move |repo: &Repository| icecore::ops::forget::forget(repo, &ids).map(|()| None);
    let walk = Walk { forgets, ..plain_walk("forget", &base, &source, &verb) };
    assert!(walk.walk() > 5);
}

#[test]
fn prune() {
    let (base, source) = forgotten();
    let walk = Walk { census: &DELETES, ..plain_walk("prune", &base, &source, &prune_some) };
    assert!(walk.walk() > 40);
}

#[test]
fn reindex() {
    let (base, source) = forgotten();
    let verb = |repo: &Repository| repo.reindex().map(|_| None);
    let census = [Operation::Get, Operation::GetRange, Operation::List];
    let walk = Walk { census: &census, ..plain_walk("reindex", &base, &source, &verb) };
    assert!(walk.walk() > 20);
}

#[test]
fn verify_and_its_record() {
    let (base, source) = history(true);
    verify_all(&base.open().unwrap(), Depth::Scrub).unwrap();
    base.clock.advance(Duration::from_secs(60));
    let verb = |repo: &Repository| verify_all(repo, Depth::Deep).map(|_| None);
    let census = [Operation::Get, Operation::GetRange, Operation::ReadOnce, Operation::List, Operation::PutNew, Operation::Delete];
    let walk = Walk { census: &census, ..plain_walk("verify", &base, &source, &verb) };
    assert!(walk.walk() > 30);
}

#[test]
fn crash_in_prune_then_fault_in_snapshot() {
    let (base, source) = forgotten();
    let crashed = plain_walk("prune", &base, &source, &prune_some);
    // What comes back is what was forgotten: its chunks are in packs that the prune was about to delete.
    let back = varied(1);
    let verb = snapshot_a(&back);
    let recovery = Walk { takes: true, ..plain_walk("snapshot", &base, &back, &verb) };
    assert!(crashed.walk_recovery(&recovery, (3, 4)) > 50);
}

/// A prune died after its decision and before it deleted. The next writer must not rely on the packs that go, also when
/// the decision can't be read just then: the prune after it will read it, and delete.
#[test]
fn the_decision_of_a_dead_prune_can_not_be_read() {
    let (base, source) = forgotten();
    let prune = plain_walk("prune", &base, &source, &prune_some);
    let mut crashed = (0..).map(|n| prune.run(&base, Mode::Dies, n, &mut BTreeSet::new()));
    let (crashed, _, _, died) = crashed.find(|(_, _, _, what)| what.contains("(Delete packs/")).unwrap();
    let back = varied(1);
    let verb = snapshot_a(&back);
    let snapshot = Walk { takes: true, ..plain_walk("snapshot", &base, &back, &verb) };
    let mut failed = BTreeSet::new();
    for n in 0.. {
        let (state, expected, reached, what) = snapshot.run(&crashed, Mode::Fails, n, &mut BTreeSet::new());
        if !reached {
            break;
        }
        if what.contains("gc/") {
            failed.insert(what.clone());
            check(&state, &expected, &back, &format!("{died}; then {what}"));
        }
    }
    assert!(failed.len() >= 2, "when it opens and when it begins: {failed:?}");
}

#[test]
fn crash_in_prune_then_fault_in_prune() {
    let (base, source) = forgotten();
    let crashed = plain_walk("prune", &base, &source, &prune_some);
    let recovery = plain_walk("prune", &base, &source, &prune_some);
    assert!(crashed.walk_recovery(&recovery, (3, 7)) > 50);
}

#[test]
fn crash_in_snapshot_then_fault_in_prune_or_snapshot() {
    let (base, source) = forgotten();
    source.edit(|tree| change(tree, 400));
    let verb = snapshot_a(&source);
    let crashed = Walk { takes: true, slow: true, ..plain_walk("third snapshot", &base, &source, &verb) };
    assert!(crashed.walk_recovery(&plain_walk("prune", &base, &source, &prune_some), (3, 7)) > 50);
    assert!(crashed.walk_recovery(&crashed, (3, 5)) > 20);
}
