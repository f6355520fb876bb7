//! Proves that snapshots can be restored, or says what is damaged and which snapshots and paths that breaks.
//!
//! Bottom up: journals and deltas (`journals`), then every pack (`packs`: its footer, and where asked for its bytes and blobs,
//! `read`), then every snapshot's tree (`trees`), whose references must lead to packs that were found good. What was proved of
//! packs is kept in the repository (`proofs`), so that the next run can begin with what was not looked at for longest.

mod clean;
mod journals;
mod packs;
mod proofs;
mod queue;
mod read;
mod report;
mod trees;

pub use report::{AFFECTED_KEPT_MAX, Affected, Amount, Damage, VerifyReport};

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::model::SourceIdentity;
use crate::progress::Progress;
use crate::repo::{ChunkReader, Operation, Repository};
use crate::storage::Key;

/// How deep to look at packs. Trees and what they refer to are always looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Depth {
    /// Each pack is there and its footer is good.
    #[default]
    Structure,
    /// And every byte is as the pack's scrub table says. Needs no more keys than the footer.
    Scrub,
    /// And every blob opens and is what its id says.
    Deep,
}

impl Depth {
    /// Its name, as `--data` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Structure => "structure",
            Self::Scrub => "scrub",
            Self::Deep => "deep",
        }
    }
}

/// How deep to look, and at what.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// How deep.
    pub depth: Depth,
    /// Only snapshots of this source.
    pub source: Option<SourceIdentity>,
    /// Read only packs that were not proved at this depth within so many seconds. Of the others the footer is looked at.
    pub older_than_seconds: Option<u64>,
    /// Read at most this part of the repository's bytes, in millionths, but at least one pack: what was proved longest ago.
    pub sample_millionths: Option<u32>,
}

/// What all parts of a run share.
struct Run<'a> {
    repo: &'a Repository,
    options: &'a VerifyOptions,
    progress: &'a Progress,
    reader: ChunkReader<'a>,
}

/// Verifies. Damage is in the report, not an error.
pub fn verify(repo: &Repository, options: &VerifyOptions, progress: &Progress) -> Result<VerifyReport> {
    let start = repo.clock().monotonic();
    repo.config().require(Operation::Verify)?;
    let _reading = repo.reading()?;
    repo.refresh()?;
    let run = Run { repo, options, progress, reader: ChunkReader::new(repo) };
    let mut report = VerifyReport { depth: options.depth.name(), ..VerifyReport::default() };
    journals::verify_journals(repo, &mut report)?;
    let mut proofs = proofs::Kept::read(repo, options, &mut report)?;
    let mut packs = packs::Packs::default();
    packs::verify_packs(&run, &mut packs, &mut proofs, &mut report)?;
    if packs::index_is_stale(repo, &packs)? {
        tracing::warn!("the local index does not know all that the packs hold; it is built anew");
        repo.reindex()?;
    }
    let (snapshots, problems) = repo.snapshots_checked()?;
    // Other processes went on writing. What these snapshots and the index refer to now is durable, so a second listing has
    // all of it.
    packs::verify_packs(&run, &mut packs, &mut proofs, &mut report)?;
    packs::look_for_missing(repo, &packs, &mut report)?;
    proofs.keep(repo, &packs, progress);
    for problem in problems {
        report.add(Damage { object: problem.key, problem: problem.what });
    }
    let wanted = snapshots.iter().filter(|snapshot| options.source.as_ref().is_none_or(|source| *source == snapshot.record.source));
    trees::verify_snapshots(&run, &packs, &wanted.collect::<Vec<_>>(), &mut report)?;
    proofs.summarize(&packs, repo, &mut report);
    report.seconds = repo.clock().monotonic().saturating_sub(start).as_secs_f64();
    Ok(report)
}

/// An error that says something about an object; all others end the run.
fn damage_of(key: &Key, error: Error) -> Result<Damage> {
    if ends_the_run(&error) { Err(error) } else { Ok(Damage { object: key.to_string(), problem: error.to_string() }) }
}

/// A failure of the local cache or a wish to stop is no property of an object.
fn ends_the_run(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Cache | ErrorKind::Interrupted)
}

/// How many threads look at packs and trees.
fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
