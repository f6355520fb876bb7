//! Volumes of a real container engine. Everything that is made has a name of its own and is removed again, also when a
//! test fails. Where there is no engine, or no root, the tests say so and do nothing.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::cell::RefCell;
use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::program::{Ran, Sandbox, assert_same_tree, is_root, noise, run, wait_until};

/// The test's own corner of the engine.
struct Corner {
    prefix: String,
    images: RefCell<Vec<String>>,
}

fn docker(arguments: &[&str]) -> Ran {
    run(Command::new("docker").args(arguments))
}

impl Corner {
    /// None, said loudly, where there is nothing to test with.
    fn new(test: &str) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !is_root(test) {
            return None;
        }
        let reachable = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
        if !reachable.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED {test}: no container engine answers");
            return None;
        }
        let prefix = format!("icecore-it-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::SeqCst));
        Some(Self { prefix, images: RefCell::default() })
    }

    fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    /// Makes a volume and returns its name and its folder on this host.
    fn volume(&self, what: &str, options: &[&str]) -> (String, PathBuf) {
        let name = self.name(what);
        docker(&[&["volume", "create"], options, &[&name]].concat()).expect(0);
        let folder = docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &name]).expect(0).text();
        (name, folder.trim().into())
    }

    fn has_volume(&self, name: &str) -> bool {
        docker(&["volume", "inspect", name]).code == 0
    }

    /// An image with a shell, made of this host's own files: no registry is needed.
    fn image(&self) -> String {
        let name = self.name("image");
        let archive = tempfile::NamedTempFile::new().unwrap();
        let shell = fs::canonicalize("/bin/sh").unwrap();
        let sleep = fs::canonicalize("/bin/sleep").unwrap();
        let mv = fs::canonicalize("/bin/mv").unwrap();
        let libraries = run(Command::new("ldd").args([&shell, &sleep, &mv])).expect(0).text();
        let mut files: Vec<&str> = libraries.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')).collect();
        files.extend(["/bin/sh", "/bin/sleep", "/bin/mv"]);
        files.sort_unstable();
        files.dedup();
        run(Command::new("tar").args(["--dereference", "-cPf"]).arg(archive.path()).args(files)).expect(0);
        self.images.borrow_mut().push(name.clone());
        docker(&["import", archive.path().to_str().unwrap(), &name]).expect(0);
        name
    }

    fn container(&self, what: &str, arguments: &[&str], command: &str) -> String {
        let name = self.name(what);
        let known = self.images.borrow().first().cloned();
        let image = known.unwrap_or_else(|| self.image());
        docker(&[&["run", "--detach", "--network", "none", "--name", &name], arguments, &[&image, "/bin/sh", "-c", command]].concat())
            .expect(0);
        name
    }
}

impl Drop for Corner {
    fn drop(&mut self) {
        let filter = format!("name={}-", self.prefix);
        for (list, remove) in
            [(&["ps", "--all", "--quiet"][..], &["rm", "--force"][..]), (&["volume", "ls", "--quiet"], &["volume", "rm", "--force"])]
        {
            let Ok(found) = Command::new("docker").args(list).args(["--filter", &filter]).output() else { continue };
            for id in String::from_utf8_lossy(&found.stdout).split_whitespace() {
                let _ = Command::new("docker").args(remove).arg(id).output();
            }
        }
        for image in self.images.borrow().iter() {
            let _ = Command::new("docker").args(["image", "rm", "--force", image]).output();
        }
    }
}

fn fill(folder: &Path) {
    fs::write(folder.join("table"), noise(300_000, 1)).unwrap();
    fs::create_dir(folder.join("sub")).unwrap();
    fs::write(folder.join("sub/small"), b"small").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("link")).unwrap();
    chown(folder.join("table"), Some(999), Some(999)).unwrap();
    chown(folder, Some(999), Some(999)).unwrap();
    crate::program::set_mode(folder, 0o700);
}

#[test]
fn a_volume_is_captured_listed_and_comes_back_under_another_name() {
    let Some(corner) = Corner::new("a_volume_is_captured_listed_and_comes_back_under_another_name") else { return };
    let sandbox = Sandbox::new();
    let labels = ["--label", "mine=\u{1b}[31m", "--label", "com.docker.compose.project=shop", "--label", "com.docker.compose.volume=db"];
    let (name, folder) = corner.volume("db", &labels);
    fill(&folder);

    let taken = sandbox.json(0, ["snapshot", &name])["snapshots"][0].clone();
    assert_eq!((taken["source"].as_str(), taken["kind"].as_str()), (Some(name.as_str()), Some("volume")));
    assert_eq!((taken["consistency"].as_str(), taken["files"].as_u64()), (Some("stopped"), Some(3)), "{taken:#}");
    assert_eq!(taken["warnings"], json!([]));
    let facts = &sandbox.json(0, ["snapshots", &name])[0]["volume"];
    assert_eq!((facts["driver"].as_str(), facts["users"].as_array().map(Vec::len)), (Some("local"), Some(0)), "{facts:#}");
    assert!(facts["labels"].as_array().unwrap().contains(&json!(["com.docker.compose.project", "shop"])), "{facts:#}");

    let volumes = sandbox.json(0, ["volumes"]);
    let listed = |name: &str| volumes["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == name).unwrap().clone();
    let own = listed(&name);
    assert_eq!((&own["last_snapshot"]["id"], own["project"].as_str(), own["writers"].as_u64()), (&taken["id"], Some("shop"), Some(0)));
    let table = sandbox.run(["volumes"]).expect(0).text();
    assert!(table.contains(&name) && !table.contains('\u{1b}'), "{table}");

    let copy = corner.name("copy");
    let restored = sandbox.json(0, ["restore", &name, "--as", &copy]);
    assert_eq!(restored["warnings"], json!([]), "{restored:#}");
    let inspected = docker(&["volume", "inspect", &copy]).expect(0).json()[0].clone();
    assert_eq!(inspected["Labels"], json!({"mine": "\u{1b}[31m"}), "its own labels, but no part of the project");
    assert_eq!(inspected["Driver"], "local");
    assert_same_tree(&folder, Path::new(inspected["Mountpoint"].as_str().unwrap()));

    // Names that are taken, illegal, or say nothing.
    sandbox.run(["restore", &name, "--as", &copy]).expect(1).says(&["volume of that name already", "another name"]);
    sandbox.run(["restore", &name, "--as", &copy, "--yes"]).expect(1).says(&["volume of that name already", "another name"]);
    sandbox.run(["restore", &name, "--as", "../../etc"]).expect(2).says(&["volume name"]);
    assert_same_tree(&folder, Path::new(inspected["Mountpoint"].as_str().unwrap()));

    // The volume itself is gone: under its old name it has all its labels back.
    docker(&["volume", "rm", &name]).expect(0);
    sandbox.run(["snapshot", &name]).expect(1).says(&[&name]);
    sandbox.run(["restore", &name, "--as", &name]).expect(0);
    let inspected = docker(&["volume", "inspect", &name]).expect(0).json()[0].clone();
    assert_eq!(inspected["Labels"]["com.docker.compose.project"], "shop");
    assert_eq!(fs::read(folder.join("sub/small")).unwrap(), b"small");
    sandbox.run(["restore", &name, "--path", "sub", "--to", "out"]).expect(0);
    assert!(sandbox.path("out/sub/small").exists());
}

#[test]
fn a_volume_that_is_not_there_is_not_made() {
    let Some(corner) = Corner::new("a_volume_that_is_not_there_is_not_made") else { return };
    let sandbox = Sandbox::new();
    let absent = corner.name("absent");
    for arguments in [&["snapshot", &absent][..], &["snapshot", &format!("volume:{absent}")], &["snapshot", &absent, "--dry-run"]] {
        sandbox.run(arguments).expect(1).says(&[&absent, "icecore volumes"]);
    }
    sandbox.run(["restore", &absent, "--as", &corner.name("copy")]).expect(1);
    // What fails half way leaves no volume behind.
    let (name, folder) = corner.volume("db", &[]);
    fill(&folder);
    sandbox.run(["snapshot", &name]).expect(0);
    sandbox.run(["restore", &name, "--as", &corner.name("copy"), "--path", "absent"]).expect(1);
    for (pack, _) in sandbox.packs() {
        fs::rename(&pack, pack.with_extension("away")).unwrap();
    }
    sandbox.run(["restore", &name, "--as", &corner.name("copy")]).expect(4);
    for name in [absent, corner.name("copy")] {
        assert!(!corner.has_volume(&name), "{name}");
    }
    sandbox.run(["--docker-host", "unix:///no/such.sock", "snapshot", &name]).expect(1).says(&["no/such.sock", "hint"]);
    sandbox.run(["--docker-host", "unix:///no/such.sock", "volumes"]).expect(1);
}

#[test]
fn volumes_with_a_device_are_refused_with_advice_and_without_their_passwords() {
    let Some(corner) = Corner::new("volumes_with_a_device_are_refused_with_advice_and_without_their_passwords") else { return };
    let sandbox = Sandbox::new();
    let elsewhere = sandbox.source("elsewhere", &[("file", b"x")]);
    let device = format!("device={}", elsewhere.display());
    let bind = corner.volume("bind", &["--opt", "type=none", "--opt", "o=bind", "--opt", &device]).0;
    let cifs =
        corner.volume("cifs", &["--opt", "type=cifs", "--opt", "o=username=u,password=hunter2", "--opt", "device=//u:hunter2@nas/share"]).0;
    let memory = corner.volume("memory", &["--opt", "type=tmpfs", "--opt", "device=tmpfs"]).0;
    for (name, words) in [(&bind, elsewhere.to_str().unwrap()), (&cifs, "mount"), (&memory, "memory")] {
        let ran = sandbox.run(["-vv", "snapshot", name]).expect(2).says(&[words, "hint"]);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.transcript());
        let ran = run(sandbox.command().args(["--json", "snapshot", name])).expect(2);
        assert!(!ran.text().contains("hunter2"), "{}", ran.transcript());
    }
    for arguments in [&["volumes"][..], &["--json", "volumes"]] {
        let ran = sandbox.run(arguments).expect(0);
        assert!(ran.text().contains(&cifs) && !ran.text().contains("hunter2") && !ran.stderr.contains("hunter2"), "{}", ran.transcript());
    }
    assert_eq!(sandbox.json(0, ["snapshots"]), json!([]));
}

/// Writes a number to a file of one volume, then to one of the other, over and over: of one moment, the first is the
/// second or one ahead.
const PAIR: &str = "n=0; while :; do n=$((n+1)); echo $n > /a/.n; mv /a/.n /a/n; echo $n > /b/.n; mv /b/.n /b/n; sleep 0.005; done";

fn number(folder: &Path) -> i64 {
    fs::read_to_string(folder.join("n")).unwrap().trim().parse().unwrap()
}

#[test]
fn volumes_with_a_running_writer_are_frozen_together_and_go_on() {
    let Some(corner) = Corner::new("volumes_with_a_running_writer_are_frozen_together_and_go_on") else { return };
    let sandbox = Sandbox::new();
    let (a, folder) = corner.volume("a", &[]);
    let (b, other) = corner.volume("b", &[]);
    let mounts = [format!("{a}:/a"), format!("{b}:/b")];
    let writer = corner.container("writer", &["-v", &mounts[0], "-v", &mounts[1]], PAIR);
    wait_until("the writer's first numbers", || other.join("n").exists() && folder.join("n").exists());
    let state = |name: &str| docker(&["inspect", "-f", "{{.State.Status}}", name]).expect(0).text().trim().to_owned();
    for round in 0..6 {
        let taken = sandbox.json(0, ["snapshot", &a, &b]);
        assert_eq!(state(&writer), "running");
        let run = &taken["snapshots"][0]["run"];
        for snapshot in taken["snapshots"].as_array().unwrap() {
            assert_eq!((snapshot["consistency"].as_str(), &snapshot["run"]), (Some("frozen"), run), "{snapshot:#}");
            let frozen = snapshot["frozen_ms"].as_u64().unwrap();
            assert!((1..5_000).contains(&frozen), "{frozen} ms");
            assert_eq!(snapshot["warnings"], json!([]));
        }
        let outs = [sandbox.path(&format!("a{round}")), sandbox.path(&format!("b{round}"))];
        for (name, out) in [&a, &b].into_iter().zip(&outs) {
            sandbox.run(["restore", name, "--to", out.to_str().unwrap()]).expect(0);
        }
        let (first, second) = (number(&outs[0]), number(&outs[1]));
        assert!(first == second || first == second + 1, "round {round}: {first} and {second} are not of one moment");
    }
    let before = number(&folder);
    wait_until("the writer goes on", || number(&folder) > before + 5);
    let user: Value = sandbox.json(0, ["snapshots", &a])[0]["volume"]["users"][0].clone();
    assert_eq!((user["container"].as_str(), user["destination"].as_str()), (Some(writer.as_str()), Some("/a")), "{user}");
    let listed = sandbox.json(0, ["volumes"]);
    let own = listed["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == a.as_str()).unwrap().clone();
    assert_eq!((own["writers"].as_u64(), own["last_snapshot"]["consistency"].as_str()), (Some(1), Some("frozen")));
    sandbox.run(["verify", "--data"]).expect(0);

    // Stopped and started again, when that is asked for; read while it is written only by name.
    let started = |name: &str| docker(&["inspect", "-f", "{{.State.StartedAt}}", name]).expect(0).text().trim().to_owned();
    let at = started(&writer);
    let stopped = sandbox.json(0, ["snapshot", &a, &b, "--consistency", "stopped"]);
    assert_eq!(stopped["snapshots"][0]["consistency"], "stopped");
    assert!(state(&writer) == "running" && started(&writer) != at);
    let fuzzy = run(sandbox.command().args(["--json", "snapshot", &a, "--consistency", "fuzzy"]));
    assert!([0, 3].contains(&fuzzy.code), "{}", fuzzy.transcript());
    assert_eq!(fuzzy.says(&["fuzzy", &writer]).json()["snapshots"][0]["consistency"], "fuzzy");

    // Paused by somebody else, it stays so.
    docker(&["pause", &writer]).expect(0);
    assert_eq!(sandbox.json(0, ["snapshot", &a, &b])["snapshots"][0]["consistency"], "frozen");
    assert_eq!(state(&writer), "paused");
    docker(&["unpause", &writer]).expect(0);

    // A reader beside a stopped writer leaves it still.
    docker(&["rm", "--force", &writer]).expect(0);
    corner.container("reader", &["-v", &format!("{a}:/data:ro")], "sleep 600");
    let still = sandbox.json(0, ["snapshot", &a])["snapshots"][0].clone();
    assert_eq!((still["consistency"].as_str(), &still["warnings"]), (Some("stopped"), &json!([])));
    sandbox.run(["restore", &a, "--to", "out"]).expect(0);
    assert_same_tree(&folder, &sandbox.path("out"));
}

#[test]
fn after_a_kill_at_any_moment_the_next_command_thaws_what_was_frozen() {
    let Some(corner) = Corner::new("after_a_kill_at_any_moment_the_next_command_thaws_what_was_frozen") else { return };
    let sandbox = Sandbox::new();
    let (a, folder) = corner.volume("a", &[]);
    let (b, _) = corner.volume("b", &[]);
    fs::write(folder.join("large"), noise(40 << 20, 1)).unwrap();
    let mounts = [format!("{a}:/a"), format!("{b}:/b")];
    let writer = corner.container("writer", &["-v", &mounts[0], "-v", &mounts[1]], PAIR);
    wait_until("the writer's first number", || folder.join("n").exists());
    sandbox.json(0, ["snapshot", &a, &b]);
    let (mut killed, mut found) = (0, 0);
    for delay in 0..40 {
        fs::write(folder.join("large"), noise(40 << 20, delay)).unwrap();
        let mut child = sandbox.command().args(["snapshot", &a, &b]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Every other one is killed as soon as it has noted whom it is about to freeze, or a little later.
        let holds = sandbox.state.join("holds");
        let is_noted = || fs::read_dir(&holds).is_ok_and(|mut entries| entries.next().is_some());
        if delay % 2 == 0 {
            while !is_noted() && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(delay * 3));
        } else {
            std::thread::sleep(Duration::from_millis(60 + delay * 17));
        }
        killed += u32::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
        let paused = || docker(&["inspect", "-f", "{{.State.Paused}}", &writer]).expect(0).text().trim() == "true";
        found += u32::from(paused());
        sandbox.run(["snapshots"]).expect(0);
        assert!(!paused(), "after {delay}");
        assert_eq!(fs::read_dir(sandbox.state.join("holds")).map_or(0, Iterator::count), 0);
    }
    eprintln!("killed {killed} captures, {found} of them while the writer was frozen");
    assert!(killed > 10 && found > 0, "{killed} {found}");
    sandbox.run(["verify", "--data"]).expect(0);
    let last = sandbox.json(0, ["snapshot", &a, &b]);
    assert_eq!(last["snapshots"].as_array().unwrap().len(), 2);
}

#[test]
fn a_repository_without_encryption_takes_volumes_too() {
    let Some(corner) = Corner::new("a_repository_without_encryption_takes_volumes_too") else { return };
    let sandbox = Sandbox::without_repository();
    let bare = |arguments: &[&str]| run(sandbox.command().env_remove("ICECORE_PASSWORD").args(arguments));
    bare(&["init", "--no-encryption"]).expect(0);
    let (name, folder) = corner.volume("db", &["--label", "note=plain"]);
    fs::write(folder.join("file"), b"x").unwrap();
    bare(&["snapshot", &name]).expect(0);
    bare(&["restore", &name, "--as", &corner.name("copy")]).expect(0);
    assert_eq!(docker(&["volume", "inspect", &corner.name("copy")]).expect(0).json()[0]["Labels"]["note"], "plain");
}
