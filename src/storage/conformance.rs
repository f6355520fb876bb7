//! The contract of [`Storage`] as a test: every implementation and every wrapper runs it. The numbers are those of the
//! rules in [`super`]. Whether rule 1 survives a lost power supply is for the crash tests.

#![allow(clippy::unwrap_used)]

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::{Key, Listed, Storage};
use crate::error::{Error, ErrorKind};

const LEN_MAX: u64 = 1 << 30;

/// Checks the contract on storages that `make` returns, each new and empty. Panics where it is broken.
pub fn run(make: &dyn Fn() -> Box<dyn Storage>) {
    objects_come_back_as_they_were(make().as_ref());
    nothing_is_put_twice(make().as_ref());
    one_of_several_puts_at_once_wins(make().as_ref());
    no_reader_sees_a_part(make().as_ref());
    what_is_not_there_is_not_found(make().as_ref());
    a_read_of_more_than_allowed_is_refused(make().as_ref());
    ranges_are_exact_or_refused(make().as_ref());
    listings_are_by_component_and_sorted(make().as_ref());
    what_is_deleted_is_gone(make().as_ref());
    a_hold_is_exclusive_until_dropped(make().as_ref(), None);
    a_sweep_leaves_objects_alone(make().as_ref());
    assert!(!make().describe().is_empty());
}

/// Checks what two who opened the same storage see of each other, on pairs that `make` returns, each new and empty.
pub fn run_shared(make: &dyn Fn() -> (Box<dyn Storage>, Box<dyn Storage>)) {
    let (one, other) = make();
    changes_of_one_are_seen_by_the_other(one.as_ref(), other.as_ref());
    let (one, other) = make();
    a_hold_is_exclusive_until_dropped(one.as_ref(), Some(other.as_ref()));
}

/// Rules 1 and 6: all lengths, also none at all and one that no block size divides.
fn objects_come_back_as_they_were(storage: &dyn Storage) {
    for len in [0, 1, 4095, 4096, 100_000, 1 << 20, (1 << 20) + 1, 5 * (1 << 20) + 77] {
        let key = key(&format!("packs/{:02x}/{len}", len % 256));
        let bytes = pattern(len, 1);
        storage.put_new(&key, &bytes).unwrap();
        assert!(storage.get(&key, len as u64).unwrap() == bytes, "{len} bytes came back changed");
        assert_eq!(storage.size(&key).unwrap(), Some(len as u64));
    }
    assert_eq!(storage.list("packs").unwrap().len(), 8);
}

/// Rule 3, one after the other.
fn nothing_is_put_twice(storage: &dyn Storage) {
    let key = key("log/0123/0");
    storage.put_new(&key, b"first").unwrap();
    for bytes in [b"second".as_slice(), b"first", b""] {
        expect(storage.put_new(&key, bytes), ErrorKind::AlreadyExists, key.as_str());
    }
    assert_eq!(storage.get(&key, LEN_MAX).unwrap(), b"first");
}

/// Rule 3, all at once.
fn one_of_several_puts_at_once_wins(storage: &dyn Storage) {
    const THREADS: usize = 8;
    for round in 0..8 {
        let key = key(&format!("gc/{round}/condemned"));
        // Long and short ones, as they may be written in different ways.
        let len = if round % 4 == 0 { (1 << 20) + 5 } else { 1000 };
        let start = Barrier::new(THREADS);
        let answers: Vec<Result<(), Error>> = thread::scope(|scope| {
            let put = |thread| {
                let (key, start) = (&key, &start);
                scope.spawn(move || {
                    start.wait();
                    storage.put_new(key, &pattern(len, thread))
                })
            };
            let threads: Vec<_> = (0..THREADS).map(put).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<usize> = (0..THREADS).filter(|&thread| answers[thread].is_ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}: {answers:?}");
        assert!(storage.get(&key, LEN_MAX).unwrap() == pattern(len, winners[0]), "the object is not the winner's");
        for lost in answers.into_iter().filter(Result::is_err) {
            expect(lost, ErrorKind::AlreadyExists, key.as_str());
        }
    }
}

/// Rule 2: whoever looks while an object is written finds nothing, or all of it.
fn no_reader_sees_a_part(storage: &dyn Storage) {
    const LEN: usize = (2 << 20) + 3;
    let written = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !written.load(Ordering::SeqCst) {
                for listed in storage.list("").unwrap() {
                    assert_eq!(listed.len, LEN as u64, "{} is listed in part", listed.key);
                    assert_eq!(storage.get(&listed.key, LEN_MAX).unwrap().len(), LEN);
                }
            }
        });
        let put = |number| storage.put_new(&key(&format!("packs/00/{number}")), &pattern(LEN, number));
        let answers: Vec<_> = (0..4).map(put).collect();
        written.store(true, Ordering::SeqCst);
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    });
}

/// Rule 5.
fn what_is_not_there_is_not_found(storage: &dyn Storage) {
    for text in ["config", "packs/00/0", "a/b/c/d"] {
        let key = key(text);
        expect(storage.get(&key, LEN_MAX), ErrorKind::NotFound, text);
        expect(storage.get_range(&key, 0, &mut [0]), ErrorKind::NotFound, text);
        expect(storage.get_range(&key, 0, &mut []), ErrorKind::NotFound, text);
        expect(storage.read_once(&key, 0, &mut [0]), ErrorKind::NotFound, text);
        assert_eq!(storage.size(&key).unwrap(), None);
        storage.delete(&key).unwrap();
        assert!(!storage.held(&key).unwrap());
    }
    assert_eq!(storage.list("").unwrap(), []);
    assert_eq!(storage.list("packs").unwrap(), []);
}

/// Rule 6.
fn a_read_of_more_than_allowed_is_refused(storage: &dyn Storage) {
    let key = key("config");
    storage.put_new(&key, &pattern(1000, 0)).unwrap();
    for len_max in [0, 999] {
        expect(storage.get(&key, len_max), ErrorKind::Damaged, "config");
    }
    assert_eq!(storage.get(&key, 1000).unwrap().len(), 1000);
    assert_eq!(storage.get(&key, u64::MAX).unwrap().len(), 1000, "what is allowed is not what is allocated");
}

/// Ranges are exact; one that is not all there is damage, also at the far end of numbers.
fn ranges_are_exact_or_refused(storage: &dyn Storage) {
    let bytes = pattern(100_001, 0);
    for text in ["packs/ab/0", "gen/0/0"] {
        let key = key(text);
        storage.put_new(&key, &bytes).unwrap();
        for (offset, len) in [(0, 0), (0, 1), (1, 4097), (4096, 50_000), (100_000, 1), (100_001, 0), (0, 100_001)] {
            let mut buffer = vec![0; len];
            storage.get_range(&key, offset as u64, &mut buffer).unwrap();
            assert!(buffer == bytes[offset..offset + len], "{len} bytes from {offset} of {text}");
            buffer.fill(0);
            storage.read_once(&key, offset as u64, &mut buffer).unwrap();
            assert!(buffer == bytes[offset..offset + len], "{len} bytes from {offset} of {text}, once");
        }
        for (offset, len) in [(0, 100_002), (100_000, 2), (100_001, 1), (200_000, 1), (u64::MAX, 1), (u64::MAX - 1, 5)] {
            expect(storage.get_range(&key, offset, &mut vec![0; len]), ErrorKind::Damaged, text);
            expect(storage.read_once(&key, offset, &mut vec![0; len]), ErrorKind::Damaged, text);
        }
    }
}

fn listings_are_by_component_and_sorted(storage: &dyn Storage) {
    // `-` and `.` sort before `/`, so a listing sorted folder by folder is not sorted by key.
    let keys = ["config", "keys/0", "log/a/0", "log/a/1", "log/a-b/0", "log/a.b/0", "log/ab/0", "log-a/0", "packs/00/0", "packs/ff/0"];
    for text in keys {
        storage.put_new(&key(text), text.as_bytes()).unwrap();
    }
    let list = |prefix: &str| -> Vec<String> {
        let listed = storage.list(prefix).unwrap();
        assert!(listed.iter().all(|listed| listed.len == listed.key.as_str().len() as u64));
        listed.into_iter().map(|listed| listed.key.to_string()).collect()
    };
    let mut sorted = keys;
    sorted.sort_unstable();
    assert_eq!(list(""), sorted);
    assert_eq!(list("log/a"), ["log/a/0", "log/a/1"]);
    assert_eq!(list("log"), ["log/a-b/0", "log/a.b/0", "log/a/0", "log/a/1", "log/ab/0"]);
    assert_eq!(list("log/a/1"), ["log/a/1"], "an object is below its own key");
    assert_eq!(list("config"), ["config"]);
    assert_eq!(list("conf"), [""; 0]);
    assert_eq!(list("packs/0"), [""; 0]);
    for prefix in ["/", "log/", "../log", "log//a", "LOG"] {
        assert_eq!(storage.list(prefix).unwrap_err().kind(), ErrorKind::Usage, "{prefix}");
    }
}

/// Rule 4, within one process.
fn what_is_deleted_is_gone(storage: &dyn Storage) {
    let (gone, kept) = (key("packs/00/0"), key("packs/00/1"));
    for contents in [b"first".as_slice(), b"second, longer"] {
        storage.put_new(&gone, contents).unwrap();
        let mut buffer = vec![0; contents.len()];
        storage.get_range(&gone, 0, &mut buffer).unwrap();
        assert_eq!(buffer, contents);
        if storage.size(&kept).unwrap().is_none() {
            storage.put_new(&kept, b"kept").unwrap();
        }
        storage.delete(&gone).unwrap();
        expect(storage.get(&gone, LEN_MAX), ErrorKind::NotFound, "packs/00/0");
        expect(storage.get_range(&gone, 0, &mut [0]), ErrorKind::NotFound, "packs/00/0");
        assert_eq!(storage.size(&gone).unwrap(), None);
        assert_eq!(storage.list("packs").unwrap().len(), 1);
        storage.delete(&gone).unwrap();
    }
    assert_eq!(storage.get(&kept, LEN_MAX).unwrap(), b"kept");
}

/// Rule 7, within one process, or between `storage` and `other`.
fn a_hold_is_exclusive_until_dropped(storage: &dyn Storage, other: Option<&dyn Storage>) {
    let other = other.unwrap_or(storage);
    let (key, free) = (key("hb/0123"), key("hb/4567"));
    for _ in 0..3 {
        let hold = storage.hold(&key).unwrap();
        for asked in [storage, other] {
            assert!(asked.held(&key).unwrap());
            assert!(!asked.held(&free).unwrap());
            expect(asked.hold(&key).map(drop), ErrorKind::Busy, "hb/0123");
        }
        assert!(storage.held(&key).unwrap(), "a refused hold must not take it away");
        assert_eq!(other.list("hb").unwrap(), [Listed { key: key.clone(), len: 0 }]);
        drop(other.hold(&free).unwrap());
        drop(hold);
        assert!(!storage.held(&key).unwrap() && !other.held(&key).unwrap());
        drop(other.hold(&key).unwrap());
        assert_eq!(storage.list("hb").unwrap(), []);
    }
    one_holder_at_a_time(storage, other);
}

/// Rule 7 under contention, with others asking all the while: a hold that is refused to everybody, or given to two, shows.
fn one_holder_at_a_time(storage: &dyn Storage, other: &dyn Storage) {
    let key = key("hb/contended");
    let (inside, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let contend = |storage: &dyn Storage| {
            let mut taken = 0;
            while taken < 20 {
                match storage.hold(&key) {
                    Ok(hold) => {
                        assert!(!inside.swap(true, Ordering::SeqCst), "two hold one key");
                        assert!(storage.held(&key).unwrap());
                        inside.store(false, Ordering::SeqCst);
                        drop(hold);
                        taken += 1;
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Busy, "{error}"),
                }
            }
        };
        let contenders = [scope.spawn(move || contend(storage)), scope.spawn(move || contend(other))];
        let (done, key) = (&done, &key);
        scope.spawn(move || {
            while !done.load(Ordering::SeqCst) {
                other.held(key).unwrap();
            }
        });
        let ended = contenders.map(|contender| contender.join());
        done.store(true, Ordering::SeqCst);
        assert!(ended.into_iter().all(|contender| contender.is_ok()));
    });
    assert!(!storage.held(&key).unwrap());
}

fn a_sweep_leaves_objects_alone(storage: &dyn Storage) {
    storage.sweep_leftovers().unwrap();
    storage.put_new(&key("packs/00/0"), b"kept").unwrap();
    let hold = storage.hold(&key("hb/0")).unwrap();
    storage.sweep_leftovers().unwrap();
    assert_eq!(storage.get(&key("packs/00/0"), LEN_MAX).unwrap(), b"kept");
    assert!(storage.held(&key("hb/0")).unwrap());
    drop(hold);
    thread::scope(|scope| {
        let puts = scope.spawn(|| {
            for number in 0..20 {
                storage.put_new(&key(&format!("log/0/{number}")), b"entry").unwrap();
            }
        });
        while !puts.is_finished() {
            storage.sweep_leftovers().unwrap();
        }
    });
    assert_eq!(storage.list("log").unwrap().len(), 20, "a sweep beside puts of the living takes nothing from them");
}

/// Rule 4, across processes.
fn changes_of_one_are_seen_by_the_other(one: &dyn Storage, other: &dyn Storage) {
    let key = key("packs/00/0");
    for contents in [b"first".as_slice(), b"second"] {
        one.put_new(&key, contents).unwrap();
        expect(other.put_new(&key, b"other"), ErrorKind::AlreadyExists, key.as_str());
        assert_eq!(other.get(&key, LEN_MAX).unwrap(), contents);
        // Read in part on both sides: a handle kept open must not outlive the object.
        for storage in [one, other] {
            let mut buffer = vec![0; contents.len()];
            storage.get_range(&key, 0, &mut buffer).unwrap();
            assert_eq!(buffer, contents);
        }
        other.delete(&key).unwrap();
        for storage in [one, other] {
            expect(storage.get_range(&key, 0, &mut [0]), ErrorKind::NotFound, key.as_str());
            assert_eq!(storage.size(&key).unwrap(), None);
            assert_eq!(storage.list("").unwrap(), []);
        }
    }
}

/// The error must have the kind, and name the key and what was attempted.
#[track_caller]
fn expect<T>(answer: Result<T, Error>, kind: ErrorKind, key: &str) {
    match answer {
        Ok(_) => assert_eq!(Some(kind), None, "{key}: succeeded instead"),
        Err(error) => {
            assert_eq!(error.kind(), kind, "{error}");
            assert_eq!(error.subject(), Some(key), "{error}");
            assert!(error.to_string().len() > key.len() + 5, "{error}");
        }
    }
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

/// Bytes that differ by place and by `seed`, so that blocks in the wrong order or of another object show.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|at| (at ^ (at >> 8) ^ (at >> 16)).wrapping_mul(31).wrapping_add(seed * 101).to_le_bytes()[0]).collect()
}
