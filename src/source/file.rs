//! An open regular file of a directory source. Read with `pread`, never mapped: another process may truncate it any time.

use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Advice, CWD, Mode, OFlags, SeekFrom, fadvise, fstatfs, ioctl_ficlone, openat, seek};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, retry_on_intr};

use crate::error::Result;
use crate::model::Name;

use super::fail::{failed, is_same, open_failed, replaced};
use super::handles::{DirHandle, OPEN, open_without_atime};
use super::stat::{BLOCK_BYTES, stat_handle};
use super::{EntryKind, Extent, SourceFile, Stat, XattrSet, xattr};

/// From this size on the system is told that the file will be read from its start to its end.
const SEQUENTIAL_BYTES_MIN: u64 = 1 << 20;
/// `RWF_DONTCACHE` (Linux 6.14): what such a read brings into the page cache goes out of it again, what was there stays. So a
/// snapshot does not push out what the source's own programs use.
const DONT_CACHE: ReadWriteFlags = ReadWriteFlags::from_bits_retain(0x80);
/// `f_type` of OpenZFS, which for years reported holes where freshly written data was (issues 4996, 11900, 15526, 15933).
const ZFS_MAGIC: u64 = 0x2fc1_2fc1;

/// An open regular file below a directory handle.
pub(super) struct DirFile {
    fd: OwnedFd,
    dir: Arc<DirHandle>,
    name: Name,
    /// Whether the file system's word on holes is asked for and believed.
    sparse: bool,
    /// Reads are asked to leave the page cache as it was, until the kernel or the file system turns out not to know that.
    passing: AtomicBool,
}

impl DirFile {
    /// Opens the file `name` in `dir`, if it is still the one of `expected`.
    pub(super) fn open(dir: &Arc<DirHandle>, name: &Name, expected: &Stat) -> Result<Self> {
        let subject = || dir.subject(Some(name));
        let parent = dir.fd()?;
        // In two steps: opening a device can have effects (a watchdog starts, a tape rewinds), and whoever writes to the
        // source may put one in the file's place at any moment. O_PATH opens nothing; what it holds is looked at, and then
        // that same inode is opened through its link in /proc.
        let held = dir
            .with_room(|| openat(&*parent, name.as_bytes(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()))
            .map_err(|cause| open_failed(cause, subject()))?;
        let mut found = stat_handle(&held, subject)?;
        if !is_same(expected, &found, EntryKind::File) {
            return Err(replaced(subject()));
        }
        let link = format!("/proc/self/fd/{}", held.as_raw_fd());
        let fd = match dir.with_room(|| open_without_atime(CWD, link.as_bytes(), OPEN.difference(OFlags::NOFOLLOW))) {
            // No /proc: open by name and look again.
            Err(Errno::NOENT) => {
                let fd =
                    dir.with_room(|| open_without_atime(&*parent, name.as_bytes(), OPEN)).map_err(|cause| open_failed(cause, subject()))?;
                found = stat_handle(&fd, subject)?;
                if !is_same(expected, &found, EntryKind::File) {
                    return Err(replaced(subject()));
                }
                fd
            }
            opened => opened.map_err(|cause| open_failed(cause, subject()))?,
        };
        if found.size >= SEQUENTIAL_BYTES_MIN {
            // Advice only: a file system that takes none is read all the same.
            let _ = fadvise(&fd, 0, None, Advice::Sequential);
        }
        let sparse = found.blocks.saturating_mul(BLOCK_BYTES) < found.size && tells_holes(&fd);
        let passing = AtomicBool::new(found.size >= SEQUENTIAL_BYTES_MIN);
        Ok(Self { fd, dir: dir.clone(), name: name.clone(), sparse, passing })
    }

    fn subject(&self) -> String {
        self.dir.subject(Some(&self.name))
    }
}

impl SourceFile for DirFile {
    fn stat(&self) -> Result<Stat> {
        stat_handle(&self.fd, || self.subject())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let failed = |cause| failed(cause, "cannot read", self.subject());
        // To preadv2 an offset of all ones means the file's own position.
        if offset != u64::MAX && self.passing.load(Ordering::Relaxed) {
            match retry_on_intr(|| preadv2(&self.fd, &mut [IoSliceMut::new(&mut *buffer)], offset, DONT_CACHE)) {
                Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::NOSYS) => self.passing.store(false, Ordering::Relaxed),
                read => return read.map_err(failed),
            }
        }
        retry_on_intr(|| pread(&self.fd, &mut *buffer, offset)).map_err(failed)
    }

    fn next_data(&self, offset: u64, end: u64) -> Result<Option<Extent>> {
        if offset >= end {
            return Ok(None);
        }
        let rest = Extent { start: offset, end };
        if !self.sparse {
            return Ok(Some(rest));
        }
        let cannot = |cause| failed(cause, "cannot look for holes", self.subject());
        let start = match seek(&self.fd, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(rest)),
            Err(cause) => return Err(cannot(cause)),
        };
        let stop = match seek(&self.fd, SeekFrom::Hole(start)) {
            Ok(stop) => stop,
            // Cut off behind `start` meanwhile: the reader finds the end by itself.
            Err(Errno::NXIO | Errno::INVAL | Errno::OPNOTSUPP) => end,
            Err(cause) => return Err(cannot(cause)),
        };
        Ok(clamp(rest, start, stop))
    }

    fn xattrs(&self) -> Result<XattrSet> {
        xattr::of_handle(&self.fd, || self.subject())
    }

    fn will_read(&self, offset: u64, len: u64) {
        // A length of 0 would mean the whole rest of the file.
        if let Some(len) = NonZeroU64::new(len) {
            let _ = fadvise(&self.fd, offset, Some(len), Advice::WillNeed);
        }
    }

    fn share_into(&self, to: BorrowedFd<'_>) -> Result<bool> {
        match ioctl_ficlone(to, &self.fd) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS | Errno::PERM | Errno::TXTBSY) => Ok(false),
            Err(cause) => Err(failed(cause, "cannot clone", self.subject())),
        }
    }
}

/// The stretch `start..stop` within `rest`, none when it begins behind it. A file system that contradicts itself (a hole
/// that ends before it begins, a stretch that begins before the place asked about) makes data of what is in doubt.
fn clamp(rest: Extent, start: u64, stop: u64) -> Option<Extent> {
    let start = start.max(rest.start);
    if start >= rest.end {
        return None;
    }
    let stop = if stop <= start { rest.end } else { stop.min(rest.end) };
    Some(Extent { start, end: stop })
}

/// Whether what the file system says about holes can be relied on. A wrong hole is lost data, so one with a history of
/// them is read in full.
fn tells_holes(fd: &OwnedFd) -> bool {
    fstatfs(fd).is_ok_and(|system| system.f_type as u64 & 0xffff_ffff != ZFS_MAGIC)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    use super::super::stat::stat_entry;
    use super::*;

    /// Bytes of a file in the page cache, as util-linux tells them.
    fn cached(path: &Path) -> u64 {
        let out = std::process::Command::new("fincore").args(["--bytes", "--noheadings", "--output", "RES"]).arg(path).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
    }

    #[test]
    fn reading_leaves_the_page_cache_as_it_was() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("large");
        let bytes = 8 << 20;
        std::fs::write(&path, vec![7; bytes]).unwrap();
        let file = File::open(&path).unwrap();
        file.sync_all().unwrap();
        let forget = || fadvise(&file, 0, None, Advice::DontNeed).unwrap();
        let read = |source: &DirFile| {
            let mut buffer = vec![0; 1 << 20];
            for at in (0..bytes).step_by(1 << 20) {
                assert_eq!(source.read_at(at as u64, &mut buffer).unwrap(), 1 << 20);
                assert!(buffer.iter().all(|byte| *byte == 7));
            }
        };
        forget();
        let source = open(place.path(), "large");
        read(&source);
        if source.passing.load(Ordering::Relaxed) {
            assert!(cached(&path) < bytes as u64 / 4, "{} bytes stayed", cached(&path));
        } else {
            eprintln!("the kernel or the file system can't read past the page cache");
        }
        // What somebody else had in it is still there.
        std::fs::read(&path).unwrap();
        assert!(cached(&path) >= bytes as u64 / 2);
        read(&source);
        assert!(cached(&path) >= bytes as u64 / 2);
    }

    fn open(dir: &Path, name: &str) -> DirFile {
        let fd = openat(CWD, dir, OFlags::DIRECTORY, Mode::empty()).unwrap();
        let name = Name::new(name.as_bytes()).unwrap();
        let stat = stat_entry(&fd, &name, String::new).unwrap();
        DirFile::open(&DirHandle::root(fd, 16).unwrap(), &name, &stat).unwrap()
    }

    fn extents(file: &DirFile, end: u64) -> Vec<Extent> {
        let mut found = Vec::new();
        let mut offset = 0;
        while let Some(extent) = file.next_data(offset, end).unwrap() {
            assert!(extent.start >= offset && extent.end > extent.start && extent.end <= end);
            offset = extent.end;
            found.push(extent);
        }
        found
    }

    #[test]
    fn a_sparse_tebibyte_is_a_few_extents() {
        const TIB: u64 = 1 << 40;
        let temp = tempfile::tempdir().unwrap();
        let writer = File::create(temp.path().join("f")).unwrap();
        for at in [0, 5 << 30, TIB - 1] {
            writer.write_all_at(b"x", at).unwrap();
        }
        let file = open(temp.path(), "f");
        assert_eq!(file.stat().unwrap().size, TIB);
        if !file.sparse {
            eprintln!("skipped: no sparse files here");
            return;
        }
        let found = extents(&file, TIB);
        assert_eq!(found.len(), 3, "{found:?}");
        for (extent, at) in found.iter().zip([0, 5 << 30, TIB - 1]) {
            assert!((extent.start..extent.end).contains(&at) && extent.end - extent.start <= 1 << 20, "{extent:?}");
            let mut byte = [0; 2];
            assert_eq!(file.read_at(at, &mut byte[..1]).unwrap(), 1);
            assert_eq!(byte[0], b'x');
        }
        assert_eq!(file.next_data(1 << 30, 2 << 30).unwrap(), None, "a hole");
        assert_eq!(file.next_data(5 << 30, (5 << 30) + 1).unwrap(), Some(Extent { start: 5 << 30, end: (5 << 30) + 1 }));
        assert_eq!(file.next_data(2 * TIB, 3 * TIB).unwrap(), None, "behind the end");
        assert_eq!(file.next_data(9, 9).unwrap(), None);
        assert_eq!(file.next_data(9, 3).unwrap(), None);
    }

    #[test]
    fn a_full_file_is_one_extent_and_reads_to_its_end() {
        let temp = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..3 << 20).map(|n: u32| n.to_le_bytes()[0] | 1).collect();
        std::fs::write(temp.path().join("f"), &content).unwrap();
        let file = open(temp.path(), "f");
        file.will_read(0, 1 << 20);
        file.will_read(0, 0);
        file.will_read(u64::MAX, u64::MAX);
        assert_eq!(extents(&file, content.len() as u64), [Extent { start: 0, end: content.len() as u64 }]);
        let mut buffer = vec![0; content.len() + 10];
        assert_eq!(file.read_at(0, &mut buffer).unwrap(), content.len());
        assert_eq!(buffer[..content.len()], content);
        assert_eq!(file.read_at(content.len() as u64, &mut buffer).unwrap(), 0);
        assert_eq!(file.read_at(content.len() as u64 - 2, &mut buffer).unwrap(), 2);
        let error = file.read_at(u64::MAX, &mut buffer).unwrap_err();
        assert_eq!(error.subject(), Some("f"));
    }

    #[test]
    fn an_open_file_goes_on_when_its_name_is_gone_and_shows_truncation() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("f");
        std::fs::write(&path, [1; 5000]).unwrap();
        let file = open(temp.path(), "f");
        let before = file.stat().unwrap();
        File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
        std::fs::remove_file(&path).unwrap();
        let after = file.stat().unwrap();
        assert_eq!((before.size, after.size, after.links), (5000, 100, 0));
        assert_eq!((before.inode, before.device), (after.inode, after.device));
        assert_eq!(file.read_at(0, &mut [0; 5000]).unwrap(), 100);
    }

    #[test]
    fn a_file_systems_contradictions_become_data() {
        let rest = Extent { start: 100, end: 200 };
        assert_eq!(clamp(rest, 120, 150), Some(Extent { start: 120, end: 150 }));
        assert_eq!(clamp(rest, 0, 150), Some(Extent { start: 100, end: 150 }));
        assert_eq!(clamp(rest, 120, 120), Some(Extent { start: 120, end: 200 }));
        assert_eq!(clamp(rest, 0, 50), Some(rest));
        assert_eq!(clamp(rest, 120, u64::MAX), Some(Extent { start: 120, end: 200 }));
        assert_eq!(clamp(rest, 200, 300), None);
    }
}
