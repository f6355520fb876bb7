//! The bases of delta blobs: chunks that others are encoded against. A base always has a full copy, one that is no delta
//! itself, so that no chain is longer than one step.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::model::ChunkId;
use crate::seal::keys::ChunkKind;

/// Bytes of bases kept: room for four of the longest that any profile has, or for some two hundred usual ones.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// So that looking one up stays cheap, however short they are.
const KEPT_MAX: usize = 256;

/// The plaintext of the bases that were used last. Many versions of a chunk are deltas against the same base.
#[derive(Default)]
pub(super) struct BaseCache(Mutex<Kept>);

type Name = (ChunkKind, ChunkId);

#[derive(Default)]
struct Kept {
    /// The last used first.
    bases: VecDeque<(Name, Arc<Vec<u8>>)>,
    bytes: usize,
}

impl BaseCache {
    pub(super) fn get(&self, kind: ChunkKind, id: &ChunkId) -> Option<Arc<Vec<u8>>> {
        let mut kept = self.lock();
        let at = kept.bases.iter().position(|(other, _)| *other == (kind, *id))?;
        let found = kept.bases.remove(at)?;
        let base = Arc::clone(&found.1);
        kept.bases.push_front(found);
        Some(base)
    }

    pub(super) fn keep(&self, kind: ChunkKind, id: &ChunkId, base: &Arc<Vec<u8>>) {
        let mut kept = self.lock();
        if kept.bases.iter().any(|(other, _)| *other == (kind, *id)) {
            return;
        }
        kept.bytes += base.len();
        kept.bases.push_front(((kind, *id), Arc::clone(base)));
        while kept.bytes > KEPT_BYTES_MAX || kept.bases.len() > KEPT_MAX {
            let Some((_, dropped)) = kept.bases.pop_back() else { break };
            kept.bytes -= dropped.len();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn id(n: u16) -> ChunkId {
        let mut bytes = [1; 32];
        bytes[..2].copy_from_slice(&n.to_le_bytes());
        ChunkId(bytes)
    }

    #[test]
    fn keeps_what_was_used_last_within_its_bounds() {
        let cache = BaseCache::default();
        let base = Arc::new(vec![7; 1 << 20]);
        for n in 0..40 {
            cache.keep(ChunkKind::Data, &id(n), &base);
            assert!(cache.get(ChunkKind::Data, &id(0)).is_some(), "used each time, so never dropped ({n})");
        }
        assert_eq!(cache.lock().bases.len(), 16);
        assert!(cache.get(ChunkKind::Data, &id(1)).is_none() && cache.get(ChunkKind::Data, &id(39)).is_some());
        let small = Arc::new(vec![7; 10]);
        (100..600).for_each(|n| cache.keep(ChunkKind::Data, &id(n), &small));
        assert_eq!(cache.lock().bases.len(), KEPT_MAX);
        let bytes = cache.lock().bases.iter().map(|(_, base)| base.len()).sum::<usize>();
        assert_eq!(cache.lock().bytes, bytes);
    }
}
