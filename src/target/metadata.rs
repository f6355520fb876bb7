//! Owner, mode, extended attributes and time of an entry, in the only order that keeps them all: changing the owner clears
//! setuid bits and capabilities, so it comes first; everything else changes no time but ctime, so mtime comes last.
//! What is already right is not touched. What can't be set is told in words and ends nothing.

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::{self, AtFlags, Gid, Mode, Stat, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::{Errno, Result};

use crate::clock::Timestamp;
use crate::model::path::escape;
use crate::model::{Meta, Name, XattrSet};

use super::beneath::{chmod_handle, mode_bits};
use super::outcome::is_fatal;

/// An ACL; the group bits of the mode are its mask.
const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// The ACL that new entries of a directory start with.
pub(super) const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
/// Permission to write for the owner.
const OWNER_WRITES: u32 = 0o200;
/// setuid and setgid.
const SET_ID: u32 = 0o6000;

/// What the metadata is set on.
pub(super) enum Subject<'a> {
    /// A file or directory that is open.
    Open(BorrowedFd<'a>),
    /// Something that must not be opened: a name in a directory, and a handle of the same thing.
    Named { dir: BorrowedFd<'a>, name: &'a Name, handle: BorrowedFd<'a>, symlink: bool },
}

/// What the subject has now.
pub(super) struct Found<'a> {
    /// Its stat, taken after its content was written.
    pub(super) stat: &'a Stat,
    /// It was made just now and can have no extended attributes of its own.
    pub(super) bare: bool,
    /// Whether it is a directory: setuid and setgid mean something harmless there.
    pub(super) directory: bool,
}

/// Makes the subject have `meta` and `xattrs`. Gives what could not be set, in words; an error only when the file system
/// as a whole fails.
pub(super) fn apply(subject: &Subject<'_>, found: &Found<'_>, meta: &Meta, xattrs: &XattrSet) -> Result<Vec<String>> {
    let mut work = Work { subject, problems: Vec::new(), mode: Some(mode_bits(found.stat)) };
    let owned = work.owner(found.stat, meta)?;
    let mut wanted = u32::from(meta.mode) & 0o7777;
    if !owned && !found.directory && wanted & SET_ID != 0 {
        // A setuid program must not start to run as whoever restores it.
        wanted &= !SET_ID;
        work.problems.push("setuid and setgid are left out, because they would act for another owner".into());
    }
    work.mode(wanted)?;
    work.xattrs(found.bare, xattrs, wanted)?;
    work.mode(wanted)?;
    work.check_set_id(wanted)?;
    work.time(found.stat, meta.mtime)?;
    Ok(work.problems)
}

/// The mode to create a file with, such that usually no `chmod` has to follow. Where group and others have different
/// rights the file starts with the owner's alone: until its group is set, it belongs to another group.
pub(super) fn creation_mode(meta: &Meta) -> Mode {
    let mode = u32::from(meta.mode);
    let alike = (mode >> 3) & 7 == mode & 7;
    Mode::from_raw_mode(mode & if alike { 0o777 } else { 0o700 })
}

/// Sets the time of the last change of content, nothing else.
pub(super) fn set_mtime(subject: &Subject<'_>, mtime: Timestamp) -> Result<()> {
    let last_modification = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.min(999_999_999).into() };
    let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification };
    match subject {
        Subject::Open(fd) => fs::futimens(fd, &times),
        Subject::Named { dir, name, .. } => fs::utimensat(dir, name.as_bytes(), &times, AtFlags::SYMLINK_NOFOLLOW),
    }
}

/// Whether entries made in this directory start with an ACL that it hands down.
pub(super) fn hands_down_acl(dir: BorrowedFd<'_>) -> bool {
    fs::fgetxattr_query(dir, ACL_DEFAULT).is_ok_and(|len| len > 0)
}

struct Work<'a> {
    subject: &'a Subject<'a>,
    problems: Vec<String>,
    /// The mode as it is now, none when the system may have changed it.
    mode: Option<u32>,
}

impl Work<'_> {
    /// A failure that costs this one thing only, or the end.
    fn problem(&mut self, what: impl FnOnce() -> String, cause: Errno) -> Result<()> {
        if is_fatal(cause) {
            return Err(cause);
        }
        self.problems.push(format!("{}: {}", what(), std::io::Error::from(cause)));
        Ok(())
    }

    /// Whether the owner and group are right now.
    fn owner(&mut self, now: &Stat, meta: &Meta) -> Result<bool> {
        let uid = (now.st_uid != meta.uid).then_some(meta.uid);
        let gid = (now.st_gid != meta.gid).then_some(meta.gid);
        if uid.is_none() && gid.is_none() {
            return Ok(true);
        }
        self.mode = self.mode.filter(|mode| mode & SET_ID == 0);
        let Err(cause) = self.subject.chown(uid, gid) else { return Ok(true) };
        if uid.is_some() && gid.is_some() {
            // An ordinary user may still give the file to one of the user's own groups.
            let _ = self.subject.chown(None, gid);
        }
        self.problem(|| format!("cannot set the owner {}:{}", meta.uid, meta.gid), cause)?;
        Ok(false)
    }

    fn mode(&mut self, wanted: u32) -> Result<()> {
        if self.mode == Some(wanted) || matches!(self.subject, Subject::Named { symlink: true, .. }) {
            return Ok(());
        }
        // Said once, whatever comes of it: a second attempt would fail alike.
        self.mode = Some(wanted);
        match self.subject.chmod(wanted) {
            Ok(()) => Ok(()),
            Err(cause) => self.problem(|| format!("cannot set the mode {wanted:04o}"), cause),
        }
    }

    /// The system drops a setgid bit without a word where an ordinary user is not of the group.
    fn check_set_id(&mut self, wanted: u32) -> Result<()> {
        if wanted & SET_ID != 0 && mode_bits(&self.subject.stat()?) != wanted {
            self.problems.push(format!("cannot set the mode {wanted:04o}: the system left out setuid or setgid"));
        }
        Ok(())
    }

    fn xattrs(&mut self, bare: bool, wanted: &XattrSet, mode: u32) -> Result<()> {
        if bare && wanted.is_empty() {
            return Ok(());
        }
        let there = if bare { Vec::new() } else { self.subject.list_xattrs().unwrap_or_default() };
        for name in there.iter().filter(|name| is_ours(name) && !wanted.iter().any(|(wanted, _)| wanted == *name)) {
            if let Err(cause) = self.writable(mode, name, |subject| subject.remove_xattr(name)) {
                self.problem(|| format!("cannot remove the attribute {}", escape(name)), cause)?;
            }
        }
        for (name, value) in wanted {
            if there.contains(name) && self.subject.has_xattr(name, value) {
                continue;
            }
            match self.writable(mode, name, |subject| subject.set_xattr(name, value)) {
                Ok(()) => {}
                // Not a full disk: this file system keeps attributes in one small block.
                Err(Errno::NOSPC) => self.problems.push(format!("the attribute {} is too large for this file system", escape(name))),
                Err(cause) => self.problem(|| format!("cannot set the attribute {}", escape(name)), cause)?,
            }
        }
        Ok(())
    }

    /// Changes an attribute, where needed with permission to write: `user.*` attributes of a read-only file can't be
    /// changed even by its owner. The caller sets the mode again.
    fn writable(&mut self, mode: u32, name: &[u8], change: impl Fn(&Subject<'_>) -> Result<()>) -> Result<()> {
        if name == ACL_ACCESS {
            self.mode = None;
        }
        match change(self.subject) {
            Err(Errno::ACCESS) if mode & OWNER_WRITES == 0 && self.subject.chmod(mode & 0o777 | OWNER_WRITES).is_ok() => {
                self.mode = None;
                change(self.subject)
            }
            other => other,
        }
    }

    fn time(&mut self, now: &Stat, mtime: Timestamp) -> Result<()> {
        if is_at(now, mtime) {
            return Ok(());
        }
        if let Err(cause) = set_mtime(self.subject, mtime) {
            return self.problem(|| format!("cannot set the time {mtime}"), cause);
        }
        // File systems cut times that they can't hold (before 1901, after 2038 or 2446) without a word.
        if i32::try_from(mtime.seconds).is_err() && self.subject.stat()?.st_mtime != mtime.seconds {
            self.problems.push(format!("this file system can't hold the time {mtime}"));
        }
        Ok(())
    }
}

fn is_at(stat: &Stat, mtime: Timestamp) -> bool {
    stat.st_mtime == mtime.seconds && u64::from(mtime.nanos) == stat.st_mtime_nsec
}

/// Whether an attribute that the snapshot does not have is to go. Labels of the host's security modules are the host's
/// business, and what else stands under `system.` is a view of mode and owner.
fn is_ours(name: &[u8]) -> bool {
    const HOST: [&[u8]; 5] = [b"security.selinux", b"security.SMACK", b"security.apparmor", b"security.ima", b"security.evm"];
    let acl = name == ACL_ACCESS || name == ACL_DEFAULT;
    acl || (!name.starts_with(b"system.") && !HOST.iter().any(|host| name.starts_with(host)))
}

impl Subject<'_> {
    fn stat(&self) -> Result<Stat> {
        match self {
            Self::Open(fd) | Self::Named { handle: fd, .. } => fs::fstat(fd),
        }
    }

    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            // The system would take it for "leave as it is".
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match self {
            Self::Open(fd) => fs::fchown(fd, uid, gid),
            Self::Named { handle, .. } => fs::chownat(handle, "", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn chmod(&self, mode: u32) -> Result<()> {
        match self {
            Self::Open(fd) => fs::fchmod(fd, Mode::from_raw_mode(mode)),
            Self::Named { handle, .. } => chmod_handle(*handle, mode),
        }
    }

    fn list_xattrs(&self) -> Result<Vec<Vec<u8>>> {
        let list = |buffer: &mut [u8]| match self {
            Self::Open(fd) => fs::flistxattr(fd, buffer),
            Self::Named { dir, name, .. } => fs::llistxattr(detour(*dir, name), buffer),
        };
        let mut names = vec![0; 1024];
        let len = match list(&mut names) {
            Err(Errno::RANGE) => {
                // The most that Linux gives.
                names.resize(65536, 0);
                list(&mut names)?
            }
            other => other?,
        };
        Ok(names[..len].split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
    }

    fn has_xattr(&self, name: &[u8], value: &[u8]) -> bool {
        // One byte more: a longer value then shows by its length or by not fitting.
        let mut now = vec![0; value.len() + 1];
        let len = match self {
            Self::Open(fd) => fs::fgetxattr(fd, name, &mut *now),
            Self::Named { dir, name: of, .. } => fs::lgetxattr(detour(*dir, of), name, &mut *now),
        };
        len.is_ok_and(|len| now[..len] == *value)
    }

    fn set_xattr(&self, name: &[u8], value: &[u8]) -> Result<()> {
        match self {
            Self::Open(fd) => fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Named { dir, name: of, .. } => fs::lsetxattr(detour(*dir, of), name, value, XattrFlags::empty()),
        }
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        match self {
            Self::Open(fd) => fs::fremovexattr(fd, name),
            Self::Named { dir, name: of, .. } => fs::lremovexattr(detour(*dir, of), name),
        }
    }
}

/// An entry by a path whose last part is not followed: attributes can't be reached through a mere handle.
fn detour(dir: BorrowedFd<'_>, name: &Name) -> Vec<u8> {
    [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_never_shows_more_than_it_will() {
        let created = |mode| {
            let mtime = Timestamp::default();
            let meta = Meta { mode, uid: 0, gid: 0, mtime, xattrs: crate::model::Xattrs::None, links: None, changed: false };
            creation_mode(&meta).as_raw_mode()
        };
        assert_eq!([created(0o644), created(0o600), created(0o4755), created(0o444)], [0o644, 0o600, 0o755, 0o444]);
        assert_eq!([created(0o640), created(0o604), created(0o7771)], [0o600, 0o600, 0o700]);
    }

    #[test]
    fn labels_of_the_host_are_left_alone() {
        for name in [&b"security.selinux"[..], b"security.SMACK64EXEC", b"security.ima", b"system.nfs4_acl"] {
            assert!(!is_ours(name));
        }
        for name in [&b"user.x"[..], b"trusted.overlay.opaque", b"security.capability", ACL_ACCESS, ACL_DEFAULT] {
            assert!(is_ours(name));
        }
    }
}
