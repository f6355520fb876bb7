//! SEAM: the container engine: what there is, who uses it, freezing and running containers, and making a volume or a helper of
//! our own. The trait has only what one request does; what needs a decision (`create_volume`, `users`) stands beside it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::Result;

#[cfg(feature = "docker")]
pub mod bollard;
pub mod container;
pub mod create;
pub mod exec;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod names;
pub mod secrets;
pub mod users;

pub use container::{ContainerDetail, ContainerInfo, ImageInfo, MountInfo, NetworkInfo, NewContainer, NewMount, NewMountSource, Subnet};
pub use create::create_volume;
pub use exec::{Attached, ExecOutcome, ExecSpec, Tail};
pub use names::{VOLUME_NAME_BYTES_MAX, check_container_id, check_image_reference, check_volume_name};
pub use names::{no_such_container, no_such_image, no_such_volume};
pub use users::users;

/// A container engine that speaks Docker's API.
///
/// 1. Nothing but `put_volume`, `import_image` and `create_container` creates anything; asking for a volume that does not exist
///    leaves it nonexistent.
/// 2. A volume's name, a container's id and an image's reference that break Docker's rules are refused (`Usage`) before
///    anything is sent: they become part of a URL. Where an id is asked for, a container's name does, too.
/// 3. Every call ends within a deadline, with an error of kind `Docker` that names the engine's address, unless another
///    kind is given below. Its `io_kind` tells more: `TimedOut` for a deadline, `PermissionDenied` for a socket that we may
///    not use, `NotFound` or `ConnectionRefused` for an engine that is not there, `ConnectionReset` for one that went away
///    in the middle.
/// 4. Answers are of one moment each; two calls may see different states.
/// 5. After a deadline or a lost connection nobody knows whether a request was carried out, and the engine may still be at
///    it: only `container` tells. Giving up on an answer never withdraws the request.
/// 6. Calls from several threads run at the same time.
pub trait Engine: Send + Sync {
    /// What the engine says about itself.
    fn info(&self) -> Result<EngineInfo>;
    /// All volumes that the engine knows, sorted by name, and what it warns about (a driver that does not answer, whose
    /// volumes are then missing from the list).
    fn volumes(&self) -> Result<VolumeList>;
    /// One volume. `NotFound` when there is none of that name.
    fn volume(&self, name: &str) -> Result<VolumeInfo>;
    /// All containers, running or not, with their mounts.
    fn containers(&self) -> Result<Vec<ContainerInfo>>;
    /// Asks for a volume. Engines answer with success and the *old* volume when one of that name exists, ignoring the
    /// labels and options asked for: use [`create_volume`], which does not fall for that.
    fn put_volume(&self, new: &NewVolume) -> Result<VolumeInfo>;
    /// Removes a volume and its contents, unless a container refers to it (`Busy`). Only for taking back what this process
    /// created itself a moment ago.
    fn remove_volume(&self, name: &str) -> Result<()>;
    /// One container in full. `NotFound` when there is none.
    fn container(&self, id: &str) -> Result<ContainerDetail>;
    /// Freezes all processes of a container and returns when they are frozen, within `deadline`. `Busy` when it is paused
    /// already or not running.
    fn pause(&self, id: &str, deadline: Duration) -> Result<()>;
    /// Thaws the processes of a container, within `deadline`. `Busy` when it is not paused.
    fn unpause(&self, id: &str, deadline: Duration) -> Result<()>;
    /// Stops a container with its own signal and kills it after its own stop timeout, or after `grace`; returns when it has
    /// ended. Stopped already is success; a paused one is stopped, too. Waits for the answer 30 s longer than the grace.
    fn stop(&self, id: &str, grace: Option<Duration>) -> Result<()>;
    /// Starts a container. Running already is success; a paused one is `Busy`.
    fn start(&self, id: &str) -> Result<()>;
    /// Runs a command in a running container. Its stdout goes to `stdout` in order; its stdin comes from `stdin` to the end,
    /// which must not block for ever, or is empty. Returns when the engine says that the process has ended, with its exit
    /// code: output that ended proves nothing.
    ///
    /// `Busy` when the container is paused or not running. A broken or odd stream and a missed deadline are errors, too. No
    /// engine can end a command that hangs: the error says which process was left running. An error of `stdout` or `stdin`
    /// ends the call, and is returned as it is.
    fn exec(
        &self,
        id: &str,
        spec: &ExecSpec,
        stdin: Option<&mut (dyn Read + Send)>,
        stdout: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
    ) -> Result<ExecOutcome>;
    /// All networks, sorted by name.
    fn networks(&self) -> Result<Vec<NetworkInfo>>;
    /// One image, by id, `NAME[:TAG]` or `NAME@DIGEST`. `NotFound` when it is not here; nothing is pulled.
    fn image(&self, reference: &str) -> Result<ImageInfo>;
    /// Makes an image `repo:tag` of a root file system (an uncompressed tar) and returns its id. `changes` are lines of a
    /// Dockerfile (`ENTRYPOINT ["/x"]`, `LABEL a=b`).
    fn import_image(&self, repo: &str, tag: &str, changes: &[&str], tar: &mut (dyn Read + Send)) -> Result<String>;
    /// Makes a container, without starting it, and returns its id. `NotFound` when its image or one of its volumes is not
    /// here, `AlreadyExists` when its name is taken.
    fn create_container(&self, new: &NewContainer) -> Result<String>;
    /// Kills and removes a container with its anonymous volumes. That there is none is success. Only for what this program
    /// created.
    fn remove_container(&self, id: &str) -> Result<()>;
    /// Attaches to the streams of a created container and starts it. Its reader fails when nothing comes for five minutes.
    fn run_attached(&self, id: &str) -> Result<Attached>;
    /// The tar stream that the engine makes of a path in a container that was never started. `NotFound` when there is no
    /// such container or path.
    fn archive(&self, id: &str, path: &str) -> Result<Box<dyn Read + Send>>;
    /// A second connection to the same engine that shares nothing with this one, for a watchdog.
    fn reconnect(&self) -> Result<Box<dyn Engine>>;
}

/// What an engine says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EngineInfo {
    /// Where it was reached: `unix:///var/run/docker.sock`, `tcp://host:2375`.
    pub address: String,
    /// The engine's version.
    pub version: String,
    /// The newest API version that the engine and this program both speak.
    pub api_version: String,
    /// The engine's data folder on its own host; volumes of the local driver are in `volumes/` below it.
    pub root_dir: String,
    /// The engine's own id.
    pub id: String,
    /// The name of the host that it runs on.
    pub host_name: String,
    /// The operating system, in words; `Docker Desktop` where the engine runs in that product's virtual machine.
    pub operating_system: String,
    /// It runs in a user namespace without being root.
    pub rootless: bool,
    /// It shifts the owners of files on disk (`userns-remap`).
    pub userns_remap: bool,
}

impl EngineInfo {
    /// The socket's path, when the engine was reached over a Unix socket.
    pub fn socket(&self) -> Option<&str> {
        self.address.strip_prefix("unix://")
    }
}

/// The engine's volumes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VolumeList {
    /// The volumes, sorted by name.
    pub volumes: Vec<VolumeInfo>,
    /// Why the list may be incomplete, in the engine's words.
    pub warnings: Vec<String>,
}

/// A volume as the engine describes it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct VolumeInfo {
    /// Its name; the only identity that a volume has.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Where its contents are on the engine's host; empty when the driver does not say.
    pub mountpoint: String,
    /// `local` or `global`.
    pub scope: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Driver options, secrets in clear: mask before showing.
    pub options: BTreeMap<String, String>,
    /// When it was created, to the second. The local driver reports the ctime of the volume's directory, which moves.
    pub created: Option<Timestamp>,
}

impl fmt::Debug for VolumeInfo {
    /// Options are masked, so that no log or failed assertion shows a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VolumeInfo")
            .field("name", &self.name)
            .field("driver", &self.driver)
            .field("mountpoint", &self.mountpoint)
            .field("scope", &self.scope)
            .field("labels", &self.labels)
            .field("options", &secrets::mask_options(self.options.iter().map(|(key, value)| (key.as_str(), value.as_str()))))
            .field("created", &self.created)
            .finish()
    }
}

/// A volume to be created.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct NewVolume {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_s_secrets_are_not_in_its_debug_text() {
        let options = BTreeMap::from([("o".to_owned(), "username=u,password=hunter2".to_owned())]);
        let text = format!("{:?}", VolumeInfo { name: "nas".into(), options, ..VolumeInfo::default() });
        assert!(text.contains("username=u") && !text.contains("hunter2"), "{text}");
    }
}
