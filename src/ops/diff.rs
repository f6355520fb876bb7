//! What differs between two snapshots: both trees are walked side by side; directories with equal trees are not opened.

use super::tree;
use crate::error::Result;
use crate::model::{Node, NodeKind, Snapshot, Stream, TreePath};
use crate::progress::Progress;
use crate::repo::{ChunkReader, NodeReader, Repository};

/// How one entry differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only the newer snapshot has it.
    Added,
    /// Only the older snapshot has it.
    Removed,
    /// The content differs.
    Content,
    /// Only mode, owner, time or attributes differ.
    Metadata,
    /// It is another kind of entry now.
    Kind,
}

/// One difference.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The entry.
    pub path: TreePath,
    /// How it differs.
    pub change: Change,
    /// Size in the older snapshot.
    pub old_size: Option<u64>,
    /// Size in the newer snapshot.
    pub new_size: Option<u64>,
}

/// A directory in both snapshots, and the nodes of each that wait to be compared.
struct Both<'a, 'r> {
    path: TreePath,
    old: NodeReader<'a, 'r>,
    new: NodeReader<'a, 'r>,
    old_node: Option<Node>,
    new_node: Option<Node>,
}

/// Visits what differs between `old` and `new`, in tree order. Equal directories are not opened.
pub fn diff(
    repo: &Repository,
    old: &Snapshot,
    new: &Snapshot,
    progress: &Progress,
    visit: &mut dyn FnMut(&Difference) -> Result<()>,
) -> Result<()> {
    let _reading = repo.reading()?;
    let reader = ChunkReader::new(repo);
    let mut report = |path: &TreePath, change, old: Option<&Node>, new: Option<&Node>| {
        visit(&Difference { path: path.clone(), change, old_size: old.map(Node::size), new_size: new.map(Node::size) })
    };
    if metadata_differs(&old.root, &new.root) {
        report(&TreePath::root(), Change::Metadata, Some(&old.root), Some(&new.root))?;
    }
    let mut stack = Vec::new();
    if let Some((old, new)) = unequal_directories(&old.root, &new.root) {
        stack.push(open(&reader, TreePath::root(), &old, &new)?);
    }
    while let Some(both) = stack.last_mut() {
        progress.check()?;
        let order = match (&both.old_node, &both.new_node) {
            (None, None) => {
                stack.pop();
                continue;
            }
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(old), Some(new)) => old.name.cmp(&new.name),
        };
        let old = if order.is_le() { step(&mut both.old, &mut both.old_node)? } else { None };
        let new = if order.is_ge() { step(&mut both.new, &mut both.new_node)? } else { None };
        let Some(name) = old.as_ref().or(new.as_ref()).and_then(|node| node.name.clone()) else { continue };
        let path = both.path.join(&name);
        match (&old, &new) {
            (Some(old), Some(new)) => {
                if let Some(change) = compare(old, new) {
                    report(&path, change, Some(old), Some(new))?;
                }
                match unequal_directories(old, new) {
                    Some((old, new)) => stack.push(open(&reader, path, &old, &new)?),
                    None if old.is_dir() != new.is_dir() => {
                        whole(&reader, &path, old, Change::Removed, &mut report)?;
                        whole(&reader, &path, new, Change::Added, &mut report)?;
                    }
                    None => {}
                }
            }
            (Some(old), None) => {
                report(&path, Change::Removed, Some(old), None)?;
                whole(&reader, &path, old, Change::Removed, &mut report)?;
            }
            (None, Some(new)) => {
                report(&path, Change::Added, None, Some(new))?;
                whole(&reader, &path, new, Change::Added, &mut report)?;
            }
            (None, None) => {}
        }
        if let Some(both) = stack.last() {
            tree::check_nesting(&both.path, stack.len() - 1)?;
        }
    }
    Ok(())
}

fn open<'a, 'r>(reader: &'a ChunkReader<'r>, path: TreePath, old: &Stream, new: &Stream) -> Result<Both<'a, 'r>> {
    let (mut old, mut new) = (NodeReader::new(reader, old), NodeReader::new(reader, new));
    let (old_node, new_node) = (old.next_node()?, new.next_node()?);
    Ok(Both { path, old, new, old_node, new_node })
}

fn step(nodes: &mut NodeReader<'_, '_>, waiting: &mut Option<Node>) -> Result<Option<Node>> {
    let next = nodes.next_node()?;
    Ok(std::mem::replace(waiting, next))
}

/// Takes a path, how it differs, and its node before and after.
type Report<'a> = dyn FnMut(&TreePath, Change, Option<&Node>, Option<&Node>) -> Result<()> + 'a;

/// Reports everything below a directory that only one snapshot has.
fn whole(reader: &ChunkReader<'_>, path: &TreePath, node: &Node, change: Change, report: &mut Report<'_>) -> Result<()> {
    let NodeKind::Directory(stream) = &node.kind else { return Ok(()) };
    tree::walk(reader, stream, path, &mut |path, node| {
        let (old, new) = if change == Change::Removed { (Some(node), None) } else { (None, Some(node)) };
        report(path, change, old, new)?;
        Ok(true)
    })
}

fn unequal_directories(old: &Node, new: &Node) -> Option<(Stream, Stream)> {
    match (&old.kind, &new.kind) {
        (NodeKind::Directory(old), NodeKind::Directory(new)) if old != new => Some((*old, *new)),
        _ => None,
    }
}

fn compare(old: &Node, new: &Node) -> Option<Change> {
    let file = |node: &Node| matches!(node.kind, NodeKind::File(_) | NodeKind::InlineFile(_));
    let same_kind = std::mem::discriminant(&old.kind) == std::mem::discriminant(&new.kind) || (file(old) && file(new));
    if !same_kind {
        Some(Change::Kind)
    } else if !old.is_dir() && old.kind != new.kind {
        Some(Change::Content)
    } else if metadata_differs(old, new) {
        Some(Change::Metadata)
    } else {
        None
    }
}

/// A directory's mtime moves with its entries, which are reported themselves.
fn metadata_differs(old: &Node, new: &Node) -> bool {
    let (a, b) = (&old.meta, &new.meta);
    (a.mode, a.uid, a.gid, &a.xattrs, a.links) != (b.mode, b.uid, b.gid, &b.xattrs, b.links) || (!old.is_dir() && a.mtime != b.mtime)
}
