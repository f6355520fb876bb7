//! What the contract leaves to a local repository: its files, its leftovers, other processes, full and read-only disks.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::process::{Child, Command};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::storage::conformance;

const LEN_MAX: u64 = 1 << 30;

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

fn new() -> (TempDir, LocalStorage) {
    let place = tempfile::tempdir().unwrap();
    let storage = LocalStorage::create(place.path().join("repo")).unwrap();
    (place, storage)
}

/// The permission bits of a file.
fn mode(path: impl AsRef<Path>) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn keeps_the_contract() {
    let place = tempfile::tempdir().unwrap();
    let number = std::sync::atomic::AtomicU64::new(0);
    let fresh = || place.path().join(number.fetch_add(1, std::sync::atomic::Ordering::SeqCst).to_string());
    conformance::run(&|| Box::new(LocalStorage::create(fresh()).unwrap()));
    conformance::run_shared(&|| {
        let root = fresh();
        (Box::new(LocalStorage::create(&root).unwrap()), Box::new(LocalStorage::open(&root).unwrap()))
    });
}

#[test]
fn create_makes_private_folders_and_open_none() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("a/b/repo");
    let error = LocalStorage::open(&root).err().unwrap();
    assert_eq!((error.kind(), error.subject()), (ErrorKind::NoRepository, root.to_str()));
    assert!(!place.path().join("a").exists());

    let storage = LocalStorage::create(&root).unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0, "folders are made when something goes in");
    storage.put_new(&key("packs/ab/cd"), b"x").unwrap();
    for folder in ["", "packs", "packs/ab", "tmp"] {
        assert_eq!(mode(root.join(folder)), 0o700, "{folder}");
    }
    assert_eq!(mode(root.join("packs/ab/cd")), 0o400);
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    // Created again is opened: what is there stays.
    LocalStorage::create(&root).unwrap();
    assert_eq!(LocalStorage::open(&root).unwrap().get(&key("packs/ab/cd"), 1).unwrap(), b"x");
    assert_eq!(storage.describe(), root.to_str().unwrap());

    fs::write(place.path().join("file"), b"").unwrap();
    assert_eq!(LocalStorage::open(place.path().join("file")).err().unwrap().kind(), ErrorKind::NoRepository);
    assert_eq!(LocalStorage::create(place.path().join("file")).err().unwrap().kind(), ErrorKind::Storage);
}

#[test]
fn foreign_files_are_not_listed() {
    let (place, storage) = new();
    let root = place.path().join("repo");
    storage.put_new(&key("packs/ab/cd"), b"x").unwrap();
    fs::create_dir_all(root.join("lost+found/inside")).unwrap();
    fs::create_dir_all(root.join("packs/.hidden")).unwrap();
    fs::create_dir(root.join("packs/empty")).unwrap();
    for path in ["README", "packs/ab/.cd.swp", "packs/ab/CD", "packs/ab/c d", "lost+found/inside/x", "packs/.hidden/x", "tmp/x", "tmp/0"] {
        fs::write(root.join(path), b"foreign").unwrap();
    }
    fs::write(root.join(std::ffi::OsStr::new("packs/\u{e4}")), b"foreign").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("packs/socket")).unwrap();
    let deep = "d/".repeat(120) + "x";
    fs::create_dir_all(root.join(&deep[..240])).unwrap();
    fs::write(root.join(deep), b"foreign").unwrap();

    for prefix in ["", "packs"] {
        assert_eq!(storage.list(prefix).unwrap(), [Listed { key: key("packs/ab/cd"), len: 1 }], "{prefix}");
    }
    for prefix in ["tmp", "tmp/x", "lost-found"] {
        assert_eq!(storage.list(prefix).unwrap(), [], "{prefix}");
    }
    // What has an object's name and is none is not taken for one, and does not stop a reader for good.
    for result in [storage.get(&key("packs/socket"), 9).map(drop), storage.size(&key("packs/socket")).map(drop)] {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Storage);
    }
    assert_eq!(storage.put_new(&key("packs/socket"), b"").unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(storage.get(&key("packs/ab"), 9).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(storage.size(&key("packs/ab")).unwrap(), None);
    assert_eq!(storage.put_new(&key("packs/ab"), b"").unwrap_err().kind(), ErrorKind::Storage);
    storage.delete(&key("packs/ab")).unwrap();
    assert_eq!(storage.get(&key("packs/ab/cd"), 9).unwrap(), b"x");
}

#[test]
fn a_pipe_in_an_objects_place_does_not_stop_a_reader() {
    let (place, storage) = new();
    storage.put_new(&key("packs/ab/cd"), b"x").unwrap();
    let pipe = place.path().join("repo/packs/ab/pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert_eq!(storage.get(&key("packs/ab/pipe"), 9).unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(storage.list("").unwrap().len(), 1);
}

#[test]
fn symbolic_links_are_not_followed() {
    let (place, storage) = new();
    let (root, outside) = (place.path().join("repo"), place.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), b"outside").unwrap();
    storage.put_new(&key("packs/ab/cd"), b"x").unwrap();
    symlink(outside.join("victim"), root.join("packs/ab/link")).unwrap();
    symlink(&outside, root.join("log")).unwrap();
    symlink(outside.join("hold"), root.join("packs/ab/hold")).unwrap();

    for link in ["packs/ab/link", "log/victim"] {
        let link = key(link);
        assert_eq!(storage.get(&link, LEN_MAX).unwrap_err().kind(), ErrorKind::Storage);
        assert_eq!(storage.get_range(&link, 0, &mut [0]).unwrap_err().kind(), ErrorKind::Storage);
        assert_eq!(storage.size(&link).unwrap_err().kind(), ErrorKind::Storage);
        assert_eq!(storage.put_new(&link, b"new").unwrap_err().kind(), ErrorKind::Storage);
        assert_eq!(storage.held(&link).unwrap_err().kind(), ErrorKind::Storage);
    }
    assert_eq!(storage.put_new(&key("log/new"), b"new").unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(storage.delete(&key("log/victim")).unwrap_err().kind(), ErrorKind::Storage);
    assert_eq!(storage.hold(&key("log/hold")).err().unwrap().kind(), ErrorKind::Storage);
    assert_eq!(storage.hold(&key("packs/ab/hold")).err().unwrap().kind(), ErrorKind::Storage);
    // A listing that left out what a link stands for would look like a loss.
    for prefix in ["", "log", "packs", "packs/ab/link"] {
        assert_eq!(storage.list(prefix).unwrap_err().kind(), ErrorKind::Storage, "{prefix}");
    }
    assert_eq!(fs::read(outside.join("victim")).unwrap(), b"outside");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);

    // The way to the repository may be a link: the user's own.
    symlink(&root, place.path().join("way")).unwrap();
    assert_eq!(LocalStorage::open(place.path().join("way")).unwrap().get(&key("packs/ab/cd"), 1).unwrap(), b"x");
}

#[test]
fn a_sweep_removes_files_of_the_dead_and_keeps_those_of_the_living() {
    let (place, storage) = new();
    let tmp = place.path().join("repo/tmp");
    storage.sweep_leftovers().unwrap();
    let living = TempFile::create(storage.tree.make(TMP).unwrap()).unwrap();
    living.fill(b"being written", &storage.buffers).unwrap();
    // Linked and not yet removed from `tmp` when its process died: the object stays.
    storage.put_new(&key("config"), b"whole").unwrap();
    fs::hard_link(place.path().join("repo/config"), tmp.join("0".repeat(32))).unwrap();
    fs::write(tmp.join("f".repeat(32)), b"half an obj").unwrap();
    fs::write(tmp.join("notes.txt"), b"foreign").unwrap();

    LocalStorage::open(place.path().join("repo")).unwrap().sweep_leftovers().unwrap();
    let mut left: Vec<_> = fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.retain(|name| name != "notes.txt");
    assert_eq!(left.len(), 1, "only the locked one is left: {left:?}");
    assert_eq!(storage.get(&key("config"), 9).unwrap(), b"whole");
    assert!(living.link(&storage.tree.open("").unwrap(), "late").unwrap(), "it can still become an object");
    drop(living);
    assert_eq!(storage.get(&key("late"), 99).unwrap(), b"being written");
    assert_eq!(fs::read_dir(&tmp).unwrap().count(), 1);
}

#[test]
fn keys_of_the_temporary_folder_are_refused() {
    let (_place, storage) = new();
    for text in ["tmp", "tmp/x"] {
        assert_eq!(storage.put_new(&key(text), b"").unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(storage.get(&key(text), 9).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(storage.hold(&key(text)).err().unwrap().kind(), ErrorKind::Usage);
    }
    storage.put_new(&key("tmp-x/y"), b"").unwrap();
}

#[test]
fn few_packs_are_kept_open_and_a_deleted_one_is_closed() {
    let (place, storage) = new();
    let keys: Vec<Key> = (0..40).map(|number| key(&format!("packs/00/{number}"))).collect();
    for (number, key) in (0u8..).zip(&keys) {
        storage.put_new(key, &[number; 3]).unwrap();
    }
    let mut byte = [0];
    for round in 0..2 {
        for (number, key) in (0u8..).zip(&keys) {
            storage.get_range(key, 2, &mut byte).unwrap();
            assert_eq!(byte[0], number, "round {round}");
        }
    }
    let kept = storage.open_packs.len();
    assert!((1..40).contains(&kept), "{kept}");
    storage.delete(&keys[39]).unwrap();
    assert_eq!(storage.open_packs.len(), kept - 1);
    // Deleted and put again by others: the old contents are not served from an open handle.
    let path = place.path().join("repo/packs/00/38");
    fs::remove_file(&path).unwrap();
    fs::write(&path, [99; 3]).unwrap();
    storage.get_range(&keys[38], 0, &mut byte).unwrap();
    assert_eq!(byte[0], 99);
}

/// The name of the variable that makes this program, started anew, the child of the next test.
const CHILD_ROOT: &str = "ICECORE_TEST_HOLD_ROOT";

/// Not a test of its own: takes a hold and waits to be killed, when started as a child.
#[test]
fn child_that_holds() {
    let Some(root) = std::env::var_os(CHILD_ROOT) else { return };
    let hold = LocalStorage::open(root).unwrap().hold(&key("hb/child")).unwrap();
    std::thread::sleep(Duration::from_secs(60));
    drop(hold);
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_hold_lasts_as_long_as_its_process() {
    let (place, storage) = new();
    let hold = key("hb/child");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "storage::local::tests::child_that_holds"])
        .env(CHILD_ROOT, place.path().join("repo"))
        .stdout(std::process::Stdio::null())
        .spawn();
    let child = Killed(child.unwrap());
    let mut tries = 0;
    while !storage.held(&hold).unwrap() {
        tries += 1;
        assert!(tries < 1000, "the child never took its hold");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(storage.hold(&hold).err().unwrap().kind(), ErrorKind::Busy);
    drop(child);
    assert!(place.path().join("repo/hb/child").exists(), "a killed process removes nothing");
    assert!(!storage.held(&hold).unwrap());
    let own = storage.hold(&hold).unwrap();
    assert!(storage.held(&hold).unwrap());
    assert_eq!(mode(place.path().join("repo/hb/child")), 0o600);
    drop(own);
    assert!(!place.path().join("repo/hb/child").exists());
}

#[test]
fn a_hold_whose_file_was_replaced_leaves_the_new_one_alone() {
    let (place, storage) = new();
    let file = place.path().join("repo/hb/0");
    let old = storage.hold(&key("hb/0")).unwrap();
    fs::remove_file(&file).unwrap();
    let new = storage.hold(&key("hb/0")).unwrap();
    drop(old);
    assert!(storage.held(&key("hb/0")).unwrap());
    drop(new);
    assert!(!file.exists());
}

/// A small file system of its own, unmounted at the end; none where this may not be done.
struct Mounted(TempDir);

impl Mounted {
    fn new(kind: &str, options: &str) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let mounted = Self(place);
        mounted.mount(&["-t", kind, "-o", options, "none"]).then_some(mounted)
    }

    fn mount(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new("mount");
        command.args(arguments).arg(self.0.path()).stderr(std::process::Stdio::null());
        rustix::process::geteuid().is_root() && command.status().is_ok_and(|status| status.success())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l"]).arg(self.0.path()).stderr(std::process::Stdio::null()).status();
    }
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing_behind() {
    let Some(disk) = Mounted::new("tmpfs", "size=4m,mode=700") else { return };
    let storage = LocalStorage::create(disk.0.path()).unwrap();
    let bytes: Vec<u8> = (0..7u32 << 19).map(|at| at.to_le_bytes()[1]).collect();
    storage.put_new(&key("packs/00/0"), &bytes).unwrap();
    // Half a MiB is left; one is written past the page cache, the other through it.
    for len in [bytes.len(), 700_000] {
        let error = storage.put_new(&key("packs/00/1"), &bytes[..len]).unwrap_err();
        assert_eq!((error.kind(), error.io_kind()), (ErrorKind::Storage, Some(io::ErrorKind::StorageFull)), "{error}");
        assert_eq!(error.subject(), Some("packs/00/1"));
        assert!(error.advice().unwrap().contains("free space"));
        assert_eq!(fs::read_dir(disk.0.path().join("tmp")).unwrap().count(), 0);
        assert_eq!(storage.list("").unwrap().len(), 1, "an object that did not fit is not there in part");
    }
    storage.delete(&key("packs/00/0")).unwrap();
    storage.put_new(&key("packs/00/1"), &bytes).unwrap();
    assert!(storage.get(&key("packs/00/1"), LEN_MAX).unwrap() == bytes);
}

#[test]
fn a_read_only_repository_can_be_read() {
    let Some(disk) = Mounted::new("tmpfs", "size=4m,mode=700") else { return };
    let storage = LocalStorage::create(disk.0.path()).unwrap();
    storage.put_new(&key("packs/00/0"), b"kept").unwrap();
    drop(storage.hold(&key("hb/0")).unwrap());
    drop(storage);
    assert!(disk.mount(&["-o", "remount,ro"]));

    let storage = LocalStorage::open(disk.0.path()).unwrap();
    assert_eq!(storage.get(&key("packs/00/0"), 9).unwrap(), b"kept");
    assert_eq!(storage.list("").unwrap().len(), 1);
    assert!(!storage.held(&key("hb/0")).unwrap());
    storage.sweep_leftovers().unwrap();
    let errors = [
        storage.hold(&key("hb/0")).err(),
        storage.hold(&key("locks/0")).err(),
        storage.put_new(&key("packs/00/1"), b"").err(),
        storage.put_new(&key("log/0/0"), b"").err(),
        storage.delete(&key("packs/00/0")).err(),
    ];
    for error in errors.map(Option::unwrap) {
        assert_eq!((error.kind(), error.io_kind()), (ErrorKind::Storage, Some(io::ErrorKind::ReadOnlyFilesystem)), "{error}");
    }
}

#[test]
fn a_file_system_that_cannot_bypass_its_cache_is_written_through_it() {
    let Some(disk) = Mounted::new("ramfs", "mode=700") else { return };
    let storage = LocalStorage::create(disk.0.path()).unwrap();
    let bytes: Vec<u8> = (0..(3u32 << 20) + 5).map(|at| at.to_le_bytes()[1]).collect();
    storage.put_new(&key("packs/00/0"), &bytes).unwrap();
    assert!(storage.get(&key("packs/00/0"), LEN_MAX).unwrap() == bytes);
}
