//! The parts of a pack.

use icecore::model::{PackId, hash};
use icecore::pack::reader::{Footer, Sections, parse_index};
use icecore::pack::{BLOB_BYTES_MAX, HEADER_BYTES, Header, PACK_BYTES_MAX, TRAILER_BYTES, builder};
use icecore::seal::{TAG_BYTES, compress};

/// A header has one spelling.
pub(super) fn header(bytes: &[u8]) -> bool {
    let Ok(bytes) = <&[u8; HEADER_BYTES]>::try_from(bytes) else { return false };
    let Ok(header) = Header::decode(bytes) else { return false };
    assert_eq!(header.encode(), *bytes, "a header came back different");
    true
}

/// An index has one spelling too, and names no byte outside of its pack.
pub(super) fn index(bytes: &[u8]) -> bool {
    let blobs_end = PACK_BYTES_MAX;
    let Ok(entries) = parse_index(bytes, blobs_end) else { return false };
    assert_eq!(builder::encode_index(&entries), bytes, "an index came back different");
    for entry in &entries {
        assert!(entry.stored_len as usize <= BLOB_BYTES_MAX && entry.raw_len as usize <= BLOB_BYTES_MAX);
        assert!(u64::from(entry.offset) + u64::from(entry.stored_len) <= blobs_end);
    }
    true
}

/// 8 bytes of pack length, then a trailer whose check is computed anew.
pub(super) fn trailer(bytes: &[u8]) -> bool {
    let Some((len, bytes)) = bytes.split_first_chunk() else { return false };
    let Ok(mut trailer) = <[u8; TRAILER_BYTES]>::try_from(bytes) else { return false };
    let len = u64::from_le_bytes(*len);
    let mut named = [0; 32];
    named.copy_from_slice(&trailer[28..60]);
    let _ = Sections::parse(&trailer, len, &PackId(named));
    mend_trailer(&mut trailer, None);
    let Ok(sections) = Sections::parse(&trailer, len, &PackId(named)) else { return false };
    assert!(sections.index_offset <= sections.scrub_offset && sections.scrub_offset <= sections.trailer_offset);
    assert!(sections.index_offset >= HEADER_BYTES as u64 && sections.trailer_offset + TRAILER_BYTES as u64 == len);
    true
}

/// A whole pack; its name and its trailer's check are computed anew, its index is taken as if it opened.
pub(super) fn pack(bytes: &[u8]) -> bool {
    let Some((body, trailer)) = bytes.split_last_chunk::<TRAILER_BYTES>() else { return false };
    let Some(header) = body.first_chunk::<HEADER_BYTES>() else { return false };
    let mut trailer = *trailer;
    let field = |at: usize| trailer[at..at + 4].iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte));
    let (index_offset, scrub_offset) = (field(4), field(12));
    let Some(tail) = body.get(index_offset..) else { return false };
    let Some((index, scrub)) = scrub_offset.checked_sub(index_offset).and_then(|at| tail.split_at_checked(at)) else { return false };
    let id = PackId(hash::hash(&[header, index, scrub]));
    mend_trailer(&mut trailer, Some(&id));
    let Ok(sections) = Sections::parse(&trailer, bytes.len() as u64, &id) else { return false };
    let open = |_: &Header, _: &[u8], index: &mut [u8]| Ok(index.len().saturating_sub(TAG_BYTES));
    let Ok(footer) = Footer::read(&sections, header, &mut tail.to_vec(), open) else { return false };
    let covered = usize::try_from(footer.covered_bytes()).expect("a pack fits in memory");
    footer.scrub(&body[..covered]).is_empty()
}

fn mend_trailer(trailer: &mut [u8; TRAILER_BYTES], id: Option<&PackId>) {
    if let Some(id) = id {
        trailer[28..60].copy_from_slice(id.as_bytes());
    }
    let check = hash::hash(&[&trailer[..TRAILER_BYTES - 4]]);
    trailer[TRAILER_BYTES - 4..].copy_from_slice(&check[..4]);
}

/// A frame that is decoded against a base: the base's length (2 bytes), the chunk's (2), the base, the frame. What decodes can
/// be encoded against the same base and comes back the same.
pub(super) fn undelta(bytes: &[u8]) -> bool {
    let Some((lengths, rest)) = bytes.split_first_chunk::<4>() else { return false };
    let [base_len, raw_len] = [[lengths[0], lengths[1]], [lengths[2], lengths[3]]].map(|len| usize::from(u16::from_le_bytes(len)));
    let Some((base, frame)) = rest.split_at_checked(base_len) else { return false };
    let Ok(raw) = compress::undelta(frame, base, raw_len) else { return false };
    assert_eq!(raw.len(), raw_len);
    let mut ours = Vec::new();
    compress::delta(&raw, base, &mut ours).expect("what was decoded can be encoded");
    assert_eq!(compress::undelta(&ours, base, raw_len).expect("what we wrote"), raw);
    assert!(compress::reads_back(&ours, Some(base), &raw).expect("zstd starts"));
    true
}
