//! The index on this host: lost, filled anew at any size, and kept within its memory.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::program::{Running, Sandbox, assert_same_tree, noise, run};

/// Enough for an index that is filled at once; fewer chunks are inserted one by one.
const FILES: u64 = 17_000;

fn sizes(sandbox: &Sandbox) -> (Value, Value, Value) {
    let stats = sandbox.json(0, ["stats"]);
    (stats["chunks"].clone(), stats["packs"].clone(), stats["stored_bytes"].clone())
}

#[test]
fn a_large_index_comes_back_from_the_journals_and_from_the_packs() {
    let sandbox = Sandbox::new();
    let source = sandbox.source("data", &[]);
    for n in 0..FILES {
        let folder = source.join(format!("{}", n / 500));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(n.to_string()), noise(600, n)).unwrap();
    }
    sandbox.snapshot(&source);
    let before = sizes(&sandbox);
    assert!(before.0.as_u64().unwrap() > FILES);

    fs::remove_dir_all(&sandbox.state).unwrap();
    assert_eq!(sizes(&sandbox), before, "from the journals");
    for memory in ["16", "300"] {
        let report = sandbox.json(0, ["reindex", "--index-memory", memory]);
        assert_eq!((report["chunks"].clone(), report["packs"].clone()), (before.0.clone(), before.1.clone()));
        assert_eq!(report["problems"], Value::Array(vec![]));
    }
    // Killed at any moment: the next command finds an index that is whole, or makes a new one.
    for milliseconds in [10, 40, 80, 150, 250] {
        let running = Running::start(sandbox.command().arg("reindex"));
        std::thread::sleep(Duration::from_millis(milliseconds));
        running.signal(Signal::KILL);
        let _ = running.end();
        assert_eq!(sizes(&sandbox), before, "killed after {milliseconds} ms");
    }
    let again = sandbox.snapshot(&source);
    assert_eq!(again["new_bytes"], 0, "every chunk is known");
    run(sandbox.command().env("ICECORE_INDEX_MEMORY", "16").args(["verify", "--data"])).expect(0);
    sandbox.run(["restore", "latest", "--to", "out"]).expect(0);
    assert_same_tree(&source, &sandbox.path("out"));
}

#[test]
fn memory_that_is_no_memory_is_refused_in_words() {
    let sandbox = Sandbox::new();
    sandbox.run(["stats", "--index-memory", "8"]).expect(2).says(&["--index-memory", "16"]);
    let refused = run(sandbox.command().env("ICECORE_INDEX_MEMORY", "lots").arg("stats")).expect(2);
    refused.says(&["ICECORE_INDEX_MEMORY", "from 16 to"]);
    fs::write(sandbox.path("c.toml"), "index_memory = 4\n").unwrap();
    sandbox.run(["stats", "--config", "c.toml"]).expect(2).says(&["index_memory", "line 1"]);
    fs::write(sandbox.path("c.toml"), "index_memory = 32\n").unwrap();
    sandbox.run(["stats", "--config", "c.toml"]).expect(0);
}
