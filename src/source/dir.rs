//! A directory of this machine as a source. Everything below the root is reached relative to open handles, so nothing that
//! is renamed, swapped or linked while we walk can lead outside; nothing but regular files and directories is opened.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{CWD, OFlags, RawDir, SeekFrom, readlinkat_raw, seek, syncfs};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, ErrorKind, Result};
use crate::model::Name;
use crate::model::node::SYMLINK_BYTES_MAX;
use crate::model::path::{NAME_BYTES_MAX, escape};

use super::fail::{failed, replaced};
use super::file::DirFile;
use super::handles::{DirHandle, open_dirs_limit, open_without_atime};
use super::stat::{stat_entry, stat_handle};
use super::{Entry, Source, SourceDir, SourceFile, Stat, XattrSet, xattr};

/// Directory entries are fetched in pieces of this size; the default of libc (32 KiB) needs twice the system calls.
const LISTING_BYTES: usize = 64 << 10;
/// The most entries that one directory may have: with their stats about 3 GB of memory.
const ENTRIES_MAX: usize = 1 << 24;

/// A directory and all below it, mounts included.
pub struct DirSource {
    root: Arc<DirHandle>,
}

impl DirSource {
    /// Opens the directory at `path`, which may lead there through symlinks; below it none is followed. Raises the
    /// process's soft limit on open files (to 65 536, if the hard limit lets it).
    ///
    /// Fails with [`ErrorKind::NotFound`] when nothing is there, [`ErrorKind::Usage`] when it is no directory,
    /// [`ErrorKind::Source`] when it may not be read.
    pub fn open(path: &Path) -> Result<Self> {
        Self::with_open_dirs_max(path, open_dirs_limit())
    }

    fn with_open_dirs_max(path: &Path, open_dirs_max: usize) -> Result<Self> {
        let bytes = path.as_os_str().as_bytes();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match retry_on_intr(|| open_without_atime(CWD, bytes, flags)) {
            Err(Errno::NOTDIR) => {
                return Err(Error::new(ErrorKind::Usage, "is not a directory")
                    .on(escape(bytes))
                    .hint("name the directory that holds it; a snapshot is always of a directory"));
            }
            Err(Errno::NOENT) => {
                return Err(Error::new(ErrorKind::NotFound, "there is no such directory")
                    .on(escape(bytes))
                    .hint("check the spelling, and that the file system it lies on is mounted"));
            }
            opened => opened.map_err(|cause| failed(cause, "cannot open the directory", escape(bytes)))?,
        };
        Ok(Self { root: DirHandle::root(fd, open_dirs_max)? })
    }
}

impl Source for DirSource {
    fn root(&self) -> Result<Arc<dyn SourceDir>> {
        Ok(Arc::new(Dir { handle: self.root.clone() }))
    }

    /// Syncs the file system of the root; not the others that are mounted below it.
    fn settle(&self) -> Result<()> {
        let fd = self.root.fd()?;
        syncfs(&*fd).map_err(|cause| failed(cause, "cannot sync the file system of", "/"))
    }
}

struct Dir {
    handle: Arc<DirHandle>,
}

impl SourceDir for Dir {
    fn stat(&self) -> Result<Stat> {
        stat_handle(&*self.handle.fd()?, || self.handle.subject(None))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let fd = self.handle.fd()?;
        let listing = self.list(&fd)?;
        let mut entries = Vec::with_capacity(listing.names.len() + listing.unfit.len());
        for name in listing.names {
            let stat = stat_entry(&*fd, &name, || self.handle.subject(Some(&name)));
            entries.push(Entry { name, stat });
        }
        for (number, bytes) in listing.unfit.iter().enumerate() {
            entries.push(unfit_entry(bytes, number)?);
        }
        // A name that is renamed away and back while the directory is listed can appear twice.
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.dedup_by(|a, b| a.name == b.name);
        Ok(entries)
    }

    fn open_dir(&self, name: &Name, expected: &Stat) -> Result<Arc<dyn SourceDir>> {
        Ok(Arc::new(Self { handle: self.handle.open_dir(name, expected)? }))
    }

    fn open_file(&self, name: &Name, expected: &Stat) -> Result<Box<dyn SourceFile>> {
        Ok(Box::new(DirFile::open(&self.handle, name, expected)?))
    }

    fn read_link(&self, name: &Name) -> Result<Vec<u8>> {
        let fd = self.handle.fd()?;
        // One byte more than a target can have, to notice one that was cut.
        let mut target = vec![0; SYMLINK_BYTES_MAX + 1];
        match retry_on_intr(|| readlinkat_raw(&*fd, name.as_bytes(), target.as_mut_slice())) {
            Ok(len @ 1..=SYMLINK_BYTES_MAX) => {
                target.truncate(len);
                Ok(target)
            }
            Ok(len) => {
                let message = format!("a symlink's target has 1 to {SYMLINK_BYTES_MAX} bytes, not {len}");
                Err(Error::new(ErrorKind::Source, message).on(self.handle.subject(Some(name))))
            }
            Err(Errno::INVAL) => Err(replaced(self.handle.subject(Some(name)))),
            Err(cause) => Err(failed(cause, "cannot read the symlink", self.handle.subject(Some(name)))),
        }
    }

    fn xattrs(&self) -> Result<XattrSet> {
        xattr::of_handle(&*self.handle.fd()?, || self.handle.subject(None))
    }

    fn entry_xattrs(&self, name: &Name) -> Result<XattrSet> {
        xattr::of_entry(&*self.handle.fd()?, name, || self.handle.subject(Some(name)))
    }
}

/// The names of a directory, without `.` and `..`.
#[derive(Default)]
struct Listing {
    names: Vec<Name>,
    /// What is no [`Name`]: file systems that count characters (vfat, ntfs, cifs) have names of more than 255 bytes.
    unfit: Vec<Vec<u8>>,
}

impl Dir {
    fn list(&self, fd: &OwnedFd) -> Result<Listing> {
        let cannot = |cause| failed(cause, "cannot list the directory", self.handle.subject(None));
        let _alone = self.handle.lock_listing();
        seek(fd, SeekFrom::Start(0)).map_err(cannot)?;
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut raw = RawDir::new(fd, buffer.spare_capacity_mut());
        let mut listing = Listing::default();
        while let Some(entry) = raw.next() {
            let entry = match entry {
                // The directory was removed while it was listed: nothing is left in it.
                Err(Errno::NOENT) => break,
                Err(Errno::INTR) => continue,
                entry => entry.map_err(cannot)?,
            };
            let bytes = entry.file_name().to_bytes();
            if bytes == b"." || bytes == b".." {
                continue;
            }
            match Name::new(bytes) {
                Ok(name) => listing.names.push(name),
                Err(_) => listing.unfit.push(bytes.to_vec()),
            }
            if listing.names.len() + listing.unfit.len() > ENTRIES_MAX {
                let message = format!("has more than {ENTRIES_MAX} entries");
                return Err(Error::new(ErrorKind::Unsupported, message).on(self.handle.subject(None)));
            }
        }
        Ok(listing)
    }
}

/// The entry for a name that can't be stored: its beginning, a number that sets it apart, and the reason.
fn unfit_entry(bytes: &[u8], number: usize) -> Result<Entry> {
    let mut short: Vec<u8> = bytes.iter().copied().filter(|&b| b != b'/' && b != 0).take(NAME_BYTES_MAX - 24).collect();
    short.extend_from_slice(format!("~{number}").as_bytes());
    let message = format!("has a name that can't be stored ({} bytes; 1 to {NAME_BYTES_MAX} are possible)", bytes.len());
    let error = Error::new(ErrorKind::Unsupported, message).on(escape(bytes)).hint("rename it to have it in snapshots");
    Ok(Entry { name: Name::new(short)?, stat: Err(error) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr)]
#[path = "dir_tests.rs"]
mod tests;
