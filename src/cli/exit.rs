//! How a command ends: its exit code, and what it says of an error. One table maps kinds of errors to exit codes.

use std::process::ExitCode;

use serde::Serialize;

use crate::error::{Error, ErrorKind};
use crate::model::path::escape;

/// How a verb that did not fail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Everything was done.
    Done,
    /// Done, but some entries could not be read or changed meanwhile, or could not be restored as they were.
    Incomplete,
    /// Looked everywhere and found damage.
    DamageFound,
    /// `doctor` found something that needs attention.
    NeedsAttention,
}

/// Exit code of an interrupted command; also used when a second signal ends the process at once.
pub(super) const INTERRUPTED: u8 = 130;

impl Outcome {
    /// The exit code.
    pub(super) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NeedsAttention => 1,
            Self::Incomplete => 3,
            Self::DamageFound => 4,
        }
    }

    /// The worse of two outcomes.
    #[must_use]
    pub(super) fn and(self, other: Self) -> Self {
        if other.code() > self.code() { other } else { self }
    }
}

/// The exit code of a failed command. Scripts rely on it.
pub(super) fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::Storage
        | ErrorKind::Source
        | ErrorKind::Target
        | ErrorKind::Docker
        | ErrorKind::Cache => 1,
        ErrorKind::Usage | ErrorKind::Unsupported => 2,
        ErrorKind::Damaged => 4,
        ErrorKind::NoRepository => 10,
        ErrorKind::WrongKey => 11,
        ErrorKind::Busy => 12,
        ErrorKind::Interrupted => INTERRUPTED,
    }
}

/// The exit code of a command's result.
pub(super) fn of(result: &Result<Outcome, Error>) -> ExitCode {
    ExitCode::from(match result {
        Ok(outcome) => outcome.code(),
        Err(error) => code(error.kind()),
    })
}

/// The kind as it stands in the JSON of an error.
fn kind_name(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Usage => "usage",
        ErrorKind::NotFound => "not_found",
        ErrorKind::AlreadyExists => "already_exists",
        ErrorKind::NoRepository => "no_repository",
        ErrorKind::WrongKey => "wrong_key",
        ErrorKind::Busy => "busy",
        ErrorKind::Damaged => "damaged",
        ErrorKind::Unsupported => "unsupported",
        ErrorKind::Storage => "storage",
        ErrorKind::Source => "source",
        ErrorKind::Target => "target",
        ErrorKind::Docker => "docker",
        ErrorKind::Cache => "cache",
        ErrorKind::Interrupted => "interrupted",
    }
}

/// An error as JSON.
#[derive(Debug, Serialize)]
pub(super) struct Fact<'a> {
    kind: &'static str,
    message: String,
    subject: Option<&'a str>,
    hint: Option<&'a str>,
}

impl<'a> From<&'a Error> for Fact<'a> {
    fn from(error: &'a Error) -> Self {
        Self { kind: kind_name(error.kind()), message: error.to_string(), subject: error.subject(), hint: error.advice() }
    }
}

/// An error for people: `icecore: ` and the message, then the way out on a line of its own. Control characters that a
/// cause or a subject brought along are escaped.
pub(super) fn lines(error: &Error) -> String {
    let mut text = format!("icecore: {}\n", printable(&error.to_string()));
    if let Some(hint) = error.advice() {
        text.push_str(&format!("  hint: {}\n", printable(hint)));
    }
    text
}

/// `text` as it is, unless something in it could steer a terminal.
pub(super) fn printable(text: &str) -> String {
    let harmless = |c: char| c == '\\' || c == '\'' || c == '"' || c.escape_debug().count() == 1;
    if text.chars().all(harmless) { text.to_owned() } else { escape(text.as_bytes()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_the_exit_code_of_the_contract() {
        for (kind, expected) in [
            (ErrorKind::Usage, 2),
            (ErrorKind::Unsupported, 2),
            (ErrorKind::NotFound, 1),
            (ErrorKind::AlreadyExists, 1),
            (ErrorKind::Storage, 1),
            (ErrorKind::Source, 1),
            (ErrorKind::Target, 1),
            (ErrorKind::Docker, 1),
            (ErrorKind::Cache, 1),
            (ErrorKind::Damaged, 4),
            (ErrorKind::NoRepository, 10),
            (ErrorKind::WrongKey, 11),
            (ErrorKind::Busy, 12),
            (ErrorKind::Interrupted, 130),
        ] {
            assert_eq!(code(kind), expected, "{kind:?}");
        }
        for (outcome, expected) in [(Outcome::Done, 0), (Outcome::NeedsAttention, 1), (Outcome::Incomplete, 3), (Outcome::DamageFound, 4)] {
            assert_eq!(outcome.code(), expected, "{outcome:?}");
        }
        assert_eq!(Outcome::Incomplete.and(Outcome::Done), Outcome::Incomplete);
        assert_eq!(Outcome::Done.and(Outcome::Incomplete), Outcome::Incomplete);
    }

    #[test]
    fn an_error_says_what_why_and_what_to_do() {
        let error = Error::new(ErrorKind::NotFound, "no such snapshot").on("ab\x1b[2Jcd").hint("list them with `icecore snapshots`");
        assert_eq!(
            lines(&error),
            "icecore: no such snapshot: ab\\u{1b}[2Jcd\n  hint: list them with `icecore snapshots`\n",
            "and cannot steer the terminal"
        );
        let fact = serde_json::to_value(Fact::from(&error)).unwrap_or_default();
        assert_eq!(fact["kind"], "not_found");
        assert_eq!(fact["subject"], "ab\x1b[2Jcd");
        assert_eq!(fact["hint"], "list them with `icecore snapshots`");
        assert_eq!(lines(&Error::new(ErrorKind::Busy, "busy: a\\b")), "icecore: busy: a\\b\n");
    }
}
