//! The content of a scripted file: blocks and holes, as a file system has them.

use std::collections::BTreeMap;

use super::Extent;

/// Contents are kept in blocks of this size, and holes are whole blocks, as on most file systems.
pub const BLOCK_BYTES: usize = 4096;

/// A file's content: the blocks that were written, by number.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    size: u64,
    written: BTreeMap<u64, Box<[u8]>>,
}

impl Blocks {
    /// How many blocks are allocated.
    pub(super) fn count(&self) -> u64 {
        self.written.len() as u64
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.write(self.size, bytes);
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, start, piece) in pieces(offset, bytes.len()) {
            let block = self.written.entry(number).or_insert_with(|| vec![0; BLOCK_BYTES].into());
            block[start..start + piece.len()].copy_from_slice(&bytes[piece]);
        }
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = left.min(buffer.len());
        for (number, start, piece) in pieces(offset, len) {
            match self.written.get(&number) {
                Some(block) => buffer[piece.clone()].copy_from_slice(&block[start..start + piece.len()]),
                None => buffer[piece].fill(0),
            }
        }
        len
    }

    pub(super) fn truncate(&mut self, size: u64) {
        if size < self.size {
            self.punch(size, self.size - size);
            let whole = size.div_ceil(BLOCK_BYTES as u64);
            self.written.retain(|number, _| *number < whole);
        }
        self.size = size;
    }

    pub(super) fn punch(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.size);
        let block_bytes = BLOCK_BYTES as u64;
        let touched: Vec<u64> = self.written.range(offset / block_bytes..end.div_ceil(block_bytes)).map(|(n, _)| *n).collect();
        for number in touched {
            let first = number * block_bytes;
            let (from, to) = (offset.max(first) - first, end.min(first + block_bytes) - first);
            if from == 0 && to == block_bytes {
                self.written.remove(&number);
            } else if let Some(block) = self.written.get_mut(&number)
                && from < to
            {
                block[from as usize..to as usize].fill(0);
            }
        }
    }

    pub(super) fn next_data(&self, offset: u64, end: u64) -> Option<Extent> {
        let end = end.min(self.size);
        if offset >= end {
            return None;
        }
        let block_bytes = BLOCK_BYTES as u64;
        let mut numbers = self.written.range(offset / block_bytes..).map(|(number, _)| *number);
        let first = numbers.next()?;
        let mut after = first + 1;
        while numbers.next() == Some(after) {
            after += 1;
        }
        let start = offset.max(first * block_bytes);
        (start < end).then(|| Extent { start, end: end.min(after * block_bytes) })
    }
}

/// A stretch of a file cut at block boundaries: number of the block, where in it, which part of the stretch.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let at = offset + done as u64;
        let start = (at % BLOCK_BYTES as u64) as usize;
        let end = len.min(done + BLOCK_BYTES - start);
        let piece = (at / BLOCK_BYTES as u64, start, done..end);
        done = end;
        Some(piece)
    })
}
