//! One error type for the whole library: what was attempted, on what, why it failed and what to do about it.
//! Callers match on [`ErrorKind`]; `main` maps kinds to exit codes. Nothing here prints.

use std::fmt;
use std::io;

/// What sort of failure an [`Error`] is; the only part of it that code decides on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request makes no sense: a malformed option, time, name or id.
    Usage,
    /// The named thing (snapshot, volume, path) does not exist.
    NotFound,
    /// The named thing exists and must not.
    AlreadyExists,
    /// There is no icecore repository at the given place.
    NoRepository,
    /// No key slot opens with the given passphrase or key file.
    WrongKey,
    /// Another process holds what is needed; trying later can work.
    Busy,
    /// Stored bytes are not what was written: a checksum, tag, length or reference is wrong.
    Damaged,
    /// The repository or request needs a feature that this program does not have.
    Unsupported,
    /// Reading or writing the repository failed. Never a per-file error: it ends the run before the commit.
    Storage,
    /// Reading an entry of the source failed; costs that entry only.
    Source,
    /// Writing an entry of the restore target failed; costs that entry only.
    Target,
    /// The container engine answered with an error or not at all.
    Docker,
    /// The local cache (index, stat cache) failed; it can be rebuilt.
    Cache,
    /// The user or the system asked to stop.
    Interrupted,
}

/// A failure with the thing it concerns (path, key or id), its cause and, where there is one, the way out.
#[derive(Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: String,
    subject: Option<String>,
    hint: Option<String>,
    cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of everything in this library that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` whose message says what was attempted and what is wrong.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { inner: Box::new(Inner { kind, message: message.into(), subject: None, hint: None, cause: None }) }
    }

    /// Stored bytes that are not what was written.
    pub fn damaged(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Damaged, message)
    }

    /// Names the path, key or id that the error is about. The first name given stays: it is the closest to the fault.
    #[must_use]
    pub fn on(mut self, subject: impl fmt::Display) -> Self {
        if self.inner.subject.is_none() {
            self.inner.subject = Some(subject.to_string());
        }
        self
    }

    /// Says what the user can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.inner.hint = Some(hint.into());
        self
    }

    /// Attaches the lower-level failure.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.inner.cause = Some(cause.into());
        self
    }

    /// The same failure under another kind, for a caller who knows better what it means.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.inner.kind = kind;
        self
    }

    /// What callers decide on.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The path, key or id that the error is about.
    pub fn subject(&self) -> Option<&str> {
        self.inner.subject.as_deref()
    }

    /// What the user can do about it, when there is something.
    pub fn advice(&self) -> Option<&str> {
        self.inner.hint.as_deref()
    }

    /// The operating system's error behind this one, if that was the cause.
    pub fn io_kind(&self) -> Option<io::ErrorKind> {
        self.inner.cause.as_ref()?.downcast_ref::<io::Error>().map(io::Error::kind)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)?;
        if let Some(subject) = &self.inner.subject {
            write!(f, ": {subject}")?;
        }
        if let Some(cause) = &self.inner.cause {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// Turns the operating system's errors into ours, at the call, with the operation and the path or key.
pub trait IoContext<T> {
    /// `kind` as in [`ErrorKind`]; `what` is the attempt in words ("cannot read"); `subject` the path or key.
    fn context(self, kind: ErrorKind, what: &str, subject: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn context(self, kind: ErrorKind, what: &str, subject: impl fmt::Display) -> Result<T> {
        self.map_err(|cause| {
            let cause: io::Error = cause.into();
            Error::new(kind, what).on(subject).because(cause)
        })
    }
}
