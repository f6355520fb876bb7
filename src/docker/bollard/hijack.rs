//! Requests whose connection becomes a stream of both directions. Spoken without bollard, whose decoder takes a truncated
//! frame for output and an engine's complaint for a terminal's, and buffers a frame of any length.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use ::bollard::errors::Error as ApiError;

use super::BollardEngine;
use super::calls::Late;
use super::streams::PART_BYTES;

/// How long the head of an answer may be, and the text of a refusal.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// A connection to an engine.
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl BollardEngine {
    /// Sends a `POST` of `body` (JSON or nothing) to `path` and returns the connection once the engine has turned it into a
    /// stream.
    pub(super) fn hijack(&self, path: &str, body: &str, deadline: Duration) -> Result<BufReader<Socket>, ApiError> {
        let end = Instant::now() + deadline.min(self.deadline);
        let socket = self.connect_socket(until(end)?)?;
        let host = self.address.strip_prefix("tcp://").unwrap_or("localhost");
        let version = self.docker.client_version();
        let request = format!(
            "POST /v{version}{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n{body}",
            body.len()
        );
        socket.set_write_timeout(until(end)?)?;
        let mut stream = BufReader::with_capacity(PART_BYTES, socket);
        stream.get_mut().write_all(request.as_bytes())?;
        read_answer(&mut stream, end)?;
        Ok(stream)
    }

    /// Connecting can wait for ever where an engine does not accept; the thread of the other requests does it better.
    fn connect_socket(&self, deadline: Duration) -> io::Result<Socket> {
        let address = self.address.clone();
        let connect = async move {
            let socket = match address.strip_prefix("unix://") {
                Some(path) => Socket::Unix(tokio::net::UnixStream::connect(path).await?.into_std()?),
                None => {
                    let host = address.strip_prefix("tcp://").unwrap_or(&address);
                    Socket::Tcp(tokio::net::TcpStream::connect(host).await?.into_std()?)
                }
            };
            socket.set_blocking()?;
            Ok(socket)
        };
        self.calls.run("a connection", deadline, Late::Withdraw, connect).unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Socket {
    fn set_blocking(&self) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.set_nonblocking(false),
            Self::Tcp(socket) => socket.set_nonblocking(false),
        }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(socket) => socket.try_clone().map(Self::Unix),
            Self::Tcp(socket) => socket.try_clone().map(Self::Tcp),
        }
    }

    /// A read that takes longer fails with `WouldBlock`.
    pub(super) fn set_read_timeout(&self, time: Duration) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.set_read_timeout(Some(time)),
            Self::Tcp(socket) => socket.set_read_timeout(Some(time)),
        }
    }

    /// A write that takes longer fails with `WouldBlock`.
    pub(super) fn set_write_timeout(&self, time: Duration) -> io::Result<()> {
        match self {
            Self::Unix(socket) => socket.set_write_timeout(Some(time)),
            Self::Tcp(socket) => socket.set_write_timeout(Some(time)),
        }
    }

    /// Sends some of `bytes`, also while another thread receives.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => (&*socket).write(bytes),
            Self::Tcp(socket) => (&*socket).write(bytes),
        }
    }

    /// Ends one or both directions for all clones.
    pub(super) fn shutdown(&self, how: Shutdown) {
        // Fails only when it has ended already.
        let _ = match self {
            Self::Unix(socket) => socket.shutdown(how),
            Self::Tcp(socket) => socket.shutdown(how),
        };
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(socket) => socket.read(buffer),
            Self::Tcp(socket) => socket.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What is left until then; an error when nothing is.
fn until(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Reads the head of the answer, and all of it when it is a refusal.
fn read_answer(stream: &mut BufReader<Socket>, end: Instant) -> Result<(), ApiError> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "the engine's answer is not HTTP");
    let mut left = HEAD_BYTES_MAX;
    let first = read_line(stream, &mut left, end)?;
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)).and_then(|code| code.parse::<u16>().ok());
    let status = status.ok_or_else(odd)?;
    let (mut length, mut is_body) = (None, false);
    loop {
        let line = read_line(stream, &mut left, end)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(odd)?;
        if name.eq_ignore_ascii_case("content-length") {
            length = Some(value.trim().parse::<usize>().map_err(|_| odd())?);
        }
        is_body |= name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding");
    }
    match status {
        101 => Ok(()),
        // Engines that turn the connection into a stream without saying so.
        200 if !is_body => Ok(()),
        200..=299 => Err(odd().into()),
        status_code => {
            let body = read_body(stream, length.unwrap_or(REFUSAL_BYTES_MAX).min(REFUSAL_BYTES_MAX), end)?;
            let message = serde_json::from_slice::<serde_json::Value>(&body).ok();
            let message = message.as_ref().and_then(|body| body.get("message")).and_then(|message| message.as_str());
            let message = message.map_or_else(|| String::from_utf8_lossy(&body).into_owned(), str::to_owned);
            Err(ApiError::DockerResponseServerError { status_code, message })
        }
    }
}

/// One line without its end, of at most `left` bytes.
fn read_line(stream: &mut BufReader<Socket>, left: &mut usize, end: Instant) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        let bytes = fill(stream, end)?;
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the engine ended the connection without an answer"));
        }
        let newline = bytes.iter().position(|byte| *byte == b'\n');
        let length = newline.map_or(bytes.len(), |at| at + 1);
        if length > *left {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the head of the engine's answer is too long"));
        }
        *left -= length;
        line.extend_from_slice(bytes.get(..length).unwrap_or_default());
        stream.consume(length);
        if newline.is_some() {
            return Ok(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
        }
    }
}

fn read_body(stream: &mut BufReader<Socket>, length: usize, end: Instant) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < length {
        let bytes = fill(stream, end)?;
        if bytes.is_empty() {
            break;
        }
        let taken = bytes.len().min(length - body.len());
        body.extend_from_slice(bytes.get(..taken).unwrap_or_default());
        stream.consume(taken);
    }
    Ok(body)
}

fn fill(stream: &mut BufReader<Socket>, end: Instant) -> io::Result<&[u8]> {
    stream.get_ref().set_read_timeout(until(end)?)?;
    stream.fill_buf()
}
