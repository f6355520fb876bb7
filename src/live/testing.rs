//! Volumes and containers for tests.

use std::collections::BTreeMap;
use std::path::Path;

use crate::docker::fake::FakeEngine;
use crate::docker::{ContainerInfo, MountInfo, VolumeInfo};

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// An engine whose data folder is `root`.
pub(super) fn engine(root: &Path) -> FakeEngine {
    FakeEngine::at(root)
}

/// A volume of the local driver.
pub(super) fn volume(name: &str, pairs: &[(&str, &str)]) -> VolumeInfo {
    VolumeInfo { name: name.into(), driver: "local".into(), labels: labels(pairs), ..VolumeInfo::default() }
}

/// A container of a project.
pub(super) fn container(name: &str, project: Option<&str>, state: &str, pairs: &[(&str, &str)], mounts: Vec<MountInfo>) -> ContainerInfo {
    let mut labels = labels(pairs);
    labels.extend(project.map(|project| ("com.docker.compose.project".to_owned(), project.to_owned())));
    ContainerInfo { id: format!("id-{name}"), name: name.into(), state: state.into(), labels, mounts, ..ContainerInfo::default() }
}

/// A mount of a volume that can be written to.
pub(super) fn mount(volume: &str, destination: &str) -> MountInfo {
    MountInfo { volume: Some(volume.into()), destination: destination.into(), writable: true, ..MountInfo::default() }
}

/// A bind mount that can be written to.
pub(super) fn bind(source: &str, destination: &str) -> MountInfo {
    MountInfo { source: source.into(), destination: destination.into(), writable: true, ..MountInfo::default() }
}
