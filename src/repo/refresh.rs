//! Takes in what the journals tell: which snapshots there are, which packs hold what, what prune has done. The index
//! remembers which entries it has taken in, so that this costs what is new.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, PoisonError};

use minicbor::{Decode, Encode};

use super::delta::{self, DELTA_BYTES_TARGET, DeltaPack, Published};
use super::journal::{self, Entry, Session};
use super::object::{self, ObjectType};
use super::{Repository, read};
use crate::error::{Error, ErrorKind, Result};
use crate::index::Table;
use crate::model::{PackId, SessionId};
use crate::seal;
use crate::storage::Key;

/// An object that is not as it should be. It costs what depends on it, not the whole repository.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The object.
    pub key: String,
    /// What is wrong.
    pub what: String,
}

/// What prune condemns or decides in one cycle (CBOR map).
#[derive(Debug, Clone, Default, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct CycleSet {
    /// Packs that go.
    #[n(0)]
    pub packs: Vec<PackId>,
    /// Forgotten snapshots that go, by journal entry.
    #[n(1)]
    pub dropped: Vec<(SessionId, u32)>,
}

/// What is known of a session.
#[derive(Debug, Clone, Default)]
pub struct SessionState {
    /// The sequence number after its last entry.
    pub next: u32,
    /// It has an END or a FENCE.
    pub resolved: bool,
    /// It has a FENCE: its writer was taken for dead.
    pub fenced: bool,
    /// Where that stands.
    pub fence: Option<u32>,
    /// The host that it runs or ran on; none when its BEGIN can't be read.
    pub host: Option<String>,
}

/// The state of the repository as of one refresh.
#[derive(Debug, Default)]
pub struct View {
    /// Every SNAPSHOT entry that is not forgotten.
    pub snapshots: BTreeSet<(SessionId, u32)>,
    /// Every SNAPSHOT entry with a forget marker that is still there.
    pub forgotten: BTreeSet<(SessionId, u32)>,
    /// Journal entries that something at the key of a forget marker names, whether or not it opens. Such a snapshot is
    /// listed, but nothing new may rely on it (rule W3).
    pub doubtful: BTreeSet<(SessionId, u32)>,
    /// Every snapshot that prune has dropped for good.
    pub dropped: BTreeSet<(SessionId, u32)>,
    /// Of those, entries or forget markers that are still there: the prune was interrupted.
    pub dropped_left: BTreeSet<(SessionId, u32)>,
    /// Every session.
    pub sessions: BTreeMap<SessionId, SessionState>,
    /// Packs that must not be used any more: condemned and not rescued, or final (rule W2).
    pub dead: HashSet<PackId>,
    /// Of those, packs that a prune has decided to delete. Only these are gone for readers: what is condemned and not
    /// decided yet may hold chunks of snapshots that were committed while prune looked.
    pub removed: HashSet<PackId>,
    /// A set of prune can't be read, so `dead` may lack packs: no pack that is there may be relied on by what is written.
    pub sets_unknown: bool,
    /// The last cycle of prune; 0 before the first.
    pub cycle: u64,
    /// What is not as it should be.
    pub problems: Vec<Problem>,
}

/// What the index remembers of a journal entry, as the first byte of its note; a BEGIN's note holds the host too. A
/// SNAPSHOT's object has a note of its own, so that going over the entries does not read the records.
const SEEN: u8 = 0;
const SEEN_BEGIN: u8 = 1;
const SEEN_SNAPSHOT: u8 = 2;
const SEEN_END: u8 = 3;
const SEEN_FENCE: u8 = 4;
/// Followed by how many members come after it (4 bytes).
const SEEN_MEMBER: u8 = 5;
/// How many entries of one gap are named.
const GAP_ENTRIES_MAX: usize = 1000;
/// Notes of packs that no journal names, and of dead sessions whose packs were looked for (table `Meta`).
const UNNAMED: &[u8] = b"unnamed ";
const ADOPTED: &[u8] = b"adopted ";

impl Repository {
    /// Brings index and view up to date with the journals.
    pub fn refresh(&self) -> Result<Arc<View>> {
        let mut view = View::default();
        self.read_cycles(&mut view)?;
        // Before the journals: prune removes a forgotten entry first and its marker last, so that whoever reads in this order
        // never takes a snapshot that goes for one that stays.
        let mut forgets = self.read_forgets(&mut view)?;
        let mut unindexed = false;
        let mut entries = HashSet::new();
        let mut members = Vec::new();
        let log = self.storage.list("log")?;
        // An index that lost all its packs is not one that never had any: what it noted of journals is still true.
        if self.index.counts()?.packs == 0 && !self.has_journal_notes()? {
            self.fill_from_journals(&log, &view)?;
        }
        for listed in log {
            let Some((session, sequence)) = journal::parse_key(&listed.key) else { continue };
            let state = view.sessions.entry(session).or_default();
            state.next = state.next.max(sequence + 1);
            entries.insert((session, sequence));
            if view.dropped.contains(&(session, sequence)) {
                view.dropped_left.insert((session, sequence));
                continue;
            }
            match self.take_in(&listed.key, &session, sequence, &view.removed) {
                Ok(Seen::Begin(host)) => entry_state(&mut view, session).host = Some(host),
                Ok(Seen::Snapshot) => {
                    view.snapshots.insert((session, sequence));
                }
                Ok(Seen::End) => entry_state(&mut view, session).resolved = true,
                Ok(Seen::Fence) => {
                    let state = entry_state(&mut view, session);
                    (state.resolved, state.fenced, state.fence) = (true, true, Some(sequence));
                }
                Ok(Seen::Member(last)) => members.push((session, sequence, last)),
                Ok(Seen::Other) => {}
                Err(Taken::Entry(error)) if error.kind() == ErrorKind::NotFound => {}
                Err(Taken::Entry(error)) => {
                    unindexed = true;
                    view.problems.push(problem(&listed.key, &error)?);
                }
                // The entry is good and what it publishes is not: the packs themselves tell the same.
                Err(Taken::Delta(key, seen, error)) => {
                    unindexed = true;
                    view.problems.push(problem(&key, &error)?);
                    match seen {
                        Seen::Snapshot => _ = view.snapshots.insert((session, sequence)),
                        Seen::Member(last) => members.push((session, sequence, last)),
                        _ => {}
                    }
                }
            }
        }
        // A key that a dropped entry had is never used again: whatever stands there counts as what is left of that entry.
        for (session, sequence) in &view.dropped {
            if let Some(state) = view.sessions.get_mut(session) {
                state.next = state.next.max(sequence + 1);
            }
        }
        for (session, sequence, rest) in members {
            let state = entry_state(&mut view, session);
            let last = sequence.saturating_add(rest);
            if state.fence.is_some_and(|fence| fence <= last) {
                // The writer died before the last one: none of them is wanted.
                forgets.insert((session, sequence));
            } else if state.next <= last {
                continue;
            }
            view.snapshots.insert((session, sequence));
        }
        self.note_vanished(&mut view, &entries)?;
        view.forgotten = view.snapshots.intersection(&forgets).copied().collect();
        view.snapshots.retain(|entry| !forgets.contains(entry));
        if unindexed {
            self.index_unknown_packs(&mut view)?;
        }
        let view = Arc::new(view);
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view.clone();
        Ok(view)
    }

    fn has_journal_notes(&self) -> Result<bool> {
        let mut found = false;
        let looked = self.index.for_each_note(Table::Journal, b"", &mut |_, _| {
            found = true;
            Err(Error::new(ErrorKind::Cache, "one is enough"))
        });
        if found { Ok(true) } else { looked.map(|()| false) }
    }

    /// Takes packs out of the index that the repository has lost. First the stat cache goes, for all sources and for good:
    /// it vouches for files whose chunks may be among what was lost, and once the packs are out of the index nothing else
    /// tells that it does.
    pub fn forget_lost_packs(&self, lost: &[PackId]) -> Result<()> {
        if lost.is_empty() {
            return Ok(());
        }
        let mut records = Vec::new();
        self.index.for_each_note(Table::Stat, b"", &mut |key, _| {
            records.push((key.to_vec(), None));
            Ok(())
        })?;
        self.index.set_notes(Table::Stat, &records)?;
        self.index.remove_packs(lost)
    }

    /// Names, in a CHECKPOINT of `session`, the packs that no journal names: what a session left that died before its own
    /// entry, and what only the packs' footers told of. Others could not find their chunks otherwise (rule W6).
    pub(super) fn adopt(&self, session: &mut Session) -> Result<()> {
        let mut view = View { removed: self.view().removed.clone(), ..View::default() };
        let died = self.died(session.id())?;
        if !died.is_empty() {
            self.index_unknown_packs(&mut view)?;
        }
        let mut unnamed = Vec::new();
        self.index.for_each_note(Table::Meta, UNNAMED, &mut |key, _| {
            unnamed.extend(PackId::from_slice(&key[UNNAMED.len()..]));
            Ok(())
        })?;
        unnamed.retain(|id| !view.removed.contains(id));
        // What was pruned, never got its final name or is damaged: nobody may rely on it.
        let gone = self.name_packs(session, &unnamed)?;
        self.forget_lost_packs(&gone)?;
        self.note_named(&gone)?;
        // What could not be read just now is looked for again by the next writer.
        let died = if view.problems.is_empty() { died } else { Vec::new() };
        let adopted: Vec<_> = died.iter().map(|id| ([ADOPTED, id.as_bytes()].concat(), Some(Vec::new()))).collect();
        self.index.set_notes(Table::Meta, &adopted)
    }

    /// Names packs in a CHECKPOINT of `session`, from their own footers. Returns those that can't be read.
    pub fn name_packs(&self, session: &mut Session, packs: &[PackId]) -> Result<Vec<PackId>> {
        let (mut delta, mut unreadable) = (Vec::new(), Vec::new());
        for id in packs {
            let key = read::pack_key(id)?;
            let len = self.storage.size(&key)?;
            match len.map(|len| read::read_footer(self, id, len)) {
                Some(Ok((info, footer))) => {
                    // Its writer may have died between giving it its name and making that durable.
                    self.storage.settle(&key)?;
                    delta.push(DeltaPack::new(&info, &footer.entries));
                }
                Some(Err(error)) if error.kind() != ErrorKind::Damaged && error.kind() != ErrorKind::NotFound => return Err(error),
                _ => unreadable.push(*id),
            }
        }
        if !delta.is_empty() {
            let entry = Entry::Checkpoint(self.publish_delta(session, &delta)?);
            let (sequence, object) = session.append(&*self.storage, &self.keys, &self.config.repository, seal::random_array()?, &entry)?;
            self.note_own(&session.id(), sequence, &entry, &object)?;
        }
        Ok(unreadable)
    }

    /// Names the packs of others that `session` relies on, unless their own journal has done so meanwhile. The writer of
    /// such a pack shares the index with this one and may die before it names it (rule W6).
    pub(super) fn name_relied(&self, session: &mut Session, packs: BTreeSet<PackId>) -> Result<()> {
        let mut unnamed = Vec::new();
        for id in packs {
            if self.is_unnamed(&id)? {
                unnamed.push(id);
            }
        }
        match self.name_packs(session, &unnamed)?.first() {
            Some(id) => Err(Error::damaged("a pack that chunks were found in can't be read").on(read::pack_key(id)?)),
            None => Ok(()),
        }
    }

    /// Whether no journal names this pack yet, as far as this host knows.
    pub(super) fn is_unnamed(&self, id: &PackId) -> Result<bool> {
        Ok(self.index.note(Table::Meta, &[UNNAMED, id.as_bytes()].concat())?.is_some())
    }

    /// Unresolved sessions whose process is gone and whose packs were not looked for yet.
    fn died(&self, own: SessionId) -> Result<Vec<SessionId>> {
        let mut died = Vec::new();
        for (id, state) in &self.view().sessions {
            let looked = || self.index.note(Table::Meta, &[ADOPTED, id.as_bytes()].concat());
            if !state.resolved && *id != own && looked()?.is_none() && !self.storage.held(&journal::hold_key(id)?)? {
                died.push(*id);
            }
        }
        Ok(died)
    }

    /// Stores a delta as objects of `session` and says how a journal entry names it.
    fn publish_delta(&self, session: &Session, packs: &[DeltaPack]) -> Result<Published> {
        let mut published = Published { packs: packs.iter().map(|pack| pack.id).collect(), ..Published::default() };
        let mut rest = packs;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fit = rest.iter().take_while(|pack| {
                bytes += pack.index.len();
                bytes <= DELTA_BYTES_TARGET
            });
            let (group, later) = rest.split_at(fit.count().max(1));
            rest = later;
            let key: Key = format!("idx/{}-{}-{}", session.id(), session.next_sequence(), published.deltas.len()).parse()?;
            object::put(&*self.storage, &self.keys, &self.config.repository, ObjectType::Delta, &key, &delta::encode(group)?)?;
            published.deltas.push(key.to_string());
        }
        Ok(published)
    }

    /// Remembers that no journal names these packs yet.
    pub(super) fn note_unnamed(&self, packs: &[PackId]) -> Result<()> {
        let notes: Vec<_> = packs.iter().map(|id| ([UNNAMED, id.as_bytes()].concat(), Some(Vec::new()))).collect();
        self.index.set_notes(Table::Meta, &notes)
    }

    fn note_named(&self, packs: &[PackId]) -> Result<()> {
        let notes: Vec<_> = packs.iter().map(|id| ([UNNAMED, id.as_bytes()].concat(), None)).collect();
        if notes.is_empty() { Ok(()) } else { self.index.set_notes(Table::Meta, &notes) }
    }

    /// Journal entries that must be there, because later ones are, and are not. Each may have been a snapshot. A gap before a
    /// FENCE is what a prune was removing when it was interrupted; the next one fenced the rest.
    pub fn missing_entries(&self) -> Result<Vec<Key>> {
        let view = self.view();
        let (mut next, mut missing) = (BTreeMap::new(), Vec::new());
        for listed in self.storage.list("log")? {
            let Some((session, sequence)) = journal::parse_key(&listed.key) else { continue };
            let expected = next.insert(session, sequence + 1).unwrap_or(0);
            if expected < sequence && self.index.note(Table::Journal, &note_key(&session, sequence))?.as_deref() == Some(&[SEEN_FENCE]) {
                continue;
            }
            // A stray entry may have any number.
            for gap in (expected..sequence).take(GAP_ENTRIES_MAX) {
                let key = journal::entry_key(&session, gap)?;
                // A listing may pass over an entry that is written while it runs, and show the one after it.
                if !view.dropped.contains(&(session, gap)) && self.storage.size(&key)?.is_none() {
                    missing.push(key);
                }
            }
        }
        Ok(missing)
    }

    /// A snapshot that this host knew and nobody dropped must still be there.
    fn note_vanished(&self, view: &mut View, entries: &HashSet<(SessionId, u32)>) -> Result<()> {
        let mut vanished = Vec::new();
        self.index.for_each_note(Table::Journal, &[ENTRY_NOTE], &mut |key, note| {
            if matches!(note.first(), Some(&(SEEN_SNAPSHOT | SEEN_MEMBER)))
                && let Some(entry) = parse_note_key(key)
                && !entries.contains(&entry)
                && !view.dropped.contains(&entry)
            {
                vanished.push(entry);
            }
            Ok(())
        })?;
        for (session, sequence) in vanished {
            view.problems.push(Problem {
                key: journal::entry_key(&session, sequence)?.to_string(),
                what: "a snapshot that was here is gone, and no prune dropped it (if the repository was put back from an older copy, \
                       `icecore reindex` takes it as it is)"
                    .to_owned(),
            });
        }
        Ok(())
    }

    /// Removes what this host remembers of a journal entry, then the entry. The other way round a crash would leave a note
    /// of an entry that is gone, and a fence under its key would be taken for it.
    pub fn remove_entry(&self, session: &SessionId, sequence: u32) -> Result<()> {
        let notes = [(note_key(session, sequence), None), (object_note_key(session, sequence), None)];
        self.index.set_notes(Table::Journal, &notes)?;
        self.storage.delete(&journal::entry_key(session, sequence)?)
    }

    /// Ends a session whose process is dead: takes the next key of its journal, so that it can't publish anything more.
    /// `AlreadyExists` when the session wrote that entry itself meanwhile.
    pub fn fence(&self, session: &SessionId, sequence: u32, by: SessionId) -> Result<()> {
        let key = journal::entry_key(session, sequence)?;
        let body = minicbor::to_vec(&Entry::Fence { by }).map_err(|e| Error::damaged("cannot encode a fence").because(e.to_string()))?;
        object::put(&*self.storage, &self.keys, &self.config.repository, ObjectType::Journal, &key, &body)
    }

    /// What a journal entry publishes, and whether it holds a snapshot; none for entries that publish nothing.
    pub fn published(&self, session: &SessionId, sequence: u32) -> Result<Option<(Published, bool)>> {
        let key = journal::entry_key(session, sequence)?;
        let mut object = self.storage.get(&key, object::OBJECT_BYTES_MAX)?;
        Ok(match journal::decode(&self.keys, &self.config.repository, &key, &mut object)?.1 {
            Entry::Checkpoint(published) => Some((published, false)),
            Entry::Snapshot { published, .. } | Entry::Member { published, .. } => Some((published, true)),
            _ => None,
        })
    }

    /// Notes an entry of this process as taken in: what it publishes is in the index already.
    pub(super) fn note_own(&self, session: &SessionId, sequence: u32, entry: &Entry, object: &[u8]) -> Result<()> {
        self.index.set_notes(Table::Journal, &notes(session, sequence, entry, object))?;
        match entry {
            Entry::Checkpoint(published) | Entry::Snapshot { published, .. } | Entry::Member { published, .. } => {
                self.note_named(&published.packs)
            }
            _ => Ok(()),
        }
    }

    /// The sealed object of a SNAPSHOT entry, from the index's copy or the repository.
    pub(super) fn snapshot_object(&self, session: &SessionId, sequence: u32) -> Result<Vec<u8>> {
        match self.index.note(Table::Journal, &object_note_key(session, sequence))? {
            Some(object) => Ok(object),
            None => self.storage.get(&journal::entry_key(session, sequence)?, object::OBJECT_BYTES_MAX),
        }
    }

    fn take_in(&self, key: &Key, session: &SessionId, sequence: u32, removed: &HashSet<PackId>) -> std::result::Result<Seen, Taken> {
        let note_key = note_key(session, sequence);
        if let Some(note) = self.index.note(Table::Journal, &note_key)?
            && let Some(seen) = seen(&note)
        {
            return Ok(seen);
        }
        let object = self.storage.get(key, object::OBJECT_BYTES_MAX)?;
        let (_, entry) = journal::decode(&self.keys, &self.config.repository, key, &mut object.clone())?;
        let seen = seen(&note(&entry)).unwrap_or(Seen::Other);
        if let Entry::Checkpoint(published) | Entry::Snapshot { published, .. } | Entry::Member { published, .. } = &entry {
            self.take_in_published(published, removed)
                .map_err(|(at, error)| Taken::Delta(at.unwrap_or_else(|| key.clone()), seen.clone(), error))?;
        }
        self.index.set_notes(Table::Journal, &notes(session, sequence, &entry, &object))?;
        Ok(seen)
    }

    fn take_in_published(&self, published: &Published, removed: &HashSet<PackId>) -> std::result::Result<(), (Option<Key>, Error)> {
        let here = |error| (None, error);
        if let Some(inline) = &published.inline {
            self.take_in_packs(&delta::decode(inline).map_err(here)?, removed).map_err(here)?;
        }
        // Deltas whose packs are all known have nothing to tell; prune removes a delta once all its packs are gone.
        let mut needed = false;
        for id in &published.packs {
            needed |= !removed.contains(id) && self.index.pack_number(id).map_err(here)?.is_none();
        }
        for name in published.deltas.iter().filter(|_| needed) {
            let key: Key = name.parse().map_err(here)?;
            let packs = self.read_delta(&key).map_err(|error| (Some(key), error))?;
            self.take_in_packs(&packs, removed).map_err(here)?;
        }
        self.note_named(&published.packs).map_err(here)
    }

    fn take_in_packs(&self, packs: &[DeltaPack], removed: &HashSet<PackId>) -> Result<()> {
        for pack in packs.iter().filter(|pack| !removed.contains(&pack.id)) {
            if self.index.pack_number(&pack.id)?.is_none() {
                self.index.insert_pack(&pack.info(), &pack.blobs()?)?;
            }
        }
        Ok(())
    }

    /// The packs of a delta object.
    pub(super) fn read_delta(&self, key: &Key) -> Result<Vec<DeltaPack>> {
        delta::decode(&object::get(&*self.storage, &self.keys, &self.config.repository, ObjectType::Delta, key)?)
    }

    /// Prune's cycles: a condemned set counts until its final set is there, then that one counts.
    pub(super) fn read_cycles(&self, view: &mut View) -> Result<()> {
        let mut cycles: BTreeMap<u64, (Option<Key>, Option<Key>)> = BTreeMap::new();
        for listed in self.storage.list("gc")? {
            let Some((number, kind)) = listed.key.as_str().strip_prefix("gc/").and_then(|rest| rest.split_once('/')) else { continue };
            // As prune names them; a stray number could otherwise be the last there is.
            let Some(number) = number.parse::<u64>().ok().filter(|_| number.len() == 8) else { continue };
            let cycle = cycles.entry(number).or_default();
            match kind {
                "condemned" => cycle.0 = Some(listed.key),
                "final" => cycle.1 = Some(listed.key),
                _ => {}
            }
        }
        for (number, (condemned, last)) in cycles {
            view.cycle = view.cycle.max(number);
            let decided = last.is_some();
            let (key, kind) = match (last, condemned) {
                (Some(key), _) => (key, ObjectType::Final),
                (None, Some(key)) => (key, ObjectType::Condemned),
                (None, None) => continue,
            };
            let set = object::get(&*self.storage, &self.keys, &self.config.repository, kind, &key).and_then(|body| {
                minicbor::decode::<CycleSet>(&body).map_err(|e| Error::damaged("a set of prune is malformed").because(e.to_string()))
            });
            match set {
                Ok(set) => {
                    if decided {
                        self.index.remove_packs(&set.packs)?;
                        view.dropped.extend(set.dropped);
                        view.removed.extend(&set.packs);
                    }
                    view.dead.extend(set.packs);
                }
                // Sets are never deleted, so one that was listed and is gone is as bad as a damaged one.
                Err(error) => {
                    view.problems.push(problem(&key, &error)?);
                    view.sets_unknown = true;
                }
            }
        }
        Ok(())
    }

    /// A marker that does not open forgets nothing: nobody without the key may make snapshots disappear.
    fn read_forgets(&self, view: &mut View) -> Result<BTreeSet<(SessionId, u32)>> {
        let mut forgets = BTreeSet::new();
        for listed in self.storage.list("forget")? {
            let named = listed.key.as_str().strip_prefix("forget/").and_then(|name| name.split_once('-'));
            let Some((Ok(session), Ok(sequence))) = named.map(|(session, sequence)| (session.parse(), sequence.parse())) else { continue };
            if view.dropped.contains(&(session, sequence)) {
                view.dropped_left.insert((session, sequence));
                continue;
            }
            match object::get(&*self.storage, &self.keys, &self.config.repository, ObjectType::Forget, &listed.key) {
                Ok(_) => {
                    forgets.insert((session, sequence));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    view.doubtful.insert((session, sequence));
                    view.problems.push(problem(&listed.key, &error)?);
                }
            }
        }
        Ok(forgets)
    }
}

/// What an entry means for the view.
#[derive(Debug, Clone)]
enum Seen {
    Begin(String),
    Snapshot,
    /// One of several snapshots, and how many come after it.
    Member(u32),
    End,
    Fence,
    Other,
}

/// What could not be taken in: the entry, or a delta that it names.
enum Taken {
    Entry(Error),
    Delta(Key, Seen, Error),
}

impl From<Error> for Taken {
    fn from(error: Error) -> Self {
        Self::Entry(error)
    }
}

fn entry_state(view: &mut View, session: SessionId) -> &mut SessionState {
    view.sessions.entry(session).or_default()
}

/// A failure of the local cache or a wish to stop is no property of an object.
pub(super) fn problem(key: &Key, error: &Error) -> Result<Problem> {
    match error.kind() {
        ErrorKind::Cache | ErrorKind::Interrupted => Err(Error::new(error.kind(), error.to_string())),
        _ => Ok(Problem { key: key.to_string(), what: error.to_string() }),
    }
}

/// First bytes of the keys of both sorts of notes.
const ENTRY_NOTE: u8 = 0;
const OBJECT_NOTE: u8 = 1;

fn note_key(session: &SessionId, sequence: u32) -> Vec<u8> {
    [&[ENTRY_NOTE], &session.as_bytes()[..], &sequence.to_be_bytes()].concat()
}

fn object_note_key(session: &SessionId, sequence: u32) -> Vec<u8> {
    [&[OBJECT_NOTE], &session.as_bytes()[..], &sequence.to_be_bytes()].concat()
}

fn parse_note_key(key: &[u8]) -> Option<(SessionId, u32)> {
    let (session, sequence) = key.strip_prefix(&[ENTRY_NOTE])?.split_at_checked(SessionId::LEN)?;
    Some((SessionId::from_slice(session)?, u32::from_be_bytes(sequence.try_into().ok()?)))
}

/// The notes of an entry that was taken in.
fn notes(session: &SessionId, sequence: u32, entry: &Entry, object: &[u8]) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let mut notes = vec![(note_key(session, sequence), Some(note(entry)))];
    if matches!(entry, Entry::Snapshot { .. } | Entry::Member { .. }) {
        notes.push((object_note_key(session, sequence), Some(object.to_vec())));
    }
    notes
}

fn note(entry: &Entry) -> Vec<u8> {
    match entry {
        Entry::Begin(begin) => [&[SEEN_BEGIN], begin.host.as_bytes()].concat(),
        Entry::Snapshot { .. } => vec![SEEN_SNAPSHOT],
        Entry::Member { number, count, .. } => {
            [&[SEEN_MEMBER], &count.saturating_sub(1).saturating_sub(*number).to_le_bytes()[..]].concat()
        }
        Entry::End => vec![SEEN_END],
        Entry::Fence { .. } => vec![SEEN_FENCE],
        Entry::Checkpoint(_) | Entry::Ack { .. } => vec![SEEN],
    }
}

fn seen(note: &[u8]) -> Option<Seen> {
    match note.split_first()? {
        (&SEEN_BEGIN, host) => Some(Seen::Begin(String::from_utf8_lossy(host).into_owned())),
        (&SEEN_SNAPSHOT, _) => Some(Seen::Snapshot),
        (&SEEN_MEMBER, rest) => Some(Seen::Member(u32::from_le_bytes(rest.try_into().ok()?))),
        (&SEEN_END, _) => Some(Seen::End),
        (&SEEN_FENCE, _) => Some(Seen::Fence),
        (&SEEN, _) => Some(Seen::Other),
        _ => None,
    }
}
