//! Takes a snapshot of one source: begin a session, choose the parent, capture the tree, flush, commit.

mod aside;
mod cache;
mod capture;
mod crew;
mod file;
mod group;
mod large;

use crate::error::{ErrorKind, Result};
use crate::model::manifest::{FAULTS_KEPT_MAX, Fault, SnapshotStats, VolumeFacts};
use crate::model::{Consistency, PackId, SessionId, Snapshot, SourceIdentity};
use crate::progress::Progress;
use crate::repo::{ChunkWriter, Committed, Operation, PROGRAM, Repository, WriterOptions, parse_pack_key};
use crate::source::Source;

pub use group::{GroupOptions, GroupReport, Member, Still, snapshot_group};

use cache::{StatCache, Trust};
use capture::{Captured, Stored};

/// Whether `note` can be read as a record of the stat cache; for fuzz targets.
#[cfg(feature = "testing")]
pub fn is_stat_record(note: &[u8]) -> bool {
    cache::decode(note.to_vec()).is_ok()
}

/// How to take a snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    /// What the source is.
    pub identity: SourceIdentity,
    /// The capture that it belongs to; snapshots taken together share it.
    pub run: SessionId,
    /// How still the source is held.
    pub consistency: Consistency,
    /// Free words.
    pub tags: Vec<String>,
    /// The engine's facts of a volume.
    pub volume: Option<VolumeFacts>,
    /// Read every file, also those that seem unchanged.
    pub force_read: bool,
    /// Do not descend into other file systems.
    pub one_file_system: bool,
    /// zstd level, 1..=19.
    pub compression: i32,
    /// Find out what would be read and stored, and store nothing.
    pub dry_run: bool,
}

/// What was captured.
#[derive(Debug, Clone)]
pub struct SnapshotReport {
    /// The snapshot; its id is all zero after a dry run.
    pub snapshot: Committed,
    /// Seconds that the whole verb took.
    pub seconds: f64,
}

/// Captures `source` and commits it. Warnings (unreadable, changed entries) are in the record and in `progress`.
///
/// An error of the repository ends the run before the commit; an error of an entry costs that entry. When the run is
/// interrupted, what was packed is named in the journal, so that the next run does not pack it again.
pub fn snapshot(repo: &Repository, source: &dyn Source, options: &SnapshotOptions, progress: &Progress) -> Result<SnapshotReport> {
    snapshot_confirmed(repo, source, options, &|| options.consistency, progress)
}

/// Likewise; `confirm` is asked, after the last byte was read, how still the source was held until then. The record says
/// the worse of that and of `options`.
pub fn snapshot_confirmed(
    repo: &Repository,
    source: &dyn Source,
    options: &SnapshotOptions,
    confirm: &dyn Fn() -> Consistency,
    progress: &Progress,
) -> Result<SnapshotReport> {
    let (started, start) = (repo.clock().now(), repo.clock().monotonic());
    let root = source.root()?;
    let writer_options =
        WriterOptions { compression: options.compression, dry_run: options.dry_run, purpose: "snapshot", operation: Operation::Write };
    let writer = ChunkWriter::begin(repo, writer_options, progress)?;
    // Rule W3: only a snapshot that is not forgotten as of after BEGIN may be a parent.
    let history = history(repo, &options.identity)?;
    let parent = history.last();
    let intact = forget_missing_packs(repo)? && !repo.view().sets_unknown;
    if let Some(parent) = parent {
        progress.bytes_total.store(parent.record.stats.bytes, std::sync::atomic::Ordering::Relaxed);
        progress.files_total.store(parent.record.stats.files, std::sync::atomic::Ordering::Relaxed);
    }
    // What changed after this moment may go on changing, through a mapping that is dirty already, without a new time.
    let began = repo.clock().now();
    let trust = settle(source, options, intact);
    let cache = StatCache::new(repo, &options.identity, &history, began, trust, options.dry_run);

    let time = repo.clock().now();
    let captured = match capture::capture(&writer, root, &cache, options.one_file_system, progress) {
        Ok(captured) => captured,
        Err(error) if error.kind() == ErrorKind::Interrupted => {
            repo.abandon(writer.finish()?)?;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    let totals = captured.stats(&Stored::of(&writer));
    let flushed = writer.finish()?;
    // The last moment at which a wish to stop still leaves nothing behind.
    if let Err(interrupted) = progress.check() {
        repo.abandon(flushed)?;
        return Err(interrupted);
    }
    let took = repo.clock().monotonic().saturating_sub(start);
    let options = &SnapshotOptions { consistency: options.consistency.min(confirm()), ..options.clone() };
    let record = record(options, &captured, totals, parent, (started, time), took.as_millis());
    let snapshot = repo.commit(record, flushed)?;
    cache.drop_records(&captured.replaced);
    Ok(SnapshotReport { snapshot, seconds: took.as_secs_f64() })
}

/// Syncs the source. Returns how far the stat cache may be relied on.
fn settle(source: &dyn Source, options: &SnapshotOptions, intact: bool) -> Trust {
    let settled = source.settle().inspect_err(|error| {
        tracing::warn!("the source's file system could not be synced first, so every file is read: {error}");
    });
    let settled = settled.is_ok();
    Trust { files: intact && settled && !options.force_read, chunks: intact, settled }
}

/// A source's snapshots, oldest first.
fn history(repo: &Repository, identity: &SourceIdentity) -> Result<Vec<Committed>> {
    let doubtful = &repo.view().doubtful;
    let usable = |snapshot: &Committed| snapshot.record.source == *identity && !doubtful.contains(&(snapshot.session, snapshot.sequence));
    Ok(repo.snapshots()?.into_iter().filter(usable).collect())
}

/// Where the index knows more packs, they are listed folder by folder: a listing takes some hundred bytes for each.
const LISTED_AT_ONCE_MAX: usize = if cfg!(test) { 2 } else { 16_384 };

/// Takes packs out of the index that the repository has lost, so that their chunks are stored again. `false` when there
/// were some: what the parent says of unchanged files can't be relied on then.
fn forget_missing_packs(repo: &Repository) -> Result<bool> {
    // The index first: a pack that another writer publishes between the two looks must not seem lost.
    let mut known: Vec<(PackId, u64)> = Vec::new();
    repo.index().for_each_pack(&mut |pack| {
        known.push((pack.id, pack.len));
        Ok(())
    })?;
    known.sort_unstable();
    let folders = if known.len() > LISTED_AT_ONCE_MAX {
        (0..=u8::MAX).map(|byte| format!("packs/{byte:02x}")).collect()
    } else {
        vec!["packs".to_owned()]
    };
    // Both sides are sorted by the packs' names.
    let mut known = known.iter().peekable();
    let mut lost = Vec::new();
    for folder in folders {
        for listed in repo.storage().list(&folder)? {
            let Some(id) = parse_pack_key(&listed.key) else { continue };
            while let Some((gone, _)) = known.next_if(|(known, _)| *known < id) {
                lost.push(*gone);
            }
            if known.next_if(|(known, _)| *known == id).is_some_and(|(_, len)| *len != listed.len) {
                lost.push(id);
            }
        }
    }
    lost.extend(known.map(|(id, _)| *id));
    let dead = &repo.view().dead;
    lost.retain(|id| !dead.contains(id));
    if lost.is_empty() {
        return Ok(true);
    }
    tracing::warn!(packs = lost.len(), "packs are missing from the repository; everything is read again to store what was lost");
    repo.forget_lost_packs(&lost)?;
    Ok(false)
}

fn record(
    options: &SnapshotOptions,
    captured: &Captured,
    stats: SnapshotStats,
    parent: Option<&Committed>,
    (started, time): (crate::clock::Timestamp, crate::clock::Timestamp),
    milliseconds: u128,
) -> Snapshot {
    let kept = |faults: &[Fault]| faults.iter().take(FAULTS_KEPT_MAX).cloned().collect();
    Snapshot {
        source: options.identity.clone(),
        run: options.run,
        sequence: parent.map_or(1, |parent| parent.record.sequence + 1),
        started,
        time,
        milliseconds: u64::try_from(milliseconds).unwrap_or(u64::MAX),
        consistency: options.consistency,
        frozen_milliseconds: 0,
        root: captured.root.clone(),
        parent: parent.map(|parent| parent.id),
        unreadable: kept(&captured.unreadable.0),
        unreadable_count: captured.unreadable.1,
        changed: kept(&captured.changed.0),
        changed_count: captured.changed.1,
        stats,
        volume: options.volume.clone(),
        tags: options.tags.clone(),
        program: PROGRAM.to_owned(),
    }
}
