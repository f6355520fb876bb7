//! A storage that calls the test before and after each operation, so that another process can act right there.

use std::sync::Arc;

use icecore::Result;
use icecore::storage::fault::Operation;
use icecore::storage::memory::MemoryStorage;
use icecore::storage::{Hold, Key, Listed, Storage};

/// When a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

type Hook = dyn Fn(When, Operation, &str) + Send + Sync;

/// A clone is the same storage. A hook may use the storage within, not this one.
#[derive(Clone)]
pub(crate) struct HookStorage {
    inner: MemoryStorage,
    hook: Arc<Hook>,
}

impl HookStorage {
    pub(crate) fn new(inner: MemoryStorage, hook: impl Fn(When, Operation, &str) + Send + Sync + 'static) -> Self {
        Self { inner, hook: Arc::new(hook) }
    }

    fn pass<T>(&self, operation: Operation, key: &str, act: impl FnOnce(&MemoryStorage) -> T) -> T {
        (self.hook)(When::Before, operation, key);
        let done = act(&self.inner);
        (self.hook)(When::After, operation, key);
        done
    }
}

impl Storage for HookStorage {
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        self.pass(Operation::PutNew, key.as_str(), |inner| inner.put_new(key, bytes))
    }

    fn get(&self, key: &Key, len_max: u64) -> Result<Vec<u8>> {
        self.pass(Operation::Get, key.as_str(), |inner| inner.get(key, len_max))
    }

    fn get_range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.pass(Operation::GetRange, key.as_str(), |inner| inner.get_range(key, offset, buffer))
    }

    fn read_once(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.pass(Operation::ReadOnce, key.as_str(), |inner| inner.read_once(key, offset, buffer))
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        self.pass(Operation::Size, key.as_str(), |inner| inner.size(key))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.pass(Operation::List, prefix, |inner| inner.list(prefix))
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.pass(Operation::Delete, key.as_str(), |inner| inner.delete(key))
    }

    fn settle(&self, key: &Key) -> Result<()> {
        self.pass(Operation::Settle, key.as_str(), |inner| inner.settle(key))
    }

    fn hold(&self, key: &Key) -> Result<Box<dyn Hold>> {
        self.pass(Operation::Hold, key.as_str(), |inner| inner.hold(key))
    }

    fn held(&self, key: &Key) -> Result<bool> {
        self.pass(Operation::Held, key.as_str(), |inner| inner.held(key))
    }

    fn sweep_leftovers(&self) -> Result<()> {
        self.pass(Operation::SweepLeftovers, "", Storage::sweep_leftovers)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}
