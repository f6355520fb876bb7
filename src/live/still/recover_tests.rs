//! What the next command does about holds whose owner died. A dead owner is a journal that nobody has locked.

use std::cell::Cell;
use std::time::Duration;

use super::journal::{Act, Held, Journal, Owner, Plan};
use super::recover::{Recovery, recover};
use super::testing::{Bench, retry};
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::docker::Engine;
use crate::error::{Error, ErrorKind};

const NAMES: [&str; 3] = ["web", "app", "db"];

fn held(bench: &Bench, name: &str, act: Act) -> Held {
    let detail = bench.engine.container(name).unwrap();
    Held { id: detail.id, name: detail.name, started_at: detail.started_at, act, grace_seconds: Some(7) }
}

fn plan(bench: &Bench, act: Act) -> Plan {
    Plan {
        engine_address: "unix:///fake.sock".into(),
        engine_id: "FAKE".into(),
        // A process of our id that was started at another time.
        owner: Owner { started_ticks: 1, ..Owner::this() },
        deadline: Some(1000),
        containers: NAMES.iter().map(|name| held(bench, name, act)).collect(),
    }
}

fn journal(bench: &Bench, act: Act) -> Journal {
    Journal::create(bench.state.path(), &plan(bench, act)).unwrap()
}

/// All three paused, and their owner dead.
fn died_frozen() -> Bench {
    let bench = Bench::new(&NAMES);
    drop(journal(&bench, Act::Pause));
    NAMES.iter().for_each(|name| bench.set(name, "paused"));
    bench
}

fn undone(recovery: &Recovery) -> Vec<&str> {
    assert!(recovery.problems.is_empty(), "{:?}", recovery.problems);
    recovery.undone.iter().map(|undone| undone.name.as_str()).collect()
}

#[test]
fn what_a_dead_process_froze_is_thawed_and_told_once() {
    let bench = died_frozen();
    let found = bench.recover();
    assert_eq!(undone(&found), ["db", "app", "web"]);
    assert!(found.undone.iter().all(|undone| undone.act == Act::Pause && undone.process == std::process::id()));
    assert_eq!((bench.states(&NAMES), bench.holds()), (vec!["running".to_owned(); 3], 0));
    let calls = bench.engine.calls().len();
    assert_eq!(undone(&bench.recover()), [] as [&str; 0]);
    assert_eq!(bench.engine.calls().len(), calls, "without a hold the engine is not asked");
}

#[test]
fn without_a_folder_of_holds_nothing_is_made_and_nobody_is_asked() {
    let state = tempfile::tempdir().unwrap();
    let found = recover(&state.path().join("none"), &|_| unreachable!("asked"), &SystemClock::default(), &retry());
    assert!(found.undone.is_empty() && found.problems.is_empty());
    assert_eq!(std::fs::read_dir(state.path()).unwrap().count(), 0);
}

#[test]
fn what_others_paused_since_stays_paused() {
    let bench = Bench::new(&NAMES);
    let mut journal = journal(&bench, Act::Pause);
    // Thawed by us before we died, and paused by somebody else later.
    journal.settled("id-web").unwrap();
    drop(journal);
    // Restarted, and then paused by somebody else.
    ["exited", "running", "paused"].iter().for_each(|state| bench.set("app", state));
    bench.set("web", "paused");
    bench.set("db", "paused");
    assert_eq!(undone(&bench.recover()), ["db"]);
    assert_eq!(bench.states(&NAMES), ["paused", "paused", "running"]);
    assert_eq!(bench.holds(), 0);
}

#[test]
fn what_runs_or_is_gone_needs_nothing() {
    let bench = Bench::new(&NAMES);
    drop(journal(&bench, Act::Pause));
    bench.set("app", "exited");
    bench.engine.change(|world| world.remove_container("db"));
    assert_eq!(undone(&bench.recover()), [] as [&str; 0]);
    assert!(bench.deeds().is_empty());
    assert_eq!(bench.holds(), 0);
}

#[test]
fn a_stop_that_had_begun_is_undone_unless_somebody_started_it_since() {
    let bench = Bench::new(&NAMES);
    let mut journal = journal(&bench, Act::Stop);
    journal.begun(["id-web", "id-app"]).unwrap();
    drop(journal);
    // Ours; started and stopped again by somebody else; stopped by somebody else before its turn had come.
    bench.set("web", "exited");
    ["exited", "running", "exited"].iter().for_each(|state| bench.set("app", state));
    bench.set("db", "exited");
    let found = bench.recover();
    assert_eq!(undone(&found), ["web"]);
    assert_eq!(found.undone[0].act, Act::Stop);
    assert_eq!(bench.states(&NAMES), ["running", "exited", "exited"]);
    assert_eq!(bench.holds(), 0);
}

#[test]
fn whichever_call_fails_the_containers_run_or_the_journal_stays() {
    for act in [Act::Pause, Act::Stop] {
        for kind in [ErrorKind::Docker, ErrorKind::Busy] {
            for call in 4..20 {
                let bench = Bench::new(&NAMES);
                let mut journal = journal(&bench, act);
                journal.begun(["id-web", "id-app", "id-db"]).unwrap();
                drop(journal);
                let to = if act == Act::Pause { "paused" } else { "exited" };
                NAMES.iter().for_each(|name| bench.set(name, to));
                bench.engine.fail_at(call, kind);
                let first = bench.recover();
                let context = format!("call {call} failed with {kind:?}, {act:?}: {first:?}");
                assert_eq!(first.problems.is_empty(), bench.holds() == 0, "{context}");
                if !first.problems.is_empty() {
                    bench.engine.heal();
                    undone(&bench.recover());
                }
                assert_eq!((bench.states(&NAMES), bench.holds()), (vec!["running".to_owned(); 3], 0), "{context}");
            }
        }
    }
}

#[test]
fn an_engine_out_of_reach_keeps_all_journals_and_is_asked_once() {
    let bench = died_frozen();
    drop(journal(&bench, Act::Pause));
    let asked = Cell::new(0);
    let connect = |address: &str| -> crate::error::Result<Box<dyn Engine>> {
        asked.set(asked.get() + 1);
        Err(Error::new(ErrorKind::Docker, "cannot connect").on(address))
    };
    let found = recover(bench.state.path(), &connect, &SystemClock::default(), &retry());
    assert_eq!((asked.get(), found.problems.len(), bench.holds()), (1, 1, 2));
    let error = &found.problems[0];
    assert!(error.to_string().contains("db, app, web") && error.to_string().contains("cannot connect"), "{error}");
    assert!(error.advice().unwrap().contains("`docker -H unix:///fake.sock unpause db app web`"), "{error:?}");
    bench.recover();
    assert_eq!((bench.states(&NAMES), bench.holds()), (vec!["running".to_owned(); 3], 0));
}

#[test]
fn another_engine_at_the_same_address_is_not_taken_for_ours() {
    let bench = died_frozen();
    bench.engine.change(|world| world.info.id = "OTHER".into());
    let found = bench.recover();
    assert!(found.problems[0].to_string().contains("another container engine"), "{found:?}");
    assert_eq!((bench.states(&NAMES), bench.holds()), (vec!["paused".to_owned(); 3], 1));
}

#[test]
fn what_a_living_process_holds_is_left_alone_and_said_when_it_is_overdue() {
    let bench = Bench::new(&NAMES);
    let living = Journal::create(bench.state.path(), &Plan { owner: Owner::this(), ..plan(&bench, Act::Pause) }).unwrap();
    NAMES.iter().for_each(|name| bench.set(name, "paused"));
    let look = |seconds| {
        let clock = ManualClock::at(seconds);
        recover(bench.state.path(), &|_| unreachable!("asked"), &clock as &dyn Clock, &retry())
    };
    assert_eq!(undone(&look(1030)), [] as [&str; 0]);
    let late = look(1070);
    assert_eq!(late.problems[0].kind(), ErrorKind::Busy);
    assert!(late.problems[0].advice().unwrap().contains(&format!("kill -CONT {}", std::process::id())), "{late:?}");
    assert_eq!((bench.states(&NAMES), bench.holds()), (vec!["paused".to_owned(); 3], 1));
    drop(living);
    assert_eq!(undone(&bench.recover()), ["db", "app", "web"]);
}

#[test]
fn one_journal_that_cannot_be_read_does_not_keep_others_from_being_recovered() {
    let bench = died_frozen();
    let bad = bench.state.path().join("holds/0000000000000000");
    std::fs::write(&bad, "junk\n").unwrap();
    let found = bench.recover();
    assert_eq!((found.undone.len(), found.problems.len(), bench.holds()), (3, 1, 1));
    let error = &found.problems[0];
    assert_eq!((error.kind(), error.subject()), (ErrorKind::Damaged, bad.to_str()));
}

#[test]
fn two_who_recover_at_once_do_not_get_in_each_other_s_way() {
    let bench = died_frozen();
    bench.engine.delay("unpause", Duration::from_millis(50));
    let found: Vec<Recovery> = std::thread::scope(|scope| {
        let both = [scope.spawn(|| bench.recover()), scope.spawn(|| bench.recover())];
        both.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(found.iter().map(|one| one.undone.len()).sum::<usize>(), 3, "{found:?}");
    assert!(found.iter().all(|one| one.problems.is_empty()), "{found:?}");
    assert_eq!((bench.states(&NAMES), bench.holds()), (vec!["running".to_owned(); 3], 0));
}

/// Makes the only journal look as if it was last written that long ago.
fn age(bench: &Bench, seconds: u64) {
    let folder = bench.state.path().join("holds");
    let path = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    let then = std::time::SystemTime::now() - Duration::from_secs(seconds);
    std::fs::File::options().append(true).open(path).unwrap().set_modified(then).unwrap();
}

#[test]
fn a_pause_that_its_owner_did_not_live_to_see_is_undone() {
    for (seconds, expected) in [(1, "running"), (3600, "paused")] {
        let bench = Bench::new(&NAMES);
        drop(journal(&bench, Act::Pause));
        age(&bench, seconds);
        let mut looks = 0;
        bench.engine.before("container id-db", move |world| {
            looks += 1;
            if looks == 2 {
                world.set_state("db", "paused");
            }
        });
        bench.recover();
        let _ = bench.engine.container("id-db");
        assert_eq!(bench.states(&["db"]), [expected], "one of long ago cannot come any more");
    }
}

#[test]
fn a_stop_that_the_engine_may_still_be_at_is_awaited_and_undone() {
    for (seconds, deeds) in [(1, vec!["stop id-app 7s", "start id-app"]), (3600, vec![])] {
        let bench = Bench::new(&NAMES);
        let mut journal = journal(&bench, Act::Stop);
        journal.begun(["id-app"]).unwrap();
        drop(journal);
        age(&bench, seconds);
        assert_eq!(undone(&bench.recover()).len(), deeds.len() / 2);
        assert_eq!(bench.deeds(), deeds);
        assert_eq!((bench.states(&NAMES), bench.holds()), (vec!["running".to_owned(); 3], 0));
    }
}
