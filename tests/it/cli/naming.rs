//! How people name snapshots: ids and their beginnings, `latest`, a source, SOURCE@TIME, `--at`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::program::{Sandbox, run};

/// Apart by so much, two snapshots can be told by an age in whole seconds, also on a busy machine.
const APART: Duration = Duration::from_secs(6);

fn time(snapshot: &Value) -> Timestamp {
    snapshot["time"].as_str().unwrap().parse().unwrap()
}

fn id(snapshot: &Value) -> &str {
    snapshot["id"].as_str().unwrap()
}

#[test]
fn a_snapshot_is_found_by_every_spelling_of_it() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("version", b"1")]);
    let shown = source.to_str().unwrap();
    let first = sandbox.snapshot(&source);
    let start = Instant::now();
    sandbox.snapshot(&sandbox.source("other", &[("version", b"other")]));
    fs::write(source.join("version"), b"2").unwrap();
    std::thread::sleep(APART.saturating_sub(start.elapsed()));
    let second = sandbox.snapshot(&source);

    let version = |snapshot: &str| sandbox.run(["cat", snapshot, "version"]).expect(0).text();
    assert_eq!(version(id(&first)), "1");
    assert_eq!(version(&id(&first)[..8]), "1");
    assert_eq!(version(&id(&first)[..8].to_uppercase()), "1");
    assert_eq!(version("latest"), "2");
    for spelling in [shown, "./data", "path:./data", &format!("path:{shown}"), &format!("{shown}/../data/")] {
        assert_eq!(version(spelling), "2", "{spelling}");
        assert_eq!(version(&format!("{spelling}@latest")), "2", "{spelling}");
    }

    // As a listing shows them: RFC 3339 in JSON, local time to the second in the table.
    let (early, late) = (time(&first), time(&second));
    let table = sandbox.run(["snapshots"]).expect(0).text();
    let local = |moment: Timestamp| moment.strftime("%Y-%m-%d %H:%M:%S").to_string();
    assert!(table.contains(&local(early)) && table.contains(&local(late)), "{table}");
    let between = early + SignedDuration::from_secs(3);
    let age = |moment: Timestamp| Timestamp::now().as_second() - moment.as_second();
    for at in [
        early.to_string(),
        local(early),
        early.strftime("%H:%M:%S").to_string(),
        between.to_string(),
        between.strftime("%Y-%m-%dT%H:%M:%S+00:00").to_string(),
    ] {
        assert_eq!(version(&format!("{shown}@{at}")), "1", "{at}");
        let listed = sandbox.json(0, ["snapshots", shown, "--at", &at]);
        assert_eq!((listed[0]["id"].as_str(), listed.as_array().unwrap().len()), (Some(id(&first)), 1), "{at}");
        let planned = sandbox.json(0, ["restore", shown, "--at", &at, "--dry-run"]);
        assert_eq!(planned["snapshot"], first["id"], "{at}");
    }
    // Ages count from when the command runs, so each is made just before.
    assert_eq!(version(&format!("{shown}@{}s", age(between))), "1");
    assert_eq!(version(&format!("{shown}@{} seconds ago", age(between))), "1");
    assert_eq!(sandbox.json(0, ["restore", shown, "--at", &format!("{} sec", age(between)), "--dry-run"])["snapshot"], first["id"]);
    for at in [late.to_string(), local(late), "0s".to_owned(), "latest".to_owned(), "2200-01-01 00:00".to_owned()] {
        assert_eq!(version(&format!("{shown}@{at}")), "2", "{at}");
    }
    for at in ["yesterday 14:00", "3 days ago", "2001-01-01 00:00", "90m"] {
        sandbox.run(["cat", &format!("{shown}@{at}"), "version"]).expect(1).says(&[
            "no snapshot that old",
            "the oldest is",
            &id(&first)[..10],
        ]);
        assert_eq!(sandbox.json(0, ["snapshots", "--at", at]), Value::Array(vec![]));
    }
    for at in ["tomorrow", "25:00", "2026-13-01", "soon", ""] {
        sandbox.run(["cat", &format!("{shown}@{at}"), "version"]).expect(2).says(&["not a time", "90m"]);
        sandbox.run(["snapshots", "--at", at]).expect(2).says(&["not a time"]);
    }
    // A snapshot has one time; asking for another is a contradiction.
    sandbox.run(["restore", &id(&first)[..8], "--at", "latest", "--dry-run"]).expect(1);

    let of_zone = |zone: &str| run(sandbox.command().env("TZ", zone).arg("snapshots")).expect(0).text();
    assert!(of_zone("Asia/Tokyo").contains(&(early + SignedDuration::from_hours(9)).strftime("%Y-%m-%d %H:%M:%S").to_string()));

    for wrong in ["data", "ab", "0000000000000000", "./absent", "/absent@latest", "volume:data", "LATEST"] {
        sandbox.run(["ls", wrong]).expect(1).says(&["no snapshot or source of this name", "icecore snapshots"]);
    }
}

#[test]
fn an_ambiguous_beginning_of_an_id_lists_the_candidates() {
    let sandbox = Sandbox::new();
    // Ids are random: among enough of them two share their first four digits.
    let mut named: HashMap<String, Vec<String>> = HashMap::new();
    let mut made = 0;
    let (prefix, ids) = loop {
        let batch: Vec<String> = (made..made + 150).map(|number| format!("./source{number}")).collect();
        batch.iter().for_each(|name| fs::create_dir(sandbox.path(name)).unwrap());
        made += batch.len();
        assert!(made < 2000, "ids are not random");
        let taken = sandbox.json(0, ["snapshot".to_owned(), "-q".to_owned()].into_iter().chain(batch));
        for snapshot in taken["snapshots"].as_array().unwrap() {
            named.entry(id(snapshot)[..4].to_owned()).or_default().push(id(snapshot).to_owned());
        }
        if let Some((prefix, ids)) = named.iter().find(|(_, ids)| ids.len() > 1) {
            break (prefix.clone(), ids.clone());
        }
    };
    let refused = sandbox.run(["ls", &prefix]).expect(2).says(&["snapshots begin with this", "more digits"]);
    for id in &ids {
        assert!(refused.stderr.contains(&id[..8]), "{}", refused.transcript());
        sandbox.run(["ls", id]).expect(0);
    }
    sandbox.run(["forget", &prefix, "--yes"]).expect(2);
    assert_eq!(sandbox.json(0, ["snapshots"]).as_array().unwrap().len(), made);
    sandbox.run(["verify"]).expect(0);
}

#[test]
fn forgetting_never_takes_the_last_snapshot_without_its_name() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[("a", b"1")]);
    let shown = source.to_str().unwrap();
    let ids: Vec<String> = (0..4).map(|_| id(&sandbox.snapshot(&source)).to_owned()).collect();
    let count = || sandbox.json(0, ["snapshots"]).as_array().unwrap().len();

    sandbox.run(["forget", &ids[0][..10]]).expect(2).says(&["--yes"]);
    sandbox.run(["forget", "--keep-last", "1"]).expect(2).says(&["--yes"]);
    sandbox.run(["forget", "--keep-tag", "nobody-has-this", "--yes"]).expect(0);
    let left = sandbox.json(0, ["snapshots"]);
    assert_eq!((left.as_array().unwrap().len(), id(&left[0])), (1, ids[3].as_str()), "a policy that keeps nothing keeps the newest");
    for arguments in [&["forget", "latest", "--yes"][..], &["forget", shown, "--yes"], &["forget", shown, "--yes", "--whole-source", "x"]] {
        sandbox.run(arguments).expect(2).says(&["every snapshot of a source", "--whole-source"]);
    }
    sandbox.run(["forget", &ids[0][..10], "--yes"]).expect(1);
    assert_eq!(count(), 1);
    sandbox.run(["forget", shown, "--yes", "--whole-source", shown]).expect(0);
    assert_eq!(count(), 0);
    sandbox.run(["prune", "--yes"]).expect(0);
    assert_eq!((sandbox.pack_bytes(), sandbox.json(0, ["stats"])["chunks"].as_u64()), (0, Some(0)));
    sandbox.run(["verify", "--data"]).expect(0);
    sandbox.snapshot(&source);
    sandbox.run(["verify", "--data"]).expect(0);
}

#[test]
fn prune_asks_and_honours_its_limit() {
    let sandbox = Sandbox::new();
    let (a, b) = (
        sandbox.source("a", &[("f", &crate::program::noise(3 << 20, 1))]),
        sandbox.source("b", &[("f", &crate::program::noise(1 << 20, 2))]),
    );
    sandbox.snapshot(&a);
    sandbox.snapshot(&b);
    sandbox.run(["forget", "./a", "--yes", "--whole-source", a.to_str().unwrap()]).expect(0);
    let before = sandbox.packs();
    sandbox.run(["prune"]).expect(2).says(&["--yes", "frees"]);
    sandbox.run(["prune", "--yes", "--free-max", "50"]).expect(2).says(&["more than the 50 %", "--free-max"]);
    let planned = sandbox.json(0, ["prune", "--dry-run"]);
    assert_eq!(sandbox.packs(), before);
    let pruned = sandbox.json(0, ["prune", "--yes", "--free-max", "90"]);
    assert_eq!((&pruned["packs_removed"], &pruned["bytes_after"]), (&planned["packs_removed"], &planned["bytes_after"]));
    assert!(pruned["packs_removed"].as_u64().unwrap() > 0 && sandbox.pack_bytes() < 2 << 20, "{pruned}");
    assert_eq!(pruned["bytes_after"].as_u64(), Some(sandbox.pack_bytes()));
    sandbox.run(["verify", "--data"]).expect(0);
    sandbox.run(["restore", "./b", "--to", "out"]).expect(0);
}
