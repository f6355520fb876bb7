//! Reads many chunks at once, planned by pack: what stands near each other in a pack is read in one range, whatever order
//! it is asked for in, and a chunk that is wanted several times is opened once.
//!
//! A [`Fetch`] is for as many chunks as may be in memory together; who has more makes one after the other. Nothing is read
//! before it is asked for. A range or chunk that does not read well costs nothing else: each chunk of it is then read by
//! itself, from another copy if there is one ([`ChunkReader::read`]).

use std::cell::Cell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use super::read::ChunkReader;
use crate::error::{ErrorKind, Result};
use crate::index::{Location, PackNumber};
use crate::model::ChunkId;
use crate::seal::keys::ChunkKind;

/// No range is longer, unless it is one blob: enough that a disk's or network's delay counts little beside the bytes, and
/// little beside what a fetch has in memory.
const RANGE_BYTES_MAX: u64 = 1 << 20;
/// Blobs this far apart are still read together: less than what a request costs on anything but local memory.
const GAP_BYTES_MAX: u64 = 64 << 10;
/// The most bytes of one fetch that are read although nobody wants them: small files that stand far apart must not fill the
/// memory with what stands between them.
const GAPS_BYTES_MAX: u64 = 2 << 20;

/// Chunks that are wanted, and the ranges of packs that hold them.
pub struct Fetch<'a, 'r> {
    reader: &'a ChunkReader<'r>,
    kind: ChunkKind,
    wanted: HashMap<ChunkId, Wanted>,
    ranges: Vec<Range>,
}

struct Wanted {
    location: Location,
    range: usize,
    /// How often it will still be asked for.
    uses: u32,
    raw: Option<Arc<Vec<u8>>>,
}

/// A stretch of a pack.
struct Range {
    pack: PackNumber,
    start: u64,
    end: u64,
    /// Its chunks that may still have to be opened; the bytes go when there are none.
    closed: usize,
    bytes: Bytes,
}

thread_local! {
    /// The buffer of a range that is done with, for the next one: fresh memory for each would cost as much as the reading.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

enum Bytes {
    Unread,
    /// Its bytes come first; the buffer may be longer.
    Read(Vec<u8>),
    /// It was read and did not read well, or nothing of it is wanted any more.
    Gone,
}

impl<'a, 'r> Fetch<'a, 'r> {
    /// Plans the reading of chunks of one kind, each as often as it stands in `ids`, and of what they are encoded against.
    /// Chunks that can't be located are left for [`Fetch::take`] to fail on. An error is one of the index as a whole.
    pub fn plan(reader: &'a ChunkReader<'r>, kind: ChunkKind, ids: impl IntoIterator<Item = ChunkId>) -> Result<Self> {
        let mut wanted = HashMap::new();
        for id in ids {
            if let Some(base) = want(reader, kind, &mut wanted, id, false)? {
                want(reader, kind, &mut wanted, base, true)?;
            }
        }
        let mut order: Vec<&mut Wanted> = wanted.values_mut().collect();
        order.sort_unstable_by_key(|wanted| (wanted.location.pack, wanted.location.blob.offset));
        let ranges = ranges(&mut order);
        Ok(Self { reader, kind, wanted, ranges })
    }

    /// How many ranges were planned.
    pub fn ranges(&self) -> usize {
        self.ranges.len()
    }

    /// A chunk's bytes, checked. `Damaged` names the chunk when it is missing or wrong. Whoever asks more often than it was
    /// planned for gets it all the same, read again.
    pub fn take(&mut self, id: &ChunkId) -> Result<Arc<Vec<u8>>> {
        let Some(wanted) = self.wanted.get(id) else { return self.reader.read(self.kind, id).map(Arc::new) };
        let raw = match (&wanted.raw, wanted.location.blob.base) {
            (Some(raw), _) => Arc::clone(raw),
            (None, base) => {
                if let Some(base) = base {
                    self.prepare(&base);
                }
                match self.open(id) {
                    Some(raw) => Arc::new(raw),
                    None => self.reader.read(self.kind, id).map(Arc::new).inspect_err(|_| self.used(id, None))?,
                }
            }
        };
        self.used(id, Some(&raw));
        Ok(raw)
    }

    /// Puts the base of a delta that is opened next where the reader looks for it first.
    fn prepare(&mut self, base: &ChunkId) {
        let Some(wanted) = self.wanted.get(base) else { return };
        let raw = match &wanted.raw {
            Some(raw) => Some(Arc::clone(raw)),
            None if self.reader.has_base(self.kind, base) => None,
            None => self.open(base).map(Arc::new),
        };
        if let Some(raw) = &raw {
            self.reader.keep_base(self.kind, base, raw);
        }
        self.used(base, raw.as_ref());
    }

    /// Opens a chunk from its range; none when that can't be had from here.
    fn open(&mut self, id: &ChunkId) -> Option<Vec<u8>> {
        let wanted = self.wanted.get(id)?;
        self.ranges[wanted.range].open(self.reader, self.kind, &wanted.location)
    }

    /// Notes one use of a chunk, and keeps its plaintext while more are to come.
    fn used(&mut self, id: &ChunkId, raw: Option<&Arc<Vec<u8>>>) {
        let Some(wanted) = self.wanted.get_mut(id) else { return };
        wanted.uses = wanted.uses.saturating_sub(1);
        let is_last = wanted.uses == 0;
        let was_kept = wanted.raw.is_some();
        if !is_last && !was_kept {
            wanted.raw = raw.map(Arc::clone);
        }
        // The sealed bytes are needed until the chunk is kept, or is not wanted any more.
        if !was_kept && (is_last || wanted.raw.is_some()) {
            self.ranges[wanted.range].release();
        }
        if is_last {
            self.wanted.remove(id);
        }
    }
}

/// Adds a use of a chunk; gives the base that it is encoded against. A base is only of use where its first copy is a full one.
fn want(
    reader: &ChunkReader<'_>,
    kind: ChunkKind,
    wanted: &mut HashMap<ChunkId, Wanted>,
    id: ChunkId,
    as_base: bool,
) -> Result<Option<ChunkId>> {
    let location = match wanted.entry(id) {
        Entry::Occupied(mut known) => {
            let known = known.get_mut();
            known.uses += 1;
            // Its own base was counted with its first use: it is opened once.
            return Ok(None);
        }
        Entry::Vacant(new) => match reader.locate(&id).and_then(|at| reader.check_place(kind, &at).map(|()| at)) {
            Ok(location) if as_base && location.blob.base.is_some() => return Ok(None),
            Ok(location) => new.insert(Wanted { location, range: 0, uses: 1, raw: None }).location,
            // Whoever takes it finds it elsewhere, or says what is wrong.
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::Cache) => return Ok(None),
            Err(error) => return Err(error),
        },
    };
    Ok(location.blob.base)
}

/// Puts blobs, which are sorted by place, into ranges and tells each its own.
fn ranges(order: &mut [&mut Wanted]) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::new();
    let mut gaps_left = GAPS_BYTES_MAX;
    for wanted in order {
        let blob = &wanted.location.blob;
        let (start, end) = (u64::from(blob.offset), u64::from(blob.offset) + u64::from(blob.stored_len));
        let joined = ranges.last_mut().filter(|last| {
            // Blobs of a hostile index may overlap; they are read as they come.
            let gap = start.saturating_sub(last.end);
            last.pack == wanted.location.pack && gap <= GAP_BYTES_MAX.min(gaps_left) && end.max(last.end) - last.start <= RANGE_BYTES_MAX
        });
        match joined {
            Some(last) => {
                gaps_left -= start.saturating_sub(last.end);
                last.end = last.end.max(end);
                last.closed += 1;
            }
            None => ranges.push(Range { pack: wanted.location.pack, start, end, closed: 1, bytes: Bytes::Unread }),
        }
        wanted.range = ranges.len() - 1;
    }
    ranges
}

impl Range {
    /// One of its chunks, opened; none when that can't be had from here.
    fn open(&mut self, reader: &ChunkReader<'_>, kind: ChunkKind, location: &Location) -> Option<Vec<u8>> {
        if matches!(self.bytes, Bytes::Unread) {
            let len = usize::try_from(self.end - self.start).ok()?;
            let mut bytes = SPARE.take();
            if bytes.len() < len {
                bytes.resize(len, 0);
            }
            self.bytes = match reader.read_range(self.pack, self.start, &mut bytes[..len]) {
                Ok(()) => Bytes::Read(bytes),
                Err(error) => {
                    tracing::debug!(%error, "a range does not read; its chunks are read one by one");
                    Bytes::Gone
                }
            };
        }
        let Bytes::Read(bytes) = &self.bytes else { return None };
        let from = usize::try_from(u64::from(location.blob.offset) - self.start).ok()?;
        let sealed = bytes.get(from..from + location.blob.stored_len as usize)?.to_vec();
        reader.open_at(kind, location, sealed).ok()
    }

    fn release(&mut self) {
        self.closed = self.closed.saturating_sub(1);
        if self.closed == 0
            && let Bytes::Read(bytes) = std::mem::replace(&mut self.bytes, Bytes::Gone)
        {
            SPARE.set(bytes);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::index::BlobEntry;
    use crate::model::hash;
    use crate::progress::Progress;
    use crate::repo::{ChunkWriter, CreateOptions, Locked, Operation, Repository, WriterOptions};
    use crate::storage::Storage;
    use crate::storage::fault::{FaultStorage, Operation as Asked, Plan};
    use crate::storage::memory::MemoryStorage;

    type Recording = FaultStorage<MemoryStorage>;

    fn repository(storage: &Recording) -> Repository {
        let options = CreateOptions { pack_bytes: Some((1 << 20, 1 << 20)), ..CreateOptions::default() };
        Repository::create(storage, &options, &ManualClock::at(1)).unwrap();
        let index = Box::new(crate::index::memory::MemoryIndex::default());
        Locked::read(Arc::new(storage.clone())).unwrap().unlock(None, index, Arc::new(ManualClock::at(1)), "here").unwrap()
    }

    /// Stores chunks of these lengths, which do not compress, in this order.
    fn store(repo: &Repository, lengths: &[usize]) -> Vec<(ChunkId, Vec<u8>)> {
        let progress = Progress::new();
        let options = WriterOptions { compression: 1, dry_run: false, purpose: "test", operation: Operation::Write };
        let writer = ChunkWriter::begin(repo, options, &progress).unwrap();
        let chunks = lengths.iter().zip(0u64..).map(|(len, number)| {
            let mut bytes = vec![0; *len];
            hash::keyed_stream(&[3; 32], &number.to_le_bytes(), &mut bytes);
            (writer.put(ChunkKind::Data, &bytes).unwrap().id, bytes)
        });
        let chunks = chunks.collect();
        repo.abandon(writer.finish().unwrap()).unwrap();
        chunks
    }

    fn reads(storage: &Recording) -> usize {
        storage.record().iter().filter(|asked| asked.operation == Asked::GetRange).count()
    }

    #[test]
    fn many_small_chunks_of_a_pack_are_few_reads_in_whatever_order_they_are_asked_for() {
        let storage = Recording::new(MemoryStorage::default());
        let repo = repository(&storage);
        let chunks = store(&repo, &[900; 600]);
        let reader = ChunkReader::new(&repo);
        let mut fetch = Fetch::plan(&reader, ChunkKind::Data, chunks.iter().rev().map(|(id, _)| *id)).unwrap();
        storage.disarm();
        // 550 KB in packs of 1 MiB: one pack, or two where the first was nearly full.
        for (id, bytes) in chunks.iter().step_by(2).chain(chunks.iter().skip(1).step_by(2)) {
            assert_eq!(*fetch.take(id).unwrap(), *bytes);
        }
        assert!((1..=2).contains(&fetch.ranges()), "{}", fetch.ranges());
        assert_eq!(reads(&storage), fetch.ranges());
        assert!(fetch.wanted.is_empty() && fetch.ranges.iter().all(|range| matches!(range.bytes, Bytes::Gone)), "nothing stays in memory");
    }

    #[test]
    fn a_chunk_wanted_often_is_read_and_opened_once() {
        let storage = Recording::new(MemoryStorage::default());
        let repo = repository(&storage);
        let chunks = store(&repo, &[5000, 6000]);
        let reader = ChunkReader::new(&repo);
        let ids = [0, 1, 0, 0, 1].map(|at| chunks[at].0);
        let mut fetch = Fetch::plan(&reader, ChunkKind::Data, ids).unwrap();
        storage.disarm();
        let first = fetch.take(&ids[0]).unwrap();
        fetch.take(&ids[1]).unwrap();
        assert!(Arc::ptr_eq(&first, &fetch.take(&ids[0]).unwrap()));
        assert_eq!(reads(&storage), 1);
        fetch.take(&ids[0]).unwrap();
        fetch.take(&ids[1]).unwrap();
        // More often than planned.
        assert_eq!(*fetch.take(&ids[0]).unwrap(), chunks[0].1);
        assert_eq!(reads(&storage), 2);
        assert_eq!(Arc::strong_count(&first), 1, "let go of after its last use");
    }

    #[test]
    fn what_is_missing_or_does_not_read_costs_nothing_else() {
        let storage = Recording::new(MemoryStorage::default());
        let repo = repository(&storage);
        let chunks = store(&repo, &[4000; 20]);
        let reader = ChunkReader::new(&repo);
        let absent = ChunkId([9; 32]);
        let ids = || chunks.iter().map(|(id, _)| *id).chain([absent]);
        let mut fetch = Fetch::plan(&reader, ChunkKind::Data, ids()).unwrap();
        // The range does not read once: each chunk is read by itself.
        storage.arm(Plan::once(0));
        for (id, bytes) in &chunks {
            assert_eq!(*fetch.take(id).unwrap(), *bytes);
        }
        storage.disarm();
        let error = fetch.take(&absent).unwrap_err();
        assert!(error.kind() == ErrorKind::Damaged && error.to_string().contains(&absent.to_string()), "{error}");

        // One byte is wrong, and one chunk with it.
        let at = reader.locate(&chunks[7].0).unwrap();
        let key = crate::repo::pack_key(&repo.index.pack(at.pack).unwrap().id).unwrap();
        let mut bytes = storage.get(&key, u64::MAX).unwrap();
        bytes[at.blob.offset as usize + 5] ^= 1;
        storage.delete(&key).unwrap();
        storage.put_new(&key, &bytes).unwrap();
        let mut fetch = Fetch::plan(&reader, ChunkKind::Data, ids()).unwrap();
        for (number, (id, bytes)) in chunks.iter().enumerate() {
            match fetch.take(id) {
                Ok(raw) => assert!(number != 7 && *raw == *bytes),
                Err(error) => assert!(number == 7 && error.kind() == ErrorKind::Damaged, "{number}: {error}"),
            }
        }
        // Of another kind than it is asked for.
        let mut fetch = Fetch::plan(&reader, ChunkKind::Tree, ids()).unwrap();
        assert_eq!((fetch.ranges(), fetch.take(&chunks[0].0).unwrap_err().kind()), (0, ErrorKind::Damaged));
    }

    fn wanted(places: &[(u32, u32, u32)]) -> Vec<Wanted> {
        let blob = |offset, stored_len| BlobEntry {
            id: ChunkId([1; 32]),
            offset,
            stored_len,
            raw_len: 1,
            number: 0,
            kind: 0,
            codec: 0,
            base: None,
        };
        let places = places.iter().map(|&(pack, offset, len)| Location { pack: PackNumber(pack), blob: blob(offset, len) });
        places.map(|location| Wanted { location, range: usize::MAX, uses: 1, raw: None }).collect()
    }

    #[test]
    fn ranges_are_bounded_in_length_and_in_what_nobody_wants() {
        let (gap, max) = (u32::try_from(GAP_BYTES_MAX).unwrap(), u32::try_from(RANGE_BYTES_MAX).unwrap());
        type Places<'a> = &'a [(u32, u32, u32)];
        let cases: [(Places<'_>, usize); 7] = [
            (&[], 0),
            (&[(1, 0, 10), (1, 10, 10), (1, 20 + gap, 10)], 1),
            (&[(1, 0, 10), (1, 11 + gap, 10)], 2),
            (&[(1, 0, 10), (2, 10, 10)], 2),
            (&[(1, 0, max), (1, max, 1)], 2),
            (&[(1, 0, 3 * max)], 1),
            (&[(1, 0, 1000), (1, 10, 20), (1, 500, 1000)], 1),
        ];
        for (places, count) in cases {
            let mut all = wanted(places);
            let mut order: Vec<&mut Wanted> = all.iter_mut().collect();
            let ranges = ranges(&mut order);
            assert_eq!(ranges.len(), count, "{places:?}");
            for wanted in &all {
                let (range, blob) = (&ranges[wanted.range], &wanted.location.blob);
                assert!(range.start <= u64::from(blob.offset) && u64::from(blob.offset + blob.stored_len) <= range.end);
            }
            assert_eq!(ranges.iter().map(|range| range.closed).sum::<usize>(), places.len());
        }
        let scattered: Vec<(u32, u32, u32)> = (0..1000).map(|i| (1, i * (gap + 100), 100)).collect();
        let mut all = wanted(&scattered);
        let ranges = ranges(&mut all.iter_mut().collect::<Vec<_>>());
        let read: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        assert!(read <= 1000 * 100 + GAPS_BYTES_MAX, "{read}");
    }
}
