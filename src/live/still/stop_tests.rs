//! Stops with a scripted engine: order, health, and that whatever fails, what ran runs again.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::stop::{Condition, StopOptions, StopReport, StopTarget, stop};
use super::testing::{Bench, holds, retry, running};
use crate::docker::ContainerDetail;
use crate::error::{ErrorKind, Result};

const NAMES: [&str; 3] = ["db", "web", "app"];

fn options() -> StopOptions {
    StopOptions { wait: Some(Duration::from_secs(10)), poll: Duration::from_millis(1), retry: retry() }
}

fn service(name: &str, depends_on: &str) -> ContainerDetail {
    let mut detail = running(name);
    for (key, value) in [("project", "shop"), ("service", name), ("depends_on", depends_on)] {
        detail.labels.insert(format!("com.docker.compose.{key}"), value.to_owned());
    }
    detail
}

/// web depends on app, app on db.
fn stack() -> Bench {
    let bench = Bench::new(&[]);
    for (name, on) in [("db", ""), ("web", "app:service_started:false"), ("app", "db:service_healthy:true")] {
        bench.engine.add_detail(service(name, on));
    }
    bench
}

fn targets() -> Vec<StopTarget<'static>> {
    ["id-db", "id-web", "id-app"].into_iter().map(|id| StopTarget { id, grace: None }).collect()
}

fn stop_and_start(bench: &Bench) -> Result<StopReport> {
    stop(&bench.site(), &targets(), &options())?.start()
}

fn check_nothing_left(bench: &Bench, context: &str) {
    assert_eq!(bench.states(&NAMES), ["running"; 3], "{context}");
    assert_eq!(bench.holds(), 0, "{context}");
}

#[test]
fn dependents_stop_first_and_start_last_each_with_its_grace() {
    let bench = stack();
    let state = bench.state.path().to_owned();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    bench.engine.before("stop", move |_| note.lock().unwrap().push(holds(&state)));
    let mut targets = targets();
    targets[0].grace = Some(Duration::from_secs(90));
    let stopped = stop(&bench.site(), &targets, &options()).unwrap();
    assert_eq!(bench.states(&NAMES), ["exited"; 3]);
    assert!(stopped.moment().seconds > 0);
    let report = stopped.start().unwrap();
    let deeds = ["stop id-web", "stop id-app", "stop id-db 90s", "start id-db", "start id-app", "start id-web"];
    assert_eq!(bench.deeds(), deeds);
    assert_eq!(*seen.lock().unwrap(), [1; 3], "the journal is there before the first stop");
    check_nothing_left(&bench, "after a start");
    let names: Vec<_> = report.containers.iter().map(|container| (container.name.as_str(), &container.now)).collect();
    assert_eq!(names, [("web", &Condition::Running), ("app", &Condition::Running), ("db", &Condition::Running)]);
    assert_eq!(report.void, None);
}

#[test]
fn a_group_waits_until_the_one_before_it_is_healthy() {
    let bench = stack();
    bench.engine.before("start id-db", |world| world.set_health("db", Some("starting")));
    let mut looks = 0;
    bench.engine.before("container id-db", move |world| {
        looks += 1;
        if looks == 9 {
            world.set_health("db", Some("healthy"));
        }
    });
    let report = stop_and_start(&bench).unwrap();
    assert_eq!(report.containers[2].now, Condition::Healthy);
    let calls = bench.engine.calls();
    let at = |wanted: &str| calls.iter().position(|call| call == wanted).unwrap();
    let looks_between = calls[at("start id-db")..at("start id-app")].iter().filter(|call| *call == "container id-db").count();
    assert!(looks_between >= 5, "{calls:?}");
}

#[test]
fn health_that_does_not_come_is_said_and_holds_nobody_up_for_ever() {
    for (wait, expected) in [(Some(Duration::from_millis(20)), Condition::NotHealthy("unhealthy".into())), (None, Condition::Running)] {
        let bench = stack();
        bench.engine.change(|world| world.set_health("db", Some("unhealthy")));
        let report = stop(&bench.site(), &targets(), &StopOptions { wait, ..options() }).unwrap().start().unwrap();
        assert_eq!(report.containers[2].now, expected);
        check_nothing_left(&bench, "unhealthy");
    }
}

#[test]
fn only_what_ran_is_started() {
    let bench = stack();
    bench.set("app", "exited");
    let report = stop_and_start(&bench).unwrap();
    assert_eq!(bench.deeds(), ["stop id-web", "stop id-db", "start id-db", "start id-web"], "the order holds across one that is down");
    assert_eq!((report.containers.len(), report.void), (2, None));

    let bench = stack();
    bench.set("app", "paused");
    assert_eq!(stop_and_start(&bench).unwrap().containers.len(), 2);
    assert_eq!(bench.states(&NAMES), ["running", "running", "paused"], "what somebody paused is left alone");

    let bench = stack();
    NAMES.iter().for_each(|name| bench.set(name, "exited"));
    assert!(stop_and_start(&bench).unwrap().containers.is_empty());
    assert_eq!(bench.engine.calls().len(), 6, "a look before and one after");
}

#[test]
fn whichever_call_fails_what_ran_runs_again() {
    let calls = {
        let bench = stack();
        stop_and_start(&bench).unwrap();
        bench.engine.calls().len()
    };
    assert!(calls >= 19, "{calls}");
    for kind in [ErrorKind::Docker, ErrorKind::Busy] {
        for call in 1..=calls + 3 {
            let bench = stack();
            bench.engine.fail_at(call, kind);
            let context = format!("call {call} failed with {kind:?}");
            if let Err(error) = stop_and_start(&bench) {
                assert_eq!(error.kind(), kind, "{context}: {error}");
            }
            check_nothing_left(&bench, &context);
        }
    }
}

#[test]
fn one_that_does_not_stop_ends_it_and_the_others_come_back() {
    let bench = stack();
    bench.engine.fail_when("stop id-db", ErrorKind::Docker);
    let error = stop_and_start(&bench).unwrap_err();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::Docker, Some("db")));
    check_nothing_left(&bench, "one did not stop");
}

#[test]
fn one_that_the_engine_stops_late_is_started_all_the_same() {
    let bench = stack();
    bench.engine.fail_when("stop id-db", ErrorKind::Docker);
    let mut looks = 0;
    // Looked at before, after the call that failed, whether it is still, when it was to be started, and then once more.
    bench.engine.before("container id-db", move |world| {
        looks += 1;
        if looks == 5 {
            world.set_state("db", "exited");
        }
    });
    assert!(stop_and_start(&bench).is_err());
    assert!(bench.deeds().contains(&"start id-db".to_owned()), "{:?}", bench.deeds());
    check_nothing_left(&bench, "stopped late");
}

#[test]
fn what_cannot_be_started_is_named_with_the_command_and_started_by_whoever_comes_next() {
    let bench = stack();
    let stopped = stop(&bench.site(), &targets(), &options()).unwrap();
    bench.engine.fail_when("start id-db", ErrorKind::Docker);
    let error = stopped.start().unwrap_err();
    assert_eq!(error.subject(), Some("db"));
    assert!(error.advice().unwrap().contains("`docker -H unix:///fake.sock start db`"), "{error}");
    assert_eq!((bench.states(&NAMES), bench.holds()), (vec!["exited".into(), "running".into(), "running".into()], 1));
    bench.engine.heal();
    assert_eq!(bench.recover().undone.len(), 1);
    check_nothing_left(&bench, "after a recovery");
}

#[test]
fn somebody_who_starts_one_under_us_makes_it_void() {
    let bench = stack();
    let stopped = stop(&bench.site(), &targets(), &options()).unwrap();
    bench.set("app", "running");
    assert_eq!(stopped.start().unwrap().void.unwrap(), "app: somebody started it");
    check_nothing_left(&bench, "started by others");
}

#[test]
fn one_that_ends_right_after_its_start_is_said_and_not_started_for_ever() {
    let bench = stack();
    let mut looks = 0;
    bench.engine.before("container id-db", move |world| {
        looks += 1;
        if looks == 5 {
            world.set_state("db", "exited");
        }
    });
    let report = stop_and_start(&bench).unwrap();
    assert_eq!(report.containers[2].now, Condition::Ended);
    assert_eq!(bench.deeds().iter().filter(|deed| *deed == "start id-db").count(), 1);
    assert_eq!(bench.holds(), 0);
}

#[test]
fn what_would_not_come_back_is_refused_before_anything_is_stopped() {
    let swarm: fn(&mut ContainerDetail) = |detail| {
        detail.labels.insert("com.docker.swarm.task.id".into(), "t".into());
    };
    let removed: fn(&mut ContainerDetail) = |detail| detail.auto_remove = true;
    for odd in [swarm, removed] {
        let bench = stack();
        let mut detail = service("report", "db");
        odd(&mut detail);
        bench.engine.add_detail(detail);
        let mut targets = targets();
        targets.push(StopTarget { id: "id-report", grace: None });
        let error = stop(&bench.site(), &targets, &options()).err().unwrap();
        assert_eq!((error.kind(), error.subject()), (ErrorKind::Unsupported, Some("report")));
        assert!(bench.deeds().is_empty());
    }
}

#[test]
fn a_return_starts_what_ran() {
    let bench = stack();
    drop(stop(&bench.site(), &targets(), &options()).unwrap());
    check_nothing_left(&bench, "after a drop");
}
