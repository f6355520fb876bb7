//! Takes snapshots of several sources as of one moment, at which everybody who writes to them is held still.
//!
//! ```text
//! survey   what would have to be read since the parents; nothing is read
//! live     where that is much, all of it is read and stored while the writers run
//! hold     [`Still::hold`]
//! aside    every entry is looked at again; files that are not as they were read are copied, and nothing else is done
//! let go   [`Still::let_go`]
//! store    what was set aside is read and stored
//! commit   all together
//! ```
//!
//! A file that seems unchanged since the parent, or since the live pass, counts as unchanged by the rules of the stat cache.
//! What is written through a mapping shows by its time only from the first write after a sync on; the sync (`settle`) comes
//! before the live pass, and what changed after it is set aside.

use std::path::Path;
use std::time::Duration;

use super::aside::Aside;
use super::cache::StatCache;
use super::capture::{Capture, Captured, Gear, Mode, Stored};
use super::{SnapshotOptions, SnapshotReport, forget_missing_packs, history, record, settle};
use crate::clock::Timestamp;
use crate::error::{ErrorKind, Result};
use crate::model::Snapshot;
use crate::progress::Progress;
use crate::repo::{ChunkWriter, Committed, Operation, Repository, WriterOptions};
use crate::seal::compress::LEVEL_DEFAULT as COMPRESSION_DEFAULT;
use crate::source::Source;

/// Live passes at most: each one leaves less to be set aside, as long as the sources do not change faster than they are read.
const LIVE_PASSES_MAX: u32 = 2;

/// One of the sources.
pub struct Member<'a> {
    /// Its entries.
    pub source: &'a dyn Source,
    /// What it is. `compression` and `dry_run` of the first one count for all.
    pub options: SnapshotOptions,
}

/// Holds writers still.
pub trait Still: Sync {
    /// Holds all of them. When this returns nobody writes.
    fn hold(&self) -> Result<()>;
    /// Whether they are held still, and may be for longer.
    fn check(&self) -> Result<()>;
    /// Lets them go; how long they were held. An error when they were not still all the time, or are not let go.
    fn let_go(&self) -> Result<Duration>;
}

/// How to take a group.
pub struct GroupOptions<'a> {
    /// A folder on a local disk for what is set aside; nothing is left in it.
    pub folder: &'a Path,
    /// Where more bytes than these would have to be set aside, they are read live first.
    pub live_above: u64,
}

/// What became of a group.
#[derive(Debug, Clone)]
pub struct GroupReport {
    /// The snapshots, in the order of the members.
    pub snapshots: Vec<SnapshotReport>,
    /// For how long the writers were held.
    pub held: Duration,
    /// Bytes that were copied meanwhile, and bytes of files that were cloned.
    pub aside: (u64, u64),
}

/// One source on its way.
struct Course<'a, 'r> {
    member: &'a Member<'a>,
    parent: Option<Committed>,
    cache: StatCache<'r>,
    started: Timestamp,
    live: Vec<Captured>,
    /// What was stored for it so far.
    stored: Stored,
}

/// All sources, as far as they are to be committed.
struct Taken<'a, 'r> {
    courses: Vec<Course<'a, 'r>>,
    captured: Vec<(Captured, Stored)>,
    moment: Timestamp,
    held: Duration,
    aside: (u64, u64),
}

/// Captures all members and commits them together, or none of them.
pub fn snapshot_group(
    repo: &Repository,
    members: &[Member<'_>],
    still: &dyn Still,
    options: &GroupOptions<'_>,
    progress: &Progress,
) -> Result<GroupReport> {
    let start = repo.clock().monotonic();
    let (compression, dry_run) = members.first().map_or((COMPRESSION_DEFAULT, false), |m| (m.options.compression, m.options.dry_run));
    let writer_options = WriterOptions { compression, dry_run, purpose: "snapshot", operation: Operation::Write };
    let writer = ChunkWriter::begin(repo, writer_options, progress)?;
    let taken = match take(repo, &writer, members, still, options, progress) {
        Ok(taken) => taken,
        // The repository is well: what was stored is named, so that the next run need not store it again.
        Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Busy | ErrorKind::Docker | ErrorKind::Source) => {
            repo.abandon(writer.finish()?)?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    let flushed = writer.finish()?;
    if let Err(interrupted) = progress.check() {
        repo.abandon(flushed)?;
        return Err(interrupted);
    }
    let took = repo.clock().monotonic().saturating_sub(start);
    let records = taken.records(took);
    let committed = repo.commit_all(records, flushed)?;
    for (course, (captured, _)) in taken.courses.iter().zip(&taken.captured) {
        course.live.iter().chain([captured]).for_each(|pass| course.cache.drop_records(&pass.replaced));
    }
    let seconds = took.as_secs_f64();
    let snapshots = committed.into_iter().map(|snapshot| SnapshotReport { snapshot, seconds }).collect();
    Ok(GroupReport { snapshots, held: taken.held, aside: taken.aside })
}

fn take<'a, 'r>(
    repo: &'r Repository,
    writer: &ChunkWriter<'r>,
    members: &'a [Member<'a>],
    still: &dyn Still,
    options: &GroupOptions<'_>,
    progress: &Progress,
) -> Result<Taken<'a, 'r>> {
    let intact = forget_missing_packs(repo)? && !repo.view().sets_unknown;
    let mut courses = members.iter().map(|member| Course::new(repo, member, intact)).collect::<Result<Vec<_>>>()?;
    live_passes(&mut courses, writer, options.live_above, progress)?;

    let gears: Vec<Gear> = courses.iter().map(|_| Gear::new()).collect();
    let check = || still.check();
    let aside = Aside::new(options.folder, &check)?;
    still.hold()?;
    let moment = repo.clock().now();
    let before = Stored::of(writer);
    let captures = set_aside(&courses, &gears, writer, &aside, progress);
    let held = still.let_go();
    let (captures, held) = (captures?, held?);

    let mut captured = Vec::new();
    let mut before = Some(before);
    for capture in captures {
        // Directories that were written while all was still count for the first.
        let before = before.take().unwrap_or_else(|| Stored::of(writer));
        let tree = capture.resume()?.finish()?;
        captured.push((tree, Stored::of(writer).since(&before)));
    }
    let aside = aside.bytes();
    Ok(Taken { courses, captured, moment, held, aside })
}

fn set_aside<'c, 'r>(
    courses: &'c [Course<'_, 'r>],
    gears: &'c [Gear],
    writer: &'c ChunkWriter<'r>,
    aside: &'c Aside<'c>,
    progress: &'c Progress,
) -> Result<Vec<Capture<'c, 'r>>> {
    let mut captures = Vec::with_capacity(courses.len());
    for (course, gear) in courses.iter().zip(gears) {
        captures.push(course.pass(gear, writer, Mode::Aside(aside), progress)?);
    }
    Ok(captures)
}

/// Reads what would otherwise have to be set aside, as long as that makes it less.
fn live_passes<'r>(courses: &mut [Course<'_, 'r>], writer: &ChunkWriter<'r>, live_above: u64, progress: &Progress) -> Result<()> {
    let mut before = u64::MAX;
    for _ in 0..LIVE_PASSES_MAX {
        let mut left = 0_u64;
        for course in courses.iter() {
            let gear = Gear::new();
            left = left.saturating_add(course.pass(&gear, writer, Mode::Survey(0.into()), progress)?.surveyed());
        }
        if left <= live_above || left > before / 2 {
            return Ok(());
        }
        before = left;
        courses.iter_mut().try_for_each(|course| course.read_live(writer, progress))?;
    }
    Ok(())
}

impl<'a, 'r> Course<'a, 'r> {
    fn new(repo: &'r Repository, member: &'a Member<'a>, intact: bool) -> Result<Self> {
        let options = &member.options;
        let history = history(repo, &options.identity)?;
        // What changed after this moment may go on changing, through a mapping that is dirty already, without a new time.
        let began = repo.clock().now();
        let trust = settle(member.source, options, intact);
        let cache = StatCache::new(repo, &options.identity, &history, began, trust, options.dry_run);
        let parent = history.last().cloned();
        Ok(Self { member, parent, cache, started: began, live: Vec::new(), stored: Stored::default() })
    }

    fn pass<'c>(&'c self, gear: &'c Gear, writer: &'c ChunkWriter<'r>, mode: Mode<'c>, progress: &'c Progress) -> Result<Capture<'c, 'r>> {
        let root = self.member.source.root()?;
        Capture::new(gear, writer, &self.cache, mode, progress).run(root, self.member.options.one_file_system)
    }

    /// Reads and stores everything; what comes next is compared with this.
    fn read_live(&mut self, writer: &ChunkWriter<'r>, progress: &Progress) -> Result<()> {
        let (gear, before) = (Gear::new(), Stored::of(writer));
        let captured = self.pass(&gear, writer, Mode::Read, progress)?.finish()?;
        self.cache.follow(&captured.root);
        self.stored = self.stored.plus(&Stored::of(writer).since(&before));
        self.live.push(captured);
        Ok(())
    }
}

impl Taken<'_, '_> {
    fn records(&self, took: Duration) -> Vec<Snapshot> {
        let one = |(course, (captured, stored)): (&Course<'_, '_>, &(Captured, Stored))| {
            let mut stats = captured.stats(&course.stored.plus(stored));
            for live in &course.live {
                let live = live.stats(&Stored::default());
                stats.read_bytes += live.read_bytes;
                stats.read_files += live.read_files;
            }
            let times = (course.started, self.moment);
            let mut record = record(&course.member.options, captured, stats, course.parent.as_ref(), times, took.as_millis());
            record.frozen_milliseconds = u64::try_from(self.held.as_millis()).unwrap_or(u64::MAX);
            record
        };
        self.courses.iter().zip(&self.captured).map(one).collect()
    }
}
