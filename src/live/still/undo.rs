//! Undoing what was done to one container: one attempt, and only while it is still ours to undo.

use std::time::Duration;

use super::journal::Held;
use crate::clock::Clock;
use crate::docker::{ContainerDetail, Engine};
use crate::error::{Error, ErrorKind, Result};

/// How long the engine may take to thaw one container.
const UNPAUSE_MAX: Duration = Duration::from_secs(10);

/// What is known of a container that is to be thawed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// This process saw it frozen: not a moment is lost with looking.
    Frozen,
    /// This process asked for a pause and does not know what came of it: whoever is paused is so because of us.
    Doubtful,
    /// A journal says so: it is ours only if nobody has started it since.
    Journal,
}

/// What came of thawing a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thaw {
    /// It was paused until now, this time on the clock.
    Thawed(Duration),
    /// It ran already.
    Free,
    /// It had no process any more.
    Ended,
    /// Somebody has started it anew.
    Restarted,
    /// There is no such container any more.
    Gone,
}

/// What came of starting a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// It runs because of us.
    Started,
    /// It ran already.
    Runs,
    /// It was started, by us or others, and has ended.
    Ended,
    /// There is no such container any more.
    Gone,
}

/// Thaws a container and looks whether it is. An error when it is still paused, or when that could not be seen.
pub(super) fn thaw(engine: &dyn Engine, clock: &dyn Clock, held: &Held, known: Known) -> Result<Thaw> {
    if known != Known::Frozen {
        let found = look(engine, held)?;
        let ours = found == Look::Paused || (known == Known::Doubtful && found == Look::Restarted { paused: true });
        if !ours {
            return Ok(found.free().unwrap_or(Thaw::Restarted));
        }
    }
    let asked = engine.unpause(&held.id, UNPAUSE_MAX);
    let at = clock.monotonic();
    let found = look(engine, held)?;
    match found.free() {
        Some(Thaw::Free | Thaw::Ended) if asked.is_ok() => Ok(Thaw::Thawed(at)),
        Some(free) => Ok(free),
        // Paused by others, in a life that is not ours.
        None if found != Look::Paused && known != Known::Doubtful => Ok(Thaw::Restarted),
        None => Err(asked.err().unwrap_or_else(|| Error::new(ErrorKind::Docker, "it is still paused after the engine thawed it"))),
    }
}

/// Starts a container that was stopped, and looks whether it runs. Does nothing when somebody has started it since.
pub(super) fn start(engine: &dyn Engine, held: &Held) -> Result<Start> {
    if let Some(found) = after_stop(engine, held)? {
        return Ok(found);
    }
    let asked = engine.start(&held.id);
    match (after_stop(engine, held)?, asked) {
        (Some(Start::Runs), Ok(())) => Ok(Start::Started),
        (Some(found), _) => Ok(found),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(Error::new(ErrorKind::Docker, "it does not run after the engine started it")),
    }
}

/// Whether nothing is to be done about a container that was stopped; none when it still is.
fn after_stop(engine: &dyn Engine, held: &Held) -> Result<Option<Start>> {
    Ok(match container(engine, held)? {
        None => Some(Start::Gone),
        Some(detail) if detail.running => Some(Start::Runs),
        Some(detail) if detail.started_at != held.started_at => Some(Start::Ended),
        Some(_) => None,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Paused,
    Running,
    Ended,
    Restarted { paused: bool },
    Gone,
}

impl Look {
    /// What it means when nothing is left to thaw; none when something is.
    fn free(self) -> Option<Thaw> {
        match self {
            Self::Paused | Self::Restarted { paused: true } => None,
            Self::Running => Some(Thaw::Free),
            Self::Ended => Some(Thaw::Ended),
            Self::Restarted { paused: false } => Some(Thaw::Restarted),
            Self::Gone => Some(Thaw::Gone),
        }
    }
}

fn look(engine: &dyn Engine, held: &Held) -> Result<Look> {
    Ok(match container(engine, held)? {
        None => Look::Gone,
        Some(detail) if detail.started_at != held.started_at => Look::Restarted { paused: detail.paused },
        Some(detail) if detail.paused => Look::Paused,
        Some(detail) if detail.running => Look::Running,
        Some(_) => Look::Ended,
    })
}

fn container(engine: &dyn Engine, held: &Held) -> Result<Option<ContainerDetail>> {
    match engine.container(&held.id) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}
