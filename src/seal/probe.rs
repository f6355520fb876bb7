//! Whether compressing is worth a try: a look at a few places of a chunk, for a fraction of what zstd needs to find out.

/// Bytes that are looked at in one place. Small, so that the places are many: a chunk that is compressed only in parts shows
/// it in some of them.
const SAMPLE_BYTES: usize = 256;
/// Places in a chunk, and how far apart they are at most.
const SAMPLES_MIN: usize = 16;
const SAMPLE_SPACING_BYTES_MAX: usize = 16 << 10;
/// Shorter chunks are not looked at: trying costs little, and there is too little to judge by.
const CHUNK_BYTES_MIN: usize = SAMPLES_MIN * SAMPLE_BYTES;

/// How often four bytes may be found again within [`CHUNK_BYTES_MIN`] sampled bytes. In random ones that happens once in
/// 500 chunks; compressed formats have some headers; what zstd can use has more, even among bytes that are evenly spread,
/// such as tables of numbers.
const REPEATS_MAX: u32 = 8;
/// How much more often than by chance, in percent, two sampled bytes may be equal.
const EXCESS_PERCENT_MAX: u64 = 5;

/// Whether `bytes` look compressed or encrypted already, so that another try would gain next to nothing. Wrong now and then
/// about archives of many small files, which would have become a few hundredths smaller; never seen to be about text,
/// programs or database pages. Random bytes that come again far behind in the same chunk are not noticed.
pub fn looks_incompressible(bytes: &[u8]) -> bool {
    if bytes.len() < CHUNK_BYTES_MIN {
        return false;
    }
    let count = SAMPLES_MIN.max(bytes.len() / SAMPLE_SPACING_BYTES_MAX);
    let stride = (bytes.len() - SAMPLE_BYTES) / (count - 1);
    let samples = || (0..count).filter_map(|i| bytes[i * stride..].first_chunk::<SAMPLE_BYTES>());
    // Ordinary data fails at the first sample or two.
    has_few_repeats(samples(), REPEATS_MAX * (count / SAMPLES_MIN) as u32) && is_evenly_spread(samples())
}

/// Whether there are no more than `repeats_max` places whose four bytes stood in one of the samples before.
fn has_few_repeats<'a>(samples: impl Iterator<Item = &'a [u8; SAMPLE_BYTES]>, repeats_max: u32) -> bool {
    // For each hash the four bytes that had it last.
    let mut last = [0u32; 1 << 11];
    let mut repeats = 0;
    for sample in samples {
        for eight in sample.windows(8).step_by(4).filter_map(|eight| eight.first_chunk()) {
            let eight = u64::from_le_bytes(*eight);
            for four in [eight as u32, (eight >> 8) as u32, (eight >> 16) as u32, (eight >> 24) as u32] {
                let slot = &mut last[(four.wrapping_mul(0x9e37_79b1) >> 21) as usize];
                repeats += u32::from(*slot == four);
                *slot = four;
            }
        }
        if repeats > repeats_max {
            return false;
        }
    }
    true
}

/// Whether each byte is about as frequent as any other.
fn is_evenly_spread<'a>(samples: impl Iterator<Item = &'a [u8; SAMPLE_BYTES]>) -> bool {
    let mut counts = [[0u32; 256]; 4];
    let mut total = 0;
    for sample in samples {
        // Four tables, so that a byte need not wait for the count of an equal one before it.
        for four in sample.as_chunks::<4>().0 {
            for (counts, &byte) in counts.iter_mut().zip(four) {
                let count = &mut counts[usize::from(byte)];
                *count = count.wrapping_add(1);
            }
        }
        total += SAMPLE_BYTES as u64;
    }
    // Pairs of equal bytes, each with itself too; by chance every 256th pair of two is one.
    let count = |byte: usize| counts.iter().map(|counts| u64::from(counts[byte])).sum::<u64>();
    let equal: u64 = (0..256).map(count).map(|count| count * count).sum();
    let expected = total + total * (total - 1) / 256;
    equal * 100 <= expected * (100 + EXCESS_PERCENT_MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::hash;
    use crate::seal::compress::compress;

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        hash::keyed_stream(&[9; 32], b"noise", &mut bytes);
        bytes
    }

    /// A piece of this very program.
    fn real(len: usize) -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap().into_iter().skip(1 << 16).take(len).collect()
    }

    #[test]
    fn random_and_compressed_bytes_are_known_at_every_length() {
        for len in [CHUNK_BYTES_MIN, CHUNK_BYTES_MIN + 1, 16 << 10, 80_001, 256 << 10, 4 << 20] {
            assert!(looks_incompressible(&noise(len)), "{len}");
        }
        // Words of a vocabulary of 4,096, some much more frequent than others.
        let words = noise(1 << 16);
        let noise = noise(2 << 20);
        let text: Vec<u8> = noise
            .chunks(4)
            .flat_map(|n| {
                let word = usize::from(n[0]) * usize::from(n[1]) / 16 * 16 + usize::from(n[2] % 16);
                &words[word..][..3 + usize::from(n[3] % 8)]
            })
            .map(|byte| b'a' + byte % 26)
            .collect();
        let mut frame = Vec::new();
        assert!(compress(&text, 3, &mut frame).unwrap());
        let (mut known, mut all) = (0, 0);
        for chunk in frame.chunks_exact(64 << 10) {
            known += usize::from(looks_incompressible(chunk));
            all += 1;
        }
        assert!(all >= 5 && known * 10 >= all * 8, "{known} of {all} chunks of a zstd frame");
    }

    #[test]
    fn what_compresses_is_never_taken_for_random() {
        let noise = noise(1 << 20);
        let hex = noise.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect();
        let sixty_four = noise.iter().map(|byte| 32 + byte % 64).collect();
        let counters = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
        let small_numbers = noise.chunks(2).flat_map(|n| [n[0], n[1] % 4, 0, 0]).collect();
        let floats = (0..1u32 << 17).flat_map(|i| f64::from(i).sqrt().to_le_bytes()).collect();
        let rows = noise.chunks(16).flat_map(|row| [&row[..4], b" a row of a table, ", &row[..8]].concat()).collect();
        let half = noise.chunks(16 << 10).flat_map(|page| [page, &[0; 16 << 10]].concat()).collect();
        let kinds: [(&str, Vec<u8>); 9] = [
            ("zeros", vec![0; 1 << 20]),
            ("hex", hex),
            ("six bits", sixty_four),
            ("counters", counters),
            ("small numbers", small_numbers),
            ("floats", floats),
            ("rows", rows),
            ("half empty", half),
            ("program", real(4 << 20)),
        ];
        for (kind, bytes) in kinds {
            for chunk in bytes.chunks(64 << 10) {
                let mut out = Vec::new();
                let pays = compress(chunk, 3, &mut out).unwrap();
                assert!(!pays || !looks_incompressible(chunk), "{kind}: {} to {} bytes", chunk.len(), out.len());
            }
            assert!(!looks_incompressible(&bytes[..256 << 10]), "{kind}");
        }
    }

    #[test]
    fn short_chunks_are_left_to_the_compressor() {
        for len in [0, 1, SAMPLE_BYTES, CHUNK_BYTES_MIN - 1] {
            assert!(!looks_incompressible(&noise(len)), "{len}");
        }
    }
}
