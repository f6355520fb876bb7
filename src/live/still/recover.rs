//! Undoing what a dead process left: its containers are thawed, or started, exactly as its journal names them, and only those
//! that nobody has touched since.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::hold::{self, CALLS_MAX, Retry, concurrently};
use super::journal::{Act, Claim, Contents, Held, Holds, Journal};
use super::undo::{self, Known, Start, Thaw};
use crate::clock::Clock;
use crate::docker::Engine;
use crate::error::{Error, ErrorKind, Result};

/// How long after its deadline a living hold is found odd. Its own watchdog is at it all that time.
const OVERDUE_SECONDS: i64 = 60;

/// How long after its owner's death a request may still be carried out, besides the time that a container has to end.
const IN_FLIGHT_MAX: Duration = Duration::from_secs(60);

/// How long a container has to end when nobody says otherwise; the engine's own default.
const GRACE_DEFAULT: Duration = Duration::from_secs(10);

/// Makes a connection to the engine at an address.
pub type Connect<'a> = &'a dyn Fn(&str) -> Result<Box<dyn Engine>>;

/// What was left and what was done about it.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Containers that are as they were again.
    pub undone: Vec<Undone>,
    /// What could not be done, and what the user should look at. Its journal stays, and the next command tries again.
    pub problems: Vec<Error>,
}

/// A container that a dead process had left paused or stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undone {
    /// Its name.
    pub name: String,
    /// What had been done to it.
    pub act: Act,
    /// The process that had done it.
    pub process: u32,
}

/// Looks for holds below `state_dir` whose owner is dead, and undoes what they left. Without any, this costs no more than a look
/// for a folder. Holds of living processes are left alone.
pub fn recover(state_dir: &Path, connect: Connect<'_>, clock: &dyn Clock, retry: &Retry) -> Recovery {
    let mut work = Work { connect, clock, retry, engines: BTreeMap::new(), recovery: Recovery::default() };
    if let Err(error) = work.all(state_dir) {
        work.recovery.problems.push(error);
    }
    work.recovery
}

struct Work<'a> {
    connect: Connect<'a>,
    clock: &'a dyn Clock,
    retry: &'a Retry,
    /// By address. One that does not answer is not waited for twice.
    engines: BTreeMap<String, Option<Arc<dyn Engine>>>,
    recovery: Recovery,
}

impl Work<'_> {
    fn all(&mut self, state_dir: &Path) -> Result<()> {
        let Some(holds) = Holds::open(state_dir)? else { return Ok(()) };
        for name in holds.names()? {
            let result = match holds.claim(&name) {
                Ok(Claim::Dead(journal, contents)) => self.one(journal, &contents),
                Ok(Claim::Alive(contents)) => self.check_overdue(&contents),
                Ok(Claim::Gone) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = result {
                self.recovery.problems.push(error.on(holds.path(&name).display()));
            }
        }
        Ok(())
    }

    /// Undoes one hold and removes its journal.
    fn one(&mut self, mut journal: Journal, contents: &Contents) -> Result<()> {
        let plan = &contents.plan;
        let due: Vec<&Held> = contents.due().collect();
        if !due.is_empty() {
            let engine = match self.engine(&plan.engine_address) {
                Ok(engine) => engine,
                Err(None) => return Ok(()),
                Err(Some(error)) => return Err(unreachable(&plan.engine_address, &due, error)),
            };
            check_same_engine(&*engine, &plan.engine_id, &plan.engine_address, &due)?;
            let (clock, retry) = (self.clock, self.retry);
            let age = Duration::from_secs(u64::try_from(clock.now().seconds.saturating_sub(contents.written.seconds)).unwrap_or(0));
            let results = concurrently(&due, CALLS_MAX, |held| undo(&*engine, clock, retry, held, age));
            let mut left = Vec::new();
            let mut failure = None;
            for (held, result) in due.into_iter().zip(results) {
                match result {
                    Ok(ours) => {
                        journal.settled(&held.id).unwrap_or_else(|error| tracing::debug!("{error}"));
                        if ours {
                            let undone = Undone { name: held.name.clone(), act: held.act, process: plan.owner.process };
                            self.recovery.undone.push(undone);
                        }
                    }
                    Err(error) => {
                        left.push(held);
                        failure = Some(error);
                    }
                }
            }
            if let Some(error) = failure {
                return Err(stuck(&plan.engine_address, &left).because(error));
            }
        }
        journal.remove()
    }

    /// The engine at `address`. The error is none when it was given before.
    fn engine(&mut self, address: &str) -> Result<Arc<dyn Engine>, Option<Error>> {
        if let Some(known) = self.engines.get(address) {
            return known.clone().ok_or(None);
        }
        let connected = (self.connect)(address).map(Arc::<dyn Engine>::from);
        self.engines.insert(address.to_owned(), connected.as_ref().ok().cloned());
        connected.map_err(Some)
    }

    /// A process that lives and still holds containers long after it should have let go hangs, or was itself stopped.
    fn check_overdue(&self, contents: &Contents) -> Result<()> {
        let plan = &contents.plan;
        let due: Vec<&Held> = contents.due().collect();
        let late = plan.deadline.is_some_and(|deadline| self.clock.now().seconds > deadline.saturating_add(OVERDUE_SECONDS));
        // Or else it is another command that is just recovering.
        if !late || due.is_empty() || !plan.owner.is_seen() {
            return Ok(());
        }
        let process = plan.owner.process;
        Err(Error::new(
            ErrorKind::Busy,
            format!("the icecore with the process id {process} lives and keeps containers paused for too long"),
        )
        .on(hold::names(due.into_iter()))
        .hint(format!("let it go on (`kill -CONT {process}`) or end it (`kill -KILL {process}`) and run any command of icecore")))
    }
}

/// Undoes one container's share, again and again until it is done or has been tried often enough. Whether it was ours to undo.
/// `age` is how long ago the owner lived for certain.
fn undo(engine: &dyn Engine, clock: &dyn Clock, retry: &Retry, held: &Held, age: Duration) -> Result<bool> {
    let mut round = 0;
    loop {
        let result = match held.act {
            Act::Pause => thaw(engine, clock, retry, held, age),
            Act::Stop => start(engine, held, age),
        };
        round += 1;
        if result.is_ok() || round >= retry.rounds_max {
            return result;
        }
        std::thread::sleep(retry.wait(round - 1));
    }
}

/// A request outlives who sent it: when the owner died a moment ago, one that runs may be paused yet.
fn thaw(engine: &dyn Engine, clock: &dyn Clock, retry: &Retry, held: &Held, age: Duration) -> Result<bool> {
    let mut found = undo::thaw(engine, clock, held, Known::Journal)?;
    if found == Thaw::Free && age < IN_FLIGHT_MAX {
        std::thread::sleep(retry.settle);
        found = undo::thaw(engine, clock, held, Known::Journal)?;
    }
    Ok(matches!(found, Thaw::Thawed(_)))
}

/// One that still runs may be about to end: the engine stops it whether or not the owner lives. To know that it has ended it
/// is stopped again, unless its time to end was long over.
fn start(engine: &dyn Engine, held: &Held, age: Duration) -> Result<bool> {
    let found = undo::start(engine, held)?;
    if found != Start::Runs {
        return Ok(found == Start::Started);
    }
    let now = engine.container(&held.id)?;
    let grace = held.grace_seconds.map(Duration::from_secs).or(now.stop_timeout).unwrap_or(GRACE_DEFAULT);
    if now.started_at != held.started_at || age >= grace.saturating_add(IN_FLIGHT_MAX) {
        return Ok(false);
    }
    engine.stop(&held.id, held.grace_seconds.map(Duration::from_secs))?;
    Ok(undo::start(engine, held)? == Start::Started)
}

/// Another engine may answer at an address by now. Its containers have other ids, and ours would seem to be gone.
fn check_same_engine(engine: &dyn Engine, id: &str, address: &str, due: &[&Held]) -> Result<()> {
    let found = engine.info().map_err(|error| unreachable(address, due, error))?.id;
    if id.is_empty() || found.is_empty() || found == id {
        return Ok(());
    }
    let error = Error::new(ErrorKind::Docker, "another container engine answers where containers were left paused or stopped");
    Err(error.on(hold::printed(address)).hint(format!("on the engine {}: {}", hold::printed(id), by_hand(address, due))))
}

fn unreachable(address: &str, due: &[&Held], cause: Error) -> Error {
    Error::new(ErrorKind::Docker, "an icecore that died left containers paused or stopped, and their engine cannot be reached")
        .on(hold::names(due.iter().copied()))
        .because(cause)
        .hint(by_hand(address, due))
}

fn stuck(address: &str, left: &[&Held]) -> Error {
    Error::new(ErrorKind::Docker, "an icecore that died left containers paused or stopped, which cannot be undone")
        .on(hold::names(left.iter().copied()))
        .hint(by_hand(address, left))
}

/// The commands that do it without us.
fn by_hand(address: &str, left: &[&Held]) -> String {
    let of = |act: Act, verb: &str| {
        let mut some = left.iter().copied().filter(move |held| held.act == act).peekable();
        some.peek().is_some().then(|| format!("`{}`", hold::command(verb, address, some)))
    };
    let commands: Vec<String> = of(Act::Pause, "unpause").into_iter().chain(of(Act::Stop, "start")).collect();
    format!("{} does it by hand; every command of icecore tries it again", commands.join(" and "))
}
