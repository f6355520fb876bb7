//! Forgets snapshots: by name, or by a retention policy. Space comes back with prune.
use crate::clock::Timestamp;
use crate::error::Result;
use crate::model::SnapshotId;
use crate::repo::{Committed, Repository};

/// Which snapshots of each source to keep. An empty policy keeps all.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The newest N.
    pub last: Option<u32>,
    /// All younger than this many seconds, counted from the source's newest snapshot.
    pub within_seconds: Option<u64>,
    /// The newest of each of the last N minutes that have one.
    pub minutely: Option<u32>,
    /// Likewise hours.
    pub hourly: Option<u32>,
    /// Likewise days.
    pub daily: Option<u32>,
    /// Likewise weeks (Monday first).
    pub weekly: Option<u32>,
    /// Likewise months.
    pub monthly: Option<u32>,
    /// Likewise years.
    pub yearly: Option<u32>,
    /// Keep those that carry one of these tags.
    pub tags: Vec<String>,
}

/// What a policy says of one snapshot.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The snapshot.
    pub snapshot: Committed,
    /// Why it stays (`last`, `daily 2026-11-20`, `newest of its source`...); empty: it is forgotten.
    pub reasons: Vec<String>,
}

/// Applies `policy` to the snapshots of each source. Pure. Never lets go of a source's newest snapshot, nor of its newest
/// complete one; partial snapshots fill no slot while a complete one can.
pub fn plan(snapshots: &[Committed], policy: &Policy) -> Vec<Verdict> {
    let _ = (snapshots, policy);
    unimplemented!()
}

/// Forgets the named snapshots, durably. They are no longer listed; prune returns their space.
pub fn forget(repo: &Repository, ids: &[SnapshotId], now: Timestamp) -> Result<()> {
    let _ = (repo, ids, now);
    unimplemented!()
}
