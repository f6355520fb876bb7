//! Makes a volume to restore a snapshot into. What a repository says of the old volume is not trusted: nothing of it may choose
//! a path, a device or a server of this host.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::docker::{Engine, NewVolume, check_volume_name, create_volume};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::model::manifest::VolumeFacts;
use crate::model::path::escape;

use super::host_path::{check_engine, check_same_host, check_volumes_folder, host_path};

/// Labels by which Docker and Compose know their own. A clone that carried them would belong to the original's project (and
/// go with `docker compose down -v`), or pass for anonymous (and go with `docker volume prune`).
const OWNERSHIP_LABELS: [&str; 3] = ["com.docker.compose.", "com.docker.stack.", "com.docker.volume."];

/// What the engine itself puts beside `_data`.
const ENGINE_FILE: &str = "opts.json";

/// A volume that was made a moment ago, to restore into.
#[derive(Debug)]
#[must_use = "a volume that is not filled has to be removed again"]
pub struct Recreated {
    /// Its name.
    pub name: String,
    /// The empty directory for its contents.
    pub path: PathBuf,
    /// Names of labels of the original that it did not get.
    pub dropped_labels: Vec<String>,
}

impl Recreated {
    /// Removes the volume with all that was restored into it, after a failure. `Busy` when a container refers to it by now.
    pub fn undo(self, engine: &dyn Engine) -> Result<()> {
        engine.remove_volume(&self.name)
    }
}

/// Creates the volume `name` for the contents of a snapshot of the volume `origin` with these `facts`.
///
/// `AlreadyExists` when there is a volume of that name. A driver other than `local` and driver options are not recreated:
/// `Unsupported`, or with `ignore_options` a plain local volume. Labels are kept, but under another name than `origin` not
/// those that make it part of a project. When this fails after the volume was made, it is removed again, unless files were
/// found in it: those are not ours.
pub fn recreate(engine: &dyn Engine, name: &str, origin: &str, facts: &VolumeFacts, ignore_options: bool) -> Result<Recreated> {
    check_volume_name(name)?;
    if !ignore_options {
        check_plain(facts)?;
    }
    let info = engine.info()?;
    check_engine(&info)?;
    check_volumes_folder(&info)?;

    let (labels, dropped): (Vec<_>, Vec<_>) = facts.labels.iter().cloned().partition(|(label, _)| name == origin || !is_ownership(label));
    let new = NewVolume { name: name.to_owned(), driver: "local".to_owned(), labels: labels.into_iter().collect(), ..NewVolume::default() };
    let made = create_volume(engine, &new)?;
    let opened = check_same_host(&info, std::slice::from_ref(&made)).and_then(|()| host_path(&info, &made));
    let path = opened.map_err(|error| roll_back(engine, name, error))?;
    match is_fresh(&path) {
        Ok(true) => Ok(Recreated { name: name.to_owned(), path, dropped_labels: dropped.into_iter().map(|(label, _)| label).collect() }),
        // Removing it would remove files that were there before us.
        Ok(false) => Err(Error::new(ErrorKind::AlreadyExists, "the new volume is not empty: its folder was there before")
            .on(path.display())
            .hint(format!("look at the folder; `docker volume rm {name}` removes it with its contents"))),
        Err(error) => Err(roll_back(engine, name, error)),
    }
}

/// Refuses what would need more than a plain local volume.
fn check_plain(facts: &VolumeFacts) -> Result<()> {
    let what = if facts.driver != "local" {
        format!("the driver {}", escape(facts.driver.as_bytes()))
    } else if !facts.options.is_empty() {
        let names: Vec<_> = facts.options.iter().map(|(option, _)| escape(option.as_bytes())).collect();
        format!("driver options ({})", names.join(", "))
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Unsupported, format!("the original volume had {what}, which a snapshot may not choose on this host"))
        .hint("restore into a plain local volume instead, ignoring the options, or create the volume yourself and restore into its folder"))
}

fn is_ownership(label: &str) -> bool {
    OWNERSHIP_LABELS.iter().any(|prefix| label.starts_with(prefix))
}

/// Whether there is nothing in the volume, nor beside its `_data` what the engine did not put there: both go when it is removed.
fn is_fresh(data: &Path) -> Result<bool> {
    let names = |folder: &Path| -> Result<Vec<_>> {
        fs::read_dir(folder).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.file_name())).take(3).collect()).context(
            ErrorKind::Target,
            "cannot look into the new volume",
            folder.display(),
        )
    };
    let expected = |name: &OsStr| Some(name) == data.file_name() || name == ENGINE_FILE;
    let beside = data.parent().map(names).transpose()?.unwrap_or_default();
    Ok(names(data)?.is_empty() && beside.iter().all(|name| expected(name)))
}

/// Takes back the creation because of `error`, which is passed on.
fn roll_back(engine: &dyn Engine, name: &str, error: Error) -> Error {
    match engine.remove_volume(name) {
        Ok(()) => error,
        Err(second) => {
            error.hint(format!("the new volume {name} could not be removed again ({second}); `docker volume rm {name}` does that"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::docker::VolumeInfo;
    use crate::docker::fake::FakeEngine;

    fn facts(driver: &str, options: &[(&str, &str)], labels: &[&str]) -> VolumeFacts {
        let pair = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        VolumeFacts {
            driver: driver.into(),
            options: options.iter().map(pair).collect(),
            labels: labels.iter().map(|label| pair(&(label, "v"))).collect(),
            ..VolumeFacts::default()
        }
    }

    fn plain() -> VolumeFacts {
        facts("local", &[], &[])
    }

    fn removals(engine: &FakeEngine) -> usize {
        engine.calls().iter().filter(|call| call.starts_with("remove_volume")).count()
    }

    fn engine(root: &Path) -> FakeEngine {
        fs::create_dir_all(root.join("volumes")).unwrap();
        FakeEngine::at(root)
    }

    #[test]
    fn a_clone_keeps_its_own_labels_and_leaves_the_project() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path());
        let labels = ["com.docker.compose.project", "com.docker.stack.namespace", "com.docker.volume.anonymous", "icecore.hook", "mine"];
        let made = recreate(&engine, "clone", "db", &facts("local", &[], &labels), false).unwrap();
        assert_eq!(made.path, fs::canonicalize(root.path().join("volumes/clone/_data")).unwrap());
        assert_eq!(made.dropped_labels, labels[..3]);
        let volume = engine.volume("clone").unwrap();
        assert_eq!(volume.labels.keys().map(String::as_str).collect::<Vec<_>>(), ["icecore.hook", "mine"]);
        assert!(volume.options.is_empty());

        let same = recreate(&engine, "db", "db", &facts("local", &[], &labels), false).unwrap();
        assert!(same.dropped_labels.is_empty());
        assert_eq!(engine.volume("db").unwrap().labels.len(), labels.len(), "the volume itself comes back as it was");

        made.undo(&engine).unwrap();
        assert!(!engine.has_volume("clone") && engine.has_volume("db"));
    }

    #[test]
    fn drivers_and_options_are_refused_or_left_out_and_nothing_is_sent_before() {
        let root = tempfile::tempdir().unwrap();
        for (original, word) in [
            (facts("rexray", &[], &[]), "rexray"),
            (facts("local", &[("device", "/etc"), ("o", "bind,password=hunter2")], &[]), "driver options (device, o)"),
            (facts("local", &[("size", "1G")], &[]), "size"),
        ] {
            let engine = engine(root.path());
            let error = recreate(&engine, "clone", "db", &original, false).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(word) && !error.to_string().contains("hunter2") && error.advice().is_some(), "{error}");
            assert!(engine.calls().is_empty());

            recreate(&engine, "clone", "db", &original, true).unwrap().undo(&engine).unwrap();
            let engine = self::engine(root.path());
            let made = recreate(&engine, "clone", "db", &original, true).unwrap();
            let volume = engine.volume("clone").unwrap();
            assert_eq!((volume.driver.as_str(), volume.options.len()), ("local", 0));
            made.undo(&engine).unwrap();
        }
    }

    #[test]
    fn illegal_and_taken_names_and_engines_elsewhere_create_nothing() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path());
        engine.add_volume(VolumeInfo { name: "db".into(), driver: "local".into(), ..VolumeInfo::default() });
        assert_eq!(recreate(&engine, "../db", "db", &plain(), false).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(recreate(&engine, "db", "db", &plain(), false).unwrap_err().kind(), ErrorKind::AlreadyExists);
        engine.change(|state| state.info.address = "tcp://h:1".into());
        assert_eq!(recreate(&engine, "clone", "db", &plain(), false).unwrap_err().kind(), ErrorKind::Unsupported);
        engine.change(|state| (state.info.address, state.info.root_dir) = ("unix:///s".into(), "/nowhere".into()));
        assert_eq!(recreate(&engine, "clone", "db", &plain(), false).unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(!engine.calls().iter().any(|call| call.starts_with("put_volume") || call.starts_with("remove_volume")));
        assert!(engine.has_volume("db"));
    }

    #[test]
    fn an_engine_that_turns_out_to_be_elsewhere_gets_its_volume_removed() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path());
        engine.change(|state| state.info.host_name = "elsewhere".into());
        let error = recreate(&engine, "clone", "db", &plain(), false).unwrap_err();
        assert_eq!((error.kind(), engine.has_volume("clone"), removals(&engine)), (ErrorKind::Unsupported, false, 1));

        let engine = self::engine(root.path());
        engine.change(|state| state.info.host_name = "elsewhere".into());
        engine.fail_at(5, ErrorKind::Docker);
        let error = recreate(&engine, "clone", "db", &plain(), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "the first failure is the one that counts");
        assert!(error.advice().unwrap().contains("docker volume rm clone"), "{:?}", error.advice());
    }

    #[test]
    fn files_that_were_there_before_are_never_removed() {
        for place in ["volumes/clone/_data/old.db", "volumes/clone/staging"] {
            let root = tempfile::tempdir().unwrap();
            let engine = engine(root.path());
            let old = root.path().join(place);
            fs::create_dir_all(old.parent().unwrap()).unwrap();
            fs::write(&old, b"precious").unwrap();
            let error = recreate(&engine, "clone", "db", &plain(), false).unwrap_err();
            assert_eq!((error.kind(), removals(&engine)), (ErrorKind::AlreadyExists, 0), "{place}");
            assert_eq!(fs::read(&old).unwrap(), b"precious");
        }
    }

    #[test]
    fn each_failing_call_fails_and_leaves_no_volume_that_is_surely_ours() {
        let root = tempfile::tempdir().unwrap();
        for call in 1..=4 {
            let engine = engine(root.path());
            engine.fail_at(call, ErrorKind::Docker);
            assert_eq!(recreate(&engine, "clone", "db", &plain(), false).unwrap_err().kind(), ErrorKind::Docker, "call {call}");
            // After the fourth the request was sent, and nobody can tell whose volume it is.
            assert_eq!(engine.has_volume("clone"), call == 4);
            let _ = fs::remove_dir_all(root.path().join("volumes/clone"));
        }
    }

    #[cfg(feature = "docker")]
    #[test]
    fn a_real_engine_makes_an_empty_volume_that_can_be_read_and_taken_back() {
        use crate::docker::bollard::BollardEngine;
        use crate::model::Consistency;
        use crate::volume::{access, discovery};

        let real = rustix::process::geteuid().is_root().then(|| BollardEngine::connect(None).ok()).flatten();
        let Some(engine) = real else { return };
        let name = format!("icecore-test-recreate-{}", std::process::id());
        let made = recreate(&engine, &name, "db", &facts("local", &[], &["mine", "com.docker.compose.project"]), false).unwrap();
        fs::write(made.path.join("f"), b"x").unwrap();
        let access = access::resolve(&engine, &name, true);
        let listing = discovery::list(&engine);
        let taken = recreate(&engine, &name, "db", &plain(), false);
        let path = made.path.clone();
        made.undo(&engine).unwrap();

        let access = access.unwrap();
        assert_eq!((access.path.as_path(), access.consistency), (path.as_path(), Consistency::Stopped));
        assert_eq!(access.facts.labels, [("mine".to_owned(), "v".to_owned())]);
        assert!(access.notes.is_empty() && !access.facts.engine.is_empty(), "{:?}", access.notes);
        let listing = listing.unwrap();
        let own = listing.volumes.iter().find(|volume| volume.name == name).unwrap();
        assert_eq!((own.unreadable.as_deref(), own.anonymous, own.writers), (None, false, 0));
        assert_eq!(taken.unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(!path.exists());
    }
}
