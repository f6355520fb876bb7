//! Stage one: where a chunk could end, for all positions of a window, in whatever order suits the processor.

use std::ops::Range;

use super::kernel_scalar;
#[cfg(target_arch = "x86_64")]
use super::kernel_vbmi;
use super::profile::Profile;

/// The hash knows this many bytes before the one it stands on, and no more.
pub const CONTEXT_BYTES: usize = 31;

/// Positions of candidates take 31 bits; what lies behind is not scanned.
const WINDOW_BYTES_MAX: usize = i32::MAX as usize;
/// Marks a candidate that the harder mask accepts too.
const STRONG: u32 = 1 << 31;

/// In bytes that know nothing of the gear table every 2,048th position or fewer is a candidate. Whoever knows it can make all
/// of them one: a scan ends where they are more than this, so that they take a sixteenth of the window's memory.
const MARK_SPACING_BYTES_MIN: usize = 64;
/// Less than this is not worth spreading over lanes.
const LANES_MIN_BYTES: usize = 1 << 10;
/// Lanes advance by this many bytes at a time.
pub(super) const STEP_BYTES: usize = 16;
/// What stands before a lane: whole steps, hence one byte more than the hash needs.
pub(super) const LANE_CONTEXT_BYTES: usize = 2 * STEP_BYTES;

/// How candidates are found. All find the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// Four places at once in ordinary registers: hides the latency of the one sum behind that of the others.
    Scalar,
    /// Sixteen places at once, with the table in registers (AVX-512 VBMI).
    #[cfg(target_arch = "x86_64")]
    Vbmi,
}

impl Kernel {
    /// The fastest one that this processor has.
    pub fn best() -> Self {
        Self::available().last().copied().unwrap_or(Self::Scalar)
    }

    /// All that this processor has, the slowest first.
    pub fn available() -> Vec<Self> {
        vec![
            Self::Scalar,
            #[cfg(target_arch = "x86_64")]
            Self::Vbmi,
        ]
        .into_iter()
        .filter(|kernel| kernel.is_available())
        .collect()
    }

    fn is_available(self) -> bool {
        match self {
            Self::Scalar => true,
            #[cfg(target_arch = "x86_64")]
            Self::Vbmi => kernel_vbmi::is_available(),
        }
    }

    const fn lanes(self) -> usize {
        match self {
            Self::Scalar => kernel_scalar::LANES,
            #[cfg(target_arch = "x86_64")]
            Self::Vbmi => kernel_vbmi::LANES,
        }
    }
}

/// Finds cut points with one repository's gear table.
pub struct Chunker {
    /// The table as the crate takes it.
    pub(super) gear: Box<[u64; 256]>,
    /// The same shifted left by one, for its two-bytes-a-step loop.
    pub(super) gear_shifted: Box<[u64; 256]>,
    /// The low halves, all that the masks can see.
    pub(super) low: Box<[u32; 256]>,
    #[cfg(target_arch = "x86_64")]
    planes: Box<kernel_vbmi::Planes>,
    pub(super) kernel: Kernel,
}

impl Chunker {
    /// A chunker with this gear table.
    pub fn new(gear: Box<[u64; 256]>) -> Self {
        Self::with_kernel(gear, Kernel::best())
    }

    /// Likewise, with this kernel when the processor has it: for tests and benchmarks.
    pub fn with_kernel(gear: Box<[u64; 256]>, kernel: Kernel) -> Self {
        let kernel = if kernel.is_available() { kernel } else { Kernel::Scalar };
        let gear_shifted = Box::new(gear.map(|entry| entry << 1));
        let low = Box::new(gear.map(|entry| entry as u32));
        Self {
            gear,
            gear_shifted,
            #[cfg(target_arch = "x86_64")]
            planes: Box::new(kernel_vbmi::Planes::new(&low)),
            low,
            kernel,
        }
    }

    /// Finds the candidates among the positions of a window: all of `bytes` from `context` on. The bytes before it only warm
    /// the hash: 31 of them let every position be scanned; with fewer, as at the start of a stream, those that lack some are
    /// left out. `out` is overwritten; its positions count from `context`.
    pub fn scan(&self, profile: &Profile, bytes: &[u8], context: usize, out: &mut Candidates) {
        out.clear();
        let from = context.max(CONTEXT_BYTES);
        let to = bytes.len().min(context.saturating_add(WINDOW_BYTES_MAX));
        if !profile.is_content_defined() || from >= to {
            return;
        }
        let (small, marks) = (profile.small_limit(), &mut out.marks);
        let mut at = from;
        while at < to {
            // A block at a time, so that its bytes are read once from memory and sorting is short.
            let end = block_end(at, to, self.kernel.lanes() * SCAN_LANE_BYTES);
            let sorted = marks.len();
            self.hits(bytes, at..end, profile.large_limit(), &mut |position, hash| {
                marks.push((position - context) as u32 | if hash < small { STRONG } else { 0 });
            });
            marks[sorted..].sort_unstable_by_key(|mark| mark & !STRONG);
            at = end;
            if marks.len() > (to - from) / MARK_SPACING_BYTES_MIN {
                break;
            }
        }
        // Lanes may overlap at the end of a block.
        marks.dedup();
        (out.from, out.to, out.profile) = (from - context, at - context, Some(*profile));
    }

    /// Calls `found` with each position in `range` (from 31 on) whose hash is below `limit`, and the hash; in any order, and
    /// some twice.
    pub(super) fn hits(&self, bytes: &[u8], mut range: Range<usize>, limit: u32, found: &mut dyn FnMut(usize, u32)) {
        if range.len() < LANES_MIN_BYTES {
            return kernel_scalar::walk(&self.low, bytes, range, limit, found);
        }
        if range.start < LANE_CONTEXT_BYTES {
            let first = range.start..LANE_CONTEXT_BYTES;
            range.start = first.end;
            kernel_scalar::walk(&self.low, bytes, first, limit, found);
        }
        // The last lanes begin early enough to end where the range does.
        let len = range.len().div_ceil(self.kernel.lanes()).next_multiple_of(STEP_BYTES);
        let start = |lane: usize| (range.start + lane * len).min(range.end - len);
        match self.kernel {
            Kernel::Scalar => kernel_scalar::hits(&self.low, bytes, std::array::from_fn(start), len, limit, found),
            #[cfg(target_arch = "x86_64")]
            Kernel::Vbmi => kernel_vbmi::hits(&self.planes, &self.low, bytes, std::array::from_fn(start), len, limit, found),
        }
    }
}

/// How much of a window one lane scans before the next block: an odd number of cache lines, so that lanes do not meet in the
/// same set of the cache.
const SCAN_LANE_BYTES: usize = 33 * 64;

/// Where a block of about `len` bytes from `at` ends. A short rest is part of the last block.
pub(super) fn block_end(at: usize, to: usize, len: usize) -> usize {
    if to - at < len + len / 2 { to } else { at + len }
}

/// Where chunks could end within a window. Reusable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidates {
    /// Ascending positions, counted from the window's begin, with [`STRONG`].
    marks: Vec<u32>,
    /// Positions below it were not scanned.
    from: usize,
    /// Nor were these and those after.
    to: usize,
    /// What was scanned for.
    profile: Option<Profile>,
}

impl Candidates {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.marks.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.marks.clear();
        (self.from, self.to, self.profile) = (0, 0, None);
    }

    /// Adds those of a window whose first position is the position `at` of this one, where the scan of this one ended:
    /// threads can share a buffer. Both must have been scanned whole, `next` with 31 bytes of context. What does not fit
    /// together is not joined, which costs time only: positions that were not scanned are looked at when needed.
    pub fn append(&mut self, next: &Self, at: usize) {
        if self.profile.is_some() && self.profile == next.profile && at == self.to && next.from == 0 && at + next.to <= WINDOW_BYTES_MAX {
            let shift = at as u32;
            self.marks.extend(next.marks.iter().map(|mark| mark + shift));
            self.to += next.to;
        }
    }

    /// The positions that were scanned for this profile.
    pub(super) fn scanned(&self, profile: &Profile) -> Range<usize> {
        if self.profile == Some(*profile) { self.from..self.to } else { 0..0 }
    }

    /// The first candidate in `range`, a part of what was scanned, that a chunk from `start` can end at.
    pub(super) fn first(&self, profile: &Profile, range: Range<usize>, start: isize) -> Option<usize> {
        let skipped = self.marks.partition_point(|mark| ((mark & !STRONG) as usize) < range.start);
        self.marks[skipped..]
            .iter()
            .map(|mark| ((mark & !STRONG) as usize, mark & STRONG != 0))
            .take_while(|(position, _)| *position < range.end)
            .find(|(position, strong)| *strong || *position as isize - start >= profile.average as isize)
            .map(|(position, _)| position)
    }
}
