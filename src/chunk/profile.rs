//! How long chunks are: the numbered parameters of a cut.

/// Parameters of a cut. The numbers are part of the format; a changed parameter is a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// The number that is stored with every stream.
    pub number: u8,
    /// No chunk but a stream's last is shorter, in bytes.
    pub min: usize,
    /// Up to here the harder mask decides, from here the easier one.
    pub average: usize,
    /// No chunk is longer. When it is `min`, all chunks but the last are that long.
    pub max: usize,
    /// The harder mask: how many of the hash's highest 32 bits (counted down from bit 31) must be 0.
    small_bits: u32,
    /// The easier mask; fewer bits, so that it is a part of the harder one.
    large_bits: u32,
}

/// File contents: 32, 128, 512 KiB.
pub const GENERIC: Profile = Profile::content_defined(4, 128 << 10);
/// Files of pages that are written in place: 16 KiB each.
pub const DB: Profile = Profile { number: 2, min: 16 << 10, average: 16 << 10, max: 16 << 10, small_bits: 16, large_bits: 12 };
/// Large files that do not compress: 256 KiB, 1 MiB, 4 MiB.
pub const MEDIA: Profile = Profile::content_defined(3, 1 << 20);
/// Directories, xattr sets and lists of chunks: 2, 8, 32 KiB.
pub const META: Profile = Profile::content_defined(16, 8 << 10);

/// The longest chunk of any profile. Nothing longer is ever allocated for a chunk.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;

/// Profiles that a stream may name and this version cuts with.
const ALL: [&Profile; 4] = [&GENERIC, &DB, &MEDIA, &META];

impl Profile {
    /// FastCDC with normalisation 2 around `average`, a power of two: from a quarter of it to four times as much, two bits
    /// more in the mask before it and two less behind. Minimum, average and maximum must be even, as the crate wants.
    const fn content_defined(number: u8, average: usize) -> Self {
        let bits = average.ilog2();
        let profile = Self { number, min: average / 4, average, max: average * 4, small_bits: bits + 2, large_bits: bits - 2 };
        // Below bit 10 no mask may reach: the lowest bits of the hash have seen too few bytes.
        assert!(profile.small_bits <= 22 && average.is_power_of_two() && average >= 8 && profile.max <= CHUNK_BYTES_MAX);
        profile
    }

    /// A FastCDC profile for trials, around an average of 16 KiB to 1 MiB. Its number is not one of the format.
    #[cfg(any(test, feature = "testing"))]
    pub const fn trial(average: usize) -> Self {
        Self::content_defined(240 + (average.ilog2() - 10) as u8, average)
    }

    /// The profile of this number, when this version can cut with it.
    pub fn by_number(number: u8) -> Option<&'static Self> {
        ALL.into_iter().find(|profile| profile.number == number)
    }

    /// Whether the content decides where chunks end.
    pub const fn is_content_defined(&self) -> bool {
        self.min < self.max
    }

    /// How many bytes a chunk that begins at this offset of its stream may have. Chunks of a fixed length end at multiples of
    /// that, also behind a hole that does not: cut no more than this many bytes, and take their end as the end of the stream.
    pub const fn reach(&self, offset: u64) -> usize {
        if self.is_content_defined() { self.max } else { self.max - (offset % self.max as u64) as usize }
    }

    /// A hash below this ends a chunk of `len` bytes. The masks are the highest bits, so this is the test of `hash & mask`.
    pub(super) const fn limit(&self, len: usize) -> u32 {
        if len < self.average { self.small_limit() } else { self.large_limit() }
    }

    /// [`Profile::limit`] of the harder mask.
    pub(super) const fn small_limit(&self) -> u32 {
        1 << (32 - self.small_bits)
    }

    /// [`Profile::limit`] of the easier mask.
    pub(super) const fn large_limit(&self) -> u32 {
        1 << (32 - self.large_bits)
    }

    /// Both masks as the crate takes them.
    pub(super) const fn masks(&self) -> (u64, u64) {
        (mask(self.small_bits), mask(self.large_bits))
    }
}

const fn mask(bits: u32) -> u64 {
    ((1 << bits) - 1) << (32 - bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_where_a_scan_needs_them() {
        let trials = (14..=20).map(|bits| Profile::trial(1 << bits));
        for profile in ALL.into_iter().copied().chain(trials) {
            let (small, large) = profile.masks();
            assert_eq!(small & large, large, "profile {}", profile.number);
            assert_eq!(small & !0xffff_fc00, 0, "profile {}", profile.number);
            assert!(profile.max <= CHUNK_BYTES_MAX && profile.min <= profile.average && profile.average <= profile.max);
            assert!([profile.min, profile.average, profile.max].iter().all(|len| len % 2 == 0));
        }
        assert_eq!(GENERIC.masks(), (0xffff_e000, 0xfffe_0000));
        assert_eq!(MEDIA.masks(), (0xffff_fc00, 0xffff_c000));
        assert_eq!((MEDIA.min, MEDIA.max), (256 << 10, 4 << 20));
        assert_eq!(META.masks(), (0xfffe_0000, 0xffe0_0000));
    }

    #[test]
    fn numbers_are_found_again() {
        for profile in ALL {
            assert_eq!(Profile::by_number(profile.number), Some(profile));
        }
        assert_eq!(Profile::by_number(0), None);
        assert_eq!(Profile::by_number(Profile::trial(1 << 16).number), None);
    }

    #[test]
    fn fixed_chunks_end_at_multiples() {
        assert_eq!(DB.reach(0), 16 << 10);
        assert_eq!(DB.reach(4096), 12 << 10);
        assert_eq!(DB.reach(u64::MAX), 1);
        assert_eq!(GENERIC.reach(4097), 512 << 10);
    }
}
