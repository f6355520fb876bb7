//! What containers mount besides volumes: bind mounts that their labels ask for, and what is not covered.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::binds;
use super::labels::{HELPER_LABEL, Reading, Remark};
use super::policy::{self, Speaker, Subject};
use super::rules::Rules;
use super::settings::{Setting, Settings};
use super::speech::{is_at, is_bind, speaker};
use super::survey::{BindState, Uncovered};
use super::values::shown;
use crate::docker::users::{PROJECT_LABEL, Place, users_of_all};
use crate::docker::{ContainerInfo, MountInfo};
use crate::model::manifest::VolumeUser;
use crate::volume::discovery::Inventory;

/// A bind mount that a container asks for.
pub(super) struct Asked<'a> {
    container: &'a ContainerInfo,
    reading: &'a Reading,
    mount: &'a MountInfo,
    path: PathBuf,
}

/// What a container mounts besides volumes.
pub(super) fn look_at_mounts<'a>(
    container: &'a ContainerInfo,
    reading: &'a Reading,
    elsewhere: Option<&str>,
    rules: &Rules,
    asked: &mut Vec<Asked<'a>>,
    uncovered: &mut Vec<Uncovered>,
) {
    if container.labels.contains_key(HELPER_LABEL) {
        return;
    }
    for mount in container.mounts.iter().filter(|mount| mount.volume.is_none()) {
        let wanted = reading.settings.binds.as_ref().is_some_and(|binds| binds.value.iter().any(|item| is_at(item, mount)));
        let reason = match (is_bind(mount), wanted, elsewhere) {
            (false, ..) => "it is in memory, or nothing that a folder of the host holds".to_owned(),
            (true, false, _) => "a bind mount; icecore.binds on its container can ask for it".to_owned(),
            (true, true, Some(why)) => why.to_owned(),
            (true, true, None) => match binds::allowed(&mount.source, &rules.bind_roots) {
                Ok(path) => {
                    asked.push(Asked { container, reading, mount, path });
                    continue;
                }
                Err(error) => error.to_string(),
            },
        };
        uncovered.push(uncovered_mount(container, mount, reason));
    }
}

fn uncovered_mount(container: &ContainerInfo, mount: &MountInfo, reason: String) -> Uncovered {
    Uncovered {
        kind: if is_bind(mount) { "bind" } else { "tmpfs" },
        name: mount.source.clone(),
        container: Some(container.name.clone()),
        destination: Some(mount.destination.clone()),
        writable: mount.writable,
        project: container.labels.get(PROJECT_LABEL).cloned(),
        reason,
    }
}

/// The folders that were asked for, each once.
pub(super) fn bind_states(
    asked: Vec<Asked<'_>>,
    inventory: &Inventory,
    rules: &Rules,
    remarks: &mut Vec<Remark>,
    uncovered: &mut Vec<Uncovered>,
) -> Vec<BindState> {
    let mut by_path: BTreeMap<PathBuf, Vec<Asked<'_>>> = BTreeMap::new();
    for one in asked {
        by_path.entry(one.path.clone()).or_default().push(one);
    }
    let users = users_of_folders(&by_path, inventory);
    let mut states = Vec::new();
    for ((path, asked), users) in by_path.into_iter().zip(users) {
        let speakers: Vec<Speaker> = asked
            .iter()
            .map(|one| {
                let project = one.container.labels.get(PROJECT_LABEL).map(String::as_str);
                let origin = one.reading.settings.binds.as_ref().map(|binds| binds.origin.clone()).unwrap_or_default();
                let enable = one.reading.settings.enable.clone().unwrap_or(Setting::new(true, origin));
                speaker(one.container, project, one.reading, Some(enable))
            })
            .collect();
        let project = speakers.first().and_then(|speaker| speaker.project).map(str::to_owned);
        let on = format!("folder {}", shown(&path.to_string_lossy()));
        let subject = Subject { on: &on, project: project.as_deref(), users: &users };
        let configured = policy::configured(rules, None, project.as_deref());
        let policy = policy::resolve(&subject, configured, (Settings::default(), Settings::default()), &speakers, rules, remarks);
        let reason = policy.refusal(rules.discover);
        if let Some(reason) = &reason {
            uncovered.extend(asked.iter().map(|one| uncovered_mount(one.container, one.mount, reason.clone())));
        }
        states.push(BindState { path, project, policy, users, uncovered: reason });
    }
    states
}

/// Who reaches each folder, by its real path or as the engine spells it.
fn users_of_folders(by_path: &BTreeMap<PathBuf, Vec<Asked<'_>>>, inventory: &Inventory) -> Vec<Vec<VolumeUser>> {
    let mut folders: Vec<(usize, &str)> = Vec::new();
    for (at, (path, asked)) in by_path.iter().enumerate() {
        folders.extend(path.to_str().map(|path| (at, path)));
        folders.extend(asked.iter().map(|one| (at, one.mount.source.as_str())));
    }
    folders.sort_unstable();
    folders.dedup();
    let places: Vec<Place> = folders.iter().map(|(_, folder)| Place { volume: None, folder }).collect();
    let mut found: Vec<Vec<VolumeUser>> = vec![Vec::new(); by_path.len()];
    for ((at, _), users) in folders.iter().zip(users_of_all(&places, &inventory.found.volumes, &inventory.containers)) {
        if let Some(all) = found.get_mut(*at) {
            let new: Vec<VolumeUser> = users.into_iter().filter(|user| !all.contains(user)).collect();
            all.extend(new);
        }
    }
    found
}
