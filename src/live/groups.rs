//! What is captured at one moment, and which containers have to be held for it: the volumes of a group, and all that can
//! write to them. A group is a Compose project unless settings say otherwise.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::labels::Remark;
use super::policy::{Dump, Hook, Policy};
use super::settings::{Health, Origin, Setting};
use super::survey::Survey;
use super::values::shown;
use crate::docker::ContainerInfo;
use crate::docker::users::{PROJECT_LABEL, is_writing};
use crate::model::manifest::VolumeUser;
use crate::volume::spelling::SourceSpec;

/// A container that can write to what a group holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: String,
    /// The Compose project that it belongs to.
    pub project: Option<String>,
    /// It belongs to no project of what it writes to.
    pub outsider: bool,
    /// How long it gets to stop, if anybody says.
    pub stop_timeout: Option<Setting<Duration>>,
    /// What is waited for after it was started again.
    pub health: Setting<Health>,
}

/// Sources that are captured at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What it is called.
    pub name: String,
    /// Its sources, in the order in which they were given.
    pub sources: Vec<SourceSpec>,
    /// The containers to hold, sorted by name.
    pub holders: Vec<Holder>,
    /// Containers that can write and are not held because the configuration says so: nothing is frozen then, whatever else is.
    pub left: Vec<Holder>,
    /// The hooks of its sources, each once.
    pub hooks: Vec<Hook>,
    /// The dumps of its sources, each once.
    pub dumps: Vec<Dump>,
    /// How long its freeze may take: the shortest time that any of its sources allows.
    pub freeze_budget: Setting<Duration>,
    /// What a user should hear of.
    pub remarks: Vec<Remark>,
}

/// What groups a source.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Bond {
    /// A group of the configuration, or of labels that may reach over projects.
    Named(String),
    /// A group of a project's labels.
    NamedIn(Option<String>, String),
    /// The project.
    Project(String),
    /// Writers in common: the number of the first such source.
    Shared(usize),
}

/// One source with what is known of it.
struct Member<'a> {
    spec: &'a SourceSpec,
    policy: Option<&'a Policy>,
    project: Option<&'a str>,
    users: &'a [VolumeUser],
}

/// Puts sources into groups, in the order of their first sources. A source that the survey does not know is a group of its own
/// without holders.
pub fn groups(survey: &Survey, specs: &[SourceSpec]) -> Vec<Group> {
    let members: Vec<Member> = specs.iter().map(|spec| member(survey, spec)).collect();
    let bonds = bonds(&members, survey.rules.cross_project_groups);
    let mut order: Vec<&Bond> = Vec::new();
    let mut by_bond: HashMap<&Bond, Vec<&Member>> = HashMap::new();
    for (member, bond) in members.iter().zip(&bonds) {
        let all = by_bond.entry(bond).or_default();
        if all.is_empty() {
            order.push(bond);
        }
        all.push(member);
    }
    let containers: HashMap<&str, usize> =
        survey.inventory.containers.iter().enumerate().map(|(at, container)| (container.name.as_str(), at)).collect();
    let same_name = names_of_several(&bonds);
    let made = order.into_iter().filter_map(|bond| by_bond.get(bond).map(|members| (bond, members)));
    made.map(|(bond, members)| group(survey, bond, members, &containers, &same_name)).collect()
}

fn member<'a>(survey: &'a Survey, spec: &'a SourceSpec) -> Member<'a> {
    let (project, users) = match spec {
        SourceSpec::Volume(name) => survey.volume(name).map(|volume| (volume.summary.project.as_deref(), &volume.summary.users[..])),
        SourceSpec::Path(path) => {
            survey.binds.iter().find(|bind| bind.path == *path).map(|bind| (bind.project.as_deref(), &bind.users[..]))
        }
    }
    .unwrap_or((None, &[]));
    Member { spec, policy: survey.policy(spec), project, users }
}

/// The project of a source: its own, else the one that all its writers belong to.
fn home<'a>(member: &Member<'a>) -> Option<&'a str> {
    if member.project.is_some() {
        return member.project;
    }
    let writers: BTreeSet<Option<&str>> = member.users.iter().filter(|user| user.writable).map(|user| user.project.as_deref()).collect();
    match writers.into_iter().collect::<Vec<_>>()[..] {
        [Some(project)] => Some(project),
        _ => None,
    }
}

fn bonds(members: &[Member<'_>], cross_project: bool) -> Vec<Bond> {
    let own = |member: &Member| -> Option<Bond> {
        let home = home(member);
        match member.policy.and_then(|policy| policy.group.as_ref()) {
            Some(group) if cross_project || matches!(group.origin, Origin::Config(_)) => Some(Bond::Named(group.value.clone())),
            Some(group) => Some(Bond::NamedIn(home.map(str::to_owned), group.value.clone())),
            None => home.map(|project| Bond::Project(project.to_owned())),
        }
    };
    let known: Vec<Option<Bond>> = members.iter().map(own).collect();
    let mut shared = Circles::new(members.len());
    let mut by_writer: HashMap<&str, usize> = HashMap::new();
    for (at, member) in members.iter().enumerate().filter(|(at, _)| known.get(*at).is_some_and(Option::is_none)) {
        for user in member.users.iter().filter(|user| user.writable) {
            let first = *by_writer.entry(user.container.as_str()).or_insert(at);
            shared.join(first, at);
        }
    }
    known.into_iter().enumerate().map(|(at, bond)| bond.unwrap_or_else(|| Bond::Shared(shared.of(at)))).collect()
}

/// Sets of numbers that are joined two by two; each set is known by its least number.
struct Circles(Vec<usize>);

impl Circles {
    fn new(count: usize) -> Self {
        Self((0..count).collect())
    }

    fn of(&mut self, mut at: usize) -> usize {
        while let Some(&up) = self.0.get(at).filter(|&&up| up != at) {
            let above = self.0.get(up).copied().unwrap_or(up);
            if let Some(place) = self.0.get_mut(at) {
                *place = above;
            }
            at = up;
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.of(a), self.of(b));
        if let Some(place) = self.0.get_mut(a.max(b)) {
            *place = a.min(b);
        }
    }
}

/// Names that groups of several projects have. They are several groups, which somebody may not have meant.
fn names_of_several(bonds: &[Bond]) -> BTreeSet<String> {
    let mut projects: BTreeMap<&str, BTreeSet<&Option<String>>> = BTreeMap::new();
    for bond in bonds {
        if let Bond::NamedIn(project, name) = bond {
            projects.entry(name).or_default().insert(project);
        }
    }
    projects.into_iter().filter(|(_, projects)| projects.len() > 1).map(|(name, _)| name.to_owned()).collect()
}

fn group(survey: &Survey, bond: &Bond, members: &[&Member<'_>], containers: &HashMap<&str, usize>, same_name: &BTreeSet<String>) -> Group {
    let name = match bond {
        Bond::Named(name) | Bond::Project(name) | Bond::NamedIn(None, name) => name.clone(),
        Bond::NamedIn(Some(project), name) => format!("{project}/{name}"),
        Bond::Shared(_) => members.first().map_or_else(String::new, |member| spec_name(member.spec)),
    };
    let on = format!("group {}", shown(&name));
    let mut remarks = Vec::new();
    if let Bond::NamedIn(_, word) = bond
        && same_name.contains(word)
    {
        let remark =
            Remark::notice(&on, format!("another project has a group {}, too; they are captured one after the other", shown(word)));
        remarks.push(remark.hint("cross_project_groups = true in the configuration makes them one"));
    }
    let (mut holders, mut left) = (Vec::new(), Vec::new());
    for (container, reached) in writers(members) {
        let Some(holder) = containers.get(container).and_then(|at| holder(survey, *at, &reached)) else { continue };
        if holder.outsider {
            remarks.push(outsider_remark(&on, &holder, &reached, survey.rules.leave_outsiders));
        }
        if holder.outsider && survey.rules.leave_outsiders { left.push(holder) } else { holders.push(holder) }
    }
    let budgets = members.iter().filter_map(|member| member.policy.map(|policy| &policy.freeze_budget));
    let freeze_budget =
        budgets.min_by_key(|budget| budget.value).cloned().unwrap_or(Setting::new(super::policy::FREEZE_BUDGET_DEFAULT, Origin::Default));
    let policies = || members.iter().filter_map(|member| member.policy);
    let (hooks, dumps) = (once(policies().flat_map(|policy| &policy.hooks)), once(policies().flat_map(|policy| &policy.dumps)));
    Group { name, hooks, dumps, sources: members.iter().map(|member| member.spec.clone()).collect(), holders, left, freeze_budget, remarks }
}

/// A container with several volumes asks for its commands with each of them.
fn once<'a, T: Clone + PartialEq + 'a>(all: impl Iterator<Item = &'a T>) -> Vec<T> {
    let mut found: Vec<T> = Vec::new();
    for one in all {
        if !found.contains(one) {
            found.push(one.clone());
        }
    }
    found
}

/// The containers that can write to the members now, and to which.
fn writers<'a>(members: &[&Member<'a>]) -> BTreeMap<&'a str, Vec<(&'a SourceSpec, Option<&'a str>)>> {
    let mut found: BTreeMap<&str, Vec<(&SourceSpec, Option<&str>)>> = BTreeMap::new();
    for member in members {
        for user in member.users.iter().filter(|user| is_writing(user)) {
            let reached = found.entry(user.container.as_str()).or_default();
            if !reached.iter().any(|(spec, _)| *spec == member.spec) {
                reached.push((member.spec, member.project));
            }
        }
    }
    found
}

fn holder(survey: &Survey, at: usize, reached: &[(&SourceSpec, Option<&str>)]) -> Option<Holder> {
    let container: &ContainerInfo = survey.inventory.containers.get(at)?;
    let settings = survey.container_settings.get(at)?;
    let project = container.labels.get(PROJECT_LABEL);
    let outsider = reached.iter().all(|(_, owner)| owner.is_some_and(|owner| project.is_none_or(|project| project != owner)));
    // A source's own settings are for containers that say nothing themselves.
    let policies = || reached.iter().filter_map(|(spec, _)| survey.policy(spec));
    let stop_timeout = || policies().filter_map(|policy| policy.stop_timeout.clone()).max_by_key(|timeout| timeout.value);
    let health = || {
        let mut said = policies().map(|policy| policy.health.clone());
        said.find(|health| health.origin != Origin::Default).unwrap_or(Setting::new(Health::Wait, Origin::Default))
    };
    Some(Holder {
        id: container.id.clone(),
        name: container.name.clone(),
        state: container.state.clone(),
        project: project.cloned(),
        outsider,
        stop_timeout: settings.stop_timeout.clone().or_else(stop_timeout),
        health: settings.health.clone().unwrap_or_else(health),
    })
}

fn outsider_remark(on: &str, holder: &Holder, reached: &[(&SourceSpec, Option<&str>)], leave: bool) -> Remark {
    let names: Vec<String> = reached.iter().map(|(spec, _)| shown(&spec_name(spec))).collect();
    let whose = holder.project.as_deref().map_or_else(|| "no project".to_owned(), |project| format!("project {}", shown(project)));
    let message = format!("container {} of {whose} can write to {}", shown(&holder.name), names.join(", "));
    let remark = if leave {
        Remark::problem(on, format!("{message} and is not held: the snapshot is fuzzy"))
    } else {
        Remark::notice(on, format!("{message} and is held, too"))
    };
    remark.hint(if leave {
        "outsiders = \"hold\" in the configuration holds it"
    } else {
        "outsiders = \"leave\" in the configuration leaves it alone"
    })
}

fn spec_name(spec: &SourceSpec) -> String {
    match spec {
        SourceSpec::Volume(name) => name.clone(),
        SourceSpec::Path(path) => path.to_string_lossy().into_owned(),
    }
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
