//! Which containers' labels are about which volumes. A container speaks for what it can write to, and for nothing else.

use std::collections::HashMap;

use super::labels::{Reading, Remark};
use super::policy::{ContainerName, Speaker};
use super::settings::{Origin, Setting, Settings};
use super::values::{destination, shown};
use crate::docker::users::PROJECT_LABEL;
use crate::docker::{ContainerInfo, MountInfo};
use crate::volume::discovery::VolumeSummary;

/// Compose's label for a volume's key in the Compose file.
const VOLUME_KEY_LABEL: &str = "com.docker.compose.volume";

/// Which containers mount which volume so that they can write to it.
pub(super) struct Speech<'a> {
    containers: &'a [ContainerInfo],
    readings: &'a [Reading],
    by_volume: HashMap<&'a str, Vec<(usize, &'a MountInfo)>>,
}

impl<'a> Speech<'a> {
    pub(super) fn new(containers: &'a [ContainerInfo], readings: &'a [Reading]) -> Self {
        let mut by_volume: HashMap<&str, Vec<(usize, &MountInfo)>> = HashMap::new();
        for (at, container) in containers.iter().enumerate() {
            for mount in container.mounts.iter().filter(|mount| mount.writable) {
                if let Some(name) = mount.volume.as_deref() {
                    by_volume.entry(name).or_default().push((at, mount));
                }
            }
        }
        Self { containers, readings, by_volume }
    }

    /// The containers that speak for `volume`, those of its project first, then running ones, then by name.
    pub(super) fn speakers(&self, volume: &VolumeSummary) -> Vec<Speaker<'a>> {
        let mounts = self.by_volume.get(volume.name.as_str()).map_or(&[][..], Vec::as_slice);
        let mut found: Vec<((bool, bool, &str), Speaker<'a>)> = Vec::new();
        for (at, mount) in mounts {
            let (Some(container), Some(reading)) = (self.containers.get(*at), self.readings.get(*at)) else { continue };
            let Some(enable) = says(&reading.settings, volume, mount) else { continue };
            let project = container.labels.get(PROJECT_LABEL).map(String::as_str);
            let rank = (project != volume.project.as_deref(), container.state != "running", container.name.as_str());
            let speaker = speaker(container, project, reading, enable);
            match found.iter_mut().find(|(_, other)| other.container.id == speaker.container.id && other.container.name == container.name) {
                // It mounts the volume twice.
                Some((_, other)) => {
                    let wants = speaker.enable.as_ref().is_some_and(|enable| enable.value);
                    other.enable = if wants { speaker.enable } else { other.enable.take().or(speaker.enable) };
                }
                None => found.push((rank, speaker)),
            }
        }
        found.sort_by_key(|(rank, _)| *rank);
        found.into_iter().map(|(_, speaker)| speaker).collect()
    }
}

pub(super) fn speaker<'a>(
    container: &'a ContainerInfo,
    project: Option<&'a str>,
    reading: &'a Reading,
    enable: Option<Setting<bool>>,
) -> Speaker<'a> {
    let container = ContainerName { id: container.id.clone(), name: container.name.clone() };
    Speaker { container, project, settings: &reading.settings, plain: &reading.plain, enable }
}

/// Whether a container's labels are about a volume that it mounts, and if so whether they want it captured.
fn says(settings: &Settings, volume: &VolumeSummary, mount: &MountInfo) -> Option<Option<Setting<bool>>> {
    let names = |list: &Option<Setting<Vec<String>>>| list.as_ref().map(|list| list.value.iter().any(|item| is_named(item, volume, mount)));
    let no = |origin: &Origin| Some(Some(Setting::new(false, origin.clone())));
    if let Some(exclude) = settings.volumes_exclude.as_ref().filter(|_| names(&settings.volumes_exclude) == Some(true)) {
        return no(&exclude.origin);
    }
    match (&settings.volumes, names(&settings.volumes)) {
        (Some(list), Some(true)) => Some(Some(settings.enable.clone().unwrap_or(Setting::new(true, list.origin.clone())))),
        // Nobody has to name what is left out in any case.
        (_, _) if volume.anonymous => None,
        (Some(list), _) => no(&list.origin),
        (None, _) => Some(settings.enable.clone()),
    }
}

/// Whether an item of a list means a mount: by destination, by the volume's name or by its key in the Compose file.
fn is_named(item: &str, volume: &VolumeSummary, mount: &MountInfo) -> bool {
    let key = || volume.labels.iter().find(|(name, _)| name == VOLUME_KEY_LABEL).map(|(_, key)| key.as_str());
    if item.starts_with('/') { is_at(item, mount) } else { item == volume.name || key() == Some(item) }
}

pub(super) fn is_at(item: &str, mount: &MountInfo) -> bool {
    destination(&mount.destination).is_ok_and(|at| at == item)
}

/// Items of a container's lists that mean none of its mounts.
pub(super) fn names_nothing(container: &ContainerInfo, settings: &Settings, volumes: &HashMap<&str, &VolumeSummary>) -> Vec<Remark> {
    let mounted = |item: &str, mount: &MountInfo| {
        mount.volume.as_deref().and_then(|name| volumes.get(name)).is_some_and(|volume| is_named(item, volume, mount))
    };
    let on = format!("container {}", shown(&container.name));
    let mut remarks = Vec::new();
    for list in [&settings.volumes, &settings.volumes_exclude].into_iter().flatten() {
        for item in &list.value {
            let mut mounts = container.mounts.iter().filter(|mount| mounted(item, mount)).peekable();
            if mounts.peek().is_none() {
                let remark = Remark::problem(&on, format!("{} names {}, which is no volume of it", list.origin, shown(item)));
                remarks.push(remark.hint("name a volume, its key in the Compose file, or where it is mounted"));
            } else if !mounts.any(|mount| mount.writable) {
                let message = format!("{} names {}, which it can only read: its labels say nothing about it", list.origin, shown(item));
                remarks.push(Remark::problem(&on, message).hint("put the label on a container that writes to the volume"));
            }
        }
    }
    for item in settings.binds.iter().flat_map(|binds| &binds.value) {
        if !container.mounts.iter().any(|mount| is_bind(mount) && is_at(item, mount)) {
            let remark = Remark::problem(&on, format!("icecore.binds names {}, where no bind mount of it is", shown(item)));
            remarks.push(remark.hint("name the path in the container"));
        }
    }
    remarks
}

/// Whether a mount is a bind mount, and not something in memory.
pub(super) fn is_bind(mount: &MountInfo) -> bool {
    mount.volume.is_none() && !mount.source.is_empty()
}
