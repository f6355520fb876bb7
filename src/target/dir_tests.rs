//! What a fresh restore leaves: every kind of entry with all of its metadata, links, depth, holes, the mark.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::tempdir;

use super::dir::{DirTarget, DirTargetOptions};
use super::testing::{
    ACL, CAPABILITY, MemoryContent, dir_node, file_node, is_root, linked, name, no_xattrs, node, open, open_with, xattrs, xattrs_of,
};
use super::{Target, TargetDir};
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::model::{Node, NodeKind, SnapshotId, TreePath};

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn with(mut node: Node, change: impl FnOnce(&mut Node)) -> Node {
    change(&mut node);
    node
}

fn owned(node: Node, mode: u16, uid: u32, gid: u32) -> Node {
    with(node, |node| (node.meta.mode, node.meta.uid, node.meta.gid) = (mode, uid, gid))
}

fn symlink(called: &str, target: &[u8]) -> Node {
    owned(node(called, NodeKind::Symlink(target.to_vec())), 0o777, 5, 6)
}

#[test]
fn every_kind_comes_with_all_of_its_metadata() {
    if !is_root() {
        return;
    }
    let dir = tempdir().unwrap();
    let target = open(dir.path());
    let root_node = owned(dir_node(""), 0o1770, 42, 43);
    let root = target.begin(&root_node).unwrap();
    let program = MemoryContent::of(b"#!/bin/sh\n");
    let caps = xattrs(&[("security.capability", CAPABILITY), ("user.note", b"\0binary\xff"), ("trusted.t", b"1")]);
    root.file(&owned(file_node("setuid", &program), 0o6755, 999, 998), &caps, &program).unwrap();
    let secret = MemoryContent::of(b"secret");
    root.file(&owned(file_node("acl", &secret), 0o640, 0, 0), &xattrs(&[("system.posix_acl_access", ACL)]), &secret).unwrap();
    root.file(&owned(file_node("read-only", &secret), 0o400, 4_294_967_294, 65_534), &xattrs(&[("user.x", b"y")]), &secret).unwrap();
    let empty = MemoryContent::new();
    root.file(&file_node("empty", &empty), &no_xattrs(), &empty).unwrap();
    root.special(&symlink("link", b"/proc/self/root"), &xattrs(&[("trusted.l", b"2")])).unwrap();
    root.special(&owned(node("fifo", NodeKind::Fifo), 0o620, 7, 8), &no_xattrs()).unwrap();
    root.special(&owned(node("socket", NodeKind::Socket), 0o755, 7, 8), &xattrs(&[("trusted.s", b"3")])).unwrap();
    root.special(&owned(node("null", NodeKind::CharDevice { major: 1, minor: 3 }), 0o666, 0, 5), &no_xattrs()).unwrap();
    root.special(&node("whiteout", NodeKind::CharDevice { major: 0, minor: 0 }), &no_xattrs()).unwrap();
    root.special(&owned(node("disk", NodeKind::BlockDevice { major: 4000, minor: 1_000_000 }), 0o660, 0, 6), &no_xattrs()).unwrap();
    let sub_node = owned(dir_node("sub\n\u{ff}"), 0o2000, 5, 6);
    let sub = root.directory(&sub_node).unwrap();
    sub.file(&file_node("inner", &secret), &no_xattrs(), &secret).unwrap();
    sub.close(&sub_node, &xattrs(&[("user.dir", b"d")])).unwrap();
    root.close(&root_node, &xattrs(&[("user.root", b"r")])).unwrap();
    target.finish().unwrap();
    assert_eq!(target.shortfalls(), []);

    let at = |name: &str| dir.path().join(name);
    let facts = |name: &str| {
        let meta = fs::symlink_metadata(at(name)).unwrap();
        (meta.permissions().mode() & 0o7777, meta.uid(), meta.gid())
    };
    assert_eq!(facts("setuid"), (0o6755, 999, 998));
    let mut expected = caps.clone();
    expected.sort();
    assert_eq!(xattrs_of(&at("setuid")), expected);
    assert_eq!((facts("acl"), xattrs_of(&at("acl"))), ((0o640, 0, 0), xattrs(&[("system.posix_acl_access", ACL)])));
    assert_eq!((facts("read-only"), xattrs_of(&at("read-only"))), ((0o400, 4_294_967_294, 65_534), xattrs(&[("user.x", b"y")])));
    assert_eq!(fs::metadata(at("empty")).unwrap().len(), 0);
    assert_eq!((fs::read_link(at("link")).unwrap(), facts("link")), (PathBuf::from("/proc/self/root"), (0o777, 5, 6)));
    assert_eq!(xattrs_of(&at("link")), xattrs(&[("trusted.l", b"2")]));
    assert_eq!((facts("fifo"), facts("socket")), ((0o620, 7, 8), (0o755, 7, 8)));
    assert_eq!(xattrs_of(&at("socket")), xattrs(&[("trusted.s", b"3")]));
    let kind = |name: &str| fs::symlink_metadata(at(name)).unwrap().file_type();
    assert!(kind("fifo").is_fifo() && kind("socket").is_socket() && kind("null").is_char_device() && kind("disk").is_block_device());
    assert_eq!(facts("null"), (0o666, 0, 5));
    assert_eq!(fs::symlink_metadata(at("null")).unwrap().rdev(), rustix::fs::makedev(1, 3));
    assert_eq!(fs::symlink_metadata(at("whiteout")).unwrap().rdev(), 0);
    assert_eq!(fs::symlink_metadata(at("disk")).unwrap().rdev(), rustix::fs::makedev(4000, 1_000_000));
    assert_eq!((facts("sub\n\u{ff}"), xattrs_of(&at("sub\n\u{ff}"))), ((0o2000, 5, 6), xattrs(&[("user.dir", b"d")])));
    assert_eq!((facts(""), xattrs_of(dir.path())), ((0o1770, 42, 43), xattrs(&[("user.root", b"r")])));
    for entry in fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).chain([dir.path().to_path_buf()]) {
        let meta = fs::symlink_metadata(&entry).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_600_000_000, 123_456_789), "{entry:?}");
    }
}

#[test]
fn times_of_all_centuries_are_set_or_told() {
    let dir = tempdir().unwrap();
    let target = open(dir.path());
    let root = target.begin(&dir_node("")).unwrap();
    let content = MemoryContent::of(b"x");
    for (called, seconds, nanos) in [("epoch", 0, 0), ("before", -1, 999_999_999), ("9999", 253_402_300_799, 0)] {
        let node = with(file_node(called, &content), |node| node.meta.mtime = Timestamp::new(seconds, nanos));
        root.file(&node, &no_xattrs(), &content).unwrap();
        let meta = fs::metadata(dir.path().join(called)).unwrap();
        let told = target.shortfalls().iter().any(|shortfall| shortfall.path == path(called));
        assert_eq!((meta.mtime(), meta.mtime_nsec()) != (seconds, i64::from(nanos)), told, "{called}");
    }
    assert!(target.shortfalls().len() <= 1);
}

#[test]
fn names_of_one_file_are_one_inode() {
    let dir = tempdir().unwrap();
    let target = open(dir.path());
    let root = target.begin(&dir_node("")).unwrap();
    let content = MemoryContent::of(b"shared");
    let sub = root.directory(&dir_node("sub")).unwrap();
    sub.file(&linked(file_node("first", &content), 1), &no_xattrs(), &content).unwrap();
    root.link(&linked(file_node("second", &content), 1), &path("sub/first")).unwrap();
    // The link is there already.
    root.link(&linked(file_node("second", &content), 1), &path("sub/first")).unwrap();
    // Something else is in its place.
    fs::create_dir_all(dir.path().join("third/full")).unwrap();
    root.link(&linked(file_node("third", &content), 1), &path("sub/first")).unwrap();
    root.special(&linked(symlink("sym", b"sub"), 2), &no_xattrs()).unwrap();
    root.link(&linked(symlink("sym2", b"sub"), 2), &path("sym")).unwrap();
    let inode = |name: &str| fs::symlink_metadata(dir.path().join(name)).unwrap().ino();
    assert_eq!([inode("second"), inode("third")], [inode("sub/first"); 2]);
    assert_eq!(inode("sym"), inode("sym2"));
    assert_eq!(fs::read(dir.path().join("third")).unwrap(), b"shared");
}

#[test]
fn a_link_leads_only_to_what_this_restore_placed() {
    let dir = tempdir().unwrap();
    let outside = tempdir().unwrap();
    fs::write(outside.path().join("canary"), "canary").unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("out")).unwrap();
    fs::write(dir.path().join("old"), "old").unwrap();
    let target = open(dir.path());
    let root = target.begin(&dir_node("")).unwrap();
    let content = MemoryContent::of(b"x");
    root.file(&file_node("alone", &content), &no_xattrs(), &content).unwrap();
    for first in ["out/canary", "old", "missing", "missing/too", "alone", ""] {
        let error = root.link(&linked(file_node("new", &content), 1), &path(first)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Target | ErrorKind::Damaged), "{first}: {error}");
    }
    assert!(!dir.path().join("new").exists());
    assert_eq!(fs::metadata(outside.path().join("canary")).unwrap().nlink(), 1);
}

#[test]
fn a_deep_tree_needs_few_open_files_and_no_stack() {
    const DEPTH: usize = 2_000;
    let dir = tempdir().unwrap();
    let target = open_with(dir.path(), Some(64));
    let content = MemoryContent::of(b"deep");
    let level = owned(dir_node("a-directory"), 0o750, 0, 0);
    let mut levels: Vec<Arc<dyn TargetDir>> = vec![target.begin(&dir_node("")).unwrap()];
    for _ in 0..DEPTH {
        let below = levels.last().unwrap().directory(&level).unwrap();
        levels.push(below);
        assert!(target.open_now() <= 64);
    }
    for open in levels.iter().rev() {
        open.file(&file_node("file", &content), &no_xattrs(), &content).unwrap();
        open.close(&level, &no_xattrs()).unwrap();
        assert!(target.open_now() <= 64);
    }
    let deepest = levels.pop().unwrap();
    drop(levels);
    drop(deepest);
    target.finish().unwrap();
    // What the standard library can't reach by path is looked at from one handle to the next.
    let mut fd = fs::File::open(dir.path()).unwrap();
    for depth in 0..=DEPTH {
        let stat = rustix::fs::statat(&fd, "file", rustix::fs::AtFlags::empty()).unwrap();
        assert_eq!((stat.st_size, rustix::fs::fstat(&fd).unwrap().st_mtime), (4, 1_600_000_000), "{depth}");
        if depth < DEPTH {
            fd = rustix::fs::openat(&fd, "a-directory", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap().into();
        }
    }
    // The same depth in the way of a file is removed.
    let again = open_with(dir.path(), Some(64));
    let root = again.begin(&dir_node("")).unwrap();
    assert_eq!(root.remove_others(&[name("file")]).unwrap(), 2 * DEPTH as u64);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "the file and the mark");
}

#[test]
fn directories_that_were_swapped_while_closed_are_refused() {
    let dir = tempdir().unwrap();
    let target = open_with(dir.path(), Some(4));
    let root = target.begin(&dir_node("")).unwrap();
    let first = root.directory(&dir_node("first")).unwrap();
    let others: Vec<_> = (0..20).map(|i| root.directory(&dir_node(format!("d{i}"))).unwrap()).collect();
    fs::rename(dir.path().join("first"), dir.path().join("moved")).unwrap();
    fs::create_dir(dir.path().join("first")).unwrap();
    let content = MemoryContent::of(b"x");
    let error = first.file(&file_node("file", &content), &no_xattrs(), &content).unwrap_err();
    assert!(error.to_string().contains("replaced during the restore: first"), "{error}");
    assert_eq!(others.len(), 20);
}

#[test]
fn a_tebibyte_of_hole_takes_no_space() {
    let dir = tempdir().unwrap();
    let target = open(dir.path());
    let root = target.begin(&dir_node("")).unwrap();
    let content = MemoryContent::new().hole(4096).data(b"one").hole((1 << 40) - 4099).data(b"end").hole(1 << 20);
    let placed = root.file(&file_node("sparse", &content), &no_xattrs(), &content).unwrap();
    assert_eq!(placed.written_bytes, 6);
    let meta = fs::metadata(dir.path().join("sparse")).unwrap();
    assert_eq!(meta.len(), (1 << 40) + 3 + (1 << 20));
    assert!(meta.blocks() < 64, "{}", meta.blocks());
    let again = root.file(&file_node("sparse", &content), &no_xattrs(), &content).unwrap();
    assert_eq!((again.written_bytes, again.kept_bytes), (0, 6));
}

#[test]
fn many_small_pieces_come_out_whole() {
    let dir = tempdir().unwrap();
    let target = open(dir.path());
    let root = target.begin(&dir_node("")).unwrap();
    let dice = super::testing::Dice::new(1);
    let content = (0..60).fold(MemoryContent::new(), |content, i| {
        let content = content.data(&dice.bytes(20_000 + i * 1000));
        if i % 7 == 3 { content.hole(5000) } else { content }
    });
    let content = content.data(&dice.bytes(3 << 20)).data(b"tail");
    root.file(&file_node("file", &content), &no_xattrs(), &content).unwrap();
    assert!(fs::read(dir.path().join("file")).unwrap() == content.bytes());
}

#[test]
fn the_mark_stands_until_the_restore_is_finished() {
    let outer = tempdir().unwrap();
    let dir = outer.path().join("made/with/parents");
    let mark = dir.join(".icecore-incomplete");
    {
        let target = open(&dir);
        assert_eq!(fs::read_to_string(&mark).unwrap(), format!("{}\n", SnapshotId([7; 32])));
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o7777, 0o700);
        target.begin(&dir_node("")).unwrap();
    }
    assert!(mark.exists(), "the restore was given up");
    fs::write(dir.join(".icecore-tmp-0123456789abcdef"), "left by a crash").unwrap();
    fs::write(dir.join(".icecore-tmp-mine"), "the user's").unwrap();

    let target =
        DirTarget::create(&dir, DirTargetOptions { snapshot: SnapshotId([8; 32]), open_dirs_max: None, reflink_from: None }).unwrap();
    assert_eq!(fs::read_to_string(&mark).unwrap(), format!("{}\n", SnapshotId([8; 32])));
    let root = target.begin(&dir_node("")).unwrap();
    assert!(!dir.join(".icecore-tmp-0123456789abcdef").exists());
    assert!(dir.join(".icecore-tmp-mine").exists());
    // A snapshot of an unfinished restore has such a file itself.
    let content = MemoryContent::of(b"other");
    root.file(&file_node(".icecore-incomplete", &content), &no_xattrs(), &content).unwrap();
    assert_eq!(target.shortfalls().len(), 1);
    assert!(root.directory(&dir_node(".icecore-incomplete")).is_err());
    let sub = root.directory(&dir_node("sub")).unwrap();
    sub.file(&file_node(".icecore-incomplete", &content), &no_xattrs(), &content).unwrap();
    assert_eq!(target.shortfalls().len(), 1, "below the root the name means nothing");
    assert_eq!(root.remove_others(&[name("sub")]).unwrap(), 1);
    root.close(&owned(dir_node(""), 0o755, 0, 0), &no_xattrs()).unwrap();
    assert!(fs::read_to_string(&mark).unwrap().starts_with("0808"));
    target.finish().unwrap();
    assert!(!mark.exists());
    let meta = fs::metadata(&dir).unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_600_000_000, 123_456_789));
}

#[test]
fn a_mark_is_never_written_through() {
    let dir = tempdir().unwrap();
    let canary = tempdir().unwrap().path().join("canary");
    fs::create_dir_all(canary.parent().unwrap()).unwrap();
    fs::write(&canary, "canary").unwrap();
    std::os::unix::fs::symlink(&canary, dir.path().join(".icecore-incomplete")).unwrap();
    open(dir.path());
    assert_eq!(fs::read(&canary).unwrap(), b"canary");
    assert!(fs::symlink_metadata(dir.path().join(".icecore-incomplete")).unwrap().is_file());
    fs::remove_dir_all(canary.parent().unwrap()).unwrap();
}

#[test]
fn a_file_that_fails_leaves_nothing_behind() {
    let dir = tempdir().unwrap();
    let target = open(dir.path());
    let root = target.begin(&dir_node("")).unwrap();
    let content = MemoryContent::new().data(&[1; 2 << 20]).data(&[2; 100]).failing_at(1);
    assert_eq!(root.file(&file_node("file", &content), &no_xattrs(), &content).unwrap_err().kind(), ErrorKind::Damaged);
    assert!(!dir.path().join("file").exists());
    let short = MemoryContent::of(b"abc");
    let lying = with(file_node("lying", &short), |node| node.kind = file_node("x", &content).kind);
    assert_eq!(root.file(&lying, &no_xattrs(), &short).unwrap_err().kind(), ErrorKind::Damaged);
    assert_eq!(
        root.special(&node("dev", NodeKind::CharDevice { major: 1 << 20, minor: 0 }), &no_xattrs()).unwrap_err().kind(),
        ErrorKind::Damaged
    );
}

#[test]
fn what_the_parent_hands_down_does_not_stick() {
    if !is_root() {
        return;
    }
    let dir = tempdir().unwrap();
    rustix::fs::setxattr(dir.path(), "system.posix_acl_default", ACL, rustix::fs::XattrFlags::empty()).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o2777)).unwrap();
    rustix::fs::chown(dir.path(), None, Some(rustix::fs::Gid::from_raw(77))).unwrap();
    let target = open(dir.path());
    let root = target.begin(&dir_node("")).unwrap();
    let content = MemoryContent::of(b"x");
    let sub = root.directory(&dir_node("sub")).unwrap();
    for (open, called) in [(&root, "file"), (&sub, "inner")] {
        open.file(&file_node(called, &content), &no_xattrs(), &content).unwrap();
        open.special(&node(format!("{called}-fifo"), NodeKind::Fifo), &no_xattrs()).unwrap();
    }
    sub.close(&dir_node("sub"), &no_xattrs()).unwrap();
    let keep = xattrs(&[("system.posix_acl_default", ACL)]);
    root.close(&owned(dir_node(""), 0o2777, 0, 77), &keep).unwrap();
    for called in ["file", "file-fifo", "sub/inner", "sub/inner-fifo"] {
        let meta = fs::metadata(dir.path().join(called)).unwrap();
        assert_eq!((meta.permissions().mode() & 0o7777, meta.gid()), (0o644, 0), "{called}");
        assert_eq!(xattrs_of(&dir.path().join(called)), no_xattrs(), "{called}");
    }
    assert_eq!(fs::metadata(dir.path().join("sub")).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!((xattrs_of(&dir.path().join("sub")), xattrs_of(dir.path())), (no_xattrs(), keep));
    assert_eq!(target.shortfalls(), []);
}

#[test]
fn threads_share_a_target() {
    let dir = tempdir().unwrap();
    let target = open_with(dir.path(), Some(4));
    let root = target.begin(&dir_node("")).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let root = Arc::clone(&root);
            scope.spawn(move || {
                let mut dirs = vec![root];
                for level in 0..12 {
                    let below = dirs.last().unwrap().directory(&dir_node(format!("t{thread}-{level}"))).unwrap();
                    dirs.push(below);
                }
                for (i, open) in dirs.iter().cycle().take(500).enumerate() {
                    let content = MemoryContent::of(format!("{thread} {i}").as_bytes());
                    open.file(&file_node(format!("f{thread}-{i}"), &content), &no_xattrs(), &content).unwrap();
                }
            });
        }
    });
    fn count(dir: &Path) -> usize {
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        entries.map(|entry| if entry.file_type().unwrap().is_dir() { count(&entry.path()) } else { 1 }).sum()
    }
    assert_eq!(count(dir.path()), 4 * 500 + 1);
}
