//! Opens a volume for a snapshot: its path on this host, its facts, and how still it is.

use std::fs;
use std::path::PathBuf;

pub use crate::docker::secrets::mask_options;
use crate::docker::users::is_writing;
use crate::docker::{Engine, users};
use crate::error::Result;
use crate::model::Consistency;
use crate::model::manifest::{VolumeFacts, VolumeUser};

use super::facts::facts;
use super::host_path::{check_same_host, host_path};

/// A volume that can be read.
#[derive(Debug, Clone)]
pub struct VolumeAccess {
    /// The directory with its contents, free of symlinks.
    pub path: PathBuf,
    /// What the engine knows of it.
    pub facts: VolumeFacts,
    /// How still it was at this moment. A container that starts later makes `Stopped` untrue.
    pub consistency: Consistency,
    /// What a user should hear of before trusting a snapshot of it.
    pub notes: Vec<String>,
}

/// Finds the volume `name` and where to read it. Creates nothing. `NotFound` when there is no such volume; `Unsupported` with
/// a way out when its contents can't be had by a path of this host; `Source` when we may not read them. `mask` as for
/// [`facts()`](super::facts::facts).
pub fn resolve(engine: &dyn Engine, name: &str, mask: bool) -> Result<VolumeAccess> {
    let volume = engine.volume(name)?;
    let info = engine.info()?;
    let path = host_path(&info, &volume)?;
    let all = engine.volumes()?.volumes;
    check_same_host(&info, &all)?;
    // Last, so that the answer is as fresh as can be when reading begins.
    let users = users(&volume, &all, &engine.containers()?);

    let mut notes = Vec::new();
    if info.userns_remap {
        notes
            .push("the engine shifts the owners of files (userns-remap); a restore to an engine that does not has other owners".to_owned());
    }
    if fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none()) {
        notes.push("the volume is empty".to_owned());
    }
    let consistency = consistency(&users);
    Ok(VolumeAccess { path, facts: facts(&info, &volume, users, mask), consistency, notes })
}

/// `Stopped` when no container that may have a process can write to the volume, else `Fuzzy`.
pub fn consistency(users: &[VolumeUser]) -> Consistency {
    if users.iter().any(is_writing) { Consistency::Fuzzy } else { Consistency::Stopped }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::docker::fake::FakeEngine;
    use crate::docker::{ContainerInfo, MountInfo, VolumeInfo};
    use crate::error::ErrorKind;

    fn engine(root: &std::path::Path) -> FakeEngine {
        let engine = FakeEngine::at(root);
        engine.add_volume(VolumeInfo { name: "db".into(), driver: "local".into(), ..VolumeInfo::default() });
        engine
    }

    fn container(state: &str, mount: MountInfo) -> ContainerInfo {
        ContainerInfo { name: "c".into(), state: state.into(), mounts: vec![mount], ..ContainerInfo::default() }
    }

    #[test]
    fn a_volume_is_as_still_as_its_users() {
        let root = tempfile::tempdir().unwrap();
        let own = |writable| MountInfo { volume: Some("db".into()), writable, ..MountInfo::default() };
        let bind = MountInfo { source: root.path().join("volumes").display().to_string(), writable: true, ..MountInfo::default() };
        let other = MountInfo { volume: Some("other".into()), writable: true, ..MountInfo::default() };
        for (state, mount, expected) in [
            ("running", own(true), Consistency::Fuzzy),
            ("paused", own(true), Consistency::Fuzzy),
            ("restarting", own(true), Consistency::Fuzzy),
            ("running", bind, Consistency::Fuzzy),
            ("exited", own(true), Consistency::Stopped),
            ("created", own(true), Consistency::Stopped),
            ("running", own(false), Consistency::Stopped),
            ("running", other, Consistency::Stopped),
        ] {
            let engine = engine(root.path());
            engine.add_container(container(state, mount.clone()));
            let access = resolve(&engine, "db", true).unwrap();
            assert_eq!(access.consistency, expected, "{state} {mount:?}");
            assert_eq!(access.facts.users.len(), usize::from(mount.volume.as_deref() != Some("other")));
        }
    }

    #[test]
    fn the_path_is_real_and_an_empty_volume_or_shifted_owners_are_noted() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path());
        let access = resolve(&engine, "db", true).unwrap();
        assert_eq!(access.path, fs::canonicalize(root.path().join("volumes/db/_data")).unwrap());
        assert_eq!(access.notes, ["the volume is empty"]);
        fs::write(access.path.join("f"), b"x").unwrap();
        engine.change(|state| state.info.userns_remap = true);
        let notes = resolve(&engine, "db", true).unwrap().notes;
        assert!(notes.len() == 1 && notes[0].contains("userns-remap"), "{notes:?}");
    }

    #[test]
    fn a_missing_volume_is_not_found_and_not_made() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path());
        let error = resolve(&engine, "dv", true).unwrap_err();
        assert_eq!((error.kind(), error.subject()), (ErrorKind::NotFound, Some("dv")));
        assert!(error.advice().unwrap().contains("icecore volumes"));
        assert_eq!(engine.calls(), ["volume dv"]);
        assert!(!engine.has_volume("dv"));
    }

    #[test]
    fn each_failing_call_fails_the_resolution_and_none_changes_anything() {
        let root = tempfile::tempdir().unwrap();
        for call in 1..=4 {
            let engine = engine(root.path());
            engine.fail_at(call, ErrorKind::Docker);
            assert_eq!(resolve(&engine, "db", true).unwrap_err().kind(), ErrorKind::Docker, "call {call}");
        }
        let engine = engine(root.path());
        resolve(&engine, "db", true).unwrap();
        assert_eq!(engine.calls(), ["volume db", "info", "volumes", "containers"]);
    }

    #[test]
    fn an_engine_of_another_host_is_refused_although_the_path_exists() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path());
        engine.change(|state| state.info.host_name = "elsewhere".into());
        assert_eq!(resolve(&engine, "db", true).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
