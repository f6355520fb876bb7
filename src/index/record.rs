//! What the index on disk writes under its keys: bytes to values and back, no I/O. Decoding takes exactly the bytes that
//! encoding gives and answers `None` to anything else: the bytes may come from a damaged file.

use super::open::IndexTag;
use super::{BlobEntry, Location, PackInfo, PackNumber};
use crate::model::{ChunkId, PackId, RepositoryId};

/// Version of the layout described here; another one is discarded like a damaged index.
const LAYOUT: u32 = 1;

/// The key of the tag.
pub(super) const TAG_KEY: &[u8] = b"tag";
/// The key of the counters, among the packs.
pub(super) const COUNTERS_KEY: &[u8] = b"c";
/// Packs by number; the key goes on with the number, big-endian.
pub(super) const BY_NUMBER: u8 = b'n';
/// Numbers of packs; the key goes on with the pack's id.
pub(super) const BY_ID: u8 = b'i';

/// The length of the key of a further copy: chunk id, then pack number.
pub(super) const COPY_KEY_LEN: usize = ChunkId::LEN + 4;

/// The number of the pack format for blobs that have a base.
const CODEC_DELTA: u8 = 2;

pub(super) const PACK_LEN: usize = PackId::LEN + 32 + 8 + 8;

/// What the packs space says of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackRecord {
    pub(super) info: PackInfo,
    /// Entries of chunks that name this pack.
    pub(super) entries: u64,
}

/// Numbers that must survive the process beside the packs themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counters {
    /// The number of the next pack. Never goes back: every lower number without a record is a removed pack.
    pub(super) next: u32,
    /// Entries that still stand in the chunk spaces but name removed packs.
    pub(super) dead: u64,
}

/// A chunk's entry, without its id: that is the key. 10 to 27 bytes, mostly about 14; a delta's base takes 32 more.
pub(super) fn encode_location(location: &Location) -> Vec<u8> {
    let blob = &location.blob;
    let mut bytes = Vec::with_capacity(27);
    for value in [location.pack.0, blob.offset, blob.stored_len, blob.raw_len, blob.number] {
        put_varint(&mut bytes, value);
    }
    bytes.extend([blob.kind, blob.codec]);
    if let Some(base) = &blob.base {
        bytes.extend(base.as_bytes());
    }
    bytes
}

pub(super) fn decode_location(id: &ChunkId, bytes: &[u8]) -> Option<Location> {
    let mut rest = bytes;
    let pack = PackNumber(take_varint(&mut rest)?);
    let offset = take_varint(&mut rest)?;
    let stored_len = take_varint(&mut rest)?;
    let raw_len = take_varint(&mut rest)?;
    let number = take_varint(&mut rest)?;
    let ([kind, codec], rest) = rest.split_first_chunk()?;
    let base = if rest.is_empty() { None } else { Some(ChunkId::from_slice(rest)?) };
    if base.is_some() != (*codec == CODEC_DELTA) {
        return None;
    }
    Some(Location { pack, blob: BlobEntry { id: *id, offset, stored_len, raw_len, number, kind: *kind, codec: *codec, base } })
}

/// The key of a pack's record.
pub(super) fn number_key(number: u32) -> [u8; 5] {
    let [a, b, c, d] = number.to_be_bytes();
    [BY_NUMBER, a, b, c, d]
}

/// The key of a pack's number.
pub(super) fn id_key(id: &PackId) -> Vec<u8> {
    [&[BY_ID], &id.as_bytes()[..]].concat()
}

/// Sorts the copies of a chunk by the age of their packs.
pub(super) fn copy_key(id: &ChunkId, number: u32) -> [u8; COPY_KEY_LEN] {
    let mut key = [0; COPY_KEY_LEN];
    key[..ChunkId::LEN].copy_from_slice(id.as_bytes());
    key[ChunkId::LEN..].copy_from_slice(&number.to_be_bytes());
    key
}

pub(super) fn decode_copy_key(key: &[u8]) -> Option<(ChunkId, u32)> {
    let (id, number) = key.split_first_chunk::<{ ChunkId::LEN }>()?;
    Some((ChunkId(*id), u32::from_be_bytes(number.try_into().ok()?)))
}

pub(super) fn encode_pack(record: &PackRecord) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(PACK_LEN);
    bytes.extend(record.info.id.as_bytes());
    bytes.extend(record.info.salt);
    bytes.extend(record.info.len.to_le_bytes());
    bytes.extend(record.entries.to_le_bytes());
    bytes
}

pub(super) fn decode_pack(bytes: &[u8]) -> Option<PackRecord> {
    let bytes: &[u8; PACK_LEN] = bytes.try_into().ok()?;
    let (id, rest) = bytes.split_first_chunk()?;
    let (salt, rest) = rest.split_first_chunk()?;
    let (len, rest) = rest.split_first_chunk()?;
    let entries = u64::from_le_bytes(rest.try_into().ok()?);
    Some(PackRecord { info: PackInfo { id: PackId(*id), len: u64::from_le_bytes(*len), salt: *salt }, entries })
}

pub(super) fn encode_counters(counters: &Counters) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&counters.next.to_le_bytes());
    bytes[4..].copy_from_slice(&counters.dead.to_le_bytes());
    bytes
}

pub(super) fn decode_counters(bytes: &[u8]) -> Option<Counters> {
    let (next, dead) = bytes.split_first_chunk()?;
    Some(Counters { next: u32::from_le_bytes(*next), dead: u64::from_le_bytes(dead.try_into().ok()?) })
}

pub(super) fn encode_tag(tag: &IndexTag) -> Vec<u8> {
    let mut bytes = LAYOUT.to_le_bytes().to_vec();
    bytes.extend(tag.format.to_le_bytes());
    bytes.extend(tag.repository.as_bytes());
    bytes.extend(tag.host.as_bytes());
    bytes
}

pub(super) fn decode_tag(bytes: &[u8]) -> Option<IndexTag> {
    let (layout, rest) = bytes.split_first_chunk()?;
    if u32::from_le_bytes(*layout) != LAYOUT {
        return None;
    }
    let (format, rest) = rest.split_first_chunk()?;
    let (repository, host) = rest.split_first_chunk()?;
    Some(IndexTag {
        repository: RepositoryId(*repository),
        host: std::str::from_utf8(host).ok()?.to_owned(),
        format: u32::from_le_bytes(*format),
    })
}

fn put_varint(bytes: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0u64;
    for shift in [0, 7, 14, 21, 28] {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return u32::try_from(value).ok();
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn locations_come_back_and_nothing_else_is_taken_for_one() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 0x7fff_ffff, u32::MAX] {
            let blob = BlobEntry {
                id: ChunkId([7; 32]),
                offset: value,
                stored_len: value / 2,
                raw_len: value,
                number: value / 3,
                kind: 2,
                codec: if value % 2 == 0 { 255 } else { CODEC_DELTA },
                base: (value % 2 == 1).then_some(ChunkId([8; 32])),
            };
            let location = Location { pack: PackNumber(value), blob };
            let bytes = encode_location(&location);
            assert_eq!(decode_location(&blob.id, &bytes), Some(location));
            for len in 0..bytes.len() {
                assert_eq!(decode_location(&blob.id, &bytes[..len]), None, "cut at {len}");
            }
            assert_eq!(decode_location(&blob.id, &[&bytes[..], &[0]].concat()), None);
        }
        assert_eq!(decode_location(&ChunkId([0; 32]), &[0xff; 40]), None);
        assert_eq!(take_varint(&mut &[0xff, 0xff, 0xff, 0xff, 0x1f][..]), None, "more than 32 bits");
    }

    #[test]
    fn copies_sort_by_number() {
        let id = ChunkId([9; 32]);
        assert!(copy_key(&id, 255) < copy_key(&id, 256));
        assert_eq!(decode_copy_key(&copy_key(&id, 77)), Some((id, 77)));
        assert_eq!(decode_copy_key(&[1; 35]), None);
        assert_eq!(decode_copy_key(&[1; 37]), None);
    }

    #[test]
    fn the_small_records_come_back() {
        let record = PackRecord { info: PackInfo { id: PackId([1; 32]), len: u64::MAX - 1, salt: [2; 32] }, entries: 5 };
        assert_eq!(decode_pack(&encode_pack(&record)), Some(record));
        assert_eq!(decode_pack(&[0; 79]), None);
        let counters = Counters { next: 3, dead: 1 << 40 };
        assert_eq!(decode_counters(&encode_counters(&counters)), Some(counters));
        assert_eq!(decode_counters(&[0; 11]), None);
        assert_eq!(decode_counters(&[0; 13]), None);
        let tag = IndexTag { repository: RepositoryId([5; 16]), host: "hôst".into(), format: 1 };
        assert_eq!(decode_tag(&encode_tag(&tag)), Some(tag));
        assert_eq!(decode_tag(b"\x02\0\0\0\x01\0\0\0aaaaaaaaaaaaaaaahost"), None, "another layout");
        assert_eq!(decode_tag(b"\x01\0\0\0\x01\0\0\0aaaa"), None);
    }
}
