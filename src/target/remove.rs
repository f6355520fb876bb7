//! Removing what stands in the way: anything under one name of a directory, trees as well. It follows no symlink, enters
//! no other mount, and its depth costs neither stack nor open files.

use std::sync::Arc;

use rustix::fd::OwnedFd;
use rustix::fs::{self, AtFlags};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::model::Name;

use super::beneath::{open_dir_same_mount, read_names};
use super::handles::{DirHandle, Handles};
use super::outcome::failed;

/// Removes the entry `name` of `dir`, whatever it is; a directory with all that is in it. It need not exist. Gives the
/// number of entries removed.
pub(super) fn remove_entry(handles: &Handles, dir: &Arc<DirHandle>, name: &Name) -> Result<u64> {
    let fd = handles.fd(dir)?;
    match unlink(&fd, name) {
        Ok(Unlinked::Gone(count)) => Ok(count),
        Ok(Unlinked::Directory) => remove_tree(handles, dir, name),
        Err(e) => Err(failed("cannot remove what is in the way", e).on(dir.path().join(name))),
    }
}

enum Unlinked {
    Gone(u64),
    Directory,
}

fn unlink(dir: &OwnedFd, name: &Name) -> rustix::io::Result<Unlinked> {
    match fs::unlinkat(dir, name.as_bytes(), AtFlags::empty()) {
        Ok(()) => Ok(Unlinked::Gone(1)),
        Err(Errno::NOENT) => Ok(Unlinked::Gone(0)),
        Err(Errno::ISDIR) => Ok(Unlinked::Directory),
        Err(e) => Err(e),
    }
}

/// A directory being emptied, and the directories in it that are still there.
struct Level {
    dir: Arc<DirHandle>,
    left: Vec<Name>,
}

fn remove_tree(handles: &Handles, parent: &Arc<DirHandle>, name: &Name) -> Result<u64> {
    let mut removed = 0;
    let mut levels = vec![enter(handles, parent, name, &mut removed)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.left.pop() {
            let below = enter(handles, &Arc::clone(&level.dir), &name, &mut removed)?;
            levels.push(below);
            continue;
        }
        if let Some((above, name)) = level.dir.above() {
            let fd = handles.fd(above)?;
            match fs::unlinkat(&fd, name.as_bytes(), AtFlags::REMOVEDIR) {
                Ok(()) => removed += 1,
                Err(Errno::NOENT) => {}
                Err(e) => return Err(failed("cannot remove the directory", e).on(level.dir.path())),
            }
        }
        levels.pop();
    }
    Ok(removed)
}

/// Opens a directory and removes everything from it that is not a directory.
fn enter(handles: &Handles, parent: &Arc<DirHandle>, name: &Name, removed: &mut u64) -> Result<Level> {
    let path = || parent.path().join(name);
    let above = handles.fd(parent)?;
    let fd = open_dir_same_mount(&above, name).map_err(|e| match e {
        Errno::XDEV => Error::new(ErrorKind::Target, "another file system is mounted where a directory has to be removed")
            .on(path())
            .hint("unmount it first"),
        e => failed("cannot open the directory to remove it", e).on(path()),
    })?;
    let names = read_names(&fd).map_err(|e| failed("cannot list the directory", e).on(path()))?;
    let mut left = Vec::new();
    for name in names {
        match unlink(&fd, &name) {
            Ok(Unlinked::Gone(count)) => *removed += count,
            Ok(Unlinked::Directory) => left.push(name),
            Err(e) => return Err(failed("cannot remove what is in the way", e).on(path().join(&name))),
        }
    }
    Ok(Level { dir: handles.child(parent, name, fd), left })
}
