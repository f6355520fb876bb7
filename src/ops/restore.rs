//! Restores a snapshot, whole or in part, to a target.
use crate::error::Result;
use crate::model::Snapshot;
use crate::model::TreePath;
use crate::progress::{Progress, Warning};
use crate::repo::Repository;
use crate::target::Target;

/// What to restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Only these entries and what is below them; all when empty. One that the snapshot has not is an error.
    pub paths: Vec<TreePath>,
    /// Remove what the target has and the snapshot has not.
    pub delete: bool,
}

/// What a restore did.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct RestoreReport {
    /// Entries that are not directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of file content, holes included.
    pub bytes: u64,
    /// Bytes written to the target.
    pub written_bytes: u64,
    /// Bytes that were already right and left alone.
    pub kept_bytes: u64,
    /// Entries removed from the target.
    pub removed: u64,
    /// What could not be restored as it was.
    pub warnings: Vec<Warning>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// What a restore would do.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct RestorePlan {
    /// Entries that are not directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of file content, holes included.
    pub bytes: u64,
}

/// Counts what a restore would bring back, and checks that the index has every chunk of it.
pub fn plan(repo: &Repository, snapshot: &Snapshot, options: &RestoreOptions, progress: &Progress) -> Result<RestorePlan> {
    let _ = (repo, snapshot, options, progress);
    unimplemented!()
}

/// Restores `snapshot` to `target`.
pub fn restore(
    repo: &Repository,
    snapshot: &Snapshot,
    target: &dyn Target,
    options: &RestoreOptions,
    progress: &Progress,
) -> Result<RestoreReport> {
    let _ = (repo, snapshot, target, options, progress);
    unimplemented!()
}
