//! Takes a snapshot of one source.
use crate::error::Result;
use crate::model::manifest::VolumeFacts;
use crate::model::{Consistency, SessionId, SourceIdentity};
use crate::progress::Progress;
use crate::repo::{Committed, Repository};
use crate::source::Source;

/// How to take a snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    /// What the source is.
    pub identity: SourceIdentity,
    /// The capture that it belongs to; snapshots taken together share it.
    pub run: SessionId,
    /// How still the source is held.
    pub consistency: Consistency,
    /// Free words.
    pub tags: Vec<String>,
    /// The engine's facts of a volume.
    pub volume: Option<VolumeFacts>,
    /// Read every file, also those that seem unchanged.
    pub force_read: bool,
    /// Do not descend into other file systems.
    pub one_file_system: bool,
    /// zstd level, 1..=19.
    pub compression: i32,
    /// Find out what would be read and stored, and store nothing.
    pub dry_run: bool,
}

/// What was captured.
#[derive(Debug, Clone)]
pub struct SnapshotReport {
    /// The snapshot; its id is all zero after a dry run.
    pub snapshot: Committed,
    /// Seconds that the whole verb took.
    pub seconds: f64,
}

/// Captures `source` and commits it. Warnings (unreadable, changed entries) are in the record and in `progress`.
pub fn snapshot(repo: &Repository, source: &dyn Source, options: &SnapshotOptions, progress: &Progress) -> Result<SnapshotReport> {
    let _ = (repo, source, options, progress);
    unimplemented!()
}
