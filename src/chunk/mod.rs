//! Cuts byte streams into chunks: FastCDC (Xia et al., USENIX ATC 2016; normalisation 2 as in IEEE TPDS 2020) with the
//! repository's own gear table. The only door to the fastcdc crate.
//!
//! The hash at a position is the sum of the gear entries of the bytes up to it, each shifted left once per byte that came
//! after. The masks test only low 32 bits of it, and those depend on the last 32 bytes alone: 31 bytes behind the place
//! where a chunk's hash begins (its `min`), the hash no longer knows where that was. So the work splits in two, exactly:
//!
//! - `scan`: where would a chunk that began anywhere before be cut? For all positions at once, in any order, on any number
//!   of threads, with whatever SIMD the processor has (`kernel_*`).
//! - `select`: one chunk after the other, picks the first of these candidates that the chunk's length allows. The 31
//!   positions after its `min`, which no scan can know, are hashed on the spot.
//!
//! [`Chunker::cut`] does both for one chunk; [`Chunker::scan`] and [`Window::next_cut`] are the two halves. The results are
//! those of the crate, byte for byte; it is the oracle of the tests, and cuts where the processor has no kernel.

mod kernel_scalar;
#[cfg(target_arch = "x86_64")]
mod kernel_vbmi;
mod profile;
mod scan;
mod select;

pub use profile::{CHUNK_BYTES_MAX, DB, GENERIC, MEDIA, META, Profile};
pub use scan::{CONTEXT_BYTES, Candidates, Chunker, Kernel};
pub use select::Window;

#[cfg(test)]
mod tests;
