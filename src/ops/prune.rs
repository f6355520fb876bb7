//! Returns the space of what no snapshot refers to.
use crate::error::Result;
use crate::progress::Progress;
use crate::repo::Repository;

/// How to prune.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Plan only.
    pub dry_run: bool,
    /// Rewrite a pack when less than this share of it, in percent, is still used.
    pub repack_below_percent: u8,
    /// Refuse when more than this share of the repository's bytes, in percent, would go. `None`: no limit.
    pub free_percent_max: Option<u8>,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self { dry_run: false, repack_below_percent: 70, free_percent_max: None }
    }
}

/// What was (or would be) removed.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct PruneReport {
    /// Packs in the repository before.
    pub packs: u64,
    /// Packs removed.
    pub packs_removed: u64,
    /// Of those, packs whose used blobs were first copied to new packs.
    pub packs_rewritten: u64,
    /// Bytes of all packs before.
    pub bytes_before: u64,
    /// Bytes of all packs after.
    pub bytes_after: u64,
    /// Bytes copied.
    pub bytes_rewritten: u64,
    /// Forgotten snapshots that are gone now.
    pub snapshots_dropped: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Prunes. `Busy` while another session is alive.
pub fn prune(repo: &Repository, options: &PruneOptions, progress: &Progress) -> Result<PruneReport> {
    let _ = (repo, options, progress);
    unimplemented!()
}
