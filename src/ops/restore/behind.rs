//! Has the disk work while the processors do: whenever enough was written, one thread takes what is there so far to the
//! disk. Without it a fast machine leaves nearly everything to the end, where the processors then wait for the disk.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender};

use super::lock;
use crate::target::Target;

/// Bytes after which it is time again: a large part of a second for a fast disk, so that the cost of going through the whole
/// file system is small beside it; little beside what systems let wait by themselves.
const STEP_BYTES: u64 = 256 << 20;

/// Counts what is written and says when it is time.
pub(super) struct WriteBehind {
    written: AtomicU64,
    writers: AtomicUsize,
    /// Gone with the last writer, which ends the thread.
    sender: Mutex<Option<Sender<()>>>,
}

/// A thread that writes; the last one to go ends the writing behind.
pub(super) struct Writer<'a>(&'a WriteBehind);

impl WriteBehind {
    /// For so many writers. What is received is for [`settle`], on a thread of its own.
    pub(super) fn new(writers: usize) -> (Self, Receiver<()>) {
        // Room for one: while the thread is busy, to have it go on at once is all that can be asked.
        let (sender, receiver) = crossbeam_channel::bounded(1);
        let sender = (writers > 0).then_some(sender);
        (Self { written: AtomicU64::new(0), writers: AtomicUsize::new(writers), sender: Mutex::new(sender) }, receiver)
    }

    /// One of the writers begins. Each does so once.
    pub(super) fn writer(&self) -> Writer<'_> {
        Writer(self)
    }

    /// So many bytes are about to be written.
    pub(super) fn count(&self, bytes: u64) {
        let before = self.written.fetch_add(bytes, Ordering::Relaxed);
        if before / STEP_BYTES != (before + bytes) / STEP_BYTES
            && let Some(sender) = &*lock(&self.sender)
        {
            let _ = sender.try_send(());
        }
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        if self.0.writers.fetch_sub(1, Ordering::SeqCst) == 1 {
            lock(&self.0.sender).take();
        }
    }
}

/// Settles the target each time that it is asked for, until the last writer has gone.
pub(super) fn settle(target: &dyn Target, asked: &Receiver<()>) {
    asked.iter().for_each(|()| target.settle());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_time_at_every_step_and_over_with_the_last_writer() {
        let (behind, asked) = WriteBehind::new(2);
        behind.count(STEP_BYTES - 1);
        assert!(asked.try_recv().is_err());
        behind.count(1);
        behind.count(3 * STEP_BYTES);
        assert_eq!((asked.try_recv(), asked.try_recv().is_err()), (Ok(()), true), "once, however much came meanwhile");
        let [first, second] = [behind.writer(), behind.writer()];
        drop(first);
        behind.count(STEP_BYTES);
        drop(second);
        behind.count(STEP_BYTES);
        assert_eq!(asked.iter().count(), 1, "what was asked for before is still done, and then it ends");
        let (_, asked) = WriteBehind::new(0);
        assert_eq!(asked.iter().count(), 0, "without writers there is nothing to wait for");
    }
}
