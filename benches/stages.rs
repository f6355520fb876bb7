//! What each stage of the data path costs, one core.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use icecore::chunk::{Chunker, GENERIC};
use icecore::model::{RepositoryId, hash};
use icecore::seal::keys::ChunkKind;
use icecore::seal::{Keys, SealKey, Suite, compress};

/// Bytes that compress about as well as system files do: words of a small vocabulary between noise.
fn mixed(len: usize) -> Vec<u8> {
    let mut noise = vec![0; len];
    hash::keyed_stream(&[1; 32], b"bench", &mut noise);
    noise.chunks_mut(64).enumerate().for_each(|(i, chunk)| {
        if i % 3 != 0 {
            chunk.iter_mut().for_each(|byte| *byte = b"the quick brown fox "[usize::from(*byte) % 20]);
        }
    });
    noise
}

fn stages(c: &mut Criterion) {
    let keys = Keys::public(&RepositoryId([1; 16]));
    let chunker = Chunker::new(keys.gear());
    let data = mixed(8 << 20);
    let chunk = &data[..80 << 10];
    let mut group = c.benchmark_group("stages");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("cut", |b| {
        b.iter(|| {
            let mut rest = &data[..];
            while !rest.is_empty() {
                let len = chunker.cut(&GENERIC, &rest[..rest.len().min(GENERIC.max)]);
                rest = black_box(&rest[len..]);
            }
        });
    });
    group.throughput(Throughput::Bytes(chunk.len() as u64));
    group.bench_function("hash", |b| b.iter(|| keys.chunk_id(ChunkKind::Data, black_box(chunk))));
    let mut out = Vec::new();
    for level in [1, 3] {
        group.bench_function(format!("compress zstd {level}"), |b| b.iter(|| compress::compress(black_box(chunk), level, &mut out)));
    }
    let stored = compress::compress(chunk, 3, &mut out).map(|_| out.clone());
    if let Ok(frame) = stored {
        group.bench_function("decompress", |b| b.iter(|| compress::decompress(black_box(&frame), chunk.len())));
    }
    for suite in [Suite::Checksum, Suite::Aes256Gcm] {
        if let Ok(key) = SealKey::new(suite, &[7; 32]) {
            let mut buffer = Vec::new();
            group.bench_function(format!("seal {}", suite.name()), |b| {
                b.iter(|| {
                    buffer.clear();
                    buffer.extend_from_slice(chunk);
                    key.seal(0, b"", &mut buffer, 0)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
