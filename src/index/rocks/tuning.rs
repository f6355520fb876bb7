//! How RocksDB is set up so that everything it holds fits a budget.
//!
//! ```text
//! budget ── 7/8 one block cache: table indexes, Bloom or Ribbon filters, data blocks, and the write buffers (1/8 of the
//!           budget), which are charged to it
//!        └─ 1/8 what is not charged: tables being built, read-ahead, open tables
//! ```
//!
//! A question for an absent chunk, the common one, costs a look into a filter. While filters and table indexes take up at
//! most [`WHOLE_PERCENT`] of the cache, tables have whole ones, pinned there. Above that they are cut into parts of
//! [`PART_BYTES`], which come and go like other blocks, and the filters become tighter (Ribbon) and coarser, so that they
//! still fit if they can. What a table has is decided when it is written, so that an index which grows past the limit, or is
//! opened with less memory, gets there by compactions, or at once when it is filled anew.

use std::fs;
use std::path::Path;

use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BlockBasedTablePinningTier, Cache, ColumnFamilyDescriptor, DBCompressionType, DBRecoveryMode,
    LogLevel, Options, WriteBufferManager,
};

use super::Space;

/// Files that RocksDB keeps open when it writes; above that, tables are opened again at each use. At 64 MiB a table this
/// covers 24 GiB of index, five hundred million chunks.
const OPEN_FILES_MAX: i32 = 384;
/// Size of a table; larger tables are fewer files, smaller ones make shorter compactions and less memory to build.
pub(super) const TABLE_BYTES: u64 = 64 << 20;
/// Size of a data block. A hit decompresses one; the table index has an entry for each.
const BLOCK_BYTES: usize = 4 << 10;
/// Log of batches not yet in tables. It is read at each open: 16 MiB take about a tenth of a second.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// Bits of a whole filter for a key: one absent key in a hundred costs a block read.
const BLOOM_BITS: f64 = 10.0;
/// Bytes of a whole filter and table index for a key.
const WHOLE_BYTES_PER_KEY: f64 = 1.5;
/// What part of the cache whole filters and indexes may take up.
const WHOLE_PERCENT: f64 = 60.0;
/// Size of a part of a filter or a table index.
const PART_BYTES: usize = 4 << 10;
/// What part of the cache the parts of filters are made to fit.
const PARTS_PERCENT: f64 = 75.0;
/// Bytes of a Ribbon filter for a key and each bit that a Bloom filter of the same precision would have.
const RIBBON_BYTES_PER_BIT: f64 = 0.089;
/// Precision of filters that do not fit, in bits of a Bloom filter: at 6, six absent keys in a hundred cost a block read.
const RIBBON_BITS_MIN: f64 = 6.0;
/// Bytes of a table for a chunk: its id, its location, compressed.
const TABLE_BYTES_PER_KEY: u64 = 48;
/// No write buffers are larger: beyond that, tables are only written later.
const BUFFER_BYTES_MAX: usize = 64 << 20;

/// The budget, and how many chunks share it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tuning {
    memory_bytes: usize,
    keys: u64,
}

impl Tuning {
    /// For a store of about this many chunks.
    pub(super) fn new(memory_bytes: usize, keys: u64) -> Self {
        Self { memory_bytes, keys }
    }

    /// For the store in a folder; one that is not there is empty.
    pub(super) fn of(path: &Path, memory_bytes: usize) -> Self {
        let Ok(entries) = fs::read_dir(path) else { return Self::new(memory_bytes, 0) };
        let tables = entries.flatten().filter(|entry| entry.path().extension().is_some_and(|extension| extension == "sst"));
        let bytes: u64 = tables.filter_map(|table| Some(table.metadata().ok()?.len())).sum();
        Self::new(memory_bytes, bytes / TABLE_BYTES_PER_KEY)
    }

    /// The same budget for another number of chunks.
    pub(super) fn for_keys(self, keys: u64) -> Self {
        Self { keys, ..self }
    }

    /// The budget.
    pub(super) fn memory_bytes(self) -> usize {
        self.memory_bytes
    }

    /// Bytes of the block cache, the write buffers included.
    pub(super) fn cache_bytes(self) -> usize {
        self.memory_bytes - self.memory_bytes / 8
    }

    fn buffer_bytes(self) -> usize {
        (self.memory_bytes / 8).clamp(1 << 20, BUFFER_BYTES_MAX)
    }

    /// Whether tables have whole filters, pinned.
    pub(super) fn is_whole(self) -> bool {
        self.keys as f64 * WHOLE_BYTES_PER_KEY <= self.cache_bytes() as f64 * WHOLE_PERCENT / 100.0
    }

    /// The precision of filters in parts.
    fn ribbon_bits(self) -> f64 {
        let fits = self.cache_bytes() as f64 * PARTS_PERCENT / 100.0 / (self.keys as f64 * RIBBON_BYTES_PER_BIT);
        fits.clamp(RIBBON_BITS_MIN, BLOOM_BITS)
    }

    /// The one cache of a store. It keeps what is asked for often: with parts of filters and blocks that are used once side
    /// by side, an LRU cache of the same size answered a third as many questions.
    pub(super) fn cache(self) -> Cache {
        Cache::new_hyper_clock_cache(self.cache_bytes(), 0)
    }

    /// Options of the whole store.
    pub(super) fn store(self, cache: &Cache) -> Options {
        let mut options = Options::default();
        options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager_with_cache(
            self.buffer_bytes(),
            false,
            cache.clone(),
        ));
        options.set_max_open_files(OPEN_FILES_MAX);
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

    /// The spaces with their options.
    pub(super) fn families(self, cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
        let all = [&[Space::Own][..], &Space::CONTENT[..]].concat();
        all.into_iter().map(|space| ColumnFamilyDescriptor::new(space.name(), self.tables(cache))).collect()
    }

    /// Options of a space and of its tables.
    pub(super) fn tables(self, cache: &Cache) -> Options {
        let mut tables = BlockBasedOptions::default();
        tables.set_block_cache(cache);
        tables.set_block_size(BLOCK_BYTES);
        tables.set_format_version(6);
        tables.set_whole_key_filtering(true);
        tables.set_cache_index_and_filter_blocks(true);
        tables.set_cache_index_and_filter_blocks_with_high_priority(true);
        tables.set_top_level_index_pinning_tier(BlockBasedTablePinningTier::All);
        tables.set_partition_pinning_tier(BlockBasedTablePinningTier::None);
        if self.is_whole() {
            tables.set_bloom_filter(BLOOM_BITS, false);
            tables.set_unpartitioned_pinning_tier(BlockBasedTablePinningTier::All);
        } else {
            tables.set_ribbon_filter(self.ribbon_bits());
            tables.set_partition_filters(true);
            tables.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
            tables.set_metadata_block_size(PART_BYTES);
            // Whole filters of earlier may not fit: the budget stands above speed.
            tables.set_unpartitioned_pinning_tier(BlockBasedTablePinningTier::None);
        }
        let mut options = Options::default();
        options.set_block_based_table_factory(&tables);
        options.set_compression_type(DBCompressionType::Zstd);
        options.set_write_buffer_size(self.buffer_bytes() / 2);
        options.set_target_file_size_base(TABLE_BYTES);
        options.set_max_bytes_for_level_base(4 * TABLE_BYTES);
        options.set_level_compaction_dynamic_level_bytes(true);
        options
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_whole_while_they_fit_and_then_made_to_fit() {
        let at = |mib: usize, keys| Tuning::new(mib << 20, keys);
        assert!(at(96, 0).is_whole() && at(96, 10_000_000).is_whole());
        assert!(!at(96, 100_000_000).is_whole() && !at(16, 10_000_000).is_whole());
        for (mib, keys) in [(96, 40_000_000), (96, 80_000_000), (96, 100_000_000), (1024, 1_000_000_000)] {
            let tuning = at(mib, keys);
            let bits = tuning.ribbon_bits();
            assert!((RIBBON_BITS_MIN..=BLOOM_BITS).contains(&bits));
            let filters = bits * RIBBON_BYTES_PER_BIT * keys as f64;
            assert!(filters <= tuning.cache_bytes() as f64, "{mib} MiB, {keys} keys: {bits} bits");
        }
        assert!((at(16, 1 << 40).ribbon_bits() - RIBBON_BITS_MIN).abs() < f64::EPSILON);
    }

    #[test]
    fn a_store_s_size_is_told_from_its_tables() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Tuning::of(&dir.path().join("absent"), 1).keys, 0);
        fs::write(dir.path().join("000001.sst"), vec![0; 4800]).unwrap();
        fs::write(dir.path().join("000002.log"), vec![0; 4800]).unwrap();
        assert_eq!(Tuning::of(dir.path(), 1).keys, 100);
    }
}
