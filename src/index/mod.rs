//! SEAM: which pack holds a chunk, and small notes beside it. A cache on this host: everything in it can be rebuilt from
//! the repository, and nothing in it decides alone that a chunk exists (the pack's presence is checked) or may go.
//!
//! The contract, which every implementation keeps:
//!
//! 1. `insert_pack` is atomic: afterwards all of a pack's blobs are found or, on an error or crash, none. Repeating it
//!    changes nothing. Of blobs of one pack with the same id the first stands.
//! 2. A chunk may stand in several packs. `get` returns the copy in the pack that was inserted first of those that were
//!    not removed; after `remove_packs` the next copy is returned. A pack that was removed may be inserted again.
//! 3. Notes (`note`, `set_notes`) are byte strings in named tables; one `set_notes` call is atomic.
//! 4. `insert_packs` has the outcome of `insert_pack` for each of its packs in turn, of those before the first error. They
//!    may be found together at its end only. After an error or crash the first of them are there, or none is.
//! 5. Inserts survive the end of the process; after a crash of the machine a tail of them may be missing, but never an
//!    earlier one without the later ones.

use crate::error::Result;
use crate::model::{ChunkId, PackId};

#[cfg(feature = "rocks")]
mod bulk;
#[cfg(test)]
mod contract;
#[cfg(feature = "rocks")]
mod disk;
#[cfg(feature = "rocks")]
mod live;
pub mod memory;
mod open;
pub mod overlay;
#[cfg(feature = "rocks")]
mod record;
#[cfg(feature = "rocks")]
mod rocks;
#[cfg(feature = "rocks")]
mod scratch;
#[cfg(feature = "rocks")]
mod sort;

#[cfg(feature = "rocks")]
pub use disk::RocksIndex;
pub use open::{IndexTag, MEMORY_BYTES_DEFAULT, MEMORY_BYTES_MIN, OpenedIndex, open};

/// A pack's number in this index; it has no meaning outside of it. A number is given once: a removed pack that is inserted
/// again has another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackNumber(pub u32);

/// Where a blob stands and how it is encoded. `kind` and `codec` are the numbers of the pack format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobEntry {
    /// The chunk that the blob holds.
    pub id: ChunkId,
    /// Offset of the stored bytes in the pack.
    pub offset: u32,
    /// Length of the stored bytes, the tag included.
    pub stored_len: u32,
    /// Length of the chunk.
    pub raw_len: u32,
    /// The blob's number in its pack, from 0; part of the nonce.
    pub number: u32,
    /// Data, tree or list.
    pub kind: u8,
    /// Raw, zstd or delta.
    pub codec: u8,
    /// What a delta is encoded against; none with any other codec.
    pub base: Option<ChunkId>,
}

/// What is known of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackInfo {
    /// The pack's name.
    pub id: PackId,
    /// Its length in bytes.
    pub len: u64,
    /// The salt that its keys are derived from.
    pub salt: [u8; 32],
}

/// A pack to be added, with its blobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPack {
    /// The pack.
    pub info: PackInfo,
    /// All that it holds.
    pub blobs: Vec<BlobEntry>,
}

/// A copy of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// The pack that holds it.
    pub pack: PackNumber,
    /// Where in the pack and how encoded.
    pub blob: BlobEntry,
}

/// What a table of notes is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Table {
    /// Facts about the index itself: repository, host, format.
    Meta,
    /// How far each session's journal has been taken in, and copies of its entries.
    Journal,
    /// The stat cache: one record a directory.
    Stat,
}

/// Sizes of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IndexCounts {
    /// Entries (copies of chunks); may be an estimate.
    pub chunks: u64,
    /// Packs.
    pub packs: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
}

/// The chunk index.
pub trait ChunkIndex: Send + Sync {
    /// The copy of a chunk to use, if there is one.
    fn get(&self, id: &ChunkId) -> Result<Option<Location>>;
    /// What [`Self::get`] gives for each of several chunks, in their order.
    fn get_many(&self, ids: &[ChunkId]) -> Result<Vec<Option<Location>>> {
        ids.iter().map(|id| self.get(id)).collect()
    }
    /// Every copy of a chunk in packs that were not removed, the one of `get` first.
    fn copies(&self, id: &ChunkId) -> Result<Vec<Location>>;
    /// What is known of a pack that a [`Location`] named.
    fn pack(&self, number: PackNumber) -> Result<PackInfo>;
    /// The number of a pack, if the index has it.
    fn pack_number(&self, id: &PackId) -> Result<Option<PackNumber>>;
    /// All packs, in no order.
    fn packs(&self) -> Result<Vec<PackInfo>>;
    /// Visits all packs, in no order, without holding them all.
    fn for_each_pack(&self, visit: &mut dyn FnMut(&PackInfo) -> Result<()>) -> Result<()> {
        self.packs()?.iter().try_for_each(visit)
    }
    /// Adds a pack with all its blobs.
    fn insert_pack(&self, info: &PackInfo, blobs: &[BlobEntry]) -> Result<()>;
    /// Adds the packs that `packs` gives until it gives none, however many. Much faster than one by one when the index is
    /// empty. `packs` may use the index, but not add or remove packs.
    fn insert_packs(&self, packs: &mut dyn FnMut() -> Result<Option<NewPack>>) -> Result<()> {
        while let Some(pack) = packs()? {
            self.insert_pack(&pack.info, &pack.blobs)?;
        }
        Ok(())
    }
    /// Forgets packs and all that they hold; unknown ones are passed over.
    fn remove_packs(&self, packs: &[PackId]) -> Result<()>;
    /// Visits every copy of every chunk in packs that were not removed, in no order.
    fn for_each(&self, visit: &mut dyn FnMut(&Location) -> Result<()>) -> Result<()>;
    /// A note, if there is one.
    fn note(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>>;
    /// Sets (or with `None` removes) notes of one table.
    fn set_notes(&self, table: Table, notes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<()>;
    /// Visits the notes of a table whose key starts with `prefix`, sorted by key.
    // Clippy would have a name for the visitor's type; a reader is served better by seeing it.
    #[allow(clippy::type_complexity)]
    fn for_each_note(&self, table: Table, prefix: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()>;
    /// Empties the index and all notes.
    fn clear(&self) -> Result<()>;
    /// Makes everything so far survive a crash of the machine.
    fn flush(&self) -> Result<()>;
    /// Sizes.
    fn counts(&self) -> Result<IndexCounts>;
}
