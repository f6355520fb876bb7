//! The format is what `docs/format.md` says: a reader written from that document alone (`tests/reader`, Python) lists,
//! extracts and checks repositories that the real program made, and the document's test vectors hold.

#![allow(clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use icecore::chunk::{Chunker, GENERIC, META};
use icecore::clock::Timestamp;
use icecore::model::node::encode_xattrs;
use icecore::model::{ChunkId, LinkGroup, Meta, Name, Node, NodeKind, RepositoryId, Stream, Xattrs, hash};
use icecore::seal::keys::ChunkKind;
use icecore::seal::{Keys, SealKey, Suite};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lgetxattr, mknodat, setxattr};
use serde_json::Value;

const PASSWORD: &str = "open sesame";
/// Pieces of the sparse file: each is a chunk and each hole a list entry, so that this many make 640 KB of list, which is
/// lists of lists, and an index delta that is too long for a journal entry.
const SPARSE_PIECES: u64 = 8000;
const SPARSE_STEP: u64 = 8192;
/// Entries of the large directory: its stream is some 270 KB, so that it has lists of its own.
const MANY: usize = 6000;

/// A place for one test: a source, a repository and the program's state.
struct Place {
    folder: tempfile::TempDir,
    encrypted: bool,
}

impl Place {
    fn new(encrypted: bool) -> Self {
        let place = Self { folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(), encrypted };
        let flag: &[&str] = if encrypted { &[] } else { &["--no-encryption"] };
        place.icecore("init", flag);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs the program, which must succeed, and gives what it printed as JSON.
    fn icecore(&self, verb: &str, arguments: &[&str]) -> Value {
        let mut command = Command::new(env!("CARGO_BIN_EXE_icecore"));
        command.arg(verb).args(arguments).args(["--json", "--no-progress"]).env_remove("ICECORE_KEY_FILE");
        command.env("ICECORE_REPO", self.path("repo")).env("ICECORE_STATE_DIR", self.path("state")).env("ICECORE_HOST", "here");
        if self.encrypted {
            command.env("ICECORE_PASSWORD", PASSWORD);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "icecore {verb}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn snapshot(&self) -> String {
        // What changed within the last moments is read again anyway; the test wants the stat cache to be used.
        std::thread::sleep(Duration::from_millis(150));
        let taken = self.icecore("snapshot", &[self.path("source").to_str().unwrap()]);
        taken["snapshots"][0]["id"].as_str().unwrap().to_owned()
    }

    fn reader_with(&self, python: &Path, key: &[&OsStr], arguments: &[&OsStr]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/icecore_reader.py");
        // -B: no compiled copies beside the source.
        Command::new(python).arg("-B").arg(script).arg(self.path("repo")).args(key).args(arguments).output().unwrap()
    }

    fn reader(&self, python: &Path, arguments: &[&OsStr]) -> Output {
        let key: &[&OsStr] = if self.encrypted { &["--password".as_ref(), PASSWORD.as_ref()] } else { &[] };
        self.reader_with(python, key, arguments)
    }

    /// What the reader prints, as JSON; it must succeed.
    fn read(&self, python: &Path, verb: &str) -> Value {
        let output = self.reader(python, &[verb.as_ref()]);
        let said = || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "reader {verb}: {}", said());
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn extract(&self, python: &Path, snapshot: &str, to: &str) -> BTreeMap<PathBuf, Entry> {
        let output = self.reader(python, &["extract".as_ref(), snapshot.as_ref(), self.path(to).as_os_str()]);
        assert!(output.status.success(), "extract: {}", String::from_utf8_lossy(&output.stderr));
        let found = tree(&self.path(to));
        fs::remove_dir_all(self.path(to)).unwrap();
        found
    }
}

#[test]
fn an_independent_reader_agrees_with_an_encrypted_repository() {
    let Some(python) = python() else { return };
    let place = Place::new(true);
    make_tree(&place.path("source"));
    let first = place.snapshot();
    let before = tree(&place.path("source"));
    assert_same(&before, &place.extract(python, &first, "out"));
    change_tree(&place.path("source"));
    let second = place.snapshot();
    let after = tree(&place.path("source"));
    assert_same(&after, &place.extract(python, &second[..10], "out"));
    assert_same(&before, &place.extract(python, &first, "out"));

    let listed = place.read(python, "list");
    let known = place.icecore("snapshots", &[]);
    let known = known["snapshots"].as_array().unwrap_or_else(|| known.as_array().unwrap());
    assert_eq!(listed.as_array().unwrap().len(), known.len());
    for (seen, known) in listed.as_array().unwrap().iter().zip([&first, &second]) {
        assert_eq!(seen["id"], **known);
        assert_eq!(seen["source"]["host"], "here");
    }
    assert_eq!(listed[1]["parent"], *first);

    let checked = place.read(python, "check");
    assert_eq!((checked["problems"].as_array().unwrap().len(), checked["packs_in_no_delta"].as_u64().unwrap()), (0, 0));
    // How many levels there are depends on the repository's key.
    let deep = |(depth, _): (&String, &serde_json::Value)| depth.parse::<u32>().unwrap() >= 2;
    assert!(checked["streams_by_depth"].as_object().unwrap().iter().any(deep), "the sparse file has lists of lists: {checked}");
    assert!(fs::read_dir(place.path("repo/idx")).unwrap().count() > 0, "a delta was too long for its entry");

    other_keys(&place, python);
    forgotten_and_pruned(&place, python, &first, &after);
    damaged(&place, python);
}

#[test]
fn an_independent_reader_agrees_with_a_repository_without_encryption() {
    let Some(python) = python() else { return };
    let place = Place::new(false);
    make_tree(&place.path("source"));
    let first = place.snapshot();
    let before = tree(&place.path("source"));
    change_tree(&place.path("source"));
    let second = place.snapshot();
    assert_same(&before, &place.extract(python, &first, "out"));
    assert_same(&tree(&place.path("source")), &place.extract(python, &second, "out"));
    assert_eq!(place.read(python, "check")["snapshots"], 2);
    forgotten_and_pruned(&place, python, &first, &tree(&place.path("source")));
    damaged(&place, python);
}

/// A key file opens another slot; a wrong passphrase none.
fn other_keys(place: &Place, python: &Path) {
    let file = place.path("key");
    fs::write(&file, [7; 40]).unwrap();
    place.icecore("key", &["add", "--new-key-file", file.to_str().unwrap(), "--label", "a file"]);
    let output = place.reader_with(python, &["--key-file".as_ref(), file.as_os_str()], &["list".as_ref()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let output = place.reader_with(python, &["--password".as_ref(), "guessed".as_ref()], &["list".as_ref()]);
    assert_eq!(output.status.code(), Some(1));
}

/// A forgotten snapshot is not listed, before prune and after; the other stays whole.
fn forgotten_and_pruned(place: &Place, python: &Path, forgotten: &str, left: &BTreeMap<PathBuf, Entry>) {
    place.icecore("forget", &[forgotten, "--yes"]);
    let listed = place.read(python, "list");
    assert_eq!(listed.as_array().unwrap().len(), 1);
    place.icecore("prune", &["--yes", "--repack-below", "100"]);
    assert!(place.path("repo/gc/00000001/final").exists());
    assert_eq!(place.read(python, "list"), listed);
    assert_eq!(place.read(python, "check")["problems"].as_array().unwrap().len(), 0);
    assert_same(left, &place.extract(python, listed[0]["id"].as_str().unwrap(), "out"));
}

/// The reader notices a flipped bit wherever it is in a pack.
fn damaged(place: &Place, python: &Path) {
    let mut packs: Vec<PathBuf> = tree(&place.path("repo/packs")).into_keys().map(|name| place.path("repo/packs").join(name)).collect();
    packs.retain(|path| path.is_file());
    packs.sort_by_key(|path| fs::metadata(path).unwrap().len());
    let pack = &packs[0];
    let whole = fs::read(pack).unwrap();
    fs::set_permissions(pack, Permissions::from_mode(0o600)).unwrap();
    for at in [9, 130, whole.len() / 2, whole.len() - 100, whole.len() - 3] {
        let mut bytes = whole.clone();
        bytes[at] ^= 4;
        fs::write(pack, bytes).unwrap();
        let output = place.reader(python, &["check".as_ref()]);
        assert_eq!(output.status.code(), Some(4), "byte {at} of {}: {}", whole.len(), String::from_utf8_lossy(&output.stderr));
    }
    fs::write(pack, whole).unwrap();
    place.read(python, "check");
}

/// The interpreter of a virtual environment with what the reader needs, made once and kept below the target folder. None
/// where the environment says that there is no Python.
fn python() -> Option<&'static Path> {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    if std::env::var_os("ICECORE_TEST_NO_PYTHON").is_some() {
        return None;
    }
    Some(MADE.get_or_init(|| {
        let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/requirements.txt");
        let wanted = fs::read(&requirements).unwrap();
        let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("reader-venv");
        let ready = venv.join("ready");
        let python = venv.join("bin/python");
        // The copy of the list is written last: an environment that was interrupted or is of another list is made anew.
        if fs::read(&ready).ok().as_ref() != Some(&wanted) {
            let run = |program: &Path, arguments: &[&OsStr]| {
                let output = Command::new(program).args(arguments).output();
                let problem = match output {
                    Ok(output) if output.status.success() => return,
                    Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
                    Err(error) => error.to_string(),
                };
                panic!(
                    "this test needs python3 with venv and pip, and the packages of tests/reader/requirements.txt; where they can't be \
                     had, set ICECORE_TEST_NO_PYTHON to leave it out.\n{}: {problem}",
                    program.display()
                );
            };
            run("python3".as_ref(), &["-m".as_ref(), "venv".as_ref(), "--clear".as_ref(), venv.as_os_str()]);
            let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"].map(OsStr::new);
            run(&python, &[&install[..], &[requirements.as_os_str()]].concat());
            fs::write(&ready, wanted).unwrap();
        }
        python
    }))
}

/// A tree with everything that a snapshot can hold and a plain user can make.
fn make_tree(root: &Path) {
    fs::create_dir(root).unwrap();
    let odd: [&[u8]; 8] = [b"-rf", b" ", b"...", b"\xff\xfe", b"line\nbreak", b"\x1b[31m", "na\u{ef}ve \u{2603}".as_bytes(), &[b'n'; 255]];
    for (number, name) in odd.iter().enumerate() {
        fs::write(root.join(OsStr::from_bytes(name)), format!("odd {number}")).unwrap();
    }
    fs::write(root.join("empty"), "").unwrap();
    fs::write(root.join("inline"), vec![b'i'; 512]).unwrap();
    fs::write(root.join("small"), vec![b's'; 513]).unwrap();
    fs::write(root.join("random"), noise(1, 700_000)).unwrap();
    fs::write(root.join("text"), "all work and no play ".repeat(40_000)).unwrap();
    sparse(&root.join("sparse"));
    File::create(root.join("hole")).unwrap().set_len(5 << 20).unwrap();
    let ends = File::create(root.join("holes at both ends")).unwrap();
    ends.write_all_at(&noise(2, 100_000), 3 << 20).unwrap();
    ends.set_len(9 << 20).unwrap();

    fs::create_dir_all(root.join("deep/er/est")).unwrap();
    fs::create_dir(root.join("void")).unwrap();
    fs::hard_link(root.join("random"), root.join("deep/er/same")).unwrap();
    fs::hard_link(root.join("random"), root.join("a link that comes first")).unwrap();
    symlink("../nowhere/\u{2603}", root.join("deep/link")).unwrap();
    fs::hard_link(root.join("deep/link"), root.join("deep/er/link")).unwrap();
    mknodat(CWD, root.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();

    fs::create_dir(root.join("many")).unwrap();
    for number in 0..MANY {
        fs::write(root.join(format!("many/entry {number}")), number.to_string()).unwrap();
    }
    for (name, value) in [("user.small", vec![0, 255]), ("user.large", noise(3, 2000))] {
        // Not every file system takes attributes; where it does, they must come back.
        let _ = setxattr(root.join("text"), name, &value, XattrFlags::empty());
        let _ = setxattr(root.join("deep"), name, &value, XattrFlags::empty());
    }
    for (name, mode) in [("empty", 0o4711), ("inline", 0o2640), ("small", 0o400), ("deep", 0o1770), ("void", 0o2755), ("fifo", 0o622)] {
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
    }
    set_time(&root.join("text"), UNIX_EPOCH - Duration::new(86_400, 250_000_000));
    set_time(&root.join("deep"), UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789));
    set_time(root, UNIX_EPOCH + Duration::new(2_000_000_000, 1));
}

fn change_tree(root: &Path) {
    fs::remove_file(root.join("many/entry 77")).unwrap();
    fs::write(root.join("many/entry 5"), "changed").unwrap();
    fs::rename(root.join("deep/er/est"), root.join("deep/moved")).unwrap();
    fs::write(root.join("new"), noise(4, 300_000)).unwrap();
    let random = File::options().write(true).open(root.join("random")).unwrap();
    random.write_all_at(b"in the middle", 350_000).unwrap();
    let sparse = File::options().write(true).open(root.join("sparse")).unwrap();
    sparse.write_all_at(b"where a hole was", SPARSE_STEP * 1000 + 4096).unwrap();
    fs::set_permissions(root.join("inline"), Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(root.join("hole")).unwrap();
}

fn sparse(path: &Path) {
    let file = File::create(path).unwrap();
    for piece in 0..SPARSE_PIECES {
        file.write_all_at(&piece.to_le_bytes(), piece * SPARSE_STEP).unwrap();
    }
    file.set_len(SPARSE_PIECES * SPARSE_STEP).unwrap();
}

fn noise(seed: u8, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    hash::keyed_stream(&[seed; 32], b"noise", &mut bytes);
    bytes
}

fn set_time(path: &Path, time: SystemTime) {
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

/// All that is compared of one entry.
#[derive(Debug, PartialEq)]
struct Entry {
    kind: fs::FileType,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    /// Hash and length of the content, or of a symlink's target.
    content: ([u8; 32], u64),
    /// The first path of the same inode.
    first: PathBuf,
    xattrs: Vec<Option<Vec<u8>>>,
    /// Whether it takes less than half of its length on the disk.
    sparse: bool,
}

/// Every entry below `root`, the root itself as an empty path.
fn tree(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let (mut found, mut inodes, mut waiting) = (BTreeMap::new(), BTreeMap::new(), vec![PathBuf::new()]);
    while let Some(path) = waiting.pop() {
        let full = root.join(&path);
        let meta = fs::symlink_metadata(&full).unwrap();
        let content = match meta.file_type() {
            kind if kind.is_dir() => {
                waiting.extend(fs::read_dir(&full).unwrap().map(|entry| path.join(entry.unwrap().file_name())));
                Vec::new()
            }
            kind if kind.is_symlink() => OsString::from(fs::read_link(&full).unwrap()).into_vec(),
            kind if kind.is_file() => fs::read(&full).unwrap(),
            kind => {
                assert!(kind.is_fifo(), "{path:?}");
                Vec::new()
            }
        };
        let names: &mut Vec<PathBuf> = inodes.entry(meta.ino()).or_default();
        names.push(path.clone());
        let entry = Entry {
            kind: meta.file_type(),
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            content: (hash::hash(&[&content]), content.len() as u64),
            first: PathBuf::new(),
            xattrs: ["user.small", "user.large"].map(|name| xattr(&full, name)).into(),
            sparse: meta.is_file() && meta.blocks() * 512 < meta.len() * 3 / 4,
        };
        found.insert(path, entry);
    }
    for names in inodes.values() {
        let first = names.iter().min().unwrap();
        names.iter().for_each(|name| found.get_mut(name).unwrap().first.clone_from(first));
    }
    found
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 4096];
    let len = lgetxattr(path, name, &mut buffer[..]).ok()?;
    buffer.truncate(len);
    Some(buffer)
}

fn assert_same(expected: &BTreeMap<PathBuf, Entry>, found: &BTreeMap<PathBuf, Entry>) {
    for (path, entry) in expected {
        assert_eq!(Some(entry), found.get(path), "{path:?}");
    }
    assert_eq!(expected.len(), found.len(), "entries that the source has not");
}

/// The test vectors of `docs/format.md`, section 18.
#[test]
fn the_vectors_of_the_document_hold() {
    let repository = RepositoryId(std::array::from_fn(|at| u8::try_from(at).unwrap()));
    let salt = std::array::from_fn(|at| u8::try_from(at).unwrap());
    let keys = Keys::public(&repository);
    let vectors = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/format.md")).unwrap();
    let (_, vectors) = vectors.split_once("## 18. Test vectors").unwrap();
    let holds = |what: &str, value: String| {
        assert!(vectors.contains(&format!("| {what} | `{value}` |")), "{what} is {value}, which the document does not say");
    };
    for (name, kind) in [("data", ChunkKind::Data), ("tree", ChunkKind::Tree), ("list", ChunkKind::List)] {
        holds(&format!("{name} chunk \"hello\", its id"), keys.chunk_id(kind, b"hello").to_string());
    }
    holds("record \"hello\", its snapshot id", keys.snapshot_id(b"hello").to_string());
    holds("config \"hello\", its MAC", hex(&keys.config_mac(b"hello")));

    let mut sealed = b"hello".to_vec();
    keys.object(&salt).unwrap().seal(7, b"aad!", &mut sealed, 0).unwrap();
    holds("\"hello\" sealed for an object, suite 0", hex(&sealed));
    let mut sealed = b"hello".to_vec();
    let key = hash::keyed(&hash::keyed(&hash::derive("icecore v1 public repository", &repository.0), &[b"meta"]), &[b"object", &salt]);
    SealKey::new(Suite::Aes256Gcm, &key).unwrap().seal(7, b"aad!", &mut sealed, 0).unwrap();
    holds("the same, suite 1", hex(&sealed));

    let group = keys.fingerprint("hard links", &[&2049u64.to_le_bytes(), &42u64.to_le_bytes()]);
    holds("group of device 2049, inode 42", hex(&group[..8]));
    let gear = keys.gear();
    holds("gear table, first and last", format!("{:#018x} {:#018x}", gear[0], gear[255]));
    let mut bytes = vec![0; 300_001];
    hash::keyed_stream(&[0; 32], b"input", &mut bytes);
    let chunker = Chunker::new(gear);
    for profile in [GENERIC, META] {
        let (mut lengths, mut rest) = (Vec::new(), &bytes[..]);
        while !rest.is_empty() {
            let len = chunker.cut(&profile, rest);
            lengths.push(len.to_string());
            rest = &rest[len..];
        }
        holds(&format!("cuts, profile {}", profile.number), lengths.join(" "));
    }

    let xattrs = Xattrs::Inline(encode_xattrs(vec![(b"user.a".to_vec(), b"1".to_vec())]));
    let links = Some(LinkGroup(u64::from_le_bytes(group[..8].try_into().unwrap())));
    let meta = Meta { mode: 0o4755, uid: 1000, gid: 100, mtime: Timestamp::new(-2, 5), xattrs, links, changed: false };
    let file = Node { name: Some(Name::new(*b"a\xffb").unwrap()), meta, kind: NodeKind::InlineFile(b"hello".to_vec()) };
    holds("node of a file", hex(&encoded(&file)));
    let meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::new(1, 0), xattrs: Xattrs::None, links: None, changed: false };
    let stream = Stream { len: 300_001, profile: 16, depth: 2, id: ChunkId([9; 32]) };
    let root = Node { name: None, meta, kind: NodeKind::Directory(stream) };
    holds("node of a root", hex(&encoded(&root)));
}

fn encoded(node: &Node) -> Vec<u8> {
    let mut bytes = Vec::new();
    node.encode(&mut bytes);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
