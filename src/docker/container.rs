//! Containers, images and networks as the engine describes them, and a container to be made.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::secrets::MASK;

/// A container and its mounts, as the list of all containers has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContainerInfo {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
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

/// A container in full.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ContainerDetail {
    /// Its id, 64 hexadecimal digits.
    pub id: String,
    /// Its name, without the leading `/`.
    pub name: String,
    /// The image's name as the container was created with.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// created, running, paused, restarting, removing, exited or dead.
    pub state: String,
    /// It has processes; true of a paused one, too.
    pub running: bool,
    /// Its processes are frozen.
    pub paused: bool,
    /// Its first process on the engine's host; 0 when it has none.
    pub pid: i64,
    /// How the first process ended the last time; none while there is one and before the first start.
    pub exit_code: Option<i64>,
    /// When it was started the last time, as the engine writes it: another text means another start.
    pub started_at: String,
    /// `starting`, `healthy` or `unhealthy`; none when it has no health check.
    pub health: Option<String>,
    /// Environment variables, secrets in clear: never shown, never stored in clear.
    pub env: Vec<(String, String)>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What is mounted in it.
    pub mounts: Vec<MountInfo>,
    /// How long it may take to stop, when it says so itself; the longest duration when it may take for ever.
    pub stop_timeout: Option<Duration>,
    /// `no`, `always`, `unless-stopped` or `on-failure`; empty when the engine does not say.
    pub restart_policy: String,
    /// The engine removes it, with its anonymous volumes, as soon as it stops.
    pub auto_remove: bool,
    /// The networks' names, sorted.
    pub networks: Vec<String>,
    /// The user that its first process runs as; empty for the image's.
    pub user: String,
    /// The folder that its first process starts in.
    pub working_dir: String,
    /// Its host name.
    pub host_name: String,
}

impl ContainerDetail {
    /// The value of an environment variable; the last one counts, as for the process.
    pub fn env_value(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Debug for ContainerDetail {
    /// Environment values are masked, so that no log or failed assertion shows a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainerDetail")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("image", &self.image)
            .field("image_id", &self.image_id)
            .field("state", &self.state)
            .field("running", &self.running)
            .field("paused", &self.paused)
            .field("pid", &self.pid)
            .field("exit_code", &self.exit_code)
            .field("started_at", &self.started_at)
            .field("health", &self.health)
            .field("env", &masked(&self.env))
            .field("labels", &self.labels)
            .field("mounts", &self.mounts)
            .field("stop_timeout", &self.stop_timeout)
            .field("restart_policy", &self.restart_policy)
            .field("auto_remove", &self.auto_remove)
            .field("networks", &self.networks)
            .field("user", &self.user)
            .field("working_dir", &self.working_dir)
            .field("host_name", &self.host_name)
            .finish()
    }
}

/// An image as the engine describes it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ImageInfo {
    /// Its id, `sha256:` and 64 hexadecimal digits.
    pub id: String,
    /// Its names here, `NAME:TAG`.
    pub repo_tags: Vec<String>,
    /// Its names in registries, `NAME@DIGEST`; none of an image that was made here.
    pub repo_digests: Vec<String>,
    /// The processor that it is for, in Go's words: amd64, arm64.
    pub architecture: String,
    /// The system that it is for: linux.
    pub os: String,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl fmt::Debug for ImageInfo {
    /// Environment values are masked like a container's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImageInfo")
            .field("id", &self.id)
            .field("repo_tags", &self.repo_tags)
            .field("repo_digests", &self.repo_digests)
            .field("architecture", &self.architecture)
            .field("os", &self.os)
            .field("env", &masked(&self.env))
            .field("labels", &self.labels)
            .finish()
    }
}

/// A network as the engine describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NetworkInfo {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// `local`, `global` or `swarm`.
    pub scope: String,
    /// It has no way out.
    pub internal: bool,
    /// Containers outside a swarm's services may join.
    pub attachable: bool,
    /// It has IPv6.
    pub ipv6: bool,
    /// Its address ranges.
    pub subnets: Vec<Subnet>,
    /// Driver options.
    pub options: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

/// An address range of a network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subnet {
    /// The range, `172.18.0.0/16`.
    pub subnet: String,
    /// The gateway's address; empty when the engine does not say.
    pub gateway: String,
}

/// A container to be created. It gets no network, no capability beyond `cap_add`, no new privileges, no log, no restart, and
/// stays until it is removed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct NewContainer {
    /// Its name; the engine's choice when there is none.
    pub name: Option<String>,
    /// The image: its id or a name that is known here. Nothing is pulled.
    pub image: String,
    /// The command; the image's when empty.
    pub cmd: Vec<String>,
    /// What the command is given to; the image's when empty.
    pub entrypoint: Vec<String>,
    /// The user, `UID[:GID]`; the image's when there is none.
    pub user: Option<String>,
    /// Environment variables.
    pub env: Vec<(String, String)>,
    /// What is mounted.
    pub mounts: Vec<NewMount>,
    /// Nothing outside the mounts can be written.
    pub read_only_rootfs: bool,
    /// Capabilities to keep, without `CAP_`.
    pub cap_add: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Its stdin can be written by whoever attaches first, and ends when that one closes it.
    pub open_stdin: bool,
}

impl fmt::Debug for NewContainer {
    /// Environment values are masked like a container's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewContainer")
            .field("name", &self.name)
            .field("image", &self.image)
            .field("cmd", &self.cmd)
            .field("entrypoint", &self.entrypoint)
            .field("user", &self.user)
            .field("env", &masked(&self.env))
            .field("mounts", &self.mounts)
            .field("read_only_rootfs", &self.read_only_rootfs)
            .field("cap_add", &self.cap_add)
            .field("labels", &self.labels)
            .field("open_stdin", &self.open_stdin)
            .finish()
    }
}

/// A mount of a container to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewMount {
    /// What is mounted.
    pub source: NewMountSource,
    /// Where, an absolute path in the container.
    pub destination: String,
    /// The container cannot write.
    pub read_only: bool,
}

/// What a mount shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewMountSource {
    /// A volume, which has to exist.
    Volume {
        /// Its name.
        name: String,
        /// An empty volume is not filled with what the image has at that place.
        no_copy: bool,
    },
    /// A path on the engine's host, which has to exist.
    Bind(String),
}

pub(super) fn masked(env: &[(String, String)]) -> Vec<(&str, &str)> {
    env.iter().map(|(key, value)| (key.as_str(), if value.is_empty() { "" } else { MASK })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_s_secrets_are_not_in_debug_texts() {
        let env = vec![("POSTGRES_PASSWORD".to_owned(), "hunter2".to_owned())];
        for text in [
            format!("{:?}", ContainerDetail { env: env.clone(), ..ContainerDetail::default() }),
            format!("{:?}", ImageInfo { env: env.clone(), ..ImageInfo::default() }),
            format!("{:?}", NewContainer { env, ..NewContainer::default() }),
        ] {
            assert!(text.contains("POSTGRES_PASSWORD") && !text.contains("hunter2"), "{text}");
        }
    }

    #[test]
    fn the_last_of_two_variables_of_one_name_counts() {
        let env = [("A", "1"), ("B", "x"), ("A", "2")].map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        let detail = ContainerDetail { env, ..ContainerDetail::default() };
        assert_eq!((detail.env_value("A"), detail.env_value("C")), (Some("2"), None));
    }
}
