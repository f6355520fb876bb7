//! An index in memory that outlives the repository that uses it, can be copied, and fails on command.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use icecore::index::memory::MemoryIndex;
use icecore::index::{BlobEntry, ChunkIndex, IndexCounts, Location, PackInfo, PackNumber, Table};
use icecore::model::{ChunkId, PackId};
use icecore::{Error, ErrorKind, Result};

type Dead = Box<dyn Fn() -> bool + Send + Sync>;

/// A clone is the same index.
#[derive(Clone, Default)]
pub(crate) struct TestIndex {
    inner: Arc<MemoryIndex>,
    gate: Arc<Gate>,
}

struct Gate {
    calls: AtomicU64,
    /// Calls from the first number to before the second fail.
    failing: Mutex<(u64, u64)>,
    /// The process that uses the index is dead: nothing it still does has an effect.
    dead: Mutex<Option<Dead>>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { calls: AtomicU64::new(0), failing: Mutex::new((u64::MAX, u64::MAX)), dead: Mutex::new(None) }
    }
}

impl TestIndex {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Another index with the same content, and no faults.
    pub(crate) fn copy(&self) -> Self {
        let copy = MemoryIndex::new();
        let mut blobs = Vec::new();
        self.inner
            .for_each(&mut |location| {
                blobs.push(*location);
                Ok(())
            })
            .unwrap();
        // In the order in which they were inserted, which `packs` of this implementation gives.
        for pack in self.inner.packs().unwrap() {
            let number = self.inner.pack_number(&pack.id).unwrap().unwrap();
            let mut own: Vec<BlobEntry> = blobs.iter().filter(|l| l.pack == number).map(|l| l.blob).collect();
            own.sort_by_key(|blob| blob.number);
            copy.insert_pack(&pack, &own).unwrap();
        }
        for table in [Table::Meta, Table::Journal, Table::Stat] {
            let mut notes = Vec::new();
            self.inner
                .for_each_note(table, b"", &mut |key, note| {
                    notes.push((key.to_vec(), Some(note.to_vec())));
                    Ok(())
                })
                .unwrap();
            copy.set_notes(table, &notes).unwrap();
        }
        Self { inner: Arc::new(copy), gate: Arc::default() }
    }

    /// Fails calls `from..to`, counted from now on.
    pub(crate) fn fail(&self, from: u64, to: u64) {
        self.gate.calls.store(0, Ordering::SeqCst);
        *self.gate.failing.lock().unwrap() = (from, to);
    }

    /// Calls since the last [`TestIndex::fail`].
    pub(crate) fn calls(&self) -> u64 {
        self.gate.calls.load(Ordering::SeqCst)
    }

    /// From the moment that `dead` says so, nothing has an effect any more.
    pub(crate) fn die_when(&self, dead: impl Fn() -> bool + Send + Sync + 'static) {
        *self.gate.dead.lock().unwrap() = Some(Box::new(dead));
    }

    fn pass(&self) -> Result<&MemoryIndex> {
        let number = self.gate.calls.fetch_add(1, Ordering::SeqCst);
        let (from, to) = *self.gate.failing.lock().unwrap();
        let dead = self.gate.dead.lock().unwrap().as_ref().is_some_and(|dead| dead());
        if dead || (from..to).contains(&number) {
            return Err(Error::new(ErrorKind::Cache, format!("index call {number} failed (injected)")));
        }
        Ok(&self.inner)
    }
}

impl ChunkIndex for TestIndex {
    fn get(&self, id: &ChunkId) -> Result<Option<Location>> {
        self.pass()?.get(id)
    }

    fn pack(&self, number: PackNumber) -> Result<PackInfo> {
        self.pass()?.pack(number)
    }

    fn pack_number(&self, id: &PackId) -> Result<Option<PackNumber>> {
        self.pass()?.pack_number(id)
    }

    fn packs(&self) -> Result<Vec<PackInfo>> {
        self.pass()?.packs()
    }

    fn insert_pack(&self, info: &PackInfo, blobs: &[BlobEntry]) -> Result<()> {
        self.pass()?.insert_pack(info, blobs)
    }

    fn remove_packs(&self, packs: &[PackId]) -> Result<()> {
        self.pass()?.remove_packs(packs)
    }

    fn for_each(&self, visit: &mut dyn FnMut(&Location) -> Result<()>) -> Result<()> {
        self.pass()?.for_each(visit)
    }

    fn note(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>> {
        self.pass()?.note(table, key)
    }

    fn set_notes(&self, table: Table, notes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()> {
        self.pass()?.set_notes(table, notes)
    }

    fn for_each_note(&self, table: Table, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        self.pass()?.for_each_note(table, prefix, visit)
    }

    fn clear(&self) -> Result<()> {
        self.pass()?.clear()
    }

    fn flush(&self) -> Result<()> {
        self.pass()?.flush()
    }

    fn counts(&self) -> Result<IndexCounts> {
        self.pass()?.counts()
    }
}
