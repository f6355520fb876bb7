use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::index::memory::MemoryIndex;
use crate::live::still::testing::{Bench, retry};
use crate::model::{Consistency, SessionId, SourceIdentity, SourceKind};
use crate::ops::snapshot::SnapshotOptions;
use crate::repo::{CreateOptions, Locked};
use crate::source::scripted::ScriptedSource;
use crate::storage::memory::MemoryStorage;

fn repository(storage: &MemoryStorage) -> Repository {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(1_700_100_000));
    let options = CreateOptions { secret: None, label: String::new(), pack_bytes: None };
    Repository::create(storage, &options, &*clock).unwrap();
    Locked::read(Arc::new(storage.clone())).unwrap().unlock(None, Box::new(MemoryIndex::new()), clock, "host").unwrap()
}

fn options(name: &str) -> SnapshotOptions {
    SnapshotOptions {
        identity: SourceIdentity { kind: SourceKind::Volume, name: name.into(), host: "host".into() },
        run: SessionId([1; 16]),
        consistency: Consistency::Frozen,
        tags: vec![],
        volume: None,
        force_read: false,
        one_file_system: false,
        compression: 3,
        dry_run: false,
    }
}

/// Takes two sources; while their files are read for the freeze, `frozen` sees what state the containers are in.
fn take(bench: &Bench, how: &How<'_>, sources: &[ScriptedSource]) -> (Repository, Result<GroupReport>) {
    let repo = repository(&MemoryStorage::new());
    let folder = tempfile::tempdir().unwrap();
    let members: Vec<Member<'_>> = sources.iter().zip(["a", "b"]).map(|(source, name)| Member { source, options: options(name) }).collect();
    let progress = Progress::new();
    let report = {
        let place = Place { repo: &repo, site: bench.site(), folder: folder.path(), progress: &progress };
        capture(&place, &members, how, &|_| ())
    };
    (repo, report)
}

fn committed(repo: &Repository) -> usize {
    repo.refresh().unwrap();
    repo.snapshots().unwrap().len()
}

fn sources() -> Vec<ScriptedSource> {
    (0..2).map(|_| ScriptedSource::build(|tree| _ = tree.file("file", vec![7; 400_000]).file("small", "x"))).collect()
}

fn frozen<'a>(ids: &[&'a str]) -> How<'a> {
    How::Frozen { ids: ids.to_vec(), options: FreezeOptions { retry: retry(), ..FreezeOptions::default() } }
}

#[test]
fn all_writers_are_frozen_while_files_are_set_aside_and_run_afterwards() {
    let bench = Bench::new(&["app", "db"]);
    let sources = sources();
    let reads_while_frozen = Arc::new(AtomicUsize::new(0));
    for source in &sources {
        let (engine, count) = (bench.engine.clone(), reads_while_frozen.clone());
        source.on_step(move |_, _| {
            if ["id-app", "id-db"].iter().all(|id| engine.state_of(id).as_deref() == Some("paused")) {
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let (repo, report) = take(&bench, &frozen(&["id-app", "id-db"]), &sources);
    assert_eq!(report.unwrap().snapshots.len(), 2);
    assert!(reads_while_frozen.load(Ordering::SeqCst) >= 6, "every directory and file is looked at while all are frozen");
    assert_eq!(bench.states(&["id-app", "id-db"]), ["running", "running"]);
    assert_eq!(bench.holds(), 0);
    assert_eq!(committed(&repo), 2);
    assert!(repo.snapshots().unwrap().iter().all(|snapshot| snapshot.record.consistency == Consistency::Frozen));
}

#[test]
fn whatever_call_fails_nothing_stays_frozen_and_nothing_is_committed_by_halves() {
    let calls = {
        let bench = Bench::new(&["app", "db"]);
        take(&bench, &frozen(&["id-app", "id-db"]), &sources()).1.unwrap();
        bench.engine.calls().len()
    };
    assert!(calls > 6, "{calls}");
    for call in 1..=calls {
        let bench = Bench::new(&["app", "db"]);
        bench.engine.fail_at(call, ErrorKind::Docker);
        let (repo, report) = take(&bench, &frozen(&["id-app", "id-db"]), &sources());
        let left = committed(&repo);
        assert!(left == 0 || left == 2, "call {call}: {left}");
        assert!(report.is_err() || left == 2, "call {call}");
        assert_eq!(bench.states(&["id-app", "id-db"]), ["running", "running"], "call {call}");
        assert_eq!(bench.holds(), 0, "call {call}");
    }
}

#[test]
fn a_group_at_rest_that_somebody_begins_to_write_to_is_not_committed() {
    let bench = Bench::new(&["app"]);
    let asked = AtomicUsize::new(0);
    let nobody = || Ok(Vec::new());
    let (repo, report) = take(&bench, &How::AtRest(&nobody), &sources());
    assert_eq!((report.unwrap().held, committed(&repo)), (Duration::ZERO, 2));
    let somebody = || {
        asked.fetch_add(1, Ordering::SeqCst);
        Ok(vec!["app".to_owned()])
    };
    let (repo, report) = take(&bench, &How::AtRest(&somebody), &sources());
    assert_eq!(report.unwrap_err().kind(), ErrorKind::Busy);
    assert!(committed(&repo) == 0 && asked.load(Ordering::SeqCst) > 0);
    assert_eq!(bench.deeds(), [""; 0]);
}

#[test]
fn stopped_containers_run_again_and_hooks_are_ended_whatever_happens() {
    let bench = Bench::new(&["db"]);
    let targets = vec![StopTarget { id: "id-db", grace: None }];
    let how = How::Stopped { targets, options: StopOptions { wait: None, retry: retry(), ..StopOptions::default() } };
    assert_eq!(take(&bench, &how, &sources()).1.unwrap().snapshots.len(), 2);
    assert_eq!(bench.states(&["id-db"]), ["running"]);
    assert_eq!(bench.deeds(), ["stop id-db", "start id-db"]);

    let (begun, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begin = || {
        begun.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    let end = || {
        ended.fetch_add(1, Ordering::SeqCst);
        Ok(())
    };
    let sources = sources();
    assert!(take(&bench, &How::Hooks { begin: &begin, end: &end }, &sources).1.is_ok());
    assert_eq!((begun.load(Ordering::SeqCst), ended.load(Ordering::SeqCst)), (1, 1));
}
