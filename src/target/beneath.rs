//! Opening and naming things beneath a directory handle. Every call takes one checked name, so no `/` and no `..` can
//! lead anywhere, and `O_NOFOLLOW` refuses the one symlink that could be there: the name itself.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, Access, AtFlags, CWD, Dir, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, Result};

use crate::model::Name;

/// How often an operation starts again because somebody else changed the entry in between.
pub(super) const TRIES_MAX: u32 = 8;

/// Which inode something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Inode {
    pub(super) device: u64,
    pub(super) number: u64,
}

impl Inode {
    pub(super) fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, number: stat.st_ino }
    }
}

/// Permission bits of a stat.
pub(super) fn mode_bits(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// The entry's own stat; of a symlink, not of what it points to.
pub(super) fn stat_entry(dir: impl AsFd, name: &Name) -> Result<Stat> {
    fs::statat(dir, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW)
}

/// Opens a directory; `ENOTDIR` or `ELOOP` where the name is something else, a symlink among that.
pub(super) fn open_dir(dir: impl AsFd, name: &Name) -> Result<OwnedFd> {
    fs::openat(dir, name.as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a directory that was there before. Where its owner is an ordinary user without the rights to work in it, the
/// rights are added: its final mode is set when it is closed.
pub(super) fn open_existing_dir(dir: impl AsFd, name: &Name) -> Result<(OwnedFd, Stat)> {
    let fd = match open_dir(&dir, name) {
        Err(Errno::ACCESS) => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle = fs::openat(&dir, name.as_bytes(), flags, Mode::empty())?;
            chmod_handle(handle.as_fd(), 0o700).map_err(|_| Errno::ACCESS)?;
            open_dir(&dir, name)?
        }
        other => other?,
    };
    let stat = fs::fstat(&fd)?;
    let_owner_in(&fd, &stat);
    Ok((fd, stat))
}

/// Adds the rights that the owner of an open directory needs to work in it, where they are missing and needed: root needs
/// none. Who may not add them goes on without, and the work itself tells.
pub(super) fn let_owner_in(dir: impl AsFd, stat: &Stat) {
    let rights = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
    if mode_bits(stat) & 0o700 != 0o700 && fs::accessat(&dir, ".", rights, AtFlags::EACCESS).is_err() {
        let _ = fs::fchmod(&dir, Mode::from_raw_mode(mode_bits(stat) | 0o700));
    }
}

/// Opens a directory that is about to be removed, refusing to enter another file system mounted there (`EXDEV`).
pub(super) fn open_dir_same_mount(dir: impl AsFd, name: &Name) -> Result<OwnedFd> {
    static WITHOUT_OPENAT2: AtomicBool = AtomicBool::new(false);
    if !WITHOUT_OPENAT2.load(Ordering::Relaxed) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        match fs::openat2(&dir, name.as_bytes(), flags, Mode::empty(), resolve) {
            // Old kernels do not know the call; old container runtimes forbid it.
            Err(Errno::NOSYS | Errno::PERM) => WITHOUT_OPENAT2.store(true, Ordering::Relaxed),
            Err(Errno::ACCESS) => {
                // Only to add the rights; whether it may be entered is asked again.
                drop(open_existing_dir(&dir, name)?);
                return fs::openat2(&dir, name.as_bytes(), flags, Mode::empty(), resolve);
            }
            other => return other,
        }
    }
    let (fd, stat) = open_existing_dir(&dir, name)?;
    if stat.st_dev == fs::fstat(dir)?.st_dev { Ok(fd) } else { Err(Errno::XDEV) }
}

/// A handle that opens nothing: for the stat and metadata of what must not be opened (symlinks, fifos, devices).
pub(super) fn open_handle(dir: impl AsFd, name: &Name) -> Result<OwnedFd> {
    fs::openat(dir, name.as_bytes(), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// `chmod` through a handle of [`open_handle`]; the system has no call for that but this detour.
pub(super) fn chmod_handle(handle: BorrowedFd<'_>, mode: u32) -> Result<()> {
    fs::chmodat(CWD, format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::from_raw_mode(mode), AtFlags::empty())
}

/// The names in a directory, in no order.
pub(super) fn read_names(dir: impl AsFd) -> Result<Vec<Name>> {
    read_names_if(dir, |_| true)
}

/// The names in a directory that are wanted, in no order. The others are not kept: there may be millions.
pub(super) fn read_names_if(dir: impl AsFd, wanted: impl Fn(&Name) -> bool) -> Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        // `.` and `..` are no legal names.
        if let Ok(name) = Name::new(entry?.file_name().to_bytes())
            && wanted(&name)
        {
            names.push(name);
        }
    }
    Ok(names)
}
