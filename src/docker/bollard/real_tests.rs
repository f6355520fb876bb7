//! With the engine of this machine, where there is one that we may use as root. Images are made of this machine's own
//! programs, so that nothing is downloaded.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::docker::{NewMount, NewMountSource, create_volume, users};
use ::bollard::query_parameters::RemoveImageOptions;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const PROGRAMS: [&str; 7] = ["sh", "cat", "sleep", "head", "id", "env", "kill"];

fn real_engine() -> Option<BollardEngine> {
    rustix::process::geteuid().is_root().then(|| BollardEngine::connect(None).ok()).flatten()
}

/// A name of our own on an engine that others use, too. All that was made under it goes away at the end, also of a failed test.
struct Place {
    engine: BollardEngine,
    name: String,
    containers: Mutex<Vec<String>>,
}

impl Place {
    fn new() -> Option<Self> {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("icecore-test-engine-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Some(Self { engine: real_engine()?, name, containers: Mutex::default() })
    }

    /// A place with an image of the [`PROGRAMS`].
    fn with_programs() -> Option<Self> {
        let place = Self::new()?;
        place.engine.import_image(&place.name, "1", &[], &mut programs()?.as_slice()).unwrap();
        Some(place)
    }

    fn image(&self) -> String {
        format!("{}:1", self.name)
    }

    fn spec(&self, cmd: &[&str]) -> NewContainer {
        NewContainer { image: self.image(), cmd: cmd.iter().map(|part| (*part).to_owned()).collect(), ..NewContainer::default() }
    }

    fn create(&self, new: &NewContainer) -> String {
        let id = self.engine.create_container(new).unwrap();
        self.containers.lock().unwrap().push(id.clone());
        id
    }

    /// A container that runs `script`.
    fn run(&self, script: &str) -> String {
        let id = self.create(&self.spec(&["/bin/sh", "-c", script]));
        self.engine.start(&id).unwrap();
        id
    }

    fn exec(&self, id: &str, script: &str) -> (Result<ExecOutcome>, Vec<u8>) {
        self.exec_with(id, &ExecSpec::new(["/bin/sh", "-c", script], SECOND * 60), None)
    }

    fn exec_with(&self, id: &str, spec: &ExecSpec, stdin: Option<&mut (dyn Read + Send)>) -> (Result<ExecOutcome>, Vec<u8>) {
        let mut out = Vec::new();
        let result = self.engine.exec(id, spec, stdin, &mut |bytes| {
            out.extend_from_slice(bytes);
            Ok(())
        });
        (result, out)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for id in self.containers.lock().unwrap().iter() {
            let _ = self.engine.remove_container(id);
        }
        let image = self.image();
        let _ = self.engine.ask(|docker| async move { docker.remove_image(&image, None::<RemoveImageOptions>, None).await });
        let _ = self.engine.remove_volume(&self.name);
    }
}

/// A root file system of this machine's programs and the libraries that they need.
fn programs() -> Option<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut libraries = BTreeSet::new();
    for program in PROGRAMS {
        let path =
            ["/bin", "/usr/bin"].map(|folder| format!("{folder}/{program}")).into_iter().find(|path| std::fs::exists(path).unwrap())?;
        let needs = String::from_utf8(Command::new("ldd").arg(&path).output().ok()?.stdout).ok()?;
        libraries.extend(needs.split_ascii_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned));
        tar.append_path_with_name(std::fs::canonicalize(&path).unwrap(), format!("bin/{program}")).unwrap();
    }
    for library in libraries {
        tar.append_path_with_name(std::fs::canonicalize(&library).unwrap(), library.trim_start_matches('/')).unwrap();
    }
    let mut passwd = tar::Header::new_gnu();
    let users = b"root:x:0:0::/:/bin/sh\nguest:x:77:77::/:/bin/sh\n";
    passwd.set_size(users.len() as u64);
    passwd.set_mode(0o644);
    tar.append_data(&mut passwd, "etc/passwd", users.as_slice()).unwrap();
    Some(tar.into_inner().unwrap())
}

/// Runs until it is told to stop, and obeys.
const OBEDIENT: &str = "trap 'exit 0' TERM; while :; do sleep 0.05; done";

#[test]
fn a_real_engine_creates_lists_and_removes_a_volume_and_knows_its_users() {
    let Some(place) = Place::with_programs() else { return };
    let (engine, name) = (&place.engine, place.name.clone());
    let info = engine.info().unwrap();
    assert!(info.root_dir.starts_with('/') && !info.version.is_empty() && !info.id.is_empty(), "{info:?}");

    assert_eq!(engine.volume(&name).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(!engine.volumes().unwrap().volumes.iter().any(|volume| volume.name == name), "asking made no volume");
    let mount = |source: NewMountSource, destination: &str, read_only| NewMount { source, destination: destination.into(), read_only };
    let data = mount(NewMountSource::Volume { name: name.clone(), no_copy: true }, "/data", true);
    let mut new = place.spec(&["/none"]);
    new.mounts = vec![data.clone()];
    assert_eq!(engine.create_container(&new).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(engine.volume(&name).unwrap_err().kind(), ErrorKind::NotFound, "a container made no volume");

    let labels = BTreeMap::from([("icecore.test".to_owned(), "ä".to_owned())]);
    let volume = NewVolume { name: name.clone(), driver: "local".into(), labels: labels.clone(), ..NewVolume::default() };
    let made = create_volume(engine, &volume).unwrap();
    assert_eq!((&made.labels, made.scope.as_str()), (&labels, "local"));
    assert_eq!(create_volume(engine, &volume).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(engine.put_volume(&NewVolume { labels: BTreeMap::new(), ..volume }).unwrap().labels, labels, "the old one comes back");

    let parent = made.mountpoint.trim_end_matches("/_data").to_owned();
    new.mounts = vec![data, mount(NewMountSource::Bind(parent), "/host", false)];
    new.name = Some(name.clone());
    place.create(&new);
    assert_eq!(engine.create_container(&new).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let volumes = engine.volumes().unwrap().volumes;
    let found: Vec<_> = users(&made, &volumes, &engine.containers().unwrap()).into_iter().filter(|u| u.container == name).collect();
    let seen: Vec<_> = found.iter().map(|user| (user.destination.as_str(), user.writable, user.state.as_str())).collect();
    assert_eq!(seen, [("/data", false, "created"), ("/host/_data", true, "created")]);
    assert_eq!(engine.remove_volume(&name).unwrap_err().kind(), ErrorKind::Busy);

    let absent = mount(NewMountSource::Bind(format!("/var/tmp/{name}-none")), "/x", true);
    engine.create_container(&NewContainer { mounts: vec![absent], name: None, ..new }).unwrap_err();
    engine.remove_container(&name).unwrap();
    engine.remove_volume(&name).unwrap();
    assert_eq!(engine.volume(&name).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_real_container_is_frozen_thawed_stopped_and_started() {
    let Some(place) = Place::with_programs() else { return };
    let engine = &place.engine;
    let id = place.run(OBEDIENT);
    let running = engine.container(&id).unwrap();
    assert_eq!((running.running, running.paused, running.state.as_str(), running.exit_code), (true, false, "running", None));
    assert!(running.pid > 0 && running.image == place.image() && running.networks == ["none"], "{running:?}");
    assert!(engine.containers().unwrap().iter().any(|container| container.id == id && container.name == running.name));

    assert_eq!(engine.unpause(&id, SECOND * 10).unwrap_err().kind(), ErrorKind::Busy, "it is not paused");
    engine.pause(&id, SECOND * 10).unwrap();
    let paused = engine.reconnect().unwrap().container(&id).unwrap();
    assert_eq!((paused.running, paused.paused, paused.state.as_str()), (true, true, "paused"));
    assert_eq!(engine.pause(&id, SECOND * 10).unwrap_err().kind(), ErrorKind::Busy, "it is paused already");
    assert_eq!(engine.start(&id).unwrap_err().kind(), ErrorKind::Busy);
    let error = place.exec(&id, "true").0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    engine.unpause(&id, SECOND * 10).unwrap();
    assert!(!engine.container(&id).unwrap().paused);

    engine.pause(&id, SECOND * 10).unwrap();
    engine.stop(&id, Some(SECOND * 20)).unwrap();
    engine.stop(&id, None).unwrap();
    let stopped = engine.container(&id).unwrap();
    assert_eq!((stopped.running, stopped.paused, stopped.state.as_str(), stopped.pid), (false, false, "exited", 0));
    assert_eq!(stopped.exit_code, Some(0), "it obeyed, also when it was paused");
    for error in [engine.pause(&id, SECOND * 10).unwrap_err(), place.exec(&id, "true").0.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    }
    engine.start(&id).unwrap();
    engine.start(&id).unwrap();
    assert_ne!(engine.container(&id).unwrap().started_at, stopped.started_at);

    let deaf = place.run("trap '' TERM; while :; do sleep 0.05; done");
    let start = Instant::now();
    engine.stop(&deaf, Some(Duration::from_millis(900))).unwrap();
    assert_eq!(engine.container(&deaf).unwrap().exit_code, Some(137));
    assert!(start.elapsed() > Duration::from_millis(900) && start.elapsed() < SECOND * 9, "{:?}", start.elapsed());

    engine.remove_container(&id).unwrap();
    engine.remove_container(&id).unwrap();
    let gone = [
        engine.container(&id).unwrap_err(),
        engine.pause(&id, SECOND).unwrap_err(),
        engine.unpause(&id, SECOND).unwrap_err(),
        engine.stop(&id, None).unwrap_err(),
        engine.start(&id).unwrap_err(),
        place.exec(&id, "true").0.unwrap_err(),
        engine.run_attached(&id).unwrap_err(),
        engine.archive(&id, "/").err().unwrap(),
    ];
    for error in gone {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
}

#[test]
fn commands_in_a_real_container_give_all_their_output_and_their_exit_code() {
    let Some(place) = Place::with_programs() else { return };
    let id = place.run(OBEDIENT);
    let (outcome, out) = place.exec(&id, "echo a; echo why >&2; echo b; exit 3");
    let outcome = outcome.unwrap();
    assert_eq!((outcome.code, outcome.stderr.as_slice(), out.as_slice()), (3, b"why\n".as_slice(), b"a\nb\n".as_slice()));

    let (outcome, out) = place.exec(&id, "head -c 20000000 /dev/zero");
    assert_eq!((outcome.unwrap().code, out.len(), out.iter().all(|byte| *byte == 0)), (0, 20_000_000, true));

    let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (outcome, out) = place.exec_with(&id, &ExecSpec::new(["cat"], SECOND * 60), Some(&mut bytes.as_slice()));
    assert!(outcome.unwrap().code == 0 && out == bytes);
    let (outcome, out) = place.exec_with(&id, &ExecSpec::new(["cat"], SECOND * 60), Some(&mut [].as_slice()));
    assert_eq!((outcome.unwrap().code, out.len()), (0, 0));
    let (outcome, out) = place.exec_with(&id, &ExecSpec::new(["cat"], SECOND * 60), None);
    assert_eq!((outcome.unwrap().code, out.len()), (0, 0), "no stdin is an empty one");
    let (outcome, _) = place.exec_with(&id, &ExecSpec::new(["head", "-c", "1"], SECOND * 60), Some(&mut io::repeat(7)));
    assert_eq!(outcome.unwrap().code, 0, "a command need not read all of its stdin");

    let mut spec = ExecSpec::new(["sh", "-c", "id -u; echo $HERE; pwd"], SECOND * 60);
    spec.user = Some("guest".into());
    spec.env = vec![("HERE".into(), "a b=c".into())];
    spec.working_dir = Some("/etc".into());
    let (outcome, out) = place.exec_with(&id, &spec, None);
    assert_eq!((outcome.unwrap().code, String::from_utf8(out).unwrap().as_str()), (0, "77\na b=c\n/etc\n"));

    let (outcome, _) = place.exec_with(&id, &ExecSpec::new(["pg_dump"], SECOND * 60), None);
    let outcome = outcome.unwrap();
    let words = String::from_utf8(outcome.stderr).unwrap();
    assert!([126, 127].contains(&outcome.code) && words.contains("pg_dump"), "{} {words}", outcome.code);
}

#[test]
fn a_command_that_hangs_in_a_real_container_is_left_running_and_named() {
    let Some(place) = Place::with_programs() else { return };
    let id = place.run(OBEDIENT);
    let start = Instant::now();
    let spec = ExecSpec::new(["sh", "-c", "echo begun; while :; do sleep 0.1; done"], SECOND * 2);
    let (result, out) = place.exec_with(&id, &spec, None);
    let error = result.unwrap_err();
    assert_eq!((error.io_kind(), out.as_slice()), (Some(io::ErrorKind::TimedOut), b"begun\n".as_slice()), "{error}");
    assert!(start.elapsed() < SECOND * 20);
    let hint = error.advice().unwrap().to_owned();
    let inside = hint.strip_prefix("it was left running as process ").unwrap().split(' ').next().unwrap();
    assert!(hint.contains("of the container"), "{hint}");
    let (outcome, _) = place.exec(&id, &format!("kill -0 {inside}"));
    assert_eq!(outcome.unwrap().code, 0, "{hint}");
    // A stopped reader must not keep the container from stopping.
    place.engine.stop(&id, Some(SECOND * 10)).unwrap();
}

#[test]
fn a_container_that_ends_or_is_frozen_under_a_command_does_not_make_it_a_success() {
    let Some(place) = Place::with_programs() else { return };
    let id = place.run(OBEDIENT);
    let (ended, frozen) = std::thread::scope(|scope| {
        let running = scope.spawn(|| place.exec(&id, "echo a; while :; do sleep 0.1; done").0);
        std::thread::sleep(SECOND);
        let idle = ExecSpec { idle: SECOND, ..ExecSpec::new(["sh", "-c", "while :; do echo a; sleep 0.1; done"], SECOND * 60) };
        let other = scope.spawn({
            let (place, id) = (&place, &id);
            move || place.exec_with(id, &idle, None).0
        });
        std::thread::sleep(SECOND);
        place.engine.pause(&id, SECOND * 10).unwrap();
        let frozen = other.join().unwrap();
        place.engine.unpause(&id, SECOND * 10).unwrap();
        place.engine.remove_container(&id).unwrap();
        (running.join().unwrap(), frozen)
    });
    assert!(ended.as_ref().map_or(true, |outcome| outcome.code != 0), "{ended:?}");
    assert_eq!(frozen.unwrap_err().io_kind(), Some(io::ErrorKind::TimedOut));
}

#[test]
fn a_real_helper_is_made_talked_to_and_removed() {
    let Some(place) = Place::with_programs() else { return };
    let engine = &place.engine;
    engine.put_volume(&NewVolume { name: place.name.clone(), driver: "local".into(), ..NewVolume::default() }).unwrap();
    let mut new = place.spec(&["cat"]);
    new.entrypoint = vec!["/bin/sh".into(), "-c".into(), "echo ready >&2; echo x >/data/f; echo y >/no; exec cat; :".into()];
    new.cmd = Vec::new();
    new.open_stdin = true;
    new.read_only_rootfs = true;
    new.labels = BTreeMap::from([("icecore.helper".to_owned(), "1".to_owned())]);
    let source = NewMountSource::Volume { name: place.name.clone(), no_copy: true };
    new.mounts = vec![NewMount { source, destination: "/data".into(), read_only: true }];
    let id = place.create(&new);
    let detail = engine.container(&id).unwrap();
    assert_eq!((detail.state.as_str(), detail.labels.get("icecore.helper").map(String::as_str)), ("created", Some("1")));
    assert!(!detail.mounts[0].writable && detail.exit_code.is_none(), "{detail:?}");

    let attached = engine.run_attached(&id).unwrap();
    let bytes: Vec<u8> = (0..2_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (mut reader, mut writer) = (attached.reader, attached.writer);
    let echoed = std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&bytes).unwrap();
            drop(writer);
        });
        let mut echoed = Vec::new();
        reader.read_to_end(&mut echoed).unwrap();
        echoed
    });
    assert!(echoed == bytes);
    let said = String::from_utf8(attached.stderr.bytes()).unwrap();
    assert!(said.contains("ready") && said.matches("ead-only file system").count() == 2, "{said}");
    let end = Instant::now() + SECOND * 10;
    while engine.container(&id).unwrap().running && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(engine.container(&id).unwrap().exit_code, Some(0));
    engine.remove_container(&id).unwrap();
}

#[test]
fn a_real_image_is_imported_and_a_path_of_a_helper_archived() {
    let Some(place) = Place::new() else { return };
    let engine = &place.engine;
    assert_eq!(engine.image(&place.image()).unwrap_err().kind(), ErrorKind::NotFound);
    let Some(tar) = programs() else { return };
    let changes = ["LABEL icecore.test=a", r#"ENTRYPOINT ["/bin/sh", "-c"]"#, "ENV PLACE=here"];
    let id = engine.import_image(&place.name, "1", &changes, &mut tar.as_slice()).unwrap();
    let image = engine.image(&place.image()).unwrap();
    assert_eq!((&image.id, image.os.as_str(), image.repo_tags.as_slice()), (&id, "linux", [place.image()].as_slice()));
    assert_eq!(image.labels.get("icecore.test").map(String::as_str), Some("a"));
    assert!(image.env.contains(&("PLACE".to_owned(), "here".to_owned())) && !image.architecture.is_empty(), "{image:?}");
    assert_eq!(engine.image(&id).unwrap(), image);

    let helper = place.create(&place.spec(&["true"]));
    let mut bytes = Vec::new();
    engine.archive(&helper, "/bin/sh").unwrap().read_to_end(&mut bytes).unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let (mut seen, mut shell) = (Vec::new(), Vec::new());
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        seen.push(entry.path().unwrap().to_path_buf());
        entry.read_to_end(&mut shell).unwrap();
    }
    assert_eq!(seen, [std::path::Path::new("sh")]);
    assert!(shell == std::fs::read("/bin/sh").unwrap());
    assert_eq!(engine.archive(&helper, "/none").err().unwrap().kind(), ErrorKind::NotFound);
    drop(engine.archive(&helper, "/").unwrap());
    assert!(engine.networks().unwrap().iter().any(|network| network.name == "bridge" && !network.subnets.is_empty()));

    struct Half(bool);
    impl Read for Half {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if std::mem::replace(&mut self.0, true) { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(buffer.len().min(512)) }
        }
    }
    assert_eq!(engine.import_image(&place.name, "half", &[], &mut Half(false)).unwrap_err().kind(), ErrorKind::Source);
    assert_eq!(engine.image(&format!("{}:half", place.name)).unwrap_err().kind(), ErrorKind::NotFound);
    let error = engine.import_image(&place.name, "odd", &[], &mut [b'x'; 100_000].as_slice()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Docker, "{error}");
}

#[test]
fn real_containers_are_frozen_at_the_same_time() {
    let Some(place) = Place::with_programs() else { return };
    let engine = &place.engine;
    let ids: Vec<_> = (0..4).map(|_| place.run(OBEDIENT)).collect();
    let frozen: Vec<_> = std::thread::scope(|scope| {
        let pauses: Vec<_> = ids.iter().map(|id| scope.spawn(move || engine.pause(id, SECOND * 20))).collect();
        pauses.into_iter().map(|pause| pause.join().unwrap().is_ok()).collect()
    });
    assert_eq!(frozen, [true; 4]);
    assert!(ids.iter().all(|id| engine.container(id).unwrap().paused));
    for id in &ids {
        engine.unpause(id, SECOND * 20).unwrap();
    }
}
