//! An engine made of a script, for tests: volumes and containers are given and change state as real ones do, calls are
//! recorded, and a call can be made to fail, to take long or to find the world changed. It answers as Docker was seen to, also
//! where that is surprising.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Attached, ContainerDetail, ContainerInfo, EngineInfo, VolumeInfo};
use crate::error::{Error, ErrorKind, Result};

mod engine;
mod script;
mod state;

pub use script::{FakeExec, FakeOutput};
pub use state::FakeState;

use script::{Script, When};

/// A scripted engine. Clones and what `reconnect` gives are connections to the same one.
#[derive(Clone, Default)]
pub struct FakeEngine {
    state: Arc<Mutex<FakeState>>,
    script: Arc<Mutex<Script>>,
    exec: Arc<Mutex<Option<script::ExecAnswer>>>,
    run: Arc<Mutex<Option<script::RunAnswer>>>,
}

impl FakeEngine {
    /// An engine without volumes, containers or a data folder.
    pub fn new() -> Self {
        Self::default()
    }

    /// An engine on this host whose data folder is `root`: volumes added to it or created get their `_data` folder there.
    pub fn at(root: &Path) -> Self {
        let engine = Self::new();
        engine.change(|state| {
            state.folder = Some(root.to_owned());
            state.info = EngineInfo {
                address: "unix:///fake.sock".into(),
                version: "20.10.24".into(),
                api_version: "1.41".into(),
                root_dir: root.display().to_string(),
                id: "FAKE".into(),
                host_name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
                operating_system: "Debian GNU/Linux 12 (bookworm)".into(),
                ..EngineInfo::default()
            };
        });
        engine
    }

    /// Changes what the engine answers with.
    pub fn change(&self, change: impl FnOnce(&mut FakeState)) {
        change(&mut lock(&self.state));
    }

    /// Adds a volume.
    pub fn add_volume(&self, volume: VolumeInfo) {
        self.change(|state| state.add_volume(volume));
    }

    /// Adds a container; without an id it gets `id-NAME`.
    pub fn add_container(&self, container: ContainerInfo) {
        self.change(|state| state.add_container(container));
    }

    /// Adds a container with what only `container` tells of it; without an id it gets `id-NAME`.
    pub fn add_detail(&self, detail: ContainerDetail) {
        self.change(|state| state.add_detail(detail));
    }

    /// Makes the `call`-th call (from 1) fail with `kind`, without an effect.
    pub fn fail_at(&self, call: usize, kind: ErrorKind) {
        lock(&self.script).failures.push((When::Number(call), kind));
    }

    /// Makes each call that is `call` or begins with it and a space (`pause db`, `exec db pg_dump`) fail with `kind`,
    /// without an effect.
    pub fn fail_when(&self, call: &str, kind: ErrorKind) {
        lock(&self.script).failures.push((When::Call(call.into()), kind));
    }

    /// Makes such calls take effect and then fail with `kind`: the answer is lost. A command of `exec` isn't run.
    pub fn fail_after(&self, call: &str, kind: ErrorKind) {
        lock(&self.script).lost_answers.push((When::Call(call.into()), kind));
    }

    /// Takes back all scripted failures and delays.
    pub fn heal(&self) {
        let mut script = lock(&self.script);
        script.failures.clear();
        script.lost_answers.clear();
        script.delays.clear();
    }

    /// Changes the world just before the `call`-th call (from 1) is answered: what another client did meanwhile.
    pub fn before_call(&self, call: usize, change: impl FnMut(&mut FakeState) + Send + 'static) {
        lock(&self.script).actions.push((When::Number(call), Box::new(change)));
    }

    /// Changes the world just before each call that is `call` or begins with it and a space is answered.
    pub fn before(&self, call: &str, change: impl FnMut(&mut FakeState) + Send + 'static) {
        lock(&self.script).actions.push((When::Call(call.into()), Box::new(change)));
    }

    /// Lets each call that is `call` or begins with it and a space wait before it is answered; others go on meanwhile. Where
    /// that is longer than the call's deadline, it fails at the deadline and takes effect all the same, as Docker does.
    pub fn delay(&self, call: &str, time: Duration) {
        lock(&self.script).delays.push((When::Call(call.into()), time));
    }

    /// Answers all commands of `exec` from now on.
    pub fn on_exec(&self, answer: impl FnMut(&mut FakeState, &FakeExec) -> Result<FakeOutput> + Send + 'static) {
        *lock(&self.exec) = Some(Box::new(answer));
    }

    /// Gives the streams of all containers that `run_attached` starts from now on.
    pub fn on_run(&self, answer: impl FnMut(&ContainerDetail) -> Result<Attached> + Send + 'static) {
        *lock(&self.run) = Some(Box::new(answer));
    }

    /// The calls so far, in order: the method's name and what it was asked about.
    pub fn calls(&self) -> Vec<String> {
        lock(&self.script).calls.clone()
    }

    /// Whether there is a volume of that name.
    pub fn has_volume(&self, name: &str) -> bool {
        lock(&self.state).volumes.iter().any(|volume| volume.name == name)
    }

    /// The state of a container, by id or name; none when there is no such container.
    pub fn state_of(&self, id: &str) -> Option<String> {
        let state = lock(&self.state);
        state.find(id).ok().and_then(|at| state.containers.get(at)).map(|container| container.state.clone())
    }

    /// Records a call and answers it by `effect`, unless the script says otherwise.
    fn answer<T>(&self, call: String, effect: impl FnOnce(&mut FakeState) -> Result<T>) -> Result<T> {
        self.answer_within(call, Duration::MAX, effect)
    }

    fn answer_within<T>(&self, call: String, deadline: Duration, effect: impl FnOnce(&mut FakeState) -> Result<T>) -> Result<T> {
        let (number, delay) = lock(&self.script).record(&call);
        std::thread::sleep(delay.min(deadline));
        let mut script = lock(&self.script);
        let mut state = lock(&self.state);
        script.act(number, &call, &mut state);
        if let Some(kind) = script.failure(number, &call) {
            return Err(Error::new(kind, "scripted failure").on(format!("call {number}, {call}")));
        }
        let result = effect(&mut state)?;
        if delay > deadline {
            let cause = std::io::Error::from(std::io::ErrorKind::TimedOut);
            return Err(Error::new(ErrorKind::Docker, "the scripted engine did not answer in time").on(call).because(cause));
        }
        match script.lost_answer(number, &call) {
            Some(kind) => Err(Error::new(kind, "scripted loss of the answer").on(format!("call {number}, {call}"))),
            None => Ok(result),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
