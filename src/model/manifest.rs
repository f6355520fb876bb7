//! The snapshot record: what one source was at one moment. It is the body of a SNAPSHOT entry in a session's journal, in
//! CBOR (maps with integer keys, in ascending order); writing that entry is the commit.

use minicbor::{Decode, Encode};
use serde::Serialize;

use super::id::{SessionId, SnapshotId};
use super::node::Node;
use crate::clock::Timestamp;
use crate::error::{Error, Result};

/// What kind of thing a source is; part of its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// A Docker volume, by name.
    #[n(0)]
    Volume,
    /// A directory of the host, by absolute path.
    #[n(1)]
    Path,
}

/// Which source a snapshot is of. Equal identities form one history.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct SourceIdentity {
    /// Volume or path.
    #[n(0)]
    pub kind: SourceKind,
    /// The volume's name or the directory's absolute path (escaped where it is not UTF-8).
    #[n(1)]
    pub name: String,
    /// The host that the source lives on.
    #[n(2)]
    pub host: String,
}

impl std::fmt::Display for SourceIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// How the moments of a snapshot's parts relate; the rungs of the ladder, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// Read while others may have written: each file's bytes are of some moments.
    #[n(0)]
    Fuzzy,
    /// A dump made by the application.
    #[n(1)]
    Dump,
    /// A hook of the application held it still.
    #[n(2)]
    Hook,
    /// All writers were frozen: equal to a kill at that moment.
    #[n(3)]
    Frozen,
    /// Nobody had it open for writing.
    #[n(4)]
    Stopped,
}

impl std::fmt::Display for Consistency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fuzzy => "fuzzy",
            Self::Dump => "dump",
            Self::Hook => "hook",
            Self::Frozen => "frozen",
            Self::Stopped => "stopped",
        })
    }
}

/// A container that mounts a volume, at the moment of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct VolumeUser {
    /// The container's name, without the leading `/`.
    #[n(0)]
    pub container: String,
    /// The image's name as the container was created with.
    #[n(1)]
    pub image: String,
    /// created, running, paused, restarting, exited or dead.
    #[n(2)]
    pub state: String,
    /// Where the volume is mounted in it.
    #[n(3)]
    pub destination: String,
    /// Whether it can write.
    #[n(4)]
    pub writable: bool,
    /// The Compose project that it belongs to.
    #[n(5)]
    pub project: Option<String>,
    /// The Compose service that it belongs to.
    #[n(6)]
    pub service: Option<String>,
}

/// What the engine knew of a volume at the moment of its snapshot; enough to create it again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct VolumeFacts {
    /// The volume's driver.
    #[n(0)]
    pub driver: String,
    /// Driver options, sorted by name. In a repository without encryption the values of secrets are masked.
    #[n(1)]
    pub options: Vec<(String, String)>,
    /// Labels, sorted by name.
    #[n(2)]
    pub labels: Vec<(String, String)>,
    /// `local` or `global`.
    #[n(3)]
    pub scope: String,
    /// Containers that mount it.
    #[n(4)]
    pub users: Vec<VolumeUser>,
    /// The engine's version.
    #[n(5)]
    pub engine: String,
    /// The reader that was used: `host` (the engine's folder on this host).
    #[n(6)]
    pub reader: String,
}

/// Counts of one snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct SnapshotStats {
    /// Entries that are not directories.
    #[n(0)]
    pub files: u64,
    /// Directories, the root included.
    #[n(1)]
    pub directories: u64,
    /// Bytes of file content, holes included.
    #[n(2)]
    pub bytes: u64,
    /// Bytes of file content that were read; the rest was known to be unchanged.
    #[n(3)]
    pub read_bytes: u64,
    /// Bytes of chunks that the repository did not have, before compression.
    #[n(4)]
    pub new_bytes: u64,
    /// Bytes of those chunks as stored: compressed and sealed.
    #[n(5)]
    pub stored_bytes: u64,
    /// Chunks that the repository did not have.
    #[n(6)]
    pub new_chunks: u64,
    /// Of `stored_bytes`, what trees and lists take.
    #[n(7)]
    pub tree_bytes: u64,
    /// Files whose content was read.
    #[n(8)]
    pub read_files: u64,
}

/// An entry that could not be captured as it was.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(map)]
pub struct Fault {
    /// The entry's path below the root, printable.
    #[n(0)]
    pub path: String,
    /// What went wrong.
    #[n(1)]
    pub message: String,
}

/// How many faults a record names; further ones are counted only.
pub const FAULTS_KEPT_MAX: usize = 1000;

/// One snapshot of one source.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Snapshot {
    /// What it is of.
    #[n(0)]
    pub source: SourceIdentity,
    /// All snapshots of one capture share this.
    #[n(1)]
    pub run: SessionId,
    /// 1 for a source's first snapshot, then one more than its parent's. Orders a history when clocks jump.
    #[n(2)]
    pub sequence: u64,
    /// When the capture began.
    #[n(3)]
    pub started: Timestamp,
    /// The moment that the contents are of: the freeze, or the begin of reading.
    #[n(4)]
    pub time: Timestamp,
    /// How long it took, in milliseconds.
    #[n(5)]
    pub milliseconds: u64,
    /// How the moments of its parts relate.
    #[n(6)]
    pub consistency: Consistency,
    /// For how long containers were frozen.
    #[n(7)]
    pub frozen_milliseconds: u64,
    /// The root directory: its metadata and the stream of its nodes.
    #[cbor(n(8), with = "root_bytes")]
    pub root: Node,
    /// The snapshot it was compared against.
    #[n(9)]
    pub parent: Option<SnapshotId>,
    /// Entries that could not be read at all and are missing; at most [`FAULTS_KEPT_MAX`] by name.
    #[n(10)]
    pub unreadable: Vec<Fault>,
    /// How many entries could not be read.
    #[n(11)]
    pub unreadable_count: u64,
    /// Entries that changed while they were read; at most [`FAULTS_KEPT_MAX`] by name.
    #[n(12)]
    pub changed: Vec<Fault>,
    /// How many entries changed while they were read.
    #[n(13)]
    pub changed_count: u64,
    /// Counts.
    #[n(14)]
    pub stats: SnapshotStats,
    /// The volume's facts, for a volume.
    #[n(15)]
    pub volume: Option<VolumeFacts>,
    /// Free words of the user.
    #[n(16)]
    pub tags: Vec<String>,
    /// The program that made it, with its version.
    #[n(17)]
    pub program: String,
}

impl Snapshot {
    /// Whether entries are missing from it; retention never counts such a snapshot as good.
    pub fn is_partial(&self) -> bool {
        self.unreadable_count > 0
    }

    /// The record as CBOR.
    pub fn encode(&self) -> Result<Vec<u8>> {
        minicbor::to_vec(self).map_err(|e| Error::damaged("cannot encode a snapshot record").because(e.to_string()))
    }

    /// Reads a record. Its root must be a directory without a name.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let record: Self = minicbor::decode(bytes).map_err(|e| Error::damaged("a snapshot record is malformed").because(e.to_string()))?;
        if !record.root.is_dir() || record.root.name.is_some() {
            return Err(Error::damaged("a snapshot's root is not a directory"));
        }
        Ok(record)
    }
}

impl<C> Encode<C> for Timestamp {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> std::result::Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?.i64(self.seconds)?.u32(self.nanos)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Timestamp {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> std::result::Result<Self, minicbor::decode::Error> {
        if d.array()? != Some(2) {
            return Err(minicbor::decode::Error::message("a time is not a pair"));
        }
        Ok(Self::new(d.i64()?, d.u32()?))
    }
}

/// The root node stands in the record as the bytes that it would have in a directory's stream.
mod root_bytes {
    use super::Node;

    pub(super) fn encode<C, W: minicbor::encode::Write>(
        node: &Node,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let mut bytes = Vec::new();
        node.encode(&mut bytes);
        e.bytes(&bytes)?.ok()
    }

    pub(super) fn decode<C>(d: &mut minicbor::Decoder<'_>, _: &mut C) -> Result<Node, minicbor::decode::Error> {
        Node::decode(d.bytes()?).map_err(|e| minicbor::decode::Error::message(e.to_string()))
    }
}
