//! Captures a group: all its sources as of one moment, at which nobody writes to them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::statfs;

use super::still::freeze::{FreezeOptions, Frozen, freeze};
use super::still::hold::Site;
use super::still::stop::{Condition, StopOptions, StopTarget, Stopped, stop};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::model::path::escape;
use crate::ops::snapshot::{GroupOptions, GroupReport, Member, Still, snapshot_group};
use crate::progress::Progress;
use crate::repo::Repository;

/// What can be set aside for each second of a freeze, on a slow machine.
const ASIDE_BYTES_PER_SECOND: u64 = 256 << 20;
/// File systems that clone files: what is set aside of theirs belongs beside it. (XFS, btrfs, bcachefs.)
const CLONING: [i64; 3] = [0x5846_5342, 0x9123_683E, 0xCA45_1A4E];

/// How the writers of a group are held.
pub enum How<'a> {
    /// There are none, as long as `writers` names none.
    AtRest(&'a (dyn Fn() -> Result<Vec<String>> + Sync)),
    /// All are frozen.
    Frozen {
        /// Their ids; those that depend on others first.
        ids: Vec<&'a str>,
        /// Budget and patience.
        options: FreezeOptions,
    },
    /// All are stopped, and started again.
    Stopped {
        /// Who, and how long each may take.
        targets: Vec<StopTarget<'a>>,
        /// What is waited for afterwards.
        options: StopOptions,
    },
    /// The applications hold still by themselves: `begin` tells them to, `end` lets them go on.
    Hooks {
        /// Runs what must have succeeded.
        begin: &'a (dyn Fn() -> Result<()> + Sync),
        /// Runs what ends it, whatever happened.
        end: &'a (dyn Fn() -> Result<()> + Sync),
    },
}

/// Where and with what groups are captured.
#[derive(Clone, Copy)]
pub struct Place<'a> {
    /// The repository.
    pub repo: &'a Repository,
    /// The engine, and where holds are noted.
    pub site: Site<'a>,
    /// A folder for what is set aside.
    pub folder: &'a Path,
    /// What is shown, and whether to go on.
    pub progress: &'a Progress,
}

/// Captures `members` while their writers are held as `how` says. A freeze that takes longer than its budget is given up at
/// once and tried once more, after everything was read live. `warn` is told what came of starting containers again.
pub fn capture(place: &Place<'_>, members: &[Member<'_>], how: &How<'_>, warn: &dyn Fn(&str)) -> Result<GroupReport> {
    let holding = Holding { site: place.site, how, held: Mutex::default(), said: Mutex::default() };
    let live_above = match how {
        How::Frozen { options, .. } => options.budget.as_secs().max(1).saturating_mul(ASIDE_BYTES_PER_SECOND),
        // Nobody waits, or everybody waits for long anyway: read all of it before.
        How::AtRest(_) | How::Stopped { .. } | How::Hooks { .. } => 0,
    };
    let take = |live_above| {
        let options = GroupOptions { folder: place.folder, live_above };
        snapshot_group(place.repo, members, &holding, &options, place.progress)
    };
    let taken = match take(live_above) {
        Err(error) if error.kind() == ErrorKind::Busy && live_above > 0 => {
            tracing::warn!("{error}; everything is read live first, then it is tried once more");
            take(0)
        }
        taken => taken,
    };
    std::mem::take(&mut *lock(&holding.said)).iter().for_each(|said| warn(said));
    taken
}

/// Where to set aside what is in `source`: beside it where the file system clones files, else in `folder`, which is made.
pub fn folder_for(source: &Path, folder: &Path) -> Result<PathBuf> {
    if let Some(parent) = source.parent()
        && statfs(source).is_ok_and(|found| CLONING.contains(&found.f_type))
        && rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_ok()
    {
        return Ok(parent.to_owned());
    }
    std::fs::create_dir_all(folder).context(ErrorKind::Cache, "cannot make the folder for what is set aside", folder.display())?;
    Ok(folder.to_owned())
}

struct Holding<'h, 'a> {
    site: Site<'a>,
    how: &'h How<'a>,
    held: Mutex<Held<'a>>,
    said: Mutex<Vec<String>>,
}

#[derive(Default)]
enum Held<'a> {
    #[default]
    Nobody,
    Frozen(Frozen<'a>),
    Stopped(Box<Stopped<'a>>, Duration),
    Told(Duration),
}

impl Still for Holding<'_, '_> {
    fn hold(&self) -> Result<()> {
        let begin = self.site.clock.monotonic();
        *lock(&self.held) = match self.how {
            How::AtRest(_) => Held::Nobody,
            How::Frozen { ids, options } => Held::Frozen(freeze(&self.site, ids, options)?),
            How::Stopped { targets, options } => Held::Stopped(Box::new(stop(&self.site, targets, options)?), begin),
            How::Hooks { begin: tell, .. } => {
                tell()?;
                Held::Told(begin)
            }
        };
        Ok(())
    }

    fn check(&self) -> Result<()> {
        match &*lock(&self.held) {
            Held::Frozen(frozen) if !frozen.is_still() => Err(over_budget()),
            _ => Ok(()),
        }
    }

    fn let_go(&self) -> Result<Duration> {
        let since = |begin: Duration| self.site.clock.monotonic().saturating_sub(begin);
        match std::mem::take(&mut *lock(&self.held)) {
            Held::Nobody => {
                let How::AtRest(writers) = self.how else { return Ok(Duration::ZERO) };
                match writers()?.first() {
                    None => Ok(Duration::ZERO),
                    Some(writer) => Err(Error::new(ErrorKind::Busy, "a container that can write to it was started while it was read")
                        .on(escape(writer.as_bytes()))
                        .hint("take the snapshot again: the container is held still then")),
                }
            }
            Held::Frozen(frozen) => {
                let report = frozen.thaw()?;
                match report.void {
                    None => Ok(report.frozen),
                    Some(why) => Err(Error::new(ErrorKind::Busy, format!("the containers were not still all the time: {why}"))),
                }
            }
            Held::Stopped(stopped, begin) => {
                let report = stopped.start()?;
                for container in &report.containers {
                    let how = match &container.now {
                        Condition::Healthy | Condition::Running => continue,
                        Condition::NotHealthy(says) => format!("was started again and is not healthy: {says}"),
                        Condition::Ended => "was started again and has ended since".to_owned(),
                        Condition::Gone => "was removed by somebody while it was stopped".to_owned(),
                    };
                    lock(&self.said).push(format!("the container {} {how}", escape(container.name.as_bytes())));
                }
                match report.void {
                    None => Ok(since(begin)),
                    Some(why) => Err(Error::new(ErrorKind::Busy, format!("the containers did not stay stopped: {why}"))),
                }
            }
            Held::Told(begin) => {
                if let How::Hooks { end, .. } = self.how {
                    end()?;
                }
                Ok(since(begin))
            }
        }
    }
}

fn over_budget() -> Error {
    Error::new(ErrorKind::Busy, "what changed could not be set aside within the freeze budget; the containers run again")
        .hint("take snapshots more often, allow more with --freeze-budget, or use --consistency stopped")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "capture_tests.rs"]
mod tests;
