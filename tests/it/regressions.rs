//! What reviews found, each with its story: what happened, why, and what prevents it now.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::ErrorKind as Io;
use std::sync::Arc;
use std::time::Duration;

use icecore::clock::{Clock, ManualClock, Timestamp};
use icecore::index::memory::MemoryIndex;
use icecore::model::{ChunkId, Consistency, NodeKind, SessionId, SourceIdentity, SourceKind, TreePath};
use icecore::ops::prune::{PruneOptions, prune};
use icecore::ops::restore::{RestoreOptions, restore};
use icecore::ops::snapshot::{SnapshotOptions, SnapshotReport, snapshot};
use icecore::ops::verify::{Depth, VerifyOptions, verify};
use icecore::ops::{forget, tree};
use icecore::progress::Progress;
use icecore::repo::{ChunkReader, Committed, Config, CreateOptions, Locked, NodeReader, Repository, parse_pack_key, read_footer};
use icecore::seal::slot::Secret;
use icecore::seal::{Keys, Suite};
use icecore::source::scripted::{Operation, ScriptedSource};
use icecore::storage::fault::{FaultStorage, Operation as StorageOperation, Plan};
use icecore::storage::memory::MemoryStorage;
use icecore::storage::{Key, Storage};
use icecore::target::dir::{DirTarget, DirTargetOptions};

const START: u64 = 1_800_000_000;

struct Bench {
    storage: MemoryStorage,
    clock: Arc<ManualClock>,
    repo: Repository,
}

fn open(storage: &MemoryStorage, clock: &Arc<ManualClock>) -> Repository {
    Locked::read(Arc::new(storage.clone())).unwrap().unlock(None, Box::new(MemoryIndex::new()), clock.clone(), "here").unwrap()
}

fn bench() -> Bench {
    let storage = MemoryStorage::new();
    let clock = Arc::new(ManualClock::at(START));
    Repository::create(&storage, &CreateOptions { pack_bytes: Some((1 << 16, 1 << 14)), ..CreateOptions::default() }, &*clock).unwrap();
    let repo = open(&storage, &clock);
    Bench { storage, clock, repo }
}

fn options(name: &str) -> SnapshotOptions {
    SnapshotOptions {
        identity: SourceIdentity { kind: SourceKind::Path, name: name.to_owned(), host: "here".to_owned() },
        run: SessionId([1; 16]),
        consistency: Consistency::Fuzzy,
        tags: Vec::new(),
        volume: None,
        force_read: false,
        one_file_system: false,
        compression: 1,
        dry_run: false,
    }
}

fn take(repo: &Repository, source: &ScriptedSource, name: &str) -> SnapshotReport {
    snapshot(repo, source, &options(name), &Progress::new()).unwrap()
}

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut state = (u64::from(seed) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(next).collect()
}

fn file(seed: u8) -> ScriptedSource {
    ScriptedSource::build(|tree| {
        tree.file("f", noise(seed, 40_000));
    })
}

fn content(repo: &Repository, snapshot: &Committed, path: &str) -> icecore::Result<Vec<u8>> {
    let mut out = Vec::new();
    tree::cat(repo, &snapshot.record, &TreePath::parse(path.as_bytes())?, &mut out, &Progress::new())?;
    Ok(out)
}

fn packs(storage: &MemoryStorage) -> Vec<Key> {
    storage.list("packs").unwrap().into_iter().map(|listed| listed.key).collect()
}

/// A pack is lost. The run over two sources reads the first again and believes the cache for the second.
#[test]
fn a_lost_pack_is_stored_again_for_every_source() {
    let b = bench();
    let (one, two) = (file(1), file(2));
    take(&b.repo, &one, "one");
    take(&b.repo, &two, "two");
    b.clock.advance(Duration::from_secs(60));
    for key in packs(&b.storage) {
        b.storage.delete(&key).unwrap();
    }
    let first = take(&b.repo, &one, "one");
    let second = take(&b.repo, &two, "two");
    assert!(content(&b.repo, &first.snapshot, "f").is_ok(), "the first source was read again");
    assert!(!second.snapshot.record.is_partial());
    assert!(content(&b.repo, &second.snapshot, "f").unwrap() == noise(2, 40_000), "the second source is whole");
}

/// 1a. Packs with contents are lost, those with trees are not. A run over one source takes them out of the index; the next
/// one, over another, finds nothing lost and has no records of its own left, but a parent whose tree can be read: what that
/// says of a large file's chunks was taken for granted, chunk by chunk along the old boundaries. Only what this host noted is
/// now.
#[test]
fn a_large_file_of_another_source_is_stored_again_too() {
    let b = bench();
    let large = ScriptedSource::build(|tree| {
        tree.file("f", noise(2, 9 << 20));
    });
    let one = file(1);
    take(&b.repo, &one, "one");
    take(&b.repo, &large, "two");
    b.clock.advance(Duration::from_secs(60));
    let mut lost = 0;
    for listed in b.storage.list("packs").unwrap() {
        let (_, footer) = read_footer(&b.repo, &parse_pack_key(&listed.key).unwrap(), listed.len).unwrap();
        if footer.entries.iter().all(|entry| entry.kind == 0) {
            b.storage.delete(&listed.key).unwrap();
            lost += 1;
        }
    }
    assert!(lost > 10);
    take(&b.repo, &one, "one");
    let second = take(&b.repo, &large, "two");
    assert!(content(&b.repo, &second.snapshot, "f").unwrap() == noise(2, 9 << 20), "the second source is whole");
}

/// 1b. The same for one source, when the run that noticed the loss committed nothing.
#[test]
fn a_lost_pack_is_stored_again_after_a_dry_run() {
    let b = bench();
    let one = file(1);
    take(&b.repo, &one, "one");
    b.clock.advance(Duration::from_secs(60));
    for key in packs(&b.storage) {
        b.storage.delete(&key).unwrap();
    }
    snapshot(&b.repo, &one, &SnapshotOptions { dry_run: true, ..options("one") }, &Progress::new()).unwrap();
    let second = take(&b.repo, &one, "one");
    assert!(content(&b.repo, &second.snapshot, "f").unwrap() == noise(1, 40_000));
}

/// A mapping writes between the sync at the begin and the listing of its directory, and goes on writing after the
/// file was read, which moves no time any more.
#[test]
fn a_mapped_writer_is_noticed_by_the_next_snapshot() {
    let b = bench();
    let source = ScriptedSource::build(|tree| {
        tree.file("db/map", noise(3, 40_000)).file("db/x", "x");
    });
    let clock = b.clock.clone();
    let mut once = true;
    source.on_step(move |step, tree| {
        if step.is(Operation::List, "") && std::mem::take(&mut once) {
            tree.set_time(clock.now());
            tree.write_mapped("db/map", 0, b"first");
            clock.advance(Duration::from_secs(5));
        }
    });
    take(&b.repo, &source, "one");
    source.clear_hook();
    source.edit(|tree| {
        tree.write_mapped("db/map", 0, b"SECOND");
    });
    b.clock.advance(Duration::from_secs(60));
    for _ in 0..3 {
        b.clock.advance(Duration::from_secs(60));
        let next = take(&b.repo, &source, "one");
        let stored = content(&b.repo, &next.snapshot, "db/map").unwrap();
        let now = source.edit(|tree| tree.content("db/map"));
        assert_eq!(stored[..8], now[..8], "sequence {}", next.snapshot.record.sequence);
    }
}

/// Two sessions stored the same chunk (neither could see the other's). One copy rots; the other must do.
#[test]
fn a_second_copy_serves_when_the_first_is_damaged() {
    let b = bench();
    let other = open(&b.storage, &b.clock);
    let one = file(1);
    // The second writer begins before the first commits: it stores all again.
    let begun = icecore::repo::ChunkWriter::begin(
        &other,
        icecore::repo::WriterOptions { compression: 1, dry_run: false, purpose: "x", operation: icecore::repo::Operation::Write },
        Box::leak(Box::new(Progress::new())),
    )
    .unwrap();
    let first = take(&b.repo, &one, "one");
    let firsts = packs(&b.storage);
    for chunk in chunks(&b.repo, &first.snapshot) {
        begun.put(chunk.0, &chunk.1).unwrap();
    }
    other.abandon(begun.finish().unwrap()).unwrap();
    assert!(packs(&b.storage).len() > firsts.len());
    b.storage.with_objects(|objects| {
        for key in &firsts {
            let bytes = objects.get_mut(key).unwrap();
            bytes[1000] ^= 1;
        }
    });
    b.repo.refresh().unwrap();
    let read = content(&b.repo, &first.snapshot, "f");
    let pruned = prune(&b.repo, &PruneOptions::default(), &Progress::new());
    let left = packs(&b.storage);
    assert!(
        read.is_ok(),
        "{} (prune: {:?}; {} packs, the good copy {})",
        read.unwrap_err(),
        pruned.map(|report| report.packs_removed).map_err(|e| e.to_string()),
        left.len(),
        if left.iter().all(|key| firsts.contains(key)) { "is gone now" } else { "is left" }
    );
}

fn chunks(repo: &Repository, snapshot: &Committed) -> Vec<(icecore::seal::keys::ChunkKind, Vec<u8>)> {
    let reader = icecore::repo::ChunkReader::new(repo);
    let node = tree::find(repo, &snapshot.record, &TreePath::parse(b"f").unwrap()).unwrap();
    let icecore::model::NodeKind::File(stream) = node.kind else { panic!("a file") };
    let mut leaves = icecore::repo::StreamReader::new(&reader, &stream);
    let mut found = Vec::new();
    while let Some(leaf) = leaves.next_leaf().unwrap() {
        let kind = icecore::seal::keys::ChunkKind::Data;
        found.push((kind, reader.read(kind, &leaf.id).unwrap()));
    }
    found
}

/// Whoever can write the repository's folder makes the next snapshot be written in the clear.
#[test]
fn an_encrypted_repository_can_not_be_turned_into_a_plain_one() {
    let storage = MemoryStorage::new();
    let clock = Arc::new(ManualClock::at(START));
    let secret = || Secret::Passphrase(b"correct horse".to_vec().into());
    let id = Repository::create(&storage, &CreateOptions { secret: Some(secret()), ..CreateOptions::default() }, &*clock).unwrap();
    let config_key: Key = "config".parse().unwrap();
    // The attacker has no key: everything here is public.
    storage.with_objects(|objects| {
        let honest = Config::decode(&objects[&config_key]).unwrap();
        let forged = Config { suite: Suite::Checksum.number(), ..honest };
        objects.insert(config_key.clone(), forged.encode(&Keys::public(&id)).unwrap());
    });
    let opened =
        Locked::read(Arc::new(storage.clone())).unwrap().unlock(Some(&secret()), Box::new(MemoryIndex::new()), clock.clone(), "here");
    let Ok(repo) = opened else { return };
    let text = b"a secret that must not reach the disk in the clear ";
    let source = ScriptedSource::build(|tree| {
        tree.file("f", text);
    });
    let report = snapshot(&repo, &source, &options("one"), &Progress::new());
    let clear = storage.objects().values().any(|bytes| bytes.windows(text.len()).any(|w| w == text));
    panic!("opened with a passphrase; snapshot {}; in the clear: {clear}", if report.is_ok() { "taken" } else { "refused" });
}

/// Damage to a forget marker hides nothing, prune goes on beside it.
#[test]
fn prune_goes_on_beside_a_damaged_forget_marker() {
    let b = bench();
    let one = file(1);
    let first = take(&b.repo, &one, "one").snapshot;
    one.edit(|tree| {
        tree.file("f", noise(9, 40_000));
    });
    take(&b.repo, &one, "one");
    let third = {
        one.edit(|tree| {
            tree.file("f", noise(10, 40_000));
        });
        take(&b.repo, &one, "one").snapshot
    };
    forget::forget(&b.repo, &[first.id]).unwrap();
    b.storage.with_objects(|objects| {
        let marker: Vec<Key> = objects.keys().filter(|key| key.as_str().starts_with("forget/")).cloned().collect();
        objects.get_mut(&marker[0]).unwrap()[70] ^= 1;
    });
    forget::forget(&b.repo, &[third.id]).unwrap();
    let pruned = prune(&b.repo, &PruneOptions::default(), &Progress::new());
    assert!(pruned.is_ok(), "{}", pruned.unwrap_err());
}

/// A final set can't be read for a while (damage, or a read error). A writer must not use what it condemns.
#[test]
fn a_writer_uses_no_pack_when_it_can_not_read_what_prune_decided() {
    let b = bench();
    let one = file(1);
    let first = take(&b.repo, &one, "one").snapshot;
    one.edit(|tree| {
        tree.file("f", noise(9, 40_000)).file("g", noise(10, 40_000));
    });
    take(&b.repo, &one, "one");
    forget::forget(&b.repo, &[first.id]).unwrap();
    // Prune dies at its first deletion.
    let faulty = icecore::storage::fault::FaultStorage::new(b.storage.clone());
    let probe = Locked::read(Arc::new(faulty.clone())).unwrap();
    let pruner = probe.unlock(None, Box::new(MemoryIndex::new()), b.clock.clone(), "here").unwrap();
    let at = {
        let dry = icecore::storage::fault::FaultStorage::new(b.storage.fork());
        let repo =
            Locked::read(Arc::new(dry.clone())).unwrap().unlock(None, Box::new(MemoryIndex::new()), b.clock.clone(), "here").unwrap();
        dry.arm(icecore::storage::fault::Plan::from(u64::MAX));
        prune(&repo, &PruneOptions::default(), &Progress::new()).unwrap();
        let record = dry.record();
        record
            .iter()
            .position(|r| r.operation == icecore::storage::fault::Operation::Delete && r.key.contains("packs/"))
            .unwrap_or_else(|| panic!("{record:?}")) as u64
    };
    faulty.arm(icecore::storage::fault::Plan::stop(at).cause(Io::Other));
    prune(&pruner, &PruneOptions::default(), &Progress::new()).unwrap_err();
    faulty.disarm();
    drop(pruner);
    let storage = b.storage.fork();
    let last: Key = "gc/00000001/final".parse().unwrap();
    let good = storage.with_objects(|objects| {
        let good = objects[&last].clone();
        objects.get_mut(&last).unwrap()[70] ^= 1;
        good
    });
    // The old content is back at the source, and its pack is still there.
    let again = file(1);
    let repo = open(&storage, &b.clock);
    let Ok(taken) = snapshot(&repo, &again, &options("two"), &Progress::new()) else { return };
    // The hint of the next prune is followed: the object is restored from a copy.
    storage.with_objects(|objects| objects.insert(last.clone(), good));
    let repo = open(&storage, &b.clock);
    let pruned = prune(&repo, &PruneOptions::default(), &Progress::new()).map(|r| r.packs_removed).map_err(|e| e.to_string());
    let repo = open(&storage, &b.clock);
    let report = verify(&repo, &VerifyOptions { depth: Depth::Deep, ..VerifyOptions::default() }, &Progress::new()).unwrap();
    assert!(
        content(&repo, &taken.snapshot, "f").is_ok_and(|bytes| bytes == noise(1, 40_000)),
        "the snapshot was reported as taken; prune: {pruned:?}; verify: {:?}",
        report.affected
    );
}

/// One snapshot was taken while the clock was wrong.
#[test]
fn keep_within_forgets_nothing_extra_after_the_clock_jumped_forwards_once() {
    let b = bench();
    let one = file(1);
    let mut day = START;
    for n in 0..6 {
        b.clock.set(if n == 3 { START + 70 * 365 * 86_400 } else { day });
        day += 86_400;
        one.edit(|tree| {
            tree.file("f", noise(n, 1000));
        });
        take(&b.repo, &one, "one");
    }
    let all = b.repo.refresh().and_then(|_| b.repo.snapshots()).unwrap();
    assert_eq!(all.len(), 6);
    let policy = forget::Policy { within_seconds: Some(30 * 86_400), ..forget::Policy::default() };
    let gone: Vec<_> = forget::plan(&all, &policy, &jiff::tz::TimeZone::UTC)
        .into_iter()
        .filter(|verdict| verdict.reasons.is_empty())
        .map(|verdict| verdict.snapshot.record.sequence)
        .collect();
    assert_eq!(gone, [0u64; 0], "all are younger than 30 days by any clock but the one that was wrong once");
}

/// A stray file in `gc`.
#[test]
fn a_stray_cycle_number_does_not_make_prune_panic() {
    let b = bench();
    let one = file(1);
    let first = take(&b.repo, &one, "one").snapshot;
    one.edit(|tree| {
        tree.file("f", noise(9, 40_000));
    });
    take(&b.repo, &one, "one");
    forget::forget(&b.repo, &[first.id]).unwrap();
    b.storage.put_new(&"gc/18446744073709551615/note".parse().unwrap(), b"x").unwrap();
    let _ = prune(&b.repo, &PruneOptions::default(), &Progress::new());
}

#[allow(dead_code)]
fn unused(_: Timestamp) {}

/// What a container puts into its volume makes the record longer than any record that can be read.
#[test]
fn a_record_that_was_written_can_be_read() {
    let b = bench();
    let name = [1u8; 250];
    let deep = vec![&name[..]; 280].join(&b'/');
    let source = ScriptedSource::build(|tree| {
        for n in 0..400 {
            tree.file([&deep[..], format!("/{n}").as_bytes()].concat(), "x");
        }
        tree.file("precious", noise(5, 40_000));
    });
    source.on_step(move |step, tree| {
        if step.operation == Operation::OpenFile && step.path.as_bytes().len() > 1000 {
            tree.fail_step(Io::PermissionDenied.into());
        }
    });
    let taken = take(&b.repo, &source, "one");
    assert_eq!(taken.snapshot.record.unreadable_count, 400);
    let fresh = open(&b.storage, &b.clock);
    let problems = fresh.view().problems.iter().map(|p| p.what.clone()).collect::<Vec<_>>();
    assert_eq!(fresh.snapshots().unwrap().len(), 1, "{problems:?}");
}

/// A wish to stop, deep down.
#[test]
fn a_run_that_ends_deep_down_ends_without_using_up_the_stack() {
    let b = bench();
    let deep = vec![&b"d"[..]; 2000].join(&b'/');
    let source = ScriptedSource::build(|tree| {
        tree.file([&deep[..], b"/f"].concat(), "x");
    });
    let progress = Arc::new(Progress::new());
    let stop = progress.clone();
    let len = deep.len();
    source.on_step(move |step, _| {
        if step.operation == Operation::List && step.path.as_bytes().len() >= len - 2 {
            stop.request_stop();
        }
    });
    let run = || snapshot(&b.repo, &source, &options("one"), &progress).map(|_| ()).map_err(|e| e.kind());
    let ended =
        std::thread::scope(|scope| std::thread::Builder::new().stack_size(160 << 10).spawn_scoped(scope, run).unwrap().join().unwrap());
    assert_eq!(ended, Err(icecore::ErrorKind::Interrupted));
}

/// A read of the repository that failed, such as one of a bad sector, ended the whole restore, and with it what could
/// still be had. Now it costs the entries that stand on it; the target stays marked as unfinished.
#[test]
fn a_read_that_fails_costs_what_stands_on_it_and_not_the_rest_of_a_restore() {
    let b = bench();
    let source = ScriptedSource::build(|tree| {
        for (seed, name) in ["a", "b", "c"].into_iter().enumerate() {
            tree.file(name, noise(u8::try_from(seed).unwrap(), 15_000));
        }
    });
    let taken = take(&b.repo, &source, "one").snapshot;
    let storage = FaultStorage::new(b.storage.clone());
    let locked = Locked::read(Arc::new(storage.clone())).unwrap();
    let repo = locked.unlock(None, Box::new(MemoryIndex::new()), b.clock.clone(), "here").unwrap();
    let place = tempfile::tempdir().unwrap();
    let mut restored = 0;
    let run = |name: String| {
        let folder = place.path().join(name);
        let target = DirTarget::create(&folder, DirTargetOptions { snapshot: taken.id, open_dirs_max: None, reflink_from: None }).unwrap();
        let report = restore(&repo, &taken.record, &target, &RestoreOptions::default(), &Progress::new()).unwrap();
        (report, folder)
    };
    storage.arm(Plan::once(u64::MAX));
    let (report, _) = run("whole".to_owned());
    assert_eq!((report.files, report.failed), (3, 0));
    let reads: Vec<usize> =
        (0..).zip(storage.record()).filter(|(_, asked)| asked.operation == StorageOperation::GetRange).map(|(n, _)| n).collect();
    assert!(reads.len() >= 2, "the directory, and the files together");
    for n in reads {
        storage.arm(Plan::once(u64::try_from(n).unwrap()));
        let (report, folder) = run(format!("without-{n}"));
        storage.disarm();
        // What reads well the second time, chunk by chunk, is not lost at all.
        assert!(report.failed == report.damaged && (report.failed > 0 || report.files == 3), "{report:?}");
        assert_eq!(folder.join(".icecore-incomplete").exists(), report.failed > 0);
    }
    // A sector that never reads well costs the one file that stands on it, whatever was read together with it.
    let reader = ChunkReader::new(&repo);
    let NodeKind::Directory(stream) = &taken.record.root.kind else { unreachable!("the root is a directory") };
    let mut nodes = NodeReader::new(&reader, stream);
    while let Some(node) = nodes.next_node().unwrap() {
        let NodeKind::File(stream) = &node.kind else { unreachable!("three files") };
        let (key, at) = place_of(&storage, &repo, &stream.id);
        storage.lose_byte(&key, at + 1);
        let (report, folder) = run(format!("bad-{}", node.name_bytes().escape_ascii()));
        storage.disarm();
        assert_eq!((report.files, report.failed, report.damaged), (2, 1, 1), "{report:?}");
        assert!(folder.join(".icecore-incomplete").exists() && !folder.join(str::from_utf8(node.name_bytes()).unwrap()).exists());
        restored += report.files;
    }
    assert!(restored >= 6, "{restored}");
}

/// The pack and the offset at which a chunk is stored.
fn place_of(storage: &dyn Storage, repo: &Repository, chunk: &ChunkId) -> (Key, u64) {
    let packs = storage.list("packs").unwrap();
    let found = packs.into_iter().find_map(|pack| {
        let footer = read_footer(repo, &parse_pack_key(&pack.key).unwrap(), pack.len).unwrap().1;
        footer.entries.iter().find(|entry| entry.id == *chunk).map(|entry| (pack.key, u64::from(entry.offset)))
    });
    found.unwrap()
}
