//! Snapshots: commit, list, load, forget.

use minicbor::bytes::ByteVec;

use super::journal::{self, Entry, MEMBERS_MAX, Session};
use super::object::{self, ObjectType};
use super::refresh::Problem;
use super::{Flushed, Repository};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{SessionId, Snapshot, SnapshotId};
use crate::seal;
use crate::storage::Key;

/// A committed snapshot: its record, its name and where it stands.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The snapshot's id.
    pub id: SnapshotId,
    /// Its record.
    pub record: Snapshot,
    /// The session whose journal holds it.
    pub session: SessionId,
    /// The entry in that journal.
    pub sequence: u32,
}

impl Committed {
    /// What a dry run has: an id of zeros, and no place.
    fn dry(record: Snapshot) -> Self {
        Self { id: SnapshotId([0; 32]), record, session: SessionId([0; 16]), sequence: 0 }
    }
}

/// The key of the marker that forgets the snapshot at this entry.
pub fn forget_key(session: &SessionId, sequence: u32) -> Result<Key> {
    format!("forget/{session}-{sequence:08}").parse()
}

impl Repository {
    /// Commits a snapshot: writes the SNAPSHOT entry, durably, then ends the session. `flushed` proves that everything
    /// the record refers to is durable; a flush of a dry run commits nothing and gives an id of zeros.
    pub fn commit(&self, record: Snapshot, flushed: Flushed) -> Result<Committed> {
        let Some(mut session) = flushed.session else { return Ok(Committed::dry(record)) };
        let (id, salt, sealed) = self.seal_record(&record)?;
        let entry = Entry::Snapshot { published: flushed.published, record: sealed };
        let (sequence, object) = session.append(&*self.storage, &self.keys, &self.config.repository, salt, &entry)?;
        // Committed. What follows is bookkeeping whose failure must not be taken for a failed snapshot.
        let committed = Committed { id, record, session: session.id(), sequence };
        if let Err(error) = self.note_own(&committed.session, sequence, &entry, &object) {
            tracing::warn!("the local index could not note the new snapshot: {error}");
        }
        self.end(session);
        Ok(committed)
    }

    /// Commits several snapshots, all or none: one as [`Repository::commit`] does, more in MEMBER entries, of which the last
    /// is the commit.
    pub fn commit_all(&self, records: Vec<Snapshot>, mut flushed: Flushed) -> Result<Vec<Committed>> {
        let count = u32::try_from(records.len()).ok().filter(|count| *count <= MEMBERS_MAX);
        let count =
            count.ok_or_else(|| Error::new(ErrorKind::Usage, format!("more than {MEMBERS_MAX} snapshots can't be committed together")))?;
        let Some(mut session) = flushed.session.take() else { return Ok(records.into_iter().map(Committed::dry).collect()) };
        if count <= 1 {
            let flushed = Flushed { session: Some(session), published: flushed.published };
            return match records.into_iter().next() {
                Some(record) => Ok(vec![self.commit(record, flushed)?]),
                None => self.abandon(flushed).map(|()| Vec::new()),
            };
        }
        let mut written = Vec::new();
        let mut published = flushed.published;
        for (number, record) in (0..count).zip(records) {
            let (id, salt, sealed) = self.seal_record(&record)?;
            let entry = Entry::Member { published: std::mem::take(&mut published), record: sealed, number, count };
            let (sequence, object) = session.append(&*self.storage, &self.keys, &self.config.repository, salt, &entry)?;
            written.push((Committed { id, record, session: session.id(), sequence }, entry, object));
        }
        // Committed.
        for (committed, entry, object) in &written {
            if let Err(error) = self.note_own(&committed.session, committed.sequence, entry, object) {
                tracing::warn!("the local index could not note the new snapshot: {error}");
            }
        }
        self.end(session);
        Ok(written.into_iter().map(|(committed, ..)| committed).collect())
    }

    fn seal_record(&self, record: &Snapshot) -> Result<(SnapshotId, [u8; 32], ByteVec)> {
        let mut sealed = record.encode()?;
        let id = self.keys.snapshot_id(&sealed);
        let salt = seal::random_array()?;
        self.keys.record(&salt)?.seal(1, b"snapshot record", &mut sealed, 0)?;
        Ok((id, salt, ByteVec::from(sealed)))
    }

    /// Ends a session without a snapshot: names what was packed, so that it is not packed again.
    pub fn abandon(&self, flushed: Flushed) -> Result<()> {
        if let Some(session) = self.checkpoint(flushed)? {
            self.end(session);
        }
        Ok(())
    }

    /// Names what was packed in the session's journal and goes on with the session; none after a dry run.
    pub fn checkpoint(&self, flushed: Flushed) -> Result<Option<Session>> {
        let Some(mut session) = flushed.session else { return Ok(None) };
        if !flushed.published.packs.is_empty() {
            let entry = Entry::Checkpoint(flushed.published);
            let (sequence, object) = session.append(&*self.storage, &self.keys, &self.config.repository, seal::random_array()?, &entry)?;
            self.note_own(&session.id(), sequence, &entry, &object)?;
        }
        Ok(Some(session))
    }

    /// Writes END. A session without one is resolved by prune, so a failure costs nothing but a line in the log.
    pub fn end(&self, mut session: Session) {
        let ended =
            seal::random_array().and_then(|salt| session.append(&*self.storage, &self.keys, &self.config.repository, salt, &Entry::End));
        match ended {
            Ok((sequence, object)) => {
                if let Err(error) = self.note_own(&session.id(), sequence, &Entry::End, &object) {
                    tracing::warn!("the local index could not note the end of the session: {error}");
                }
            }
            Err(error) => tracing::warn!("the session could not be ended in its journal: {error}"),
        }
    }

    /// All snapshots that are not forgotten, ordered by source, then sequence, then time. One whose record does not open
    /// is left out and named in the problems.
    pub fn snapshots_checked(&self) -> Result<(Vec<Committed>, Vec<Problem>)> {
        let view = self.view();
        let mut found = Vec::with_capacity(view.snapshots.len());
        let mut problems = view.problems.clone();
        for (session, sequence) in &view.snapshots {
            match self.load_snapshot(session, *sequence) {
                Ok(snapshot) => found.push(snapshot),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::Cache => return Err(error),
                Err(error) => problems.push(Problem { key: journal::entry_key(session, *sequence)?.to_string(), what: error.to_string() }),
            }
        }
        found.sort_by(|a, b| {
            (&a.record.source, a.record.sequence, a.record.time, a.id).cmp(&(&b.record.source, b.record.sequence, b.record.time, b.id))
        });
        Ok((found, problems))
    }

    /// All snapshots that are not forgotten and can be read, in the same order.
    pub fn snapshots(&self) -> Result<Vec<Committed>> {
        Ok(self.snapshots_checked()?.0)
    }

    /// The snapshot at one journal entry.
    pub fn load_snapshot(&self, session: &SessionId, sequence: u32) -> Result<Committed> {
        self.open_snapshot(session, sequence, self.snapshot_object(session, sequence)?)
    }

    /// Likewise, from the repository itself rather than this host's copy of the entry.
    pub fn load_snapshot_from_storage(&self, session: &SessionId, sequence: u32) -> Result<Committed> {
        let object = self.storage.get(&journal::entry_key(session, sequence)?, object::OBJECT_BYTES_MAX)?;
        self.open_snapshot(session, sequence, object)
    }

    fn open_snapshot(&self, session: &SessionId, sequence: u32, mut object: Vec<u8>) -> Result<Committed> {
        let key = journal::entry_key(session, sequence)?;
        let (salt, entry) = journal::decode(&self.keys, &self.config.repository, &key, &mut object)?;
        let (Entry::Snapshot { record, .. } | Entry::Member { record, .. }) = entry else {
            return Err(Error::damaged("a journal entry is no snapshot, as it was before").on(&key));
        };
        let mut sealed = Vec::from(record);
        let record = self.keys.record(&salt)?.open(1, b"snapshot record", &mut sealed).map_err(|e| e.on(&key))?;
        let id = self.keys.snapshot_id(record);
        Ok(Committed { id, record: Snapshot::decode(record).map_err(|e| e.on(&key))?, session: *session, sequence })
    }

    /// Marks a snapshot as no longer wanted, durably. It is not listed from then on; prune returns its space.
    pub fn forget(&self, snapshot: &Committed) -> Result<()> {
        let key = forget_key(&snapshot.session, snapshot.sequence)?;
        let body = minicbor::to_vec((snapshot.id, self.clock.now()))
            .map_err(|e| Error::damaged("cannot encode a forget marker").because(e.to_string()))?;
        match object::put(&*self.storage, &self.keys, &self.config.repository, ObjectType::Forget, &key, &body) {
            // Forgotten before, if the marker that is there is one.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                object::get(&*self.storage, &self.keys, &self.config.repository, ObjectType::Forget, &key).map(|_| ())
            }
            put => put,
        }
    }
}
