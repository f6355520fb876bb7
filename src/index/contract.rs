//! The contract of [`ChunkIndex`] as tests that every implementation runs, and a comparison with [`MemoryIndex`] over
//! random sequences of calls.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::memory::MemoryIndex;
use super::{BlobEntry, ChunkIndex, IndexCounts, Location, NewPack, PackInfo, PackNumber, Table};
use crate::error::{Error, ErrorKind};
use crate::model::{ChunkId, PackId};

const TABLES: [Table; 3] = [Table::Meta, Table::Journal, Table::Stat];
const RANDOM_CASES: u32 = 48;
const RANDOM_PACKS: u8 = 8;
const RANDOM_CHUNKS: u8 = 12;

/// Makes an empty index.
pub(super) type Make<'a> = &'a mut dyn FnMut() -> Box<dyn ChunkIndex>;
#[cfg(feature = "rocks")]
/// Opens one and the same index, empty at first, again and again.
pub(super) type Reopen = Box<dyn Fn() -> Box<dyn ChunkIndex>>;
/// Lets the given changes happen to an index, then puts something over it.
pub(super) type Split<'a> = &'a mut dyn FnMut(&dyn Fn(&dyn ChunkIndex)) -> Box<dyn ChunkIndex>;

pub(super) fn chunk(n: u8) -> ChunkId {
    // Ids that share a long beginning are the harder case for keys and bounds.
    let mut id = [0xff; 32];
    id[31] = n;
    ChunkId(id)
}

pub(super) fn pack(n: u8) -> PackInfo {
    PackInfo { id: PackId([n; 32]), len: (1 << 40) + u64::from(n), salt: [!n; 32] }
}

pub(super) fn blob(n: u8, number: u32) -> BlobEntry {
    let n32 = u32::from(n);
    BlobEntry {
        id: chunk(n),
        offset: u32::MAX - n32,
        stored_len: 300 * n32,
        raw_len: n32,
        number,
        kind: n % 3,
        codec: n % 3,
        base: (n % 3 == 2).then_some(chunk(!n)),
    }
}

/// Every rule, each on an index of its own.
pub(super) fn check_all(make: Make<'_>) {
    an_empty_index_knows_nothing(&*make());
    a_pack_is_found_with_all_its_blobs(&*make());
    repeating_an_insert_changes_nothing(&*make());
    of_equal_ids_in_a_pack_the_first_stands(&*make());
    the_oldest_copy_is_used_and_then_the_next(&*make());
    removed_packs_are_gone_everywhere(&*make());
    all_copies_are_visited(&*make());
    visitors_may_call_back_and_stop(&*make());
    notes_are_kept_sorted_and_apart(&*make());
    clearing_leaves_nothing(&*make());
    a_chunk_that_always_has_a_copy_is_always_found(&*make());
    many_packs_are_as_one_after_another(make);
    an_error_between_many_packs_leaves_the_first_or_none(make);
}

fn an_empty_index_knows_nothing(index: &dyn ChunkIndex) {
    assert_eq!(index.get(&chunk(1)).unwrap(), None);
    assert_eq!(index.pack_number(&pack(1).id).unwrap(), None);
    assert_eq!(index.pack(PackNumber(0)).unwrap_err().kind(), ErrorKind::Cache);
    assert_eq!(index.packs().unwrap(), []);
    assert_eq!(index.note(Table::Stat, b"x").unwrap(), None);
    index.remove_packs(&[pack(1).id]).unwrap();
    index.flush().unwrap();
    let counts = index.counts().unwrap();
    assert_eq!(IndexCounts { disk_bytes: 0, ..counts }, IndexCounts::default());
}

fn a_pack_is_found_with_all_its_blobs(index: &dyn ChunkIndex) {
    let blobs: Vec<_> = (0..=255).map(|n| blob(n, 255 - u32::from(n))).collect();
    index.insert_pack(&pack(7), &blobs).unwrap();
    index.insert_pack(&pack(8), &[]).unwrap();
    let number = index.pack_number(&pack(7).id).unwrap().unwrap();
    for blob in blobs {
        assert_eq!(index.get(&blob.id).unwrap(), Some(Location { pack: number, blob }));
    }
    assert_eq!(index.pack(number).unwrap(), pack(7));
    assert_eq!(index.pack(index.pack_number(&pack(8).id).unwrap().unwrap()).unwrap(), pack(8));
    let counts = index.counts().unwrap();
    assert_eq!((counts.chunks, counts.packs), (256, 2));
}

fn repeating_an_insert_changes_nothing(index: &dyn ChunkIndex) {
    index.insert_pack(&pack(1), &[blob(1, 0)]).unwrap();
    let before = index.get(&chunk(1)).unwrap();
    index.insert_pack(&PackInfo { len: 5, ..pack(1) }, &[blob(1, 3), blob(2, 4)]).unwrap();
    assert_eq!(index.get(&chunk(1)).unwrap(), before);
    assert_eq!(index.get(&chunk(2)).unwrap(), None);
    assert_eq!(index.packs().unwrap(), [pack(1)]);
    assert_eq!(index.counts().unwrap().chunks, 1);
}

fn of_equal_ids_in_a_pack_the_first_stands(index: &dyn ChunkIndex) {
    index.insert_pack(&pack(1), &[blob(1, 5), blob(1, 6)]).unwrap();
    assert_eq!(index.get(&chunk(1)).unwrap().unwrap().blob.number, 5);
    assert_eq!(visited(index).len(), 1);
}

fn the_oldest_copy_is_used_and_then_the_next(index: &dyn ChunkIndex) {
    let used = || index.get(&chunk(1)).unwrap().map(|location| index.pack(location.pack).unwrap());
    // Ids that sort the other way round: age decides, not the name.
    for n in [9, 5, 3] {
        index.insert_pack(&pack(n), &[blob(1, u32::from(n))]).unwrap();
    }
    assert_eq!(used(), Some(pack(9)));
    index.remove_packs(&[pack(9).id]).unwrap();
    assert_eq!(used(), Some(pack(5)));
    index.insert_pack(&pack(9), &[blob(1, 90)]).unwrap();
    assert_eq!(used(), Some(pack(5)), "inserted again, it is the newest");
    index.remove_packs(&[pack(5).id, pack(3).id]).unwrap();
    assert_eq!(used(), Some(pack(9)));
    assert_eq!(index.get(&chunk(1)).unwrap().unwrap().blob.number, 90);
    index.remove_packs(&[pack(9).id]).unwrap();
    assert_eq!(used(), None);
    index.insert_pack(&pack(3), &[blob(1, 30)]).unwrap();
    assert_eq!(used(), Some(pack(3)));
    assert_eq!(visited(index).len(), 1);
}

fn removed_packs_are_gone_everywhere(index: &dyn ChunkIndex) {
    index.insert_pack(&pack(1), &[blob(1, 0), blob(2, 1)]).unwrap();
    index.insert_pack(&pack(2), &[blob(2, 0), blob(3, 1)]).unwrap();
    let number = index.pack_number(&pack(1).id).unwrap().unwrap();
    index.remove_packs(&[pack(1).id, pack(99).id, pack(1).id]).unwrap();
    assert_eq!(index.get(&chunk(1)).unwrap(), None);
    assert_eq!(index.pack_number(&pack(1).id).unwrap(), None);
    assert_eq!(index.pack(number).unwrap_err().kind(), ErrorKind::Cache);
    assert_eq!(index.packs().unwrap(), [pack(2)]);
    assert_eq!(visited(index).len(), 2);
    let counts = index.counts().unwrap();
    assert_eq!((counts.chunks, counts.packs), (2, 1));
    index.insert_pack(&pack(1), &[blob(1, 0)]).unwrap();
    assert_ne!(index.pack_number(&pack(1).id).unwrap(), Some(number), "numbers are not given twice");
}

fn all_copies_are_visited(index: &dyn ChunkIndex) {
    index.insert_pack(&pack(1), &[blob(1, 0), blob(2, 1)]).unwrap();
    index.insert_pack(&pack(2), &[blob(2, 0), blob(3, 1)]).unwrap();
    index.insert_pack(&pack(3), &[blob(2, 0)]).unwrap();
    let expected = BTreeSet::from([(1, 1), (1, 2), (2, 2), (2, 3), (3, 2)].map(|(p, c)| (pack(p).id, chunk(c))));
    assert_eq!(visited(index).into_iter().map(|(pack, blob)| (pack, blob.id)).collect::<BTreeSet<_>>(), expected);
}

fn visitors_may_call_back_and_stop(index: &dyn ChunkIndex) {
    index.insert_pack(&pack(1), &[blob(1, 0), blob(2, 1)]).unwrap();
    index.set_notes(Table::Meta, &[(b"a".to_vec(), Some(vec![])), (b"b".to_vec(), Some(vec![]))]).unwrap();
    let enough = || Err(Error::new(ErrorKind::Interrupted, "enough"));
    let mut seen = 0;
    let stopped = index.for_each(&mut |location| {
        seen += 1;
        index.insert_pack(&pack(2), &[blob(1, 0)])?;
        index.remove_packs(&[index.pack(location.pack)?.id])?;
        enough()
    });
    assert_eq!((stopped.unwrap_err().kind(), seen), (ErrorKind::Interrupted, 1));
    let stopped = index.for_each_note(Table::Meta, b"", &mut |key, _| {
        index.set_notes(Table::Meta, &[(key.to_vec(), None)])?;
        enough()
    });
    assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(index.note(Table::Meta, b"a").unwrap(), None);
    assert_eq!(index.note(Table::Meta, b"b").unwrap(), Some(vec![]));
}

fn notes_are_kept_sorted_and_apart(index: &dyn ChunkIndex) {
    let keys: [&[u8]; 8] = [b"", b"\0", b"a", b"a\0", b"a\xff", b"b", b"\xff", b"\xff\xff\xff"];
    for table in TABLES {
        let notes: Vec<_> = keys.iter().rev().map(|key| (key.to_vec(), Some([key, &[table as u8][..]].concat()))).collect();
        index.set_notes(table, &notes).unwrap();
    }
    for table in TABLES {
        let all: Vec<_> = keys.iter().map(|key| (key.to_vec(), [key, &[table as u8][..]].concat())).collect();
        assert_eq!(notes(index, table, b""), all);
        assert_eq!(notes(index, table, b"a"), all[2..5]);
        assert_eq!(notes(index, table, b"\xff"), all[6..]);
        assert_eq!(notes(index, table, b"c"), []);
    }
    index.set_notes(Table::Stat, &[(b"a".to_vec(), None), (b"b".to_vec(), Some(vec![])), (b"none".to_vec(), None)]).unwrap();
    assert_eq!(index.note(Table::Stat, b"a").unwrap(), None);
    assert_eq!(index.note(Table::Stat, b"b").unwrap(), Some(vec![]));
    assert_eq!(index.note(Table::Meta, b"a").unwrap(), Some(b"a\0".to_vec()));
    assert_eq!(notes(index, Table::Stat, b"").len(), keys.len() - 1);
}

fn clearing_leaves_nothing(index: &dyn ChunkIndex) {
    index.insert_pack(&pack(1), &[blob(1, 0), blob(255, 1)]).unwrap();
    index.insert_pack(&pack(2), &[blob(255, 1)]).unwrap();
    TABLES.iter().for_each(|table| index.set_notes(*table, &[(vec![0xff; 300], Some(vec![1]))]).unwrap());
    let stale = index.get(&chunk(1)).unwrap().unwrap().pack;
    index.clear().unwrap();
    an_empty_index_knows_nothing(index);
    assert_eq!(visited(index), []);
    TABLES.iter().for_each(|table| assert_eq!(notes(index, *table, b""), []));
    index.insert_pack(&pack(3), &[blob(1, 2)]).unwrap();
    assert_eq!(index.pack(index.get(&chunk(1)).unwrap().unwrap().pack).unwrap(), pack(3));
    assert!(index.pack(stale).is_err(), "an old number names no new pack");
    index.set_notes(Table::Journal, &[(b"k".to_vec(), Some(b"v".to_vec()))]).unwrap();
    assert_eq!(notes(index, Table::Journal, b""), [(b"k".to_vec(), b"v".to_vec())]);
}

fn a_chunk_that_always_has_a_copy_is_always_found(index: &dyn ChunkIndex) {
    index.insert_pack(&pack(0), &[blob(1, 0)]).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert!(index.get(&chunk(1)).unwrap().is_some());
                }
            });
        }
        for round in 1..400u32 {
            let (before, after) = (pack(((round - 1) % 251) as u8), pack((round % 251) as u8));
            index.insert_pack(&after, &[blob(1, round)]).unwrap();
            if round % 3 == 0 {
                index.insert_pack(&pack(252), &[blob(1, 0), blob(2, 0)]).unwrap();
            }
            index.remove_packs(&[before.id, pack(252).id]).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Gives packs one by one.
fn giving(packs: &[NewPack]) -> impl FnMut() -> crate::error::Result<Option<NewPack>> {
    let mut packs = packs.iter();
    move || Ok(packs.next().cloned())
}

fn many_packs_are_as_one_after_another(make: Make<'_>) {
    let new = |n: u8, chunks: &[u8]| NewPack {
        info: pack(n),
        blobs: chunks.iter().zip(0..).map(|(chunk, at)| blob(*chunk, 10 * u32::from(n) + at)).collect(),
    };
    // Ids against the order of the packs, a chunk twice in a pack, chunks in several packs, a pack without blobs, and a pack
    // twice, the second time with other blobs; few and many.
    let some = [new(9, &[1, 2, 3, 2]), new(4, &[2, 5]), new(5, &[]), new(9, &[7, 1]), new(2, &[2, 1, 255])];
    let more: Vec<_> = some.iter().cloned().chain((20..250).map(|n| new(n, &[n, n - 1, n / 2, 2]))).collect();
    for packs in [&some[..1], &some, &more, &[]] {
        let (one_by_one, index) = (MemoryIndex::new(), make());
        packs.iter().for_each(|pack| one_by_one.insert_pack(&pack.info, &pack.blobs).unwrap());
        index.insert_packs(&mut giving(packs)).unwrap();
        for n in 0..=255 {
            compare_chunk(&one_by_one, &*index, n);
        }
        assert_eq!(sorted_packs(&*index), sorted_packs(&one_by_one));
        assert_eq!(visited(&*index), visited(&one_by_one));
        assert_eq!(IndexCounts { disk_bytes: 0, ..index.counts().unwrap() }, one_by_one.counts().unwrap());
        // What comes after that, in numbers of packs and by either way.
        for change in [&[new(100, &[1]), new(251, &[2, 9])][..], &[new(252, &[9])], &more] {
            one_by_one.insert_packs(&mut giving(change)).unwrap();
            index.insert_packs(&mut giving(change)).unwrap();
            index.remove_packs(&[pack(9).id, pack(30).id]).unwrap();
            one_by_one.remove_packs(&[pack(9).id, pack(30).id]).unwrap();
            assert_eq!(visited(&*index), visited(&one_by_one));
            (0..=255).for_each(|n| compare_chunk(&one_by_one, &*index, n));
        }
    }
}

fn an_error_between_many_packs_leaves_the_first_or_none(make: Make<'_>) {
    for good in [0, 1, 2, 30] {
        let index = make();
        let mut given = 0;
        let failed = index.insert_packs(&mut || {
            given += 1;
            match given {
                n if n <= good => Ok(Some(NewPack { info: pack(n), blobs: (n..n + 3).map(|c| blob(c, 0)).collect() })),
                _ => Err(Error::new(ErrorKind::Interrupted, "enough")),
            }
        });
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Interrupted);
        let found = sorted_packs(&*index);
        assert!(found.iter().zip(1..).all(|(found, n)| *found == pack(n)), "{found:?}");
        assert_eq!(visited(&*index).len(), 3 * found.len());
        index.insert_packs(&mut giving(&[NewPack { info: pack(99), blobs: (0..99).map(|c| blob(c, 0)).collect() }])).unwrap();
        assert_eq!(index.get(&chunk(77)).unwrap().map(|found| index.pack(found.pack).unwrap()), Some(pack(99)));
    }
}

/// A call that changes an index.
#[derive(Debug, Clone)]
enum Op {
    Insert(u8, Vec<u8>),
    InsertMany(Vec<(u8, Vec<u8>)>),
    Remove(Vec<u8>),
    Note(Table, u8, Option<u8>),
    Clear,
    Reopen,
}

#[cfg(feature = "rocks")]
/// Random calls do the same to this index, opened anew now and then, as to the model.
pub(super) fn check_random(make: &mut dyn FnMut() -> Reopen) {
    let make = std::cell::RefCell::new(make);
    run(&ops(), |ops| {
        let open = (make.borrow_mut())();
        let (model, mut index) = (MemoryIndex::new(), open());
        for op in ops {
            if let Op::Reopen = op {
                drop(index);
                index = open();
            }
            apply(&op, &model);
            apply(&op, &*index);
            compare(&model, &*index);
        }
    });
}

/// Random calls of which some happened before the rest goes through `split`'s result do the same as to the model.
pub(super) fn check_split(split: Split<'_>) {
    let split = std::cell::RefCell::new(split);
    run(&(ops(), ops()), |(before, after)| {
        let model = MemoryIndex::new();
        before.iter().for_each(|op| apply(op, &model));
        let index = (split.borrow_mut())(&|base| before.iter().for_each(|op| apply(op, base)));
        compare(&model, &*index);
        for op in after {
            apply(&op, &model);
            apply(&op, &*index);
            compare(&model, &*index);
        }
    });
}

fn run<S: Strategy>(strategy: &S, test: impl Fn(S::Value)) {
    let mut runner = TestRunner::new(Config { cases: RANDOM_CASES, failure_persistence: None, ..Config::default() });
    runner
        .run(strategy, |value| {
            test(value);
            Ok(())
        })
        .unwrap();
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let chunks = || vec(0..RANDOM_CHUNKS, 0..6);
    let op = prop_oneof![
        8 => (0..RANDOM_PACKS, chunks()).prop_map(|(pack, chunks)| Op::Insert(pack, chunks)),
        2 => vec((0..RANDOM_PACKS, chunks()), 0..8).prop_map(Op::InsertMany),
        5 => vec(0..RANDOM_PACKS, 1..4).prop_map(Op::Remove),
        4 => (0..3usize, any::<u8>(), any::<Option<u8>>()).prop_map(|(table, key, value)| Op::Note(TABLES[table], key % 4, value)),
        1 => Just(Op::Clear),
        2 => Just(Op::Reopen),
    ];
    vec(op, 0..24)
}

fn apply(op: &Op, index: &dyn ChunkIndex) {
    let blobs =
        |n: u8, chunks: &[u8]| -> Vec<_> { chunks.iter().zip(0..).map(|(chunk, at)| blob(*chunk, 100 * u32::from(n) + at)).collect() };
    match op {
        Op::Insert(n, chunks) => index.insert_pack(&pack(*n), &blobs(*n, chunks)).unwrap(),
        Op::InsertMany(packs) => {
            let packs: Vec<_> = packs.iter().map(|(n, chunks)| NewPack { info: pack(*n), blobs: blobs(*n, chunks) }).collect();
            index.insert_packs(&mut giving(&packs)).unwrap();
        }
        Op::Remove(packs) => index.remove_packs(&packs.iter().map(|n| pack(*n).id).collect::<Vec<_>>()).unwrap(),
        Op::Note(table, key, value) => index.set_notes(*table, &[(vec![b'k'; *key as usize], value.map(|value| vec![value]))]).unwrap(),
        Op::Clear => index.clear().unwrap(),
        Op::Reopen => {}
    }
}

fn compare(model: &dyn ChunkIndex, index: &dyn ChunkIndex) {
    (0..RANDOM_CHUNKS).for_each(|n| compare_chunk(model, index, n));
    let ids: Vec<_> = (0..RANDOM_CHUNKS).rev().map(chunk).collect();
    let one_by_one: Vec<_> = ids.iter().map(|id| index.get(id).unwrap()).collect();
    assert_eq!(index.get_many(&ids).unwrap(), one_by_one);
    for n in 0..RANDOM_PACKS {
        let has = |index: &dyn ChunkIndex| index.pack_number(&pack(n).id).unwrap().is_some();
        assert_eq!(has(index), has(model), "pack {n}");
    }
    assert_eq!(sorted_packs(index), sorted_packs(model));
    assert_eq!(visited(index), visited(model));
    TABLES.iter().for_each(|table| assert_eq!(notes(index, *table, b"k"), notes(model, *table, b"k")));
    assert_eq!(IndexCounts { disk_bytes: 0, ..index.counts().unwrap() }, model.counts().unwrap());
}

fn compare_chunk(model: &dyn ChunkIndex, index: &dyn ChunkIndex, n: u8) {
    let used = |index: &dyn ChunkIndex| -> Vec<_> {
        let copies = index.copies(&chunk(n)).unwrap();
        assert_eq!(index.get(&chunk(n)).unwrap().as_ref(), copies.first(), "chunk {n}");
        copies.into_iter().map(|copy| (index.pack(copy.pack).unwrap(), copy.blob)).collect()
    };
    assert_eq!(used(index), used(model), "chunk {n}");
}

fn sorted_packs(index: &dyn ChunkIndex) -> Vec<PackInfo> {
    let mut packs = index.packs().unwrap();
    let mut visited = Vec::new();
    index
        .for_each_pack(&mut |pack| {
            visited.push(*pack);
            Ok(())
        })
        .unwrap();
    assert_eq!(visited, packs);
    packs.sort_by_key(|pack| pack.id);
    packs
}

fn visited(index: &dyn ChunkIndex) -> Vec<(PackId, BlobEntry)> {
    let mut all = Vec::new();
    index
        .for_each(&mut |location| {
            all.push((index.pack(location.pack)?.id, location.blob));
            Ok(())
        })
        .unwrap();
    all.sort_by_key(|(pack, blob)| (*pack, blob.id, blob.number));
    all
}

fn notes(index: &dyn ChunkIndex, table: Table, prefix: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    index
        .for_each_note(table, prefix, &mut |key, value| {
            all.push((key.to_vec(), value.to_vec()));
            Ok(())
        })
        .unwrap();
    all
}
