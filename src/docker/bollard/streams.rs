//! A stream that the engine sends as the body of an answer, as a reader.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use ::bollard::query_parameters::DownloadFromContainerOptionsBuilder;
use futures_util::TryStreamExt;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::time::{Instant, timeout, timeout_at};

use super::BollardEngine;
use super::calls::{Calls, Late};
use super::failure::{cause_of, container_failure, status, too_slow};
use crate::docker::no_such_container;
use crate::error::{Error, ErrorKind, Result};
use crate::model::path::escape;

/// How much is read or sent at once.
pub(super) const PART_BYTES: usize = 64 * 1024;
/// How long nothing may come while somebody reads.
pub(super) const IDLE_SECONDS_MAX: u64 = 300;
/// How long a stream may take altogether, so that an engine that drips is noticed some day.
pub(super) const STREAM_SECONDS_MAX: u64 = 24 * 3600;

impl BollardEngine {
    pub(super) fn download(&self, id: &str, path: &str) -> Result<Box<dyn Read + Send>> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut stream = Box::pin(self.docker.download_from_container(id, Some(options)));
        // With the first part the engine has said that there is such a path.
        let first = async move { stream.try_next().await.map(|part| (part, stream)) };
        let answer = self.calls.run("an archive", self.deadline, Late::Withdraw, first);
        let (first, mut stream) = match answer.ok_or_else(|| too_slow(&self.address, self.deadline))? {
            Ok(begun) => begun,
            Err(cause) if status(&cause) == Some(404) => {
                self.inspect(id).map_err(|_| no_such_container(id))?;
                let subject = format!("{id}:{}", escape(path.as_bytes()));
                return Err(Error::new(ErrorKind::NotFound, "there is no such path in the container").on(subject));
            }
            Err(cause) => return Err(container_failure(&self.address, "read from", id, &cause)),
        };
        let (sender, parts) = channel(2);
        self.calls.spawn(async move {
            let end = Instant::now() + Duration::from_secs(STREAM_SECONDS_MAX);
            let idle = Duration::from_secs(IDLE_SECONDS_MAX);
            let mut part = Ok(first);
            loop {
                let last = !matches!(part, Ok(Some(_)));
                if sender.send(part).await.is_err() || last {
                    return;
                }
                part = match timeout_at(end, timeout(idle, stream.try_next())).await {
                    Ok(Ok(next)) => next.map_err(|cause| cause_of(&cause)),
                    Ok(Err(_)) | Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the container engine stopped sending")),
                };
            }
        });
        Ok(Box::new(Download { parts, part: None, at: 0, ended: false, _calls: Arc::clone(&self.calls) }))
    }
}

/// The parts of a stream; `None` is its end as the engine means it.
struct Download<B> {
    parts: Receiver<io::Result<Option<B>>>,
    part: Option<B>,
    at: usize,
    ended: bool,
    // The thread that receives the parts.
    _calls: Arc<Calls>,
}

impl<B: AsRef<[u8]>> Read for Download<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let rest = self.part.as_ref().and_then(|part| part.as_ref().get(self.at..)).unwrap_or_default();
            if self.ended || buffer.is_empty() || !rest.is_empty() {
                let length = rest.len().min(buffer.len());
                if let (Some(to), Some(from)) = (buffer.get_mut(..length), rest.get(..length)) {
                    to.copy_from_slice(from);
                }
                self.at += length;
                return Ok(length);
            }
            self.at = 0;
            let lost = || Err(io::Error::new(io::ErrorKind::ConnectionReset, "the stream of the container engine broke"));
            self.part = self.parts.blocking_recv().unwrap_or_else(lost)?;
            self.ended = self.part.is_none();
        }
    }
}
