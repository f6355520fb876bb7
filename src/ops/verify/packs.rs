//! Looks at every pack, on all cores: its footer, and where that is wanted its bytes and blobs (`read`).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::proofs::Kept;
use super::queue::{Queue, Work};
use super::read::OpenPack;
use super::{Damage, Depth, Run, VerifyReport, damage_of, lock, workers};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{ChunkId, PackId, SessionId};
use crate::progress::Progress;
use crate::repo::{self, Repository, Verdict};
use crate::storage::Listed;

/// What was proved so far is stored after so long, so that a long run that ends badly is not for nothing.
const KEEP_EVERY: Duration = Duration::from_secs(600);
/// At most so many damaged blobs are remembered one by one (64 MiB). Packs that have more of them count as damaged whole.
const BAD_BLOBS_MAX: usize = 1 << 20;

/// Of a pack that the index knows, one blob in so many is looked up.
const KNOWN_STEP: usize = 64;

/// What was found of the packs.
#[derive(Default)]
pub(super) struct Packs {
    /// Packs that were looked at.
    seen: HashMap<PackId, Seen>,
    /// Damaged blobs, each in one pack.
    bad: HashSet<(ChunkId, PackId)>,
    /// For each pack that the index does not know all of, who wrote it and one chunk that is unknown.
    unknown: Vec<(SessionId, ChunkId)>,
}

/// A pack that was looked at.
#[derive(Debug, Clone, Copy)]
struct Seen {
    len: u64,
    /// It is there, and its blobs are good but for those that are named as bad.
    good: bool,
}

impl Packs {
    /// Whether the pack was looked at.
    pub(super) fn is_seen(&self, id: &PackId) -> bool {
        self.seen.contains_key(id)
    }

    /// Whether the pack was found good, a few blobs perhaps excepted.
    pub(super) fn is_good(&self, id: &PackId) -> bool {
        self.seen.get(id).is_some_and(|seen| seen.good)
    }

    /// Whether a chunk's blob in a pack is damaged.
    pub(super) fn is_bad(&self, chunk: &ChunkId, pack: &PackId) -> bool {
        !self.bad.is_empty() && self.bad.contains(&(*chunk, *pack))
    }

    /// All packs that were looked at, and their lengths.
    pub(super) fn lengths(&self) -> impl Iterator<Item = (&PackId, u64)> {
        self.seen.iter().map(|(id, seen)| (id, seen.len))
    }
}

/// A pack to look at.
pub(super) struct Task {
    pub(super) id: PackId,
    pub(super) listed: Listed,
    /// Whether its bytes are read, too.
    pub(super) read: bool,
}

/// What the threads that look at packs find.
#[derive(Default)]
pub(super) struct Found {
    inner: Mutex<Inner>,
    blobs: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Default)]
struct Inner {
    packs: Packs,
    damaged: Vec<Damage>,
    /// Packs with bases that can't be read. One that is read itself tells more, and one that is missing is missing.
    bases: Vec<(PackId, Damage)>,
    verdicts: Vec<(PackId, Verdict)>,
    failure: Option<Error>,
}

impl Found {
    pub(super) fn add_blobs(&self, count: usize) {
        self.blobs.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(super) fn add_bytes(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }

    /// A pack of which the index lacks a chunk.
    pub(super) fn unknown(&self, session: SessionId, chunk: ChunkId) {
        lock(&self.inner).packs.unknown.push((session, chunk));
    }

    /// A pack was looked at; `verdict` is what its bytes prove, if they were read.
    pub(super) fn good(&self, task: &Task, verdict: Option<Verdict>) {
        let mut inner = lock(&self.inner);
        inner.packs.seen.insert(task.id, Seen { len: task.listed.len, good: true });
        inner.verdicts.extend(verdict.map(|verdict| (task.id, verdict)));
    }

    /// A pack is damaged: all of it (none), or these blobs.
    pub(super) fn damaged(&self, task: &Task, damage: Damage, blobs: Option<Vec<ChunkId>>) {
        let mut inner = lock(&self.inner);
        let named = blobs.filter(|blobs| inner.packs.bad.len() + blobs.len() <= BAD_BLOBS_MAX);
        inner.packs.seen.insert(task.id, Seen { len: task.listed.len, good: named.is_some() });
        inner.packs.bad.extend(named.into_iter().flatten().map(|chunk| (chunk, task.id)));
        inner.damaged.push(damage);
        inner.verdicts.push((task.id, Verdict::Damaged));
    }

    /// A chunk that others are encoded against can't be read from any pack that the index names for it.
    pub(super) fn bad_base(&self, repo: &Repository, base: &ChunkId) -> Result<()> {
        for copy in repo.index().copies(base)?.into_iter().filter(|copy| copy.blob.base.is_none()) {
            let id = repo.index().pack(copy.pack)?.id;
            let object = repo::pack_key(&id)?.to_string();
            let problem = format!("the blob of {base}, which other chunks are encoded against, can't be read");
            let mut inner = lock(&self.inner);
            if inner.packs.bad.len() < BAD_BLOBS_MAX && inner.packs.bad.insert((*base, id)) {
                inner.bases.push((id, Damage { object, problem }));
            }
        }
        Ok(())
    }

    /// A pack is gone, because a prune removed it.
    pub(super) fn removed(&self, task: &Task) {
        lock(&self.inner).packs.seen.insert(task.id, Seen { len: task.listed.len, good: false });
    }
}

/// Looks at every pack in the listing that was not looked at before.
pub(super) fn verify_packs(run: &Run<'_>, packs: &mut Packs, proofs: &mut Kept, report: &mut VerifyReport) -> Result<()> {
    let (repo, progress) = (run.repo, run.progress);
    let view = repo.view();
    let listed = repo.storage().list("packs")?.into_iter().filter_map(|listed| Some((repo::parse_pack_key(&listed.key)?, listed)));
    let listed: Vec<_> = listed.filter(|(id, _)| !view.removed.contains(id) && !packs.is_seen(id)).collect();
    let tasks = proofs.plan(listed);
    Progress::add(&progress.bytes_total, tasks.iter().filter(|task| task.read).map(|task| task.listed.len).sum());
    Progress::add(&progress.files_total, tasks.len() as u64);

    let found = Found { inner: Mutex::new(Inner { packs: std::mem::take(packs), ..Inner::default() }), ..Found::default() };
    let mut next = 0;
    while next < tasks.len() {
        let end = repo.clock().monotonic() + KEEP_EVERY;
        let queue = Queue::new(next, tasks.len());
        std::thread::scope(|scope| {
            for _ in 0..workers() {
                scope.spawn(|| {
                    if let Err(error) = look(run, &tasks, &queue, &found, || repo.clock().monotonic() >= end) {
                        lock(&found.inner).failure.get_or_insert(error);
                        queue.stop();
                    }
                });
            }
        });
        next = queue.next();
        let mut inner = lock(&found.inner);
        inner.verdicts.drain(..).for_each(|(id, verdict)| proofs.note(id, verdict));
        if let Some(error) = inner.failure.take() {
            drop(inner);
            proofs.keep_so_far(repo, progress);
            return Err(error);
        }
        drop(inner);
        if next < tasks.len() {
            proofs.keep_so_far(repo, progress);
        }
    }
    let mut inner = std::mem::take(&mut *lock(&found.inner));
    *packs = std::mem::take(&mut inner.packs);
    // Which thread was first means nothing.
    let bases = inner.bases.into_iter().filter(|(id, _)| packs.is_seen(id)).map(|(_, damage)| damage);
    inner.damaged.extend(bases);
    inner.damaged.sort_by(|a, b| a.object.cmp(&b.object));
    inner.damaged.into_iter().for_each(|damage| report.add(damage));
    report.packs += tasks.len() as u64;
    report.blobs += found.blobs.load(Ordering::Relaxed);
    report.bytes += found.bytes.load(Ordering::Relaxed);
    Ok(())
}

/// What one thread does until nothing is left or it is `enough`.
fn look(run: &Run<'_>, tasks: &[Task], queue: &Queue<OpenPack>, found: &Found, enough: impl Fn() -> bool) -> Result<()> {
    let mut buffer = Vec::new();
    while let Some(work) = queue.take(&enough) {
        run.progress.check()?;
        match work {
            Work::Open(number, opening) => {
                if let Some(task) = tasks.get(number)
                    && let Some(pack) = open(run, task, found)?
                {
                    let parts = pack.parts();
                    opening.opened(Arc::new(pack), parts);
                }
            }
            Work::Read(pack, part) => pack.read(run, part, &mut buffer, found)?,
        }
    }
    Ok(())
}

/// Checks a pack's footer. Returns the pack when it is to be read.
fn open(run: &Run<'_>, task: &Task, found: &Found) -> Result<Option<OpenPack>> {
    let repo = run.repo;
    let footer = match repo::read_footer(repo, &task.id, task.listed.len) {
        Ok((_, footer)) => footer,
        Err(error) => {
            // A pack that a prune removed meanwhile was in its final set.
            if error.kind() == ErrorKind::NotFound && repo.refresh()?.removed.contains(&task.id) {
                found.removed(task);
            } else {
                found.damaged(task, damage_of(&task.listed.key, error)?, None);
            }
            return Ok(None);
        }
    };
    found.add_blobs(footer.entries.len());
    // A pack goes into the index whole or not at all, so of one that it knows a few blobs tell as much as all of them.
    let step = if repo.index().pack_number(&task.id)?.is_some() && run.options.depth != Depth::Deep { KNOWN_STEP } else { 1 };
    for entry in footer.entries.iter().step_by(step) {
        if repo.index().get(&entry.id)?.is_none() {
            found.unknown(footer.header.session, entry.id);
            break;
        }
    }
    if task.read {
        return OpenPack::new(repo, task, footer, run.options.depth).map(Some);
    }
    found.good(task, None);
    Progress::add(&run.progress.files_done, 1);
    Ok(None)
}

/// Whether the index lacks what it should know. What a living process has not named in its journal yet is not of that.
pub(super) fn index_is_stale(repo: &Repository, packs: &Packs) -> Result<bool> {
    if packs.unknown.is_empty() {
        return Ok(false);
    }
    repo.refresh()?;
    for (session, chunk) in &packs.unknown {
        if repo.index().get(chunk)?.is_none() && !repo.storage().held(&repo::hold_key(session)?)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Checks that the index names no pack but those that were found.
pub(super) fn look_for_missing(repo: &Repository, packs: &Packs, report: &mut VerifyReport) -> Result<()> {
    let view = repo.view();
    for pack in repo.index().packs()? {
        if !packs.is_seen(&pack.id) && !view.removed.contains(&pack.id) {
            report.add(Damage { object: repo::pack_key(&pack.id)?.to_string(), problem: "the pack is missing".to_owned() });
        }
    }
    Ok(())
}
