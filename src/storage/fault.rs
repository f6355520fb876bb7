//! A storage that fails on command and remembers what it was asked, for tests: "fail at operation n, for every n" and
//! "this did no writes" are both a loop over it.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Hold, Key, Listed, Storage};
use crate::error::{Error, ErrorKind, Result};

/// One method of [`Storage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Operation {
    PutNew,
    Get,
    GetRange,
    ReadOnce,
    Size,
    List,
    Delete,
    Settle,
    Hold,
    Held,
    SweepLeftovers,
}

impl Operation {
    /// Whether it can change the repository.
    pub fn is_write(self) -> bool {
        matches!(self, Self::PutNew | Self::Delete | Self::Settle | Self::Hold | Self::SweepLeftovers)
    }
}

/// An operation that was asked for, whether or not it was let through. Its number is its place in the record, from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What was asked.
    pub operation: Operation,
    /// On which key; a listing's prefix; empty for a sweep.
    pub key: String,
}

/// When to fail, and how. An operation that fails by it gives `Storage`, with an [`io::Error`] as its cause.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The number of the first operation that fails.
    number: u64,
    lasting: Lasting,
    after_effect: bool,
    writes_only: bool,
    cause: io::ErrorKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    Once,
    FromThenOn,
    Stopped,
}

impl Plan {
    /// Operation `number` fails, those after it succeed.
    pub fn once(number: u64) -> Self {
        Self { number, lasting: Lasting::Once, after_effect: false, writes_only: false, cause: io::ErrorKind::Other }
    }

    /// Operation `number` and all after it fail.
    pub fn from(number: u64) -> Self {
        Self { lasting: Lasting::FromThenOn, ..Self::once(number) }
    }

    /// The process dies at operation `number`: neither it nor anything after it has an effect. The test then goes on with
    /// the inner storage, as the next process would.
    pub fn stop(number: u64) -> Self {
        Self { lasting: Lasting::Stopped, ..Self::once(number) }
    }

    /// The effect takes place and the answer is an error all the same. With [`Plan::stop`]: the process dies between the
    /// effect of operation `number` and its answer; what comes after has no effect.
    #[must_use]
    pub fn after_effect(self) -> Self {
        Self { after_effect: true, ..self }
    }

    /// Only operations that write fail, as on a full or read-only disk. All are counted. When operation `number` is a read,
    /// [`Plan::once`] fails nothing.
    #[must_use]
    pub fn writes_only(self) -> Self {
        Self { writes_only: true, ..self }
    }

    /// The kind of the [`io::Error`] behind the failure, such as `StorageFull`; `Other` unless told.
    #[must_use]
    pub fn cause(self, cause: io::ErrorKind) -> Self {
        Self { cause, ..self }
    }

    fn verdict(&self, number: u64, operation: Operation) -> Verdict {
        let hit = match self.lasting {
            Lasting::Once => number == self.number,
            Lasting::FromThenOn | Lasting::Stopped => number >= self.number,
        };
        if !hit || (self.writes_only && !operation.is_write()) {
            return Verdict::Pass;
        }
        if self.after_effect && (self.lasting != Lasting::Stopped || number == self.number) {
            return Verdict::FailAfterEffect(self.cause);
        }
        Verdict::Fail(self.cause)
    }
}

#[derive(Debug, Clone, Copy)]
enum Verdict {
    Pass,
    Fail(io::ErrorKind),
    FailAfterEffect(io::ErrorKind),
}

/// A storage that fails on command and records what it was asked. A clone is the same wrapper, so a test can keep one.
pub struct FaultStorage<S> {
    inner: Arc<S>,
    state: Arc<Mutex<State>>,
}

impl<S> Clone for FaultStorage<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), state: Arc::clone(&self.state) }
    }
}

#[derive(Default)]
struct State {
    plan: Option<Plan>,
    record: Vec<Recorded>,
    /// A key and an offset: reads of ranges with this byte fail.
    bad_byte: Option<(String, u64)>,
}

impl<S: Storage> FaultStorage<S> {
    /// A wrapper that only records.
    pub fn new(inner: S) -> Self {
        Self { inner: Arc::new(inner), state: Arc::default() }
    }

    /// A wrapper that fails by `plan`.
    pub fn with_plan(inner: S, plan: Plan) -> Self {
        let storage = Self::new(inner);
        storage.arm(plan);
        storage
    }

    /// Follows `plan` from now on, with an empty record: the next operation is number 0.
    pub fn arm(&self, plan: Plan) {
        *self.state() = State { plan: Some(plan), ..State::default() };
    }

    /// From now on each read of a range that has this byte fails, as one over a bad sector; with an empty record.
    pub fn lose_byte(&self, key: &Key, offset: u64) {
        *self.state() = State { bad_byte: Some((key.as_str().to_owned(), offset)), ..State::default() };
    }

    /// Only records from now on, with an empty record.
    pub fn disarm(&self) {
        *self.state() = State::default();
    }

    /// The storage within.
    pub fn inner(&self) -> &S {
        &self.inner
    }

    /// What was asked since the start or the last `arm` or `disarm`, in order.
    pub fn record(&self) -> Vec<Recorded> {
        self.state().record.clone()
    }

    /// How many operations the record has.
    pub fn count(&self) -> u64 {
        self.state().record.len() as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the operation and lets it through as the plan says.
    fn pass<T>(&self, operation: Operation, key: impl std::fmt::Display, effect: impl FnOnce(&S) -> Result<T>) -> Result<T> {
        let key = key.to_string();
        let (number, verdict) = {
            let mut state = self.state();
            let number = state.record.len() as u64;
            let verdict = state.plan.map_or(Verdict::Pass, |plan| plan.verdict(number, operation));
            state.record.push(Recorded { operation, key: key.clone() });
            (number, verdict)
        };
        let failure = |cause: io::ErrorKind| {
            let cause = io::Error::new(cause, format!("injected ({cause})"));
            Error::new(ErrorKind::Storage, format!("operation {number} failed, {operation:?}")).on(key).because(cause)
        };
        match verdict {
            Verdict::Pass => effect(&self.inner),
            Verdict::Fail(cause) => Err(failure(cause)),
            // An operation that fails of itself has the more telling error, and no effect whose answer could get lost.
            Verdict::FailAfterEffect(cause) => effect(&self.inner).and_then(|_| Err(failure(cause))),
        }
    }
}

impl<S: Storage> Storage for FaultStorage<S> {
    fn put_new(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        self.pass(Operation::PutNew, key, |inner| inner.put_new(key, bytes))
    }

    fn get(&self, key: &Key, len_max: u64) -> Result<Vec<u8>> {
        self.pass(Operation::Get, key, |inner| inner.get(key, len_max))
    }

    fn get_range(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let has_byte = |at: u64| at.checked_sub(offset).is_some_and(|at| at < buffer.len() as u64);
        if self.state().bad_byte.as_ref().is_some_and(|(bad, at)| bad == key.as_str() && has_byte(*at)) {
            self.pass(Operation::GetRange, key, |_| Ok(()))?;
            return Err(Error::new(ErrorKind::Storage, "cannot read").on(key).because(io::Error::other("a bad sector (injected)")));
        }
        self.pass(Operation::GetRange, key, |inner| inner.get_range(key, offset, buffer))
    }

    fn read_once(&self, key: &Key, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.pass(Operation::ReadOnce, key, |inner| inner.read_once(key, offset, buffer))
    }

    fn size(&self, key: &Key) -> Result<Option<u64>> {
        self.pass(Operation::Size, key, |inner| inner.size(key))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.pass(Operation::List, prefix, |inner| inner.list(prefix))
    }

    fn delete(&self, key: &Key) -> Result<()> {
        self.pass(Operation::Delete, key, |inner| inner.delete(key))
    }

    fn settle(&self, key: &Key) -> Result<()> {
        self.pass(Operation::Settle, key, |inner| inner.settle(key))
    }

    fn hold(&self, key: &Key) -> Result<Box<dyn Hold>> {
        self.pass(Operation::Hold, key, |inner| inner.hold(key))
    }

    fn held(&self, key: &Key) -> Result<bool> {
        self.pass(Operation::Held, key, |inner| inner.held(key))
    }

    fn sweep_leftovers(&self) -> Result<()> {
        self.pass(Operation::SweepLeftovers, "", Storage::sweep_leftovers)
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::storage::conformance;
    use crate::storage::memory::MemoryStorage;

    fn key(text: &str) -> Key {
        text.parse().unwrap()
    }

    /// Puts `0` to `4`; which of them were answered with `Ok`, and which exist.
    fn five_puts(plan: Plan) -> (String, String) {
        let storage = FaultStorage::with_plan(MemoryStorage::new(), plan);
        let names = ["0", "1", "2", "3", "4"];
        let answered = names.into_iter().filter(|name| storage.put_new(&key(name), b"").is_ok()).collect();
        assert_eq!(storage.count(), 5);
        (answered, storage.inner().objects().keys().map(Key::as_str).collect())
    }

    #[test]
    fn keeps_the_contract_while_nothing_is_planned() {
        conformance::run(&|| Box::new(FaultStorage::new(MemoryStorage::new())));
        conformance::run_shared(&|| {
            let storage = MemoryStorage::new();
            (Box::new(FaultStorage::new(storage.clone())), Box::new(FaultStorage::new(storage)))
        });
    }

    #[test]
    fn every_plan_fails_what_it_says_and_nothing_else() {
        let text = |(answered, exist): (&str, &str)| (answered.to_owned(), exist.to_owned());
        assert_eq!(five_puts(Plan::once(2)), text(("0134", "0134")));
        assert_eq!(five_puts(Plan::once(2).after_effect()), text(("0134", "01234")));
        assert_eq!(five_puts(Plan::from(2)), text(("01", "01")));
        assert_eq!(five_puts(Plan::from(2).after_effect()), text(("01", "01234")));
        assert_eq!(five_puts(Plan::stop(2)), text(("01", "01")));
        assert_eq!(five_puts(Plan::stop(2).after_effect()), text(("01", "012")));
        assert_eq!(five_puts(Plan::once(5)), text(("01234", "01234")));
    }

    #[test]
    fn a_lost_byte_fails_the_ranges_that_have_it() {
        let storage = FaultStorage::new(MemoryStorage::new());
        storage.put_new(&key("a"), &[1; 10]).unwrap();
        storage.put_new(&key("b"), &[1; 10]).unwrap();
        storage.lose_byte(&key("a"), 5);
        let fails = |name: &str, offset, len| storage.get_range(&key(name), offset, &mut vec![0; len]).is_err();
        assert!(fails("a", 0, 6) && fails("a", 5, 1) && fails("a", 0, 10));
        assert!(!fails("a", 0, 5) && !fails("a", 6, 4) && !fails("b", 0, 10));
        assert_eq!(storage.count(), 6);
        storage.disarm();
        assert!(!fails("a", 0, 10));
    }

    #[test]
    fn a_planned_failure_is_a_storage_error_with_its_cause_and_key() {
        let storage = FaultStorage::with_plan(MemoryStorage::new(), Plan::from(1).writes_only().cause(io::ErrorKind::StorageFull));
        storage.put_new(&key("a/b"), b"x").unwrap();
        let error = storage.put_new(&key("a/c"), b"x").unwrap_err();
        assert_eq!((error.kind(), error.io_kind()), (ErrorKind::Storage, Some(io::ErrorKind::StorageFull)));
        assert_eq!(error.subject(), Some("a/c"));
        assert!(error.to_string().contains("PutNew"), "{error}");
        assert_eq!(storage.get(&key("a/b"), 1).unwrap(), b"x", "a full disk can be read");
        assert!(storage.hold(&key("hb/0")).is_err() && storage.delete(&key("a/b")).is_err() && storage.sweep_leftovers().is_err());
    }

    #[test]
    fn the_record_has_every_operation_and_arming_starts_it_anew() {
        let storage = FaultStorage::new(MemoryStorage::new());
        let kept = storage.clone();
        let _ = storage.put_new(&key("a"), b"xy");
        let _ = storage.get(&key("a"), 9);
        let _ = storage.get_range(&key("a"), 0, &mut [0]);
        let _ = storage.read_once(&key("a"), 0, &mut [0]);
        let _ = storage.size(&key("a"));
        let _ = storage.list("packs");
        let _ = storage.delete(&key("a"));
        let _ = storage.hold(&key("h"));
        let _ = storage.held(&key("h"));
        let _ = storage.sweep_leftovers();
        use Operation::{Delete, Get, GetRange, Held, List, PutNew, ReadOnce, Size, SweepLeftovers};
        let expected = [
            (PutNew, "a"),
            (Get, "a"),
            (GetRange, "a"),
            (ReadOnce, "a"),
            (Size, "a"),
            (List, "packs"),
            (Delete, "a"),
            (Operation::Hold, "h"),
            (Held, "h"),
            (SweepLeftovers, ""),
        ];
        assert_eq!(kept.record(), expected.map(|(operation, key)| Recorded { operation, key: key.to_owned() }));
        assert_eq!(kept.record().iter().filter(|asked| asked.operation.is_write()).count(), 4);
        kept.arm(Plan::once(0));
        assert_eq!(storage.count(), 0);
        assert!(storage.list("").is_err());
        kept.disarm();
        assert!(storage.list("").is_ok());
    }

    #[test]
    fn a_hold_whose_answer_got_lost_is_let_go() {
        let storage = FaultStorage::with_plan(MemoryStorage::new(), Plan::once(0).after_effect());
        assert!(storage.hold(&key("h")).is_err());
        assert!(!storage.inner().held(&key("h")).unwrap());
    }
}
