//! Several processes on one repository: exact interleavings that once went wrong, then writers, a reader and a pruner that
//! run as they come. No committed snapshot ever loses a chunk; prune succeeds or says that it is busy.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test; it prints what it ran")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use icecore::ErrorKind;
use icecore::model::SnapshotId;
use icecore::ops::verify::Depth;
use icecore::progress::Progress;
use icecore::repo::{self, ChunkWriter, Operation as Needed, Repository, WriterOptions};
use icecore::seal::keys::ChunkKind;
use icecore::source::scripted::{self, ScriptedSource};
use icecore::storage::fault::Operation;

use crate::harness::hook::{HookStorage, When};
use crate::harness::invariants::{Expected, check};
use crate::harness::state::{prune_below, take, verify_all, words};
use crate::harness::trees::{Random, change, noise, varied};
use crate::harness::{PlainTree, State, TestIndex, plain_copy, restored, restored_with_report};

fn one_file(seed: u64, len: usize) -> ScriptedSource {
    ScriptedSource::build(|tree| {
        tree.file("file", noise(seed, len));
    })
}

/// A writer of another process, of which a hook disposes. The repository it borrows lives as long as the test process.
fn writer(repo: Repository) -> ChunkWriter<'static> {
    let (repo, progress): (&'static Repository, &'static Progress) = (Box::leak(Box::new(repo)), Box::leak(Box::default()));
    let options = WriterOptions { compression: 1, dry_run: false, purpose: "snapshot", operation: Needed::Write };
    ChunkWriter::begin(repo, options, progress).unwrap()
}

/// Runs `act` once, the first time that `when` and `matches` say so.
fn once(
    when: When,
    matches: impl Fn(Operation, &str) -> bool + Send + Sync,
    act: impl FnOnce() + Send,
) -> impl Fn(When, Operation, &str) + Send + Sync {
    let act = Mutex::new(Some(act));
    move |now, operation, key| {
        if now == when
            && matches(operation, key)
            && let Some(act) = act.lock().unwrap().take()
        {
            act();
        }
    }
}

/// Prune looks again for snapshots after it has condemned. Two came up; one of them can't be read just then. That there
/// was a readable one must not make it pass over the other.
#[test]
fn a_new_snapshot_that_can_not_be_read_stops_a_prune() {
    let mut state = State::create(true);
    let content = one_file(5, 60_000);
    let id = state.snapshot("/a", &content).snapshot.id;
    state.forget(&[id]);
    let kept = Arc::new(Mutex::new(None));
    let act = {
        let (fork, kept, content) = (state.storage.clone(), kept.clone(), content.clone());
        let other =
            State { storage: fork, index: TestIndex::new(), clock: state.clock.clone(), encrypted: true, snapshots: BTreeMap::new() };
        move || {
            let repo = other.open().unwrap();
            let first = take(&repo, "/a", &content, false).unwrap().snapshot;
            take(&repo, "/b", &one_file(6, 100), false).unwrap();
            let key = repo::entry_key(&first.session, first.sequence).unwrap();
            let good = other.storage.with_objects(|objects| std::mem::replace(objects.get_mut(&key).unwrap(), vec![0; 100]));
            *kept.lock().unwrap() = Some((key, good, first.id));
        }
    };
    let hook = once(When::Before, |operation, key| operation == Operation::PutNew && key.ends_with("/condemned"), act);
    let repo = state.open_on(Arc::new(HookStorage::new(state.storage.clone(), hook)), state.index.clone()).unwrap();
    let pruned = prune_below(&repo, 70);
    drop(repo);
    let (key, good, id) = kept.lock().unwrap().take().unwrap();
    state.storage.with_objects(|objects| objects.insert(key, good));
    let repo = state.open_anew().unwrap();
    let snapshot = repo.snapshots().unwrap().into_iter().find(|snapshot| snapshot.id == id).unwrap();
    assert_eq!(plain_copy(&content), restored(&repo, &snapshot.record, &words(&pruned)));
}

/// A session ends between prune's look at the journals and its look at who lives: it is then neither alive nor resolved.
#[test]
fn a_session_that_ends_while_prune_looks_makes_it_busy_at_most() {
    let state = State::create(true);
    let alive = Mutex::new(Some(writer(state.open_anew().unwrap())));
    let act = move || {
        let writer = alive.lock().unwrap().take().unwrap();
        let repo = writer.repository();
        repo.abandon(writer.finish().unwrap()).unwrap();
    };
    let hook = once(When::Before, |operation, key| operation == Operation::List && key == "hb", act);
    let repo = state.open_on(Arc::new(HookStorage::new(state.storage.clone(), hook)), state.index.clone()).unwrap();
    match prune_below(&repo, 70) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
    }
}

/// A pack that another thread publishes while this one compares the index with the listing is not a lost pack.
#[test]
fn a_pack_that_comes_while_missing_packs_are_looked_for_stays_in_the_index() {
    let mut state = State::create(true);
    state.snapshot("/b", &one_file(1, 100));
    let other = writer(state.open().unwrap());
    let slot = Arc::new(Mutex::new(Some(other)));
    let act = {
        let slot = slot.clone();
        move || {
            slot.lock().unwrap().as_ref().unwrap().put(ChunkKind::Data, &noise(8, 100_000)).unwrap();
        }
    };
    let hook = once(When::After, |operation, key| operation == Operation::List && key == "packs", act);
    let repo = state.open_on(Arc::new(HookStorage::new(state.storage.clone(), hook)), state.index.clone()).unwrap();
    take(&repo, "/b", &one_file(2, 100), false).unwrap();
    let other = slot.lock().unwrap().take().unwrap();
    other.repository().abandon(other.finish().unwrap()).unwrap();
    let repo = state.open().unwrap();
    for listed in repo.storage().list("packs").unwrap() {
        let id = repo::parse_pack_key(&listed.key).unwrap();
        assert!(repo.index().pack_number(&id).unwrap().is_some(), "{} is in no index", listed.key);
    }
}

/// Likewise verify: a pack that came after its listing is not a missing one.
#[test]
fn a_pack_that_comes_while_verify_looks_is_not_missing() {
    let mut state = State::create(true);
    state.snapshot("/b", &one_file(1, 100));
    let other = writer(state.open().unwrap());
    let act = move || {
        other.put(ChunkKind::Data, &noise(8, 100_000)).unwrap();
        other.repository().abandon(other.finish().unwrap()).unwrap();
    };
    let hook = once(When::After, |operation, key| operation == Operation::List && key == "packs", act);
    let repo = state.open_on(Arc::new(HookStorage::new(state.storage.clone(), hook)), state.index.clone()).unwrap();
    let report = verify_all(&repo, Depth::Deep).unwrap();
    assert!(report.damaged.is_empty(), "{:?}", report.damaged);
}

/// Two writers share an index. One relies on a pack that the other has published and not named yet; then that one dies.
/// Who opens the repository with a new index must find the pack all the same.
#[test]
fn a_snapshot_relies_on_a_pack_of_a_writer_that_dies() {
    let mut state = State::create(true);
    let other = Arc::new(Mutex::new(writer(state.open().unwrap())));
    let content = one_file(8, 100_000);
    let at_rest = plain_copy(&content);
    let bytes = content.edit(|tree| tree.content("file"));
    let (mut first, second) = (true, other.clone());
    content.on_step(move |step, _| {
        // After this writer's begin, which would have named the pack, and before it asks for the chunks.
        if step.operation == scripted::Operation::OpenFile && std::mem::take(&mut first) {
            take_chunks(&second.lock().unwrap(), &bytes);
        }
    });
    let report = take(&state.open().unwrap(), "/a", &content, false).unwrap().snapshot;
    content.clear_hook();
    assert!(report.record.stats.new_bytes < 50_000, "it relied on the other's pack");
    state.snapshots.insert(report.id, Arc::new(at_rest));
    let what = "a pack that no journal names";
    for repo in [state.open().unwrap(), state.open_anew().unwrap()] {
        let snapshot = &repo.snapshots().unwrap()[0];
        assert_eq!(*state.snapshots[&snapshot.id], restored(&repo, &snapshot.record, what), "while the other one lives");
    }
    drop(Arc::into_inner(other));
    check(&state, &Expected::default(), &content, what);
}

/// Stores the content of a source as another writer in the midst of its snapshot would.
fn take_chunks(writer: &ChunkWriter<'_>, mut rest: &[u8]) {
    while !rest.is_empty() {
        let len = writer.repository().chunker().cut(&icecore::chunk::GENERIC, rest);
        assert!(writer.put(ChunkKind::Data, &rest[..len]).unwrap().new);
        rest = &rest[len..];
    }
}

/// What the processes know of each other's snapshots: what is committed and not forgotten.
type Committed = Mutex<BTreeMap<SnapshotId, Arc<PlainTree>>>;

/// Writers, a forgetter, a pruner and a reader on one storage, whose operations yield at random. Half of the writers share
/// the index of one host, the others have their own.
#[test]
fn writers_a_reader_and_a_pruner_as_they_come() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let (mut snapshots, mut pruned, mut busy) = (0, 0, 0);
    for round in 0..6 {
        let counts = interleave(seed + round);
        (snapshots, pruned, busy) = (snapshots + counts.0, pruned + counts.1, busy + counts.2);
    }
    eprintln!("interleaved from seed {seed}: {snapshots} snapshots, {pruned} prunes, {busy} times busy");
    assert!(snapshots >= 60 && pruned > 0, "{snapshots} {pruned}");
}

fn interleave(seed: u64) -> (u64, u64, u64) {
    const SNAPSHOTS: u64 = 6;
    let state = State::create(seed.is_multiple_of(2));
    let random = Mutex::new(Random(seed));
    let storage = HookStorage::new(state.storage.clone(), move |_, _, _| {
        let pause = random.lock().unwrap().below(12);
        if pause == 0 {
            std::thread::sleep(std::time::Duration::from_micros(100));
        } else if pause < 4 {
            std::thread::yield_now();
        }
    });
    let open = |index: &TestIndex| state.open_on(Arc::new(storage.clone()), index.clone()).unwrap();
    let committed = Committed::default();
    let (pruned, busy, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let lost_race = |error: &icecore::Error| error.kind() == ErrorKind::Busy;
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2)
            .map(|number| {
                let (committed, open, state) = (&committed, &open, &state);
                scope.spawn(move || {
                    let index = if number == 0 { state.index.clone() } else { TestIndex::new() };
                    let name = format!("/{number}");
                    // The same content for both: each relies on what the other has stored.
                    let source = varied(seed);
                    for step in 0..SNAPSHOTS {
                        source.edit(|tree| change(tree, seed + step));
                        let repo = open(if step % 2 == 0 { &state.index } else { &index });
                        let id = take(&repo, &name, &source, false).unwrap().snapshot.id;
                        committed.lock().unwrap().insert(id, Arc::new(plain_copy(&source)));
                        // Forgets its oldest.
                        let own: Vec<_> = repo.snapshots().unwrap().into_iter().filter(|s| s.record.source.name == name).collect();
                        if own.len() > 2 {
                            committed.lock().unwrap().remove(&own[0].id);
                            icecore::ops::forget::forget(&repo, &[own[0].id]).unwrap();
                        }
                    }
                })
            })
            .collect();
        let pruner = || {
            let index = TestIndex::new();
            while !stop.load(Ordering::SeqCst) {
                match prune_below(&open(&index), 90) {
                    Ok(_) => pruned.fetch_add(1, Ordering::SeqCst),
                    Err(error) if lost_race(&error) => busy.fetch_add(1, Ordering::SeqCst),
                    Err(error) => panic!("seed {seed}: prune: {:?} {error}", error.kind()),
                };
                std::thread::sleep(std::time::Duration::from_micros(500));
            }
        };
        let reader = || {
            let mut random = Random(seed);
            while !stop.load(Ordering::SeqCst) {
                let known = committed.lock().unwrap().clone();
                let Some((id, tree)) = known.iter().nth(random.below(known.len().max(1) as u64) as usize) else { continue };
                let repo = open(&TestIndex::new());
                let Some(snapshot) = repo.snapshots().unwrap().into_iter().find(|snapshot| snapshot.id == *id) else { continue };
                let restored = restored_with_report(&repo, &snapshot.record);
                // It may have been forgotten and pruned while it was read; then, and only then, it need not be whole.
                if committed.lock().unwrap().contains_key(id) {
                    let (found, report) = restored.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                    assert!(report.warnings.is_empty(), "seed {seed}: {:?}", report.warnings);
                    assert_eq!(found, **tree, "seed {seed}");
                }
            }
        };
        let others = [scope.spawn(pruner), scope.spawn(reader)];
        let ended: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        // Alone, it gets through.
        let before = pruned.load(Ordering::SeqCst);
        for _ in 0..2000 {
            if pruned.load(Ordering::SeqCst) > before || others[0].is_finished() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        stop.store(true, Ordering::SeqCst);
        for ended in ended {
            ended.unwrap();
        }
    });
    let state = State { snapshots: committed.into_inner().unwrap(), ..state };
    check(&state, &Expected::default(), &varied(seed), &format!("seed {seed}"));
    (2 * SNAPSHOTS, pruned.into_inner(), busy.into_inner())
}
