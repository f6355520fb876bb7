//! What a scripted engine was told to do out of the ordinary, and what it was asked.

use std::time::Duration;

use super::FakeState;
use crate::docker::{Attached, ContainerDetail, ExecSpec};
use crate::error::{Error, ErrorKind, Result};

pub(super) type Action = Box<dyn FnMut(&mut FakeState) + Send>;
pub(super) type ExecAnswer = Box<dyn FnMut(&mut FakeState, &FakeExec) -> Result<FakeOutput> + Send>;
pub(super) type RunAnswer = Box<dyn FnMut(&ContainerDetail) -> Result<Attached> + Send>;

/// A command that a scripted engine was asked to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeExec {
    /// The container's name.
    pub container: String,
    /// The command.
    pub spec: ExecSpec,
    /// All that came through stdin; none when there was no stdin.
    pub stdin: Option<Vec<u8>>,
}

impl FakeExec {
    /// The program and its arguments, with spaces between.
    pub fn line(&self) -> String {
        self.spec.argv.join(" ")
    }
}

/// What a command of a scripted engine does.
#[derive(Debug, Default)]
pub struct FakeOutput {
    /// Its stdout.
    pub stdout: Vec<u8>,
    /// Its stderr.
    pub stderr: Vec<u8>,
    /// Its exit code.
    pub code: i64,
    /// How the call fails after all of stdout was handed over.
    pub error: Option<Error>,
}

impl FakeOutput {
    /// A command that writes `stdout` and succeeds.
    pub fn new(stdout: impl Into<Vec<u8>>) -> Self {
        Self { stdout: stdout.into(), ..Self::default() }
    }

    /// A command that says why it fails.
    pub fn failed(code: i64, stderr: impl Into<Vec<u8>>) -> Self {
        Self { code, stderr: stderr.into(), ..Self::default() }
    }

    /// A command whose stream breaks behind `stdout`.
    pub fn broken(stdout: impl Into<Vec<u8>>, kind: ErrorKind) -> Self {
        Self { stdout: stdout.into(), error: Some(Error::new(kind, "scripted break of a stream")), ..Self::default() }
    }
}

/// Which calls are meant.
pub(super) enum When {
    Number(usize),
    Call(String),
}

impl When {
    fn is(&self, number: usize, call: &str) -> bool {
        match self {
            Self::Number(at) => *at == number,
            Self::Call(text) => call.strip_prefix(text.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(' ')),
        }
    }
}

#[derive(Default)]
pub(super) struct Script {
    pub(super) calls: Vec<String>,
    pub(super) failures: Vec<(When, ErrorKind)>,
    pub(super) lost_answers: Vec<(When, ErrorKind)>,
    pub(super) actions: Vec<(When, Action)>,
    pub(super) delays: Vec<(When, Duration)>,
}

impl Script {
    /// The number of a new call, and how long it waits for its answer.
    pub(super) fn record(&mut self, call: &str) -> (usize, Duration) {
        self.calls.push(call.to_owned());
        let number = self.calls.len();
        (number, self.delays.iter().filter(|(when, _)| when.is(number, call)).map(|(_, time)| *time).sum())
    }

    pub(super) fn act(&mut self, number: usize, call: &str, state: &mut FakeState) {
        for (_, action) in self.actions.iter_mut().filter(|(when, _)| when.is(number, call)) {
            action(state);
        }
    }

    pub(super) fn failure(&self, number: usize, call: &str) -> Option<ErrorKind> {
        first(&self.failures, number, call)
    }

    pub(super) fn lost_answer(&self, number: usize, call: &str) -> Option<ErrorKind> {
        first(&self.lost_answers, number, call)
    }
}

fn first(kinds: &[(When, ErrorKind)], number: usize, call: &str) -> Option<ErrorKind> {
    kinds.iter().find(|(when, _)| when.is(number, call)).map(|(_, kind)| *kind)
}
