//! A scripted engine, a state folder and impatient options, for the tests of this module.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use super::hold::{Retry, Site};
use super::journal::Holds;
use super::own::Untouchable;
use super::recover::{Recovery, recover};
use crate::clock::{Clock, SystemClock};
use crate::docker::fake::FakeEngine;
use crate::docker::{ContainerDetail, Engine};

pub(in crate::live) struct Bench {
    pub(in crate::live) state: TempDir,
    pub(in crate::live) engine: FakeEngine,
    pub(in crate::live) untouchable: Untouchable,
    clock: Arc<dyn Clock>,
}

impl Bench {
    /// An engine with running containers of these names, whose ids are `id-NAME`.
    pub(in crate::live) fn new(names: &[&str]) -> Self {
        let state = tempfile::tempdir().unwrap();
        let engine = FakeEngine::at(state.path());
        for name in names {
            engine.add_detail(running(name));
        }
        Self { state, engine, untouchable: Untouchable::default(), clock: Arc::new(SystemClock::default()) }
    }

    pub(in crate::live) fn site(&self) -> Site<'_> {
        Site { engine: &self.engine, state_dir: self.state.path(), clock: &self.clock, untouchable: &self.untouchable }
    }

    pub(in crate::live) fn holds(&self) -> usize {
        holds(self.state.path())
    }

    pub(in crate::live) fn set(&self, id: &str, state: &str) {
        self.engine.change(|world| world.set_state(id, state));
    }

    pub(in crate::live) fn states(&self, names: &[&str]) -> Vec<String> {
        names.iter().map(|name| self.engine.state_of(name).unwrap_or_else(|| "gone".into())).collect()
    }

    pub(in crate::live) fn recover(&self) -> Recovery {
        recover(self.state.path(), &|_| Ok(Box::new(self.engine.clone()) as Box<dyn Engine>), &*self.clock, &retry())
    }

    /// The calls that change something, without the looks.
    pub(in crate::live) fn deeds(&self) -> Vec<String> {
        let is_deed = |call: &String| ["pause", "unpause", "stop", "start"].iter().any(|deed| call.starts_with(&format!("{deed} ")));
        self.engine.calls().into_iter().filter(is_deed).collect()
    }
}

pub(in crate::live) fn running(name: &str) -> ContainerDetail {
    ContainerDetail {
        name: name.into(),
        state: "running".into(),
        started_at: format!("2026-01-01T00:00:00.{}Z", name.len()),
        ..ContainerDetail::default()
    }
}

pub(in crate::live) fn holds(state: &Path) -> usize {
    Holds::open(state).unwrap().map_or(0, |holds| holds.names().unwrap().len())
}

pub(in crate::live) fn retry() -> Retry {
    let wait = Duration::from_millis;
    Retry { rounds_max: 10, wait_first: wait(1), wait_max: wait(4), patience: Duration::from_secs(10), settle: wait(3) }
}
