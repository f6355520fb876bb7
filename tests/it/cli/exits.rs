//! Each exit code, provoked for real, and what the repository is like afterwards.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, chown};
use std::path::Path;

use rustix::process::Signal;

use crate::program::{NOBODY, Running, Sandbox, files_below, is_root, noise, run, set_mode, wait_until};

#[test]
fn one_when_nothing_could_be_done_and_two_when_the_request_makes_no_sense() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("a", b"x")]);
    sandbox.run(["snapshot", "./absent"]).expect(1).says(&["no such directory", "absent"]);
    sandbox.run(["snapshot", "./data/a"]).expect(2).says(&["not a directory", "data/a"]);
    sandbox.run(["init"]).expect(1).says(&["already"]);
    sandbox.snapshot(&source);
    sandbox.run(["cat", "latest", "absent"]).expect(1).says(&["absent"]);
    sandbox.run(["restore", "latest", "--to", "out", "--path", "absent"]).expect(1).says(&["absent"]);
    assert!(!sandbox.path("out").exists(), "nothing is made for what cannot be restored");
    for arguments in [&["snapshot"][..], &["restore", "latest"], &["forget"], &["snapshot", "./data", "--compression", "99"]] {
        sandbox.run(arguments).expect(2);
    }
    // A misspelt source does not leave half a run behind.
    sandbox.run(["snapshot", "./data", "./absent"]).expect(1);
    assert_eq!(sandbox.json(0, ["snapshots"]).as_array().unwrap().len(), 1);
}

#[test]
fn three_when_an_ordinary_user_may_not_read_everything() {
    if !is_root("three_when_an_ordinary_user_may_not_read_everything") {
        return;
    }
    let sandbox = Sandbox::without_repository();
    let source = sandbox.source("data", &[("readable", b"yes"), ("secret", b"no"), ("closed/inside", b"no"), ("listed/only", b"no")]);
    set_mode(&source.join("secret"), 0o600);
    set_mode(&source.join("closed"), 0o700);
    set_mode(&source.join("listed"), 0o744);
    for made in [&sandbox.repo, &sandbox.state] {
        fs::create_dir(made).unwrap();
        chown(made, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    sandbox.run_as_nobody(["init"]).expect(0);
    let ran = run(sandbox.command_as_nobody().args(["--json", "snapshot", "./data"])).expect(3).says(&["secret", "closed"]);
    let snapshot = &ran.json()["snapshots"][0];
    assert!(snapshot["partial"] == true && snapshot["unreadable"].as_u64().unwrap() >= 3, "{snapshot}");
    for name in ["secret", "closed", "listed/only"] {
        let named = snapshot["warnings"].as_array().unwrap().iter().any(|warning| warning["path"] == name);
        assert!(named, "{name} in {snapshot:#}");
    }
    let listed = run(sandbox.command_as_nobody().args(["--json", "snapshots"])).expect(0).json();
    assert_eq!(listed[0]["warnings"], snapshot["warnings"], "what is missing is in the record, too");
    // Exit code 3 of `restore`, as an ordinary user cannot give files away; the contents come all the same.
    set_mode(sandbox.path("").as_path(), 0o777);
    let ran =
        run(sandbox.command_as_nobody().args(["--json", "restore", "latest", "--to", "out"])).expect(3).says(&["partial", "readable"]);
    let warnings = ran.json()["warnings"].clone();
    assert!(warnings.as_array().unwrap().iter().any(|w| w["path"] == "readable" && w["message"].as_str().unwrap().contains("owner")));
    assert_eq!(fs::read(sandbox.path("out/readable")).unwrap(), b"yes");
    let doctor = run(sandbox.command_as_nobody().args(["--json", "doctor"])).expect(1).json();
    assert!(doctor["findings"].as_array().unwrap().iter().any(|f| f["check"] == "snapshots" && f["level"] == "problem"), "{doctor:#}");
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn four_when_a_byte_of_a_pack_is_wrong() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("big", &noise(300_000, 1)), ("small", b"small")]);
    sandbox.snapshot(&source);
    let (pack, len) = sandbox.packs().into_iter().max_by_key(|(_, len)| *len).unwrap();
    set_mode(&pack, 0o600);
    flip(&pack, len / 3);
    let verified = sandbox.json(4, ["verify", "--data"]);
    assert!(!verified["damaged"].as_array().unwrap().is_empty() && !verified["affected"].as_array().unwrap().is_empty());
    let affected = &verified["affected"][0];
    assert!(affected["path"] == "big" && affected["source"] == source.to_str().unwrap(), "{verified:#}");
    sandbox.run(["verify", "--data"]).expect(4);
    sandbox.run(["cat", "latest", "big"]).expect(4).says(&["damage"]);
    // A restore brings back what is whole and names what is not.
    let ran = sandbox.run(["restore", "latest", "--to", "out"]);
    assert!([3, 4].contains(&ran.code) && ran.stderr.contains("big"), "{}", ran.transcript());
    assert_eq!(fs::read(sandbox.path("out/small")).unwrap(), b"small");
    flip(&pack, len / 3);
    sandbox.run(["verify", "--data"]).expect(0);
}

#[test]
fn four_when_a_snapshot_s_entry_or_a_whole_pack_is_gone() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("big", &noise(300_000, 1))]);
    sandbox.snapshot(&source);
    for (pack, _) in sandbox.packs() {
        fs::rename(&pack, pack.with_extension("away")).unwrap();
        sandbox.run(["verify"]).expect(4);
        sandbox.run(["prune", "--yes"]).expect(4).says(&["refuses"]);
        fs::rename(pack.with_extension("away"), &pack).unwrap();
    }
    sandbox.run(["verify", "--data"]).expect(0);
    let entries = files_below(&sandbox.repo.join("log"));
    let (entry, len) = entries.iter().max_by_key(|(_, len)| *len).unwrap();
    set_mode(entry, 0o600);
    flip(entry, len - 1);
    // A command that starts from nothing reads the entry again.
    fs::remove_dir_all(&sandbox.state).unwrap();
    let listed = sandbox.run(["snapshots"]).expect(4).says(&["log/"]);
    assert!(listed.stderr.contains("warning"), "{}", listed.transcript());
    sandbox.run(["verify"]).expect(4);
    flip(entry, len - 1);
    fs::remove_dir_all(&sandbox.state).unwrap();
    sandbox.run(["verify", "--data"]).expect(0);
}

#[test]
fn ten_and_eleven_without_a_repository_or_its_key() {
    let sandbox = Sandbox::without_repository();
    let verbs: [&[&str]; 12] = [
        &["snapshot", "."],
        &["snapshots"],
        &["restore", "latest", "--to", "out"],
        &["ls", "latest"],
        &["cat", "latest", "x"],
        &["diff", "a", "b"],
        &["stats"],
        &["verify"],
        &["forget", "--keep-last", "1"],
        &["prune"],
        &["key", "list"],
        &["reindex"],
    ];
    for verb in verbs {
        sandbox.run(verb).expect(10).says(&["no repository", "icecore init"]);
    }
    fs::create_dir(&sandbox.repo).unwrap();
    for verb in verbs {
        sandbox.run(verb).expect(10).says(&["no repository", "icecore init"]);
    }
    assert_eq!(files_below(&sandbox.repo), [], "looking for a repository makes none");
    sandbox.run(["init"]).expect(0);
    let before = files_below(&sandbox.repo);
    for verb in verbs {
        run(sandbox.command().env("ICECORE_PASSWORD", "wrong").args(verb)).expect(11).says(&["no key slot opens", "check the passphrase"]);
    }
    assert_eq!(files_below(&sandbox.repo), before);
    run(sandbox.command().env_remove("ICECORE_PASSWORD").arg("stats")).expect(2).says(&["--password-file"]);
}

#[test]
fn twelve_while_a_reader_or_a_writer_is_at_work() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("a", &noise(64 << 20, 3))]);
    let gone = sandbox.source("gone", &[("b", &noise(1 << 20, 4))]);
    sandbox.snapshot(&gone);
    sandbox.run(["forget", "latest", "--yes", "--whole-source", gone.to_str().unwrap()]).expect(0);

    // A writer that hangs with its first packs published.
    let mut writer = Running::start(sandbox.command().args(["snapshot", "./data"]));
    let before = sandbox.packs().len();
    wait_until("a pack", || sandbox.packs().len() > before || writer.is_over());
    writer.signal(Signal::STOP);
    assert!(!writer.is_over(), "the snapshot was over before it could be held");
    let refused = sandbox.run(["prune", "--yes"]).expect(12).says(&["another icecore process", "again"]);
    assert!(refused.stdout.is_empty());
    // Nobody else waits for it.
    sandbox.run(["snapshot", "./gone"]).expect(0);
    sandbox.run(["verify", "--data"]).expect(0);
    writer.signal(Signal::CONT);
    writer.end().expect(0);

    // A reader whose output nobody takes.
    let mut reader = Running::start(sandbox.command().args(["restore", source.to_str().unwrap(), "--tar", "-"]));
    reader.wait_for_output();
    sandbox.run(["prune", "--yes"]).expect(12);
    assert_eq!(reader.end().expect(0).stdout.len() % 512, 511, "all of the archive but the byte that was waited for");

    sandbox.run(["prune", "--yes"]).expect(0);
    sandbox.run(["verify", "--data"]).expect(0);
}

#[test]
fn a_hundred_and_thirty_when_interrupted_and_what_was_packed_is_not_packed_again() {
    let sandbox = Sandbox::new();
    let (len, files) = (24 << 20, 6);
    let source = sandbox.source("data", &[]);
    for number in 0..files {
        fs::write(source.join(format!("file{number}")), noise(len, number)).unwrap();
    }
    let whole = len as u64 * files;
    for signal in [Signal::INT, Signal::TERM] {
        let before = sandbox.packs().len();
        let mut running = Running::start(sandbox.command().args(["--json", "snapshot", "./data"]));
        wait_until("a pack", || sandbox.packs().len() > before || running.is_over());
        running.signal(Signal::STOP);
        assert!(!running.is_over(), "the snapshot was over before it could be interrupted");
        running.signal(signal);
        running.signal(Signal::CONT);
        let ran = running.end().expect(130).says(&["interrupted", "run the command again"]);
        assert_eq!(ran.json()["error"]["kind"], "interrupted");
        assert_eq!(sandbox.json(0, ["snapshots"]).as_array().unwrap().len(), 0, "nothing was committed");
    }
    let (packed, packs) = (sandbox.pack_bytes(), sandbox.packs().len());
    assert!(packed > 32 << 20 && packs > 1, "{packed} bytes in {packs} packs");

    let snapshot = sandbox.snapshot(&source);
    let stored = snapshot["stored_bytes"].as_u64().unwrap();
    assert!(stored + packed < whole + (4 << 20), "{stored} stored after {packed}, of {whole}");
    assert_eq!(sandbox.pack_bytes(), sandbox.json(0, ["stats"])["stored_bytes"].as_u64().unwrap());
    assert!(sandbox.pack_bytes() < whole + (4 << 20), "nothing is there twice");
    sandbox.run(["verify", "--data"]).expect(0);
    sandbox.run(["restore", "latest", "--to", "out"]).expect(0);
    for number in 0..files {
        assert!(fs::read(sandbox.path(&format!("out/file{number}"))).unwrap() == noise(len, number), "file{number}");
    }
    sandbox.run(["prune", "--yes"]).expect(0);
    sandbox.run(["verify", "--data"]).expect(0);
}
