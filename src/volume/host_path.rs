//! Where a volume's bytes are on this host, or why they can't be had there. A path is given out only when it really is the
//! volume's: elsewhere the same path may be missing, empty or somebody else's.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::docker::secrets::mask_options;
use crate::docker::{EngineInfo, VolumeInfo};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::model::path::escape;

/// By how much a folder's ctime may differ from the creation time that the engine reported for it, in seconds: it reports
/// whole seconds, and a busy folder changes between the answer and our look.
const CREATED_SECONDS_OFF_MAX: u64 = 2;

/// The most that is read of the engine's id file, in bytes; real ones have 36 to 59.
const ENGINE_ID_BYTES_MAX: u64 = 256;

const RUN_ON_THE_HOST: &str = "run icecore as root on the host that the engine runs on";

/// The folder that holds the volume's contents, without symlinks in it: a directory that we can read, below the engine's data
/// folder. `Unsupported` when the contents are not to be had by a path of this host, with the way out as a hint; `Source`
/// when they are and we may not read them. That the engine itself is of this host is for [`check_same_host`].
pub fn host_path(info: &EngineInfo, volume: &VolumeInfo) -> Result<PathBuf> {
    check_engine(info)?;
    check_driver(volume)?;
    let folder = volumes_folder(info).join(&volume.name);
    let data = folder.join("_data");
    if Path::new(&volume.mountpoint) != data {
        return Err(unsupported("the engine keeps this volume in an unusual place", volume)
            .because(format!("{} instead of {}", escape(volume.mountpoint.as_bytes()), data.display()))
            .hint("snapshot that path itself, if it holds what you want"));
    }
    check_directory(&folder)?;
    check_directory(&data)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(&data, flags, Mode::empty()).map_err(|error| not_reachable(&data, error.into()))?;
    fs::canonicalize(&data).map_err(|error| not_reachable(&data, error))
}

/// Refuses an engine whose files are certainly not to be had by paths of this host.
pub fn check_engine(info: &EngineInfo) -> Result<()> {
    let refuse = |why: &str, hint: &str| Err(Error::new(ErrorKind::Unsupported, why).on(&info.address).hint(hint));
    if info.socket().is_none() {
        return refuse("the container engine is remote, so its volumes cannot be read by a path of this host", RUN_ON_THE_HOST);
    }
    if info.operating_system == "Docker Desktop" {
        return refuse(
            "Docker Desktop keeps its volumes in a virtual machine, where they cannot be read by a path of this host",
            "use an engine that runs on this host itself (`--docker-host unix:///var/run/docker.sock`), or snapshot folders by path",
        );
    }
    if info.rootless {
        return refuse(
            "the container engine is rootless: the owners of its files on disk are not the ones that containers see",
            "run icecore as root on the engine's host against an engine that is not rootless",
        );
    }
    if !info.root_dir.starts_with('/') {
        return refuse("the container engine does not say where it keeps its volumes", RUN_ON_THE_HOST);
    }
    Ok(())
}

/// Checks that the folder with all volumes is there for us, before one is created in it.
pub fn check_volumes_folder(info: &EngineInfo) -> Result<()> {
    let folder = volumes_folder(info);
    fs::read_dir(&folder).map(drop).map_err(|error| not_reachable(&folder, error))
}

/// Refuses when the engine's paths are those of another machine: a socket can be forwarded from anywhere, and a folder of
/// the same name may exist here. Any of these proves the opposite: a volume's folder is as old as the engine says; the id
/// file in the data folder is the engine's; without such a file, the host's name.
pub fn check_same_host(info: &EngineInfo, volumes: &[VolumeInfo]) -> Result<()> {
    let same = volumes.iter().any(is_as_old_as_told)
        || match engine_id(info) {
            Some(id) => id == info.id,
            None => !info.host_name.is_empty() && info.host_name == host_name(),
        };
    if same {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        "the container engine seems to run on another host, whose volumes cannot be read by a path of this one",
    )
    .on(&info.address)
    .because(format!("it says that it runs on {}", escape(info.host_name.as_bytes())))
    .hint(RUN_ON_THE_HOST))
}

/// The name of this host.
pub fn host_name() -> String {
    escape(rustix::system::uname().nodename().to_bytes())
}

fn volumes_folder(info: &EngineInfo) -> PathBuf {
    Path::new(&info.root_dir).join("volumes")
}

/// The folder is where the driver says only for the local driver, and only when nothing is to be mounted there: a volume
/// with a device is an empty folder as long as no container uses it.
fn check_driver(volume: &VolumeInfo) -> Result<()> {
    if volume.driver != "local" {
        return Err(unsupported("volumes of this driver cannot be read by a path of this host", volume)
            .because(format!("driver {}", escape(volume.driver.as_bytes())))
            .hint("snapshot the data where the driver keeps it, or mount it yourself and snapshot the mount point by path"));
    }
    let option = |name: &str| volume.options.get(name).map(String::as_str).unwrap_or_default();
    let (kind, device, mount_options) = (option("type"), option("device"), option("o"));
    if kind.is_empty() && device.is_empty() && mount_options.is_empty() {
        return Ok(());
    }
    // A device can be a URL with a password in it.
    let shown = mask_options([("device", device)]).into_iter().map(|(_, value)| escape(value.as_bytes())).collect::<String>();
    let is_bind = matches!(kind, "" | "none" | "bind") || mount_options.split(',').any(|part| matches!(part, "bind" | "rbind"));
    let (what, hint) = if kind == "tmpfs" {
        ("this volume is in memory and holds nothing while no container runs with it", "there is nothing lasting in it to keep".to_owned())
    } else if is_bind && device.starts_with('/') && !device.starts_with("//") {
        ("this volume is a folder elsewhere on the host", format!("snapshot that folder: icecore snapshot {shown}"))
    } else {
        (
            "this volume is a file system that is mounted only while a container uses it",
            format!("mount {shown} yourself, read-only, and snapshot the mount point by path: icecore snapshot /mount/point"),
        )
    };
    Err(unsupported(what, volume).hint(hint))
}

fn unsupported(message: &str, volume: &VolumeInfo) -> Error {
    Error::new(ErrorKind::Unsupported, message).on(escape(volume.name.as_bytes()))
}

/// A symlink in place of a volume's folder leads to data that is not the engine's.
fn check_directory(path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path).map_err(|error| not_reachable(path, error))?;
    if metadata.is_symlink() {
        let aim = fs::read_link(path).context(ErrorKind::Source, "cannot read a symlink", path.display())?;
        return Err(Error::new(ErrorKind::Unsupported, "the volume's folder is a symlink")
            .on(path.display())
            .hint(format!("snapshot the folder that it leads to by path: {}", escape(aim.as_os_str().as_encoded_bytes()))));
    }
    if !metadata.is_dir() {
        return Err(Error::new(ErrorKind::Unsupported, "the volume's folder is not a directory").on(path.display()));
    }
    Ok(())
}

fn not_reachable(path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::new(ErrorKind::Unsupported, "the volume's folder is not on this machine")
            .on(path.display())
            .hint(format!("{RUN_ON_THE_HOST}; in a container, mount the engine's volumes folder at the same path")),
        io::ErrorKind::PermissionDenied => {
            Error::new(ErrorKind::Source, "not allowed to read the volume's folder").on(path.display()).because(error).hint("run as root")
        }
        _ => Error::new(ErrorKind::Source, "cannot read the volume's folder").on(path.display()).because(error),
    }
}

/// Engines report the ctime of the volume's folder or of `_data` in it as its time of creation.
fn is_as_old_as_told(volume: &VolumeInfo) -> bool {
    let Some(created) = volume.created.filter(|_| volume.driver == "local" && volume.mountpoint.starts_with('/')) else { return false };
    let data = Path::new(&volume.mountpoint);
    let ctimes = [Some(data), data.parent()].into_iter().flatten().filter_map(|path| fs::symlink_metadata(path).ok());
    ctimes.map(|metadata| metadata.ctime()).any(|ctime| ctime.abs_diff(created.seconds) <= CREATED_SECONDS_OFF_MAX)
}

/// The id that the engine of this host keeps in its data folder (since version 23).
fn engine_id(info: &EngineInfo) -> Option<String> {
    let mut text = String::new();
    File::open(Path::new(&info.root_dir).join("engine-id")).ok()?.take(ENGINE_ID_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text.trim().to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::docker::Engine;
    use crate::docker::fake::FakeEngine;
    use std::collections::BTreeMap;
    use std::os::unix::fs::symlink;

    fn world() -> (tempfile::TempDir, EngineInfo, VolumeInfo) {
        let folder = tempfile::tempdir().unwrap();
        let engine = FakeEngine::at(folder.path());
        engine.add_volume(VolumeInfo { name: "db".into(), driver: "local".into(), ..VolumeInfo::default() });
        (folder, engine.info().unwrap(), engine.volume("db").unwrap())
    }

    fn refusal(info: &EngineInfo, volume: &VolumeInfo) -> Error {
        host_path(info, volume).unwrap_err()
    }

    #[test]
    fn a_plain_local_volume_has_its_path_and_a_size_limit_does_not_matter() {
        let (folder, info, mut volume) = world();
        let expected = fs::canonicalize(folder.path().join("volumes/db/_data")).unwrap();
        assert_eq!(host_path(&info, &volume).unwrap(), expected);
        volume.options.insert("size".into(), "10G".into());
        volume.options.insert("o".into(), String::new());
        assert_eq!(host_path(&info, &volume).unwrap(), expected);
    }

    #[test]
    fn engines_elsewhere_are_refused() {
        let (_folder, good, volume) = world();
        type Spoil = fn(&mut EngineInfo);
        for (spoil, word) in [
            ((|info| info.address = "tcp://h:2375".into()) as Spoil, "remote"),
            (|info| info.address = "ssh://h".into(), "remote"),
            (|info| info.operating_system = "Docker Desktop".into(), "virtual machine"),
            (|info| info.rootless = true, "rootless"),
            (|info| info.root_dir = String::new(), "does not say"),
            (|info| info.root_dir = r"C:\ProgramData\docker".into(), "does not say"),
            (|info| info.root_dir = "/nowhere".into(), "unusual place"),
        ] {
            let mut info = good.clone();
            spoil(&mut info);
            let error = refusal(&info, &volume);
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains(word) && error.advice().is_some(), "{error}");
        }
    }

    #[test]
    fn volumes_that_are_mounted_on_demand_are_refused_with_a_way_out() {
        let (_folder, info, plain) = world();
        for (options, word, hint) in [
            (&[("type", "none"), ("o", "bind"), ("device", "/srv/data")][..], "folder elsewhere", "icecore snapshot /srv/data"),
            (&[("o", "rw,rbind"), ("device", "/srv/data")], "folder elsewhere", "icecore snapshot /srv/data"),
            (&[("device", "/srv/data")], "folder elsewhere", "icecore snapshot /srv/data"),
            (&[("type", "nfs"), ("o", "addr=h"), ("device", ":/export")], "mounted only while", "mount :/export yourself"),
            (&[("type", "cifs"), ("o", "username=u,password=hunter2"), ("device", "//h/s")], "mounted only while", "mount //h/s"),
            (&[("type", "davfs"), ("device", "https://u:hunter2@h/s")], "mounted only while", "https://u:***@h/s"),
            (&[("type", "ext4"), ("device", "/dev/sdb1")], "mounted only while", "mount /dev/sdb1"),
            (&[("type", "tmpfs"), ("device", "tmpfs")], "in memory", "nothing lasting"),
            (&[("type", "tmpfs")], "in memory", "nothing lasting"),
            (&[("o", "uid=1000")], "mounted only while", "yourself"),
        ] {
            let options: BTreeMap<_, _> = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let error = refusal(&info, &VolumeInfo { options: options.clone(), ..plain.clone() });
            assert_eq!((error.kind(), error.subject()), (ErrorKind::Unsupported, Some("db")));
            assert!(
                error.to_string().contains(word) && error.advice().unwrap().contains(hint),
                "{options:?}: {error} {:?}",
                error.advice()
            );
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        let error = refusal(&info, &VolumeInfo { driver: "vieux/sshfs".into(), ..plain });
        assert!(error.kind() == ErrorKind::Unsupported && error.to_string().contains("vieux/sshfs"), "{error}");
    }

    #[test]
    fn a_folder_that_is_missing_a_symlink_or_a_file_is_refused() {
        let (folder, info, volume) = world();
        let (own, data) = (folder.path().join("volumes/db"), folder.path().join("volumes/db/_data"));
        fs::remove_dir(&data).unwrap();
        assert!(refusal(&info, &volume).to_string().contains("not on this machine"));
        fs::write(&data, b"").unwrap();
        assert!(refusal(&info, &volume).to_string().contains("not a directory"));
        fs::remove_file(&data).unwrap();
        let aim = folder.path().join("aim");
        fs::create_dir_all(aim.join("_data")).unwrap();
        symlink(&aim, &data).unwrap();
        let error = refusal(&info, &volume);
        assert!(error.to_string().contains("is a symlink") && error.advice().unwrap().contains("/aim"), "{error}");
        fs::remove_dir_all(&own).unwrap();
        symlink(&aim, &own).unwrap();
        assert!(refusal(&info, &volume).to_string().contains("is a symlink"));
        let elsewhere = VolumeInfo { mountpoint: aim.display().to_string(), ..volume };
        assert!(refusal(&info, &elsewhere).to_string().contains("unusual place"));
    }

    #[test]
    fn a_volumes_folder_moved_to_another_disk_by_symlink_is_followed() {
        let (folder, info, volume) = world();
        let disk = folder.path().join("disk");
        fs::rename(folder.path().join("volumes"), &disk).unwrap();
        symlink(&disk, folder.path().join("volumes")).unwrap();
        assert_eq!(host_path(&info, &volume).unwrap(), fs::canonicalize(disk.join("db/_data")).unwrap());
    }

    #[test]
    fn what_we_may_not_read_asks_for_root() {
        let error = not_reachable(Path::new("/x"), io::Error::from(io::ErrorKind::PermissionDenied));
        assert_eq!((error.kind(), error.advice()), (ErrorKind::Source, Some("run as root")));
    }

    #[test]
    fn an_engine_of_another_host_is_found_out_although_the_paths_exist_here() {
        let (folder, mut info, mut volume) = world();
        let foreign = |info: &EngineInfo, volume: &VolumeInfo| check_same_host(info, std::slice::from_ref(volume)).is_err();
        assert!(!foreign(&info, &volume), "the host's name is the same");
        info.host_name = "elsewhere".into();
        assert!(foreign(&info, &volume), "nothing proves it");
        info.host_name = String::new();
        assert!(foreign(&info, &volume));

        let ctime = fs::metadata(&volume.mountpoint).unwrap().ctime();
        volume.created = Some(Timestamp::new(ctime - 3600, 0));
        assert!(foreign(&info, &volume), "another age");
        volume.created = Some(Timestamp::new(ctime, 0));
        assert!(!foreign(&info, &volume), "the same age");
        volume.created = None;

        let id = folder.path().join("engine-id");
        fs::write(&id, "FAKE\n").unwrap();
        assert!(!foreign(&info, &volume), "the same id");
        fs::write(&id, "OTHER").unwrap();
        info.host_name = host_name();
        assert!(foreign(&info, &volume), "another id outweighs the same host name");
    }
}
