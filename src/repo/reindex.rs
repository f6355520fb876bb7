//! Fills the index from the packs' own footers: the last resort where no journal tells of a pack, and the way back when
//! nothing that this host remembers can be trusted.

use std::sync::{Arc, PoisonError};

use super::refresh::{Problem, View, problem};
use super::{Repository, delta, read};
use crate::error::{ErrorKind, Result};

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
        for listed in self.storage.list("packs")? {
            let Some(id) = read::parse_pack_key(&listed.key) else { continue };
            if view.removed.contains(&id) || self.index.pack_number(&id)?.is_some() {
                continue;
            }
            match read::read_footer(self, &id, listed.len) {
                Ok((info, footer)) => {
                    self.note_unnamed(&[id])?;
                    self.index.insert_pack(&info, &delta::blobs(&footer.entries))?;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => view.problems.push(problem(&listed.key, &error)?),
            }
        }
        Ok(())
    }
}
