//! Restores a snapshot, whole or in part, to a target.
//!
//! ```text
//! walk      one thread reads the tree, makes directories, and puts files into batches of neighbours
//! workers   each takes a batch, plans the reading of its chunks by pack, and places file after file
//! parts     a large file is placed part by part; workers that have nothing to do help with it
//! behind    one thread takes to the disk what was written so far
//! close     whoever finished a directory's last entry sets its metadata
//! ```
//!
//! What is in memory at once does not depend on the snapshot: see the bounds in `walk`, `content` and [`crate::repo::Fetch`].

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::tree;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Node, NodeKind, Snapshot, TreePath};
use crate::progress::{Progress, WARNINGS_KEPT_MAX, Warning};
use crate::repo::{ChunkReader, Repository};
use crate::target::{self, Placed, Reflinks, Target};

mod behind;
mod content;
mod hands;
mod links;
mod place;
mod plan;
mod walk;

pub use plan::{RestorePlan, plan};

use behind::WriteBehind;
use hands::Hands;
use links::Links;

/// What to restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Only these entries and what is below them; all when empty. One that the snapshot has not is an error.
    pub paths: Vec<TreePath>,
    /// Remove what the target has and the snapshot has not.
    pub delete: bool,
}

/// What a restore did.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct RestoreReport {
    /// Entries that are not directories.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of file content, holes included.
    pub bytes: u64,
    /// Bytes written to the target.
    pub written_bytes: u64,
    /// Bytes that were already right and left alone.
    pub kept_bytes: u64,
    /// Entries removed from the target.
    pub removed: u64,
    /// Files that began as a clone of another one, whose space they share where they are equal.
    pub cloned_files: u64,
    /// Whether clones could be made, where that was asked for.
    pub reflinks: Reflinks,
    /// Entries that are missing or not whole in the target; it stays marked as unfinished then.
    pub failed: u64,
    /// Of those, entries that the repository does not have whole any more.
    pub damaged: u64,
    /// What could not be restored as it was; of entries that failed the first [`WARNINGS_KEPT_MAX`] by name.
    pub warnings: Vec<Warning>,
    /// Seconds that it took.
    pub seconds: f64,
}

/// The most workers: with more of them a file system makes no more files in the same time, and each has some MiB in memory.
const WORKERS_MAX: usize = 8;

/// Restores `snapshot` to `target`. Damage or a failure of one entry costs that entry and is in the report; a full disk, an
/// error of the local index or a wish to stop ends it. In all these cases the target stays marked as unfinished.
pub fn restore(
    repo: &Repository,
    snapshot: &Snapshot,
    target: &dyn Target,
    options: &RestoreOptions,
    progress: &Progress,
) -> Result<RestoreReport> {
    let start = repo.clock().monotonic();
    let _reading = repo.reading()?;
    check_paths(repo, snapshot, options)?;
    if options.paths.is_empty() {
        progress.bytes_total.store(snapshot.stats.bytes, Ordering::Relaxed);
        progress.files_total.store(snapshot.stats.files, Ordering::Relaxed);
    }
    let reader = ChunkReader::new(repo);
    let workers = if target.sequential() { 0 } else { workers() };
    let (behind, asked) = WriteBehind::new(workers);
    let restore = Restore::new(&reader, options, progress, behind);
    let root = target.begin(&snapshot.root)?;
    std::thread::scope(|scope| {
        let queue = (workers > 0).then(|| {
            let (sender, receiver) = crossbeam_channel::bounded(workers * walk::QUEUED_PER_WORKER);
            for _ in 0..workers {
                let receiver = receiver.clone();
                scope.spawn(|| restore.work(receiver));
            }
            sender
        });
        // After the writers, who end it.
        scope.spawn(|| behind::settle(target, &asked));
        if let Err(error) = restore.walk(root, &snapshot.root, queue) {
            restore.fail(error);
        }
    });
    if let Some(error) = lock(&restore.failure).take() {
        return Err(error);
    }
    // A tree with holes in it must not look like the snapshot.
    if restore.counts.failed.load(Ordering::Relaxed) == 0 {
        target.finish()?;
    }
    let mut report = restore.report();
    let shortfalls = target.shortfalls().into_iter();
    report.warnings.extend(shortfalls.map(|shortfall| Warning { path: shortfall.path.to_string(), message: shortfall.message }));
    report.reflinks = target.reflinks();
    report.seconds = repo.clock().monotonic().saturating_sub(start).as_secs_f64();
    Ok(report)
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).min(WORKERS_MAX)
}

fn check_paths(repo: &Repository, snapshot: &Snapshot, options: &RestoreOptions) -> Result<()> {
    options.paths.iter().try_for_each(|path| tree::find(repo, snapshot, path).map(|_| ()))
}

/// Whether an entry is asked for, or leads to one that is.
fn wanted(options: &RestoreOptions, path: &TreePath) -> bool {
    options.paths.is_empty() || options.paths.iter().any(|asked| path.starts_with(asked) || asked.starts_with(path))
}

#[derive(Default)]
struct Counts {
    files: AtomicU64,
    directories: AtomicU64,
    bytes: AtomicU64,
    written: AtomicU64,
    kept: AtomicU64,
    removed: AtomicU64,
    cloned: AtomicU64,
    failed: AtomicU64,
    damaged: AtomicU64,
}

/// What all threads of one restore share.
struct Restore<'c, 'r> {
    reader: &'c ChunkReader<'r>,
    options: &'c RestoreOptions,
    progress: &'c Progress,
    counts: Counts,
    warnings: Mutex<Vec<Warning>>,
    links: Links,
    hands: Hands,
    behind: WriteBehind,
    stop: AtomicBool,
    failure: Mutex<Option<Error>>,
}

impl<'c, 'r> Restore<'c, 'r> {
    fn new(reader: &'c ChunkReader<'r>, options: &'c RestoreOptions, progress: &'c Progress, behind: WriteBehind) -> Self {
        Self {
            reader,
            options,
            progress,
            counts: Counts::default(),
            warnings: Mutex::default(),
            links: Links::default(),
            hands: Hands::default(),
            behind,
            stop: AtomicBool::new(false),
            failure: Mutex::default(),
        }
    }

    fn report(&self) -> RestoreReport {
        let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        let mut warnings = std::mem::take(&mut *lock(&self.warnings));
        let unnamed = get(&counts.failed).saturating_sub(warnings.len() as u64);
        if unnamed > 0 {
            warnings.push(Warning { path: TreePath::root().to_string(), message: format!("{unnamed} more entries failed") });
        }
        RestoreReport {
            files: get(&counts.files),
            directories: get(&counts.directories),
            bytes: get(&counts.bytes),
            written_bytes: get(&counts.written),
            kept_bytes: get(&counts.kept),
            removed: get(&counts.removed),
            cloned_files: get(&counts.cloned),
            failed: get(&counts.failed),
            damaged: get(&counts.damaged),
            warnings,
            ..RestoreReport::default()
        }
    }

    fn count(&self, node: &Node, placed: Placed) {
        self.counts.files.fetch_add(1, Ordering::Relaxed);
        if matches!(node.kind, NodeKind::File(_) | NodeKind::InlineFile(_)) {
            self.counts.bytes.fetch_add(node.size(), Ordering::Relaxed);
        }
        self.counts.written.fetch_add(placed.written_bytes, Ordering::Relaxed);
        self.counts.kept.fetch_add(placed.kept_bytes, Ordering::Relaxed);
        self.counts.cloned.fetch_add(u64::from(placed.cloned), Ordering::Relaxed);
        Progress::add(&self.progress.files_done, 1);
        Progress::add(&self.progress.bytes_stored, placed.written_bytes);
    }

    /// Notes what costs one entry; passes on what ends the run.
    fn entry_failed(&self, path: &TreePath, error: Error) -> Result<()> {
        let fatal = match error.kind() {
            ErrorKind::Target => target::ends_run(&error),
            ErrorKind::Damaged | ErrorKind::NotFound | ErrorKind::AlreadyExists | ErrorKind::Unsupported => false,
            _ => true,
        };
        if fatal {
            return Err(error);
        }
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
        if error.kind() != ErrorKind::Target {
            self.counts.damaged.fetch_add(1, Ordering::Relaxed);
        }
        self.progress.warn(path, &error);
        let mut warnings = lock(&self.warnings);
        if warnings.len() < WARNINGS_KEPT_MAX {
            warnings.push(Warning { path: path.to_string(), message: error.to_string() });
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Interrupted, "another worker failed"));
        }
        self.progress.check()
    }

    fn fail(&self, error: Error) {
        lock(&self.failure).get_or_insert(error);
        self.stop.store(true, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
