//! What scripts rely on: the fields of every JSON document, one document on standard output whatever happens, and which
//! stream carries what.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::program::{Sandbox, icecore, run};

/// Wants these fields, each of the type that its letter says: s(tring), S(tring or null), n(umber), b(ool), l(ist), o(bject).
#[track_caller]
fn has(document: &Value, fields: &[&str]) {
    for field in fields {
        let (name, kind) = field.split_once(':').unwrap();
        let value = document.get(name).unwrap_or_else(|| panic!("no field {name} in {document:#}"));
        let fits = match kind {
            "s" => value.is_string(),
            "S" => value.is_string() || value.is_null(),
            "n" => value.is_number(),
            "b" => value.is_boolean(),
            "l" => value.is_array(),
            _ => value.is_object(),
        };
        assert!(fits, "{field} is {value}");
    }
}

const SNAPSHOT: &[&str] = &[
    "id:s",
    "source:s",
    "run:s",
    "time:s",
    "consistency:s",
    "frozen_ms:n",
    "files:n",
    "bytes:n",
    "new_bytes:n",
    "stored_bytes:n",
    "seconds:n",
    "warnings:l",
    "kind:s",
    "host:s",
    "sequence:n",
    "directories:n",
    "partial:b",
    "unreadable:n",
    "changed:n",
    "tags:l",
    "parent:S",
    "program:s",
];

#[test]
fn every_verb_s_document_has_the_fields_of_the_contract() {
    let sandbox = Sandbox::without_repository();
    let source = sandbox.source("data", &[("a", b"first"), ("sub/b", &[7; 100_000])]);
    let source = source.to_str().unwrap();
    has(&sandbox.json(0, ["init"]), &["repository:s", "location:s", "encryption:s"]);

    let taken = sandbox.json(0, ["snapshot", source, "--tag", "x"]);
    has(&taken, &["run:s", "dry_run:b", "snapshots:l", "failed:l"]);
    let first = &taken["snapshots"][0];
    has(first, SNAPSHOT);
    assert_eq!((first["source"].as_str(), first["files"].as_u64(), first["bytes"].as_u64()), (Some(source), Some(2), Some(100_005)));
    assert_eq!((first["run"].clone(), first["tags"][0].as_str(), first["sequence"].as_u64()), (taken["run"].clone(), Some("x"), Some(1)));
    assert!(first["stored_bytes"].as_u64().unwrap() > 0 && first["new_bytes"].as_u64().unwrap() >= 100_000, "{first}");

    fs::write(format!("{source}/a"), b"second").unwrap();
    let second = sandbox.json(0, ["snapshot", source])["snapshots"][0].clone();
    assert_eq!((&second["parent"], second["sequence"].as_u64()), (&first["id"], Some(2)));
    let dry = sandbox.json(0, ["snapshot", source, "--dry-run"]);
    assert!(dry["dry_run"] == true && dry["snapshots"][0]["id"].is_null(), "{dry}");

    let listed = sandbox.json(0, ["snapshots"]);
    assert_eq!(listed.as_array().unwrap().len(), 2);
    for (fact, listed) in [first, &second].iter().zip(listed.as_array().unwrap()) {
        has(listed, SNAPSHOT);
        for field in ["id", "source", "run", "time", "consistency", "files", "bytes", "new_bytes", "stored_bytes", "tags", "parent"] {
            assert_eq!(fact[field], listed[field], "{field}");
        }
    }

    let entries = sandbox.json(0, ["ls", "latest", "-r"]);
    has(&entries, &["snapshot:s", "source:s", "entries:l"]);
    let paths: Vec<&str> = entries["entries"].as_array().unwrap().iter().map(|entry| entry["path"].as_str().unwrap()).collect();
    assert_eq!(paths, ["a", "sub", "sub/b"]);
    has(&entries["entries"][2], &["path:s", "kind:s", "mode:s", "uid:n", "gid:n", "size:n", "mtime:s"]);

    let (old, new) = (first["id"].as_str().unwrap(), second["id"].as_str().unwrap());
    let diff = sandbox.json(0, ["diff", old, new]);
    has(&diff, &["old:s", "new:s", "changes:l", "counts:o"]);
    has(&diff["counts"], &["added:n", "removed:n", "content:n", "metadata:n", "kind:n"]);
    assert_eq!((diff["changes"][0]["path"].as_str(), diff["changes"][0]["change"].as_str()), (Some("a"), Some("content")), "{diff}");

    let stats = sandbox.json(0, ["stats"]);
    has(&stats, &["snapshots:n", "chunks:n", "raw_bytes:n", "stored_bytes:n", "packs:n", "index_bytes:n"]);
    assert_eq!((stats["snapshots"].as_u64(), stats["stored_bytes"].as_u64()), (Some(2), Some(sandbox.pack_bytes())));

    for arguments in [&["verify"][..], &["verify", "--data"], &["verify", "--source", source]] {
        let verified = sandbox.json(0, arguments);
        has(&verified, &["snapshots:n", "packs:n", "blobs:n", "bytes:n", "damaged:l", "healed:l", "affected:l", "seconds:n"]);
        has(&verified, &["depth:s", "proved:o", "proved_before:o", "never_proved:o", "oldest_proof:S"]);
        has(&verified["proved"], &["packs:n", "bytes:n"]);
        assert_eq!(verified["snapshots"], 2);
    }
    let deep = sandbox.json(0, ["verify", "--data=deep", "--older-than", "1d"]);
    assert_eq!((&deep["proved"]["packs"], &deep["proved"]["bytes"]), (&stats["packs"], &stats["stored_bytes"]), "a scrub is no opening");
    let again = sandbox.json(0, ["verify", "--data", "--older-than", "1d", "--sample", "50%"]);
    assert_eq!((&again["proved"]["packs"], &again["proved_before"]), (&serde_json::json!(0), &deep["proved"]), "but the reverse");
    sandbox.run(["verify", "--data", "--sample", "0"]).expect(2).says(&["percentage"]);

    let planned = sandbox.json(0, ["restore", source, "--dry-run"]);
    has(&planned, &["snapshot:s", "source:s", "time:s", "dry_run:b", "files:n", "directories:n", "bytes:n"]);
    let restored = sandbox.json(0, ["restore", source, "--to", "out"]);
    has(&restored, &["snapshot:s", "source:s", "time:s", "dry_run:b", "destination:s", "files:n", "directories:n", "bytes:n"]);
    has(&restored, &["written_bytes:n", "kept_bytes:n", "removed:n", "warnings:l", "seconds:n"]);

    let planned = sandbox.json(0, ["forget", "--keep-last", "1", "--dry-run"]);
    has(&planned, &["dry_run:b", "forgotten:n", "kept:n", "snapshots:l"]);
    has(&planned["snapshots"][0], &["id:s", "source:s", "time:s", "keep:b", "reasons:l"]);
    assert_eq!(sandbox.json(0, ["snapshots"]).as_array().unwrap().len(), 2, "a dry run forgets nothing");
    let forgotten = sandbox.json(0, ["forget", "--keep-last", "1", "--yes"]);
    assert_eq!((forgotten["forgotten"].as_u64(), forgotten["kept"].as_u64()), (Some(1), Some(1)));
    assert_eq!(sandbox.json(0, ["snapshots"])[0]["id"], second["id"]);
    for arguments in [&["prune", "--dry-run"][..], &["prune", "--yes"]] {
        let pruned = sandbox.json(0, arguments);
        has(&pruned, &["dry_run:b", "packs:n", "packs_removed:n", "packs_rewritten:n", "bytes_before:n", "bytes_after:n"]);
        has(&pruned, &["bytes_rewritten:n", "snapshots_dropped:n", "seconds:n"]);
    }

    has(&sandbox.json(0, ["key", "list"])["keys"][0], &["id:s", "kind:s", "label:s", "created:s", "current:b"]);
    has(&sandbox.json(0, ["reindex"]), &["packs:n", "chunks:n", "snapshots:n", "problems:l"]);
    let doctor = run(sandbox.command().args(["--json", "doctor"])).json();
    has(&doctor, &["healthy:b", "findings:l"]);
    has(&doctor["findings"][0], &["level:s", "check:s", "message:s", "advice:S"]);
    assert_eq!(sandbox.json(0, ["verify", "--data"])["damaged"].as_array().unwrap().len(), 0);
}

#[test]
fn a_failure_is_one_document_too_and_words_on_standard_error() {
    let sandbox = Sandbox::new();
    for (code, kind, arguments) in [
        (1, "not_found", &["snapshot", "/no/such/folder"][..]),
        (1, "not_found", &["ls", "latest"]),
        (2, "usage", &["restore", "x"]),
        (2, "usage", &["no-such-verb"]),
        (2, "unsupported", &["--repo", "s3://bucket/x", "stats"]),
        (10, "no_repository", &["--repo", "/no/such/repository", "stats"]),
    ] {
        let ran = run(sandbox.command().arg("--json").args(arguments)).expect(code);
        let error = &ran.json()["error"];
        has(error, &["kind:s", "message:s"]);
        assert_eq!(error["kind"], kind, "{arguments:?}");
        assert!(!ran.stderr.is_empty(), "{arguments:?}");
        let plain = run(sandbox.command().args(arguments)).expect(code);
        assert!(plain.stdout.is_empty() && !plain.stderr.is_empty(), "{}", plain.transcript());
    }
    run(sandbox.command().env("ICECORE_PASSWORD", "wrong").args(["--json", "stats"])).expect(11);
    run(sandbox.command().args(["--json", "cat", "latest", "x"])).expect(2).says(&["cat prints the file itself"]);
}

#[test]
fn results_and_nothing_else_go_to_standard_output() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("a", b"first")]);
    let source = source.to_str().unwrap();
    let taken = run(sandbox.command().env("ICECORE_PROGRESS_SECONDS", "0").args(["-vv", "snapshot", source])).expect(0);
    assert_eq!(taken.text().lines().count(), 1, "{}", taken.transcript());
    let quiet = sandbox.run(["-q", "snapshot", source]).expect(0);
    assert!(quiet.stderr.is_empty() && quiet.text().lines().count() == 1, "{}", quiet.transcript());
    let archive = sandbox.run(["restore", source, "--tar", "-"]).expect(0);
    assert!(archive.stdout.len().is_multiple_of(512) && archive.stdout[257..262] == *b"ustar", "nothing but the archive");
    let cat = sandbox.run(["cat", "latest", "a"]).expect(0);
    assert_eq!((cat.stdout.as_slice(), cat.stderr.as_str()), (b"first".as_slice(), ""));
}

#[test]
fn a_reader_who_leaves_ends_a_listing_quietly() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[]);
    for number in 0..3000 {
        fs::write(source.join(format!("a-rather-long-name-that-fills-the-pipe-soon-{number:080}")), b"").unwrap();
    }
    fs::write(source.join("big"), vec![1; 4 << 20]).unwrap();
    sandbox.snapshot(&source);
    for arguments in [&["ls", "latest"][..], &["--json", "ls", "latest"], &["cat", "latest", "big"]] {
        let mut child = sandbox.command().args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ran = crate::program::Ran::of(format!("{arguments:?}"), child.wait_with_output().unwrap()).expect(0);
        assert_eq!(ran.stderr, "", "{arguments:?}");
    }
}

#[test]
fn help_completions_and_manual_need_no_repository() {
    let sandbox = Sandbox::without_repository();
    for verb in ["init", "snapshot", "restore", "verify", "forget", "prune", "key", "doctor"] {
        assert!(sandbox.run([verb, "--help"]).expect(0).text().contains("Usage"), "{verb}");
        assert!(sandbox.run(["help"]).expect(0).text().contains(verb), "{verb}");
    }
    assert!(sandbox.run(["--version"]).expect(0).text().contains(env!("CARGO_PKG_VERSION")));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(sandbox.run(["completions", shell]).expect(0).text().contains("icecore"), "{shell}");
    }
    let script = sandbox.path("completion");
    fs::write(&script, sandbox.run(["completions", "bash"]).expect(0).stdout).unwrap();
    run(Command::new("bash").arg("-n").arg(&script)).expect(0);
    assert!(sandbox.run(["man"]).expect(0).text().contains(".TH"));
    fs::create_dir(sandbox.path("man")).unwrap();
    sandbox.run(["man", "man"]).expect(0);
    assert!(sandbox.path("man/icecore-snapshot.1").exists());
    sandbox.run(["man", "no-such-folder"]).expect(1).says(&["no-such-folder"]);
    run(&mut icecore()).expect(2);
    assert!(!sandbox.repo.exists() && !sandbox.state.exists());
}
