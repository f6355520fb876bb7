//! The hostile volume: everything that a container can leave in a folder goes through the real program and comes back, or
//! what is missing is said by name. Two judges: rsync, and a comparison of our own for what rsync cannot tell.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, SeekFrom, Timespec, Timestamps, XattrFlags, lgetxattr, linkat, llistxattr, lsetxattr, makedev,
    mkdirat, mknodat, openat, seek, utimensat,
};

use crate::program::{Mounted, NOBODY, Sandbox, assert_same_tree, files_below, is_root, noise, run, set_mode};

const DEEP: usize = 2000;
const TEBIBYTE: u64 = 1 << 40;

fn cwd() -> rustix::fd::BorrowedFd<'static> {
    rustix::fs::CWD
}

fn at(dir: &Path, name: &[u8]) -> PathBuf {
    dir.join(OsStr::from_bytes(name))
}

fn node(path: &Path, kind: FileType, major: u32, minor: u32) {
    mknodat(cwd(), path, kind, Mode::from_raw_mode(0o640), makedev(major, minor)).unwrap();
}

fn xattr(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::empty()).unwrap_or_else(|error| panic!("{name} on {}: {error}", path.display()));
}

fn modified(path: &Path, seconds: i64, nanos: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos as _ };
    utimensat(cwd(), path, &Timestamps { last_access: time, last_modification: time }, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// An ACL as the kernel stores it: version 2, then tag, permissions and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend_from_slice(&tag.to_le_bytes());
        bytes.extend_from_slice(&permissions.to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
    }
    bytes
}

fn named_user_acl() -> Vec<u8> {
    acl(&[(1, 6, u32::MAX), (2, 4, 1234), (4, 4, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)])
}

fn build_names(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let mut names: Vec<Vec<u8>> = (1..=255u8).filter(|byte| *byte != b'/' && *byte != b'.').map(|byte| vec![byte]).collect();
    names.extend(
        [
            &b"\xff\xfe\x80"[..],
            b"\xed\xa0\x80",
            b"line\nbreak\r\ttab",
            b"\x1b[31mred\x1b]0;title\x07",
            b"-rf",
            b"--delete",
            b" leading",
            b"trailing ",
            b"...",
            b"..a",
            b".hidden",
            b"CON",
            b"a:b",
            b"back\\slash",
            b"quote\"'`$(x)",
            b"\xe2\x80\x8b",
            b"\xe2\x80\xaertl",
            b"Case",
            b"case",
            b"\xc3\xa9",
            b"e\xcc\x81",
            b".icecore-unfinished",
            b".icecore",
            b".icecore-tmp-0123456789abcdef",
            b".nfs0000000000000001",
            b"lost+found",
            b"%s%n",
            b"*",
            b"?",
        ]
        .map(<[u8]>::to_vec),
    );
    names.extend([vec![b'x'; 255], vec![0xff; 255], "ü".repeat(127).into_bytes()]);
    for name in &names {
        fs::write(at(dir, name), name).unwrap();
    }
    fs::create_dir(at(dir, b"dir\xff\n")).unwrap();
    fs::write(at(&at(dir, b"dir\xff\n"), b"\xfe"), b"below").unwrap();
}

fn build_content(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let sizes = [0, 1, 511, 512, 513, 4095, 4096, 4097, 16383, 16384, 16385, 65536, (256 << 10) - 1, 256 << 10, (256 << 10) + 1, 3 << 20];
    for size in sizes {
        fs::write(dir.join(format!("noise{size}")), noise(size, size as u64)).unwrap();
        fs::write(dir.join(format!("zeros{size}")), vec![0; size]).unwrap();
    }
    for copy in 0..20 {
        fs::write(dir.join(format!("copy{copy}")), noise(70_000, 7)).unwrap();
    }
    fs::write(dir.join("compressible"), b"all work and no play ".repeat(100_000)).unwrap();
}

fn build_sparse(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let sparse = |name: &str, len: u64, pieces: &[(u64, usize)]| {
        let file = File::create(dir.join(name)).unwrap();
        for (offset, len) in pieces {
            file.write_all_at(&noise(*len, *offset), *offset).unwrap();
        }
        file.set_len(len).unwrap();
        file.sync_all().unwrap();
    };
    sparse("a tebibyte and a byte at its end", TEBIBYTE, &[(TEBIBYTE - 1, 1)]);
    sparse("only hole", 1 << 30, &[]);
    sparse("hole at the start", (1 << 20) + 5000, &[(1 << 20, 5000)]);
    sparse("hole at the end", 10 << 20, &[(0, 5000)]);
    sparse("hole of one block", 12 << 10, &[(0, 4096), (8 << 10, 4096)]);
    sparse("odd places", 5_000_001, &[(4096, 1), (100_000, 70_000), (1_000_003, 12_345), (5_000_000, 1)]);
    sparse("many holes", 8 << 20, &(0..256).map(|n| ((n * 32) << 10, 4096)).collect::<Vec<_>>());
    sparse("hole that ends within a block", 10_001, &[]);
}

fn build_links(dir: &Path) {
    for name in ["", "one", "two"] {
        fs::create_dir(dir.join(name)).unwrap();
    }
    let link = |from: &str, to: &str| linkat(cwd(), dir.join(from), cwd(), dir.join(to), AtFlags::empty()).unwrap();
    fs::write(dir.join("one/file"), noise(100_000, 9)).unwrap();
    link("one/file", "one/again");
    link("one/file", "two/far");
    fs::write(dir.join("one/small"), b"inline").unwrap();
    link("one/small", "two/small");
    symlink("one/file", dir.join("one/symlink")).unwrap();
    link("one/symlink", "two/symlink");
    node(&dir.join("one/fifo"), FileType::Fifo, 0, 0);
    link("one/fifo", "two/fifo");
    node(&dir.join("one/device"), FileType::CharacterDevice, 1, 3);
    link("one/device", "two/device");
    for number in 0..300 {
        link("one/small", &format!("two/many{number}"));
    }
}

fn build_kinds(dir: &Path) {
    fs::create_dir(dir).unwrap();
    node(&dir.join("fifo"), FileType::Fifo, 0, 0);
    node(&dir.join("null"), FileType::CharacterDevice, 1, 3);
    node(&dir.join("whiteout"), FileType::CharacterDevice, 0, 0);
    node(&dir.join("large numbers"), FileType::CharacterDevice, 4095, 1_048_575);
    node(&dir.join("block"), FileType::BlockDevice, 7, 200);
    // A bound socket; its path must fit in 108 bytes, wherever the folder is.
    let bound = tempfile::tempdir_in(dir.parent().unwrap()).unwrap();
    UnixListener::bind(bound.path().join("s")).unwrap();
    fs::rename(bound.path().join("s"), dir.join("socket")).unwrap();
    let targets: [&[u8]; 9] =
        [b"/etc/passwd", b"../../../../../../etc/shadow", b"self", b"absent", b"/proc/self/root", b".", b"/", b"\xff\n\x1b", b" "];
    for (number, target) in targets.into_iter().enumerate() {
        symlink(OsStr::from_bytes(target), dir.join(format!("link{number}"))).unwrap();
    }
    symlink("self", dir.join("self")).unwrap();
    symlink(OsStr::from_bytes(&[b'y'; 4095]), dir.join("long link")).unwrap();
    fs::create_dir_all(dir.join("empty/empty/empty")).unwrap();
    let closed = dir.join("closed");
    fs::create_dir(&closed).unwrap();
    fs::write(closed.join("inside"), b"x").unwrap();
    set_mode(&closed, 0);
}

fn build_metadata(dir: &Path) {
    fs::create_dir(dir).unwrap();
    for mode in [0, 0o777, 0o4755, 0o2755, 0o1777, 0o7777, 0o4000, 0o200] {
        fs::write(dir.join(format!("mode{mode:o}")), b"x").unwrap();
        set_mode(&dir.join(format!("mode{mode:o}")), mode);
        fs::create_dir(dir.join(format!("dir{mode:o}"))).unwrap();
        set_mode(&dir.join(format!("dir{mode:o}")), mode);
    }
    for (name, uid, gid) in [("highest", u32::MAX - 1, u32::MAX - 1), ("nobody", NOBODY, NOBODY), ("mixed", 999, 0), ("postgres", 70, 70)] {
        fs::write(dir.join(name), b"x").unwrap();
        chown(dir.join(name), Some(uid), Some(gid)).unwrap();
        symlink("x", dir.join(format!("link-{name}"))).unwrap();
        std::os::unix::fs::lchown(dir.join(format!("link-{name}")), Some(uid), Some(gid)).unwrap();
    }
    // The owner of a setuid file is set before its mode, or the bit is lost.
    fs::write(dir.join("setuid of another"), b"x").unwrap();
    chown(dir.join("setuid of another"), Some(1000), Some(1000)).unwrap();
    set_mode(&dir.join("setuid of another"), 0o6755);

    let with = |name: &str, attributes: &[(&str, Vec<u8>)]| {
        let path = dir.join(name);
        fs::write(&path, b"x").unwrap();
        attributes.iter().for_each(|(attribute, value)| xattr(&path, attribute, value));
    };
    with("xattrs", &[("user.a", b"1".to_vec()), ("user.b", b"\0\xff\n".to_vec()), ("user.empty", vec![]), ("trusted.t", b"2".to_vec())]);
    with("long name", &[(&format!("user.{}", "n".repeat(250)), b"v".to_vec())]);
    with("big xattr", &[("user.big", noise(3000, 5))]);
    with("several big", &(0..3).map(|n| (["user.p", "user.q", "user.r"][n], noise(900, n as u64))).collect::<Vec<_>>());
    // cap_net_bind_service=ep, as version 2 of the attribute has it.
    let capability = [0x0200_0001u32, 1 << 10, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    with("capability", &[("security.capability", capability.clone())]);
    fs::write(dir.join("capability of another"), b"x").unwrap();
    chown(dir.join("capability of another"), Some(1000), Some(1000)).unwrap();
    xattr(&dir.join("capability of another"), "security.capability", &capability);
    with("acl", &[("system.posix_acl_access", named_user_acl())]);
    fs::create_dir(dir.join("default acl")).unwrap();
    xattr(&dir.join("default acl"), "system.posix_acl_default", &named_user_acl());
    fs::write(dir.join("default acl/inherits"), b"x").unwrap();
    fs::write(dir.join("default acl/does not"), b"x").unwrap();
    lgone(&dir.join("default acl/does not"), "system.posix_acl_access");
    xattr(dir, "user.on-a-directory", b"yes");

    let times = [("epoch", 0, 0), ("negative", -1, 999_999_999), ("long ago", -2_000_000_000, 1), ("nanos", 1_700_000_000, 123_456_789)];
    // 2446 is the last year that ext4 can tell.
    for (name, seconds, nanos) in times.into_iter().chain([("future", 15_000_000_000, 7)]) {
        fs::write(dir.join(name), b"x").unwrap();
        modified(&dir.join(name), seconds, nanos);
        symlink("x", dir.join(format!("link {name}"))).unwrap();
        modified(&dir.join(format!("link {name}")), seconds, nanos);
        fs::create_dir(dir.join(format!("dir {name}"))).unwrap();
        fs::write(dir.join(format!("dir {name}/x")), b"x").unwrap();
        modified(&dir.join(format!("dir {name}")), seconds, nanos);
    }
}

fn lgone(path: &Path, name: &str) {
    let _ = rustix::fs::lremovexattr(path, name);
}

/// A chain of directories whose paths no system call takes whole.
fn build_deep(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let mut here: OwnedFd = File::open(dir).unwrap().into();
    for level in 0..DEEP {
        let name = CString::new(format!("d{level}")).unwrap();
        mkdirat(&here, &name, Mode::from_raw_mode(0o755)).unwrap();
        here = openat(&here, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let file = openat(&here, c"bottom", OFlags::WRONLY | OFlags::CREATE, Mode::from_raw_mode(0o644)).unwrap();
    rustix::io::write(&file, b"found").unwrap();
}

fn build_root(dir: &Path) {
    chown(dir, Some(999), Some(998)).unwrap();
    set_mode(dir, 0o2750);
    xattr(dir, "user.root", b"of the volume");
    xattr(dir, "system.posix_acl_default", &named_user_acl());
    modified(dir, 1_234_567_890, 987_654_321);
}

/// What rsync does not look at, or not as closely: everything that lstat, the attributes and the holes tell.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    mode: u32,
    owner: (u32, u32),
    size: u64,
    modified: (i64, i64),
    device: u64,
    /// The first path of the same inode.
    same_as: Option<Vec<u8>>,
    target: Option<PathBuf>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Where data begins and ends.
    data: Vec<(u64, u64)>,
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0; 64 << 10];
    let len = llistxattr(path, &mut names).unwrap();
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 << 10];
        let len = lgetxattr(path, name, &mut value).unwrap();
        value.truncate(len);
        value
    };
    names[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(|name| (name.to_vec(), value(name))).collect()
}

fn data(path: &Path) -> Vec<(u64, u64)> {
    let file = File::open(path).unwrap();
    let (mut found, mut from) = (Vec::new(), 0);
    while let Ok(start) = seek(&file, SeekFrom::Data(from)) {
        from = seek(&file, SeekFrom::Hole(start)).unwrap();
        found.push((start, from));
    }
    found
}

/// Everything below `root`, itself included, except for what is nested too deep for paths.
fn look(root: &Path) -> BTreeMap<Vec<u8>, Look> {
    let mut all = BTreeMap::new();
    let mut inodes: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut stack = vec![root.to_owned()];
    while let Some(path) = stack.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
        if meta.is_dir() && name != b"deep" {
            let mut below: Vec<PathBuf> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
            below.sort();
            stack.extend(below.into_iter().rev());
        }
        let first = inodes.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
        let look = Look {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            size: if meta.is_dir() { 0 } else { meta.size() },
            modified: (meta.mtime(), meta.mtime_nsec()),
            device: meta.rdev(),
            same_as: (!meta.is_dir() && meta.nlink() > 1).then_some(first),
            target: meta.is_symlink().then(|| fs::read_link(&path).unwrap()),
            attributes: attributes(&path),
            data: if meta.is_file() { data(&path) } else { vec![] },
        };
        all.insert(name, look);
    }
    all
}

#[track_caller]
fn assert_same_looks(a: &Path, b: &Path) {
    let (a, mut b) = (look(a), look(b));
    for (name, expected) in a {
        let shown = name.escape_ascii().to_string();
        let found = b.remove(&name).unwrap_or_else(|| panic!("{shown} is missing"));
        assert_eq!(found, expected, "{shown}");
    }
    assert!(b.is_empty(), "there is more than there was: {b:?}");
}

/// Walks down a chain of directories by handles and reads the file at its bottom.
fn bottom(dir: &Path) -> Vec<u8> {
    let mut here: OwnedFd = File::open(dir).unwrap().into();
    for level in 0..DEEP {
        here = openat(&here, format!("d{level}"), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).unwrap();
    }
    let file = openat(&here, c"bottom", OFlags::RDONLY, Mode::empty()).unwrap();
    let mut bytes = vec![0; 64];
    let len = rustix::io::read(&file, &mut bytes).unwrap();
    bytes.truncate(len);
    bytes
}

/// What rsync and tar can express: all of it but the chain of directories and the sparse files, at which they would read
/// a tebibyte of zeros.
fn build_expressible(root: &Path) {
    fs::create_dir(root).unwrap();
    build_names(&root.join("names"));
    build_content(&root.join("content"));
    build_links(&root.join("links"));
    build_kinds(&root.join("kinds"));
    build_metadata(&root.join("metadata"));
    fs::create_dir(root.join("empty")).unwrap();
}

#[test]
fn a_hostile_volume_comes_back_as_it_was() {
    if !is_root("a_hostile_volume_comes_back_as_it_was") {
        return;
    }
    let sandbox = Sandbox::new();
    let source = sandbox.path("volume");
    build_expressible(&source);
    build_root(&source);
    assert_round_trip(&sandbox, &source, true);
}

#[test]
fn holes_and_depth_come_back_as_they_were() {
    if !is_root("holes_and_depth_come_back_as_they_were") {
        return;
    }
    let sandbox = Sandbox::new();
    let source = sandbox.path("volume");
    fs::create_dir(&source).unwrap();
    build_sparse(&source.join("sparse"));
    build_deep(&source.join("deep"));
    assert_round_trip(&sandbox, &source, false);
    assert_eq!(bottom(&sandbox.path("out/deep")), b"found");
    let blocks = |root: &Path, file: &str| fs::metadata(root.join("sparse").join(file)).unwrap().blocks();
    for file in ["a tebibyte and a byte at its end", "only hole", "many holes"] {
        assert!(blocks(&sandbox.path("out"), file) <= blocks(&source, file) + 16, "{file}");
    }
    assert!(sandbox.pack_bytes() < 4 << 20, "holes take no space in the repository either");
    // Once more over what is there already: nothing to write.
    let again = sandbox.json(0, ["restore", "latest", "--to", "out", "--yes", "--delete"]);
    assert_eq!((again["written_bytes"].as_u64(), again["removed"].as_u64()), (Some(0), Some(0)), "{again}");
    let path = ["cat", "latest", "deep/d0/d1/d2/absent"];
    sandbox.run(path).expect(1).says(&["absent"]);
}

fn assert_round_trip(sandbox: &Sandbox, source: &Path, expressible: bool) {
    let first = sandbox.snapshot(source);
    assert_eq!((first["unreadable"].as_u64(), first["changed"].as_u64()), (Some(0), Some(0)), "{first:#}");
    let restored = sandbox.json(0, ["restore", "latest", "--to", "out"]);
    assert_eq!(restored["warnings"], serde_json::json!([]), "{restored:#}");
    if expressible {
        assert_same_tree(source, &sandbox.path("out"));
    }
    assert_same_looks(source, &sandbox.path("out"));

    std::thread::sleep(std::time::Duration::from_millis(50));
    sandbox.snapshot(source);
    let before = sandbox.pack_bytes();
    let idle = sandbox.snapshot(source);
    assert_eq!((idle["new_bytes"].as_u64(), idle["stored_bytes"].as_u64()), (Some(0), Some(0)), "nothing changed: {idle}");
    assert_eq!(sandbox.pack_bytes(), before);
    let changes = sandbox.json(0, ["diff", first["id"].as_str().unwrap(), "latest"]);
    assert_eq!(changes["changes"], serde_json::json!([]));
    let verified = sandbox.json(0, ["verify", "--data"]);
    assert_eq!((&verified["damaged"], &verified["affected"]), (&serde_json::json!([]), &serde_json::json!([])));
    sandbox.run(["ls", "latest", "-r", "-l"]).expect(0);
    sandbox.json(0, ["ls", "latest", "-r"]);
}

#[test]
fn as_an_archive_it_comes_back_too() {
    if !is_root("as_an_archive_it_comes_back_too") {
        return;
    }
    let sandbox = Sandbox::new();
    let source = sandbox.path("volume");
    build_expressible(&source);
    // An archive holds no sockets.
    fs::remove_file(source.join("kinds/socket")).unwrap();
    sandbox.snapshot(&source);
    fs::create_dir(sandbox.path("out")).unwrap();
    // ACLs are among the extended attributes of the archive; with --acls GNU tar would look elsewhere for them.
    let ran = run(Command::new("sh")
        .arg("-c")
        .arg("\"$0\" restore latest --tar - | tar --warning=no-unknown-keyword --warning=no-timestamp --numeric-owner --xattrs --xattrs-include='*' -xpf - -C out")
        .arg(crate::program::icecore().get_program())
        .env("ICECORE_REPO", &sandbox.repo)
        .env("ICECORE_STATE_DIR", &sandbox.state)
        .env("ICECORE_PASSWORD", crate::program::PASSWORD)
        .current_dir(sandbox.path("")))
    .expect(0);
    let complaints: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with("tar:") && !line.contains("implausibly old")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    assert_same_tree(&source, &sandbox.path("out"));
}

#[test]
fn attributes_that_the_target_cannot_hold_are_named() {
    if !is_root("attributes_that_the_target_cannot_hold_are_named") {
        return;
    }
    let sandbox = Sandbox::new();
    let _memory = Mounted::memory(&sandbox.path("memory"), 32);
    let source = sandbox.path("memory/volume");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("huge"), b"x").unwrap();
    if lsetxattr(source.join("huge"), "user.huge", &noise(60_000, 1), XattrFlags::empty()).is_err() {
        return eprintln!("SKIPPED attributes_that_the_target_cannot_hold_are_named: no file system here takes large ones");
    }
    sandbox.snapshot(&source);
    sandbox.run(["restore", "latest", "--to", "memory/out"]).expect(0);
    assert_same_looks(&source, &sandbox.path("memory/out"));
    // The disk's file system has room for about 4 KiB of them.
    let ran = sandbox.run(["--json", "restore", "latest", "--to", "out"]);
    if ran.code == 3 {
        let warning = &ran.json()["warnings"][0];
        assert!(warning["path"] == "huge" && warning["message"].as_str().unwrap().contains("user.huge"), "{warning}");
        assert_eq!(fs::read(sandbox.path("out/huge")).unwrap(), b"x");
    } else {
        ran.expect(0);
        assert_same_looks(&source, &sandbox.path("out"));
    }
}

#[test]
fn an_immutable_file_is_captured_and_in_the_way_of_a_restore() {
    if !is_root("an_immutable_file_is_captured_and_in_the_way_of_a_restore") {
        return;
    }
    let sandbox = Sandbox::new();
    let source = sandbox.source("volume", &[("fixed", b"as it is"), ("other", b"x")]);
    let chattr = |flag: &str, path: &Path| run(Command::new("chattr").arg(flag).arg(path)).code;
    if chattr("+i", &source.join("fixed")) != 0 {
        return eprintln!("SKIPPED an_immutable_file_is_captured_and_in_the_way_of_a_restore: chattr +i does not work here");
    }
    let taken = sandbox.run(["--json", "snapshot", "./volume"]);
    chattr("-i", &source.join("fixed"));
    assert_eq!(taken.expect(0).json()["snapshots"][0]["unreadable"], 0);
    let out = sandbox.source("out", &[("fixed", b"something else")]);
    chattr("+i", &out.join("fixed"));
    let ran = sandbox.run(["restore", "latest", "--to", "out", "--yes"]);
    chattr("-i", &out.join("fixed"));
    let ran = ran.expect(3).says(&["fixed"]);
    assert_eq!(fs::read(out.join("other")).unwrap(), b"x", "{}", ran.transcript());
    sandbox.run(["restore", "latest", "--to", "out", "--yes"]).expect(0);
    assert_same_tree(&source, &out);
}

#[test]
fn an_ordinary_user_gets_the_contents_and_a_list_of_what_could_not_be_set() {
    if !is_root("an_ordinary_user_gets_the_contents_and_a_list_of_what_could_not_be_set") {
        return;
    }
    let sandbox = Sandbox::new();
    let source = sandbox.path("volume");
    build_expressible(&source);
    sandbox.snapshot(&source);
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(&sandbox.repo)).expect(0);
    let place = sandbox.source("place", &[]);
    chown(&place, Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = sandbox.command_as_nobody();
    let ran = run(command.args(["--json", "--state-dir", "place/state", "restore", "latest", "--to", "place/out"])).expect(3);
    let document = ran.json();
    let warned = |path: &str, word: &str| {
        let all = document["warnings"].as_array().unwrap();
        let found = all.iter().any(|warning| warning["path"] == path && warning["message"].as_str().unwrap().contains(word));
        assert!(found, "{path}: {word} in {:#?}", all.iter().filter(|warning| warning["path"] == path).collect::<Vec<_>>());
    };
    warned("metadata/highest", "owner");
    warned("kinds/null", "");
    warned("kinds/block", "");
    warned("metadata/capability", "security.capability");
    warned("metadata/xattrs", "trusted.t");
    let out = sandbox.path("place/out");
    for (path, _) in files_below(&source.join("content")) {
        let name = path.strip_prefix(&source).unwrap();
        assert!(fs::read(out.join(name)).unwrap() == fs::read(&path).unwrap(), "{}", name.display());
    }
    // A setuid bit must not end up with another owner.
    assert_eq!(fs::metadata(out.join("metadata/setuid of another")).unwrap().mode() & 0o6000, 0);
    assert_eq!(attributes(&out.join("metadata/xattrs"))[b"user.a".as_slice()], b"1");
}

#[test]
fn kinds_that_swap_between_snapshots_are_followed() {
    if !is_root("kinds_that_swap_between_snapshots_are_followed") {
        return;
    }
    let sandbox = Sandbox::new();
    let source = sandbox.source("volume", &[("dir/a", b"a"), ("file", b"f"), ("other/b", b"b")]);
    symlink("other", source.join("link")).unwrap();
    node(&source.join("fifo"), FileType::Fifo, 0, 0);
    let first = sandbox.snapshot(&source);
    run(Command::new("cp").arg("-a").arg(&source).arg(sandbox.path("first"))).expect(0);

    fs::remove_dir_all(source.join("dir")).unwrap();
    symlink("other", source.join("dir")).unwrap();
    fs::remove_file(source.join("link")).unwrap();
    fs::create_dir(source.join("link")).unwrap();
    fs::write(source.join("link/c"), b"c").unwrap();
    fs::remove_file(source.join("file")).unwrap();
    node(&source.join("file"), FileType::Fifo, 0, 0);
    fs::remove_file(source.join("fifo")).unwrap();
    fs::write(source.join("fifo"), b"no fifo").unwrap();
    let second = sandbox.snapshot(&source);
    for (snapshot, like) in [(&first, sandbox.path("first")), (&second, source.clone()), (&first, sandbox.path("first"))] {
        sandbox.run(["restore", snapshot["id"].as_str().unwrap(), "--to", "out", "--yes", "--delete"]).expect(0);
        assert_same_tree(&like, &sandbox.path("out"));
    }
    let diff = sandbox.json(0, ["diff", first["id"].as_str().unwrap(), second["id"].as_str().unwrap()]);
    assert_eq!(diff["counts"]["kind"], 4, "{diff:#}");
}
