//! Workers that have nothing to do, and what they are lent to. A worker that waits for a batch frees a processor; whoever
//! has a large file may start a thread in its place, which ends when the worker has something to do again.

use std::sync::atomic::{AtomicIsize, Ordering};

/// How many more threads the processors have room for. Below zero: too many run.
#[derive(Default)]
pub(super) struct Hands(AtomicIsize);

/// A worker that waits.
pub(super) struct Resting<'a>(&'a Hands);

/// A thread that runs in the place of a worker that waits.
pub(super) struct Lent<'a>(&'a Hands);

impl Hands {
    /// Until the guard is dropped, another thread may run instead of this one.
    pub(super) fn rest(&self) -> Resting<'_> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Resting(self)
    }

    /// Takes the place of a worker that waits, if there is one.
    pub(super) fn lend(&self) -> Option<Lent<'_>> {
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| (free > 0).then(|| free - 1));
        taken.is_ok().then(|| Lent(self))
    }
}

impl Lent<'_> {
    /// Whether a worker has come back whose place this is.
    pub(super) fn is_wanted_back(&self) -> bool {
        self.0.0.load(Ordering::Relaxed) < 0
    }
}

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_lent_as_rest_and_they_are_wanted_back() {
        let hands = Hands::default();
        assert!(hands.lend().is_none(), "all work");
        let resting = [hands.rest(), hands.rest()];
        let lent = [hands.lend().unwrap(), hands.lend().unwrap()];
        assert!(hands.lend().is_none() && !lent[0].is_wanted_back());
        let [first, second] = resting;
        drop(first);
        assert!(lent[0].is_wanted_back());
        let [gone, stays] = lent;
        drop(gone);
        assert!(!stays.is_wanted_back(), "one was enough");
        drop(stays);
        assert!(hands.lend().is_some());
        drop(second);
        assert!(hands.lend().is_none());
    }
}
