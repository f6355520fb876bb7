//! A repository in memory with the index of its host, and what must be in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use icecore::clock::{Clock, ManualClock};
use icecore::model::{Consistency, SessionId, SnapshotId, SourceIdentity, SourceKind};
use icecore::ops::prune::{PruneOptions, PruneReport, prune};
use icecore::ops::snapshot::{SnapshotOptions, SnapshotReport, snapshot};
use icecore::ops::verify::{Depth, VerifyOptions, VerifyReport, verify};
use icecore::progress::Progress;
use icecore::repo::{CreateOptions, Locked, Repository};
use icecore::seal::slot::Secret;
use icecore::source::Source;
use icecore::storage::Storage;
use icecore::storage::memory::MemoryStorage;
use icecore::{Error, Result};

use super::{PlainTree, TestIndex, plain_copy};

/// Packs so small that a small tree fills several.
pub(crate) const PACK_BYTES: (u32, u32) = (64 << 10, 16 << 10);
/// Long after everything in a scripted tree has happened, so that its times are old enough to be trusted.
const NOW: u64 = 1_700_100_000;

/// A repository, the index of its host, and the snapshots that were reported as committed with what they hold.
pub(crate) struct State {
    pub(crate) storage: MemoryStorage,
    pub(crate) index: TestIndex,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) encrypted: bool,
    pub(crate) snapshots: BTreeMap<SnapshotId, Arc<PlainTree>>,
}

/// What to go back to: a state that nobody changes, from which others are forked.
pub(crate) type Frozen = State;

impl State {
    /// An empty repository.
    pub(crate) fn create(encrypted: bool) -> Self {
        let state = Self::none(encrypted);
        state.init(&state.storage).unwrap();
        state
    }

    /// A place without a repository.
    pub(crate) fn none(encrypted: bool) -> Self {
        let clock = Arc::new(ManualClock::at(NOW));
        Self { storage: MemoryStorage::new(), index: TestIndex::new(), clock, encrypted, snapshots: BTreeMap::new() }
    }

    /// Makes the repository in `storage`.
    pub(crate) fn init(&self, storage: &dyn Storage) -> Result<()> {
        let options = CreateOptions { secret: self.secret(), label: "test".to_owned(), pack_bytes: Some(PACK_BYTES) };
        Repository::create(storage, &options, &*self.clock).map(|_| ())
    }

    /// A key file, whose slot opens without Argon2.
    fn secret(&self) -> Option<Secret> {
        self.encrypted.then(|| Secret::KeyFile(vec![7; 64].into()))
    }

    /// Another state that begins as this one is; no process of this one is alive there.
    pub(crate) fn fork(&self) -> Self {
        let seconds = u64::try_from(self.clock.now().seconds).unwrap();
        Self {
            storage: self.storage.fork(),
            index: self.index.copy(),
            clock: Arc::new(ManualClock::at(seconds)),
            encrypted: self.encrypted,
            snapshots: self.snapshots.clone(),
        }
    }

    /// Opens the repository with the host's index.
    pub(crate) fn open(&self) -> Result<Repository> {
        self.open_on(Arc::new(self.storage.clone()), self.index.clone())
    }

    /// Opens it with an empty index, as another host or after the loss of the state folder.
    pub(crate) fn open_anew(&self) -> Result<Repository> {
        self.open_on(Arc::new(self.storage.clone()), TestIndex::new())
    }

    /// Opens it through a wrapper of the storage and with another index.
    pub(crate) fn open_on(&self, storage: Arc<dyn Storage>, index: TestIndex) -> Result<Repository> {
        Locked::read(storage)?.unlock(self.secret().as_ref(), Box::new(index), self.clock.clone(), "host")
    }

    /// Takes a snapshot of a source at rest and remembers what it must restore to.
    pub(crate) fn snapshot(&mut self, name: &str, source: &dyn Source) -> SnapshotReport {
        let report = take(&self.open().unwrap(), name, source, false).unwrap();
        self.snapshots.insert(report.snapshot.id, Arc::new(plain_copy(source)));
        report
    }

    /// Forgets snapshots.
    pub(crate) fn forget(&mut self, ids: &[SnapshotId]) {
        icecore::ops::forget::forget(&self.open().unwrap(), ids).unwrap();
        self.snapshots.retain(|id, _| !ids.contains(id));
    }

    /// The ids of what must be there.
    pub(crate) fn ids(&self) -> BTreeSet<SnapshotId> {
        self.snapshots.keys().copied().collect()
    }
}

/// How snapshots are taken here.
pub(crate) fn options(name: &str, force_read: bool) -> SnapshotOptions {
    SnapshotOptions {
        identity: SourceIdentity { kind: SourceKind::Path, name: name.to_owned(), host: "host".to_owned() },
        run: SessionId([9; 16]),
        consistency: Consistency::Fuzzy,
        tags: Vec::new(),
        volume: None,
        force_read,
        one_file_system: false,
        compression: 1,
        dry_run: false,
    }
}

/// Takes a snapshot.
pub(crate) fn take(repo: &Repository, name: &str, source: &dyn Source, force_read: bool) -> Result<SnapshotReport> {
    snapshot(repo, source, &options(name, force_read), &Progress::new())
}

/// Prunes; a pack with less than `percent` in use is rewritten.
pub(crate) fn prune_below(repo: &Repository, percent: u8) -> Result<PruneReport> {
    prune(repo, &PruneOptions { repack_below_percent: percent, ..PruneOptions::default() }, &Progress::new())
}

/// Verifies as deep as that.
pub(crate) fn verify_all(repo: &Repository, depth: Depth) -> Result<VerifyReport> {
    verify(repo, &VerifyOptions { depth, ..VerifyOptions::default() }, &Progress::new())
}

/// The words of a failure, for messages.
pub(crate) fn words<T>(result: &Result<T, Error>) -> String {
    match result {
        Ok(_) => "ok".to_owned(),
        Err(error) => format!("{:?}: {error}", error.kind()),
    }
}
