//! `statx` and what we keep of it. Always `statx`, by name and by handle alike, so that the two can be compared.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, makedev, statx};
use rustix::io::retry_on_intr;

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Name;

use super::fail::failed;
use super::{EntryKind, Stat};

/// Bytes of a block as counted by [`Stat::blocks`], whatever the file system's own block size.
pub(super) const BLOCK_BYTES: u64 = 512;

/// The stat of the entry `name` in the directory `dir`, of a symlink itself. `subject` names the entry in errors.
pub(super) fn stat_entry(dir: impl AsFd, name: &Name, subject: impl FnOnce() -> String) -> Result<Stat> {
    // A mount point of autofs is described, not mounted: a walk must not start mounts.
    stat(dir, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, subject)
}

/// The stat of what is open, also with `O_PATH`.
pub(super) fn stat_handle(fd: impl AsFd, subject: impl FnOnce() -> String) -> Result<Stat> {
    stat(fd, b"", AtFlags::EMPTY_PATH, subject)
}

fn stat(dir: impl AsFd, path: &[u8], flags: AtFlags, subject: impl FnOnce() -> String) -> Result<Stat> {
    let wanted = StatxFlags::BASIC_STATS.difference(StatxFlags::ATIME);
    match retry_on_intr(|| statx(dir.as_fd(), path, flags, wanted)) {
        Ok(found) => {
            convert(&found).ok_or_else(|| Error::new(ErrorKind::Unsupported, "is of a type that this program does not know").on(subject()))
        }
        Err(cause) => Err(failed(cause, "cannot stat", subject())),
    }
}

fn convert(found: &Statx) -> Option<Stat> {
    let (major, minor) = (found.stx_rdev_major, found.stx_rdev_minor);
    let kind = match FileType::from_raw_mode(found.stx_mode.into()) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo => EntryKind::Fifo,
        FileType::Socket => EntryKind::Socket,
        FileType::CharacterDevice => EntryKind::CharDevice(major, minor),
        FileType::BlockDevice => EntryKind::BlockDevice(major, minor),
        FileType::Unknown => return None,
    };
    Some(Stat {
        kind,
        mode: found.stx_mode & 0o7777,
        uid: found.stx_uid,
        gid: found.stx_gid,
        size: found.stx_size,
        mtime: Timestamp::new(found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec),
        ctime: Timestamp::new(found.stx_ctime.tv_sec, found.stx_ctime.tv_nsec),
        inode: found.stx_ino,
        device: makedev(found.stx_dev_major, found.stx_dev_minor),
        links: found.stx_nlink.into(),
        blocks: found.stx_blocks,
    })
}
