//! What is read, longest unproved first, and what of it is kept for the next time.

use std::collections::HashSet;

use super::packs::{Packs, Task};
use super::{Amount, Damage, Depth, VerifyOptions, VerifyReport};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::model::PackId;
use crate::progress::Progress;
use crate::repo::{Proofs, Repository, Verdict};
use crate::storage::{Key, Listed};

/// What is known of packs from earlier runs and this one.
pub(super) struct Kept {
    depth: Depth,
    older_than_seconds: Option<u64>,
    sample_millionths: Option<u32>,
    /// When this run began, in seconds since 1970: the time of all that it proves.
    now: i64,
    proofs: Proofs,
    /// What this run proved.
    proved: HashSet<PackId>,
    /// The records that the next one replaces.
    records: Vec<Key>,
    changed: bool,
    /// Bytes in all packs that were planned, and in those that are read.
    listed_bytes: u64,
    read_bytes: u64,
}

impl Kept {
    /// Reads what earlier runs proved. Damaged records are named in the report.
    pub(super) fn read(repo: &Repository, options: &VerifyOptions, report: &mut VerifyReport) -> Result<Self> {
        let now = repo.clock().now().seconds;
        let read = repo.read_proofs(now)?;
        // A new record is written even when nothing else is found: it takes the place of the damaged one.
        let changed = !read.problems.is_empty();
        for problem in read.problems {
            report.add(Damage { object: problem.key, problem: problem.what });
        }
        Ok(Self {
            depth: options.depth,
            older_than_seconds: options.older_than_seconds,
            sample_millionths: options.sample_millionths,
            now,
            proofs: read.proofs,
            proved: HashSet::new(),
            records: read.records,
            changed,
            listed_bytes: 0,
            read_bytes: 0,
        })
    }

    /// The verdict that is asked for; without a depth, what is worth telling.
    fn wanted(&self) -> Verdict {
        if self.depth == Depth::Deep { Verdict::Opened } else { Verdict::Scrubbed }
    }

    /// In which order packs are looked at, and which of them are read.
    pub(super) fn plan(&mut self, listed: Vec<(PackId, Listed)>) -> Vec<Task> {
        let task = |(id, listed), read| Task { id, listed, read };
        if self.depth == Depth::Structure {
            return listed.into_iter().map(|pack| task(pack, false)).collect();
        }
        self.listed_bytes += listed.iter().map(|(_, listed)| listed.len).sum::<u64>();
        let proved = |id: &PackId| self.proofs.proved(id, self.wanted(), self.now);
        let is_fresh = |id: &PackId| match (self.older_than_seconds, proved(id)) {
            (Some(age), Some(time)) => self.now.abs_diff(time) < age,
            _ => false,
        };
        let (fresh, mut stale): (Vec<_>, Vec<_>) = listed.into_iter().partition(|(id, _)| is_fresh(id));
        stale.sort_by_cached_key(|(id, _)| self.proofs.looked_at(id, self.wanted(), self.now));
        let bytes_max = self.sample_millionths.map(|part| u128::from(self.listed_bytes) * u128::from(part) / 1_000_000);
        let mut tasks = Vec::with_capacity(stale.len() + fresh.len());
        let (damaged, stale): (Vec<_>, Vec<_>) = stale.into_iter().partition(|(id, _)| self.proofs.is_damaged(id, self.now));
        // What was found damaged last is read again, beside the sample: nobody shall be told that it is good.
        tasks.extend(damaged.into_iter().map(|pack| task(pack, true)));
        let mut full = false;
        for pack in stale {
            let bytes = self.read_bytes + pack.1.len;
            // Strictly in order: small ones that would still fit must not leave a large one unproved for ever.
            full |= bytes_max.is_some_and(|max| u128::from(bytes) > max && self.read_bytes > 0);
            if !full {
                self.read_bytes = bytes;
            }
            tasks.push(task(pack, !full));
        }
        tasks.extend(fresh.into_iter().map(|pack| task(pack, false)));
        tasks
    }

    /// Notes what was found of a pack.
    pub(super) fn note(&mut self, id: PackId, verdict: Verdict) {
        if self.depth != Depth::Structure {
            self.proofs.set(id, verdict, self.now);
            self.changed = true;
            if verdict != Verdict::Damaged {
                self.proved.insert(id);
            }
        }
    }

    /// Stores what is known while packs are still to come.
    pub(super) fn keep_so_far(&mut self, repo: &Repository, progress: &Progress) {
        // A run that only looks at structure proves nothing and writes nothing.
        if !self.changed || self.depth == Depth::Structure {
            return;
        }
        match repo.write_proofs(&self.proofs, &self.records) {
            Ok(key) => {
                self.records = vec![key];
                self.changed = false;
            }
            // What was found stands all the same; it only has to be found again.
            Err(error) => {
                tracing::warn!("what was proved could not be noted in the repository: {error}");
                progress.warn("verified", format!("what was proved could not be noted: {error}"));
            }
        }
    }

    /// Stores what is known of the packs that are there, after all of them were looked at.
    pub(super) fn keep(&mut self, repo: &Repository, packs: &Packs, progress: &Progress) {
        let view = repo.view();
        self.proofs.retain(|id| packs.is_seen(id) && !view.removed.contains(id));
        self.keep_so_far(repo, progress);
    }

    /// Says what is proved now.
    pub(super) fn summarize(&self, packs: &Packs, repo: &Repository, report: &mut VerifyReport) {
        let (mut proved, mut before, mut never) = (Amount::default(), Amount::default(), Amount::default());
        let mut oldest: Option<i64> = None;
        let view = repo.view();
        for (id, len) in packs.lengths().filter(|(id, _)| !view.removed.contains(*id)) {
            let time = self.proofs.proved(id, self.wanted(), self.now);
            let amount = match time {
                Some(_) if self.proved.contains(id) => &mut proved,
                Some(_) => &mut before,
                None => &mut never,
            };
            amount.add(len);
            oldest = [oldest, time].into_iter().flatten().min();
        }
        (report.proved, report.proved_before, report.never_proved) = (proved, before, never);
        report.oldest_proof_seconds = oldest;
        report.oldest_proof = oldest.map(|seconds| Timestamp::new(seconds, 0).to_string());
    }
}
