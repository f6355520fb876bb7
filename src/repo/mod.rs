//! The rules of the store: what may follow what.

use crate::clock::Timestamp;
use crate::error::Result;
use crate::model::{RepositoryId, Snapshot, SnapshotId};

/// An open repository.
pub struct Repository {}

/// A committed snapshot with its name.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The snapshot's id.
    pub id: SnapshotId,
    /// Its record.
    pub record: Snapshot,
}

/// What a key slot is, without its secret.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SlotInfo {
    /// The slot's name (16 hexadecimal digits).
    pub id: String,
    /// `passphrase` or `file`.
    pub kind: String,
    /// The user's words for it.
    pub label: String,
    /// RFC 3339.
    pub created: String,
    /// Whether this process opened the repository with it.
    pub current: bool,
}

/// A secret that opens a key slot.
pub enum Secret {
    /// A passphrase, stretched with Argon2id.
    Passphrase(Vec<u8>),
    /// The content of a key file, at least 32 bytes.
    KeyFile(Vec<u8>),
}

impl Repository {
    /// The repository's id.
    pub fn id(&self) -> RepositoryId {
        unimplemented!()
    }
    /// All committed snapshots that are not forgotten, ordered by source, then sequence.
    pub fn snapshots(&self) -> Result<Vec<Committed>> {
        unimplemented!()
    }
    /// The key slots.
    pub fn slots(&self) -> Result<Vec<SlotInfo>> {
        unimplemented!()
    }
    /// Adds a slot for another secret.
    pub fn add_slot(&self, secret: &Secret, label: &str, now: Timestamp) -> Result<SlotInfo> {
        let _ = (secret, label, now);
        unimplemented!()
    }
    /// Removes a slot by id or unique prefix; never the last one.
    pub fn remove_slot(&self, id: &str) -> Result<SlotInfo> {
        let _ = id;
        unimplemented!()
    }
}
