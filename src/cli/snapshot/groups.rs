//! Takes the snapshots of a group: finds out who writes, decides how they are held, runs hooks around it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Capture, SnapshotArgs, Taken, Wanted, finish, options_of, prepare, take_alone};
use crate::cli::{Context, exit, open, pick, render};
use crate::docker::{ContainerDetail, Engine};
use crate::error::{Error, ErrorKind, Result};
use crate::live::capture::{self, How, Place};
use crate::live::groups::{Group, Holder, groups};
use crate::live::hooks::{Hook, Stage, run_all, run_pre};
use crate::live::keys::Moment;
use crate::live::presets::{Preset, recognise, run as preset};
use crate::live::settings::{self, Health};
use crate::live::still::freeze::FreezeOptions;
use crate::live::still::hold::Site;
use crate::live::still::own::Untouchable;
use crate::live::still::stop::{StopOptions, StopTarget};
use crate::live::survey::Survey;
use crate::model::{Consistency, SessionId};
use crate::ops::snapshot::Member;
use crate::repo::Repository;
use crate::source::Source;
use crate::source::without::Without;
use crate::volume::spelling::SourceSpec;

/// States of a container that has no process and starts none by itself.
const STILL_STATES: [&str; 4] = ["created", "exited", "dead", "removing"];

/// Puts sources into groups; what is wrong with their labels is said.
pub(super) fn units(engine: Option<&dyn Engine>, specs: &[SourceSpec], context: &Context) -> Result<Vec<Vec<SourceSpec>>> {
    let Some(engine) = engine else { return Ok(specs.iter().map(|spec| vec![spec.clone()]).collect()) };
    let survey = Survey::take(engine, &context.rules)?;
    let found = groups(&survey, specs);
    for group in &found {
        group.remarks.iter().for_each(|remark| pick::say(remark, context));
    }
    Ok(found.into_iter().map(|group| group.sources).collect())
}

/// What all groups of a run share.
pub(super) struct Run<'a> {
    pub(super) args: &'a SnapshotArgs,
    pub(super) run: SessionId,
    pub(super) repo: &'a Repository,
    pub(super) context: &'a Context,
}

impl Run<'_> {
    /// Takes the snapshots of sources that belong together. Who writes is looked up again: what came before may have taken
    /// hours.
    pub(super) fn take(&self, specs: &[SourceSpec], engine: Option<&dyn Engine>) -> Result<Vec<Taken>> {
        let Some(engine) = engine else { return specs.iter().map(|spec| take_alone(spec, self, None, None)).collect() };
        let survey = Survey::take(engine, &self.context.rules)?;
        let mut taken = Vec::new();
        for group in groups(&survey, specs) {
            let wanted = self.args.consistency.unwrap_or_else(|| wanted(&survey, &group));
            taken.extend(self.take_group(&survey, &group, wanted, engine)?);
        }
        Ok(taken)
    }

    fn take_group(&self, survey: &Survey, group: &Group, wanted: Wanted, engine: &dyn Engine) -> Result<Vec<Taken>> {
        let writing: Vec<&Holder> = group.holders.iter().filter(|holder| !STILL_STATES.contains(&holder.state.as_str())).collect();
        let alone =
            |specs: &mut dyn Iterator<Item = &SourceSpec>| specs.map(|spec| take_alone(spec, self, Some(engine), Some(survey))).collect();
        if wanted == Wanted::Fuzzy || !group.left.is_empty() {
            return alone(&mut group.sources.iter());
        }
        if writing.is_empty() && wanted != Wanted::Hook {
            // Nobody knows who writes to a directory that no container mounts.
            let is_volume = |spec: &&SourceSpec| matches!(spec, SourceSpec::Volume(_));
            let mut taken: Vec<Taken> = alone(&mut group.sources.iter().filter(|spec| !is_volume(spec)))?;
            let volumes: Vec<SourceSpec> = group.sources.iter().filter(is_volume).cloned().collect();
            taken.extend(self.at_rest(&volumes, wanted, engine)?);
            return Ok(taken);
        }
        let details = writing.iter().map(|holder| engine.container(&holder.id)).collect::<Result<Vec<_>>>()?;
        let (pre, post) = (hooks_of(group, Moment::Pre, engine)?, hooks_of(group, Moment::Post, engine)?);
        let begin = || run_pre(engine, pre.iter().map(|(detail, hook)| (detail, hook)), |_| ());
        let said = Mutex::new(Vec::new());
        let end = || {
            let more = run_all(engine, Stage::Post, post.iter().map(|(detail, hook)| (detail, hook)));
            said.lock().unwrap_or_else(PoisonError::into_inner).extend(more);
            Ok(())
        };
        let tell = |taken| {
            let said = std::mem::take(&mut *said.lock().unwrap_or_else(PoisonError::into_inner));
            said.iter().for_each(|said| self.context.warn(&exit::printable(said)));
            taken
        };
        if wanted == Wanted::Hook {
            if pre.is_empty() {
                return Err(Error::new(ErrorKind::Usage, "no container of it has a pre hook that could hold it still")
                    .on(render::name(&group.name))
                    .hint("set the label icecore.hook.pre on the container, or use another --consistency"));
            }
            return tell(self.held(&group.sources, Consistency::Hook, &How::Hooks { begin: &begin, end: &end }, engine));
        }
        let taken = begin().and_then(|()| {
            self.prepare_applications(&details, engine);
            let (level, how) = self.how(group, &writing, wanted)?;
            self.held(&group.sources, level, &how, engine)
        });
        end()?;
        tell(taken)
    }

    fn how<'h>(&self, group: &Group, writing: &[&'h Holder], wanted: Wanted) -> Result<(Consistency, How<'h>)> {
        match wanted {
            Wanted::Auto | Wanted::Frozen => {
                let budget = self.args.freeze_budget.unwrap_or(group.freeze_budget.value);
                let options = FreezeOptions { budget, ..FreezeOptions::default() };
                Ok((Consistency::Frozen, How::Frozen { ids: writing.iter().map(|holder| holder.id.as_str()).collect(), options }))
            }
            Wanted::Stopped => {
                let target =
                    |holder: &&'h Holder| StopTarget { id: &holder.id, grace: holder.stop_timeout.as_ref().map(|time| time.value) };
                let options = StopOptions { wait: wait_for(writing), ..StopOptions::default() };
                Ok((Consistency::Stopped, How::Stopped { targets: writing.iter().map(target).collect(), options }))
            }
            Wanted::Fuzzy | Wanted::Hook => {
                Err(Error::new(ErrorKind::Unsupported, "this level holds nobody").on(render::name(&group.name)))
            }
        }
    }

    /// Nobody writes to these volumes. Where somebody begins to, they are held for a second try.
    fn at_rest(&self, volumes: &[SourceSpec], wanted: Wanted, engine: &dyn Engine) -> Result<Vec<Taken>> {
        if volumes.is_empty() {
            return Ok(Vec::new());
        }
        let rules = &self.context.rules;
        let writers = || {
            let survey = Survey::take(engine, rules)?;
            let holders = groups(&survey, volumes).into_iter().flat_map(|group| group.holders);
            Ok(holders.filter(|holder| !STILL_STATES.contains(&holder.state.as_str())).map(|holder| holder.name).collect())
        };
        match self.held(volumes, Consistency::Stopped, &How::AtRest(&writers), engine) {
            Err(error) if error.kind() == ErrorKind::Busy && !writers()?.is_empty() => {
                self.context.note(&exit::printable(&format!("{error}; it is held now")));
                let survey = Survey::take(engine, &self.context.rules)?;
                let mut taken = Vec::new();
                for group in groups(&survey, volumes) {
                    taken.extend(self.take_group(&survey, &group, wanted, engine)?);
                }
                Ok(taken)
            }
            taken => taken,
        }
    }

    /// What shortens the recovery from a frozen copy. Whether it works is not what a snapshot depends on.
    fn prepare_applications(&self, details: &[ContainerDetail], engine: &dyn Engine) {
        for detail in details {
            let clues =
                recognise::Clues { image: &detail.image, labels: Some(&detail.labels), env: &detail.env, ..recognise::Clues::default() };
            let plan = recognise::recognise(&clues).and_then(|application| Preset { application, path: None }.before_freeze(detail));
            if let Some(said) = plan.and_then(|plan| preset::before_freeze(engine, detail, &plan)) {
                self.context.note(&exit::printable(&format!("{}: {said}", detail.name)));
            }
        }
    }

    fn held(&self, specs: &[SourceSpec], level: Consistency, how: &How<'_>, engine: &dyn Engine) -> Result<Vec<Taken>> {
        let captures = specs.iter().map(|spec| prepare(spec, Some(engine), self.repo)).collect::<Result<Vec<Capture>>>()?;
        let survey = Survey::take(engine, &self.context.rules)?;
        let sources = specs.iter().zip(&captures).map(|(spec, capture)| source(&survey, spec, capture)).collect::<Result<Vec<_>>>()?;
        let members: Vec<Member<'_>> = captures
            .iter()
            .zip(&sources)
            .map(|(capture, source)| Member { source: &**source, options: options_of(capture, level, self) })
            .collect();
        let state_dir = open::host_state_dir(&self.context.globals)?;
        let first = captures.first().map(|capture| capture.path.as_path()).unwrap_or(&state_dir);
        let folder = capture::folder_for(first, &state_dir.join("aside"))?;
        let untouchable = Untouchable::own();
        let site = Site { engine, state_dir: &state_dir, clock: &self.context.clock, untouchable: &untouchable };
        let place = Place { repo: self.repo, site, folder: &folder, progress: &self.context.progress };
        let report = capture::capture(&place, &members, how, &|said| self.context.warn(said))?;
        Ok(report.snapshots.into_iter().zip(&captures).map(|(report, capture)| finish(report, capture, Vec::new(), self)).collect())
    }
}

/// A source, without what its policy leaves out.
pub(super) fn source(survey: &Survey, spec: &SourceSpec, capture: &Capture) -> Result<Box<dyn Source>> {
    let source = open::source(&capture.path)?;
    Ok(match survey.policy(spec).and_then(|policy| policy.exclude.as_ref()) {
        None => source,
        Some(exclude) => {
            let globs = exclude.value.clone();
            Box::new(Without::new(source, Arc::new(move |path| globs.iter().any(|glob| glob.matches(path)))))
        }
    })
}

/// The level that the sources' policies ask for: the stillest of several.
fn wanted(survey: &Survey, group: &Group) -> Wanted {
    let levels = || group.sources.iter().filter_map(|spec| survey.policy(spec)).map(|policy| policy.consistency.value);
    if levels().any(|level| level == settings::Wanted::Stop) {
        Wanted::Stopped
    } else if levels().any(|level| level == settings::Wanted::Hook) {
        Wanted::Hook
    } else if levels().next().is_some() && levels().all(|level| level == settings::Wanted::Fuzzy) {
        Wanted::Fuzzy
    } else {
        Wanted::Auto
    }
}

/// The longest time that any of them asks for; none when none is to be waited for.
fn wait_for(holders: &[&Holder]) -> Option<Duration> {
    let waits = holders.iter().filter_map(|holder| match holder.health.value {
        Health::Wait => StopOptions::default().wait,
        Health::WaitFor(time) => Some(time),
        Health::Ignore => None,
    });
    waits.max()
}

fn hooks_of(group: &Group, moment: Moment, engine: &dyn Engine) -> Result<Vec<(ContainerDetail, Hook)>> {
    let mut found = Vec::new();
    for hook in group.hooks.iter().filter(|hook| hook.moment == moment) {
        let mut command = Hook::command(hook.command.value.clone())?;
        if let Some(user) = &hook.user {
            command = command.with_user(&user.value)?;
        }
        if let Some(timeout) = &hook.timeout {
            command = command.with_timeout(timeout.value)?;
        }
        found.push((engine.container(&hook.container.id)?, command));
    }
    Ok(found)
}
