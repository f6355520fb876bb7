//! Who uses a volume. Mounts of the volume itself are the easy part; a container also reaches it by a bind mount of its
//! folder (or one above or below), or through another volume whose `device` is such a folder.

use std::collections::{BTreeMap, HashMap};

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
    users_of_all(&[Place::of(volume)], volumes, containers).pop().unwrap_or_default()
}

/// What containers can reach: a volume, or a folder of the engine's host.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The volume's name; none for a folder that is none's.
    pub volume: Option<&'a str>,
    /// The folder, as the engine spells it; empty when the driver does not say.
    pub folder: &'a str,
}

impl<'a> Place<'a> {
    /// A volume's place.
    pub fn of(volume: &'a VolumeInfo) -> Self {
        Self { volume: Some(&volume.name), folder: &volume.mountpoint }
    }
}

/// [`users`] of several places at once, in their order, in one pass over the containers: what a mount reaches is looked up.
pub fn users_of_all(places: &[Place<'_>], volumes: &[VolumeInfo], containers: &[ContainerInfo]) -> Vec<Vec<VolumeUser>> {
    let atlas = Atlas::new(places, volumes);
    let mut found: Vec<Vec<VolumeUser>> = vec![Vec::new(); places.len()];
    for container in containers {
        for mount in &container.mounts {
            for (at, destination) in atlas.reached(mount) {
                if let Some(users) = found.get_mut(at) {
                    users.push(user(container, mount, destination));
                }
            }
        }
    }
    for users in &mut found {
        users.sort_by(|a, b| (&a.container, &a.destination).cmp(&(&b.container, &b.destination)));
    }
    found
}

fn user(container: &ContainerInfo, mount: &MountInfo, destination: String) -> VolumeUser {
    VolumeUser {
        container: container.name.clone(),
        image: container.image.clone(),
        state: container.state.clone(),
        destination,
        writable: mount.writable,
        project: container.labels.get(PROJECT_LABEL).cloned(),
        service: container.labels.get(SERVICE_LABEL).cloned(),
    }
}

/// Whether this user can change the volume now: it may write and its container may have a process.
pub fn is_writing(user: &VolumeUser) -> bool {
    user.writable && !STILL_STATES.contains(&user.state.as_str())
}

/// Places by name and by folder.
struct Atlas<'a> {
    by_name: HashMap<&'a str, usize>,
    /// Folders without a `/` at their end, of all places, and of those that are no volumes.
    by_folder: BTreeMap<&'a str, Vec<usize>>,
    folders_only: BTreeMap<&'a str, Vec<usize>>,
    /// Volumes whose contents are a folder elsewhere, with that folder.
    devices: HashMap<&'a str, &'a str>,
}

impl<'a> Atlas<'a> {
    fn new(places: &[Place<'a>], volumes: &'a [VolumeInfo]) -> Self {
        let (mut by_name, mut by_folder, mut folders_only) = (HashMap::new(), BTreeMap::new(), BTreeMap::new());
        for (at, place) in places.iter().enumerate() {
            if let Some(name) = place.volume {
                by_name.insert(name, at);
            }
            if place.folder.starts_with('/') {
                let folder = place.folder.trim_end_matches('/');
                by_folder.entry(folder).or_insert_with(Vec::new).push(at);
                if place.volume.is_none() {
                    folders_only.entry(folder).or_insert_with(Vec::new).push(at);
                }
            }
        }
        let device = |volume: &'a VolumeInfo| Some((volume.name.as_str(), volume.options.get("device")?.as_str()));
        Self { by_name, by_folder, folders_only, devices: volumes.iter().filter_map(device).collect() }
    }

    /// The places that the container reaches by `mount`, and where they appear in it.
    fn reached(&self, mount: &MountInfo) -> Vec<(usize, String)> {
        let Some(name) = mount.volume.as_deref() else {
            return overlaps(&self.by_folder, &mount.source, &mount.destination);
        };
        let mut found: Vec<(usize, String)> = Vec::new();
        let own = self.by_name.get(name).copied();
        found.extend(own.map(|at| (at, mount.destination.clone())));
        if let Some(device) = self.devices.get(name) {
            found.extend(overlaps(&self.by_folder, device, &mount.destination).into_iter().filter(|(at, _)| Some(*at) != own));
        }
        // Volumes lie in no other volume, but a folder can hold them.
        let folders = overlaps(&self.folders_only, &mount.source, &mount.destination);
        let known: Vec<usize> = found.iter().map(|(at, _)| *at).collect();
        found.extend(folders.into_iter().filter(|(at, _)| !known.contains(at)));
        found
    }
}

/// The folders that overlap with `source`: itself, those below it and those above it.
fn overlaps(folders: &BTreeMap<&str, Vec<usize>>, source: &str, destination: &str) -> Vec<(usize, String)> {
    if !source.starts_with('/') {
        return Vec::new();
    }
    let source = source.trim_end_matches('/');
    let prefix = format!("{source}/");
    let below = folders.range(prefix.as_str()..).take_while(|(folder, _)| folder.starts_with(&prefix));
    let above = ancestors(source).filter_map(|ancestor| folders.get_key_value(ancestor));
    let found = folders.get_key_value(source).into_iter().chain(below).chain(above);
    let shown = found.filter_map(|(folder, places)| Some((places, overlap(folder, source, destination)?)));
    shown.flat_map(|(places, shown)| places.iter().map(move |at| (*at, shown.clone()))).collect()
}

/// The folders above `path`, from the nearest to the root, which is the empty text.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rfind('/').map(|end| &path[..end])).skip(1)
}

/// Where `folder` appears below `destination` when `source` is mounted there; `destination` itself when `source` lies within
/// the folder; none when they do not overlap.
fn overlap(folder: &str, source: &str, destination: &str) -> Option<String> {
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

    /// What the rule says, mount by mount.
    fn reaches(place: &Place<'_>, volumes: &[VolumeInfo], mount: &MountInfo) -> bool {
        let meet = |source: &str| {
            let whole = |path: &str| format!("{}/", path.trim_end_matches('/'));
            place.folder.starts_with('/')
                && source.starts_with('/')
                && (whole(place.folder).starts_with(&whole(source)) || whole(source).starts_with(&whole(place.folder)))
        };
        match &mount.volume {
            Some(name) => {
                let device = volumes.iter().find(|volume| volume.name == *name).and_then(|volume| volume.options.get("device"));
                place.volume == Some(name) || device.is_some_and(|device| meet(device)) || (place.volume.is_none() && meet(&mount.source))
            }
            None => meet(&mount.source),
        }
    }

    #[test]
    fn looking_places_up_finds_what_comparing_all_with_all_finds() {
        let folders = ["/", "/a", "/a/", "/a/b", "/a/b/c", "/a/bc", "/ab", "/a//b", "", "a", "/d/e"];
        let mut volumes: Vec<VolumeInfo> = folders
            .iter()
            .enumerate()
            .map(|(at, folder)| VolumeInfo { name: format!("v{at}"), mountpoint: (*folder).into(), ..VolumeInfo::default() })
            .collect();
        for (at, volume) in volumes.iter_mut().enumerate().filter(|(at, _)| at % 2 == 0) {
            volume.options = BTreeMap::from([("device".into(), folders[(at + 3) % folders.len()].into())]);
        }
        let mut places: Vec<Place> = volumes.iter().map(Place::of).collect();
        places.extend(folders.map(|folder| Place { volume: None, folder }));
        let mut mounts: Vec<MountInfo> = folders.iter().map(|folder| bind(folder)).collect();
        mounts.extend(volumes.iter().map(|volume| MountInfo { volume: Some(volume.name.clone()), ..bind(&volume.mountpoint) }));
        let containers: Vec<ContainerInfo> =
            mounts.iter().enumerate().map(|(at, mount)| container(&format!("c{at:02}"), mount.clone())).collect();

        let found = users_of_all(&places, &volumes, &containers);
        for (place, users) in places.iter().zip(found) {
            let names: Vec<String> = users.into_iter().map(|user| user.container).collect();
            let expected: Vec<String> = containers
                .iter()
                .filter(|container| reaches(place, &volumes, &container.mounts[0]))
                .map(|container| container.name.clone())
                .collect();
            assert_eq!(names, expected, "{place:?}");
        }
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
