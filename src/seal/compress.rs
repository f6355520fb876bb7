//! zstd with contexts that each thread keeps, and raw where it does not pay. The only door to the zstd crate.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::error::{Error, ErrorKind, Result};

/// The default level: the best of time and size on database pages and system files.
pub const LEVEL_DEFAULT: i32 = 3;

thread_local! {
    static COMPRESSOR: RefCell<Option<(i32, Compressor<'static>)>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses `raw` at `level` into `out` (cleared first). `false` when that saves less than 1/32: `out` is then of no use
/// and the chunk is to be stored raw.
pub fn compress(raw: &[u8], level: i32, out: &mut Vec<u8>) -> Result<bool> {
    let failed = |e: std::io::Error| Error::new(ErrorKind::Storage, "zstd cannot compress").because(e);
    out.clear();
    out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
    COMPRESSOR.with(|slot| {
        let mut slot = slot.borrow_mut();
        let compressor = match &mut *slot {
            Some((at, compressor)) if *at == level => compressor,
            other => &mut other.insert((level, Compressor::new(level).map_err(failed)?)).1,
        };
        let len = compressor.compress_to_buffer(raw, out).map_err(failed)?;
        Ok(len < raw.len() - raw.len() / 32)
    })
}

/// Decompresses one frame that must give exactly `raw_len` bytes. `raw_len` is authenticated and bounded by the caller.
pub fn decompress(frame: &[u8], raw_len: usize) -> Result<Vec<u8>> {
    DECOMPRESSOR.with(|slot| {
        let mut slot = slot.borrow_mut();
        let decompressor = match &mut *slot {
            Some(decompressor) => decompressor,
            none => none.insert(Decompressor::new().map_err(|e| Error::new(ErrorKind::Storage, "zstd cannot start").because(e))?),
        };
        let mut raw = Vec::with_capacity(raw_len);
        let len = decompressor
            .decompress_to_buffer(frame, &mut raw)
            .map_err(|e| Error::damaged("compressed bytes do not decompress").because(e))?;
        if len != raw_len {
            return Err(Error::damaged(format!("a chunk decompressed to {len} bytes instead of {raw_len}")));
        }
        Ok(raw)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

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
        let mut noise = vec![0; 10_000];
        super::super::random(&mut noise).unwrap();
        assert!(!compress(&noise, 3, &mut out).unwrap());
        assert!(decompress(b"not a frame", 10).is_err());
    }
}
