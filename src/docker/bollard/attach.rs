//! A helper container whose stdin and stdout we hold.

use std::io::{self, BufReader, Read, Write};
use std::net::Shutdown;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::BollardEngine;
use super::failure::container_failure;
use super::frames::{Channel, Frames, timed_out};
use super::hijack::Socket;
use super::streams::{IDLE_SECONDS_MAX, STREAM_SECONDS_MAX};
use crate::docker::exec::{Attached, Tail};
use crate::error::{ErrorKind, IoContext, Result};

impl BollardEngine {
    pub(super) fn attach_and_start(&self, id: &str) -> Result<Attached> {
        let path = format!("/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1");
        let stream = self.hijack(&path, "", self.deadline).map_err(|cause| container_failure(&self.address, "attach to", id, &cause))?;
        let idle = Duration::from_secs(IDLE_SECONDS_MAX);
        let halves = || {
            stream.get_ref().set_read_timeout(idle)?;
            stream.get_ref().set_write_timeout(idle)?;
            stream.get_ref().try_clone()
        };
        let writer = halves().context(ErrorKind::Docker, "cannot use the streams of the container", id)?;
        self.start_container(id)?;
        let stderr = Arc::new(Tail::default());
        let end = Instant::now() + Duration::from_secs(STREAM_SECONDS_MAX);
        let reader = Output { frames: Frames::new(stream), stderr: Arc::clone(&stderr), end, container: id.to_owned() };
        Ok(Attached { reader: Box::new(reader), writer: Box::new(Input(writer)), stderr })
    }
}

/// The stdout of a container; its stderr goes to the tail.
struct Output {
    frames: Frames<BufReader<Socket>>,
    stderr: Arc<Tail>,
    end: Instant,
    container: String,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() {
            if Instant::now() > self.end {
                return Err(self.slow());
            }
            match self.frames.read(buffer) {
                Ok(Some((Channel::Stdout, length))) => return Ok(length),
                Ok(Some((_, length))) => self.stderr.push(buffer.get(..length).unwrap_or_default()),
                Ok(None) => return Ok(0),
                Err(error) if timed_out(&error) => return Err(self.slow()),
                Err(error) => return Err(error),
            }
        }
        Ok(0)
    }
}

impl Output {
    fn slow(&self) -> io::Error {
        io::Error::new(io::ErrorKind::TimedOut, format!("the container {} stopped sending", self.container))
    }
}

/// The stdin of a container, which ends when this is dropped.
struct Input(Socket);

impl Write for Input {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if timed_out(&error) => Err(io::Error::new(io::ErrorKind::TimedOut, "the container stopped reading")),
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.0.shutdown(Shutdown::Write);
    }
}
