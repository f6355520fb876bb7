//! A directory of this machine as a source. Everything below the root is reached relative to open handles, so nothing that
//! is renamed, swapped or linked while we walk can lead outside; nothing but regular files and directories is opened.

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
        let listing = self.list()?;
        let fd = self.handle.fd()?;
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
    fn list(&self) -> Result<Listing> {
        let cannot = |cause| failed(cause, "cannot list the directory", self.handle.subject(None));
        let fd = self.handle.fd()?;
        let _alone = self.handle.lock_listing();
        seek(&*fd, SeekFrom::Start(0)).map_err(cannot)?;
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut raw = RawDir::new(&*fd, buffer.spare_capacity_mut());
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
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use rustix::fs::{FileType, Mode, Timespec, Timestamps, makedev, mknodat, utimensat};
    use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
    use tempfile::{TempDir, tempdir};

    use super::super::EntryKind;
    use super::*;
    use crate::clock::Timestamp;

    fn source(temp: &TempDir) -> Arc<dyn SourceDir> {
        DirSource::open(temp.path()).unwrap().root().unwrap()
    }

    fn name(bytes: impl AsRef<[u8]>) -> Name {
        Name::new(bytes.as_ref()).unwrap()
    }

    fn stat_of(dir: &dyn SourceDir, name: &str) -> Stat {
        dir.entries().unwrap().into_iter().find(|entry| entry.name.as_bytes() == name.as_bytes()).unwrap().stat.unwrap()
    }

    fn node(temp: &TempDir, name: &str, kind: FileType, device: (u32, u32)) {
        mknodat(CWD, temp.path().join(name), kind, Mode::RUSR, makedev(device.0, device.1)).unwrap();
    }

    fn is_replaced(result: Result<impl Sized>) {
        let error = result.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(error.to_string().starts_with("was replaced while it was read: e"), "{error}");
    }

    #[test]
    fn every_kind_of_entry_is_told_apart() {
        let temp = tempdir().unwrap();
        let path = temp.path();
        std::fs::write(path.join("file"), b"12345").unwrap();
        std::fs::hard_link(path.join("file"), path.join("file2")).unwrap();
        std::fs::create_dir(path.join("dir")).unwrap();
        symlink("/proc/self/root/../x", path.join("link")).unwrap();
        let _listener = UnixListener::bind(path.join("socket")).unwrap();
        node(&temp, "fifo", FileType::Fifo, (0, 0));
        let mut expected = vec![
            ("dir", EntryKind::Directory),
            ("fifo", EntryKind::Fifo),
            ("file", EntryKind::File),
            ("file2", EntryKind::File),
            ("link", EntryKind::Symlink),
            ("socket", EntryKind::Socket),
        ];
        if mknodat(CWD, path.join("whiteout"), FileType::CharacterDevice, Mode::RUSR, 0).is_ok() {
            node(&temp, "block", FileType::BlockDevice, (4095, 1_048_575));
            node(&temp, "char", FileType::CharacterDevice, (1, 3));
            expected.insert(0, ("block", EntryKind::BlockDevice(4095, 1_048_575)));
            expected.insert(1, ("char", EntryKind::CharDevice(1, 3)));
            expected.push(("whiteout", EntryKind::CharDevice(0, 0)));
        } else {
            eprintln!("skipped in part: device nodes need root");
        }
        let dir = source(&temp);
        let entries = dir.entries().unwrap();
        let found: Vec<_> = entries.iter().map(|e| (e.name.to_string(), e.stat.as_ref().unwrap().kind)).collect();
        assert_eq!(found, expected.iter().map(|(name, kind)| (name.to_string(), *kind)).collect::<Vec<_>>());
        for (name, kind) in expected {
            let (name, stat) = (self::name(name), stat_of(&*dir, name));
            // None of these may hang or have effects: each wrong way in is refused.
            assert_eq!(dir.open_file(&name, &stat).is_ok(), kind == EntryKind::File, "{name}");
            assert_eq!(dir.open_dir(&name, &stat).is_ok(), kind == EntryKind::Directory, "{name}");
            assert_eq!(dir.read_link(&name).is_ok(), kind == EntryKind::Symlink, "{name}");
            dir.entry_xattrs(&name).unwrap();
        }
        assert_eq!(dir.read_link(&name("link")).unwrap(), b"/proc/self/root/../x");
        assert_eq!(dir.entries().unwrap().len(), found.len(), "a directory can be listed again");
    }

    #[test]
    fn a_stat_holds_what_the_system_says() {
        let temp = tempdir().unwrap();
        let path = temp.path().join("f");
        std::fs::write(&path, vec![1; 10_000]).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o6751)).unwrap();
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: 1 },
            last_modification: Timespec { tv_sec: -86_400, tv_nsec: 123_456_789 },
        };
        utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        let dir = source(&temp);
        let stat = stat_of(&*dir, "f");
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!((stat.mode, stat.size, stat.uid, stat.gid), (0o6751, 10_000, meta.uid(), meta.gid()));
        assert_eq!((stat.inode, stat.device, stat.links, stat.blocks), (meta.ino(), meta.dev(), 1, meta.blocks()));
        assert_eq!(stat.mtime, Timestamp::new(-86_400, 123_456_789));
        assert_eq!((stat.ctime.seconds, i64::from(stat.ctime.nanos)), (meta.ctime(), meta.ctime_nsec()));
        let file = dir.open_file(&name("f"), &stat).unwrap();
        assert_eq!(file.stat().unwrap(), stat);
        file.read_at(0, &mut [0; 10]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().atime(), 0, "reading leaves the access time alone");
        assert_eq!(dir.stat().unwrap().inode, std::fs::metadata(temp.path()).unwrap().ino());
    }

    #[test]
    fn hostile_names_arrive_as_they_are_and_sorted_by_bytes() {
        let temp = tempdir().unwrap();
        let long = [b'z'; 255];
        let names: [&[u8]; 9] = [b"-rf", b" ", b"a\nb", b"\x1b[2J", b"\xff\xfe", b"\xed\xa0\x80", b"...", b"CON:\\", &long];
        for name in names {
            std::fs::write(temp.path().join(OsStr::from_bytes(name)), name).unwrap();
        }
        let dir = source(&temp);
        let mut sorted = names;
        sorted.sort();
        let entries = dir.entries().unwrap();
        assert_eq!(entries.iter().map(|entry| entry.name.as_bytes()).collect::<Vec<_>>(), sorted);
        for entry in entries {
            let file = dir.open_file(&entry.name, &entry.stat.unwrap()).unwrap();
            let mut content = [0; 300];
            let len = file.read_at(0, &mut content).unwrap();
            assert_eq!(&content[..len], entry.name.as_bytes());
        }
    }

    #[test]
    fn many_entries_take_several_fetches() {
        let temp = tempdir().unwrap();
        for number in 0..3000 {
            std::fs::write(temp.path().join(format!("{number:06}-a name of some length, to fill the buffer")), b"").unwrap();
        }
        let entries = source(&temp).entries().unwrap();
        assert_eq!(entries.len(), 3000);
        assert!(entries.windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn a_name_that_cannot_be_stored_is_an_entry_with_an_error() {
        let long = [b'x'; 600];
        let (first, second) = (unfit_entry(&long, 0).unwrap(), unfit_entry(&long, 1).unwrap());
        assert_ne!(first.name, second.name);
        assert!(first.name.as_bytes().starts_with(b"xxxx"));
        assert_eq!(first.stat.unwrap_err().kind(), ErrorKind::Unsupported);
        unfit_entry(b"", usize::MAX).unwrap();
        unfit_entry(b"a/b", 0).unwrap();
    }

    #[test]
    fn what_is_swapped_after_it_was_listed_is_not_read() {
        let temp = tempdir().unwrap();
        let path = temp.path().join("e");
        std::fs::write(temp.path().join("canary"), b"outside").unwrap();
        let dir = source(&temp);
        let swaps: [&dyn Fn(); 5] = [
            &|| symlink("canary", &path).unwrap(),
            &|| node(&temp, "e", FileType::Fifo, (0, 0)),
            &|| drop(UnixListener::bind(&path).unwrap()),
            &|| std::fs::create_dir(&path).unwrap(),
            // A file again; the old inode lives on under another name, so this one has another number.
            &|| std::fs::write(&path, b"another").unwrap(),
        ];
        for swap in swaps {
            std::fs::write(&path, b"inside").unwrap();
            let stat = stat_of(&*dir, "e");
            std::fs::rename(&path, temp.path().join("old")).unwrap();
            swap();
            is_replaced(dir.open_file(&name("e"), &stat));
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
        let swaps: [&dyn Fn(); 4] = [
            &|| symlink(".", &path).unwrap(),
            &|| node(&temp, "e", FileType::Fifo, (0, 0)),
            &|| std::fs::write(&path, b"").unwrap(),
            &|| std::fs::create_dir(&path).unwrap(),
        ];
        for (number, swap) in swaps.iter().enumerate() {
            std::fs::create_dir(&path).unwrap();
            let stat = stat_of(&*dir, "e");
            std::fs::rename(&path, temp.path().join(format!("old dir {number}"))).unwrap();
            swap();
            is_replaced(dir.open_dir(&name("e"), &stat));
            let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path));
        }
        symlink("x", &path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"").unwrap();
        is_replaced(dir.read_link(&name("e")));
    }

    #[test]
    fn what_vanishes_is_not_found_and_costs_itself_only() {
        let temp = tempdir().unwrap();
        std::fs::create_dir(temp.path().join("d")).unwrap();
        std::fs::write(temp.path().join("d/f"), b"").unwrap();
        let top = source(&temp);
        let dir = top.open_dir(&name("d"), &stat_of(&*top, "d")).unwrap();
        let stat = stat_of(&*dir, "f");
        let here = DirHandle::root(openat_dir(&temp), 16).unwrap();
        std::fs::remove_file(temp.path().join("d/f")).unwrap();
        let gone = [
            dir.open_file(&name("f"), &stat).err().unwrap(),
            dir.read_link(&name("f")).unwrap_err(),
            dir.entry_xattrs(&name("f")).unwrap_err(),
            dir.open_dir(&name("f"), &stat).err().unwrap(),
            stat_entry(&*here.fd().unwrap(), &name("f"), || "d/f".into()).unwrap_err(),
        ];
        for error in gone {
            assert_eq!((error.kind(), error.subject()), (ErrorKind::NotFound, Some("d/f")), "{error}");
        }
        std::fs::remove_dir(temp.path().join("d")).unwrap();
        assert!(dir.entries().unwrap().is_empty(), "a directory that was removed while it is open is empty");
        assert_eq!(dir.stat().unwrap().links, 0);
    }

    fn openat_dir(temp: &TempDir) -> std::os::fd::OwnedFd {
        open_without_atime(CWD, temp.path().as_os_str().as_bytes(), OFlags::DIRECTORY).unwrap()
    }

    #[test]
    fn the_root_is_a_directory_that_symlinks_may_lead_to() {
        let temp = tempdir().unwrap();
        let path = temp.path();
        std::fs::create_dir(path.join("dir")).unwrap();
        std::fs::write(path.join("dir/file"), b"").unwrap();
        symlink("dir", path.join("link")).unwrap();
        symlink("nowhere", path.join("dangling")).unwrap();
        let source = DirSource::open(&path.join("link")).unwrap();
        assert_eq!(source.root().unwrap().entries().unwrap().len(), 1);
        source.settle().unwrap();
        for (bad, kind) in
            [("dir/file", ErrorKind::Usage), ("gone", ErrorKind::NotFound), ("dangling", ErrorKind::NotFound), ("", ErrorKind::NotFound)]
        {
            let path = if bad.is_empty() { Path::new("").to_path_buf() } else { path.join(bad) };
            let error = DirSource::open(&path).err().unwrap();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.advice().is_some());
        }
    }

    #[test]
    fn symlink_targets_up_to_the_longest_are_read_whole() {
        let temp = tempdir().unwrap();
        let long = "x/".repeat(2047) + "x";
        symlink(&long, temp.path().join("long")).unwrap();
        symlink(OsStr::from_bytes(b"\xff\n"), temp.path().join("odd")).unwrap();
        symlink("self", temp.path().join("self")).unwrap();
        let dir = source(&temp);
        assert_eq!(dir.read_link(&name("long")).unwrap(), long.as_bytes());
        assert_eq!(dir.read_link(&name("odd")).unwrap(), b"\xff\n");
        assert_eq!(dir.read_link(&name("self")).unwrap(), b"self");
    }

    #[test]
    fn without_rights_each_refusal_costs_one_entry() {
        let temp = tempdir().unwrap();
        let path = temp.path();
        let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        for dir in ["closed", "listable"] {
            std::fs::create_dir(path.join(dir)).unwrap();
            std::fs::write(path.join(dir).join("inner"), b"").unwrap();
        }
        std::fs::write(path.join("open"), b"1").unwrap();
        std::fs::write(path.join("secret"), b"1").unwrap();
        std::fs::write(path.join("of another"), b"1").unwrap();
        if std::os::unix::fs::chown(path.join("of another"), Some(12_345), None).is_err() {
            eprintln!("skipped in part: only root can have a file of another, for which O_NOATIME is refused");
        }
        for (name, bits) in [("closed", 0), ("listable", 0o444), ("secret", 0), ("of another", 0o644)] {
            mode(&path.join(name), bits);
        }
        let root = source(&temp);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // Of this thread only: root without its rights is an ordinary owner.
                let none = CapabilitySet::empty();
                set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).unwrap();
                assert_eq!(root.entries().unwrap().len(), 5);
                for refused in [
                    root.open_dir(&name("closed"), &stat_of(&*root, "closed")).err().unwrap(),
                    root.open_file(&name("secret"), &stat_of(&*root, "secret")).err().unwrap(),
                ] {
                    assert_eq!(refused.kind(), ErrorKind::Source);
                    assert_eq!(refused.io_kind(), Some(std::io::ErrorKind::PermissionDenied));
                    assert!(refused.advice().is_some());
                }
                let listable = root.open_dir(&name("listable"), &stat_of(&*root, "listable")).unwrap();
                let entries = listable.entries().unwrap();
                assert_eq!(entries[0].name.as_bytes(), b"inner");
                assert_eq!(entries[0].stat.as_ref().unwrap_err().subject(), Some("listable/inner"));
                for readable in ["open", "of another"] {
                    let file = root.open_file(&name(readable), &stat_of(&*root, readable)).unwrap();
                    assert_eq!(file.read_at(0, &mut [0]).unwrap(), 1);
                    file.xattrs().unwrap();
                }
            });
        });
        mode(&path.join("closed"), 0o755);
        mode(&path.join("listable"), 0o755);
    }
}
