//! What the threads of a capture have to do, and in which order they take it: pieces of large files first, since a thread
//! waits for them and they hold memory; then files; then directories, which make more of everything. A directory is taken
//! before a file only while few files wait, so that nobody runs out of work and few directories are open at a time.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// As long as fewer files than this wait for each thread, directories are listed first.
const FILES_AHEAD: usize = 32;

/// Something to do.
pub(super) enum Task<D, F, P> {
    /// A directory to open and list.
    Directory(D),
    /// A file to read.
    File(F),
    /// A part of the work on a large file.
    Piece(P),
}

/// The tasks that wait, and the threads that wait for tasks.
pub(super) struct Crew<D, F, P> {
    queues: Mutex<Queues<D, F, P>>,
    /// Threads without a task wait here.
    idle: Condvar,
    /// Threads that drive a large file wait here for its pieces, and for pieces of others to help with.
    driving: Condvar,
    threads: usize,
}

struct Queues<D, F, P> {
    /// The last one first: depth first, so that few directories are half done.
    directories: Vec<D>,
    files: VecDeque<F>,
    pieces: VecDeque<P>,
    /// Tasks that were taken and are not done; they may add others.
    busy: usize,
    stopped: bool,
}

impl<D, F, P> Crew<D, F, P> {
    /// No tasks yet, for so many threads.
    pub(super) fn new(threads: usize) -> Self {
        let queues = Queues { directories: Vec::new(), files: VecDeque::new(), pieces: VecDeque::new(), busy: 0, stopped: false };
        Self { queues: Mutex::new(queues), idle: Condvar::new(), driving: Condvar::new(), threads }
    }

    /// Takes tasks and does them until none are left and none are being done, or the crew is stopped.
    pub(super) fn work(&self, mut work: impl FnMut(Task<D, F, P>)) {
        while let Some(task) = self.next() {
            let _done = Done(self);
            work(task);
        }
    }

    /// Adds what a directory led to.
    pub(super) fn add(&self, files: Vec<F>, directories: Vec<D>) {
        if files.is_empty() && directories.is_empty() {
            return;
        }
        let mut queues = self.lock();
        queues.files.extend(files);
        // Taken from the end: in the order of their names.
        queues.directories.extend(directories.into_iter().rev());
        drop(queues);
        self.idle.notify_all();
    }

    /// Adds pieces.
    pub(super) fn add_pieces(&self, pieces: impl IntoIterator<Item = P>) {
        let mut queues = self.lock();
        queues.pieces.extend(pieces);
        drop(queues);
        self.idle.notify_all();
        self.driving.notify_all();
    }

    /// A piece to help with, or nothing as soon as `ready` says so (or the crew is stopped).
    pub(super) fn piece_until(&self, ready: impl Fn() -> bool) -> Option<P> {
        let mut queues = self.lock();
        loop {
            if queues.stopped || ready() {
                return None;
            }
            if let Some(piece) = queues.pieces.pop_front() {
                return Some(piece);
            }
            queues = self.driving.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Something that a driving thread may be waiting for has come about.
    pub(super) fn wake_drivers(&self) {
        // Under the lock: a thread between its look and its wait would miss it.
        drop(self.lock());
        self.driving.notify_all();
    }

    /// Whether it was stopped.
    pub(super) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Nothing more is to be done.
    pub(super) fn stop(&self) {
        self.lock().stopped = true;
        self.idle.notify_all();
        self.driving.notify_all();
    }

    fn next(&self) -> Option<Task<D, F, P>> {
        let mut queues = self.lock();
        loop {
            if queues.stopped || queues.is_over() {
                return None;
            }
            if let Some(task) = queues.take(FILES_AHEAD * self.threads) {
                queues.busy += 1;
                return Some(task);
            }
            queues = self.idle.wait(queues).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queues<D, F, P>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a task, also when it panics: nobody may wait for it for ever.
struct Done<'c, D, F, P>(&'c Crew<D, F, P>);

impl<D, F, P> Drop for Done<'_, D, F, P> {
    fn drop(&mut self) {
        let mut queues = self.0.lock();
        queues.busy -= 1;
        queues.stopped |= std::thread::panicking();
        let over = queues.stopped || queues.is_over();
        drop(queues);
        if over {
            self.0.idle.notify_all();
            self.0.driving.notify_all();
        }
    }
}

impl<D, F, P> Queues<D, F, P> {
    fn take(&mut self, files_ahead: usize) -> Option<Task<D, F, P>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Some(Task::Piece(piece));
        }
        if self.files.len() < files_ahead
            && let Some(directory) = self.directories.pop()
        {
            return Some(Task::Directory(directory));
        }
        self.files.pop_front().map(Task::File)
    }

    fn is_over(&self) -> bool {
        self.busy == 0 && self.pieces.is_empty() && self.files.is_empty() && self.directories.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    type Numbers = Crew<u32, u32, u32>;

    fn run(crew: &Numbers, work: impl Fn(Task<u32, u32, u32>) + Sync) {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| crew.work(&work));
            }
        });
    }

    #[test]
    fn all_tasks_are_done_also_those_that_tasks_add() {
        let crew = Numbers::new(4);
        let done = AtomicU32::new(0);
        crew.add(Vec::new(), vec![6]);
        run(&crew, |task| {
            done.fetch_add(1, Ordering::SeqCst);
            match task {
                Task::Directory(depth) if depth > 0 => crew.add(vec![1, 2, 3], vec![depth - 1, depth - 1]),
                Task::File(1) => crew.add_pieces([7]),
                _ => {}
            }
        });
        // 2^7 - 1 directories; each of the 2^6 - 1 that are not at the bottom has three files, one of them with a piece.
        assert_eq!(done.load(Ordering::SeqCst), 127 + 63 * 4);
    }

    #[test]
    fn a_driver_helps_until_its_own_pieces_are_done() {
        let crew = Numbers::new(4);
        let left = AtomicU32::new(0);
        crew.add(vec![10, 10, 10], Vec::new());
        run(&crew, |task| match task {
            Task::File(pieces) => {
                left.fetch_add(pieces, Ordering::SeqCst);
                crew.add_pieces(0..pieces);
                while crew.piece_until(|| left.load(Ordering::SeqCst) == 0).is_some() {
                    left.fetch_sub(1, Ordering::SeqCst);
                    crew.wake_drivers();
                }
            }
            Task::Piece(_) => {
                left.fetch_sub(1, Ordering::SeqCst);
                crew.wake_drivers();
            }
            Task::Directory(_) => {}
        });
        assert_eq!(left.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_stopped_crew_gives_nothing_more() {
        let crew = Numbers::new(4);
        let done = AtomicU32::new(0);
        crew.add((0..1000).collect(), Vec::new());
        run(&crew, |_| {
            done.fetch_add(1, Ordering::SeqCst);
            crew.stop();
        });
        assert!(done.load(Ordering::SeqCst) <= 4);
        assert!(crew.piece_until(|| false).is_none());
    }
}
