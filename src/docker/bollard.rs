//! The engine behind Docker's API. The only file that knows bollard and tokio: each call runs on a runtime of its own thread
//! and ends within a deadline, its answer read to the end.
//!
//! bollard negotiates an API version but sends paths without one (0.21 loses the prefix when it joins the URL), so an engine
//! answers in its own newest version.

use std::collections::{BTreeMap, HashMap};
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::time::Duration;

use ::bollard::errors::Error as ApiError;
use ::bollard::models::{ContainerSummary, MountPoint, SystemInfo, Volume, VolumeCreateRequest};
use ::bollard::query_parameters::{ListContainersOptionsBuilder, ListVolumesOptions, RemoveVolumeOptions};
use ::bollard::{API_DEFAULT_VERSION, Docker};
use tokio::runtime::{Builder, Runtime};

use super::{ContainerInfo, Engine, EngineInfo, MountInfo, NewVolume, VolumeInfo, VolumeList, check_volume_name, no_such_volume};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::model::path::escape;

/// Where the engine is when nobody says otherwise.
pub const DEFAULT_ADDRESS: &str = "unix:///var/run/docker.sock";

/// How long one call may take, its whole answer included. Listing thousands of containers takes a few seconds; an engine
/// that needs longer hangs (most often on a volume driver that does not answer).
const CALL_SECONDS_MAX: u64 = 30;

/// A connection to an engine. Each call makes its own request, so a restarted engine is found again.
///
/// Must not be used or dropped on a thread that runs a tokio runtime: it has its own.
pub struct BollardEngine {
    address: String,
    docker: Docker,
    runtime: Runtime,
    deadline: Duration,
}

impl BollardEngine {
    /// Connects to `host` (`--docker-host`), else to `DOCKER_HOST`, else to the default socket, and agrees on a version of
    /// the API. Addresses are `unix://PATH` or a path, or `tcp://HOST:PORT` without TLS.
    pub fn connect(host: Option<&str>) -> Result<Self> {
        let from_environment = std::env::var("DOCKER_HOST").ok();
        let given = host.map(str::to_owned).or(from_environment).filter(|text| !text.is_empty());
        let tls = std::env::var_os("DOCKER_TLS_VERIFY").is_some_and(|value| !value.is_empty());
        let address = parse_address(given.as_deref().unwrap_or(DEFAULT_ADDRESS), tls)?;
        Self::connect_within(&address, Duration::from_secs(CALL_SECONDS_MAX))
    }

    fn connect_within(address: &str, deadline: Duration) -> Result<Self> {
        let seconds = deadline.as_secs().max(1);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|cause| {
            Error::new(ErrorKind::Docker, "cannot start the runtime that talks to the container engine").on(address).because(cause)
        })?;
        let docker = match address.strip_prefix("unix://") {
            Some(_) => Docker::connect_with_unix(address, seconds, API_DEFAULT_VERSION),
            None => Docker::connect_with_http(address, seconds, API_DEFAULT_VERSION),
        };
        let docker = docker.map_err(|cause| failure(address, "cannot connect to the container engine", &cause))?;
        let negotiation = async { tokio::time::timeout(deadline, docker.negotiate_version()).await };
        let docker = match runtime.block_on(negotiation) {
            Ok(answer) => answer.map_err(|cause| failure(address, "cannot agree on an API version with the container engine", &cause))?,
            Err(_) => return Err(too_slow(address, deadline)),
        };
        Ok(Self { address: address.to_owned(), docker, runtime, deadline })
    }

    /// Runs one call to its end or the deadline. The inner result is the engine's own refusal, for callers that can tell
    /// more of it than [`failure`] can.
    fn call<T>(&self, call: impl Future<Output = Result<T, ApiError>>) -> Result<Result<T, ApiError>> {
        let limited = async { tokio::time::timeout(self.deadline, call).await };
        self.runtime.block_on(limited).map_err(|_| too_slow(&self.address, self.deadline))
    }

    fn failure(&self, attempt: &str, cause: &ApiError) -> Error {
        failure(&self.address, attempt, cause)
    }
}

impl Engine for BollardEngine {
    fn info(&self) -> Result<EngineInfo> {
        let info = self.call(self.docker.info())?.map_err(|cause| self.failure("cannot ask the container engine about itself", &cause))?;
        Ok(engine_info(&self.address, self.docker.client_version().to_string(), info))
    }

    fn volumes(&self) -> Result<VolumeList> {
        let answer = self
            .call(self.docker.list_volumes(None::<ListVolumesOptions>))?
            .map_err(|cause| self.failure("cannot list the volumes of the container engine", &cause))?;
        let mut volumes: Vec<_> = answer.volumes.unwrap_or_default().into_iter().map(volume_info).collect();
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(VolumeList { volumes, warnings: answer.warnings.unwrap_or_default() })
    }

    fn volume(&self, name: &str) -> Result<VolumeInfo> {
        check_volume_name(name)?;
        match self.call(self.docker.inspect_volume(name))? {
            Ok(volume) => Ok(volume_info(volume)),
            Err(cause) if status(&cause) == Some(404) => Err(no_such_volume(name)),
            Err(cause) => Err(self.failure(&format!("cannot inspect the volume {name}"), &cause)),
        }
    }

    fn containers(&self) -> Result<Vec<ContainerInfo>> {
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let answer = self
            .call(self.docker.list_containers(Some(options)))?
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
        match self.call(self.docker.create_volume(request))? {
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
        match self.call(self.docker.remove_volume(name, None::<RemoveVolumeOptions>))? {
            Ok(()) => Ok(()),
            Err(cause) if status(&cause) == Some(404) => Err(no_such_volume(name)),
            Err(cause) if status(&cause) == Some(409) => {
                Err(self.failure(&format!("cannot remove the volume {name}"), &cause).with_kind(ErrorKind::Busy))
            }
            Err(cause) => Err(self.failure(&format!("cannot remove the volume {name}"), &cause)),
        }
    }
}

/// Brings an address to the form `unix://PATH` or `tcp://HOST:PORT`; refuses what can't be spoken, most of all TLS, which
/// must never silently become plain text.
fn parse_address(text: &str, tls: bool) -> Result<String> {
    let refuse = |why: &str, hint: &str| Err(Error::new(ErrorKind::Unsupported, why).on(escape(text.as_bytes())).hint(hint));
    let on_the_host = "run icecore on the engine's own host, as root";
    if text.starts_with('/') {
        return Ok(format!("unix://{text}"));
    }
    match text.split_once("://") {
        Some(("unix", path)) if path.starts_with('/') => Ok(text.to_owned()),
        Some(("tcp" | "http", host)) if !host.is_empty() && !tls => Ok(format!("tcp://{host}")),
        Some(("tcp" | "http" | "https", host)) if !host.is_empty() => {
            refuse("this build cannot reach a container engine over TLS", on_the_host)
        }
        Some(("ssh", _)) => refuse("this build cannot reach a container engine over ssh", on_the_host),
        _ => Err(Error::new(ErrorKind::Usage, "not an address of a container engine")
            .on(escape(text.as_bytes()))
            .hint("write unix:///path/to/docker.sock or tcp://host:port")),
    }
}

/// The engine's failure in our words, with what to do about it where that is known.
fn failure(address: &str, attempt: &str, cause: &ApiError) -> Error {
    let cause = match cause {
        // Also what a socket looks like whose folder we may not enter.
        ApiError::SocketNotFoundError(path) => match std::fs::metadata(path) {
            Err(error) => Cause::Io(error.kind(), error.to_string()),
            Ok(_) => Cause::Other(cause.to_string()),
        },
        ApiError::DockerResponseServerError { status_code, message } => {
            Cause::Other(format!("it answered {status_code}: {}", escape(message.trim().as_bytes())))
        }
        ApiError::RequestTimeoutError => Cause::Io(io::ErrorKind::TimedOut, "it did not answer in time".into()),
        other => match io_cause(other) {
            Some(error) => Cause::Io(error.kind(), error.to_string()),
            None => Cause::Other(deepest(other)),
        },
    };
    let hint = match &cause {
        Cause::Io(io::ErrorKind::PermissionDenied, _) => Some("run as root, or as a member of the group docker"),
        Cause::Io(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused, _) => {
            Some("is the engine running (`systemctl status docker`)? If it is elsewhere, set --docker-host or DOCKER_HOST")
        }
        Cause::Io(io::ErrorKind::TimedOut, _) => Some(SLOW_HINT),
        _ => None,
    };
    let text = match cause {
        Cause::Io(_, text) | Cause::Other(text) => text,
    };
    let error = Error::new(ErrorKind::Docker, attempt).on(address).because(text);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

enum Cause {
    Io(io::ErrorKind, String),
    Other(String),
}

const SLOW_HINT: &str = "the engine hangs or is overloaded; `docker info` and `docker volume ls` show whether a volume driver is stuck";

fn too_slow(address: &str, deadline: Duration) -> Error {
    Error::new(ErrorKind::Docker, format!("the container engine did not answer within {} s", deadline.as_secs()))
        .on(address)
        .hint(SLOW_HINT)
}

/// The operating system's error somewhere below, if there is one: HTTP clients wrap it several times.
fn io_cause(error: &ApiError) -> Option<&io::Error> {
    // This variant is transparent: it passes for its cause, and the chain would begin behind that.
    if let ApiError::IOError { err } = error {
        return Some(err);
    }
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The innermost message; the outer ones only say "client error".
fn deepest(error: &ApiError) -> String {
    let mut error: &dyn StdError = error;
    while let Some(source) = error.source() {
        error = source;
    }
    escape(error.to_string().as_bytes())
}

fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

fn engine_info(address: &str, api_version: String, info: SystemInfo) -> EngineInfo {
    // Each option is a list like `name=seccomp,profile=default`.
    let options = info.security_options.unwrap_or_default();
    let has = |name: &str| options.iter().any(|option| option.split(',').any(|part| part.strip_prefix("name=").unwrap_or(part) == name));
    EngineInfo {
        address: address.to_owned(),
        version: info.server_version.unwrap_or_default(),
        api_version,
        root_dir: info.docker_root_dir.unwrap_or_default(),
        id: info.id.unwrap_or_default(),
        host_name: info.name.unwrap_or_default(),
        operating_system: info.operating_system.unwrap_or_default(),
        rootless: has("rootless"),
        userns_remap: has("userns"),
    }
}

fn volume_info(volume: Volume) -> VolumeInfo {
    VolumeInfo {
        name: volume.name,
        driver: volume.driver,
        mountpoint: volume.mountpoint,
        scope: volume.scope.map(|scope| scope.to_string()).unwrap_or_default(),
        labels: sorted(volume.labels),
        options: sorted(volume.options),
        created: volume.created_at.as_deref().and_then(moment),
    }
}

fn container_info(container: ContainerSummary) -> ContainerInfo {
    let names = container.names.unwrap_or_default();
    // A link gives a container more names, of the form `/other/alias`.
    let own = names.iter().map(|name| name.trim_start_matches('/')).find(|name| !name.contains('/'));
    ContainerInfo {
        name: own.map(str::to_owned).or(container.id).unwrap_or_default(),
        image: container.image.unwrap_or_default(),
        state: container.state.map(|state| state.to_string()).unwrap_or_default(),
        labels: sorted(container.labels.unwrap_or_default()),
        mounts: container.mounts.unwrap_or_default().into_iter().map(mount_info).collect(),
    }
}

fn mount_info(mount: MountPoint) -> MountInfo {
    let is_volume = mount.typ.as_deref() == Some("volume");
    MountInfo {
        volume: mount.name.filter(|name| is_volume && !name.is_empty()),
        source: mount.source.unwrap_or_default(),
        destination: mount.destination.unwrap_or_default(),
        // Not knowing must not make a writer look like a reader.
        writable: mount.rw.unwrap_or(true),
    }
}

fn sorted(map: HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}

fn moment(text: &str) -> Option<Timestamp> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    let nanos = moment.as_nanosecond();
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?;
    Some(Timestamp::new(seconds, u32::try_from(nanos.rem_euclid(1_000_000_000)).ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::docker::{create_volume, users};
    use ::bollard::models::{ContainerCreateBody, HostConfig};
    use ::bollard::query_parameters::{CreateContainerOptionsBuilder, CreateImageOptionsBuilder};
    use ::bollard::query_parameters::{RemoveContainerOptionsBuilder, RemoveImageOptions};
    use futures_util::TryStreamExt;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::sync::{Arc, Mutex};

    /// An HTTP server on a Unix socket that answers each request by its line; `None` answers nothing, ever.
    struct Server {
        address: String,
        requests: Arc<Mutex<Vec<String>>>,
        _folder: tempfile::TempDir,
    }

    impl Server {
        fn new(answer: fn(&str) -> Option<(u16, &'static str)>) -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("engine.sock");
            let listener = UnixListener::bind(&path).unwrap();
            let requests = Arc::new(Mutex::new(Vec::new()));
            let seen = Arc::clone(&requests);
            std::thread::spawn(move || {
                let mut silent = Vec::new();
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let mut buffer = [0; 4096];
                    let read = stream.read(&mut buffer).unwrap();
                    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
                    let line = text.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
                    seen.lock().unwrap().push(line.clone());
                    match answer(&line) {
                        Some((status, body)) => {
                            let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}", body.len());
                            let _ = write!(stream, "{head}\r\nConnection: close\r\n\r\n{body}");
                        }
                        None => silent.push(stream),
                    }
                }
            });
            Self { address: format!("unix://{}", path.display()), requests, _folder: folder }
        }

        fn connect(&self) -> Result<BollardEngine> {
            BollardEngine::connect_within(&self.address, Duration::from_secs(1))
        }
    }

    fn version(line: &str) -> Option<(u16, &'static str)> {
        line.ends_with("/version").then_some((200, r#"{"ApiVersion":"1.41"}"#))
    }

    #[test]
    fn addresses_are_understood_or_refused_with_a_way_out() {
        for (text, expected) in [
            ("unix:///run/x.sock", "unix:///run/x.sock"),
            ("/run/x.sock", "unix:///run/x.sock"),
            ("tcp://h:2375", "tcp://h:2375"),
            ("http://h:2375", "tcp://h:2375"),
        ] {
            assert_eq!(parse_address(text, false).unwrap(), expected);
        }
        for (text, tls, kind) in [
            ("ssh://root@h", false, ErrorKind::Unsupported),
            ("https://h:2376", false, ErrorKind::Unsupported),
            ("tcp://h:2376", true, ErrorKind::Unsupported),
            ("npipe:////./pipe/docker_engine", false, ErrorKind::Usage),
            ("unix://relative", false, ErrorKind::Usage),
            ("tcp://", false, ErrorKind::Usage),
            ("host:2375", false, ErrorKind::Usage),
        ] {
            let error = parse_address(text, tls).unwrap_err();
            assert_eq!(error.kind(), kind, "{text}");
            assert!(error.advice().is_some(), "{text}");
        }
    }

    #[test]
    fn an_absent_or_deaf_engine_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let absent = format!("unix://{}/none.sock", folder.path().display());
        let error = BollardEngine::connect(Some(&absent)).err().unwrap();
        assert_eq!((error.kind(), error.subject()), (ErrorKind::Docker, Some(absent.as_str())));
        assert!(error.advice().unwrap().contains("is the engine running"), "{error}");

        let path = folder.path().join("left.sock");
        drop(UnixListener::bind(&path).unwrap());
        let error = BollardEngine::connect(path.to_str()).err().unwrap();
        assert!(error.advice().unwrap().contains("is the engine running") && error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn a_socket_that_we_may_not_use_asks_for_root_or_the_group() {
        let error = failure("unix:///s", "cannot connect", &ApiError::IOError { err: io::ErrorKind::PermissionDenied.into() });
        assert!(error.kind() == ErrorKind::Docker && error.advice().unwrap().contains("group docker"), "{error}");
    }

    #[test]
    fn an_engine_that_never_answers_costs_one_deadline() {
        let error = Server::new(|_| None).connect().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Docker);
        assert!(error.advice().unwrap().contains("hangs"), "{error}");

        let server = Server::new(version);
        let engine = server.connect().unwrap();
        let start = std::time::Instant::now();
        let error = engine.volumes().unwrap_err();
        assert!(error.advice().unwrap().contains("hangs") && error.subject() == Some(server.address.as_str()), "{error}");
        assert!(start.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn answers_are_read_and_refusals_keep_their_meaning() {
        let server = Server::new(|line| {
            version(line).or(Some(match line.rsplit('/').next().unwrap_or_default() {
                "info" => (
                    200,
                    r#"{"ID":"I","ServerVersion":"27.0","DockerRootDir":"/r","Name":"h","OperatingSystem":"Docker Desktop",
                        "SecurityOptions":["name=seccomp,profile=builtin","name=rootless","name=userns"]}"#,
                ),
                "volumes" => (
                    200,
                    r#"{"Volumes":[{"Name":"bb","Driver":"local","Mountpoint":"/r/volumes/bb/_data","Labels":null,"Options":null,
                        "Scope":"local","CreatedAt":"2026-11-21T03:29:17Z"},{"Name":"aa","Driver":"d","Mountpoint":"",
                        "Labels":{"k":"v"},"Options":{"o":"x"},"Scope":"global"}],"Warnings":["driver gone"]}"#,
                ),
                "gone" => (404, r#"{"message":"no such volume"}"#),
                "used" => (409, r#"{"message":"volume is in use"}"#),
                _ => (500, r#"{"message":"boom\u001b[2J"}"#),
            }))
        });
        let engine = server.connect().unwrap();
        let info = engine.info().unwrap();
        assert_eq!((info.rootless, info.userns_remap, info.api_version.as_str()), (true, true, "1.41"));
        assert_eq!((info.root_dir.as_str(), info.operating_system.as_str()), ("/r", "Docker Desktop"));

        let list = engine.volumes().unwrap();
        assert_eq!(list.volumes.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["aa", "bb"]);
        assert_eq!(list.volumes[1].created, Some(Timestamp::new(1_795_231_757, 0)));
        assert_eq!(list.warnings, ["driver gone"]);

        assert_eq!(engine.volume("gone").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(engine.remove_volume("used").unwrap_err().kind(), ErrorKind::Busy);
        let error = engine.volume("other").unwrap_err();
        assert!(error.kind() == ErrorKind::Docker && error.to_string().contains("500: boom\\u{1b}[2J"), "{error}");

        let before = server.requests.lock().unwrap().len();
        for name in ["../x", "a?b", "a/../../containers"] {
            assert_eq!(engine.volume(name).unwrap_err().kind(), ErrorKind::Usage);
            assert_eq!(engine.remove_volume(name).unwrap_err().kind(), ErrorKind::Usage);
        }
        assert_eq!(server.requests.lock().unwrap().len(), before, "nothing was sent for an illegal name");
    }

    #[test]
    fn links_do_not_rename_a_container_and_unknown_mounts_can_write() {
        let summary = ContainerSummary {
            names: Some(vec!["/web/alias".into(), "/db".into()]),
            mounts: Some(vec![
                MountPoint { typ: Some("volume".into()), name: Some("v".into()), rw: Some(false), ..MountPoint::default() },
                MountPoint { typ: Some("bind".into()), name: Some("ignored".into()), ..MountPoint::default() },
            ]),
            ..ContainerSummary::default()
        };
        let container = container_info(summary);
        assert_eq!(container.name, "db");
        assert_eq!((container.mounts[0].volume.as_deref(), container.mounts[0].writable), (Some("v"), false));
        assert_eq!((container.mounts[1].volume.as_deref(), container.mounts[1].writable), (None, true));
    }

    /// The engine of this machine, where there is one that we may use as root.
    fn real_engine() -> Option<BollardEngine> {
        rustix::process::geteuid().is_root().then(|| BollardEngine::connect(None).ok()).flatten()
    }

    /// Removes what a test made on the real engine, also when the test fails.
    struct Cleanup<'a>(&'a BollardEngine, String);

    impl Drop for Cleanup<'_> {
        fn drop(&mut self) {
            let Self(engine, name) = self;
            let force = RemoveContainerOptionsBuilder::default().force(true).build();
            let _ = engine.call(engine.docker.remove_container(name, Some(force)));
            let _ = engine.call(engine.docker.remove_image(name, None::<RemoveImageOptions>, None));
            let _ = engine.remove_volume(name);
        }
    }

    #[test]
    fn a_real_engine_creates_lists_and_removes_a_volume_and_knows_its_users() {
        let Some(engine) = real_engine() else { return };
        let name = format!("icecore-test-engine-{}", std::process::id());
        let cleanup = Cleanup(&engine, name.clone());
        let info = engine.info().unwrap();
        assert!(info.root_dir.starts_with('/') && !info.version.is_empty() && !info.id.is_empty(), "{info:?}");

        assert_eq!(engine.volume(&name).unwrap_err().kind(), ErrorKind::NotFound);
        assert!(!engine.volumes().unwrap().volumes.iter().any(|volume| volume.name == name), "asking made no volume");
        let labels = BTreeMap::from([("icecore.test".to_owned(), "ä".to_owned())]);
        let new = NewVolume { name: name.clone(), driver: "local".into(), labels: labels.clone(), ..NewVolume::default() };
        let made = create_volume(&engine, &new).unwrap();
        assert_eq!((&made.labels, made.scope.as_str()), (&labels, "local"));
        assert_eq!(create_volume(&engine, &new).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(engine.put_volume(&NewVolume { labels: BTreeMap::new(), ..new }).unwrap().labels, labels, "the old one comes back");

        // An image of nothing is enough for a container that is never started.
        let import = CreateImageOptionsBuilder::default().from_src("-").repo(&name).build();
        let image = engine.docker.create_image(Some(import), Some(::bollard::body_full(vec![0; 1024].into())), None);
        engine.call(image.try_collect::<Vec<_>>()).unwrap().unwrap();
        let parent = made.mountpoint.trim_end_matches("/_data");
        let body = ContainerCreateBody {
            image: Some(name.clone()),
            cmd: Some(vec!["/none".into()]),
            host_config: Some(HostConfig {
                binds: Some(vec![format!("{name}:/data:ro"), format!("{parent}:/host")]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        engine.call(engine.docker.create_container(Some(options), body)).unwrap().unwrap();

        let volumes = engine.volumes().unwrap().volumes;
        let found: Vec<_> = users(&made, &volumes, &engine.containers().unwrap()).into_iter().filter(|u| u.container == name).collect();
        let seen: Vec<_> = found.iter().map(|user| (user.destination.as_str(), user.writable, user.state.as_str())).collect();
        assert_eq!(seen, [("/data", false, "created"), ("/host/_data", true, "created")]);
        assert_eq!(engine.remove_volume(&name).unwrap_err().kind(), ErrorKind::Busy);

        drop(cleanup);
        assert_eq!(engine.volume(&name).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
