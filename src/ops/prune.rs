//! Returns the space of what no snapshot refers to.
//!
//! The exclusive form: it waits for nobody and refuses while another session of any process is alive. It follows the
//! order of the two-phase protocol all the same, so that a writer that begins meanwhile is safe: condemn (durable), look
//! again for sessions and snapshots, decide (durable), delete. A crash anywhere leaves a state that the next prune finishes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::error::{Error, ErrorKind, Result};
use crate::index::{BlobEntry, Location, PackInfo};
use crate::model::{ChunkId, NodeKind, PackId, SessionId, Stream, Xattrs};
use crate::progress::Progress;
use crate::repo::{
    self, ChunkReader, ChunkWriter, Committed, CycleSet, NodeReader, ObjectType, Operation, Problem, Repository, Session, StreamReader,
    View, WriterOptions,
};
use crate::seal::compress;
use crate::seal::keys::ChunkKind;
use crate::storage::Key;

/// How to prune.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Plan only.
    pub dry_run: bool,
    /// Rewrite a pack when less than this share of it, in percent, is still used.
    pub repack_below_percent: u8,
    /// Refuse when more than this share of the repository's bytes, in percent, would go. `None`: no limit.
    pub free_percent_max: Option<u8>,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self { dry_run: false, repack_below_percent: 70, free_percent_max: None }
    }
}

/// What was (or would be) removed.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct PruneReport {
    /// Packs in the repository before.
    pub packs: u64,
    /// Packs removed.
    pub packs_removed: u64,
    /// Of those, packs whose used blobs were first copied to new packs.
    pub packs_rewritten: u64,
    /// Bytes of all packs before.
    pub bytes_before: u64,
    /// Bytes of all packs after; in a dry run, an estimate.
    pub bytes_after: u64,
    /// Bytes copied.
    pub bytes_rewritten: u64,
    /// Forgotten snapshots that are gone now.
    pub snapshots_dropped: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

/// Prunes. `Busy` while another session is alive; refuses when anything that it must read is damaged, because what can't
/// be read can't be known to be unused.
pub fn prune(repo: &Repository, options: &PruneOptions, progress: &Progress) -> Result<PruneReport> {
    let start = repo.clock().monotonic();
    repo.config().require(Operation::Prune)?;
    let writer_options =
        WriterOptions { compression: compress::LEVEL_DEFAULT, dry_run: options.dry_run, purpose: "prune", operation: Operation::Prune };
    let writer = ChunkWriter::begin(repo, writer_options, progress)?;
    resolve_sessions(repo, writer.session(), options.dry_run)?;
    repo.refresh()?;
    finish_last_cycle(repo, options.dry_run)?;
    let view = repo.refresh()?;
    let snapshots = readable_snapshots(repo)?;
    let mut live = mark(repo, &snapshots, progress)?;
    // A pack that no journal tells of is surveyed like any other. One that can't be read is left alone: the survey makes
    // sure that nothing that is needed is missing.
    repo.find_packs()?;
    add_bases(repo, &mut live).map_err(|error| unless_others_began(repo, &view, writer.session(), error))?;
    let packs = survey(repo, &view, &live).map_err(|error| unless_others_began(repo, &view, writer.session(), error))?;
    let plan = plan(&packs, options.repack_below_percent, repo.config().data_pack_bytes);

    let plan = keep_only_good_copies(repo, &packs, plan, &live)?;
    let mut report = plan.report(&packs);
    report.snapshots_dropped = view.forgotten.len() as u64;
    check_share(&report, options)?;
    if options.dry_run {
        report.seconds = repo.clock().monotonic().saturating_sub(start).as_secs_f64();
        return Ok(report);
    }

    // Copies first, durable and named by a journal, before anything is condemned.
    report.bytes_rewritten = rewrite(repo, &writer, &packs, &plan, progress)?;
    let Some(mut session) = repo.checkpoint(writer.finish()?)? else {
        return Err(Error::new(ErrorKind::Storage, "prune has no session"));
    };
    let mut set = CycleSet { packs: plan.remove.clone(), dropped: view.forgotten.iter().copied().collect() };
    if set != CycleSet::default() {
        name_again(repo, &mut session, &set, &packs)?;
        let cycle = view.cycle + 1;
        put_set(repo, cycle, ObjectType::Condemned, &set)?;
        // A session that began before the condemned set was there may rely on it; one that began after has read it.
        let unused = others_alive(repo, session.id()).and_then(|alive| {
            if alive.is_empty() { still_unused(repo, session.id(), &view, &snapshots, &plan, progress) } else { Ok(false) }
        });
        let decided = matches!(unused, Ok(true));
        if !decided {
            set = CycleSet::default();
        }
        put_set(repo, cycle, ObjectType::Final, &set)?;
        if !decided {
            repo.end(session);
            unused?;
            return Err(busy("another icecore process began to work on the repository meanwhile"));
        }
        delete(repo, &set.packs)?;
        drop_snapshots(repo, &set.dropped)?;
    }
    sweep_journals(repo, &view, session.id())?;
    repo.end(session);
    repo.refresh()?;
    report.bytes_after = repo.storage().list("packs")?.iter().map(|listed| listed.len).sum();
    report.seconds = repo.clock().monotonic().saturating_sub(start).as_secs_f64();
    Ok(report)
}

fn busy(what: &str) -> Error {
    Error::new(ErrorKind::Busy, what).hint("nothing was deleted; run `icecore prune` again when no snapshot, restore or verify is running")
}

/// Sessions of living processes other than this one, readers among them.
fn others_alive(repo: &Repository, own: SessionId) -> Result<Vec<Key>> {
    let mut alive = Vec::new();
    for listed in repo.storage().list("hb")? {
        if listed.key != repo::hold_key(&own)? && repo.storage().held(&listed.key)? {
            alive.push(listed.key);
        }
    }
    Ok(alive)
}

/// Refuses while others live, and ends the sessions of processes of this host that died without an END.
fn resolve_sessions(repo: &Repository, own: Option<SessionId>, dry_run: bool) -> Result<()> {
    let own = own.unwrap_or(SessionId([0; 16]));
    if let Some(key) = others_alive(repo, own)?.first() {
        return Err(busy("another icecore process is working on the repository").on(key));
    }
    for (id, state) in &repo.view().sessions {
        if state.resolved || *id == own {
            continue;
        }
        if state.host.as_deref().is_some_and(|host| host != repo.host()) {
            let host = state.host.as_deref().unwrap_or_default();
            return Err(busy(&format!(
                "a session of the host `{}` was not ended, and from here nobody can tell whether it still runs",
                host.escape_debug()
            ))
            .on(id)
            .hint("run `icecore prune` on that host"));
        }
        if !dry_run {
            match repo.fence(id, state.next, own) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => check_ended(repo, id)?,
                fenced => fenced?,
            }
        }
    }
    Ok(())
}

/// A session wrote on after it was looked at. Most likely it was about to end, and lets go of its hold since; then there is
/// nothing to do.
fn check_ended(repo: &Repository, id: &SessionId) -> Result<()> {
    match repo.refresh()?.sessions.get(id) {
        Some(state) if !state.resolved => Err(busy("another icecore process is working on the repository").on(id)),
        _ => Ok(()),
    }
}

/// Completes what an interrupted prune decided: a condemned set without a decision frees nothing, a final set is deleted.
fn finish_last_cycle(repo: &Repository, dry_run: bool) -> Result<()> {
    if dry_run {
        return Ok(());
    }
    for listed in repo.storage().list("gc")? {
        let Some(cycle) =
            listed.key.as_str().strip_suffix("/condemned").and_then(|key| key.strip_prefix("gc/")).and_then(|n| n.parse().ok())
        else {
            continue;
        };
        if repo.storage().size(&cycle_key(cycle, ObjectType::Final)?)?.is_none() {
            put_set(repo, cycle, ObjectType::Final, &CycleSet::default())?;
        }
    }
    let decided = repo.refresh()?;
    let there = repo.storage().list("packs")?;
    let left: Vec<PackId> =
        there.iter().filter_map(|listed| repo::parse_pack_key(&listed.key)).filter(|id| decided.removed.contains(id)).collect();
    delete(repo, &left)?;
    drop_snapshots(repo, &decided.dropped_left.iter().copied().collect::<Vec<_>>())
}

/// Every snapshot, or an error when one can't be read or may be lost: prune would take its chunks for unused.
fn readable_snapshots(repo: &Repository) -> Result<Vec<Committed>> {
    let (_, problems) = repo.snapshots_checked()?;
    if let Some(key) = repo.missing_entries()?.first() {
        return Err(refuse("a journal entry is missing, which may have been a snapshot").on(key));
    }
    let view = repo.view();
    let stored: Result<Vec<Committed>> =
        view.snapshots.iter().map(|(session, sequence)| repo.load_snapshot_from_storage(session, *sequence)).collect();
    match problems.iter().find(|problem| !hides_nothing(problem)) {
        Some(problem) => Err(refuse(&problem.what).on(&problem.key)),
        None => stored.map_err(|error| if error.kind() == ErrorKind::Damaged { refuse(&error.to_string()) } else { error }),
    }
}

/// Whether damage can't hide a snapshot or a decision: packs tell for themselves what a delta would tell, and what is not
/// known to be forgotten is kept.
fn hides_nothing(problem: &Problem) -> bool {
    !problem.key.starts_with("log/") && !problem.key.starts_with("gc/")
}

fn refuse(why: &str) -> Error {
    Error::damaged(format!("prune refuses to delete anything while something is damaged ({why})"))
        .hint("run `icecore verify` to see what it breaks; restore the object from a copy, or forget the snapshots that it breaks")
}

/// The ids of everything that some snapshot refers to.
struct Live {
    chunks: HashSet<ChunkId>,
}

fn mark(repo: &Repository, snapshots: &[Committed], progress: &Progress) -> Result<Live> {
    let reader = ChunkReader::new(repo);
    let live = Marked::default();
    let mut walked = HashSet::new();
    for snapshot in snapshots {
        mark_snapshot(&reader, snapshot, &live, &mut walked, progress)
            .map_err(|error| if error.kind() == ErrorKind::Damaged { refuse(&error.to_string()).on(snapshot.id) } else { error })?;
    }
    Ok(Live { chunks: live.into_inner() })
}

type Marked = std::cell::RefCell<HashSet<ChunkId>>;

fn mark_snapshot(
    reader: &ChunkReader<'_>,
    snapshot: &Committed,
    live: &Marked,
    walked: &mut HashSet<(ChunkId, u8)>,
    progress: &Progress,
) -> Result<()> {
    mark_xattrs(reader, &snapshot.record.root.meta.xattrs, live)?;
    let NodeKind::Directory(root) = snapshot.record.root.kind else { return Ok(()) };
    let mut directories = vec![root];
    while let Some(directory) = directories.pop() {
        progress.check()?;
        // An error anywhere ends the whole mark, so what was begun before is as good as done.
        if directory.len == 0 || !walked.insert((directory.id, directory.depth)) {
            continue;
        }
        let mut list = |id| {
            live.borrow_mut().insert(id);
            true
        };
        let chunk = |id| {
            live.borrow_mut().insert(id);
        };
        let mut nodes = NodeReader::with_ids(reader, &directory, &mut list, &chunk);
        while let Some(node) = nodes.next_node()? {
            mark_xattrs(reader, &node.meta.xattrs, live)?;
            match &node.kind {
                NodeKind::File(stream) => mark_stream(reader, stream, live)?,
                NodeKind::Directory(stream) => directories.push(*stream),
                _ => {}
            }
        }
    }
    Ok(())
}

fn mark_xattrs(reader: &ChunkReader<'_>, xattrs: &Xattrs, live: &Marked) -> Result<()> {
    match xattrs {
        Xattrs::Stream(stream) => mark_stream(reader, stream, live),
        _ => Ok(()),
    }
}

/// Marks a stream's lists and chunks. A list that was marked before leads to nothing new: it is marked after all below it
/// is read, so that it can be passed over.
fn mark_stream(reader: &ChunkReader<'_>, stream: &Stream, live: &Marked) -> Result<()> {
    let mut list = |id| live.borrow_mut().insert(id);
    let mut leaves = StreamReader::with_lists(reader, stream, &mut list);
    while let Some(leaf) = leaves.next_leaf()? {
        if !leaf.id.is_hole() {
            live.borrow_mut().insert(leaf.id);
        }
    }
    Ok(())
}

/// The copy of a chunk that is used. A full one comes before a delta, since others may be encoded against it, and a delta
/// that can be read before one whose base is lost.
fn used_copy(repo: &Repository, id: &ChunkId) -> Result<Option<Location>> {
    let first = repo.index().get(id)?;
    if first.is_none_or(|copy| copy.blob.base.is_none()) {
        return Ok(first);
    }
    let copies = repo.index().copies(id)?;
    if let Some(full) = copies.iter().find(|copy| copy.blob.base.is_none()) {
        return Ok(Some(*full));
    }
    for copy in &copies {
        // An error of the index must not make this another copy than the one that the bases were counted for.
        if let Some(base) = &copy.blob.base
            && has_full_copy(repo, base)?
        {
            return Ok(Some(*copy));
        }
    }
    Ok(first)
}

fn has_full_copy(repo: &Repository, id: &ChunkId) -> Result<bool> {
    Ok(repo.index().copies(id)?.iter().any(|copy| copy.blob.base.is_none()))
}

/// What is used as a delta needs its base, which is used then like anything else; so does a delta that is a second copy of a
/// chunk whose used one is damaged. Bases are no deltas: one step is enough.
fn add_bases(repo: &Repository, live: &mut Live) -> Result<()> {
    let reader = ChunkReader::new(repo);
    let mut bases = HashSet::new();
    repo.index().for_each(&mut |location| {
        let Some(base) = location.blob.base.filter(|_| live.chunks.contains(&location.blob.id)) else { return Ok(()) };
        let Some(used) = used_copy(repo, &location.blob.id)? else { return Ok(()) };
        let is_used = used == *location;
        if is_used && !has_full_copy(repo, &base)? {
            return Err(refuse("a chunk that others are encoded against has no full copy").on(base));
        }
        if is_used || (!reader.is_good(ChunkKind::from_number(used.blob.kind)?, &used) && has_full_copy(repo, &base)?) {
            bases.insert(base);
        }
        Ok(())
    })?;
    live.chunks.extend(bases);
    Ok(())
}

/// A pack and what of it is used.
struct Surveyed {
    info: PackInfo,
    blobs: u64,
    used: Vec<BlobEntry>,
    used_bytes: u64,
}

/// Looks at every pack of the listing. A chunk that stands in several packs is used in one of them ([`used_copy`]).
fn survey(repo: &Repository, view: &View, live: &Live) -> Result<BTreeMap<PackId, Surveyed>> {
    let mut packs = BTreeMap::new();
    for listed in repo.storage().list("packs")? {
        let Some(id) = repo::parse_pack_key(&listed.key) else { continue };
        if view.removed.contains(&id) {
            continue;
        }
        // A pack whose footer can't be read is in no index. Nobody refers to it (all that is live is looked for below), and
        // what can't be read is not deleted.
        let Some(number) = repo.index().pack_number(&id)? else {
            tracing::warn!(pack = %id, "left alone: its index can't be read");
            continue;
        };
        let info = repo.index().pack(number)?;
        if info.len != listed.len {
            return Err(refuse("a pack has another length than it was written with").on(&listed.key));
        }
        packs.insert(id, Surveyed { info, blobs: 0, used: Vec::new(), used_bytes: 0 });
    }
    let mut missing = None;
    let mut names: HashMap<crate::index::PackNumber, PackId> = HashMap::new();
    repo.index().for_each(&mut |location| {
        let id = match names.get(&location.pack) {
            Some(id) => *id,
            None => *names.entry(location.pack).or_insert(repo.index().pack(location.pack)?.id),
        };
        let Some(pack) = packs.get_mut(&id) else {
            missing.get_or_insert(id);
            return Ok(());
        };
        pack.blobs += 1;
        if live.chunks.contains(&location.blob.id) && used_copy(repo, &location.blob.id)?.is_some_and(|used| used.pack == location.pack) {
            pack.used.push(location.blob);
            pack.used_bytes += u64::from(location.blob.stored_len);
        }
        Ok(())
    })?;
    if let Some(id) = missing {
        return Err(refuse("a pack that the index names is missing").on(repo::pack_key(&id)?));
    }
    let found: usize = packs.values().map(|pack| pack.used.len()).sum();
    if found != live.chunks.len() {
        return Err(refuse(&format!("{} chunks that snapshots need are in no pack", live.chunks.len().abs_diff(found))));
    }
    Ok(packs)
}

/// A pack that this prune knows nothing of may be that of a session that began meanwhile: then the prune is only too late.
fn unless_others_began(repo: &Repository, view: &View, own: Option<SessionId>, error: Error) -> Error {
    let began = |(id, state): (&SessionId, &repo::SessionState)| {
        Some(*id) != own && (!state.resolved || view.sessions.get(id).is_none_or(|then| !then.resolved))
    };
    match repo.refresh() {
        Ok(now) if now.sessions.iter().any(began) => busy("another icecore process began to work on the repository meanwhile"),
        _ => error,
    }
}

/// What to remove, and of that what to copy first.
struct Plan {
    remove: Vec<PackId>,
    rewrite: BTreeSet<PackId>,
}

/// Unused packs go; packs with little use are copied and go. Small packs that are wholly used are merged once there are
/// enough of them to fill one. Pure.
fn plan(packs: &BTreeMap<PackId, Surveyed>, repack_below_percent: u8, pack_bytes: u32) -> Plan {
    let mut plan = Plan { remove: Vec::new(), rewrite: BTreeSet::new() };
    let mut small = Vec::new();
    for (id, pack) in packs {
        if pack.used.is_empty() {
            plan.remove.push(*id);
        } else if pack.used_bytes * 100 < pack.info.len * u64::from(repack_below_percent) && (pack.used.len() as u64) < pack.blobs {
            plan.rewrite.insert(*id);
        } else if pack.info.len < u64::from(pack_bytes) / 8 {
            small.push((*id, pack.info.len));
        }
    }
    if small.iter().map(|(_, len)| len).sum::<u64>() >= u64::from(pack_bytes) {
        plan.rewrite.extend(small.iter().map(|(id, _)| *id));
    }
    plan.remove.extend(&plan.rewrite);
    plan
}

/// A pack that is to go may hold a second copy of a chunk that is used in another pack. Before the second copy goes, the
/// one that stays is opened; where it is not good, the pack with the other copy stays.
fn keep_only_good_copies(repo: &Repository, packs: &BTreeMap<PackId, Surveyed>, plan: Plan, live: &Live) -> Result<Plan> {
    let mut leaving: HashSet<PackId> = plan.remove.iter().copied().collect();
    let reader = ChunkReader::new(repo);
    let mut names = HashMap::new();
    for (id, pack) in packs.iter().filter(|(id, _)| plan.remove.contains(id)) {
        names.insert(repo.index().pack_number(&pack.info.id)?, *id);
    }
    let mut doubles = Vec::new();
    repo.index().for_each(&mut |location| {
        if names.contains_key(&Some(location.pack)) && live.chunks.contains(&location.blob.id) {
            doubles.push(*location);
        }
        Ok(())
    })?;
    for double in doubles {
        let Some(used) = used_copy(repo, &double.blob.id)? else { continue };
        if used.pack == double.pack || reader.is_good(ChunkKind::from_number(used.blob.kind)?, &used) {
            continue;
        }
        if let Some(id) = names.get(&Some(double.pack)) {
            tracing::warn!(pack = %id, "kept: it holds a good copy of a chunk whose other copy is damaged");
            leaving.remove(id);
        }
    }
    Ok(Plan {
        remove: plan.remove.into_iter().filter(|id| leaving.contains(id)).collect(),
        rewrite: plan.rewrite.into_iter().filter(|id| leaving.contains(id)).collect(),
    })
}

impl Plan {
    fn report(&self, packs: &BTreeMap<PackId, Surveyed>) -> PruneReport {
        let bytes = |ids: &mut dyn Iterator<Item = &PackId>| ids.filter_map(|id| packs.get(id)).map(|pack| pack.info.len).sum::<u64>();
        let before = bytes(&mut packs.keys());
        let copied: u64 = self.rewrite.iter().filter_map(|id| packs.get(id)).map(|pack| pack.used_bytes).sum();
        PruneReport {
            packs: packs.len() as u64,
            packs_removed: self.remove.len() as u64,
            packs_rewritten: self.rewrite.len() as u64,
            bytes_before: before,
            bytes_after: before.saturating_sub(bytes(&mut self.remove.iter())) + copied,
            bytes_rewritten: copied,
            ..PruneReport::default()
        }
    }
}

fn check_share(report: &PruneReport, options: &PruneOptions) -> Result<()> {
    let freed = report.bytes_before.saturating_sub(report.bytes_after);
    match options.free_percent_max {
        Some(max) if u128::from(freed) * 100 > u128::from(report.bytes_before) * u128::from(max) => {
            let percent = freed * 100 / report.bytes_before.max(1);
            Err(Error::new(
                ErrorKind::Usage,
                format!("prune would free {percent} % of the repository, more than the {max} % that were allowed"),
            )
            .hint("look at `icecore snapshots`; allow more with --free-max"))
        }
        _ => Ok(()),
    }
}

/// Copies what is used of packs that are to go, encoded as it is. Each chunk is opened and checked on the way.
fn rewrite(
    repo: &Repository,
    writer: &ChunkWriter<'_>,
    packs: &BTreeMap<PackId, Surveyed>,
    plan: &Plan,
    progress: &Progress,
) -> Result<u64> {
    let reader = ChunkReader::new(repo);
    let mut bytes = 0;
    for pack in plan.rewrite.iter().filter_map(|id| packs.get(id)) {
        for blob in &pack.used {
            progress.check()?;
            let kind = ChunkKind::from_number(blob.kind)?;
            let copy = reader
                .encoded(kind, &blob.id)
                .map_err(|error| if error.kind() == ErrorKind::Damaged { refuse(&error.to_string()) } else { error })?;
            writer.put_copy(kind, blob.id, &copy)?;
            bytes += u64::from(blob.stored_len);
        }
    }
    Ok(bytes)
}

fn cycle_key(cycle: u64, kind: ObjectType) -> Result<Key> {
    format!("gc/{cycle:08}/{}", if kind == ObjectType::Final { "final" } else { "condemned" }).parse()
}

fn put_set(repo: &Repository, cycle: u64, kind: ObjectType, set: &CycleSet) -> Result<()> {
    let body = minicbor::to_vec(set).map_err(|e| Error::damaged("cannot encode prune's set").because(e.to_string()))?;
    let key = cycle_key(cycle, kind)?;
    repo::put_object(repo.storage(), repo.keys(), &repo.id(), kind, &key, &body).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => busy("another prune is at work").on(&key),
        _ => error,
    })
}

/// Looks once more, after the condemned set is durable: no snapshot came up that was not marked.
fn still_unused(repo: &Repository, own: SessionId, view: &View, marked: &[Committed], plan: &Plan, progress: &Progress) -> Result<bool> {
    let now = repo.refresh()?;
    let unresolved = now.sessions.iter().any(|(id, state)| *id != own && !state.resolved);
    if unresolved || !now.problems.iter().all(hides_nothing) {
        return Ok(false);
    }
    let known: BTreeSet<_> = marked.iter().map(|snapshot| (snapshot.session, snapshot.sequence)).collect();
    let fresh: Vec<_> = now.snapshots.difference(&known).filter(|key| !view.forgotten.contains(key)).collect();
    let condemned: HashSet<&PackId> = plan.remove.iter().collect();
    let mut snapshots = Vec::new();
    for (session, sequence) in fresh {
        snapshots.push(repo.load_snapshot_from_storage(session, *sequence)?);
    }
    for id in mark(repo, &snapshots, progress)?.chunks {
        let stays = |copy: &Location| Ok::<_, Error>(!condemned.contains(&repo.index().pack(copy.pack)?.id));
        let Some(used) = used_copy(repo, &id)? else { return Ok(false) };
        let base = match &used.blob.base {
            Some(base) => used_copy(repo, base)?.filter(|copy| copy.blob.base.is_none()),
            None => Some(used),
        };
        if !stays(&used)? || !base.is_some_and(|base| stays(&base).unwrap_or(false)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn delete(repo: &Repository, packs: &[PackId]) -> Result<()> {
    repo.index().remove_packs(packs)?;
    packs.iter().try_for_each(|id| repo.storage().delete(&repo::pack_key(id)?))
}

/// Removes forgotten snapshots, which the final set names: their entries, then their markers.
fn drop_snapshots(repo: &Repository, dropped: &[(SessionId, u32)]) -> Result<()> {
    for (session, sequence) in dropped {
        repo.remove_entry(session, *sequence)?;
        repo.storage().delete(&repo::forget_key(session, *sequence)?)?;
    }
    Ok(())
}

/// The entry of a dropped snapshot also named new packs, of which later snapshots may use some. Names those again, in the
/// journal of this session, before the entry goes.
fn name_again(repo: &Repository, session: &mut Session, set: &CycleSet, packs: &BTreeMap<PackId, Surveyed>) -> Result<()> {
    let removed: HashSet<&PackId> = set.packs.iter().collect();
    let mut again = BTreeSet::new();
    for (snapshot, sequence) in &set.dropped {
        let published = repo.published(snapshot, *sequence)?.unwrap_or_default().0;
        again.extend(published.packs.into_iter().filter(|id| packs.contains_key(id) && !removed.contains(id)));
    }
    match repo.name_packs(session, &again.into_iter().collect::<Vec<_>>())?.first() {
        Some(id) => Err(refuse("a pack's footer can't be read").on(repo::pack_key(id)?)),
        None => Ok(()),
    }
}

/// Removes journals that name no snapshot and no pack that is left, and deltas that no journal names. `view` is from
/// before: what began since is not touched. Fenced journals stay, so that a writer that only slept stays fenced.
fn sweep_journals(repo: &Repository, view: &View, own: SessionId) -> Result<()> {
    let there: HashSet<PackId> = repo.storage().list("packs")?.iter().filter_map(|listed| repo::parse_pack_key(&listed.key)).collect();
    let mut journals: BTreeMap<SessionId, Vec<u32>> = BTreeMap::new();
    for listed in repo.storage().list("log")? {
        if let Some((session, sequence)) = repo::parse_key(&listed.key) {
            journals.entry(session).or_default().push(sequence);
        }
    }
    let mut named = HashSet::new();
    for (session, sequences) in &journals {
        let mut wanted = *session == own || view.sessions.get(session).is_none_or(|state| !state.resolved || state.fenced);
        let mut deltas = Vec::new();
        for sequence in sequences {
            match repo.published(session, *sequence) {
                Ok(Some((published, holds_snapshot))) => {
                    // A snapshot stays, also one that the view does not know: only the final set drops snapshots.
                    wanted |= holds_snapshot || published.packs.iter().any(|id| there.contains(id));
                    deltas.extend(published.deltas);
                }
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::Damaged => wanted = true,
                Err(error) => return Err(error),
            }
        }
        if wanted {
            named.extend(deltas);
            continue;
        }
        // From the end: what a crash leaves is a journal without END, which the next prune ends and removes.
        for sequence in sequences.iter().rev() {
            repo.remove_entry(session, *sequence)?;
        }
    }
    for listed in repo.storage().list("idx")? {
        let session = listed.key.as_str().strip_prefix("idx/").and_then(|name| name.get(..32)).and_then(|id| id.parse().ok());
        let Some(session): Option<SessionId> = session else { continue };
        let finished = session != own
            && match view.sessions.get(&session) {
                Some(state) => state.resolved,
                // It began meanwhile, or a prune died after it had removed this session's journal. BEGIN comes before a delta.
                None => repo.storage().list(&format!("log/{session}"))?.is_empty(),
            };
        if finished && !named.contains(listed.key.as_str()) {
            repo.storage().delete(&listed.key)?;
        }
    }
    for listed in repo.storage().list("hb")? {
        // Taken and dropped, which removes it under its lock: a session that begins at this moment keeps its own.
        match repo.storage().hold(&listed.key) {
            Err(error) if error.kind() != ErrorKind::Busy => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
