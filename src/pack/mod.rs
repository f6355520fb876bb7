//! The byte format of packs. Functions from bytes to values and back: no I/O, no keys (the caller seals and opens).
//!
//! ```text
//! header   128 bytes, see [`Header`]
//! blobs    sealed bytes, back to back, numbered from 0
//! padding  zeros, so that the whole pack is a multiple of 4 KiB (lengths of chunks stay hidden)
//! index    sealed with the pack's index key, nonce 0, the header as associated data:
//!          4 count, then for each blob 48 bytes:
//!            32 id, 1 kind, 1 codec, 2 zero, 4 stored length, 4 raw length, 4 zero
//!          and, after the entry of a blob with codec 2 (delta), the 32-byte id of its base
//! scrub    4 shard size (65536), 4 count, then for each shard of everything before this section (header, blobs,
//!          padding, index) the first 16 bytes of its BLAKE3
//! parity   nothing yet; a later version may put Reed-Solomon shards here
//! trailer  64 bytes: 4 magic "ICET", 4 index offset, 4 index length, 4 scrub offset, 4 scrub length, 4 parity offset,
//!          4 parity length, 32 pack id, 4 first bytes of the BLAKE3 of the trailer so far
//! ```
//!
//! The pack's id, which is its name, is BLAKE3 over header, sealed index and scrub table; through the table it commits to
//! every byte. A blob's offset is the sum of what stands before it. All integers are little-endian.

pub mod builder;
pub mod reader;

pub use builder::{Finished, PackBuilder};
pub use reader::Footer;

use crate::error::{Error, ErrorKind, Result};
use crate::model::wire::Fields;
use crate::model::{ChunkId, RepositoryId, SessionId};

/// Length of the header in bytes.
pub const HEADER_BYTES: usize = 128;
/// Length of the trailer in bytes.
pub const TRAILER_BYTES: usize = 64;
/// Length of an index entry in bytes, a delta's base aside.
pub const ENTRY_BYTES: usize = 48;
/// Length of the pieces that the scrub table covers, in bytes.
pub const SHARD_BYTES: usize = 64 << 10;
/// Bytes of hash that the scrub table keeps of each shard.
pub const SHARD_HASH_BYTES: usize = 16;
/// Packs are padded to a multiple of this.
pub const PACK_ALIGN_BYTES: usize = 4096;
/// No pack is longer; what claims to be is refused before it is read.
pub const PACK_BYTES_MAX: u64 = 256 << 20;
/// No blob is longer: the longest chunk, the longest zstd expansion of it, a tag.
pub const BLOB_BYTES_MAX: usize = (4 << 20) + (64 << 10);
/// Blobs of codec "raw": the chunk itself.
pub const CODEC_RAW: u8 = 0;
/// Blobs of codec "zstd": one zstd frame.
pub const CODEC_ZSTD: u8 = 1;
/// Blobs of codec "delta": one zstd frame that refers to another chunk, its base, as if that stood before it.
pub const CODEC_DELTA: u8 = 2;

const HEADER_MAGIC: &[u8; 4] = b"ICEP";
const TRAILER_MAGIC: &[u8; 4] = b"ICET";
const VERSION: u8 = 1;

/// The first 128 bytes of a pack, in the clear.
///
/// ```text
///  0  4 magic "ICEP"     4  1 version (1)     5  1 type: 1 data, 2 tree, 3 mixed
///  6  1 suite            7  1 zero            8 16 repository id
/// 24 16 session id      40  4 pack's number in its session      44  4 zero (count of further key slots)
/// 48 32 salt            80 48 zero (reserved for sealing to a public key)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// 1 data, 2 tree, 3 mixed.
    pub kind: u8,
    /// How blobs and index are sealed (number).
    pub suite: u8,
    /// The repository that it belongs to.
    pub repository: RepositoryId,
    /// The session that wrote it.
    pub session: SessionId,
    /// Its number in that session.
    pub sequence: u32,
    /// What its keys are derived from.
    pub salt: [u8; 32],
}

impl Header {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..4].copy_from_slice(HEADER_MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.kind;
        bytes[6] = self.suite;
        bytes[8..24].copy_from_slice(self.repository.as_bytes());
        bytes[24..40].copy_from_slice(self.session.as_bytes());
        bytes[40..44].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[48..80].copy_from_slice(&self.salt);
        bytes
    }

    /// Reads a header. What a later version put into reserved fields is refused, not ignored.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        let mut fields = Fields::new(bytes, "a pack header");
        if fields.array()? != *HEADER_MAGIC {
            return Err(Error::damaged("this is not a pack"));
        }
        let version = fields.u8()?;
        if version != VERSION {
            return Err(Error::new(ErrorKind::Unsupported, format!("pack version {version} is unknown to this version"))
                .hint("use a newer icecore"));
        }
        let (kind, suite, zero) = (fields.u8()?, fields.u8()?, fields.u8()?);
        let header = Self {
            kind,
            suite,
            repository: RepositoryId(fields.array()?),
            session: SessionId(fields.array()?),
            sequence: fields.u32()?,
            salt: {
                let slots = fields.u32()?;
                if slots != 0 {
                    return Err(Error::new(ErrorKind::Unsupported, "a pack with several key slots is unknown to this version")
                        .hint("use a newer icecore"));
                }
                fields.array()?
            },
        };
        let reserved: [u8; 48] = fields.array()?;
        if !(1..=3).contains(&kind) || zero != 0 || reserved != [0; 48] {
            return Err(
                Error::new(ErrorKind::Unsupported, "a pack uses fields that this version does not know").hint("use a newer icecore")
            );
        }
        Ok(header)
    }

    /// What is authenticated beside the blob of `entry`, whose number in the pack is `number`.
    pub fn blob_aad(&self, number: u32, entry: &PackEntry) -> BlobAad {
        BlobAad::new(&self.repository, &self.salt, number, entry)
    }
}

/// What is authenticated beside a blob: repository 16, salt 32, number 4, kind 1, codec 1, raw length 4, id 32, and with
/// codec 2 the id of the base, 32.
pub struct BlobAad {
    bytes: [u8; 122],
    len: usize,
}

impl BlobAad {
    /// For a reader that has the salt from the index instead of a header.
    pub fn new(repository: &RepositoryId, salt: &[u8; 32], number: u32, entry: &PackEntry) -> Self {
        let mut aad = [0; 122];
        aad[..16].copy_from_slice(repository.as_bytes());
        aad[16..48].copy_from_slice(salt);
        aad[48..52].copy_from_slice(&number.to_le_bytes());
        aad[52] = entry.kind;
        aad[53] = entry.codec;
        aad[54..58].copy_from_slice(&entry.raw_len.to_le_bytes());
        aad[58..90].copy_from_slice(entry.id.as_bytes());
        match &entry.base {
            Some(base) => {
                aad[90..].copy_from_slice(base.as_bytes());
                Self { bytes: aad, len: 122 }
            }
            None => Self { bytes: aad, len: 90 },
        }
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// One blob as the index names it, with its offset worked out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackEntry {
    /// The chunk's id.
    pub id: ChunkId,
    /// Data, tree or list.
    pub kind: u8,
    /// How it is encoded.
    pub codec: u8,
    /// Offset of the sealed bytes in the pack.
    pub offset: u32,
    /// Length of the sealed bytes.
    pub stored_len: u32,
    /// Length of the chunk.
    pub raw_len: u32,
    /// What a delta is encoded against; none with any other codec.
    pub base: Option<ChunkId>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::PackId;

    const OVERHEAD: usize = 16;

    /// Stands for sealing: the bytes in the clear and a tag of constant bytes.
    fn seal(_: &[u8], out: &mut Vec<u8>, _: usize) -> Result<()> {
        out.extend_from_slice(&[0xee; OVERHEAD]);
        Ok(())
    }

    fn build(lengths: &[usize]) -> Finished {
        let header =
            Header { kind: 3, suite: 0, repository: RepositoryId([1; 16]), session: SessionId([2; 16]), sequence: 7, salt: [3; 32] };
        let mut builder = PackBuilder::new(header, vec![9; 100]);
        for (len, number) in lengths.iter().zip(1u8..) {
            let raw_len = u32::try_from(*len).unwrap();
            let entry =
                PackEntry { id: ChunkId([number; 32]), kind: number % 3, codec: CODEC_RAW, offset: 0, stored_len: 0, raw_len, base: None };
            builder
                .push(&entry, |_, at, out| {
                    assert_eq!(at, u32::from(number) - 1);
                    out.extend(std::iter::repeat_n(number, *len));
                    Ok(())
                })
                .unwrap();
        }
        builder.finish(seal, OVERHEAD).unwrap()
    }

    fn read(bytes: &[u8], id: &PackId) -> Result<Footer> {
        let trailer = bytes.last_chunk::<TRAILER_BYTES>().ok_or_else(|| Error::damaged("short"))?;
        let sections = reader::Sections::parse(trailer, bytes.len() as u64, id)?;
        let header = bytes.first_chunk::<HEADER_BYTES>().ok_or_else(|| Error::damaged("short"))?;
        let range = usize::try_from(sections.index_offset).unwrap()..usize::try_from(sections.trailer_offset).unwrap();
        Footer::read(&sections, header, &mut bytes[range].to_vec(), |_, _, sealed| Ok(sealed.len() - OVERHEAD))
    }

    #[test]
    fn a_pack_reads_back_and_is_padded() {
        for lengths in [&[][..], &[1], &[100, 5000, 1], &[65_536; 5], &[4096 - 128 - 8 - 16 - 64 - 48 - 20], &[65_536 - 212, 3]] {
            let pack = build(lengths);
            assert_eq!(pack.bytes.len() % PACK_ALIGN_BYTES, 0, "{lengths:?}");
            let footer = read(&pack.bytes, &pack.id).unwrap();
            assert_eq!(footer.entries, pack.entries);
            assert_eq!(footer.header, pack.header);
            let covered = usize::try_from(footer.covered_bytes()).unwrap();
            assert!(footer.scrub(&pack.bytes[..covered]).is_empty());
            for first in 0..covered.div_ceil(SHARD_BYTES) {
                let mut rest = pack.bytes[first * SHARD_BYTES..covered].to_vec();
                assert!(footer.scrub_from(first, &rest).is_empty());
                *rest.last_mut().unwrap() ^= 1;
                assert_eq!(footer.scrub_from(first, &rest), [covered.div_ceil(SHARD_BYTES) - 1]);
            }
            for (entry, (len, number)) in footer.entries.iter().zip(lengths.iter().zip(1u8..)) {
                let blob = &pack.bytes[entry.offset as usize..][..entry.stored_len as usize];
                assert_eq!(blob, vec![number; *len]);
            }
        }
    }

    #[test]
    fn padding_fits_at_every_length_around_a_page_and_a_shard() {
        for len in (1..9000).chain(65_000..66_000) {
            assert_eq!(build(&[len]).bytes.len() % PACK_ALIGN_BYTES, 0, "{len}");
        }
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let pack = build(&[300, 5000]);
        for at in 0..pack.bytes.len() {
            let mut bytes = pack.bytes.clone();
            bytes[at] ^= 4;
            let noticed = match read(&bytes, &pack.id) {
                Err(_) => true,
                Ok(footer) => !footer.scrub(&bytes[..usize::try_from(footer.covered_bytes()).unwrap()]).is_empty(),
            };
            assert!(noticed, "byte {at}");
        }
    }

    #[test]
    fn a_pack_under_another_name_cut_off_or_with_unknown_features_is_refused() {
        let pack = build(&[300]);
        assert!(read(&pack.bytes, &PackId([0; 32])).is_err());
        for cut in [0, 1, TRAILER_BYTES, HEADER_BYTES, pack.bytes.len() - 1] {
            assert!(read(&pack.bytes[..cut], &pack.id).is_err());
        }
        let mut header = pack.header.encode();
        header[4] = 2;
        assert_eq!(Header::decode(&header).unwrap_err().kind(), ErrorKind::Unsupported);
        header[4] = VERSION;
        header[100] = 1;
        assert_eq!(Header::decode(&header).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn an_index_that_claims_more_than_there_is_is_refused() {
        let index = builder::encode_index(&build(&[300, 40]).entries);
        assert_eq!(reader::parse_index(&index, 128 + 340).unwrap().len(), 2);
        assert!(reader::parse_index(&index, 128 + 339).is_err());
        let mut greedy = index.clone();
        greedy[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(reader::parse_index(&greedy, u64::MAX / 2).is_err());
        assert!(reader::parse_index(&index[..index.len() - 1], u64::MAX / 2).is_err());
        let mut long = index;
        long.push(0);
        assert!(reader::parse_index(&long, u64::MAX / 2).is_err());
    }
}
