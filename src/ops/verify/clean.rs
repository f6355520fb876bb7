//! Directories and long files that were found clean, so that the next snapshot which has them does not walk them again.
//!
//! Exact: what is in here was looked at whole. Bounded: when it is full, what is quickly looked at again goes first. So a
//! walk over more than fits repeats only small things.

use std::collections::HashMap;

use crate::model::Stream;
use crate::seal::keys::ChunkKind;

/// At most so many streams are remembered: about 16 MiB.
const CLEAN_MAX: usize = 1 << 17;

/// Streams that were found clean, each with what it costs to look at it: chunks to look up and nodes to read.
pub(super) struct Clean {
    known: HashMap<(ChunkKind, Stream), u64>,
    cost_min: u64,
    room: usize,
}

impl Default for Clean {
    fn default() -> Self {
        Self::with_room(CLEAN_MAX)
    }
}

impl Clean {
    fn with_room(room: usize) -> Self {
        Self { known: HashMap::new(), cost_min: 0, room }
    }

    /// What a clean stream costs to look at; none when it is not known to be clean.
    pub(super) fn cost(&self, kind: ChunkKind, stream: &Stream) -> Option<u64> {
        self.known.get(&(kind, *stream)).copied()
    }

    /// Remembers a stream of which everything was found clean.
    pub(super) fn add(&mut self, kind: ChunkKind, stream: &Stream, cost: u64) {
        if cost < self.cost_min {
            return;
        }
        self.known.insert((kind, *stream), cost);
        if self.known.len() > self.room {
            // The dearer half stays, and nothing cheaper comes in any more.
            let mut costs: Vec<u64> = self.known.values().copied().collect();
            let middle = costs.len() / 2;
            let (_, median, _) = costs.select_nth_unstable(middle);
            self.cost_min = median.saturating_add(1);
            let cost_min = self.cost_min;
            self.known.retain(|_, cost| *cost >= cost_min);
            // A forged tree may give all of them a cost beyond counting.
            if self.known.len() > self.room {
                self.known.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ChunkId;

    fn stream(n: u64) -> Stream {
        let mut id = [1; 32];
        id[..8].copy_from_slice(&n.to_le_bytes());
        Stream { len: 1, profile: 1, depth: 0, id: ChunkId(id) }
    }

    #[test]
    fn what_is_dear_is_remembered_within_the_bound() {
        let mut clean = Clean::with_room(100);
        for n in 0..10_000 {
            clean.add(ChunkKind::Tree, &stream(n), if n % 100 == 0 { 1_000_000 + n } else { n % 7 });
            assert!(clean.known.len() <= 100);
        }
        let kept = (0..10_000).filter(|n| clean.cost(ChunkKind::Tree, &stream(*n)).is_some()).collect::<Vec<_>>();
        assert!(kept.len() >= 49 && kept.iter().all(|n| n % 100 == 0), "{kept:?}");
        assert_eq!(clean.cost(ChunkKind::Data, &stream(kept[0])), None, "of another kind");
        let other_length = Stream { len: 2, ..stream(kept[0]) };
        assert_eq!(clean.cost(ChunkKind::Tree, &other_length), None, "of another length");
    }

    #[test]
    fn many_of_one_cost_do_not_break_the_bound() {
        let mut clean = Clean::with_room(10);
        for n in 0..100 {
            clean.add(ChunkKind::Data, &stream(n), 5);
            assert!(clean.known.len() <= 10);
        }
        let mut forged = Clean::with_room(10);
        for n in 0..100 {
            forged.add(ChunkKind::Tree, &stream(n), u64::MAX);
            assert!(forged.known.len() <= 10);
        }
        clean.add(ChunkKind::Data, &stream(1000), 6);
        assert_eq!(clean.cost(ChunkKind::Data, &stream(1000)), Some(6));
    }
}
