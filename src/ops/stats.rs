//! Sizes of a repository.

use crate::error::Result;
use crate::repo::{Repository, parse_pack_key};

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

/// Adds it all up: packs from a listing, chunks from the index.
pub fn stats(repo: &Repository) -> Result<StatsReport> {
    let packs = repo.storage().list("packs")?;
    let packs: Vec<u64> = packs.iter().filter(|listed| parse_pack_key(&listed.key).is_some()).map(|listed| listed.len).collect();
    let snapshots = repo.snapshots()?;
    let mut report = StatsReport {
        snapshots: snapshots.len() as u64,
        restore_bytes: snapshots.iter().map(|snapshot| snapshot.record.stats.bytes).sum(),
        stored_bytes: packs.iter().sum(),
        packs: packs.len() as u64,
        index_bytes: repo.index().counts()?.disk_bytes,
        encryption: repo.keys().suite().name().to_owned(),
        repository: repo.id().to_string(),
        ..StatsReport::default()
    };
    repo.index().for_each(&mut |location| {
        report.chunks += 1;
        report.raw_bytes += u64::from(location.blob.raw_len);
        Ok(())
    })?;
    Ok(report)
}
