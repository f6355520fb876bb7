//! Journals, deltas and key slots, read from the repository itself: the copies on this host prove nothing.

use super::{Damage, VerifyReport, damage_of};
use crate::error::{ErrorKind, Result};
use crate::model::PackId;
use crate::repo::{self, Entry, ObjectType, Repository};
use crate::storage::Key;

/// Reads every journal entry, delta and slot.
pub(super) fn verify_journals(repo: &Repository, report: &mut VerifyReport) -> Result<()> {
    if let Err(error) = repo.slots() {
        let key = error.subject().and_then(|key| key.parse().ok()).unwrap_or("keys".parse()?);
        report.add(damage_of(&key, error)?);
    }
    let view = repo.view();
    for problem in &view.problems {
        report.add(Damage { object: problem.key.clone(), problem: problem.what.clone() });
    }
    for key in repo.missing_entries()? {
        report.add(Damage { object: key.to_string(), problem: "the journal entry is missing".to_owned() });
    }
    for listed in repo.storage().list("log")? {
        if repo::parse_key(&listed.key).is_none() {
            continue;
        }
        let read = repo.storage().get(&listed.key, repo::OBJECT_BYTES_MAX).and_then(|mut object| {
            report.bytes += object.len() as u64;
            repo::decode_entry(repo.keys(), &repo.id(), &listed.key, &mut object)
        });
        match read {
            Ok((_, Entry::Checkpoint(published) | Entry::Snapshot { published, .. } | Entry::Member { published, .. })) => {
                for name in &published.deltas {
                    verify_delta(repo, &name.parse()?, &published.packs, report)?;
                }
            }
            Ok(_) => {}
            // Ended and removed by a prune meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => report.add(damage_of(&listed.key, error)?),
        }
    }
    Ok(())
}

fn verify_delta(repo: &Repository, key: &Key, packs: &[PackId], report: &mut VerifyReport) -> Result<()> {
    let delta =
        repo::get_object(repo.storage(), repo.keys(), &repo.id(), ObjectType::Delta, key).and_then(|body| repo::decode_delta(&body));
    match delta {
        Ok(_) => Ok(()),
        // Prune removes a delta once all its packs are gone.
        Err(error) if error.kind() == ErrorKind::NotFound && packs.iter().all(|id| repo.view().removed.contains(id)) => Ok(()),
        Err(error) => {
            report.add(damage_of(key, error)?);
            Ok(())
        }
    }
}
