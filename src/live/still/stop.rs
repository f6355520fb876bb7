//! Stopping: a set of containers is shut down by their own rules, dependents first, and started again in reverse, each group
//! once the one before it is healthy. Only what ran is started. The journal and its rules are those of a freeze
//! ([`super::freeze`]), except that a stop has no deadline and no watchdog.

use std::collections::BTreeMap;
use std::time::Duration;

use super::hold::{self, Bystander, CALLS_MAX, Retry, Site, concurrently};
use super::journal::{Act, Held, Journal};
use super::order;
use super::undo::{self, Start};
use crate::clock::{Clock, Timestamp};
use crate::docker::{ContainerDetail, Engine};
use crate::error::{Error, ErrorKind, Result};

/// The label of a container that a swarm runs.
const SWARM_LABEL: &str = "com.docker.swarm.task.id";

/// A container to be stopped.
#[derive(Debug, Clone, Copy)]
pub struct StopTarget<'a> {
    /// Its id.
    pub id: &'a str,
    /// How long it has to end by itself; its own stop timeout when there is none.
    pub grace: Option<Duration>,
}

/// How containers are stopped and started again.
#[derive(Debug, Clone, Copy)]
pub struct StopOptions {
    /// How long to wait for the health of a group that was started; none not to wait at all.
    pub wait: Option<Duration>,
    /// How often to look meanwhile.
    pub poll: Duration,
    /// How often starting is tried.
    pub retry: Retry,
}

impl Default for StopOptions {
    fn default() -> Self {
        Self { wait: Some(Duration::from_secs(60)), poll: Duration::from_millis(250), retry: Retry::default() }
    }
}

/// What became of a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopReport {
    /// When all containers had stopped.
    pub moment: Timestamp,
    /// The containers that were stopped, in that order.
    pub containers: Vec<StoppedContainer>,
    /// Why not all containers were still all the time, so that what was copied may not be of one moment; none when they were.
    pub void: Option<String>,
}

/// What became of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoppedContainer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// From the call that stopped it until it ran again.
    pub down: Duration,
    /// How it is now.
    pub now: Condition,
}

/// How a container is after it was started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Its health check says so.
    Healthy,
    /// It runs; it has no health check, or nobody waited for it.
    Running,
    /// It runs, and its health check did not succeed in time; what it says.
    NotHealthy(String),
    /// It was started and has ended since.
    Ended,
    /// Somebody removed it.
    Gone,
}

/// Containers that have stopped. Dropping this starts them, without waiting for their health.
pub struct Stopped<'a> {
    engine: &'a dyn Engine,
    clock: &'a dyn Clock,
    options: StopOptions,
    address: String,
    /// Those whose turn has come, in groups.
    groups: Vec<Vec<Member>>,
    bystanders: Vec<Bystander>,
    journal: Option<Journal>,
    moment: Timestamp,
    started: bool,
}

struct Member {
    held: Held,
    asked: Duration,
    /// The engine may still be at stopping it.
    doubtful: bool,
    /// When it was found back, and how.
    back: Option<(Duration, Start)>,
    condition: Condition,
}

/// Stops those of `targets` that run, group by group, in the order that Docker Compose's labels ask for. Those that are not
/// running, or are paused, are left as they are and count as still. After an error those that ran are started again, or the
/// error says which are not.
pub fn stop<'a>(site: &Site<'a>, targets: &[StopTarget<'_>], options: &StopOptions) -> Result<Stopped<'a>> {
    let ids: Vec<&str> = targets.iter().map(|target| target.id).collect();
    let details = site.inspect(&ids)?;
    let runs = |detail: &&ContainerDetail| detail.running && !detail.paused;
    details.iter().filter(runs).try_for_each(check_comes_back)?;
    let graces: BTreeMap<&str, Option<Duration>> = targets.iter().map(|target| (target.id, target.grace)).collect();
    let grace = |detail: &ContainerDetail| graces.get(detail.id.as_str()).or_else(|| graces.get(detail.name.as_str())).copied().flatten();
    let labels: Vec<_> = details.iter().map(|detail| &detail.labels).collect();
    let groups = order::stop_groups(&labels).into_iter().map(|group| {
        let members = group.into_iter().filter_map(|at| details.get(at)).filter(runs);
        members.map(|detail| Member::new(detail, grace(detail))).collect::<Vec<_>>()
    });
    let groups: Vec<_> = groups.filter(|group| !group.is_empty()).collect();
    let mut stopped = Stopped {
        engine: site.engine,
        clock: &**site.clock,
        options: *options,
        address: String::new(),
        groups: Vec::new(),
        bystanders: details.iter().filter(|detail| !runs(detail)).map(Bystander::new).collect(),
        journal: None,
        moment: Timestamp::default(),
        started: false,
    };
    if !groups.is_empty() {
        let plan = site.plan(groups.iter().flatten().map(|member| member.held.clone()).collect(), None)?;
        stopped.address.clone_from(&plan.engine_address);
        stopped.journal = Some(Journal::create(site.state_dir, &plan)?);
    }
    for group in groups {
        if let Err(error) = stopped.stop_group(group) {
            // What could not be started is the worse news.
            stopped.finish(None).inspect_err(|_| tracing::warn!("{error}"))?;
            return Err(error);
        }
    }
    stopped.moment = site.clock.now();
    Ok(stopped)
}

/// Refuses containers that would not come back, or would come back too soon.
fn check_comes_back(detail: &ContainerDetail) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::new(ErrorKind::Unsupported, format!("this container cannot be stopped for a while: {why}"))
            .on(hold::printed(&detail.name))
            .hint("freeze it instead"))
    };
    if detail.labels.contains_key(SWARM_LABEL) {
        return refuse("the swarm would run another one in its place");
    }
    if detail.auto_remove {
        return refuse("it was started with --rm, and would be removed with its anonymous volumes");
    }
    Ok(())
}

impl Stopped<'_> {
    /// When all containers had stopped.
    pub fn moment(&self) -> Timestamp {
        self.moment
    }

    /// Starts what ran, in reverse order, waits for its health and looks whether it runs. What was copied is of one moment
    /// only if the report names nothing that makes it void.
    pub fn start(mut self) -> Result<StopReport> {
        self.finish(self.options.wait)
    }

    fn stop_group(&mut self, mut group: Vec<Member>) -> Result<()> {
        if let Some(journal) = &mut self.journal {
            journal.begun(group.iter().map(|member| member.held.id.as_str()))?;
        }
        let (engine, clock) = (self.engine, self.clock);
        let results = concurrently(&group, CALLS_MAX, |member| (clock.monotonic(), member.stop(engine)));
        let mut failure = None;
        for (member, (asked, result)) in group.iter_mut().zip(results) {
            member.asked = asked;
            if let Err(error) = result {
                member.doubtful = true;
                failure = failure.or(Some(error));
            }
        }
        self.groups.push(group);
        failure.map_or(Ok(()), Err)
    }

    fn finish(&mut self, wait: Option<Duration>) -> Result<StopReport> {
        self.started = true;
        let void = self.disturbed();
        let mut failure = None;
        for at in (0..self.groups.len()).rev() {
            self.start_group(at, &mut failure);
            self.wait_for_group(at, wait);
        }
        let members = || self.groups.iter().flatten();
        let left: Vec<&Held> = members().filter(|member| member.back.is_none()).map(|member| &member.held).collect();
        if left.is_empty() {
            let containers = members().map(Member::report).collect();
            // What stays behind names nothing that is left to do.
            self.journal.take().map_or(Ok(()), Journal::remove).unwrap_or_else(|error| tracing::warn!("{error}"));
            return Ok(StopReport { moment: self.moment, containers, void });
        }
        let error = Error::new(ErrorKind::Docker, "these containers ran before and could not be started again")
            .on(hold::names(left.iter().copied()))
            .hint(format!(
                "start them by `{}`; the next command of icecore with the same state folder tries it, too",
                hold::command("start", &self.address, left.iter().copied())
            ));
        self.journal = None;
        Err(match failure {
            Some(cause) => error.because(cause),
            None => error,
        })
    }

    /// The first that was not still all the time, in words.
    fn disturbed(&self) -> Option<String> {
        let ours: Vec<_> = self.groups.iter().flatten().map(|member| Bystander::of(&member.held)).collect();
        hold::first_disturbed(self.engine, &ours).or_else(|| hold::first_disturbed(self.engine, &self.bystanders))
    }

    /// Starts the containers of a group, again and again until all run or it has been tried often enough.
    fn start_group(&mut self, at: usize, failure: &mut Option<Error>) {
        let (engine, clock, retry) = (self.engine, self.clock, self.options.retry);
        let Some(group) = self.groups.get_mut(at) else { return };
        let begin = clock.monotonic();
        for round in 0..retry.rounds_max {
            let results = concurrently(group, CALLS_MAX, |member| {
                if member.back.is_some() { None } else { Some((undo::start(engine, &member.held), clock.monotonic())) }
            });
            for (member, result) in group.iter_mut().zip(results) {
                match result {
                    None => {}
                    Some((Err(error), _)) => *failure = Some(error),
                    // The engine may be about to stop it: seen once more, after the wait.
                    Some((Ok(Start::Runs), _)) if std::mem::take(&mut member.doubtful) => std::thread::sleep(retry.settle),
                    Some((Ok(start), now)) => {
                        member.back = Some((now, start));
                        if let Some(journal) = &mut self.journal {
                            // Without the note the container is looked at once more by whoever recovers.
                            journal.settled(&member.held.id).unwrap_or_else(|error| tracing::debug!("{error}"));
                        }
                    }
                }
            }
            if group.iter().all(|member| member.back.is_some()) || clock.monotonic().saturating_sub(begin) > retry.patience {
                break;
            }
            std::thread::sleep(retry.wait(round));
        }
    }

    /// Waits until the containers of a group that were started are healthy, at most `wait` for all of them.
    fn wait_for_group(&mut self, at: usize, wait: Option<Duration>) {
        let (engine, clock, poll) = (self.engine, self.clock, self.options.poll);
        let Some(group) = self.groups.get_mut(at) else { return };
        let deadline = wait.map(|wait| clock.monotonic().saturating_add(wait));
        let conditions = concurrently(group, CALLS_MAX, |member| match member.back {
            Some((_, Start::Gone)) => Condition::Gone,
            Some((_, Start::Ended)) => Condition::Ended,
            _ => deadline.map_or(Condition::Running, |deadline| ready(engine, clock, &member.held, deadline, poll)),
        });
        for (member, condition) in group.iter_mut().zip(conditions) {
            member.condition = condition;
        }
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        if !self.started
            && let Err(error) = self.finish(None)
        {
            tracing::error!("{error}; {}", error.advice().unwrap_or_default());
        }
    }
}

impl Member {
    fn new(detail: &ContainerDetail, grace: Option<Duration>) -> Self {
        let held = Held { act: Act::Stop, grace_seconds: grace.map(|grace| grace.as_secs()), ..hold::held(detail) };
        Self { held, asked: Duration::ZERO, doubtful: false, back: None, condition: Condition::Running }
    }

    /// Stops it and looks whether it has.
    fn stop(&self, engine: &dyn Engine) -> Result<()> {
        let failed = |error: Error| {
            let (kind, cause) = (error.kind(), error.to_string());
            Error::new(kind, "cannot stop the container").on(hold::printed(&self.held.name)).because(cause)
        };
        let asked = engine.stop(&self.held.id, self.held.grace_seconds.map(Duration::from_secs));
        match engine.container(&self.held.id) {
            Ok(now) if !now.running => Ok(()),
            Ok(_) => {
                Err(failed(asked.err().unwrap_or_else(|| {
                    Error::new(ErrorKind::Docker, "it runs again after the engine stopped it").hint("see who starts it")
                })))
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn report(&self) -> StoppedContainer {
        let back = self.back.map_or(self.asked, |(when, _)| when);
        StoppedContainer {
            id: self.held.id.clone(),
            name: self.held.name.clone(),
            down: back.saturating_sub(self.asked),
            now: self.condition.clone(),
        }
    }
}

/// Waits until a container that was started is healthy, or runs if it has no health check.
fn ready(engine: &dyn Engine, clock: &dyn Clock, held: &Held, deadline: Duration, poll: Duration) -> Condition {
    loop {
        let last = match engine.container(&held.id) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Condition::Gone,
            Err(error) => error.to_string(),
            Ok(now) if !now.running => return Condition::Ended,
            Ok(now) if now.state == "restarting" => now.state,
            Ok(now) => match now.health.as_deref() {
                None => return Condition::Running,
                Some("healthy") => return Condition::Healthy,
                Some(other) => hold::printed(other),
            },
        };
        if clock.monotonic() >= deadline {
            return Condition::NotHealthy(last);
        }
        std::thread::sleep(poll);
    }
}
