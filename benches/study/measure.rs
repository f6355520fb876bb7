//! Runs the stages over two states of a part and counts.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use icecore::model::ChunkId;
use rustix::time::{ClockId, clock_gettime};

use crate::Failure;
use crate::parts::Part;
use crate::stages::{Shape, Stages};

/// What a stored chunk costs beside its bytes: its entry in the pack's footer, its record in the index delta and its line
/// in the list of its file.
const METADATA_BYTES: u64 = 64 + 48 + 40;
/// A delta names its base.
const BASE_BYTES: u64 = 32;
/// A delta is taken where it is so many times smaller than plain compression.
const SMALLER: usize = 4;
/// A delta under this share of its chunk is taken without a look at what plain compression makes of it.
const SMALL_DELTA_SHARE: usize = 64;
/// Files up to this are kept in their directory's entry, whatever the shape of chunks.
const INLINE_BYTES: u64 = 512;
/// Stages run over so many bytes at once, so that reading the clock costs nothing.
const BATCH_BYTES: usize = 8 << 20;

/// What one part costs with one shape of chunks.
pub(crate) struct Outcome {
    pub(crate) part: String,
    pub(crate) shape: Shape,
    pub(crate) levels: Vec<i32>,
    pub(crate) first: State,
    pub(crate) second: State,
}

/// The cost of storing one state after the one before.
#[derive(Default)]
pub(crate) struct State {
    /// Bytes read.
    pub(crate) bytes: u64,
    /// Chunks that were not known, and their bytes.
    pub(crate) new_chunks: u64,
    pub(crate) new_bytes: u64,
    /// Of these, the ones in whose place something stood before.
    pub(crate) bases: u64,
    pub(crate) base_bytes: u64,
    /// Processor seconds of cutting and naming everything.
    pub(crate) cut: f64,
    pub(crate) hash: f64,
    /// Processor seconds of encoding all new chunks that have a base as deltas.
    pub(crate) delta: f64,
    /// By level of what is stored without a base.
    pub(crate) encoded: Vec<Encoded>,
}

/// The new chunks at one level.
#[derive(Default, Clone)]
pub(crate) struct Encoded {
    /// Stored bytes with metadata, without deltas and with.
    pub(crate) plain_bytes: u64,
    pub(crate) delta_bytes: u64,
    /// Chunks that are stored as deltas.
    pub(crate) deltas: u64,
    /// Processor seconds of compressing all new chunks.
    pub(crate) plain: f64,
    /// Processor seconds of compressing those whose delta is not small: a snapshot needs both then.
    pub(crate) plain_beside_delta: f64,
    /// Bytes of the deltas of all chunks that have a base, made at this level instead of the program's, and seconds.
    pub(crate) deltas_at_level: Option<(u64, f64)>,
}

struct Piece {
    offset: u64,
    len: usize,
}

type Files = HashMap<PathBuf, Vec<Piece>>;

/// `all_deltas`: make deltas at every level, too.
pub(crate) fn measure(part: &Part, shape: &Shape, levels: &[i32], all_deltas: bool) -> Result<Outcome, Failure> {
    let mut stages = Stages::new();
    let mut known = HashSet::new();
    let empty = Encoded { deltas_at_level: all_deltas.then_some((0, 0.0)), ..Encoded::default() };
    let mut run = |root: &Path, files: &[PathBuf], old: Option<(&Path, &Files)>, known: &mut HashSet<ChunkId>| {
        let mut state = State { encoded: vec![empty.clone(); levels.len()], ..State::default() };
        let mut batch = Batch::default();
        let mut cut_files = Files::new();
        for file in files {
            let base = old.and_then(|(root, cut)| Some((root.join(file), cut.get(file)?)));
            let pieces = stream(&root.join(file), shape, &mut stages, &mut state, known, base, &mut batch, levels)?;
            cut_files.insert(file.clone(), pieces);
        }
        batch.encode(&mut stages, levels, &mut state)?;
        Ok::<_, Failure>((state, cut_files))
    };
    let (first, cut) = run(&part.old, &part.old_files, None, &mut known)?;
    let (second, _) = run(&part.new, &part.new_files, Some((&part.old, &cut)), &mut known)?;
    Ok(Outcome { part: part.name.clone(), shape: *shape, levels: levels.to_vec(), first, second })
}

/// Cuts and names one file; chunks that nobody had go into the batch, with what stood in their place before.
#[allow(clippy::too_many_arguments)]
fn stream(
    path: &Path,
    shape: &Shape,
    stages: &mut Stages,
    state: &mut State,
    known: &mut HashSet<ChunkId>,
    base: Option<(PathBuf, &Vec<Piece>)>,
    batch: &mut Batch,
    levels: &[i32],
) -> Result<Vec<Piece>, Failure> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    if len <= INLINE_BYTES {
        return Ok(Vec::new());
    }
    let base = base.map(|(path, pieces)| File::open(path).map(|file| (file, pieces))).transpose()?;
    let (mut pieces, mut buffer, mut offset) = (Vec::new(), Vec::new(), 0);
    loop {
        let wanted = BATCH_BYTES.max(shape.max() * 2) - buffer.len();
        let read = Read::by_ref(&mut file).take(wanted as u64).read_to_end(&mut buffer)?;
        let ended = read < wanted;
        let mut lengths = Vec::new();
        let mut at = 0;
        timed(&mut state.cut, || {
            while at < buffer.len() && (ended || buffer.len() - at >= shape.max()) {
                let len = stages.cut(shape, &buffer[at..]);
                lengths.push(len);
                at += len;
            }
        });
        let mut ids = Vec::with_capacity(lengths.len());
        timed(&mut state.hash, || {
            let mut at = 0;
            for len in &lengths {
                ids.push(stages.id(&buffer[at..at + len]));
                at += len;
            }
        });
        let mut start = 0;
        for (len, id) in lengths.into_iter().zip(ids) {
            let chunk = &buffer[start..start + len];
            if known.insert(id) {
                let base = match &base {
                    Some((file, old)) => overlapping(old, offset, len).map(|piece| (file, piece)),
                    None => None,
                };
                batch.push(chunk, base)?;
            }
            pieces.push(Piece { offset, len });
            offset += len as u64;
            start += len;
            if batch.raw.len() >= BATCH_BYTES {
                batch.encode(stages, levels, state)?;
            }
        }
        state.bytes += at as u64;
        buffer.drain(..at);
        if ended {
            break;
        }
    }
    Ok(pieces)
}

/// The old chunk that covers most of this place.
fn overlapping(old: &[Piece], offset: u64, len: usize) -> Option<&Piece> {
    let end = offset + len as u64;
    let from = old.partition_point(|piece| piece.offset + piece.len as u64 <= offset);
    let covered = |piece: &&Piece| end.min(piece.offset + piece.len as u64).saturating_sub(offset.max(piece.offset));
    old[from..].iter().take_while(|piece| piece.offset < end).max_by_key(covered)
}

/// New chunks that wait for the encoders.
#[derive(Default)]
struct Batch {
    raw: Vec<u8>,
    bases: Vec<u8>,
    /// Lengths in `raw` and, where there is a base, in `bases`.
    chunks: Vec<(usize, Option<usize>)>,
}

impl Batch {
    fn push(&mut self, chunk: &[u8], base: Option<(&File, &Piece)>) -> Result<(), Failure> {
        self.raw.extend_from_slice(chunk);
        let base = match base {
            None => None,
            Some((file, piece)) => {
                let start = self.bases.len();
                self.bases.resize(start + piece.len, 0);
                file.read_exact_at(&mut self.bases[start..], piece.offset)?;
                Some(piece.len)
            }
        };
        self.chunks.push((chunk.len(), base));
        Ok(())
    }

    /// Encodes all at every level and empties the batch.
    fn encode(&mut self, stages: &mut Stages, levels: &[i32], state: &mut State) -> Result<(), Failure> {
        state.new_chunks += self.chunks.len() as u64;
        state.new_bytes += self.raw.len() as u64;
        for (len, _) in self.chunks.iter().filter(|(_, base)| base.is_some()) {
            state.bases += 1;
            state.base_bytes += *len as u64;
        }
        let chunks = || {
            let (mut at, mut base_at) = (0, 0);
            self.chunks.iter().map(move |(len, base)| {
                let chunk = (at..at + len, base.map(|base| base_at..base_at + base));
                at += len;
                base_at += base.unwrap_or(0);
                chunk
            })
        };
        let mut deltas = Vec::new();
        timed(&mut state.delta, || {
            for (chunk, base) in chunks() {
                deltas.push(base.map(|base| stages.delta(&self.raw[chunk], &self.bases[base])).transpose()?.flatten());
            }
            Ok::<_, Failure>(())
        })?;
        for (level, total) in levels.iter().zip(&mut state.encoded) {
            for ((chunk, base), delta) in chunks().zip(&deltas) {
                let raw = &self.raw[chunk];
                let mut seconds = 0.0;
                let plain = timed(&mut seconds, || stages.encode(raw, *level))?;
                total.plain += seconds;
                let plain_bytes = plain as u64 + METADATA_BYTES;
                total.plain_bytes += plain_bytes;
                match delta {
                    Some(delta) if delta * SMALLER < plain => {
                        total.delta_bytes += *delta as u64 + METADATA_BYTES + BASE_BYTES;
                        total.deltas += 1;
                    }
                    _ => total.delta_bytes += plain_bytes,
                }
                if delta.is_none_or(|delta| delta >= raw.len() / SMALL_DELTA_SHARE) {
                    total.plain_beside_delta += seconds;
                }
                if let (Some(base), Some((bytes, seconds))) = (base, &mut total.deltas_at_level) {
                    *bytes += timed(seconds, || stages.delta_at(raw, &self.bases[base], *level))?.unwrap_or(0) as u64;
                }
            }
        }
        self.raw.clear();
        self.bases.clear();
        self.chunks.clear();
        Ok(())
    }
}

fn timed<T>(seconds: &mut f64, work: impl FnOnce() -> T) -> T {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    };
    let start = now();
    let result = work();
    *seconds += now() - start;
    result
}
