//! A file's bytes: written in large strokes into a new file, or compared with what an existing file has and written only
//! where they differ. Holes take no space either way.

use rustix::fd::BorrowedFd;
use rustix::fs::{self, FallocateFlags, SeekFrom};
use rustix::io::{self, Errno};

use crate::error::{Error, ErrorKind, Result};

use super::outcome::failed;
use super::{Content, Piece, Placed};

/// Small pieces are gathered up to this many bytes before they are written, and ranges are compared in such steps.
const STROKE_BYTES: usize = 1 << 20;
/// The longest piece of data that is taken into memory; several times the longest chunk of any profile.
const PIECE_BYTES_MAX: u64 = 64 << 20;

/// Writes the content into a new, empty file. Holes count neither as written nor as kept.
pub(super) fn write_new(file: BorrowedFd<'_>, content: &dyn Content) -> Result<Placed> {
    let mut strokes = Strokes::new(file);
    in_order(content, |piece| {
        if !piece.hole {
            strokes.write(piece.offset, read(content, piece)?)?;
        }
        Ok(())
    })?;
    strokes.flush()?;
    if strokes.end < content.len() {
        fs::ftruncate(file, content.len()).map_err(|e| failed("cannot set the file's size", e))?;
    }
    Ok(Placed { written_bytes: strokes.written, kept_bytes: 0 })
}

/// Makes a file of `old_len` bytes have the content, writing only what differs. When it fails, the file is partly the old
/// and partly the new one.
pub(super) fn update(file: BorrowedFd<'_>, old_len: u64, content: &dyn Content) -> Result<Placed> {
    let mut strokes = Strokes::new(file);
    let mut old = Vec::new();
    let mut kept_bytes = 0;
    in_order(content, |piece| {
        let end = piece.offset + piece.len;
        if piece.hole {
            return empty_range(file, piece.offset, end.min(old_len));
        }
        if end <= old_len {
            bounded(piece)?;
            old.resize(piece.len as usize, 0);
            if read_full(file, piece.offset, &mut old)? && content.matches(piece, &old)? {
                kept_bytes += piece.len;
                return Ok(());
            }
        }
        strokes.write(piece.offset, read(content, piece)?)
    })?;
    strokes.flush()?;
    if strokes.end.max(old_len) != content.len() {
        fs::ftruncate(file, content.len()).map_err(|e| failed("cannot set the file's size", e))?;
    }
    Ok(Placed { written_bytes: strokes.written, kept_bytes })
}

/// Visits the pieces and refuses those that do not follow on each other from 0 to the content's size.
pub(super) fn in_order(content: &dyn Content, mut visit: impl FnMut(Piece) -> Result<()>) -> Result<()> {
    let mut at = 0_u64;
    let wrong = || Error::damaged("the pieces of a file do not add up to its size");
    content.pieces(&mut |piece| {
        let end = piece.offset.checked_add(piece.len).filter(|&end| end <= content.len());
        let end = end.filter(|_| piece.offset == at).ok_or_else(wrong)?;
        visit(piece)?;
        at = end;
        Ok(())
    })?;
    if at == content.len() { Ok(()) } else { Err(wrong()) }
}

/// The bytes of a data piece, exactly as many as it says.
pub(super) fn read(content: &dyn Content, piece: Piece) -> Result<Vec<u8>> {
    bounded(piece)?;
    let bytes = content.read(piece)?;
    if bytes.len() as u64 != piece.len {
        return Err(Error::damaged(format!("a piece of {} bytes came as {}", piece.len, bytes.len())));
    }
    Ok(bytes)
}

fn bounded(piece: Piece) -> Result<()> {
    if piece.len > PIECE_BYTES_MAX {
        return Err(Error::damaged(format!("a piece of {} bytes is longer than any chunk", piece.len)));
    }
    Ok(())
}

/// Gathers neighbouring pieces and writes them together.
struct Strokes<'a> {
    file: BorrowedFd<'a>,
    start: u64,
    pending: Vec<u8>,
    /// Bytes written.
    written: u64,
    /// The end of what was written last.
    end: u64,
}

impl<'a> Strokes<'a> {
    fn new(file: BorrowedFd<'a>) -> Self {
        Self { file, start: 0, pending: Vec::new(), written: 0, end: 0 }
    }

    fn write(&mut self, offset: u64, bytes: Vec<u8>) -> Result<()> {
        let follows = offset == self.start + self.pending.len() as u64;
        if !follows || self.pending.len() + bytes.len() > STROKE_BYTES {
            self.flush()?;
        }
        if self.pending.is_empty() {
            // Most files are one piece: it is written from where it is.
            (self.start, self.pending) = (offset, bytes);
        } else {
            self.pending.extend_from_slice(&bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if !self.pending.is_empty() {
            write_full(self.file, self.start, &self.pending)?;
            self.written += self.pending.len() as u64;
            self.end = self.start + self.pending.len() as u64;
            self.pending.clear();
        }
        Ok(())
    }
}

fn write_full(file: BorrowedFd<'_>, mut offset: u64, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match io::pwrite(file, bytes, offset) {
            Ok(0) => {
                return Err(Error::new(ErrorKind::Target, "the file takes no more bytes")
                    .because(std::io::Error::from(std::io::ErrorKind::WriteZero)));
            }
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

/// Fills `bytes`; false when the file ends before.
fn read_full(file: BorrowedFd<'_>, mut offset: u64, mut bytes: &mut [u8]) -> Result<bool> {
    while !bytes.is_empty() {
        match io::pread(file, &mut *bytes, offset) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                bytes = &mut bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(failed("cannot read the file that is there", e)),
        }
    }
    Ok(true)
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
        if !read_full(file, at, &mut bytes[..step])? || bytes[..step].iter().any(|&byte| byte != 0) {
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
