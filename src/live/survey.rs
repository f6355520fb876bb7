//! What the engine has, under the policy of labels and configuration: each volume and bind mount with its settings, and why it
//! is not covered if it is not. Three calls to the engine, and one pass over what they tell.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use serde::Serialize;

use super::labels::{self, Carrier, Reading, Remark};
use super::mounts::{bind_states, look_at_mounts};
use super::policy::{self, Policy, Subject};
use super::rules::Rules;
use super::settings::{Origin, Settings};
use super::speech::{Speech, names_nothing};
use super::stacks::{self, Stack};
use super::values::shown;
use crate::docker::users::PROJECT_LABEL;
use crate::docker::{ContainerInfo, Engine};
use crate::error::Result;
use crate::model::manifest::VolumeUser;
use crate::volume::discovery::{self, Inventory, VolumeSummary};
use crate::volume::spelling::SourceSpec;

/// A volume under its policy.
#[derive(Debug, Clone)]
pub struct VolumeState {
    /// What the engine knows.
    pub summary: VolumeSummary,
    /// Its settings.
    pub policy: Policy,
    /// Why it is not captured when all are; none when it is.
    pub uncovered: Option<String>,
    /// The application that it belongs to, where that was recognised.
    pub application: Option<String>,
}

/// A bind mount that a container's labels want captured.
#[derive(Debug, Clone)]
pub struct BindState {
    /// The folder, free of symlinks.
    pub path: PathBuf,
    /// The Compose project of the container that asks.
    pub project: Option<String>,
    /// Its settings.
    pub policy: Policy,
    /// Who reaches it.
    pub users: Vec<VolumeUser>,
    /// Why it is not captured when all are; none when it is.
    pub uncovered: Option<String>,
}

/// What holds data and is not captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uncovered {
    /// `volume`, `bind` or `tmpfs`.
    pub kind: &'static str,
    /// The volume's name or the folder on the engine's host; empty for what has neither.
    pub name: String,
    /// The container that it was found in; none for a volume.
    pub container: Option<String>,
    /// Where it is mounted there.
    pub destination: Option<String>,
    /// Whether the container can write to it. What it can only read is at least not changed by it.
    pub writable: bool,
    /// The Compose project that it belongs to.
    #[serde(skip)]
    pub project: Option<String>,
    /// Why. Printable.
    pub reason: String,
}

/// Everything that the engine has.
#[derive(Debug, Clone)]
pub struct Survey {
    /// The volumes, sorted by name.
    pub volumes: Vec<VolumeState>,
    /// The bind mounts that were asked for, sorted by path.
    pub binds: Vec<BindState>,
    /// The Compose projects, sorted by name.
    pub stacks: Vec<Stack>,
    /// What is not covered: volumes, then what containers mount.
    pub uncovered: Vec<Uncovered>,
    /// What is wrong with labels, and what in them was ignored.
    pub remarks: Vec<Remark>,
    /// Why volumes may be missing, in the engine's words.
    pub warnings: Vec<String>,
    /// What the engine said.
    pub inventory: Inventory,
    /// What labels and the configuration say about the containers, in their order.
    pub container_settings: Vec<Settings>,
    /// The operator's rules.
    pub rules: Rules,
}

impl Survey {
    /// Asks the engine.
    pub fn take(engine: &dyn Engine, rules: &Rules) -> Result<Self> {
        Inventory::take(engine).map(|inventory| Self::of(inventory, rules))
    }

    /// Looks at what an engine said.
    pub fn of(inventory: Inventory, rules: &Rules) -> Self {
        let listing = discovery::listing(&inventory);
        let elsewhere = inventory.elsewhere();
        let mut remarks = unknown_names(&inventory, rules);
        let readings: Vec<Reading> = inventory.containers.iter().map(|container| read_container(container, rules)).collect();
        for reading in &readings {
            remarks.extend(reading.remarks.iter().cloned());
        }
        let speech = Speech::new(&inventory.containers, &readings);
        let by_name: HashMap<&str, &VolumeSummary> = listing.volumes.iter().map(|volume| (volume.name.as_str(), volume)).collect();
        for (container, reading) in inventory.containers.iter().zip(&readings) {
            remarks.extend(names_nothing(container, &reading.settings, &by_name));
        }
        let volumes: Vec<VolumeState> = listing.volumes.iter().map(|volume| volume_state(volume, &speech, rules, &mut remarks)).collect();

        let mut uncovered: Vec<Uncovered> = volumes.iter().filter_map(uncovered_volume).collect();
        let mut asked = Vec::new();
        for (container, reading) in inventory.containers.iter().zip(&readings) {
            look_at_mounts(container, reading, elsewhere.as_deref(), rules, &mut asked, &mut uncovered);
        }
        let binds = bind_states(asked, &inventory, rules, &mut remarks, &mut uncovered);
        remarks.extend(idle_commands(&inventory, &readings, &volumes, &binds));
        let stacks = stacks::stacks(&inventory, &volumes, &binds, &uncovered);
        let container_settings = readings.into_iter().map(|reading| reading.settings).collect();
        Self { volumes, binds, stacks, uncovered, remarks, warnings: listing.warnings, inventory, container_settings, rules: rules.clone() }
    }

    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Option<&VolumeState> {
        self.volumes.binary_search_by(|volume| volume.summary.name.as_str().cmp(name)).ok().and_then(|at| self.volumes.get(at))
    }

    /// The settings of a source that the survey knows.
    pub fn policy(&self, spec: &SourceSpec) -> Option<&Policy> {
        match spec {
            SourceSpec::Volume(name) => self.volume(name).map(|volume| &volume.policy),
            SourceSpec::Path(path) => self.binds.iter().find(|bind| bind.path == *path).map(|bind| &bind.policy),
        }
    }

    /// Fills in which application each volume belongs to.
    pub fn recognise(&mut self, by: impl Fn(&VolumeSummary) -> Option<String>) {
        for volume in &mut self.volumes {
            volume.application = by(&volume.summary);
        }
    }
}

/// Sections of the configuration about things that are not there: nothing is wrong when they come and go, but a misspelt name
/// looks just like that.
fn unknown_names(inventory: &Inventory, rules: &Rules) -> Vec<Remark> {
    let projects = |labels: &BTreeMap<String, String>| labels.get(PROJECT_LABEL).cloned();
    let volumes: Vec<&str> = inventory.found.volumes.iter().map(|volume| volume.name.as_str()).collect();
    let containers: Vec<&str> = inventory.containers.iter().map(|container| container.name.as_str()).collect();
    let of_volumes = inventory.found.volumes.iter().filter_map(|volume| projects(&volume.labels));
    let stacks: Vec<String> = of_volumes.chain(inventory.containers.iter().filter_map(|container| projects(&container.labels))).collect();
    let stacks: Vec<&str> = stacks.iter().map(String::as_str).collect();
    let sections = [("volume", &rules.volumes, volumes), ("stack", &rules.stacks, stacks), ("container", &rules.containers, containers)];
    let missing = |(word, known, there): (&str, &BTreeMap<String, Settings>, Vec<&str>)| {
        let names: Vec<Remark> = known
            .keys()
            .filter(|name| !there.contains(&name.as_str()))
            .map(|name| {
                let remark = Remark::notice("configuration", format!("there is no {word} {} now, which has a section", shown(name)));
                match super::nearest::nearest(name, there.iter().copied()) {
                    Some(meant) => remark.hint(format!("did you mean [{word}.\"{}\"]?", shown(meant))),
                    None => remark,
                }
            })
            .collect();
        names
    };
    sections.into_iter().flat_map(missing).collect()
}

fn read_container(container: &ContainerInfo, rules: &Rules) -> Reading {
    let mut reading = labels::read(&container.labels, Carrier::Container(&container.name), rules);
    if let Some(configured) = rules.containers.get(&container.name) {
        reading.settings = std::mem::take(&mut reading.settings).over(configured.clone());
    }
    reading
}

/// Containers whose hooks and dumps are asked for and never run, because nothing of theirs is captured.
fn idle_commands(inventory: &Inventory, readings: &[Reading], volumes: &[VolumeState], binds: &[BindState]) -> Vec<Remark> {
    let covered = volumes.iter().filter(|volume| volume.uncovered.is_none()).map(|volume| &volume.policy);
    let policies = covered.chain(binds.iter().filter(|bind| bind.uncovered.is_none()).map(|bind| &bind.policy));
    let used: HashSet<&str> = policies
        .flat_map(|policy| policy.hooks.iter().map(|hook| &hook.container).chain(policy.dumps.iter().map(|dump| &dump.container)))
        .map(|container| container.name.as_str())
        .collect();
    let asks = |settings: &Settings| {
        settings.hooks.values().any(|hook| hook.command.is_some()) || settings.dump.as_ref().is_some_and(|dump| !dump.value.is_empty())
    };
    let idle = inventory
        .containers
        .iter()
        .zip(readings)
        .filter(|(container, reading)| asks(&reading.settings) && !used.contains(container.name.as_str()));
    idle.map(|(container, _)| {
        let on = Carrier::Container(&container.name).shown();
        Remark::notice(on, "its hooks and dumps never run: nothing that it can write to is captured")
    })
    .collect()
}

fn volume_state(summary: &VolumeSummary, speech: &Speech<'_>, rules: &Rules, remarks: &mut Vec<Remark>) -> VolumeState {
    let labels: BTreeMap<String, String> = summary.labels.iter().cloned().collect();
    let own = labels::read(&labels, Carrier::Volume(&summary.name), rules);
    remarks.extend(own.remarks);
    let speakers = speech.speakers(summary);
    let on = Carrier::Volume(&summary.name).shown();
    let subject = Subject { on: &on, project: summary.project.as_deref(), users: &summary.users };
    let configured = policy::configured(rules, Some(&summary.name), summary.project.as_deref());
    let policy = policy::resolve(&subject, configured, (own.settings, own.plain), &speakers, rules, remarks);
    let uncovered = refusal(summary, &policy, rules);
    VolumeState { summary: summary.clone(), policy, uncovered, application: None }
}

fn refusal(summary: &VolumeSummary, policy: &Policy, rules: &Rules) -> Option<String> {
    // A setting for all of a stack is not meant for what only the engine has a name for.
    let by_name = |origin: &Origin| match origin {
        Origin::Config(section) => section.starts_with("[volume."),
        _ => true,
    };
    if summary.anonymous && !policy.enable.as_ref().is_some_and(|enable| enable.value && by_name(&enable.origin)) {
        return Some(match policy.refusal(rules.discover) {
            Some(reason) if policy.enable.is_some() => reason,
            _ => "it has no name; icecore.volumes on its container can ask for it by where it is mounted".to_owned(),
        });
    }
    policy.refusal(rules.discover).or_else(|| summary.unreadable.as_ref().map(|why| format!("it cannot be read: {why}")))
}

pub(super) fn uncovered_volume(volume: &VolumeState) -> Option<Uncovered> {
    let summary = &volume.summary;
    Some(Uncovered {
        kind: "volume",
        name: summary.name.clone(),
        container: None,
        destination: None,
        writable: summary.users.iter().any(|user| user.writable),
        project: summary.project.clone(),
        reason: volume.uncovered.clone()?,
    })
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
