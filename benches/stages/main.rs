//! What each stage of the data path costs, one core, in bytes of what goes in.
//!
//! `clock` is there to turn times into processor cycles: one step of it takes four.

#![allow(clippy::unwrap_used)]

mod bytes;
mod cut;
mod data;
mod lookup;
mod packing;
mod whole;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};

/// Steps that wait for one another: a 64-bit multiplication (three cycles) and an exclusive or (one).
const CLOCK_STEPS: u32 = 10_000;

fn clock(c: &mut Criterion) {
    c.bench_function("clock", |b| {
        b.iter(|| {
            let (factor, mask) = (black_box(0x2545_F491_4F6C_DD1D_u64), black_box(0x1234_5678_9ABC_DEF1_u64));
            (0..CLOCK_STEPS).fold(black_box(1_u64), |x, _| x.wrapping_mul(factor) ^ mask)
        });
    });
}

criterion_group!(
    benches,
    clock,
    bytes::memory,
    cut::cut,
    bytes::hash,
    bytes::encode,
    bytes::delta,
    bytes::seal,
    packing::pack,
    lookup::index,
    packing::tree,
    whole::rescan
);
criterion_main!(benches);
