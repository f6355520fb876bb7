//! Proves that snapshots can be restored, or says what is damaged and which snapshots and paths that breaks.
//!
//! Bottom up: journals and deltas, then every pack (its footer, or with `data` every byte and every blob), then every
//! snapshot's tree, whose references must lead to packs that were found good.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::tree;
use crate::error::{Error, ErrorKind, Result};
use crate::index::Location;
use crate::model::{ChunkId, Node, NodeKind, PackId, SessionId, SourceIdentity, Stream, TreePath};
use crate::pack::{self, Footer};
use crate::progress::Progress;
use crate::repo::{self, ChunkReader, Committed, Entry, Leaf, NodeReader, ObjectType, Operation, Repository, StreamReader};
use crate::seal::keys::ChunkKind;
use crate::storage::{Key, Listed};

/// How deep to look.
#[derive(Debug, Clone, Default)]
pub struct VerifyOptions {
    /// Read every byte of every pack and open every blob, not only structure and presence.
    pub data: bool,
    /// Only snapshots of this source.
    pub source: Option<SourceIdentity>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Damage {
    /// The object's key.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
}

/// A path that damage breaks.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Affected {
    /// The snapshot's id.
    pub snapshot: String,
    /// Its source.
    pub source: String,
    /// The path below the snapshot's root.
    pub path: String,
    /// What is wrong.
    pub problem: String,
}

/// What was looked at and found.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct VerifyReport {
    /// Snapshots walked.
    pub snapshots: u64,
    /// Packs looked at.
    pub packs: u64,
    /// Blobs looked at.
    pub blobs: u64,
    /// Bytes read.
    pub bytes: u64,
    /// What is wrong.
    pub damaged: Vec<Damage>,
    /// What was healed (by a later version).
    pub healed: Vec<Damage>,
    /// What that breaks; at most [`AFFECTED_KEPT_MAX`] paths by name.
    pub affected: Vec<Affected>,
    /// How many paths it breaks.
    pub affected_count: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// How many broken paths a report names.
pub const AFFECTED_KEPT_MAX: usize = 10_000;

/// Verifies. Damage is in the report, not an error.
pub fn verify(repo: &Repository, options: &VerifyOptions, progress: &Progress) -> Result<VerifyReport> {
    let start = repo.clock().monotonic();
    repo.config().require(Operation::Verify)?;
    let _reading = repo.reading()?;
    repo.refresh()?;
    let mut report = VerifyReport::default();
    verify_journals(repo, &mut report)?;
    let mut packs = Packs::default();
    verify_packs(repo, options, progress, &mut packs, &mut report)?;
    if index_is_stale(repo, &packs)? {
        tracing::warn!("the local index does not know all that the packs hold; it is built anew");
        repo.reindex()?;
    }
    let (snapshots, problems) = repo.snapshots_checked()?;
    // Other processes went on writing. What these snapshots and the index refer to now is durable, so a second listing has
    // all of it.
    verify_packs(repo, options, progress, &mut packs, &mut report)?;
    look_for_missing(repo, &mut packs, &mut report)?;
    for problem in problems {
        add(&mut report, Damage { object: problem.key, problem: problem.what });
    }
    let trees = Trees { repo, reader: ChunkReader::new(repo), packs: &packs, progress };
    let mut clean = HashSet::new();
    for snapshot in snapshots.iter().filter(|snapshot| options.source.as_ref().is_none_or(|source| *source == snapshot.record.source)) {
        trees.verify_snapshot(snapshot, &mut clean, &mut report)?;
        report.snapshots += 1;
    }
    report.seconds = repo.clock().monotonic().saturating_sub(start).as_secs_f64();
    Ok(report)
}

fn add(report: &mut VerifyReport, damage: Damage) {
    if !report.damaged.iter().any(|known| known.object == damage.object) {
        report.damaged.push(damage);
    }
}

/// An error that says something about an object; all others end the run.
fn damage_of(key: &Key, error: Error) -> Result<Damage> {
    match error.kind() {
        ErrorKind::Cache | ErrorKind::Interrupted => Err(error),
        _ => Ok(Damage { object: key.to_string(), problem: error.to_string() }),
    }
}

/// Reads every journal entry, delta and slot from the repository itself: the copies on this host prove nothing.
fn verify_journals(repo: &Repository, report: &mut VerifyReport) -> Result<()> {
    if let Err(error) = repo.slots() {
        let key = error.subject().and_then(|key| key.parse().ok()).unwrap_or("keys".parse()?);
        add(report, damage_of(&key, error)?);
    }
    let view = repo.view();
    for problem in &view.problems {
        add(report, Damage { object: problem.key.clone(), problem: problem.what.clone() });
    }
    for key in repo.missing_entries()? {
        add(report, Damage { object: key.to_string(), problem: "the journal entry is missing".to_owned() });
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
            Ok((_, Entry::Checkpoint(published) | Entry::Snapshot { published, .. })) => {
                for name in &published.deltas {
                    verify_delta(repo, &name.parse()?, &published.packs, report)?;
                }
            }
            Ok(_) => {}
            // Ended and removed by a prune meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => add(report, damage_of(&listed.key, error)?),
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
            add(report, damage_of(key, error)?);
            Ok(())
        }
    }
}

/// What was found of the packs.
#[derive(Default)]
struct Packs {
    /// Packs that are there and whose footer is good.
    good: HashSet<PackId>,
    /// Chunks whose blob is damaged, with its pack.
    bad_chunks: HashMap<ChunkId, PackId>,
    /// Packs that were looked at, good or not.
    seen: HashSet<PackId>,
    /// For each pack that the index does not know all of, who wrote it and one chunk that is unknown.
    unknown: Vec<(SessionId, ChunkId)>,
}

/// Whether the index lacks what it should know. What a living process has not named in its journal yet is not of that.
fn index_is_stale(repo: &Repository, packs: &Packs) -> Result<bool> {
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

/// Checks every pack in the listing that was not looked at before, on all cores.
fn verify_packs(
    repo: &Repository,
    options: &VerifyOptions,
    progress: &Progress,
    packs: &mut Packs,
    report: &mut VerifyReport,
) -> Result<()> {
    let view = repo.view();
    let listed: Vec<(PackId, Listed)> =
        repo.storage().list("packs")?.into_iter().filter_map(|listed| Some((repo::parse_pack_key(&listed.key)?, listed))).collect();
    let listed: Vec<_> = listed.into_iter().filter(|(id, _)| !view.removed.contains(id) && !packs.seen.contains(id)).collect();
    Progress::add(&progress.bytes_total, if options.data { listed.iter().map(|(_, listed)| listed.len).sum() } else { 0 });
    Progress::add(&progress.files_total, listed.len() as u64);

    let shared = Shared {
        packs: Mutex::new(std::mem::take(packs)),
        damaged: Mutex::default(),
        blobs: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        failure: Mutex::default(),
    };
    let next = AtomicUsize::new(0);
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                let mut buffer = Vec::new();
                while let Some((id, listed)) = listed.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let verified =
                        progress.check().and_then(|()| verify_pack(repo, options.data, id, listed, &shared, &mut buffer, progress));
                    if let Err(error) = verified {
                        lock(&shared.failure).get_or_insert(error);
                        next.store(usize::MAX / 2, Ordering::SeqCst);
                        return;
                    }
                }
            });
        }
    });
    if let Some(error) = lock(&shared.failure).take() {
        return Err(error);
    }
    *packs = std::mem::take(&mut *lock(&shared.packs));
    for damage in lock(&shared.damaged).drain(..) {
        add(report, damage);
    }
    packs.seen.extend(listed.iter().map(|(id, _)| *id));
    report.packs += listed.len() as u64;
    report.blobs += shared.blobs.load(Ordering::Relaxed);
    report.bytes += shared.bytes.load(Ordering::Relaxed);
    Ok(())
}

/// Checks that the index names no pack but those that were found. A damaged blob harms nobody when its chunk is used from
/// another pack.
fn look_for_missing(repo: &Repository, packs: &mut Packs, report: &mut VerifyReport) -> Result<()> {
    let view = repo.view();
    for pack in repo.index().packs()? {
        if !packs.seen.contains(&pack.id) && !view.removed.contains(&pack.id) {
            add(report, Damage { object: repo::pack_key(&pack.id)?.to_string(), problem: "the pack is missing".to_owned() });
        }
    }
    packs.bad_chunks.retain(|id, pack| {
        let used = repo.index().get(id).ok().flatten().and_then(|location| repo.index().pack(location.pack).ok());
        used.is_none_or(|used| used.id == *pack)
    });
    Ok(())
}

struct Shared {
    packs: Mutex<Packs>,
    damaged: Mutex<Vec<Damage>>,
    blobs: AtomicU64,
    bytes: AtomicU64,
    failure: Mutex<Option<Error>>,
}

fn verify_pack(
    repo: &Repository,
    data: bool,
    id: &PackId,
    listed: &Listed,
    shared: &Shared,
    buffer: &mut Vec<u8>,
    progress: &Progress,
) -> Result<()> {
    let footer = match repo::read_footer(repo, id, listed.len) {
        Ok((_, footer)) => footer,
        Err(error) => {
            // A pack that a prune removed meanwhile was in its final set.
            if error.kind() == ErrorKind::NotFound && repo.refresh()?.removed.contains(id) {
                return Ok(());
            }
            lock(&shared.damaged).push(damage_of(&listed.key, error)?);
            return Ok(());
        }
    };
    shared.blobs.fetch_add(footer.entries.len() as u64, Ordering::Relaxed);
    for entry in &footer.entries {
        if repo.index().get(&entry.id)?.is_none() {
            lock(&shared.packs).unknown.push((footer.header.session, entry.id));
            break;
        }
    }
    if data {
        verify_pack_data(repo, id, listed, &footer, shared, buffer)?;
    }
    lock(&shared.packs).good.insert(*id);
    Progress::add(&progress.files_done, 1);
    Progress::add(&progress.bytes_done, if data { listed.len } else { 0 });
    Ok(())
}

/// Compares every byte with the scrub table and opens every blob.
fn verify_pack_data(repo: &Repository, id: &PackId, listed: &Listed, footer: &Footer, shared: &Shared, buffer: &mut Vec<u8>) -> Result<()> {
    let covered = usize::try_from(footer.covered_bytes()).map_err(|_| Error::damaged("a pack of impossible length").on(&listed.key))?;
    buffer.clear();
    buffer.resize(covered, 0);
    if let Err(error) = repo.storage().get_range(&listed.key, 0, buffer) {
        lock(&shared.damaged).push(damage_of(&listed.key, error)?);
        let mut packs = lock(&shared.packs);
        packs.bad_chunks.extend(footer.entries.iter().map(|entry| (entry.id, *id)));
        return Ok(());
    }
    shared.bytes.fetch_add(listed.len, Ordering::Relaxed);
    let shards = footer.scrub(buffer);
    let keys = repo.keys().pack(&footer.header.salt)?;
    let reader = ChunkReader::new(repo);
    let mut bad = Vec::new();
    for (entry, number) in footer.entries.iter().zip(0..) {
        let sealed = buffer.get(entry.offset as usize..).and_then(|rest| rest.get(..entry.stored_len as usize));
        let opened = sealed.ok_or_else(|| Error::damaged("a blob lies outside of its pack").on(entry.id));
        match opened.and_then(|sealed| {
            let base = |base: &ChunkId| reader.base(ChunkKind::from_number(entry.kind)?, base);
            repo::open_blob(repo, &keys, &footer.header.salt, number, entry, sealed.to_vec(), &base)
        }) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::Cache | ErrorKind::Interrupted) => return Err(error),
            Err(_) => bad.push(entry.id),
        }
    }
    if !shards.is_empty() || !bad.is_empty() {
        let problem = format!(
            "{} of {} shards and {} of {} blobs are damaged",
            shards.len(),
            covered.div_ceil(pack::SHARD_BYTES),
            bad.len(),
            footer.entries.len()
        );
        lock(&shared.damaged).push(Damage { object: listed.key.to_string(), problem });
        lock(&shared.packs).bad_chunks.extend(bad.into_iter().map(|chunk| (chunk, *id)));
    }
    Ok(())
}

/// Walks snapshots' trees. What was found clean in one snapshot is not walked again for the next.
struct Trees<'a> {
    repo: &'a Repository,
    reader: ChunkReader<'a>,
    packs: &'a Packs,
    progress: &'a Progress,
}

/// A directory that is being walked, and whether all in it was clean so far.
struct Open<'a, 'r> {
    path: TreePath,
    stream: Stream,
    nodes: NodeReader<'a, 'r>,
    clean: bool,
}

impl<'a> Trees<'a> {
    fn verify_snapshot(&self, snapshot: &Committed, clean: &mut HashSet<(ChunkKind, Stream)>, report: &mut VerifyReport) -> Result<()> {
        // The record as the repository has it, not this host's copy of it.
        if let Err(error) = self.repo.load_snapshot_from_storage(&snapshot.session, snapshot.sequence) {
            add(report, damage_of(&repo::entry_key(&snapshot.session, snapshot.sequence)?, error)?);
        }
        let mut stack = Vec::new();
        self.enter(snapshot, &snapshot.record.root, TreePath::root(), clean, &mut stack, report)?;
        while let Some(open) = stack.last_mut() {
            self.progress.check()?;
            match open.nodes.next_node() {
                Ok(None) => self.leave(clean, &mut stack),
                Ok(Some(node)) => {
                    let Some(name) = &node.name else { continue };
                    let path = open.path.join(name);
                    self.enter(snapshot, &node, path, clean, &mut stack, report)?;
                }
                Err(error) => {
                    let path = open.path.clone();
                    self.broken(snapshot, &path, error, report)?;
                    if let Some(open) = stack.last_mut() {
                        open.clean = false;
                    }
                    self.leave(clean, &mut stack);
                }
            }
            if let Some(open) = stack.last() {
                tree::check_nesting(&open.path, stack.len() - 1)?;
            }
        }
        Ok(())
    }

    /// Checks one entry; a directory that is not known to be clean is put on the stack.
    fn enter<'s>(
        &'s self,
        snapshot: &Committed,
        node: &Node,
        path: TreePath,
        clean: &mut HashSet<(ChunkKind, Stream)>,
        stack: &mut Vec<Open<'s, 'a>>,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let checked = tree::xattrs(&self.reader, node).map(|_| ()).and_then(|()| match &node.kind {
            NodeKind::File(stream) => self.content(stream, clean),
            _ => Ok(()),
        });
        if let Err(error) = checked {
            self.broken(snapshot, &path, error, report)?;
            if let Some(open) = stack.last_mut() {
                open.clean = false;
            }
        }
        if let NodeKind::Directory(stream) = &node.kind
            && stream.len > 0
            && !clean.contains(&(ChunkKind::Tree, *stream))
        {
            stack.push(Open { path, stream: *stream, nodes: NodeReader::new(&self.reader, stream), clean: true });
        }
        Ok(())
    }

    fn leave(&self, clean: &mut HashSet<(ChunkKind, Stream)>, stack: &mut Vec<Open<'_, 'a>>) {
        let Some(done) = stack.pop() else { return };
        if done.clean {
            clean.insert((ChunkKind::Tree, done.stream));
        } else if let Some(above) = stack.last_mut() {
            above.clean = false;
        }
    }

    /// Every chunk of a file is in a pack that is good, of the kind and with the length that the list says.
    fn content(&self, stream: &Stream, clean: &mut HashSet<(ChunkKind, Stream)>) -> Result<()> {
        if stream.depth > 0 && clean.contains(&(ChunkKind::Data, *stream)) {
            return Ok(());
        }
        let mut leaves = StreamReader::new(&self.reader, stream);
        while let Some(leaf) = leaves.next_leaf()? {
            if leaf.id.is_hole() {
                continue;
            }
            let first = self.reader.locate(&leaf.id)?;
            let Err(error) = self.copy(&leaf, &first) else { continue };
            // A reader would find another copy, too.
            let others = self.repo.index().copies(&leaf.id)?;
            if !others.iter().any(|copy| *copy != first && self.copy(&leaf, copy).is_ok()) {
                return Err(error);
            }
        }
        if stream.depth > 0 {
            clean.insert((ChunkKind::Data, *stream));
        }
        Ok(())
    }

    /// Whether one copy of a file's chunk is what the file needs, in a pack that was found good.
    fn copy(&self, leaf: &Leaf, copy: &Location) -> Result<()> {
        let pack = self.repo.index().pack(copy.pack)?;
        if copy.blob.kind != ChunkKind::Data.number() {
            return Err(Error::damaged("a chunk is of another kind than the reference to it").on(leaf.id));
        }
        if u64::from(copy.blob.raw_len) != leaf.len {
            return Err(Error::damaged("a chunk has another length than its list says").on(leaf.id));
        }
        // One that came after the packs were listed.
        if !self.packs.seen.contains(&pack.id) && self.reader.is_good(ChunkKind::Data, copy) {
            return Ok(());
        }
        if !self.packs.good.contains(&pack.id) {
            return Err(Error::damaged(format!("its pack {} is missing or damaged", pack.id)).on(leaf.id));
        }
        if self.packs.bad_chunks.get(&leaf.id) == Some(&pack.id) {
            return Err(Error::damaged(format!("its blob in pack {} is damaged", pack.id)).on(leaf.id));
        }
        Ok(())
    }

    fn broken(&self, snapshot: &Committed, path: &TreePath, error: Error, report: &mut VerifyReport) -> Result<()> {
        if matches!(error.kind(), ErrorKind::Cache | ErrorKind::Interrupted) {
            return Err(error);
        }
        report.affected_count += 1;
        if report.affected.len() < AFFECTED_KEPT_MAX {
            report.affected.push(Affected {
                snapshot: snapshot.id.to_string(),
                source: snapshot.record.source.name.clone(),
                path: path.to_string(),
                problem: error.to_string(),
            });
        }
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
