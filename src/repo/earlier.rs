//! An earlier version of a stream: its chunks, and the lists above them, by the place that they have in it. What is new in
//! the version that is written now is compared with what stood in its place.
//!
//! Places move: after an insertion or a deletion everything behind it stands elsewhere. Wherever a chunk of the earlier
//! version is met again, the difference of the two places is taken as that of all that follows.

use std::collections::VecDeque;

use super::read::ChunkReader;
use super::stream::{Leaf, StreamReader};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{ChunkId, Stream};

/// Chunks that are kept behind and ahead of the place that was asked for last: 256 MiB of usual ones each way.
const KEPT_MAX: usize = 4096;
/// Lists that are kept, by the same measure many times more than their chunks need.
const LISTS_KEPT_MAX: usize = 1024;
/// How far from the expected place a chunk is looked for when it was met elsewhere.
const SEARCHED_MAX: usize = 512;

/// A version of a stream that is in the repository. It is read as far as it is needed, from its start to its end.
pub struct Earlier<'a, 'r> {
    stream: Stream,
    leaves: StreamReader<'a, 'r>,
    read: VecDeque<Leaf>,
    ended: bool,
    /// Where something stands now, less where it stood.
    shift: i64,
}

impl<'a, 'r> Earlier<'a, 'r> {
    /// The version `stream`; nothing is read yet.
    pub fn new(reader: &'a ChunkReader<'r>, stream: &Stream) -> Self {
        Self { stream: *stream, leaves: StreamReader::with_log(reader, stream), read: VecDeque::new(), ended: false, shift: 0 }
    }

    /// The profile that it was cut with.
    pub fn profile(&self) -> u8 {
        self.stream.profile
    }

    /// Where something stands now, less where it stood.
    pub fn shift(&self) -> i64 {
        self.shift
    }

    /// The chunk that shares most with `offset..offset + len` of the new version; behind its end, its last chunk.
    pub fn chunk_at(&mut self, offset: u64, len: u64) -> Result<Option<ChunkId>> {
        let (start, end) = (self.old(offset), self.old(offset + len));
        self.read_to(end)?;
        let overlapping = self.around(start).take_while(|leaf| leaf.offset < end).filter(|leaf| !leaf.id.is_hole());
        let best = overlapping.max_by_key(|leaf| end.min(leaf.offset + leaf.len) - start.max(leaf.offset));
        let neighbour = || self.read.iter().rev().find(|leaf| leaf.offset < end.max(1) && !leaf.id.is_hole());
        Ok(best.or_else(neighbour).map(|leaf| leaf.id))
    }

    /// The piece that begins exactly where `offset` of the new version stood.
    pub fn leaf_from(&mut self, offset: u64) -> Result<Option<Leaf>> {
        let start = self.old(offset);
        self.read_to(start + 1)?;
        Ok(self.around(start).find(|leaf| leaf.offset == start).copied())
    }

    /// Where the piece ends that holds the byte which stands at `offset` now, in places of the new version.
    pub fn boundary_after(&mut self, offset: u64) -> Result<Option<u64>> {
        let start = self.old(offset);
        self.read_to(start + 1)?;
        let holding = self.around(start).next().filter(|leaf| leaf.offset <= start);
        Ok(holding.and_then(|leaf| (leaf.offset + leaf.len).checked_add_signed(self.shift)).filter(|end| *end > offset))
    }

    /// The list of a level (1: lists of chunks) that shares most with `offset..offset + len` of the new version, among those
    /// that were read.
    pub fn list_at(&mut self, level: usize, offset: u64, len: u64) -> Option<ChunkId> {
        let (start, end) = (self.old(offset), self.old(offset + len));
        let lists = self.leaves.log();
        let same = lists.iter().rev().filter(|list| list.level == level);
        let best =
            same.clone().max_by_key(|list| end.min(list.covers.offset + list.covers.len).saturating_sub(start.max(list.covers.offset)));
        best.map(|list| list.covers.id)
    }

    /// A chunk that is not new stands at `offset` now. Where it stood, if not far from where it was expected, tells how far
    /// everything has moved.
    pub fn met(&mut self, id: &ChunkId, offset: u64) -> bool {
        let expected = self.old(offset);
        let at = self.read.partition_point(|leaf| leaf.offset + leaf.len <= expected);
        let (from, to) = (at.saturating_sub(SEARCHED_MAX), (at + SEARCHED_MAX).min(self.read.len()));
        let near = |leaf: &&Leaf| leaf.offset.abs_diff(expected);
        let found = self.read.range(from..to).filter(|leaf| leaf.id == *id).min_by_key(near);
        if let Some(leaf) = found {
            self.shift = offset.cast_signed().wrapping_sub(leaf.offset.cast_signed());
        }
        found.is_some()
    }

    fn old(&self, offset: u64) -> u64 {
        offset.checked_add_signed(self.shift.wrapping_neg()).unwrap_or(0)
    }

    /// The leaves from the one that holds `start` on.
    fn around(&self, start: u64) -> impl Iterator<Item = &Leaf> {
        let at = self.read.partition_point(|leaf| leaf.offset + leaf.len <= start);
        self.read.range(at..)
    }

    fn read_to(&mut self, end: u64) -> Result<()> {
        while self.read.back().is_none_or(|last| last.offset + last.len < end) && self.read_one()? {}
        Ok(())
    }

    /// Reads one more piece; whether there was one. What can't be read is not there: this is only about doing better.
    fn read_one(&mut self) -> Result<bool> {
        if self.ended {
            return Ok(false);
        }
        match self.leaves.next_leaf() {
            Ok(Some(leaf)) => {
                self.read.push_back(leaf);
                if self.read.len() > 2 * KEPT_MAX {
                    self.read.pop_front();
                }
                let lists = self.leaves.log();
                if lists.len() > LISTS_KEPT_MAX {
                    lists.pop_front();
                }
                return Ok(true);
            }
            Ok(None) => {}
            Err(error) if is_of_the_repository(&error) => {
                tracing::warn!("an earlier version can't be read to its end, and is not compared with: {error}");
            }
            Err(error) => return Err(error),
        }
        self.ended = true;
        Ok(false)
    }
}

fn is_of_the_repository(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::Storage | ErrorKind::Unsupported)
}
