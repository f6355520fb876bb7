//! Several sources as of one moment: whatever happens before, between and after, what comes back is what was there while
//! everybody was held still; and all of it is committed, or nothing.
#![allow(clippy::unwrap_used, reason = "a test that can't go on must say where")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use icecore::clock::Clock;
use icecore::ops::snapshot::{GroupOptions, GroupReport, Member, Still, snapshot_group};
use icecore::progress::Progress;
use icecore::repo::Repository;
use icecore::source::scripted::{ScriptedSource, Tree};
use icecore::storage::fault::{FaultStorage, Plan};
use icecore::{Error, ErrorKind, Result};

use crate::harness::state::{options, prune_below, take, verify_all};
use crate::harness::trees::noise;
use crate::harness::{PlainTree, State, plain_copy, restored};

/// Nobody writes between `hold` and `let_go`; what is there then is remembered.
struct Held<'a> {
    sources: &'a [ScriptedSource],
    held: Arc<AtomicBool>,
    seen: std::sync::Mutex<Vec<PlainTree>>,
    /// After so many checks the time is up.
    checks_left: AtomicUsize,
}

impl<'a> Held<'a> {
    fn new(sources: &'a [ScriptedSource]) -> Self {
        Self { sources, held: Arc::default(), seen: std::sync::Mutex::default(), checks_left: AtomicUsize::new(usize::MAX) }
    }

    /// Every step that is made on any of the sources is a moment at which their writer goes on.
    fn write_at_every_step(&self) {
        let count = Arc::new(AtomicUsize::new(0));
        for source in self.sources {
            let (held, count) = (self.held.clone(), count.clone());
            source.on_step(move |_, tree| {
                if !held.load(Ordering::SeqCst) {
                    write(tree, count.fetch_add(1, Ordering::SeqCst));
                }
            });
        }
    }
}

fn write(tree: &mut Tree, n: usize) {
    tree.write("counter", 0, format!("{n:08}"));
    tree.write("large", (n as u64 * 40_009) % 900_000, noise(n as u64, 3_000));
    tree.write_mapped("mapped", n as u64 % 4_000, "m");
    match n % 5 {
        0 => _ = tree.file(format!("wal/{n}"), noise(n as u64, 20_000)),
        1 => (0..n)
            .rev()
            .map(|n| format!("wal/{n}"))
            .filter(|name| tree.exists(name))
            .collect::<Vec<_>>()
            .iter()
            .skip(3)
            .for_each(|name| _ = tree.remove(name)),
        2 => _ = tree.set_xattr("wal", "user.n", format!("{n}")).set_mode("counter", 0o600 + n as u16 % 8),
        3 => _ = tree.file("new", "x").rename("new", "renamed"),
        _ => _ = tree.truncate("log", 100).append("log", noise(n as u64, 300)),
    }
}

impl Still for Held<'_> {
    fn hold(&self) -> Result<()> {
        self.held.store(true, Ordering::SeqCst);
        *self.seen.lock().unwrap() = self.sources.iter().map(|source| plain_copy(source)).collect();
        Ok(())
    }

    fn check(&self) -> Result<()> {
        match self.checks_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(ErrorKind::Busy, "the time is up")),
        }
    }

    fn let_go(&self) -> Result<Duration> {
        self.held.store(false, Ordering::SeqCst);
        Ok(Duration::from_millis(70))
    }
}

fn sources() -> Vec<ScriptedSource> {
    let build = |seed: u64| {
        ScriptedSource::build(|tree| {
            tree.file("counter", "00000000").file("large", noise(seed, 1_000_000)).file("log", noise(seed + 1, 5_000));
            tree.file("mapped", noise(seed + 4, 4_200)).hard_link("counter", "counter again").symlink("link", "counter");
            (0..6).for_each(|n| _ = tree.file(format!("wal/{n}"), noise(seed + n, 20_000)));
            tree.sparse_file("sparse", 3_000_000, &[(900_000, &noise(seed + 2, 50_000))]);
            (0..40).for_each(|n| _ = tree.file(format!("still/{n}"), noise(seed + 9, 6_000)));
        })
    };
    vec![build(1), build(100)]
}

fn group(repo: &Repository, sources: &[ScriptedSource], still: &dyn Still, live_above: u64) -> Result<GroupReport> {
    let folder = tempfile::tempdir().unwrap();
    let members: Vec<Member<'_>> =
        sources.iter().zip(["/a", "/b"]).map(|(source, name)| Member { source, options: options(name, false) }).collect();
    let report = snapshot_group(repo, &members, still, &GroupOptions { folder: folder.path(), live_above }, &Progress::new());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left of what was set aside");
    report
}

#[test]
fn what_comes_back_is_of_the_moment_at_which_all_were_held() {
    for live_above in [0, u64::MAX] {
        let sources = sources();
        let state = State::create(true);
        for round in 0..6 {
            let held = Held::new(&sources);
            // What is written from now on shows by its time.
            sources.iter().for_each(|source| source.edit(|tree| _ = tree.set_time(state.clock.now())));
            if round > 0 {
                held.write_at_every_step();
            }
            let repo = state.open().unwrap();
            let report = group(&repo, &sources, &held, live_above).unwrap();
            sources.iter().for_each(ScriptedSource::clear_hook);
            let seen = held.seen.into_inner().unwrap();
            assert_eq!(report.snapshots.len(), 2);
            for (snapshot, seen) in report.snapshots.iter().zip(&seen) {
                let record = &snapshot.snapshot.record;
                assert_eq!(*seen, restored(&repo, record, "group"), "round {round}, live above {live_above}");
                assert_eq!((record.frozen_milliseconds, record.changed_count, record.unreadable_count), (70, 0, 0));
            }
            state.clock.advance(Duration::from_secs(60));
        }
        let repo = state.open().unwrap();
        assert_eq!(repo.snapshots().unwrap().len(), 12);
        let report = verify_all(&repo, icecore::ops::verify::Depth::Deep).unwrap();
        assert!(report.damaged.is_empty() && report.affected.is_empty(), "{report:?}");
        // What is remembered of the files must not make the next snapshot miss a change.
        for (source, name) in sources.iter().zip(["/a", "/b"]) {
            let next = take(&repo, name, source, false).unwrap().snapshot;
            assert_eq!(plain_copy(source), restored(&repo, &next.record, "after the group"));
        }
    }
}

#[test]
fn what_was_read_live_is_not_read_again_while_all_are_held() {
    let sources = sources();
    let state = State::create(false);
    let repo = state.open().unwrap();
    let report = group(&repo, &sources, &Held::new(&sources), 0).unwrap();
    assert_eq!(report.aside, (0, 0), "nobody wrote, so nothing had to be set aside");
    assert!(report.snapshots.iter().all(|report| report.snapshot.record.stats.read_files > 40));
    state.clock.advance(Duration::from_secs(60));
    let again = group(&repo, &sources, &Held::new(&sources), 0).unwrap();
    assert!(again.snapshots.iter().all(|report| report.snapshot.record.stats.read_files == 0), "{again:?}");
}

#[test]
fn a_hold_that_lasts_too_long_commits_nothing_and_lets_go() {
    let sources = sources();
    let state = State::create(true);
    let mut checks = 0;
    loop {
        let repo = state.open().unwrap();
        let held = Held { checks_left: AtomicUsize::new(checks), ..Held::new(&sources) };
        let taken = group(&repo, &sources, &held, u64::MAX);
        assert!(!held.held.load(Ordering::SeqCst), "everybody was let go");
        match taken {
            Ok(_) => break,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
        }
        assert!(repo.snapshots().unwrap().is_empty());
        checks += 1;
    }
    assert!(checks > 20, "{checks}");
    assert_eq!(state.open().unwrap().snapshots().unwrap().len(), 2);
}

/// The storage fails at every operation of the commit, once with and once without an effect: all members are there, or none.
#[test]
fn a_crash_anywhere_leaves_all_members_or_none() {
    let (sources, mut all, mut none) = (sources(), 0, 0);
    for after in [false, true] {
        for n in 0.. {
            let state = State::create(true);
            let plan = if after { Plan::stop(n).after_effect() } else { Plan::stop(n) };
            let storage = Arc::new(FaultStorage::with_plan(state.storage.clone(), plan));
            let Ok(repo) = state.open_on(storage.clone(), state.index.clone()) else { continue };
            let taken = group(&repo, &sources, &Held::new(&sources), u64::MAX);
            drop(repo);
            if storage.count() < n {
                taken.unwrap();
                break;
            }
            for anew in [false, true] {
                let fork = state.fork();
                let repo = if anew { fork.open_anew() } else { fork.open() }.unwrap();
                let left = repo.snapshots().unwrap();
                assert!(left.is_empty() || left.len() == 2, "operation {n}: {} of 2", left.len());
                assert!(taken.is_err() || left.len() == 2, "operation {n}: what was acknowledged is there");
                for snapshot in &left {
                    let source = &sources[usize::from(snapshot.record.source.name == "/b")];
                    assert_eq!(plain_copy(source), restored(&repo, &snapshot.record, "after a crash"));
                }
                if left.is_empty() {
                    none += 1
                } else {
                    all += 1
                }
                // A prune ends the dead session and drops what was half committed; a snapshot after it is whole.
                prune_below(&repo, 50).unwrap();
                assert_eq!(repo.snapshots().unwrap().len(), left.len(), "operation {n}");
                let next = group(&repo, &sources, &Held::new(&sources), 0).unwrap();
                assert_eq!(next.snapshots.len(), 2);
                let report = verify_all(&repo, icecore::ops::verify::Depth::Deep).unwrap();
                assert!(report.damaged.is_empty() && report.affected.is_empty(), "operation {n}: {report:?}");
            }
        }
    }
    eprintln!("crashes of a group: {none} left nothing, {all} left all");
    assert!(all > 0 && none > 10);
}

/// One member's entry is lost: the others stay, whichever it is.
#[test]
fn the_loss_of_one_member_s_entry_costs_that_snapshot_only() {
    let sources = sources();
    let state = State::create(true);
    group(&state.open().unwrap(), &sources, &Held::new(&sources), 0).unwrap();
    let members: Vec<_> = state.open().unwrap().snapshots().unwrap();
    for lost in &members {
        let fork = state.fork();
        let key = icecore::repo::entry_key(&lost.session, lost.sequence).unwrap();
        fork.storage.with_objects(|objects| objects.remove(&key)).unwrap();
        let repo = fork.open_anew().unwrap();
        let left: Vec<_> = repo.snapshots().unwrap().into_iter().map(|left| left.id).collect();
        assert_eq!(left, members.iter().map(|member| member.id).filter(|id| *id != lost.id).collect::<Vec<_>>());
    }
    // One that is forgotten and pruned takes nothing with it either.
    for forgotten in &members {
        let mut fork = state.fork();
        fork.forget(&[forgotten.id]);
        prune_below(&fork.open().unwrap(), 50).unwrap();
        prune_below(&fork.open().unwrap(), 50).unwrap();
        assert_eq!(fork.open_anew().unwrap().snapshots().unwrap().len(), 1);
    }
}
