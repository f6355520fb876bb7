//! A file written whole, or not at all, under a temporary name: the first half of a durable put. The second half, giving it
//! its name, is in [`super`].

use std::io;
use std::sync::{Mutex, PoisonError};

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, FlockOperation, Mode, OFlags, fcntl_getfl, fcntl_setfl, fdatasync, flock, fstat, ftruncate, linkat, openat, statat, unlinkat,
};
use rustix::io::{Errno, pwrite};

/// Objects at least this long bypass the page cache, so that a backup does not push out what others had there; below it
/// the set-up costs more than it saves.
const DIRECT_LEN_MIN: usize = 1 << 20;

/// One write to a file that bypasses the page cache; research found the rate flat from 1 to 4 MiB.
const BLOCK_LEN: usize = 2 << 20;

/// What memory, offsets and lengths of such writes are aligned to: enough for all common devices. Where it is not, the
/// write answers `INVAL` and the file is written through the cache.
const ALIGN: usize = 4096;

/// The most block buffers kept for the next put: one per writing thread of a usual run, 8 MiB.
const BUFFERS_KEPT_MAX: usize = 4;

/// How often another random name is tried. Losing a name takes a sweep at the very moment of its creation.
const ATTEMPTS_MAX: usize = 16;

/// Block buffers waiting to be used again.
#[derive(Default)]
pub(super) struct Buffers(Mutex<Vec<Buffer>>);

/// A new file that has no lasting name yet. It is locked for as long as this exists, so that a sweep can tell it from those
/// of dead processes. Dropping it removes the temporary name; an object linked from it stays.
pub(super) struct TempFile {
    folder: OwnedFd,
    name: String,
    file: OwnedFd,
}

impl TempFile {
    /// Creates an empty file in `folder`. It is read-only for all but this handle from the start, as objects never change.
    pub(super) fn create(folder: OwnedFd) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..ATTEMPTS_MAX {
            let name = random_name()?;
            let file = match openat(&folder, &name, flags, Mode::RUSR) {
                Err(Errno::EXIST) => continue,
                opened => opened?,
            };
            let temp = Self { folder: folder.try_clone()?, name, file };
            // A sweep between the creation and the lock takes the file for a dead one: it has it locked or removed it.
            match flock(&temp.file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if fstat(&temp.file)?.st_nlink > 0 => return Ok(temp),
                Ok(()) | Err(Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Err(io::Error::other("no temporary file lasted long enough to be locked"))
    }

    /// Writes the contents, checks their length and makes them durable. After an error the file must be dropped: what a
    /// second sync of it says means nothing.
    pub(super) fn fill(&self, bytes: &[u8], buffers: &Buffers) -> io::Result<()> {
        let direct = bytes.len() >= DIRECT_LEN_MIN && self.set_direct(true).is_ok();
        if direct {
            let written = self.write_direct(bytes, buffers)?;
            if written < bytes.len() {
                self.set_direct(false)?;
                self.write_cached(bytes, written)?;
            }
            ftruncate(&self.file, bytes.len() as u64)?;
        } else {
            self.write_cached(bytes, 0)?;
        }
        let len = fstat(&self.file)?.st_size;
        if u64::try_from(len).ok() != Some(bytes.len() as u64) {
            return Err(io::Error::other(format!("wrote {} bytes and the file has {len}", bytes.len())));
        }
        Ok(fdatasync(&self.file)?)
    }

    /// Gives the file the name `name` in `folder`; false when the name is taken, which then stays as it is.
    pub(super) fn link(&self, folder: &OwnedFd, name: &str) -> io::Result<bool> {
        let Err(errno) = linkat(&self.folder, &self.name, folder, name, AtFlags::empty()) else { return Ok(true) };
        // Over a network the answer can be lost after the deed, and the repeated request then finds its own link. Which file
        // has the name tells; the count of links would not, since a hard-linked copy of the repository raises it too.
        let own = fstat(&self.file)?;
        match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino) => Ok(true),
            Ok(_) if errno == Errno::EXIST => Ok(false),
            _ if errno == Errno::PERM => Err(io::Error::new(io::ErrorKind::Unsupported, "the file system has no hard links")),
            _ => Err(errno.into()),
        }
    }

    /// Writes through an aligned buffer, the last block padded with zeros. Returns how many bytes are written: fewer than
    /// all when the file system does not take such writes after all.
    fn write_direct(&self, bytes: &[u8], buffers: &Buffers) -> io::Result<usize> {
        let mut buffer = buffers.take();
        let mut done = 0;
        while done < bytes.len() {
            let block = &bytes[done..bytes.len().min(done + BLOCK_LEN)];
            match pwrite(&self.file, buffer.load(block), done as u64) {
                // The next write must be aligned too; what was written beyond is written again.
                Ok(len) if len >= ALIGN => done += len - len % ALIGN,
                Ok(_) | Err(Errno::INVAL) => break,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        buffers.give_back(buffer);
        Ok(done.min(bytes.len()))
    }

    fn write_cached(&self, bytes: &[u8], from: usize) -> io::Result<()> {
        let mut done = from;
        while done < bytes.len() {
            match pwrite(&self.file, &bytes[done..], done as u64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => done += len,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Turns bypassing the page cache on or off. Not asked for at creation, where a refusal can leave the file behind.
    fn set_direct(&self, direct: bool) -> io::Result<()> {
        let mut flags = fcntl_getfl(&self.file)?;
        flags.set(OFlags::DIRECT, direct);
        Ok(fcntl_setfl(&self.file, flags)?)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // Best effort: what stays is removed by the next sweep.
        let _ = unlinkat(&self.folder, &self.name, AtFlags::empty());
    }
}

/// Removes from `folder` each temporary file `name` unless a living put has it locked. True when it is gone.
pub(super) fn sweep(folder: &OwnedFd, name: &str) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(true),
        opened => opened?,
    };
    // A shared lock, which a read-only handle may take on every file system, and which a second sweep may take as well.
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => return Ok(false),
        locked => locked?,
    }
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether a file in the temporary folder is named as [`TempFile`] names its own; others are not ours to remove.
pub(super) fn is_temp_name(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn random_name() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

impl Buffers {
    fn take(&self) -> Buffer {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, buffer: Buffer) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BUFFERS_KEPT_MAX {
            kept.push(buffer);
        }
    }
}

/// Memory for one block, with slack to start at an aligned address.
struct Buffer {
    memory: Vec<u8>,
    start: usize,
}

impl Default for Buffer {
    fn default() -> Self {
        let memory = vec![0; BLOCK_LEN + ALIGN];
        let start = memory.as_ptr().addr().wrapping_neg() % ALIGN;
        Self { memory, start }
    }
}

impl Buffer {
    /// The bytes of a block at an aligned address, padded with zeros to an aligned length.
    fn load(&mut self, block: &[u8]) -> &[u8] {
        let padded = &mut self.memory[self.start..][..block.len().next_multiple_of(ALIGN)];
        padded[..block.len()].copy_from_slice(block);
        padded[block.len()..].fill(0);
        padded
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::storage::local::folder::FOLDER;

    fn folder(path: &std::path::Path) -> OwnedFd {
        openat(rustix::fs::CWD, path, FOLDER, Mode::empty()).unwrap()
    }

    #[test]
    fn a_loaded_block_is_aligned_and_padded_with_zeros() {
        let mut buffer = Buffer::default();
        buffer.load(&[0xff; BLOCK_LEN]);
        let loaded = buffer.load(&[7; ALIGN + 1]);
        assert_eq!(loaded.as_ptr().addr() % ALIGN, 0);
        assert_eq!(loaded.len(), 2 * ALIGN);
        assert!(loaded[..ALIGN + 1].iter().all(|&b| b == 7) && loaded[ALIGN + 1..].iter().all(|&b| b == 0));
    }

    #[test]
    fn every_length_is_exact_through_and_around_the_page_cache() {
        let place = tempfile::tempdir().unwrap();
        let lens =
            [0, 1, ALIGN - 1, DIRECT_LEN_MIN - 1, DIRECT_LEN_MIN, DIRECT_LEN_MIN + 1, BLOCK_LEN, BLOCK_LEN + ALIGN, 5 * BLOCK_LEN + 333];
        for len in lens {
            let bytes: Vec<u8> = (0..len).map(|i| (i / 7 + i / 4099) as u8).collect();
            let temp = TempFile::create(folder(place.path())).unwrap();
            temp.fill(&bytes, &Buffers::default()).unwrap();
            assert!(std::fs::read(place.path().join(&temp.name)).unwrap() == bytes, "{len} bytes");
        }
    }

    #[test]
    fn a_temporary_name_goes_with_its_file_and_the_object_stays() {
        let place = tempfile::tempdir().unwrap();
        let temp = TempFile::create(folder(place.path())).unwrap();
        assert!(is_temp_name(&temp.name));
        temp.fill(b"kept", &Buffers::default()).unwrap();
        assert!(temp.link(&folder(place.path()), "object").unwrap());
        // The link that is there is this file's own: an answer that got lost, not a loss.
        assert!(temp.link(&folder(place.path()), "object").unwrap());
        let other = TempFile::create(folder(place.path())).unwrap();
        assert!(!other.link(&folder(place.path()), "object").unwrap());
        drop((temp, other));
        assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read(place.path().join("object")).unwrap(), b"kept");
    }
}
