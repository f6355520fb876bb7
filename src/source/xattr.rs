//! Extended attributes of a handle or of an entry by name, ACLs and capabilities among them, as raw values.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd};

use rustix::fs::{fgetxattr, flistxattr, lgetxattr, llistxattr};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, ErrorKind, Result};
use crate::model::Name;
use crate::model::node::XATTRS_BYTES_MAX;
use crate::model::path::escape;

use super::XattrSet;
use super::fail::failed;
use super::stat::stat_entry;

/// Linux `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`: the kernel itself lists no more names and takes no longer values.
const LIST_BYTES_MAX: usize = 64 << 10;
const VALUE_BYTES_MAX: usize = 64 << 10;
/// What most lists and values fit in.
const FIRST_BYTES: usize = 256;
/// What an attribute takes beside its name and value in a node's set.
const OVERHEAD_BYTES: usize = 6;

/// All attributes of an open file or directory, sorted by name. `subject` names it in errors.
pub(super) fn of_handle(fd: &impl AsFd, subject: impl Fn() -> String) -> Result<XattrSet> {
    let list = |buffer: &mut [u8]| flistxattr(fd, buffer);
    let get = |name: &CStr, buffer: &mut [u8]| fgetxattr(fd, name, buffer);
    read_set(list, get).map_err(|fault| fault.into_error(subject()))
}

/// All attributes of the entry `name` in the open directory `dir`, of a symlink itself, sorted by name. The entry is not
/// opened: opening a fifo or device has effects, and a symlink can't be opened.
pub(super) fn of_entry(dir: &(impl AsFd + AsRawFd), name: &Name, subject: impl Fn() -> String) -> Result<XattrSet> {
    // There is no llistxattrat(2); the link in /proc leads to the directory itself, whatever its path is by now.
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.as_bytes());
    let list = |buffer: &mut [u8]| llistxattr(path.as_slice(), buffer);
    let get = |name: &CStr, buffer: &mut [u8]| lgetxattr(path.as_slice(), name, buffer);
    read_set(list, get).map_err(|fault| match fault {
        Fault::List(Errno::NOENT) if stat_entry(dir, name, &subject).is_ok() => {
            let message = "cannot list the extended attributes of what is not opened without /proc";
            Error::new(ErrorKind::Unsupported, message).on(subject()).hint("mount /proc")
        }
        fault => fault.into_error(subject()),
    })
}

/// Why a set could not be read.
enum Fault {
    List(Errno),
    Value(Box<[u8]>, Errno),
    TooLarge,
}

impl Fault {
    fn into_error(self, subject: String) -> Error {
        match self {
            Self::List(cause) => failed(cause, "cannot list the extended attributes", subject),
            Self::Value(name, cause) => failed(cause, &format!("cannot read the extended attribute {}", escape(&name)), subject),
            Self::TooLarge => {
                let message = format!("has more than {XATTRS_BYTES_MAX} bytes of extended attributes");
                Error::new(ErrorKind::Source, message).on(subject)
            }
        }
    }
}

fn read_set(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&CStr, &mut [u8]) -> Result<usize, Errno>,
) -> Result<XattrSet, Fault> {
    let names = match grow(LIST_BYTES_MAX, list) {
        Ok(names) => names,
        // The file system has no attributes, or not for this kind of entry.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(XattrSet::new()),
        Err(cause) => return Err(Fault::List(cause)),
    };
    let mut set = XattrSet::new();
    let mut total = 0;
    for name in names.split_inclusive(|&b| b == 0) {
        // A list that doesn't end in NUL was cut by a broken file system; its last name is no name.
        let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
        if name.is_empty() {
            continue;
        }
        match grow(VALUE_BYTES_MAX, |buffer| get(name, buffer)) {
            Ok(value) => {
                total += OVERHEAD_BYTES + name.count_bytes() + value.len();
                if total as u64 > XATTRS_BYTES_MAX {
                    return Err(Fault::TooLarge);
                }
                set.push((name.to_bytes().to_vec(), value));
            }
            // Removed since it was listed, or listed for a reader with more rights than we have.
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {}
            Err(cause) => return Err(Fault::Value(name.to_bytes().into(), cause)),
        }
    }
    set.sort();
    set.dedup_by(|a, b| a.0 == b.0);
    Ok(set)
}

/// What `read` puts into a buffer that is large enough, growing it up to `bytes_max`. The length is not asked for first:
/// it may change between the two calls, and mostly the first buffer is enough.
fn grow(bytes_max: usize, read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; FIRST_BYTES];
    loop {
        match retry_on_intr(|| read(&mut buffer)) {
            Ok(len) => {
                buffer.truncate(len);
                buffer.shrink_to_fit();
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < bytes_max => buffer.resize((buffer.len() * 16).min(bytes_max), 0),
            Err(cause) => return Err(cause),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr)]
mod tests {
    use std::cell::Cell;
    use std::fs::File;
    use std::path::Path;

    use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};

    use super::*;

    fn set(path: &Path, name: &str, value: &[u8]) -> Result<(), Errno> {
        lsetxattr(path, name, value, XattrFlags::empty())
    }

    fn pairs(set: &[(Vec<u8>, Vec<u8>)]) -> Vec<(&str, &[u8])> {
        let all = set.iter().map(|(name, value)| (std::str::from_utf8(name).unwrap(), value.as_slice()));
        all.filter(|(name, _)| *name != "security.selinux").collect()
    }

    /// `user::rw-, user:1000:rwx, group::r--, mask::rwx, other::---` as the kernel takes it.
    fn acl() -> Vec<u8> {
        let mut bytes = 2u32.to_le_bytes().to_vec();
        for (tag, rights, id) in [(1u16, 6u16, u32::MAX), (2, 7, 1000), (4, 4, u32::MAX), (16, 7, u32::MAX), (32, 0, u32::MAX)] {
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&rights.to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    /// `cap_net_bind_service=ep`, version 2.
    fn capability() -> Vec<u8> {
        [0x0200_0001u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    #[test]
    fn files_and_directories_give_all_their_attributes_as_raw_values() {
        let temp = tempfile::tempdir().unwrap();
        let (file, dir) = (temp.path().join("f"), temp.path().join("d"));
        File::create(&file).unwrap();
        std::fs::create_dir(&dir).unwrap();
        if set(&file, "user.empty", b"").is_err() {
            eprintln!("skipped: no user attributes on this file system");
            return;
        }
        set(&file, "user.binary", &[0, 255, 10]).unwrap();
        set(&dir, "user.d", b"1").unwrap();
        assert_eq!(
            pairs(&of_handle(&File::open(&file).unwrap(), || "f".into()).unwrap()),
            [("user.binary", &[0, 255, 10][..]), ("user.empty", b"")]
        );
        if !rustix::process::geteuid().is_root() || set(&file, "trusted.t", b"t").is_err() {
            eprintln!("skipped in part: needs root");
            return;
        }
        let (acl, capability) = (acl(), capability());
        set(&file, "security.capability", &capability).unwrap();
        set(&file, "system.posix_acl_access", &acl).unwrap();
        set(&dir, "system.posix_acl_default", &acl).unwrap();
        assert_eq!(
            pairs(&of_handle(&File::open(&file).unwrap(), || "f".into()).unwrap()),
            [
                ("security.capability", capability.as_slice()),
                ("system.posix_acl_access", acl.as_slice()),
                ("trusted.t", b"t"),
                ("user.binary", &[0, 255, 10]),
                ("user.empty", b""),
            ]
        );
        assert_eq!(
            pairs(&of_handle(&File::open(&dir).unwrap(), || "d".into()).unwrap()),
            [("system.posix_acl_default", acl.as_slice()), ("user.d", b"1")]
        );
    }

    #[test]
    fn entries_that_are_not_opened_have_attributes_of_their_own() {
        let temp = tempfile::tempdir().unwrap();
        let (link, fifo) = (temp.path().join("l"), temp.path().join("p\n\u{1b}"));
        std::fs::write(temp.path().join("target"), b"").unwrap();
        std::os::unix::fs::symlink("target", &link).unwrap();
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let dir = File::open(temp.path()).unwrap();
        let read = |name: &str| of_entry(&dir, &Name::new(name.as_bytes()).unwrap(), || name.into());
        assert_eq!(read("gone").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(pairs(&read("l").unwrap()), []);
        if set(&link, "trusted.link", b"mine").is_err() {
            eprintln!("skipped in part: needs root");
            return;
        }
        set(&temp.path().join("target"), "trusted.target", b"not the link's").unwrap();
        set(&fifo, "trusted.fifo", b"p").unwrap();
        assert_eq!(pairs(&read("l").unwrap()), [("trusted.link", &b"mine"[..])]);
        assert_eq!(pairs(&read("p\n\u{1b}").unwrap()), [("trusted.fifo", &b"p"[..])]);
    }

    #[test]
    fn long_lists_and_values_are_read_whole() {
        let names: Vec<u8> = (0..2000).flat_map(|n| format!("user.{n:05}\0").into_bytes()).collect();
        let list = |buffer: &mut [u8]| fill(&names, buffer);
        let set = read_set(list, |_, buffer| fill(&[7; 3000], buffer)).ok().unwrap();
        assert_eq!(set.len(), 2000);
        assert!(set.iter().all(|(_, value)| value == &[7; 3000]));
    }

    #[test]
    fn what_has_no_bound_is_refused() {
        let endless = |_: &mut [u8]| Err(Errno::RANGE);
        assert!(matches!(read_set(endless, |_, _| Ok(0)), Err(Fault::List(Errno::RANGE))));
        let one = |buffer: &mut [u8]| fill(b"user.a\0", buffer);
        assert!(matches!(read_set(one, |_, _| Err(Errno::RANGE)), Err(Fault::Value(_, Errno::RANGE))));
        let names: Vec<u8> = (0..200).flat_map(|n| format!("user.{n}\0").into_bytes()).collect();
        let many = |buffer: &mut [u8]| fill(&names, buffer);
        assert!(matches!(read_set(many, |_, buffer| fill(&[0; 65536], buffer)), Err(Fault::TooLarge)));
    }

    #[test]
    fn an_attribute_that_is_gone_or_kept_from_us_costs_itself_only() {
        let list = |buffer: &mut [u8]| fill(b"user.a\0user.b\0user.b\0\0cut", buffer);
        for reason in [Errno::NODATA, Errno::OPNOTSUPP, Errno::PERM, Errno::ACCESS] {
            let get = |name: &CStr, buffer: &mut [u8]| if name == c"user.a" { Err(reason) } else { fill(b"v", buffer) };
            assert_eq!(pairs(&read_set(list, get).ok().unwrap()), [("user.b", &b"v"[..])]);
        }
        let calls = Cell::new(0);
        let get = |_: &CStr, _: &mut [u8]| {
            calls.set(calls.get() + 1);
            Err(Errno::IO)
        };
        let error = read_set(list, get).err().unwrap().into_error("f".into());
        assert!(error.to_string().starts_with("cannot read the extended attribute user.a: f"), "{error}");
        assert_eq!(calls.get(), 1);
        assert_eq!(read_set(|_| Err(Errno::OPNOTSUPP), |_, _| Ok(0)).ok().unwrap(), []);
    }

    fn fill(bytes: &[u8], buffer: &mut [u8]) -> Result<usize, Errno> {
        buffer.get_mut(..bytes.len()).ok_or(Errno::RANGE)?.copy_from_slice(bytes);
        Ok(bytes.len())
    }
}
