//! Bytes to work on: the same in every run.

use icecore::model::hash;

/// A chunk of about the mean length.
pub(crate) const CHUNK: usize = 150 << 10;

/// Bytes that nothing compresses.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut noise = vec![0; len];
    hash::keyed_stream(&[1; 32], b"bench", &mut noise);
    noise
}

/// Bytes that compress about as well as system files do: words of a small vocabulary between noise.
pub(crate) fn mixed(len: usize) -> Vec<u8> {
    let mut mixed = noise(len);
    mixed.chunks_mut(64).enumerate().for_each(|(i, chunk)| {
        if i % 3 != 0 {
            chunk.iter_mut().for_each(|byte| *byte = b"the quick brown fox "[usize::from(*byte) % 20]);
        }
    });
    mixed
}

/// Pages of a table: rows that differ in a few numbers.
pub(crate) fn pages(len: usize) -> Vec<u8> {
    let numbers = noise(len / 128 * 8 + 8);
    let mut pages = vec![0; len];
    for (row, (line, number)) in pages.chunks_mut(128).zip(numbers.chunks(8)).enumerate() {
        let number = number.iter().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        let text = format!("{row:012}|{:08x}|balance {:6}|{:84}|", number >> 32, number % 1000, "");
        line.iter_mut().zip(text.bytes()).for_each(|(byte, from)| *byte = from);
    }
    pages
}

/// The same after a few rows of two 8 KiB pages were written to.
pub(crate) fn touched(pages: &[u8]) -> Vec<u8> {
    let mut touched = pages.to_vec();
    for page in [3, 11] {
        let at = page * 8192;
        touched[at..at + 8].copy_from_slice(&[7; 8]);
        touched[at + 4000..at + 4016].copy_from_slice(b"0123456789abcdef");
    }
    touched
}
