//! Reading inside snapshots: `ls`, `cat`, and the walk that other verbs share.
use crate::error::Result;
use crate::model::{Node, Snapshot, TreePath};
use crate::progress::Progress;
use crate::repo::Repository;
use std::io::Write;

/// The node at `path`.
pub fn find(repo: &Repository, snapshot: &Snapshot, path: &TreePath) -> Result<Node> {
    let _ = (repo, snapshot, path);
    unimplemented!()
}

/// Visits the entries of the directory at `path` (or the one entry, when it is no directory), and with `recursive` all
/// that is below, in tree order.
pub fn list(
    repo: &Repository,
    snapshot: &Snapshot,
    path: &TreePath,
    recursive: bool,
    visit: &mut dyn FnMut(&TreePath, &Node) -> Result<()>,
) -> Result<()> {
    let _ = (repo, snapshot, path, recursive, visit);
    unimplemented!()
}

/// Writes the content of the file at `path` to `out`.
pub fn cat(repo: &Repository, snapshot: &Snapshot, path: &TreePath, out: &mut dyn Write, progress: &Progress) -> Result<u64> {
    let _ = (repo, snapshot, path, out, progress);
    unimplemented!()
}
