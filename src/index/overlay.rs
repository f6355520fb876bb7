//! Two indexes that look like one: what was there, which stays as it is, and over it what this process adds.

use std::any::Any;
use std::sync::mpsc;
use std::{panic, thread};

use super::{BlobEntry, ChunkIndex, IndexCounts, Location, NewPack, PackInfo, PackNumber, Table};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{ChunkId, PackId};

/// Indexes number their packs below this; the bit itself marks the packs of an overlay's upper index.
pub(super) const PACK_NUMBERS_MAX: u32 = 1 << 31;
/// Notes of the lower index read ahead while the two are merged.
const NOTES_AHEAD_MAX: usize = 64;

// Notes of the upper index begin with one of these.
const REMOVED: u8 = 0;
const SET: u8 = 1;

/// A lower index that takes nothing in, and an upper one for what comes.
///
/// Packs of the lower index count as inserted before all others. Notes of the upper one stand before those of the lower.
/// Everything lives as long as the upper index: if that is gone with the process, so are the inserts (this is where an
/// overlay of a private index departs from rule 4 of the contract).
pub struct Overlay {
    base: Box<dyn ChunkIndex>,
    top: Box<dyn ChunkIndex>,
    // After the two: the folder that the upper index is in.
    _keep: Option<Box<dyn Any + Send + Sync>>,
}

impl Overlay {
    /// `base` must be this process's own view: packs are removed from it, and it is cleared, which no one else may notice.
    /// `top` must not have been used without an overlay.
    pub fn new(base: Box<dyn ChunkIndex>, top: Box<dyn ChunkIndex>) -> Self {
        Self { base, top, _keep: None }
    }

    /// The same, and `keep` is dropped after both indexes.
    #[must_use]
    pub fn keeping(mut self, keep: impl Any + Send + Sync) -> Self {
        self._keep = Some(Box::new(keep));
        self
    }
}

impl ChunkIndex for Overlay {
    fn get(&self, id: &ChunkId) -> Result<Option<Location>> {
        match self.base.get(id)? {
            Some(location) => Ok(Some(location)),
            None => Ok(self.top.get(id)?.map(raised)),
        }
    }

    fn get_many(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
        let mut found = self.base.get_many(ids)?;
        let absent: Vec<usize> = (0..ids.len()).filter(|at| found[*at].is_none()).collect();
        let above = self.top.get_many(&absent.iter().map(|at| ids[*at]).collect::<Vec<_>>())?;
        absent.into_iter().zip(above).for_each(|(at, location)| found[at] = location.map(raised));
        Ok(found)
    }

    fn copies(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let mut copies = self.base.copies(id)?;
        copies.extend(self.top.copies(id)?.into_iter().map(raised));
        Ok(copies)
    }

    fn pack(&self, number: PackNumber) -> Result<PackInfo> {
        match lowered(number) {
            Some(number) => self.top.pack(number),
            None => self.base.pack(number),
        }
    }

    fn pack_number(&self, id: &PackId) -> Result<Option<PackNumber>> {
        match self.base.pack_number(id)? {
            Some(number) => Ok(Some(number)),
            None => Ok(self.top.pack_number(id)?.map(raised_number)),
        }
    }

    fn packs(&self) -> Result<Vec<PackInfo>> {
        let mut packs = self.base.packs()?;
        packs.append(&mut self.top.packs()?);
        Ok(packs)
    }

    fn for_each_pack(&self, visit: &mut dyn FnMut(&PackInfo) -> Result<()>) -> Result<()> {
        self.base.for_each_pack(visit)?;
        self.top.for_each_pack(visit)
    }

    fn insert_pack(&self, info: &PackInfo, blobs: &[BlobEntry]) -> Result<()> {
        if self.base.pack_number(&info.id)?.is_some() {
            return Ok(());
        }
        self.top.insert_pack(info, blobs)
    }

    fn insert_packs(&self, packs: &mut dyn FnMut() -> Result<Option<NewPack>>) -> Result<()> {
        self.top.insert_packs(&mut || {
            while let Some(pack) = packs()? {
                if self.base.pack_number(&pack.info.id)?.is_none() {
                    return Ok(Some(pack));
                }
            }
            Ok(None)
        })
    }

    fn remove_packs(&self, packs: &[PackId]) -> Result<()> {
        self.base.remove_packs(packs)?;
        self.top.remove_packs(packs)
    }

    fn for_each(&self, visit: &mut dyn FnMut(&Location) -> Result<()>) -> Result<()> {
        self.base.for_each(visit)?;
        self.top.for_each(&mut |location| visit(&raised(*location)))
    }

    fn note(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.top.note(table, key)? {
            Some(value) => Ok(upper_note(&value)?.map(<[u8]>::to_vec)),
            None => self.base.note(table, key),
        }
    }

    fn set_notes(&self, table: Table, notes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()> {
        let marked: Vec<_> = notes
            .iter()
            .map(|(key, value)| {
                let value = value.as_ref().map_or_else(|| vec![REMOVED], |value| [&[SET], &value[..]].concat());
                (key.clone(), Some(value))
            })
            .collect();
        self.top.set_notes(table, &marked)
    }

    fn for_each_note(&self, table: Table, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        // Both sides push their notes, and a merge has to pull from one of them: that one runs on a thread of its own, a few
        // notes ahead. (Collecting one side first would be simpler and could hold a whole stat cache in memory.)
        thread::scope(|scope| {
            let (sender, receiver) = mpsc::sync_channel(NOTES_AHEAD_MAX);
            let base = scope.spawn(move || {
                self.base.for_each_note(table, prefix, &mut |key, value| {
                    let stopped = |_| Error::new(ErrorKind::Cache, "nobody takes further notes");
                    sender.send((key.to_vec(), value.to_vec())).map_err(stopped)
                })
            });
            let mut lower = receiver.into_iter().peekable();
            let mut merged = self.top.for_each_note(table, prefix, &mut |key, value| {
                while let Some((before, value)) = lower.next_if(|(lower, _)| lower.as_slice() < key) {
                    visit(&before, &value)?;
                }
                lower.next_if(|(lower, _)| lower == key);
                upper_note(value)?.map_or(Ok(()), |value| visit(key, value))
            });
            if merged.is_ok() {
                merged = lower.by_ref().try_for_each(|(key, value)| visit(&key, &value));
            }
            // Lets the thread end when the merge failed; its complaint about that is then of no interest.
            drop(lower);
            let base = base.join().unwrap_or_else(|cause| panic::resume_unwind(cause));
            merged.and(base)
        })
    }

    fn clear(&self) -> Result<()> {
        self.base.clear()?;
        self.top.clear()
    }

    fn flush(&self) -> Result<()> {
        self.top.flush()
    }

    fn counts(&self) -> Result<IndexCounts> {
        let (base, top) = (self.base.counts()?, self.top.counts()?);
        Ok(IndexCounts {
            chunks: base.chunks.saturating_add(top.chunks),
            packs: base.packs.saturating_add(top.packs),
            disk_bytes: base.disk_bytes.saturating_add(top.disk_bytes),
        })
    }
}

fn raised_number(number: PackNumber) -> PackNumber {
    PackNumber(number.0 | PACK_NUMBERS_MAX)
}

fn raised(location: Location) -> Location {
    Location { pack: raised_number(location.pack), ..location }
}

/// The number that the upper index knows a pack by, if it is a pack of the upper index.
fn lowered(number: PackNumber) -> Option<PackNumber> {
    (number.0 & PACK_NUMBERS_MAX != 0).then_some(PackNumber(number.0 & !PACK_NUMBERS_MAX))
}

fn upper_note(value: &[u8]) -> Result<Option<&[u8]>> {
    match value {
        [REMOVED] => Ok(None),
        [SET, value @ ..] => Ok(Some(value)),
        _ => Err(Error::new(ErrorKind::Cache, "a note of the overlay cannot be read")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::index::contract::{self, blob, chunk, pack};
    use crate::index::memory::MemoryIndex;

    fn over(base: MemoryIndex) -> Overlay {
        Overlay::new(Box::new(base), Box::new(MemoryIndex::new()))
    }

    #[test]
    fn keeps_the_contract() {
        contract::check_all(&mut || Box::new(over(MemoryIndex::new())));
    }

    #[test]
    fn agrees_with_one_index_whatever_part_was_there_before() {
        contract::check_split(&mut |before| {
            let base = MemoryIndex::new();
            before(&base);
            Box::new(over(base))
        });
    }

    #[test]
    fn packs_of_the_lower_index_come_first_and_are_told_apart() {
        let base = MemoryIndex::new();
        base.insert_pack(&pack(1), &[blob(1, 0), blob(2, 1)]).unwrap();
        let index = over(base);
        index.insert_pack(&pack(2), &[blob(2, 0), blob(3, 1)]).unwrap();
        let numbers: Vec<_> = [1, 2, 3].iter().map(|n| index.get(&chunk(*n)).unwrap().unwrap().pack.0 >> 31).collect();
        assert_eq!(numbers, [0, 0, 1]);
        assert_eq!(index.pack(index.get(&chunk(3)).unwrap().unwrap().pack).unwrap(), pack(2));
        index.remove_packs(&[pack(1).id]).unwrap();
        assert_eq!(index.pack(index.get(&chunk(2)).unwrap().unwrap().pack).unwrap(), pack(2));
        index.insert_pack(&pack(1), &[blob(1, 0)]).unwrap();
        assert_eq!(index.get(&chunk(1)).unwrap().unwrap().pack.0 >> 31, 1, "inserted again, above");
    }

    #[test]
    fn an_error_of_the_visitor_ends_the_merge() {
        let base = MemoryIndex::new();
        let notes: Vec<_> = (0..1000u32).map(|n| (n.to_be_bytes().to_vec(), Some(vec![1]))).collect();
        base.set_notes(Table::Stat, &notes).unwrap();
        let index = over(base);
        let mut seen = 0;
        let failed = index.for_each_note(Table::Stat, b"", &mut |_, _| {
            seen += 1;
            if seen == 3 { Err(Error::new(ErrorKind::Interrupted, "enough")) } else { Ok(()) }
        });
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Interrupted);
        assert_eq!(seen, 3);
    }
}
