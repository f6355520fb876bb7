//! Puts a pack together in memory.

use super::{ENTRY_BYTES, HEADER_BYTES, Header, PACK_ALIGN_BYTES, PackEntry, SHARD_BYTES, SHARD_HASH_BYTES, TRAILER_BYTES, TRAILER_MAGIC};
use crate::error::{Error, Result};
use crate::model::{PackId, hash};

/// A pack that is being filled. The header stands first; its type is set when the pack is finished.
pub struct PackBuilder {
    header: Header,
    bytes: Vec<u8>,
    entries: Vec<PackEntry>,
}

/// A whole pack.
pub struct Finished {
    /// Its name.
    pub id: PackId,
    /// Its header.
    pub header: Header,
    /// All of its bytes.
    pub bytes: Vec<u8>,
    /// Its blobs in order.
    pub entries: Vec<PackEntry>,
}

impl PackBuilder {
    /// An empty pack that reuses the allocation of `buffer`.
    pub fn new(header: Header, mut buffer: Vec<u8>) -> Self {
        buffer.clear();
        buffer.extend_from_slice(&header.encode());
        Self { header, bytes: buffer, entries: Vec::new() }
    }

    /// The header, for associated data.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The number of the next blob.
    pub fn next_number(&self) -> u32 {
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Blobs so far.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Appends a blob. `write` appends the sealed bytes to the pack and may not touch what stands there.
    pub fn push(&mut self, entry: &PackEntry, write: impl FnOnce(&Header, u32, &mut Vec<u8>) -> Result<()>) -> Result<PackEntry> {
        let (start, number) = (self.bytes.len(), self.next_number());
        if let Err(error) = write(&self.header, number, &mut self.bytes) {
            self.bytes.truncate(start);
            return Err(error);
        }
        let length = |bytes: usize| u32::try_from(bytes).map_err(|_| Error::damaged("a pack grew over 4 GiB"));
        let entry = PackEntry { offset: length(start)?, stored_len: length(self.bytes.len() - start)?, ..*entry };
        self.entries.push(entry);
        Ok(entry)
    }

    /// Completes the pack. `seal` seals the index in place, from the given offset of the buffer on, with the given
    /// associated data.
    pub fn finish(mut self, seal: impl FnOnce(&[u8], &mut Vec<u8>, usize) -> Result<()>, sealed_overhead: usize) -> Result<Finished> {
        self.header.kind = pack_type(&self.entries);
        let header = self.header.encode();
        self.bytes[..HEADER_BYTES].copy_from_slice(&header);

        let index = encode_index(&self.entries);
        let index_len = index.len() + sealed_overhead;
        let padded = |padding: usize| {
            let covered = self.bytes.len() + padding + index_len;
            let scrub_len = 8 + covered.div_ceil(SHARD_BYTES) * SHARD_HASH_BYTES;
            (covered + scrub_len + TRAILER_BYTES, scrub_len)
        };
        // Padding can add a shard and so move the end once more: take the first multiple that fits.
        let mut total = padded(0).0.next_multiple_of(PACK_ALIGN_BYTES);
        let padding = loop {
            let padding = total - padded(0).0;
            let length = padded(padding).0;
            if length == total {
                break padding;
            }
            match padding.checked_sub(length - total) {
                Some(padding) if padded(padding).0 == total => break padding,
                _ => total += PACK_ALIGN_BYTES,
            }
        };
        let scrub_len = padded(padding).1;
        self.bytes.resize(self.bytes.len() + padding, 0);
        let index_offset = self.bytes.len();
        self.bytes.extend_from_slice(&index);
        seal(&header, &mut self.bytes, index_offset)?;
        if self.bytes.len() != index_offset + index_len {
            return Err(Error::damaged("the sealed index has another length than planned"));
        }

        let scrub_offset = self.bytes.len();
        let scrub = scrub_table(&self.bytes);
        self.bytes.extend_from_slice(&scrub);
        let id = PackId(hash::hash(&[&header, &self.bytes[index_offset..scrub_offset], &scrub]));
        let mut trailer = TRAILER_MAGIC.to_vec();
        for number in [index_offset, index_len, scrub_offset, scrub_len, 0, 0] {
            trailer.extend_from_slice(&u32::try_from(number).map_err(|_| Error::damaged("a pack grew over 4 GiB"))?.to_le_bytes());
        }
        trailer.extend_from_slice(id.as_bytes());
        let check = hash::hash(&[&trailer]);
        trailer.extend_from_slice(&check[..4]);
        self.bytes.extend_from_slice(&trailer);
        Ok(Finished { id, header: self.header, bytes: self.bytes, entries: self.entries })
    }
}

fn pack_type(entries: &[PackEntry]) -> u8 {
    match (entries.iter().any(|e| e.kind == 0), entries.iter().any(|e| e.kind != 0)) {
        (true, false) => 1,
        (false, _) => 2,
        (true, true) => 3,
    }
}

/// The index before it is sealed.
pub fn encode_index(entries: &[PackEntry]) -> Vec<u8> {
    let mut index = Vec::with_capacity(4 + entries.len() * ENTRY_BYTES);
    index.extend_from_slice(&u32::try_from(entries.len()).unwrap_or(u32::MAX).to_le_bytes());
    for entry in entries {
        index.extend_from_slice(entry.id.as_bytes());
        index.extend_from_slice(&[entry.kind, entry.codec, 0, 0]);
        index.extend_from_slice(&entry.stored_len.to_le_bytes());
        index.extend_from_slice(&entry.raw_len.to_le_bytes());
        index.extend_from_slice(&[0; 4]);
        if let Some(base) = &entry.base {
            index.extend_from_slice(base.as_bytes());
        }
    }
    index
}

/// The scrub table over `covered`.
pub(super) fn scrub_table(covered: &[u8]) -> Vec<u8> {
    let shards = covered.len().div_ceil(SHARD_BYTES);
    let mut table = Vec::with_capacity(8 + shards * SHARD_HASH_BYTES);
    table.extend_from_slice(&(SHARD_BYTES as u32).to_le_bytes());
    table.extend_from_slice(&(shards as u32).to_le_bytes());
    for shard in covered.chunks(SHARD_BYTES) {
        table.extend_from_slice(&hash::hash(&[shard])[..SHARD_HASH_BYTES]);
    }
    table
}
