//! What is being done to whose containers, on disk: one file for each hold in `holds/` of the host's state folder. It is
//! durable before the first container is touched, and locked for as long as its owner lives, so that whoever finds it
//! unlocked knows what to undo.
//!
//! ```text
//! line    checksum, a space, JSON; the checksum is the first 8 bytes of the JSON's BLAKE3, in hexadecimal
//! first   the plan; the file gets its name only when this line is durable, so it is never torn
//! others  events, appended; one whose checksum is wrong was cut off by a crash and counts as not written
//! ```

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, flock, fstat, fsync, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::model::hash;
use crate::seal;

/// The folder of the holds, in the state folder.
pub const FOLDER: &str = "holds";

/// The version of the format that this program writes and reads.
const VERSION: u32 = 1;

/// The longest file read or written: thousands of containers need a tenth of it.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The most holds looked at by one command.
const HOLDS_MAX: usize = 1000;

/// What a file is called until its plan is durable.
const UNFINISHED: &str = ".new-";

/// How often another name is tried. Losing a name takes somebody who sweeps at the very moment of its creation.
const ATTEMPTS_MAX: usize = 16;

/// What is done to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Act {
    /// Its processes are frozen; undone by thawing.
    Pause,
    /// It is stopped; undone by starting.
    Stop,
}

/// A container that was running and will be paused or stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it had been started. Another value later means that somebody has started it anew, and that it is no longer ours.
    pub started_at: String,
    /// What is done to it.
    pub act: Act,
    /// How long it has to end by itself when it is stopped, in seconds; its own stop timeout when there is none.
    #[serde(default)]
    pub grace_seconds: Option<u64>,
}

/// Who holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process id, in the owner's own pid namespace. For people: whether the hold has an owner is told by the lock alone.
    pub process: u32,
    /// When the process was started, in clock ticks since the host's; tells it from a later one of the same id.
    pub started_ticks: u64,
}

impl Owner {
    /// This process.
    pub fn this() -> Self {
        let started_ticks = std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| started_ticks(&stat)).unwrap_or(0);
        Self { process: std::process::id(), started_ticks }
    }

    /// Whether this very process is to be seen from here.
    pub fn is_seen(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process)).unwrap_or_default();
        started_ticks(&stat) == Some(self.started_ticks)
    }
}

/// What a hold is about to do; the first line of its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The engine's address, as this host reaches it.
    pub engine_address: String,
    /// The engine's own id, by which another engine at the same address is noticed.
    pub engine_id: String,
    /// Who does it.
    pub owner: Owner,
    /// Seconds since 1970 after which the containers should be free again; none for a stop, which has no deadline.
    pub deadline: Option<i64>,
    /// The containers, in the order in which they are held; undone in reverse.
    pub containers: Vec<Held>,
}

/// What a hold's file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// What was to be done.
    pub plan: Plan,
    /// Ids of containers whose turn had come.
    pub begun: BTreeSet<String>,
    /// Ids of containers about which nothing is left to do.
    pub settled: BTreeSet<String>,
    /// When the file was last written.
    pub written: Timestamp,
}

impl Contents {
    /// The containers that may have to be freed, in the order in which to do that.
    ///
    /// A pause counts as begun with the plan: all of them are asked for within milliseconds, and no time is to be lost to
    /// the disk between. A stop takes seconds, and one that had not begun must not start what somebody else stopped later.
    pub fn due(&self) -> impl Iterator<Item = &Held> {
        let begun = |held: &Held| held.act == Act::Pause || self.begun.contains(&held.id);
        self.plan.containers.iter().rev().filter(move |held| begun(held) && !self.settled.contains(&held.id))
    }
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    plan: T,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Event {
    Begun(String),
    Settled(String),
}

/// One hold's file, locked by this process. Dropping it lets go of the lock and leaves the file to [`super::recover`].
pub struct Journal {
    folder: OwnedFd,
    name: String,
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Writes `plan` to a file of its own below `state_dir`, durably. Only after this may the first container be touched.
    pub fn create(state_dir: &Path, plan: &Plan) -> Result<Self> {
        let line = plan_line(plan)?;
        let path = state_dir.join(FOLDER);
        let failed = |cause: io::Error| {
            Error::new(ErrorKind::Cache, "cannot write down which containers will be held still, so none is")
                .on(path.display())
                .because(cause)
                .hint("--state-dir names a folder on a local disk with space on it")
        };
        let folder = make_folder(state_dir).map_err(failed)?;
        let (name, file) = write_new(&folder, &line).map_err(failed)?;
        Ok(Self { folder, path: path.join(&name), name, file })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Notes, durably, that the turn of the containers `ids` has come.
    pub fn begun<'i>(&mut self, ids: impl IntoIterator<Item = &'i str>) -> Result<()> {
        let mut ids = ids.into_iter();
        let written = ids.try_for_each(|id| self.append(&Event::Begun(id.to_owned()))).and_then(|()| self.file.sync_data());
        written.context(ErrorKind::Cache, "cannot write to the journal of held containers", self.path.display())
    }

    /// Notes that nothing is left to do about the container `id`. Not durable: what a power cut takes with it costs a look
    /// at the container.
    pub fn settled(&mut self, id: &str) -> Result<()> {
        let written = self.append(&Event::Settled(id.to_owned()));
        written.context(ErrorKind::Cache, "cannot write to the journal of held containers", self.path.display())
    }

    /// Removes the file: all its containers are as they were.
    pub fn remove(self) -> Result<()> {
        let removed = unlinkat(&self.folder, &self.name, AtFlags::empty()).and_then(|()| fsync(&self.folder));
        match removed {
            Err(Errno::NOENT) | Ok(()) => Ok(()),
            Err(errno) => Err(errno).context(ErrorKind::Cache, "cannot remove the journal of held containers", self.path.display()),
        }
    }

    /// Begins with a line's end, so that an event that was cut off does not spoil the next one.
    fn append(&mut self, event: &Event) -> io::Result<()> {
        let json = serde_json::to_string(event).map_err(io::Error::other)?;
        self.file.write_all(format!("\n{}", line(&json)).as_bytes())
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // By name rather than by closing: a child process about to exec has this handle too for a moment.
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// The state of a hold's file.
pub enum Claim {
    /// Its owner is dead; the lock is ours now.
    Dead(Journal, Contents),
    /// Its owner lives.
    Alive(Contents),
    /// It was removed meanwhile.
    Gone,
}

/// The holds of this host.
pub struct Holds {
    folder: OwnedFd,
    path: PathBuf,
}

impl Holds {
    /// The holds below `state_dir`; none when nothing was ever held.
    pub fn open(state_dir: &Path) -> Result<Option<Self>> {
        let path = state_dir.join(FOLDER);
        match rustix::fs::open(&path, FOLDER_FLAGS, Mode::empty()) {
            Ok(folder) => Ok(Some(Self { folder, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).context(ErrorKind::Cache, "cannot look for held containers", path.display()),
        }
    }

    /// The names of the files, sorted. Removes those that never got a plan: nothing was done yet.
    pub fn names(&self) -> Result<Vec<String>> {
        let names = self.list().context(ErrorKind::Cache, "cannot look for held containers", self.path.display())?;
        let (unfinished, mut names): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.starts_with(UNFINISHED));
        for name in unfinished {
            // Best effort: what stays is empty or never counted.
            let _ = self.sweep(&name);
        }
        names.sort();
        Ok(names)
    }

    /// Where the file `name` is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a file and, when its owner is dead, takes its lock.
    pub fn claim(&self, name: &str) -> Result<Claim> {
        let path = self.path(name);
        let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(&self.folder, name, flags, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(Claim::Gone),
            opened => File::from(opened.context(ErrorKind::Cache, "cannot open a journal of held containers", path.display())?),
        };
        let locked = match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => true,
            Err(Errno::WOULDBLOCK) => false,
            Err(errno) => return Err(errno).context(ErrorKind::Cache, "cannot lock a journal of held containers", path.display()),
        };
        let unread = |cause| Error::new(ErrorKind::Cache, "cannot read a journal of held containers").on(path.display()).because(cause);
        let stat = fstat(&file).map_err(|errno| unread(errno.into()))?;
        if stat.st_nlink == 0 {
            return Ok(Claim::Gone);
        }
        let mut contents = parse(&read_bounded(&file).map_err(unread)?).map_err(|error| error.on(path.display()))?;
        contents.written = Timestamp::new(stat.st_mtime, 0);
        if !locked {
            return Ok(Claim::Alive(contents));
        }
        let folder = self.folder.try_clone().map_err(unread)?;
        Ok(Claim::Dead(Journal { folder, name: name.to_owned(), file, path }, contents))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.folder)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
                && names.len() < HOLDS_MAX
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn sweep(&self, name: &str) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.folder, name, flags, Mode::empty())?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(unlinkat(&self.folder, name, AtFlags::empty())?)
    }
}

const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Makes the folder of the holds, and makes it durable.
fn make_folder(state_dir: &Path) -> io::Result<OwnedFd> {
    std::fs::create_dir_all(state_dir)?;
    let parent = rustix::fs::open(state_dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match mkdirat(&parent, FOLDER, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    let folder = openat(&parent, FOLDER, FOLDER_FLAGS, Mode::empty())?;
    // That a folder was there already does not say that its entry is durable.
    fsync(&parent)?;
    Ok(folder)
}

/// A locked file in `folder` with `text` in it, durable under its name.
fn write_new(folder: &OwnedFd, text: &str) -> io::Result<(String, File)> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for _ in 0..ATTEMPTS_MAX {
        let name = hex(&seal::random_array::<8>().map_err(io::Error::other)?);
        let unfinished = format!("{UNFINISHED}{name}");
        let mut file = match openat(folder, &unfinished, flags, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EXIST) => continue,
            opened => File::from(opened?),
        };
        // A sweep between the creation and the lock takes the file for a dead one's: it has it locked or removed it.
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) if fstat(&file)?.st_nlink > 0 => {}
            Ok(()) | Err(Errno::WOULDBLOCK) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| {
            renameat(folder, &unfinished, folder, &name)?;
            Ok(())
        });
        if let Err(error) = written {
            let _ = unlinkat(folder, &unfinished, AtFlags::empty());
            return Err(error);
        }
        if let Err(errno) = fsync(folder) {
            let _ = unlinkat(folder, &name, AtFlags::empty());
            return Err(errno.into());
        }
        return Ok((name, file));
    }
    Err(io::Error::other("no temporary file lasted long enough to be locked"))
}

fn read_bounded(file: &File) -> io::Result<Vec<u8>> {
    if FileType::from_raw_mode(fstat(file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is not a file"));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other("it is too long"));
    }
    Ok(bytes)
}

fn plan_line(plan: &Plan) -> Result<String> {
    let json = serde_json::to_string(&Versioned { version: VERSION, plan });
    let text = json.map(|json| line(&json)).map_err(|cause| Error::new(ErrorKind::Cache, "cannot encode a hold").because(cause))?;
    // Two events for each container come to less than its own entry does.
    if text.len() as u64 > FILE_BYTES_MAX / 4 {
        return Err(Error::new(ErrorKind::Usage, "too many containers to hold at once").on(plan.containers.len()));
    }
    Ok(text)
}

fn parse(bytes: &[u8]) -> Result<Contents> {
    let damaged = |why: &str| {
        Error::damaged(format!("a journal of held containers is damaged ({why})"))
            .hint("see with `docker ps --all` which containers are paused or stopped and should not be, then remove the file")
    };
    let mut lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let json = lines.next().and_then(checked).ok_or_else(|| damaged("its first line has a wrong checksum"))?;
    let Versioned { version, .. } =
        serde_json::from_slice::<Versioned<serde::de::IgnoredAny>>(json).map_err(|cause| damaged("no version").because(cause))?;
    if version != VERSION {
        return Err(Error::new(ErrorKind::Unsupported, format!("a journal of held containers has the unknown version {version}"))
            .hint("run the icecore that wrote it, or a newer one"));
    }
    let Versioned { plan, .. } = serde_json::from_slice(json).map_err(|cause| damaged("no plan").because(cause))?;
    let mut contents = Contents { plan, begun: BTreeSet::new(), settled: BTreeSet::new(), written: Timestamp::default() };
    for event in lines.filter_map(checked).filter_map(|json| serde_json::from_slice(json).ok()) {
        match event {
            Event::Begun(id) => contents.begun.insert(id),
            Event::Settled(id) => contents.settled.insert(id),
        };
    }
    Ok(contents)
}

fn line(json: &str) -> String {
    format!("{} {json}\n", checksum(json.as_bytes()))
}

/// The JSON of a line whose checksum is right.
fn checked(line: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = line.split_at_checked(16)?;
    let json = rest.strip_prefix(b" ")?;
    (sum == checksum(json).as_bytes()).then_some(json)
}

fn checksum(json: &[u8]) -> String {
    let sum = hash::hash(&[json]);
    hex(sum.first_chunk::<8>().unwrap_or(&[0; 8]))
}

fn hex(bytes: &[u8; 8]) -> String {
    format!("{:016x}", u64::from_be_bytes(*bytes))
}

/// The 22nd field. The second one, the program's name in parentheses, may hold spaces and parentheses itself.
fn started_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn held(id: &str, act: Act) -> Held {
        Held { id: id.into(), name: format!("name-{id}"), started_at: "2026-11-20T10:00:00.5Z".into(), act, grace_seconds: None }
    }

    fn plan(act: Act) -> Plan {
        Plan {
            engine_address: "unix:///fake.sock".into(),
            engine_id: "FAKE".into(),
            owner: Owner::this(),
            deadline: Some(17),
            containers: vec![held("a", act), held("b", act), held("c", act)],
        }
    }

    fn only(state: &Path) -> (Holds, String) {
        let holds = Holds::open(state).unwrap().unwrap();
        let names = holds.names().unwrap();
        assert_eq!(names.len(), 1, "{names:?}");
        let name = names[0].clone();
        (holds, name)
    }

    fn dead(state: &Path) -> (Journal, Contents) {
        let (holds, name) = only(state);
        match holds.claim(&name).unwrap() {
            Claim::Dead(journal, contents) => (journal, contents),
            _ => unreachable!("not dead"),
        }
    }

    fn ids<'a>(held: impl Iterator<Item = &'a Held>) -> Vec<&'a str> {
        held.map(|held| held.id.as_str()).collect()
    }

    #[test]
    fn a_hold_is_alive_until_its_owner_lets_go_and_gone_when_removed() {
        let state = tempfile::tempdir().unwrap();
        assert!(Holds::open(state.path()).unwrap().is_none(), "looking creates nothing");
        let mut journal = Journal::create(&state.path().join("deep/er"), &plan(Act::Pause)).unwrap();
        let state = state.path().join("deep/er");
        journal.settled("b").unwrap();
        let (holds, name) = only(&state);
        let Claim::Alive(contents) = holds.claim(&name).unwrap() else { unreachable!("not alive") };
        assert_eq!(contents.plan, plan(Act::Pause));
        assert_eq!(contents.plan.owner.process, std::process::id());
        assert!(contents.plan.owner.is_seen());
        assert!(!Owner { started_ticks: 1, ..contents.plan.owner }.is_seen(), "a later process of the same id");
        assert!(contents.written.seconds > 1_700_000_000);
        drop(journal);
        let (journal, contents) = dead(&state);
        assert_eq!(ids(contents.due()), ["c", "a"], "in reverse, without what is settled");
        assert!(matches!(holds.claim(&name).unwrap(), Claim::Alive(_)), "whoever recovers is the owner");
        journal.remove().unwrap();
        assert!(matches!(holds.claim(&name).unwrap(), Claim::Gone));
        assert!(holds.names().unwrap().is_empty());
    }

    #[test]
    fn a_stop_is_due_once_it_has_begun() {
        let state = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(state.path(), &plan(Act::Stop)).unwrap();
        journal.begun(["a", "b"]).unwrap();
        journal.settled("a").unwrap();
        drop(journal);
        assert_eq!(ids(dead(state.path()).1.due()), ["b"]);
    }

    #[test]
    fn an_event_cut_off_anywhere_counts_as_not_written_and_spoils_no_other() {
        let state = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(state.path(), &plan(Act::Pause)).unwrap();
        let path = journal.path().to_owned();
        let before = std::fs::read(&path).unwrap().len();
        journal.settled("a").unwrap();
        let whole = std::fs::read(&path).unwrap();
        drop(journal);
        for len in before..whole.len() - 1 {
            std::fs::write(&path, &whole[..len]).unwrap();
            let (mut journal, contents) = dead(state.path());
            assert_eq!(contents.settled.len(), 0, "{len}");
            journal.settled("b").unwrap();
            drop(journal);
            assert_eq!(ids(dead(state.path()).1.due()), ["c", "a"], "{len}");
        }
    }

    #[test]
    fn a_plan_with_any_bit_flipped_is_damaged_and_a_newer_one_is_left_alone() {
        let state = tempfile::tempdir().unwrap();
        let journal = Journal::create(state.path(), &plan(Act::Pause)).unwrap();
        let good = std::fs::read(journal.path()).unwrap();
        for at in 0..good.len() - 1 {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(parse(&bad).unwrap_err().kind(), ErrorKind::Damaged, "{at}");
        }
        assert!(parse(b"").is_err() && parse(&good[..good.len() / 2]).is_err());
        let newer = line(r#"{"version":2,"else":[]}"#);
        assert_eq!(parse(newer.as_bytes()).unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn hostile_files_are_refused_before_they_cost_anything() {
        let state = tempfile::tempdir().unwrap();
        drop(Journal::create(state.path(), &plan(Act::Pause)).unwrap());
        let (holds, name) = only(state.path());
        let path = holds.path(&name);
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(holds.claim(&name).err().unwrap().to_string().contains("too long"));
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert!(holds.claim(&name).is_err(), "a symbolic link");
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(holds.claim(&name).is_err(), "a folder");
    }

    #[test]
    fn too_much_to_read_back_is_not_written() {
        let state = tempfile::tempdir().unwrap();
        let mut plan = plan(Act::Pause);
        plan.containers = vec![held(&"x".repeat(64), Act::Pause); 20_000];
        assert_eq!(Journal::create(state.path(), &plan).err().unwrap().kind(), ErrorKind::Usage);
        assert!(Holds::open(state.path()).unwrap().is_none());
    }

    #[test]
    fn unfinished_files_of_the_dead_are_swept_and_those_of_the_living_stay() {
        let state = tempfile::tempdir().unwrap();
        drop(Journal::create(state.path(), &plan(Act::Pause)).unwrap());
        let folder = state.path().join(FOLDER);
        std::fs::write(folder.join(".new-dead"), "half").unwrap();
        let living = File::create(folder.join(".new-living")).unwrap();
        flock(&living, FlockOperation::NonBlockingLockExclusive).unwrap();
        only(state.path());
        assert!(!folder.join(".new-dead").exists());
        assert!(folder.join(".new-living").exists());
    }

    #[test]
    fn a_state_folder_that_cannot_be_written_is_an_error_that_says_so() {
        let state = tempfile::tempdir().unwrap();
        let file = state.path().join("file");
        std::fs::write(&file, "").unwrap();
        let error = Journal::create(&file, &plan(Act::Pause)).err().unwrap();
        assert!(error.to_string().contains("so none is") && error.advice().unwrap().contains("--state-dir"), "{error}");
    }

    #[test]
    fn a_process_s_start_is_found_behind_any_name() {
        let stat = "123 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20";
        assert_eq!(started_ticks(stat), Some(4242));
        assert_eq!(started_ticks("junk"), None);
    }
}
