//! The stages that the study measures, each as one call: those of the program, with parameters that it does not offer.

use icecore::Result;
use icecore::chunk::{Chunker, DB, Profile};
use icecore::model::{ChunkId, RepositoryId};
use icecore::seal::keys::ChunkKind;
use icecore::seal::{Keys, compress};
use zstd::zstd_safe;

/// How a stream is cut.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Shape(Profile);

impl Shape {
    /// Every 16 KiB, as pages lie.
    pub(crate) const PAGES: Self = Self(DB);

    /// By content, around an average.
    pub(crate) const fn content(average: usize) -> Self {
        Self(Profile::trial(average))
    }

    pub(crate) fn is_content_defined(&self) -> bool {
        self.0.is_content_defined()
    }

    pub(crate) fn average(&self) -> usize {
        self.0.average
    }

    pub(crate) fn max(&self) -> usize {
        self.0.max
    }

    pub(crate) fn name(&self) -> String {
        if self.is_content_defined() {
            format!("{}/{}/{}", self.0.min >> 10, self.0.average >> 10, self.0.max >> 10)
        } else {
            format!("fixed {}", self.0.max >> 10)
        }
    }
}

/// Cuts, names and encodes.
pub(crate) struct Stages {
    keys: Keys,
    chunker: Chunker,
    context: zstd_safe::CCtx<'static>,
    out: Vec<u8>,
}

impl Stages {
    pub(crate) fn new() -> Self {
        let keys = Keys::public(&RepositoryId([1; 16]));
        let chunker = Chunker::new(keys.gear());
        Self { keys, chunker, context: zstd_safe::CCtx::create(), out: Vec::new() }
    }

    /// Length of the first chunk of `bytes`, which hold `max` bytes or the rest of the stream.
    pub(crate) fn cut(&self, shape: &Shape, bytes: &[u8]) -> usize {
        self.chunker.cut(&shape.0, bytes)
    }

    pub(crate) fn id(&self, chunk: &[u8]) -> ChunkId {
        self.keys.chunk_id(ChunkKind::Data, chunk)
    }

    /// Stored length at `level`: that of the chunk itself where compression saves too little.
    pub(crate) fn encode(&mut self, raw: &[u8], level: i32) -> Result<usize> {
        let smaller = compress::compress(raw, level, &mut self.out)?;
        Ok(if smaller { self.out.len() } else { raw.len() })
    }

    /// Stored length against a base, as the program makes deltas; none when the base is not fit to be one.
    pub(crate) fn delta(&mut self, raw: &[u8], base: &[u8]) -> Result<Option<usize>> {
        if !compress::can_be_base(base) {
            return Ok(None);
        }
        compress::delta(raw, base, &mut self.out).map(Some)
    }

    /// The same at another level than the program's.
    pub(crate) fn delta_at(&mut self, raw: &[u8], base: &[u8], level: i32) -> std::io::Result<Option<usize>> {
        if !compress::can_be_base(base) {
            return Ok(None);
        }
        self.out.clear();
        self.out.reserve(zstd_safe::compress_bound(raw.len()));
        self.context
            .compress_using_dict(&mut self.out, raw, base, level)
            .map(Some)
            .map_err(|code| std::io::Error::other(zstd_safe::get_error_name(code)))
    }
}
