//! Stages that only work together, in a repository in memory.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use criterion::{BatchSize, Criterion, Throughput};
use icecore::chunk::META;
use icecore::clock::SystemClock;
use icecore::index::memory::MemoryIndex;
use icecore::model::{Consistency, Node, SessionId, SourceIdentity, SourceKind};
use icecore::ops::snapshot::{SnapshotOptions, SnapshotReport, snapshot};
use icecore::progress::Progress;
use icecore::repo::{ChunkReader, ChunkWriter, CreateOptions, Locked, NodeReader, Operation, Repository, StreamWriter, WriterOptions};
use icecore::seal::compress;
use icecore::seal::keys::ChunkKind;
use icecore::source::dir::DirSource;
use icecore::storage::memory::MemoryStorage;

use crate::data::{noise, pages};

fn repository() -> Repository {
    let storage = MemoryStorage::new();
    Repository::create(&storage, &CreateOptions::default(), &SystemClock::default()).unwrap();
    Locked::read(Arc::new(storage)).unwrap().unlock(None, Box::new(MemoryIndex::new()), Arc::new(SystemClock::default()), "bench").unwrap()
}

/// The stream of a directory's entries: cut, named, compressed, sealed and packed; and read back.
pub(crate) fn directory(c: &mut Criterion, nodes: &[Node]) {
    let mut group = c.benchmark_group("tree");
    group.throughput(Throughput::Elements(nodes.len() as u64));
    let progress = Progress::new();
    let options = || WriterOptions { compression: compress::LEVEL_DEFAULT, dry_run: false, purpose: "bench", operation: Operation::Write };
    let write = |repo: &Repository| {
        let writer = ChunkWriter::begin(repo, options(), &progress).unwrap();
        let mut stream = StreamWriter::new(&writer, ChunkKind::Tree, &META, None, vec![0; 256 << 10]);
        let mut record = Vec::new();
        for node in nodes {
            record.clear();
            node.encode(&mut record);
            stream.write(&record).unwrap();
        }
        let (stream, _) = stream.finish().unwrap();
        writer.finish().unwrap();
        stream
    };
    group.bench_function("write a directory", |b| {
        b.iter_batched_ref(repository, |repo| write(repo), BatchSize::PerIteration);
    });
    let repo = repository();
    let stream = write(&repo);
    group.bench_function("read a directory", |b| {
        b.iter(|| {
            let reader = ChunkReader::new(&repo);
            let mut found = NodeReader::new(&reader, &stream);
            let mut count = 0;
            while found.next_node().unwrap().is_some() {
                count += 1;
            }
            assert_eq!(count, nodes.len());
        });
    });
    group.finish();
}

/// A file that is read again: nothing changed, one page changed. All cores work on it.
pub(crate) fn rescan(c: &mut Criterion) {
    const LEN: usize = 64 << 20;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("table");
    fs::write(&path, pages(LEN)).unwrap();
    let repo = repository();
    let mut group = c.benchmark_group("rescan");
    group.throughput(Throughput::Bytes(LEN as u64));
    group.sample_size(10);
    group.bench_function("first", |b| {
        b.iter_batched_ref(repository, |repo| take(repo, dir.path(), true), BatchSize::PerIteration);
    });
    take(&repo, dir.path(), true);
    group.bench_function("nothing changed", |b| b.iter(|| take(&repo, dir.path(), true)));
    let news = noise(1 << 20);
    let mut round = 0;
    group.bench_function("one page changed", |b| {
        b.iter(|| {
            round += 1;
            let mut file = File::options().write(true).open(&path).unwrap();
            file.seek(SeekFrom::Start((round * 7919 % (LEN as u64 / 8192)) * 8192)).unwrap();
            file.write_all(&news[(round % 1000) as usize * 16..][..16]).unwrap();
            take(&repo, dir.path(), true)
        });
    });
    group.finish();
}

fn take(repo: &Repository, dir: &Path, force_read: bool) -> SnapshotReport {
    let options = SnapshotOptions {
        identity: SourceIdentity { kind: SourceKind::Path, name: "bench".to_owned(), host: "bench".to_owned() },
        run: SessionId([4; 16]),
        consistency: Consistency::Stopped,
        tags: Vec::new(),
        volume: None,
        force_read,
        one_file_system: false,
        compression: compress::LEVEL_DEFAULT,
        dry_run: false,
    };
    snapshot(repo, &DirSource::open(dir).unwrap(), &options, &Progress::new()).unwrap()
}
