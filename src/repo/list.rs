//! The lists above a stream's chunks: ids and lengths of chunks, cut like any other stream, with lists of lists above them
//! until one is left.
//!
//! A list is entries of 40 bytes: 32 id, 8 length in bytes of the stream that it covers. An id of zeros is a hole of that
//! length. Lists are cut with the `meta` profile, each cut moved up to the next whole entry.

use super::earlier::Earlier;
use super::write::{ChunkWriter, Put};
use crate::chunk::{self, Profile};
use crate::error::{Error, Result};
use crate::model::node::STREAM_DEPTH_MAX;
use crate::model::{ChunkId, Stream};
use crate::seal::keys::ChunkKind;

/// Length of a list entry in bytes.
pub(super) const LIST_ENTRY_BYTES: usize = 40;
/// How much of a list waits until it is cut: a cut needs the longest chunk, and is made with one to spare.
const LIST_BUFFER_BYTES: usize = 2 * (32 << 10);
/// After so many deltas in a row that did not pay, a stream has become another one: deltas are tried now and then only.
const FUTILE_MAX: u32 = 4;
/// How often they are tried then: one new chunk in so many.
const FUTILE_STEP: u32 = 16;

/// The chunks of one stream, in order, as they become known; and what stood in their places in an earlier version.
pub struct ChunkList<'w, 'r> {
    writer: &'w ChunkWriter<'r>,
    levels: Vec<Level>,
    earlier: Option<Earlier<'w, 'r>>,
    len: u64,
    /// New chunks in a row that no delta was made of, and how often one was asked for.
    futile: u32,
    asked: u32,
}

#[derive(Default)]
struct Level {
    waiting: Vec<u8>,
    entries: u64,
    /// Bytes of the stream that its cut lists cover.
    covered: u64,
}

impl<'w, 'r> ChunkList<'w, 'r> {
    /// No chunks yet.
    pub fn new(writer: &'w ChunkWriter<'r>, earlier: Option<Earlier<'w, 'r>>) -> Self {
        Self { writer, levels: Vec::new(), earlier, len: 0, futile: 0, asked: 0 }
    }

    /// The version that this one is compared with.
    pub fn earlier(&mut self) -> Option<&mut Earlier<'w, 'r>> {
        self.earlier.as_mut()
    }

    /// The chunk that stood where the next `len` bytes stand now, if a delta is worth a try.
    pub fn before(&mut self, len: u64) -> Result<Option<ChunkId>> {
        self.before_at(self.len, len)
    }

    /// Likewise, for `len` bytes at `offset`.
    pub fn before_at(&mut self, offset: u64, len: u64) -> Result<Option<ChunkId>> {
        let Some(earlier) = &mut self.earlier else { return Ok(None) };
        self.asked = self.asked.wrapping_add(1);
        if self.futile > FUTILE_MAX && !self.asked.is_multiple_of(FUTILE_STEP) {
            return Ok(None);
        }
        earlier.chunk_at(offset, len)
    }

    /// Appends a chunk of `len` bytes that was stored or is known.
    pub fn push(&mut self, put: &Put, len: u64) -> Result<()> {
        if put.new && self.earlier.is_some() {
            self.futile = if put.delta { 0 } else { self.futile.saturating_add(1) };
        } else if let Some(earlier) = &mut self.earlier {
            earlier.met(&put.id, self.len);
        }
        self.known(put.id, len)
    }

    /// Appends a chunk of `len` bytes that needs no storing.
    pub fn known(&mut self, id: ChunkId, len: u64) -> Result<()> {
        self.len += len;
        self.append(0, id, len)
    }

    /// Appends a hole.
    pub fn hole(&mut self, len: u64) -> Result<()> {
        if len == 0 { Ok(()) } else { self.known(ChunkId::HOLE, len) }
    }

    /// Bytes of the stream so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Stores the lists that are still open; the reference to the stream, whose chunks were cut with `profile`.
    pub fn finish(mut self, profile: &Profile) -> Result<Stream> {
        if self.len == 0 {
            return Ok(Stream::EMPTY);
        }
        let mut depth = 0;
        loop {
            let level = &self.levels[depth];
            if level.entries == 1 && self.levels.len() == depth + 1 {
                let number = u8::try_from(depth).map_err(|_| too_long())?;
                return Ok(Stream { len: self.len, profile: profile.number, depth: number, id: entry_of(&level.waiting).0 });
            }
            while !self.levels[depth].waiting.is_empty() {
                self.cut_one(depth)?;
            }
            depth += 1;
        }
    }

    fn append(&mut self, depth: usize, id: ChunkId, len: u64) -> Result<()> {
        if depth > usize::from(STREAM_DEPTH_MAX) {
            return Err(too_long());
        }
        if self.levels.len() == depth {
            self.levels.push(Level::default());
        }
        let level = &mut self.levels[depth];
        level.waiting.extend_from_slice(id.as_bytes());
        level.waiting.extend_from_slice(&len.to_le_bytes());
        level.entries += 1;
        if level.waiting.len() >= LIST_BUFFER_BYTES { self.cut_one(depth) } else { Ok(()) }
    }

    fn cut_one(&mut self, depth: usize) -> Result<()> {
        let level = &mut self.levels[depth];
        let cut = self.writer.repository().chunker().cut(&chunk::META, &level.waiting).next_multiple_of(LIST_ENTRY_BYTES);
        let rest = level.waiting.split_off(cut.min(level.waiting.len()));
        let list = std::mem::replace(&mut level.waiting, rest);
        let len = list.chunks_exact(LIST_ENTRY_BYTES).map(|entry| entry_of(entry).1).sum();
        let offset = level.covered;
        level.covered += len;
        let earlier = &mut self.earlier;
        let mut before = || Ok(earlier.as_mut().and_then(|earlier| earlier.list_at(depth + 1, offset, len)));
        let put = self.writer.put_over(ChunkKind::List, &list, &mut before)?;
        self.append(depth + 1, put.id, len)
    }
}

fn too_long() -> Error {
    Error::damaged("a stream is longer than a stream can be")
}

/// Id and length of a list's entry, which is as long as entries are.
pub(super) fn entry_of(entry: &[u8]) -> (ChunkId, u64) {
    let (mut id, mut len) = ([0; 32], [0; 8]);
    id.copy_from_slice(&entry[..32]);
    len.copy_from_slice(&entry[32..40]);
    (ChunkId(id), u64::from_le_bytes(len))
}
