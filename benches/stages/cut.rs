//! What cutting costs: the crate, each kernel of this processor chunk by chunk, and the two stages apart.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use icecore::chunk::{Candidates, Chunker, GENERIC, Kernel, MEDIA, META, Window};
use icecore::model::RepositoryId;
use icecore::seal::Keys;
use icecore::seal::probe::looks_incompressible;

use crate::data::{CHUNK, noise};

/// A window that is in the second-level cache, as bytes are that were just read.
const WINDOW_BYTES: usize = 512 << 10;

/// Cutting and probing.
pub(crate) fn cut(c: &mut Criterion) {
    let keys = Keys::public(&RepositoryId([1; 16]));
    let data = noise(8 << 20);
    let window = &data[..WINDOW_BYTES];
    let mut group = c.benchmark_group("cut");
    group.throughput(Throughput::Bytes(data.len() as u64));
    for kernel in Kernel::available() {
        let chunker = Chunker::with_kernel(keys.gear(), kernel);
        // Without a kernel of its own a chunk is cut by the crate.
        let name = if kernel == Kernel::Scalar { "crate".to_owned() } else { format!("{kernel:?}") };
        for profile in [GENERIC, MEDIA, META] {
            group.bench_function(format!("profile {} {name}", profile.number), |b| {
                b.iter(|| {
                    let mut rest = &data[..];
                    while !rest.is_empty() {
                        rest = black_box(&rest[chunker.cut(&profile, rest)..]);
                    }
                });
            });
        }
    }
    group.throughput(Throughput::Bytes(window.len() as u64));
    let mut candidates = Candidates::default();
    for kernel in Kernel::available() {
        let chunker = Chunker::with_kernel(keys.gear(), kernel);
        group.bench_function(format!("scan {kernel:?}"), |b| b.iter(|| chunker.scan(&GENERIC, black_box(window), 0, &mut candidates)));
    }
    let chunker = Chunker::new(keys.gear());
    group.bench_function("select", |b| {
        let window = Window { bytes: window, candidates: &candidates, scanned_from: 0, is_last: true };
        b.iter(|| {
            let mut start = 0;
            while let Some(len) = window.next_cut(&chunker, &GENERIC, black_box(start)) {
                start += len;
            }
        });
    });
    let chunk = &data[..CHUNK];
    group.throughput(Throughput::Bytes(chunk.len() as u64));
    group.bench_function("probe noise", |b| b.iter(|| looks_incompressible(black_box(chunk))));
    let text = b"the quick brown fox jumps over the lazy dog ".repeat(2000);
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("probe text", |b| b.iter(|| looks_incompressible(black_box(&text))));
    group.finish();
}
