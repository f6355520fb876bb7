//! Sizes of a repository.
use crate::error::Result;
use crate::repo::Repository;

/// Sizes.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct StatsReport {
    /// Snapshots that are not forgotten.
    pub snapshots: u64,
    /// Chunks stored.
    pub chunks: u64,
    /// Bytes that all snapshots together would restore to.
    pub restore_bytes: u64,
    /// Bytes of the stored chunks before compression.
    pub raw_bytes: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes of the local index.
    pub index_bytes: u64,
    /// `aes-256-gcm` or `none`.
    pub encryption: String,
    /// The repository's id.
    pub repository: String,
}

/// Adds it all up.
pub fn stats(repo: &Repository) -> Result<StatsReport> {
    let _ = repo;
    unimplemented!()
}
