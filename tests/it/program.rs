//! Runs the real program as people and scripts do: arguments in; exit code, output and files back.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) const PASSWORD: &str = "correct horse";
/// Nobody: the ordinary user of these tests.
pub(crate) const NOBODY: u32 = 65534;
/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The program without any setting of the caller's environment. `ICECORE_TEST_PROGRAM` names another build of it.
pub(crate) fn icecore() -> Command {
    let program = std::env::var_os("ICECORE_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_icecore").into());
    clean(Command::new(program))
}

/// As [`icecore`], run by an ordinary user. Only root can do that.
pub(crate) fn icecore_as_nobody() -> Command {
    let program = icecore().get_program().to_owned();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(program);
    clean(command)
}

fn clean(mut command: Command) -> Command {
    for (name, _) in std::env::vars_os() {
        if name.as_bytes().starts_with(b"ICECORE_") || name.as_bytes().starts_with(b"XDG_") {
            command.env_remove(name);
        }
    }
    command.env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// A repository, a state folder and a place for sources and targets, removed at the end.
pub(crate) struct Sandbox {
    dir: TempDir,
    /// The repository, which is made by [`Sandbox::new`].
    pub(crate) repo: PathBuf,
    /// What `--state-dir` is.
    pub(crate) state: PathBuf,
}

impl Sandbox {
    /// With an encrypted repository.
    pub(crate) fn new() -> Self {
        let sandbox = Self::without_repository();
        sandbox.run(["init"]).expect(0);
        sandbox
    }

    pub(crate) fn without_repository() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Root's temporary folder is closed to others, of whom some tests have one.
        set_mode(dir.path(), 0o755);
        Self { repo: dir.path().join("repo"), state: dir.path().join("state"), dir }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// A directory of this name with these files.
    pub(crate) fn source(&self, name: &str, files: &[(&str, &[u8])]) -> PathBuf {
        let dir = self.path(name);
        for (file, content) in files {
            let path = dir.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    pub(crate) fn command(&self) -> Command {
        self.set_up(icecore())
    }

    pub(crate) fn command_as_nobody(&self) -> Command {
        self.set_up(icecore_as_nobody())
    }

    fn set_up(&self, mut command: Command) -> Command {
        command.env("ICECORE_REPO", &self.repo).env("ICECORE_STATE_DIR", &self.state).env("ICECORE_PASSWORD", PASSWORD);
        command.env("HOME", self.dir.path()).current_dir(self.dir.path());
        command
    }

    pub(crate) fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Ran {
        run(self.command().args(arguments))
    }

    pub(crate) fn run_as_nobody<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, arguments: I) -> Ran {
        run(self.command_as_nobody().args(arguments))
    }

    /// Runs with `--json`, wants this exit code and returns the document.
    pub(crate) fn json<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(&self, code: i32, arguments: I) -> Value {
        run(self.command().arg("--json").args(arguments)).expect(code).json()
    }

    /// Takes a snapshot that must succeed and returns its fact.
    pub(crate) fn snapshot(&self, source: &Path) -> Value {
        let document = self.json(0, [OsStr::new("snapshot"), source.as_os_str()]);
        document["snapshots"][0].clone()
    }

    /// All packs and their lengths.
    pub(crate) fn packs(&self) -> Vec<(PathBuf, u64)> {
        files_below(&self.repo.join("packs"))
    }

    pub(crate) fn pack_bytes(&self) -> u64 {
        self.packs().iter().map(|(_, len)| len).sum()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // The library's own removal needs an open file for each level, of which some tests have thousands.
        let _ = Command::new("rm").args(["-rf", "--one-file-system"]).arg(self.dir.path()).status();
    }
}

/// Files below a folder, which need not exist, with their lengths. Files may come and go meanwhile.
pub(crate) fn files_below(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => folders.push(entry.path()),
                Ok(meta) if meta.is_file() => found.push((entry.path(), meta.len())),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// A command that ended.
pub(crate) struct Ran {
    what: String,
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    Ran::of(format!("{command:?}"), output)
}

impl Ran {
    pub(crate) fn of(what: String, output: Output) -> Self {
        let code = output.status.code().or(output.status.signal().map(|signal| -signal)).unwrap();
        Self { what, code, stdout: output.stdout, stderr: String::from_utf8_lossy(&output.stderr).into_owned() }
    }

    /// Wants this exit code; shows all that was said otherwise.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert!(self.code == code, "exit code {} instead of {code}\n{}", self.code, self.transcript());
        assert!(!self.stderr.contains("panicked"), "a panic\n{}", self.transcript());
        self
    }

    /// Wants these words on standard error.
    #[track_caller]
    pub(crate) fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "nothing of {word:?}\n{}", self.transcript());
        }
        self
    }

    pub(crate) fn transcript(&self) -> String {
        format!("$ {}\n--- stdout\n{}\n--- stderr\n{}", self.what, self.text(), self.stderr)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard output, which must be one JSON document.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| panic!("{error}\n{}", self.transcript()))
    }
}

/// A command under way, killed at the end if it still runs.
pub(crate) struct Running {
    what: String,
    child: Option<Child>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { what: format!("{command:?}"), child: Some(child) }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().unwrap();
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    pub(crate) fn is_over(&mut self) -> bool {
        self.child.as_mut().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits for the end, and reads what is left to read.
    pub(crate) fn end(mut self) -> Ran {
        let child = self.child.take().unwrap();
        Ran::of(std::mem::take(&mut self.what), child.wait_with_output().unwrap())
    }

    /// Waits until one byte came on standard output, and leaves the rest there.
    pub(crate) fn wait_for_output(&mut self) {
        let mut byte = [0];
        self.child.as_mut().unwrap().stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until `is_so`, looking often.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "still waiting for: {what}");
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// Bytes that nothing compresses and that differ for each seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

pub(crate) fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Whether this test runs as root; says that it does nothing otherwise.
pub(crate) fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: it needs root");
    }
    root
}

/// Whether two trees are the same to rsync: names, kinds, contents, owners, modes, times, links, ACLs, xattrs, devices.
#[track_caller]
pub(crate) fn assert_same_tree(a: &Path, b: &Path) {
    let slash = |path: &Path| [path.as_os_str().as_bytes(), b"/"].concat();
    let (from, to) = (slash(a), slash(b));
    let ran = run(Command::new("rsync")
        .args(["-aHAXn", "--checksum", "--numeric-ids", "--specials", "--devices", "--delete", "--itemize-changes"])
        .arg(OsStr::from_bytes(&from))
        .arg(OsStr::from_bytes(&to)))
    .expect(0);
    assert!(ran.stdout.is_empty(), "the trees differ\n{}", ran.transcript());
}

/// A file system that is mounted somewhere until the end.
pub(crate) struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// An empty file system in memory.
    pub(crate) fn memory(at: &Path, mebibytes: u32) -> Self {
        fs::create_dir_all(at).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=0755"), "tmpfs"]).arg(at)).expect(0);
        Self { at: at.to_owned() }
    }

    /// What is at `from`, but nobody can write to it here.
    pub(crate) fn read_only(from: &Path, at: &Path) -> Self {
        fs::create_dir_all(at).unwrap();
        run(Command::new("mount").arg("--bind").arg(from).arg(at)).expect(0);
        let mounted = Self { at: at.to_owned() };
        run(Command::new("mount").args(["-o", "remount,ro,bind"]).arg(at)).expect(0);
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).status();
    }
}
