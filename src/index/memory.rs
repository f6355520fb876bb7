//! The index in memory: the model that the others are compared with, and the index of programs built without RocksDB.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::overlay::PACK_NUMBERS_MAX;
use super::{BlobEntry, ChunkIndex, IndexCounts, Location, PackInfo, PackNumber, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{ChunkId, PackId};

/// An index that lives as long as its value.
#[derive(Debug, Default)]
pub struct MemoryIndex {
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next pack; survives `clear`, so that a stale [`Location`] never names another pack.
    next: u32,
    packs: BTreeMap<u32, Held>,
    numbers: HashMap<PackId, u32>,
    /// Sorted by pack number within an id: the first of an id is the copy to use.
    copies: BTreeMap<(ChunkId, u32), BlobEntry>,
    notes: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
}

#[derive(Debug)]
struct Held {
    info: PackInfo,
    chunks: Vec<ChunkId>,
}

impl MemoryIndex {
    /// An empty index.
    pub fn new() -> Self {
        Self::default()
    }

    // A panic of another thread leaves at worst a half-inserted pack, which a model need not fear.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChunkIndex for MemoryIndex {
    fn get(&self, id: &ChunkId) -> Result<Option<Location>> {
        let state = self.read();
        let first = state.copies.range((*id, 0)..=(*id, u32::MAX)).next();
        Ok(first.map(|((_, number), blob)| Location { pack: PackNumber(*number), blob: *blob }))
    }

    fn copies(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let state = self.read();
        let copies = state.copies.range((*id, 0)..=(*id, u32::MAX));
        Ok(copies.map(|((_, number), blob)| Location { pack: PackNumber(*number), blob: *blob }).collect())
    }

    fn pack(&self, number: PackNumber) -> Result<PackInfo> {
        let state = self.read();
        let held = state.packs.get(&number.0);
        held.map(|held| held.info)
            .ok_or_else(|| Error::new(ErrorKind::Cache, "the index has no pack of this number (removed meanwhile?)").on(number.0))
    }

    fn pack_number(&self, id: &PackId) -> Result<Option<PackNumber>> {
        Ok(self.read().numbers.get(id).copied().map(PackNumber))
    }

    fn packs(&self) -> Result<Vec<PackInfo>> {
        Ok(self.read().packs.values().map(|held| held.info).collect())
    }

    fn insert_pack(&self, info: &PackInfo, blobs: &[BlobEntry]) -> Result<()> {
        let state = &mut *self.write();
        if state.numbers.contains_key(&info.id) {
            return Ok(());
        }
        let number = state.next;
        if number >= PACK_NUMBERS_MAX {
            return Err(Error::new(ErrorKind::Cache, "the index has run out of pack numbers"));
        }
        state.next = number + 1;
        let mut chunks = Vec::with_capacity(blobs.len());
        for blob in blobs {
            state.copies.entry((blob.id, number)).or_insert(*blob);
            chunks.push(blob.id);
        }
        state.packs.insert(number, Held { info: *info, chunks });
        state.numbers.insert(info.id, number);
        Ok(())
    }

    fn remove_packs(&self, packs: &[PackId]) -> Result<()> {
        let state = &mut *self.write();
        for id in packs {
            let Some(number) = state.numbers.remove(id) else { continue };
            let Some(held) = state.packs.remove(&number) else { continue };
            for chunk in held.chunks {
                state.copies.remove(&(chunk, number));
            }
        }
        Ok(())
    }

    fn for_each(&self, visit: &mut dyn FnMut(&Location) -> Result<()>) -> Result<()> {
        // Copied first: a visitor may call back into the index.
        let all: Vec<Location> =
            self.read().copies.iter().map(|((_, number), blob)| Location { pack: PackNumber(*number), blob: *blob }).collect();
        all.iter().try_for_each(visit)
    }

    fn note(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.read().notes.get(&(table, key.to_vec())).cloned())
    }

    fn set_notes(&self, table: Table, notes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()> {
        let mut state = self.write();
        for (key, value) in notes {
            match value {
                Some(value) => state.notes.insert((table, key.clone()), value.clone()),
                None => state.notes.remove(&(table, key.clone())),
            };
        }
        Ok(())
    }

    fn for_each_note(&self, table: Table, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        let all: Vec<(Vec<u8>, Vec<u8>)> = self
            .read()
            .notes
            .range((Bound::Included((table, prefix.to_vec())), Bound::Unbounded))
            .take_while(|((of, key), _)| *of == table && key.starts_with(prefix))
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect();
        all.iter().try_for_each(|(key, value)| visit(key, value))
    }

    fn clear(&self) -> Result<()> {
        let mut state = self.write();
        *state = State { next: state.next, ..State::default() };
        Ok(())
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn counts(&self) -> Result<IndexCounts> {
        let state = self.read();
        Ok(IndexCounts { chunks: state.copies.len() as u64, packs: state.packs.len() as u64, disk_bytes: 0 })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::index::contract;

    #[test]
    fn keeps_the_contract() {
        contract::check_all(&mut || Box::new(MemoryIndex::new()));
    }
}
