//! Freezes and stops of real containers, and what is left when their owner is killed. Skipped where there is no engine.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::freeze::{Ending, FreezeOptions, freeze};
use super::hold::{Retry, Site};
use super::own::Untouchable;
use super::recover::{Recovery, recover};
use super::stop::{StopOptions, StopTarget, stop};
use super::testing::holds;
use crate::clock::{Clock, SystemClock};
use crate::docker::bollard::BollardEngine;
use crate::docker::{Engine, NewContainer};

const STATE_VARIABLE: &str = "ICECORE_TEST_LIVE_STATE";
const IDS_VARIABLE: &str = "ICECORE_TEST_LIVE_IDS";
const ACT_VARIABLE: &str = "ICECORE_TEST_LIVE_ACT";

/// Some real containers that sleep; removed with their image at the end.
struct Lab {
    engine: BollardEngine,
    image: String,
    ids: Vec<String>,
    state: tempfile::TempDir,
    clock: Arc<dyn Clock>,
    untouchable: Untouchable,
}

impl Lab {
    fn new(count: usize) -> Option<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let engine = rustix::process::geteuid().is_root().then(|| BollardEngine::connect(None).ok()).flatten()?;
        let image = format!("icecore-test-live-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        let mut lab = Self::around(engine, tempfile::tempdir().unwrap());
        lab.engine.import_image(&image, "latest", &[], &mut root_of_sleep()?.as_slice()).unwrap();
        lab.image = image;
        for _ in 0..count {
            let cmd = vec!["/bin/sleep".to_owned(), "600".to_owned()];
            let id = lab.engine.create_container(&NewContainer { image: lab.image.clone(), cmd, ..NewContainer::default() }).unwrap();
            lab.ids.push(id.clone());
            lab.engine.start(&id).unwrap();
        }
        Some(lab)
    }

    fn around(engine: BollardEngine, state: tempfile::TempDir) -> Self {
        let clock = Arc::new(SystemClock::default());
        Self { engine, image: String::new(), ids: Vec::new(), state, clock, untouchable: Untouchable::own() }
    }

    fn site<'a>(&'a self, state_dir: &'a Path) -> Site<'a> {
        Site { engine: &self.engine, state_dir, clock: &self.clock, untouchable: &self.untouchable }
    }

    fn ids(&self) -> Vec<&str> {
        self.ids.iter().map(String::as_str).collect()
    }

    fn states(&self) -> Vec<String> {
        self.ids.iter().map(|id| self.engine.container(id).unwrap().state).collect()
    }

    fn recover(&self) -> Recovery {
        let connect = |address: &str| Ok(Box::new(BollardEngine::connect(Some(address))?) as Box<dyn Engine>);
        recover(self.state.path(), &connect, &*self.clock, &Retry::default())
    }

    /// This test program, doing nothing but [`child_of_a_test`].
    fn child(&self, act: &str) -> std::process::Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "live::still::real_tests::child_of_a_test", "--nocapture"])
            .env(STATE_VARIABLE, self.state.path())
            .env(IDS_VARIABLE, self.ids.join(","))
            .env(ACT_VARIABLE, act)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for id in &self.ids {
            let _ = self.engine.remove_container(id);
        }
        if !self.image.is_empty() {
            let _ = Command::new("docker").args(["rmi", "--force", &self.image]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// A root file system with nothing but `sleep` and what it is linked to.
fn root_of_sleep() -> Option<Vec<u8>> {
    let linked = Command::new("ldd").arg("/bin/sleep").output().ok()?.stdout;
    let linked = String::from_utf8(linked).ok()?;
    let mut tar = tar::Builder::new(Vec::new());
    for path in linked.split_whitespace().filter(|word| word.starts_with('/')).chain(["/bin/sleep"]) {
        tar.append_file(path.trim_start_matches('/'), &mut std::fs::File::open(path).ok()?).ok()?;
    }
    tar.into_inner().ok()
}

/// Freezes or stops until it is killed; a test only in name, and only in a process that another test has made for it.
#[test]
fn child_of_a_test() {
    let Some(state) = std::env::var_os(STATE_VARIABLE) else { return };
    let ids = std::env::var(IDS_VARIABLE).unwrap();
    let ids: Vec<&str> = ids.split(',').collect();
    let lab = Lab::around(BollardEngine::connect(None).unwrap(), tempfile::tempdir().unwrap());
    let site = lab.site(Path::new(&state));
    if std::env::var(ACT_VARIABLE).unwrap() == "stop" {
        let targets: Vec<_> = ids.iter().map(|id| StopTarget { id, grace: Some(Duration::ZERO) }).collect();
        let _stopped = stop(&site, &targets, &StopOptions::default()).unwrap();
        std::thread::sleep(Duration::from_secs(600));
    }
    loop {
        let frozen = freeze(&site, &ids, &FreezeOptions::default()).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        frozen.thaw().unwrap();
    }
}

#[test]
fn real_containers_are_frozen_together_and_thawed() {
    let Some(lab) = Lab::new(3) else { return };
    lab.engine.pause(&lab.ids[2], Duration::from_secs(10)).unwrap();
    let options = FreezeOptions { budget: Duration::from_secs(60), pause_max: Duration::from_secs(20), ..FreezeOptions::default() };
    let frozen = freeze(&lab.site(lab.state.path()), &lab.ids(), &options).unwrap();
    assert_eq!((lab.states(), holds(lab.state.path())), (vec!["paused".to_owned(); 3], 1));
    let report = frozen.thaw().unwrap();
    assert_eq!((lab.states(), holds(lab.state.path())), (vec!["running".into(), "running".into(), "paused".into()], 0));
    let endings: Vec<_> = report.containers.iter().map(|container| container.ending.clone()).collect();
    assert_eq!(endings, [Ending::Thawed, Ending::Thawed, Ending::PausedByOthers]);
    assert_eq!(report.void, None);
}

#[test]
fn a_real_container_is_thawed_by_the_watchdog() {
    let Some(lab) = Lab::new(1) else { return };
    let options = FreezeOptions { budget: Duration::from_secs(3), ..FreezeOptions::default() };
    let frozen = freeze(&lab.site(lab.state.path()), &lab.ids(), &options).unwrap();
    let start = Instant::now();
    while lab.states() != ["running"] {
        assert!(start.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(!frozen.is_still());
    assert!(frozen.thaw().unwrap().void.is_some());
    assert_eq!(holds(lab.state.path()), 0);
}

#[test]
fn whenever_its_owner_is_killed_the_next_command_thaws_real_containers() {
    let Some(lab) = Lab::new(2) else { return };
    let mut found_paused = 0;
    for moment in 0..12 {
        let mut child = lab.child("freeze");
        let start = Instant::now();
        // The first hold shows that it is at work.
        while holds(lab.state.path()) == 0 {
            assert!(start.elapsed() < Duration::from_secs(60), "the child does nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(lab.recover().undone.is_empty(), "a living hold is left alone");
        std::thread::sleep(Duration::from_millis(moment * 23));
        child.kill().unwrap();
        child.wait().unwrap();
        found_paused += lab.states().iter().filter(|state| *state == "paused").count();
        let found = lab.recover();
        assert!(found.problems.is_empty(), "{found:?}");
        assert_eq!((lab.states(), holds(lab.state.path())), (vec!["running".to_owned(); 2], 0), "killed at moment {moment}");
    }
    assert!(found_paused > 0, "no kill met a freeze");
}

#[test]
fn what_a_killed_owner_had_stopped_is_started_by_the_next_command() {
    let Some(lab) = Lab::new(2) else { return };
    let mut child = lab.child("stop");
    let start = Instant::now();
    while lab.states() != ["exited", "exited"] {
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", lab.states());
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(lab.recover().undone.len(), 2);
    assert_eq!((lab.states(), holds(lab.state.path())), (vec!["running".to_owned(); 2], 0));
}

#[test]
fn real_containers_are_stopped_and_started_again() {
    let Some(lab) = Lab::new(2) else { return };
    let targets: Vec<_> = lab.ids.iter().map(|id| StopTarget { id, grace: Some(Duration::ZERO) }).collect();
    let stopped = stop(&lab.site(lab.state.path()), &targets, &StopOptions::default()).unwrap();
    assert_eq!((lab.states(), holds(lab.state.path())), (vec!["exited".to_owned(); 2], 1));
    let report = stopped.start().unwrap();
    assert_eq!((lab.states(), holds(lab.state.path())), (vec!["running".to_owned(); 2], 0));
    assert_eq!((report.containers.len(), report.void), (2, None));
}
