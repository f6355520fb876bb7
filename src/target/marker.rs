//! The root of a restore and the mark that it is unfinished: a file that stands in the root, durable, before anything else
//! is written and until everything is. Whoever finds it knows that the tree is not a snapshot's.

use std::fs::{DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use crate::error::{ErrorKind, IoContext, Result};
use crate::model::{Name, SnapshotId};

use super::beneath::{TRIES_MAX, let_owner_in, mode_bits, read_names_if, stat_entry};
use super::outcome::failed;

/// The name of the mark.
pub(super) const MARKER: &[u8] = b".icecore-incomplete";
/// What the names of files begin with that are to be renamed over others.
const TEMPORARY_PREFIX: &[u8] = b".icecore-tmp-";

/// Makes the root where it is missing, its parents too, durably, and opens it.
pub(super) fn open_root(path: &Path) -> Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let above = |dir: &Path| dir.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent }.to_owned());
    let mut missing = Vec::new();
    let mut at = path.to_owned();
    while !at.exists() {
        let Some(parent) = above(&at).filter(|parent| *parent != at) else { break };
        missing.push(std::mem::replace(&mut at, parent));
    }
    for (depth, dir) in missing.into_iter().enumerate().rev() {
        let mode = if depth == 0 { 0o700 } else { 0o755 };
        match DirBuilder::new().mode(mode).create(&dir) {
            Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
            _ => File::open(&at).and_then(|parent| parent.sync_all()),
        }
        .context(ErrorKind::Target, "cannot make the directory to restore to", dir.display())?;
        at = dir;
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || -> rustix::io::Result<OwnedFd> {
        let fd = fs::openat(CWD, path, flags, Mode::empty())?;
        let_owner_in(&fd, &fs::fstat(&fd)?);
        Ok(fd)
    };
    open().map_err(|e| failed("cannot open the directory to restore to", e).on(path.display()))
}

/// Sets the mark, durably. True when it stood there already: an earlier restore was interrupted. It then names the
/// snapshot that comes now. A mark is never written through: what stands there could be a link to something else.
pub(super) fn set(root: &OwnedFd, snapshot: &SnapshotId) -> Result<bool> {
    let marker = Name::new(MARKER)?;
    let stood = stat_entry(root, &marker).is_ok();
    let (name, fd) = create_temporary(root, Mode::from_raw_mode(0o600)).map_err(|e| failed("cannot mark the restore as unfinished", e))?;
    let mut file = File::from(fd);
    let written = writeln!(file, "{snapshot}").and_then(|()| file.sync_all());
    let placed = written.and_then(|()| Ok(fs::renameat(root, name.as_bytes(), root, MARKER)?)).and_then(|()| Ok(fs::fsync(root)?));
    if placed.is_err() {
        let _ = fs::unlinkat(root, name.as_bytes(), AtFlags::empty());
    }
    placed.context(ErrorKind::Target, "cannot mark the restore as unfinished", marker)?;
    Ok(stood)
}

/// Removes the mark. The caller makes that durable.
pub(super) fn remove(root: &OwnedFd) -> Result<()> {
    let unlink = || match fs::unlinkat(root, MARKER, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    };
    let removed = match unlink() {
        // The restored root forbids its owner to write; the mark has to go all the same.
        Err(Errno::ACCESS) => fs::fstat(root).and_then(|stat| {
            fs::fchmod(root, Mode::from_raw_mode(mode_bits(&stat) | 0o300))?;
            let removed = unlink();
            fs::fchmod(root, Mode::from_raw_mode(mode_bits(&stat)))?;
            removed
        }),
        other => other,
    };
    removed.map_err(|e| failed("cannot remove the mark of an unfinished restore", e))
}

/// Makes a file under a name that nobody can guess, so that no entry of a hostile tree meets it.
pub(super) fn create_temporary(dir: impl AsFd, mode: Mode) -> rustix::io::Result<(Name, OwnedFd)> {
    for _ in 0..TRIES_MAX {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|_| Errno::IO)?;
        let text = format!("{:016x}", u64::from_le_bytes(random));
        let Ok(name) = Name::new([TEMPORARY_PREFIX, text.as_bytes()].concat()) else { break };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat(&dir, name.as_bytes(), flags, mode) {
            Err(Errno::EXIST) => {}
            other => return Ok((name, other?)),
        }
    }
    Err(Errno::EXIST)
}

/// Removes what [`create_temporary`] made and an interrupted restore left. Only before entries are placed: a snapshot can
/// have an entry of such a name.
pub(super) fn sweep_temporaries(dir: impl AsFd) -> rustix::io::Result<()> {
    let is_ours = |name: &Name| {
        let digits = name.as_bytes().strip_prefix(TEMPORARY_PREFIX);
        digits.is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit))
    };
    for name in read_names_if(&dir, is_ours)? {
        let _ = fs::unlinkat(&dir, name.as_bytes(), AtFlags::empty());
    }
    Ok(())
}
