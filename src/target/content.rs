//! A file's bytes: written in large strokes into a new file, or compared with what an existing file has and written only
//! where they differ. Holes take no space either way. Parts of a large file may come from several threads at once.

use std::cell::RefCell;
use std::io::IoSlice;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fd::BorrowedFd;
use rustix::fs::{self, FallocateFlags, SeekFrom};
use rustix::io::{self, Errno};

use crate::error::{Error, ErrorKind, Result};

use super::outcome::failed;
use super::{Bytes, Content, Part, Piece, Placed};

/// Small pieces are gathered up to this many bytes before they are written, and ranges are compared in such steps.
const STROKE_BYTES: usize = 1 << 20;
/// The most pieces of one stroke: half of what Linux takes in one call, and more than a stroke of usual chunks has.
const STROKE_PIECES_MAX: usize = 512;
/// The longest piece of data, and the longest run of them that is taken into memory at once; several times the longest
/// chunk of any profile.
const PIECE_BYTES_MAX: u64 = 64 << 20;
/// Runs of data at least this long are given their place on the disk before they are written, so that parts which are
/// written at the same time do not end up interleaved. For shorter ones that would cost more than it saves.
const PREALLOCATE_BYTES_MIN: u64 = 1 << 20;
/// What a file system takes to the disk at least.
const BLOCK_BYTES: usize = 4096;

thread_local! {
    /// What a file has, while it is compared: a run of one part, kept from part to part.
    static OLD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes the content into a new, empty file.
pub(super) fn write_new(file: BorrowedFd<'_>, content: &dyn Content) -> Result<Placed> {
    place(file, 0, content, &|part, counts| {
        let mut data = Vec::new();
        for (number, piece) in part.pieces().iter().enumerate().filter(|(_, piece)| !piece.hole) {
            bounded(piece.len)?;
            data.push(number);
        }
        if content.len() >= PREALLOCATE_BYTES_MIN {
            runs(part.pieces()).try_for_each(|run| preallocate(file, &part.pieces()[run]))?;
        }
        write_pieces(file, part, &data, counts)
    })
}

/// Makes a file of `old_len` bytes have the content, writing only what differs. When it fails, the file is partly the old
/// and partly the new one.
pub(super) fn update(file: BorrowedFd<'_>, old_len: u64, content: &dyn Content) -> Result<Placed> {
    place(file, old_len, content, &|part, counts| {
        for hole in part.pieces().iter().filter(|piece| piece.hole) {
            empty_range(file, hole.offset, (hole.offset + hole.len).min(old_len))?;
        }
        runs(part.pieces()).collect::<Vec<_>>().into_iter().try_for_each(|run| update_run(file, old_len, part, run, counts))
    })
}

/// What became of the parts so far.
#[derive(Default)]
struct Counts {
    written: AtomicU64,
    kept: AtomicU64,
    /// The end of what was written.
    end: AtomicU64,
    /// Bytes of all parts, holes included.
    seen: AtomicU64,
}

/// Places all parts and gives the file its size.
fn place(
    file: BorrowedFd<'_>,
    old_len: u64,
    content: &dyn Content,
    place_part: &(dyn Fn(&mut dyn Part, &Counts) -> Result<()> + Sync),
) -> Result<Placed> {
    let counts = Counts::default();
    content.spread(&|part| {
        counts.seen.fetch_add(checked_len(part.pieces(), content.len())?, Ordering::Relaxed);
        place_part(part, &counts)
    })?;
    if counts.seen.into_inner() != content.len() {
        return Err(uneven());
    }
    if counts.end.into_inner().max(old_len) != content.len() {
        fs::ftruncate(file, content.len()).map_err(|e| failed("cannot set the file's size", e))?;
    }
    Ok(Placed { written_bytes: counts.written.into_inner(), kept_bytes: counts.kept.into_inner(), cloned: false })
}

/// Visits the parts in order and refuses pieces that do not follow on each other from 0 to the content's size.
pub(super) fn parts_in_order(content: &dyn Content, mut visit: impl FnMut(&mut dyn Part) -> Result<()>) -> Result<()> {
    let mut at = 0_u64;
    content.parts(&mut |part| {
        if part.pieces().first().is_some_and(|first| first.offset != at) {
            return Err(uneven());
        }
        let len = checked_len(part.pieces(), content.len())?;
        visit(part)?;
        at += len;
        Ok(())
    })?;
    if at == content.len() { Ok(()) } else { Err(uneven()) }
}

/// Visits the pieces and refuses those that do not follow on each other from 0 to the content's size.
pub(super) fn in_order(content: &dyn Content, mut visit: impl FnMut(Piece) -> Result<()>) -> Result<()> {
    let mut at = 0_u64;
    content.pieces(&mut |piece| {
        let end = piece.offset.checked_add(piece.len).filter(|&end| end <= content.len());
        let end = end.filter(|_| piece.offset == at).ok_or_else(uneven)?;
        visit(piece)?;
        at = end;
        Ok(())
    })?;
    if at == content.len() { Ok(()) } else { Err(uneven()) }
}

/// The length of pieces that follow on each other within a file of `len` bytes.
fn checked_len(pieces: &[Piece], len: u64) -> Result<u64> {
    let Some(first) = pieces.first() else { return Ok(0) };
    let mut at = first.offset;
    for piece in pieces {
        let end = piece.offset.checked_add(piece.len).filter(|&end| end <= len && piece.offset == at);
        at = end.ok_or_else(uneven)?;
    }
    Ok(at - first.offset)
}

fn uneven() -> Error {
    Error::damaged("the pieces of a file do not add up to its size")
}

fn bounded(len: u64) -> Result<()> {
    if len > PIECE_BYTES_MAX {
        return Err(Error::damaged(format!("a piece of {len} bytes is longer than any chunk")));
    }
    Ok(())
}

/// The stretches of data pieces between holes, none longer than may be taken into memory unless it is one piece.
fn runs(pieces: &[Piece]) -> impl Iterator<Item = Range<usize>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += pieces[at..].iter().take_while(|piece| piece.hole).count();
        let start = at;
        let mut bytes = 0_u64;
        while let Some(piece) = pieces.get(at).filter(|piece| !piece.hole) {
            if at > start && bytes.saturating_add(piece.len) > PIECE_BYTES_MAX {
                break;
            }
            bytes = bytes.saturating_add(piece.len);
            at += 1;
        }
        (at > start).then_some(start..at)
    })
}

fn span(pieces: &[Piece]) -> (u64, u64) {
    (pieces.first().map_or(0, |first| first.offset), pieces.last().map_or(0, |last| last.offset + last.len))
}

/// Reads what the file has in a run of data pieces, in one go; of those that differ, reads the right bytes from the repository
/// and writes the blocks that differ.
fn update_run(file: BorrowedFd<'_>, old_len: u64, part: &mut dyn Part, run: Range<usize>, counts: &Counts) -> Result<()> {
    let pieces = part.pieces()[run.clone()].to_vec();
    let (start, end) = span(&pieces);
    bounded(end - start)?;
    let len = end.min(old_len).saturating_sub(start) as usize;
    OLD.with_borrow_mut(|old| {
        if old.len() < len {
            old.resize(len, 0);
        }
        let there = read_up_to(file, start, &mut old[..len])?;
        // The bytes that the file has in a piece: fewer where it ends before.
        let old = |piece: &Piece| {
            let from = (piece.offset - start) as usize;
            &old[from.min(there)..(from + piece.len as usize).min(there)]
        };
        let mut wrong = Vec::new();
        for (number, piece) in run.clone().zip(&pieces) {
            let bytes = old(piece);
            if bytes.len() as u64 == piece.len && part.matches(number, bytes)? {
                counts.kept.fetch_add(piece.len, Ordering::Relaxed);
            } else {
                wrong.push(number);
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        part.read(&wrong, &mut |number, bytes| {
            let piece = number.checked_sub(run.start).and_then(|number| pieces.get(number)).ok_or_else(uneven)?;
            checked_piece(piece, &bytes)?;
            write_differing(file, piece.offset, &bytes, old(piece), counts)
        })
    })
}

/// Writes the blocks of `bytes` that are not in `old`, what the file has there. A page that is right already would go to the
/// disk for nothing.
fn write_differing(file: BorrowedFd<'_>, offset: u64, bytes: &[u8], old: &[u8], counts: &Counts) -> Result<()> {
    let mut at = 0;
    while at < bytes.len() {
        let begin = at;
        while let Some(block) = block(offset, bytes.len(), at)
            && old.get(block.clone()) != bytes.get(block.clone())
        {
            at = block.end;
        }
        if at > begin {
            write_full(file, offset + begin as u64, &bytes[begin..at])?;
            counts.written.fetch_add((at - begin) as u64, Ordering::Relaxed);
            counts.end.fetch_max(offset + at as u64, Ordering::Relaxed);
        }
        if let Some(block) = block(offset, bytes.len(), at) {
            counts.kept.fetch_add(block.len() as u64, Ordering::Relaxed);
            at = block.end;
        }
    }
    Ok(())
}

/// The bytes from `at` to the end of the block of the file that they are in, of `len` bytes that stand at `offset`.
fn block(offset: u64, len: usize, at: usize) -> Option<Range<usize>> {
    let rest = BLOCK_BYTES - ((offset + at as u64) % BLOCK_BYTES as u64) as usize;
    (at < len).then(|| at..len.min(at + rest))
}

/// Reads pieces from the repository and writes them.
fn write_pieces(file: BorrowedFd<'_>, part: &mut dyn Part, numbers: &[usize], counts: &Counts) -> Result<()> {
    if numbers.is_empty() {
        return Ok(());
    }
    let pieces = part.pieces().to_vec();
    let mut strokes = Strokes { file, counts, start: 0, len: 0, pending: Vec::new() };
    part.read(numbers, &mut |number, bytes| {
        let piece = pieces.get(number).ok_or_else(uneven)?;
        checked_piece(piece, &bytes)?;
        strokes.write(piece.offset, bytes)
    })?;
    strokes.flush()
}

fn checked_piece(piece: &Piece, bytes: &[u8]) -> Result<()> {
    if bytes.len() as u64 == piece.len {
        return Ok(());
    }
    Err(Error::damaged(format!("a piece of {} bytes came as {}", piece.len, bytes.len())))
}

/// Gathers neighbouring pieces and writes them together, from where they are.
struct Strokes<'a> {
    file: BorrowedFd<'a>,
    counts: &'a Counts,
    start: u64,
    len: usize,
    pending: Vec<Bytes>,
}

impl Strokes<'_> {
    fn write(&mut self, offset: u64, bytes: Bytes) -> Result<()> {
        let follows = offset == self.start + self.len as u64;
        if !follows || self.len + bytes.len() > STROKE_BYTES || self.pending.len() == STROKE_PIECES_MAX {
            self.flush()?;
        }
        if self.pending.is_empty() {
            self.start = offset;
        }
        self.len += bytes.len();
        self.pending.push(bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.len > 0 {
            match &self.pending[..] {
                // Most files are one piece.
                [bytes] => write_full(self.file, self.start, bytes)?,
                pieces => write_all(self.file, self.start, pieces)?,
            }
            let len = self.len as u64;
            self.counts.written.fetch_add(len, Ordering::Relaxed);
            self.counts.end.fetch_max(self.start + len, Ordering::Relaxed);
        }
        self.pending.clear();
        self.len = 0;
        Ok(())
    }
}

fn full() -> Error {
    Error::new(ErrorKind::Target, "the file takes no more bytes").because(std::io::Error::from(std::io::ErrorKind::WriteZero))
}

fn write_all(file: BorrowedFd<'_>, mut offset: u64, pieces: &[Bytes]) -> Result<()> {
    let mut slices: Vec<IoSlice<'_>> = pieces.iter().map(|bytes| IoSlice::new(bytes)).collect();
    let mut left = &mut slices[..];
    while !left.is_empty() {
        match io::pwritev(file, left, offset) {
            Ok(0) => return Err(full()),
            Ok(count) => {
                IoSlice::advance_slices(&mut left, count);
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(failed("cannot write the file", e)),
        }
    }
    Ok(())
}

fn write_full(file: BorrowedFd<'_>, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(full()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(failed("cannot write the file", e)),
        }
    }
    Ok(())
}

/// Takes the space of a run of data. That it does not work, or not here, is no reason not to write.
fn preallocate(file: BorrowedFd<'_>, run: &[Piece]) -> Result<()> {
    let (start, end) = span(run);
    if end - start < PREALLOCATE_BYTES_MIN {
        return Ok(());
    }
    match fs::fallocate(file, FallocateFlags::KEEP_SIZE, start, end - start) {
        Err(e @ (Errno::NOSPC | Errno::DQUOT)) => Err(failed("cannot write the file", e)),
        _ => Ok(()),
    }
}

/// Fills `bytes` as far as the file goes; gives how far that was.
fn read_up_to(file: BorrowedFd<'_>, offset: u64, bytes: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match io::pread(file, &mut bytes[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(Errno::INTR) => {}
            Err(e) => return Err(failed("cannot read the file that is there", e)),
        }
    }
    Ok(done)
}

/// Makes a range read as zeros. Where it does already, nothing is written.
fn empty_range(file: BorrowedFd<'_>, start: u64, end: u64) -> Result<()> {
    let mut at = start;
    while at < end {
        let data = match fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) if data < end => data,
            Ok(_) | Err(Errno::NXIO) => break,
            // A file system that knows no holes.
            Err(_) => at,
        };
        let data_end = fs::seek(file, SeekFrom::Hole(data)).map_or(end, |hole| hole.min(end)).max(data + 1);
        if !reads_as_zeros(file, data, data_end)? {
            punch(file, data, data_end)?;
        }
        at = data_end;
    }
    Ok(())
}

fn reads_as_zeros(file: BorrowedFd<'_>, start: u64, end: u64) -> Result<bool> {
    let mut bytes = vec![0; STROKE_BYTES.min((end - start) as usize)];
    let mut at = start;
    while at < end {
        let step = (end - at).min(bytes.len() as u64) as usize;
        if read_up_to(file, at, &mut bytes[..step])? < step || bytes[..step].iter().any(|&byte| byte != 0) {
            return Ok(false);
        }
        at += step as u64;
    }
    Ok(true)
}

fn punch(file: BorrowedFd<'_>, start: u64, end: u64) -> Result<()> {
    match fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, end - start) {
        Ok(()) => return Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
        Err(e) => return Err(failed("cannot make a hole in the file", e)),
    }
    let zeros = vec![0; STROKE_BYTES.min((end - start) as usize)];
    let mut at = start;
    while at < end {
        let step = (end - at).min(zeros.len() as u64) as usize;
        write_full(file, at, &zeros[..step])?;
        at += step as u64;
    }
    Ok(())
}
