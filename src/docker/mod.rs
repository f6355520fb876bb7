//! SEAM: the container engine, as far as volumes need it: what there is, who uses it, and making a new one. The trait has
//! only what one request does; what needs several requests or a decision (`create_volume`, `users`) stands beside it.

use std::collections::BTreeMap;
use std::fmt;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::model::path::escape;

#[cfg(feature = "docker")]
pub mod bollard;
pub mod create;
#[cfg(any(test, feature = "testing"))]
pub mod fake;
pub mod secrets;
pub mod users;

pub use create::create_volume;
pub use users::users;

/// The longest volume name accepted, in bytes: the local driver makes a directory of that name.
pub const VOLUME_NAME_BYTES_MAX: usize = 255;

/// A container engine that speaks Docker's API.
///
/// 1. Nothing but `put_volume` creates anything; asking for a volume that does not exist leaves it nonexistent.
/// 2. A volume name that breaks Docker's rule is refused (`Usage`) before anything is sent: it becomes part of a URL.
/// 3. Every call ends within a deadline, with an error of kind `Docker` that names the engine's address, unless another
///    kind is given below.
/// 4. Answers are of one moment each; two calls may see different states.
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

/// A container and its mounts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerInfo {
    /// Its name, without the leading `/`.
    pub name: String,
    /// The image's name as the container was created with.
    pub image: String,
    /// created, running, paused, restarting, removing, exited or dead.
    pub state: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What is mounted in it.
    pub mounts: Vec<MountInfo>,
}

/// One mount of a container.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MountInfo {
    /// The volume's name, when it is a mount of a volume.
    pub volume: Option<String>,
    /// The path on the engine's host; for a volume its mountpoint.
    pub source: String,
    /// Where it is mounted in the container.
    pub destination: String,
    /// Whether the container can write.
    pub writable: bool,
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

/// Checks a name against Docker's rule for volumes, `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, so that it can stand in a URL and a path.
pub fn check_volume_name(name: &str) -> Result<()> {
    let bad = |why: &str| {
        Err(Error::new(ErrorKind::Usage, format!("not a legal volume name ({why})")).on(escape(name.as_bytes())).hint(
            "a volume name starts with a letter or digit, goes on with letters, digits, '_', '.' or '-', and has two or more of them",
        ))
    };
    let mut bytes = name.bytes();
    match bytes.next() {
        None => bad("it is empty"),
        Some(first) if !first.is_ascii_alphanumeric() => bad("it starts with neither a letter nor a digit"),
        Some(_) if name.len() < 2 => bad("it is only one character long"),
        Some(_) if name.len() > VOLUME_NAME_BYTES_MAX => bad("it is longer than 255 bytes"),
        Some(_) if !bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) => bad("it has a character that is not allowed"),
        Some(_) => Ok(()),
    }
}

/// There is no volume `name`, as every implementation says it.
pub fn no_such_volume(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, "there is no such volume").on(escape(name.as_bytes())).hint("`icecore volumes` lists them")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn volume_names_follow_docker_s_rule() {
        for good in ["ab", "a_", "0.", "app_db-data.v2", &"a".repeat(255)] {
            assert!(check_volume_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "_a", ".a", "-a", "a/b", "../etc", "a b", "aä", "a\n", "a%2fb", "a?x=1", "a:b", &"a".repeat(256)] {
            assert_eq!(check_volume_name(bad).unwrap_err().kind(), ErrorKind::Usage, "{bad}");
        }
    }

    #[test]
    fn a_volume_s_secrets_are_not_in_its_debug_text() {
        let options = BTreeMap::from([("o".to_owned(), "username=u,password=hunter2".to_owned())]);
        let text = format!("{:?}", VolumeInfo { name: "nas".into(), options, ..VolumeInfo::default() });
        assert!(text.contains("username=u") && !text.contains("hunter2"), "{text}");
    }
}
