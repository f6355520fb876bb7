//! Every kernel and both stages against the crate.

#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::ops::Range;

use proptest::prelude::*;

use super::scan::Kernel;
use super::*;
use crate::model::hash;

fn gear(seed: u8) -> Box<[u64; 256]> {
    let mut bytes = [0; 2048];
    hash::keyed_stream(&[seed; 32], b"gear", &mut bytes);
    let mut gear = Box::new([0; 256]);
    for (entry, bytes) in gear.iter_mut().zip(bytes.chunks_exact(8)) {
        *entry = u64::from_le_bytes(bytes.try_into().unwrap());
    }
    gear
}

fn chunker(seed: u8) -> Chunker {
    Chunker::new(gear(seed))
}

fn each_kernel(seed: u8) -> Vec<Chunker> {
    let kernels = Kernel::available();
    eprintln!("kernels: {kernels:?}");
    kernels.into_iter().map(|kernel| Chunker::with_kernel(gear(seed), kernel)).collect()
}

fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    hash::keyed_stream(&[3; 32], b"noise", &mut bytes);
    bytes
}

/// A gear table in which sixteen bytes count nothing: within a run of them every position is a candidate.
fn crowded(seed: u8) -> Box<[u64; 256]> {
    let mut gear = gear(seed);
    gear[..16].fill(0);
    gear
}

/// Runs of bytes that count nothing in [`crowded`], between others.
fn runs_of_nothing(len: usize) -> Vec<u8> {
    let noise = noise(len);
    noise.chunks(2).flat_map(|pair| std::iter::repeat_n(pair[0] % 16, usize::from(pair[1]) / 3).chain([pair[0]])).take(len).collect()
}

const PROFILES: [Profile; 6] = [GENERIC, DB, MEDIA, META, Profile::trial(16 << 10), Profile::trial(256 << 10)];

/// Data of all kinds, a few times as long as the longest chunk that is cut of it.
fn kinds(len: usize) -> Vec<(&'static str, Vec<u8>)> {
    let noise = noise(len);
    let runs = noise.iter().flat_map(|&byte| std::iter::repeat_n(byte, 1 + usize::from(byte) * 37)).take(len).collect();
    let words = noise
        .chunks(5)
        .flat_map(|word| *b"the quick brown fox jumps over the lazy dog".as_chunks::<4>().0.get(usize::from(word[0]) % 10).unwrap())
        .take(len)
        .collect();
    let pages = (0..len).map(|i| if i % 8192 < 512 { noise[i] } else { 0 }).collect();
    let mut real = Vec::new();
    for path in ["/proc/self/exe", "/usr/bin/bash", "/usr/share/dict/words", "/bin/sh"] {
        real.extend(std::fs::read(path).unwrap_or_default());
    }
    real.truncate(len);
    vec![
        ("zeros", vec![0; len]),
        ("ones", vec![0xff; len]),
        ("period 3", (0..len).map(|i| (i % 3) as u8).collect()),
        ("period 4096", (0..len).map(|i| noise[i % 4096]).collect()),
        ("runs", runs),
        ("words", words),
        ("pages", pages),
        ("real", real),
        ("noise", noise),
    ]
}

fn cuts(profile: &Profile, mut bytes: &[u8], cut: impl Fn(&Profile, &[u8]) -> usize) -> Vec<usize> {
    let mut lengths = Vec::new();
    while !bytes.is_empty() {
        let len = cut(profile, bytes);
        assert!(len > 0 && len <= profile.max && (len >= profile.min || len == bytes.len()));
        lengths.push(len);
        bytes = &bytes[len..];
    }
    lengths
}

fn expected(chunker: &Chunker, profile: &Profile, bytes: &[u8]) -> Vec<usize> {
    cuts(profile, bytes, |profile, bytes| chunker.cut_by_crate(profile, bytes))
}

/// Cuts a stream window by window, as a reader of a large file does: each window is scanned with what stands before it as
/// context (in any order, here backwards), then chunks are selected in order, and what is left of a window is put before the
/// next. `parts` scans each window in so many pieces.
fn cuts_by_windows(chunker: &Chunker, profile: &Profile, bytes: &[u8], windows: &[Range<usize>], parts: usize) -> Vec<usize> {
    let mut scans: Vec<Candidates> = Vec::new();
    for window in windows.iter().rev() {
        let mut joined = Candidates::default();
        let len = window.len().div_ceil(parts).max(1);
        let mut at = window.start;
        while at < window.end {
            let (context, end) = (at.min(31), window.end.min(at + len));
            let mut part = Candidates::default();
            chunker.scan(profile, &bytes[at - context..end], context, &mut part);
            if at == window.start {
                joined = part
            } else {
                joined.append(&part, at - window.start)
            }
            at = end;
        }
        scans.push(joined);
    }
    scans.reverse();
    let (mut lengths, mut done) = (Vec::new(), 0);
    for (window, candidates) in windows.iter().zip(&scans) {
        let is_last = window.end == bytes.len();
        let held = &bytes[done..window.end];
        let scanned_from = window.start - done;
        let (window, mut start) = (Window { bytes: held, candidates, scanned_from, is_last }, 0);
        while let Some(len) = window.next_cut(chunker, profile, start) {
            lengths.push(len);
            start += len;
        }
        done += start;
    }
    assert_eq!(done, bytes.len());
    lengths
}

fn split(len: usize, window: usize) -> Vec<Range<usize>> {
    (0..len.div_ceil(window)).map(|i| i * window..len.min((i + 1) * window)).collect()
}

#[test]
fn each_kernel_cuts_all_kinds_of_data_as_the_crate_does() {
    for chunker in each_kernel(1) {
        for profile in PROFILES {
            for (kind, bytes) in kinds(profile.max * 3 + 12_345) {
                let expected = expected(&chunker, &profile, &bytes);
                let context = format!("{:?}, profile {}, {kind}", chunker.kernel, profile.number);
                assert_eq!(cuts(&profile, &bytes, |profile, bytes| chunker.cut(profile, bytes)), expected, "{context}");
                for (window, parts) in [(bytes.len(), 1), (bytes.len(), 2), (profile.max + 3, 1), (profile.average | 1, 3)] {
                    let found = cuts_by_windows(&chunker, &profile, &bytes, &split(bytes.len(), window), parts);
                    assert_eq!(found, expected, "{context}, windows of {window}");
                }
            }
        }
    }
}

#[test]
fn lengths_around_the_limits_and_either_parity_end_as_with_the_crate() {
    for chunker in each_kernel(2) {
        for profile in [GENERIC, DB, META, Profile::trial(32 << 10)] {
            let bytes = noise(profile.max * 2 + 64);
            // Ends of chunks, so that the stream ends on, before and after one.
            let ends: Vec<usize> = expected(&chunker, &profile, &bytes[1..]).into_iter().take(3).collect();
            for limit in [0, profile.min, profile.min + 31, profile.average, profile.max].into_iter().chain(ends) {
                for len in limit.saturating_sub(3)..=limit + 3 {
                    for from in 0..2 {
                        let rest = &bytes[from..from + len];
                        let expected = chunker.cut_by_crate(&profile, rest);
                        assert_eq!(chunker.cut(&profile, rest), expected, "{:?}, {profile:?}, {len}", chunker.kernel);
                        if len > 0 {
                            let found = cuts_by_windows(&chunker, &profile, rest, &split(len, len), 1);
                            assert_eq!(found[0], expected, "{:?}, {profile:?}, {len} at once", chunker.kernel);
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn every_place_of_a_split_gives_the_same_cuts() {
    for chunker in each_kernel(3) {
        let bytes = &noise(90_000)[..80_001];
        let expected = expected(&chunker, &META, bytes);
        let around = expected.iter().scan(0, |at, len| {
            *at += len;
            Some(*at)
        });
        let places = around.flat_map(|end| end.saturating_sub(40)..end + 40).chain((0..bytes.len()).step_by(997));
        for place in places.filter(|place| (1..bytes.len()).contains(place)) {
            let found = cuts_by_windows(&chunker, &META, bytes, &[0..place, place..bytes.len()], 1);
            assert_eq!(found, expected, "{:?}, split at {place}", chunker.kernel);
        }
    }
}

#[test]
fn an_end_that_may_not_be_the_end_waits_for_its_pair() {
    // Wherever the bytes end for now, a cut that is told is the one that the whole stream has.
    for chunker in each_kernel(4) {
        let bytes = noise(META.max * 2);
        let expected = chunker.cut_by_crate(&META, &bytes);
        let mut candidates = Candidates::default();
        for len in (0..META.min + 100).chain(expected - 5..expected + 5) {
            chunker.scan(&META, &bytes[..len], 0, &mut candidates);
            let window = Window { bytes: &bytes[..len], candidates: &candidates, scanned_from: 0, is_last: false };
            let found = window.next_cut(&chunker, &META, 0);
            // An even position counts when there is a byte behind it, an odd one at once.
            let known = expected + 1 + (expected + 1) % 2 <= len;
            assert_eq!(found, known.then_some(expected), "{:?}, {len} of {expected}", chunker.kernel);
        }
    }
}

#[test]
fn candidates_of_another_profile_or_none_change_nothing() {
    for chunker in each_kernel(5) {
        let bytes = noise(300_000);
        let mut others = Candidates::default();
        chunker.scan(&META, &bytes, 0, &mut others);
        for candidates in [&others, &Candidates::default()] {
            let (mut lengths, mut start) = (Vec::new(), 0);
            let window = Window { bytes: &bytes, candidates, scanned_from: 0, is_last: true };
            while let Some(len) = window.next_cut(&chunker, &GENERIC, start) {
                lengths.push(len);
                start += len;
            }
            assert_eq!(lengths, expected(&chunker, &GENERIC, &bytes));
            assert_eq!(window.next_cut(&chunker, &GENERIC, bytes.len() + 1), None);
        }
        let mut joined = others.clone();
        joined.append(&Candidates::default(), bytes.len());
        assert_eq!(joined, others, "what does not fit is not joined");
    }
}

#[test]
fn what_was_not_scanned_is_looked_at() {
    for chunker in each_kernel(8) {
        let bytes = noise(META.max * 2);
        let cut = chunker.cut_by_crate(&META, &bytes);
        assert!(cut > META.min + 40 && cut < META.max);
        let mut candidates = Candidates::default();
        let mut check = |from: usize, to: usize| {
            chunker.scan(&META, &bytes[from - 31..to], 31, &mut candidates);
            let window = Window { bytes: &bytes, candidates: &candidates, scanned_from: from, is_last: true };
            assert_eq!(window.next_cut(&chunker, &META, 0), Some(cut), "{:?}, scanned {from}..{to} of {cut}", chunker.kernel);
        };
        for near in cut - 2..cut + 3 {
            check(31, near);
            check(near, bytes.len());
            check(near, near + 1);
        }
    }
}

#[test]
fn many_candidates_side_by_side_are_all_found() {
    // What the kernels do seldom, done all the time.
    for kernel in Kernel::available() {
        let chunker = Chunker::with_kernel(crowded(6), kernel);
        for profile in [GENERIC, META] {
            let bytes = runs_of_nothing(profile.max * 3 + 77);
            let expected = expected(&chunker, &profile, &bytes);
            assert!(expected.len() > bytes.len() / profile.min / 2, "cuts come early");
            assert_eq!(cuts(&profile, &bytes, |profile, bytes| chunker.cut(profile, bytes)), expected, "{kernel:?}");
            let windows = split(bytes.len(), profile.average + 5);
            assert_eq!(cuts_by_windows(&chunker, &profile, &bytes, &windows, 1), expected, "{kernel:?}");
            assert_eq!(cuts_by_windows(&chunker, &profile, &bytes, &split(bytes.len(), bytes.len()), 1), expected, "{kernel:?}");
        }
    }
}

#[test]
fn data_made_of_candidates_takes_no_more_memory_than_other() {
    let bytes = vec![0; 8 << 20];
    for kernel in Kernel::available() {
        let chunker = Chunker::with_kernel(crowded(7), kernel);
        let mut candidates = Candidates::default();
        chunker.scan(&GENERIC, &bytes, 0, &mut candidates);
        assert!(candidates.len() < bytes.len() / 16, "{kernel:?}: {}", candidates.len());
        assert_eq!(
            cuts_by_windows(&chunker, &GENERIC, &bytes, &split(bytes.len(), 4 << 20), 1),
            vec![GENERIC.min; bytes.len() / GENERIC.min]
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_windows_of_any_data_give_the_same_cuts(
        seed in any::<u8>(),
        pieces in prop::collection::vec((prop_oneof![0u8..20, any::<u8>()], 1usize..30_000, any::<bool>()), 1..8),
        windows in prop::collection::vec(1usize..50_000, 1..12),
        parts in 1usize..4,
        is_crowded in any::<bool>(),
    ) {
        let bytes: Vec<u8> = pieces.iter().flat_map(|&(byte, len, random)| {
            let mut piece = vec![byte; len];
            if random {
                hash::keyed_stream(&[byte; 32], b"piece", &mut piece);
            }
            piece
        }).collect();
        let mut ranges = Vec::new();
        let mut at = 0;
        for len in windows.iter().cycle() {
            let end = bytes.len().min(at + len);
            ranges.push(at..end);
            at = end;
            if at == bytes.len() {
                break;
            }
        }
        for kernel in Kernel::available() {
            let gear = if is_crowded { crowded(seed) } else { gear(seed) };
            let chunker = Chunker::with_kernel(gear, kernel);
            for profile in [GENERIC, META, DB] {
                let expected = expected(&chunker, &profile, &bytes);
                prop_assert_eq!(&cuts(&profile, &bytes, |profile, bytes| chunker.cut(profile, bytes)), &expected);
                prop_assert_eq!(&cuts_by_windows(&chunker, &profile, &bytes, &ranges, parts), &expected);
            }
        }
    }
}

#[test]
fn average_is_near_nominal() {
    for profile in [GENERIC, META, Profile::trial(16 << 10)] {
        let bytes = noise(profile.average * 500);
        let count = cuts(&profile, &bytes, |profile, bytes| chunker(1).cut(profile, bytes)).len();
        assert!((300..=550).contains(&count), "profile {}: {count} chunks", profile.number);
    }
}

#[test]
fn fixed_chunks_are_all_alike_but_the_last() {
    let bytes = noise(3 * DB.max + 1);
    assert_eq!(cuts(&DB, &bytes, |profile, bytes| chunker(1).cut(profile, bytes)), [DB.max, DB.max, DB.max, 1]);
}

#[test]
fn cuts_meet_again_after_an_insertion_and_depend_on_the_key() {
    let bytes = noise(4 << 20);
    let cuts = |seed, bytes: &[u8]| cuts(&GENERIC, bytes, |profile, bytes| chunker(seed).cut(profile, bytes));
    let before = cuts(1, &bytes);
    let mut edited = bytes.clone();
    edited.splice(1_000_000..1_000_000, [1, 2, 3]);
    let after = cuts(1, &edited);
    assert_eq!(before[before.len() - 20..], after[after.len() - 20..]);
    assert_ne!(before, cuts(2, &bytes));
}
