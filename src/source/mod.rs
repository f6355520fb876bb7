//! SEAM: where the entries and bytes of a snapshot come from. All access is relative to open handles; nothing follows a
//! symlink; fifos and devices are never opened for reading.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::model::Name;

pub mod dir;
mod fail;
mod file;
mod handles;
#[cfg(any(test, feature = "testing"))]
pub mod scripted;
#[cfg(any(test, feature = "testing"))]
mod scripted_blocks;
#[cfg(any(test, feature = "testing"))]
mod scripted_tree;
mod stat;
pub mod without;
mod xattr;

/// What kind of thing an entry is, with what `stat` tells of it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device: major, minor.
    CharDevice(u32, u32),
    /// A block device: major, minor.
    BlockDevice(u32, u32),
}

/// What `statx` says of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, 0..07777.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Change of content.
    pub mtime: Timestamp,
    /// Change of inode.
    pub ctime: Timestamp,
    /// Inode number.
    pub inode: u64,
    /// Device of the file system (`makedev` form).
    pub device: u64,
    /// Names of the inode.
    pub links: u64,
    /// 512-byte blocks allocated; fewer than the size needs means holes.
    pub blocks: u64,
}

/// One name found in a directory, and its stat or why it has none.
#[derive(Debug)]
pub struct Entry {
    /// The name.
    pub name: Name,
    /// What `statx` said. An error costs this entry only.
    pub stat: Result<Stat>,
}

pub use crate::model::XattrSet;

/// A tree to take a snapshot of.
pub trait Source: Send + Sync {
    /// Opens the root directory.
    fn root(&self) -> Result<Arc<dyn SourceDir>>;
    /// Makes writes that others have in flight visible to `stat` (`syncfs`), so that memory-mapped writers are noticed.
    fn settle(&self) -> Result<()>;
}

/// An open directory.
pub trait SourceDir: Send + Sync {
    /// The directory's own stat, now.
    fn stat(&self) -> Result<Stat>;
    /// All entries with their stats, sorted by name. `.` and `..` are not among them.
    fn entries(&self) -> Result<Vec<Entry>>;
    /// Opens a directory below, if it is still the one of `expected` (same device and inode).
    fn open_dir(&self, name: &Name, expected: &Stat) -> Result<Arc<dyn SourceDir>>;
    /// Opens a regular file, if it is still the one of `expected` (same type, device and inode).
    fn open_file(&self, name: &Name, expected: &Stat) -> Result<Box<dyn SourceFile>>;
    /// Where a symlink points.
    fn read_link(&self, name: &Name) -> Result<Vec<u8>>;
    /// The directory's own extended attributes.
    fn xattrs(&self) -> Result<XattrSet>;
    /// The extended attributes of an entry that is not opened: symlinks, fifos, sockets, devices.
    fn entry_xattrs(&self, name: &Name) -> Result<XattrSet>;
}

/// A stretch of a file that may hold data; what lies between stretches is holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub start: u64,
    /// First byte after it.
    pub end: u64,
}

/// An open regular file.
pub trait SourceFile: Send + Sync {
    /// The file's stat, now.
    fn stat(&self) -> Result<Stat>;
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize>;
    /// The next stretch with data at or after `offset` and before `end`, none when only a hole is left. Where the file
    /// system can't say, the whole rest.
    fn next_data(&self, offset: u64, end: u64) -> Result<Option<Extent>>;
    /// The file's extended attributes.
    fn xattrs(&self) -> Result<XattrSet>;
    /// Tells the system that `offset..offset + len` will be read soon.
    fn will_read(&self, offset: u64, len: u64);
    /// Makes the empty file `to` share this one's content (`FICLONE`). `false` where that can't be done; `to` is empty then.
    fn share_into(&self, to: BorrowedFd<'_>) -> Result<bool> {
        let _ = to;
        Ok(false)
    }
}
