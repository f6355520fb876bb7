//! Stage two: one chunk after the other, the first candidate that the chunk's length allows.

use std::ops::Range;

use super::profile::Profile;
use super::scan::{CONTEXT_BYTES, Candidates, Chunker, Kernel, block_end};

/// A chunk is looked for in blocks, a quarter of the average long: most of what is hashed in vain is what lies behind the end
/// of the chunk in its last block. An odd number of cache lines for each of sixteen lanes, so that they do not meet in the
/// same set of the cache.
const CUT_BLOCK_BYTES_MAX: usize = 16 * 33 * 64;

impl Chunker {
    /// Length of the first chunk of `bytes`. `bytes` must hold at least `profile.max` bytes, or the whole rest of the stream.
    pub fn cut(&self, profile: &Profile, bytes: &[u8]) -> usize {
        if self.kernel == Kernel::Scalar {
            return self.cut_by_crate(profile, bytes);
        }
        let len = bytes.len().min(profile.max);
        if len <= profile.min {
            return len;
        }
        // Positions are tested in pairs, here as in the crate: the last byte of an odd rest is not.
        let warm = (profile.min + CONTEXT_BYTES).min(len & !1);
        self.first_cold(profile, bytes, profile.min..warm).or_else(|| self.first_warm(profile, bytes, warm..len & !1)).unwrap_or(len)
    }

    /// What all others must agree with.
    pub(super) fn cut_by_crate(&self, profile: &Profile, bytes: &[u8]) -> usize {
        let (small, large) = profile.masks();
        let (min, average, max) = (profile.min, profile.average, profile.max);
        fastcdc::v2020::cut_gear(bytes, min, average, max, small, large, small << 1, large << 1, &self.gear[..], &self.gear_shifted[..]).1
    }

    /// The first end of a chunk among the positions where the hash depends on where the chunk began: those from its `min` on.
    fn first_cold(&self, profile: &Profile, chunk: &[u8], positions: Range<usize>) -> Option<usize> {
        let mut hash = 0u32;
        positions.into_iter().find(|&position| {
            hash = (hash << 1).wrapping_add(self.low[usize::from(chunk[position])]);
            hash < profile.limit(position)
        })
    }

    /// The first end of a chunk among positions that the hash is warm at.
    fn first_warm(&self, profile: &Profile, chunk: &[u8], positions: Range<usize>) -> Option<usize> {
        let mut at = positions.start;
        while at < positions.end {
            let (to, limit) = (if at < profile.average { positions.end.min(profile.average) } else { positions.end }, profile.limit(at));
            let end = block_end(at, to, (profile.average / 4).min(CUT_BLOCK_BYTES_MAX));
            let mut first = None;
            self.hits(chunk, at..end, limit, &mut |position, _| first = Some(first.map_or(position, |other: usize| other.min(position))));
            if first.is_some() {
                return first;
            }
            at = end;
        }
        None
    }
}

/// A piece of a stream that was scanned, and what of the stream stands before it in memory.
#[derive(Debug, Clone, Copy)]
pub struct Window<'a> {
    /// Bytes of the stream, in order.
    pub bytes: &'a [u8],
    /// Candidates of a part of these bytes: of all from `scanned_from` on, or fewer.
    pub candidates: &'a Candidates,
    /// Where in `bytes` the positions of the candidates count from. What stands before it, such as the unfinished chunk of
    /// the last window that was copied here, may have been scanned or not.
    pub scanned_from: usize,
    /// Whether the stream, or what may be cut of it in one piece (up to a hole), ends with `bytes`.
    pub is_last: bool,
}

impl Window<'_> {
    /// Length of the chunk that begins at `bytes[start]`: what [`Chunker::cut`] says of the whole stream from there. None when
    /// that needs more bytes than there are: then the window that follows must hold those from `start` on again; and at the
    /// end. A position that was not scanned is looked at here, so candidates that lack some, or are those of another
    /// profile, cost time and change nothing. Candidates of other bytes do.
    pub fn next_cut(&self, chunker: &Chunker, profile: &Profile, start: usize) -> Option<usize> {
        let rest = self.bytes.get(start..).filter(|rest| !rest.is_empty())?;
        let len = rest.len().min(profile.max);
        let whole = (self.is_last || rest.len() >= profile.max).then_some(len);
        if len <= profile.min {
            return whole;
        }
        // Whether an even position at the very end counts is known only when the byte after it is.
        let end = len & !1;
        let warm = (profile.min + CONTEXT_BYTES).min(end);
        if let Some(cut) = chunker.first_cold(profile, rest, profile.min..warm) {
            return Some(cut);
        }
        // What was scanned, as positions in this chunk.
        let begin = start as isize - self.scanned_from as isize;
        let in_chunk = |position: usize| (position as isize - begin).clamp(warm as isize, end as isize) as usize;
        let scanned = self.candidates.scanned(profile);
        let (from, to) = (in_chunk(scanned.start), in_chunk(scanned.end));
        let in_window = |position: usize| (position as isize + begin) as usize;
        chunker
            .first_warm(profile, rest, warm..from)
            .or_else(|| {
                let range = if from < to { in_window(from)..in_window(to) } else { 0..0 };
                self.candidates.first(profile, range, begin).map(|position| (position as isize - begin) as usize)
            })
            .or_else(|| chunker.first_warm(profile, rest, to..end))
            .or(whole)
    }
}
