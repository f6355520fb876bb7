//! Sorts more records than fit into memory: sorted runs go to files, which are merged.
//!
//! A record is a key of a chunk's copy (id, then pack number) and a short value. Keys are unique. The files belong to one
//! process and one sort; what a crash leaves of them is removed with their folder.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::record::COPY_KEY_LEN;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// Runs that are merged at once: each has a file open and a buffer.
const FAN_IN_MAX: usize = 128;
/// Size of a buffer of a run; the smaller one when many share the memory.
const BUFFER_BYTES: (usize, usize) = (16 << 10, 256 << 10);
/// A record's key, the length of its value in one byte, and a value of this length are counted when memory is divided.
const RECORD_BYTES: usize = COPY_KEY_LEN + 1 + 14;

type SortKey = [u8; COPY_KEY_LEN];

/// Takes records in any order.
pub(super) struct Sorter<'a> {
    folder: &'a Path,
    name: &'static str,
    memory_bytes: usize,
    fan_in_max: usize,
    /// Records as they go to a file.
    records: Vec<u8>,
    records_max: usize,
    /// The first bytes of each record's key, and where it starts.
    order: Vec<(u64, u32)>,
    order_max: usize,
    /// Finished runs, with how many merges are behind them.
    runs: Vec<(u32, PathBuf)>,
    made: u64,
}

impl<'a> Sorter<'a> {
    /// Sorts with about `memory_bytes`, in files of `folder` that start with `name`.
    pub(super) fn new(folder: &'a Path, name: &'static str, memory_bytes: usize) -> Self {
        let share = size_of::<(u64, u32)>() + RECORD_BYTES;
        let records_max = (memory_bytes / share * RECORD_BYTES).clamp(RECORD_BYTES + 256, u32::MAX as usize / 2);
        let order_max = (memory_bytes / share).max(1);
        Self {
            folder,
            name,
            memory_bytes,
            fan_in_max: FAN_IN_MAX,
            records: Vec::new(),
            records_max,
            order: Vec::new(),
            order_max,
            runs: Vec::new(),
            made: 0,
        }
    }

    /// Adds a record; its value has at most 255 bytes.
    pub(super) fn push(&mut self, key: &SortKey, value: &[u8]) -> Result<()> {
        let len = u8::try_from(value.len()).map_err(|_| Error::new(ErrorKind::Cache, "a value is too long to be sorted"))?;
        if self.order.capacity() == 0 {
            // Once and whole: growing by doubling would take up to three times as much on the way.
            self.records.reserve_exact(self.records_max);
            self.order.reserve_exact(self.order_max);
        }
        if self.order.len() >= self.order_max || self.records.len() + COPY_KEY_LEN + 1 + value.len() > self.records_max {
            self.spill()?;
        }
        self.order.push((prefix(key), self.records.len() as u32));
        self.records.extend_from_slice(key);
        self.records.push(len);
        self.records.extend_from_slice(value);
        Ok(())
    }

    /// Ends the adding; the records come back sorted.
    pub(super) fn finish(mut self) -> Result<Merge> {
        self.spill()?;
        let Self { folder, memory_bytes, runs, .. } = self;
        Merge::new(folder, runs.into_iter().map(|(_, path)| path).collect(), memory_bytes)
    }

    fn spill(&mut self) -> Result<()> {
        if self.order.is_empty() {
            return Ok(());
        }
        let key = |at: u32| &self.records[at as usize..at as usize + COPY_KEY_LEN];
        self.order.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1))));
        let path = self.new_run();
        let mut run = create(&path)?;
        for (_, at) in &self.order {
            let at = *at as usize;
            let len = COPY_KEY_LEN + 1 + usize::from(self.records[at + COPY_KEY_LEN]);
            run.write_all(&self.records[at..at + len]).context(ErrorKind::Cache, WRITE, path.display())?;
        }
        run.flush().context(ErrorKind::Cache, WRITE, path.display())?;
        self.runs.push((0, path));
        self.records.clear();
        self.order.clear();
        self.merge_runs()
    }

    /// Merges the last runs while there are as many of one size as can be merged.
    fn merge_runs(&mut self) -> Result<()> {
        while let Some((level, _)) = self.runs.last() {
            let level = *level;
            let same = self.runs.iter().rev().take_while(|(its, _)| *its == level).count();
            if same < self.fan_in_max {
                break;
            }
            let parts = self.runs.split_off(self.runs.len() - same);
            let mut merge = Merge::new(self.folder, parts.into_iter().map(|(_, path)| path).collect(), self.memory_bytes)?;
            let path = self.new_run();
            let mut run = create(&path)?;
            while let Some((key, value)) = merge.step()? {
                let record = [&key[..], &[value.len() as u8], value];
                record.iter().try_for_each(|part| run.write_all(part)).context(ErrorKind::Cache, WRITE, path.display())?;
            }
            run.flush().context(ErrorKind::Cache, WRITE, path.display())?;
            self.runs.push((level + 1, path));
        }
        Ok(())
    }

    fn new_run(&mut self) -> PathBuf {
        self.made += 1;
        self.folder.join(format!("{}-{}.run", self.name, self.made))
    }
}

/// Gives records back, sorted by key.
pub(super) struct Merge {
    folder: PathBuf,
    runs: Vec<Run>,
    /// The next key of each run that is not at its end.
    next: BinaryHeap<Reverse<(SortKey, u32)>>,
    /// The run that the record last given stands in.
    given: bool,
}

/// A run that is being read; its file has no name any more.
struct Run {
    file: BufReader<File>,
    value: Vec<u8>,
}

impl Merge {
    fn new(folder: &Path, paths: Vec<PathBuf>, memory_bytes: usize) -> Result<Self> {
        let buffer = (memory_bytes / paths.len().max(1)).clamp(BUFFER_BYTES.0, BUFFER_BYTES.1);
        let mut merge = Self { folder: folder.to_owned(), runs: Vec::new(), next: BinaryHeap::new(), given: false };
        for (number, path) in (0..).zip(paths) {
            let file = File::open(&path).context(ErrorKind::Cache, READ, path.display())?;
            fs::remove_file(&path).context(ErrorKind::Cache, "cannot remove", path.display())?;
            let mut run = Run { file: BufReader::with_capacity(buffer, file), value: Vec::new() };
            if let Some(key) = run.read().context(ErrorKind::Cache, READ, path.display())? {
                merge.next.push(Reverse((key, number)));
            }
            merge.runs.push(run);
        }
        Ok(merge)
    }

    /// The next record.
    pub(super) fn step(&mut self) -> Result<Option<(SortKey, &[u8])>> {
        // The run of the record given before goes on only now: until here its value was lent out.
        if self.given
            && let Some(mut top) = self.next.peek_mut()
        {
            let run = &mut self.runs[top.0.1 as usize];
            match run.read().context(ErrorKind::Cache, READ, self.folder.display())? {
                Some(key) => top.0.0 = key,
                None => drop(PeekMut::pop(top)),
            }
        }
        self.given = true;
        Ok(self.next.peek().map(|Reverse((key, run))| (*key, &self.runs[*run as usize].value[..])))
    }
}

impl Run {
    fn read(&mut self) -> std::io::Result<Option<SortKey>> {
        let mut head = [0; COPY_KEY_LEN + 1];
        if self.file.fill_buf()?.is_empty() {
            return Ok(None);
        }
        self.file.read_exact(&mut head)?;
        let (key, len) = head.split_at(COPY_KEY_LEN);
        self.value.resize(usize::from(len[0]), 0);
        self.file.read_exact(&mut self.value)?;
        Ok(key.try_into().ok())
    }
}

const READ: &str = "cannot read a sorted run";
const WRITE: &str = "cannot write a sorted run";

fn create(path: &Path) -> Result<BufWriter<File>> {
    let file = File::create_new(path).context(ErrorKind::Cache, WRITE, path.display())?;
    Ok(BufWriter::with_capacity(BUFFER_BYTES.1, file))
}

fn prefix(key: &SortKey) -> u64 {
    key.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(records: &[(SortKey, Vec<u8>)], memory_bytes: usize, fan_in_max: usize) -> Vec<(SortKey, Vec<u8>)> {
        let dir = tempfile::tempdir().unwrap();
        let mut sorter = Sorter { fan_in_max, ..Sorter::new(dir.path(), "test", memory_bytes) };
        records.iter().for_each(|(key, value)| sorter.push(key, value).unwrap());
        let mut merge = sorter.finish().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "files have no name any more");
        let mut back = Vec::new();
        while let Some((key, value)) = merge.step().unwrap() {
            back.push((key, value.to_vec()));
        }
        assert!(merge.step().unwrap().is_none(), "the end stays the end");
        back
    }

    proptest! {
        #[test]
        fn records_come_back_sorted_whatever_fits_into_memory(
            keys in proptest::collection::btree_map(any::<[u8; 4]>(), proptest::collection::vec(any::<u8>(), 0..255), 0..300),
            shuffle in any::<u64>(), memory in 1usize..20_000, fan_in in 2usize..5,
        ) {
            // Keys that differ at both ends or only at one.
            let key = |bytes: &[u8; 4]| {
                let mut key = [bytes[0] % 3; COPY_KEY_LEN];
                key[32..].copy_from_slice(bytes);
                key
            };
            let mut records: Vec<_> = keys.iter().map(|(bytes, value)| (key(bytes), value.clone())).collect();
            records.sort_by_key(|(key, _)| crate::model::hash::hash(&[&shuffle.to_le_bytes(), key]));
            let back = sorted(&records, memory, fan_in);
            records.sort();
            prop_assert_eq!(back, records);
        }
    }

    #[test]
    fn a_run_that_is_cut_short_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(dir.path(), "test", 1 << 20);
        (0..100u8).for_each(|n| sorter.push(&[n; COPY_KEY_LEN], &[n; 9]).unwrap());
        sorter.spill().unwrap();
        let path = dir.path().join("test-1.run");
        File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
        let mut merge = sorter.finish().unwrap();
        assert!(merge.step().is_ok() && merge.step().is_ok());
        assert_eq!(merge.step().unwrap_err().kind(), ErrorKind::Cache);
    }
}
