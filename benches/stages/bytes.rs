//! The stages that a chunk's bytes go through.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use icecore::model::RepositoryId;
use icecore::seal::keys::ChunkKind;
use icecore::seal::{Keys, SealKey, Suite, compress};

use crate::data::{CHUNK, mixed, noise, pages, touched};

/// What moving bytes alone costs.
pub(crate) fn memory(c: &mut Criterion) {
    let mut group = c.benchmark_group("memory");
    for (name, len) in [("copy of a chunk", CHUNK), ("copy of 256 MiB", 256 << 20)] {
        let (from, mut to) = (vec![1_u8; len], vec![0_u8; len]);
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(name, |b| b.iter(|| black_box(&mut to).copy_from_slice(black_box(&from))));
    }
    group.finish();
}

/// Naming.
pub(crate) fn hash(c: &mut Criterion) {
    let keys = Keys::public(&RepositoryId([1; 16]));
    let data = mixed(CHUNK);
    let mut group = c.benchmark_group("hash");
    for (name, len) in [("4 KiB", 4 << 10), ("chunk", CHUNK)] {
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(name, |b| b.iter(|| keys.chunk_id(ChunkKind::Data, black_box(&data[..len]))));
    }
    group.finish();
}

/// zstd alone, at the levels that are in question, and what it costs to find out that bytes do not compress.
pub(crate) fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    let mut out = Vec::new();
    for (name, data) in [("files", mixed(CHUNK)), ("pages", pages(CHUNK)), ("noise", noise(CHUNK))] {
        for level in [1, 3, 6] {
            group.bench_function(format!("{name} zstd {level}"), |b| {
                b.iter(|| compress::compress(black_box(&data), level, &mut out).unwrap());
            });
        }
        if compress::compress(&data, 3, &mut out).unwrap() {
            let frame = out.clone();
            group.bench_function(format!("{name} decompress"), |b| b.iter(|| compress::decompress(black_box(&frame), CHUNK).unwrap()));
        }
    }
    group.finish();
}

/// The difference of a chunk from what stood in its place.
pub(crate) fn delta(c: &mut Criterion) {
    let base = pages(CHUNK);
    let raw = touched(&base);
    let mut out = Vec::new();
    let mut group = c.benchmark_group("delta");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    group.bench_function("encode", |b| b.iter(|| compress::delta(black_box(&raw), &base, &mut out).unwrap()));
    compress::delta(&raw, &base, &mut out).unwrap();
    group.bench_function("decode", |b| b.iter(|| compress::undelta(black_box(&out), &base, CHUNK).unwrap()));
    group.finish();
}

/// Encryption, or the checksum in its place.
pub(crate) fn seal(c: &mut Criterion) {
    let data = mixed(CHUNK);
    let mut group = c.benchmark_group("seal");
    group.throughput(Throughput::Bytes(CHUNK as u64));
    for suite in [Suite::Checksum, Suite::Aes256Gcm] {
        let key = SealKey::new(suite, &[7; 32]).unwrap();
        let mut buffer = Vec::new();
        group.bench_function(format!("seal {}", suite.name()), |b| {
            b.iter(|| {
                buffer.clear();
                buffer.extend_from_slice(&data);
                key.seal(0, b"", &mut buffer, 0).unwrap();
            });
        });
        let sealed = buffer.clone();
        group.bench_function(format!("open {}", suite.name()), |b| {
            b.iter(|| {
                buffer.clear();
                buffer.extend_from_slice(&sealed);
                key.open(0, b"", &mut buffer).unwrap().len()
            });
        });
    }
    group.finish();
}
