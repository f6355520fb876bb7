//! Keys of a repository: passphrases, key files, and none.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::process::Command;

use crate::program::{PASSWORD, Ran, Sandbox, run};

/// Runs without the sandbox's own passphrase.
fn keyless(sandbox: &Sandbox) -> Command {
    let mut command = sandbox.command();
    command.env_remove("ICECORE_PASSWORD");
    command
}

fn with_file(sandbox: &Sandbox, file: &str, arguments: &[&str]) -> Ran {
    run(keyless(sandbox).args(["--password-file", file]).args(arguments))
}

#[test]
fn each_of_several_keys_opens_and_a_removed_one_does_not() {
    let sandbox = Sandbox::without_repository();
    fs::write(sandbox.path("first"), "first passphrase\n").unwrap();
    fs::write(sandbox.path("second"), "second passphrase").unwrap();
    fs::write(sandbox.path("key"), [7; 32]).unwrap();
    fs::write(sandbox.path("other"), [8; 32]).unwrap();
    with_file(&sandbox, "first", &["init", "--label", "laptop"]).expect(0).says(&["safe place"]);
    with_file(&sandbox, "second", &["stats"]).expect(11);
    with_file(&sandbox, "first", &["key", "add", "--new-password-file", "second", "--label", "safe"]).expect(0);
    run(keyless(&sandbox).args(["--password-command", "cat second", "key", "add", "--new-key-file", "key"])).expect(0);

    run(keyless(&sandbox).env("ICECORE_PASSWORD", "second passphrase").arg("stats")).expect(0);
    run(keyless(&sandbox).env("ICECORE_PASSWORD_FILE", "first").arg("stats")).expect(0);
    run(keyless(&sandbox).env("ICECORE_KEY_FILE", "key").arg("stats")).expect(0);
    run(keyless(&sandbox).args(["--key-file", "key", "stats"])).expect(0);
    run(keyless(&sandbox).args(["--key-file", "other", "stats"])).expect(11);
    run(keyless(&sandbox).args(["--key-file", "absent", "stats"])).expect(2).says(&["absent"]);
    run(keyless(&sandbox).args(["--key-file", "first", "stats"])).expect(2).says(&["at least 32 bytes"]);
    run(keyless(&sandbox).args(["--password-file", "absent", "stats"])).expect(2).says(&["absent"]);
    run(keyless(&sandbox).args(["--password-command", "false", "stats"])).expect(2).says(&["--password-command"]);
    run(keyless(&sandbox).args(["--password-file", "first", "--key-file", "key", "stats"])).expect(2);

    let keys = with_file(&sandbox, "second", &["--json", "key", "list"]).expect(0).json()["keys"].clone();
    let of = |label: &str| keys.as_array().unwrap().iter().find(|key| key["label"] == label).unwrap();
    assert_eq!(
        (of("laptop")["kind"].as_str(), of("safe")["kind"].as_str(), of("")["kind"].as_str()),
        (Some("passphrase"), Some("passphrase"), Some("file"))
    );
    assert!(of("safe")["current"] == true && of("laptop")["current"] == false);
    let (laptop, safe, file) = (of("laptop")["id"].as_str().unwrap(), of("safe")["id"].as_str().unwrap(), of("")["id"].as_str().unwrap());

    with_file(&sandbox, "second", &["key", "remove", laptop]).expect(2).says(&["--yes"]);
    with_file(&sandbox, "second", &["key", "remove", safe, "--yes"]).expect(2).says(&["this very slot"]);
    with_file(&sandbox, "second", &["key", "remove", "zz", "--yes"]).expect(2).says(&["no key slot has this id"]);
    with_file(&sandbox, "second", &["key", "remove", "", "--yes"]).expect(2);
    with_file(&sandbox, "second", &["key", "remove", laptop, "--yes"]).expect(0);
    with_file(&sandbox, "first", &["stats"]).expect(11);
    with_file(&sandbox, "second", &["key", "remove", &file[..6], "--yes"]).expect(0);
    run(keyless(&sandbox).args(["--key-file", "key", "stats"])).expect(11);
    with_file(&sandbox, "second", &["key", "remove", safe, "--yes"]).expect(2).says(&["last key slot"]);
    with_file(&sandbox, "second", &["stats"]).expect(0);
}

#[test]
fn a_damaged_slot_costs_that_slot_only() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("second"), "second").unwrap();
    let id = sandbox.json(0, ["key", "list"])["keys"][0]["id"].as_str().unwrap().to_owned();
    sandbox.run(["key", "add", "--new-password-file", "second"]).expect(0);
    let slot = sandbox.repo.join("keys").join(id);
    crate::program::set_mode(&slot, 0o600);
    fs::write(&slot, b"scribbled over").unwrap();
    sandbox.run(["stats"]).expect(11).says(&["key slot is damaged"]);
    with_file(&sandbox, "second", &["stats"]).expect(0);
    fs::remove_dir_all(sandbox.repo.join("keys")).unwrap();
    sandbox.run(["stats"]).expect(11);
}

#[test]
fn a_repository_without_encryption_needs_no_key_and_says_so() {
    let sandbox = Sandbox::without_repository();
    let bare = |arguments: &[&str]| run(keyless(&sandbox).args(arguments));
    bare(&["init"]).expect(2).says(&["passphrase"]);
    assert_eq!(bare(&["--json", "init", "--no-encryption"]).expect(0).json()["encryption"], "none");
    let source = sandbox.source("data", &[("a", b"plain")]);
    bare(&["snapshot", source.to_str().unwrap()]).expect(0);
    assert_eq!(bare(&["cat", "latest", "a"]).expect(0).stdout, b"plain");
    bare(&["verify", "--data"]).expect(0);
    bare(&["key", "list"]).expect(0);
    bare(&["key", "add", "--new-password-file", "data/a"]).expect(2).says(&["not encrypted"]);
    assert!(bare(&["doctor"]).text().contains("not encrypted"));
    // Who gives a passphrase expects encryption, and may face a repository whose config was swapped.
    sandbox.run(["snapshot", "./data"]).expect(11).says(&["not encrypted", "config"]);
    bare(&["--key-file", "data/a", "stats"]).expect(11);
}

#[test]
fn nothing_of_an_encrypted_repository_is_in_the_clear() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("name-in-clear", &[("file-in-clear", b"content-in-clear ".repeat(1000).as_slice())]);
    let source = source.to_str().unwrap();
    sandbox.run(["snapshot", source, "--tag", "tag-in-clear"]).expect(0);
    for (path, _) in crate::program::files_below(&sandbox.repo) {
        let bytes = fs::read(&path).unwrap();
        let found = |words: &[u8]| bytes.windows(words.len()).any(|window| window == words);
        assert!(!found(b"in-clear") && !found(PASSWORD.as_bytes()), "{}", path.display());
    }
}
