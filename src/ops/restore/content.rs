//! A file's content in the repository, as a target wants it: in parts, each fetched by itself, except that the small files
//! of a batch share one fetch.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Restore, lock};
use crate::error::{Error, Result};
use crate::model::{ChunkId, Node, NodeKind, Stream};
use crate::progress::Progress;
use crate::repo::{ChunkReader, Fetch, Leaf, StreamReader};
use crate::seal::keys::ChunkKind;
use crate::target::{Bytes, Content, Part, Piece};

/// Data of one part of a large file, and the longest file that is placed as one part. What a worker has in memory is a small
/// multiple of this: the sealed bytes, what the file has now, what is being written.
pub(super) const PART_BYTES: u64 = 4 << 20;
/// Pieces of one part, holes included.
const PART_PIECES_MAX: usize = 1024;
/// Pieces that are kept for the files of one batch; files for which there is no more room are read like large ones.
pub(super) const LEAVES_KEPT_MAX: usize = 8192;

/// How a file's content is gone over.
pub(super) enum Shape {
    /// It is not needed.
    None,
    /// It stands in the node.
    Inline,
    /// One part, with its pieces.
    Short(Vec<Leaf>),
    /// Several parts, read from the stream as they are needed.
    Long,
}

impl Shape {
    /// Reads the pieces of a stream where they are few.
    pub(super) fn of(reader: &ChunkReader<'_>, stream: &Stream, leaves_left: &mut usize) -> Result<Self> {
        if stream.len > PART_BYTES {
            return Ok(Self::Long);
        }
        let mut leaves = StreamReader::new(reader, stream);
        let part = next_part(&mut leaves)?.unwrap_or_default();
        // By size one part is enough; a stream of many tiny pieces needs more all the same.
        if part.len() > *leaves_left || leaves.next_leaf()?.is_some() {
            return Ok(Self::Long);
        }
        *leaves_left -= part.len();
        Ok(Self::Short(part))
    }

    /// The chunks that are known so far.
    pub(super) fn ids(&self) -> impl Iterator<Item = ChunkId> {
        let leaves = if let Self::Short(leaves) = self { leaves.as_slice() } else { &[] };
        leaves.iter().map(|leaf| leaf.id).filter(|id| !id.is_hole())
    }
}

fn next_part(leaves: &mut StreamReader<'_, '_>) -> Result<Option<Vec<Leaf>>> {
    let (mut part, mut bytes) = (Vec::new(), 0);
    while bytes < PART_BYTES && part.len() < PART_PIECES_MAX {
        let Some(leaf) = leaves.next_leaf()? else { break };
        bytes += if leaf.id.is_hole() { 0 } else { leaf.len };
        part.push(leaf);
    }
    Ok((!part.is_empty()).then_some(part))
}

/// A file's content in the repository.
pub(super) struct Stored<'a, 'c, 'r> {
    pub(super) restore: &'a Restore<'c, 'r>,
    pub(super) node: &'a Node,
    pub(super) shape: Shape,
    /// Where the chunks of this file are planned already.
    pub(super) fetch: Option<&'a Mutex<Fetch<'c, 'r>>>,
}

type Visit<'v> = &'v mut dyn FnMut(&mut dyn Part) -> Result<()>;

impl Stored<'_, '_, '_> {
    fn visit_leaves(&self, leaves: &[Leaf], visit: Visit<'_>) -> Result<()> {
        if leaves.is_empty() {
            return Ok(());
        }
        self.restore.check()?;
        let pieces: Vec<Piece> = leaves.iter().map(piece).collect();
        let bytes = leaves.iter().map(|leaf| leaf.len).sum();
        visit(&mut Chunks { stored: self, leaves, pieces })?;
        Progress::add(&self.restore.progress.bytes_done, bytes);
        Ok(())
    }

    fn stream(&self) -> Result<&Stream> {
        match &self.node.kind {
            NodeKind::File(stream) => Ok(stream),
            _ => Err(Error::damaged("only a regular file has content")),
        }
    }

    /// This thread reads the lists and shares the parts with threads that it starts in the place of idle workers.
    fn spread_stream(&self, stream: &Stream, place: &(dyn Fn(&mut dyn Part) -> Result<()> + Sync)) -> Result<()> {
        let mut leaves = StreamReader::new(self.restore.reader, stream);
        let failure: Mutex<Option<Error>> = Mutex::default();
        let failed = |error| {
            lock(&failure).get_or_insert(error);
        };
        let place = |part: Vec<Leaf>| {
            if lock(&failure).is_none()
                && let Err(error) = self.visit_leaves(&part, &mut |part| place(part))
            {
                failed(error);
            }
        };
        let helpers = AtomicUsize::new(0);
        // Room for one, so that a helper has its next part at once.
        let (sender, receiver) = crossbeam_channel::bounded::<Vec<Leaf>>(1);
        std::thread::scope(|scope| {
            while lock(&failure).is_none() {
                let part = match next_part(&mut leaves) {
                    Ok(Some(part)) => part,
                    Ok(None) => break,
                    Err(error) => {
                        failed(error);
                        break;
                    }
                };
                if let Some(lent) = self.restore.hands.lend() {
                    let (receiver, running, place) = (receiver.clone(), &helpers, &place);
                    let help = move || {
                        for part in receiver {
                            place(part);
                            if lent.is_wanted_back() {
                                break;
                            }
                        }
                        running.fetch_sub(1, Ordering::SeqCst);
                    };
                    helpers.fetch_add(1, Ordering::SeqCst);
                    // Where no further thread can be had, this one does it alone.
                    if std::thread::Builder::new().spawn_scoped(scope, help).is_err() {
                        helpers.fetch_sub(1, Ordering::SeqCst);
                    }
                }
                let left =
                    if helpers.load(Ordering::SeqCst) == 0 { Some(part) } else { sender.try_send(part).err().map(|e| e.into_inner()) };
                if let Some(part) = left {
                    place(part);
                }
            }
            drop(sender);
            // A helper that was wanted back may have left one behind.
            receiver.iter().for_each(&place);
        });
        failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

fn piece(leaf: &Leaf) -> Piece {
    Piece { offset: leaf.offset, len: leaf.len, hole: leaf.id.is_hole() }
}

impl Content for Stored<'_, '_, '_> {
    fn len(&self) -> u64 {
        self.node.size()
    }

    fn pieces(&self, visit: &mut dyn FnMut(Piece) -> Result<()>) -> Result<()> {
        match &self.shape {
            Shape::None => Ok(()),
            Shape::Inline => visit(Piece { offset: 0, len: self.len(), hole: false }),
            Shape::Short(leaves) => leaves.iter().map(piece).try_for_each(visit),
            Shape::Long => {
                let mut leaves = StreamReader::new(self.restore.reader, self.stream()?);
                while let Some(leaf) = leaves.next_leaf()? {
                    self.restore.check()?;
                    visit(piece(&leaf))?;
                }
                Ok(())
            }
        }
    }

    fn parts(&self, visit: Visit<'_>) -> Result<()> {
        match &self.shape {
            Shape::None => Ok(()),
            Shape::Inline => {
                let NodeKind::InlineFile(bytes) = &self.node.kind else { return Ok(()) };
                visit(&mut Inline { bytes, piece: [Piece { offset: 0, len: bytes.len() as u64, hole: false }] })?;
                Progress::add(&self.restore.progress.bytes_done, bytes.len() as u64);
                Ok(())
            }
            Shape::Short(leaves) => self.visit_leaves(leaves, visit),
            Shape::Long => {
                let mut leaves = StreamReader::new(self.restore.reader, self.stream()?);
                while let Some(part) = next_part(&mut leaves)? {
                    self.visit_leaves(&part, visit)?;
                }
                Ok(())
            }
        }
    }

    fn spread(&self, place: &(dyn Fn(&mut dyn Part) -> Result<()> + Sync)) -> Result<()> {
        match &self.shape {
            Shape::Long => self.spread_stream(self.stream()?, place),
            _ => self.parts(&mut |part| place(part)),
        }
    }
}

/// The content of a file that stands in its node.
struct Inline<'a> {
    bytes: &'a [u8],
    piece: [Piece; 1],
}

impl Part for Inline<'_> {
    fn pieces(&self) -> &[Piece] {
        &self.piece
    }

    fn matches(&self, _: usize, bytes: &[u8]) -> Result<bool> {
        Ok(self.bytes == bytes)
    }

    fn read(&mut self, numbers: &[usize], give: &mut dyn FnMut(usize, Bytes) -> Result<()>) -> Result<()> {
        numbers.iter().try_for_each(|&number| give(number, Bytes::new(self.bytes.to_vec())))
    }
}

/// Chunks and holes.
struct Chunks<'p, 'a, 'c, 'r> {
    stored: &'p Stored<'a, 'c, 'r>,
    leaves: &'p [Leaf],
    pieces: Vec<Piece>,
}

impl Chunks<'_, '_, '_, '_> {
    fn leaf(&self, number: usize) -> Result<&Leaf> {
        self.leaves.get(number).filter(|leaf| !leaf.id.is_hole()).ok_or_else(|| Error::damaged("a file has no such piece"))
    }
}

impl Part for Chunks<'_, '_, '_, '_> {
    fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn matches(&self, number: usize, bytes: &[u8]) -> Result<bool> {
        let keys = self.stored.restore.reader.repository().keys();
        Ok(keys.chunk_id(ChunkKind::Data, bytes) == self.leaf(number)?.id)
    }

    fn read(&mut self, numbers: &[usize], give: &mut dyn FnMut(usize, Bytes) -> Result<()>) -> Result<()> {
        let leaves = numbers.iter().map(|&number| self.leaf(number).copied()).collect::<Result<Vec<_>>>()?;
        let reader = self.stored.restore.reader;
        let own;
        let fetch = match self.stored.fetch {
            Some(shared) => shared,
            None => {
                own = Mutex::new(Fetch::plan(reader, ChunkKind::Data, leaves.iter().map(|leaf| leaf.id))?);
                &own
            }
        };
        for (&number, leaf) in numbers.iter().zip(&leaves) {
            let bytes = lock(fetch).take(&leaf.id)?;
            if bytes.len() as u64 != leaf.len {
                return Err(Error::damaged("a chunk has another length than its list says").on(leaf.id));
            }
            give(number, bytes)?;
        }
        self.stored.restore.behind.count(leaves.iter().map(|leaf| leaf.len).sum());
        Ok(())
    }
}
