//! A large file cut by several threads, with and without an earlier version to go by, against one pass from the start.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::crew::{Crew, Task};
use super::{Large, Windows};
use crate::chunk::GENERIC;
use crate::clock::ManualClock;
use crate::error::Result;
use crate::index::memory::MemoryIndex;
use crate::model::{Stream, hash};
use crate::progress::Progress;
use crate::repo::{
    ChunkList, ChunkReader, ChunkWriter, CreateOptions, Earlier, Locked, Operation, Repository, StreamReader, StreamWriter, WriterOptions,
};
use crate::seal::keys::ChunkKind;
use crate::source::{Extent, SourceFile, Stat, XattrSet};
use crate::storage::memory::MemoryStorage;

/// Holes are pieces of this length that are all zeros.
const HOLE_BYTES: usize = 64 << 10;

/// A file in memory. It gives less than is asked for, as files may.
struct MemoryFile(Vec<u8>);

impl SourceFile for MemoryFile {
    fn stat(&self) -> Result<Stat> {
        unreachable!("nobody asks")
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let rest = &self.0[(offset as usize).min(self.0.len())..];
        let len = rest.len().min(buffer.len()).min(70_001);
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn next_data(&self, offset: u64, end: u64) -> Result<Option<Extent>> {
        let block = |at: usize| &self.0[at..(at / HOLE_BYTES * HOLE_BYTES + HOLE_BYTES).min(self.0.len())];
        let hole = |at: usize| block(at).len() >= HOLE_BYTES && block(at).iter().all(|byte| *byte == 0);
        let next = |at: usize| at / HOLE_BYTES * HOLE_BYTES + HOLE_BYTES;
        let mut start = offset as usize;
        while start < end as usize && hole(start) {
            start = next(start);
        }
        if start >= end as usize {
            return Ok(None);
        }
        let mut stop = next(start);
        while stop < end as usize && !hole(stop) {
            stop = next(stop);
        }
        Ok(Some(Extent { start: start as u64, end: (stop as u64).min(end) }))
    }

    fn xattrs(&self) -> Result<XattrSet> {
        unreachable!("nobody asks")
    }

    fn will_read(&self, _: u64, _: u64) {}
}

fn repository() -> Repository {
    let storage = MemoryStorage::default();
    Repository::create(&storage, &CreateOptions::default(), &ManualClock::at(1)).unwrap();
    let index = Box::new(MemoryIndex::default());
    Locked::read(Arc::new(storage)).unwrap().unlock(None, index, Arc::new(ManualClock::at(1)), "here").unwrap()
}

fn session<T>(repo: &Repository, work: impl FnOnce(&ChunkWriter<'_>, &Progress) -> T) -> T {
    let progress = Progress::new();
    let options = WriterOptions { compression: 1, dry_run: false, purpose: "test", operation: Operation::Write };
    let writer = ChunkWriter::begin(repo, options, &progress).unwrap();
    let result = work(&writer, &progress);
    repo.abandon(writer.finish().unwrap()).unwrap();
    result
}

/// One pass from the start. (In the same repository: another one has another gear table.)
fn serial(repo: &Repository, bytes: &[u8]) -> Stream {
    session(repo, |writer, _| {
        let file = MemoryFile(bytes.to_vec());
        let mut stream = StreamWriter::new(writer, ChunkKind::Data, &GENERIC, None, Vec::new());
        let (mut at, end) = (0, bytes.len() as u64);
        while let Some(extent) = file.next_data(at, end).unwrap() {
            stream.hole(extent.start - at).unwrap();
            stream.write(&bytes[extent.start as usize..extent.end as usize]).unwrap();
            at = extent.end;
        }
        stream.hole(end - at).unwrap();
        stream.finish().unwrap().0
    })
}

/// What the threads of a capture do.
fn threaded(repo: &Repository, bytes: &[u8], earlier: Option<&Stream>, replay: bool) -> Stream {
    session(repo, |writer, progress| {
        let crew: Crew<(), (), _> = Crew::new(3);
        let windows = Windows::new(1);
        let large = Large { writer, crew: &crew, windows: &windows, progress };
        let result = std::sync::Mutex::new(None);
        crew.add(vec![()], Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    crew.work(|task| match task {
                        Task::File(()) => {
                            let list = ChunkList::new(writer, earlier.map(|stream| Earlier::new(writer.reader(), stream)));
                            let file = Arc::new(MemoryFile(bytes.to_vec()));
                            let stream = large.read(file, bytes.len() as u64, &GENERIC, list, replay).unwrap();
                            *result.lock().unwrap() = Some(stream);
                        }
                        Task::Piece(piece) => large.work(piece),
                        Task::Directory(()) => {}
                    });
                });
            }
        });
        result.into_inner().unwrap().unwrap()
    })
}

fn read(repo: &Repository, stream: &Stream) -> Vec<u8> {
    let reader = ChunkReader::new(repo);
    let mut leaves = StreamReader::new(&reader, stream);
    let mut bytes = Vec::new();
    while let Some(leaf) = leaves.next_leaf().unwrap() {
        if leaf.id.is_hole() {
            bytes.resize(bytes.len() + usize::try_from(leaf.len).unwrap(), 0);
        } else {
            bytes.extend_from_slice(&reader.read(ChunkKind::Data, &leaf.id).unwrap());
        }
    }
    bytes
}

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    hash::keyed_stream(&[seed; 32], b"noise", &mut bytes);
    bytes
}

/// A file with all there is in real ones: noise, runs of one byte that force cuts at the maximum, and holes.
fn content(seed: u8) -> Vec<u8> {
    let mut bytes = noise(seed, 2_000_003);
    bytes[600_000..1_200_000].fill(seed);
    bytes[1_310_720..1_507_328].fill(0);
    bytes
}

#[derive(Debug, Clone)]
enum Edit {
    Insert(usize, usize),
    Delete(usize, usize),
    Overwrite(usize, usize),
    Append(usize),
    Truncate(usize),
    Move(usize, usize, usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let place = 0..2_000_000usize;
    let len = prop_oneof![1..3usize, 1..10_000usize, 100_000..700_000usize];
    prop_oneof![
        (place.clone(), len.clone()).prop_map(|(at, len)| Edit::Insert(at, len)),
        (place.clone(), len.clone()).prop_map(|(at, len)| Edit::Delete(at, len)),
        (place.clone(), len.clone()).prop_map(|(at, len)| Edit::Overwrite(at, len)),
        len.clone().prop_map(Edit::Append),
        len.clone().prop_map(Edit::Truncate),
        (place.clone(), len, place).prop_map(|(from, len, to)| Edit::Move(from, len, to)),
    ]
}

fn apply(edit: &Edit, bytes: &mut Vec<u8>) {
    let range = |at: usize, len: usize, bytes: &[u8]| at.min(bytes.len())..(at + len).min(bytes.len());
    match *edit {
        Edit::Insert(at, len) => drop(bytes.splice(range(at, 0, bytes), noise(7, len))),
        Edit::Delete(at, len) => drop(bytes.drain(range(at, len, bytes))),
        Edit::Overwrite(at, len) => {
            let range = range(at, len, bytes);
            let len = range.len();
            bytes[range].copy_from_slice(&noise(8, len));
        }
        Edit::Append(len) => bytes.extend(noise(9, len)),
        Edit::Truncate(len) => bytes.truncate(bytes.len().saturating_sub(len)),
        Edit::Move(from, len, to) => {
            let moved: Vec<u8> = bytes.drain(range(from, len, bytes)).collect();
            let to = to.min(bytes.len());
            drop(bytes.splice(to..to, moved));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_rescan_along_known_boundaries_is_a_fresh_cut(edits in prop::collection::vec(edit(), 1..4), replay in prop::bool::weighted(0.8)) {
        let repo = repository();
        let mut bytes = content(1);
        let before = threaded(&repo, &bytes, None, false);
        prop_assert_eq!(before, serial(&repo, &bytes), "without an earlier version");
        for edit in &edits {
            apply(edit, &mut bytes);
        }
        let now = threaded(&repo, &bytes, Some(&before), replay);
        prop_assert_eq!(now, serial(&repo, &bytes), "with one");
        prop_assert!(read(&repo, &now) == bytes, "reads back");
    }
}

#[test]
fn a_version_of_other_content_or_profile_does_no_harm() {
    let repo = repository();
    let (old, new) = (content(1), content(2));
    let before = threaded(&repo, &old, None, false);
    let first = threaded(&repo, &new, Some(&before), true);
    let expected = serial(&repo, &new);
    assert_eq!(first, expected);
    assert_eq!(threaded(&repo, &new, Some(&Stream { profile: 1, ..before }), true), expected);
    // One that is not there.
    let lost = Stream { id: crate::model::ChunkId([9; 32]), depth: 1, ..before };
    assert_eq!(threaded(&repo, &new, Some(&lost), true), expected);
}

#[test]
fn what_stands_where_a_chunk_stood_is_stored_as_the_difference() {
    let repo = repository();
    let mut bytes = content(1);
    let before = threaded(&repo, &bytes, None, false);
    bytes[300_000..300_100].fill(1);
    bytes.splice(1_700_000..1_700_000, [1, 2, 3]);
    let (deltas, new) = session(&repo, |writer, progress| {
        let crew: Crew<(), (), _> = Crew::new(1);
        let windows = Windows::new(1);
        let large = Large { writer, crew: &crew, windows: &windows, progress };
        let list = ChunkList::new(writer, Some(Earlier::new(writer.reader(), &before)));
        large.read(Arc::new(MemoryFile(bytes.clone())), bytes.len() as u64, &GENERIC, list, true).unwrap();
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        (count(&writer.totals().deltas), count(&writer.totals().new_chunks))
    });
    // Two chunks and perhaps their neighbours; and the list of all, most of whose entries are as they were.
    assert!((2..=6).contains(&deltas) && new <= deltas + 1, "{deltas} of {new} new chunks are deltas");
}
