//! What freezing and stopping have in common: with whom it is done, looking at many containers at once, trying again, and the
//! words for what could not be undone.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::journal::{Act, Held, Owner, Plan};
use super::own::Untouchable;
use crate::clock::Clock;
use crate::docker::{ContainerDetail, Engine};
use crate::error::{Error, ErrorKind, Result};
use crate::model::path::escape;

/// Calls to the engine at one time. A pause takes some 50 ms, so that 200 containers stand still within a fraction of a second.
pub(super) const CALLS_MAX: usize = 64;

/// With whom, and where, containers are held still.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// Their engine.
    pub engine: &'a dyn Engine,
    /// This host's state folder, in which the journal is kept.
    pub state_dir: &'a Path,
    /// What is the time.
    pub clock: &'a Arc<dyn Clock>,
    /// Containers that are never held.
    pub untouchable: &'a Untouchable,
}

/// How often undoing is tried.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// The most rounds; in each, all that is left is tried once.
    pub rounds_max: u32,
    /// The wait after the first round; doubled after each.
    pub wait_first: Duration,
    /// The longest wait.
    pub wait_max: Duration,
    /// No round begins later than this after the first.
    pub patience: Duration,
    /// How long a container whose pause failed must be seen running, before it counts as such: the engine may still be at it.
    pub settle: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            rounds_max: 10,
            wait_first: Duration::from_millis(20),
            wait_max: Duration::from_secs(2),
            patience: Duration::from_secs(60),
            settle: Duration::from_secs(1),
        }
    }
}

impl Retry {
    /// The wait after a round, the first being 0.
    pub(super) fn wait(&self, round: u32) -> Duration {
        self.wait_first.saturating_mul(1 << round.min(20)).min(self.wait_max)
    }
}

impl Site<'_> {
    /// The containers in full, each once, in the order given. Refuses what must never be held.
    pub(super) fn inspect(&self, ids: &[&str]) -> Result<Vec<ContainerDetail>> {
        let found = concurrently(ids, CALLS_MAX, |id| self.engine.container(id));
        let mut seen = BTreeSet::new();
        let mut details = Vec::new();
        for detail in found {
            let detail = detail?;
            if let Some(why) = self.untouchable.why(&detail.id) {
                return Err(Error::new(ErrorKind::Usage, format!("this container cannot be held still: it is {why}"))
                    .on(printed(&detail.name))
                    .hint("leave it out; what it writes is then copied while it runs"));
            }
            if detail.state == "restarting" {
                return Err(Error::new(ErrorKind::Busy, "the container is being restarted again and again by the engine")
                    .on(printed(&detail.name))
                    .hint("`docker logs` shows why; stop it or wait until it runs"));
            }
            if seen.insert(detail.id.clone()) {
                details.push(detail);
            }
        }
        Ok(details)
    }

    /// What the journal is to say, and the engine's address.
    pub(super) fn plan(&self, containers: Vec<Held>, budget: Option<Duration>) -> Result<Plan> {
        let info = self.engine.info()?;
        let deadline = budget.map(|budget| self.clock.now().seconds.saturating_add_unsigned(budget.as_secs() + 1));
        Ok(Plan { engine_address: info.address, engine_id: info.id, owner: Owner::this(), deadline, containers })
    }
}

/// The journal's entry for a container that will be frozen.
pub(super) fn held(detail: &ContainerDetail) -> Held {
    let started_at = detail.started_at.clone();
    Held { id: detail.id.clone(), name: detail.name.clone(), started_at, act: Act::Pause, grace_seconds: None }
}

/// A container that was still before we came, and has to stay so.
pub(super) struct Bystander {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) paused: bool,
    started_at: String,
}

impl Bystander {
    pub(super) fn new(detail: &ContainerDetail) -> Self {
        let started_at = detail.started_at.clone();
        Self { id: detail.id.clone(), name: detail.name.clone(), paused: detail.paused, started_at }
    }

    /// One of ours that became still before we could do anything.
    pub(super) fn of(held: &Held) -> Self {
        Self { id: held.id.clone(), name: held.name.clone(), paused: false, started_at: held.started_at.clone() }
    }

    /// Why it cannot be said that it was still all the time; none when it can.
    pub(super) fn disturbed(&self, engine: &dyn Engine) -> Option<String> {
        match engine.container(&self.id) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => Some(format!("it could not be looked at again: {error}")),
            Ok(now) if now.started_at != self.started_at => Some("somebody started it".to_owned()),
            Ok(now) if now.running && !now.paused => Some("somebody thawed it".to_owned()),
            Ok(_) => None,
        }
    }
}

/// The first of `bystanders` that was not still all the time, in words.
pub(super) fn first_disturbed(engine: &dyn Engine, bystanders: &[Bystander]) -> Option<String> {
    let found = concurrently(bystanders, CALLS_MAX, |bystander| Some((bystander.name.clone(), bystander.disturbed(engine)?)));
    found.into_iter().flatten().next().map(|(name, why)| format!("{}: {why}", printed(&name)))
}

/// Does `work` with each item, several at a time, begun in their order. What comes of it is in that order, too.
pub(super) fn concurrently<'t, T: Sync, R: Send>(items: &'t [T], threads_max: usize, work: impl Fn(&'t T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    let help = || {
        loop {
            let at = next.fetch_add(1, Ordering::SeqCst);
            let Some(item) = items.get(at) else { break };
            let result = work(item);
            lock(&done).push((at, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..items.len().min(threads_max) {
            // Where no further thread can be had, those there are do it alone.
            if std::thread::Builder::new().spawn_scoped(scope, help).is_err() {
                break;
            }
        }
        help();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The command that does by hand what could not be done: `docker unpause db web`.
pub(super) fn command<'a>(verb: &str, address: &str, containers: impl Iterator<Item = &'a Held>) -> String {
    let mut text = "docker".to_owned();
    if !matches!(address, "" | "unix:///var/run/docker.sock" | "unix:///run/docker.sock") {
        text.push_str(&format!(" -H {}", word(address)));
    }
    text.push_str(&format!(" {verb}"));
    for held in containers {
        text.push_str(&format!(" {}", word(if held.name.is_empty() { &held.id } else { &held.name })));
    }
    text
}

/// The containers' names, for a message.
pub(super) fn names<'a>(containers: impl Iterator<Item = &'a Held>) -> String {
    containers.map(|held| printed(&held.name)).collect::<Vec<_>>().join(", ")
}

/// A name that an engine gave, as it can be shown.
pub(super) fn printed(name: &str) -> String {
    escape(name.as_bytes())
}

/// One word of a shell's command line.
fn word(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/:".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", escape(text.as_bytes()).replace('\'', "'\\''"))
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn work_is_done_at_once_and_comes_back_in_order() {
        let items: Vec<usize> = (0..100).collect();
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let doubled = concurrently(&items, 8, |item| {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(2));
            now.fetch_sub(1, Ordering::SeqCst);
            item * 2
        });
        assert_eq!(doubled, items.iter().map(|item| item * 2).collect::<Vec<_>>());
        assert!((2..=8).contains(&most.load(Ordering::SeqCst)), "{most:?}");
        assert!(concurrently(&[] as &[usize], 8, |item| *item).is_empty());
    }

    #[test]
    fn commands_can_be_pasted_whatever_a_container_is_called() {
        let held =
            |name: &str| Held { id: "ab12".into(), name: name.into(), started_at: String::new(), act: Act::Pause, grace_seconds: None };
        let list = [held("shop-db-1"), held(""), held("a;rm -rf /'x\n")];
        assert_eq!(command("unpause", "unix:///var/run/docker.sock", list.iter()), "docker unpause shop-db-1 ab12 'a;rm -rf /'\\''x\\n'");
        assert_eq!(command("start", "tcp://10.0.0.1:2375", list[..1].iter()), "docker -H tcp://10.0.0.1:2375 start shop-db-1");
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = Retry::default();
        let waits: Vec<u128> = (0..9).map(|round| retry.wait(round).as_millis()).collect();
        assert_eq!(waits, [20, 40, 80, 160, 320, 640, 1280, 2000, 2000]);
        assert_eq!(retry.wait(u32::MAX), retry.wait_max);
    }
}
