//! A repository in a folder of this machine. An object's key is its path below the root; what is being written is in `tmp`.
//!
//! A put, step by step, and what a crash after each step leaves:
//!
//! 1. a locked file in `tmp` is written, its length checked, its bytes made durable: a leftover, which a sweep removes;
//! 2. it is linked to its final name, which fails when that exists: an object, whole, that may vanish with the power;
//! 3. its name in `tmp` is removed: the same;
//! 4. its folder, and each folder that leads there, is made durable: the object stays. Only now the put returns.
//!
//! Symbolic links inside the repository are never followed. No key may be a folder of another key. Keys below `tmp` are
//! refused, and a hold's key is used for nothing else.

use std::fmt::Display;
use std::fs::{DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fdatasync, openat, statat, unlinkat};
use rustix::io::Errno;

use self::folder::{FOLDER, Tree, split, sync_folder};
use self::hold::LocalHold;
use self::put::{Buffers, TempFile};
use self::read::{OpenPacks, len_of, open_object};
use super::{Hold, Key, Listed, Storage};
use crate::error::{Error, ErrorKind, IoContext, Result};

mod folder;
mod hold;
mod once;
mod put;
mod read;

/// The folder of unfinished files.
const TMP: &str = "tmp";

/// A repository in a folder of this machine.
pub struct LocalStorage {
    root: PathBuf,
    tree: Tree,
    buffers: Buffers,
    open_packs: OpenPacks,
}

impl LocalStorage {
    /// Opens the folder `root`, made durably for this user alone, with what leads to it, where it is missing. A folder that
    /// exists is taken as it is, also with contents: whether there is a repository already is the caller's question.
    pub fn create(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        let missing: Vec<&Path> = root.ancestors().take_while(|path| !path.as_os_str().is_empty() && !path.exists()).collect();
        for folder in missing.into_iter().rev() {
            make_durable_folder(folder).context(ErrorKind::Storage, "cannot create the repository's folder", folder.display())?;
        }
        Self::open_folder(root).context(ErrorKind::Storage, "cannot open the repository's folder", root.display())
    }

    /// Opens the folder `root`; `NoRepository` when there is none. Whether it holds a repository is not looked at.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        let root = root.as_ref();
        match Self::open_folder(root) {
            Err(Errno::NOENT | Errno::NOTDIR) => Err(Error::new(ErrorKind::NoRepository, "there is no repository folder")
                .on(root.display())
                .hint("check the path (and that its disk is mounted), or create a repository there with `icecore init`")),
            opened => opened.context(ErrorKind::Storage, "cannot open the repository's folder", root.display()),
        }
    }

    /// One handle for good: should another file system be mounted over the path, or the path be renamed, a run still
    /// goes on in the repository that it began with.
    fn open_folder(root: &Path) -> rustix::io::Result<Self> {
        let tree = Tree::new(openat(CWD, root, FOLDER, Mode::empty())?);
        Ok(Self { root: root.to_owned(), tree, buffers: Buffers::default(), open_packs: OpenPacks::default() })
    }

    /// Writes the object under a temporary name and links it; false when the key was taken.
    fn write_and_link(&self, key: &Key, bytes: &[u8]) -> Result<bool> {
        const WHAT: &str = "cannot store";
        let (path, name) = place(key)?;
        self.tree.check_intact().map_err(|cause| failed(WHAT, key, cause))?;
        let folder = self.tree.make(path).map_err(|cause| failed(WHAT, key, cause))?;
        let linked = !is_taken(&folder, name, WHAT, key)? && {
            let tmp = self.tree.make(TMP).map_err(|cause| failed(WHAT, key, cause))?;
            let temp = TempFile::create(tmp).map_err(|cause| failed(WHAT, key, cause))?;
            temp.fill(bytes, &self.buffers).map_err(|cause| failed(WHAT, key, cause))?;
            temp.link(&folder, name).map_err(|cause| failed("cannot name a stored object", key, cause))?
        };
        // Also when another put was first: it may not have come so far, and the caller is free to rely on its object.
        self.tree.settle(path, &folder).map_err(|cause| failed("cannot make an object durable", key, cause))?;
        Ok(linked)
    }

    /// Fills the buffer from an object that must have all of it, by `read`.
    fn read_range(&self, key: &Key, offset: u64, buffer: &mut [u8], read: impl FnOnce(&File, &mut [u8]) -> io::Result<()>) -> Result<()> {
        let (file, len) = self.open_packs.open(&self.tree, key)?;
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > len) {
            let wanted = buffer.len();
            return Err(Error::damaged(format!("the object has {len} bytes and {wanted} from {offset} are missing")).on(key));
        }
        read(&file, buffer).map_err(|cause| match cause.kind() {
            io::ErrorKind::UnexpectedEof => Error::damaged("the object became shorter while it was read").on(key),
            _ => failed("cannot read", key, cause),
        })
    }

    /// Adds a folder's objects to `found` and its folders to `folders`.
    fn list_folder(&self, path: &str, folders: &mut Vec<String>, found: &mut Vec<Listed>) -> io::Result<()> {
        let folder = match self.tree.open(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let below = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            // What has no legal name is not ours, nor what is in it.
            let Ok(key) = below.parse::<Key>() else { continue };
            if below == TMP {
                continue;
            }
            if entry.file_type() == FileType::Directory {
                folders.push(below);
                continue;
            }
            let stat = match statat(&folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => found.push(Listed { key, len: len_of(&stat) }),
                FileType::Directory => folders.push(below),
                // It may stand for a whole folder. Leaving that out would look like a repository that lost objects.
                FileType::Symlink => return Err(io::Error::other(format!("{below} is a symbolic link, which is not followed"))),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Storage for LocalStorage {
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        if self.write_and_link(key, bytes)? {
            return Ok(());
        }
        Err(Error::new(ErrorKind::AlreadyExists, "cannot store, the object exists").on(key))
    }

    fn get(&self, key: &Key, len_max: u64) -> Result<Vec<u8>> {
        let (file, len) = open_object(&self.tree, key)?;
        if len > len_max {
            return Err(Error::damaged(format!("cannot read, the object has {len} bytes where at most {len_max} are possible")).on(key));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0));
        file.take(len).read_to_end(&mut bytes).map_err(|cause| failed("cannot read", key, cause))?;
        if bytes.len() as u64 != len {
            return Err(Error::damaged("the object became shorter while it was read").on(key));
        }
        Ok(bytes)
    }

    fn get_range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read_range(key, offset, buffer, |file, buffer| file.read_exact_at(buffer, offset))
    }

    fn read_once(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.read_range(key, offset, buffer, |file, buffer| once::read_exact_at(file, buffer, offset))
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        const WHAT: &str = "cannot look up";
        let (path, name) = place(key)?;
        let folder = match self.tree.open(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(|cause| failed(WHAT, key, cause))?,
        };
        let stat = match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            stat => stat.map_err(|errno| failed(WHAT, key, errno))?,
        };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Some(len_of(&stat))),
            FileType::Directory => Ok(None),
            _ => Err(not_an_object(WHAT, key)),
        }
    }

    fn settle(&self, key: &Key) -> Result<()> {
        const WHAT: &str = "cannot make an object durable";
        let (path, name) = place(key)?;
        let absent = || Error::new(ErrorKind::NotFound, "there is no such object").on(key);
        if self.size(key)?.is_none() {
            return Err(absent());
        }
        let folder = self.tree.open(path).map_err(|cause| failed(WHAT, key, cause))?;
        let file = openat(&folder, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| failed(WHAT, key, errno))?;
        fdatasync(&file).map_err(|errno| failed(WHAT, key, errno))?;
        self.tree.settle(path, &folder).map_err(|cause| failed(WHAT, key, cause))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        let mut folders = vec![prefix.to_owned()];
        if !prefix.is_empty() {
            let key: Key = prefix.parse()?;
            if place(&key).is_err() {
                return Ok(found);
            }
            if let Some(len) = self.size(&key)? {
                folders.clear();
                found.push(Listed { key, len });
            }
        }
        while let Some(path) = folders.pop() {
            self.list_folder(&path, &mut folders, &mut found).map_err(|cause| failed("cannot list", &path, cause))?;
        }
        found.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        // A folder that changes while it is read may show an entry twice.
        found.dedup_by(|a, b| a.key == b.key);
        Ok(found)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        const WHAT: &str = "cannot delete";
        let (path, name) = place(key)?;
        let folder = match self.tree.open(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(|cause| failed(WHAT, key, cause))?,
        };
        match unlinkat(&folder, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::ISDIR) => {}
            Err(errno) => return Err(failed(WHAT, key, errno)),
        }
        self.open_packs.forget(key);
        // Also when it was gone: another process may have removed it and not come so far.
        sync_folder(&folder).map_err(|cause| failed("cannot make a deletion durable", key, cause))
    }

    fn hold(&self, key: &Key) -> Result<Box<dyn Hold>> {
        const WHAT: &str = "cannot lock";
        let (path, name) = place(key)?;
        let folder = self.tree.make(path).map_err(|cause| failed(WHAT, key, cause))?;
        match LocalHold::take(folder, name).map_err(|cause| failed(WHAT, key, cause))? {
            Some(hold) => Ok(Box::new(hold)),
            None => Err(Error::new(ErrorKind::Busy, "cannot lock, another process has it locked").on(key)),
        }
    }

    fn held(&self, key: &Key) -> Result<bool> {
        const WHAT: &str = "cannot look for a lock";
        let (path, name) = place(key)?;
        let folder = match self.tree.open(path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(|cause| failed(WHAT, key, cause))?,
        };
        hold::is_held(&folder, name).map_err(|cause| failed(WHAT, key, cause))
    }

    fn sweep_leftovers(&self) -> Result<()> {
        const WHAT: &str = "cannot remove what interrupted writes left";
        let folder = match self.tree.open(TMP) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened.map_err(|cause| failed(WHAT, TMP, cause))?,
        };
        for entry in Dir::read_from(&folder).map_err(|errno| failed(WHAT, TMP, errno))? {
            let entry = entry.map_err(|errno| failed(WHAT, TMP, errno))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if put::is_temp_name(name) {
                put::sweep(&folder, name).map_err(|cause| failed(WHAT, format!("{TMP}/{name}"), cause))?;
            }
        }
        Ok(())
    }

    fn describe(&self) -> String {
        self.root.display().to_string()
    }
}

/// The folder and the name of an object.
fn place(key: &Key) -> Result<(&str, &str)> {
    let text = key.as_str();
    if text == TMP || text.starts_with("tmp/") {
        return Err(Error::new(ErrorKind::Usage, "no object can be here, the folder is for unfinished files").on(key));
    }
    Ok(split(text))
}

/// Whether an object has the name; an error when something else has it.
fn is_taken(folder: &rustix::fd::OwnedFd, name: &str, what: &str, key: &Key) -> Result<bool> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(failed(what, key, errno)),
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => Ok(true),
        Ok(_) => Err(not_an_object(what, key)),
    }
}

fn make_durable_folder(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(cause),
        _ => {}
    }
    let above = path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_folder(File::open(above)?)
}

fn not_found(what: &str, key: &Key) -> Error {
    Error::new(ErrorKind::NotFound, format!("{what}, there is no such object")).on(key)
}

fn not_an_object(what: &str, key: &Key) -> Error {
    Error::new(ErrorKind::Storage, format!("{what}, what has the object's name is not a plain file"))
        .on(key)
        .hint("move it out of the repository; symbolic links inside are not followed")
}

/// A failure of the operating system, with what the user can do about it.
fn failed(what: &str, subject: impl Display, cause: impl Into<io::Error>) -> Error {
    let cause = cause.into();
    let hint = match cause.kind() {
        _ if is(&cause, Errno::IO) => {
            Some("the disk reports errors; look at the kernel's log, and copy the repository while it can be read")
        }
        _ if is(&cause, Errno::LOOP) => Some("symbolic links inside a repository are not followed"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("free space where the repository is and run the command again; nothing of this run was committed")
        }
        io::ErrorKind::ReadOnlyFilesystem => Some("the repository's file system is mounted read-only"),
        io::ErrorKind::PermissionDenied => Some("run as the user that owns the repository"),
        io::ErrorKind::NotADirectory => Some("something else is in a folder's place; symbolic links inside a repository are not followed"),
        io::ErrorKind::Unsupported => Some("a repository's file system must have hard links and locks"),
        _ => None,
    };
    let error = Error::new(ErrorKind::Storage, what).on(subject).because(cause);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

fn is(cause: &io::Error, errno: Errno) -> bool {
    cause.raw_os_error() == Some(errno.raw_os_error())
}

#[cfg(test)]
mod tests;
