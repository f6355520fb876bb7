//! A session: one writer's journal, `log/<session>/<sequence>`. Its entries are put-if-absent one after another, so that
//! a session has one history, and whoever takes its next key (a FENCE) ends it.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use super::delta::Published;
use super::object::{self, ObjectType};
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{RepositoryId, SessionId};
use crate::seal::{self, Keys};
use crate::storage::{Hold, Key, Storage};

/// One entry of a journal, in CBOR: an array of the variant's number and its fields.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Entry {
    /// The session's first entry.
    #[n(0)]
    Begin(#[n(0)] Begin),
    /// Packs that are durable and may be used by others.
    #[n(1)]
    Checkpoint(#[n(0)] Published),
    /// A snapshot. Writing this entry is the commit.
    #[n(2)]
    Snapshot {
        /// Packs since the last checkpoint.
        #[n(0)]
        published: Published,
        /// The record, sealed with the tree key (nonce 1) so that a store's maintainer need not read names.
        #[n(1)]
        record: ByteVec,
    },
    /// The writer has taken notice of prune's cycle and names what it relies on. Reserved; not written by this version.
    #[n(3)]
    Ack {
        /// The cycle.
        #[n(0)]
        cycle: u64,
        /// Packs of that cycle's set that the session uses.
        #[n(1)]
        packs: Vec<crate::model::PackId>,
    },
    /// The session is over.
    #[n(4)]
    End,
    /// Somebody ended a session whose writer is dead.
    #[n(5)]
    Fence {
        /// The session that did.
        #[n(0)]
        by: SessionId,
    },
    /// One of several snapshots that are committed together. The entries of all of them follow on each other; writing the
    /// last one is the commit.
    #[n(6)]
    Member {
        /// Packs since the last checkpoint; of the first member only.
        #[n(0)]
        published: Published,
        /// The record, sealed as in a SNAPSHOT.
        #[n(1)]
        record: ByteVec,
        /// Which of the snapshots it is, from 0.
        #[n(2)]
        number: u32,
        /// How many there are.
        #[n(3)]
        count: u32,
    },
}

/// Snapshots that are committed together at most.
pub(super) const MEMBERS_MAX: u32 = 4096;

/// Who began a session.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
#[cbor(map)]
pub struct Begin {
    /// Program and version.
    #[n(0)]
    pub program: String,
    /// The host it ran on.
    #[n(1)]
    pub host: String,
    /// Its process id there.
    #[n(2)]
    pub process: u32,
    /// When.
    #[n(3)]
    pub started: Timestamp,
    /// The verb.
    #[n(4)]
    pub purpose: String,
}

/// The program and its version, as records name it.
pub const PROGRAM: &str = concat!("icecore ", env!("CARGO_PKG_VERSION"));

/// The key of a journal entry.
pub fn entry_key(session: &SessionId, sequence: u32) -> Result<Key> {
    format!("log/{session}/{sequence:08}").parse()
}

/// Reads the session and sequence that a key names; none for what is no journal entry.
pub fn parse_key(key: &Key) -> Option<(SessionId, u32)> {
    let (session, sequence) = key.as_str().strip_prefix("log/")?.split_once('/')?;
    if sequence.len() != 8 || !sequence.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((session.parse().ok()?, sequence.parse().ok()?))
}

/// The hold that shows that a session's process lives.
pub fn hold_key(session: &SessionId) -> Result<Key> {
    format!("hb/{session}").parse()
}

/// Opens a journal entry that was read from `key`; returns its salt too, which the record's key is derived from.
pub fn decode(keys: &Keys, repository: &RepositoryId, key: &Key, object: &mut [u8]) -> Result<([u8; 32], Entry)> {
    let (salt, body) = object::open(keys, repository, ObjectType::Journal, key, object)?;
    let entry = minicbor::decode(&body).map_err(|e| Error::damaged("a journal entry is malformed").on(key).because(e.to_string()))?;
    Ok((salt, entry))
}

/// A session of this process, begun and not yet ended.
pub struct Session {
    id: SessionId,
    next: u32,
    /// An append failed. Threads that publish at once share the session; one that came later would leave a gap, which looks
    /// like a lost entry.
    broken: bool,
    /// Held from before BEGIN until the session is dropped: prune must never see a living session as dead.
    _hold: Box<dyn Hold>,
}

impl Session {
    /// Takes the hold, then writes BEGIN. Only after this may prune's state be read (rule W1).
    pub fn begin(
        storage: &dyn Storage,
        keys: &Keys,
        repository: &RepositoryId,
        clock: &dyn Clock,
        host: &str,
        purpose: &str,
    ) -> Result<Self> {
        let id = SessionId(seal::random_array()?);
        let hold = storage.hold(&hold_key(&id)?)?;
        let mut session = Self { id, next: 0, broken: false, _hold: hold };
        let begin = Begin {
            program: PROGRAM.to_owned(),
            host: host.to_owned(),
            process: std::process::id(),
            started: clock.now(),
            purpose: purpose.to_owned(),
        };
        session.append(storage, keys, repository, seal::random_array()?, &Entry::Begin(begin))?;
        Ok(session)
    }

    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The sequence number that the next entry takes.
    pub fn next_sequence(&self) -> u32 {
        self.next
    }

    /// Writes the next entry, durably. When its key is taken the session was fenced: nothing more may be published.
    /// Returns the entry's sequence number and its bytes as stored.
    pub fn append(
        &mut self,
        storage: &dyn Storage,
        keys: &Keys,
        repository: &RepositoryId,
        salt: [u8; 32],
        entry: &Entry,
    ) -> Result<(u32, Vec<u8>)> {
        if self.broken {
            return Err(Error::new(ErrorKind::Storage, "an earlier entry of this session's journal could not be written").on(self.id));
        }
        let sequence = self.next;
        let key = entry_key(&self.id, sequence)?;
        let body = minicbor::to_vec(entry).map_err(|e| Error::damaged("cannot encode a journal entry").on(&key).because(e.to_string()))?;
        let object = object::seal(keys, repository, ObjectType::Journal, &key, &body, salt)?;
        // Whatever happens, this key is not tried again: a put that failed may still have taken effect.
        self.next += 1;
        self.broken = true;
        storage.put_new(&key, &object).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error::new(ErrorKind::Busy, "this session was ended by a prune that took it for dead")
                .on(&key)
                .hint("run the command again"),
            _ => error,
        })?;
        self.broken = false;
        Ok((sequence, object))
    }
}
