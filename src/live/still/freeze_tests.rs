//! Freezes with a scripted engine: whatever fails, and whenever, nothing stays frozen unsaid.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::freeze::{Ending, FreezeOptions, FreezeReport, freeze};
use super::own::Untouchable;
use super::testing::{Bench, holds, retry};
use crate::error::{Error, ErrorKind, Result};

const IDS: [&str; 3] = ["id-web", "id-app", "id-db"];
const NAMES: [&str; 3] = ["web", "app", "db"];

fn options() -> FreezeOptions {
    FreezeOptions { budget: Duration::from_secs(20), pause_max: Duration::from_secs(10), retry: retry() }
}

fn freeze_and_thaw(bench: &Bench) -> Result<FreezeReport> {
    freeze(&bench.site(), &IDS, &options())?.thaw()
}

fn endings(report: &FreezeReport) -> Vec<(&str, Ending)> {
    report.containers.iter().map(|container| (container.name.as_str(), container.ending.clone())).collect()
}

/// What has to be true after every freeze, whatever happened.
fn check_nothing_left(bench: &Bench, names: &[&str], context: &str) {
    assert_eq!(bench.states(names), vec!["running"; names.len()], "{context}");
    assert_eq!(bench.holds(), 0, "{context}");
}

fn wait_for(bench: &Bench, states: [&str; 3]) {
    let start = Instant::now();
    while bench.states(&NAMES) != states {
        assert!(start.elapsed() < Duration::from_secs(10), "{states:?} is not reached: {:?}", bench.states(&NAMES));
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn hint(error: &Error) -> &str {
    error.advice().unwrap_or_default()
}

#[test]
fn all_are_still_at_once_and_the_journal_is_there_before_the_first_pause() {
    let bench = Bench::new(&NAMES);
    let state = bench.state.path().to_owned();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    bench.engine.before("pause", move |_| note.lock().unwrap().push(holds(&state)));
    let frozen = freeze(&bench.site(), &IDS, &options()).unwrap();
    assert_eq!(bench.states(&NAMES), ["paused"; 3]);
    assert_eq!(*seen.lock().unwrap(), [1; 3]);
    assert!(frozen.is_still() && frozen.time_left() > Duration::from_secs(10) && frozen.moment().seconds > 0);
    std::thread::sleep(Duration::from_millis(5));
    let report = frozen.thaw().unwrap();
    check_nothing_left(&bench, &NAMES, "after a thaw");
    assert_eq!(endings(&report), NAMES.map(|name| (name, Ending::Thawed)));
    assert!(report.void.is_none() && report.frozen >= Duration::from_millis(5), "{report:?}");
    assert!(report.containers.iter().all(|container| container.frozen >= Duration::from_millis(5)), "{report:?}");
    assert_eq!(bench.deeds().len(), 6, "each once");
}

#[test]
fn pauses_are_asked_for_at_the_same_time() {
    let bench = Bench::new(&NAMES);
    bench.engine.delay("pause", Duration::from_millis(200));
    let start = Instant::now();
    drop(freeze(&bench.site(), &IDS, &options()).unwrap());
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

#[test]
fn whichever_call_fails_nothing_stays_paused() {
    let calls = {
        let bench = Bench::new(&NAMES);
        freeze_and_thaw(&bench).unwrap();
        bench.engine.calls().len()
    };
    assert!(calls >= 17, "three looks, the engine's id, pauses, looks, thaws, looks: {calls}");
    for kind in [ErrorKind::Docker, ErrorKind::Busy, ErrorKind::NotFound] {
        for call in 1..=calls + 3 {
            let bench = Bench::new(&NAMES);
            bench.engine.fail_at(call, kind);
            let context = format!("call {call} failed with {kind:?}");
            let result = freeze_and_thaw(&bench);
            assert!(call > calls || !bench.engine.calls().is_empty());
            check_nothing_left(&bench, &NAMES, &context);
            if let Err(error) = result {
                assert_eq!(error.kind(), kind, "{context}: {error}");
            }
        }
    }
}

#[test]
fn whichever_two_calls_fail_nothing_stays_paused_unsaid() {
    for first in 1..24 {
        for second in first + 1..26 {
            let bench = Bench::new(&NAMES);
            bench.engine.fail_at(first, ErrorKind::Docker);
            bench.engine.fail_at(second, ErrorKind::Docker);
            let _ = freeze_and_thaw(&bench);
            check_nothing_left(&bench, &NAMES, &format!("calls {first} and {second} failed"));
        }
    }
}

#[test]
fn an_answer_that_is_lost_is_found_out() {
    for call in ["pause id-app", "unpause id-app", "container id-app"] {
        let bench = Bench::new(&NAMES);
        bench.engine.fail_after(call, ErrorKind::Docker);
        let result = freeze_and_thaw(&bench);
        bench.engine.heal();
        if call.starts_with("container") {
            assert!(result.is_err(), "nothing was begun");
        } else if call.starts_with("pause") {
            assert_eq!(result.unwrap_err().subject(), Some("app"), "{call}");
        } else {
            assert!(result.unwrap().void.unwrap().contains("app"), "who thawed it is not known");
        }
        check_nothing_left(&bench, &NAMES, call);
    }
}

#[test]
fn what_cannot_be_thawed_is_named_with_the_command_and_thawed_by_whoever_comes_next() {
    let bench = Bench::new(&NAMES);
    let frozen = freeze(&bench.site(), &IDS, &options()).unwrap();
    bench.engine.fail_when("unpause id-app", ErrorKind::Docker);
    bench.engine.fail_when("unpause id-db", ErrorKind::Docker);
    let error = frozen.thaw().unwrap_err();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::Docker, Some("app, db")));
    assert!(hint(&error).contains("`docker -H unix:///fake.sock unpause app db`"), "{}", hint(&error));
    assert_eq!((bench.states(&NAMES), bench.holds()), (vec!["running".into(), "paused".into(), "paused".into()], 1));
    let again = bench.recover();
    assert_eq!(again.undone, []);
    assert!(again.problems.len() == 1 && hint(&again.problems[0]).contains("unpause db app"), "{again:?}");
    assert_eq!(bench.holds(), 1);
    bench.engine.heal();
    let done = bench.recover();
    assert_eq!(done.undone.iter().map(|undone| undone.name.as_str()).collect::<Vec<_>>(), ["db", "app"]);
    check_nothing_left(&bench, &NAMES, "after a recovery");
}

#[test]
fn an_engine_that_goes_away_under_a_freeze_leaves_a_journal_for_the_next_command() {
    let bench = Bench::new(&NAMES);
    let frozen = freeze(&bench.site(), &IDS, &options()).unwrap();
    for call in ["unpause", "container"] {
        bench.engine.fail_when(call, ErrorKind::Docker);
    }
    assert!(hint(&frozen.thaw().unwrap_err()).contains("unpause web app db"));
    bench.engine.heal();
    assert_eq!(bench.recover().undone.len(), 3);
    check_nothing_left(&bench, &NAMES, "after a recovery");
}

#[test]
fn what_others_paused_is_still_and_stays_paused() {
    for when in ["before", "meanwhile"] {
        let bench = Bench::new(&NAMES);
        match when {
            "before" => bench.set("app", "paused"),
            _ => bench.engine.before("pause id-app", |world| world.set_state("app", "paused")),
        }
        let report = freeze_and_thaw(&bench).unwrap();
        assert_eq!(bench.states(&NAMES), ["running", "paused", "running"], "{when}");
        assert!(endings(&report).contains(&("app", Ending::PausedByOthers)), "{when}: {report:?}");
        assert_eq!((report.containers.len(), report.void.as_deref(), bench.holds()), (3, None, 0), "{when}");
    }
}

#[test]
fn what_ends_by_itself_is_still_unless_it_comes_back() {
    let bench = Bench::new(&NAMES);
    bench.engine.before("pause id-app", |world| world.set_state("app", "exited"));
    let report = freeze_and_thaw(&bench).unwrap();
    assert!(endings(&report).contains(&("app", Ending::NotRunning)) && report.void.is_none(), "{report:?}");
    assert_eq!(bench.states(&NAMES), ["running", "exited", "running"]);

    for before in [true, false] {
        let bench = Bench::new(&NAMES);
        match before {
            true => bench.set("app", "exited"),
            false => bench.engine.before("pause id-app", |world| world.set_state("app", "exited")),
        }
        let frozen = freeze(&bench.site(), &IDS, &options()).unwrap();
        bench.set("app", "running");
        let void = frozen.thaw().unwrap().void.unwrap();
        assert_eq!(void, "app: somebody started it", "{before}");
    }
}

#[test]
fn one_that_disappears_is_an_error_after_all_others_are_thawed() {
    let bench = Bench::new(&NAMES);
    bench.engine.before("pause id-app", |world| world.remove_container("app"));
    let error = freeze_and_thaw(&bench).unwrap_err();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::NotFound, Some("app")));
    check_nothing_left(&bench, &["web", "db"], "one is gone");
}

#[test]
fn somebody_who_thaws_or_restarts_or_removes_one_under_us_makes_it_void() {
    for (to, word) in [("running", "thawed"), ("exited", "stopped"), ("again", "restarted"), ("gone", "removed")] {
        let bench = Bench::new(&NAMES);
        let frozen = freeze(&bench.site(), &IDS, &options()).unwrap();
        match to {
            "gone" => bench.engine.change(|world| world.remove_container("app")),
            "again" => ["exited", "running"].iter().for_each(|state| bench.set("app", state)),
            state => bench.set("app", state),
        }
        assert_eq!(frozen.thaw().unwrap().void.unwrap(), format!("app: somebody else {word} it"));
        assert_eq!(bench.holds(), 0);
    }
}

#[test]
fn a_hanging_owner_is_thawed_by_the_watchdog_and_told() {
    let bench = Bench::new(&NAMES);
    let short = FreezeOptions { budget: Duration::from_millis(500), ..options() };
    let frozen = freeze(&bench.site(), &IDS, &short).unwrap();
    assert!(frozen.is_still());
    wait_for(&bench, ["running"; 3]);
    let start = Instant::now();
    while bench.holds() > 0 {
        assert!(start.elapsed() < Duration::from_secs(10), "the journal stays");
    }
    assert!(!frozen.is_still() && frozen.time_left().is_zero());
    let deeds = bench.deeds();
    let report = frozen.thaw().unwrap();
    assert!(report.void.unwrap().contains("the time for the freeze was up"));
    assert_eq!(bench.deeds(), deeds, "nothing was left to thaw");
}

#[test]
fn the_watchdog_goes_on_until_it_succeeds() {
    let bench = Bench::new(&NAMES);
    let short = FreezeOptions { budget: Duration::from_millis(500), ..options() };
    bench.engine.fail_when("unpause id-db", ErrorKind::Docker);
    let frozen = freeze(&bench.site(), &IDS, &short).unwrap();
    wait_for(&bench, ["running", "running", "paused"]);
    std::thread::sleep(Duration::from_millis(100));
    bench.engine.heal();
    wait_for(&bench, ["running"; 3]);
    assert!(frozen.thaw().unwrap().void.is_some());
    check_nothing_left(&bench, &NAMES, "after the watchdog");
}

#[test]
fn while_this_thread_hangs_in_a_call_the_watchdog_thaws_the_others_and_then_that_one() {
    let bench = Bench::new(&NAMES);
    bench.engine.delay("container id-db", Duration::from_secs(1));
    let short = FreezeOptions { budget: Duration::from_millis(300), ..options() };
    let error = std::thread::scope(|scope| {
        let freezing = scope.spawn(|| freeze(&bench.site(), &IDS, &short).map(|_| ()));
        wait_for(&bench, ["paused"; 3]);
        wait_for(&bench, ["running", "running", "paused"]);
        freezing.join().unwrap().unwrap_err()
    });
    assert!(error.to_string().contains("not all frozen within 0.3 s"), "{error}");
    check_nothing_left(&bench, &NAMES, "after the watchdog");
}

#[test]
fn a_pause_that_never_completes_is_named_and_all_are_thawed() {
    let bench = Bench::new(&NAMES);
    bench.engine.delay("pause id-db", Duration::from_secs(60));
    let impatient = FreezeOptions { pause_max: Duration::from_millis(50), ..options() };
    let error = freeze(&bench.site(), &IDS, &impatient).err().unwrap();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::Docker, Some("db")));
    assert!(error.to_string().contains("not frozen within 0.1 s"), "{error}");
    check_nothing_left(&bench, &NAMES, "after a pause that hung");
}

#[test]
fn a_pause_that_takes_effect_late_is_undone() {
    let bench = Bench::new(&NAMES);
    bench.engine.fail_when("pause id-db", ErrorKind::Docker);
    let looks = AtomicUsize::new(0);
    // Looked at before, after the call that failed, when it was to be thawed, and then once more.
    bench.engine.before("container id-db", move |world| {
        if looks.fetch_add(1, Ordering::SeqCst) == 3 {
            world.set_state("db", "paused");
        }
    });
    assert!(freeze_and_thaw(&bench).is_err());
    assert!(bench.deeds().contains(&"unpause id-db".to_owned()), "{:?}", bench.deeds());
    check_nothing_left(&bench, &NAMES, "after a late pause");
}

#[test]
fn what_must_not_be_held_is_refused_before_anything_is_touched() {
    let mut bench = Bench::new(&NAMES);
    bench.untouchable = Untouchable::default();
    bench.untouchable.forbid("id-app", "the server of the repository");
    let error = freeze_and_thaw(&bench).unwrap_err();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::Usage, Some("app")));
    assert!(error.to_string().contains("the server of the repository"), "{error}");
    assert!(bench.deeds().is_empty());

    let bench = Bench::new(&NAMES);
    bench.set("app", "restarting");
    assert_eq!(freeze_and_thaw(&bench).unwrap_err().kind(), ErrorKind::Busy);
    assert!(bench.deeds().is_empty());
}

#[test]
fn what_is_at_rest_needs_no_journal_no_watchdog_and_has_no_deadline() {
    let bench = Bench::new(&NAMES);
    NAMES.iter().for_each(|name| bench.set(name, "exited"));
    let frozen = freeze(&bench.site(), &IDS, &options()).unwrap();
    assert_eq!((bench.holds(), frozen.time_left()), (0, Duration::MAX));
    assert_eq!(bench.engine.calls().len(), 3, "{:?}", bench.engine.calls());
    let report = frozen.thaw().unwrap();
    assert_eq!(endings(&report), NAMES.map(|name| (name, Ending::NotRunning)));
    assert_eq!((report.void, report.frozen), (None, Duration::ZERO));
    assert!(freeze(&bench.site(), &[], &options()).unwrap().thaw().unwrap().containers.is_empty());
}

#[test]
fn a_container_named_twice_is_frozen_once() {
    let bench = Bench::new(&NAMES);
    let report = freeze(&bench.site(), &["id-db", "db", "id-db"], &options()).unwrap().thaw().unwrap();
    assert_eq!((report.containers.len(), bench.deeds().len()), (1, 2));
}

#[test]
fn a_return_or_a_panic_thaws() {
    let bench = Bench::new(&NAMES);
    drop(freeze(&bench.site(), &IDS, &options()).unwrap());
    check_nothing_left(&bench, &NAMES, "after a drop");
    let panicked = std::thread::scope(|scope| {
        let work = || {
            let _frozen = freeze(&bench.site(), &IDS, &options()).unwrap();
            assert_eq!(bench.states(&NAMES), ["paused"; 3]);
            unreachable!("the capture panics")
        };
        scope.spawn(work).join().is_err()
    });
    assert!(panicked);
    check_nothing_left(&bench, &NAMES, "after a panic");
}

#[test]
fn without_a_place_for_the_journal_nothing_is_paused() {
    let bench = Bench::new(&NAMES);
    std::fs::write(bench.state.path().join("holds"), "").unwrap();
    assert!(freeze_and_thaw(&bench).unwrap_err().to_string().contains("so none is"));
    assert!(bench.deeds().is_empty());
}
