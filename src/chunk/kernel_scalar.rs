//! Candidates without SIMD. The loop for short stretches and the one for processors without a kernel of their own.

use std::ops::Range;

use super::scan::{CONTEXT_BYTES, STEP_BYTES};

/// Places that are hashed at once: enough to hide the latency of a sum, few enough for the registers.
pub(super) const LANES: usize = 4;

/// One position after the other. `range` begins at 31 or later.
pub(super) fn walk(gear: &[u32; 256], bytes: &[u8], range: Range<usize>, limit: u32, found: &mut dyn FnMut(usize, u32)) {
    let mut hash = warm(gear, bytes, range.start);
    for (position, &byte) in range.clone().zip(&bytes[range]) {
        hash = (hash << 1).wrapping_add(gear[usize::from(byte)]);
        if hash < limit {
            found(position, hash);
        }
    }
}

/// The hash of the bytes before `position`.
fn warm(gear: &[u32; 256], bytes: &[u8], position: usize) -> u32 {
    let context = &bytes[position - CONTEXT_BYTES..position];
    context.iter().fold(0, |hash: u32, &byte| (hash << 1).wrapping_add(gear[usize::from(byte)]))
}

/// All positions of four lanes of `len` bytes, a multiple of [`STEP_BYTES`], which begin at `starts`.
pub(super) fn hits(gear: &[u32; 256], bytes: &[u8], starts: [usize; LANES], len: usize, limit: u32, found: &mut dyn FnMut(usize, u32)) {
    let mut hashes = starts.map(|start| warm(gear, bytes, start));
    let [a, b, c, d] = starts.map(|start| bytes[start..start + len].as_chunks::<STEP_BYTES>().0);
    for (step, (((a, b), c), d)) in a.iter().zip(b).zip(c).zip(d).enumerate() {
        let lanes = [a, b, c, d];
        match advance(gear, hashes, lanes, limit) {
            Some(after) => hashes = after,
            None => {
                for ((hash, start), lane) in hashes.iter_mut().zip(starts).zip(lanes) {
                    *hash = tell(gear, lane, start + step * STEP_BYTES, *hash, limit, found);
                }
            }
        }
    }
}

/// The hashes after a step of each lane. None when one on the way was a hit: a branch that is hardly ever taken costs less
/// than to remember whether there was one.
#[inline]
fn advance(gear: &[u32; 256], mut hashes: [u32; LANES], lanes: [&[u8; STEP_BYTES]; LANES], limit: u32) -> Option<[u32; LANES]> {
    for i in 0..STEP_BYTES {
        for (hash, lane) in hashes.iter_mut().zip(lanes) {
            *hash = (*hash << 1).wrapping_add(gear[usize::from(lane[i])]);
            if *hash < limit {
                return None;
            }
        }
    }
    Some(hashes)
}

/// Walks a step again, to tell which of its positions are hits. `hash` is that of what stands before it; the one at its end comes back.
#[cold]
#[inline(never)]
pub(super) fn tell(
    gear: &[u32; 256],
    step: &[u8; STEP_BYTES],
    start: usize,
    mut hash: u32,
    limit: u32,
    found: &mut dyn FnMut(usize, u32),
) -> u32 {
    for (position, &byte) in (start..).zip(step) {
        hash = (hash << 1).wrapping_add(gear[usize::from(byte)]);
        if hash < limit {
            found(position, hash);
        }
    }
    hash
}
