//! Bad input and bad luck: each ends with a clear message, the right code, and a repository that is as good as before.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::chown;

use icecore::clock::Timestamp;
use icecore::model::RepositoryId;
use icecore::repo::Config;
use icecore::seal::{Keys, Suite};

use crate::program::{Mounted, NOBODY, Sandbox, assert_same_tree, files_below, is_root, noise, run, set_mode};

fn config(format: u32, read_feature: Option<&str>, prune_feature: Option<&str>) -> Vec<u8> {
    let repository = RepositoryId([9; 16]);
    let keys = Keys::public(&repository);
    let features = |feature: Option<&str>| feature.iter().map(|name| (*name).to_owned()).collect();
    let config = Config {
        format,
        repository,
        created: Timestamp::new(0, 0),
        suite: Suite::Checksum.number(),
        read_features: features(read_feature),
        write_features: vec![],
        prune_features: features(prune_feature),
        verify_features: vec![],
        put_if_absent: true,
        data_pack_bytes: 32 << 20,
        tree_pack_bytes: 8 << 20,
    };
    config.encode(&keys).unwrap()
}

#[test]
fn a_config_that_is_broken_newer_or_another_s_is_refused_by_name() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("a", b"x")]);
    sandbox.snapshot(&source);
    let path = sandbox.repo.join("config");
    let good = fs::read(&path).unwrap();
    set_mode(&path, 0o600);
    let mut flipped = good.clone();
    flipped[20] ^= 1;
    for (bytes, code, words) in [
        (good[..good.len() / 2].to_vec(), 4, "config is damaged"),
        (vec![], 4, "config is damaged"),
        (flipped, 4, "config is damaged"),
        (vec![0; 1 << 20], 4, "config"),
        (config(2, None, None), 2, "format 2"),
        (config(1, Some("quantum"), None), 2, "quantum"),
    ] {
        fs::write(&path, &bytes).unwrap();
        for arguments in
            [&["snapshots"][..], &["snapshot", "./data"], &["verify"], &["prune", "--yes"], &["restore", "latest", "--to", "out"]]
        {
            sandbox.run(arguments).expect(code).says(&[words, "hint"]);
        }
    }
    // Whoever can write to the storage swapped the config, so that the next snapshot would be stored in the clear.
    fs::write(&path, config(1, None, None)).unwrap();
    let before = files_below(&sandbox.repo);
    for arguments in [&["snapshot", "./data"][..], &["snapshots"], &["restore", "latest", "--to", "out"]] {
        sandbox.run(arguments).expect(11).says(&["not encrypted", "replaced"]);
    }
    assert_eq!(files_below(&sandbox.repo), before);
    fs::write(&path, &good).unwrap();
    sandbox.run(["verify", "--data"]).expect(0);
    assert_eq!(sandbox.json(0, ["snapshots"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_feature_is_refused_only_for_what_needs_it() {
    let sandbox = Sandbox::without_repository();
    let bare = |arguments: &[&str]| run(sandbox.command().env_remove("ICECORE_PASSWORD").args(arguments));
    bare(&["init", "--no-encryption"]).expect(0);
    sandbox.source("data", &[("a", b"x")]);
    let path = sandbox.repo.join("config");
    set_mode(&path, 0o600);
    fs::write(&path, config(1, None, Some("holds"))).unwrap();
    bare(&["snapshot", "./data"]).expect(0);
    bare(&["restore", "latest", "--to", "out"]).expect(0);
    bare(&["verify", "--data"]).expect(0);
    bare(&["prune", "--yes"]).expect(2).says(&["holds", "newer icecore"]);
}

#[test]
fn init_leaves_what_is_there_alone() {
    let sandbox = Sandbox::new();
    let before = files_below(&sandbox.repo);
    sandbox.run(["init"]).expect(1).says(&["already"]);
    assert_eq!(files_below(&sandbox.repo), before);
    // A repository that lost its config is no place for a new one.
    sandbox.snapshot(&sandbox.source("data", &[("a", &noise(1000, 1))]));
    fs::rename(sandbox.repo.join("config"), sandbox.path("config")).unwrap();
    sandbox.run(["init"]).expect(1).says(&["no config", "copy"]);
    fs::rename(sandbox.path("config"), sandbox.repo.join("config")).unwrap();
    sandbox.run(["verify", "--data"]).expect(0);

    fs::write(sandbox.path("file"), b"precious").unwrap();
    let ran = sandbox.run(["--repo", "file", "init"]);
    assert!(ran.code == 1 || ran.code == 10, "{}", ran.transcript());
    assert_eq!(fs::read(sandbox.path("file")).unwrap(), b"precious");
    sandbox.source("photos", &[("precious.jpg", b"precious")]);
    let ran = sandbox.run(["--repo", "photos", "init"]);
    assert_eq!(fs::read(sandbox.path("photos/precious.jpg")).unwrap(), b"precious", "{}", ran.transcript());
}

#[test]
fn a_full_disk_commits_nothing_and_freeing_space_is_all_it_takes() {
    if !is_root("a_full_disk_commits_nothing_and_freeing_space_is_all_it_takes") {
        return;
    }
    let sandbox = Sandbox::without_repository();
    let _disk = Mounted::memory(&sandbox.repo, 200);
    sandbox.run(["init"]).expect(0);
    let small = sandbox.source("small", &[("a", b"committed before")]);
    sandbox.snapshot(&small);
    fs::write(sandbox.repo.join("ballast"), vec![0; 150 << 20]).unwrap();
    let source = sandbox.source("data", &[("a", &noise(60 << 20, 1)), ("b", &noise(40 << 20, 2))]);
    let ran = run(sandbox.command().args(["--json", "snapshot", "./data"])).expect(1).says(&["space", "hint"]);
    assert_eq!(ran.json()["error"]["kind"], "storage");
    // What is there still works on the full disk.
    assert_eq!(sandbox.json(0, ["snapshots"]).as_array().unwrap().len(), 1);
    sandbox.run(["verify", "--data"]).expect(0);
    sandbox.run(["restore", "./small", "--to", "small-out"]).expect(0);
    sandbox.run(["doctor"]).expect(1);

    fs::remove_file(sandbox.repo.join("ballast")).unwrap();
    sandbox.snapshot(&source);
    sandbox.run(["verify", "--data"]).expect(0);
    sandbox.run(["restore", "./data", "--to", "out"]).expect(0);
    assert_same_tree(&source, &sandbox.path("out"));
    sandbox.run(["prune", "--yes"]).expect(0);
    assert!(sandbox.pack_bytes() < 102 << 20, "what the failed run left is used or gone: {}", sandbox.pack_bytes());
}

#[test]
fn a_full_target_says_what_is_missing_and_the_restore_goes_on_later() {
    if !is_root("a_full_target_says_what_is_missing_and_the_restore_goes_on_later") {
        return;
    }
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("a", &noise(12 << 20, 1)), ("b", &noise(12 << 20, 2))]);
    sandbox.snapshot(&source);
    let disk = Mounted::memory(&sandbox.path("out"), 40);
    fs::write(sandbox.path("out/ballast"), vec![0; 24 << 20]).unwrap();
    sandbox.run(["restore", "latest", "--to", "out", "--yes"]).expect(1).says(&["space", "make room"]);
    fs::remove_file(sandbox.path("out/ballast")).unwrap();
    let again = sandbox.json(0, ["restore", "latest", "--to", "out", "--yes", "--delete"]);
    assert!(again["written_bytes"].as_u64().unwrap() <= 24 << 20, "{again}");
    assert_same_tree(&source, &sandbox.path("out"));
    drop(disk);
}

#[test]
fn a_read_only_repository_is_good_for_everything_that_only_reads() {
    if !is_root("a_read_only_repository_is_good_for_everything_that_only_reads") {
        return;
    }
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("a", &noise(100_000, 1)), ("b", b"x")]);
    let shown = source.to_str().unwrap();
    sandbox.snapshot(&source);
    let frozen = sandbox.path("frozen");
    let _view = Mounted::read_only(&sandbox.repo, &frozen);
    let before = files_below(&sandbox.repo);
    for state in ["state", "fresh-state"] {
        let read = |arguments: &[&str]| run(sandbox.command().args(["--repo", "frozen", "--state-dir", state]).args(arguments));
        read(&["snapshots"]).expect(0);
        read(&["ls", "latest"]).expect(0);
        read(&["cat", "latest", "b"]).expect(0);
        read(&["diff", "latest", "latest"]).expect(0);
        read(&["stats"]).expect(0);
        read(&["verify", "--data"]).expect(0);
        read(&["key", "list"]).expect(0);
        read(&["reindex"]).expect(0);
        read(&["restore", "latest", "--to", &format!("out-{state}")]).expect(0);
        assert_same_tree(&source, &sandbox.path(&format!("out-{state}")));
        read(&["snapshot", shown]).expect(1).says(&["ead-only"]);
        read(&["forget", "latest", "--yes", "--whole-source", shown]).expect(1).says(&["ead-only"]);
        read(&["prune", "--yes"]).expect(1).says(&["ead-only"]);
        read(&["doctor"]).expect(1);
    }
    assert_eq!(files_below(&sandbox.repo), before);
}

#[test]
fn somebody_who_may_only_read_the_repository_can_restore() {
    if !is_root("somebody_who_may_only_read_the_repository_can_restore") {
        return;
    }
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("a", &noise(100_000, 1))]);
    for (path, _) in files_below(&source) {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    chown(&source, Some(NOBODY), Some(NOBODY)).unwrap();
    sandbox.snapshot(&source);
    run(std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(&sandbox.repo)).expect(0);
    let place = sandbox.source("place", &[]);
    chown(&place, Some(NOBODY), Some(NOBODY)).unwrap();
    let user = |arguments: &[&str]| run(sandbox.command_as_nobody().args(["--state-dir", "place/state"]).args(arguments));
    user(&["restore", "latest", "--to", "place/out"]).expect(0);
    assert_same_tree(&source, &sandbox.path("place/out"));
    user(&["verify", "--data"]).expect(0);
    user(&["snapshot", "./data"]).expect(1).says(&["ermission denied"]);
    user(&["prune", "--yes"]).expect(1).says(&["ermission denied"]);
    // Without a place for the index there is a message that says which folder is meant.
    run(sandbox.command_as_nobody().args(["--state-dir", "state", "stats"])).expect(1).says(&["state", "--state-dir"]);
}

#[test]
fn names_from_outside_cannot_steer_the_terminal() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("da\x1b[31mta\n", &[("a\x1b]0;owned\x07", b"x"), ("line\nbreak", b"y")]);
    sandbox
        .run([std::ffi::OsStr::new("snapshot"), source.as_os_str(), std::ffi::OsStr::new("--tag"), std::ffi::OsStr::new("t\x1b")])
        .expect(0);
    for arguments in [
        &["snapshots"][..],
        &["ls", "latest"],
        &["ls", "latest", "-l"],
        &["cat", "latest", "\x1b"],
        &["stats"],
        &["forget", "--keep-last", "1", "--dry-run"],
    ] {
        let ran = sandbox.run(arguments);
        let all = [ran.stdout.as_slice(), ran.stderr.as_bytes()].concat();
        assert!(!all.contains(&0x1b) && !all.contains(&7), "{}", ran.transcript());
    }
    assert_eq!(sandbox.run(["ls", "latest"]).text().lines().count(), 2);
}
