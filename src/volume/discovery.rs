//! Lists the engine's volumes with what a user decides on: who uses them, and whether they can be read from here.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::docker::users::{PROJECT_LABEL, Place, is_writing, users_of_all};
use crate::docker::{ContainerInfo, Engine, EngineInfo, VolumeInfo, VolumeList};
use crate::error::Result;
use crate::model::manifest::VolumeUser;

use super::host_path::{check_same_host, host_path};

/// The label of volumes that nobody named (engines since version 23).
pub const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// The length of the names that engines make up.
const ANONYMOUS_NAME_LEN: usize = 64;

/// One volume in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeSummary {
    /// Its name.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Containers that mount it or its folder, one entry per mount.
    pub users: Vec<VolumeUser>,
    /// How many containers can write to it now.
    pub writers: usize,
    /// The Compose project that it belongs to.
    pub project: Option<String>,
    /// Nobody gave it a name.
    pub anonymous: bool,
    /// Why it can't be read from here; none when it can.
    pub unreadable: Option<String>,
    /// Labels, sorted by name.
    pub labels: Vec<(String, String)>,
}

/// The engine's volumes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Listing {
    /// The volumes, sorted by name.
    pub volumes: Vec<VolumeSummary>,
    /// Why volumes may be missing from the list, in the engine's words. Who snapshots all volumes must not ignore this.
    pub warnings: Vec<String>,
}

/// What an engine said at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// Of itself.
    pub info: EngineInfo,
    /// Of its volumes.
    pub found: VolumeList,
    /// Of its containers.
    pub containers: Vec<ContainerInfo>,
}

impl Inventory {
    /// Asks the engine, in three calls however much there is.
    pub fn take(engine: &dyn Engine) -> Result<Self> {
        Ok(Self { info: engine.info()?, found: engine.volumes()?, containers: engine.containers()? })
    }

    /// Why volumes of this engine can't be read by paths of this host; none when they can.
    pub fn elsewhere(&self) -> Option<String> {
        check_same_host(&self.info, &self.found.volumes).err().map(|error| error.to_string())
    }
}

/// Lists all volumes of the engine, readable or not.
pub fn list(engine: &dyn Engine) -> Result<Listing> {
    Inventory::take(engine).map(|inventory| listing(&inventory))
}

/// The volumes of `inventory`.
pub fn listing(inventory: &Inventory) -> Listing {
    let Inventory { info, found, containers } = inventory;
    let foreign = inventory.elsewhere();
    let places: Vec<Place> = found.volumes.iter().map(Place::of).collect();
    let users = users_of_all(&places, &found.volumes, containers);
    let summary = |(volume, users): (&VolumeInfo, Vec<VolumeUser>)| {
        let writers: BTreeSet<&str> = users.iter().filter(|user| is_writing(user)).map(|user| user.container.as_str()).collect();
        VolumeSummary {
            name: volume.name.clone(),
            driver: volume.driver.clone(),
            writers: writers.len(),
            project: volume.labels.get(PROJECT_LABEL).cloned(),
            anonymous: is_anonymous(volume),
            unreadable: unreadable(info, volume).or_else(|| foreign.clone()),
            labels: volume.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            users,
        }
    };
    let mut volumes: Vec<_> = found.volumes.iter().zip(users).map(summary).collect();
    volumes.sort_by(|a, b| a.name.cmp(&b.name));
    Listing { volumes, warnings: found.warnings.clone() }
}

fn unreadable(info: &EngineInfo, volume: &VolumeInfo) -> Option<String> {
    host_path(info, volume).err().map(|error| error.to_string())
}

/// Whether the engine made up the volume's name. Older engines do not label such volumes, but their names tell.
fn is_anonymous(volume: &VolumeInfo) -> bool {
    let name = volume.name.as_bytes();
    let made_up = name.len() == ANONYMOUS_NAME_LEN && name.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    made_up || volume.labels.contains_key(ANONYMOUS_LABEL)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::docker::MountInfo;
    use crate::docker::fake::FakeEngine;
    use std::collections::BTreeMap;

    fn volume(name: &str, driver: &str, labels: &[(&str, &str)]) -> VolumeInfo {
        let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        VolumeInfo { name: name.into(), driver: driver.into(), labels, ..VolumeInfo::default() }
    }

    fn mount(volume: &str, destination: &str, writable: bool) -> MountInfo {
        MountInfo { volume: Some(volume.into()), destination: destination.into(), writable, ..MountInfo::default() }
    }

    #[test]
    fn all_volumes_are_listed_with_users_project_and_reasons_in_three_calls() {
        let root = tempfile::tempdir().unwrap();
        let engine = FakeEngine::at(root.path());
        let hex = "0123456789abcdef".repeat(4);
        engine.add_volume(volume("web", "local", &[("com.docker.compose.project", "shop"), ("a", "b")]));
        engine.add_volume(volume(&hex, "local", &[]));
        engine.add_volume(volume("labelled", "local", &[(ANONYMOUS_LABEL, "")]));
        engine.add_volume(volume("plug", "rexray", &[]));
        let mut bind = volume("bound", "local", &[]);
        bind.options = BTreeMap::from([("device".to_owned(), "/srv".to_owned())]);
        engine.add_volume(bind);
        engine.change(|state| state.warnings.push("rexray is slow".into()));
        for (name, state, mounts) in [
            ("app", "running", vec![mount("web", "/a", true), mount("web", "/b", true)]),
            ("reader", "running", vec![mount("web", "/a", false)]),
            ("old", "exited", vec![mount("web", "/a", true)]),
        ] {
            engine.add_container(ContainerInfo { name: name.into(), state: state.into(), mounts, ..ContainerInfo::default() });
        }

        let listing = list(&engine).unwrap();
        assert_eq!(engine.calls(), ["info", "volumes", "containers"]);
        assert_eq!(listing.warnings, ["rexray is slow"]);
        let names: Vec<_> = listing.volumes.iter().map(|volume| volume.name.as_str()).collect();
        assert_eq!(names, [hex.as_str(), "bound", "labelled", "plug", "web"]);
        let [anonymous, bound, labelled, plug, web]: &[VolumeSummary; 5] = listing.volumes.as_slice().try_into().unwrap();
        assert!(anonymous.anonymous && labelled.anonymous && !web.anonymous);
        assert_eq!((anonymous.unreadable.as_deref(), web.unreadable.as_deref()), (None, None));
        assert!(bound.unreadable.as_ref().unwrap().contains("folder elsewhere"));
        assert!(plug.unreadable.as_ref().unwrap().contains("rexray"));
        assert_eq!((web.project.as_deref(), web.users.len(), web.writers), (Some("shop"), 4, 1));
        assert_eq!(web.labels[0], ("a".to_owned(), "b".to_owned()));
    }

    #[test]
    fn volumes_of_an_engine_elsewhere_are_listed_as_unreadable() {
        let root = tempfile::tempdir().unwrap();
        let engine = FakeEngine::at(root.path());
        engine.add_volume(volume("web", "local", &[]));
        engine.change(|state| state.info.host_name = "elsewhere".into());
        assert!(list(&engine).unwrap().volumes[0].unreadable.as_ref().unwrap().contains("another host"));
        engine.change(|state| state.info.address = "tcp://h:1".into());
        assert!(list(&engine).unwrap().volumes[0].unreadable.as_ref().unwrap().contains("remote"));
    }

    #[test]
    fn names_that_only_look_made_up_are_not_anonymous() {
        assert!(!is_anonymous(&volume(&"a".repeat(63), "local", &[])));
        assert!(!is_anonymous(&volume(&"A".repeat(64), "local", &[])));
        assert!(!is_anonymous(&volume(&"g".repeat(64), "local", &[])));
    }
}
