//! The fuzz targets without a fuzzer: every target over its seeds and over random mutations of them. The seeds are also
//! fixtures of the format: a byte that is written differently than in a release shows here.
//!
//! `ICECORE_FUZZ_ITERATIONS` sets the mutations of each target; after a wanted change of the format,
//! `cargo test --test it write_fuzz_seeds -- --ignored` writes the seeds anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

mod make;
#[path = "../../../fuzz/src/targets/mod.rs"]
#[allow(unreachable_pub)]
mod targets;

use targets::TARGETS;

const ITERATIONS: u64 = 2000;
/// Mutations longer than this tell nothing that shorter ones do not.
const INPUT_BYTES_MAX: usize = 8192;

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "fuzz", "seeds"].iter().collect()
}

/// The committed seeds of a target, by name.
fn seeds(target: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder().join(target)).unwrap_or_else(|e| panic!("the seeds of {target}: {e}"));
    let read = |entry: fs::DirEntry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap());
    entries.map(|entry| read(entry.unwrap())).collect()
}

/// Runs a target; a panic names the input.
fn run(name: &str, input: &[u8]) -> bool {
    catch_unwind(AssertUnwindSafe(|| targets::run(name, input))).unwrap_or_else(|_| {
        let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
        panic!("the target {name} failed on {} bytes: {hex}", input.len())
    })
}

#[test]
fn fuzz_seeds_are_what_this_version_writes_and_takes() {
    let made = make::seeds();
    let folders: BTreeSet<String> = fs::read_dir(folder()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(folders, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect(), "a folder of seeds for each target");
    for (name, _) in TARGETS {
        let committed = seeds(name);
        let fresh: BTreeMap<_, _> = made.iter().filter(|seed| seed.target == *name).map(|seed| (seed.name.to_owned(), seed)).collect();
        assert_eq!(committed.keys().collect::<Vec<_>>(), fresh.keys().collect::<Vec<_>>(), "the seeds of {name}");
        for (file, bytes) in &committed {
            let seed = fresh[file];
            assert!(seed.is_random || seed.bytes == *bytes, "{name}/{file}: this version writes it differently");
            assert_eq!(run(name, bytes), !file.starts_with("bad-"), "{name}/{file} was accepted");
        }
    }
}

#[test]
fn fuzz_targets_survive_mutated_seeds() {
    let iterations = std::env::var("ICECORE_FUZZ_ITERATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(ITERATIONS);
    for (name, _) in TARGETS {
        let seeds: Vec<Vec<u8>> = seeds(name).into_values().collect();
        // Building a repository for each input takes a hundred times as long as reading a record.
        let iterations = if *name == "store" { iterations / 4 } else { iterations };
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ name.len() as u64);
        let accepted = (0..iterations).filter(|_| run(name, &mutated(&seeds, &mut random))).count();
        println!("{name}: {accepted} of {iterations} mutations accepted");
    }
}

#[test]
#[ignore = "writes into the checkout"]
fn write_fuzz_seeds() {
    for (name, _) in TARGETS {
        fs::create_dir_all(folder().join(name)).unwrap();
    }
    for seed in make::seeds() {
        let path = folder().join(seed.target).join(seed.name);
        if !(seed.is_random && path.exists()) {
            fs::write(path, seed.bytes).unwrap();
        }
    }
}

/// xorshift64*: the same mutations in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap() % bound.max(1)
    }
}

/// A seed with one to four changes: a bit, a byte, an extreme integer, a cut, a copy of a piece, a piece of another seed.
fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    const EXTREMES: [u64; 8] = [0, 1, 0x7f, 0xff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len());
        match random.below(7) {
            0 if !input.is_empty() => input[at] ^= 1 << random.below(8),
            1 if !input.is_empty() => input[at] = random.next().to_le_bytes()[7],
            2 => {
                let value = EXTREMES[random.below(EXTREMES.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random.below(4)];
                for (byte, new) in input.iter_mut().skip(at).zip(&value[..width]) {
                    *byte = *new;
                }
            }
            3 => input.truncate(at),
            4 => {
                let piece = input[at..(at + random.below(64)).min(input.len())].to_vec();
                let to = random.below(input.len() + 1);
                input.splice(to..to, piece);
            }
            5 => drop(input.drain(at..(at + random.below(16)).min(input.len()))),
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len());
                let to = (from + random.below(64)).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
        }
    }
    input.truncate(INPUT_BYTES_MAX);
    input
}
