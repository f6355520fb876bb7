//! Entries that are neither files nor directories: making them, and telling whether what is there is the same.

use rustix::fd::OwnedFd;
use rustix::fs::{self, FileType, Stat};

use crate::error::{Error, Result};
use crate::model::{Name, Node, NodeKind};

use super::metadata::creation_mode;

/// Makes a symlink, fifo, socket or device. The outer error is one that trying again can't mend.
pub(super) fn make(dir: &OwnedFd, name: &Name, node: &Node) -> Result<rustix::io::Result<()>> {
    let node_of = |kind, device| fs::mknodat(dir, name.as_bytes(), kind, creation_mode(&node.meta), device);
    Ok(match &node.kind {
        NodeKind::Symlink(target) => fs::symlinkat(target.as_slice(), dir, name.as_bytes()),
        NodeKind::Fifo => node_of(FileType::Fifo, 0),
        NodeKind::Socket => node_of(FileType::Socket, 0),
        NodeKind::CharDevice { major, minor } => node_of(FileType::CharacterDevice, device(*major, *minor)?),
        NodeKind::BlockDevice { major, minor } => node_of(FileType::BlockDevice, device(*major, *minor)?),
        NodeKind::File(_) | NodeKind::InlineFile(_) | NodeKind::Directory(_) => {
            return Err(Error::damaged("a file or directory where a special entry was expected"));
        }
    })
}

/// A device number. Larger ones than Linux has would be cut to another device's.
fn device(major: u32, minor: u32) -> Result<u64> {
    if major > 0xfff || minor > 0xf_ffff {
        return Err(Error::damaged(format!("{major}:{minor} is no device number")));
    }
    Ok(fs::makedev(major, minor))
}

/// Whether what is there is what `node` asks for, metadata aside.
pub(super) fn is_same(dir: &OwnedFd, name: &Name, stat: &Stat, node: &Node) -> bool {
    let is = |kind| FileType::from_raw_mode(stat.st_mode) == kind;
    let has_device = |major, minor| device(major, minor).is_ok_and(|device| device == stat.st_rdev);
    match &node.kind {
        NodeKind::Symlink(target) => {
            is(FileType::Symlink) && fs::readlinkat(dir, name.as_bytes(), Vec::new()).is_ok_and(|now| now.as_bytes() == target.as_slice())
        }
        NodeKind::Fifo => is(FileType::Fifo),
        NodeKind::Socket => is(FileType::Socket),
        NodeKind::CharDevice { major, minor } => is(FileType::CharacterDevice) && has_device(*major, *minor),
        NodeKind::BlockDevice { major, minor } => is(FileType::BlockDevice) && has_device(*major, *minor),
        NodeKind::File(_) | NodeKind::InlineFile(_) | NodeKind::Directory(_) => false,
    }
}
