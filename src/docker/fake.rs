//! An engine made of a script, for tests: volumes and containers are given, calls are recorded, call N can be made to fail or
//! to find the world changed. It answers as Docker was seen to, also where that is surprising.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{ContainerInfo, Engine, EngineInfo, NewVolume, VolumeInfo, VolumeList, check_volume_name, no_such_volume};
use crate::error::{Error, ErrorKind, IoContext, Result};

type Action = Box<dyn FnMut(&mut FakeState) + Send>;

/// A scripted engine.
#[derive(Default)]
pub struct FakeEngine {
    state: Mutex<FakeState>,
    script: Mutex<Script>,
}

/// What a [`FakeEngine`] answers with.
#[derive(Debug, Default)]
pub struct FakeState {
    /// What `info` answers.
    pub info: EngineInfo,
    /// What `volumes` warns about.
    pub warnings: Vec<String>,
    /// The containers.
    pub containers: Vec<ContainerInfo>,
    volumes: Vec<VolumeInfo>,
    folder: Option<PathBuf>,
}

#[derive(Default)]
struct Script {
    calls: Vec<String>,
    failures: Vec<(usize, ErrorKind)>,
    actions: Vec<(usize, Action)>,
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

    /// Adds a container.
    pub fn add_container(&self, container: ContainerInfo) {
        self.change(|state| state.containers.push(container));
    }

    /// Makes the `call`-th call (from 1) fail with `kind`, without an effect.
    pub fn fail_at(&self, call: usize, kind: ErrorKind) {
        lock(&self.script).failures.push((call, kind));
    }

    /// Changes the world just before the `call`-th call (from 1) is answered: what another client did meanwhile.
    pub fn before_call(&self, call: usize, change: impl FnMut(&mut FakeState) + Send + 'static) {
        lock(&self.script).actions.push((call, Box::new(change)));
    }

    /// The calls so far, in order: the method's name and the volume's.
    pub fn calls(&self) -> Vec<String> {
        lock(&self.script).calls.clone()
    }

    /// Whether there is a volume of that name.
    pub fn has_volume(&self, name: &str) -> bool {
        lock(&self.state).volumes.iter().any(|volume| volume.name == name)
    }

    fn call(&self, call: String) -> Result<MutexGuard<'_, FakeState>> {
        let mut script = lock(&self.script);
        script.calls.push(call);
        let number = script.calls.len();
        let mut state = lock(&self.state);
        for (_, action) in script.actions.iter_mut().filter(|(at, _)| *at == number) {
            action(&mut state);
        }
        match script.failures.iter().find(|(at, _)| *at == number) {
            Some((_, kind)) => Err(Error::new(*kind, "scripted failure").on(format!("call {number}"))),
            None => Ok(state),
        }
    }
}

impl FakeState {
    /// Adds a volume; on an engine with a data folder a volume of the local driver without a mountpoint gets one there.
    pub fn add_volume(&mut self, mut volume: VolumeInfo) {
        if let Some(folder) = self.folder.as_ref().filter(|_| volume.driver == "local" && volume.mountpoint.is_empty()) {
            let data = folder.join("volumes").join(&volume.name).join("_data");
            // A failure shows in the test: the folder is missing.
            let _ = std::fs::create_dir_all(&data);
            volume.mountpoint = data.display().to_string();
        }
        self.volumes.push(volume);
        self.volumes.sort_by(|a, b| a.name.cmp(&b.name));
    }
}

impl Engine for FakeEngine {
    fn info(&self) -> Result<EngineInfo> {
        Ok(self.call("info".into())?.info.clone())
    }

    fn volumes(&self) -> Result<VolumeList> {
        let state = self.call("volumes".into())?;
        Ok(VolumeList { volumes: state.volumes.clone(), warnings: state.warnings.clone() })
    }

    fn volume(&self, name: &str) -> Result<VolumeInfo> {
        check_volume_name(name)?;
        let state = self.call(format!("volume {name}"))?;
        state.volumes.iter().find(|volume| volume.name == name).cloned().ok_or_else(|| no_such_volume(name))
    }

    fn containers(&self) -> Result<Vec<ContainerInfo>> {
        Ok(self.call("containers".into())?.containers.clone())
    }

    fn put_volume(&self, new: &NewVolume) -> Result<VolumeInfo> {
        check_volume_name(&new.name)?;
        let mut state = self.call(format!("put_volume {}", new.name))?;
        if let Some(old) = state.volumes.iter().find(|volume| volume.name == new.name) {
            return Ok(old.clone());
        }
        let made = VolumeInfo {
            name: new.name.clone(),
            driver: new.driver.clone(),
            scope: "local".into(),
            labels: new.labels.clone(),
            options: new.options.clone(),
            ..VolumeInfo::default()
        };
        state.add_volume(made);
        state.volumes.iter().find(|volume| volume.name == new.name).cloned().ok_or_else(|| no_such_volume(&new.name))
    }

    fn remove_volume(&self, name: &str) -> Result<()> {
        check_volume_name(name)?;
        let mut state = self.call(format!("remove_volume {name}"))?;
        let at = state.volumes.iter().position(|volume| volume.name == name).ok_or_else(|| no_such_volume(name))?;
        if state.containers.iter().any(|container| container.mounts.iter().any(|mount| mount.volume.as_deref() == Some(name))) {
            return Err(Error::new(ErrorKind::Busy, "the volume is in use").on(name));
        }
        state.volumes.remove(at);
        match &state.folder {
            Some(folder) => match std::fs::remove_dir_all(folder.join("volumes").join(name)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                other => other.context(ErrorKind::Docker, "cannot remove a volume's folder", name),
            },
            None => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
