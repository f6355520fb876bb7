//! Proves that snapshots can be restored, or says what is damaged and which snapshots and paths that breaks.
use crate::error::Result;
use crate::model::SourceIdentity;
use crate::progress::Progress;
use crate::repo::Repository;

/// How deep to look.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Read every byte of every pack and open every blob, not only structure and presence.
    pub data: bool,
    /// Only snapshots of this source.
    pub source: Option<SourceIdentity>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Damage {
    /// The object's key.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A path that damage breaks.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Affected {
    /// The snapshot's id.
    pub snapshot: String,
    /// Its source.
    pub source: String,
    /// The path below the snapshot's root.
    pub path: String,
    /// What is wrong.
    pub problem: String,
}

/// What was looked at and found.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct VerifyReport {
    /// Snapshots walked.
    pub snapshots: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Blobs looked at.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    pub damaged: Vec<Damage>,
    /// What was healed (by a later version).
    pub healed: Vec<Damage>,
    /// What that breaks.
    pub affected: Vec<Affected>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Verifies. Damage is in the report, not an error.
pub fn verify(repo: &Repository, options: &VerifyOptions, progress: &Progress) -> Result<VerifyReport> {
    let _ = (repo, options, progress);
    unimplemented!()
}
