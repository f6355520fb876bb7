//! The repository's secrets and everything that is derived from them. One function per derived key; there is no other way
//! to make one.

use minicbor::{Decode, Encode};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::encrypt::{SealKey, Suite};
use crate::error::{Error, Result};
use crate::model::{ChunkId, RepositoryId, hash};

/// The secrets of a repository, five times 32 random bytes. A key slot holds them, wrapped.
#[derive(Encode, Decode, Zeroize, ZeroizeOnDrop)]
#[cbor(map)]
pub struct Secrets {
    #[cbor(n(0), with = "minicbor::bytes")]
    id: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    cdc: [u8; 32],
    #[cbor(n(2), with = "minicbor::bytes")]
    meta: [u8; 32],
    #[cbor(n(3), with = "minicbor::bytes")]
    tree: [u8; 32],
    #[cbor(n(4), with = "minicbor::bytes")]
    data: [u8; 32],
}

/// What a chunk is part of; part of its id and of the blob that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkKind {
    /// 0: bytes of a file.
    Data,
    /// 1: bytes of a directory's stream or of an xattr set.
    Tree,
    /// 2: bytes of a list of chunks.
    List,
}

impl ChunkKind {
    /// The kind's number in the format.
    pub fn number(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Tree => 1,
            Self::List => 2,
        }
    }

    /// The kind of a number.
    pub fn from_number(number: u8) -> Result<Self> {
        match number {
            0 => Ok(Self::Data),
            1 => Ok(Self::Tree),
            2 => Ok(Self::List),
            other => Err(Error::damaged(format!("a blob of unknown kind {other}"))),
        }
    }
}

/// The keys of one pack.
pub struct PackKeys {
    data: SealKey,
    tree: SealKey,
    /// Seals the footer.
    pub index: SealKey,
}

impl PackKeys {
    /// The key for blobs of a kind: data under one, trees and lists under another.
    pub fn blob(&self, kind: ChunkKind) -> &SealKey {
        match kind {
            ChunkKind::Data => &self.data,
            ChunkKind::Tree | ChunkKind::List => &self.tree,
        }
    }
}

/// A repository's secrets, ready for use.
pub struct Keys {
    secrets: Secrets,
    suite: Suite,
    chunk_keys: [[u8; 32]; 3],
}

impl Keys {
    /// Fresh random secrets.
    pub fn generate(suite: Suite) -> Result<Self> {
        let secrets = Secrets {
            id: super::random_array()?,
            cdc: super::random_array()?,
            meta: super::random_array()?,
            tree: super::random_array()?,
            data: super::random_array()?,
        };
        Ok(Self::new(secrets, suite))
    }

    /// The published secrets of a repository without encryption: derived from its id.
    pub fn public(repository: &RepositoryId) -> Self {
        let secret = |name: &str| hash::keyed(&hash::derive("icecore v1 public repository", repository.as_bytes()), &[name.as_bytes()]);
        let secrets = Secrets { id: secret("id"), cdc: secret("cdc"), meta: secret("meta"), tree: secret("tree"), data: secret("data") };
        Self::new(secrets, Suite::Checksum)
    }

    /// Secrets that came out of a key slot.
    pub fn new(secrets: Secrets, suite: Suite) -> Self {
        let chunk_keys = ["chunk data", "chunk tree", "chunk list"].map(|name| hash::keyed(&secrets.id, &[name.as_bytes()]));
        Self { secrets, suite, chunk_keys }
    }

    /// The secrets, to be wrapped in a key slot.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// How this repository seals.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The name of a chunk.
    pub fn chunk_id(&self, kind: ChunkKind, raw: &[u8]) -> ChunkId {
        ChunkId(hash::keyed(&self.chunk_keys[usize::from(kind.number())], &[raw]))
    }

    /// The name of a snapshot record.
    pub fn snapshot_id(&self, record: &[u8]) -> crate::model::SnapshotId {
        crate::model::SnapshotId(hash::keyed(&self.derived(b"snapshot id"), &[record]))
    }

    /// A keyed hash for what must not be guessed from its name: link groups, stat-cache keys.
    pub fn fingerprint(&self, domain: &str, parts: &[&[u8]]) -> [u8; 32] {
        let key = hash::keyed(&self.secrets.id, &[b"fingerprint ", domain.as_bytes()]);
        hash::keyed(&key, parts)
    }

    /// The gear table that cut points are found with: 256 times 8 bytes (little-endian) of keyed BLAKE3 output.
    pub fn gear(&self) -> Box<[u64; 256]> {
        let mut bytes = [0; 2048];
        hash::keyed_stream(&self.secrets.cdc, b"gear table", &mut bytes);
        let mut table = Box::new([0; 256]);
        for (entry, bytes) in table.iter_mut().zip(bytes.chunks_exact(8)) {
            *entry = bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        }
        table
    }

    /// The keys of the pack with this salt.
    pub fn pack(&self, salt: &[u8; 32]) -> Result<PackKeys> {
        let key = |secret: &[u8; 32], name: &[u8]| SealKey::new(self.suite, &hash::keyed(secret, &[name, salt]));
        Ok(PackKeys {
            data: key(&self.secrets.data, b"pack data")?,
            tree: key(&self.secrets.tree, b"pack tree")?,
            index: key(&self.secrets.meta, b"pack index")?,
        })
    }

    /// The key of the small object (journal entry, index delta, marker) with this salt.
    pub fn object(&self, salt: &[u8; 32]) -> Result<SealKey> {
        SealKey::new(self.suite, &hash::keyed(&self.secrets.meta, &[b"object", salt]))
    }

    /// The key of the snapshot record inside the journal entry with this salt: whoever may only maintain the store has no
    /// need to read names.
    pub fn record(&self, salt: &[u8; 32]) -> Result<SealKey> {
        SealKey::new(self.suite, &hash::keyed(&self.secrets.tree, &[b"record", salt]))
    }

    /// Authenticates the config object, so that nobody without the keys can weaken it.
    pub fn config_mac(&self, body: &[u8]) -> [u8; 32] {
        hash::keyed(&self.derived(b"config mac"), &[body])
    }

    fn derived(&self, name: &[u8]) -> [u8; 32] {
        hash::keyed(&self.secrets.meta, &[name])
    }
}
