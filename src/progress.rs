//! What a running verb tells the outside: counters that a front end may read at any time, warnings, and the wish to
//! stop, which comes in. The library never prints; it counts here.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// One thing that went wrong without ending the run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Warning {
    /// The path, key or id it concerns, printable.
    pub path: String,
    /// What happened.
    pub message: String,
}

/// The most warnings kept word for word; beyond it they are only counted.
pub const WARNINGS_KEPT_MAX: usize = 10_000;

/// Counters of a running verb. Every field only grows during a run, except `phase`.
#[derive(Debug, Default)]
pub struct Progress {
    /// Bytes that the run expects to handle, 0 while unknown.
    pub bytes_total: AtomicU64,
    /// Files (entries) that the run expects to handle, 0 while unknown.
    pub files_total: AtomicU64,
    /// Bytes handled so far.
    pub bytes_done: AtomicU64,
    /// Files (entries) handled so far.
    pub files_done: AtomicU64,
    /// Of `bytes_done`, those in chunks that were not in the repository before.
    pub bytes_new: AtomicU64,
    /// Bytes added to the repository, after compression.
    pub bytes_stored: AtomicU64,
    warnings: Mutex<Vec<Warning>>,
    warnings_count: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Counters at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds to a counter; for display only, so no ordering is asked for.
    pub fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    /// Records one thing that went wrong without ending the run.
    pub fn warn(&self, path: impl std::fmt::Display, message: impl std::fmt::Display) {
        self.warnings_count.fetch_add(1, Ordering::Relaxed);
        let mut kept = self.warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if kept.len() < WARNINGS_KEPT_MAX {
            kept.push(Warning { path: path.to_string(), message: message.to_string() });
        }
    }

    /// The warnings so far, at most [`WARNINGS_KEPT_MAX`] of them.
    pub fn warnings(&self) -> Vec<Warning> {
        self.warnings.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// How many warnings there were, kept or not.
    pub fn warnings_count(&self) -> u64 {
        self.warnings_count.load(Ordering::Relaxed)
    }

    /// Asks the run to end at the next safe point.
    pub fn request_stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// `Err(Interrupted)` once somebody asked to stop. Long loops call this once per entry or chunk.
    pub fn check(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(
                Error::new(ErrorKind::Interrupted, "interrupted").hint("nothing unfinished was committed; run the command again to go on")
            );
        }
        Ok(())
    }
}
