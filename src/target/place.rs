//! Placing entries in one directory of a [`super::dir::DirTarget`].

use std::sync::Arc;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Meta, Name, Node, NodeKind, TreePath, XattrSet};

use super::beneath::{Inode, TRIES_MAX, open_dir, open_existing_dir, open_handle, read_names_if, stat_entry};
use super::dir::Shared;
use super::handles::DirHandle;
use super::marker::{MARKER, create_temporary, sweep_temporaries};
use super::metadata::{Found, Subject, apply, creation_mode, hands_down_acl};
use super::outcome::{ends_run, failed, lock};
use super::reflink::REFLINK_BYTES_MIN;
use super::remove::remove_entry;
use super::special::{is_same, make};
use super::{Content, Placed, TargetDir, content};

/// A directory that entries are placed in.
pub(super) struct OpenDir {
    shared: Arc<Shared>,
    dir: Arc<DirHandle>,
    /// Made by this restore, and nothing was handed down to it: it has no attributes that could be in the way.
    bare: bool,
    /// Nothing stood in it when the restore came.
    vacant: bool,
    /// Entries made here start with an ACL of their own.
    hands_down: bool,
}

/// A regular file that stands where a file is to be placed.
enum There {
    /// It has this one name and can be written.
    Ours(OwnedFd, Stat),
    /// Other names would change with it, or it can't be opened: a new file takes its place.
    NotOurs,
    /// Something of another kind.
    Another,
    /// There is none.
    None,
}

impl TargetDir for OpenDir {
    fn is_vacant(&self) -> bool {
        self.vacant
    }

    fn directory(&self, node: &Node) -> Result<Arc<dyn TargetDir>> {
        let name = self.name(node)?;
        let here = self.fd()?;
        for _ in 0..TRIES_MAX {
            let made = match fs::mkdirat(&here, name.as_bytes(), Mode::RWXU) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(e) => return Err(failed("cannot make the directory", e).on(self.path_of(name))),
            };
            let opened = if made { open_dir(&here, name) } else { open_existing_dir(&here, name).map(|(fd, _)| fd) };
            match opened {
                Ok(fd) => {
                    let dir = self.shared.handles.child(&self.dir, name, fd);
                    let shared = Arc::clone(&self.shared);
                    return Ok(Arc::new(match made {
                        true => Self { shared, dir, bare: !self.hands_down, vacant: true, hands_down: self.hands_down },
                        false => Self::existing(&shared, dir)?,
                    }));
                }
                Err(Errno::NOTDIR | Errno::LOOP) => self.clear(name).map(|_| ())?,
                Err(Errno::NOENT) => {}
                Err(e) => return Err(failed("cannot open the directory", e).on(self.path_of(name))),
            }
        }
        Err(self.restless(name))
    }

    fn file(&self, node: &Node, xattrs: &XattrSet, content: &dyn Content) -> Result<Placed> {
        let name = self.name(node)?;
        if !matches!(node.kind, NodeKind::File(_) | NodeKind::InlineFile(_)) || node.size() != content.len() {
            return Err(Error::damaged("a file's record and its content are of different sizes").on(self.path_of(name)));
        }
        if self.refuses(name) {
            return Ok(Placed::default());
        }
        self.file_as(name, &node.meta, xattrs, content).map_err(|e| e.on(self.path_of(name)))
    }

    fn link(&self, node: &Node, first: &TreePath) -> Result<()> {
        let name = self.name(node)?;
        if self.refuses(name) {
            return Ok(());
        }
        self.link_as(name, first).map_err(|e| e.on(self.path_of(name)))
    }

    fn special(&self, node: &Node, xattrs: &XattrSet) -> Result<()> {
        let name = self.name(node)?;
        if self.refuses(name) {
            return Ok(());
        }
        self.special_as(name, node, xattrs).map_err(|e| e.on(self.path_of(name)))
    }

    fn remove_others(&self, keep: &[Name]) -> Result<u64> {
        let goes = |name: &Name| keep.binary_search(name).is_err() && !self.is_marker(name);
        let names = read_names_if(self.fd()?, goes).map_err(|e| failed("cannot list the directory", e).on(self.dir.path()))?;
        let mut removed = 0;
        for name in &names {
            match self.clear(name) {
                Ok(count) => removed += count,
                Err(e) if ends_run(&e) => return Err(e),
                Err(e) => self.shared.shortfalls.add(|| self.path_of(name), e.to_string()),
            }
        }
        Ok(removed)
    }

    fn close(&self, node: &Node, xattrs: &XattrSet) -> Result<()> {
        let fd = self.fd()?;
        let stat = fs::fstat(&fd).map_err(|e| failed("cannot look at the directory", e).on(self.dir.path()))?;
        let found = Found { stat: &stat, bare: self.bare, directory: true };
        let problems = apply(&Subject::Open(fd.as_fd()), &found, &node.meta, xattrs);
        self.tell(|| self.dir.path(), problems)?;
        if self.dir.is_root() {
            *lock(&self.shared.root_mtime) = Some(node.meta.mtime);
        }
        Ok(())
    }
}

impl OpenDir {
    /// A directory that was there before this restore.
    pub(super) fn existing(shared: &Arc<Shared>, dir: Arc<DirHandle>) -> Result<Self> {
        let fd = shared.handles.fd(&dir)?;
        let look = || -> rustix::io::Result<()> {
            shared.note_device(fs::fstat(&fd)?.st_dev, &fd);
            if shared.resumed { sweep_temporaries(&fd) } else { Ok(()) }
        };
        look().map_err(|e| failed("cannot look at the directory", e).on(dir.path()))?;
        let hands_down = hands_down_acl(fd.as_fd());
        let vacant = dir.is_root() && is_vacant(&fd);
        Ok(Self { shared: Arc::clone(shared), dir, bare: false, vacant, hands_down })
    }

    fn fd(&self) -> Result<Arc<OwnedFd>> {
        self.shared.handles.fd(&self.dir)
    }

    fn path_of(&self, name: &Name) -> TreePath {
        self.dir.path().join(name)
    }

    fn name<'a>(&self, node: &'a Node) -> Result<&'a Name> {
        let name = node.name.as_ref().ok_or_else(|| Error::damaged("an entry without a name").on(self.dir.path()))?;
        if node.is_dir() && self.is_marker(name) {
            return Err(Error::new(ErrorKind::Target, "the name is taken by the mark of an unfinished restore").on(self.path_of(name)));
        }
        Ok(name)
    }

    fn is_marker(&self, name: &Name) -> bool {
        self.dir.is_root() && name.as_bytes() == MARKER
    }

    /// Whether the entry can't be placed because the mark stands there; that is told.
    fn refuses(&self, name: &Name) -> bool {
        let refuses = self.is_marker(name);
        if refuses {
            let message = "left out: the name is taken by the mark of an unfinished restore".into();
            self.shared.shortfalls.add(|| self.path_of(name), message);
        }
        refuses
    }

    fn restless(&self, name: &Name) -> Error {
        Error::new(ErrorKind::Target, "the entry is changed by somebody else again and again")
            .on(self.path_of(name))
            .hint("stop whatever else writes to the target, then restore again")
    }

    /// Removes what stands under a name. Gives the number of entries.
    fn clear(&self, name: &Name) -> Result<u64> {
        remove_entry(&self.shared.handles, &self.dir, name)
    }

    /// Records what could not be set.
    fn tell(&self, path: impl FnOnce() -> TreePath, problems: rustix::io::Result<Vec<String>>) -> Result<()> {
        match problems {
            Ok(problems) if problems.is_empty() => Ok(()),
            Ok(problems) => {
                self.shared.shortfalls.add(path, problems.join("; "));
                Ok(())
            }
            Err(e) => Err(failed("cannot set the metadata", e).on(path())),
        }
    }

    fn file_as(&self, name: &Name, meta: &Meta, xattrs: &XattrSet, content: &dyn Content) -> Result<Placed> {
        let here = self.fd()?;
        // To be read as well: a clone is compared.
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // What comes first only saves a call; either answer may be out of date when it is used.
        let mut expect_none = self.vacant;
        for _ in 0..TRIES_MAX {
            if !expect_none {
                match there(&here, name).map_err(|e| failed("cannot look at what is there", e))? {
                    There::Ours(file, stat) => return self.update(name, &file, &stat, meta, xattrs, content),
                    There::NotOurs => return self.replace(&here, name, meta, xattrs, content),
                    There::Another => self.clear(name).map(|_| ())?,
                    There::None => {}
                }
            }
            match fs::openat(&here, name.as_bytes(), flags, creation_mode(meta)) {
                Ok(file) => {
                    let placed = self.fill(name, &file, meta, xattrs, content);
                    if placed.is_err() {
                        // No file is better than one that looks whole.
                        let _ = fs::unlinkat(&here, name.as_bytes(), AtFlags::empty());
                    }
                    return placed;
                }
                Err(Errno::EXIST) => expect_none = false,
                Err(e) => return Err(failed("cannot make the file", e)),
            }
        }
        Err(self.restless(name))
    }

    /// Gives a new file its content and metadata.
    fn fill(&self, name: &Name, file: &OwnedFd, meta: &Meta, xattrs: &XattrSet, content: &dyn Content) -> Result<Placed> {
        let copy = self.shared.safety_copy.as_ref().filter(|_| content.len() >= REFLINK_BYTES_MIN);
        let cloned = match copy {
            Some(copy) => copy.clone_into(&self.dir.path(), name, file)?,
            None => None,
        };
        let placed = match cloned {
            Some(len) => Placed { cloned: true, ..content::update(file.as_fd(), len, content)? },
            None => content::write_new(file.as_fd(), content)?,
        };
        self.dress(name, file, !self.hands_down, meta, xattrs)?;
        Ok(placed)
    }

    /// Writes what differs into a file that was there.
    fn update(&self, name: &Name, file: &OwnedFd, stat: &Stat, meta: &Meta, xattrs: &XattrSet, content: &dyn Content) -> Result<Placed> {
        let old_len = u64::try_from(stat.st_size).unwrap_or(0);
        let placed = content::update(file.as_fd(), old_len, content).map_err(|e| {
            if e.kind() == ErrorKind::Target { e } else { e.hint("the file in the target is now partly the old one: restore it again") }
        })?;
        self.dress(name, file, false, meta, xattrs)?;
        Ok(placed)
    }

    /// Writes a new file beside the old one and renames it over that.
    fn replace(&self, here: &OwnedFd, name: &Name, meta: &Meta, xattrs: &XattrSet, content: &dyn Content) -> Result<Placed> {
        let (temporary, file) = create_temporary(here, creation_mode(meta)).map_err(|e| failed("cannot make the file", e))?;
        let placed = self.fill(name, &file, meta, xattrs, content).and_then(|placed| {
            fs::renameat(here, temporary.as_bytes(), here, name.as_bytes()).map_err(|e| failed("cannot replace the file", e))?;
            Ok(placed)
        });
        if placed.is_err() {
            let _ = fs::unlinkat(here, temporary.as_bytes(), AtFlags::empty());
        }
        placed
    }

    fn dress(&self, name: &Name, file: &OwnedFd, bare: bool, meta: &Meta, xattrs: &XattrSet) -> Result<()> {
        let stat = fs::fstat(file).map_err(|e| failed("cannot look at the file", e))?;
        let found = Found { stat: &stat, bare, directory: false };
        self.tell(|| self.path_of(name), apply(&Subject::Open(file.as_fd()), &found, meta, xattrs))?;
        self.remember(meta, &stat);
        Ok(())
    }

    /// Lets later links lead to this entry.
    fn remember(&self, meta: &Meta, stat: &Stat) {
        if meta.links.is_some() {
            lock(&self.shared.linkable).insert(Inode::of(stat));
        }
    }

    fn link_as(&self, name: &Name, first: &TreePath) -> Result<()> {
        let (from, first) = self.find(first)?;
        let stat = stat_entry(&from, &first).map_err(|e| failed("cannot find the file to link to", e))?;
        let inode = Inode::of(&stat);
        if !lock(&self.shared.linkable).contains(&inode) {
            return Err(Error::new(ErrorKind::Target, "a hard link to something that this restore did not place"));
        }
        let here = self.fd()?;
        for _ in 0..TRIES_MAX {
            let linked = fs::linkat(&from, first.as_bytes(), &here, name.as_bytes(), AtFlags::empty());
            if let Err(e) = linked
                && e != Errno::EXIST
            {
                return Err(failed("cannot make the hard link", e));
            }
            // The name could have been given to something else between the look and the link.
            match stat_entry(&here, name).map(|stat| Inode::of(&stat)) {
                Ok(there) if there == inode => return Ok(()),
                Ok(_) | Err(Errno::NOENT) => self.clear(name).map(|_| ())?,
                Err(e) => return Err(failed("cannot look at what is there", e)),
            }
        }
        Err(self.restless(name))
    }

    /// Opens the directory that holds `path`, name by name from the root.
    fn find(&self, path: &TreePath) -> Result<(Arc<OwnedFd>, Name)> {
        let mut names = path.names().map(Name::new).collect::<Result<Vec<_>>>()?;
        let last = names.pop().ok_or_else(|| Error::damaged("a hard link to the root"))?;
        let mut fd = self.shared.handles.fd(&self.shared.root)?;
        for name in &names {
            fd = Arc::new(open_dir(&fd, name).map_err(|e| failed("cannot reach the file to link to", e))?);
        }
        Ok((fd, last))
    }

    fn special_as(&self, name: &Name, node: &Node, xattrs: &XattrSet) -> Result<()> {
        let here = self.fd()?;
        for _ in 0..TRIES_MAX {
            let made = match make(&here, name, node)? {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(Errno::PERM) if matches!(node.kind, NodeKind::CharDevice { .. } | NodeKind::BlockDevice { .. }) => {
                    self.shared.shortfalls.add(|| self.path_of(name), "left out: only root can make device nodes".into());
                    return Ok(());
                }
                Err(e) => return Err(failed("cannot make the entry", e)),
            };
            let opened = open_handle(&here, name).and_then(|handle| fs::fstat(&handle).map(|stat| (handle, stat)));
            let (handle, stat) = match opened {
                Err(Errno::NOENT) => continue,
                other => other.map_err(|e| failed("cannot look at what is there", e))?,
            };
            // What has other names as well would change under those too.
            if !made && (stat.st_nlink > 1 || !is_same(&here, name, &stat, node)) {
                self.clear(name)?;
                continue;
            }
            let symlink = matches!(node.kind, NodeKind::Symlink(_));
            let subject = Subject::Named { dir: here.as_fd(), name, handle: handle.as_fd(), symlink };
            let found = Found { stat: &stat, bare: made && (symlink || !self.hands_down), directory: false };
            self.tell(|| self.path_of(name), apply(&subject, &found, &node.meta, xattrs))?;
            self.remember(&node.meta, &stat);
            return Ok(());
        }
        Err(self.restless(name))
    }
}

/// Whether a root holds nothing but its mark.
fn is_vacant(root: &OwnedFd) -> bool {
    let entries = fs::Dir::read_from(root).map(|dir| dir.take(4).collect::<rustix::io::Result<Vec<_>>>());
    // Itself and the one above are entries as well.
    let others = |name: &[u8]| name != MARKER && name != b"." && name != b"..";
    matches!(entries, Ok(Ok(entries)) if !entries.iter().any(|entry| others(entry.file_name().to_bytes())))
}

/// Looks at what stands under the name of a file, and opens it where it can be written in place.
fn there(dir: &OwnedFd, name: &Name) -> rustix::io::Result<There> {
    // Asked before opening: opening a device or fifo does something to it.
    let is_file = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    match stat_entry(dir, name) {
        Ok(stat) if is_file(&stat) && stat.st_nlink == 1 => {}
        Ok(stat) if is_file(&stat) => return Ok(There::NotOurs),
        Ok(_) => return Ok(There::Another),
        Err(Errno::NOENT) => return Ok(There::None),
        Err(e) => return Err(e),
    }
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(file) = fs::openat(dir, name.as_bytes(), flags, Mode::empty()) else { return Ok(There::NotOurs) };
    let stat = fs::fstat(&file)?;
    // Asked again: it may have been swapped in between.
    Ok(if is_file(&stat) && stat.st_nlink == 1 { There::Ours(file, stat) } else { There::NotOurs })
}
