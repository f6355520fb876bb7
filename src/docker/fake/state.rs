//! The world of a scripted engine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::docker::{ContainerDetail, ContainerInfo, EngineInfo, ImageInfo, MountInfo, NetworkInfo, NewContainer};
use crate::docker::{NewMountSource, VolumeInfo, no_such_container};
use crate::error::{Error, ErrorKind, Result};

/// What a [`super::FakeEngine`] answers with.
#[derive(Debug, Default)]
pub struct FakeState {
    /// What `info` answers.
    pub info: EngineInfo,
    /// What `volumes` warns about.
    pub warnings: Vec<String>,
    /// The containers.
    pub containers: Vec<ContainerInfo>,
    /// What `networks` answers.
    pub networks: Vec<NetworkInfo>,
    /// The images; imported ones are added.
    pub images: Vec<ImageInfo>,
    /// The tar streams that `archive` gives, by the path asked for.
    pub archives: BTreeMap<String, Vec<u8>>,
    /// The containers that `create_container` was asked for, by id.
    pub created: BTreeMap<String, NewContainer>,
    /// The root file systems that `import_image` was given, by the image's id.
    pub imported: BTreeMap<String, Vec<u8>>,
    pub(super) details: BTreeMap<String, ContainerDetail>,
    pub(super) volumes: Vec<VolumeInfo>,
    pub(super) folder: Option<PathBuf>,
    starts: u64,
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

    /// Adds a container; without an id it gets `id-NAME`.
    pub fn add_container(&mut self, mut container: ContainerInfo) {
        if container.id.is_empty() {
            container.id = format!("id-{}", container.name);
        }
        self.containers.push(container);
    }

    /// Adds a container with what only `container` tells of it; its `state` decides on `running`, `paused` and `pid`.
    pub fn add_detail(&mut self, mut detail: ContainerDetail) {
        if detail.id.is_empty() {
            detail.id = format!("id-{}", detail.name);
        }
        self.add_container(ContainerInfo {
            id: detail.id.clone(),
            name: detail.name.clone(),
            image: detail.image.clone(),
            state: detail.state.clone(),
            labels: detail.labels.clone(),
            mounts: detail.mounts.clone(),
        });
        self.details.insert(detail.id.clone(), detail);
    }

    /// Removes a container, by id or name, as if another client had.
    pub fn remove_container(&mut self, id: &str) {
        if let Ok(at) = self.find(id) {
            let gone = self.containers.remove(at);
            self.details.remove(&gone.id);
        }
    }

    /// Puts a container, by id or name, into a state. Going from a still state to a running one is another start.
    pub fn set_state(&mut self, id: &str, new: &str) {
        let Ok(at) = self.find(id) else { return };
        let Some(container) = self.containers.get_mut(at) else { return };
        if !runs(&container.state) && runs(new) {
            self.starts += 1;
            let detail = self.details.entry(container.id.clone()).or_default();
            detail.started_at = format!("2026-01-01T00:00:{:02}.000000000Z", self.starts);
        }
        container.state = new.to_owned();
    }

    /// Sets what a health check found, by id or name.
    pub fn set_health(&mut self, id: &str, health: Option<&str>) {
        let Some(container) = self.find(id).ok().and_then(|at| self.containers.get(at)) else { return };
        self.details.entry(container.id.clone()).or_default().health = health.map(str::to_owned);
    }

    /// The position of a container by its id, its name or the beginning of its id.
    pub(super) fn find(&self, id: &str) -> Result<usize> {
        let by = |is: &dyn Fn(&ContainerInfo) -> bool| self.containers.iter().position(is);
        let found = by(&|container| container.id == id).or_else(|| by(&|container| container.name == id));
        found.or_else(|| by(&|container| container.id.starts_with(id))).ok_or_else(|| no_such_container(id))
    }

    /// The container's id and state.
    pub(super) fn container_state(&self, id: &str) -> Result<(String, String)> {
        let container = self.containers.get(self.find(id)?).ok_or_else(|| no_such_container(id))?;
        Ok((container.id.clone(), container.state.clone()))
    }

    pub(super) fn detail(&self, id: &str) -> Result<ContainerDetail> {
        let at = self.find(id)?;
        let container = self.containers.get(at).ok_or_else(|| no_such_container(id))?;
        let known = self.details.get(&container.id).cloned().unwrap_or_default();
        let running = runs(&container.state);
        let pid = if known.pid == 0 { 1000 + at as i64 } else { known.pid };
        Ok(ContainerDetail {
            id: container.id.clone(),
            name: container.name.clone(),
            image: container.image.clone(),
            state: container.state.clone(),
            running,
            paused: container.state == "paused",
            pid: if running { pid } else { 0 },
            exit_code: if container.state == "exited" { known.exit_code.or(Some(0)) } else { None },
            labels: container.labels.clone(),
            mounts: container.mounts.clone(),
            ..known
        })
    }

    /// Makes the container that was asked for.
    pub(super) fn create_container(&mut self, new: &NewContainer) -> Result<String> {
        let name = new.name.clone().unwrap_or_else(|| format!("made-{}", self.created.len() + 1));
        if self.containers.iter().any(|container| container.name == name) {
            return Err(Error::new(ErrorKind::AlreadyExists, "there is a container of that name already").on(name));
        }
        let mounts = new.mounts.iter().map(|mount| {
            let (volume, source) = match &mount.source {
                NewMountSource::Volume { name, .. } => {
                    let known = self.volumes.iter().find(|volume| volume.name == *name);
                    let mountpoint = known.ok_or_else(|| crate::docker::no_such_volume(name))?.mountpoint.clone();
                    (Some(name.clone()), mountpoint)
                }
                NewMountSource::Bind(path) => (None, path.clone()),
            };
            Ok(MountInfo { volume, source, destination: mount.destination.clone(), writable: !mount.read_only })
        });
        let image = self.image(&new.image).ok_or_else(|| crate::docker::no_such_image(&new.image))?;
        let detail = ContainerDetail {
            id: format!("id-{name}"),
            name: name.clone(),
            image: new.image.clone(),
            image_id: image.id.clone(),
            state: "created".into(),
            env: new.env.clone(),
            labels: new.labels.clone(),
            mounts: mounts.collect::<Result<_>>()?,
            user: new.user.clone().unwrap_or_default(),
            ..ContainerDetail::default()
        };
        let id = detail.id.clone();
        self.created.insert(id.clone(), new.clone());
        self.add_detail(detail);
        Ok(id)
    }

    /// The image of that id, tag or digest; a name without a tag means `latest`.
    pub(super) fn image(&self, reference: &str) -> Option<&ImageInfo> {
        let latest = format!("{reference}:latest");
        self.images.iter().find(|image| {
            image.id == reference || image.repo_tags.iter().chain(&image.repo_digests).any(|name| name == reference || *name == latest)
        })
    }
}

/// Whether a container of that state has processes.
pub(super) fn runs(state: &str) -> bool {
    matches!(state, "running" | "paused" | "restarting")
}
