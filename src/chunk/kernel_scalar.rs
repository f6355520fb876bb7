//! Candidates without SIMD. The loop for short stretches and the one for processors without a kernel of their own.

use std::ops::Range;

use super::scan::CONTEXT_BYTES;

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

/// All positions of four lanes of `len` bytes, which begin at `starts`.
pub(super) fn hits(gear: &[u32; 256], bytes: &[u8], starts: [usize; LANES], len: usize, limit: u32, found: &mut dyn FnMut(usize, u32)) {
    let [mut a, mut b, mut c, mut d] = starts.map(|start| warm(gear, bytes, start));
    let [in_a, in_b, in_c, in_d] = starts.map(|start| &bytes[start..start + len]);
    let add = |hash: u32, byte: &u8| (hash << 1).wrapping_add(gear[usize::from(*byte)]);
    for (step, (((byte_a, byte_b), byte_c), byte_d)) in in_a.iter().zip(in_b).zip(in_c).zip(in_d).enumerate() {
        (a, b, c, d) = (add(a, byte_a), add(b, byte_b), add(c, byte_c), add(d, byte_d));
        if a.min(b).min(c).min(d) < limit {
            for (start, hash) in starts.into_iter().zip([a, b, c, d]) {
                if hash < limit {
                    found(start + step, hash);
                }
            }
        }
    }
}
