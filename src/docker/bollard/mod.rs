//! The engine behind Docker's API. Only the files of this folder know bollard and tokio. Requests run on a thread of their own
//! (`calls`), and every one ends within a deadline, its answer read to the end. The streams of commands and attached containers
//! are spoken without bollard (`hijack`), which cannot tell a broken one from one that ended.
//!
//! bollard negotiates an API version but sends paths without one (0.21 loses the prefix when it joins the URL), and an engine
//! then answers in its own newest version; so the prefix is put in front of the path here.

use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use ::bollard::errors::Error as ApiError;
use ::bollard::models::VolumeCreateRequest;
use ::bollard::query_parameters::{ListContainersOptionsBuilder, ListNetworksOptions, ListVolumesOptions, RemoveVolumeOptions};
use ::bollard::{API_DEFAULT_VERSION, Docker};

use super::{
    Attached, ContainerDetail, ContainerInfo, Engine, EngineInfo, ExecOutcome, ExecSpec, ImageInfo, NetworkInfo, NewContainer, NewVolume,
    VolumeInfo, VolumeList, check_container_id, check_image_reference, check_volume_name, no_such_volume,
};
use crate::error::{Error, ErrorKind, Result};

mod address;
mod attach;
mod calls;
mod containers;
mod convert;
mod exec;
mod failure;
mod frames;
mod hijack;
mod images;
mod streams;

use calls::{Calls, Late};
use convert::{container_info, engine_info, network_info, volume_info};
use failure::{failure, status, too_slow};

/// Where the engine is when nobody says otherwise.
pub const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// How long one call may take, its whole answer included. Listing thousands of containers takes a few seconds; an engine
/// that needs longer hangs (most often on a volume driver that does not answer).
const CALL_SECONDS_MAX: u64 = 30;

/// How long the answer to a request that changes something is awaited in the background, when its caller has given up.
const LATE_ANSWER_SECONDS_MAX: u64 = 7200;

/// A connection to an engine. Each call makes its own request, so a restarted engine is found again.
pub struct BollardEngine {
    address: String,
    docker: Docker,
    calls: Arc<Calls>,
    deadline: Duration,
}

impl BollardEngine {
    /// Connects to `host` (`--docker-host`), else to `DOCKER_HOST`, else to the default socket, and agrees on a version of
    /// the API. Addresses are `unix://PATH` or a path, or `tcp://HOST:PORT` without TLS.
    pub fn connect(host: Option<&str>) -> Result<Self> {
        let from_environment = std::env::var("DOCKER_HOST").ok();
        let given = host.map(str::to_owned).or(from_environment).filter(|text| !text.is_empty());
        let tls = std::env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty());
        let address = address::parse_address(given.as_deref().unwrap_or(DEFAULT_ADDRESS), tls)?;
        Self::connect_within(&address, Duration::from_secs(CALL_SECONDS_MAX))
    }

    fn connect_within(address: &str, deadline: Duration) -> Result<Self> {
        let calls = Calls::new(address)?;
        // bollard's own timeout is for the head of an answer only; ours are for the whole of it, and shorter.
        let docker = match address.strip_prefix("unix://") {
            Some(_) => Docker::connect_with_unix(address, LATE_ANSWER_SECONDS_MAX, API_DEFAULT_VERSION),
            None => Docker::connect_with_http(address, LATE_ANSWER_SECONDS_MAX, API_DEFAULT_VERSION),
        };
        let docker = docker.map_err(|cause| failure(address, "cannot connect to the container engine", &cause))?;
        let docker = calls
            .run("version", deadline, Late::Withdraw, docker.negotiate_version())
            .ok_or_else(|| too_slow(address, deadline))?
            .map_err(|cause| failure(address, "cannot agree on an API version with the container engine", &cause))?;
        Ok(Self { address: address.to_owned(), docker: in_its_version(docker), calls: Arc::new(calls), deadline })
    }

    /// Runs a call that changes nothing to its end or the deadline. The inner result is the engine's own refusal, for callers
    /// that can tell more of it than [`failure`] can.
    fn ask<T: Send + 'static, F>(&self, call: impl FnOnce(Docker) -> F) -> Result<Result<T, ApiError>>
    where
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        let request = call(self.docker.clone());
        self.calls.run("a question", self.deadline, Late::Withdraw, request).ok_or_else(|| too_slow(&self.address, self.deadline))
    }

    /// Runs a call that changes something. None when `deadline` comes first: the request goes on.
    fn act<T: Send + 'static, F>(&self, what: String, deadline: Duration, call: impl FnOnce(Docker) -> F) -> Option<Result<T, ApiError>>
    where
        F: Future<Output = Result<T, ApiError>> + Send + 'static,
    {
        self.calls.run(&what, deadline, Late::Await, call(self.docker.clone()))
    }

    fn failure(&self, attempt: &str, cause: &ApiError) -> Error {
        failure(&self.address, attempt, cause)
    }
}

/// Puts the version agreed on in front of each path.
fn in_its_version(docker: Docker) -> Docker {
    let version = docker.client_version();
    docker.with_request_modifier(move |mut request| {
        let uri = request.uri().to_string();
        let path = uri.find("://").map_or(0, |at| at + 3);
        let path = uri[path..].find('/').map_or(uri.len(), |at| path + at);
        let versioned = format!("{}/v{version}{}", &uri[..path], &uri[path..]);
        if let Ok(versioned) = versioned.parse() {
            *request.uri_mut() = versioned;
        }
        request
    })
}

impl Engine for BollardEngine {
    fn info(&self) -> Result<EngineInfo> {
        let info = self
            .ask(|docker| async move { docker.info().await })?
            .map_err(|cause| self.failure("cannot ask the container engine about itself", &cause))?;
        Ok(engine_info(&self.address, self.docker.client_version().to_string(), info))
    }

    fn volumes(&self) -> Result<VolumeList> {
        let answer = self
            .ask(|docker| async move { docker.list_volumes(None::<ListVolumesOptions>).await })?
            .map_err(|cause| self.failure("cannot list the volumes of the container engine", &cause))?;
        let mut volumes: Vec<_> = answer.volumes.unwrap_or_default().into_iter().map(volume_info).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(VolumeList { volumes, warnings: answer.warnings.unwrap_or_default() })
    }

    fn volume(&self, name: &str) -> Result<VolumeInfo> {
        check_volume_name(name)?;
        let asked = name.to_owned();
        match self.ask(|docker| async move { docker.inspect_volume(&asked).await })? {
            Ok(volume) => Ok(volume_info(volume)),
            Err(cause) if status(&cause) == Some(404) => Err(no_such_volume(name)),
            Err(cause) => Err(self.failure(&format!("cannot inspect the volume {name}"), &cause)),
        }
    }

    fn containers(&self) -> Result<Vec<ContainerInfo>> {
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let answer = self
            .ask(|docker| async move { docker.list_containers(Some(options)).await })?
            .map_err(|cause| self.failure("cannot list the containers of the container engine", &cause))?;
        Ok(answer.into_iter().map(container_info).collect())
    }

    fn put_volume(&self, new: &NewVolume) -> Result<VolumeInfo> {
        check_volume_name(&new.name)?;
        let request = VolumeCreateRequest {
            name: Some(new.name.clone()),
            driver: Some(new.driver.clone()),
            driver_opts: Some(new.options.clone().into_iter().collect()),
            labels: Some(new.labels.clone().into_iter().collect()),
            ..VolumeCreateRequest::default()
        };
        let what = format!("create the volume {}", new.name);
        let answer = self.act(what, self.deadline, |docker| async move { docker.create_volume(request).await });
        match answer.ok_or_else(|| too_slow(&self.address, self.deadline))? {
            Ok(volume) => Ok(volume_info(volume)),
            // A volume of that name with another driver.
            Err(cause) if status(&cause) == Some(409) => {
                Err(self.failure(&format!("cannot create the volume {}", new.name), &cause).with_kind(ErrorKind::AlreadyExists))
            }
            Err(cause) => Err(self.failure(&format!("cannot create the volume {}", new.name), &cause)),
        }
    }

    fn remove_volume(&self, name: &str) -> Result<()> {
        check_volume_name(name)?;
        let asked = name.to_owned();
        let what = format!("remove the volume {name}");
        let removal = |docker: Docker| async move { docker.remove_volume(&asked, None::<RemoveVolumeOptions>).await };
        match self.act(what, self.deadline, removal).ok_or_else(|| too_slow(&self.address, self.deadline))? {
            Ok(()) => Ok(()),
            Err(cause) if status(&cause) == Some(404) => Err(no_such_volume(name)),
            Err(cause) if status(&cause) == Some(409) => {
                Err(self.failure(&format!("cannot remove the volume {name}"), &cause).with_kind(ErrorKind::Busy))
            }
            Err(cause) => Err(self.failure(&format!("cannot remove the volume {name}"), &cause)),
        }
    }

    fn container(&self, id: &str) -> Result<ContainerDetail> {
        check_container_id(id)?;
        self.inspect(id)
    }

    fn pause(&self, id: &str, deadline: Duration) -> Result<()> {
        check_container_id(id)?;
        self.freeze(id, deadline)
    }

    fn unpause(&self, id: &str, deadline: Duration) -> Result<()> {
        check_container_id(id)?;
        self.thaw(id, deadline)
    }

    fn stop(&self, id: &str, grace: Option<Duration>) -> Result<()> {
        check_container_id(id)?;
        self.stop_container(id, grace)
    }

    fn start(&self, id: &str) -> Result<()> {
        check_container_id(id)?;
        self.start_container(id)
    }

    fn exec(
        &self,
        id: &str,
        spec: &ExecSpec,
        stdin: Option<&mut (dyn Read + Send)>,
        stdout: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
    ) -> Result<ExecOutcome> {
        check_container_id(id)?;
        self.run_command(id, spec, stdin, stdout)
    }

    fn networks(&self) -> Result<Vec<NetworkInfo>> {
        let answer = self
            .ask(|docker| async move { docker.list_networks(None::<ListNetworksOptions>).await })?
            .map_err(|cause| self.failure("cannot list the networks of the container engine", &cause))?;
        let mut networks: Vec<_> = answer.into_iter().map(network_info).collect();
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(networks)
    }

    fn image(&self, reference: &str) -> Result<ImageInfo> {
        check_image_reference(reference)?;
        self.inspect_image(reference)
    }

    fn import_image(&self, repo: &str, tag: &str, changes: &[&str], tar: &mut (dyn Read + Send)) -> Result<String> {
        check_image_reference(&format!("{repo}:{tag}"))?;
        self.import(repo, tag, changes, tar)
    }

    fn create_container(&self, new: &NewContainer) -> Result<String> {
        check_image_reference(&new.image)?;
        new.name.as_deref().map_or(Ok(()), check_container_id)?;
        self.make_container(new)
    }

    fn remove_container(&self, id: &str) -> Result<()> {
        check_container_id(id)?;
        self.delete_container(id)
    }

    fn run_attached(&self, id: &str) -> Result<Attached> {
        check_container_id(id)?;
        self.attach_and_start(id)
    }

    fn archive(&self, id: &str, path: &str) -> Result<Box<dyn Read + Send>> {
        check_container_id(id)?;
        self.download(id, path)
    }

    fn reconnect(&self) -> Result<Box<dyn Engine>> {
        Ok(Box::new(Self::connect_within(&self.address, self.deadline)?))
    }
}

#[cfg(test)]
mod exec_tests;
#[cfg(test)]
mod real_tests;
#[cfg(test)]
mod tests;
