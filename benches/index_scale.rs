//! The chunk index with many millions of entries: what an entry costs on disk, what the index holds in memory, how many
//! questions it answers in a second, and how long it takes to fill. A plain program, for runs of minutes:
//!
//! ```text
//! cargo bench --bench index_scale -- [--dir FOLDER] [--memory MIB,...] [--json FILE] [MILLIONS...]
//! ```
//!
//! Ten million entries by default; a hundred million take 5 GB of disk, twice that while they are being sorted, and some
//! minutes. Everything is made in a folder of its own below FOLDER (default: /var/tmp) that goes at the end. Each budget of
//! `--memory` is measured in a fresh process, which opens the index and only looks up: its memory is that of the index. Rates
//! are by processor time of one core and times by the clock.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use icecore::index::{BlobEntry, ChunkIndex, MEMORY_BYTES_DEFAULT, NewPack, PackInfo, RocksIndex};
use icecore::model::{ChunkId, PackId};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

/// Chunks of a pack: 32 MiB of chunks of 80 KB.
const PACK_CHUNKS: u64 = 400;
/// Packs that are inserted one by one into the full index.
const INSERTED_PACKS: u64 = 500;
/// Seconds that each kind of question is asked for, and before that without being counted.
const SECONDS: f64 = 3.0;
const SECONDS_WARM: f64 = 2.0;
/// Questions between two looks at the clock; also the size of a batch of questions.
const ROUND: u64 = 64;
const CHILD: &str = "--lookups-of";

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench").peekable();
    if arguments.next_if(|argument| argument == CHILD).is_some() {
        let mut next = || arguments.next().unwrap();
        let (path, count, memory_bytes) = (PathBuf::from(next()), next().parse().unwrap(), next().parse().unwrap());
        println!("{}", lookups(&path, count, memory_bytes));
        return;
    }
    let (mut counts, mut dir, mut file, mut budgets) = (Vec::new(), PathBuf::from("/var/tmp"), None, vec![MEMORY_BYTES_DEFAULT]);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value after the option");
        match argument.as_str() {
            "--dir" => dir = value().into(),
            "--json" => file = Some(PathBuf::from(value())),
            "--memory" => budgets = value().split(',').map(|mib| mib.parse::<usize>().expect("MiB") << 20).collect(),
            // A fraction of a million is for trying the program out.
            millions => counts.push((millions.parse::<f64>().expect("a number of millions") * 1e6) as u64),
        }
    }
    if counts.is_empty() {
        counts.push(10_000_000);
    }
    let results: Vec<Value> = counts.into_iter().map(|count| measure(count, &dir, &budgets)).collect();
    if let Some(file) = file {
        std::fs::write(file, serde_json::to_vec_pretty(&results).unwrap()).unwrap();
    }
}

/// Fills, looks up, inserts, fills again.
fn measure(count: u64, dir: &Path, budgets: &[usize]) -> Value {
    let folder = tempfile::Builder::new().prefix("icecore-index-").tempdir_in(dir).unwrap();
    let path = folder.path().join("index");
    println!("{:.1} million entries in packs of {PACK_CHUNKS}", count as f64 / 1e6);

    // Forgets the peak of an earlier count.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    let (index, opened) = timed(|| RocksIndex::open(&path, budgets[0]).unwrap());
    let before = processor_seconds(ClockId::ProcessCPUTime);
    let ((), filled) = timed(|| fill(&index, count));
    let worked = processor_seconds(ClockId::ProcessCPUTime) - before;
    let a_million = 1e6 / count as f64;
    println!("  fill             {filled:8.1} s    {:6.2} s a million, {:.2} s of it work", filled * a_million, worked * a_million);
    println!("  peak             {:8} MiB  while filling", status("VmHWM") >> 10);
    drop(index);
    let disk_bytes = RocksIndex::open(&path, budgets[0]).unwrap().counts().unwrap().disk_bytes;
    let entry_bytes = disk_bytes as f64 / count as f64;
    println!("  disk             {:8.1} MB   {entry_bytes:6.1} bytes an entry", disk_bytes as f64 / 1e6);

    let mut by_budget = Vec::new();
    for budget in budgets {
        let child = Command::new(std::env::current_exe().unwrap())
            .args([CHILD, path.to_str().unwrap(), &count.to_string(), &budget.to_string()])
            .output()
            .unwrap();
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
        let facts: Value = serde_json::from_slice(&child.stdout).unwrap();
        let number = |name: &str| facts[name].as_f64().unwrap();
        println!(
            "  with {} MiB: memory {:.0} MiB, at its peak {:.0}; opened in {:.0} ms",
            budget >> 20,
            number("rss_mib"),
            number("peak_mib"),
            number("open_ms")
        );
        for (name, what) in [
            ("misses", "absent"),
            ("misses_many", "absent, many at once"),
            ("hits", "present"),
            ("hits_many", "present, many at once"),
            ("hits_by_pack", "present, pack by pack"),
            ("mixed", "half present, half not"),
            ("walked", "walked"),
        ] {
            println!("    {what:<24}{:8.0} thousand a second", number(name) / 1e3);
        }
        by_budget.push(facts);
    }

    let index = RocksIndex::open(&path, budgets[0]).unwrap();
    let first = count / PACK_CHUNKS + 1;
    let ((), inserted) =
        timed(|| (first..first + INSERTED_PACKS).map(pack).for_each(|pack| index.insert_pack(&pack.info, &pack.blobs).unwrap()));
    let inserted = (INSERTED_PACKS * PACK_CHUNKS) as f64 / inserted;
    println!("  inserted         {:8.0} thousand a second, pack by pack", inserted / 1e3);
    let ((), refilled) = timed(|| {
        index.clear().unwrap();
        fill(&index, count);
    });
    println!(
        "  cleared, filled  {refilled:8.1} s    {:6.2} s a million, peak {} MiB",
        refilled * 1e6 / count as f64,
        status("VmHWM") >> 10
    );
    json!({
        "entries": count, "fill_s": filled, "fill_processor_s": worked, "refill_s": refilled, "open_empty_ms": opened * 1e3, "disk_bytes": disk_bytes,
        "bytes_per_entry": entry_bytes, "inserted_per_s": inserted, "peak_mib": status("VmHWM") >> 10, "budgets": by_budget,
    })
}

fn fill(index: &RocksIndex, count: u64) {
    let mut packs = (0..count.div_ceil(PACK_CHUNKS)).map(pack);
    index.insert_packs(&mut || Ok(packs.next())).unwrap();
}

/// What a process that only looks up does in a second and holds in memory.
fn lookups(path: &Path, count: u64, memory_bytes: usize) -> Value {
    let (index, opened) = timed(|| RocksIndex::open(path, memory_bytes).unwrap());
    let mut state = 1;
    let mut random = move || {
        state += 1;
        splitmix(state) % count
    };
    let mut absent = 1 << 60;
    let mut absent = move || {
        absent += 1;
        absent
    };
    let mut next = 0;
    let mut in_order = move || {
        next = (next + 1) % count;
        next
    };
    let mixed = rate(|| {
        (0..ROUND / 2).for_each(|_| assert!(index.get(&id(absent())).unwrap().is_none()));
        (0..ROUND / 2).for_each(|_| assert!(index.get(&id(random())).unwrap().is_some()));
    });
    let misses = rate(|| (0..ROUND).for_each(|_| assert!(index.get(&id(absent())).unwrap().is_none())));
    let misses_many = rate(|| {
        let ids: Vec<_> = (0..ROUND).map(|_| id(absent())).collect();
        assert!(index.get_many(&ids).unwrap().iter().all(Option::is_none));
    });
    let hits = rate(|| (0..ROUND).for_each(|_| assert!(index.get(&id(random())).unwrap().is_some())));
    let hits_many = rate(|| {
        let ids: Vec<_> = (0..ROUND).map(|_| id(random())).collect();
        assert!(index.get_many(&ids).unwrap().iter().all(Option::is_some));
    });
    let hits_by_pack = rate(|| (0..ROUND).for_each(|_| assert!(index.get(&id(in_order())).unwrap().is_some())));
    let rss = status("VmRSS");
    let mut walked = 0u64;
    let ((), seconds) = timed(|| {
        let enough = index.for_each(&mut |_| {
            walked += 1;
            if walked < 5_000_000 { Ok(()) } else { Err(icecore::Error::new(icecore::ErrorKind::Interrupted, "enough")) }
        });
        assert!(enough.is_ok() || walked == 5_000_000);
    });
    json!({
        "memory_mib": memory_bytes >> 20, "mixed": mixed, "open_ms": opened * 1e3, "misses": misses, "misses_many": misses_many, "hits": hits,
        "hits_many": hits_many, "hits_by_pack": hits_by_pack, "walked": walked as f64 / seconds,
        "rss_mib": rss as f64 / 1024.0, "peak_mib": status("VmHWM") as f64 / 1024.0,
    })
}

/// Seconds of processor time that this thread or process has used: others may keep the machine busy.
fn processor_seconds(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Questions in a second of processor time, when `round` asks [`ROUND`] of them.
fn rate(mut round: impl FnMut()) -> f64 {
    let mut run = |seconds: f64| {
        let (start, mut rounds) = (processor_seconds(ClockId::ThreadCPUTime), 0u64);
        while processor_seconds(ClockId::ThreadCPUTime) - start < seconds {
            round();
            rounds += 1;
        }
        (rounds * ROUND) as f64 / (processor_seconds(ClockId::ThreadCPUTime) - start)
    };
    run(SECONDS_WARM);
    run(SECONDS)
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed().as_secs_f64())
}

fn pack(number: u64) -> NewPack {
    let mut offset = 96;
    let blobs = (0..PACK_CHUNKS).map(|at| {
        let id = id(number * PACK_CHUNKS + at);
        let noise = splitmix(number * PACK_CHUNKS + at);
        let raw_len = 16_384 + (noise % 131_072) as u32;
        let stored_len = raw_len / 2 + (noise >> 32) as u32 % 1024;
        let blob = BlobEntry { id, offset, stored_len, raw_len, number: at as u32, kind: 0, codec: 1, base: None };
        offset += stored_len;
        blob
    });
    let blobs = blobs.collect();
    let salt = id(number | 1 << 59).0;
    NewPack { info: PackInfo { id: PackId(id(number | 1 << 58).0), len: u64::from(offset) + 40_000, salt }, blobs }
}

/// A name that looks like a hash.
fn id(number: u64) -> ChunkId {
    let mut bytes = [0; 32];
    for (word, part) in (0..).zip(bytes.chunks_exact_mut(8)) {
        part.copy_from_slice(&splitmix(number.wrapping_mul(4).wrapping_add(word)).to_le_bytes());
    }
    ChunkId(bytes)
}

fn splitmix(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A line of this process's status, in KiB.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
