//! A repository in memory, for tests: its objects can be damaged, swapped and copied at will.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Hold, Key, Listed, Storage};
use crate::error::{Error, ErrorKind, Result};

/// A repository in memory. A clone is the same repository, as another process would open it.
#[derive(Clone, Default)]
pub struct MemoryStorage {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Vec<u8>>,
    holds: BTreeSet<Key>,
}

impl MemoryStorage {
    /// An empty repository.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of all objects.
    pub fn objects(&self) -> BTreeMap<Key, Vec<u8>> {
        self.state().objects.clone()
    }

    /// Lets a test look at and change the objects behind the contract's back. `change` must not use this repository.
    pub fn with_objects<T>(&self, change: impl FnOnce(&mut BTreeMap<Key, Vec<u8>>) -> T) -> T {
        change(&mut self.state().objects)
    }

    /// Another repository with the same objects and no holds, as after a crash: what happens to one is not seen in the other.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self { state: Arc::new(Mutex::new(State { objects: self.objects(), holds: BTreeSet::new() })) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Storage for MemoryStorage {
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        let mut state = self.state();
        if state.objects.contains_key(key) {
            return Err(Error::new(ErrorKind::AlreadyExists, "cannot store, the object exists").on(key));
        }
        state.objects.insert(key.clone(), bytes.to_vec());
        Ok(())
    }

    fn get(&self, key: &Key, len_max: u64) -> Result<Vec<u8>> {
        let state = self.state();
        let bytes = state.objects.get(key).ok_or_else(|| not_found(key))?;
        if bytes.len() as u64 > len_max {
            let len = bytes.len();
            return Err(Error::damaged(format!("cannot read, the object has {len} bytes where at most {len_max} are possible")).on(key));
        }
        Ok(bytes.clone())
    }

    fn get_range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let state = self.state();
        let bytes = state.objects.get(key).ok_or_else(|| not_found(key))?;
        let (len, wanted) = (bytes.len(), buffer.len());
        let range = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)?.get(..wanted));
        match range {
            Some(range) => buffer.copy_from_slice(range),
            None => return Err(Error::damaged(format!("the object has {len} bytes and {wanted} from {offset} are missing")).on(key)),
        }
        Ok(())
    }

    fn read_once(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.get_range(key, offset, buffer)
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        Ok(self.state().objects.get(key).map(|bytes| bytes.len() as u64))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        if !prefix.is_empty() {
            prefix.parse::<Key>()?;
        }
        let below = |key: &Key| match key.as_str().strip_prefix(prefix) {
            Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('/'),
            None => false,
        };
        let state = self.state();
        let listed = state.objects.iter().filter(|(key, _)| below(key));
        Ok(listed.map(|(key, bytes)| Listed { key: key.clone(), len: bytes.len() as u64 }).collect())
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.state().objects.remove(key);
        Ok(())
    }

    fn settle(&self, key: &Key) -> Result<()> {
        match self.size(key)? {
            Some(_) => Ok(()),
            None => Err(Error::new(ErrorKind::NotFound, "there is no such object").on(key)),
        }
    }

    fn hold(&self, key: &Key) -> Result<Box<dyn Hold>> {
        let mut state = self.state();
        if !state.holds.insert(key.clone()) {
            return Err(Error::new(ErrorKind::Busy, "cannot lock, another process has it locked").on(key));
        }
        state.objects.entry(key.clone()).or_default();
        Ok(Box::new(MemoryHold { storage: self.clone(), key: key.clone() }))
    }

    fn held(&self, key: &Key) -> Result<bool> {
        Ok(self.state().holds.contains(key))
    }

    fn sweep_leftovers(&self) -> Result<()> {
        Ok(())
    }

    fn describe(&self) -> String {
        "memory".to_owned()
    }
}

struct MemoryHold {
    storage: MemoryStorage,
    key: Key,
}

impl Hold for MemoryHold {}

impl Drop for MemoryHold {
    fn drop(&mut self) {
        let mut state = self.storage.state();
        state.holds.remove(&self.key);
        state.objects.remove(&self.key);
    }
}

fn not_found(key: &Key) -> Error {
    Error::new(ErrorKind::NotFound, "cannot read, there is no such object").on(key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::storage::conformance;

    #[test]
    fn keeps_the_contract() {
        conformance::run(&|| Box::new(MemoryStorage::new()));
        conformance::run_shared(&|| {
            let storage = MemoryStorage::new();
            (Box::new(storage.clone()), Box::new(storage))
        });
    }

    #[test]
    fn a_fork_has_the_objects_and_goes_its_own_way() {
        let storage = MemoryStorage::new();
        let (a, b): (Key, Key) = ("a".parse().unwrap(), "b".parse().unwrap());
        storage.put_new(&a, b"first").unwrap();
        let hold = storage.hold(&b).unwrap();
        let fork = storage.fork();
        assert_eq!(fork.objects(), storage.objects());
        assert!(!fork.held(&b).unwrap(), "its holder is not alive there");
        drop(hold);
        fork.delete(&b).unwrap();
        fork.with_objects(|objects| objects.get_mut(&a).unwrap()[0] ^= 1);
        fork.put_new(&b, b"").unwrap();
        assert_eq!(storage.get(&a, 100).unwrap(), b"first");
        assert_eq!(storage.size(&b).unwrap(), None);
        assert_eq!(fork.get(&a, 100).unwrap(), b"girst");
    }
}
