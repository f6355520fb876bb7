//! The engine's failures in our words, with what to do about them where that is known.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use ::bollard::errors::Error as ApiError;

use crate::docker::no_such_container;
use crate::error::{Error, ErrorKind};
use crate::model::path::escape;

const SLOW_HINT: &str = "the engine hangs or is overloaded; `docker info` and `docker volume ls` show whether a volume driver is stuck";
const GONE_HINT: &str = "the engine ended the connection, most often because it was stopped or restarted; look at what it did of this \
                         with `docker ps -a`, and try again when it is back";

/// A failed call to the engine at `address`. Its `io_kind` tells the cases of [`crate::docker::Engine`] apart.
pub(super) fn failure(address: &str, attempt: &str, cause: &ApiError) -> Error {
    let cause = cause_of(cause);
    let hint = match cause.kind() {
        io::ErrorKind::PermissionDenied => Some("run as root, or as a member of the group docker"),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Some("is the engine running (`systemctl status docker`)? If it is elsewhere, set --docker-host or DOCKER_HOST")
        }
        io::ErrorKind::TimedOut => Some(SLOW_HINT),
        io::ErrorKind::ConnectionReset => Some(GONE_HINT),
        _ => None,
    };
    let error = Error::new(ErrorKind::Docker, attempt).on(address).because(cause);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// A failed call about the container `id`: gone (404), in the wrong state (409), or anything else.
pub(super) fn container_failure(address: &str, attempt: &str, id: &str, cause: &ApiError) -> Error {
    match status(cause) {
        Some(404) => no_such_container(id),
        Some(409) => Error::new(ErrorKind::Busy, format!("cannot {attempt} the container")).on(id).because(said(cause)),
        _ => failure(address, &format!("cannot {attempt} the container {id}"), cause),
    }
}

/// The engine did not answer.
pub(super) fn too_slow(address: &str, deadline: Duration) -> Error {
    Error::new(ErrorKind::Docker, "the container engine did not answer in time")
        .on(address)
        .because(io::Error::new(io::ErrorKind::TimedOut, format!("waited {}", seconds(deadline))))
        .hint(SLOW_HINT)
}

/// A request was sent, and nobody knows what became of it.
pub(super) fn unanswered(address: &str, attempt: &str, id: &str, deadline: Duration) -> Error {
    Error::new(ErrorKind::Docker, format!("cannot {attempt} the container {id} in time"))
        .on(address)
        .because(io::Error::new(io::ErrorKind::TimedOut, format!("waited {}", seconds(deadline))))
        .hint("the engine may still be at it; `docker ps -a` shows the container's state")
}

pub(super) fn seconds(time: Duration) -> String {
    format!("{} s", (time.as_millis() as f64) / 1000.0)
}

/// The code of the engine's refusal, if it was one.
pub(super) fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// What the engine said, fit to be shown.
pub(super) fn said(error: &ApiError) -> String {
    match error {
        ApiError::DockerResponseServerError { status_code, message } => {
            format!("it answered {status_code}: {}", escape(message.trim().as_bytes()))
        }
        other => deepest(other),
    }
}

/// The failure as the operating system would tell it: [`crate::docker::Engine`] promises some kinds.
pub(super) fn cause_of(error: &ApiError) -> io::Error {
    match error {
        // Also what a socket looks like whose folder we may not enter.
        ApiError::SocketNotFoundError(path) => match std::fs::metadata(path) {
            Err(error) => error,
            Ok(_) => io::Error::other(error.to_string()),
        },
        ApiError::DockerResponseServerError { .. } => io::Error::other(said(error)),
        ApiError::RequestTimeoutError => io::Error::new(io::ErrorKind::TimedOut, "it did not answer in time"),
        ApiError::DockerStreamError { error } => io::Error::other(format!("it said: {}", escape(error.trim().as_bytes()))),
        other => match io_cause(other) {
            Some(error) => io::Error::new(our_kind(error.kind()), error.to_string()),
            None if is_lost(other) => io::Error::new(io::ErrorKind::ConnectionReset, deepest(other)),
            None => io::Error::other(deepest(other)),
        },
    }
}

/// The many ways of a connection to end are one to us, and so are those of being late.
fn our_kind(kind: io::ErrorKind) -> io::ErrorKind {
    match kind {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
            io::ErrorKind::ConnectionReset
        }
        other => other,
    }
}

/// Whether a connection ended before its answer did, where no error of the operating system tells.
fn is_lost(error: &ApiError) -> bool {
    match error {
        ApiError::HyperLegacyError { err } => !err.is_connect(),
        ApiError::HyperResponseError { .. } => true,
        _ => false,
    }
}

/// The operating system's error somewhere below, if there is one: HTTP clients wrap it several times.
fn io_cause(error: &ApiError) -> Option<&io::Error> {
    // This variant is transparent: it passes for its cause, and the chain would begin behind that.
    if let ApiError::IOError { err } = error {
        return Some(err);
    }
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// The innermost message; the outer ones only say "client error".
fn deepest(error: &ApiError) -> String {
    let mut error: &dyn StdError = error;
    while let Some(source) = error.source() {
        error = source;
    }
    escape(error.to_string().as_bytes())
}
