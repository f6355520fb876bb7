//! The rules of the store: what may follow what. [`Repository`] only opens and holds; the algorithms are in the modules.
//!
//! Writing, in this order, each step durable before the next: BEGIN, packs, index deltas (named by CHECKPOINT), the
//! SNAPSHOT entry, which is the commit. `docs/crash-safety.md` says what a crash between any two leaves.

mod base;
mod config;
mod delta;
mod earlier;
mod encode;
mod fetch;
mod journal;
mod list;
mod object;
mod read;
mod refresh;
mod reindex;
mod snapshots;
mod stream;
mod verified;
mod write;

pub use config::{CONFIG_BYTES_MAX, Config, Operation};
pub use delta::{DeltaPack, Published, decode as decode_delta};
pub use earlier::Earlier;
pub use encode::Encoded;
pub use fetch::Fetch;
pub use journal::{Begin, Entry, PROGRAM, Session, decode as decode_entry, entry_key, hold_key, parse_key};
pub use list::ChunkList;
pub use object::{OBJECT_BYTES_MAX, ObjectType, get as get_object, open as open_object, put as put_object};
pub(crate) use read::open_blob;
pub use read::{ChunkReader, pack_key, parse_pack_key, read_footer};
pub use refresh::{CycleSet, Problem, SessionState, View};
pub use snapshots::{Committed, forget_key};
pub use stream::{Leaf, NodeReader, StreamReader, StreamWriter};
pub use verified::{PROOFS_MAX, ProofGroup, Proofs, ReadProofs, Verdict, decode_proofs};
pub use write::{Before, ChunkWriter, Flushed, Put, Totals, WriterOptions};

use std::sync::{Arc, Mutex, PoisonError};

use crate::chunk::Chunker;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};
use crate::index::ChunkIndex;
use crate::model::RepositoryId;
use crate::seal::slot::{Secret, Slot, SlotKind};
use crate::seal::{self, Keys, Suite};
use crate::storage::{Hold, Key, Storage};

/// A pack of file contents is published at this size on local storage.
const DATA_PACK_BYTES: u32 = 32 << 20;
/// Likewise a pack of trees.
const TREE_PACK_BYTES: u32 = 8 << 20;
/// No key slot is longer, and no repository has more of them.
const SLOT_BYTES_MAX: u64 = 64 << 10;
const SLOTS_MAX: usize = 256;

/// An open repository.
pub struct Repository {
    storage: Arc<dyn Storage>,
    index: Box<dyn ChunkIndex>,
    clock: Arc<dyn Clock>,
    config: Config,
    keys: Keys,
    chunker: Chunker,
    host: String,
    slot: Option<String>,
    view: Mutex<Arc<View>>,
}

/// A repository whose config was read and whose keys are not open yet.
pub struct Locked {
    storage: Arc<dyn Storage>,
    config: Config,
    object: Vec<u8>,
}

/// What a key slot is, without its secret.
#[derive(Debug, Clone, serde::Serialize)]
pub struct SlotInfo {
    /// The slot's name (16 hexadecimal digits).
    pub id: String,
    /// `passphrase` or `file`.
    pub kind: String,
    /// The user's words for it.
    pub label: String,
    /// RFC 3339.
    pub created: String,
    /// Whether this process opened the repository with it.
    pub current: bool,
}

/// How to make a repository.
#[derive(Default)]
pub struct CreateOptions {
    /// What opens it; none for a repository without encryption.
    pub secret: Option<Secret>,
    /// The first slot's label.
    pub label: String,
    /// Publish packs at this size instead of the default, in bytes (data, trees). Tests use small ones.
    pub pack_bytes: Option<(u32, u32)>,
}

impl Locked {
    /// Reads the config. `NoRepository` when there is none.
    pub fn read(storage: Arc<dyn Storage>) -> Result<Self> {
        let object = storage.get(&config_key()?, CONFIG_BYTES_MAX).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Error::new(ErrorKind::NoRepository, "there is no repository here")
                .on(storage.describe())
                .hint("make one with `icecore init`, or name another with --repo or ICECORE_REPO"),
            _ => error,
        })?;
        let config = Config::decode(&object)?;
        config.require(Operation::Read)?;
        Ok(Self { storage, config, object })
    }

    /// The repository's id, which its local state is kept under.
    pub fn id(&self) -> RepositoryId {
        self.config.repository
    }

    /// Whether a secret is needed to open it.
    pub fn is_encrypted(&self) -> Result<bool> {
        Ok(self.config.suite()? != Suite::Checksum)
    }

    /// Opens the keys and takes in what the journals tell. `host` names this machine in sessions.
    pub fn unlock(self, secret: Option<&Secret>, index: Box<dyn ChunkIndex>, clock: Arc<dyn Clock>, host: &str) -> Result<Repository> {
        self.unlock_beside(secret, || Ok(index), clock, host)
    }

    /// Likewise; `index` opens the index meanwhile. Both take their time, and a snapshot each minute begins with them.
    pub fn unlock_beside(
        self,
        secret: Option<&Secret>,
        index: impl FnOnce() -> Result<Box<dyn ChunkIndex>> + Send,
        clock: Arc<dyn Clock>,
        host: &str,
    ) -> Result<Repository> {
        let (keys, index) = std::thread::scope(|scope| {
            let index = scope.spawn(index);
            let keys = self.open_keys(secret);
            (keys, index.join())
        });
        let (keys, slot) = keys?;
        let index = index.unwrap_or_else(|cause| std::panic::resume_unwind(cause))?;
        let chunker = Chunker::new(keys.gear());
        let repo = Repository {
            storage: self.storage,
            index,
            clock,
            config: self.config,
            keys,
            chunker,
            host: host.to_owned(),
            slot,
            view: Mutex::default(),
        };
        repo.refresh()?;
        Ok(repo)
    }

    fn open_keys(&self, secret: Option<&Secret>) -> Result<(Keys, Option<String>)> {
        if secret.is_some() && !self.is_encrypted()? {
            // Whoever can write to the storage could swap the config, to be given in the clear what was sealed before.
            return Err(Error::new(ErrorKind::WrongKey, "a passphrase or key file was given, but the repository is not encrypted")
                .on(self.storage.describe())
                .hint("if it never was, leave the passphrase out; if it was, its config was replaced: restore `config` from a copy"));
        }
        let (keys, slot) = if self.is_encrypted()? {
            let secret = secret
                .ok_or_else(|| Error::new(ErrorKind::WrongKey, "the repository is encrypted and no passphrase or key file was given"))?;
            open_slots(&*self.storage, &self.config, secret)?
        } else {
            (Keys::public(&self.config.repository), None)
        };
        Config::authenticate(&self.object, &keys)?;
        Ok((keys, slot))
    }
}

impl Repository {
    /// Makes a repository: the first key slot, then `config`, whose presence makes it one.
    pub fn create(storage: &dyn Storage, options: &CreateOptions, clock: &dyn Clock) -> Result<RepositoryId> {
        let _alone = storage.hold(&"lock/init".parse()?)?;
        if storage.size(&config_key()?)?.is_some() {
            return Err(already(storage));
        }
        for prefix in ["packs", "log", "idx"] {
            if let Some(found) = storage.list(prefix)?.first() {
                return Err(Error::new(ErrorKind::AlreadyExists, "there is a repository's content here, but no config")
                    .on(&found.key)
                    .hint("restore the file `config` from a copy, or choose another place"));
            }
        }
        // Slots of an `init` that did not get to its config open nothing; its probe means nothing, nor do proofs without packs.
        for prefix in ["keys", "probe", "verified"] {
            for stale in storage.list(prefix)? {
                storage.delete(&stale.key)?;
            }
        }
        let put_if_absent = probe_put_if_absent(storage)?;
        let repository = RepositoryId(seal::random_array()?);
        let keys = match &options.secret {
            None => Keys::public(&repository),
            Some(secret) => {
                let keys = Keys::generate(Suite::Aes256Gcm)?;
                put_slot(storage, &Slot::wrap(repository, keys.secrets(), secret, &options.label, clock.now())?)?;
                keys
            }
        };
        let (data_pack_bytes, tree_pack_bytes) = options.pack_bytes.unwrap_or((DATA_PACK_BYTES, TREE_PACK_BYTES));
        let config = Config {
            format: config::FORMAT,
            repository,
            created: clock.now(),
            suite: keys.suite().number(),
            read_features: Vec::new(),
            write_features: Vec::new(),
            prune_features: Vec::new(),
            verify_features: Vec::new(),
            put_if_absent,
            data_pack_bytes,
            tree_pack_bytes,
        };
        storage.put_new(&config_key()?, &config.encode(&keys)?).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => already(storage),
            _ => error,
        })?;
        Ok(repository)
    }

    /// The repository's id.
    pub fn id(&self) -> RepositoryId {
        self.config.repository
    }

    /// Its constants.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where its objects are.
    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    /// The chunk index on this host.
    pub fn index(&self) -> &dyn ChunkIndex {
        &*self.index
    }

    /// Its keys.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Its chunker.
    pub fn chunker(&self) -> &Chunker {
        &self.chunker
    }

    /// The clock that it was opened with.
    pub fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// The name of this machine.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// What the journals told at the last refresh.
    pub fn view(&self) -> Arc<View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows prune that this process reads, until the hold is dropped. None where the repository can't be written to:
    /// nobody can prune there either, from this host.
    pub fn reading(&self) -> Result<Option<Box<dyn Hold>>> {
        let key = hold_key(&crate::model::SessionId(seal::random_array()?))?;
        match self.storage.hold(&key) {
            Ok(hold) => Ok(Some(hold)),
            Err(error)
                if matches!(error.io_kind(), Some(std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem)) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The key slots.
    pub fn slots(&self) -> Result<Vec<SlotInfo>> {
        let slots = list_slots(&*self.storage)?;
        slots.into_iter().map(|(id, slot)| slot.map(|slot| self.slot_info(id, &slot))).collect()
    }

    /// Adds a slot for another secret.
    pub fn add_slot(&self, secret: &Secret, label: &str) -> Result<SlotInfo> {
        if self.keys.suite() == Suite::Checksum {
            return Err(Error::new(ErrorKind::Usage, "the repository is not encrypted: it has no keys"));
        }
        let slot = Slot::wrap(self.config.repository, self.keys.secrets(), secret, label, self.clock.now())?;
        let id = put_slot(&*self.storage, &slot)?;
        Ok(self.slot_info(id, &slot))
    }

    /// Removes a slot by id or unique prefix; never the last one, nor the one that this process came in with.
    pub fn remove_slot(&self, id: &str) -> Result<SlotInfo> {
        // Two removals at once could each take the other's last slot for the one that stays.
        let _alone = self.storage.hold(&"lock/keys".parse()?)?;
        let mut slots = self.slots()?;
        let usable = slots.len();
        slots.retain(|slot| !id.is_empty() && slot.id.starts_with(id));
        let [slot] = &slots[..] else {
            let what = if slots.is_empty() { "no key slot has this id" } else { "several key slots begin with this id" };
            return Err(Error::new(ErrorKind::Usage, what).on(id.escape_debug()).hint("see `icecore key list`"));
        };
        if usable < 2 {
            return Err(Error::new(ErrorKind::Usage, "the last key slot can't be removed: nobody could open the repository").on(&slot.id));
        }
        if slot.current {
            return Err(Error::new(ErrorKind::Usage, "the repository was opened with this very slot")
                .on(&slot.id)
                .hint("open it with the key that shall stay, then remove this one"));
        }
        self.storage.delete(&slot_key(&slot.id)?)?;
        Ok(slot.clone())
    }

    fn slot_info(&self, id: String, slot: &Slot) -> SlotInfo {
        let kind = match slot.kind {
            SlotKind::Passphrase => "passphrase",
            SlotKind::KeyFile => "file",
        };
        let current = self.slot.as_ref() == Some(&id);
        SlotInfo { id, kind: kind.to_owned(), label: slot.label.clone(), created: slot.created.to_string(), current }
    }
}

fn config_key() -> Result<Key> {
    "config".parse()
}

fn slot_key(id: &str) -> Result<Key> {
    format!("keys/{id}").parse()
}

fn already(storage: &dyn Storage) -> Error {
    Error::new(ErrorKind::AlreadyExists, "there is a repository here already").on(storage.describe())
}

/// Puts one key twice: the second put must fail, or writers could overwrite each other's commits.
fn probe_put_if_absent(storage: &dyn Storage) -> Result<bool> {
    let key: Key = format!("probe/{}", crate::model::SessionId(seal::random_array()?)).parse()?;
    storage.put_new(&key, b"first")?;
    let second = storage.put_new(&key, b"second");
    let kept = storage.get(&key, 16)?;
    storage.delete(&key)?;
    match second {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && kept == b"first" => Ok(true),
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Err(Error::new(ErrorKind::Unsupported, "this storage lets a second write replace a first one")
            .on(storage.describe())
            .hint("keep the repository on a local file system with hard links")),
    }
}

/// A slot's object: 32 bytes of BLAKE3 over the rest, then the slot in CBOR. It must be readable before any key is open.
fn put_slot(storage: &dyn Storage, slot: &Slot) -> Result<String> {
    let body = minicbor::to_vec(slot).map_err(|e| Error::damaged("cannot encode a key slot").because(e.to_string()))?;
    let mut object = crate::model::hash::hash(&[&body]).to_vec();
    object.extend_from_slice(&body);
    let id: String = crate::model::SessionId(seal::random_array()?).to_string().chars().take(16).collect();
    storage.put_new(&slot_key(&id)?, &object)?;
    Ok(id)
}

/// Reads one slot's object.
pub fn decode_slot(object: &[u8]) -> Result<Slot> {
    let damaged = || Error::damaged("a key slot is damaged");
    let (check, body) = object.split_at_checked(32).ok_or_else(damaged)?;
    if crate::model::hash::hash(&[body]) != check {
        return Err(damaged());
    }
    minicbor::decode(body).map_err(|e| damaged().because(e.to_string()))
}

fn list_slots(storage: &dyn Storage) -> Result<Vec<(String, Result<Slot>)>> {
    let found = storage.list("keys")?;
    if found.len() > SLOTS_MAX {
        return Err(
            Error::damaged(format!("the repository has {} key slots; more than {SLOTS_MAX} are never made", found.len())).on("keys")
        );
    }
    let read = |key: &Key| decode_slot(&storage.get(key, SLOT_BYTES_MAX)?).map_err(|e| e.on(key));
    Ok(found.into_iter().map(|listed| (listed.key.as_str().trim_start_matches("keys/").to_owned(), read(&listed.key))).collect())
}

/// Tries every slot of the secret's kind. A damaged slot costs that slot only.
fn open_slots(storage: &dyn Storage, config: &Config, secret: &Secret) -> Result<(Keys, Option<String>)> {
    let slots = list_slots(storage)?;
    let mut damaged = None;
    for (id, slot) in slots {
        match slot.and_then(|slot| {
            if slot.repository == config.repository {
                slot.unwrap(secret)
            } else {
                Err(Error::new(ErrorKind::WrongKey, "another repository's slot"))
            }
        }) {
            Ok(secrets) => return Ok((Keys::new(secrets, config.suite()?), Some(id))),
            Err(error) if error.kind() == ErrorKind::WrongKey => {}
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported) => {
                damaged = Some(error.on(format!("keys/{id}")))
            }
            Err(error) => return Err(error),
        }
    }
    let wrong = Error::new(ErrorKind::WrongKey, "no key slot opens with this key").on(storage.describe());
    Err(match damaged {
        Some(damage) => wrong.because(damage).hint("a key slot is damaged: restore the folder `keys` from a copy, or use another key"),
        None => wrong.hint("check the passphrase or key file; `--key-file` and a passphrase open different slots"),
    })
}
