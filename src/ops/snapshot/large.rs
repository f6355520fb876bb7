//! Reads one large file on all cores. It is taken in windows: each is read by some thread, cut here in order, and its
//! chunks are hashed, encoded and packed by whichever threads are free. The cuts are those that a single pass from the
//! start would make.
//!
//! *Known-boundary rescan.* Where an earlier version of the file is known, a window is a run of its chunks, and whoever
//! reads the window also hashes them at their old boundaries. FastCDC begins anew at each cut and looks no further than one
//! byte beyond the next: a chunk that is unchanged, begins at a true cut and is followed by an unchanged one is a true
//! chunk, without being cut. Around changes the file is cut until a cut meets an old boundary again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::aside::Stretch;
use super::crew::Crew;
use crate::chunk::{self, CONTEXT_BYTES, Candidates, Chunker, Profile};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{ChunkId, Stream};
use crate::progress::Progress;
use crate::repo::{ChunkList, ChunkWriter, Leaf, Put};
use crate::seal::keys::ChunkKind;
use crate::source::SourceFile;

/// Bytes of a file that are read and cut at a time.
/// (Tests have short files of many windows.)
pub(super) const WINDOW_BYTES: usize = if cfg!(test) { 200 << 10 } else { 4 << 20 };
/// Chunks are stored in pieces of about this many bytes: enough that passing them on costs nothing, few enough that all
/// threads have some of a window.
const PIECE_BYTES: usize = 512 << 10;
/// Windows in memory, beside one for each thread.
const WINDOWS_SPARE: usize = 1;

/// A part of the work on a large file, for any thread.
pub(super) enum Piece {
    /// Read a window.
    Read {
        /// Where from.
        file: Arc<dyn SourceFile>,
        /// How it is cut.
        profile: &'static Profile,
        /// What to fill.
        window: Window,
        /// Who wants it.
        inbox: Arc<Inbox>,
    },
    /// Store chunks of a window.
    Store {
        /// Their bytes.
        window: Arc<Window>,
        /// The chunks.
        chunks: Vec<Cut>,
        /// The piece's number in its file.
        number: u64,
        /// Who wants to know what became of them.
        inbox: Arc<Inbox>,
    },
    /// Set a part of the file aside.
    Aside(Stretch),
}

/// A chunk that was cut.
pub(super) struct Cut {
    /// First byte in the window's buffer.
    start: usize,
    len: usize,
    /// Its id, when it was hashed already.
    id: Option<ChunkId>,
    /// What stood in its place before.
    before: Option<ChunkId>,
}

/// A stretch of a file in memory. Its bytes stand behind room for those of the window before that are not cut yet.
pub(super) struct Window {
    memory: Memory,
    /// How much room there is before the bytes.
    head: usize,
    pool: Arc<Windows>,
    number: u64,
    /// Place of its first byte in the file, and how many there should be.
    offset: u64,
    wanted: usize,
    /// How many there are: fewer when the file became shorter.
    len: usize,
    /// The earlier version's chunks that should stand in it, and what stands there now. Without any the window is scanned
    /// for places where chunks may end.
    old: Vec<Old>,
    /// How many bytes of the stretch stand before it in the file.
    behind: u64,
}

/// What a window needs of memory.
#[derive(Default)]
struct Memory {
    buffer: Vec<u8>,
    candidates: Candidates,
}

/// A chunk of the earlier version, with its place in the new one, and the id of what stands there now.
#[derive(Debug, Clone, Copy)]
struct Old {
    leaf: Leaf,
    now: Option<ChunkId>,
}

impl Old {
    fn is_there(&self) -> bool {
        self.now == Some(self.leaf.id)
    }
}

/// The buffers of windows, shared by all files of a capture. There are never more than so many.
pub(super) struct Windows {
    free: Mutex<(Vec<Memory>, usize)>,
}

impl Windows {
    /// Buffers for so many threads; made when they are first needed.
    pub(super) fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new((Vec::new(), threads + WINDOWS_SPARE)) })
    }

    fn take(&self) -> Option<Memory> {
        let mut free = lock(&self.free);
        if let Some(buffer) = free.0.pop() {
            return Some(buffer);
        }
        free.1 = free.1.checked_sub(1)?;
        Some(Memory::default())
    }

    fn is_empty(&self) -> bool {
        let free = lock(&self.free);
        free.0.is_empty() && free.1 == 0
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        lock(&self.pool.free).0.push(std::mem::take(&mut self.memory));
    }
}

/// What came back from pieces of one file.
#[derive(Default)]
pub(super) struct Inbox(Mutex<Vec<Reply>>);

enum Reply {
    Read(Result<Window>),
    Stored(u64, Result<Vec<Put>>),
}

/// What large files need of the capture that they are part of.
pub(super) struct Large<'c, 'r, D, F> {
    pub(super) writer: &'c ChunkWriter<'r>,
    pub(super) crew: &'c Crew<D, F, Piece>,
    pub(super) windows: &'c Arc<Windows>,
    pub(super) progress: &'c Progress,
}

impl<D, F> Large<'_, '_, D, F> {
    /// Does a piece of some file's work.
    pub(super) fn work(&self, piece: Piece) {
        match piece {
            Piece::Read { file, profile, mut window, inbox } => {
                let prepare = |window: &mut Window| {
                    window.fill(&*file)?;
                    Progress::add(&self.progress.bytes_done, window.len as u64);
                    if window.old.is_empty() {
                        return window.scan(&*file, self.writer.repository().chunker(), profile);
                    }
                    window.compare(self.writer);
                    Ok(())
                };
                let read = prepare(&mut window).map(|()| window);
                lock(&inbox.0).push(Reply::Read(read));
            }
            Piece::Store { window, chunks, number, inbox } => {
                let put = |cut: &Cut| {
                    let bytes = &window.memory.buffer[cut.start..][..cut.len];
                    let id = cut.id.unwrap_or_else(|| self.writer.repository().keys().chunk_id(ChunkKind::Data, bytes));
                    self.writer.put_named(ChunkKind::Data, id, bytes, &mut || Ok(cut.before))
                };
                let stored = chunks.iter().map(put).collect();
                drop(window);
                lock(&inbox.0).push(Reply::Stored(number, stored));
            }
            Piece::Aside(stretch) => stretch.copy(&|| self.progress.check()),
        }
        self.crew.wake_drivers();
    }

    /// Stores the file's content up to `size`; less where it has become shorter. With `replay` the chunks of the earlier
    /// version that `list` has are in the repository for certain: those that are still there need not be looked up.
    pub(super) fn read(
        &self,
        file: Arc<dyn SourceFile>,
        size: u64,
        profile: &'static Profile,
        list: ChunkList<'_, '_>,
        replay: bool,
    ) -> Result<Stream> {
        let mut driver = Driver {
            large: self,
            file,
            profile,
            list,
            inbox: Arc::default(),
            planned: 0,
            windows: BTreeMap::new(),
            number: 0,
            out: VecDeque::new(),
            stored: HashMap::new(),
            replay,
            _wake: WakeOthers(self.crew),
        };
        let mut at = 0;
        while at < size {
            let Some(extent) = driver.file.next_data(at, size)? else {
                driver.hole(size - at);
                break;
            };
            driver.hole(extent.start.saturating_sub(at));
            let end = extent.end.min(size);
            at = driver.extent(extent.start.max(at), end)?;
            if at < end {
                break;
            }
        }
        driver.finish()
    }
}

impl Window {
    fn fill(&mut self, file: &dyn SourceFile) -> Result<()> {
        let head = self.head;
        // A run of old chunks ends with the one that makes it long enough.
        self.memory.buffer.resize(head + WINDOW_BYTES + head, 0);
        // They are of what the buffer held before.
        self.memory.candidates.clear();
        self.len = read_full(file, self.offset, &mut self.memory.buffer[head..][..self.wanted])?;
        Ok(())
    }

    /// Finds the places where chunks may end.
    fn scan(&mut self, file: &dyn SourceFile, chunker: &Chunker, profile: &Profile) -> Result<()> {
        let head = self.head;
        let context = usize::try_from(self.behind).map_or(CONTEXT_BYTES, |behind| behind.min(CONTEXT_BYTES));
        let Memory { buffer, candidates } = &mut self.memory;
        let before = &mut buffer[head - context..head];
        // Should the file have become shorter meanwhile, it is read again anyway.
        read_full(file, self.offset - context as u64, before)?;
        chunker.scan(profile, &buffer[head - context..head + self.len], context, candidates);
        Ok(())
    }

    /// Finds out which of the earlier version's chunks are still there.
    fn compare(&mut self, writer: &ChunkWriter<'_>) {
        for Old { leaf, now } in &mut self.old {
            let start = usize::try_from(leaf.offset - self.offset).unwrap_or(usize::MAX);
            let end = start.saturating_add(usize::try_from(leaf.len).unwrap_or(usize::MAX));
            if end <= self.len {
                *now = Some(writer.repository().keys().chunk_id(ChunkKind::Data, &self.memory.buffer[self.head..][start..end]));
            }
        }
    }
}

/// How many bytes there were: fewer when the file ends before.
pub(super) fn read_full(file: &dyn SourceFile, offset: u64, bytes: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(offset + done as u64, &mut bytes[done..])? {
            0 => break,
            len => done += len,
        }
    }
    Ok(done)
}

/// What goes into the list next, in the order of the file.
enum Out {
    Known(ChunkId, u64),
    Hole(u64),
    /// The chunks of a piece, once they are stored.
    Stored(u64, Vec<u64>),
}

struct Driver<'a, 'c, 'r, 'l, 'm, D, F> {
    large: &'a Large<'c, 'r, D, F>,
    file: Arc<dyn SourceFile>,
    profile: &'static Profile,
    list: ChunkList<'l, 'm>,
    inbox: Arc<Inbox>,
    /// Up to here windows were given out.
    planned: u64,
    /// Windows that were read, by number.
    windows: BTreeMap<u64, Window>,
    /// The number of the next window or piece.
    number: u64,
    out: VecDeque<Out>,
    stored: HashMap<u64, Vec<Put>>,
    replay: bool,
    // The last field: dropped after the windows.
    _wake: WakeOthers<'c, D, F>,
}

/// Whatever ends a driver, the buffers of its windows are free then, and others may be waiting for one.
struct WakeOthers<'c, D, F>(&'c Crew<D, F, Piece>);

impl<D, F> Drop for WakeOthers<'_, D, F> {
    fn drop(&mut self) {
        self.0.wake_drivers();
    }
}

/// Bytes that are not cut yet: they need what comes after them.
#[derive(Default)]
struct Rest {
    bytes: Vec<u8>,
    /// The earlier version's chunk that begins with them.
    old: Option<Old>,
}

impl<D, F> Driver<'_, '_, '_, '_, '_, D, F> {
    fn hole(&mut self, len: u64) {
        if len > 0 {
            Progress::add(&self.large.progress.bytes_done, len);
            self.out.push_back(Out::Hole(len));
        }
    }

    /// Stores what stands between two holes. Returns where it ended: before `end` when the file became shorter.
    fn extent(&mut self, start: u64, end: u64) -> Result<u64> {
        self.planned = start;
        let mut windows: VecDeque<u64> = VecDeque::new();
        let mut rest = Rest::default();
        let mut at = start;
        loop {
            self.large.progress.check()?;
            while self.planned < end
                && let Some(memory) = self.large.windows.take()
            {
                let window = self.plan(memory, start, end)?;
                windows.push_back(window.number);
                self.large.crew.add_pieces([Piece::Read {
                    file: Arc::clone(&self.file),
                    profile: self.profile,
                    window,
                    inbox: Arc::clone(&self.inbox),
                }]);
            }
            self.take_replies()?;
            if let Some(window) = windows.front().and_then(|number| self.windows.remove(number)) {
                windows.pop_front();
                let short = window.len < window.wanted;
                let last = short || window.offset + window.len as u64 == end;
                at = window.offset + window.len as u64;
                rest = self.cut(window, rest, end, last)?;
                self.settle()?;
                if last {
                    // Windows behind the end of a file that became shorter hold nothing.
                    self.windows.clear();
                    self.large.crew.wake_drivers();
                    return Ok(at);
                }
                continue;
            }
            self.settle()?;
            if at == end {
                return Ok(at);
            }
            self.wait(self.planned < end)?;
        }
    }

    /// The next window: a run of the earlier version's chunks where there is one.
    fn plan(&mut self, memory: Memory, start: u64, end: u64) -> Result<Window> {
        let mut window = Window {
            memory,
            head: self.profile.max,
            pool: Arc::clone(self.large.windows),
            number: self.number,
            offset: self.planned,
            wanted: 0,
            len: 0,
            old: Vec::new(),
            behind: self.planned - start,
        };
        self.number += 1;
        let mut at = self.planned;
        let profile = self.profile;
        if self.replay
            && let Some(earlier) = self.list.earlier().filter(|earlier| earlier.profile() == profile.number)
        {
            while at - self.planned < WINDOW_BYTES as u64
                && let Some(leaf) = earlier.leaf_from(at)?
            {
                // Shorter ones end a stretch, or are not ours.
                let usual = profile.min as u64..=profile.max as u64;
                if leaf.id.is_hole() || !usual.contains(&leaf.len) || at + leaf.len > end {
                    break;
                }
                window.old.push(Old { leaf: Leaf { offset: at, ..leaf }, now: None });
                at += leaf.len;
            }
            if window.old.is_empty() {
                // Not at a boundary, or where there are none to go by: up to one, so that the next window begins there.
                let enough = profile.max.min(WINDOW_BYTES) as u64;
                while at - self.planned < enough
                    && let Some(boundary) = earlier.boundary_after(at)?
                {
                    at = boundary.min(self.planned + WINDOW_BYTES as u64);
                }
            }
        }
        if at == self.planned {
            at += WINDOW_BYTES as u64;
        }
        at = at.min(end);
        window.wanted = usize::try_from(at - self.planned).unwrap_or(WINDOW_BYTES);
        self.planned = at;
        Ok(window)
    }

    /// Cuts a window and what is left of the one before, and gives the chunks out to be stored.
    fn cut(&mut self, mut window: Window, rest: Rest, end: u64, last: bool) -> Result<Rest> {
        let profile = self.profile;
        let head = window.head;
        let mut at = head - rest.bytes.len();
        window.memory.buffer[at..head].copy_from_slice(&rest.bytes);
        let (start, limit) = (at, head + window.len);
        // The place in the file of the buffer's first byte, which may lie before the file.
        let origin = window.offset.wrapping_sub(head as u64);
        let place = |at: usize| origin.wrapping_add(at as u64);
        let old: Vec<Old> = rest.old.into_iter().chain(std::mem::take(&mut window.old)).collect();
        let mut old = &old[..];
        let mut cuts: Vec<Cut> = Vec::new();
        let mut pieces = Vec::new();
        let mut cut_bytes = 0;
        let mut rest = Rest::default();
        while at < limit {
            let offset = place(at);
            while old.first().is_some_and(|old| old.leaf.offset < offset) {
                old = &old[1..];
            }
            let here = old.first().filter(|old| old.leaf.offset == offset).copied();
            let left = limit - at;
            if self.replay
                && let [Old { leaf, .. }, next, ..] = old
                && here.is_some_and(|here| here.is_there())
                && next.is_there()
                && next.leaf.offset == offset + leaf.len
                && end - offset >= profile.max as u64
            {
                self.give_out(&mut cuts, &mut pieces);
                cut_bytes = 0;
                self.out.push_back(Out::Known(leaf.id, leaf.len));
                at += usize::try_from(leaf.len).unwrap_or(left);
                continue;
            }
            let scanned = chunk::Window {
                bytes: &window.memory.buffer[start..limit],
                candidates: &window.memory.candidates,
                scanned_from: head - start,
                is_last: last,
            };
            let Some(len) = scanned.next_cut(self.large.writer.repository().chunker(), profile, at - start) else {
                rest = Rest { bytes: window.memory.buffer[at..limit].to_vec(), old: here };
                break;
            };
            match here {
                Some(Old { leaf, now: Some(now) }) if self.replay && leaf.len == len as u64 && now == leaf.id => {
                    self.give_out(&mut cuts, &mut pieces);
                    cut_bytes = 0;
                    self.out.push_back(Out::Known(leaf.id, leaf.len));
                }
                _ => {
                    let before = self.list.before_at(offset, len as u64)?;
                    let id = here.filter(|here| here.leaf.len == len as u64).and_then(|here| here.now);
                    cuts.push(Cut { start: at, len, id, before });
                    cut_bytes += len;
                    if cut_bytes >= PIECE_BYTES {
                        self.give_out(&mut cuts, &mut pieces);
                        cut_bytes = 0;
                    }
                }
            }
            at += len;
        }
        self.give_out(&mut cuts, &mut pieces);
        let window = Arc::new(window);
        let store = |(number, chunks)| Piece::Store { window: Arc::clone(&window), chunks, number, inbox: Arc::clone(&self.inbox) };
        self.large.crew.add_pieces(pieces.into_iter().map(store));
        drop(window);
        // Where nothing had to be stored the buffer is free again, and another file may want one.
        self.large.crew.wake_drivers();
        Ok(rest)
    }

    fn give_out(&mut self, cuts: &mut Vec<Cut>, pieces: &mut Vec<(u64, Vec<Cut>)>) {
        if cuts.is_empty() {
            return;
        }
        let chunks = std::mem::take(cuts);
        self.out.push_back(Out::Stored(self.number, chunks.iter().map(|cut| cut.len as u64).collect()));
        pieces.push((self.number, chunks));
        self.number += 1;
    }

    fn take_replies(&mut self) -> Result<()> {
        let replies = std::mem::take(&mut *lock(&self.inbox.0));
        for reply in replies {
            match reply {
                Reply::Read(window) => {
                    let window = window?;
                    self.windows.insert(window.number, window);
                }
                Reply::Stored(number, puts) => {
                    self.stored.insert(number, puts?);
                }
            }
        }
        Ok(())
    }

    /// Puts into the list what has become known, up to the first piece that is still being stored.
    fn settle(&mut self) -> Result<()> {
        while let Some(out) = self.out.pop_front() {
            match out {
                Out::Known(id, len) => self.list.known(id, len)?,
                Out::Hole(len) => self.list.hole(len)?,
                Out::Stored(number, lens) => {
                    let Some(puts) = self.stored.remove(&number) else {
                        self.out.push_front(Out::Stored(number, lens));
                        return Ok(());
                    };
                    for (put, len) in puts.iter().zip(lens) {
                        self.list.push(put, len)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Helps others until a reply is there, or until a buffer is free when one is wanted.
    fn wait(&self, buffer: bool) -> Result<()> {
        let ready = || !lock(&self.inbox.0).is_empty() || (buffer && !self.large.windows.is_empty());
        if let Some(piece) = self.large.crew.piece_until(ready) {
            self.large.work(piece);
        }
        if self.large.crew.is_stopped() {
            return Err(Error::new(ErrorKind::Interrupted, "another worker failed"));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Stream> {
        loop {
            self.take_replies()?;
            self.settle()?;
            if self.out.is_empty() {
                return self.list.finish(self.profile);
            }
            self.large.progress.check()?;
            self.wait(false)?;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "large_tests.rs"]
mod tests;
