//! A command to be run in a container, what came of it, and the streams of a container that we talk to.

use std::fmt;
use std::io::{Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::container::masked;

/// How much of a process's stderr is kept, in bytes: its end, where programs say why they failed.
pub const STDERR_BYTES_MAX: usize = 64 * 1024;

/// A command for a running container: no shell, no terminal, no privileges beyond the container's.
#[derive(Clone, PartialEq, Eq)]
pub struct ExecSpec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// The user, `USER[:GROUP]`; the container's when there is none.
    pub user: Option<String>,
    /// Environment variables on top of the container's.
    pub env: Vec<(String, String)>,
    /// The folder to start in; the container's when there is none.
    pub working_dir: Option<String>,
    /// How long the whole may take.
    pub deadline: Duration,
    /// How long nothing may come out or be taken in, while its output is open.
    pub idle: Duration,
}

impl ExecSpec {
    /// A command with the container's user, environment and folder, that has to end within `deadline` and may be silent
    /// that long.
    pub fn new<S: Into<String>>(argv: impl IntoIterator<Item = S>, deadline: Duration) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), user: None, env: Vec::new(), working_dir: None, deadline, idle: deadline }
    }
}

impl fmt::Debug for ExecSpec {
    /// Environment values are masked: that is how passwords are handed over.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecSpec")
            .field("argv", &self.argv)
            .field("user", &self.user)
            .field("env", &masked(&self.env))
            .field("working_dir", &self.working_dir)
            .field("deadline", &self.deadline)
            .field("idle", &self.idle)
            .finish()
    }
}

/// What came of a command that ended. A code other than 0 is not an error of the engine: the caller judges it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExecOutcome {
    /// The exit code; above 128 for a signal.
    pub code: i64,
    /// The end of its stderr, at most [`STDERR_BYTES_MAX`]. For a program that could not be started (126, 127) what the engine
    /// says of it.
    pub stderr: Vec<u8>,
}

/// A started container whose streams we hold. The reader and the writer may be used by two threads.
pub struct Attached {
    /// Its stdout. Ends when the container does; the exit code tells whether that was the end meant.
    pub reader: Box<dyn Read + Send>,
    /// Its stdin. Dropping it closes the container's stdin.
    pub writer: Box<dyn Write + Send>,
    /// The end of its stderr, which grows while `reader` is read.
    pub stderr: Arc<Tail>,
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("stderr", &self.stderr).finish_non_exhaustive()
    }
}

/// The last bytes of a stream.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: Mutex<Vec<u8>>,
}

impl Tail {
    /// Takes what comes next in the stream.
    pub fn push(&self, more: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let more = &more[more.len().saturating_sub(STDERR_BYTES_MAX)..];
        let surplus = (bytes.len() + more.len()).saturating_sub(STDERR_BYTES_MAX);
        bytes.drain(..surplus);
        bytes.extend_from_slice(more);
    }

    /// The last bytes so far, at most [`STDERR_BYTES_MAX`].
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_keeps_the_last_bytes_only() {
        let tail = Tail::default();
        tail.push(b"lost");
        tail.push(&[b'a'; STDERR_BYTES_MAX]);
        tail.push(b"end");
        let bytes = tail.bytes();
        assert!(bytes.len() == STDERR_BYTES_MAX && bytes.starts_with(b"aaa") && bytes.ends_with(b"aend"));
        tail.push(&[b'b'; STDERR_BYTES_MAX + 1]);
        assert_eq!(tail.bytes(), [b'b'; STDERR_BYTES_MAX]);
    }

    #[test]
    fn a_command_s_secrets_are_not_in_its_debug_text() {
        let mut spec = ExecSpec::new(["pg_dump", "-Fp"], Duration::from_secs(1));
        spec.env.push(("PGPASSWORD".into(), "hunter2".into()));
        let text = format!("{spec:?}");
        assert!(text.contains("PGPASSWORD") && text.contains("pg_dump") && !text.contains("hunter2"), "{text}");
    }
}
