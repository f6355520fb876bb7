#![allow(clippy::unwrap_used)]

use super::*;
use crate::docker::{Engine, ExecSpec, ImageInfo, NewContainer, NewMount, NewMountSource};
use std::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn engine(states: &[(&str, &str)]) -> FakeEngine {
    let engine = FakeEngine::new();
    for (name, state) in states {
        engine.add_container(ContainerInfo { name: (*name).into(), state: (*state).into(), ..ContainerInfo::default() });
    }
    engine
}

#[test]
fn containers_change_state_as_real_ones_do() {
    let engine = engine(&[("db", "running"), ("off", "exited")]);
    engine.pause("db", SECOND).unwrap();
    let detail = engine.container("id-db").unwrap();
    assert_eq!((detail.running, detail.paused, detail.state.as_str()), (true, true, "paused"));
    assert!(detail.pid > 0);
    assert_eq!(engine.pause("db", SECOND).unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(engine.start("db").unwrap_err().kind(), ErrorKind::Busy);
    engine.unpause("db", SECOND).unwrap();
    assert_eq!(engine.unpause("db", SECOND).unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(engine.pause("off", SECOND).unwrap_err().kind(), ErrorKind::Busy);
    assert_eq!(engine.pause("none", SECOND).unwrap_err().kind(), ErrorKind::NotFound);

    engine.stop("db", Some(Duration::from_secs(30))).unwrap();
    engine.stop("db", None).unwrap();
    let stopped = engine.container("db").unwrap();
    assert_eq!((stopped.running, stopped.pid, stopped.exit_code), (false, 0, Some(0)));
    engine.start("db").unwrap();
    engine.start("db").unwrap();
    assert_ne!(engine.container("db").unwrap().started_at, stopped.started_at);
    assert_eq!(engine.calls()[8..11], ["stop db 30s", "stop db", "container db"]);
}

#[test]
fn a_call_fails_before_or_after_its_effect_or_meets_its_deadline() {
    let engine = engine(&[("db", "running"), ("db2", "running")]);
    engine.fail_when("pause db", ErrorKind::Docker);
    assert_eq!(engine.pause("db", SECOND).unwrap_err().kind(), ErrorKind::Docker);
    assert_eq!(engine.state_of("db").unwrap(), "running");
    engine.pause("db2", SECOND).unwrap();
    engine.heal();
    engine.fail_after("pause db", ErrorKind::Docker);
    assert_eq!(engine.pause("db", SECOND).unwrap_err().kind(), ErrorKind::Docker);
    assert_eq!(engine.state_of("db").unwrap(), "paused");

    engine.delay("unpause db", Duration::from_secs(60));
    let start = Instant::now();
    let error = engine.unpause("db", Duration::from_millis(10)).unwrap_err();
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::TimedOut));
    assert_eq!(engine.state_of("db").unwrap(), "running");
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn another_client_acts_before_a_call_and_connections_share_the_world() {
    let engine = engine(&[("db", "running")]);
    engine.before("pause db", |state| state.remove_container("db"));
    let other = engine.reconnect().unwrap();
    assert_eq!(other.pause("db", SECOND).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(engine.calls(), ["reconnect", "pause db"]);
    assert_eq!(engine.state_of("db"), None);
}

#[test]
fn commands_are_answered_by_the_script() {
    let engine = engine(&[("db", "running")]);
    let spec = ExecSpec::new(["cat"], SECOND);
    assert_eq!(engine.exec("db", &spec, None, &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Docker);
    engine.on_exec(|state, exec| match exec.line().as_str() {
        "cat" => Ok(FakeOutput::new(exec.stdin.clone().unwrap_or_default())),
        "end" => {
            state.set_state(&exec.container, "exited");
            Ok(FakeOutput::failed(3, "why"))
        }
        _ => Ok(FakeOutput::broken("half", ErrorKind::Docker)),
    });
    let mut seen = Vec::new();
    let mut collect = |bytes: &[u8]| {
        seen.extend_from_slice(bytes);
        Ok(())
    };
    let outcome = engine.exec("db", &spec, Some(&mut [7; 2500].as_slice()), &mut collect).unwrap();
    assert_eq!((outcome.code, seen.as_slice()), (0, [7; 2500].as_slice()));

    let mut seen = Vec::new();
    let broken = engine.exec("db", &ExecSpec::new(["x", "y"], SECOND), None, &mut |bytes| {
        seen.extend_from_slice(bytes);
        assert_eq!(engine.calls().last().unwrap(), "exec db x y");
        Ok(())
    });
    assert_eq!((broken.unwrap_err().kind(), seen.as_slice()), (ErrorKind::Docker, b"half".as_slice()));

    let outcome = engine.exec("db", &ExecSpec::new(["end"], SECOND), None, &mut |_| Ok(())).unwrap();
    assert_eq!((outcome.code, outcome.stderr.as_slice()), (3, b"why".as_slice()));
    assert_eq!(engine.exec("db", &spec, None, &mut |_| Ok(())).unwrap_err().kind(), ErrorKind::Busy);
}

#[test]
fn helpers_are_made_of_known_images_and_volumes_only_and_go_away() {
    let engine = FakeEngine::new();
    let mount =
        NewMount { source: NewMountSource::Volume { name: "data".into(), no_copy: true }, destination: "/data".into(), read_only: true };
    let new = NewContainer { name: Some("helper".into()), image: "own:1".into(), mounts: vec![mount], ..NewContainer::default() };
    assert_eq!(engine.create_container(&new).unwrap_err().kind(), ErrorKind::NotFound);
    let image = engine.import_image("own", "1", &[], &mut b"tar".as_slice()).unwrap();
    assert_eq!(engine.image("own:1").unwrap(), engine.image(&image).unwrap());
    assert_eq!(engine.create_container(&new).unwrap_err().kind(), ErrorKind::NotFound, "no volume either");
    engine.add_volume(VolumeInfo { name: "data".into(), ..VolumeInfo::default() });
    let id = engine.create_container(&new).unwrap();
    assert_eq!(engine.create_container(&new).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(engine.container(&id).unwrap().mounts[0].volume.as_deref(), Some("data"));
    assert_eq!(engine.run_attached(&id).unwrap_err().kind(), ErrorKind::Docker, "no streams yet");
    engine.change(|state| {
        state.archives.insert("/data".into(), b"t".to_vec());
        state.images.push(ImageInfo::default());
    });
    let mut tar = Vec::new();
    engine.archive(&id, "/data").unwrap().read_to_end(&mut tar).unwrap();
    assert_eq!(tar, b"t");
    assert_eq!(engine.archive(&id, "/none").err().unwrap().kind(), ErrorKind::NotFound);
    engine.remove_container(&id).unwrap();
    engine.remove_container(&id).unwrap();
    assert_eq!(engine.containers().unwrap(), []);
}
