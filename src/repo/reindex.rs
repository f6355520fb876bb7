//! Fills the index from the packs' own footers: the last resort where no journal tells of a pack, and the way back when
//! nothing that this host remembers can be trusted.

use std::sync::{Arc, PoisonError, mpsc};
use std::thread;

use super::delta::{self, DeltaPack};
use super::refresh::{Problem, View, problem};
use super::{Repository, journal, read};
use crate::error::{ErrorKind, Result};
use crate::index::NewPack;
use crate::model::PackId;
use crate::storage::Listed;

/// Threads that read footers: each is three short reads, and mostly waiting where the disk is slow.
const FOOTER_THREADS: usize = 4;
/// Packs that each of them is ahead. One has mostly some hundred entries; one of the longest possible index has 64 MiB.
const FOOTERS_AHEAD_MAX: usize = 2;
/// Fewer packs are read one after another.
const PARALLEL_MIN: usize = 64;

impl Repository {
    /// Empties the index and fills it again from the packs' own footers.
    pub fn reindex(&self) -> Result<Arc<View>> {
        self.index.clear()?;
        let mut view = View::default();
        self.read_cycles(&mut view)?;
        self.index_unknown_packs(&mut view)?;
        self.index.flush()?;
        let problems = view.problems;
        let fresh = self.refresh()?;
        let mut both = View {
            snapshots: fresh.snapshots.clone(),
            forgotten: fresh.forgotten.clone(),
            dropped: fresh.dropped.clone(),
            dropped_left: fresh.dropped_left.clone(),
            sessions: fresh.sessions.clone(),
            dead: fresh.dead.clone(),
            removed: fresh.removed.clone(),
            doubtful: fresh.doubtful.clone(),
            sets_unknown: fresh.sets_unknown,
            cycle: fresh.cycle,
            problems,
        };
        both.problems.extend(fresh.problems.iter().filter(|p| !p.key.starts_with("packs/")).cloned());
        let both = Arc::new(both);
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = both.clone();
        Ok(both)
    }

    /// Adds every pack that is there to the index, from the packs' own footers: the last resort where no journal tells of
    /// one. Returns those that can't be read.
    pub fn find_packs(&self) -> Result<Vec<Problem>> {
        let mut found = View { removed: self.view().removed.clone(), ..View::default() };
        self.index_unknown_packs(&mut found)?;
        Ok(found.problems)
    }

    /// Reads the footers of packs that the index does not know and adds them, as packs that no journal names. A pack that
    /// can't be read is a problem of the view.
    pub(super) fn index_unknown_packs(&self, view: &mut View) -> Result<()> {
        let mut unknown = Vec::new();
        for listed in self.storage.list("packs")? {
            let Some(id) = read::parse_pack_key(&listed.key) else { continue };
            if !view.removed.contains(&id) && self.index.pack_number(&id)?.is_none() {
                unknown.push((id, listed.len));
            }
        }
        let problems = &mut view.problems;
        if unknown.len() < PARALLEL_MIN {
            let mut packs = unknown.iter().map(|(id, len)| (*id, self.read_new_pack(id, *len)));
            return self.index.insert_packs(&mut || self.next_unnamed(&mut packs, problems));
        }
        thread::scope(|scope| {
            let readers: Vec<_> = (0..FOOTER_THREADS)
                .map(|first| {
                    let (sender, receiver) = mpsc::sync_channel(FOOTERS_AHEAD_MAX);
                    let own = unknown.iter().skip(first).step_by(FOOTER_THREADS);
                    scope.spawn(move || {
                        // Nobody takes further ones when the index failed.
                        own.map(|(id, len)| (*id, self.read_new_pack(id, *len))).all(|pack| sender.send(pack).is_ok());
                    });
                    receiver
                })
                .collect();
            // In the order of the listing: each reader has every so manieth pack.
            let mut turns = readers.iter().cycle();
            let mut packs = std::iter::from_fn(|| turns.next()?.recv().ok());
            self.index.insert_packs(&mut || self.next_unnamed(&mut packs, problems))
        })
    }

    fn read_new_pack(&self, id: &PackId, len: u64) -> Result<NewPack> {
        let (info, footer) = read::read_footer(self, id, len)?;
        Ok(NewPack { info, blobs: delta::blobs(&footer.entries) })
    }

    /// The next pack that could be read, noted as one that no journal names before the index has it.
    fn next_unnamed(
        &self,
        packs: &mut dyn Iterator<Item = (PackId, Result<NewPack>)>,
        problems: &mut Vec<Problem>,
    ) -> Result<Option<NewPack>> {
        for (id, read) in packs {
            match read {
                Ok(pack) => {
                    self.note_unnamed(&[id])?;
                    return Ok(Some(pack));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => problems.push(problem(&read::pack_key(&id)?, &error)?),
            }
        }
        Ok(None)
    }

    /// Takes the packs of all journals into an empty index at once. Nothing is noted as taken in, and what can't be read is
    /// passed over: going over the entries one by one, afterwards, finds the packs known and tells of the rest.
    pub(super) fn fill_from_journals(&self, log: &[Listed], view: &View) -> Result<()> {
        let mut entries = log.iter();
        let mut deltas = Vec::<String>::new().into_iter();
        let mut packs = Vec::new().into_iter();
        self.index.insert_packs(&mut || {
            loop {
                for pack in packs.by_ref() {
                    if let Some(pack) = known_good(new_pack(&pack))?.filter(|pack| !view.removed.contains(&pack.info.id)) {
                        return Ok(Some(pack));
                    }
                }
                if let Some(name) = deltas.next() {
                    packs = known_good(name.parse().and_then(|key| self.read_delta(&key)))?.unwrap_or_default().into_iter();
                    continue;
                }
                let Some(listed) = entries.next() else { return Ok(None) };
                let Some(entry) = journal::parse_key(&listed.key).filter(|entry| !view.dropped.contains(entry)) else { continue };
                let Some((published, _)) = known_good(self.published(&entry.0, entry.1))?.flatten() else { continue };
                packs = published.inline.and_then(|inline| delta::decode(&inline).ok()).unwrap_or_default().into_iter();
                deltas = published.deltas.into_iter();
            }
        })
    }
}

fn new_pack(pack: &DeltaPack) -> Result<NewPack> {
    Ok(NewPack { info: pack.info(), blobs: pack.blobs()? })
}

/// `None` for what an object's own faults keep from being read.
fn known_good<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::Cache | ErrorKind::Interrupted) => Err(error),
        Err(_) => Ok(None),
    }
}
