//! Several processes on one repository, processes that are killed, and a state folder that is lost, old, foreign, in use
//! or destroyed: nothing committed is ever lost, and nobody waits or fails for the sake of a cache.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::program::{Running, Sandbox, assert_same_tree, files_below, noise, run, set_mode, wait_until};

fn ids(sandbox: &Sandbox) -> Vec<String> {
    sandbox.json(0, ["snapshots"]).as_array().unwrap().iter().map(|snapshot| snapshot["id"].as_str().unwrap().to_owned()).collect()
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run(Command::new("cp").arg("-a").arg(from).arg(to)).expect(0);
}

#[test]
fn snapshots_verify_and_prune_work_at_the_same_time() {
    let sandbox = Sandbox::new();
    let sources = [sandbox.source("a", &[("shared", &noise(2 << 20, 1))]), sandbox.source("b", &[("shared", &noise(2 << 20, 1))])];
    let mut copies = Vec::new();
    for round in 0..10u64 {
        for (number, source) in sources.iter().enumerate() {
            fs::write(source.join(format!("own{}", round % 3)), noise(1 << 20, round * 2 + number as u64)).unwrap();
            fs::write(source.join("new in both"), noise(1 << 20, 1000 + round)).unwrap();
        }
        // Something for prune to do: each round an older snapshot goes.
        if round > 2 {
            sandbox.run(["forget", "--keep-last", "3", "--yes"]).expect(0);
        }
        let start = |arguments: &[&str]| Running::start(sandbox.command().args(arguments));
        let running = [start(&["snapshot", "./a"]), start(&["prune", "--yes"]), start(&["snapshot", "./b"]), start(&["verify", "--data"])];
        for (number, process) in running.into_iter().enumerate() {
            let ran = process.end();
            let fine = ran.code == 0 || number == 1 && ran.code == 12;
            assert!(fine, "round {round}: {}\n{}", ran.code, ran.transcript());
        }
        for (source, name) in sources.iter().zip(["a", "b"]) {
            let id = sandbox.json(0, ["snapshots", source.to_str().unwrap(), "--at", "latest"])[0]["id"].as_str().unwrap().to_owned();
            let kept = sandbox.path(&format!("copy-{name}-{round}"));
            copy(source, &kept);
            copies.push((id, kept));
        }
        sandbox.run(["verify"]).expect(0);
    }
    let left = ids(&sandbox);
    assert!(left.len() >= 6, "{left:?}");
    sandbox.run(["verify", "--data"]).expect(0);
    for round in 0..2 {
        for (id, kept) in copies.iter().filter(|(id, _)| left.contains(id)) {
            sandbox.run(["restore", id, "--to", "out", "--yes", "--delete"]).expect(0);
            assert_same_tree(kept, &sandbox.path("out"));
        }
        // The second time without what this host remembers.
        if round == 0 {
            sandbox.run(["prune", "--yes"]).expect(0);
            fs::remove_dir_all(&sandbox.state).unwrap();
        }
    }
}

#[test]
fn after_a_kill_at_any_moment_the_next_snapshot_is_whole() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[]);
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("SEED={seed}");
    let mut random = noise(8 * 64, seed).chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap())).collect::<Vec<_>>();
    fs::write(source.join("base"), noise(48 << 20, seed)).unwrap();
    // How long a run takes, so that the moments are spread over all of it.
    let start = Instant::now();
    sandbox.run(["snapshot", "./data", "--dry-run"]).expect(0);
    let whole = start.elapsed() * 2;
    let (mut killed, mut committed) = (0, 0);
    for round in 0..30u64 {
        fs::write(source.join(format!("file{}", round % 4)), noise(6 << 20, seed + round)).unwrap();
        fs::write(source.join(format!("small{round}")), b"small").unwrap();
        let mut running = Running::start(sandbox.command().args(["snapshot", "./data", "--force-read"]));
        std::thread::sleep(whole.mul_f64(random.pop().unwrap() as f64 / u64::MAX as f64));
        if running.is_over() {
            committed += 1;
        } else {
            running.signal(Signal::KILL);
            killed += 1;
        }
        let ran = running.end();
        assert!([0, -9].contains(&ran.code), "{}", ran.transcript());
        // Whatever is listed can be restored.
        if round % 10 == 9 {
            for id in ids(&sandbox) {
                sandbox.run(["restore", &id, "--tar", "/dev/null"]).expect(0);
            }
            sandbox.run(["verify", "--data"]).expect(0);
        }
    }
    eprintln!("{killed} killed, {committed} came to their end before");
    assert!(killed > 0, "nothing was killed");
    sandbox.run(["snapshot", "./data"]).expect(0);
    sandbox.run(["verify", "--data"]).expect(0);
    sandbox.run(["restore", "latest", "--to", "out"]).expect(0);
    assert_same_tree(&source, &sandbox.path("out"));
    sandbox.run(["prune", "--yes"]).expect(0);
    sandbox.run(["verify", "--data"]).expect(0);
    // No dead process leaves anything for ever.
    let is_temporary = |path: &Path| path.file_name().unwrap().as_bytes().starts_with(b".");
    let leftovers: Vec<_> = files_below(&sandbox.repo).into_iter().filter(|(path, _)| is_temporary(path)).collect();
    assert!(leftovers.is_empty() && files_below(&sandbox.repo.join("hb")).is_empty(), "{leftovers:?}");
    sandbox.run(["restore", "latest", "--to", "out", "--yes", "--delete"]).expect(0);
    assert_same_tree(&source, &sandbox.path("out"));
}

#[test]
fn a_killed_prune_is_finished_by_the_next() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[]);
    for round in 0..8u64 {
        for file in 0..8u64 {
            fs::write(source.join(format!("file{file}")), noise(1 << 20, file + if file % 2 == 0 { round * 100 } else { 0 })).unwrap();
        }
        sandbox.snapshot(&source);
    }
    sandbox.run(["forget", "--keep-last", "2", "--yes"]).expect(0);
    for round in 1..=10 {
        let running = Running::start(sandbox.command().args(["prune", "--yes", "--repack-below", "100"]));
        std::thread::sleep(Duration::from_millis(15 * round));
        running.signal(Signal::KILL);
        running.end();
        sandbox.run(["verify", "--data"]).expect(0);
    }
    sandbox.run(["prune", "--yes"]).expect(0);
    for id in ids(&sandbox) {
        sandbox.run(["restore", &id, "--to", "out", "--yes", "--delete"]).expect(0);
    }
    assert_same_tree(&source, &sandbox.path("out"));
    assert!(sandbox.pack_bytes() < 14 << 20, "{}", sandbox.pack_bytes());
}

/// A repository with two snapshots, and its state folder as it was after the first.
fn with_history() -> (Sandbox, std::path::PathBuf) {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("a", &noise(3 << 20, 1)), ("b", b"b")]);
    sandbox.snapshot(&source);
    copy(&sandbox.state, &sandbox.path("old-state"));
    fs::write(source.join("a"), noise(3 << 20, 2)).unwrap();
    sandbox.snapshot(&source);
    (sandbox, source)
}

/// The repository works in every way with the state folder that it has now.
fn works(sandbox: &Sandbox, source: &Path, what: &str) {
    let before = ids(sandbox).len();
    assert!(before >= 2, "{what}");
    sandbox.run(["verify", "--data"]).expect(0);
    let stored = sandbox.snapshot(source)["stored_bytes"].as_u64().unwrap();
    assert!(stored < 1 << 20, "{what}: {stored} bytes were stored although nothing changed");
    fs::write(source.join("c"), what).unwrap();
    sandbox.snapshot(source);
    assert_eq!(ids(sandbox).len(), before + 2, "{what}");
    sandbox.run(["restore", "latest", "--to", "out", "--yes", "--delete"]).expect(0);
    assert_same_tree(source, &sandbox.path("out"));
    sandbox.run(["verify", "--data"]).expect(0);
    sandbox.run(["prune", "--yes"]).expect(0);
    sandbox.run(["verify", "--data"]).expect(0);
}

#[test]
fn a_state_folder_that_is_lost_costs_nothing_but_time() {
    let (sandbox, source) = with_history();
    fs::remove_dir_all(&sandbox.state).unwrap();
    works(&sandbox, &source, "lost");
}

#[test]
fn a_state_folder_that_is_older_than_the_repository_catches_up() {
    let (sandbox, source) = with_history();
    copy(&sandbox.path("old-state"), &sandbox.state);
    works(&sandbox, &source, "stale");
    // Older than a prune: what it remembers is gone.
    sandbox.run(["forget", "--keep-last", "1", "--yes"]).expect(0);
    sandbox.run(["prune", "--yes", "--repack-below", "100"]).expect(0);
    copy(&sandbox.path("old-state"), &sandbox.state);
    fs::write(source.join("a"), noise(3 << 20, 1)).unwrap();
    sandbox.snapshot(&source);
    sandbox.run(["verify", "--data"]).expect(0);
    sandbox.run(["restore", "latest", "--to", "out", "--yes", "--delete"]).expect(0);
    assert_same_tree(&source, &sandbox.path("out"));
}

#[test]
fn a_state_folder_of_another_repository_is_not_believed() {
    let (sandbox, source) = with_history();
    let (other, _) = with_history();
    let own = fs::read_dir(&sandbox.state).unwrap().next().unwrap().unwrap().path();
    let foreign = fs::read_dir(&other.state).unwrap().next().unwrap().unwrap().path();
    copy(&foreign, &own);
    works(&sandbox, &source, "foreign");
}

#[test]
fn a_repository_put_back_from_an_older_copy_is_not_mistaken_for_the_newer() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("a", &noise(3 << 20, 1))]);
    sandbox.snapshot(&source);
    copy(&sandbox.repo, &sandbox.path("old-repo"));
    fs::write(source.join("b"), noise(3 << 20, 2)).unwrap();
    sandbox.snapshot(&source);
    copy(&sandbox.path("old-repo"), &sandbox.repo);
    // The state folder knows of chunks and of a snapshot that this repository has not. That could be an attack or a loss,
    // so it is said until somebody says that it was meant.
    for arguments in [&["snapshots"][..], &["verify"], &["prune", "--yes"]] {
        sandbox.run(arguments).expect(4);
    }
    sandbox.run(["snapshots"]).expect(4).says(&["is gone", "icecore reindex"]);
    sandbox.snapshot(&source);
    sandbox.run(["restore", "latest", "--to", "out"]).expect(0);
    assert_same_tree(&source, &sandbox.path("out"));
    sandbox.run(["reindex"]).expect(0);
    assert_eq!(ids(&sandbox).len(), 2);
    sandbox.run(["verify", "--data"]).expect(0);
    sandbox.run(["prune", "--yes"]).expect(0);
    sandbox.run(["restore", "latest", "--to", "out", "--yes", "--delete"]).expect(0);
    assert_same_tree(&source, &sandbox.path("out"));
}

#[test]
fn a_state_folder_in_use_by_another_process_keeps_nobody_waiting() {
    let (sandbox, source) = with_history();
    // A process that hangs while it has the index open: a reader whose output nobody takes.
    let mut holder = Running::start(sandbox.command().args(["restore", "latest", "--tar", "-"]));
    holder.wait_for_output();
    let start = Instant::now();
    sandbox.run(["verify", "--data"]).expect(0);
    fs::write(source.join("c"), b"meanwhile").unwrap();
    sandbox.snapshot(&source);
    sandbox.run(["restore", "latest", "--to", "out"]).expect(0);
    assert_same_tree(&source, &sandbox.path("out"));
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(!holder.is_over());
    drop(holder);
    works(&sandbox, &source, "used by another");
}

#[test]
fn a_state_folder_that_is_scribbled_over_is_made_anew() {
    let (sandbox, source) = with_history();
    let files = files_below(&sandbox.state);
    assert!(files.len() > 3, "{files:?}");
    for (number, (file, len)) in files.iter().enumerate() {
        copy(&sandbox.state, &sandbox.path("good-state"));
        set_mode(file, 0o600);
        for bytes in [noise(*len as usize, number as u64), vec![], fs::read(file).unwrap()[..*len as usize / 2].to_vec()] {
            // An earlier pass may have made the state folder anew, without this file.
            if fs::write(file, bytes).is_err() {
                continue;
            }
            sandbox.run(["snapshot", "./data"]).expect(0);
            sandbox.run(["verify"]).expect(0);
            sandbox.run(["restore", "latest", "--to", "out", "--yes", "--delete"]).expect(0);
            assert_same_tree(&source, &sandbox.path("out"));
        }
        copy(&sandbox.path("good-state"), &sandbox.state);
    }
    for (file, len) in files_below(&sandbox.state) {
        set_mode(&file, 0o600);
        fs::write(&file, noise(len as usize, 99)).unwrap();
    }
    works(&sandbox, &source, "all of it");
    // A file where the folder should be is told about, or worked around.
    fs::remove_dir_all(&sandbox.state).unwrap();
    fs::write(&sandbox.state, b"in the way").unwrap();
    sandbox.run(["stats"]).expect(1).says(&[sandbox.state.to_str().unwrap()]);
}

#[test]
fn two_prunes_and_two_inits_do_not_meet() {
    let sandbox = Sandbox::without_repository();
    let inits: Vec<Running> = (0..3).map(|_| Running::start(sandbox.command().arg("init"))).collect();
    let codes: Vec<i32> = inits.into_iter().map(|running| running.end().code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|code| [0, 1, 12].contains(code)), "{codes:?}");
    let source = sandbox.source("data", &[("a", &noise(1 << 20, 1))]);
    let shown = source.to_str().unwrap();
    for _ in 0..3 {
        sandbox.snapshot(&source);
        sandbox.run(["forget", "./data", "--yes", "--whole-source", shown]).expect(0);
        let prunes: Vec<Running> = (0..3).map(|_| Running::start(sandbox.command().args(["prune", "--yes"]))).collect();
        let codes: Vec<i32> = prunes.into_iter().map(|running| running.end().code).collect();
        assert!(codes.iter().all(|code| [0, 12].contains(code)), "{codes:?}");
        sandbox.run(["verify", "--data"]).expect(0);
    }
    // Several snapshots of one source at once have different places in its history.
    let takers: Vec<Running> = (0..4).map(|_| Running::start(sandbox.command().args(["snapshot", "./data"]))).collect();
    takers.into_iter().for_each(|running| drop(running.end().expect(0)));
    wait_until("all four", || ids(&sandbox).len() == 4);
    sandbox.run(["verify", "--data"]).expect(0);
    sandbox.run(["restore", "latest", "--to", "out"]).expect(0);
    assert_same_tree(&source, &sandbox.path("out"));
}
