//! Cuts byte streams into chunks: FastCDC (Xia et al., USENIX ATC 2016; normalisation 2 as in IEEE TPDS 2020) with the
//! repository's own gear table. The only door to the fastcdc crate.

/// Parameters of a cut. The numbers are part of the format; a changed parameter is a new number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// The number that is stored with every stream.
    pub number: u8,
    /// No chunk but a stream's last is shorter, in bytes.
    pub min: usize,
    /// Up to here the harder mask decides, from here the easier one.
    pub average: usize,
    /// No chunk is longer.
    pub max: usize,
    /// The harder mask: all bits lie in 10..=31 of the hash, so that 32-bit lanes can scan exactly.
    mask_small: u64,
    /// The easier mask; its bits are among those of the harder one.
    mask_large: u64,
}

/// File contents: 16, 64, 256 KiB.
pub const GENERIC: Profile =
    Profile { number: 1, min: 16 << 10, average: 64 << 10, max: 256 << 10, mask_small: mask(18), mask_large: mask(14) };
/// Directories, xattr sets and lists of chunks: 2, 8, 32 KiB.
pub const META: Profile = Profile { number: 16, min: 2 << 10, average: 8 << 10, max: 32 << 10, mask_small: mask(15), mask_large: mask(11) };

/// The longest chunk of any profile, reserved ones included (`media`: 4 MiB). Nothing longer is ever allocated for a chunk.
pub const CHUNK_BYTES_MAX: usize = 4 << 20;

const fn mask(bits: u32) -> u64 {
    ((1 << bits) - 1) << (32 - bits)
}

/// Finds cut points with one repository's gear table.
pub struct Chunker {
    gear: Box<[u64; 256]>,
    /// The table shifted left by one, for the two-bytes-a-step loop.
    gear_shifted: Box<[u64; 256]>,
}

impl Chunker {
    /// A chunker with this gear table.
    pub fn new(gear: Box<[u64; 256]>) -> Self {
        let gear_shifted = Box::new(gear.map(|entry| entry << 1));
        Self { gear, gear_shifted }
    }

    /// Length of the first chunk of `bytes`. `bytes` must hold at least `profile.max` bytes, or the whole rest of the stream.
    pub fn cut(&self, profile: &Profile, bytes: &[u8]) -> usize {
        let (_, cut) = fastcdc::v2020::cut_gear(
            bytes,
            profile.min,
            profile.average,
            profile.max,
            profile.mask_small,
            profile.mask_large,
            profile.mask_small << 1,
            profile.mask_large << 1,
            &self.gear[..],
            &self.gear_shifted[..],
        );
        cut
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::hash;

    fn chunker(seed: u8) -> Chunker {
        let mut bytes = [0; 2048];
        hash::keyed_stream(&[seed; 32], b"gear", &mut bytes);
        let mut gear = Box::new([0; 256]);
        for (entry, bytes) in gear.iter_mut().zip(bytes.chunks_exact(8)) {
            *entry = u64::from_le_bytes(bytes.try_into().unwrap());
        }
        Chunker::new(gear)
    }

    fn cuts(chunker: &Chunker, profile: &Profile, mut bytes: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !bytes.is_empty() {
            let cut = chunker.cut(profile, &bytes[..bytes.len().min(profile.max)]);
            assert!(cut > 0 && cut <= profile.max && (cut >= profile.min || cut == bytes.len()));
            lengths.push(cut);
            bytes = &bytes[cut..];
        }
        lengths
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        hash::keyed_stream(&[3; 32], b"noise", &mut bytes);
        bytes
    }

    #[test]
    fn average_is_near_nominal_and_masks_are_where_a_scan_needs_them() {
        for profile in [GENERIC, META] {
            let bytes = noise(profile.average * 500);
            let count = cuts(&chunker(1), &profile, &bytes).len();
            assert!((300..=550).contains(&count), "profile {}: {count} chunks", profile.number);
            assert_eq!(profile.mask_small & profile.mask_large, profile.mask_large);
            assert_eq!(profile.mask_small & !0xffff_fc00, 0);
        }
    }

    #[test]
    fn cuts_meet_again_after_an_insertion_and_depend_on_the_key() {
        let bytes = noise(4 << 20);
        let before = cuts(&chunker(1), &GENERIC, &bytes);
        let mut edited = bytes.clone();
        edited.splice(1_000_000..1_000_000, [1, 2, 3]);
        let after = cuts(&chunker(1), &GENERIC, &edited);
        assert_eq!(before[before.len() - 20..], after[after.len() - 20..]);
        assert_ne!(before, cuts(&chunker(2), &GENERIC, &bytes));
    }
}
