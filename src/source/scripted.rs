//! A source in memory whose every operation a test can watch, change under the reader's feet, or make fail.
//!
//! ```
//! use icecore::source::scripted::{Operation, ScriptedSource};
//!
//! let source = ScriptedSource::build(|tree| {
//!     tree.file("db/base", "12345").symlink("db/current", "base").fifo("pipe").set_mode("db/base", 0o600);
//! });
//! // While `db/base` is read for the first time, somebody appends to it; its symlink can't be read at all.
//! let mut once = true;
//! source.on_step(move |step, tree| {
//!     if step.is(Operation::Read, "db/base") && std::mem::take(&mut once) {
//!         tree.append("db/base", "6");
//!     }
//!     if step.is(Operation::ReadLink, "db/current") {
//!         tree.fail_step(std::io::ErrorKind::PermissionDenied.into());
//!     }
//! });
//! ```
//!
//! Clones share one tree, so a test keeps one and gives the other away. [`Tree`] says how changes show in stats.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use crate::error::Result;
use crate::model::{Name, TreePath};

use super::fail::{failed, is_same, open_failed, replaced};
use super::{Entry, EntryKind, Extent, Source, SourceDir, SourceFile, Stat, XattrSet};

pub use super::scripted_tree::{BLOCK_BYTES, Tree};

/// What a source is asked to do; about one system call each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`Source::root`].
    OpenRoot,
    /// [`Source::settle`].
    Settle,
    /// [`SourceDir::stat`].
    StatDir,
    /// [`SourceDir::entries`], the names alone.
    List,
    /// [`SourceDir::entries`], the stat of one entry, after `List` and in the order of the names.
    StatEntry,
    /// [`SourceDir::open_dir`].
    OpenDir,
    /// [`SourceDir::open_file`].
    OpenFile,
    /// [`SourceDir::read_link`].
    ReadLink,
    /// [`SourceDir::xattrs`].
    DirXattrs,
    /// [`SourceDir::entry_xattrs`].
    EntryXattrs,
    /// [`SourceFile::stat`].
    StatFile,
    /// [`SourceFile::read_at`].
    Read,
    /// [`SourceFile::next_data`].
    NextData,
    /// [`SourceFile::xattrs`].
    FileXattrs,
}

/// One operation, as a hook and the record see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// How many steps there were before it since the source was made or the record taken, so that a test can fail the n-th
    /// for every n.
    pub number: u64,
    /// What is asked.
    pub operation: Operation,
    /// Of which entry: by the path at which it was opened, for what is open.
    pub path: TreePath,
    /// Where in the file, for `Read` and `NextData`; else 0.
    pub offset: u64,
}

impl Step {
    /// Whether this is `operation` on the entry at `path`.
    pub fn is(&self, operation: Operation, path: impl AsRef<[u8]>) -> bool {
        self.operation == operation && self.path.as_bytes() == path.as_ref()
    }
}

/// What a test does before a step happens. It has the tree to itself, also among threads: it must not call the source, which
/// would wait for it for ever.
pub type Hook = Box<dyn FnMut(Step, &mut Tree) + Send>;

/// A [`Source`] over a [`Tree`].
#[derive(Clone)]
pub struct ScriptedSource {
    script: Script,
}

impl ScriptedSource {
    /// A source of this tree.
    pub fn new(tree: Tree) -> Self {
        let state = State { tree, hook: None, steps: Vec::new() };
        Self { script: Script { state: Arc::new(Mutex::new(state)) } }
    }

    /// A source of a tree that `build` makes.
    pub fn build(build: impl FnOnce(&mut Tree)) -> Self {
        let mut tree = Tree::new();
        build(&mut tree);
        Self::new(tree)
    }

    /// Changes or asks the tree between operations.
    pub fn edit<T>(&self, edit: impl FnOnce(&mut Tree) -> T) -> T {
        edit(&mut self.script.lock().tree)
    }

    /// Has `hook` called before every step from now on, in place of an earlier one.
    pub fn on_step(&self, hook: impl FnMut(Step, &mut Tree) + Send + 'static) {
        self.script.lock().hook = Some(Box::new(hook));
    }

    /// Ends the calls of a hook.
    pub fn clear_hook(&self) {
        self.script.lock().hook = None;
    }

    /// The steps since the source was made or this was last called; their numbers start at 0 again.
    pub fn take_steps(&self) -> Vec<Step> {
        std::mem::take(&mut self.script.lock().steps)
    }
}

impl fmt::Debug for ScriptedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedSource").field("tree", &self.script.lock().tree).finish_non_exhaustive()
    }
}

impl Source for ScriptedSource {
    fn root(&self) -> Result<Arc<dyn SourceDir>> {
        let path = TreePath::root();
        let inode = self.script.step(Operation::OpenRoot, &path, 0, "cannot open", |tree| Ok(tree.root()))?;
        Ok(Arc::new(ScriptedDir { script: self.script.clone(), inode, path }))
    }

    fn settle(&self) -> Result<()> {
        self.script.step(Operation::Settle, &TreePath::root(), 0, "cannot sync the file system of", |tree| {
            tree.settle();
            Ok(())
        })
    }
}

#[derive(Clone)]
struct Script {
    state: Arc<Mutex<State>>,
}

struct State {
    tree: Tree,
    hook: Option<Hook>,
    steps: Vec<Step>,
}

impl Script {
    /// One operation: recorded, shown to the hook, then failed as the hook wants or done. `attempt` as in [`failed`].
    fn step<T>(
        &self,
        operation: Operation,
        path: &TreePath,
        offset: u64,
        attempt: &str,
        act: impl FnOnce(&mut Tree) -> Result<T>,
    ) -> Result<T> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let number = state.steps.len() as u64;
        let step = Step { number, operation, path: path.clone(), offset };
        state.steps.push(step.clone());
        if let Some(hook) = &mut state.hook {
            hook(step, &mut state.tree);
        }
        match (state.tree.take_failure(), operation) {
            (Some(cause), Operation::OpenDir | Operation::OpenFile) => Err(open_failed(cause, path)),
            (Some(cause), _) => Err(failed(cause, attempt, path)),
            (None, _) => act(&mut state.tree),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct ScriptedDir {
    script: Script,
    inode: u64,
    path: TreePath,
}

impl ScriptedDir {
    fn on_self<T>(&self, operation: Operation, attempt: &str, act: impl FnOnce(&mut Tree) -> Result<T>) -> Result<T> {
        self.script.step(operation, &self.path, 0, attempt, act)
    }

    /// A step on the entry `name`; `act` gets the inode that it has once the hook has run.
    fn on_entry<T>(
        &self,
        operation: Operation,
        name: &Name,
        attempt: &str,
        act: impl FnOnce(&Tree, u64, &TreePath) -> Result<T>,
    ) -> Result<T> {
        let path = self.path.join(name);
        self.script.step(operation, &path, 0, attempt, |tree| {
            let inode = tree.lookup(self.inode, name).map_err(|cause| failed(cause, attempt, &path))?;
            act(tree, inode, &path)
        })
    }

    fn open(&self, operation: Operation, name: &Name, expected: &Stat, kind: EntryKind) -> Result<(u64, Stat)> {
        self.on_entry(operation, name, "cannot open", |tree, inode, path| {
            let found = tree.stat_inode(inode);
            if is_same(expected, &found, kind) { Ok((inode, found)) } else { Err(replaced(path)) }
        })
    }
}

impl SourceDir for ScriptedDir {
    fn stat(&self) -> Result<Stat> {
        self.on_self(Operation::StatDir, "cannot stat", |tree| Ok(tree.stat_inode(self.inode)))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let names = self.on_self(Operation::List, "cannot list the directory", |tree| Ok(tree.names(self.inode)))?;
        let stat = |name: &Name| self.on_entry(Operation::StatEntry, name, "cannot stat", |tree, inode, _| Ok(tree.stat_inode(inode)));
        Ok(names.into_iter().map(|name| Entry { stat: stat(&name), name }).collect())
    }

    fn open_dir(&self, name: &Name, expected: &Stat) -> Result<Arc<dyn SourceDir>> {
        let (inode, _) = self.open(Operation::OpenDir, name, expected, EntryKind::Directory)?;
        Ok(Arc::new(Self { script: self.script.clone(), inode, path: self.path.join(name) }))
    }

    fn open_file(&self, name: &Name, expected: &Stat) -> Result<Box<dyn SourceFile>> {
        let (inode, stat) = self.open(Operation::OpenFile, name, expected, EntryKind::File)?;
        let sparse = stat.blocks * 512 < stat.size;
        Ok(Box::new(ScriptedFile { script: self.script.clone(), inode, path: self.path.join(name), sparse }))
    }

    fn read_link(&self, name: &Name) -> Result<Vec<u8>> {
        self.on_entry(Operation::ReadLink, name, "cannot read the symlink", |tree, inode, path| {
            tree.target(inode).ok_or_else(|| replaced(path))
        })
    }

    fn xattrs(&self) -> Result<XattrSet> {
        self.on_self(Operation::DirXattrs, "cannot list the extended attributes", |tree| Ok(tree.xattrs(self.inode)))
    }

    fn entry_xattrs(&self, name: &Name) -> Result<XattrSet> {
        let attempt = "cannot list the extended attributes";
        self.on_entry(Operation::EntryXattrs, name, attempt, |tree, inode, _| Ok(tree.xattrs(inode)))
    }
}

struct ScriptedFile {
    script: Script,
    inode: u64,
    path: TreePath,
    sparse: bool,
}

impl SourceFile for ScriptedFile {
    fn stat(&self) -> Result<Stat> {
        self.script.step(Operation::StatFile, &self.path, 0, "cannot stat", |tree| Ok(tree.stat_inode(self.inode)))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        self.script.step(Operation::Read, &self.path, offset, "cannot read", |tree| {
            if offset > i64::MAX as u64 {
                return Err(failed(Errno::INVAL, "cannot read", &self.path));
            }
            Ok(tree.read(self.inode, offset, buffer))
        })
    }

    fn next_data(&self, offset: u64, end: u64) -> Result<Option<Extent>> {
        self.script.step(Operation::NextData, &self.path, offset, "cannot look for holes", |tree| {
            if self.sparse || offset >= end { Ok(tree.next_data(self.inode, offset, end)) } else { Ok(Some(Extent { start: offset, end })) }
        })
    }

    fn xattrs(&self) -> Result<XattrSet> {
        let attempt = "cannot list the extended attributes";
        self.script.step(Operation::FileXattrs, &self.path, 0, attempt, |tree| Ok(tree.xattrs(self.inode)))
    }

    fn will_read(&self, _offset: u64, _len: u64) {}
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::{FileExt, PermissionsExt, symlink};

    use super::super::dir::DirSource;
    use super::*;
    use crate::clock::Timestamp;
    use crate::error::{Error, ErrorKind};

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn open(source: &ScriptedSource, path: &str) -> Result<Box<dyn SourceFile>> {
        source.root()?.open_file(&name(path), &source.edit(|tree| tree.stat(path)))
    }

    fn error(result: Result<impl Sized>) -> Error {
        result.err().unwrap()
    }

    /// What a walk finds, but for what differs between file systems (inode numbers, times, sizes of directories).
    fn walk(source: &dyn Source) -> Vec<String> {
        let mut found = Vec::new();
        let mut dirs = vec![(TreePath::root(), source.root().unwrap())];
        while let Some((path, dir)) = dirs.pop() {
            for entry in dir.entries().unwrap() {
                let (stat, path) = (entry.stat.unwrap(), path.join(&entry.name));
                let mut line = format!("{path} {:?} {:o} {}", stat.kind, stat.mode, stat.links);
                match stat.kind {
                    EntryKind::Directory => dirs.push((path, dir.open_dir(&entry.name, &stat).unwrap())),
                    EntryKind::Symlink => line += &String::from_utf8(dir.read_link(&entry.name).unwrap()).unwrap(),
                    EntryKind::File => {
                        let file = dir.open_file(&entry.name, &stat).unwrap();
                        let mut content = vec![0; stat.size as usize + 1];
                        let len = file.read_at(0, &mut content).unwrap();
                        line += &format!(" {len} {} {:?}", blake3::hash(&content), file.next_data(0, stat.size).unwrap());
                        line += &format!(" {:?}", file.next_data(1 << 20, stat.size).unwrap());
                    }
                    _ => assert_eq!(dir.entry_xattrs(&entry.name).unwrap(), []),
                }
                found.push(line);
            }
        }
        found
    }

    #[test]
    fn the_same_tree_is_the_same_in_memory_and_on_disk() {
        let temp = tempfile::tempdir().unwrap();
        let at = |path: &str| temp.path().join(path);
        std::fs::create_dir_all(at("a/b/c")).unwrap();
        std::fs::write(at("a/full"), vec![7; 10_000]).unwrap();
        std::fs::write(at("a/empty"), b"").unwrap();
        let sparse = std::fs::File::create(at("sparse")).unwrap();
        sparse.set_len(3 << 20).unwrap();
        sparse.write_all_at(b"x", 1 << 20).unwrap();
        std::fs::hard_link(at("a/full"), at("a/b/linked")).unwrap();
        symlink("../nowhere", at("a/b/c/s")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(at("socket")).unwrap());
        for (path, mode) in
            [("a", 0o755), ("a/b", 0o755), ("a/b/c", 0o1777), ("a/full", 0o4711), ("a/empty", 0), ("sparse", 0o644), ("socket", 0o600)]
        {
            std::fs::set_permissions(at(path), PermissionsExt::from_mode(mode)).unwrap();
        }
        let scripted = ScriptedSource::build(|tree| {
            tree.file("a/full", vec![7; 10_000]).file("a/empty", "").sparse_file("sparse", 3 << 20, &[(1 << 20, b"x")]);
            tree.hard_link("a/full", "a/b/linked").symlink("a/b/c/s", "../nowhere").socket("socket");
            tree.set_mode("a/b/c", 0o1777).set_mode("a/full", 0o4711).set_mode("a/empty", 0).set_mode("socket", 0o600);
        });
        assert_eq!(walk(&scripted), walk(&DirSource::open(temp.path()).unwrap()));
    }

    #[test]
    fn a_change_shows_in_the_stat_as_a_file_system_would_show_it() {
        let mut tree = Tree::new();
        tree.file("d/f", "12345");
        let (file, dir) = (tree.stat("d/f"), tree.stat("d"));
        let moved = |before: Stat, after: Stat| (before.mtime != after.mtime, before.ctime != after.ctime, before.inode != after.inode);

        assert_eq!(moved(file, tree.append("d/f", "6").stat("d/f")), (true, true, false));
        assert_eq!(moved(dir, tree.stat("d")), (false, false, false), "content is not the directory's");
        let file = tree.stat("d/f");
        assert_eq!(moved(file, tree.set_mode("d/f", 0o600).stat("d/f")), (false, true, false));
        let file = tree.stat("d/f");
        let kept = tree.keeping_mtime("d/f", |tree| _ = tree.write("d/f", 0, "9")).stat("d/f");
        assert_eq!(moved(file, kept), (false, true, false));
        assert_eq!(tree.content("d/f"), b"923456");
        let replaced = tree.file("d/f", "123456").stat("d/f");
        assert_eq!(moved(kept, replaced), (true, true, true));
        assert_eq!(moved(dir, tree.stat("d")), (true, true, false));
        let renamed = tree.rename("d/f", "g").stat("g");
        assert_eq!(moved(replaced, renamed), (false, true, false));
        assert!(!tree.exists("d/f"));

        tree.set_tick(std::time::Duration::ZERO);
        tree.append("g", "x");
        let first = tree.stat("g");
        tree.write("g", 0, "y");
        assert_eq!(tree.stat("g"), first, "two changes in one moment can't be told apart");
        tree.set_time(Timestamp::new(5, 0)).append("g", "z");
        assert_eq!(tree.stat("g").mtime, Timestamp::new(5, 0));
    }

    #[test]
    fn mapped_writes_show_once_until_the_source_settles() {
        let source = ScriptedSource::build(|tree| _ = tree.file("f", "12345"));
        let times = |source: &ScriptedSource| source.edit(|tree| tree.stat("f").mtime);
        let before = times(&source);
        source.edit(|tree| _ = tree.write_mapped("f", 0, "a"));
        let first = times(&source);
        assert!(first > before);
        source.edit(|tree| _ = tree.write_mapped("f", 1, "b"));
        assert_eq!(times(&source), first, "the page is writable already: nobody is told");
        source.settle().unwrap();
        source.edit(|tree| _ = tree.write_mapped("f", 2, "c"));
        assert!(times(&source) > first);
        assert_eq!(source.edit(|tree| tree.content("f")), b"abc45");
    }

    #[test]
    fn swaps_are_refused_and_what_vanished_is_not_found() {
        let source = ScriptedSource::build(|tree| _ = tree.file("f", "x").file("d/g", "y"));
        let root = source.root().unwrap();
        let swaps: [fn(&mut Tree); 5] = [
            |tree| _ = tree.symlink("f", "/etc/passwd"),
            |tree| _ = tree.dir("f"),
            |tree| _ = tree.fifo("f"),
            |tree| _ = tree.file("f", "x"),
            |tree| _ = tree.char_device("f", 0, 0),
        ];
        for swap in swaps {
            source.edit(|tree| _ = tree.file("f", "x"));
            source.on_step(move |step, tree| {
                if step.is(Operation::OpenFile, "f") {
                    swap(tree)
                }
            });
            let error = error(open(&source, "f"));
            assert_eq!((error.kind(), error.subject()), (ErrorKind::Source, Some("f")));
            assert!(error.to_string().starts_with("was replaced"), "{error}");
        }
        source.on_step(|step, tree| {
            if step.operation == Operation::OpenDir {
                tree.symlink("d", ".");
            }
        });
        let stat = source.edit(|tree| tree.stat("d"));
        assert!(error(root.open_dir(&name("d"), &stat)).to_string().starts_with("was replaced"));
        source.edit(|tree| _ = tree.file("f", "x"));
        source.on_step(|step, tree| {
            if step.is(Operation::StatEntry, "f") {
                tree.remove("f");
            }
        });
        let entries = root.entries().unwrap();
        assert_eq!(entries.iter().map(|entry| entry.stat.is_ok()).collect::<Vec<_>>(), [true, false]);
        assert_eq!(entries[1].stat.as_ref().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(error(root.read_link(&name("f"))).kind(), ErrorKind::NotFound);
        source.edit(|tree| _ = tree.file("l", ""));
        assert!(error(root.read_link(&name("l"))).to_string().starts_with("was replaced"));
    }

    #[test]
    fn an_open_file_follows_its_inode_through_changes() {
        let source = ScriptedSource::build(|tree| _ = tree.file("f", vec![1; 10_000]));
        let file = open(&source, "f").unwrap();
        let mut buffer = vec![0; 20_000];
        source.on_step(|step, tree| {
            if step.operation == Operation::Read {
                tree.append("f", [2; 100]);
            }
        });
        assert_eq!(file.read_at(0, &mut buffer).unwrap(), 10_100);
        assert_eq!(buffer[10_099], 2);
        source.clear_hook();
        source.edit(|tree| _ = tree.truncate("f", 5).file("f", "new"));
        assert_eq!(file.read_at(0, &mut buffer).unwrap(), 5);
        assert_eq!((file.stat().unwrap().size, file.stat().unwrap().links), (5, 0));
        assert_eq!(file.read_at(5, &mut buffer).unwrap(), 0);
        assert_eq!(source.edit(|tree| tree.content("f")), b"new");
        let dir = source.root().unwrap();
        source.edit(|tree| _ = tree.dir("d"));
        let d = dir.open_dir(&name("d"), &source.edit(|tree| tree.stat("d"))).unwrap();
        source.edit(|tree| _ = tree.file("d/f/g/h", "").hard_link("d/f/g/h", "kept").remove("d"));
        assert!(d.entries().unwrap().is_empty());
        assert_eq!(d.stat().unwrap().links, 0);
        assert_eq!(source.edit(|tree| tree.stat("kept").links), 1);
    }

    #[test]
    fn holes_are_whole_blocks() {
        let block = BLOCK_BYTES as u64;
        let source = ScriptedSource::build(|tree| _ = tree.sparse_file("f", 1 << 40, &[(block * 3 + 5, b"ab"), ((1 << 40) - 1, b"z")]));
        let file = open(&source, "f").unwrap();
        let next = |from, to| file.next_data(from, to).unwrap().map(|extent| (extent.start, extent.end));
        assert_eq!(next(0, 1 << 40), Some((block * 3, block * 4)));
        assert_eq!(next(block * 3 + 7, block * 3 + 9), Some((block * 3 + 7, block * 3 + 9)));
        assert_eq!(next(block * 4, 1 << 30), None);
        assert_eq!(next(block * 4, 1 << 40), Some(((1 << 40) - block, 1 << 40)));
        assert_eq!(next(1 << 41, 1 << 42), None);
        source.edit(|tree| _ = tree.write("f", block * 4 - 1, [1; 2]).punch_hole("f", block * 3 + 6, block));
        let mut bytes = vec![9; 3 * BLOCK_BYTES];
        assert_eq!(file.read_at(block * 2, &mut bytes).unwrap(), bytes.len());
        let set: Vec<usize> = bytes.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at).collect();
        assert_eq!(set, [BLOCK_BYTES + 5]);
        assert_eq!(next(0, 1 << 30), Some((block * 3, block * 5)));
        source.edit(|tree| _ = tree.punch_hole("f", block * 3, block));
        assert_eq!(next(0, 1 << 30), Some((block * 4, block * 5)));
        source.edit(|tree| _ = tree.truncate("f", block * 4 + 1).truncate("f", block * 6));
        assert_eq!(source.edit(|tree| (tree.stat("f").blocks, tree.content("f").iter().any(|b| *b != 0))), (8, false));
        let full = ScriptedSource::build(|tree| _ = tree.file("f", "12345"));
        assert_eq!(open(&full, "f").unwrap().next_data(1, 5).unwrap(), Some(Extent { start: 1, end: 5 }));
    }

    #[test]
    fn every_step_can_fail_and_is_recorded() {
        let source = ScriptedSource::build(|tree| _ = tree.file("d/f", "x").symlink("l", "x").set_xattr("d/f", "user.a", "1"));
        let visit = || -> Result<XattrSet> {
            source.settle()?;
            let root = source.root()?;
            root.stat()?;
            let mut entries = root.entries()?;
            let link = entries.remove(1);
            let below = entries.remove(0);
            let dir = root.open_dir(&below.name, &below.stat?)?;
            link.stat?;
            root.read_link(&link.name)?;
            root.entry_xattrs(&link.name)?;
            dir.xattrs()?;
            let file = dir.open_file(&name("f"), &dir.entries()?.remove(0).stat?)?;
            file.stat()?;
            file.next_data(0, 1)?;
            file.read_at(0, &mut [0])?;
            file.xattrs()
        };
        assert_eq!(visit().unwrap(), [(b"user.a".to_vec(), b"1".to_vec())]);
        let steps = source.take_steps();
        assert_eq!(steps.len(), 17);
        assert!(steps[14].is(Operation::NextData, "d/f"), "{steps:?}");
        for fatal in 0..steps.len() as u64 {
            source.on_step(move |step, tree| {
                if step.number == fatal {
                    tree.fail_step(Errno::IO.into());
                }
            });
            let error = error(visit());
            assert_eq!((error.kind(), error.subject()), (ErrorKind::Source, Some(&*steps[fatal as usize].path.to_string())));
            source.take_steps();
        }
        source.clear_hook();
        visit().unwrap();
    }
}
