//! The stages that the study measures, each as one call.

use fastcdc::v2020::cut_gear;

pub(crate) type Id = [u8; 32];

/// How a stream is cut.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    /// Every so many bytes.
    Fixed(usize),
    /// By content; bounds at a quarter and at four times the average.
    Content { min: usize, average: usize, max: usize },
}

impl Shape {
    pub(crate) fn content(average: usize) -> Self {
        Self::Content { min: average / 4, average, max: average * 4 }
    }

    pub(crate) fn average(&self) -> usize {
        match self {
            Self::Fixed(len) => *len,
            Self::Content { average, .. } => *average,
        }
    }

    pub(crate) fn max(&self) -> usize {
        match self {
            Self::Fixed(len) => *len,
            Self::Content { max, .. } => *max,
        }
    }

    pub(crate) fn name(&self) -> String {
        match self {
            Self::Fixed(len) => format!("fixed {}", len >> 10),
            Self::Content { min, average, max } => format!("{}/{}/{}", min >> 10, average >> 10, max >> 10),
        }
    }
}

/// Cuts, names and encodes.
pub(crate) struct Stages {
    gear: [u64; 256],
    gear_shifted: [u64; 256],
    out: Vec<u8>,
    level: i32,
    compressor: zstd::bulk::Compressor<'static>,
}

impl Stages {
    pub(crate) fn new() -> std::io::Result<Self> {
        let mut bytes = [0; 2048];
        blake3::Hasher::new_keyed(&[7; 32]).finalize_xof().fill(&mut bytes);
        let mut gear = [0; 256];
        for (entry, bytes) in gear.iter_mut().zip(bytes.chunks_exact(8)) {
            *entry = bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        }
        Ok(Self { gear, gear_shifted: gear.map(|e| e << 1), out: Vec::new(), level: 1, compressor: zstd::bulk::Compressor::new(1)? })
    }

    /// Length of the first chunk of `bytes`, which hold `max` bytes or the rest of the stream.
    pub(crate) fn cut(&self, shape: &Shape, bytes: &[u8]) -> usize {
        match shape {
            Shape::Fixed(len) => bytes.len().min(*len),
            Shape::Content { min, average, max } => {
                let bits = average.ilog2();
                let mask = |bits: u32| ((1u64 << bits) - 1) << (32 - bits);
                let (small, large) = (mask(bits + 2), mask(bits - 2));
                let bytes = &bytes[..bytes.len().min(*max)];
                cut_gear(bytes, *min, *average, *max, small, large, small << 1, large << 1, &self.gear, &self.gear_shifted).1
            }
        }
    }

    pub(crate) fn id(&self, chunk: &[u8]) -> Id {
        *blake3::keyed_hash(&[9; 32], chunk).as_bytes()
    }

    /// Stored length at `level`: that of the chunk itself where compression saves less than 1/32.
    pub(crate) fn encode(&mut self, raw: &[u8], level: i32) -> std::io::Result<usize> {
        if self.level != level {
            self.compressor = zstd::bulk::Compressor::new(level)?;
            self.level = level;
        }
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        let len = self.compressor.compress_to_buffer(raw, &mut self.out)?;
        Ok(if len < raw.len() - raw.len() / 32 { len } else { raw.len() })
    }

    /// Stored length against a base.
    pub(crate) fn delta(&mut self, raw: &[u8], base: &[u8], level: i32) -> std::io::Result<usize> {
        self.out.clear();
        self.out.reserve(zstd::zstd_safe::compress_bound(raw.len()));
        self.compressor
            .context_mut()
            .compress_using_dict(&mut self.out, raw, base, level)
            .map_err(|code| std::io::Error::other(zstd::zstd_safe::get_error_name(code)))
    }
}
