//! What is known of each container of a freeze, shared by the thread that freezes and the watchdog, either of which can thaw
//! all of them. A container is done with only when it was seen running after the last pause that was asked for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::hold::{self, CALLS_MAX, Retry, concurrently, lock};
use super::journal::{Held, Journal};
use super::undo::{self, Known, Thaw};
use crate::clock::Clock;
use crate::docker::{ContainerDetail, Engine};
use crate::error::{Error, ErrorKind, Result};

/// How far a freeze is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Containers are being frozen, or are frozen.
    Holding,
    /// Its owner is thawing them.
    Thawing,
    /// The watchdog is, since the deadline has passed.
    Expired,
}

/// How a container's share in a freeze ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It was frozen by us and thawed by us.
    Thawed,
    /// It had no process, or none any more when its turn came.
    NotRunning,
    /// Somebody else had paused it, and it still is.
    PausedByOthers,
    /// Nothing came of pausing it.
    NeverFrozen,
    /// Somebody else ended its stillness; how, in words.
    Disturbed(&'static str),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// It was not asked to be paused.
    Idle,
    /// A call that pauses it is under way.
    Asked,
    /// It was seen paused.
    Frozen,
    /// Nobody knows whether it is, or will be, paused; when it was first seen running since.
    Doubtful(Option<Duration>),
    /// Nothing is left to do.
    Settled(Ending),
}

struct Slot {
    held: Held,
    stage: Stage,
    asked: Duration,
    thawed: Duration,
}

struct Inner {
    phase: Phase,
    slots: Vec<Slot>,
    journal: Option<Journal>,
    /// Why the last attempt at thawing failed.
    failure: Option<Error>,
    closed: bool,
}

/// The containers of one freeze.
pub(super) struct Ice {
    clock: Arc<dyn Clock>,
    retry: Retry,
    address: String,
    deadline: Duration,
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Ice {
    /// A freeze of containers that `journal` names, `deadline` on the clock.
    pub(super) fn new(
        clock: &Arc<dyn Clock>,
        retry: Retry,
        address: String,
        deadline: Duration,
        held: Vec<Held>,
        journal: Journal,
    ) -> Self {
        let slot = |held| Slot { held, stage: Stage::Idle, asked: Duration::ZERO, thawed: Duration::ZERO };
        let slots = held.into_iter().map(slot).collect();
        let inner = Inner { phase: Phase::Holding, slots, journal: Some(journal), failure: None, closed: false };
        Self { clock: Arc::clone(clock), retry, address, deadline, inner: Mutex::new(inner), changed: Condvar::new() }
    }

    /// How far it is.
    pub(super) fn phase(&self) -> Phase {
        lock(&self.inner).phase
    }

    /// What is left until the deadline; nothing once somebody thaws.
    pub(super) fn time_left(&self) -> Duration {
        match self.phase() {
            Phase::Holding => self.deadline.saturating_sub(self.clock.monotonic()),
            Phase::Thawing | Phase::Expired => Duration::ZERO,
        }
    }

    /// Pauses the container at `at` within `longest`. Nothing is done once somebody thaws.
    pub(super) fn pause(&self, engine: &dyn Engine, at: usize, longest: Duration) -> Result<()> {
        let Some(held) = self.ask(at) else { return Ok(()) };
        let longest = longest.min(self.time_left());
        let asked = engine.pause(&held.id, longest);
        let seen = engine.container(&held.id);
        let (stage, result) = judge(&held, asked, seen, longest);
        self.update(at, stage);
        result
    }

    /// Marks the container as asked for, unless somebody thaws.
    fn ask(&self, at: usize) -> Option<Held> {
        let now = self.clock.monotonic();
        let mut inner = lock(&self.inner);
        if inner.phase != Phase::Holding {
            return None;
        }
        let slot = inner.slots.get_mut(at)?;
        (slot.stage, slot.asked) = (Stage::Asked, now);
        Some(slot.held.clone())
    }

    /// How many containers there are.
    pub(super) fn len(&self) -> usize {
        lock(&self.inner).slots.len()
    }

    /// From now on its owner thaws; false when the watchdog already did.
    pub(super) fn begin_thaw(&self) -> bool {
        let mut inner = lock(&self.inner);
        if inner.phase == Phase::Holding {
            inner.phase = Phase::Thawing;
        }
        inner.phase == Phase::Thawing
    }

    /// Waits for the deadline. True when it is there, and then nothing more is paused; false when nothing is left to do.
    pub(super) fn wait_for_deadline(&self) -> bool {
        let mut inner = lock(&self.inner);
        loop {
            let left = self.deadline.saturating_sub(self.clock.monotonic());
            if inner.closed || left.is_zero() {
                break;
            }
            inner = wait(&self.changed, inner, left);
        }
        if inner.phase == Phase::Holding && !inner.closed {
            inner.phase = Phase::Expired;
        }
        !inner.closed
    }

    /// Thaws all, again and again until none is left or it has been tried often enough. Then the journal is removed, or else
    /// left to whoever recovers.
    pub(super) fn thaw(&self, engine: &dyn Engine) -> Result<()> {
        let start = self.clock.monotonic();
        for round in 0..self.retry.rounds_max {
            if self.thaw_once(engine) || self.clock.monotonic().saturating_sub(start) > self.retry.patience {
                break;
            }
            drop(wait(&self.changed, lock(&self.inner), self.retry.wait(round)));
        }
        self.close()
    }

    /// As [`Ice::thaw`], without giving up before the owner has closed: for the watchdog.
    pub(super) fn thaw_until_closed(&self, engine: &dyn Engine) {
        let mut round = 0;
        while !self.thaw_once(engine) {
            let inner = wait(&self.changed, lock(&self.inner), self.retry.wait(round));
            if inner.closed {
                return;
            }
            round = round.saturating_add(1);
        }
    }

    /// Tries once to thaw all that are left, the last frozen first. True when none is left.
    fn thaw_once(&self, engine: &dyn Engine) -> bool {
        let order: Vec<usize> = (0..self.len()).rev().collect();
        concurrently(&order, CALLS_MAX, |at| self.thaw_one(engine, *at));
        let mut inner = lock(&self.inner);
        let done = inner.slots.iter().all(|slot| matches!(slot.stage, Stage::Settled(_)));
        if done && let Some(journal) = inner.journal.take() {
            // What stays behind names nothing that is left to do.
            journal.remove().unwrap_or_else(|error| tracing::warn!("{error}"));
        }
        if done {
            self.changed.notify_all();
        }
        done
    }

    fn thaw_one(&self, engine: &dyn Engine, at: usize) {
        let Some((held, stage)) = lock(&self.inner).slots.get(at).map(|slot| (slot.held.clone(), slot.stage.clone())) else { return };
        let known = match stage {
            // While its call is under way, what it will be cannot be seen.
            Stage::Asked | Stage::Settled(_) => return,
            Stage::Idle => return self.update(at, Stage::Settled(Ending::NeverFrozen)),
            Stage::Frozen => Known::Frozen,
            Stage::Doubtful(_) => Known::Doubtful,
        };
        let thawed = undo::thaw(engine, &*self.clock, &held, known);
        let now = self.clock.monotonic();
        let next = match (thawed, stage) {
            (Err(error), _) => {
                lock(&self.inner).failure = Some(error);
                return;
            }
            (Ok(Thaw::Thawed(when)), _) => {
                if let Some(slot) = lock(&self.inner).slots.get_mut(at) {
                    slot.thawed = when;
                }
                Stage::Settled(Ending::Thawed)
            }
            (Ok(_), Stage::Doubtful(Some(since))) if now.saturating_sub(since) >= self.retry.settle => Stage::Settled(Ending::NeverFrozen),
            (Ok(_), Stage::Doubtful(since)) => Stage::Doubtful(since.or(Some(now))),
            (Ok(Thaw::Free), _) => Stage::Settled(Ending::Disturbed("somebody else thawed it")),
            (Ok(Thaw::Ended), _) => Stage::Settled(Ending::Disturbed("somebody else stopped it")),
            (Ok(Thaw::Restarted), _) => Stage::Settled(Ending::Disturbed("somebody else restarted it")),
            (Ok(Thaw::Gone), _) => Stage::Settled(Ending::Disturbed("somebody else removed it")),
        };
        self.update(at, next);
    }

    /// Notes what is known now. When two threads thaw one container, one of them is told that it ran already: the other one
    /// knows better.
    fn update(&self, at: usize, stage: Stage) {
        let mut guard = lock(&self.inner);
        let inner = &mut *guard;
        let Some(slot) = inner.slots.get_mut(at) else { return };
        if matches!(slot.stage, Stage::Settled(_)) && stage != Stage::Settled(Ending::Thawed) {
            return;
        }
        if matches!(stage, Stage::Settled(_))
            && let Some(journal) = &mut inner.journal
        {
            // Without the note the container is looked at once more by whoever recovers.
            journal.settled(&slot.held.id).unwrap_or_else(|error| tracing::debug!("{error}"));
        }
        slot.stage = stage;
    }

    /// Ends the watchdog and lets go of the journal. An error names the containers that are left and how to thaw them.
    fn close(&self) -> Result<()> {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        inner.journal = None;
        self.changed.notify_all();
        let left: Vec<&Held> = inner.slots.iter().filter(|slot| !matches!(slot.stage, Stage::Settled(_))).map(|slot| &slot.held).collect();
        if left.is_empty() {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Docker, "these containers may still be paused and could not be thawed")
            .on(hold::names(left.iter().copied()))
            .hint(format!(
                "thaw them by `{}`; the next command of icecore with the same state folder tries it, too",
                hold::command("unpause", &self.address, left.iter().copied())
            ));
        Err(match inner.failure.take() {
            Some(cause) => error.because(cause),
            None => error,
        })
    }

    /// What became of each container: how it ended and how long it was frozen. In the order in which they were frozen.
    pub(super) fn endings(&self) -> Vec<(Held, Ending, Duration)> {
        let ending = |slot: &Slot| match &slot.stage {
            Stage::Settled(ending @ Ending::Thawed) => (slot.held.clone(), ending.clone(), slot.thawed.saturating_sub(slot.asked)),
            Stage::Settled(ending) => (slot.held.clone(), ending.clone(), Duration::ZERO),
            _ => (slot.held.clone(), Ending::NeverFrozen, Duration::ZERO),
        };
        lock(&self.inner).slots.iter().map(ending).collect()
    }

    /// From the first call that paused a container to the last that thawed one.
    pub(super) fn frozen(&self) -> Duration {
        let inner = lock(&self.inner);
        let thawed = || inner.slots.iter().filter(|slot| slot.stage == Stage::Settled(Ending::Thawed));
        let (first, last) = (thawed().map(|slot| slot.asked).min(), thawed().map(|slot| slot.thawed).max());
        last.unwrap_or_default().saturating_sub(first.unwrap_or_default())
    }
}

/// What a pause and a look at the container after it mean.
fn judge(held: &Held, asked: Result<()>, seen: Result<ContainerDetail>, longest: Duration) -> (Stage, Result<()>) {
    let failed = |error: Error| {
        let (kind, cause) = (error.kind(), error.to_string());
        let text = match error.io_kind() {
            Some(std::io::ErrorKind::TimedOut) => format!("the container was not frozen within {:.1} s", longest.as_secs_f64()),
            _ => "cannot freeze the container".to_owned(),
        };
        Error::new(kind, text).on(hold::printed(&held.name)).because(cause).hint(
            "what waits for a disk or server that hangs cannot be frozen; have the container stopped instead, or its application dumped",
        )
    };
    let gone = || {
        let error = Error::new(ErrorKind::NotFound, "the container was removed while it was being frozen");
        (Stage::Doubtful(None), Err(error.on(hold::printed(&held.name))))
    };
    match (asked, seen) {
        (_, Err(error)) if error.kind() == ErrorKind::NotFound => gone(),
        (Err(error), _) if error.kind() == ErrorKind::NotFound => gone(),
        (Ok(()), Ok(now)) if now.paused && now.started_at == held.started_at => (Stage::Frozen, Ok(())),
        (Err(error), Ok(now)) if error.kind() == ErrorKind::Busy && now.paused && now.started_at == held.started_at => {
            (Stage::Settled(Ending::PausedByOthers), Ok(()))
        }
        (Err(error), Ok(now)) if error.kind() == ErrorKind::Busy && !now.running => (Stage::Settled(Ending::NotRunning), Ok(())),
        (Ok(()), Ok(now)) if !now.running => (Stage::Settled(Ending::NotRunning), Ok(())),
        (Ok(()), Ok(_)) => {
            let error = Error::new(ErrorKind::Docker, "it runs, or was restarted, right after the engine paused it");
            (Stage::Doubtful(None), Err(failed(error)))
        }
        (Err(error), _) | (Ok(()), Err(error)) => (Stage::Doubtful(None), Err(failed(error))),
    }
}

fn wait<'a>(changed: &Condvar, inner: MutexGuard<'a, Inner>, longest: Duration) -> MutexGuard<'a, Inner> {
    changed.wait_timeout(inner, longest).unwrap_or_else(std::sync::PoisonError::into_inner).0
}
