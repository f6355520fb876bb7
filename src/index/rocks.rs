//! The door to RocksDB: an ordered key-value store with a few spaces, atomic batches and bounded memory. It knows nothing
//! of chunks, and nothing outside this file knows RocksDB.
//!
//! Two ways in: [`Store::open`] for the one process that writes, [`Store::open_view`] for the others, which see the store
//! as it was at that moment and never change it.
//!
//! Durability: batches go to the write-ahead log without syncing it, so they survive the process; [`Store::sync`] makes
//! them survive the machine. After a crash the log is taken up to its first damaged record: a tail may be missing, but no
//! batch without those before it, over all spaces (RocksDB syncs older logs before it flushes one space ahead of another).

mod ingest;
mod tuning;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rocksdb::{BottommostLevelCompaction, Cache, ColumnFamily, CompactOptions, DB, DBRawIterator, ReadOptions, WriteBatch};

pub(super) use self::ingest::Tables;
use self::tuning::Tuning;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// Keys that are looked up together: more gain nothing, and their blocks are held all at once.
const BATCH_KEYS: usize = 64;
/// In the store's folder: damage was met while reading, so the store is not to be opened again.
const DAMAGED_MARKER: &str = "DAMAGED";

/// Above every key: ids are shorter, other keys begin with a lower byte.
const ABOVE_ALL: [u8; 64] = [0xff; 64];

/// The key spaces (column families).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    /// What the store says of itself; [`Store::clear`] leaves it.
    Own,
    /// First copies of chunks.
    Chunks,
    /// Further copies of chunks.
    Copies,
    /// Packs.
    Packs,
    /// Notes on the index.
    Meta,
    /// Notes on journals.
    Journal,
    /// The stat cache.
    Stat,
}

impl Space {
    /// All that [`Store::clear`] empties.
    const CONTENT: [Self; 6] = [Self::Chunks, Self::Copies, Self::Packs, Self::Meta, Self::Journal, Self::Stat];

    fn name(self) -> &'static str {
        match self {
            Self::Own => rocksdb::DEFAULT_COLUMN_FAMILY_NAME,
            Self::Chunks => "chunks",
            Self::Copies => "copies",
            Self::Packs => "packs",
            Self::Meta => "meta",
            Self::Journal => "journal",
            Self::Stat => "stat",
        }
    }
}

/// Why a store did not open.
#[derive(Debug)]
pub(super) enum OpenFailure {
    /// Another process has it open for writing.
    Locked,
    /// Its writer replaced files while the view was taken; taking it again is likely to help.
    Changing,
    /// What is there is damaged, incomplete or no store: throwing it away helps.
    Unusable(Error),
    /// The machine refuses (no space, no memory, too many open files): throwing it away does not help.
    Refused(Error),
}

impl From<OpenFailure> for Error {
    fn from(failure: OpenFailure) -> Self {
        match failure {
            OpenFailure::Locked => Error::new(ErrorKind::Busy, "another process has the index open"),
            OpenFailure::Changing => Error::new(ErrorKind::Busy, "another process is changing the index"),
            OpenFailure::Unusable(error) | OpenFailure::Refused(error) => error,
        }
    }
}

/// An open store.
pub(super) struct Store {
    db: DB,
    tuning: Tuning,
    cache: Cache,
    // Making one for each look-up would cost as much as a look into a filter.
    reads: ReadOptions,
    path: PathBuf,
    writable: bool,
    // After `db`: released when the store is closed.
    _keep: Option<File>,
}

impl Store {
    /// Makes an empty store, or opens the one that is there, for writing. `memory_bytes` bounds all that it holds in memory,
    /// however large it is. `keep` is let go after the store is closed: the lock under which it was opened.
    pub(super) fn open(path: &Path, create: bool, memory_bytes: usize, keep: Option<File>) -> Result<Self, OpenFailure> {
        if path.join(DAMAGED_MARKER).exists() {
            return Err(OpenFailure::Unusable(Error::new(ErrorKind::Cache, "damage was found in the index").on(path.display())));
        }
        let tuning = Tuning::of(path, memory_bytes);
        let cache = tuning.cache();
        let mut options = tuning.store(&cache);
        options.create_if_missing(create);
        options.create_missing_column_families(create);
        let db = DB::open_cf_descriptors(&options, path, tuning.families(&cache)).map_err(|cause| open_failure(path, cause))?;
        Ok(Self { db, tuning, cache, reads: ReadOptions::default(), path: path.to_owned(), writable: true, _keep: keep })
    }

    /// Opens a store that another process may be writing, as it is now, for reading. `own` is a folder for RocksDB's log.
    pub(super) fn open_view(path: &Path, own: &Path, memory_bytes: usize) -> Result<Self, OpenFailure> {
        // A view is made from the manifest and then the files that it names. Had the writer replaced some of them in
        // between, RocksDB would pass over missing logs and settle for an older table list without a word, and the view
        // would lack batches in some spaces and not in others. Any replacement starts with a longer manifest.
        let before = manifest(path).map_err(OpenFailure::Unusable)?;
        let tuning = Tuning::of(path, memory_bytes);
        let cache = tuning.cache();
        let mut options = tuning.store(&cache);
        // All tables are opened now: the writer may delete them later.
        options.set_max_open_files(-1);
        let db = DB::open_cf_descriptors_as_secondary(&options, path, own, tuning.families(&cache))
            .map_err(|cause| open_failure(path, cause))?;
        if manifest(path).map_err(OpenFailure::Unusable)? != before {
            return Err(OpenFailure::Changing);
        }
        Ok(Self { db, tuning, cache, reads: ReadOptions::default(), path: path.to_owned(), writable: false, _keep: None })
    }

    /// All that it may hold in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.tuning.memory_bytes()
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this is not a view.
    pub(super) fn writable(&self) -> bool {
        self.writable
    }

    /// What stands under a key.
    pub(super) fn get<T>(&self, space: Space, key: &[u8], read: impl FnOnce(&[u8]) -> Result<T>) -> Result<Option<T>> {
        let value = self
            .db
            .get_pinned_cf_opt(self.family(space)?, key, &self.reads)
            .map_err(|cause| self.failed("cannot read the index", cause))?;
        value.map(|value| read(&value)).transpose()
    }

    /// What stands under each of several keys; `read` is given a key's place among them too. In batches of [`BATCH_KEYS`].
    pub(super) fn get_many<T>(
        &self,
        space: Space,
        keys: &[&[u8]],
        mut read: impl FnMut(usize, &[u8]) -> Result<T>,
    ) -> Result<Vec<Option<T>>> {
        let family = self.family(space)?;
        let mut found = Vec::with_capacity(keys.len());
        for batch in keys.chunks(BATCH_KEYS) {
            for value in self.db.batched_multi_get_cf_opt(family, batch.iter().copied(), false, &self.reads) {
                let value = value.map_err(|cause| self.failed("cannot read the index", cause))?;
                found.push(value.map(|value| read(found.len(), &value)).transpose()?);
            }
        }
        Ok(found)
    }

    /// Walks the keys from `from` up to but without `to` as they are now, sorted. `bulk` keeps a long walk from pushing
    /// everything else out of the cache.
    pub(super) fn scan(&self, space: Space, from: &[u8], to: Option<Vec<u8>>, bulk: bool) -> Result<Scan<'_>> {
        let mut options = ReadOptions::default();
        if let Some(to) = to {
            options.set_iterate_upper_bound(to);
        }
        options.fill_cache(!bulk);
        let mut raw = self.db.raw_iterator_cf_opt(self.family(space)?, options);
        raw.seek(from);
        Ok(Scan { store: self, raw, started: false })
    }

    /// An empty batch.
    pub(super) fn batch(&self) -> Batch<'_> {
        Batch { store: self, inner: WriteBatch::default() }
    }

    /// Empties all spaces but [`Space::Own`], atomically together with the changes that `then` adds, which apply afterwards.
    pub(super) fn clear(&self, then: impl FnOnce(&mut Batch<'_>) -> Result<()>) -> Result<()> {
        let mut batch = self.batch();
        for space in Space::CONTENT {
            batch.inner.delete_range_cf(self.family(space)?, &[][..], &ABOVE_ALL[..]);
        }
        then(&mut batch)?;
        batch.write()
    }

    /// Gives the room of what [`Self::clear`] deleted back at once, rather than by and by. Nothing may be written between.
    pub(super) fn drop_cleared(&self) -> Result<()> {
        // Whole tables go. Only once the deletion itself is durable, or a crash could bring back some batches without others.
        self.sync()?;
        for space in Space::CONTENT {
            self.db
                .delete_file_in_range_cf(self.family(space)?, &[][..], &ABOVE_ALL[..])
                .map_err(|cause| self.failed("cannot empty the index", cause))?;
        }
        Ok(())
    }

    /// Empties some spaces, for good and down to their last table.
    pub(super) fn scrape(&self, spaces: &[Space]) -> Result<()> {
        let mut batch = self.batch();
        for space in spaces {
            batch.inner.delete_range_cf(self.family(*space)?, &[][..], &ABOVE_ALL[..]);
        }
        batch.write()?;
        self.sync()?;
        // The deletion itself goes as well. As long as it stands in a table, it lies between what is below and above it.
        let mut compaction = CompactOptions::default();
        compaction.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for space in spaces {
            let family = self.family(*space)?;
            self.db
                .delete_file_in_range_cf(family, &[][..], &ABOVE_ALL[..])
                .map_err(|cause| self.failed("cannot empty the index", cause))?;
            self.db.compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &compaction);
        }
        Ok(())
    }

    /// Makes all batches so far survive a crash of the machine.
    pub(super) fn sync(&self) -> Result<()> {
        self.db.flush_wal(true).map_err(|cause| self.failed("cannot sync the index", cause))
    }

    /// Bytes of its files.
    pub(super) fn disk_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for entry in fs::read_dir(&self.path).context(ErrorKind::Cache, "cannot list", self.path.display())? {
            // A file that went meanwhile takes no space.
            bytes += entry.and_then(|entry| entry.metadata()).map_or(0, |meta| meta.len());
        }
        Ok(bytes)
    }

    /// How many tables each level of a space has.
    #[cfg(test)]
    pub(super) fn tables_by_level(&self, space: Space) -> Vec<u64> {
        let family = self.family(space).expect("every space is there");
        let count = |level| self.db.property_int_value_cf(family, format!("rocksdb.num-files-at-level{level}").as_str());
        (0..7).map(|level| count(level).ok().flatten().expect("a count")).collect()
    }

    /// What is held in memory at this moment.
    #[cfg(test)]
    pub(super) fn memory_used(&self) -> MemoryUsed {
        let spaces = [&[Space::Own][..], &Space::CONTENT].concat();
        let readers = spaces.iter().map(|space| {
            let family = self.family(*space).expect("every space is there");
            self.db.property_int_value_cf(family, "rocksdb.estimate-table-readers-mem").ok().flatten().expect("a size")
        });
        MemoryUsed { cache: self.cache.get_usage(), uncached: readers.sum::<u64>() as usize }
    }

    /// The error for a value that is not what this program writes. The store is thrown away at its next opening.
    pub(super) fn malformed(&self, what: &str) -> Error {
        self.mark_damaged();
        Error::new(ErrorKind::Cache, format!("the index is damaged: {what}")).on(self.path.display()).hint(REBUILT)
    }

    fn failed(&self, what: &str, cause: rocksdb::Error) -> Error {
        // A table that went or that the disk does not give back is lost like a corrupt one.
        const LOST: [&str; 2] = ["No such file or directory", "Input/output error"];
        let damaged = cause.kind() == rocksdb::ErrorKind::Corruption || LOST.iter().any(|text| cause.as_ref().contains(text));
        let error = Error::new(ErrorKind::Cache, what).on(self.path.display()).because(cause);
        if !damaged {
            return error;
        }
        self.mark_damaged();
        error.hint(REBUILT)
    }

    // A view may have met its writer at work, so only the writer's own reading counts as proof. That the marker cannot be
    // written is no news beside the damage that is being reported.
    fn mark_damaged(&self) {
        if self.writable {
            let _ = File::create(self.path.join(DAMAGED_MARKER));
        }
    }

    fn family(&self, space: Space) -> Result<&ColumnFamily> {
        let family = self.db.cf_handle(space.name());
        family.ok_or_else(|| Error::new(ErrorKind::Cache, "the index lacks a column family").on(self.path.display()))
    }
}

/// Bytes that a store holds, in the cache (filters, indexes, blocks, write buffers) and beside it (open tables).
#[cfg(test)]
#[derive(Debug)]
pub(super) struct MemoryUsed {
    pub(super) cache: usize,
    pub(super) uncached: usize,
}

const REBUILT: &str = "the index is only a cache: run the command again and it is rebuilt from the repository";

/// Changes that happen together or not at all.
pub(super) struct Batch<'a> {
    store: &'a Store,
    inner: WriteBatch,
}

impl Batch<'_> {
    pub(super) fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<()> {
        self.inner.put_cf(self.store.family(space)?, key, value);
        Ok(())
    }

    pub(super) fn delete(&mut self, space: Space, key: &[u8]) -> Result<()> {
        self.inner.delete_cf(self.store.family(space)?, key);
        Ok(())
    }

    /// Changes so far.
    pub(super) fn len(&self) -> usize {
        self.inner.len()
    }

    pub(super) fn write(self) -> Result<()> {
        if !self.store.writable {
            return Err(Error::new(ErrorKind::Cache, "the index is open for reading only").on(self.store.path.display()));
        }
        self.store.db.write(self.inner).map_err(|cause| self.store.failed("cannot write the index", cause))
    }
}

/// A walk over the keys of a space.
pub(super) struct Scan<'a> {
    store: &'a Store,
    raw: DBRawIterator<'a>,
    started: bool,
}

impl Scan<'_> {
    /// The next key and its value.
    pub(super) fn step(&mut self) -> Result<Option<(&[u8], &[u8])>> {
        if self.started {
            self.raw.next();
        }
        self.started = true;
        if !self.raw.valid() {
            self.raw.status().map_err(|cause| self.store.failed("cannot read the index", cause))?;
        }
        Ok(self.raw.item())
    }
}

/// The name and length of the file that lists a store's tables and logs.
fn manifest(path: &Path) -> Result<(String, u64)> {
    const NAME_LEN_MAX: u64 = 64;
    let current = path.join("CURRENT");
    let mut name = String::new();
    File::open(&current).and_then(|file| file.take(NAME_LEN_MAX).read_to_string(&mut name)).context(
        ErrorKind::Cache,
        "cannot read",
        current.display(),
    )?;
    let name = name.trim_end().to_owned();
    if !name.strip_prefix("MANIFEST-").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(Error::new(ErrorKind::Cache, "the index is damaged: it does not name its manifest").on(current.display()));
    }
    let file = path.join(&name);
    let len = fs::metadata(&file).context(ErrorKind::Cache, "cannot read", file.display())?.len();
    Ok((name, len))
}

// RocksDB gives its errors as text only.
fn open_failure(path: &Path, cause: rocksdb::Error) -> OpenFailure {
    const LOCKED: [&str; 2] = ["While lock file", "lock hold by current process"];
    const REFUSED: [&str; 5] =
        ["No space left", "Disk quota exceeded", "Too many open files", "Cannot allocate memory", "Read-only file system"];
    let says = |texts: &[&str]| texts.iter().any(|text| cause.as_ref().contains(text));
    if cause.kind() == rocksdb::ErrorKind::IOError && says(&LOCKED) {
        return OpenFailure::Locked;
    }
    let refused = says(&REFUSED);
    let error = Error::new(ErrorKind::Cache, "cannot open the index").on(path.display()).because(cause);
    if refused { OpenFailure::Refused(error) } else { OpenFailure::Unusable(error) }
}
