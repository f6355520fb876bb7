//! Reads a pack's header, trailer and index, and scrubs its bytes. Everything it is given may be hostile.

use super::{
    BLOB_BYTES_MAX, CODEC_DELTA, ENTRY_BYTES, HEADER_BYTES, Header, PACK_BYTES_MAX, PackEntry, SHARD_BYTES, SHARD_HASH_BYTES,
    TRAILER_BYTES, TRAILER_MAGIC,
};
use crate::error::{Error, ErrorKind, Result};
use crate::model::wire::Fields;
use crate::model::{ChunkId, PackId, hash};

/// Where the sections of a pack stand, from its trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sections {
    /// First byte of the index.
    pub index_offset: u64,
    /// First byte of the scrub table, which follows the index.
    pub scrub_offset: u64,
    /// First byte of the trailer.
    pub trailer_offset: u64,
    id: PackId,
}

impl Sections {
    /// Reads the last [`TRAILER_BYTES`] of a pack of `pack_len` bytes named `id`.
    pub fn parse(trailer: &[u8; TRAILER_BYTES], pack_len: u64, id: &PackId) -> Result<Self> {
        if pack_len > PACK_BYTES_MAX || pack_len < (HEADER_BYTES + TRAILER_BYTES) as u64 {
            return Err(Error::damaged(format!("a pack can't be {pack_len} bytes long")));
        }
        let check = hash::hash(&[&trailer[..TRAILER_BYTES - 4]]);
        let mut fields = Fields::new(trailer, "a pack trailer");
        if fields.array()? != *TRAILER_MAGIC || check[..4] != trailer[TRAILER_BYTES - 4..] {
            return Err(Error::damaged("the pack's trailer is damaged"));
        }
        let (index_offset, index_len) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
        let (scrub_offset, scrub_len) = (u64::from(fields.u32()?), u64::from(fields.u32()?));
        let (parity_offset, parity_len) = (fields.u32()?, fields.u32()?);
        if (parity_offset, parity_len) != (0, 0) {
            return Err(Error::new(ErrorKind::Unsupported, "a pack with parity is unknown to this version").hint("use a newer icecore"));
        }
        let named = PackId(fields.array()?);
        let trailer_offset = pack_len - TRAILER_BYTES as u64;
        let fits = index_offset >= HEADER_BYTES as u64
            && index_offset + index_len == scrub_offset
            && scrub_offset + scrub_len == trailer_offset
            && scrub_len == 8 + scrub_offset.div_ceil(SHARD_BYTES as u64) * SHARD_HASH_BYTES as u64;
        if !fits {
            return Err(Error::damaged("the pack's sections do not fit together"));
        }
        if named != *id {
            return Err(Error::damaged("the pack is another one than its name says").on(named));
        }
        Ok(Self { index_offset, scrub_offset, trailer_offset, id: named })
    }
}

/// A pack's header and index, checked against its name.
#[derive(Debug, Clone)]
pub struct Footer {
    /// The header.
    pub header: Header,
    /// The blobs in order.
    pub entries: Vec<PackEntry>,
    scrub: Vec<u8>,
    covered: u64,
}

impl Footer {
    /// Checks header and tail (everything from the index to the trailer's begin) against the pack's id and opens the
    /// index. `open` opens the sealed index with the given associated data, once the header is known.
    pub fn read(
        sections: &Sections,
        header: &[u8; HEADER_BYTES],
        tail: &mut [u8],
        open: impl FnOnce(&Header, &[u8], &mut [u8]) -> Result<usize>,
    ) -> Result<Self> {
        let index_len = usize::try_from(sections.scrub_offset - sections.index_offset).unwrap_or(usize::MAX);
        let (index, scrub) = tail.split_at_mut_checked(index_len).ok_or_else(|| Error::damaged("the pack ends inside its index"))?;
        if PackId(hash::hash(&[header, index, scrub])) != sections.id {
            return Err(Error::damaged("the pack's header, index or scrub table is damaged"));
        }
        let parsed = Header::decode(header)?;
        let plain_len = open(&parsed, header, index)?;
        let plain = index.get(..plain_len).ok_or_else(|| Error::damaged("an opened index of impossible length"))?;
        let entries = parse_index(plain, sections.index_offset)?;
        Ok(Self { header: parsed, entries, scrub: scrub.to_vec(), covered: sections.scrub_offset })
    }

    /// How many bytes the scrub table covers: all before it.
    pub fn covered_bytes(&self) -> u64 {
        self.covered
    }

    /// Compares the bytes before the scrub table, all of them, with the table; returns the numbers of the shards that differ.
    pub fn scrub(&self, covered: &[u8]) -> Vec<usize> {
        self.scrub_from(0, covered)
    }

    /// Likewise a part: whole shards from number `first` on, of which only the pack's last may be shorter. A shard that the
    /// table does not have differs.
    pub fn scrub_from(&self, first: usize, shards: &[u8]) -> Vec<usize> {
        let table = self.scrub.get(8..).unwrap_or(&[]);
        let expected = |number: usize| table.chunks_exact(SHARD_HASH_BYTES).nth(number);
        let differs = |(number, shard): &(usize, &[u8])| expected(*number) != Some(&hash::hash(&[*shard])[..SHARD_HASH_BYTES]);
        (first..).zip(shards.chunks(SHARD_BYTES)).filter(differs).map(|(number, _)| number).collect()
    }
}

/// Reads an opened index. `blobs_end` is where the blobs and their padding end.
pub fn parse_index(index: &[u8], blobs_end: u64) -> Result<Vec<PackEntry>> {
    let mut fields = Fields::new(index, "a pack index");
    let count = fields.u32()? as usize;
    if count > index.len() / ENTRY_BYTES {
        return Err(Error::damaged("a pack index counts more blobs than it has"));
    }
    let mut entries = Vec::with_capacity(count);
    let mut offset = HEADER_BYTES as u64;
    for _ in 0..count {
        let id = ChunkId(fields.array()?);
        let (kind, codec, zero) = (fields.u8()?, fields.u8()?, fields.u16()?);
        let (stored_len, raw_len, zeros) = (fields.u32()?, fields.u32()?, fields.u32()?);
        let base = if codec == CODEC_DELTA { Some(ChunkId(fields.array()?)) } else { None };
        let possible = zero == 0
            && zeros == 0
            && kind <= 2
            && raw_len > 0
            && raw_len as usize <= BLOB_BYTES_MAX
            && stored_len as usize <= BLOB_BYTES_MAX;
        if !possible || id.is_hole() || base.is_some_and(|base| base.is_hole() || base == id) {
            return Err(Error::damaged("a pack index has an impossible entry").on(id));
        }
        entries.push(PackEntry { id, kind, codec, offset: u32::try_from(offset).unwrap_or(u32::MAX), stored_len, raw_len, base });
        offset += u64::from(stored_len);
        if offset > blobs_end {
            return Err(Error::damaged("a pack index names more bytes than the pack has"));
        }
    }
    fields.end()?;
    Ok(entries)
}
