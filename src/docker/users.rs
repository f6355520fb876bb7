//! Who uses a volume. Mounts of the volume itself are the easy part; a container also reaches it by a bind mount of its
//! folder (or one above or below), or through another volume whose `device` is such a folder.

use super::{ContainerInfo, MountInfo, VolumeInfo};
use crate::model::manifest::VolumeUser;

/// Docker Compose's label for the project that a volume or container belongs to.
pub const PROJECT_LABEL: &str = "com.docker.compose.project";
/// Docker Compose's label for the service that a container belongs to.
const SERVICE_LABEL: &str = "com.docker.compose.service";

/// States in which a container has no process. Every other one, known or not, counts as running.
const STILL_STATES: [&str; 4] = ["created", "exited", "dead", "removing"];

/// The containers out of `containers` that reach `volume`, one entry per mount, sorted by name and destination. `volumes` are
/// all volumes of the engine. Host paths are compared as the engine spells them; a bind mount that goes through a symlink
/// into the engine's folder is not noticed.
pub fn users(volume: &VolumeInfo, volumes: &[VolumeInfo], containers: &[ContainerInfo]) -> Vec<VolumeUser> {
    let mut found: Vec<VolumeUser> = containers
        .iter()
        .flat_map(|container| container.mounts.iter().map(move |mount| (container, mount)))
        .filter_map(|(container, mount)| {
            let destination = reach(volume, volumes, mount)?;
            Some(VolumeUser {
                container: container.name.clone(),
                image: container.image.clone(),
                state: container.state.clone(),
                destination,
                writable: mount.writable,
                project: container.labels.get(PROJECT_LABEL).cloned(),
                service: container.labels.get(SERVICE_LABEL).cloned(),
            })
        })
        .collect();
    found.sort_by(|a, b| (&a.container, &a.destination).cmp(&(&b.container, &b.destination)));
    found
}

/// Whether this user can change the volume now: it may write and its container may have a process.
pub fn is_writing(user: &VolumeUser) -> bool {
    user.writable && !STILL_STATES.contains(&user.state.as_str())
}

/// Where `volume` appears in the container because of `mount`, if it does.
fn reach(volume: &VolumeInfo, volumes: &[VolumeInfo], mount: &MountInfo) -> Option<String> {
    match &mount.volume {
        Some(name) if *name == volume.name => Some(mount.destination.clone()),
        Some(name) => {
            let device = volumes.iter().find(|other| other.name == *name)?.options.get("device")?;
            overlap(&volume.mountpoint, device, &mount.destination)
        }
        None => overlap(&volume.mountpoint, &mount.source, &mount.destination),
    }
}

/// Where `folder` appears below `destination` when `source` is mounted there; `destination` itself when `source` lies within
/// the folder; none when they do not overlap.
fn overlap(folder: &str, source: &str, destination: &str) -> Option<String> {
    if !folder.starts_with('/') || !source.starts_with('/') {
        return None;
    }
    if let Some(below) = below(folder, source) {
        let destination = destination.trim_end_matches('/');
        return Some(if below.is_empty() { destination.to_owned() } else { format!("{destination}/{below}") });
    }
    below(source, folder).map(|_| destination.to_owned())
}

/// The rest of `path` below `ancestor`, empty when they are the same; none when it is not below. Whole components count.
fn below<'a>(path: &'a str, ancestor: &str) -> Option<&'a str> {
    let rest = path.trim_end_matches('/').strip_prefix(ancestor.trim_end_matches('/'))?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn volume(name: &str) -> VolumeInfo {
        VolumeInfo { name: name.into(), mountpoint: format!("/var/lib/docker/volumes/{name}/_data"), ..VolumeInfo::default() }
    }

    fn container(name: &str, mount: MountInfo) -> ContainerInfo {
        ContainerInfo { name: name.into(), state: "running".into(), mounts: vec![mount], ..ContainerInfo::default() }
    }

    fn bind(source: &str) -> MountInfo {
        MountInfo { source: source.into(), destination: "/host".into(), writable: true, ..MountInfo::default() }
    }

    #[test]
    fn binds_of_the_folder_above_and_below_are_users_and_neighbours_are_not() {
        let db = volume("db");
        for (source, expected) in [
            ("/var/lib/docker/volumes/db/_data", Some("/host")),
            ("/var/lib/docker/volumes/db/_data/", Some("/host")),
            ("/var/lib/docker/volumes/db", Some("/host/_data")),
            ("/var/lib/docker/volumes", Some("/host/db/_data")),
            ("/", Some("/host/var/lib/docker/volumes/db/_data")),
            ("/var/lib/docker/volumes/db/_data/sub", Some("/host")),
            ("/var/lib/docker/volumes/db2/_data", None),
            ("/var/lib/docker/volumes/d", None),
            ("/srv", None),
            ("", None),
        ] {
            let found = users(&db, std::slice::from_ref(&db), &[container("c", bind(source))]);
            assert_eq!(found.first().map(|user| user.destination.as_str()), expected, "{source}");
        }
    }

    #[test]
    fn a_volume_without_a_mountpoint_is_matched_by_name_only() {
        let plugin = VolumeInfo { name: "plug".into(), ..VolumeInfo::default() };
        let by_name = MountInfo { volume: Some("plug".into()), destination: "/d".into(), ..MountInfo::default() };
        let found = users(&plugin, &[], &[container("a", by_name), container("b", bind("/"))]);
        assert_eq!(found.iter().map(|user| user.container.as_str()).collect::<Vec<_>>(), ["a"]);
    }

    #[test]
    fn a_volume_whose_device_is_a_folder_of_this_one_counts() {
        let db = volume("db");
        let mut alias = volume("alias");
        alias.options = BTreeMap::from([("device".into(), "/var/lib/docker/volumes/db/_data/sub".into())]);
        let mount = MountInfo { volume: Some("alias".into()), source: alias.mountpoint.clone(), ..bind("") };
        let found = users(&db, &[alias.clone(), db.clone()], &[container("c", mount)]);
        assert_eq!(found.len(), 1);
        assert!(is_writing(&found[0]));
    }

    #[test]
    fn users_are_sorted_and_carry_their_compose_names() {
        let db = volume("db");
        let mount = MountInfo { volume: Some("db".into()), destination: "/d".into(), ..MountInfo::default() };
        let mut first = container("a", mount.clone());
        first.labels = BTreeMap::from([(PROJECT_LABEL.into(), "shop".into()), (SERVICE_LABEL.into(), "web".into())]);
        let found = users(&db, &[], &[container("b", mount), first]);
        assert_eq!(found[0].container, "a");
        assert_eq!((found[0].project.as_deref(), found[0].service.as_deref()), (Some("shop"), Some("web")));
        assert_eq!(found[1].container, "b");
    }

    #[test]
    fn only_containers_without_processes_are_still() {
        let user = |state: &str, writable| VolumeUser {
            container: String::new(),
            image: String::new(),
            state: state.into(),
            destination: String::new(),
            writable,
            project: None,
            service: None,
        };
        for state in ["running", "paused", "restarting", "stopping", "", "a state of the future"] {
            assert!(is_writing(&user(state, true)), "{state}");
            assert!(!is_writing(&user(state, false)), "{state}");
        }
        for state in ["created", "exited", "dead", "removing"] {
            assert!(!is_writing(&user(state, true)), "{state}");
        }
    }
}
