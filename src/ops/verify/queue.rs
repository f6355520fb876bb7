//! Hands out the work on packs to several threads: which pack to open next, and which part of an open pack to read. Packs
//! come in their order and parts of one pack go to all threads, so that reads stay sequential and no thread is idle while
//! another has a large pack to itself.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Something to do.
pub(super) enum Work<'q, T> {
    /// Open the pack of this number, and say what came of it with [`Opening::opened`].
    Open(usize, Opening<'q, T>),
    /// Read part `.1` of an open pack.
    Read(Arc<T>, usize),
}

/// The work on `len` packs.
pub(super) struct Queue<T> {
    len: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    /// The next pack to open.
    next: usize,
    /// How many are being opened now, which may yet bring work.
    opening: usize,
    /// Open packs that have parts left, with the next one and their number.
    open: VecDeque<(Arc<T>, usize, usize)>,
}

impl<T> Queue<T> {
    /// Work on packs `start..end`.
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self { len: end, state: Mutex::new(State { next: start, opening: 0, open: VecDeque::new() }), changed: Condvar::new() }
    }

    /// The next thing to do; none when nothing is left. Waits while others open packs. `enough` ends it before another pack
    /// is opened; those that are open are read all the same.
    pub(super) fn take(&self, enough: impl Fn() -> bool) -> Option<Work<'_, T>> {
        let mut state = self.state();
        loop {
            if let Some((pack, part, parts)) = state.open.front_mut() {
                let work = Work::Read(Arc::clone(pack), *part);
                *part += 1;
                if part == parts {
                    state.open.pop_front();
                }
                return Some(work);
            }
            if state.next < self.len && !enough() {
                let number = state.next;
                state.next += 1;
                state.opening += 1;
                return Some(Work::Open(number, Opening { queue: self, opened: None }));
            }
            if state.opening == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives up what is left.
    pub(super) fn stop(&self) {
        let mut state = self.state();
        state.next = self.len;
        state.open.clear();
    }

    /// The first pack that was not handed out.
    pub(super) fn next(&self) -> usize {
        self.state().next
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pack that is being opened. Until this is dropped others wait for the parts that it may have.
pub(super) struct Opening<'q, T> {
    queue: &'q Queue<T>,
    opened: Option<(Arc<T>, usize)>,
}

impl<T> Opening<'_, T> {
    /// The pack is open and has so many parts to read.
    pub(super) fn opened(mut self, pack: Arc<T>, parts: usize) {
        self.opened = (parts > 0).then_some((pack, parts));
    }
}

impl<T> Drop for Opening<'_, T> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.opening -= 1;
        if let Some((pack, parts)) = self.opened.take() {
            state.open.push_back((pack, 0, parts));
        }
        drop(state);
        self.queue.changed.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_part_of_every_pack_is_handed_out_once() {
        // Pack n has n parts; those of number 3 can't be opened.
        let queue = Queue::<usize>::new(0, 40);
        let read = Mutex::new(BTreeSet::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while let Some(work) = queue.take(|| false) {
                        match work {
                            Work::Open(3, opening) => drop(opening),
                            Work::Open(n, opening) => opening.opened(Arc::new(n), n),
                            Work::Read(pack, part) => assert!(read.lock().unwrap().insert((*pack, part))),
                        }
                    }
                });
            }
        });
        let expected = (0..40).filter(|n| *n != 3).flat_map(|n| (0..n).map(move |part| (n, part))).collect();
        assert_eq!(read.into_inner().unwrap(), expected);
    }

    #[test]
    fn one_large_pack_is_shared_by_all() {
        let queue = Queue::<()>::new(0, 1);
        let meet = std::sync::Barrier::new(2);
        let readers = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut first = true;
                    while let Some(work) = queue.take(|| false) {
                        match work {
                            Work::Open(_, opening) => opening.opened(Arc::new(()), 2),
                            Work::Read(..) => {
                                // Passes only when both are here, each with a part.
                                meet.wait();
                                readers.fetch_add(usize::from(first), Ordering::SeqCst);
                                first = false;
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(readers.into_inner(), 2);
    }

    #[test]
    fn enough_is_enough_and_what_is_open_is_finished() {
        let queue = Queue::<()>::new(0, 9);
        let Some(Work::Open(0, opening)) = queue.take(|| false) else { unreachable!() };
        opening.opened(Arc::new(()), 2);
        let mut parts = 0;
        while let Some(Work::Read(..)) = queue.take(|| true) {
            parts += 1;
        }
        assert_eq!((parts, queue.next()), (2, 1));
        queue.stop();
        assert!(queue.take(|| false).is_none());
    }
}
