//! One recursion for everything that is long: a stream (a file's bytes, a directory's nodes, an xattr set) is cut; one
//! chunk: its id stands for the stream; several: the list of their ids and lengths is a stream again.
//!
//! A list is entries of 40 bytes: 32 id, 8 length in bytes of the stream that it covers. An id of zeros is a hole of that
//! length. Lists are cut with the `meta` profile, each cut moved up to the next whole entry.

use std::collections::VecDeque;

use super::earlier::Earlier;
use super::list::{ChunkList, LIST_ENTRY_BYTES, entry_of};
use super::read::ChunkReader;
use super::write::ChunkWriter;
use crate::chunk::{CHUNK_BYTES_MAX, Profile};
use crate::error::{Error, Result};
use crate::model::{ChunkId, Node, Stream};
use crate::seal::keys::ChunkKind;

/// Cuts and stores one stream.
pub struct StreamWriter<'w, 'r> {
    writer: &'w ChunkWriter<'r>,
    kind: ChunkKind,
    profile: &'static Profile,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    list: ChunkList<'w, 'r>,
    len: u64,
}

impl<'w, 'r> StreamWriter<'w, 'r> {
    /// A stream of chunks of `kind`, cut with `profile`, that reuses the allocation of `buffer`. What is new in it is stored
    /// as its difference from `earlier`, another version of the same, where that pays.
    pub fn new(
        writer: &'w ChunkWriter<'r>,
        kind: ChunkKind,
        profile: &'static Profile,
        earlier: Option<&Stream>,
        mut buffer: Vec<u8>,
    ) -> Self {
        buffer.resize(profile.max * 4, 0);
        let list = ChunkList::new(writer, earlier.map(|stream| Earlier::new(writer.reader(), stream)));
        Self { writer, kind, profile, buffer, start: 0, end: 0, list, len: 0 }
    }

    /// Room for at least the longest chunk of the profile; fill a part of it, then call [`StreamWriter::advance`].
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buffer[self.end..]
    }

    /// `filled` bytes of the last [`StreamWriter::space`] are part of the stream now.
    pub fn advance(&mut self, filled: usize) -> Result<()> {
        self.end += filled;
        self.len += filled as u64;
        while self.end - self.start >= self.profile.max {
            self.cut_one()?;
        }
        Ok(())
    }

    /// Appends bytes.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let space = self.space();
            let taken = space.len().min(bytes.len());
            space[..taken].copy_from_slice(&bytes[..taken]);
            self.advance(taken)?;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Appends a hole. What stood before it is cut here.
    pub fn hole(&mut self, len: u64) -> Result<()> {
        if len == 0 {
            return Ok(());
        }
        self.cut_all()?;
        self.len += len;
        self.list.hole(len)
    }

    /// Bytes of the stream so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was written so far.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Ends the stream. Returns the reference and the buffer for reuse.
    pub fn finish(mut self) -> Result<(Stream, Vec<u8>)> {
        self.cut_all()?;
        Ok((self.list.finish(self.profile)?, self.buffer))
    }

    fn cut_all(&mut self) -> Result<()> {
        while self.end > self.start {
            self.cut_one()?;
        }
        Ok(())
    }

    fn cut_one(&mut self) -> Result<()> {
        let bytes = &self.buffer[self.start..self.end];
        let len = self.writer.repository().chunker().cut(self.profile, bytes);
        let list = &mut self.list;
        let put = self.writer.put_over(self.kind, &bytes[..len], &mut || list.before(len as u64))?;
        self.start += len;
        self.list.push(&put, len as u64)
    }
}

/// A piece of a stream: one chunk, or a hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Offset in the stream.
    pub offset: u64,
    /// Length.
    pub len: u64,
    /// The chunk, or [`ChunkId::HOLE`].
    pub id: ChunkId,
}

/// Goes over the pieces of a stream in order; reads lists as it gets to them.
pub struct StreamReader<'a, 'r> {
    reader: &'a ChunkReader<'r>,
    stream: Stream,
    /// Lists that are open, from the root down: entries still to visit.
    open: Vec<VecDeque<(ChunkId, u64)>>,
    offset: u64,
    started: bool,
    /// Called with every list's id before it is read; prune and verify collect them.
    lists: Option<&'a mut dyn FnMut(ChunkId) -> bool>,
    /// The lists that were read, when they are to be kept.
    log: Option<VecDeque<ListRead>>,
}

/// A list that was read on the way to the pieces of a stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct ListRead {
    /// 1 for a list of chunks, 2 for a list of such lists, and so on.
    pub(super) level: usize,
    /// What it covers.
    pub(super) covers: Leaf,
}

impl<'a, 'r> StreamReader<'a, 'r> {
    /// The pieces of `stream`.
    pub fn new(reader: &'a ChunkReader<'r>, stream: &Stream) -> Self {
        Self { reader, stream: *stream, open: Vec::new(), offset: 0, started: false, lists: None, log: None }
    }

    /// Likewise; `visit` is told the id of each list, and a list that it answers `false` to is passed over with all that
    /// is below it.
    pub fn with_lists(reader: &'a ChunkReader<'r>, stream: &Stream, visit: &'a mut dyn FnMut(ChunkId) -> bool) -> Self {
        Self { lists: Some(visit), ..Self::new(reader, stream) }
    }

    /// Likewise, keeping note of the lists that are read.
    pub(super) fn with_log(reader: &'a ChunkReader<'r>, stream: &Stream) -> Self {
        Self { log: Some(VecDeque::new()), ..Self::new(reader, stream) }
    }

    /// The lists that were read, in that order. Whoever looks may take out what is of no more use.
    pub(super) fn log(&mut self) -> &mut VecDeque<ListRead> {
        self.log.get_or_insert_default()
    }

    /// The next piece; none at the end.
    pub fn next_leaf(&mut self) -> Result<Option<Leaf>> {
        if !self.started {
            self.started = true;
            if self.stream.len > 0 {
                self.open.push(VecDeque::from([(self.stream.id, self.stream.len)]));
            }
        }
        loop {
            let Some(list) = self.open.last_mut() else {
                return if self.offset == self.stream.len {
                    Ok(None)
                } else {
                    Err(Error::damaged("a list of chunks ends too early").on(self.stream.id))
                };
            };
            let Some((id, len)) = list.pop_front() else {
                self.open.pop();
                continue;
            };
            if len == 0 || len > self.stream.len - self.offset {
                return Err(Error::damaged("a list of chunks covers more than its stream").on(self.stream.id));
            }
            let is_list = self.open.len() <= usize::from(self.stream.depth) && !id.is_hole();
            if is_list {
                let wanted = self.lists.as_mut().is_none_or(|visit| visit(id));
                if wanted {
                    let entries = self.read_list(&id, len)?;
                    if let Some(log) = &mut self.log {
                        let level = usize::from(self.stream.depth) + 1 - self.open.len();
                        log.push_back(ListRead { level, covers: Leaf { offset: self.offset, len, id } });
                    }
                    self.open.push(entries);
                } else {
                    self.offset += len;
                }
                continue;
            }
            if !id.is_hole() && len > CHUNK_BYTES_MAX as u64 {
                return Err(Error::damaged("a list names a chunk of impossible length").on(id));
            }
            let leaf = Leaf { offset: self.offset, len, id };
            self.offset += len;
            return Ok(Some(leaf));
        }
    }

    fn read_list(&self, id: &ChunkId, covered: u64) -> Result<VecDeque<(ChunkId, u64)>> {
        let bytes = self.reader.read(ChunkKind::List, id)?;
        let entries: VecDeque<_> = bytes.chunks_exact(LIST_ENTRY_BYTES).map(entry_of).collect();
        let sum = entries.iter().try_fold(0u64, |sum, (_, len)| sum.checked_add(*len));
        if bytes.len() % LIST_ENTRY_BYTES != 0 || sum != Some(covered) {
            return Err(Error::damaged("a list of chunks does not cover what it should").on(id));
        }
        Ok(entries)
    }
}

/// Reads the nodes of a directory, one after another; checks that they are sorted and each name stands once.
pub struct NodeReader<'a, 'r> {
    leaves: StreamReader<'a, 'r>,
    reader: &'a ChunkReader<'r>,
    chunks: Option<&'a dyn Fn(ChunkId)>,
    bytes: Vec<u8>,
    position: usize,
    last: Vec<u8>,
}

impl<'a, 'r> NodeReader<'a, 'r> {
    /// The nodes of the directory whose stream this is.
    pub fn new(reader: &'a ChunkReader<'r>, stream: &Stream) -> Self {
        Self { leaves: StreamReader::new(reader, stream), reader, chunks: None, bytes: Vec::new(), position: 0, last: Vec::new() }
    }

    /// Likewise; `lists` and `chunks` are told the ids of everything that the directory itself consists of.
    pub fn with_ids(
        reader: &'a ChunkReader<'r>,
        stream: &Stream,
        lists: &'a mut dyn FnMut(ChunkId) -> bool,
        chunks: &'a dyn Fn(ChunkId),
    ) -> Self {
        Self { leaves: StreamReader::with_lists(reader, stream, lists), chunks: Some(chunks), ..Self::new(reader, stream) }
    }

    /// The next node; none at the end.
    pub fn next_node(&mut self) -> Result<Option<Node>> {
        loop {
            let rest = &self.bytes[self.position..];
            if let Some(len) = Node::encoded_len(rest)?
                && let Some(record) = rest.get(..len)
            {
                let node = Node::decode(record)?;
                self.position += len;
                if node.name.is_none() || node.name_bytes() <= self.last.as_slice() {
                    return Err(Error::damaged("a directory's entries are not in order").on(crate::model::path::escape(node.name_bytes())));
                }
                self.last.clear();
                self.last.extend_from_slice(node.name_bytes());
                return Ok(Some(node));
            }
            let Some(leaf) = self.leaves.next_leaf()? else {
                return if rest.is_empty() { Ok(None) } else { Err(Error::damaged("a directory ends inside an entry")) };
            };
            if let Some(chunks) = self.chunks {
                chunks(leaf.id);
            }
            if leaf.id.is_hole() {
                return Err(Error::damaged("a directory has a hole"));
            }
            let chunk = self.reader.read(ChunkKind::Tree, &leaf.id)?;
            if chunk.len() as u64 != leaf.len {
                return Err(Error::damaged("a chunk has another length than its list says").on(leaf.id));
            }
            self.bytes.drain(..self.position);
            self.position = 0;
            self.bytes.extend_from_slice(&chunk);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::chunk::{GENERIC, META};
    use crate::clock::ManualClock;
    use crate::model::hash;
    use crate::progress::Progress;
    use crate::repo::{CreateOptions, Locked, Operation, Repository, WriterOptions};
    use crate::storage::memory::MemoryStorage;

    fn repository() -> Repository {
        let storage = MemoryStorage::default();
        Repository::create(&storage, &CreateOptions::default(), &ManualClock::at(1)).unwrap();
        let index = Box::new(crate::index::memory::MemoryIndex::default());
        Locked::read(Arc::new(storage)).unwrap().unlock(None, index, Arc::new(ManualClock::at(1)), "here").unwrap()
    }

    fn write(repo: &Repository, profile: &'static Profile, pieces: &[&[u8]], holes: &[u64]) -> Stream {
        let progress = Progress::new();
        let options = WriterOptions { compression: 1, dry_run: false, purpose: "test", operation: Operation::Write };
        let writer = ChunkWriter::begin(repo, options, &progress).unwrap();
        let mut stream = StreamWriter::new(&writer, ChunkKind::Data, profile, None, Vec::new());
        for (piece, hole) in pieces.iter().zip(holes.iter().chain(std::iter::repeat(&0))) {
            stream.write(piece).unwrap();
            stream.hole(*hole).unwrap();
        }
        let stream = stream.finish().unwrap().0;
        repo.abandon(writer.finish().unwrap()).unwrap();
        stream
    }

    fn read(repo: &Repository, stream: &Stream) -> Vec<u8> {
        let reader = ChunkReader::new(repo);
        let mut leaves = StreamReader::new(&reader, stream);
        let mut bytes = Vec::new();
        while let Some(leaf) = leaves.next_leaf().unwrap() {
            assert_eq!(leaf.offset, bytes.len() as u64);
            if leaf.id.is_hole() {
                bytes.resize(bytes.len() + usize::try_from(leaf.len).unwrap(), 0);
            } else {
                bytes.extend_from_slice(&reader.read(ChunkKind::Data, &leaf.id).unwrap());
            }
        }
        bytes
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        hash::keyed_stream(&[3; 32], b"noise", &mut bytes);
        bytes
    }

    #[test]
    fn streams_of_every_depth_read_back() {
        let repo = repository();
        for (len, depth) in [(0, 0), (1, 0), (2048, 0), (200_000, 1), (9_000_000, 2)] {
            let bytes = noise(len);
            let stream = write(&repo, &META, &[&bytes], &[]);
            assert_eq!((stream.len, stream.depth), (len as u64, depth), "{len}");
            assert!(read(&repo, &stream) == bytes);
        }
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_bytes_came() {
        let repo = repository();
        let bytes = noise(3_000_000);
        let whole = write(&repo, &GENERIC, &[&bytes], &[]);
        let pieces: Vec<&[u8]> = bytes.chunks(7919).collect();
        assert_eq!(write(&repo, &GENERIC, &pieces, &[]), whole);
    }

    #[test]
    fn holes_are_kept_and_cost_nothing() {
        let repo = repository();
        let stream = write(&repo, &GENERIC, &[&[], b"x", b"end"], &[1 << 40, 5000]);
        assert_eq!(stream.len, (1 << 40) + 1 + 5000 + 3);
        let reader = ChunkReader::new(&repo);
        let mut leaves = StreamReader::new(&reader, &stream);
        let mut lengths = Vec::new();
        while let Some(leaf) = leaves.next_leaf().unwrap() {
            lengths.push((leaf.len, leaf.id.is_hole()));
        }
        assert_eq!(lengths, [(1 << 40, true), (1, false), (5000, true), (3, false)]);
        let only = write(&repo, &GENERIC, &[&[]], &[77]);
        assert_eq!((only.len, only.depth, only.id.is_hole()), (77, 0, true));
    }

    #[test]
    fn a_reference_with_a_wrong_length_is_noticed() {
        let repo = repository();
        let stream = write(&repo, &META, &[&noise(200_000)], &[]);
        for wrong in [Stream { len: 199_999, ..stream }, Stream { len: 200_001, ..stream }, Stream { depth: 2, ..stream }] {
            let reader = ChunkReader::new(&repo);
            let mut leaves = StreamReader::new(&reader, &wrong);
            let end = loop {
                match leaves.next_leaf() {
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error.kind()),
                }
            };
            assert_eq!(end, Err(crate::error::ErrorKind::Damaged), "{wrong:?}");
        }
    }
}
