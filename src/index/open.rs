//! Opening the index of a repository on this host: for writing if nobody else does, else beside the writer; and throwing
//! away whatever cannot be trusted, since all of it can be rebuilt.
//!
//! ```text
//! <state>/index           the index that one process writes
//! <state>/index.lock      locked by that process
//! <state>/index.old-*     a discarded index on its way out
//! <state>/overlay/<name>  what another process adds beside it; goes with that process
//! ```
//!
//! A crash at any point leaves an index without a tag (it was never finished), an `index.old-*`, or the overlay of a dead
//! process. The next opening discards the first and removes the others.

use std::path::Path;

use super::ChunkIndex;
use crate::error::Result;
use crate::model::RepositoryId;

/// Memory for an index when nothing else is asked for. With a hundred million chunks the filters still fit into it, and the
/// whole program stays below 256 MiB.
pub const MEMORY_BYTES_DEFAULT: usize = 64 << 20;
/// The least memory that an index works well in.
pub const MEMORY_BYTES_MIN: usize = 16 << 20;

/// What an index belongs to. One that belongs to anything else is discarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexTag {
    /// The repository that it is an index of.
    pub repository: RepositoryId,
    /// The host whose packs and files it speaks of: a state folder that was copied to another host is stale there.
    pub host: String,
    /// Version of what the caller keeps in it (the notes).
    pub format: u32,
}

/// An index, and what opening it showed.
pub struct OpenedIndex {
    /// The index. Dropping it lets others write, or removes what was added beside the writer.
    pub index: Box<dyn ChunkIndex>,
    /// It holds no packs: the caller must fill it.
    pub fresh: bool,
    /// Another process writes the index; this one sees it as it was, and what it adds is its own and lost in the end.
    pub shared: bool,
    /// Why the previous index was thrown away, if it was.
    pub discarded: Option<String>,
}

/// Opens the index in `state_dir`, which is made if need be.
///
/// One process writes; others get a view of its index with an overlay of their own, and nobody waits for long: should a
/// view be impossible for a second, the index is an empty one of this process alone. `memory_bytes` is shared by all parts.
///
/// # Errors
/// [`Cache`](crate::ErrorKind::Cache) when the folder cannot be made or written; the hint names the option to change it.
#[cfg(feature = "rocks")]
pub fn open(state_dir: &Path, tag: &IndexTag, memory_bytes: usize) -> Result<OpenedIndex> {
    on_disk::open(state_dir, tag, memory_bytes)
        .map_err(|error| error.hint(format!("choose another folder than {} with --state-dir or ICECORE_STATE_DIR", state_dir.display())))
}

/// Opens an index in memory: this program was built without the one on disk.
///
/// # Errors
/// None.
#[cfg(not(feature = "rocks"))]
pub fn open(_state_dir: &Path, _tag: &IndexTag, _memory_bytes: usize) -> Result<OpenedIndex> {
    Ok(OpenedIndex { index: Box::new(super::memory::MemoryIndex::new()), fresh: true, shared: false, discarded: None })
}

#[cfg(feature = "rocks")]
mod on_disk {
    use std::fs::{self, File};
    use std::path::{Path, PathBuf};
    use std::thread;
    use std::time::Duration;

    use super::{IndexTag, OpenedIndex};
    use crate::error::{ErrorKind, IoContext, Result};
    use crate::index::disk::RocksIndex;
    use crate::index::memory::MemoryIndex;
    use crate::index::overlay::Overlay;
    use crate::index::rocks::OpenFailure;
    use crate::index::scratch::{self, Scratch};

    /// While the writer is only starting (or ending), its index is neither free nor readable: that takes less than this.
    const ATTEMPTS_MAX: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(50);
    const DISCARDED_PREFIX: &str = "index.old-";

    pub(super) fn open(state_dir: &Path, tag: &IndexTag, memory_bytes: usize) -> Result<OpenedIndex> {
        let place = Place { state_dir, tag, memory_bytes };
        scratch::make_dir(state_dir)?;
        Scratch::sweep(&place.overlays());
        for attempt in 0..ATTEMPTS_MAX {
            if attempt > 0 {
                thread::sleep(PAUSE);
            }
            if let Some(lock) = scratch::try_lock(&state_dir.join("index.lock"))?
                && let Some(opened) = place.open_for_writing(lock)?
            {
                return Ok(opened);
            }
            if let Some(opened) = place.open_beside()? {
                return Ok(opened);
            }
        }
        place.open_alone()
    }

    struct Place<'a> {
        state_dir: &'a Path,
        tag: &'a IndexTag,
        memory_bytes: usize,
    }

    impl Place<'_> {
        fn index(&self) -> PathBuf {
            self.state_dir.join("index")
        }

        fn overlays(&self) -> PathBuf {
            self.state_dir.join("overlay")
        }

        /// `None` when the index is open elsewhere in spite of our lock.
        fn open_for_writing(&self, lock: File) -> Result<Option<OpenedIndex>> {
            self.remove_discarded();
            let path = self.index();
            let mut discarded = None;
            if fs::symlink_metadata(&path).is_ok() {
                // The lock goes in with the index and out with it; a duplicate is held meanwhile, so that nobody else
                // comes between a discarded index and the new one.
                let held = lock.try_clone().context(ErrorKind::Cache, "cannot keep the lock", path.display())?;
                match self.open_existing(held)? {
                    Existing::Good(index) => return Ok(Some(opened(index, false, None)?)),
                    Existing::Locked => return Ok(None),
                    Existing::Bad(reason) => {
                        self.discard(&path)?;
                        discarded = Some(reason);
                    }
                }
            }
            let index = RocksIndex::create(&path, self.tag, self.memory_bytes, Some(lock))?;
            Ok(Some(opened(Box::new(index), false, discarded)?))
        }

        fn open_existing(&self, lock: File) -> Result<Existing> {
            let index = match RocksIndex::open_existing(&self.index(), self.memory_bytes, Some(lock)) {
                Ok(index) => index,
                Err(OpenFailure::Locked | OpenFailure::Changing) => return Ok(Existing::Locked),
                Err(OpenFailure::Refused(error)) => return Err(error),
                Err(OpenFailure::Unusable(error)) => return Ok(Existing::Bad(error.to_string())),
            };
            Ok(match index.tag() {
                Err(error) => Existing::Bad(error.to_string()),
                Ok(found) => match self.difference(found.as_ref()) {
                    None => Existing::Good(Box::new(index)),
                    Some(difference) => Existing::Bad(difference),
                },
            })
        }

        fn difference(&self, found: Option<&IndexTag>) -> Option<String> {
            let Some(found) = found else {
                return Some("the index was never finished, or is of another version of this program".into());
            };
            if found.repository != self.tag.repository {
                return Some(format!("the index is of another repository ({})", found.repository));
            }
            if found.host != self.tag.host {
                return Some(format!("the index was made on another host ({})", found.host.escape_debug()));
            }
            (found.format != self.tag.format).then(|| format!("the index is of format {}, not {}", found.format, self.tag.format))
        }

        /// Moved first, which is one step, so that a crash while deleting leaves nothing that looks like an index.
        fn discard(&self, path: &Path) -> Result<()> {
            let aside = self.state_dir.join(format!("{DISCARDED_PREFIX}{}", scratch::random_name()?));
            fs::rename(path, &aside).context(ErrorKind::Cache, "cannot discard the old index", path.display())?;
            self.remove_discarded();
            Ok(())
        }

        /// What cannot be removed now is left to the next opening.
        fn remove_discarded(&self) {
            let Ok(entries) = fs::read_dir(self.state_dir) else { return };
            for entry in entries.flatten() {
                if entry.file_name().as_encoded_bytes().starts_with(DISCARDED_PREFIX.as_bytes()) {
                    let path = entry.path();
                    let _ =
                        if entry.file_type().is_ok_and(|kind| kind.is_dir()) { fs::remove_dir_all(path) } else { fs::remove_file(path) };
                }
            }
        }

        /// `None` when the writer's index cannot be read, or not yet, or is not ours.
        fn open_beside(&self) -> Result<Option<OpenedIndex>> {
            let own = Scratch::create(&self.overlays())?;
            // What this process adds is little beside what is there.
            let top_bytes = self.memory_bytes / 4;
            let base = match RocksIndex::open_view(&self.index(), &own.path().join("view"), self.memory_bytes - top_bytes) {
                Ok(base) => base,
                Err(failure) => {
                    tracing::debug!(?failure, "no view of the index yet");
                    return Ok(None);
                }
            };
            if base.tag().ok().flatten().as_ref() != Some(self.tag) {
                return Ok(None);
            }
            let top = RocksIndex::open(&own.path().join("top"), top_bytes)?;
            opened(Box::new(Overlay::new(Box::new(base), Box::new(top)).keeping(own)), true, None).map(Some)
        }

        fn open_alone(&self) -> Result<OpenedIndex> {
            let own = Scratch::create(&self.overlays())?;
            let top = RocksIndex::open(&own.path().join("top"), self.memory_bytes)?;
            opened(Box::new(Overlay::new(Box::new(MemoryIndex::new()), Box::new(top)).keeping(own)), true, None)
        }
    }

    enum Existing {
        Good(Box<RocksIndex>),
        Locked,
        /// Why it is to be thrown away.
        Bad(String),
    }

    fn opened(index: Box<dyn crate::index::ChunkIndex>, shared: bool, discarded: Option<String>) -> Result<OpenedIndex> {
        let fresh = index.counts()?.packs == 0;
        Ok(OpenedIndex { index, fresh, shared, discarded })
    }
}

#[cfg(all(test, feature = "rocks"))]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::fs;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::error::ErrorKind;
    use crate::index::contract::{blob, chunk, pack};
    use crate::index::{RocksIndex, Table};

    const MEMORY_BYTES: usize = 8 << 20;

    fn tag() -> IndexTag {
        IndexTag { repository: RepositoryId([1; 16]), host: "here".into(), format: 1 }
    }

    fn open_in(state: &Path) -> OpenedIndex {
        open(state, &tag(), MEMORY_BYTES).unwrap()
    }

    fn names(dir: &Path) -> Vec<String> {
        let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_inserted_is_there_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a/state");
        let opened = open_in(&state);
        assert!(opened.fresh && !opened.shared && opened.discarded.is_none());
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
        opened.index.insert_pack(&pack(1), &[blob(1, 0)]).unwrap();
        opened.index.flush().unwrap();
        drop(opened);
        let opened = open_in(&state);
        assert!(!opened.fresh && !opened.shared && opened.discarded.is_none());
        assert_eq!(opened.index.get(&chunk(1)).unwrap().unwrap().blob, blob(1, 0));
        // Clearing empties the index; it still belongs to the same repository.
        opened.index.clear().unwrap();
        opened.index.insert_pack(&pack(2), &[blob(2, 0)]).unwrap();
        drop(opened);
        let opened = open_in(&state);
        assert!(!opened.fresh && opened.discarded.is_none());
        assert_eq!(opened.index.packs().unwrap(), [pack(2)]);
        assert_eq!(names(&state), ["index", "index.lock"]);
    }

    #[test]
    fn others_work_beside_the_writer_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let writer = open_in(dir.path());
        let early = open_in(dir.path());
        assert!(early.shared && early.fresh, "nothing to see yet");
        writer.index.insert_pack(&pack(1), &[blob(1, 0), blob(2, 1)]).unwrap();
        writer.index.set_notes(Table::Journal, &[(b"a".to_vec(), Some(b"1".to_vec())), (b"b".to_vec(), Some(b"2".to_vec()))]).unwrap();
        let second = open_in(dir.path());
        let third = open_in(dir.path());
        assert!(second.shared && !second.fresh && second.discarded.is_none());
        second.index.insert_pack(&pack(2), &[blob(2, 0), blob(3, 1)]).unwrap();
        second.index.remove_packs(&[pack(1).id]).unwrap();
        second.index.set_notes(Table::Journal, &[(b"a".to_vec(), None)]).unwrap();
        assert_eq!(second.index.get(&chunk(1)).unwrap(), None);
        assert_eq!(second.index.get(&chunk(2)).unwrap().unwrap().blob, blob(2, 0));
        assert_eq!(second.index.note(Table::Journal, b"a").unwrap(), None);
        for other in [&writer, &third] {
            assert_eq!(other.index.packs().unwrap(), [pack(1)]);
            assert_eq!(other.index.note(Table::Journal, b"a").unwrap(), Some(b"1".to_vec()));
        }
        drop((early, second, third));
        assert_eq!(names(&dir.path().join("overlay")), [""; 0]);
        assert_eq!(writer.index.packs().unwrap(), [pack(1)]);
    }

    #[test]
    fn the_next_writer_takes_over_while_a_view_lives_on() {
        let dir = tempfile::tempdir().unwrap();
        let writer = open_in(dir.path());
        writer.index.insert_pack(&pack(1), &[blob(1, 0)]).unwrap();
        let view = open_in(dir.path());
        drop(writer);
        let other = IndexTag { format: 2, ..tag() };
        let next = open(dir.path(), &other, MEMORY_BYTES).unwrap();
        assert!(!next.shared && next.fresh && next.discarded.is_some());
        view.index.insert_pack(&pack(2), &[blob(2, 0)]).unwrap();
        assert_eq!(view.index.packs().unwrap(), [pack(1), pack(2)]);
        assert_eq!(view.index.get(&chunk(1)).unwrap().unwrap().blob, blob(1, 0));
    }

    #[test]
    fn an_index_of_something_else_is_discarded() {
        let others = [
            (IndexTag { repository: RepositoryId([2; 16]), ..tag() }, "another repository (02"),
            (IndexTag { host: "there".into(), ..tag() }, "another host (there)"),
            (IndexTag { format: 7, ..tag() }, "format 7, not 1"),
        ];
        for (other, reason) in others {
            let dir = tempfile::tempdir().unwrap();
            open(dir.path(), &other, MEMORY_BYTES).unwrap().index.insert_pack(&pack(1), &[blob(1, 0)]).unwrap();
            let opened = open_in(dir.path());
            let discarded = opened.discarded.unwrap();
            assert!(discarded.contains(reason), "{discarded}");
            assert!(opened.fresh && !opened.shared);
            assert_eq!(opened.index.get(&chunk(1)).unwrap(), None);
            assert_eq!(names(dir.path()), ["index", "index.lock"]);
        }
    }

    #[test]
    fn an_index_that_was_never_finished_is_discarded() {
        let dir = tempfile::tempdir().unwrap();
        drop(RocksIndex::open(&dir.path().join("index"), MEMORY_BYTES).unwrap());
        fs::create_dir(dir.path().join("index.old-1234")).unwrap();
        let opened = open_in(dir.path());
        assert!(opened.fresh && opened.discarded.unwrap().contains("never finished"));
        assert_eq!(names(dir.path()), ["index", "index.lock"]);
    }

    #[test]
    fn a_writer_without_our_lock_is_left_in_peace() {
        let dir = tempfile::tempdir().unwrap();
        let stranger = RocksIndex::open(&dir.path().join("index"), MEMORY_BYTES).unwrap();
        stranger.insert_pack(&pack(1), &[blob(1, 0)]).unwrap();
        let opened = open_in(dir.path());
        assert!(opened.fresh && opened.shared && opened.discarded.is_none());
        opened.index.insert_pack(&pack(2), &[blob(2, 0)]).unwrap();
        assert_eq!(opened.index.packs().unwrap(), [pack(2)]);
        assert_eq!(stranger.packs().unwrap(), [pack(1)]);
    }

    /// What is done to a file of the index.
    const DAMAGES: [fn(&Path); 4] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::write(file, "").unwrap(),
        |file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
        },
        |file| {
            let mut bytes = fs::read(file).unwrap();
            bytes.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x55);
            fs::write(file, bytes).unwrap();
        },
    ];

    /// An index with tables and a log, of packs 0 to 39 with 50 chunks each.
    fn filled(state: &Path) {
        for first in [0, 10, 20, 30] {
            // Each opening brings the log of the one before into tables; the last stays a log.
            let opened = open_in(state);
            for n in first..first + 10 {
                let blobs: Vec<_> = (0..50).map(|c| blob(n + c, u32::from(c))).collect();
                opened.index.insert_pack(&pack(n), &blobs).unwrap();
            }
        }
    }

    #[test]
    fn damage_to_any_file_gives_a_new_index_and_no_wrong_answer() {
        let whole = tempfile::tempdir().unwrap();
        filled(whole.path());
        let files: Vec<_> = names(&whole.path().join("index")).into_iter().filter(|name| !name.starts_with("LOG")).collect();
        let kinds = ["CURRENT", "MANIFEST-", ".sst", ".log"];
        assert!(kinds.iter().all(|kind| files.iter().any(|file| file.contains(kind))), "{files:?}");
        let mut discarded = 0;
        for file in &files {
            for (number, damage) in DAMAGES.iter().enumerate() {
                let dir = tempfile::tempdir().unwrap();
                let index = dir.path().join("index");
                fs::create_dir(&index).unwrap();
                names(&whole.path().join("index")).iter().for_each(|name| {
                    fs::copy(whole.path().join("index").join(name), index.join(name)).unwrap();
                });
                damage(&index.join(file));
                discarded += u32::from(survives(dir.path(), &format!("{file}, damage {number}")));
            }
        }
        assert!(discarded > 8, "{discarded}");
    }

    /// Whether the index was discarded, at once or after it was found damaged in use.
    fn survives(state: &Path, what: &str) -> bool {
        let mut was_discarded = false;
        for attempt in 0.. {
            assert!(attempt < 2, "{what}: still damaged");
            let opened = open(state, &tag(), MEMORY_BYTES).unwrap_or_else(|error| panic!("{what}: {error}"));
            was_discarded |= opened.discarded.is_some();
            assert_eq!(opened.discarded.is_some() || opened.fresh, opened.fresh, "{what}: discarded and not empty");
            match use_all(&opened) {
                Ok(()) => break,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Cache, "{what}: {error}"),
            }
        }
        was_discarded
    }

    fn use_all(opened: &OpenedIndex) -> Result<()> {
        let index = &opened.index;
        let packs = index.packs()?;
        // Packs are there in the order of their inserts, without a gap, each with all its chunks.
        for n in 0..packs.len() as u8 {
            let number = index.pack_number(&pack(n).id)?.expect("a later pack without an earlier one");
            assert_eq!(index.pack(number)?, pack(n));
            for c in n..n + 50 {
                let found = index.get(&chunk(c))?.expect("a pack without its chunk");
                assert_eq!(index.pack(found.pack)?, pack(c.saturating_sub(49)));
            }
        }
        let mut copies = 0;
        index.for_each(&mut |_| {
            copies += 1;
            Ok(())
        })?;
        assert_eq!(copies, 50 * packs.len());
        index.insert_pack(&pack(200), &[blob(200, 0)])?;
        assert_eq!(index.get(&chunk(200))?.unwrap().blob, blob(200, 0));
        index.flush()
    }

    #[test]
    fn something_else_in_the_place_of_the_index_is_moved_away() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("index"), "no folder").unwrap();
        let opened = open_in(dir.path());
        assert!(opened.fresh && opened.discarded.is_some());
        assert_eq!(names(dir.path()), ["index", "index.lock"]);
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = open(&file.join("state"), &tag(), MEMORY_BYTES).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Cache);
        assert!(error.subject().unwrap().contains("file/state"), "{error}");
        assert!(error.advice().unwrap().contains("--state-dir"), "{error}");
    }

    const CHILD_STATE: &str = "ICECORE_TEST_CHILD_STATE";

    /// Not a test: another process that has the index open until its standard input ends.
    #[test]
    #[ignore = "runs as a child of other tests"]
    fn child() {
        let Some(state) = std::env::var_os(CHILD_STATE).map(PathBuf::from) else { return };
        let opened = open_in(&state);
        opened.index.insert_pack(&pack(100), &[blob(100, 0)]).unwrap();
        let mut out = std::io::stdout();
        writeln!(out, "\nopen {} {}", opened.shared, opened.fresh).unwrap();
        out.flush().unwrap();
        std::io::stdin().lines().for_each(drop);
    }

    fn spawn_child(state: &Path) -> (std::process::Child, String) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "index::open::tests::child", "--ignored", "--nocapture"]).env(CHILD_STATE, state);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = lines.map(Result::unwrap).find(|line| line.starts_with("open ")).unwrap();
        (child, said)
    }

    #[test]
    fn processes_share_and_a_killed_one_is_cleaned_up_after() {
        let dir = tempfile::tempdir().unwrap();
        let overlays = dir.path().join("overlay");
        let writer = open_in(dir.path());
        writer.index.insert_pack(&pack(1), &[blob(1, 0)]).unwrap();
        let (mut child, said) = spawn_child(dir.path());
        assert_eq!(said, "open true false");
        assert_eq!(names(&overlays).len(), 2, "its folder and lock");
        drop(writer);
        let writer = open_in(dir.path());
        assert!(!writer.shared);
        assert_eq!(names(&overlays).len(), 2, "a living process keeps its overlay");
        child.kill().unwrap();
        child.wait().unwrap();
        drop(writer);
        drop(open_in(dir.path()));
        assert_eq!(names(&overlays), [""; 0], "a dead one's is removed");
    }

    #[test]
    fn what_a_killed_writer_inserted_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let (mut child, said) = spawn_child(dir.path());
        assert_eq!(said, "open false true");
        let beside = open_in(dir.path());
        assert!(beside.shared && !beside.fresh);
        child.kill().unwrap();
        child.wait().unwrap();
        let opened = open_in(dir.path());
        assert!(!opened.shared && !opened.fresh && opened.discarded.is_none());
        assert_eq!(opened.index.get(&chunk(100)).unwrap().unwrap().blob, blob(100, 0));
    }
}
