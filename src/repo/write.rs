//! The chunk writer: claim an id, compress, seal, pack, publish. Only [`ChunkWriter::finish`] makes the [`Flushed`] that a
//! commit wants, so a snapshot can't be committed before everything it refers to is durable.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use minicbor::bytes::ByteVec;

use super::delta::{self, DELTA_BYTES_TARGET, DeltaPack, INLINE_BYTES_MAX, Published};
use super::encode::{Encoded, Encoding};
use super::journal::{Entry, Session};
use super::object::{self, ObjectType};
use super::read::ChunkReader;
use super::{Operation, Repository, pack_key};
use crate::error::{Error, ErrorKind, Result};
use crate::index::{Location, PackInfo, PackNumber};
use crate::model::{ChunkId, PackId, SessionId, hash};
use crate::pack::{Header, PackBuilder, PackEntry};
use crate::progress::Progress;
use crate::seal::keys::{ChunkKind, PackKeys};
use crate::seal::{self, TAG_BYTES};
use crate::storage::Key;

/// Below this, data and trees share one pack, so that a small snapshot writes one object.
const MIXED_BYTES_MAX: usize = 4 << 20;
/// What was packed becomes usable for others, and for the next try after an interruption, at least this often.
const CHECKPOINT_BYTES: u64 = 4 << 30;
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
/// For so many processors one more full pack may be checked and written at once; bounds memory together with the open ones.
/// Writing a pack takes a fraction of the time in which one thread fills the next.
const PROCESSORS_PER_PUBLISHING: usize = 4;
/// Parts of the set of ids that are claimed and not yet in the index, so that threads seldom meet.
const CLAIM_SHARDS: usize = 16;

/// How a writer works.
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// zstd level.
    pub compression: i32,
    /// Count only: nothing is stored and no session is begun.
    pub dry_run: bool,
    /// The verb, for the journal.
    pub purpose: &'static str,
    /// What the session may need to know (write or prune).
    pub operation: Operation,
}

/// Tells which chunk stood in the place of a new one.
pub type Before<'a> = &'a mut dyn FnMut() -> Result<Option<ChunkId>>;

/// What became of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Put {
    /// The chunk's name.
    pub id: ChunkId,
    /// Whether the repository did not have it.
    pub new: bool,
    /// Whether it was stored as the difference from another chunk.
    pub delta: bool,
}

/// Writes chunks of one session. Called from many threads at once.
pub struct ChunkWriter<'r> {
    repo: &'r Repository,
    /// Reads bases.
    reader: ChunkReader<'r>,
    options: WriterOptions,
    progress: &'r Progress,
    session: Option<Mutex<Session>>,
    dead: HashSet<PackId>,
    claims: [Mutex<HashSet<ChunkId>>; CLAIM_SHARDS],
    open: Mutex<OpenPacks>,
    publishing: (Mutex<usize>, Condvar),
    publishing_max: usize,
    unpublished: Mutex<Unpublished>,
    checked_packs: Mutex<HashMap<PackNumber, bool>>,
    /// Packs of others that were relied on and that no journal names yet: this session names them before it ends.
    relied: Mutex<BTreeSet<PackId>>,
    pack_sequence: AtomicU64,
    broken: OnceLock<FirstFailure>,
    totals: Totals,
}

/// Counts of what a writer stored.
#[derive(Debug, Default)]
pub struct Totals {
    /// Chunks that the repository did not have.
    pub new_chunks: AtomicU64,
    /// Their bytes.
    pub new_bytes: AtomicU64,
    /// Their bytes as stored.
    pub stored_bytes: AtomicU64,
    /// Of `stored_bytes`, trees and lists.
    pub tree_bytes: AtomicU64,
    /// Of `new_chunks`, those stored as the difference from another chunk.
    pub deltas: AtomicU64,
}

/// Proof that everything a writer was given is durable and named by its journal (or will be by the commit).
pub struct Flushed {
    pub(super) session: Option<Session>,
    pub(super) published: Published,
}

impl Flushed {
    /// The session whose next entry is the commit; none after a dry run.
    pub fn session(&self) -> Option<SessionId> {
        self.session.as_ref().map(Session::id)
    }
}

#[derive(Default)]
struct OpenPacks {
    /// File contents, and everything while the whole is small.
    data: Option<OpenPack>,
    /// Trees and lists, once there is more than a little.
    tree: Option<OpenPack>,
    spare: Vec<Vec<u8>>,
}

struct OpenPack {
    builder: PackBuilder,
    keys: PackKeys,
}

/// What broke a writer, in words.
struct FirstFailure {
    why: String,
    hint: Option<String>,
}

/// Packs that are durable and in no journal entry yet.
#[derive(Default)]
struct Unpublished {
    packs: Vec<PackId>,
    delta: Vec<DeltaPack>,
    delta_bytes: usize,
    objects: Vec<String>,
    objects_count: u32,
    stored_bytes: u64,
    since: Duration,
}

impl<'r> ChunkWriter<'r> {
    /// Begins a session and takes in what the journals and prune say as of after its BEGIN (rule W1). Packs of sessions
    /// that died are adopted: this session's journal will name them, so that an interrupted snapshot resumes.
    pub fn begin(repo: &'r Repository, options: WriterOptions, progress: &'r Progress) -> Result<Self> {
        repo.config.require(options.operation)?;
        let mut session = if options.dry_run {
            None
        } else {
            repo.storage.sweep_leftovers()?;
            Some(Session::begin(&*repo.storage, &repo.keys, &repo.config.repository, &*repo.clock, &repo.host, options.purpose)?)
        };
        let view = repo.refresh()?;
        if let Some(session) = &mut session {
            repo.adopt(session)?;
        }
        let mut dead = view.dead.clone();
        if view.sets_unknown {
            // A prune may have decided to delete any of them: everything is stored again rather than referred to.
            tracing::warn!("a set of prune can't be read; chunks that are there are not relied on and stored again");
            dead.extend(repo.storage.list("packs")?.iter().filter_map(|listed| super::parse_pack_key(&listed.key)));
        }
        let unpublished = Unpublished { since: repo.clock.monotonic(), ..Unpublished::default() };
        Ok(Self {
            repo,
            reader: ChunkReader::new(repo),
            options,
            progress,
            session: session.map(Mutex::new),
            dead,
            claims: Default::default(),
            open: Mutex::default(),
            publishing: Default::default(),
            publishing_max: std::thread::available_parallelism().map_or(1, usize::from).div_ceil(PROCESSORS_PER_PUBLISHING),
            unpublished: Mutex::new(unpublished),
            checked_packs: Mutex::default(),
            relied: Mutex::default(),
            pack_sequence: AtomicU64::new(0),
            broken: OnceLock::new(),
            totals: Totals::default(),
        })
    }

    /// The repository.
    pub fn repository(&self) -> &'r Repository {
        self.repo
    }

    /// The session; none in a dry run.
    pub fn session(&self) -> Option<SessionId> {
        self.session.as_ref().map(|session| lock(session).id())
    }

    /// Counts so far.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Stores a chunk unless the repository has it. When this returns, the chunk is durable or will be before
    /// [`ChunkWriter::finish`] returns.
    pub fn put(&self, kind: ChunkKind, raw: &[u8]) -> Result<Put> {
        self.put_over(kind, raw, &mut || Ok(None))
    }

    /// Likewise; when the chunk is new, `before` is asked for the chunk that stood in its place in an earlier version. It is
    /// stored as its difference from that where this takes much less.
    pub fn put_over(&self, kind: ChunkKind, raw: &[u8], before: Before<'_>) -> Result<Put> {
        let id = self.repo.keys.chunk_id(kind, raw);
        self.put_named(kind, id, raw, before)
    }

    /// Stores a copy of a chunk, encoded as it was, whether the repository has it or not; prune moves what is still used
    /// with it. The base of a delta must stay.
    pub fn put_copy(&self, kind: ChunkKind, id: ChunkId, copy: &Encoded) -> Result<()> {
        if lock(&self.claims[shard(&id)]).insert(id) {
            self.keep(kind, id, copy.raw_len, copy.encoding, &copy.body)?;
        }
        Ok(())
    }

    /// The level that plain chunks are compressed at.
    pub(super) fn compression(&self) -> i32 {
        self.options.compression
    }

    /// Reads chunks that are there already.
    pub fn reader(&self) -> &ChunkReader<'r> {
        &self.reader
    }

    /// Publishes what is open and returns the proof that all is durable.
    pub fn finish(self) -> Result<Flushed> {
        self.check_broken()?;
        let open = std::mem::take(&mut *lock(&self.open));
        for pack in [open.data, open.tree].into_iter().flatten() {
            self.publish(pack)?;
        }
        self.check_broken()?;
        let mut unpublished = std::mem::take(&mut *lock(&self.unpublished));
        let mut body = delta::encode(&unpublished.delta)?;
        if body.len() > INLINE_BYTES_MAX {
            self.write_delta(&mut unpublished)?;
            body.clear();
        }
        let inline = if unpublished.delta.is_empty() { None } else { Some(ByteVec::from(body)) };
        let published = Published { packs: unpublished.packs, inline, deltas: unpublished.objects };
        let mut session = self.session.map(|session| session.into_inner().unwrap_or_else(PoisonError::into_inner));
        if let Some(session) = &mut session {
            let mut relied = self.relied.into_inner().unwrap_or_else(PoisonError::into_inner);
            relied.retain(|id| !published.packs.contains(id));
            self.repo.name_relied(session, relied)?;
        }
        Ok(Flushed { session, published })
    }

    /// Likewise, for a chunk whose id, `id`, was worked out already. Decides in one step whether this call has to store it.
    pub fn put_named(&self, kind: ChunkKind, id: ChunkId, raw: &[u8], before: Before<'_>) -> Result<Put> {
        self.check_broken()?;
        let known = Put { id, new: false, delta: false };
        if !lock(&self.claims[shard(&id)]).insert(id) {
            return Ok(known);
        }
        let mut decide = || match self.repo.index.get(&id)? {
            Some(first) if self.is_sound(&first)? || self.another_is_sound(&id)? => Ok(known),
            _ => {
                let delta = self.encode(kind, &id, raw, before, |encoding, body| {
                    self.keep(kind, id, raw.len(), encoding, body)?;
                    Ok(encoding.base.is_some())
                })?;
                Ok(Put { id, new: true, delta })
            }
        };
        match decide() {
            // Known: the index answers for it from now on. Otherwise the claim stays until the pack is in the index.
            Ok(put) => {
                if !put.new {
                    lock(&self.claims[shard(&id)]).remove(&id);
                }
                Ok(put)
            }
            Err(error) => Err(self.fails_with(error)),
        }
    }

    fn another_is_sound(&self, id: &ChunkId) -> Result<bool> {
        for copy in self.repo.index.copies(id)?.iter().skip(1) {
            if self.is_sound(copy)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether a copy may be referred to: its pack is usable and, where it is a delta, so is a full copy of its base.
    fn is_sound(&self, copy: &Location) -> Result<bool> {
        Ok(self.usable(copy.pack)?
            && match &copy.blob.base {
                Some(base) => self.full_copy(base)?.is_some(),
                None => true,
            })
    }

    /// Whether chunks of this pack may be referred to: prune has not condemned it (rule W2) and it is there with the
    /// length that the index says. Asked once a pack.
    pub(super) fn usable(&self, number: PackNumber) -> Result<bool> {
        if let Some(known) = lock(&self.checked_packs).get(&number) {
            return Ok(*known);
        }
        let info = self.repo.index.pack(number)?;
        let usable = !self.dead.contains(&info.id) && self.repo.storage.size(&pack_key(&info.id)?)? == Some(info.len);
        if !usable {
            tracing::warn!(pack = %info.id, "the index names a pack that is not usable; its chunks are stored again");
        }
        if usable && self.repo.is_unnamed(&info.id)? {
            lock(&self.relied).insert(info.id);
        }
        lock(&self.checked_packs).insert(number, usable);
        Ok(usable)
    }

    /// Packs an encoded chunk.
    fn keep(&self, kind: ChunkKind, id: ChunkId, raw_len: usize, encoding: Encoding, body: &[u8]) -> Result<()> {
        self.count(kind, raw_len, body.len() + TAG_BYTES, encoding.base.is_some());
        if self.options.dry_run {
            return Ok(());
        }
        match self.append(kind, id, encoding, raw_len, body)? {
            Some(full) => self.publish(full),
            None => Ok(()),
        }
    }

    /// Seals a blob into the open pack of its kind; returns the pack when that filled it.
    fn append(&self, kind: ChunkKind, id: ChunkId, encoding: Encoding, raw_len: usize, body: &[u8]) -> Result<Option<OpenPack>> {
        let config = &self.repo.config;
        let raw_len = u32::try_from(raw_len).map_err(|_| Error::damaged("a chunk over 4 GiB").on(id))?;
        let mut open = lock(&self.open);
        let small = open.tree.is_none()
            && open.data.as_ref().is_none_or(|pack| pack.builder.len() < MIXED_BYTES_MAX.min(config.data_pack_bytes as usize));
        let as_tree = kind != ChunkKind::Data && !small;
        let limit = if as_tree { config.tree_pack_bytes } else { config.data_pack_bytes } as usize;
        let spare = open.spare.pop();
        let slot = if as_tree { &mut open.tree } else { &mut open.data };
        if slot.is_none() {
            *slot = Some(self.new_pack(&id, spare.unwrap_or_default())?);
        } else if let Some(spare) = spare {
            open.spare.push(spare);
        }
        let slot = if as_tree { &mut open.tree } else { &mut open.data };
        let Some(pack) = slot else { return Ok(None) };
        let Encoding { codec, base } = encoding;
        let entry = PackEntry { id, kind: kind.number(), codec, offset: 0, stored_len: 0, raw_len, base };
        let OpenPack { builder, keys } = pack;
        builder.push(&entry, |header, number, out| {
            let start = out.len();
            out.extend_from_slice(body);
            keys.blob(kind).seal(number, header.blob_aad(number, &entry).as_bytes(), out, start)
        })?;
        Ok(if builder.len() >= limit { slot.take() } else { None })
    }

    /// A pack with a fresh key. The salt is hedged: even where the random generator repeats itself (a cloned machine),
    /// session, number, time and first chunk make it another one.
    fn new_pack(&self, first: &ChunkId, buffer: Vec<u8>) -> Result<OpenPack> {
        let session = self.session().ok_or_else(|| Error::new(ErrorKind::Storage, "a dry run stores nothing"))?;
        let sequence = u32::try_from(self.pack_sequence.fetch_add(1, Ordering::SeqCst))
            .map_err(|_| Error::damaged("too many packs in one session"))?;
        let now = self.repo.clock.now();
        let random: [u8; 32] = seal::random_array()?;
        let salt = hash::hash(&[
            &random,
            session.as_bytes(),
            &sequence.to_le_bytes(),
            first.as_bytes(),
            &now.seconds.to_le_bytes(),
            &now.nanos.to_le_bytes(),
        ]);
        let header =
            Header { kind: 3, suite: self.repo.keys.suite().number(), repository: self.repo.config.repository, session, sequence, salt };
        Ok(OpenPack { builder: PackBuilder::new(header, buffer), keys: self.repo.keys.pack(&salt)? })
    }

    /// Makes a full pack durable, then known. Every blob is unsealed again first: what memory made of it since it was
    /// encoded, and decoded again, must not become the only copy.
    fn publish(&self, open: OpenPack) -> Result<()> {
        if open.builder.is_empty() {
            return Ok(());
        }
        let _slot = self.publishing_slot();
        self.publish_in_slot(open).map_err(|error| self.fails_with(error))
    }

    fn publish_in_slot(&self, open: OpenPack) -> Result<()> {
        let keys = open.keys;
        let finished = open.builder.finish(|aad, out, start| keys.index.seal(0, aad, out, start), TAG_BYTES)?;
        let mut buffer = Vec::new();
        for (entry, number) in finished.entries.iter().zip(0..) {
            let sealed = &finished.bytes[entry.offset as usize..][..entry.stored_len as usize];
            let aad = finished.header.blob_aad(number, entry);
            keys.blob(ChunkKind::from_number(entry.kind)?).check(number, aad.as_bytes(), sealed, &mut buffer).map_err(|e| {
                Error::new(ErrorKind::Storage, "a blob does not open as it was sealed; the machine's memory or processor may be faulty")
                    .because(e)
                    .on(entry.id)
            })?;
        }
        self.repo.storage.put_new(&pack_key(&finished.id)?, &finished.bytes)?;
        let info = PackInfo { id: finished.id, len: finished.bytes.len() as u64, salt: finished.header.salt };
        // First "no journal names it yet", then the pack: should the journal never get to it, the next writer names it.
        self.repo.note_unnamed(&[info.id])?;
        self.repo.index.insert_pack(&info, &delta::blobs(&finished.entries))?;
        for entry in &finished.entries {
            lock(&self.claims[shard(&entry.id)]).remove(&entry.id);
        }
        let bytes = finished.bytes;
        {
            let mut open = lock(&self.open);
            if open.spare.is_empty() && bytes.capacity() >= self.repo.config.data_pack_bytes as usize {
                open.spare.push(bytes);
            }
        }
        let mut unpublished = lock(&self.unpublished);
        unpublished.stored_bytes += info.len;
        unpublished.push(DeltaPack::new(&info, &finished.entries));
        if unpublished.delta_bytes >= DELTA_BYTES_TARGET {
            self.write_delta(&mut unpublished)?;
        }
        let now = self.repo.clock.monotonic();
        if unpublished.stored_bytes >= CHECKPOINT_BYTES || now.saturating_sub(unpublished.since) >= CHECKPOINT_INTERVAL {
            self.checkpoint(&mut unpublished)?;
            unpublished.since = now;
        }
        Ok(())
    }

    /// Names what is durable in the journal, so that others can use it and a later run need not store it again.
    fn checkpoint(&self, unpublished: &mut Unpublished) -> Result<()> {
        let Some(session) = &self.session else { return Ok(()) };
        self.write_delta(unpublished)?;
        let published =
            Published { packs: std::mem::take(&mut unpublished.packs), inline: None, deltas: std::mem::take(&mut unpublished.objects) };
        unpublished.stored_bytes = 0;
        let entry = Entry::Checkpoint(published);
        let mut session = lock(session);
        let (sequence, object) =
            session.append(&*self.repo.storage, &self.repo.keys, &self.repo.config.repository, seal::random_array()?, &entry)?;
        self.repo.note_own(&session.id(), sequence, &entry, &object)
    }

    fn write_delta(&self, unpublished: &mut Unpublished) -> Result<()> {
        let Some(session) = self.session() else { return Ok(()) };
        if unpublished.delta.is_empty() {
            return Ok(());
        }
        let key: Key = format!("idx/{session}-{}", unpublished.objects_count).parse()?;
        let body = delta::encode(&unpublished.delta)?;
        object::put(&*self.repo.storage, &self.repo.keys, &self.repo.config.repository, ObjectType::Delta, &key, &body)?;
        unpublished.objects.push(key.to_string());
        unpublished.objects_count += 1;
        unpublished.delta.clear();
        unpublished.delta_bytes = 0;
        Ok(())
    }

    fn count(&self, kind: ChunkKind, raw: usize, stored: usize, delta: bool) {
        let (raw, stored) = (raw as u64, stored as u64);
        self.totals.new_chunks.fetch_add(1, Ordering::Relaxed);
        self.totals.new_bytes.fetch_add(raw, Ordering::Relaxed);
        self.totals.stored_bytes.fetch_add(stored, Ordering::Relaxed);
        self.totals.deltas.fetch_add(u64::from(delta), Ordering::Relaxed);
        if kind != ChunkKind::Data {
            self.totals.tree_bytes.fetch_add(stored, Ordering::Relaxed);
        }
        Progress::add(&self.progress.bytes_new, raw);
        Progress::add(&self.progress.bytes_stored, stored);
    }

    fn publishing_slot(&self) -> impl Drop + '_ {
        struct Slot<'a>(&'a (Mutex<usize>, Condvar));
        impl Drop for Slot<'_> {
            fn drop(&mut self) {
                *lock(&self.0.0) -= 1;
                self.0.1.notify_one();
            }
        }
        let mut busy = lock(&self.publishing.0);
        while *busy >= self.publishing_max {
            busy = self.publishing.1.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        *busy += 1;
        Slot(&self.publishing)
    }

    /// Refuses all that comes after `error`, which is returned.
    fn fails_with(&self, error: Error) -> Error {
        self.broken.get_or_init(|| FirstFailure { why: error.to_string(), hint: error.advice().map(str::to_owned) });
        error
    }

    /// After one failed write nothing more is accepted: what other threads were told would be durable may not be. Another
    /// thread may be the first to report, so it says what happened to the one that met it.
    fn check_broken(&self) -> Result<()> {
        let Some(first) = self.broken.get() else { return Ok(()) };
        let error = Error::new(ErrorKind::Storage, "an earlier write to the repository failed").because(first.why.clone());
        Err(match &first.hint {
            Some(hint) => error.hint(hint),
            None => error,
        })
    }
}

impl Unpublished {
    fn push(&mut self, pack: DeltaPack) {
        self.packs.push(pack.id);
        self.delta_bytes += pack.index.len() + 80;
        self.delta.push(pack);
    }
}

fn shard(id: &ChunkId) -> usize {
    usize::from(id.0[0]) % CLAIM_SHARDS
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
