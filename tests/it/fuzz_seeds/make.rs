//! Makes the seeds: small records of each kind, and some that must be refused (their names begin with `bad-`).

use icecore::clock::Timestamp;
use icecore::index::PackInfo;
use icecore::model::manifest::{Fault, SnapshotStats, VolumeFacts, VolumeUser};
use icecore::model::node::encode_xattrs;
use icecore::model::{
    ChunkId, Consistency, LinkGroup, Meta, Name, Node, NodeKind, PackId, SessionId, Snapshot, SnapshotId, SourceIdentity, SourceKind,
    Stream, Xattrs,
};
use icecore::pack::{Finished, Header, PackBuilder, PackEntry, TRAILER_BYTES, builder};
use icecore::repo::{self, Begin, Config, DeltaPack, Entry, ObjectType, ProofGroup, Proofs, Published, Verdict};
use icecore::seal::keys::ChunkKind;
use icecore::seal::slot::{Secret, Slot};
use icecore::seal::{Keys, Suite, TAG_BYTES, compress};
use icecore::storage::memory::MemoryStorage;
use icecore::storage::{Key, Storage};
use minicbor::bytes::ByteVec;

use super::targets::{END, PLACE, REPOSITORY};

/// One seed.
pub(super) struct Seed {
    pub(super) target: &'static str,
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    /// Its salt is drawn anew each time, or the encoder may be another one.
    pub(super) is_random: bool,
}

/// All seeds.
pub(super) fn seeds() -> Vec<Seed> {
    let mut all = Vec::new();
    let mut add =
        |target, name, bytes: Vec<u8>| all.push(Seed { target, name, bytes, is_random: matches!(target, "slot" | "envelope" | "undelta") });
    for (name, node) in nodes() {
        add("node", name, encoded(&node));
    }
    add("node", "bad-two", [encoded(&nodes()[0].1), encoded(&nodes()[1].1)].concat());
    add("xattrs", "none", Vec::new());
    add("xattrs", "three", xattr_set());
    add(
        "xattrs",
        "bad-order",
        [encode_xattrs(vec![(b"user.b".to_vec(), vec![])]), encode_xattrs(vec![(b"user.a".to_vec(), vec![])])].concat(),
    );
    add("stat_record", "empty", stat_record(&[]));
    add("stat_record", "nodes", stat_record(&nodes()));
    add("snapshot", "volume", snapshot(nodes().swap_remove(0).1).encode().unwrap());
    add("snapshot", "bad-root", Snapshot { root: nodes().swap_remove(1).1, ..snapshot(nodes().swap_remove(0).1) }.encode().unwrap());
    add("config", "plain", minicbor::to_vec(config(Suite::Checksum, &[])).unwrap());
    add("config", "encrypted", minicbor::to_vec(config(Suite::Aes256Gcm, &["parity"])).unwrap());
    add("slot", "key-file", slot());
    for (name, entry) in entries() {
        add("journal", name, minicbor::to_vec(entry).unwrap());
    }
    add("envelope", "end", envelope());
    add("delta", "two", minicbor::to_vec([delta_pack(1), delta_pack(2)]).unwrap());
    add("delta", "none", minicbor::to_vec(Vec::<DeltaPack>::new()).unwrap());
    for (name, bytes) in deltas() {
        add("undelta", name, bytes);
    }
    for (name, bytes) in proofs() {
        add("verified", name, bytes);
    }
    let pack = pack();
    add("pack_header", "mixed", pack.header.encode().to_vec());
    add("pack_index", "all-codecs", builder::encode_index(&pack_entries()));
    add("pack_index", "none", builder::encode_index(&[]));
    add("pack_trailer", "good", trailer(&pack));
    add("pack", "three-blobs", pack.bytes);
    for (name, bytes) in stores() {
        add("store", name, bytes);
    }
    for (target, name, text) in TEXTS {
        add(target, name, text.as_bytes().to_vec());
    }
    add("tree_path", "not-utf8", b"a/\xff\xfe\x1b[2J".to_vec());
    all
}

const TEXTS: &[(&str, &str, &str)] = &[
    ("time", "rfc3339", "2026-11-20T14:03:07.25+01:00"),
    ("time", "local", "2026-11-20 14:03:07"),
    ("time", "gap", "2026-03-29 02:30"),
    ("time", "clock", "14:03"),
    ("time", "yesterday", "yesterday 14:00"),
    ("time", "age", "1 week 3 days 2h 5 minutes 7s ago"),
    ("time", "latest", "latest"),
    ("time", "bad-year", "-009999-12-31T23:59:60Z"),
    ("time", "bad-digits", "99999999999999999999d"),
    ("snapshot_name", "id", "abababababababab"),
    ("snapshot_name", "volume", "volume:pg"),
    ("snapshot_name", "path", "path:../../srv/./data/"),
    ("snapshot_name", "at-time", "pg@2026-11-20 15:30"),
    ("snapshot_name", "at-age", "/srv/data@90m ago"),
    ("snapshot_name", "bad-ambiguous", "abcd"),
    ("source", "volume", "volume:my_volume-1.x"),
    ("source", "path", "path:/srv/data"),
    ("source", "relative", "./data"),
    ("source", "bare", "pgdata"),
    ("source", "bad-slash", "a/b"),
    ("key", "journal", "log/07070707070707070707070707070707/00000001"),
    ("key", "pack", "packs/01/0101010101010101010101010101010101010101010101010101010101010101"),
    ("key", "bad-parent", "packs/../config"),
    ("settings", "all", SETTINGS),
    ("settings", "bad-key", "repositry = \"/srv/icecore\"\n"),
    ("settings", "bad-type", "[forget]\nkeep_last = \"\u{e9}\\u001b\"\n"),
    ("tree_path", "deep", "/etc//./cron.d/job/"),
    ("tree_path", "bad-parent", "etc/../shadow"),
];

const SETTINGS: &str = r#"repository = "/srv/icecore"
state_dir = "/var/lib/icecore-state"
index_memory = 128
password_file = "/etc/icecore/password"
docker_host = "unix:///var/run/docker.sock"

[snapshot]
tags = ["nightly"]
compression = 3
one_file_system = true

[forget]
keep_last = 3
keep_within = "2d"
keep_daily = 7
keep_tags = ["before-upgrade"]
"#;

fn name(text: &str) -> Option<Name> {
    Some(Name::new(text.as_bytes()).unwrap())
}

fn meta() -> Meta {
    let mtime = Timestamp::new(1_795_000_000, 123_456_789);
    Meta { mode: 0o644, uid: 1000, gid: 100, mtime, xattrs: Xattrs::None, links: None, changed: false }
}

fn stream(len: u64, depth: u8) -> Stream {
    Stream { len, profile: 1, depth, id: ChunkId([5; 32]) }
}

/// One node of each kind; the first can be the root of a snapshot.
fn nodes() -> Vec<(&'static str, Node)> {
    let node = |name, kind| Node { name, meta: meta(), kind };
    let full =
        Meta { mode: 0o7777, xattrs: Xattrs::Inline(xattr_set()), links: Some(LinkGroup(0x0102_0304_0506_0708)), changed: true, ..meta() };
    vec![
        ("root", node(None, NodeKind::Directory(stream(300, 0)))),
        ("inline", node(name("a"), NodeKind::InlineFile(b"hello".to_vec()))),
        ("empty", node(name("b"), NodeKind::File(Stream::EMPTY))),
        ("file", Node { meta: full, ..node(name("c"), NodeKind::File(stream(10 << 30, 2))) }),
        ("xattr-stream", Node { meta: Meta { xattrs: Xattrs::Stream(stream(4000, 0)), ..meta() }, ..node(name("d"), NodeKind::Fifo) }),
        ("directory", node(name("e"), NodeKind::Directory(stream(9000, 1)))),
        ("symlink", node(name("f"), NodeKind::Symlink(b"../target".to_vec()))),
        ("socket", node(name("g"), NodeKind::Socket)),
        ("char", node(name("h"), NodeKind::CharDevice { major: 1, minor: 3 })),
        ("block", node(name("i"), NodeKind::BlockDevice { major: 8, minor: 0 })),
    ]
}

fn encoded(node: &Node) -> Vec<u8> {
    let mut bytes = Vec::new();
    node.encode(&mut bytes);
    bytes
}

fn xattr_set() -> Vec<u8> {
    let set = [("user.comment", &b"x"[..]), ("security.capability", &[1, 0, 0, 2]), ("system.posix_acl_access", &[2, 0, 0, 0])];
    encode_xattrs(set.map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).to_vec())
}

/// As the stat cache writes it: time of the scan, number of parts, then device, inode, ctime, day of the last read and node of each entry.
fn stat_record(nodes: &[(&str, Node)]) -> Vec<u8> {
    let mut bytes = [&1_795_000_000i64.to_le_bytes()[..], &5u32.to_le_bytes(), &1u32.to_le_bytes()].concat();
    for (_, node) in nodes {
        bytes.extend_from_slice(&66u64.to_le_bytes());
        bytes.extend_from_slice(&4242u64.to_le_bytes());
        bytes.extend_from_slice(&1_794_000_000i64.to_le_bytes());
        bytes.extend_from_slice(&7u32.to_le_bytes());
        bytes.extend_from_slice(&20_775u32.to_le_bytes());
        bytes.extend_from_slice(&encoded(node));
    }
    bytes
}

fn snapshot(root: Node) -> Snapshot {
    let user = VolumeUser {
        container: "db".into(),
        image: "postgres:15".into(),
        state: "running".into(),
        destination: "/var/lib/postgresql/data".into(),
        writable: true,
        project: Some("shop".into()),
        service: None,
    };
    let volume = VolumeFacts {
        driver: "local".into(),
        options: vec![("o".into(), "size=1g".into())],
        labels: vec![("backup".into(), "high".into())],
        scope: "local".into(),
        users: vec![user],
        engine: "28.0".into(),
        reader: "host".into(),
    };
    Snapshot {
        source: SourceIdentity { kind: SourceKind::Volume, name: "pgdata".into(), host: "host".into() },
        run: SessionId([3; 16]),
        sequence: 2,
        started: Timestamp::new(1_795_000_000, 1),
        time: Timestamp::new(1_795_000_000, 2),
        milliseconds: 1500,
        consistency: Consistency::Fuzzy,
        frozen_milliseconds: 0,
        root,
        parent: Some(SnapshotId([4; 32])),
        unreadable: vec![Fault { path: "a/b".into(), message: "permission denied".into() }],
        unreadable_count: 1,
        changed: vec![],
        changed_count: 0,
        stats: SnapshotStats { files: 3, directories: 2, bytes: 1 << 40, ..SnapshotStats::default() },
        volume: Some(volume),
        tags: vec!["before-upgrade".into()],
        program: "icecore 0.1.0".into(),
    }
}

fn config(suite: Suite, features: &[&str]) -> Config {
    Config {
        format: 1,
        repository: REPOSITORY,
        created: Timestamp::new(1_795_000_000, 0),
        suite: suite.number(),
        read_features: vec![],
        write_features: features.iter().map(|&name| name.to_owned()).collect(),
        prune_features: vec![],
        verify_features: vec![],
        put_if_absent: true,
        data_pack_bytes: 32 << 20,
        tree_pack_bytes: 8 << 20,
    }
}

fn slot() -> Vec<u8> {
    let keys = Keys::public(&REPOSITORY);
    let secret = Secret::KeyFile(vec![9; 64].into());
    minicbor::to_vec(Slot::wrap(REPOSITORY, keys.secrets(), &secret, "laptop", Timestamp::new(1_795_000_000, 0)).unwrap()).unwrap()
}

fn entries() -> Vec<(&'static str, Entry)> {
    let begin = Begin {
        program: "icecore 0.1.0".into(),
        host: "host".into(),
        process: 4242,
        started: Timestamp::new(1_795_000_000, 0),
        purpose: "snapshot".into(),
    };
    let inline = ByteVec::from(minicbor::to_vec([delta_pack(1)]).unwrap());
    let inline = Published { packs: vec![PackId([1; 32])], inline: Some(inline), deltas: vec![] };
    let objects = Published { packs: vec![PackId([2; 32])], inline: None, deltas: vec!["idx/0707-1-0".into()] };
    vec![
        ("begin", Entry::Begin(begin)),
        ("checkpoint", Entry::Checkpoint(objects)),
        ("snapshot", Entry::Snapshot { published: inline, record: ByteVec::from(vec![1, 2, 3]) }),
        ("member", Entry::Member { published: Published::default(), record: ByteVec::from(vec![4, 5, 6]), number: 1, count: 3 }),
        ("ack", Entry::Ack { cycle: 3, packs: vec![PackId([1; 32])] }),
        ("end", Entry::End),
        ("fence", Entry::Fence { by: SessionId([8; 16]) }),
    ]
}

fn envelope() -> Vec<u8> {
    let (keys, storage) = (Keys::public(&REPOSITORY), MemoryStorage::new());
    let key: Key = "log/07070707070707070707070707070707/00000001".parse().unwrap();
    let body = minicbor::to_vec(Entry::End).unwrap();
    repo::put_object(&storage, &keys, &REPOSITORY, ObjectType::Journal, &key, &body).unwrap();
    storage.get(&key, 1 << 20).unwrap()
}

fn delta_pack(salt: u8) -> DeltaPack {
    DeltaPack::new(&PackInfo { id: PackId([salt; 32]), len: 1 << 20, salt: [salt; 32] }, &pack_entries())
}

fn proofs() -> Vec<(&'static str, Vec<u8>)> {
    let mut proofs = Proofs::default();
    for (pack, verdict, time) in
        [(1, Verdict::Scrubbed, 1_795_000_000), (2, Verdict::Scrubbed, 1_795_000_000), (3, Verdict::Opened, 1_794_000_000)]
    {
        proofs.set(PackId([pack; 32]), verdict, time);
    }
    let known = proofs.encode().unwrap();
    proofs.set(PackId([2; 32]), Verdict::Damaged, 1_795_000_001);
    let group = |verdict, packs: &[[u8; 32]]| ProofGroup { time: -5, verdict, packs: packs.concat().into() };
    let written = |groups: &[ProofGroup]| minicbor::to_vec(groups).unwrap();
    vec![
        ("none", written(&[])),
        ("three", known),
        ("damaged", proofs.encode().unwrap()),
        ("unknown-verdict", written(&[group(9, &[[1; 32]])])),
        ("bad-order", written(&[group(1, &[[2; 32], [1; 32]])])),
    ]
}

fn pack_entries() -> Vec<PackEntry> {
    let entry = |id, kind, codec, stored_len| PackEntry {
        id: ChunkId([id; 32]),
        kind,
        codec,
        offset: 0,
        stored_len,
        raw_len: 2 * stored_len,
        base: (codec == 2).then_some(ChunkId([0xb; 32])),
    };
    vec![entry(1, 0, 0, 100), entry(2, 1, 1, 5000), entry(3, 2, 2, 77)]
}

/// A small pack, sealed with the checksums of a repository without encryption.
fn pack() -> Finished {
    let keys = Keys::public(&REPOSITORY);
    let header =
        Header { kind: 1, suite: keys.suite().number(), repository: REPOSITORY, session: SessionId([3; 16]), sequence: 1, salt: [6; 32] };
    let pack_keys = keys.pack(&header.salt).unwrap();
    let mut pack = PackBuilder::new(header, Vec::new());
    for (kind, raw) in [(ChunkKind::Data, &b"some content"[..]), (ChunkKind::Tree, b"some nodes"), (ChunkKind::List, b"a list")] {
        let id = keys.chunk_id(kind, raw);
        let raw_len = u32::try_from(raw.len()).unwrap();
        let entry = PackEntry { id, kind: kind.number(), codec: 0, offset: 0, stored_len: 0, raw_len, base: None };
        pack.push(&entry, |header, number, out| {
            let start = out.len();
            out.extend_from_slice(raw);
            pack_keys.blob(kind).seal(number, header.blob_aad(number, &entry).as_bytes(), out, start)
        })
        .unwrap();
    }
    pack.finish(|aad, bytes, start| pack_keys.index.seal(0, aad, bytes, start), TAG_BYTES).unwrap()
}

/// Chunks encoded against others, in the notation of the target `undelta`.
fn deltas() -> Vec<(&'static str, Vec<u8>)> {
    let base: Vec<u8> = (0..500u32).flat_map(|n| (n * n).to_le_bytes()).collect();
    let seed = |base: &[u8], raw: &[u8]| {
        let mut frame = Vec::new();
        compress::delta(raw, base, &mut frame).unwrap();
        let lengths = [base.len(), raw.len()].map(|len| u16::try_from(len).unwrap().to_le_bytes()).concat();
        [&lengths[..], base, &frame].concat()
    };
    let mut edited = base.clone();
    edited.splice(700..720, *b"something else");
    let mut bad = seed(&base, &edited);
    bad[2] ^= 1;
    vec![
        ("edited", seed(&base, &edited)),
        ("same", seed(&base, &base)),
        ("unlike", seed(&base, &[7; 300])),
        ("bad-length", bad),
        ("bad-short-base", seed(&base[..60], &edited)),
    ]
}

fn trailer(pack: &Finished) -> Vec<u8> {
    [&(pack.bytes.len() as u64).to_le_bytes()[..], &pack.bytes[pack.bytes.len() - TRAILER_BYTES..]].concat()
}

/// Whole repositories in the notation of the target `store`.
fn stores() -> Vec<(&'static str, Vec<u8>)> {
    let place = |k: u8| {
        let mut id = [0; 32];
        id[..31].copy_from_slice(&PLACE);
        id[31] = k;
        ChunkId(id)
    };
    let chunk = |kind: u8, bytes: &[u8]| [&[kind][..], &u16::try_from(bytes.len()).unwrap().to_le_bytes(), bytes].concat();
    let list = |entries: &[(ChunkId, u64)]| -> Vec<u8> {
        entries.iter().flat_map(|(id, len)| [&id.as_bytes()[..], &len.to_le_bytes()].concat()).collect()
    };
    let at = |len: usize, profile, depth, k| Stream { len: len as u64, profile, depth, id: place(k) };
    let node = |text, kind| encoded(&Node { name: name(text), meta: meta(), kind });
    let record =
        |stream| snapshot(Node { name: None, meta: Meta { mode: 0o755, ..meta() }, kind: NodeKind::Directory(stream) }).encode().unwrap();

    let content = b"what a file may hold";
    let holes = list(&[(place(0), 20), (ChunkId::HOLE, 1 << 20), (place(0), 20)]);
    let file = Stream { len: 40 + (1 << 20), profile: 1, depth: 1, id: place(1) };
    let below = [node("x", NodeKind::InlineFile(b"hello".to_vec())), node("y", NodeKind::Symlink(b"x".to_vec()))].concat();
    let tree = [
        node("a", NodeKind::File(at(20, 1, 0, 0))),
        node("b", NodeKind::File(file)),
        node("c", NodeKind::Directory(at(below.len(), 16, 0, 2))),
        node("d", NodeKind::Fifo),
    ]
    .concat();
    let chunks = [chunk(0, content), chunk(2, &holes), chunk(1, &below), chunk(1, &tree), vec![END]].concat();
    let good = [&chunks[..], &record(at(tree.len(), 16, 0, 3))].concat();

    let split = list(&[(place(2), below.len() as u64), (place(0), 7)]);
    let listed = [chunk(0, content), chunk(2, &split), chunk(1, &below), vec![END], record(at(below.len(), 16, 0, 1))].concat();
    let twice = [&below[..], &below].concat();
    let unsorted = [chunk(1, &twice), vec![END], record(at(twice.len(), 16, 0, 0))].concat();
    let files = [node("a", NodeKind::File(file)), node("b", NodeKind::File(Stream { len: file.len + 1, ..file }))].concat();
    let lengths = [chunk(0, content), chunk(2, &holes), chunk(1, &files), vec![END], record(at(files.len(), 16, 0, 2))].concat();
    vec![
        ("tree", good.clone()),
        ("empty", [vec![END], record(Stream::EMPTY)].concat()),
        ("bad-kind", [&chunks[..], &record(at(content.len(), 16, 0, 0))].concat()),
        ("bad-list", listed),
        ("bad-order", unsorted),
        // A file whose bytes are stored as a list: verify looked for the chunk only, and restore refused it.
        ("bad-data-kind", [&chunk(2, content)[..], &good[chunk(0, content).len()..]].concat()),
        // Two files of one list that claim different lengths: verify took the second for the first.
        ("bad-second-length", lengths),
    ]
}
