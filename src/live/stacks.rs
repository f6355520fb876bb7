//! Compose projects as stacks: what belongs to each, told by the labels of containers and volumes. A project whose containers
//! are gone is still one as long as it has volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use super::settings::Priority;
use super::survey::{BindState, Uncovered, VolumeState};
use crate::docker::ContainerInfo;
use crate::docker::users::PROJECT_LABEL;
use crate::volume::discovery::Inventory;

const SERVICE_LABEL: &str = "com.docker.compose.service";
const FOLDER_LABEL: &str = "com.docker.compose.project.working_dir";
const FILES_LABEL: &str = "com.docker.compose.project.config_files";

/// A service of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The image of its first container.
    pub image: String,
    /// Its containers.
    pub containers: Vec<String>,
    /// How many of them are running.
    pub running: usize,
}

/// A volume of a stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StackVolume {
    /// Its name.
    pub name: String,
    /// It is not labelled as the project's; the project's containers use it.
    pub external: bool,
    /// Nobody gave it a name.
    pub anonymous: bool,
    /// Containers that reach it.
    pub users: Vec<String>,
    /// How many containers can write to it now.
    pub writers: usize,
    /// Why it is not captured with the stack; none when it is.
    pub uncovered: Option<String>,
}

/// A Compose project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stack {
    /// The project's name.
    pub name: String,
    /// The folder that it was started in, as Compose said.
    pub folder: Option<String>,
    /// Its Compose files, as Compose said.
    pub files: Vec<String>,
    /// Its services, sorted by name.
    pub services: Vec<Service>,
    /// Its volumes, sorted by name.
    pub volumes: Vec<StackVolume>,
    /// Folders that are captured with it.
    pub binds: Vec<PathBuf>,
    /// What is not captured.
    pub uncovered: Vec<Uncovered>,
    /// The highest priority among what is captured.
    #[serde(serialize_with = "priority_word")]
    pub priority: Priority,
}

fn priority_word<S: serde::Serializer>(priority: &Priority, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(priority)
}

/// The stacks in what an engine said, sorted by name.
pub(super) fn stacks(inventory: &Inventory, volumes: &[VolumeState], binds: &[BindState], uncovered: &[Uncovered]) -> Vec<Stack> {
    let mut containers: BTreeMap<&str, Vec<&ContainerInfo>> = BTreeMap::new();
    for container in &inventory.containers {
        if let Some(project) = container.labels.get(PROJECT_LABEL) {
            containers.entry(project).or_default().push(container);
        }
    }
    let mut parts: BTreeMap<&str, Parts<'_>> = containers.keys().map(|name| (*name, Parts::default())).collect();
    for volume in volumes {
        if let Some(project) = volume.summary.project.as_deref() {
            parts.entry(project).or_default().volumes.push((volume, false));
            continue;
        }
        for project in direct_projects(volume, &containers) {
            parts.entry(project).or_default().volumes.push((volume, true));
        }
    }
    for bind in binds {
        if let Some(project) = bind.project.as_deref() {
            parts.entry(project).or_default().binds.push(bind);
        }
    }
    for one in uncovered {
        if let Some(project) = one.project.as_deref() {
            parts.entry(project).or_default().uncovered.push(one.clone());
        }
    }
    parts.into_iter().map(|(name, parts)| stack(name, containers.get(name).map_or(&[][..], Vec::as_slice), parts)).collect()
}

/// What belongs to one stack.
#[derive(Default)]
struct Parts<'a> {
    volumes: Vec<(&'a VolumeState, bool)>,
    binds: Vec<&'a BindState>,
    uncovered: Vec<Uncovered>,
}

/// The projects whose containers mount a volume that no project owns. Those that only see the folder above it, as a backup
/// program does, do not own it either.
fn direct_projects<'a>(volume: &'a VolumeState, containers: &BTreeMap<&'a str, Vec<&ContainerInfo>>) -> BTreeSet<&'a str> {
    let mounts = |container: &&&ContainerInfo| container.mounts.iter().any(|mount| mount.volume.as_ref() == Some(&volume.summary.name));
    let projects: BTreeSet<&str> = volume.summary.users.iter().filter_map(|user| user.project.as_deref()).collect();
    projects.into_iter().filter(|project| containers.get(project).is_some_and(|all| all.iter().any(|c| mounts(&c)))).collect()
}

fn stack(name: &str, containers: &[&ContainerInfo], parts: Parts<'_>) -> Stack {
    let label = |label: &str| containers.iter().find_map(|container| container.labels.get(label)).filter(|text| !text.is_empty());
    let external = parts.volumes.iter().filter(|(_, external)| *external);
    let mut uncovered: Vec<Uncovered> =
        external.filter_map(|(volume, _)| super::survey::uncovered_volume(volume)).chain(parts.uncovered).collect();
    uncovered.sort_by(|a, b| (a.kind, &a.name, &a.container).cmp(&(b.kind, &b.name, &b.container)));
    let covered_volumes = parts.volumes.iter().map(|(volume, _)| (&volume.policy, &volume.uncovered));
    let covered_binds = parts.binds.iter().map(|bind| (&bind.policy, &bind.uncovered));
    let covered = covered_volumes.chain(covered_binds).filter(|(_, uncovered)| uncovered.is_none());
    let priority = covered.map(|(policy, _)| policy.priority.value).min().unwrap_or(Priority::None);
    Stack {
        name: name.to_owned(),
        folder: label(FOLDER_LABEL).cloned(),
        files: label(FILES_LABEL).map(|files| files.split(',').map(str::to_owned).collect()).unwrap_or_default(),
        services: services(containers),
        volumes: parts.volumes.iter().map(|(volume, external)| stack_volume(volume, *external)).collect(),
        binds: parts.binds.iter().filter(|bind| bind.uncovered.is_none()).map(|bind| bind.path.clone()).collect(),
        uncovered,
        priority,
    }
}

fn services(containers: &[&ContainerInfo]) -> Vec<Service> {
    let mut services: BTreeMap<&str, Service> = BTreeMap::new();
    for container in containers {
        let name = container.labels.get(SERVICE_LABEL).map_or(container.name.as_str(), String::as_str);
        let service = services.entry(name).or_insert_with(|| Service {
            name: name.to_owned(),
            image: container.image.clone(),
            containers: Vec::new(),
            running: 0,
        });
        service.containers.push(container.name.clone());
        service.running += usize::from(container.state == "running");
    }
    services.values_mut().for_each(|service| service.containers.sort());
    services.into_values().collect()
}

fn stack_volume(volume: &VolumeState, external: bool) -> StackVolume {
    let users: BTreeSet<&str> = volume.summary.users.iter().map(|user| user.container.as_str()).collect();
    StackVolume {
        name: volume.summary.name.clone(),
        external,
        anonymous: volume.summary.anonymous,
        users: users.into_iter().map(str::to_owned).collect(),
        writers: volume.summary.writers,
        uncovered: volume.uncovered.clone(),
    }
}
