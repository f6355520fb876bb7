//! What `verify` reads and what of it is remembered: each pack once, in order of what was proved longest ago, and nothing
//! that was not proved.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on must say where")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use icecore::ErrorKind;
use icecore::clock::ManualClock;
use icecore::index::memory::MemoryIndex;
use icecore::ops::verify::{Depth, VerifyOptions, VerifyReport, verify};
use icecore::pack::SHARD_BYTES;
use icecore::progress::Progress;
use icecore::repo::{self, ChunkWriter, CreateOptions, Locked, Repository, WriterOptions};
use icecore::seal::keys::ChunkKind;
use icecore::source::scripted::ScriptedSource;
use icecore::storage::fault::{FaultStorage, Operation, Plan, Recorded};
use icecore::storage::memory::MemoryStorage;
use icecore::storage::{Key, Storage};

use crate::harness::hook::{HookStorage, When};
use crate::harness::state::{take, verify_all};
use crate::harness::trees::{Random, noise, varied};
use crate::harness::{State, TestIndex};

const DAY: u64 = 86_400;

fn options(depth: Depth) -> VerifyOptions {
    VerifyOptions { depth, ..VerifyOptions::default() }
}

fn run(state: &State, options: &VerifyOptions) -> VerifyReport {
    let report = verify(&state.open().unwrap(), options, &Progress::new()).unwrap();
    assert!(report.damaged.is_empty() && report.affected.is_empty(), "{report:?}");
    report
}

fn records(storage: &MemoryStorage) -> Vec<Key> {
    storage.list("verified").unwrap().into_iter().map(|listed| listed.key).collect()
}

/// A repository with a dozen packs or more.
fn several_packs() -> State {
    let mut state = State::create(true);
    for seed in 1..=8 {
        // Of sources that know nothing of each other.
        state.snapshot(&format!("/{seed}"), &varied(seed * 20));
    }
    assert!(state.storage.list("packs").unwrap().len() >= 12);
    state
}

#[test]
fn what_was_proved_is_not_read_again_until_it_is_old() {
    let state = several_packs();
    let all = state.storage.list("packs").unwrap().len() as u64;
    let structure = run(&state, &options(Depth::Structure));
    assert_eq!((structure.never_proved.packs, structure.oldest_proof), (all, None));
    assert!(records(&state.storage).is_empty(), "what only looked at structure proved nothing");

    let first = run(&state, &options(Depth::Scrub));
    assert_eq!((first.proved.packs, first.proved_before.packs, first.never_proved.packs), (all, 0, 0));
    let stale = |depth, age| VerifyOptions { older_than_seconds: Some(age), ..options(depth) };
    state.clock.advance(Duration::from_secs(10));
    let second = run(&state, &stale(Depth::Scrub, DAY));
    assert_eq!((second.proved.packs, second.proved_before, second.packs), (0, first.proved, all));
    assert!(second.bytes < first.bytes / 4, "{} and {}", second.bytes, first.bytes);
    assert_eq!(second.oldest_proof, first.oldest_proof);
    assert_eq!(run(&state, &options(Depth::Structure)).proved_before, first.proved, "it is told all the same");

    // Not so deep.
    assert_eq!(run(&state, &stale(Depth::Deep, DAY)).proved.packs, all);
    assert_eq!(run(&state, &stale(Depth::Scrub, DAY)).proved.packs, 0, "what was opened was scrubbed");
    // Not so lately.
    state.clock.advance(Duration::from_secs(2 * DAY));
    assert_eq!(run(&state, &stale(Depth::Scrub, DAY)).proved.packs, all);
    // Not in the future.
    state.clock.set(1_000_000);
    assert_eq!(run(&state, &stale(Depth::Scrub, DAY)).proved.packs, all);
    assert_eq!(records(&state.storage).len(), 1, "each record takes the place of the one before");
}

#[test]
fn samples_get_round_to_everything() {
    let state = several_packs();
    let packs = state.storage.list("packs").unwrap();
    let (all, bytes) = (packs.len() as u64, packs.iter().map(|listed| listed.len).sum::<u64>());
    let sample = VerifyOptions { sample_millionths: Some(200_000), ..options(Depth::Deep) };
    let mut runs = 0;
    loop {
        let report = run(&state, &sample);
        assert!(report.proved.packs > 0 && report.proved.bytes <= bytes / 5, "{report:?}");
        runs += 1;
        state.clock.advance(Duration::from_secs(DAY));
        if report.never_proved.packs == 0 {
            assert_eq!(report.proved.packs + report.proved_before.packs, all);
            break;
        }
        assert_eq!(report.proved_before.packs + report.proved.packs + report.never_proved.packs, all);
    }
    assert!((5..=10).contains(&runs), "{runs}");
    // The smallest sample is a pack: from now on the one that was proved longest ago.
    let least = VerifyOptions { sample_millionths: Some(1), ..options(Depth::Deep) };
    let mut oldest = None;
    for _ in 0..all {
        let report = run(&state, &least);
        assert_eq!(report.proved.packs, 1);
        assert!(oldest <= report.oldest_proof, "never backwards: {oldest:?}, {:?}", report.oldest_proof);
        oldest = report.oldest_proof;
        state.clock.advance(Duration::from_secs(DAY));
    }
    let both = VerifyOptions { older_than_seconds: Some(all * DAY + 1), ..least };
    assert_eq!(run(&state, &both).proved.packs, 0, "all were proved within that time");
}

#[test]
fn damage_takes_the_proof_away_and_does_not_keep_others_waiting() {
    let state = several_packs();
    let all = run(&state, &options(Depth::Deep)).proved.packs;
    let key = state.storage.list("packs").unwrap()[3].key.clone();
    let flip = || state.storage.with_objects(|objects| objects.get_mut(&key).unwrap()[200] ^= 1);
    flip();
    let find = |options: &VerifyOptions| verify(&state.open().unwrap(), options, &Progress::new()).unwrap();
    state.clock.advance(Duration::from_secs(DAY));
    let report = find(&options(Depth::Scrub));
    assert_eq!(report.damaged.iter().map(|damage| &damage.object[..]).collect::<Vec<_>>(), [key.as_str()]);
    assert_eq!((report.proved.packs, report.never_proved.packs), (all - 1, 1));
    // It is told each time, and the others have their turn all the same.
    state.clock.advance(Duration::from_secs(DAY));
    let least = VerifyOptions { sample_millionths: Some(1), ..options(Depth::Scrub) };
    let (mut proved, mut damaged) = (0, 0);
    for _ in 0..2 * all {
        let report = find(&least);
        proved += report.proved.packs;
        damaged += report.damaged.len() as u64;
        state.clock.advance(Duration::from_secs(DAY));
    }
    assert_eq!((proved, damaged), (2 * all, 2 * all));
    // Put right, it is the only one that is not proved.
    flip();
    let stale = VerifyOptions { older_than_seconds: Some(1000 * DAY), ..options(Depth::Scrub) };
    let report = run(&state, &stale);
    assert_eq!((report.proved.packs, report.proved_before.packs, report.never_proved.packs), (1, all - 1, 0));
}

#[test]
fn a_repository_that_can_not_be_written_to_is_verified_all_the_same() {
    let state = several_packs();
    let storage = FaultStorage::with_plan(state.storage.clone(), Plan::from(0).writes_only().cause(std::io::ErrorKind::PermissionDenied));
    let repo = state.open_on(Arc::new(storage), state.index.copy()).unwrap();
    let progress = Progress::new();
    let report = verify(&repo, &options(Depth::Deep), &progress).unwrap();
    assert_eq!((report.damaged.len(), report.proved.packs), (0, report.packs));
    assert_eq!(progress.warnings_count(), 1, "what was proved is not noted");
    assert!(records(&state.storage).is_empty());
}

#[test]
fn an_interrupted_run_is_not_for_nothing() {
    let state = several_packs();
    let progress = Arc::new(Progress::new());
    let (stop, reads) = (progress.clone(), AtomicU64::new(0));
    let hook = HookStorage::new(state.storage.clone(), move |when, operation, _| {
        if (when, operation) == (When::After, Operation::ReadOnce) && reads.fetch_add(1, Ordering::SeqCst) == 5 {
            stop.request_stop();
        }
    });
    let repo = state.open_on(Arc::new(hook), state.index.copy()).unwrap();
    let ended = verify(&repo, &options(Depth::Scrub), &progress);
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Interrupted);
    drop(repo);
    let rest = run(&state, &VerifyOptions { older_than_seconds: Some(DAY), ..options(Depth::Scrub) });
    assert!(rest.proved_before.packs >= 4 && rest.proved.packs > 0 && rest.never_proved.packs == 0, "{rest:?}");
}

#[test]
fn a_prune_and_lost_packs_leave_no_proofs_behind() {
    let mut state = several_packs();
    run(&state, &options(Depth::Deep));
    let ids: Vec<_> = state.ids().into_iter().collect();
    state.forget(&ids[1..]);
    crate::harness::state::prune_below(&state.open().unwrap(), 100).unwrap();
    assert_eq!(records(&state.storage).len(), 1, "prune has no use for it");
    let report = run(&state, &options(Depth::Scrub));
    let [record] = &records(&state.storage)[..] else { panic!("one record") };
    let repo = state.open().unwrap();
    let body = repo::get_object(repo.storage(), repo.keys(), &repo.id(), repo::ObjectType::Verified, record).unwrap();
    let named: usize = repo::decode_proofs(&body).unwrap().iter().map(|group| group.packs.len() / 32).sum();
    assert!(named as u64 <= 2 * report.packs, "{named} verdicts on {} packs", report.packs);
}

/// Packs of many parts, on an empty index.
struct Large {
    storage: MemoryStorage,
    clock: Arc<ManualClock>,
}

impl Large {
    fn new() -> Self {
        let large = Self { storage: MemoryStorage::new(), clock: Arc::new(ManualClock::at(1_700_100_000)) };
        let options = CreateOptions { pack_bytes: Some((8 << 20, 1 << 20)), ..CreateOptions::default() };
        Repository::create(&large.storage, &options, &*large.clock).unwrap();
        let source = ScriptedSource::build(|tree| {
            for n in 0..7 {
                tree.file(format!("{n}"), noise(n, 900_000));
            }
        });
        take(&large.open(Arc::new(large.storage.clone())), "/a", &source, false).unwrap();
        large
    }

    fn open(&self, storage: Arc<dyn Storage>) -> Repository {
        Locked::read(storage).unwrap().unlock(None, Box::new(MemoryIndex::new()), self.clock.clone(), "host").unwrap()
    }

    fn pack(&self) -> (Key, u64) {
        let packs = self.storage.list("packs").unwrap();
        packs.into_iter().max_by_key(|listed| listed.len).map(|listed| (listed.key, listed.len)).unwrap()
    }
}

/// Counts operations: every byte once, in steps that fit in memory, and no blob by itself.
#[test]
fn a_pack_is_read_once_in_parts() {
    let large = Large::new();
    let (key, len) = large.pack();
    assert!(len > 6 << 20);
    let (_, footer) = repo::read_footer(&large.open(Arc::new(large.storage.clone())), &repo::parse_pack_key(&key).unwrap(), len).unwrap();
    let trees = footer.entries.iter().filter(|blob| blob.kind != 0).count();
    for depth in [Depth::Scrub, Depth::Deep] {
        let storage = FaultStorage::new(large.storage.clone());
        let repo = large.open(Arc::new(storage.clone()));
        storage.disarm();
        let report = verify_all(&repo, depth).unwrap();
        assert!(report.damaged.is_empty());
        let mut asked: BTreeMap<Operation, u64> = BTreeMap::new();
        for recorded in storage.record().iter().filter(|recorded| recorded.key == key.as_str()) {
            *asked.entry(recorded.operation).or_default() += 1;
        }
        assert_eq!(asked.get(&Operation::ReadOnce), Some(&len.div_ceil(2 << 20)), "{depth:?}: {asked:?}");
        // Header, trailer, what is between; and what of trees stands in this pack, which the walk reads.
        let expected = 3 + trees as u64;
        assert_eq!(asked.get(&Operation::GetRange), Some(&expected), "{depth:?}: {asked:?}");
    }
}

/// Wherever a byte is wrong, what a scrub says of it is what opening every blob says of it.
#[test]
fn a_scrub_is_as_exact_as_opening_everything() {
    let large = Large::new();
    let (key, len) = large.pack();
    let id = repo::parse_pack_key(&key).unwrap();
    let (_, footer) = repo::read_footer(&large.open(Arc::new(large.storage.clone())), &id, len).unwrap();
    // Header and index are bound by the pack's name, and are looked at in every run.
    let (first, last) = (footer.entries.first().unwrap(), footer.entries.last().unwrap());
    let (start, end) = (u64::from(first.offset), u64::from(last.offset + last.stored_len));
    let mut random = Random(7);
    let mut places: Vec<u64> = (0..20).map(|_| start + random.below(end - start)).collect();
    // Where parts, shards and blobs meet.
    let part = 32 * SHARD_BYTES as u64;
    let straddles = footer.entries.iter().find(|blob| u64::from(blob.offset) < part && u64::from(blob.offset + blob.stored_len) > part);
    assert!(straddles.is_some(), "a blob that two parts share");
    places.extend([start, part - 1, part, 2 * part, end - 1, u64::from(footer.entries[5].offset), u64::from(footer.entries[5].offset) - 1]);
    let mut broken = 0;
    for at in places {
        let storage = large.storage.fork();
        storage.with_objects(|objects| objects.get_mut(&key).unwrap()[usize::try_from(at).unwrap()] ^= 8);
        let repo = large.open(Arc::new(storage));
        let [scrub, deep] = [Depth::Scrub, Depth::Deep].map(|depth| verify_all(&repo, depth).unwrap());
        assert_eq!((&scrub.damaged, &scrub.affected), (&deep.damaged, &deep.affected), "byte {at}");
        assert_eq!(scrub.damaged.len(), 1, "byte {at}");
        let in_blobs =
            footer.entries.iter().filter(|blob| (blob.offset..blob.offset + blob.stored_len).contains(&u32::try_from(at).unwrap()));
        assert_eq!(scrub.affected_count, in_blobs.count() as u64, "byte {at}: {:?} {:?}", scrub.damaged, scrub.affected);
        broken += scrub.affected_count;
    }
    assert!(broken > 15, "{broken}");
}

/// A read that fails once is damage that nobody is affected by; one that goes on failing costs what stands on it.
#[test]
fn a_part_that_can_not_be_read_costs_only_what_stands_on_it() {
    let large = Large::new();
    let (key, len) = large.pack();
    for depth in [Depth::Scrub, Depth::Deep] {
        let storage = FaultStorage::new(large.storage.clone());
        let repo = large.open(Arc::new(storage.clone()));
        // Several threads read, so it may take some tries to hit the read that is meant.
        let mut at = u64::MAX;
        let report = (0..50).find_map(|_| {
            storage.arm(Plan::once(at));
            let report = verify_all(&repo, depth);
            let is_meant = |asked: &Recorded| asked.operation == Operation::ReadOnce && asked.key == key.as_str();
            let record = storage.record();
            let hit = record.get(usize::try_from(at).unwrap()).is_some_and(is_meant);
            at = record.iter().position(is_meant).map_or(u64::MAX, |at| at as u64);
            report.ok().filter(|_| hit)
        });
        let report = report.unwrap();
        let problem = &report.damaged[0].problem;
        assert!(problem.contains(" and 0 of ") && problem.contains("injected"), "{problem}");
        assert_eq!((report.damaged.len(), report.affected_count, report.never_proved.packs), (1, 0, 1));
    }
    // The pack is cut off behind its first part, under the reader's feet.
    let first = AtomicU64::new(0);
    let inner = large.storage.fork();
    let (cut, name) = (inner.clone(), key.clone());
    let hook = HookStorage::new(inner, move |when, operation, asked| {
        if (when, operation, asked) == (When::Before, Operation::ReadOnce, name.as_str()) && first.fetch_add(1, Ordering::SeqCst) == 0 {
            cut.with_objects(|objects| objects.get_mut(&name).unwrap().truncate(2 << 20));
        }
    });
    let report = verify_all(&large.open(Arc::new(hook)), Depth::Scrub).unwrap();
    assert_eq!(report.damaged.len(), 1, "{len}");
    assert!((3..7).contains(&report.affected_count), "the files behind the cut, not those before: {:?}", report.affected);
}

#[test]
fn the_index_of_another_host_does_not_matter() {
    let state = several_packs();
    run(&state, &options(Depth::Scrub));
    let other = state.open_on(Arc::new(state.storage.clone()), TestIndex::new()).unwrap();
    let stale = VerifyOptions { older_than_seconds: Some(DAY), ..options(Depth::Scrub) };
    assert_eq!(verify(&other, &stale, &Progress::new()).unwrap().proved.packs, 0, "what one host proved the others need not");
}

/// A chunk that another one is encoded against is needed by whoever needs the other, also when no snapshot has it any more.
#[test]
fn a_base_that_is_damaged_or_missing_breaks_the_paths_of_its_deltas() {
    let mut state = State::create(true);
    // One chunk each; the second is stored as its difference from the first.
    let before: String = noise(1, 5_000).iter().map(|byte| format!("{byte:02x}")).collect();
    let after = before.replace("77", "seventy-seven");
    let with = |content: &str| {
        let content = content.as_bytes().to_vec();
        ScriptedSource::build(|tree| {
            tree.file("changing", content).file("beside", noise(2, 60_000));
        })
    };
    let first = state.snapshot("/a", &with(&before)).snapshot.id;
    let repo = state.open().unwrap();
    let base = repo.keys().chunk_id(ChunkKind::Data, before.as_bytes());
    let progress = Progress::new();
    let writer = WriterOptions { compression: 3, dry_run: false, purpose: "test", operation: repo::Operation::Write };
    let writer = ChunkWriter::begin(&repo, writer, &progress).unwrap();
    let put = writer.put_over(ChunkKind::Data, after.as_bytes(), &mut || Ok(Some(base))).unwrap();
    assert!(put.new && put.delta);
    repo.abandon(writer.finish().unwrap()).unwrap();
    drop(repo);
    state.snapshot("/a", &with(&after));
    state.forget(&[first]);
    let repo = state.open().unwrap();
    let delta = repo.index().get(&put.id).unwrap().unwrap();
    assert_eq!(delta.blob.base, Some(base));
    let delta_pack = delta.pack;
    let place = repo.index().get(&base).unwrap().unwrap();
    assert_ne!(place.pack, delta_pack);
    let base_pack = repo::pack_key(&repo.index().pack(place.pack).unwrap().id).unwrap();
    drop(repo);
    run(&state.fork(), &options(Depth::Deep));

    let affected = |storage: &MemoryStorage, depth| {
        let repo = state.open_on(Arc::new(storage.clone()), state.index.copy()).unwrap();
        let report = verify_all(&repo, depth).unwrap();
        assert_eq!(report.damaged.iter().map(|damage| &damage.object[..]).collect::<Vec<_>>(), [base_pack.as_str()], "{depth:?}");
        let paths: Vec<String> = report.affected.iter().map(|affected| affected.path.clone()).collect();
        assert!(report.affected.iter().any(|affected| affected.problem.contains("encoded against")), "{:?}", report.affected);
        (paths, report)
    };
    let flipped = state.storage.fork();
    flipped.with_objects(|objects| objects.get_mut(&base_pack).unwrap()[place.blob.offset as usize + 50] ^= 1);
    for depth in [Depth::Scrub, Depth::Deep] {
        let (paths, report) = affected(&flipped, depth);
        assert_eq!(paths, ["changing"], "{depth:?}");
        assert!(report.damaged[0].problem.contains(" and 1 of "), "{}", report.damaged[0].problem);
        // What could not be opened was not proved, and is not damaged.
        assert_eq!(report.never_proved.packs, if depth == Depth::Deep { 2 } else { 1 }, "{depth:?}");
    }
    let lost = state.storage.fork();
    lost.delete(&base_pack).unwrap();
    for depth in [Depth::Structure, Depth::Scrub, Depth::Deep] {
        let (paths, report) = affected(&lost, depth);
        assert!(paths.contains(&"changing".to_owned()), "{depth:?}: {paths:?}");
        assert_eq!(report.damaged[0].problem, "the pack is missing", "{depth:?}");
    }
}
