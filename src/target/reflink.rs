//! New files as clones of a safety copy: where the file system can share extents (XFS, btrfs and others), a new file begins
//! as a clone of the file with the same path below another directory, and only what differs is written into it.
//!
//! The copy is only ever read. Its paths are resolved like those of the target: beneath its root, without following a
//! symlink. That a clone can't be made is never an error; the file is written as usual.

use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, Result as IoResult};

use crate::error::Result;
use crate::model::{Name, TreePath};

use super::Reflinks;
use super::beneath::{open_dir, stat_entry};
use super::outcome::failed;

/// Shorter files are written: making a clone, reading it and comparing it would take longer, and it would share little.
pub(super) const REFLINK_BYTES_MIN: u64 = 64 << 10;

/// The directory whose files are cloned.
pub(super) struct SafetyCopy {
    root: OwnedFd,
    /// A [`Reflinks`] as its number.
    outcome: AtomicU8,
}

impl SafetyCopy {
    /// Opens the directory. Symlinks in `path` itself are followed: it is the user's word.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::openat(CWD, path, flags, Mode::empty());
        let root = root.map_err(|e| failed("cannot open the directory to take clones from", e).on(path.display()))?;
        Ok(Self { root, outcome: AtomicU8::new(Reflinks::Untried as u8) })
    }

    /// How it went so far.
    pub(super) fn outcome(&self) -> Reflinks {
        match self.outcome.load(Ordering::Relaxed) {
            made if made == Reflinks::Made as u8 => Reflinks::Made,
            unsupported if unsupported == Reflinks::Unsupported as u8 => Reflinks::Unsupported,
            _ => Reflinks::Untried,
        }
    }

    /// Makes `file`, which is new and empty, a clone of the copy's file `name` in the directory `dir`. Gives its length then;
    /// where it can't be cloned, the file is empty as before.
    pub(super) fn clone_into(&self, dir: &TreePath, name: &Name, file: &OwnedFd) -> Result<Option<u64>> {
        if self.outcome() == Reflinks::Unsupported {
            return Ok(None);
        }
        let Some(from) = self.find(dir, name) else { return Ok(None) };
        let cloned = self.clone(file, &from);
        if cloned.is_none() {
            // A clone that failed midway may have left a part of the copy, which would show through holes and behind the end.
            fs::ftruncate(file, 0).map_err(|e| failed("cannot empty the file that could not be cloned", e))?;
        }
        Ok(cloned)
    }

    fn clone(&self, file: &OwnedFd, from: &OwnedFd) -> Option<u64> {
        match fs::ioctl_ficlone(file, from) {
            Ok(()) => {
                self.outcome.store(Reflinks::Made as u8, Ordering::Relaxed);
                // Its length as cloned: the original may have changed since.
                fs::fstat(file).ok().map(|stat| u64::try_from(stat.st_size).unwrap_or(0))
            }
            Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::XDEV) => {
                let [untried, unsupported] = [Reflinks::Untried as u8, Reflinks::Unsupported as u8];
                // Where one clone was made, this is about one mount below, and others can still be made.
                let _ = self.outcome.compare_exchange(untried, unsupported, Ordering::Relaxed, Ordering::Relaxed);
                None
            }
            // This file can't be cloned (another one may): in use as swap, other attributes, no room for a clone's records.
            Err(_) => None,
        }
    }

    /// Opens a regular file of the copy for reading.
    fn find(&self, dir: &TreePath, name: &Name) -> Option<OwnedFd> {
        let parent = if dir.is_root() { None } else { Some(self.directory(dir).ok()?) };
        let parent = parent.as_ref().map_or(self.root.as_fd(), |parent| parent.as_fd());
        let is_file = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        // Asked before opening: opening a device or fifo does something to it. And again: it may have been swapped since.
        stat_entry(parent, name).ok().filter(is_file)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = fs::openat(parent, name.as_bytes(), flags, Mode::empty()).ok()?;
        fs::fstat(&file).ok().filter(is_file)?;
        Some(file)
    }

    fn directory(&self, path: &TreePath) -> IoResult<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match fs::openat2(&self.root, path.as_bytes(), flags, Mode::empty(), resolve) {
            // Old kernels do not know the call, and old container runtimes forbid it; a path can be too long for one call.
            Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG) => self.directory_by_names(path),
            other => other,
        }
    }

    fn directory_by_names(&self, path: &TreePath) -> IoResult<OwnedFd> {
        let mut at: Option<OwnedFd> = None;
        for name in path.names() {
            let name = Name::new(name).map_err(|_| Errno::INVAL)?;
            at = Some(open_dir(at.as_ref().unwrap_or(&self.root), &name)?);
        }
        at.ok_or(Errno::INVAL)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{FileExt, MetadataExt, symlink};
    use std::process::Command;

    use super::super::dir::{DirTarget, DirTargetOptions};
    use super::super::testing::{Dice, MemoryContent, dir_node, file_node, no_xattrs};
    use super::super::{Placed, Target};
    use super::*;
    use crate::model::SnapshotId;

    const LEN: usize = 1 << 20;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    fn target(dir: &Path, copy: &Path) -> DirTarget {
        let options = DirTargetOptions { snapshot: SnapshotId([7; 32]), open_dirs_max: None, reflink_from: Some(copy.to_owned()) };
        DirTarget::create(dir, options).unwrap()
    }

    /// Restores `sub/file` with a copy beside it that differs in one byte; what came of it.
    fn restore_beside(place: &Path) -> (Placed, Reflinks) {
        let dice = Dice::new(9);
        let pieces: Vec<Vec<u8>> = (0..8).map(|_| dice.bytes(LEN / 8)).collect();
        let content = pieces.iter().fold(MemoryContent::new(), |content, piece| content.data(piece));
        let copy = place.join("copy");
        std::fs::create_dir_all(copy.join("sub")).unwrap();
        let mut old = content.bytes();
        old[LEN / 2] ^= 1;
        old.extend_from_slice(b"and more");
        std::fs::write(copy.join("sub/file"), &old).unwrap();
        let target = target(&place.join("out"), &copy);
        let root = target.begin(&dir_node("")).unwrap();
        let sub = root.directory(&dir_node("sub")).unwrap();
        let placed = sub.file(&file_node("file", &content), &no_xattrs(), &content).unwrap();
        sub.close(&dir_node("sub"), &no_xattrs()).unwrap();
        root.close(&dir_node(""), &no_xattrs()).unwrap();
        target.finish().unwrap();
        assert_eq!(target.shortfalls(), []);
        assert!(std::fs::read(place.join("out/sub/file")).unwrap() == content.bytes());
        assert!(std::fs::read(copy.join("sub/file")).unwrap() == old, "the copy is only read");
        (placed, target.reflinks())
    }

    #[test]
    fn without_clones_the_file_is_written_and_that_is_known() {
        let place = tempfile::tempdir().unwrap();
        let (placed, reflinks) = restore_beside(place.path());
        match reflinks {
            Reflinks::Unsupported => assert_eq!(placed, Placed { written_bytes: LEN as u64, kept_bytes: 0, cloned: false }),
            Reflinks::Made => assert_eq!((placed.written_bytes, placed.cloned), (4096, true)),
            Reflinks::Untried => unreachable!("the file is large enough"),
        }
    }

    /// A file system in a file, mounted; none, with the reason, where that can't be had.
    struct Image(tempfile::TempDir);

    impl Image {
        fn make(maker: &str, arguments: &[&str]) -> Result<Self, String> {
            let place = tempfile::tempdir().map_err(|e| e.to_string())?;
            let (image, mount) = (place.path().join("image"), place.path().join("mount"));
            let file = std::fs::File::create(&image).map_err(|e| e.to_string())?;
            file.set_len(512 << 20).map_err(|e| e.to_string())?;
            std::fs::create_dir(&mount).map_err(|e| e.to_string())?;
            let run = |command: &mut Command| match command.output() {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
                Err(e) => Err(format!("{:?}: {e}", command.get_program())),
            };
            run(Command::new(maker).args(arguments).arg(&image))?;
            run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount))?;
            Ok(Self(place))
        }
    }

    impl Drop for Image {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0.path().join("mount")).output();
        }
    }

    #[test]
    #[allow(clippy::print_stderr)]
    fn a_clone_is_made_and_only_what_differs_is_written() {
        for (maker, arguments) in [("mkfs.xfs", &["-q", "-m", "reflink=1"][..]), ("mkfs.btrfs", &["-q"])] {
            match Image::make(maker, arguments) {
                Err(why) => eprintln!("SKIPPED a_clone_is_made_and_only_what_differs_is_written: {maker}: {why}"),
                Ok(image) => {
                    let (placed, reflinks) = restore_beside(&image.0.path().join("mount"));
                    assert_eq!((placed.written_bytes, placed.cloned, reflinks), (4096, true, Reflinks::Made), "{maker}");
                }
            }
        }
    }

    #[test]
    fn only_regular_files_are_found_and_no_symlink_is_followed() {
        let place = tempfile::tempdir().unwrap();
        let (copy, outside) = (place.path().join("copy"), place.path().join("outside"));
        std::fs::create_dir_all(copy.join("sub/deep")).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "outside").unwrap();
        std::fs::write(copy.join("sub/deep/file"), "inside").unwrap();
        symlink("../outside", copy.join("link")).unwrap();
        symlink(outside.join("file"), copy.join("file")).unwrap();
        symlink("deep", copy.join("sub/also")).unwrap();
        rustix::fs::mknodat(CWD, copy.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let copy = SafetyCopy::open(&copy).unwrap();
        let find = |dir: &str, name: &str| copy.find(&path(dir), &Name::new(name.as_bytes()).unwrap());
        let mut bytes = [0; 6];
        std::fs::File::from(find("sub/deep", "file").unwrap()).read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"inside");
        for (dir, name) in
            [("link", "file"), ("", "file"), ("sub/also", "file"), ("", "fifo"), ("", "sub"), ("sub", "absent"), ("absent", "x")]
        {
            assert!(find(dir, name).is_none(), "{dir}/{name}");
        }
        let by_names = copy.directory_by_names(&path("sub/deep")).unwrap();
        let by_path = copy.directory(&path("sub/deep")).unwrap();
        assert_eq!(rustix::fs::fstat(&by_names).unwrap().st_ino, rustix::fs::fstat(&by_path).unwrap().st_ino);
        assert!(copy.directory_by_names(&path("sub/also")).is_err());
        let root = std::fs::metadata(place.path().join("copy")).unwrap().ino();
        assert_eq!(rustix::fs::fstat(&copy.root).unwrap().st_ino, root);
    }
}
