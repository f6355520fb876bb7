//! The chunk index: one pack inserted, chunks looked up.

use criterion::{BatchSize, Criterion, Throughput};
use icecore::index::memory::MemoryIndex;
use icecore::index::{BlobEntry, ChunkIndex, PackInfo};
use icecore::model::{ChunkId, PackId, hash};

/// Entries before the measurement, in packs of so many. `index_scale` has millions.
const PACKS: u64 = 200;
const BLOBS: u64 = 500;
const LOOKUPS: u64 = 1000;

fn id(number: u64) -> ChunkId {
    ChunkId(hash::hash(&[&number.to_le_bytes()]))
}

fn pack(number: u64) -> (PackInfo, Vec<BlobEntry>) {
    let info = PackInfo { id: PackId(hash::hash(&[b"pack", &number.to_le_bytes()])), len: 32 << 20, salt: [1; 32] };
    let blob = |n: u64| BlobEntry {
        id: id(number * BLOBS + n),
        offset: n as u32 * 60_000,
        stored_len: 60_000,
        raw_len: 150_000,
        number: n as u32,
        kind: 0,
        codec: 1,
        base: None,
    };
    (info, (0..BLOBS).map(blob).collect())
}

/// Both kinds of index.
pub(crate) fn index(c: &mut Criterion) {
    kind(c, "memory", &MemoryIndex::new());
    #[cfg(feature = "rocks")]
    {
        let dir = tempfile::tempdir().unwrap();
        kind(c, "disk", &icecore::index::RocksIndex::open(dir.path(), icecore::index::MEMORY_BYTES_DEFAULT).unwrap());
    }
}

fn kind(c: &mut Criterion, name: &str, index: &dyn ChunkIndex) {
    for number in 0..PACKS {
        let (info, blobs) = pack(number);
        index.insert_pack(&info, &blobs).unwrap();
    }
    let mut group = c.benchmark_group(format!("index {name}"));
    group.throughput(Throughput::Elements(LOOKUPS));
    let known: Vec<_> = (0..LOOKUPS).map(|n| id(n * 7919 % (PACKS * BLOBS))).collect();
    let absent: Vec<_> = (0..LOOKUPS).map(|n| id(n + (1 << 40))).collect();
    group.bench_function("hit", |b| b.iter(|| known.iter().filter(|id| index.get(id).unwrap().is_some()).count()));
    group.bench_function("miss", |b| b.iter(|| absent.iter().filter(|id| index.get(id).unwrap().is_some()).count()));
    group.throughput(Throughput::Elements(BLOBS));
    let mut next = PACKS;
    let mut new = || {
        next += 1;
        pack(next)
    };
    group.bench_function("insert a pack", |b| {
        b.iter_batched(&mut new, |(info, blobs)| index.insert_pack(&info, &blobs).unwrap(), BatchSize::SmallInput)
    });
    group.finish();
}
