//! Index deltas: copies of the footers of new packs, so that others learn of them without opening the packs. Small ones
//! stand inside the journal entry that names them, larger ones in objects `idx/<session>-<number>`.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::error::{Error, Result};
use crate::index::{BlobEntry, PackInfo};
use crate::model::PackId;
use crate::pack::{self, PackEntry};

/// A delta up to this size is written into the journal entry itself.
pub(super) const INLINE_BYTES_MAX: usize = 64 << 10;
/// A delta object is closed when it reaches this size.
pub(super) const DELTA_BYTES_TARGET: usize = 4 << 20;

/// What a journal entry says of new packs (CBOR map).
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Published {
    /// The packs, all durable.
    #[n(0)]
    pub packs: Vec<PackId>,
    /// The delta itself, when it is small.
    #[n(1)]
    pub inline: Option<ByteVec>,
    /// Keys of delta objects, all durable.
    #[n(2)]
    pub deltas: Vec<String>,
}

/// One pack in a delta (CBOR map).
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct DeltaPack {
    /// The pack.
    #[n(0)]
    pub id: PackId,
    /// Its length in bytes.
    #[n(1)]
    pub len: u64,
    /// Its salt.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub salt: [u8; 32],
    /// Its index in the pack format's own encoding.
    #[n(3)]
    pub index: ByteVec,
}

impl DeltaPack {
    /// The delta of a pack.
    pub fn new(info: &PackInfo, entries: &[PackEntry]) -> Self {
        Self { id: info.id, len: info.len, salt: info.salt, index: ByteVec::from(pack::builder::encode_index(entries)) }
    }

    /// What the index keeps of the pack.
    pub fn info(&self) -> PackInfo {
        PackInfo { id: self.id, len: self.len, salt: self.salt }
    }

    /// The pack's blobs.
    pub fn blobs(&self) -> Result<Vec<BlobEntry>> {
        Ok(blobs(&pack::reader::parse_index(&self.index, self.len).map_err(|e| e.on(self.id))?))
    }
}

/// A pack's entries as the index keeps them.
pub(super) fn blobs(entries: &[PackEntry]) -> Vec<BlobEntry> {
    let numbered = entries.iter().zip(0..);
    numbered
        .map(|(entry, number)| BlobEntry {
            id: entry.id,
            offset: entry.offset,
            stored_len: entry.stored_len,
            raw_len: entry.raw_len,
            number,
            kind: entry.kind,
            codec: entry.codec,
            base: entry.base,
        })
        .collect()
}

/// A delta's body.
pub(super) fn encode(packs: &[DeltaPack]) -> Result<Vec<u8>> {
    minicbor::to_vec(packs).map_err(|e| Error::damaged("cannot encode an index delta").because(e.to_string()))
}

/// Reads a delta's body.
pub fn decode(body: &[u8]) -> Result<Vec<DeltaPack>> {
    minicbor::decode(body).map_err(|e| Error::damaged("an index delta is malformed").because(e.to_string()))
}
