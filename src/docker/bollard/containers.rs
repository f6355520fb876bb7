//! One container: what it is, freezing, stopping and starting it, making and removing a helper.

use std::time::{Duration, Instant};

use ::bollard::Docker;
use ::bollard::errors::Error as ApiError;
use ::bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions};
use ::bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptionsBuilder,
};

use super::BollardEngine;
use super::convert::container_detail;
use super::failure::{container_failure, said, status, unanswered};
use crate::docker::{ContainerDetail, Engine, NewContainer, NewMount, NewMountSource, no_such_image};
use crate::error::{Error, ErrorKind, Result};

/// How long the engine may take beyond the grace that a container has for stopping.
const STOP_SECONDS_MORE: u64 = 30;
/// What Docker gives a container that says nothing itself.
const STOP_SECONDS_DEFAULT: u64 = 10;
/// Nobody waits longer than this for a container to stop, also when it may take for ever.
const STOP_SECONDS_MAX: u64 = 3600;
/// How long a start may take: volume drivers mount first.
const START_SECONDS_MAX: u64 = 120;
/// How long a removal that somebody else began may take.
const REMOVAL_SECONDS_MAX: u64 = 10;

impl BollardEngine {
    pub(super) fn inspect(&self, id: &str) -> Result<ContainerDetail> {
        let asked = id.to_owned();
        let answer = self.ask(|docker| async move { docker.inspect_container(&asked, None::<InspectContainerOptions>).await })?;
        answer.map(container_detail).map_err(|cause| container_failure(&self.address, "inspect", id, &cause))
    }

    /// Runs a change of a container, whose answer says nothing but whether it was made.
    fn change<F>(&self, attempt: &str, id: &str, deadline: Duration, call: impl FnOnce(Docker) -> F) -> Result<Result<(), ApiError>>
    where
        F: Future<Output = Result<(), ApiError>> + Send + 'static,
    {
        let answer = self.act(format!("{attempt} the container {id}"), deadline, call);
        answer.ok_or_else(|| unanswered(&self.address, attempt, id, deadline))
    }

    pub(super) fn freeze(&self, id: &str, deadline: Duration) -> Result<()> {
        let asked = id.to_owned();
        self.change("pause", id, deadline, |docker| async move { docker.pause_container(&asked).await })?
            .map_err(|cause| container_failure(&self.address, "pause", id, &cause))
    }

    pub(super) fn thaw(&self, id: &str, deadline: Duration) -> Result<()> {
        let asked = id.to_owned();
        match self.change("unpause", id, deadline, |docker| async move { docker.unpause_container(&asked).await })? {
            Ok(()) => Ok(()),
            // How engines before 25 call a container that is not paused.
            Err(cause) if status(&cause) == Some(500) && self.inspect(id).is_ok_and(|container| !container.paused) => {
                Err(Error::new(ErrorKind::Busy, "cannot unpause the container").on(id).because(said(&cause)))
            }
            Err(cause) => Err(container_failure(&self.address, "unpause", id, &cause)),
        }
    }

    pub(super) fn stop_container(&self, id: &str, grace: Option<Duration>) -> Result<()> {
        let own = match grace {
            Some(grace) => grace,
            None => self.inspect(id)?.stop_timeout.unwrap_or(Duration::from_secs(STOP_SECONDS_DEFAULT)),
        };
        let deadline = own.min(Duration::from_secs(STOP_SECONDS_MAX)) + Duration::from_secs(STOP_SECONDS_MORE);
        let options = grace.map(|grace| {
            // Whole seconds, rather longer than shorter.
            let seconds = grace.as_secs() + u64::from(grace.subsec_nanos() > 0);
            StopContainerOptionsBuilder::default().t(i32::try_from(seconds).unwrap_or(i32::MAX)).build()
        });
        let asked = id.to_owned();
        self.change("stop", id, deadline, |docker| async move { docker.stop_container(&asked, options).await })?
            .map_err(|cause| container_failure(&self.address, "stop", id, &cause))
    }

    pub(super) fn start_container(&self, id: &str) -> Result<()> {
        let asked = id.to_owned();
        let call = |docker: Docker| async move { docker.start_container(&asked, None::<StartContainerOptions>).await };
        self.change("start", id, Duration::from_secs(START_SECONDS_MAX), call)?.map_err(|cause| {
            // Also what engines say of a network that is gone.
            if status(&cause) == Some(404) && self.inspect(id).is_ok() {
                return Error::new(ErrorKind::Docker, format!("cannot start the container {id}")).on(&self.address).because(said(&cause));
            }
            container_failure(&self.address, "start", id, &cause)
        })
    }

    pub(super) fn make_container(&self, new: &NewContainer) -> Result<String> {
        // Engines make the volumes that a container asks for.
        for mount in &new.mounts {
            if let NewMountSource::Volume { name, .. } = &mount.source {
                self.volume(name)?;
            }
        }
        let options = new.name.as_deref().map(|name| CreateContainerOptionsBuilder::default().name(name).build());
        let body = create_body(new);
        let what = format!("create a container of {}", new.image);
        let answer = self.act(what, self.deadline, |docker| async move { docker.create_container(options, body).await });
        let name = new.name.as_deref().unwrap_or("without a name");
        match answer.ok_or_else(|| unanswered(&self.address, "create", name, self.deadline))? {
            Ok(made) => Ok(made.id),
            Err(cause) if status(&cause) == Some(404) => Err(no_such_image(&new.image)),
            Err(cause) if status(&cause) == Some(409) => {
                Err(Error::new(ErrorKind::AlreadyExists, "cannot create the container").on(name).because(said(&cause)))
            }
            Err(cause) => Err(self.failure(&format!("cannot create a container of {}", new.image), &cause)),
        }
    }

    pub(super) fn delete_container(&self, id: &str) -> Result<()> {
        let asked = id.to_owned();
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        let call = |docker: Docker| async move { docker.remove_container(&asked, Some(options)).await };
        match self.change("remove", id, self.deadline, call)? {
            Ok(()) => Ok(()),
            Err(cause) if status(&cause) == Some(404) => Ok(()),
            Err(cause) if status(&cause) == Some(409) && self.goes_away(id)? => Ok(()),
            Err(cause) => Err(container_failure(&self.address, "remove", id, &cause)),
        }
    }

    /// Whether a container vanishes that somebody else removes.
    fn goes_away(&self, id: &str) -> Result<bool> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(REMOVAL_SECONDS_MAX) {
            match self.inspect(id) {
                Ok(_) => std::thread::sleep(Duration::from_millis(50)),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// The request for a helper that can do no more than it must.
fn create_body(new: &NewContainer) -> ContainerCreateBody {
    let some = |texts: &[String]| (!texts.is_empty()).then(|| texts.to_vec());
    ContainerCreateBody {
        image: Some(new.image.clone()),
        cmd: some(&new.cmd),
        entrypoint: some(&new.entrypoint),
        user: new.user.clone(),
        env: Some(new.env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
        labels: Some(new.labels.clone().into_iter().collect()),
        attach_stdin: Some(new.open_stdin),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        open_stdin: Some(new.open_stdin),
        stdin_once: Some(new.open_stdin),
        tty: Some(false),
        host_config: Some(HostConfig {
            mounts: Some(new.mounts.iter().map(mount).collect()),
            network_mode: Some("none".into()),
            readonly_rootfs: Some(new.read_only_rootfs),
            cap_drop: Some(vec!["ALL".into()]),
            cap_add: some(&new.cap_add),
            security_opt: Some(vec!["no-new-privileges".into()]),
            // What it sends us must not be stored by the engine a second time.
            log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
            auto_remove: Some(false),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

fn mount(mount: &NewMount) -> Mount {
    let (typ, source, volume_options) = match &mount.source {
        NewMountSource::Volume { name, no_copy } => {
            (MountType::VOLUME, name.clone(), Some(MountVolumeOptions { no_copy: Some(*no_copy), ..MountVolumeOptions::default() }))
        }
        // Unlike in `Binds`, a path that does not exist is refused and not made.
        NewMountSource::Bind(path) => (MountType::BIND, path.clone(), None),
    };
    Mount {
        target: Some(mount.destination.clone()),
        source: Some(source),
        typ: Some(typ),
        read_only: Some(mount.read_only),
        volume_options,
        ..Mount::default()
    }
}
