//! One thread that drives all requests of a connection, so that callers wait no longer than they want to and a request that
//! nobody waits for any more still goes on to its answer.

use std::future::Future;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::error::{Error, ErrorKind, Result};

/// The thread, which ends when this is dropped; requests under way end with it.
pub(super) struct Calls {
    handle: Handle,
    _end: oneshot::Sender<()>,
}

/// What happens to a request whose caller has stopped waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// It is withdrawn: nothing depends on it.
    Withdraw,
    /// It changes something: the answer is awaited and logged.
    Await,
}

/// A request under way.
pub(super) struct Pending<T> {
    answered: Receiver<T>,
    task: JoinHandle<()>,
    late: Late,
}

impl Calls {
    pub(super) fn new(address: &str) -> Result<Self> {
        let cannot =
            |cause| Error::new(ErrorKind::Docker, "cannot start the thread that talks to the container engine").on(address).because(cause);
        let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let drive = move || {
            let _ = runtime.block_on(ended);
        };
        std::thread::Builder::new().name("engine".into()).spawn(drive).map_err(cannot)?;
        Ok(Self { handle, _end: end })
    }

    /// Sends a request.
    pub(super) fn begin<T, F>(&self, what: &str, late: Late, request: F) -> Pending<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (answer, answered) = sync_channel(1);
        let what = what.to_owned();
        let start = Instant::now();
        let task = self.handle.spawn(async move {
            if answer.send(request.await).is_err() {
                tracing::warn!("the container engine answered late, after {:.1} s: {what}", start.elapsed().as_secs_f64());
            }
        });
        Pending { answered, task, late }
    }

    /// Runs a request to its end; none when `deadline` comes first.
    pub(super) fn run<T, F>(&self, what: &str, deadline: Duration, late: Late, request: F) -> Option<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.begin(what, late, request).wait(deadline)
    }

    /// Starts something that nobody waits for here.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.handle.spawn(task);
    }
}

impl<T> Pending<T> {
    /// The answer; none when `deadline` comes first.
    pub(super) fn wait(self, deadline: Duration) -> Option<T> {
        let answer = self.answered.recv_timeout(deadline).ok();
        if answer.is_none() && self.late == Late::Withdraw {
            self.task.abort();
        }
        answer
    }
}
