//! Tables that are written whole, from sorted keys, and then taken into a space: no log, no write buffers, no compactions.

use std::path::{Path, PathBuf};

use rocksdb::{IngestExternalFileOptions, Options, SstFileWriter};

use super::tuning::TABLE_BYTES;
use super::{Space, Store};
use crate::error::Result;

/// How many keys are added between two looks at a table's size.
const KEYS_BETWEEN: u32 = 1024;

/// How tables of a load are to be written.
pub(in crate::index) struct TableOptions(Options);

/// Tables of one space, being written.
pub(in crate::index) struct Tables<'a> {
    store: &'a Store,
    options: &'a TableOptions,
    space: Space,
    folder: &'a Path,
    open: Option<SstFileWriter<'a>>,
    keys: u32,
    files: Vec<PathBuf>,
}

impl Store {
    /// How tables are to be written for a store of this many chunks.
    pub(in crate::index) fn table_options(&self, keys: u64) -> TableOptions {
        TableOptions(self.tuning.for_keys(keys).tables(&self.cache))
    }

    /// Begins tables for a space, in a folder on the store's own file system.
    pub(in crate::index) fn tables<'a>(&'a self, options: &'a TableOptions, space: Space, folder: &'a Path) -> Tables<'a> {
        Tables { store: self, options, space, folder, open: None, keys: 0, files: Vec::new() }
    }
}

impl Tables<'_> {
    /// Adds a key, which must be above all before it.
    pub(in crate::index) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
        if self.open.is_none() {
            let writer = SstFileWriter::create(&self.options.0);
            let path = self.folder.join(format!("{}-{}.sst", self.space.name(), self.files.len()));
            writer.open(&path).map_err(|cause| self.failed(cause))?;
            self.files.push(path);
            self.open = Some(writer);
        }
        let Some(writer) = &mut self.open else { return Ok(()) };
        writer.put(key, value).map_err(|cause| self.store.failed(WRITE, cause))?;
        self.keys += 1;
        if self.keys.is_multiple_of(KEYS_BETWEEN) && writer.file_size() >= TABLE_BYTES {
            self.close()?;
        }
        Ok(())
    }

    /// Ends the last table. The space does not have the tables yet.
    pub(in crate::index) fn close(&mut self) -> Result<()> {
        match self.open.take() {
            Some(mut writer) => writer.finish().map_err(|cause| self.failed(cause)),
            None => Ok(()),
        }
    }

    /// Moves the tables into their space, all or none, durably.
    pub(in crate::index) fn ingest(mut self) -> Result<()> {
        self.close()?;
        if self.files.is_empty() {
            return Ok(());
        }
        let mut options = IngestExternalFileOptions::default();
        options.set_move_files(true);
        let family = self.store.family(self.space)?;
        let files = std::mem::take(&mut self.files);
        self.store.db.ingest_external_file_cf_opts(family, &options, files).map_err(|cause| self.failed(cause))
    }

    fn failed(&self, cause: rocksdb::Error) -> crate::error::Error {
        self.store.failed(WRITE, cause)
    }
}

const WRITE: &str = "cannot write the index";
