//! Which parts of a file an archive stores. Small holes and ragged edges are stored as zeros: readers of sparse archives
//! take the parts in blocks of 512 bytes, and a part costs a line of the map.

use crate::error::Result;

use super::{Content, Piece, content};

/// Blocks of an archive.
pub(super) const BLOCK_BYTES: u64 = 512;
/// Holes shorter than this are stored as zeros.
const HOLE_BYTES_MIN: u64 = 4096;
/// The most parts of one file (16 MiB of memory); holes behind the last of them are stored as zeros.
const PARTS_MAX: usize = 1 << 20;
/// Zeros are written in strokes of this size.
const ZEROS: [u8; 4096] = [0; 4096];

/// The stored parts of a file: in order, apart, each starting at a block boundary and ending at one or with the file.
pub(super) struct Parts {
    parts: Vec<(u64, u64)>,
    len: u64,
}

impl Parts {
    pub(super) fn of(content: &dyn Content) -> Result<Self> {
        let len = content.len();
        let mut parts: Vec<(u64, u64)> = Vec::new();
        content::in_order(content, |piece| {
            if !piece.hole && piece.len > 0 {
                let start = piece.offset / BLOCK_BYTES * BLOCK_BYTES;
                let end = (piece.offset + piece.len).checked_next_multiple_of(BLOCK_BYTES).map_or(len, |end| end.min(len));
                let many = parts.len() >= PARTS_MAX;
                match parts.last_mut() {
                    Some(last) if many || start < last.1.saturating_add(HOLE_BYTES_MIN) => last.1 = end,
                    _ => parts.push((start, end)),
                }
            }
            Ok(())
        })?;
        // A short hole at either end is not worth a map.
        if let Some(first) = parts.first_mut().filter(|first| first.0 < HOLE_BYTES_MIN) {
            first.0 = 0;
        }
        if let Some(last) = parts.last_mut().filter(|last| len - last.1 < HOLE_BYTES_MIN) {
            last.1 = len;
        }
        if parts.is_empty() && len < HOLE_BYTES_MIN {
            parts.push((0, len));
        }
        Ok(Self { parts, len })
    }

    /// Whether there is a hole at all.
    pub(super) fn is_sparse(&self) -> bool {
        self.parts != [(0, self.len)]
    }

    /// Bytes in the parts.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.parts.iter().map(|(start, end)| end - start).sum()
    }

    /// The map that stands before the parts of a sparse entry (GNU format 1.0): decimal lines, padded to a block.
    pub(super) fn map(&self) -> Vec<u8> {
        let trailing = self.parts.last().is_none_or(|last| last.1 < self.len);
        let mut text = format!("{}\n", self.parts.len() + usize::from(trailing));
        for (start, end) in &self.parts {
            text.push_str(&format!("{start}\n{}\n", end - start));
        }
        if trailing {
            // An empty part tells where the file ends.
            text.push_str(&format!("{}\n0\n", self.len));
        }
        let mut bytes = text.into_bytes();
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES as usize), 0);
        bytes
    }

    /// Gives the bytes of all parts, in order.
    pub(super) fn bytes(&self, content: &dyn Content, mut give: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut left = self.parts.as_slice();
        content::parts_in_order(content, |part| {
            let pieces = part.pieces().to_vec();
            let data: Vec<usize> = (0..pieces.len()).filter(|&number| !pieces[number].hole).collect();
            let mut next = 0;
            part.read(&data, &mut |number, bytes| {
                pieces.get(next..number).unwrap_or_default().iter().try_for_each(|hole| zeros_of(&mut left, *hole, &mut give))?;
                next = number + 1;
                give(&bytes)
            })?;
            pieces.get(next..).unwrap_or_default().iter().try_for_each(|hole| zeros_of(&mut left, *hole, &mut give))
        })
    }
}

/// Gives as many zeros as a hole has bytes inside of parts.
fn zeros_of(left: &mut &[(u64, u64)], hole: Piece, give: &mut impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let end = hole.offset + hole.len;
    while let Some((start, part_end)) = left.first().copied().filter(|part| part.0 < end) {
        let mut zeros = part_end.min(end).saturating_sub(start.max(hole.offset));
        while zeros > 0 {
            let step = zeros.min(ZEROS.len() as u64);
            give(&ZEROS[..step as usize])?;
            zeros -= step;
        }
        if part_end > end {
            break;
        }
        *left = &left[1..];
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::testing::MemoryContent;
    use super::*;

    fn stored(content: &MemoryContent) -> (Parts, Vec<u8>) {
        let parts = Parts::of(content).unwrap();
        let mut bytes = Vec::new();
        parts
            .bytes(content, |more| {
                bytes.extend_from_slice(more);
                Ok(())
            })
            .unwrap();
        assert_eq!(bytes.len() as u64, parts.stored_bytes());
        (parts, bytes)
    }

    #[test]
    fn short_holes_and_edges_are_stored_as_zeros() {
        let content = MemoryContent::new().hole(700).data(b"abc").hole(1000).data(b"def").hole(100);
        let (parts, bytes) = stored(&content);
        assert!(!parts.is_sparse());
        assert_eq!(bytes, content.bytes());
    }

    #[test]
    fn parts_start_and_end_at_blocks() {
        let content = MemoryContent::new().hole(5000).data(&[1; 100]).hole(10_000).data(&[2; 1000]).hole(9000);
        let (parts, bytes) = stored(&content);
        assert_eq!(parts.parts, [(4608, 5120), (14848, 16384)]);
        let whole = content.bytes();
        assert_eq!(bytes, [&whole[4608..5120], &whole[14848..16384]].concat());
        assert!(parts.map().starts_with(b"3\n4608\n512\n14848\n1536\n25100\n0\n\0"));
        assert_eq!(parts.map().len(), 512);
    }

    #[test]
    fn a_file_of_one_hole_and_an_empty_file() {
        let (parts, bytes) = stored(&MemoryContent::new().hole(1 << 40));
        assert!(parts.is_sparse() && bytes.is_empty());
        assert!(parts.map().starts_with(b"1\n1099511627776\n0\n"));
        assert!(!stored(&MemoryContent::new()).0.is_sparse());
        assert_eq!(stored(&MemoryContent::new().hole(100)).1, [0; 100]);
    }
}
