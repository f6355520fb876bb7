//! Packs and trees: bytes to structures and back.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput};
use icecore::clock::Timestamp;
use icecore::model::{ChunkId, Meta, Name, Node, NodeKind, RepositoryId, SessionId, Stream, Xattrs};
use icecore::pack::reader::Sections;
use icecore::pack::{Finished, Footer, HEADER_BYTES, Header, PackBuilder, PackEntry, TRAILER_BYTES};
use icecore::seal::keys::PackKeys;
use icecore::seal::{Keys, TAG_BYTES};

use crate::data::noise;

const BLOB: usize = 60 << 10;
const PACK: usize = 32 << 20;

fn fill(keys: &PackKeys, repository: RepositoryId, body: &[u8], buffer: Vec<u8>) -> Finished {
    let header = Header { kind: 3, suite: 0, repository, session: SessionId([2; 16]), sequence: 0, salt: [3; 32] };
    let mut builder = PackBuilder::new(header, buffer);
    for number in 0..PACK / BLOB {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
        let entry = PackEntry { id: ChunkId(id), kind: 0, codec: 0, offset: 0, stored_len: 0, raw_len: BLOB as u32, base: None };
        builder
            .push(&entry, |_, _, out| {
                out.extend_from_slice(body);
                out.extend_from_slice(&[0; TAG_BYTES]);
                Ok(())
            })
            .unwrap();
    }
    builder.finish(|aad, out, start| keys.index.seal(0, aad, out, start), TAG_BYTES).unwrap()
}

/// Building a pack of blobs that are sealed already, reading its footer, and checking it without a key.
pub(crate) fn pack(c: &mut Criterion) {
    let repository = RepositoryId([1; 16]);
    let keys = Keys::public(&repository);
    let keys = keys.pack(&[3; 32]).unwrap();
    let body = noise(BLOB);
    let mut group = c.benchmark_group("pack");
    group.throughput(Throughput::Bytes(PACK as u64));
    let mut spare = Some(Vec::with_capacity(PACK + (1 << 20)));
    group.bench_function("build", |b| {
        b.iter(|| {
            let finished = fill(&keys, repository, &body, spare.take().unwrap_or_default());
            spare = Some(finished.bytes);
        });
    });
    let finished = fill(&keys, repository, &body, Vec::new());
    let len = finished.bytes.len();
    let trailer = finished.bytes[len - TRAILER_BYTES..].try_into().unwrap();
    let header = finished.bytes[..HEADER_BYTES].try_into().unwrap();
    let sections = Sections::parse(trailer, len as u64, &finished.id).unwrap();
    let tail = finished.bytes[sections.index_offset as usize..sections.trailer_offset as usize].to_vec();
    let open = |_: &Header, aad: &[u8], index: &mut [u8]| keys.index.open(0, aad, index).map(|plain| plain.len());
    let read = || Footer::read(&sections, header, &mut tail.clone(), open).unwrap();
    let footer = read();
    let covered = &finished.bytes[..footer.covered_bytes() as usize];
    group.bench_function("scrub", |b| b.iter(|| assert!(footer.scrub(black_box(covered)).is_empty())));
    group.throughput(Throughput::Elements(footer.entries.len() as u64));
    group.bench_function("read the footer", |b| b.iter(read));
    group.finish();
}

fn node(number: u64) -> Node {
    let stream = Stream { len: 100_000 + number, profile: 1, depth: 0, id: ChunkId([number as u8; 32]) };
    let mtime = Timestamp::new(1_700_000_000 + number as i64, 123_456_789);
    Node {
        name: Some(Name::new(format!("file-{number:08}.txt").into_bytes()).unwrap()),
        meta: Meta { mode: 0o644, uid: 1000, gid: 1000, mtime, xattrs: Xattrs::None, links: None, changed: false },
        kind: NodeKind::File(stream),
    }
}

/// Entries of directories.
pub(crate) fn tree(c: &mut Criterion) {
    const NODES: u64 = 10_000;
    let nodes: Vec<_> = (0..NODES).map(node).collect();
    let mut bytes = Vec::new();
    nodes.iter().for_each(|node| node.encode(&mut bytes));
    let mut group = c.benchmark_group("tree");
    group.throughput(Throughput::Elements(NODES));
    group.bench_function("encode nodes", |b| {
        b.iter_batched(Vec::new, |mut out| nodes.iter().for_each(|node| node.encode(&mut out)), BatchSize::LargeInput);
    });
    group.bench_function("decode nodes", |b| {
        b.iter(|| {
            let mut rest = &bytes[..];
            while let Some(len) = Node::encoded_len(rest).unwrap() {
                black_box(Node::decode(&rest[..len]).unwrap());
                rest = &rest[len..];
            }
        });
    });
    group.finish();
    crate::whole::directory(c, &nodes);
}
