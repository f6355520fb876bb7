//! Reads one regular file into the store. A file that changes while it is read is read once more, then kept as it came and
//! marked; it is never read further than it was long when it was opened.

use std::sync::Arc;

use super::aside::AsideFile;
use super::large::Large;
use crate::chunk::GENERIC;
use crate::error::{Error, ErrorKind, Result};
use crate::model::node::INLINE_BYTES_MAX;
use crate::model::{Name, NodeKind, Stream};
use crate::progress::Progress;
use crate::repo::{ChunkList, Earlier, StreamWriter};
use crate::seal::keys::ChunkKind;
use crate::source::{EntryKind, SourceDir, SourceFile, Stat, XattrSet};

/// How often a file is read before it is kept as changing.
const ATTEMPTS: u32 = 2;
/// From this size on a file is read by several threads.
const LARGE_BYTES_MIN: u64 = 2 * super::large::WINDOW_BYTES as u64;
/// How far ahead of the reading the system is told what comes.
const READAHEAD_BYTES: u64 = 4 << 20;

/// Buffers that a worker keeps from file to file.
#[derive(Default)]
pub(super) struct FileBuffers {
    data: Vec<u8>,
    pub(super) meta: Vec<u8>,
}

/// A file as it was read.
pub(super) struct ReadFile {
    /// Its content.
    pub(super) kind: NodeKind,
    /// Its stat when the content was read.
    pub(super) stat: Stat,
    /// Its attributes.
    pub(super) xattrs: XattrSet,
    /// How it changed meanwhile, the last time too.
    pub(super) changed: Option<&'static str>,
}

/// What was in a file's place in the parent snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Past {
    pub(super) content: Stream,
    /// Its chunks are in the repository for certain.
    pub(super) vouched: bool,
}

/// Reads the file `name`. Errors of the kinds `Source` and `NotFound` cost this file only.
pub(super) fn read<D, F>(
    large: &Large<'_, '_, D, F>,
    directory: &dyn SourceDir,
    name: &Name,
    listed: &Stat,
    past: Option<Past>,
    buffers: &mut FileBuffers,
) -> Result<ReadFile> {
    let mut expected = *listed;
    let mut attempt = 1;
    loop {
        let last = attempt == ATTEMPTS;
        let file: Arc<dyn SourceFile> = match directory.open_file(name, &expected) {
            Ok(file) => file.into(),
            // Somebody put another file under this name, as editors do: that one is the file now.
            Err(error) if !last && error.kind() == ErrorKind::Source => match relisted(directory, name)? {
                Some(stat) if stat != expected && stat.kind == EntryKind::File => {
                    expected = stat;
                    attempt += 1;
                    continue;
                }
                Some(stat) if stat.kind != EntryKind::File => {
                    return Err(Error::new(ErrorKind::Source, "it turned into something else while it was read"));
                }
                Some(_) => return Err(error),
                None => return Err(Error::new(ErrorKind::NotFound, "it vanished while it was read")),
            },
            Err(error) => return Err(error),
        };
        let before = file.stat()?;
        let (kind, complete) = content(large, &file, &before, past, buffers)?;
        let xattrs = file.xattrs()?;
        let after = file.stat()?;
        let same = (before.size, before.mtime, before.ctime) == (after.size, after.mtime, after.ctime);
        if (same && complete) || last {
            let changed = match (same && complete, complete) {
                (true, _) => None,
                (false, true) => Some("it changed while it was read; parts of it may be of different moments"),
                (false, false) => Some("it became shorter while it was read; the part that was left is kept"),
            };
            return Ok(ReadFile { kind, stat: before, xattrs, changed });
        }
        attempt += 1;
    }
}

/// Reads a file that was set aside.
pub(super) fn read_aside<D, F>(
    large: &Large<'_, '_, D, F>,
    held: Arc<AsideFile>,
    past: Option<Past>,
    buffers: &mut FileBuffers,
) -> Result<ReadFile> {
    let (stat, xattrs, changed) = (held.stat()?, held.xattrs()?, held.changed);
    let file: Arc<dyn SourceFile> = held;
    let (kind, complete) = content(large, &file, &stat, past, buffers)?;
    let changed = (changed || !complete).then_some("it changed while everybody was held still: somebody else writes to it");
    Ok(ReadFile { kind, stat, xattrs, changed })
}

fn relisted(directory: &dyn SourceDir, name: &Name) -> Result<Option<Stat>> {
    match directory.entries()?.into_iter().find(|entry| entry.name == *name) {
        Some(entry) => entry.stat.map(Some),
        None => Ok(None),
    }
}

/// The file's bytes up to the size it had, and whether there were that many.
fn content<D, F>(
    large: &Large<'_, '_, D, F>,
    file: &Arc<dyn SourceFile>,
    stat: &Stat,
    past: Option<Past>,
    buffers: &mut FileBuffers,
) -> Result<(NodeKind, bool)> {
    let (writer, progress) = (large.writer, large.progress);
    if stat.size <= INLINE_BYTES_MAX as u64 {
        let mut bytes = vec![0; usize::try_from(stat.size).unwrap_or(0)];
        let len = super::large::read_full(&**file, 0, &mut bytes)?;
        let complete = len == bytes.len();
        bytes.truncate(len);
        Progress::add(&progress.bytes_done, len as u64);
        let kind = if bytes.is_empty() { NodeKind::File(crate::model::Stream::EMPTY) } else { NodeKind::InlineFile(bytes) };
        return Ok((kind, complete));
    }
    if stat.size >= LARGE_BYTES_MIN {
        let earlier = past.map(|past| Earlier::new(writer.reader(), &past.content));
        let replay = past.is_some_and(|past| past.vouched);
        let stream = large.read(Arc::clone(file), stat.size, &GENERIC, ChunkList::new(writer, earlier), replay)?;
        return Ok((NodeKind::File(stream), stream.len == stat.size));
    }
    let earlier = past.as_ref().map(|past| &past.content);
    let mut stream = StreamWriter::new(writer, ChunkKind::Data, &GENERIC, earlier, std::mem::take(&mut buffers.data));
    let filled = fill(&mut stream, &**file, stat.size, progress);
    let finished = stream.finish()?;
    buffers.data = finished.1;
    filled?;
    let complete = finished.0.len == stat.size;
    Ok((NodeKind::File(finished.0), complete))
}

fn fill(stream: &mut StreamWriter<'_, '_>, file: &dyn SourceFile, size: u64, progress: &Progress) -> Result<()> {
    let mut announced = 0;
    while stream.len() < size {
        let Some(extent) = file.next_data(stream.len(), size)? else {
            let hole = size - stream.len();
            Progress::add(&progress.bytes_done, hole);
            return stream.hole(hole);
        };
        let hole = extent.start.saturating_sub(stream.len());
        Progress::add(&progress.bytes_done, hole);
        stream.hole(hole)?;
        while stream.len() < extent.end.min(size) {
            progress.check()?;
            let offset = stream.len();
            let left = extent.end.min(size) - offset;
            if offset + READAHEAD_BYTES / 2 >= announced && left > READAHEAD_BYTES {
                announced = announced.max(offset) + READAHEAD_BYTES;
                file.will_read(announced, READAHEAD_BYTES);
            }
            let space = stream.space();
            let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(space.len());
            let len = file.read_at(offset, &mut space[..wanted])?;
            if len == 0 {
                // Shorter than it was.
                return Ok(());
            }
            stream.advance(len)?;
            Progress::add(&progress.bytes_done, len as u64);
        }
    }
    Ok(())
}
