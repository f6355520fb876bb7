//! Candidates with AVX-512 VBMI: sixteen lanes, each with a hash of 32 bits, and the gear table in registers.
//!
//! A step takes 16 bytes of each lane. They are regrouped until each vector holds four bytes of all lanes; the low half of
//! the gear table, split into four planes of bytes, is looked up for 64 bytes at once; the planes are woven together to the
//! 32-bit entries of one position of all lanes; these are added up. Of the 256 hashes of a step only the lowest per lane is
//! kept: a lane in which it is low enough is walked again, which is seldom.

#![allow(unsafe_code)]

use std::arch::x86_64::*;

use super::kernel_scalar::tell;
use super::scan::{LANE_CONTEXT_BYTES, STEP_BYTES};

/// Places that are hashed at once.
pub(super) const LANES: usize = 16;

/// The low half of the gear table: for each byte of an entry, and each quarter of the table, 64 bytes.
#[repr(align(64))]
pub(super) struct Planes([[[u8; 64]; 4]; 4]);

impl Planes {
    pub(super) fn new(gear: &[u32; 256]) -> Self {
        Self(std::array::from_fn(|plane| {
            std::array::from_fn(|quarter| std::array::from_fn(|i| gear[quarter * 64 + i].to_le_bytes()[plane]))
        }))
    }
}

/// Whether this processor has what the kernel needs.
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vbmi")
}

/// Calls `found` with the positions whose hash is below `limit`, in sixteen lanes of `len` bytes that begin at `starts`.
/// `len` is a multiple of [`STEP_BYTES`], and 32 bytes stand before each lane.
pub(super) fn hits(
    planes: &Planes,
    gear: &[u32; 256],
    bytes: &[u8],
    starts: [usize; LANES],
    len: usize,
    limit: u32,
    found: &mut dyn FnMut(usize, u32),
) {
    assert!(is_available() && len.is_multiple_of(STEP_BYTES));
    assert!(starts.iter().all(|start| *start >= LANE_CONTEXT_BYTES && start.checked_add(len).is_some_and(|end| end <= bytes.len())));
    // SAFETY: the processor has the features that `lanes` is compiled for, and all lanes, with what warms them, lie within
    // `bytes`: both were checked just now.
    unsafe { lanes(planes, gear, bytes, starts, len, limit, found) }
}

/// # Safety
///
/// Each of `starts` is at least [`LANE_CONTEXT_BYTES`] and at most `bytes.len() - len`; `len` is a multiple of [`STEP_BYTES`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
unsafe fn lanes(
    planes: &Planes,
    gear: &[u32; 256],
    bytes: &[u8],
    starts: [usize; LANES],
    len: usize,
    limit: u32,
    found: &mut dyn FnMut(usize, u32),
) {
    let tables = Tables::load(planes);
    let bound = _mm512_set1_epi32(limit.cast_signed());
    let mut hash = _mm512_setzero_si512();
    let base = starts.map(|start| start - LANE_CONTEXT_BYTES);
    for at in (0..LANE_CONTEXT_BYTES).step_by(STEP_BYTES) {
        // SAFETY: `base + at + STEP_BYTES` is at most the lane's start, which is within `bytes`.
        let input = unsafe { transposed(bytes, &base, at) };
        for four in input {
            for entry in tables.entries(four) {
                hash = _mm512_add_epi32(_mm512_add_epi32(hash, hash), entry);
            }
        }
    }
    for at in (0..len).step_by(STEP_BYTES) {
        // SAFETY: `at + STEP_BYTES` is at most `len`, and each start plus `len` at most `bytes.len()`.
        let input = unsafe { transposed(bytes, &starts, at) };
        let before = hash;
        let mut lowest = _mm512_set1_epi32(-1);
        for four in input {
            for entry in tables.entries(four) {
                hash = _mm512_add_epi32(_mm512_add_epi32(hash, hash), entry);
                lowest = _mm512_min_epu32(lowest, hash);
            }
        }
        let low = _mm512_cmplt_epu32_mask(lowest, bound);
        if low != 0 {
            let mut hashes = [0; LANES];
            // SAFETY: the array is as long as the vector.
            unsafe { _mm512_storeu_si512(hashes.as_mut_ptr().cast(), before) };
            walk_again(gear, bytes, &starts, at, hashes, low, limit, found);
        }
    }
}

/// Tells the hits of one step, in the lanes that `low` has a bit for. `before` are the hashes of what stands before it.
#[cold]
#[inline(never)]
#[allow(clippy::too_many_arguments)]
fn walk_again(
    gear: &[u32; 256],
    bytes: &[u8],
    starts: &[usize; LANES],
    at: usize,
    before: [u32; LANES],
    low: u16,
    limit: u32,
    found: &mut dyn FnMut(usize, u32),
) {
    for lane in (0..LANES).filter(|lane| low >> lane & 1 == 1) {
        let start = starts[lane] + at;
        if let Some(step) = bytes[start..].first_chunk() {
            tell(gear, step, start, before[lane], limit, found);
        }
    }
}

/// 16 bytes of each lane as four vectors: four bytes of lane 0, of lane 1, and so on; then the next four.
///
/// # Safety
///
/// 16 bytes from `starts[lane] + at` on lie within `bytes`, for each lane.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn transposed(bytes: &[u8], starts: &[usize; LANES], at: usize) -> [__m512i; 4] {
    // SAFETY: as the caller promises.
    let load = |lane: usize| unsafe { _mm_loadu_si128(bytes.as_ptr().add(starts[lane] + at).cast()) };
    // Lane 4 q + i of the input is quarter q of row i.
    let row = |i: usize| {
        let row = _mm512_castsi128_si512(load(i));
        let row = _mm512_inserti32x4::<1>(row, load(4 + i));
        let row = _mm512_inserti32x4::<2>(row, load(8 + i));
        _mm512_inserti32x4::<3>(row, load(12 + i))
    };
    let (a, b, c, d) = (row(0), row(1), row(2), row(3));
    let (ab_low, ab_high) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
    let (cd_low, cd_high) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
    [
        _mm512_unpacklo_epi64(ab_low, cd_low),
        _mm512_unpackhi_epi64(ab_low, cd_low),
        _mm512_unpacklo_epi64(ab_high, cd_high),
        _mm512_unpackhi_epi64(ab_high, cd_high),
    ]
}

/// The planes in registers.
struct Tables {
    planes: [[__m512i; 4]; 4],
    /// Within four lanes of four bytes: the first bytes of all, the second ones, and so on.
    by_position: __m512i,
}

impl Tables {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(planes: &Planes) -> Self {
        // SAFETY: each is 64 bytes, and aligned as a part of an aligned array.
        let load = |plane: usize, quarter: usize| unsafe { _mm512_load_si512(planes.0[plane][quarter].as_ptr().cast()) };
        let plane = |i: usize| [load(i, 0), load(i, 1), load(i, 2), load(i, 3)];
        let planes = [plane(0), plane(1), plane(2), plane(3)];
        let by_position = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
        Self { planes, by_position }
    }

    /// The gear entries of four bytes of each lane: one vector for each position.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn entries(&self, four: __m512i) -> [__m512i; 4] {
        let index = _mm512_shuffle_epi8(four, self.by_position);
        let upper = _mm512_movepi8_mask(index);
        // Closures are compiled for the features of the function that they stand in; `map` and its like are not.
        let plane = |i: usize| {
            let [first, second, third, fourth] = self.planes[i];
            let low = _mm512_permutex2var_epi8(first, index, second);
            let high = _mm512_permutex2var_epi8(third, index, fourth);
            _mm512_mask_blend_epi8(upper, low, high)
        };
        let (a, b, c, d) = (plane(0), plane(1), plane(2), plane(3));
        let (ab_low, ab_high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
        [
            _mm512_unpacklo_epi16(ab_low, cd_low),
            _mm512_unpackhi_epi16(ab_low, cd_low),
            _mm512_unpacklo_epi16(ab_high, cd_high),
            _mm512_unpackhi_epi16(ab_high, cd_high),
        ]
    }
}
