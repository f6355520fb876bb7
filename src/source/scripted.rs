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

pub use super::scripted_blocks::BLOCK_BYTES;
pub use super::scripted_tree::Tree;

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
#[path = "scripted_tests.rs"]
mod tests;
