//! A pack is lost from the repository: the next snapshots store again what was in it, for every source.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use icecore::clock::SystemClock;
use icecore::index::memory::MemoryIndex;
use icecore::model::{Consistency, SessionId, SourceIdentity, SourceKind, TreePath};
use icecore::ops::{snapshot, tree};
use icecore::progress::Progress;
use icecore::repo::{CreateOptions, Locked, Repository};
use icecore::source::dir::DirSource;
use icecore::storage::memory::MemoryStorage;

fn take(repo: &Repository, folder: &std::path::Path) -> icecore::ops::snapshot::SnapshotReport {
    let options = snapshot::SnapshotOptions {
        identity: SourceIdentity { kind: SourceKind::Path, name: folder.display().to_string(), host: "here".to_owned() },
        run: SessionId([1; 16]),
        consistency: Consistency::Fuzzy,
        tags: Vec::new(),
        volume: None,
        force_read: false,
        one_file_system: false,
        compression: 3,
        dry_run: false,
    };
    snapshot::snapshot(repo, &DirSource::open(folder).unwrap(), &options, &Progress::new()).unwrap()
}

/// The first source's snapshot took the lost packs out of the index and read everything again. The second one's then found
/// nothing missing, trusted its stat cache, and committed references to chunks that were gone. Now the stat cache of all
/// sources goes with the packs.
#[test]
fn every_source_is_stored_again_after_a_pack_was_lost() {
    let place = tempfile::tempdir().unwrap();
    let folders = ["a", "b"].map(|name| place.path().join(name));
    for folder in &folders {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("file"), format!("the content of {} ", folder.display()).repeat(200)).unwrap();
    }
    // Older than what may still change without a new time, so that the second snapshot trusts what it remembers.
    std::thread::sleep(Duration::from_millis(200));
    let storage = MemoryStorage::default();
    Repository::create(&storage, &CreateOptions::default(), &SystemClock::default()).unwrap();
    let locked = Locked::read(Arc::new(storage.clone())).unwrap();
    let repo = locked.unlock(None, Box::new(MemoryIndex::default()), Arc::new(SystemClock::default()), "here").unwrap();
    for folder in &folders {
        take(&repo, folder);
    }
    let second = folders.each_ref().map(|folder| take(&repo, folder).snapshot.record.stats.read_files);
    assert_eq!(second, [0, 0], "the stat cache is used");

    storage.with_objects(|objects| objects.retain(|key, _| !key.as_str().starts_with("packs/")));
    for folder in &folders {
        let report = take(&repo, folder);
        let mut content = Vec::new();
        let path = TreePath::parse(b"file").unwrap();
        tree::cat(&repo, &report.snapshot.record, &path, &mut content, &Progress::new()).unwrap();
        assert_eq!(content, fs::read(folder.join("file")).unwrap());
    }
}
