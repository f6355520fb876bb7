//! Which pack numbers are in use: one bit a pack, in memory, asked at every hit of the index.

use std::collections::BTreeMap;

/// Numbers covered by one page; a page is 128 bytes.
const PAGE_NUMBERS: u32 = 1024;

/// A set of pack numbers. Pages exist only where a number was set, so a damaged number cannot claim much memory.
#[derive(Debug, Clone, Default)]
pub(super) struct LiveSet {
    pages: BTreeMap<u32, [u64; (PAGE_NUMBERS / 64) as usize]>,
    len: u64,
}

impl LiveSet {
    pub(super) fn contains(&self, number: u32) -> bool {
        let (page, word, bit) = place(number);
        self.pages.get(&page).is_some_and(|words| words[word] & bit != 0)
    }

    /// Adds a number; whether it is new.
    pub(super) fn insert(&mut self, number: u32) -> bool {
        let (page, word, bit) = place(number);
        let words = self.pages.entry(page).or_default();
        let new = words[word] & bit == 0;
        words[word] |= bit;
        self.len += u64::from(new);
        new
    }

    /// Takes a number out; whether it was there.
    pub(super) fn remove(&mut self, number: u32) -> bool {
        let (page, word, bit) = place(number);
        let Some(words) = self.pages.get_mut(&page) else { return false };
        let was = words[word] & bit != 0;
        words[word] &= !bit;
        self.len -= u64::from(was);
        if words.iter().all(|word| *word == 0) {
            self.pages.remove(&page);
        }
        was
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

fn place(number: u32) -> (u32, usize, u64) {
    let within = number % PAGE_NUMBERS;
    (number / PAGE_NUMBERS, (within / 64) as usize, 1 << (within % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_exactly_what_was_put_in() {
        let mut set = LiveSet::default();
        let numbers = [0, 1, 63, 64, 1023, 1024, 70_000, 0x7fff_ffff, u32::MAX];
        for number in numbers {
            assert!(!set.contains(number));
            assert!(set.insert(number), "{number}");
            assert!(!set.insert(number), "{number}");
        }
        assert_eq!(set.len(), 9);
        assert!(!set.contains(2) && !set.contains(65) && !set.contains(1025));
        for number in numbers {
            assert!(set.contains(number));
            assert!(set.remove(number));
            assert!(!set.contains(number) && !set.remove(number));
        }
        assert_eq!(set.len(), 0);
        assert!(set.pages.is_empty(), "empty pages are given back");
    }
}
