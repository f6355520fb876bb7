//! Reads one pack, in parts that go to several threads: compares its bytes with its scrub table and, at depth, opens its
//! blobs. Where a shard is wrong the blobs that it touches are opened one by one, so that it is known what is lost and what
//! is not.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::packs::{Found, Task};
use super::{Damage, Depth, Run, ends_the_run, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::model::ChunkId;
use crate::pack::{Footer, PackEntry, SHARD_BYTES};
use crate::progress::Progress;
use crate::repo::{self, Repository, Verdict};
use crate::seal::keys::{ChunkKind, PackKeys};
use crate::storage::Listed;

/// A part has so many bytes, whole shards. Large enough for a disk, small enough that each thread's share stays in its
/// core's cache between the hash and the opening of blobs.
const PART_BYTES: usize = 32 * SHARD_BYTES;

/// A pack whose footer is good and whose bytes are being read.
pub(super) struct OpenPack {
    task: Task,
    footer: Footer,
    keys: PackKeys,
    /// How many bytes the scrub table covers.
    covered: usize,
    is_deep: bool,
    /// Parts that are not done. Whoever does the last one says what came of the pack.
    left: AtomicUsize,
    wrong: Mutex<Wrong>,
}

/// What is wrong with a pack.
#[derive(Default)]
struct Wrong {
    shards: BTreeSet<usize>,
    /// Blobs that do not open, by number.
    blobs: BTreeSet<usize>,
    /// Why a part could not be read, the first time.
    unread: Option<Error>,
    /// A delta could not be opened because its base can't be read: nothing was proved of it, nor is it to blame.
    without_base: bool,
    /// Bases that are in packs, but can't be read from them; these packs need not be among those that are read now.
    bases: BTreeSet<ChunkId>,
}

impl OpenPack {
    /// A pack to be read.
    pub(super) fn new(repo: &Repository, task: &Task, footer: Footer, depth: Depth) -> Result<Self> {
        let Task { id, listed: Listed { key, len }, read } = task;
        let covered = usize::try_from(footer.covered_bytes()).map_err(|_| Error::damaged("a pack of impossible length").on(key))?;
        let keys = repo.keys().pack(&footer.header.salt)?;
        let task = Task { id: *id, listed: Listed { key: key.clone(), len: *len }, read: *read };
        let left = AtomicUsize::new(covered.div_ceil(PART_BYTES));
        Ok(Self { task, footer, keys, covered, is_deep: depth == Depth::Deep, left, wrong: Mutex::default() })
    }

    /// How many parts there are to [`OpenPack::read`], each once.
    pub(super) fn parts(&self) -> usize {
        self.covered.div_ceil(PART_BYTES)
    }

    /// Reads one part. `buffer` is only there to be used again.
    pub(super) fn read(&self, run: &Run<'_>, part: usize, buffer: &mut Vec<u8>, found: &Found) -> Result<()> {
        let start = part * PART_BYTES;
        let end = (start + PART_BYTES).min(self.covered);
        self.read_part(run, start, end, buffer)?;
        found.add_bytes((end - start) as u64);
        Progress::add(&run.progress.bytes_done, (end - start) as u64);
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.settle(run, found)?;
        }
        Ok(())
    }

    fn read_part(&self, run: &Run<'_>, start: usize, end: usize, buffer: &mut Vec<u8>) -> Result<()> {
        // At depth, the blobs that begin in this part; the last of them may end in the next one.
        let from = |offset: usize| self.footer.entries.partition_point(|entry| (entry.offset as usize) < offset);
        let blobs = if self.is_deep { from(start)..from(end) } else { 0..0 };
        let last = blobs.clone().next_back().and_then(|last| self.footer.entries.get(last));
        let read_end = last.map_or(end, |last| end_of(last).max(end)).min(self.covered);
        if buffer.len() < read_end - start {
            buffer.resize(read_end - start, 0);
        }
        let bytes = &mut buffer[..read_end - start];
        if let Err(error) = run.repo.storage().read_once(&self.task.listed.key, start as u64, bytes) {
            if ends_the_run(&error) {
                return Err(error);
            }
            // A bad sector costs what stands on it. What that is shows when the blobs are read one by one.
            let mut wrong = lock(&self.wrong);
            wrong.shards.extend(start / SHARD_BYTES..end.div_ceil(SHARD_BYTES));
            wrong.unread.get_or_insert(error);
            return Ok(());
        }
        let shards = self.footer.scrub_from(start / SHARD_BYTES, &bytes[..end - start]);
        let mut closed = Vec::new();
        for number in blobs {
            let Some(entry) = self.footer.entries.get(number) else { break };
            let sealed = bytes.get(entry.offset as usize - start..).and_then(|rest| rest.get(..entry.stored_len as usize));
            if !self.opens(run, number, entry, sealed.unwrap_or_default().to_vec())? {
                closed.push(number);
            }
        }
        if !shards.is_empty() || !closed.is_empty() {
            let mut wrong = lock(&self.wrong);
            wrong.shards.extend(shards);
            wrong.blobs.extend(closed);
        }
        Ok(())
    }

    /// Whether a blob opens and is what its id says. A delta whose base is missing or damaged is not to blame for that: a
    /// delta that nobody uses may outlive its base, and where somebody does, the walk over the trees tells whom it breaks.
    fn opens(&self, run: &Run<'_>, number: usize, entry: &PackEntry, sealed: Vec<u8>) -> Result<bool> {
        let number = u32::try_from(number).map_err(|_| Error::damaged("a blob of impossible number").on(entry.id))?;
        let no_base = Cell::new(false);
        let base = |base: &ChunkId| {
            let found = run.reader.base(ChunkKind::from_number(entry.kind)?, base);
            if found.is_err() {
                let mut wrong = lock(&self.wrong);
                wrong.without_base = true;
                // One that is in no pack at all was pruned, and so are those who needed it.
                if run.repo.index().get(base)?.is_some() {
                    wrong.bases.insert(*base);
                }
            }
            no_base.set(found.is_err());
            found
        };
        match repo::open_blob(run.repo, &self.keys, &self.footer.header.salt, number, entry, sealed, &base) {
            Ok(_) => Ok(true),
            Err(error) if ends_the_run(&error) => Err(error),
            Err(_) => Ok(no_base.get()),
        }
    }

    /// All parts are done.
    fn settle(&self, run: &Run<'_>, found: &Found) -> Result<()> {
        let Wrong { shards, mut blobs, unread, without_base, bases } = std::mem::take(&mut *lock(&self.wrong));
        bases.iter().try_for_each(|base| found.bad_base(run.repo, base))?;
        found.add_bytes(self.task.listed.len - self.covered as u64);
        Progress::add(&run.progress.bytes_done, self.task.listed.len - self.covered as u64);
        Progress::add(&run.progress.files_done, 1);
        if shards.is_empty() && blobs.is_empty() {
            found.good(&self.task, Some(if self.is_deep && !without_base { Verdict::Opened } else { Verdict::Scrubbed }));
            return Ok(());
        }
        if unread.as_ref().is_some_and(|error| error.kind() == ErrorKind::NotFound) && run.repo.refresh()?.removed.contains(&self.task.id) {
            found.removed(&self.task);
            return Ok(());
        }
        for (number, entry) in self.footer.entries.iter().enumerate() {
            if touches(entry, &shards) && !blobs.contains(&number) && !self.opens_alone(run, number, entry)? {
                blobs.insert(number);
            }
        }
        let mut problem = format!(
            "{} of {} shards and {} of {} blobs are damaged",
            shards.len(),
            self.covered.div_ceil(SHARD_BYTES),
            blobs.len(),
            self.footer.entries.len()
        );
        if let Some(error) = unread {
            problem.push_str(&format!(" ({error})"));
        }
        let damage = Damage { object: self.task.listed.key.to_string(), problem };
        let chunks = blobs.iter().filter_map(|number| self.footer.entries.get(*number)).map(|entry| entry.id).collect();
        found.damaged(&self.task, damage, Some(chunks));
        Ok(())
    }

    /// Likewise, read by itself. What can't be read does not open.
    fn opens_alone(&self, run: &Run<'_>, number: usize, entry: &PackEntry) -> Result<bool> {
        run.progress.check()?;
        let mut sealed = vec![0; entry.stored_len as usize];
        match run.repo.storage().read_once(&self.task.listed.key, u64::from(entry.offset), &mut sealed) {
            Ok(()) => self.opens(run, number, entry, sealed),
            Err(error) if ends_the_run(&error) => Err(error),
            Err(_) => Ok(false),
        }
    }
}

/// Where a blob's sealed bytes end.
fn end_of(entry: &PackEntry) -> usize {
    entry.offset as usize + entry.stored_len as usize
}

/// Whether any byte of a blob stands in one of these shards.
fn touches(entry: &PackEntry, shards: &BTreeSet<usize>) -> bool {
    let (first, last) = (entry.offset as usize / SHARD_BYTES, end_of(entry).saturating_sub(1) / SHARD_BYTES);
    first <= last && shards.range(first..=last).next().is_some()
}
