//! What differs between two snapshots.
use crate::error::Result;
use crate::model::{Snapshot, TreePath};
use crate::progress::Progress;
use crate::repo::Repository;

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

/// Visits what differs between `old` and `new`, in tree order. Equal directories are not opened.
pub fn diff(
    repo: &Repository,
    old: &Snapshot,
    new: &Snapshot,
    progress: &Progress,
    visit: &mut dyn FnMut(&Difference) -> Result<()>,
) -> Result<()> {
    let _ = (repo, old, new, progress, visit);
    unimplemented!()
}
