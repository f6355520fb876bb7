//! Fills an empty index on disk with any number of packs: entries are sorted outside of memory, written as finished tables
//! and taken in whole. Several times faster than inserting one by one, and nothing is left to compact.
//!
//! ```text
//! collect   packs get numbers; entries and pack ids are sorted into runs                the index is untouched
//! write     the runs are merged into tables; of packs named twice the first stands      the index is untouched
//! switch    the tag is taken off, tables and pack records go in, the tag is put back    discarded at the next opening
//! ```
//!
//! A crash before the switch leaves files that the next opening removes. A crash within it leaves an index without a tag,
//! which is discarded. An error leaves an empty index.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, IntoInnerError, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::record::{self, Counters, PACK_LEN, PackRecord};
use super::rocks::{Space, Store, Tables};
use super::sort::{Merge, Sorter};
use super::{BlobEntry, Location, NewPack, PackNumber};
use crate::error::{ErrorKind, IoContext, Result};
use crate::model::ChunkId;

/// Pack records that are written at once.
const RECORDS_BATCH: usize = 1024;
/// What part of the memory sorts the ids of packs: there are hundreds of chunks for each.
const IDS_SHARE: usize = 16;
/// What a switch empties first: entries of removed packs may still stand there.
const REPLACED: [Space; 3] = [Space::Chunks, Space::Copies, Space::Packs];

const WRITE: &str = "cannot write what the index is filled with";
const READ: &str = "cannot read what the index is filled with";

/// Packs that are to become the content of an index.
pub(super) struct Load<'a> {
    folder: &'a Folder,
    first: u32,
    next: u32,
    chunks: Sorter<'a>,
    ids: Sorter<'a>,
    /// Records of the packs in the order of their numbers.
    records: BufWriter<File>,
    entries: u64,
}

/// What a load made of an index.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Numbers that went to packs which were named twice.
    pub(super) unused: HashSet<u32>,
    /// Entries of all packs but those.
    pub(super) entries: u64,
}

/// A blob for each chunk of a pack: of several, the first.
pub(super) fn entries(blobs: &[BlobEntry]) -> BTreeMap<ChunkId, &BlobEntry> {
    let mut entries = BTreeMap::new();
    for blob in blobs {
        entries.entry(blob.id).or_insert(blob);
    }
    entries
}

/// The files of a load; they go with it.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// A new one in the folder of a store.
    pub(super) fn create(store: &Path) -> Result<Self> {
        Self::sweep(store);
        let folder = Self(Self::of(store));
        fs::create_dir(&folder.0).context(ErrorKind::Cache, "cannot make the folder", folder.0.display())?;
        Ok(folder)
    }

    /// Removes what a crash left. What cannot be removed now is met by the next load.
    pub(super) fn sweep(store: &Path) {
        let _ = fs::remove_dir_all(Self::of(store));
    }

    fn of(store: &Path) -> PathBuf {
        store.join("load")
    }

    fn records(&self) -> PathBuf {
        self.0.join("records")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl<'a> Load<'a> {
    /// Begins without packs; the first one gets the number `first`.
    pub(super) fn new(folder: &'a Folder, first: u32, memory_bytes: usize) -> Result<Self> {
        let path = folder.records();
        let file = File::options().create_new(true).read(true).write(true).open(&path).context(ErrorKind::Cache, WRITE, path.display())?;
        let ids_bytes = memory_bytes / IDS_SHARE;
        Ok(Self {
            folder,
            first,
            next: first,
            chunks: Sorter::new(&folder.0, "chunks", memory_bytes - ids_bytes),
            ids: Sorter::new(&folder.0, "packs", ids_bytes),
            records: BufWriter::new(file),
            entries: 0,
        })
    }

    /// The number that the next pack gets.
    pub(super) fn next(&self) -> u32 {
        self.next
    }

    /// Adds a pack.
    pub(super) fn add(&mut self, pack: &NewPack) -> Result<()> {
        let number = self.next;
        let entries = entries(&pack.blobs);
        for (id, blob) in &entries {
            let location = Location { pack: PackNumber(number), blob: **blob };
            self.chunks.push(&record::copy_key(id, number), &record::encode_location(&location))?;
        }
        self.ids.push(&record::copy_key(&ChunkId(pack.info.id.0), number), &[])?;
        let record = PackRecord { info: pack.info, entries: entries.len() as u64 };
        self.records.write_all(&record::encode_pack(&record)).context(ErrorKind::Cache, WRITE, self.folder.0.display())?;
        self.next += 1;
        self.entries += record.entries;
        Ok(())
    }

    /// Makes the packs the content of `store`, of whose packs none may be in use any more. `reached` is told of each step.
    pub(super) fn finish(self, store: &Store, reached: &mut dyn FnMut(&str)) -> Result<Loaded> {
        let Self { folder, first, next, chunks, ids, records, .. } = self;
        let mut loaded = Loaded { unused: repeated(ids.finish()?)?, entries: 0 };
        let options = store.table_options(self.entries);
        let mut first_copies = store.tables(&options, Space::Chunks, &folder.0);
        let mut further = store.tables(&options, Space::Copies, &folder.0);
        let mut merge = chunks.finish()?;
        let mut last = None;
        while let Some((key, value)) = merge.step()? {
            let Some((id, number)) = record::decode_copy_key(&key) else { continue };
            if loaded.unused.contains(&number) {
                continue;
            }
            loaded.entries += 1;
            if last == Some(id) {
                further.put(&key, value)?;
            } else {
                first_copies.put(id.as_bytes(), value)?;
                last = Some(id);
            }
        }
        drop(merge);
        first_copies.close()?;
        further.close()?;
        let records = records.into_inner().map_err(IntoInnerError::into_error).context(ErrorKind::Cache, WRITE, folder.0.display())?;
        reached("written");

        let tag = store.get(Space::Own, record::TAG_KEY, |tag| Ok(tag.to_vec()))?;
        let last = Last { counters: Counters { next, dead: 0 }, tag };
        let packs = Records { file: records, path: folder.records(), first, unused: &loaded.unused };
        switch(store, [first_copies, further], packs, &last, reached).inspect_err(|_| {
            // Empty and whole is better than filled in part and thrown away. If that fails too, it has no tag.
            let _ = store.scrape(&REPLACED).and_then(|()| last.write(store));
        })?;
        Ok(loaded)
    }
}

fn switch(store: &Store, tables: [Tables<'_>; 2], packs: Records<'_>, last: &Last, reached: &mut dyn FnMut(&str)) -> Result<()> {
    let mut batch = store.batch();
    batch.delete(Space::Own, record::TAG_KEY)?;
    batch.write()?;
    // Tables are taken in beside the log: the log must not lose that there is no tag.
    store.sync()?;
    reached("untagged");
    store.scrape(&REPLACED)?;
    reached("emptied");
    for tables in tables {
        tables.ingest()?;
        reached("taken in");
    }
    packs.put(store)?;
    reached("packs");
    last.write(store)
}

/// What makes a filled index one that counts.
struct Last {
    counters: Counters,
    tag: Option<Vec<u8>>,
}

impl Last {
    fn write(&self, store: &Store) -> Result<()> {
        let mut batch = store.batch();
        batch.put(Space::Packs, record::COUNTERS_KEY, &record::encode_counters(&self.counters))?;
        if let Some(tag) = &self.tag {
            batch.put(Space::Own, record::TAG_KEY, tag)?;
        }
        batch.write()?;
        store.sync()
    }
}

/// The packs' records, in a file in the order of their numbers.
struct Records<'a> {
    file: File,
    path: PathBuf,
    first: u32,
    unused: &'a HashSet<u32>,
}

impl Records<'_> {
    fn put(self, store: &Store) -> Result<()> {
        let failed = self.path.display();
        let mut file = self.file;
        file.rewind().context(ErrorKind::Cache, READ, &failed)?;
        let count = file.metadata().context(ErrorKind::Cache, READ, &failed)?.len() / PACK_LEN as u64;
        let mut file = BufReader::new(file);
        let mut batch = store.batch();
        for number in (self.first..).take(usize::try_from(count).unwrap_or(usize::MAX)) {
            let mut bytes = [0; PACK_LEN];
            file.read_exact(&mut bytes).context(ErrorKind::Cache, READ, &failed)?;
            let Some(record) = record::decode_pack(&bytes).filter(|_| !self.unused.contains(&number)) else { continue };
            batch.put(Space::Packs, &record::number_key(number), &bytes)?;
            batch.put(Space::Packs, &record::id_key(&record.info.id), &number.to_be_bytes())?;
            if batch.len() >= RECORDS_BATCH {
                std::mem::replace(&mut batch, store.batch()).write()?;
            }
        }
        batch.write()
    }
}

/// The numbers of packs whose id stands under a lower number too.
fn repeated(mut ids: Merge) -> Result<HashSet<u32>> {
    let (mut unused, mut last) = (HashSet::new(), None);
    while let Some((key, _)) = ids.step()? {
        let Some((id, number)) = record::decode_copy_key(&key) else { continue };
        if last == Some(id) {
            unused.insert(number);
        }
        last = Some(id);
    }
    Ok(unused)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::contract::{blob, chunk, pack};
    use super::super::disk::RocksIndex;
    use super::super::{ChunkIndex, IndexTag, Table, open};
    use super::*;
    use crate::model::RepositoryId;

    const MEMORY_BYTES: usize = 8 << 20;

    fn tag() -> IndexTag {
        IndexTag { repository: RepositoryId([1; 16]), host: "here".into(), format: 1 }
    }

    fn packs() -> Vec<NewPack> {
        (0..40).map(|n| NewPack { info: pack(n), blobs: (n..n + 30).map(|c| blob(c, u32::from(c))).collect() }).collect()
    }

    fn copy_dir(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() { copy_dir(&entry.path(), &to) } else { fs::copy(entry.path(), to).map(drop).unwrap() }
        }
    }

    /// What a process that dies at any step of a load leaves is an index as it was before, one that is discarded, or one
    /// that is complete.
    #[test]
    fn a_crash_leaves_what_was_there_or_all_or_what_is_discarded() {
        for before in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let index = RocksIndex::create(&dir.path().join("index"), &tag(), MEMORY_BYTES, None).unwrap();
            index.set_notes(Table::Stat, &[(b"note".to_vec(), Some(vec![1]))]).unwrap();
            if before {
                // Removed packs, whose entries still stand.
                index.insert_pack(&pack(200), &[blob(1, 7), blob(200, 7)]).unwrap();
                index.remove_packs(&[pack(200).id]).unwrap();
            }
            let mut steps = Vec::new();
            let crash = |step: &str, steps: &mut Vec<String>| {
                let state = dir.path().join(format!("{}-{step}", steps.len()));
                copy_dir(&dir.path().join("index"), &state.join("index"));
                steps.push(step.to_owned());
                let opened = open(&state, &tag(), MEMORY_BYTES).unwrap();
                assert!(!state.join("index/load").exists(), "{step}");
                let found = opened.index.packs().unwrap().len();
                match step {
                    "begun" | "written" => assert!(opened.discarded.is_none() && opened.fresh && found == 0, "{step}"),
                    "finished" => assert!(opened.discarded.is_none() && found == 40, "{step}"),
                    _ => assert!(opened.discarded.is_some() && opened.fresh && found == 0, "{step}"),
                }
                let kept = opened.index.note(Table::Stat, b"note").unwrap().is_some();
                assert_eq!(kept, opened.discarded.is_none(), "{step}");
            };
            let mut rest = packs().into_iter();
            let mut begun = false;
            let mut next = || {
                if !std::mem::replace(&mut begun, true) {
                    crash("begun", &mut vec![]);
                }
                Ok(rest.next())
            };
            assert_eq!(index.fill(Vec::new(), &mut next, &mut |step| crash(step, &mut steps)).unwrap(), None);
            assert_eq!(steps, ["written", "untagged", "emptied", "taken in", "taken in", "packs"]);
            crash("finished", &mut steps);
            assert_eq!(index.get(&chunk(200)).unwrap(), None);
            assert_eq!(index.get(&chunk(1)).unwrap().unwrap().blob, blob(1, 1));
        }
    }

    #[test]
    fn an_error_while_the_index_is_switched_leaves_an_empty_one_that_works() {
        for step in ["written", "emptied", "packs"] {
            let dir = tempfile::tempdir().unwrap();
            let index = RocksIndex::create(&dir.path().join("index"), &tag(), MEMORY_BYTES, None).unwrap();
            let load = dir.path().join("index/load");
            let mut failed = index.fill(packs(), &mut || Ok(None), &mut |reached| {
                if reached == step {
                    let _ = fs::remove_dir_all(&load);
                    File::options().write(true).open(dir.path().join("index/load/records")).map(drop).unwrap_err();
                }
            });
            // The records are read from the open file: only tables are missed.
            if step != "packs" {
                assert_eq!(failed.as_mut().unwrap_err().kind(), crate::ErrorKind::Cache, "{step}");
                assert_eq!(index.packs().unwrap(), []);
                assert_eq!(index.get(&chunk(9)).unwrap(), None);
                index.insert_pack(&pack(100), &[blob(9, 1)]).unwrap();
                assert_eq!(index.get(&chunk(9)).unwrap().unwrap().blob, blob(9, 1));
                assert!(index.get(&chunk(9)).unwrap().unwrap().pack.0 >= 40, "numbers are not given twice");
                assert!(index.tag().unwrap().is_some());
            }
        }
    }

    #[test]
    fn what_was_loaded_lies_in_the_lowest_level_also_after_a_clearing() {
        let dir = tempfile::tempdir().unwrap();
        let index = RocksIndex::open(dir.path(), MEMORY_BYTES).unwrap();
        for _ in 0..3 {
            let mut packs = packs().into_iter();
            index.insert_packs(&mut || Ok(packs.next())).unwrap();
            for space in [Space::Chunks, Space::Copies] {
                assert_eq!(index.store().tables_by_level(space), [0, 0, 0, 0, 0, 0, 1], "{space:?}");
            }
            index.clear().unwrap();
        }
    }

    /// Far more entries than the cache has room for, then reading and writing of every kind.
    #[test]
    fn whatever_happens_stays_within_the_budget() {
        let dir = tempfile::tempdir().unwrap();
        let id = |n: u64| ChunkId(crate::model::hash::hash(&[&n.to_le_bytes()]));
        let many = |n: u64, number: u64| NewPack {
            info: crate::index::PackInfo { id: crate::model::PackId(id(n << 32).0), ..pack(1) },
            blobs: (0..number).map(|at| BlobEntry { id: id(n * number + at), ..blob(1, at as u32) }).collect(),
        };
        let memory_bytes = 4 << 20;
        let within = |index: &RocksIndex, what: &str| {
            let used = index.store().memory_used();
            assert!(used.cache + used.uncached <= memory_bytes, "{what}: {used:?}");
            used.cache
        };
        let index = RocksIndex::open(dir.path(), memory_bytes).unwrap();
        let mut loaded = 0;
        index
            .insert_packs(&mut || {
                loaded += 1;
                Ok((loaded <= 500).then(|| many(loaded, 1000)))
            })
            .unwrap();
        within(&index, "filled");
        drop(index);
        // Opened anew, it knows that whole filters do not fit. Tables of both kinds are there.
        let index = RocksIndex::open(dir.path(), memory_bytes).unwrap();
        for n in 0..200_000 {
            assert!(index.get(&id(1_000 + n)).unwrap().is_some());
            assert!(index.get(&id(10_000_000 + n)).unwrap().is_none());
        }
        assert!(within(&index, "read") > memory_bytes / 2, "the cache is used");
        for n in 1_000..1_200 {
            let pack = many(n, 500);
            index.insert_pack(&pack.info, &pack.blobs).unwrap();
            within(&index, "inserted");
        }
        index.for_each(&mut |_| Ok(())).unwrap();
        within(&index, "walked");
    }
}
