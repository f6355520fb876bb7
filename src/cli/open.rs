//! The one place that chooses implementations and their locations: which storage, index, source, target and engine a
//! command works with, and which secret opens the repository.

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::ops::RangeInclusive;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::secret::{self, Flags};
use super::{Context, Globals, render};
use crate::clock::Clock;
use crate::docker::Engine;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::index::{self, IndexTag, MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MIN};
use crate::model::{RepositoryId, SnapshotId, hash};
use crate::repo::{CreateOptions, Locked, Repository};
use crate::seal::Suite;
use crate::seal::slot::Secret;
use crate::source::Source;
use crate::source::dir::DirSource;
use crate::storage::Storage;
use crate::storage::local::LocalStorage;
use crate::target::Target;
use crate::target::dir::{DirTarget, DirTargetOptions};
use crate::target::tar::TarTarget;

/// Version of the notes that the repository keeps in the index; another one's index is thrown away and filled again.
const NOTES_FORMAT: u32 = 1;

/// Memory that an index can be given, in MiB. More than the upper end is a number of bytes by mistake.
pub(super) const INDEX_MEMORY_MIB: RangeInclusive<u32> = (MEMORY_BYTES_MIN >> 20) as u32..=1 << 20;

/// Whether a secret may be asked for on the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asking {
    /// If no flag and no variable gives it.
    Allowed,
    /// Never: the repository is a nicety for this command.
    Never,
}

/// Opens the repository that the command line and the environment name.
pub(super) fn repository(context: &Context) -> Result<Repository> {
    repository_with(context, Asking::Allowed)
}

/// As [`repository`], asking or not.
pub(super) fn repository_with(context: &Context, asking: Asking) -> Result<Repository> {
    let storage: Arc<dyn Storage> = Arc::from(storage(&context.globals)?);
    let locked = Locked::read(storage)?;
    let secret = if locked.is_encrypted()? {
        Some(known_secret(&context.globals, asking)?)
    } else {
        refuse_needless_secret(&context.globals, &locked)?;
        None
    };
    let host = host();
    let tag = IndexTag { repository: locked.id(), host: host.clone(), format: NOTES_FORMAT };
    let state_dir = state_dir(&context.globals, locked.id())?;
    let memory_bytes = index_memory_bytes(&context.globals)?;
    let index = || {
        let opened = index::open(&state_dir, &tag, memory_bytes)?;
        if let Some(why) = opened.discarded {
            tracing::info!("the local index is made anew: {why}");
        }
        Ok(opened.index)
    };
    locked.unlock_beside(secret.as_ref(), index, Arc::clone(&context.clock), &host)
}

/// Makes a repository in `storage`.
pub(super) fn create(storage: &dyn Storage, options: &CreateOptions, clock: &dyn Clock) -> Result<RepositoryId> {
    Repository::create(storage, options, clock)
}

/// The storage of the repository, which must exist.
pub(super) fn storage(globals: &Globals) -> Result<Box<dyn Storage>> {
    Ok(Box::new(LocalStorage::open(location(globals)?)?))
}

/// The storage of a repository to be made.
pub(super) fn new_storage(globals: &Globals) -> Result<Box<dyn Storage>> {
    Ok(Box::new(LocalStorage::create(location(globals)?)?))
}

/// Where the repository is: `--repo`, `ICECORE_REPO`, or the default.
pub(super) fn location(globals: &Globals) -> Result<PathBuf> {
    let given = globals.repo.clone().or_else(|| variable("ICECORE_REPO"));
    match given {
        Some(text) => parse_location(&text),
        None => default_folder("/var/lib/icecore", "XDG_DATA_HOME", ".local/share"),
    }
}

/// Where this host keeps the caches of `repository`. A copy of a repository has the same id and other contents, so the
/// place is part of the name: what the index knows of one says nothing of the other.
pub(super) fn state_dir(globals: &Globals, repository: RepositoryId) -> Result<PathBuf> {
    let place = location(globals)?;
    let place = std::fs::canonicalize(&place).unwrap_or(place);
    let digest = hash::hash(&[place.as_os_str().as_bytes()]);
    let digest = RepositoryId::from_slice(&digest[..RepositoryId::LEN]).map_or_else(String::new, |id| id.short());
    Ok(host_state_dir(globals)?.join(format!("{repository}-{digest}")))
}

/// Where this host keeps what belongs to no repository, and the folders of those that it knows.
pub(super) fn host_state_dir(globals: &Globals) -> Result<PathBuf> {
    match globals.state_dir.clone().or_else(|| variable("ICECORE_STATE_DIR").map(PathBuf::from)) {
        Some(dir) => Ok(dir),
        None => default_folder("/var/lib/icecore-state", "XDG_STATE_HOME", ".local/state"),
    }
}

/// What the index may take up: `--index-memory`, `ICECORE_INDEX_MEMORY`, or the default.
fn index_memory_bytes(globals: &Globals) -> Result<usize> {
    let mib = match globals.index_memory {
        Some(mib) => Some(mib),
        None => variable("ICECORE_INDEX_MEMORY").map(|text| parse_index_memory(&text)).transpose()?,
    };
    Ok(mib.map_or(MEMORY_BYTES_DEFAULT, |mib| (mib as usize).saturating_mul(1 << 20)))
}

fn parse_index_memory(text: &OsStr) -> Result<u32> {
    let mib = text.to_str().and_then(|text| text.trim().parse().ok()).filter(|mib| INDEX_MEMORY_MIB.contains(mib));
    mib.ok_or_else(|| {
        let (least, most) = (INDEX_MEMORY_MIB.start(), INDEX_MEMORY_MIB.end());
        Error::new(ErrorKind::Usage, format!("the index's memory is a whole number of MiB from {least} to {most}"))
            .on(format!("ICECORE_INDEX_MEMORY={}", render::name(&text.to_string_lossy())))
    })
}

/// The secret of a repository to be made; asked for twice on a terminal.
pub(super) fn new_secret(globals: &Globals) -> Result<Secret> {
    match secret::place(&flags(globals), &|name| std::env::var_os(name)) {
        Some(place) => secret::fetch(&place),
        None => secret::ask("new passphrase", true),
    }
}

fn known_secret(globals: &Globals, asking: Asking) -> Result<Secret> {
    match secret::place(&flags(globals), &|name| std::env::var_os(name)) {
        Some(place) => secret::fetch(&place),
        None if asking == Asking::Never => Err(Error::new(ErrorKind::Usage, "no passphrase or key file was given")),
        None => secret::ask("passphrase", false),
    }
}

/// Somebody who gives a secret expects encryption. A repository without it may be one whose config was swapped by whoever
/// can write to its storage, to be sent in the clear what was sealed before.
fn refuse_needless_secret(globals: &Globals, locked: &Locked) -> Result<()> {
    match secret::place(&flags(globals), &|name| std::env::var_os(name)) {
        None => Ok(()),
        Some(_) => Err(Error::new(ErrorKind::WrongKey, "a passphrase or key file was given, but the repository is not encrypted")
            .on(locked.id())
            .hint("if it never was, leave the passphrase out; if it was, its config was replaced: restore `config` from a copy")),
    }
}

/// What the command line said about the secret.
pub(super) fn flags(globals: &Globals) -> Flags {
    Flags {
        password_file: globals.password_file.clone(),
        password_command: globals.password_command.clone(),
        key_file: globals.key_file.clone(),
    }
}

/// The directory at `path` as a source.
pub(super) fn source(path: &Path) -> Result<Box<dyn Source>> {
    Ok(Box::new(DirSource::open(path)?))
}

/// The directory at `path`, made when it is missing, as the target of a restore of `snapshot`; `copy` is a directory to take
/// clones from.
pub(super) fn directory_target(path: &Path, snapshot: SnapshotId, copy: Option<&Path>) -> Result<Box<dyn Target>> {
    let options = DirTargetOptions { snapshot, open_dirs_max: None, reflink_from: copy.map(Path::to_owned) };
    Ok(Box::new(DirTarget::create(path, options)?))
}

/// A tar archive that is written to `to`.
pub(super) fn tar_target(to: Box<dyn Write + Send>) -> Box<dyn Target> {
    Box::new(TarTarget::new(to))
}

/// Whether what the repository keeps is readable by whoever can read its files.
pub(super) fn is_encrypted(repo: &Repository) -> bool {
    repo.keys().suite() != Suite::Checksum
}

/// The container engine.
pub(super) fn engine(globals: &Globals) -> Result<Box<dyn Engine>> {
    engine_at(globals.docker_host.as_deref())
}

/// The container engine at an address, or where the environment says that it is.
#[cfg(feature = "docker")]
pub(super) fn engine_at(address: Option<&str>) -> Result<Box<dyn Engine>> {
    Ok(Box::new(crate::docker::bollard::BollardEngine::connect(address)?))
}

/// The container engine, which this program was built without.
#[cfg(not(feature = "docker"))]
pub(super) fn engine_at(_address: Option<&str>) -> Result<Box<dyn Engine>> {
    Err(Error::new(ErrorKind::Unsupported, "this icecore was built without support for Docker volumes")
        .hint("use a build with the feature `docker`, or name a directory"))
}

/// The name of this host in snapshots: `ICECORE_HOST`, for where the system's own name changes (in a container), else the
/// system's.
pub(super) fn host() -> String {
    match variable("ICECORE_HOST") {
        Some(name) => render::bytes(name.as_bytes()),
        None => rustix::system::uname().nodename().to_string_lossy().into_owned(),
    }
}

/// What relative paths start from.
pub(super) fn current_directory() -> Result<PathBuf> {
    std::env::current_dir().context(ErrorKind::Usage, "cannot tell", "the current directory")
}

/// A variable of the environment; empty counts as not set.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// A path, or a URL of a scheme that we know.
fn parse_location(text: &OsStr) -> Result<PathBuf> {
    let bytes = text.as_bytes();
    if let Some(path) = bytes.strip_prefix(b"file://") {
        return if path.first() == Some(&b'/') {
            Ok(OsString::from_vec(path.to_vec()).into())
        } else {
            Err(Error::new(ErrorKind::Usage, "a file URL has three slashes")
                .on(render::name(&text.to_string_lossy()))
                .hint("write file:///PATH or PATH"))
        };
    }
    if is_url(bytes) {
        return Err(Error::new(ErrorKind::Unsupported, "repositories on object stores and servers come with a later version")
            .on(render::name(&text.to_string_lossy()))
            .hint("name a folder of this host"));
    }
    if bytes.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "the repository's path is empty"));
    }
    Ok(text.into())
}

/// Whether `text` begins with a scheme and is not a path, whoever knows the scheme.
pub(super) fn is_url(text: &[u8]) -> bool {
    let scheme = text.iter().take_while(|b| b.is_ascii_alphanumeric() || b"+.-".contains(b)).count();
    text.first().is_some_and(u8::is_ascii_alphabetic) && text[scheme..].starts_with(b"://")
}

/// `for_root` for root; for others `icecore` below what the variable names, or below `in_home` in their home.
pub(super) fn default_folder(for_root: &str, variable_name: &str, in_home: &str) -> Result<PathBuf> {
    default_folder_of(rustix::process::geteuid().is_root(), variable(variable_name), variable("HOME"), for_root, in_home)
}

fn default_folder_of(root: bool, xdg: Option<OsString>, home: Option<OsString>, for_root: &str, in_home: &str) -> Result<PathBuf> {
    if root {
        return Ok(for_root.into());
    }
    // The specification says that a relative path there must be ignored.
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    let base = xdg.or_else(|| home.map(|home| PathBuf::from(home).join(in_home)));
    base.map(|base| base.join("icecore")).ok_or_else(|| {
        Error::new(ErrorKind::Usage, "there is no home folder to keep things in").hint("give --repo and --state-dir, or set HOME")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_path_or_a_url() {
        let parse = |text: &str| parse_location(OsStr::new(text));
        for (text, expected) in
            [("/srv/repo", "/srv/repo"), ("repo", "repo"), ("file:///srv/repo", "/srv/repo"), ("a:b", "a:b"), ("./s3://x", "./s3://x")]
        {
            assert_eq!(parse(text).unwrap(), PathBuf::from(expected), "{text}");
        }
        for (text, kind) in [
            ("s3://bucket/x", ErrorKind::Unsupported),
            ("sftp://host/x", ErrorKind::Unsupported),
            ("file://srv/repo", ErrorKind::Usage),
            ("", ErrorKind::Usage),
        ] {
            assert_eq!(parse(text).unwrap_err().kind(), kind, "{text}");
        }
    }

    #[test]
    fn memory_is_a_number_of_mib_in_bounds() {
        let parse = |text: &str| parse_index_memory(OsStr::new(text));
        assert_eq!((parse("16").unwrap(), parse(" 4096 ").unwrap()), (16, 4096));
        for text in ["15", "1048577", "", "64M", "-1", "1e3", "99999999999"] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
            assert!(error.to_string().contains("from 16 to"), "{error}");
        }
    }

    #[test]
    fn defaults_are_root_s_or_the_user_s() {
        let folder = |root, xdg: Option<&str>, home: Option<&str>| {
            default_folder_of(root, xdg.map(OsString::from), home.map(OsString::from), "/var/lib/icecore", ".local/share")
        };
        assert_eq!(folder(true, Some("/x"), Some("/root")).unwrap(), PathBuf::from("/var/lib/icecore"));
        assert_eq!(folder(false, Some("/x"), Some("/home/u")).unwrap(), PathBuf::from("/x/icecore"));
        assert_eq!(folder(false, Some("x"), Some("/home/u")).unwrap(), PathBuf::from("/home/u/.local/share/icecore"));
        assert_eq!(folder(false, None, Some("/home/u")).unwrap(), PathBuf::from("/home/u/.local/share/icecore"));
        assert!(folder(false, None, None).is_err());
    }
}
