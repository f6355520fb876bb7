//! The archive as GNU tar takes it apart.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use tempfile::{TempDir, tempdir};

use super::tar::TarTarget;
use super::testing::{
    ACL, CAPABILITY, Dice, MemoryContent, dir_node, file_node, is_root, linked, name, no_xattrs, node, xattrs, xattrs_of,
};
use super::{Target, TargetDir, ends_run};
use crate::clock::Timestamp;
use crate::error::ErrorKind;
use crate::model::node::encode_xattrs;
use crate::model::{ChunkId, NodeKind, Stream, TreePath, Xattrs};

/// A writer whose bytes can be looked at afterwards; it takes no more than `room`.
#[derive(Clone)]
struct Shelf {
    bytes: Arc<Mutex<Vec<u8>>>,
    room: usize,
}

impl Write for Shelf {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut shelf = self.bytes.lock().unwrap();
        if shelf.len() + bytes.len() > self.room {
            return Err(io::Error::from_raw_os_error(5));
        }
        shelf.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn shelf(room: usize) -> (TarTarget, Arc<Mutex<Vec<u8>>>) {
    let bytes = Arc::new(Mutex::new(Vec::new()));
    (TarTarget::new(Box::new(Shelf { bytes: Arc::clone(&bytes), room })), bytes)
}

/// Fills an archive, ends it and extracts it.
fn extracted(fill: impl FnOnce(&TarTarget, &dyn TargetDir)) -> TempDir {
    let (target, bytes) = shelf(usize::MAX);
    let root = target.begin(&dir_node("")).unwrap();
    fill(&target, &*root);
    root.close(&dir_node(""), &no_xattrs()).unwrap();
    target.finish().unwrap();
    let dir = tempdir().unwrap();
    let archive = dir.path().join("archive");
    fs::write(&archive, &*bytes.lock().unwrap()).unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    let quiet = ["--warning=no-timestamp", "--warning=no-unknown-keyword"];
    let tar = Command::new("tar")
        .args(quiet)
        .args(["-p", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xf"])
        .args([&archive, Path::new("-C"), &out])
        .output()
        .unwrap();
    assert!(tar.status.success() && tar.stderr.is_empty(), "{}", String::from_utf8_lossy(&tar.stderr));
    dir
}

#[test]
fn gnu_tar_restores_every_kind_whole() {
    if !is_root() {
        return;
    }
    let content = MemoryContent::of(b"content");
    let set = xattrs(&[("security.capability", CAPABILITY), ("trusted.t", b"1"), ("user.a=b%3Dc", b"\0=\n\xff")]);
    let dir_set = xattrs(&[("user.d", b"e")]);
    let dir = extracted(|target, root| {
        let mut file = file_node("file", &content);
        (file.meta.mode, file.meta.uid, file.meta.gid) = (0o4751, 3_000_000_000, 4_294_967_294);
        root.file(&linked(file, 1), &set, &content).unwrap();
        let mut early = dir_node("early");
        (early.meta.mode, early.meta.uid, early.meta.xattrs) = (0o1755, 77, Xattrs::Inline(encode_xattrs(dir_set.clone())));
        let sub = root.directory(&early).unwrap();
        sub.link(&linked(file_node("other", &content), 1), &TreePath::parse(b"file").unwrap()).unwrap();
        sub.close(&early, &dir_set).unwrap();
        let mut late = early.clone();
        late.name = Some(name("late"));
        late.meta.xattrs = Xattrs::Stream(Stream { len: 300, profile: 1, depth: 0, id: ChunkId([1; 32]) });
        let sub = root.directory(&late).unwrap();
        sub.file(&file_node("inner", &content), &no_xattrs(), &content).unwrap();
        sub.close(&late, &dir_set).unwrap();
        let mut link = node("link", NodeKind::Symlink([b'x'; 300].to_vec()));
        link.meta.uid = 5;
        root.special(&link, &no_xattrs()).unwrap();
        root.special(&linked(node("fifo", NodeKind::Fifo), 2), &no_xattrs()).unwrap();
        root.link(&linked(node("fifo2", NodeKind::Fifo), 2), &TreePath::parse(b"fifo").unwrap()).unwrap();
        root.special(&node("zero", NodeKind::CharDevice { major: 1, minor: 5 }), &no_xattrs()).unwrap();
        root.special(&node("disk", NodeKind::BlockDevice { major: 4000, minor: 1_000_000 }), &no_xattrs()).unwrap();
        root.special(&node("socket", NodeKind::Socket), &no_xattrs()).unwrap();
        let told = target.shortfalls();
        assert!(told.len() == 1 && told[0].path.as_bytes() == b"socket" && told[0].message.contains("socket"));
    });
    let at = |name: &str| dir.path().join("out").join(name);
    let meta = |name: &str| fs::symlink_metadata(at(name)).unwrap();
    let file = meta("file");
    assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o4751, 3_000_000_000, 4_294_967_294));
    assert_eq!((fs::read(at("early/other")).unwrap(), meta("early/other").ino()), (b"content".to_vec(), file.ino()));
    let mut expected = set.clone();
    expected.sort();
    assert_eq!(xattrs_of(&at("file")), expected);
    for name in ["early", "late"] {
        assert_eq!((meta(name).mode() & 0o7777, meta(name).uid(), xattrs_of(&at(name))), (0o1755, 77, dir_set.clone()), "{name}");
    }
    assert_eq!((fs::read_link(at("link")).unwrap(), meta("link").uid()), (PathBuf::from("x".repeat(300)), 5));
    assert!(meta("fifo").file_type().is_fifo() && meta("fifo").ino() == meta("fifo2").ino());
    assert!(meta("zero").file_type().is_char_device() && meta("zero").rdev() == rustix::fs::makedev(1, 5));
    assert!(meta("disk").file_type().is_block_device() && meta("disk").rdev() == rustix::fs::makedev(4000, 1_000_000));
    assert!(!at("socket").exists());
    for name in ["", "file", "early", "early/other", "late", "late/inner", "link", "fifo", "zero", "disk"] {
        assert_eq!((meta(name).mtime(), meta(name).mtime_nsec()), (1_600_000_000, 123_456_789), "{name}");
    }
}

#[test]
fn gnu_tar_restores_acls() {
    let content = MemoryContent::of(b"x");
    let set = xattrs(&[("system.posix_acl_access", ACL)]);
    let dir = extracted(|_, root| {
        let mut file = file_node("file", &content);
        file.meta.mode = 0o640;
        root.file(&file, &set, &content).unwrap();
    });
    let file = dir.path().join("out/file");
    assert_eq!((xattrs_of(&file), fs::metadata(&file).unwrap().mode() & 0o7777), (set, 0o640));
}

#[test]
fn gnu_tar_restores_odd_names_times_and_sizes() {
    let long = [b'l'; 255];
    let names: [&[u8]; 9] = [b"-rf", b" ", b"a\nb", b"\xff\xfe", "ümlaut ☃".as_bytes(), b"back\\slash", b"a=b%", &long, b"..."];
    let dice = Dice::new(9);
    let sizes = [0_usize, 1, 511, 512, 513, 70_000, (1 << 20) + 1];
    let contents = sizes.map(|size| MemoryContent::of(&dice.bytes(size)));
    let times = [(-5, 300_000_000), (0, 0), (9_000_000_000, 1)];
    let dir = extracted(|_, root| {
        let deep = (0..3).fold(root.directory(&dir_node(long)).unwrap(), |dir, _| dir.directory(&dir_node(long)).unwrap());
        for (name, content) in names.iter().zip(contents.iter().cycle()) {
            deep.file(&file_node(name, content), &no_xattrs(), content).unwrap();
            // There the longest name is the directory's.
            if *name != long {
                root.file(&linked(file_node(name, content), 1), &no_xattrs(), content).unwrap();
            }
        }
        let raw = TreePath::parse(b"\xff\xfe").unwrap();
        root.link(&linked(file_node(b"link to raw", &contents[0]), 1), &raw).unwrap();
        root.special(&node(b"raw link", NodeKind::Symlink(b"\xfe\xff".to_vec())), &no_xattrs()).unwrap();
        for (size, content) in sizes.iter().zip(&contents) {
            root.file(&file_node(size.to_string(), content), &no_xattrs(), content).unwrap();
        }
        for (seconds, nanos) in times {
            let mut node = file_node(format!("t{seconds}"), &contents[1]);
            node.meta.mtime = Timestamp::new(seconds, nanos);
            root.file(&node, &no_xattrs(), &contents[1]).unwrap();
        }
    });
    let out = dir.path().join("out");
    let deep = (0..4).fold(out.clone(), |dir, _| dir.join(OsStr::from_bytes(&long)));
    for (name, content) in names.iter().zip(contents.iter().cycle()) {
        let name = OsStr::from_bytes(name);
        assert!(fs::read(deep.join(name)).unwrap() == content.bytes(), "{name:?}");
        assert!(name.as_bytes() == long || fs::read(out.join(name)).unwrap() == content.bytes(), "{name:?}");
    }
    let raw = fs::metadata(out.join(OsStr::from_bytes(b"\xff\xfe"))).unwrap();
    assert_eq!(raw.ino(), fs::metadata(out.join("link to raw")).unwrap().ino());
    assert_eq!(fs::read_link(out.join("raw link")).unwrap().as_os_str().as_bytes(), b"\xfe\xff");
    for (size, content) in sizes.iter().zip(&contents) {
        assert!(fs::read(out.join(size.to_string())).unwrap() == content.bytes(), "{size}");
    }
    for (seconds, nanos) in times {
        let meta = fs::metadata(out.join(format!("t{seconds}"))).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (seconds, i64::from(nanos)));
    }
}

#[test]
fn gnu_tar_restores_holes() {
    let dice = Dice::new(4);
    let ragged = (0..40_u64).fold(MemoryContent::new(), |content, i| content.data(&dice.bytes(1 + i as usize * 37)).hole(1 + i * 1_001));
    let noise = dice.bytes(2 << 20);
    let large = MemoryContent::new().hole(1 << 40).data(&noise).hole(4095).data(b"z").hole(1 << 30);
    let contents = [
        ("ragged", ragged.data(b"end")),
        ("small", MemoryContent::new().hole(10).data(b"x").hole(4000).data(b"y").hole(10)),
        ("hole", MemoryContent::new().hole(1 << 20)),
        ("ends in one", MemoryContent::new().data(b"a").hole(99_999)),
        ("starts with one", MemoryContent::new().hole(99_999).data(b"a")),
        ("many", (0..2_000).fold(MemoryContent::new(), |content, _| content.data(b"d").hole(8191))),
    ];
    let name = format!("\u{2603}{}", "n".repeat(200));
    let dir = extracted(|_, root| {
        for (called, content) in &contents {
            root.file(&file_node(called, content), &xattrs(&[("user.x", b"1")]), content).unwrap();
        }
        let placed = root.file(&file_node(&name, &large), &no_xattrs(), &large).unwrap();
        assert!(placed.written_bytes < (2 << 20) + 5_000);
    });
    assert!(fs::metadata(dir.path().join("archive")).unwrap().len() < 5 << 20);
    let out = dir.path().join("out");
    for (called, content) in &contents {
        assert!(fs::read(out.join(called)).unwrap() == content.bytes(), "{called}");
        assert_eq!(xattrs_of(&out.join(called)), xattrs(&[("user.x", b"1")]));
    }
    assert!(fs::metadata(out.join("hole")).unwrap().blocks() < 16);
    let meta = fs::metadata(out.join(&name)).unwrap();
    assert!(meta.len() == (1 << 40) + (2 << 20) + 4096 + (1 << 30) && meta.blocks() < 8 << 10);
    let mut tail = vec![0; (2 << 20) + 4096];
    fs::File::open(out.join(&name)).unwrap().read_exact_at(&mut tail, 1 << 40).unwrap();
    assert!(tail == [&noise[..], &[0; 4095], b"z"].concat());
}

#[test]
fn a_link_leads_only_into_the_archive() {
    let (target, _) = shelf(usize::MAX);
    let root = target.begin(&dir_node("")).unwrap();
    let content = MemoryContent::of(b"x");
    root.file(&file_node("alone", &content), &no_xattrs(), &content).unwrap();
    for first in ["alone", "missing"] {
        assert!(root.link(&linked(file_node("l", &content), 1), &TreePath::parse(first.as_bytes()).unwrap()).is_err());
    }
}

#[test]
fn a_content_that_fails_leaves_the_archive_readable() {
    let good = MemoryContent::of(b"good");
    let small = MemoryContent::new().data(b"small").failing_at(0);
    let large = MemoryContent::new().data(&[1; 3 << 20]).data(&[2; 1000]).failing_at(1);
    let dir = extracted(|_, root| {
        assert_eq!(root.file(&file_node("small", &small), &no_xattrs(), &small).unwrap_err().kind(), ErrorKind::Damaged);
        let error = root.file(&file_node("large", &large), &no_xattrs(), &large).unwrap_err();
        assert!(error.kind() == ErrorKind::Damaged && error.advice().is_some_and(|advice| advice.contains("zeros")));
        root.file(&file_node("good", &good), &no_xattrs(), &good).unwrap();
    });
    let out = dir.path().join("out");
    assert!(!out.join("small").exists());
    assert!(fs::read(out.join("large")).unwrap() == [vec![1; 3 << 20], vec![0; 1000]].concat());
    assert_eq!(fs::read(out.join("good")).unwrap(), b"good");
}

#[test]
fn after_a_failed_write_nothing_more_is_written() {
    let (target, bytes) = shelf(1 << 20);
    let root = target.begin(&dir_node("")).unwrap();
    let content = MemoryContent::of(&[1; 3 << 20]);
    let error = root.file(&file_node("large", &content), &no_xattrs(), &content).unwrap_err();
    assert!(ends_run(&error), "{error}");
    let written = bytes.lock().unwrap().len();
    let small = MemoryContent::of(b"x");
    assert!(ends_run(&root.file(&file_node("small", &small), &no_xattrs(), &small).unwrap_err()));
    assert!(ends_run(&target.finish().unwrap_err()));
    drop((root, target));
    assert_eq!(bytes.lock().unwrap().len(), written);
}
