//! The door to RocksDB: an ordered key-value store with a few spaces, atomic batches and bounded memory. It knows nothing
//! of chunks, and nothing outside this file knows RocksDB.
//!
//! Two ways in: [`Store::open`] for the one process that writes, [`Store::open_view`] for the others, which see the store
//! as it was at that moment and never change it.
//!
//! Durability: batches go to the write-ahead log without syncing it, so they survive the process; [`Store::sync`] makes
//! them survive the machine. After a crash the log is taken up to its first damaged record: a tail may be missing, but no
//! batch without those before it, over all spaces (RocksDB syncs older logs before it flushes one space ahead of another).

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRawIterator, DBRecoveryMode, LogLevel,
    Options, ReadOptions, WriteBatch,
};

use crate::error::{Error, ErrorKind, IoContext, Result};

/// Files that RocksDB keeps open when it writes; above that, tables are opened again at each use. At 128 MiB a table this
/// covers 48 GiB of index, a thousand million chunks.
const OPEN_FILES_MAX: i32 = 384;
/// Size of a table; larger tables are fewer files, smaller ones make shorter compactions.
const TABLE_BYTES: u64 = 128 << 20;
/// Log of batches not yet in tables. It is read at each open: 16 MiB take about a tenth of a second.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Bits of Bloom filter for a key: one absent key in a hundred costs a block read.
const BLOOM_BITS: f64 = 10.0;
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
    path: PathBuf,
    writable: bool,
    // After `db`: released when the store is closed.
    _keep: Option<File>,
}

impl Store {
    /// Makes an empty store, or opens the one that is there, for writing. `memory_bytes` bounds the write buffers and the
    /// block cache; Bloom filters (1.25 bytes a key) and table indexes (0.25) come on top and grow with the store. `keep`
    /// is let go after the store is closed: the lock under which it was opened.
    pub(super) fn open(path: &Path, create: bool, memory_bytes: usize, keep: Option<File>) -> Result<Self, OpenFailure> {
        if path.join(DAMAGED_MARKER).exists() {
            return Err(OpenFailure::Unusable(Error::new(ErrorKind::Cache, "damage was found in the index").on(path.display())));
        }
        let mut options = options(memory_bytes);
        options.create_if_missing(create);
        options.create_missing_column_families(create);
        options.set_max_open_files(OPEN_FILES_MAX);
        let db = DB::open_cf_descriptors(&options, path, families(memory_bytes)).map_err(|cause| open_failure(path, cause))?;
        Ok(Self { db, path: path.to_owned(), writable: true, _keep: keep })
    }

    /// Opens a store that another process may be writing, as it is now, for reading. `own` is a folder for RocksDB's log.
    pub(super) fn open_view(path: &Path, own: &Path, memory_bytes: usize) -> Result<Self, OpenFailure> {
        // A view is made from the manifest and then the files that it names. Had the writer replaced some of them in
        // between, RocksDB would pass over missing logs and settle for an older table list without a word, and the view
        // would lack batches in some spaces and not in others. Any replacement starts with a longer manifest.
        let before = manifest(path).map_err(OpenFailure::Unusable)?;
        let mut options = options(memory_bytes);
        // All tables are opened now: the writer may delete them later.
        options.set_max_open_files(-1);
        let db =
            DB::open_cf_descriptors_as_secondary(&options, path, own, families(memory_bytes)).map_err(|cause| open_failure(path, cause))?;
        if manifest(path).map_err(OpenFailure::Unusable)? != before {
            return Err(OpenFailure::Changing);
        }
        Ok(Self { db, path: path.to_owned(), writable: false, _keep: None })
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
        let value = self.db.get_pinned_cf(self.family(space)?, key).map_err(|cause| self.failed("cannot read the index", cause))?;
        value.map(|value| read(&value)).transpose()
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

fn options(memory_bytes: usize) -> Options {
    let mut options = Options::default();
    options.set_db_write_buffer_size(buffer_bytes(memory_bytes));
    options.set_max_total_wal_size(LOG_BYTES_MAX);
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    options.set_max_background_jobs(2);
    options.set_compaction_readahead_size(256 << 10);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_max_manifest_file_size(4 << 20);
    options
}

/// The spaces with their options: one block cache for all.
fn families(memory_bytes: usize) -> Vec<ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(memory_bytes / 2);
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&cache);
    tables.set_block_size(4 << 10);
    tables.set_format_version(6);
    tables.set_bloom_filter(BLOOM_BITS, false);
    tables.set_whole_key_filtering(true);
    // Filters stay outside of the small cache, with their open table: a filter of 3 MiB that comes and goes with the cache
    // would be read from disk for every other look-up.
    tables.set_cache_index_and_filter_blocks(false);
    let all = [&[Space::Own][..], &Space::CONTENT[..]].concat();
    all.into_iter()
        .map(|space| {
            let mut options = Options::default();
            options.set_block_based_table_factory(&tables);
            options.set_compression_type(DBCompressionType::Zstd);
            options.set_write_buffer_size(buffer_bytes(memory_bytes) / 2);
            options.set_target_file_size_base(TABLE_BYTES);
            options.set_max_bytes_for_level_base(2 * TABLE_BYTES);
            options.set_level_compaction_dynamic_level_bytes(true);
            ColumnFamilyDescriptor::new(space.name(), options)
        })
        .collect()
}

// A quarter for what is not yet in tables; half is block cache, the rest is left for compactions.
fn buffer_bytes(memory_bytes: usize) -> usize {
    (memory_bytes / 4).max(1 << 20)
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
