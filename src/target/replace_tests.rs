//! Restoring over what is there: what is right stays untouched, what is wrong is replaced, and nothing outside of the
//! target is reached, whatever stands in it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{Gid, Uid, XattrFlags, setxattr};
use rustix::thread::{set_thread_gid, set_thread_uid};
use tempfile::tempdir;

use super::testing::{
    CAPABILITY, Dice, MemoryContent, dir_node, file_node, is_root, linked, name, no_xattrs, node, open, open_with, xattrs, xattrs_of,
};
use super::{Target, ends_run};
use crate::error::ErrorKind;
use crate::model::{Node, NodeKind, TreePath};

fn ctime(path: &Path) -> (i64, i64, u64) {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.ctime(), meta.ctime_nsec(), meta.ino())
}

fn specials() -> Vec<Node> {
    let mut specials = vec![
        node("link", NodeKind::Symlink(b"somewhere/else".to_vec())),
        node("fifo", NodeKind::Fifo),
        node("socket", NodeKind::Socket),
        node("zero", NodeKind::CharDevice { major: 1, minor: 5 }),
        node("disk", NodeKind::BlockDevice { major: 7, minor: 200 }),
    ];
    specials[0].meta.mode = 0o777;
    specials
}

#[test]
fn what_is_right_is_not_touched() {
    if !is_root() {
        return;
    }
    let dir = tempdir().unwrap();
    let dice = Dice::new(3);
    let content = MemoryContent::new().data(&dice.bytes(100_000)).hole(300_000).data(&dice.bytes(50_000));
    let set = xattrs(&[("security.capability", CAPABILITY), ("user.a", b"1")]);
    let mut file = file_node("file", &content);
    (file.meta.mode, file.meta.uid) = (0o4711, 12);
    let restore = || {
        let target = open(dir.path());
        let root = target.begin(&dir_node("")).unwrap();
        let sub = root.directory(&dir_node("sub")).unwrap();
        let placed = sub.file(&file, &set, &content).unwrap();
        for node in specials() {
            sub.special(&node, &no_xattrs()).unwrap();
        }
        sub.close(&dir_node("sub"), &xattrs(&[("user.d", b"2")])).unwrap();
        root.close(&dir_node(""), &no_xattrs()).unwrap();
        target.finish().unwrap();
        assert_eq!(target.shortfalls(), []);
        placed
    };
    assert_eq!(restore().written_bytes, 150_000);
    let names = ["sub", "sub/file", "sub/link", "sub/fifo", "sub/socket", "sub/zero", "sub/disk"];
    let before = names.map(|name| ctime(&dir.path().join(name)));
    std::thread::sleep(std::time::Duration::from_millis(20));
    let placed = restore();
    assert_eq!((placed.written_bytes, placed.kept_bytes, content.reads()), (0, 150_000, 2));
    assert_eq!(names.map(|name| ctime(&dir.path().join(name))), before);
}

#[test]
fn only_what_differs_is_written() {
    let dir = tempdir().unwrap();
    let dice = Dice::new(5);
    let parts: Vec<Vec<u8>> = (0..5).map(|_| dice.bytes(10_000)).collect();
    let content = parts.iter().fold(MemoryContent::new(), |content, part| content.data(part)).hole(100_000).data(b"end");
    let whole = content.bytes();
    let file = dir.path().join("file");
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage, u64); 8] = [
        ("bytes of two blocks", |old| (old[12_287] ^= 1, old[12_288] ^= 1, old[19_000] ^= 1).0, 10_000),
        ("equal", |_| (), 0),
        ("one byte", |old| old[25_000] ^= 1, 4_096),
        ("one block of two parts", |old| (old[9_999] ^= 1, old[10_000] ^= 1).0, 4_096),
        ("data in the hole", |old| old[90_000] = 1, 0),
        ("too long", |old| old.extend_from_slice(&[9; 5000]), 0),
        ("too short", |old| old.truncate(45_000), 9_043),
        ("empty", Vec::clear, 50_003),
    ];
    for (what, damage, written) in damages {
        let mut old = whole.clone();
        damage(&mut old);
        fs::write(&file, &old).unwrap();
        let inode = ctime(&file).2;
        let target = open(dir.path());
        let root = target.begin(&dir_node("")).unwrap();
        let placed = root.file(&file_node("file", &content), &no_xattrs(), &content).unwrap();
        assert_eq!((placed.written_bytes, placed.kept_bytes), (written, 50_003 - written), "{what}");
        assert!(fs::read(&file).unwrap() == whole, "{what}");
        assert_eq!((ctime(&file).2, fs::metadata(&file).unwrap().mtime()), (inode, 1_600_000_000), "{what}");
    }
}

#[test]
fn wrong_metadata_is_mended_without_writing_content() {
    if !is_root() {
        return;
    }
    let dir = tempdir().unwrap();
    let content = MemoryContent::of(b"same");
    let file = dir.path().join("file");
    fs::write(&file, "same").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
    for (name, value) in
        [("user.extra", &b"x"[..]), ("user.wrong", b"longer than right"), ("trusted.extra", b"y"), ("security.selinux", b"host")]
    {
        setxattr(&file, name, value, XattrFlags::empty()).unwrap();
    }
    let target = open(dir.path());
    let root = target.begin(&dir_node("")).unwrap();
    let mut wanted = file_node("file", &content);
    (wanted.meta.mode, wanted.meta.uid, wanted.meta.gid) = (0o4755, 3, 4);
    root.file(&wanted, &xattrs(&[("security.capability", CAPABILITY), ("user.wrong", b"right")]), &content).unwrap();
    let meta = fs::metadata(&file).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid(), meta.mtime_nsec()), (0o4755, 3, 4, 123_456_789));
    let expected = xattrs(&[("security.capability", CAPABILITY), ("security.selinux", b"host"), ("user.wrong", b"right")]);
    assert_eq!(xattrs_of(&file), expected);
    assert_eq!(target.shortfalls(), []);
}

#[test]
fn names_outside_keep_the_old_content() {
    let dir = tempdir().unwrap();
    let outside = dir.path().join("outside");
    let inside = dir.path().join("in/file");
    fs::create_dir(dir.path().join("in")).unwrap();
    fs::write(&outside, "old").unwrap();
    fs::hard_link(&outside, &inside).unwrap();
    let target = open(&dir.path().join("in"));
    let root = target.begin(&dir_node("")).unwrap();
    let content = MemoryContent::of(b"new");
    root.file(&file_node("file", &content), &no_xattrs(), &content).unwrap();
    assert_eq!((fs::read(&outside).unwrap(), fs::read(&inside).unwrap()), (b"old".to_vec(), b"new".to_vec()));
    assert_eq!(fs::metadata(&outside).unwrap().nlink(), 1);
    // One that can't be read from the repository leaves the old one whole.
    fs::remove_file(&inside).unwrap();
    fs::hard_link(&outside, &inside).unwrap();
    let gone = MemoryContent::of(b"gone").failing_at(0);
    root.file(&file_node("file", &gone), &no_xattrs(), &gone).unwrap_err();
    assert_eq!(fs::read(&inside).unwrap(), b"old");
    assert_eq!(fs::read_dir(dir.path().join("in")).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn every_kind_replaces_every_other() {
    if !is_root() {
        return;
    }
    let outside = tempdir().unwrap();
    fs::create_dir(outside.path().join("sub")).unwrap();
    fs::write(outside.path().join("sub/canary"), "canary").unwrap();
    let make_old: [fn(&Path, &Path); 7] = [
        |at, _| fs::write(at, "old").unwrap(),
        |at, _| fs::create_dir_all(at.join("a/b/c")).unwrap(),
        |at, outside| symlink(outside.join("sub"), at).unwrap(),
        |at, outside| symlink(outside.join("sub/canary"), at).unwrap(),
        |at, _| symlink("dangling", at).unwrap(),
        |at, _| rustix::fs::mknodat(rustix::fs::CWD, at, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap(),
        |at, _| {
            rustix::fs::mknodat(rustix::fs::CWD, at, rustix::fs::FileType::CharacterDevice, 0o600.into(), rustix::fs::makedev(1, 7))
                .unwrap()
        },
    ];
    let content = MemoryContent::of(b"new");
    for make in make_old {
        let dir = tempdir().unwrap();
        let specials = specials();
        let names =
            ["file", "dir", "hard"].into_iter().map(str::to_owned).chain(specials.iter().map(|s| s.name.as_ref().unwrap().to_string()));
        for name in names {
            make(&dir.path().join(name), outside.path());
        }
        let target = open(dir.path());
        let root = target.begin(&dir_node("")).unwrap();
        root.file(&linked(file_node("file", &content), 1), &no_xattrs(), &content).unwrap();
        root.link(&linked(file_node("hard", &content), 1), &TreePath::parse(b"file").unwrap()).unwrap();
        let sub = root.directory(&dir_node("dir")).unwrap();
        sub.file(&file_node("canary", &content), &no_xattrs(), &content).unwrap();
        sub.close(&dir_node("dir"), &no_xattrs()).unwrap();
        for node in &specials {
            root.special(node, &no_xattrs()).unwrap();
        }
        let kind = |name: &str| fs::symlink_metadata(dir.path().join(name)).unwrap().file_type();
        assert!(kind("file").is_file() && kind("dir").is_dir() && kind("link").is_symlink() && kind("fifo").is_fifo());
        assert!(kind("socket").is_socket() && kind("zero").is_char_device() && kind("disk").is_block_device());
        assert_eq!(fs::read(dir.path().join("hard")).unwrap(), b"new");
        assert_eq!(fs::symlink_metadata(dir.path().join("zero")).unwrap().rdev(), rustix::fs::makedev(1, 5));
        assert_eq!(fs::read_link(dir.path().join("link")).unwrap(), Path::new("somewhere/else"));
        assert_eq!(target.shortfalls(), []);
    }
    assert_eq!(fs::read(outside.path().join("sub/canary")).unwrap(), b"canary");
    let canary = fs::metadata(outside.path().join("sub/canary")).unwrap();
    assert!(canary.mtime() != 1_600_000_000 && canary.nlink() == 1);
}

#[test]
fn a_directory_that_becomes_a_symlink_under_way_leads_nowhere() {
    // Somebody who can write to the target swaps a directory, already made, for a symlink to a place outside.
    let dir = tempdir().unwrap();
    let outside = tempdir().unwrap();
    fs::write(outside.path().join("canary"), "canary").unwrap();
    let before = ctime(outside.path());
    let target = open_with(dir.path(), Some(4));
    let root = target.begin(&dir_node("")).unwrap();
    let sub = root.directory(&dir_node("sub")).unwrap();
    for i in 0..20 {
        // Pushes the handle of `sub` out.
        root.directory(&dir_node(format!("d{i}"))).unwrap();
    }
    let keep: Vec<_> = (0..20).map(|i| root.directory(&dir_node(format!("d{i}"))).unwrap()).collect();
    fs::rename(dir.path().join("sub"), dir.path().join("away")).unwrap();
    symlink(outside.path(), dir.path().join("sub")).unwrap();
    let content = MemoryContent::of(b"pwned");
    let tries = [
        sub.file(&file_node("canary", &content), &no_xattrs(), &content).map(|_| ()),
        sub.special(&node("new", NodeKind::Fifo), &no_xattrs()),
        sub.remove_others(&[]).map(|_| ()),
        sub.close(&dir_node("sub"), &no_xattrs()),
        root.link(&linked(file_node("x", &content), 1), &TreePath::parse(b"sub/canary").unwrap()),
    ];
    for result in tries {
        let error = result.unwrap_err();
        assert!(error.kind() == ErrorKind::Target && !ends_run(&error), "{error}");
    }
    assert_eq!(root.remove_others(&[]).unwrap() as usize, keep.len() + 2, "the symlink itself and the directory moved away too");
    assert_eq!((fs::read(outside.path().join("canary")).unwrap(), ctime(outside.path())), (b"canary".to_vec(), before));
}

#[test]
fn others_are_removed_and_what_they_point_to_is_not() {
    let dir = tempdir().unwrap();
    let outside = tempdir().unwrap();
    fs::write(outside.path().join("canary"), "canary").unwrap();
    fs::create_dir_all(dir.path().join("old/deep/deeper")).unwrap();
    symlink(outside.path(), dir.path().join("old/deep/link")).unwrap();
    fs::write(dir.path().join("old/deep/deeper/f"), "x").unwrap();
    fs::write(dir.path().join("keep"), "x").unwrap();
    fs::write(dir.path().join("other"), "x").unwrap();
    fs::set_permissions(dir.path().join("old/deep"), fs::Permissions::from_mode(0o000)).unwrap();
    let target = open(dir.path());
    let root = target.begin(&dir_node("")).unwrap();
    let removed = root.remove_others(&[name("absent"), name("keep")]).unwrap();
    assert_eq!((removed, target.shortfalls()), (6, vec![]));
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(outside.path().join("canary").exists());
}

#[test]
fn a_swap_in_flight_reaches_nothing_outside() {
    // A container exchanges a directory and a symlink to a place outside, all the time, while the restore runs.
    let dir = tempdir().unwrap();
    let outside = tempdir().unwrap();
    for called in ["file", "fifo", "link"] {
        fs::write(outside.path().join(called), "canary").unwrap();
    }
    let facts = || ["", "file", "fifo", "link"].map(|called| ctime(&outside.path().join(called)));
    let before = facts();
    fs::create_dir(dir.path().join("sub")).unwrap();
    symlink(outside.path(), dir.path().join("swap")).unwrap();
    let handle = fs::File::open(dir.path()).unwrap();
    let end = std::time::Instant::now() + std::time::Duration::from_millis(300);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while std::time::Instant::now() < end {
                let _ = rustix::fs::renameat_with(&handle, "sub", &handle, "swap", rustix::fs::RenameFlags::EXCHANGE);
            }
        });
        let target = open_with(dir.path(), Some(4));
        let root = target.begin(&dir_node("")).unwrap();
        let content = MemoryContent::of(b"restored");
        while std::time::Instant::now() < end {
            let Ok(sub) = root.directory(&dir_node("sub")) else { continue };
            // Pushes handles out, so that they are opened again.
            let others: Vec<_> = (0..6).map(|i| root.directory(&dir_node(format!("d{i}")))).collect();
            let _ = sub.file(&linked(file_node("file", &content), 1), &xattrs(&[("user.x", b"1")]), &content);
            let _ = sub.special(&node("fifo", NodeKind::Fifo), &no_xattrs());
            let _ = root.link(&linked(file_node("name", &content), 1), &TreePath::parse(b"sub/file").unwrap());
            let _ = sub.link(&linked(file_node("link", &content), 1), &TreePath::parse(b"sub/file").unwrap());
            let _ = sub.remove_others(&[]);
            let _ = sub.close(&dir_node("sub"), &no_xattrs());
            drop(others);
            if !dir.path().join("swap").exists() {
                let _ = symlink(outside.path(), dir.path().join("swap"));
            }
        }
        let _ = target.finish();
    });
    assert_eq!(facts(), before);
    assert_eq!(fs::read(outside.path().join("file")).unwrap(), b"canary");
}

#[test]
fn what_is_mounted_in_the_way_is_not_emptied() {
    struct Mount(std::path::PathBuf);
    impl Drop for Mount {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(&self.0).status();
        }
    }
    let dir = tempdir().unwrap();
    let other = tempdir().unwrap();
    fs::write(other.path().join("canary"), "canary").unwrap();
    let at = dir.path().join("way/mounted");
    fs::create_dir_all(&at).unwrap();
    // The same file system, so that only the mount itself tells.
    let mounted = std::process::Command::new("mount").arg("--bind").arg(other.path()).arg(&at).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        return;
    }
    let mount = Mount(at);
    let target = open(dir.path());
    let root = target.begin(&dir_node("")).unwrap();
    let content = MemoryContent::of(b"x");
    let error = root.file(&file_node("way", &content), &no_xattrs(), &content).unwrap_err();
    assert!(error.to_string().contains("mounted") && error.subject() == Some("way/mounted"), "{error}");
    assert_eq!((root.remove_others(&[]).unwrap(), target.shortfalls().len()), (0, 1));
    drop(mount);
    assert_eq!(fs::read(other.path().join("canary")).unwrap(), b"canary");
}

/// Runs in a thread of its own as an ordinary user: Linux keeps credentials by thread.
fn as_nobody(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            rustix::thread::set_thread_groups(&[]).unwrap();
            set_thread_gid(Gid::from_raw(65534)).unwrap();
            set_thread_uid(Uid::from_raw(65534)).unwrap();
            work();
        });
    });
}

#[test]
fn an_ordinary_user_gets_what_can_be_had_and_is_told_the_rest() {
    if !is_root() {
        return;
    }
    let outer = tempdir().unwrap();
    fs::set_permissions(outer.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let dir = outer.path().join("restored");
    as_nobody(|| {
        for round in 0..2 {
            let target = open(&dir);
            let root = target.begin(&dir_node("")).unwrap();
            let content = MemoryContent::of(b"content");
            let mut mine = file_node("mine", &content);
            (mine.meta.mode, mine.meta.uid, mine.meta.gid) = (0o400, 65534, 65534);
            root.file(&mine, &xattrs(&[("user.x", b"1")]), &content).unwrap();
            let mut theirs = file_node("theirs", &content);
            theirs.meta.mode = 0o4755;
            root.file(&theirs, &xattrs(&[("security.capability", CAPABILITY), ("trusted.t", b"1")]), &content).unwrap();
            root.special(&node("zero", NodeKind::CharDevice { major: 1, minor: 5 }), &no_xattrs()).unwrap();
            let mut closed = dir_node("closed");
            (closed.meta.mode, closed.meta.uid, closed.meta.gid) = (0o000, 65534, 65534);
            let sub = root.directory(&closed).unwrap();
            let mut inner = mine.clone();
            inner.name = Some(name("inner"));
            sub.file(&inner, &no_xattrs(), &content).unwrap();
            sub.close(&closed, &no_xattrs()).unwrap();
            let mut root_node = closed.clone();
            (root_node.name, root_node.meta.mode) = (None, 0o500);
            root.close(&root_node, &no_xattrs()).unwrap();
            target.finish().unwrap();

            let told: Vec<_> = target.shortfalls().into_iter().map(|shortfall| (shortfall.path.to_string(), shortfall.message)).collect();
            assert_eq!(told.len(), 2, "{round}: {told:?}");
            for part in ["owner 0:0", "setuid", "security.capability", "trusted.t"] {
                assert!(told[0].0 == "theirs" && told[0].1.contains(part), "{round}: {told:?}");
            }
            assert!(told[1].0 == "zero" && told[1].1.contains("root"), "{told:?}");
        }
    });
    let mode = |name: &str| fs::metadata(dir.join(name)).unwrap().mode() & 0o7777;
    assert_eq!([mode("mine"), mode("theirs"), mode("closed"), mode("closed/inner"), mode("")], [0o400, 0o755, 0, 0o400, 0o500]);
    assert_eq!(xattrs_of(&dir.join("mine")), xattrs(&[("user.x", b"1")]));
    assert!(!dir.join(".icecore-incomplete").exists());
}

#[test]
fn errors_of_one_entry_do_not_end_the_run() {
    let dir = tempdir().unwrap();
    let target = open(dir.path());
    let root = target.begin(&dir_node("")).unwrap();
    let content = MemoryContent::new().hole(1 << 60);
    let error = root.file(&file_node("huge", &content), &no_xattrs(), &content).unwrap_err();
    assert!(error.kind() == ErrorKind::Target && !ends_run(&error) && error.subject() == Some("huge"), "{error}");
    assert!(!dir.path().join("huge").exists());
    let small = MemoryContent::of(b"x");
    root.file(&file_node("file", &small), &xattrs(&[("user.large", &[7; 60_000])]), &small).unwrap();
    let message = &target.shortfalls()[0].message;
    assert!(message.contains("user.large") && !message.contains("No space"), "{message}");
}
