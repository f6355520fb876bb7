//! What a chunk shares with its base, found by place: a database page, a directory or a list that changed in a few spots has
//! most of its bytes where they were. Stretches that stand where they stood cost one comparison; only around changes the
//! base is searched, in the neighbourhood.

use super::sequences::Sequence;

/// The shortest copy.
const COPY_BYTES_MIN: usize = 8;
/// How far around a change the base is searched: about a page of a database.
const NEIGHBOURHOOD_BYTES: usize = 4096;
/// A copy of this length tells that all that follows has moved likewise.
const MOVED_BYTES_MIN: usize = 256;
/// Where more than this part of a chunk is in no copy, a search of the whole base may find better ones.
const LITERALS_MAX_PART: usize = 8;
const TABLE_LOG: u32 = 12;

/// Finds sequences. It is kept for one chunk after another.
pub(super) struct Places {
    /// For a hash of eight bytes, the place behind the one where they were seen last; 0 for none.
    table: Box<[u32; 1 << TABLE_LOG]>,
    found: Vec<Sequence>,
}

impl Default for Places {
    fn default() -> Self {
        Self { table: Box::new([0; 1 << TABLE_LOG]), found: Vec::new() }
    }
}

impl Places {
    /// The sequences that make `raw` of `base`; none when the two have too little in common by place.
    pub(super) fn find(&mut self, raw: &[u8], base: &[u8]) -> Option<&[Sequence]> {
        self.table.fill(0);
        self.found.clear();
        let mut search = Search { raw, base, table: &mut self.table, shift: 0, indexed: 0 };
        let literals_max = raw.len() / LITERALS_MAX_PART;
        // Bytes that are in no copy, and where those begin that are behind the last one.
        let (mut literals, mut from) = (0, 0);
        let mut at = 0;
        while at < raw.len() {
            let Some(copy) = search.copy(at) else {
                at += 1;
                if literals + at - from > literals_max {
                    return None;
                }
                continue;
            };
            let back = common_suffix(&raw[from..at], &base[..copy.place]);
            let (start, place) = (at - back, copy.place - back);
            literals += start - from;
            self.found.push(Sequence { literals: start - from, matched: back + copy.len, offset: base.len() - place + start });
            at += copy.len;
            from = at;
        }
        Some(&self.found)
    }
}

/// Bytes of the base that stand in the chunk, too.
struct Copy {
    place: usize,
    len: usize,
}

struct Search<'a> {
    raw: &'a [u8],
    base: &'a [u8],
    table: &'a mut [u32; 1 << TABLE_LOG],
    /// Where something stood in the base, less where it stands.
    shift: isize,
    /// Up to here the base is in the table, as far as it was needed.
    indexed: usize,
}

impl Search<'_> {
    /// A copy that begins at `at`.
    fn copy(&mut self, at: usize) -> Option<Copy> {
        let wanted = self.raw.get(at..)?;
        let word = wanted.first_chunk()?;
        let expected = at.saturating_add_signed(self.shift).min(self.base.len());
        let same = |place: usize| common_prefix(wanted, &self.base[place..]);
        if self.base[expected..].first_chunk() == Some(word) {
            return Some(Copy { place: expected, len: same(expected) });
        }
        self.index_around(expected);
        let place = (self.table[slot(word)] as usize).checked_sub(1)?;
        let len = common_prefix(wanted, &self.base[place..]);
        if len >= MOVED_BYTES_MIN {
            self.shift = place.cast_signed() - at.cast_signed();
        }
        (len >= COPY_BYTES_MIN).then_some(Copy { place, len })
    }

    fn index_around(&mut self, place: usize) {
        let end = (place + NEIGHBOURHOOD_BYTES).min(self.base.len());
        let start = self.indexed.max(place.saturating_sub(NEIGHBOURHOOD_BYTES));
        for at in start..end {
            if let Some(word) = self.base[at..].first_chunk() {
                self.table[slot(word)] = at as u32 + 1;
            }
        }
        self.indexed = self.indexed.max(end);
    }
}

fn slot(word: &[u8; COPY_BYTES_MIN]) -> usize {
    (u64::from_le_bytes(*word).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - TABLE_LOG)) as usize
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let blocks = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK)).take_while(|(a, b)| a == b).count() * BLOCK;
    blocks + a[blocks..].iter().zip(&b[blocks..]).take_while(|(a, b)| a == b).count()
}

fn common_suffix(a: &[u8], b: &[u8]) -> usize {
    a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn noise(len: usize) -> Vec<u8> {
        let mut noise = vec![0; len];
        crate::seal::random(&mut noise).unwrap();
        noise
    }

    fn literals(raw: &[u8], base: &[u8]) -> Option<(usize, usize)> {
        let mut places = Places::default();
        let found = places.find(raw, base)?;
        Some((found.len(), raw.len() - found.iter().map(|sequence| sequence.matched).sum::<usize>()))
    }

    #[test]
    fn what_stands_where_it_stood_is_one_copy_between_changes() {
        let base = noise(100_000);
        assert_eq!(literals(&base, &base), Some((1, 0)));
        let mut raw = base.clone();
        raw[30_000..30_100].copy_from_slice(&noise(100));
        raw[70_000] ^= 1;
        let (sequences, rest) = literals(&raw, &base).unwrap();
        assert!(sequences <= 4 && (95..=101).contains(&rest), "{sequences} {rest}");
        raw.truncate(60_000);
        raw.extend_from_slice(&noise(500));
        assert_eq!(literals(&raw, &base).unwrap().1, 600);
    }

    #[test]
    fn a_tuple_that_moved_within_its_page_is_a_copy() {
        let base = noise(100_000);
        let mut raw = base.clone();
        raw.copy_within(40_200..40_320, 42_000);
        assert!(literals(&raw, &base).unwrap().1 < 16);
    }

    #[test]
    fn what_an_insertion_moved_is_found_behind_it() {
        let base = noise(100_000);
        let mut raw = base.clone();
        raw.splice(20_000..20_000, noise(100));
        raw.drain(60_000..60_300);
        let (sequences, rest) = literals(&raw, &base).unwrap();
        assert!(sequences < 6 && rest < 120, "{sequences} {rest}");
    }

    #[test]
    fn strangers_and_what_moved_far_are_left_to_a_wider_search() {
        let base = noise(50_000);
        assert_eq!(literals(&noise(50_000), &base), None);
        let swapped = [&base[25_000..], &base[..25_000]].concat();
        assert_eq!(literals(&swapped, &base), None);
    }
}
