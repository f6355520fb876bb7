//! Freezing: all processes of a set of containers stand still, none of them knows, and what they have written is what a crash
//! at that moment would have left. Not one of them stays frozen, whatever becomes of us:
//!
//! 1. The journal names them, durably, before the first is paused.
//! 2. A thread with a connection of its own thaws all of them at the deadline, also when this one hangs.
//! 3. Dropping a [`Frozen`], by a return, an error or a panic, thaws all of them.
//! 4. A container counts as thawed when the engine shows it running; until then it is tried again.
//! 5. What a dead process left is thawed by the next one ([`super::recover`]).

use std::sync::Arc;
use std::time::Duration;

use super::hold::{self, Bystander, CALLS_MAX, Retry, Site, concurrently};
pub use super::ice::Ending;
use super::ice::{Ice, Phase};
use super::journal::{Held, Journal};
use crate::clock::Timestamp;
use crate::docker::{ContainerDetail, Engine};
use crate::error::{Error, ErrorKind, Result};

/// How containers are frozen.
#[derive(Debug, Clone, Copy)]
pub struct FreezeOptions {
    /// From the first call that pauses a container to the moment when the watchdog thaws all of them.
    pub budget: Duration,
    /// How long the engine may take to pause one container. All others wait for it, frozen.
    pub pause_max: Duration,
    /// How often thawing is tried.
    pub retry: Retry,
}

impl Default for FreezeOptions {
    fn default() -> Self {
        Self { budget: Duration::from_secs(5), pause_max: Duration::from_secs(2), retry: Retry::default() }
    }
}

/// What became of a freeze.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreezeReport {
    /// When all containers were still.
    pub moment: Timestamp,
    /// From the first call that paused a container to the last that thawed one.
    pub frozen: Duration,
    /// The containers, in the order in which they were given; those that were still before come last.
    pub containers: Vec<FrozenContainer>,
    /// Why not all containers were still all the time, so that what was copied may not be of one moment; none when they were.
    pub void: Option<String>,
}

/// What became of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrozenContainer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// How long it was frozen by us.
    pub frozen: Duration,
    /// How that ended.
    pub ending: Ending,
}

/// Containers that stand still. Dropping this thaws them.
pub struct Frozen<'a> {
    engine: &'a dyn Engine,
    ice: Option<Arc<Ice>>,
    bystanders: Vec<Bystander>,
    moment: Timestamp,
    thawed: bool,
}

/// Freezes the containers `ids` all at once; dependents should come first, they are thawed last. Those that are not running,
/// or that somebody else has paused, are left as they are and count as still. After an error all are thawed again, or the
/// error says which are not.
pub fn freeze<'a>(site: &Site<'a>, ids: &[&str], options: &FreezeOptions) -> Result<Frozen<'a>> {
    let (running, still): (Vec<_>, Vec<_>) = site.inspect(ids)?.into_iter().partition(|detail| detail.running && !detail.paused);
    let bystanders = still.iter().map(Bystander::new).collect();
    let mut frozen = Frozen { engine: site.engine, ice: None, bystanders, moment: Timestamp::default(), thawed: false };
    if !running.is_empty() {
        let ice = prepare(site, &running, options)?;
        frozen.ice = Some(Arc::clone(&ice));
        if let Err(error) = hold_all(site, &ice, options) {
            // What could not be thawed is the worse news.
            frozen.finish().inspect_err(|_| tracing::warn!("{error}"))?;
            return Err(error);
        }
    }
    frozen.moment = site.clock.now();
    Ok(frozen)
}

/// Writes the journal and starts the watchdog; the budget begins to run.
fn prepare(site: &Site<'_>, running: &[ContainerDetail], options: &FreezeOptions) -> Result<Arc<Ice>> {
    let second = site.engine.reconnect()?;
    let held: Vec<Held> = running.iter().map(hold::held).collect();
    let plan = site.plan(held.clone(), Some(options.budget))?;
    let journal = Journal::create(site.state_dir, &plan)?;
    let deadline = site.clock.monotonic().saturating_add(options.budget);
    let ice = Arc::new(Ice::new(site.clock, options.retry, plan.engine_address, deadline, held, journal));
    let watched = Arc::clone(&ice);
    let watchdog = std::thread::Builder::new().name("watchdog".to_owned()).spawn(move || watch(&watched, &*second));
    if let Err(cause) = watchdog {
        // Nothing is paused: this only removes the journal.
        let _ = ice.thaw(site.engine);
        return Err(Error::new(ErrorKind::Docker, "cannot start the thread that would thaw the containers in time").because(cause));
    }
    Ok(ice)
}

fn watch(ice: &Ice, engine: &dyn Engine) {
    if ice.wait_for_deadline() {
        ice.thaw_until_closed(engine);
    }
}

fn hold_all(site: &Site<'_>, ice: &Ice, options: &FreezeOptions) -> Result<()> {
    let order: Vec<usize> = (0..ice.len()).collect();
    let paused = concurrently(&order, CALLS_MAX, |at| ice.pause(site.engine, *at, options.pause_max));
    paused.into_iter().collect::<Result<()>>()?;
    if ice.phase() != Phase::Holding {
        let text = format!("the containers were not all frozen within {:.1} s", options.budget.as_secs_f64());
        return Err(Error::new(ErrorKind::Busy, text).hint("the engine is slow or overloaded; try again, or with a larger budget"));
    }
    Ok(())
}

impl Frozen<'_> {
    /// When all containers were still.
    pub fn moment(&self) -> Timestamp {
        self.moment
    }

    /// What is left of the budget; the longest duration when nothing had to be frozen.
    pub fn time_left(&self) -> Duration {
        self.ice.as_ref().map_or(Duration::MAX, |ice| ice.time_left())
    }

    /// Whether the containers are frozen as far as we know. False for good once the watchdog has thawed them: what is copied
    /// after that is of another moment.
    pub fn is_still(&self) -> bool {
        !self.time_left().is_zero()
    }

    /// Thaws all containers, the last frozen first, and looks at each whether it runs. What was copied is of one moment only
    /// if the report names nothing that makes it void.
    pub fn thaw(mut self) -> Result<FreezeReport> {
        self.finish()
    }

    fn finish(&mut self) -> Result<FreezeReport> {
        self.thawed = true;
        let mut void = None;
        let mut containers = Vec::new();
        let mut frozen = Duration::ZERO;
        if let Some(ice) = &self.ice {
            if !ice.begin_thaw() {
                void = Some("the time for the freeze was up, and the watchdog thawed the containers".to_owned());
            }
            ice.thaw(self.engine)?;
            frozen = ice.frozen();
            for (held, ending, frozen) in ice.endings() {
                match &ending {
                    Ending::Disturbed(why) => void = void.or_else(|| Some(format!("{}: {why}", hold::printed(&held.name)))),
                    Ending::NotRunning | Ending::PausedByOthers => self.bystanders.push(Bystander::of(&held)),
                    Ending::Thawed | Ending::NeverFrozen => {}
                }
                containers.push(FrozenContainer { id: held.id, name: held.name, frozen, ending });
            }
        }
        let given = self.bystanders.iter().filter(|bystander| !containers.iter().any(|known| known.id == bystander.id));
        let given: Vec<_> = given.map(still).collect();
        containers.extend(given);
        let void = void.or_else(|| hold::first_disturbed(self.engine, &self.bystanders));
        Ok(FreezeReport { moment: self.moment, frozen, containers, void })
    }
}

fn still(bystander: &Bystander) -> FrozenContainer {
    let ending = if bystander.paused { Ending::PausedByOthers } else { Ending::NotRunning };
    FrozenContainer { id: bystander.id.clone(), name: bystander.name.clone(), frozen: Duration::ZERO, ending }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        if !self.thawed
            && let Err(error) = self.finish()
        {
            tracing::error!("{error}; {}", error.advice().unwrap_or_default());
        }
    }
}
