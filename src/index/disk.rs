//! The index on disk: chunks, packs and notes as keys of a [`Store`].
//!
//! A chunk's first copy stands under its id, so that the common question ("is it known?") is one look-up that a Bloom
//! filter answers when the chunk is new; further copies stand under id and pack number. A pack's number is given once and
//! never again, and numbers grow, so that the oldest copy is the one with the lowest number.
//!
//! Removing a pack removes its record only. Entries that name a number without a record are dead: they count as absent, are
//! written over by the next insert of their chunk, and are swept out when they have become too many. While a first copy
//! is dead, the others are still found behind it.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::bulk::{self, Folder, Load};
use super::live::LiveSet;
use super::open::IndexTag;
use super::overlay::PACK_NUMBERS_MAX;
use super::record::{self, BY_NUMBER, COUNTERS_KEY, Counters, PackRecord, TAG_KEY, id_key, number_key};
use super::rocks::{OpenFailure, Space, Store};
use super::{BlobEntry, ChunkIndex, IndexCounts, Location, NewPack, PackInfo, PackNumber, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{ChunkId, PackId};

/// Dead entries are swept when they are more than this and more than a third of the living: so a sweep, which reads the
/// whole index, costs a few times what inserting the swept entries did.
/// (Tests have few entries and sweep all the time.)
const DEAD_MIN: u64 = if cfg!(test) { 8 } else { 65_536 };
/// Changes of a sweep that are written at once.
const SWEEP_BATCH: usize = 4096;

/// Fewer entries are inserted one by one: a few hundredths of a second, and no tables to be written and synced.
const BULK_ENTRIES_MIN: usize = if cfg!(test) { 8 } else { 16_384 };
/// Memory that sorts what an index is filled with; more would only make fewer runs.
const SORT_BYTES_MAX: usize = 64 << 20;

/// Before every key of a note, so that no note's key is above the upper end that a clearing deletes up to.
const NOTE: u8 = 1;

/// An index in a folder, or a view of one that another process writes.
///
/// A view stands still: it shows the index of the moment when it was taken. It takes no packs and notes; `remove_packs` and
/// `clear` hide what they name from this view alone.
pub struct RocksIndex {
    store: Store,
    live: RwLock<LiveSet>,
    /// Held over every change, so that numbers are given once and copies keep their order.
    totals: Mutex<Totals>,
    /// A view that was cleared shows no notes.
    notes_hidden: AtomicBool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    counters: Counters,
    /// Entries that name live packs.
    entries: u64,
}

impl RocksIndex {
    /// Opens the index in `path` for writing, or makes an empty one. `memory_bytes` bounds all that it keeps in memory,
    /// however large it is. Fails with [`ErrorKind::Busy`] while it is open elsewhere.
    pub fn open(path: &Path, memory_bytes: usize) -> Result<Self> {
        Ok(Self::over(Store::open(path, true, memory_bytes, None)?)?)
    }

    /// Makes an empty index that belongs to `tag`; `lock` is let go when it is closed.
    pub(super) fn create(path: &Path, tag: &IndexTag, memory_bytes: usize, lock: Option<File>) -> Result<Self> {
        let index = Self::over(Store::open(path, true, memory_bytes, lock)?)?;
        let mut batch = index.store.batch();
        batch.put(Space::Own, TAG_KEY, &record::encode_tag(tag))?;
        batch.write()?;
        Ok(index)
    }

    /// Opens an index that is there, for writing; `lock` is let go when it is closed.
    pub(super) fn open_existing(path: &Path, memory_bytes: usize, lock: Option<File>) -> Result<Self, OpenFailure> {
        Self::over(Store::open(path, false, memory_bytes, lock)?)
    }

    /// Takes a view of an index that another process may be writing. `own` is a folder for this view alone.
    pub(super) fn open_view(path: &Path, own: &Path, memory_bytes: usize) -> Result<Self, OpenFailure> {
        Self::over(Store::open_view(path, own, memory_bytes)?)
    }

    /// What the index belongs to; `None` when it was never finished or is of another layout.
    pub(super) fn tag(&self) -> Result<Option<IndexTag>> {
        Ok(self.store.get(Space::Own, TAG_KEY, |bytes| Ok(record::decode_tag(bytes)))?.flatten())
    }

    fn over(store: Store) -> Result<Self, OpenFailure> {
        if store.writable() {
            Folder::sweep(store.path());
        }
        let (live, totals) = load(&store).map_err(OpenFailure::Unusable)?;
        Ok(Self { store, live: RwLock::new(live), totals: Mutex::new(totals), notes_hidden: AtomicBool::new(false) })
    }

    // A panic cannot leave these two in disagreement with the store: they change after it, in one step each.
    fn live(&self) -> RwLockReadGuard<'_, LiveSet> {
        self.live.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn live_mut(&self) -> RwLockWriteGuard<'_, LiveSet> {
        self.live.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_live(&self, number: PackNumber) -> bool {
        self.live().contains(number.0)
    }

    fn primary(&self, id: &ChunkId) -> Result<Option<Location>> {
        self.store.get(Space::Chunks, id.as_bytes(), |bytes| self.location(id, bytes))
    }

    fn primaries(&self, ids: &[&ChunkId]) -> Result<Vec<Option<Location>>> {
        let keys: Vec<&[u8]> = ids.iter().map(|id| &id.as_bytes()[..]).collect();
        self.store.get_many(Space::Chunks, &keys, |at, bytes| self.location(ids[at], bytes))
    }

    fn location(&self, id: &ChunkId, bytes: &[u8]) -> Result<Location> {
        record::decode_location(id, bytes).ok_or_else(|| self.store.malformed("an entry cannot be read"))
    }

    /// The oldest live copy beside the first.
    fn first_live_copy(&self, id: &ChunkId) -> Result<Option<Location>> {
        let end = [&id.as_bytes()[..], &[0xff; 5]].concat();
        let mut copies = self.store.scan(Space::Copies, id.as_bytes(), Some(end), false)?;
        while let Some((key, value)) = copies.step()? {
            let location = self.copy(key, value)?;
            if self.is_live(location.pack) {
                return Ok(Some(location));
            }
        }
        Ok(None)
    }

    fn copy(&self, key: &[u8], value: &[u8]) -> Result<Location> {
        let (id, number) = record::decode_copy_key(key).ok_or_else(|| self.store.malformed("a copy's key cannot be read"))?;
        let location = self.location(&id, value)?;
        if location.pack.0 != number {
            return Err(self.store.malformed("a copy stands under another pack's number"));
        }
        Ok(location)
    }

    fn pack_record(&self, number: PackNumber) -> Result<Option<PackRecord>> {
        self.store.get(Space::Packs, &number_key(number.0), |bytes| pack_record(&self.store, bytes))
    }

    /// Takes dead entries out. Interrupted, it is simply begun again another time: each batch leaves everything findable.
    fn sweep(&self, totals: &mut Totals) -> Result<()> {
        let mut batch = self.store.batch();
        let mut chunks = self.store.scan(Space::Chunks, &[], None, true)?;
        while let Some((key, value)) = chunks.step()? {
            let id = chunk_id(&self.store, key)?;
            if self.is_live(self.location(&id, value)?.pack) {
                continue;
            }
            match self.first_live_copy(&id)? {
                Some(copy) => {
                    batch.put(Space::Chunks, id.as_bytes(), &record::encode_location(&copy))?;
                    batch.delete(Space::Copies, &record::copy_key(&id, copy.pack.0))?;
                }
                None => batch.delete(Space::Chunks, id.as_bytes())?,
            }
            if batch.len() >= SWEEP_BATCH {
                std::mem::replace(&mut batch, self.store.batch()).write()?;
            }
        }
        let mut copies = self.store.scan(Space::Copies, &[], None, true)?;
        while let Some((key, value)) = copies.step()? {
            if !self.is_live(self.copy(key, value)?.pack) {
                batch.delete(Space::Copies, key)?;
            }
            if batch.len() >= SWEEP_BATCH {
                std::mem::replace(&mut batch, self.store.batch()).write()?;
            }
        }
        let counters = Counters { dead: 0, ..totals.counters };
        batch.put(Space::Packs, COUNTERS_KEY, &record::encode_counters(&counters))?;
        batch.write()?;
        totals.counters = counters;
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    fn out_of_numbers(&self) -> Error {
        let message = "the index has run out of pack numbers";
        Error::new(ErrorKind::Cache, message).on(self.store.path().display()).hint("delete it: it is rebuilt")
    }

    /// Makes packs, those of `first` and then the rest, the content of this index if it has none. `Some` gives `first` back
    /// where it has. `reached` is told of each step.
    pub(super) fn fill(
        &self,
        first: Vec<NewPack>,
        rest: &mut dyn FnMut() -> Result<Option<NewPack>>,
        reached: &mut dyn FnMut(&str),
    ) -> Result<Option<Vec<NewPack>>> {
        let mut totals = self.totals();
        if self.live().len() > 0 {
            return Ok(Some(first));
        }
        let folder = Folder::create(self.store.path())?;
        let mut load = Load::new(&folder, totals.counters.next, (self.store.memory_bytes() / 2).min(SORT_BYTES_MAX))?;
        let mut first = first.into_iter();
        while let Some(pack) = first.next().map_or_else(&mut *rest, |pack| Ok(Some(pack)))? {
            if load.next() >= PACK_NUMBERS_MAX {
                return Err(self.out_of_numbers());
            }
            load.add(&pack)?;
        }
        let numbers = totals.counters.next..load.next();
        // Given, even if what follows fails halfway.
        totals.counters.next = numbers.end;
        let loaded = load.finish(&self.store, reached)?;
        let mut live = self.live_mut();
        numbers.filter(|number| !loaded.unused.contains(number)).for_each(|number| {
            live.insert(number);
        });
        drop(live);
        *totals = Totals { counters: Counters { dead: 0, ..totals.counters }, entries: loaded.entries };
        Ok(None)
    }

    /// Hides packs from a view.
    fn hide(&self, packs: &[PackId]) -> Result<()> {
        for id in packs {
            let Some(number) = self.pack_number(id)? else { continue };
            let entries = self.pack_record(number)?.map_or(0, |record| record.entries);
            let mut totals = self.totals();
            if self.live_mut().remove(number.0) {
                totals.entries = totals.entries.saturating_sub(entries);
            }
        }
        Ok(())
    }
}

impl ChunkIndex for RocksIndex {
    fn get(&self, id: &ChunkId) -> Result<Option<Location>> {
        let mut first = self.primary(id)?;
        loop {
            let Some(location) = first else { return Ok(None) };
            if self.is_live(location.pack) {
                return Ok(Some(location));
            }
            if let Some(copy) = self.first_live_copy(id)? {
                return Ok(Some(copy));
            }
            // A copy that became the first one between the two look-ups stands in neither of them. It replaced the dead
            // one, and numbers do not come back, so an unchanged first entry proves that there was none.
            let now = self.primary(id)?;
            if now == first {
                return Ok(None);
            }
            first = now;
        }
    }

    fn get_many(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
        let mut found = self.primaries(&ids.iter().collect::<Vec<_>>())?;
        for (id, first) in ids.iter().zip(&mut found) {
            // Rare: only after a prune, and until the sweep.
            if first.is_some_and(|first| !self.is_live(first.pack)) {
                *first = self.get(id)?;
            }
        }
        Ok(found)
    }

    fn copies(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let Some(first) = self.get(id)? else { return Ok(Vec::new()) };
        let mut found = vec![first];
        found.extend(self.primary(id)?);
        let end = [&id.as_bytes()[..], &[0xff; 5]].concat();
        let mut further = self.store.scan(Space::Copies, id.as_bytes(), Some(end), false)?;
        while let Some((key, value)) = further.step()? {
            found.push(self.copy(key, value)?);
        }
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|copy| self.is_live(copy.pack) && seen.insert(copy.pack));
        Ok(found)
    }

    fn pack(&self, number: PackNumber) -> Result<PackInfo> {
        let record = if self.is_live(number) { self.pack_record(number)? } else { None };
        record.map(|record| record.info).ok_or_else(|| {
            let message = format!("the index has no pack of number {} (removed meanwhile?)", number.0);
            Error::new(ErrorKind::Cache, message).on(self.store.path().display())
        })
    }

    fn pack_number(&self, id: &PackId) -> Result<Option<PackNumber>> {
        let number = self.store.get(Space::Packs, &id_key(id), |bytes| {
            let bytes = bytes.try_into().map_err(|_| self.store.malformed("a pack's number cannot be read"))?;
            Ok(PackNumber(u32::from_be_bytes(bytes)))
        })?;
        Ok(number.filter(|number| self.is_live(*number)))
    }

    fn packs(&self) -> Result<Vec<PackInfo>> {
        let mut packs = Vec::with_capacity(usize::try_from(self.live().len()).unwrap_or(0));
        self.for_each_pack(&mut |pack| {
            packs.push(*pack);
            Ok(())
        })?;
        Ok(packs)
    }

    fn for_each_pack(&self, visit: &mut dyn FnMut(&PackInfo) -> Result<()>) -> Result<()> {
        let mut scan = scan_packs(&self.store)?;
        while let Some((key, value)) = scan.step()? {
            if self.is_live(PackNumber(number_of(&self.store, key)?)) {
                visit(&pack_record(&self.store, value)?.info)?;
            }
        }
        Ok(())
    }

    fn insert_pack(&self, info: &PackInfo, blobs: &[BlobEntry]) -> Result<()> {
        let mut totals = self.totals();
        if self.pack_number(&info.id)?.is_some() {
            return Ok(());
        }
        let number = totals.counters.next;
        if number >= PACK_NUMBERS_MAX {
            return Err(self.out_of_numbers());
        }
        let mut counters = Counters { next: number + 1, ..totals.counters };
        let mut batch = self.store.batch();
        let entries = bulk::entries(blobs);
        let firsts = self.primaries(&entries.keys().collect::<Vec<_>>())?;
        for ((id, blob), first) in entries.iter().zip(firsts) {
            let new = record::encode_location(&Location { pack: PackNumber(number), blob: **blob });
            let first = match first {
                None => None,
                Some(first) if self.is_live(first.pack) => Some(first),
                Some(_) => {
                    counters.dead = counters.dead.saturating_sub(1);
                    let oldest = self.first_live_copy(id)?;
                    if let Some(copy) = &oldest {
                        batch.put(Space::Chunks, id.as_bytes(), &record::encode_location(copy))?;
                        batch.delete(Space::Copies, &record::copy_key(id, copy.pack.0))?;
                    }
                    oldest
                }
            };
            match first {
                None => batch.put(Space::Chunks, id.as_bytes(), &new)?,
                Some(_) => batch.put(Space::Copies, &record::copy_key(id, number), &new)?,
            }
        }
        let record = PackRecord { info: *info, entries: entries.len() as u64 };
        batch.put(Space::Packs, &number_key(number), &record::encode_pack(&record))?;
        batch.put(Space::Packs, &id_key(&info.id), &number.to_be_bytes())?;
        batch.put(Space::Packs, COUNTERS_KEY, &record::encode_counters(&counters))?;
        batch.write()?;
        // Only now do readers take the new entries for living: all at once.
        self.live_mut().insert(number);
        totals.counters = counters;
        totals.entries += record.entries;
        Ok(())
    }

    fn insert_packs(&self, packs: &mut dyn FnMut() -> Result<Option<NewPack>>) -> Result<()> {
        let (mut first, mut entries) = (Vec::new(), 0);
        if self.store.writable() && self.live().len() == 0 {
            while entries < BULK_ENTRIES_MIN
                && let Some(pack) = packs()?
            {
                entries += pack.blobs.len();
                first.push(pack);
            }
        }
        if entries >= BULK_ENTRIES_MIN {
            match self.fill(first, packs, &mut |_| ())? {
                None => return Ok(()),
                Some(back) => first = back,
            }
        }
        first.iter().try_for_each(|pack| self.insert_pack(&pack.info, &pack.blobs))?;
        while let Some(pack) = packs()? {
            self.insert_pack(&pack.info, &pack.blobs)?;
        }
        Ok(())
    }

    fn remove_packs(&self, packs: &[PackId]) -> Result<()> {
        if !self.store.writable() {
            return self.hide(packs);
        }
        let mut totals = self.totals();
        let mut after = *totals;
        let mut gone = HashSet::new();
        let mut batch = self.store.batch();
        for id in packs {
            let Some(number) = self.pack_number(id)? else { continue };
            if !gone.insert(number.0) {
                continue;
            }
            let record = self.pack_record(number)?.ok_or_else(|| self.store.malformed("a pack has a number and no record"))?;
            batch.delete(Space::Packs, &number_key(number.0))?;
            batch.delete(Space::Packs, &id_key(id))?;
            after.entries = after.entries.saturating_sub(record.entries);
            after.counters.dead = after.counters.dead.saturating_add(record.entries);
        }
        if gone.is_empty() {
            return Ok(());
        }
        batch.put(Space::Packs, COUNTERS_KEY, &record::encode_counters(&after.counters))?;
        batch.write()?;
        let mut live = self.live_mut();
        gone.iter().for_each(|number| {
            live.remove(*number);
        });
        drop(live);
        *totals = after;
        if after.counters.dead > DEAD_MIN && after.counters.dead > after.entries / 3 {
            self.sweep(&mut totals)?;
        }
        Ok(())
    }

    fn for_each(&self, visit: &mut dyn FnMut(&Location) -> Result<()>) -> Result<()> {
        // Both walks and the set of living packs are of one moment, or a copy that becomes the first one could be missed.
        let totals = self.totals();
        let live = self.live().clone();
        let mut chunks = self.store.scan(Space::Chunks, &[], None, true)?;
        let mut copies = self.store.scan(Space::Copies, &[], None, true)?;
        drop(totals);
        while let Some((key, value)) = chunks.step()? {
            let location = self.location(&chunk_id(&self.store, key)?, value)?;
            if live.contains(location.pack.0) {
                visit(&location)?;
            }
        }
        while let Some((key, value)) = copies.step()? {
            let location = self.copy(key, value)?;
            if live.contains(location.pack.0) {
                visit(&location)?;
            }
        }
        Ok(())
    }

    fn note(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        if self.notes_hidden.load(Ordering::Acquire) {
            return Ok(None);
        }
        self.store.get(space(table), &note_key(key), |value| Ok(value.to_vec()))
    }

    fn set_notes(&self, table: Table, notes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()> {
        let mut batch = self.store.batch();
        for (key, value) in notes {
            match value {
                Some(value) => batch.put(space(table), &note_key(key), value)?,
                None => batch.delete(space(table), &note_key(key))?,
            }
        }
        batch.write()
    }

    fn for_each_note(&self, table: Table, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        if self.notes_hidden.load(Ordering::Acquire) {
            return Ok(());
        }
        let from = note_key(prefix);
        let mut notes = self.store.scan(space(table), &from, successor(&from), true)?;
        while let Some((key, value)) = notes.step()? {
            visit(key.strip_prefix(&[NOTE]).unwrap_or(key), value)?;
        }
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        let mut totals = self.totals();
        if !self.store.writable() {
            self.live_mut().clear();
            self.notes_hidden.store(true, Ordering::Release);
            totals.entries = 0;
            return Ok(());
        }
        // The next number stays: a location that somebody still holds must not come to name a new pack.
        let counters = Counters { dead: 0, ..totals.counters };
        self.store.clear(|batch| batch.put(Space::Packs, COUNTERS_KEY, &record::encode_counters(&counters)))?;
        self.live_mut().clear();
        *totals = Totals { counters, entries: 0 };
        self.store.drop_cleared()
    }

    fn flush(&self) -> Result<()> {
        if self.store.writable() { self.store.sync() } else { Ok(()) }
    }

    fn counts(&self) -> Result<IndexCounts> {
        let entries = self.totals().entries;
        Ok(IndexCounts { chunks: entries, packs: self.live().len(), disk_bytes: self.store.disk_bytes()? })
    }
}

fn load(store: &Store) -> Result<(LiveSet, Totals)> {
    let counters = store.get(Space::Packs, COUNTERS_KEY, |bytes| {
        record::decode_counters(bytes).ok_or_else(|| store.malformed("its counters cannot be read"))
    })?;
    let mut totals = Totals { counters: counters.unwrap_or_default(), entries: 0 };
    let mut live = LiveSet::default();
    let mut packs = scan_packs(store)?;
    while let Some((key, value)) = packs.step()? {
        let number = number_of(store, key)?;
        if number >= totals.counters.next {
            return Err(store.malformed("a pack's number was never given"));
        }
        live.insert(number);
        totals.entries = totals.entries.saturating_add(pack_record(store, value)?.entries);
    }
    Ok((live, totals))
}

fn scan_packs(store: &Store) -> Result<super::rocks::Scan<'_>> {
    store.scan(Space::Packs, &[BY_NUMBER], Some(vec![BY_NUMBER + 1]), true)
}

fn number_of(store: &Store, key: &[u8]) -> Result<u32> {
    let number = key.strip_prefix(&[BY_NUMBER]).and_then(|bytes| bytes.try_into().ok());
    number.map(u32::from_be_bytes).ok_or_else(|| store.malformed("a pack's key cannot be read"))
}

fn pack_record(store: &Store, bytes: &[u8]) -> Result<PackRecord> {
    record::decode_pack(bytes).ok_or_else(|| store.malformed("a pack's record cannot be read"))
}

fn chunk_id(store: &Store, key: &[u8]) -> Result<ChunkId> {
    ChunkId::from_slice(key).ok_or_else(|| store.malformed("a chunk's key cannot be read"))
}

fn note_key(key: &[u8]) -> Vec<u8> {
    [&[NOTE], key].concat()
}

/// The lowest key above all that start with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

fn space(table: Table) -> Space {
    match table {
        Table::Meta => Space::Meta,
        Table::Journal => Space::Journal,
        Table::Stat => Space::Stat,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use tempfile::TempDir;

    use super::*;
    use crate::index::contract::{self, blob, chunk, pack};
    use crate::index::overlay::Overlay;

    const MEMORY_BYTES: usize = 8 << 20;

    fn at(path: &Path) -> RocksIndex {
        RocksIndex::open(path, MEMORY_BYTES).unwrap()
    }

    /// An overlay on a view of the index in `dir`, which goes on being open for writing.
    fn beside(writer: RocksIndex, dir: TempDir) -> Box<dyn ChunkIndex> {
        let own = tempfile::tempdir().unwrap();
        let base = RocksIndex::open_view(dir.path(), &own.path().join("view"), MEMORY_BYTES).unwrap();
        let top = at(&own.path().join("top"));
        Box::new(Overlay::new(Box::new(base), Box::new(top)).keeping((own, writer, dir)))
    }

    #[test]
    fn keeps_the_contract() {
        let dir = tempfile::tempdir().unwrap();
        let mut count = 0;
        contract::check_all(&mut || {
            count += 1;
            Box::new(at(&dir.path().join(count.to_string())))
        });
    }

    #[test]
    fn an_overlay_on_a_view_keeps_the_contract() {
        contract::check_all(&mut || {
            let dir = tempfile::tempdir().unwrap();
            let writer = at(dir.path());
            beside(writer, dir)
        });
    }

    #[test]
    fn agrees_with_the_model_also_when_opened_again() {
        contract::check_random(&mut || {
            let dir = tempfile::tempdir().unwrap();
            Box::new(move || Box::new(at(dir.path())))
        });
    }

    #[test]
    fn an_overlay_on_a_view_agrees_with_the_model() {
        contract::check_split(&mut |before| {
            let dir = tempfile::tempdir().unwrap();
            let writer = at(dir.path());
            before(&writer);
            beside(writer, dir)
        });
    }

    #[test]
    fn a_view_stands_still_while_its_writer_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let writer = at(&dir.path().join("index"));
        writer.insert_pack(&pack(1), &[blob(1, 0), blob(2, 1)]).unwrap();
        let view = RocksIndex::open_view(&dir.path().join("index"), &dir.path().join("own"), MEMORY_BYTES).unwrap();
        writer.insert_pack(&pack(2), &[blob(3, 0)]).unwrap();
        writer.remove_packs(&[pack(1).id]).unwrap();
        writer.clear().unwrap();
        assert_eq!(view.packs().unwrap(), [pack(1)]);
        assert_eq!(view.get(&chunk(2)).unwrap().unwrap().blob, blob(2, 1));
        assert_eq!(view.get(&chunk(3)).unwrap(), None);
        let refused = view.set_notes(Table::Meta, &[(vec![1], None)]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Cache);
        assert_eq!(view.insert_pack(&pack(3), &[]).unwrap_err().kind(), ErrorKind::Cache);
    }

    #[test]
    fn views_are_whole_or_refused_while_the_writer_is_busy() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let writer = Arc::new(at(&path));
        let busy = Arc::clone(&writer);
        let rounds = 3000u32;
        let thread = std::thread::spawn(move || {
            for round in 0..rounds {
                let id = |n: u32| ChunkId(*[&n.to_be_bytes()[..], &[7; 28]].concat().first_chunk().unwrap());
                let blobs: Vec<_> = (0..60).map(|n| BlobEntry { id: id(60 * round + n), ..blob(1, n) }).collect();
                let info = PackInfo { id: PackId(id(round).0), ..pack(1) };
                busy.insert_pack(&info, &blobs).unwrap();
                // Far more than the chunks, so that logs are replaced often.
                busy.set_notes(Table::Stat, &[(round.to_be_bytes().to_vec(), Some(blobs.iter().flat_map(|b| b.id.0).collect()))]).unwrap();
                if round % 250 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(50));
                }
            }
        });
        let mut refused = 0;
        loop {
            let last = thread.is_finished();
            let view = match RocksIndex::open_view(&path, &dir.path().join("own"), MEMORY_BYTES) {
                Ok(view) => view,
                Err(failure) => {
                    // After the last insert there are still compactions for a while.
                    refused += u32::from(last);
                    assert!(refused < 500, "refused although nothing changes: {failure:?}");
                    std::thread::sleep(std::time::Duration::from_millis(if last { 20 } else { 0 }));
                    continue;
                }
            };
            let mut entries = 0;
            view.for_each(&mut |_| {
                entries += 1;
                Ok(())
            })
            .unwrap();
            let packs = view.packs().unwrap().len() as u64;
            assert_eq!(entries, 60 * packs);
            let mut notes = 0;
            view.for_each_note(Table::Stat, b"", &mut |_, _| {
                notes += 1;
                Ok(())
            })
            .unwrap();
            assert!(notes == packs || notes + 1 == packs, "{notes} notes, {packs} packs");
            if last {
                break;
            }
        }
        thread.join().unwrap();
    }

    #[test]
    fn only_one_writes() {
        let dir = tempfile::tempdir().unwrap();
        let first = at(dir.path());
        assert_eq!(RocksIndex::open(dir.path(), MEMORY_BYTES).err().unwrap().kind(), ErrorKind::Busy);
        drop(first);
        at(dir.path());
    }

    #[test]
    fn a_sweep_leaves_only_living_entries() {
        let dir = tempfile::tempdir().unwrap();
        let index = at(dir.path());
        for n in 0..20 {
            index.insert_pack(&pack(n), &[blob(n, 0), blob(n + 1, 1), blob(100, 2)]).unwrap();
        }
        let dead: Vec<_> = (0..18).map(|n| pack(n).id).collect();
        index.remove_packs(&dead).unwrap();
        assert_eq!(index.totals().counters.dead, 0, "swept");
        let stand = |space| {
            let mut scan = index.store.scan(space, &[], None, false).unwrap();
            let mut count = 0;
            while scan.step().unwrap().is_some() {
                count += 1;
            }
            count
        };
        // Chunks 18, 19, 20 and 100; 19 and 100 stand in two packs.
        assert_eq!((stand(Space::Chunks), stand(Space::Copies)), (4, 2));
        assert_eq!(index.pack(index.get(&chunk(100)).unwrap().unwrap().pack).unwrap(), pack(18));
    }

    #[test]
    fn malformed_values_are_errors_and_the_index_is_not_opened_again() {
        let damages: [(Space, Vec<u8>, &[u8]); 6] = [
            (Space::Chunks, chunk(1).0.to_vec(), b""),
            (Space::Chunks, chunk(1).0.to_vec(), &[0xff; 30]),
            (Space::Chunks, vec![1, 2, 3], &[0; 7]),
            (Space::Copies, record::copy_key(&chunk(2), 1).to_vec(), &[9, 0, 0, 0, 0, 0, 0]),
            (Space::Packs, id_key(&pack(2).id), b"abc"),
            (Space::Packs, number_key(1).to_vec(), b"abc"),
        ];
        for (space, key, value) in damages {
            let dir = tempfile::tempdir().unwrap();
            let index = at(dir.path());
            for n in [1, 2] {
                index.insert_pack(&pack(n), &[blob(1, 0), blob(2, 1)]).unwrap();
            }
            let mut batch = index.store.batch();
            batch.put(space, &key, value).unwrap();
            batch.write().unwrap();
            let calls = [
                index.get(&chunk(1)).map(drop),
                index.remove_packs(&[pack(1).id]),
                index.get(&chunk(1)).map(drop),
                index.get(&chunk(2)).map(drop),
                index.packs().map(drop),
                index.pack_number(&pack(2).id).map(drop),
                index.insert_pack(&pack(3), &[blob(1, 0)]),
                index.for_each(&mut |_| Ok(())),
            ];
            let errors: Vec<_> = calls.into_iter().filter_map(Result::err).collect();
            assert!(!errors.is_empty(), "{space:?} {key:?}");
            for error in errors {
                assert_eq!(error.kind(), ErrorKind::Cache);
                assert_eq!(error.subject(), Some(dir.path().display().to_string().as_str()));
            }
            drop(index);
            assert!(matches!(RocksIndex::open_existing(dir.path(), MEMORY_BYTES, None), Err(OpenFailure::Unusable(_))));
        }
    }
}
