//! Frames made from sequences that were found by our own search (`ZSTD_compressSequences`): zstd codes them and searches
//! nothing itself, so that neither the base nor the chunk is hashed into its tables.

#![allow(unsafe_code)]

use std::ptr::NonNull;

use zstd::zstd_safe::zstd_sys::{
    self, ZSTD_CCtx, ZSTD_Sequence, ZSTD_cParameter,
    ZSTD_cParameter::{
        ZSTD_c_chainLog, ZSTD_c_compressionLevel, ZSTD_c_experimentalParam19 as ZSTD_c_searchForExternalRepcodes, ZSTD_c_hashLog,
    },
};

/// The smallest tables that zstd takes: nothing is ever put into them.
const TABLE_LOG: i32 = 6;

/// A run of literals and the copy that follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence {
    /// Bytes that stand for themselves.
    pub(super) literals: usize,
    /// Bytes that are copied, at least [`MATCH_BYTES_MIN`].
    pub(super) matched: usize,
    /// How far back the copy begins; the base stands right before the chunk.
    pub(super) offset: usize,
}

/// The shortest copy that a sequence may have.
pub(super) const MATCH_BYTES_MIN: usize = 4;

/// A context that codes sequences.
pub(super) struct SequenceEncoder {
    context: NonNull<ZSTD_CCtx>,
    sequences: Vec<ZSTD_Sequence>,
}

impl SequenceEncoder {
    /// None when there is no memory for it.
    pub(super) fn new(level: i32) -> Option<Self> {
        // SAFETY: takes nothing, and returns null or a context that is ours.
        let context = NonNull::new(unsafe { zstd_sys::ZSTD_createCCtx() })?;
        let encoder = Self { context, sequences: Vec::new() };
        let set = |parameter: ZSTD_cParameter, value: i32| {
            // SAFETY: the context is alive, and a parameter or value that zstd does not take is answered with an error.
            !is_error(unsafe { zstd_sys::ZSTD_CCtx_setParameter(encoder.context.as_ptr(), parameter, value) })
        };
        // Most copies are from the same place of the base: without looking for repeated offsets each would cost two bytes more.
        let done = set(ZSTD_c_compressionLevel, level)
            && set(ZSTD_c_hashLog, TABLE_LOG)
            && set(ZSTD_c_chainLog, TABLE_LOG)
            && set(ZSTD_c_searchForExternalRepcodes, 1);
        done.then_some(encoder)
    }

    /// Codes `raw` as these sequences, of which the bytes behind the last are literals, into `out` (cleared first; it must
    /// have room for the longest frame of `raw`). Returns zstd's complaint, or that the sequences do not fit `raw`.
    pub(super) fn encode(&mut self, raw: &[u8], base_len: usize, found: &[Sequence], out: &mut Vec<u8>) -> Result<usize, &'static str> {
        const MISFIT: &str = "sequences do not fit the chunk";
        self.sequences.clear();
        let mut at = 0usize;
        for sequence in found {
            let begin = at.checked_add(sequence.literals).ok_or(MISFIT)?;
            at = begin.checked_add(sequence.matched).filter(|end| *end <= raw.len()).ok_or(MISFIT)?;
            if sequence.matched < MATCH_BYTES_MIN || sequence.offset == 0 || sequence.offset > begin + base_len {
                return Err(MISFIT);
            }
            let number = |value: usize| u32::try_from(value).map_err(|_| MISFIT);
            self.sequences.push(ZSTD_Sequence {
                offset: number(sequence.offset)?,
                litLength: number(sequence.literals)?,
                matchLength: number(sequence.matched)?,
                rep: 0,
            });
        }
        out.clear();
        // SAFETY: `out` is written within its capacity, `raw` and the sequences are read within their lengths, and all are
        // alive during the call. The sequences stand for no more than
        // `raw.len()` bytes, which was checked above: zstd relies on it, and takes the rest for literals.
        let len = unsafe {
            zstd_sys::ZSTD_compressSequences(
                self.context.as_ptr(),
                out.as_mut_ptr().cast(),
                out.capacity(),
                self.sequences.as_ptr(),
                self.sequences.len(),
                raw.as_ptr().cast(),
                raw.len(),
            )
        };
        if is_error(len) {
            return Err(zstd::zstd_safe::get_error_name(len));
        }
        // SAFETY: zstd wrote so many bytes, which is not more than the capacity.
        unsafe { out.set_len(len) };
        Ok(len)
    }
}

impl Drop for SequenceEncoder {
    fn drop(&mut self) {
        // SAFETY: the context is ours and is not used again.
        unsafe { zstd_sys::ZSTD_freeCCtx(self.context.as_ptr()) };
    }
}

fn is_error(code: usize) -> bool {
    // SAFETY: takes a number.
    unsafe { zstd_sys::ZSTD_isError(code) != 0 }
}
