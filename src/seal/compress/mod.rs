//! zstd with contexts that each thread keeps: chunks alone, chunks against another chunk (their base), and raw where
//! neither pays. The only door to the zstd crate.
//!
//! A delta is what Meta's zstd calls compression with a raw-content dictionary: the frame may copy from the base as if it
//! stood right before the chunk, so what did not change costs a few bytes a stretch. The window covers base and chunk. Where
//! most of a chunk stands where it stood, what to copy is found by place (`places`), else by zstd's own search.

mod places;
mod sequences;

use std::cell::RefCell;

use zstd::zstd_safe::{self, CCtx, DCtx};

use places::Places;
use sequences::SequenceEncoder;

use crate::error::{Error, ErrorKind, Result};

/// The default level: the best of time and size on database pages and system files.
pub const LEVEL_DEFAULT: i32 = 3;
/// The level that deltas are made at. Most of a delta is long copies, which every level finds.
const DELTA_LEVEL: i32 = 3;
/// Shorter chunks are no bases: nothing is to be gained, and zstd passes over the shortest.
const BASE_BYTES_MIN: usize = 64;
/// Longer ones neither: zstd's tables at the level of deltas forget the beginning of what is longer than this and the chunk.
const BASE_BYTES_MAX: usize = 512 << 10;
/// A chunk that begins so is no base: zstd would take it for a dictionary in its own format.
const DICTIONARY_MAGIC: [u8; 4] = 0xEC30_A437_u32.to_le_bytes();

thread_local! {
    static COMPRESSOR: RefCell<Option<CCtx<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<DCtx<'static>>> = const { RefCell::new(None) };
    static BY_PLACE: RefCell<Option<(Places, SequenceEncoder)>> = const { RefCell::new(None) };
}

/// Compresses `raw` at `level` into `out` (cleared first). `false` when that saves less than 1/32: `out` is then of no use
/// and the chunk is to be stored raw.
pub fn compress(raw: &[u8], level: i32, out: &mut Vec<u8>) -> Result<bool> {
    let len = with_compressor(raw, out, |context, out| context.compress(out, raw, level))?;
    Ok(len < raw.len() - raw.len() / 32)
}

/// Compresses `raw` against `base`, which must be fit to be one ([`can_be_base`]), into `out` (cleared first); returns the
/// frame's length.
pub fn delta(raw: &[u8], base: &[u8], out: &mut Vec<u8>) -> Result<usize> {
    if let Some(len) = delta_by_place(raw, base, out)? {
        return Ok(len);
    }
    with_compressor(raw, out, |context, out| context.compress_using_dict(out, raw, base, DELTA_LEVEL))
}

/// Likewise, of what stands where it stood; none when that is too little.
fn delta_by_place(raw: &[u8], base: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>> {
    BY_PLACE.with(|slot| {
        let mut slot = slot.borrow_mut();
        let (places, encoder) = match &mut *slot {
            Some(kept) => kept,
            none => none.insert((Places::default(), SequenceEncoder::new(DELTA_LEVEL).ok_or_else(|| cannot_compress("out of memory"))?)),
        };
        let Some(found) = places.find(raw, base) else { return Ok(None) };
        out.clear();
        out.reserve(zstd_safe::compress_bound(raw.len()));
        encoder.encode(raw, base.len(), found, out).map(Some).map_err(cannot_compress)
    })
}

fn cannot_compress(why: &str) -> Error {
    Error::new(ErrorKind::Storage, "zstd cannot compress").because(why.to_owned())
}

/// Whether deltas may be made against a chunk.
pub fn can_be_base(raw: &[u8]) -> bool {
    (BASE_BYTES_MIN..=BASE_BYTES_MAX).contains(&raw.len()) && !raw.starts_with(&DICTIONARY_MAGIC)
}

/// Decompresses one frame that must give exactly `raw_len` bytes. `raw_len` is authenticated and bounded by the caller.
pub fn decompress(frame: &[u8], raw_len: usize) -> Result<Vec<u8>> {
    with_decompressor(raw_len, |context, raw| context.decompress(raw, frame))
}

/// Undoes [`delta`]; `raw_len` as for [`decompress`].
pub fn undelta(frame: &[u8], base: &[u8], raw_len: usize) -> Result<Vec<u8>> {
    if !can_be_base(base) {
        return Err(Error::damaged("a delta names a chunk that can't be a base"));
    }
    with_decompressor(raw_len, |context, raw| context.decompress_using_dict(raw, frame, base))
}

/// Whether a frame gives `raw`: alone, or against `base`.
pub fn reads_back(frame: &[u8], base: Option<&[u8]>, raw: &[u8]) -> Result<bool> {
    thread_local! {
        static DECODED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    DECODED.with(|decoded| {
        let decoded = &mut *decoded.borrow_mut();
        decoded.clear();
        decoded.reserve(raw.len());
        with_context(|context| match base {
            Some(base) => context.decompress_using_dict(decoded, frame, base),
            None => context.decompress(decoded, frame),
        })
        .map(|outcome| outcome.is_ok() && decoded == raw)
    })
}

fn with_compressor(
    raw: &[u8],
    out: &mut Vec<u8>,
    compress: impl FnOnce(&mut CCtx<'static>, &mut Vec<u8>) -> zstd_safe::SafeResult,
) -> Result<usize> {
    out.clear();
    out.reserve(zstd_safe::compress_bound(raw.len()));
    COMPRESSOR.with(|slot| {
        let mut slot = slot.borrow_mut();
        let context = match &mut *slot {
            Some(context) => context,
            none => none.insert(CCtx::try_create().ok_or_else(|| cannot_compress("out of memory"))?),
        };
        compress(context, out).map_err(|code| cannot_compress(zstd_safe::get_error_name(code)))
    })
}

fn with_decompressor(
    raw_len: usize,
    decompress: impl FnOnce(&mut DCtx<'static>, &mut Vec<u8>) -> zstd_safe::SafeResult,
) -> Result<Vec<u8>> {
    let mut raw = Vec::with_capacity(raw_len);
    let len = with_context(|context| decompress(context, &mut raw))?
        .map_err(|code| Error::damaged("compressed bytes do not decompress").because(zstd_safe::get_error_name(code).to_owned()))?;
    if len != raw_len {
        return Err(Error::damaged(format!("a chunk decompressed to {len} bytes instead of {raw_len}")));
    }
    Ok(raw)
}

/// The outer error is one of this machine, the inner one of the frame.
fn with_context<T>(decompress: impl FnOnce(&mut DCtx<'static>) -> T) -> Result<T> {
    DECOMPRESSOR.with(|slot| {
        let mut slot = slot.borrow_mut();
        let context = match &mut *slot {
            Some(context) => context,
            none => none.insert(DCtx::try_create().ok_or_else(|| Error::new(ErrorKind::Storage, "zstd cannot start"))?),
        };
        Ok(decompress(context))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut noise = vec![0; len];
        super::super::random(&mut noise).unwrap();
        noise
    }

    #[test]
    fn compresses_what_is_compressible_and_says_no_to_the_rest() {
        let text = b"all work and no play ".repeat(500);
        let mut out = Vec::new();
        for level in [1, 3, 19] {
            assert!(compress(&text, level, &mut out).unwrap());
            assert!(out.len() < 200);
            assert_eq!(decompress(&out, text.len()).unwrap(), text);
            assert!(decompress(&out, text.len() - 1).is_err());
            assert!(decompress(&out, text.len() + 1).is_err());
        }
        assert!(!compress(&noise(10_000), 3, &mut out).unwrap());
        assert!(decompress(b"not a frame", 10).is_err());
    }

    #[test]
    fn the_whole_of_the_longest_base_is_reachable() {
        // What does not compress can only come out short where it is copied from the base.
        for (base_len, raw_len) in
            [(256 << 10, 256 << 10), (256 << 10, 16 << 10), (BASE_BYTES_MAX, BASE_BYTES_MAX), (BASE_BYTES_MAX, 8 << 10)]
        {
            let base = noise(base_len);
            let mut out = Vec::new();
            // Copies: where the two overlap in memory, zstd passes over the base.
            for raw in [base[..raw_len].to_vec(), base[base_len - raw_len..].to_vec()] {
                let len = delta(&raw, &base, &mut out).unwrap();
                assert!(len < raw_len / 32 + 64, "{len} bytes for {raw_len} that stand in a base of {base_len}");
                assert_eq!(undelta(&out, &base, raw_len).unwrap(), raw);
            }
        }
    }

    #[test]
    fn a_delta_needs_its_own_base() {
        let base = noise(50_000);
        let mut raw = base.clone();
        raw[20_000..20_100].fill(7);
        let mut out = Vec::new();
        assert!(delta(&raw, &base, &mut out).unwrap() < 200);
        assert_eq!(undelta(&out, &base, raw.len()).unwrap(), raw);
        assert_ne!(undelta(&out, &noise(50_000), raw.len()).ok(), Some(raw.clone()));
        assert!(reads_back(&out, Some(&base), &raw).unwrap() && !reads_back(&out, None, &raw).unwrap());
        assert!(!reads_back(&out, Some(&base), &base).unwrap());
        assert!(undelta(&out, &base[..100], raw.len()).is_err());
        assert!(undelta(&out, &[], raw.len()).is_err());
        assert!(decompress(&out, raw.len()).is_err());
    }

    #[test]
    fn what_looks_like_a_dictionary_is_no_base() {
        let mut base = noise(1000);
        base[..4].copy_from_slice(&[0x37, 0xa4, 0x30, 0xec]);
        assert!(!can_be_base(&base));
        assert!(undelta(b"whatever", &base, 10).is_err());
        assert!(!can_be_base(&[1; BASE_BYTES_MIN - 1]) && can_be_base(&[1; BASE_BYTES_MIN]));
    }

    proptest! {
        #[test]
        fn deltas_read_back(base in prop::collection::vec(0u8..4, 64..5000), edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..300, prop::collection::vec(any::<u8>(), 0..300)), 0..6)) {
            let mut raw = base.clone();
            for (at, removed, inserted) in edits {
                let at = at.index(raw.len() + 1);
                let end = raw.len().min(at + removed);
                raw.splice(at..end, inserted);
            }
            let mut out = Vec::new();
            delta(&raw, &base, &mut out).unwrap();
            prop_assert_eq!(undelta(&out, &base, raw.len()).unwrap(), raw);
        }
    }
}
