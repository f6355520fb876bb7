//! Faults of the source and of the local index, at every step. An entry that can't be read costs that entry and is reported;
//! a source that changes while it is read never yields what never was, unless flagged, and never deceives the next snapshot.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test; it prints what it walked")]

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use icecore::clock::Timestamp;
use icecore::index::Table;
use icecore::model::TreePath;
use icecore::model::manifest::Fault;
use icecore::source::scripted::{Operation, ScriptedSource, Step, Tree};
use icecore::{ErrorKind, Result};

use crate::harness::invariants::{Expected, check};
use crate::harness::state::{take, words};
use crate::harness::trees::{change, noise, varied};
use crate::harness::{PlainTree, State, plain_copy, restored};

/// A hook that does something at step `n` and says which step that was.
fn at_step(
    source: &ScriptedSource,
    n: u64,
    mut act: impl FnMut(&Step, &mut Tree) + Send + 'static,
) -> std::sync::Arc<std::sync::Mutex<Option<Step>>> {
    let hit = std::sync::Arc::new(std::sync::Mutex::new(None));
    let note = hit.clone();
    source.take_steps();
    source.on_step(move |step, tree| {
        if step.number == n {
            act(&step, tree);
            *note.lock().unwrap() = Some(step);
        }
    });
    hit
}

fn paths(faults: &[Fault]) -> Vec<TreePath> {
    faults.iter().map(|fault| TreePath::parse(fault.path.trim_start_matches('/').as_bytes()).unwrap()).collect()
}

#[test]
fn a_step_that_fails_costs_its_entry() {
    let mut points = 0;
    let mut operations = BTreeSet::new();
    for cause in [io::ErrorKind::PermissionDenied, io::ErrorKind::Other, io::ErrorKind::NotFound] {
        for n in 0.. {
            let source = varied(1);
            let expected = plain_copy(&source);
            let state = State::create(false);
            let hit = at_step(&source, n, move |_, tree| tree.fail_step(cause.into()));
            let taken = take(&state.open().unwrap(), "/a", &source, false);
            source.clear_hook();
            let Some(step) = hit.lock().unwrap().clone() else { break };
            points += 1;
            operations.insert(format!("{:?}", step.operation));
            let what = format!("step {n}, {:?} of {} fails with {cause}: {}", step.operation, step.path, words(&taken));
            if matches!(step.operation, Operation::OpenRoot | Operation::StatDir) && step.path.is_root() {
                assert!(taken.is_err(), "{what}");
                continue;
            }
            let record = taken.unwrap_or_else(|_| panic!("{what}")).snapshot.record;
            if step.operation == Operation::Settle {
                assert!(!record.is_partial(), "{what}");
                continue;
            }
            let repo = state.open().unwrap();
            let found = restored(&repo, &record, &what);
            let faulty: Vec<_> = paths(&record.unreadable).into_iter().chain(paths(&record.changed)).collect();
            let named = faulty.iter().any(|path| step.path.starts_with(path));
            // A file whose name was taken away is looked for again, and was there.
            let read_again = step.operation == Operation::OpenFile && faulty.is_empty();
            assert!(named || read_again, "{what}: the record names {faulty:?}");
            for (path, plain) in &expected {
                let concerned = path.starts_with(&step.path);
                match found.get(path) {
                    Some(entry) if concerned => assert!(entry.body == plain.body, "{what}: {path} is {entry:?}"),
                    Some(entry) => {
                        assert!(
                            (&entry.body, entry.mode, entry.mtime, &entry.xattrs) == (&plain.body, plain.mode, plain.mtime, &plain.xattrs),
                            "{what}: {path} is {entry:?}"
                        );
                    }
                    None => assert!(concerned, "{what}: {path} is missing too"),
                }
            }
            // The next one, with what the cache now believes, is whole.
            let next = take(&repo, "/a", &source, false).unwrap().snapshot;
            assert_eq!(expected, restored(&repo, &next.record, &what), "{what}: the next snapshot");
        }
    }
    eprintln!("source faults: {points} steps failed, of {operations:?}");
    assert!(points > 200 && operations.len() >= 12, "{points} {operations:?}");
}

/// What happens to a file, a directory or everything in the middle of a snapshot.
#[derive(Debug, Clone, Copy)]
enum Mutation {
    Append,
    Overwrite,
    OverwriteKeepingMtime,
    TruncateToNothing,
    Shrink,
    Delete,
    BecomesSymlink,
    BecomesDirectory,
    BecomesFifo,
    RenamedOver,
    DirectoryRenamed,
    DirectoryDeleted,
    DirectoryBecomesSymlink,
}

const MUTATIONS: [Mutation; 13] = [
    Mutation::Append,
    Mutation::Overwrite,
    Mutation::OverwriteKeepingMtime,
    Mutation::TruncateToNothing,
    Mutation::Shrink,
    Mutation::Delete,
    Mutation::BecomesSymlink,
    Mutation::BecomesDirectory,
    Mutation::BecomesFifo,
    Mutation::RenamedOver,
    Mutation::DirectoryRenamed,
    Mutation::DirectoryDeleted,
    Mutation::DirectoryBecomesSymlink,
];

fn apply(tree: &mut Tree, mutation: Mutation) {
    let file = "d/file";
    let size = tree.stat(file).size;
    match mutation {
        Mutation::Append => tree.append(file, noise(90, 40_000)),
        Mutation::Overwrite => tree.write(file, 10, noise(91, usize::try_from(size).unwrap() - 20)),
        Mutation::OverwriteKeepingMtime => tree.keeping_mtime(file, |tree| {
            tree.write(file, 10, noise(91, usize::try_from(size).unwrap() - 20));
        }),
        Mutation::TruncateToNothing => tree.truncate(file, 0),
        Mutation::Shrink => tree.truncate(file, size / 3),
        Mutation::Delete => tree.remove(file),
        Mutation::BecomesSymlink => tree.symlink(file, "other"),
        Mutation::BecomesDirectory => tree.remove(file).file("d/file/below", "x"),
        Mutation::BecomesFifo => tree.fifo(file),
        Mutation::RenamedOver => tree.file("d/.new", noise(92, 30_000)).rename("d/.new", file),
        Mutation::DirectoryRenamed => tree.rename("d", "moved"),
        Mutation::DirectoryDeleted => tree.remove("d"),
        Mutation::DirectoryBecomesSymlink => tree.remove("d").symlink("d", "/"),
    };
}

fn subject(len: usize) -> ScriptedSource {
    ScriptedSource::build(|tree| {
        tree.file("a", "before").file("d/file", noise(80, len)).file("d/other", noise(81, 900)).file("e/after", noise(82, 2_000));
    })
}

/// Every mutation at every step, in a first snapshot and in a second one that has the cache of the first.
#[test]
fn a_source_that_changes_at_any_step_yields_what_was_or_says_so() {
    let mut points = 0;
    for mutation in MUTATIONS {
        for (len, second) in [(400, false), (120_000, false), (120_000, true)] {
            for n in 0.. {
                let source = subject(len);
                let state = State::create(false);
                if second {
                    take(&state.open().unwrap(), "/a", &source, false).unwrap();
                    source.edit(|tree| {
                        tree.append("d/file", "more").append("e/after", "more");
                    });
                }
                let before = plain_copy(&source);
                let hit = at_step(&source, n, move |_, tree| apply(tree, mutation));
                let taken = take(&state.open().unwrap(), "/a", &source, false);
                source.clear_hook();
                let Some(step) = hit.lock().unwrap().clone() else { break };
                points += 1;
                let after = plain_copy(&source);
                let what = format!("{mutation:?} of {len} bytes at step {n}, {:?} of {}: {}", step.operation, step.path, words(&taken));
                let record = taken.unwrap_or_else(|_| panic!("{what}")).snapshot.record;
                let repo = state.open().unwrap();
                let found = restored(&repo, &record, &what);
                let flagged: Vec<_> = paths(&record.changed).into_iter().chain(paths(&record.unreadable)).collect();
                was_or_is_flagged(&found, &before, &after, &flagged, &what);
                // The source is at rest again. Nothing that was remembered of the turmoil may stand for what is there now.
                let next = take(&repo, "/a", &source, false).unwrap().snapshot;
                assert_eq!(after, restored(&repo, &next.record, &what), "{what}: the next snapshot");
            }
        }
    }
    eprintln!("source mutations: {points} points, {} kinds", MUTATIONS.len());
    assert!(points > 500);
}

fn was_or_is_flagged(found: &PlainTree, before: &PlainTree, after: &PlainTree, flagged: &[TreePath], what: &str) {
    let is_flagged = |path: &TreePath| flagged.iter().any(|flagged| path.starts_with(flagged));
    let all: BTreeSet<&TreePath> = found.keys().chain(before.keys()).chain(after.keys()).collect();
    for path in all {
        let versions = [before.get(path), after.get(path)];
        match found.get(path) {
            None => assert!(versions.contains(&None) || is_flagged(path), "{what}: {path} is missing and not reported"),
            Some(entry) => {
                let was = versions.iter().flatten().any(|version| version.body == entry.body);
                assert!(was || is_flagged(path), "{what}: {path} came back as {entry:?}, and was {versions:?}");
            }
        }
    }
}

/// As on a file system whose clock stands still between the reading and the writing: no time tells of the change, and the
/// next snapshot must read again what was young when it was read.
#[test]
fn a_change_within_one_tick_of_the_clock_is_seen_by_the_next_snapshot() {
    let mut points = 0;
    for nanos in [0, 500_000_000] {
        for n in 0.. {
            let source = subject(20_000);
            let state = State::create(false);
            state.clock.set(1_700_000_100);
            source.edit(|tree| {
                let now = Timestamp::new(1_700_000_099 + i64::from(nanos == 0), nanos + if nanos == 0 { 0 } else { 450_000_000 });
                tree.set_time(now).set_tick(Duration::ZERO).write("d/file", 0, "young");
            });
            let hit = at_step(&source, n, |_, tree| {
                tree.write("d/file", 100, noise(7, 10_000));
            });
            let taken = take(&state.open().unwrap(), "/a", &source, false);
            source.clear_hook();
            if hit.lock().unwrap().is_none() {
                break;
            }
            points += 1;
            taken.unwrap();
            for _ in 0..3 {
                state.clock.advance(Duration::from_secs(5));
                let repo = state.open().unwrap();
                let next = take(&repo, "/a", &source, false).unwrap().snapshot;
                assert_eq!(plain_copy(&source), restored(&repo, &next.record, "racy"), "step {n}: the next snapshot missed the change");
            }
        }
    }
    eprintln!("changes within a tick: {points} points");
    assert!(points > 40);
}

/// What is remembered of it has several parts then, each a note of its own.
#[test]
fn a_directory_of_very_many_files_is_remembered_and_forgotten_whole() {
    let source = ScriptedSource::build(|tree| {
        (0..25_000).for_each(|n| {
            tree.file(format!("many/a file with quite a long name {n:05}"), format!("{n}"));
        });
        tree.file("beside", "x");
    });
    let mut state = State::create(true);
    let first = state.snapshot("/a", &source).snapshot;
    assert_eq!(first.record.stats.read_files, 25_001);
    let notes = |state: &State| {
        let (mut count, mut longest) = (0, 0);
        let repo = state.open().unwrap();
        let visit = &mut |_: &[u8], note: &[u8]| {
            (count, longest) = (count + 1, longest.max(note.len()));
            Ok(())
        };
        repo.index().for_each_note(Table::Stat, &[], visit).unwrap();
        (count, longest)
    };
    let (count, longest) = notes(&state);
    assert!(count == 4 && longest < 1_100_000, "{count} notes, the longest of {longest} bytes");
    for n in 1..=3 {
        source.edit(|tree| {
            tree.write("many/a file with quite a long name 17777", 0, format!("{n}"));
        });
        state.clock.advance(Duration::from_secs(60));
        let next = state.snapshot("/a", &source).snapshot;
        assert_eq!(next.record.stats.read_files, 1, "nothing else of it is read again");
        assert_eq!(notes(&state).0, count, "what was remembered of the directory as it was is gone");
    }
}

/// The index fails at call n, once or from then on: the snapshot fails or succeeds, and nothing is lost either way.
#[test]
fn a_local_index_that_fails_at_any_call_loses_nothing() {
    let source = varied(1);
    let mut base = State::create(true);
    base.snapshot("/a", &source);
    source.edit(|tree| change(tree, 100));
    let (mut points, mut failed) = (0, 0);
    for lasting in [false, true] {
        for n in 0.. {
            let mut state = base.fork();
            state.index.fail(n, if lasting { u64::MAX } else { n + 1 });
            let taken: Result<_> = state.open().and_then(|repo| take(&repo, "/a", &source, false));
            let reached = state.index.calls() > n;
            state.index = state.index.copy();
            if !reached {
                break;
            }
            points += 1;
            let what = format!("index call {n} fails, lasting {lasting}: {}", words(&taken));
            let mut expected = Expected { in_flight: vec![plain_copy(&source).into()], ..Expected::default() };
            match taken {
                Ok(report) => expected.reported = Some(report.snapshot.id),
                Err(error) => {
                    failed += 1;
                    assert!(matches!(error.kind(), ErrorKind::Cache | ErrorKind::Storage), "{what}");
                }
            }
            // Some points of many: the check is long.
            if n % 3 == u64::from(lasting) {
                check(&state, &expected, &source, &what);
            }
        }
    }
    eprintln!("index faults: {points} points, {failed} failed runs");
    assert!(points > 100);
}
