//! Trees as plain copies: what a source holds and what a restore brought back, in one comparable form.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use icecore::clock::Timestamp;
use icecore::model::{Name, Node, NodeKind, Snapshot, TreePath, XattrSet};
use icecore::ops::restore::{RestoreOptions, RestoreReport, restore};
use icecore::progress::Progress;
use icecore::repo::Repository;
use icecore::source::{EntryKind, Source, SourceDir, SourceFile, Stat};
use icecore::target::{Content, Placed, Shortfall, Target, TargetDir};
use icecore::{Error, ErrorKind, Result};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
    Special(EntryKind),
}

/// One entry. `first` is the smallest path of the same inode, so that hard links compare.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Plain {
    pub(crate) mode: u16,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: Timestamp,
    pub(crate) xattrs: XattrSet,
    pub(crate) body: Body,
    pub(crate) first: TreePath,
}

impl std::fmt::Debug for Plain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = match &self.body {
            Body::File(bytes) => {
                format!("file of {} bytes, {:08x}", bytes.len(), bytes.iter().fold(7u32, |h, b| h.wrapping_mul(31) ^ u32::from(*b)))
            }
            other => format!("{other:?}"),
        };
        write!(f, "{body} {:o} {:?} {} {} xattrs, first {}", self.mode, self.owner, self.mtime, self.xattrs.len(), self.first)
    }
}

/// A tree; the root has the empty path.
pub(crate) type PlainTree = BTreeMap<TreePath, Plain>;

/// Reads a source that nobody changes meanwhile.
pub(crate) fn plain_copy(source: &dyn Source) -> PlainTree {
    let mut copy = Copy { tree: BTreeMap::new(), inodes: HashMap::new() };
    let root = source.root().unwrap();
    let stat = root.stat().unwrap();
    copy.directory(&*root, &TreePath::root(), &stat);
    copy.tree
}

struct Copy {
    tree: PlainTree,
    inodes: HashMap<(u64, u64), Vec<TreePath>>,
}

impl Copy {
    fn directory(&mut self, dir: &dyn SourceDir, path: &TreePath, stat: &Stat) {
        self.insert(path, stat, dir.xattrs().unwrap(), Body::Directory);
        for entry in dir.entries().unwrap() {
            let (path, stat) = (path.join(&entry.name), entry.stat.unwrap());
            match stat.kind {
                EntryKind::Directory => self.directory(&*dir.open_dir(&entry.name, &stat).unwrap(), &path, &stat),
                EntryKind::File => {
                    let file = dir.open_file(&entry.name, &stat).unwrap();
                    self.insert(&path, &stat, file.xattrs().unwrap(), Body::File(content(&*file, stat.size)));
                }
                EntryKind::Symlink => {
                    let target = dir.read_link(&entry.name).unwrap();
                    self.insert(&path, &stat, dir.entry_xattrs(&entry.name).unwrap(), Body::Symlink(target));
                }
                special => self.insert(&path, &stat, dir.entry_xattrs(&entry.name).unwrap(), Body::Special(special)),
            }
        }
    }

    fn insert(&mut self, path: &TreePath, stat: &Stat, mut xattrs: XattrSet, body: Body) {
        xattrs.sort();
        let mut first = path.clone();
        if stat.kind != EntryKind::Directory {
            let names = self.inodes.entry((stat.device, stat.inode)).or_default();
            names.push(path.clone());
            first = names.iter().min().unwrap().clone();
            for name in names.iter().filter(|name| *name != path) {
                self.tree.get_mut(name).unwrap().first = first.clone();
            }
        }
        let plain = Plain { mode: stat.mode, owner: (stat.uid, stat.gid), mtime: stat.mtime, xattrs, body, first };
        self.tree.insert(path.clone(), plain);
    }
}

fn content(file: &dyn SourceFile, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(size).unwrap()];
    let mut done = 0;
    while done < bytes.len() {
        let len = file.read_at(done as u64, &mut bytes[done..]).unwrap();
        assert!(len > 0, "the source is at rest");
        done += len;
    }
    bytes
}

/// What `snapshot` restores to; panics when the restore is not perfect.
pub(crate) fn restored(repo: &Repository, snapshot: &Snapshot, what: &str) -> PlainTree {
    let (tree, report) = restored_with_report(repo, snapshot).unwrap_or_else(|e| panic!("{what}: the restore failed: {e}"));
    assert!(report.warnings.is_empty(), "{what}: the restore says {:?}", report.warnings);
    tree
}

/// What `snapshot` restores to, and the report: entries with a warning are missing or as they came.
pub(crate) fn restored_with_report(repo: &Repository, snapshot: &Snapshot) -> Result<(PlainTree, RestoreReport)> {
    let target = MemoryTarget::default();
    let report = restore(repo, snapshot, &target, &RestoreOptions::default(), &Progress::new())?;
    Ok((target.tree(), report))
}

/// A target in memory. Entries that could not be placed are not there.
#[derive(Clone, Default)]
pub(crate) struct MemoryTarget {
    state: Arc<Mutex<Placing>>,
}

#[derive(Default)]
struct Placing {
    tree: PlainTree,
    finished: bool,
}

impl MemoryTarget {
    pub(crate) fn tree(&self) -> PlainTree {
        let state = self.state.lock().unwrap();
        let mut tree = state.tree.clone();
        // A group is named after its smallest path, whichever was placed first.
        let mut groups: HashMap<TreePath, TreePath> = HashMap::new();
        for (path, plain) in &tree {
            let first = groups.entry(plain.first.clone()).or_insert_with(|| path.clone());
            *first = first.clone().min(path.clone());
        }
        for plain in tree.values_mut() {
            plain.first = groups[&plain.first].clone();
        }
        tree
    }
}

impl Target for MemoryTarget {
    fn begin(&self, _node: &Node) -> Result<Arc<dyn TargetDir>> {
        Ok(Arc::new(MemoryDir { target: self.clone(), path: TreePath::root() }))
    }

    fn finish(&self) -> Result<()> {
        self.state.lock().unwrap().finished = true;
        Ok(())
    }

    fn sequential(&self) -> bool {
        true
    }

    fn shortfalls(&self) -> Vec<Shortfall> {
        Vec::new()
    }
}

struct MemoryDir {
    target: MemoryTarget,
    path: TreePath,
}

impl MemoryDir {
    fn put(&self, path: &TreePath, node: &Node, xattrs: &XattrSet, body: Body) {
        let meta = &node.meta;
        let mut xattrs = xattrs.clone();
        xattrs.sort();
        let plain = Plain { mode: meta.mode, owner: (meta.uid, meta.gid), mtime: meta.mtime, xattrs, body, first: path.clone() };
        self.target.state.lock().unwrap().tree.insert(path.clone(), plain);
    }

    fn below(&self, node: &Node) -> TreePath {
        self.path.join(node.name.as_ref().unwrap())
    }
}

impl TargetDir for MemoryDir {
    fn is_vacant(&self) -> bool {
        true
    }

    fn directory(&self, node: &Node) -> Result<Arc<dyn TargetDir>> {
        Ok(Arc::new(Self { target: self.target.clone(), path: self.below(node) }))
    }

    fn file(&self, node: &Node, xattrs: &XattrSet, content: &dyn Content) -> Result<Placed> {
        let mut bytes = Vec::new();
        content.parts(&mut |part| {
            let pieces = part.pieces().to_vec();
            let data: Vec<usize> = (0..pieces.len()).filter(|&number| !pieces[number].hole).collect();
            let at = bytes.len();
            for piece in &pieces {
                assert_eq!(piece.offset, bytes.len() as u64, "pieces come in order, without gaps");
                bytes.resize(bytes.len() + usize::try_from(piece.len).unwrap(), 0);
            }
            part.read(&data, &mut |number, piece| {
                let from = usize::try_from(pieces[number].offset).unwrap();
                assert!(from >= at && piece.len() as u64 == pieces[number].len);
                bytes[from..from + piece.len()].copy_from_slice(&piece);
                Ok(())
            })
        })?;
        assert_eq!(content.len(), bytes.len() as u64, "the pieces are the whole file");
        let written_bytes = bytes.len() as u64;
        self.put(&self.below(node), node, xattrs, Body::File(bytes));
        Ok(Placed { written_bytes, ..Placed::default() })
    }

    fn link(&self, node: &Node, first: &TreePath) -> Result<()> {
        let mut state = self.target.state.lock().unwrap();
        let Some(placed) = state.tree.get(first).cloned() else {
            return Err(Error::new(ErrorKind::NotFound, "the first name is not there").on(first));
        };
        state.tree.insert(self.below(node), placed);
        Ok(())
    }

    fn special(&self, node: &Node, xattrs: &XattrSet) -> Result<()> {
        let body = match &node.kind {
            NodeKind::Symlink(target) => Body::Symlink(target.clone()),
            NodeKind::Fifo => Body::Special(EntryKind::Fifo),
            NodeKind::Socket => Body::Special(EntryKind::Socket),
            NodeKind::CharDevice { major, minor } => Body::Special(EntryKind::CharDevice(*major, *minor)),
            NodeKind::BlockDevice { major, minor } => Body::Special(EntryKind::BlockDevice(*major, *minor)),
            _ => panic!("no special entry"),
        };
        self.put(&self.below(node), node, xattrs, body);
        Ok(())
    }

    fn remove_others(&self, _keep: &[Name]) -> Result<u64> {
        Ok(0)
    }

    fn close(&self, node: &Node, xattrs: &XattrSet) -> Result<()> {
        self.put(&self.path, node, xattrs, Body::Directory);
        Ok(())
    }
}
