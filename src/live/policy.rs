//! The effective settings of one volume or bind mount: built-in values, under the configuration file, under the volume's
//! labels, under those of the containers that may speak for it. Each value remembers where it came from.

use std::time::Duration;

use super::glob::Glob;
use super::keep::Keep;
use super::keys::{Key, Moment};
use super::labels::Remark;
use super::rules::{Discover, Rules};
use super::schedule::Schedule;
use super::settings::{Health, Origin, Priority, Setting, Settings, Wanted};
use super::values::{show_duration, shown};
use crate::model::manifest::VolumeUser;

/// How long a freeze may take where nobody says otherwise.
pub const FREEZE_BUDGET_DEFAULT: Duration = Duration::from_secs(5);

/// A container, as it can be named to the engine and to people.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerName {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// A command that runs in the container whose label names it, and in no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Where it runs.
    pub container: ContainerName,
    /// When.
    pub moment: Moment,
    /// The program and its arguments.
    pub command: Setting<Vec<String>>,
    /// As whom; none for the container's own user.
    pub user: Option<Setting<String>>,
    /// How long it may take, if anybody says.
    pub timeout: Option<Setting<Duration>>,
}

/// A dump that is taken in the container whose label asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    /// Where it is taken.
    pub container: ContainerName,
    /// The preset, such as `postgres` or `sqlite:/data/app.db`.
    pub preset: Setting<String>,
}

/// The effective settings of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether it is captured, if anybody says.
    pub enable: Option<Setting<bool>>,
    /// How still it is held.
    pub consistency: Setting<Wanted>,
    /// How long a freeze may take.
    pub freeze_budget: Setting<Duration>,
    /// How long containers get to stop that say nothing themselves; none for the engine's own time.
    pub stop_timeout: Option<Setting<Duration>>,
    /// What is waited for after a start of containers that say nothing themselves.
    pub health: Setting<Health>,
    /// With what it is captured at one moment; none for its project.
    pub group: Option<Setting<String>>,
    /// Dumps.
    pub dumps: Vec<Dump>,
    /// Hooks.
    pub hooks: Vec<Hook>,
    /// How many snapshots are kept, if anybody says.
    pub keep: Option<Setting<Keep>>,
    /// Which files are left out.
    pub exclude: Option<Setting<Vec<Glob>>>,
    /// When, if anybody says.
    pub schedule: Option<Setting<Schedule>>,
    /// How important it is.
    pub priority: Setting<Priority>,
    /// Words about it.
    pub description: Option<Setting<String>>,
}

/// What a policy is of.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// As it is named in remarks.
    pub on: &'a str,
    /// The Compose project that it belongs to.
    pub project: Option<&'a str>,
    /// Who reaches it.
    pub users: &'a [VolumeUser],
}

/// A container that may speak for a source: it can write to it, and its labels are about it.
#[derive(Debug, Clone)]
pub struct Speaker<'a> {
    /// Which it is.
    pub container: ContainerName,
    /// The Compose project that it belongs to.
    pub project: Option<&'a str>,
    /// Its labels, over what the configuration says of it.
    pub settings: &'a Settings,
    /// Its labels `backup` and `description`.
    pub plain: &'a Settings,
    /// Whether it wants this source captured, if it says so.
    pub enable: Option<Setting<bool>>,
}

/// What the configuration says of a source: of the volume, of its project, of all.
pub fn configured(rules: &Rules, volume: Option<&str>, project: Option<&str>) -> Settings {
    let of_volume = volume.and_then(|name| rules.volumes.get(name)).cloned().unwrap_or_default();
    let of_stack = project.and_then(|name| rules.stacks.get(name)).cloned().unwrap_or_default();
    of_volume.over(of_stack).over(rules.defaults.clone())
}

/// Puts a policy together. `configured` is what the configuration says, `own` and `own_plain` are the volume's labels. Of
/// `speakers` the earlier ones count more where they differ. Says in `remarks` what is ignored.
pub fn resolve(
    subject: &Subject<'_>,
    configured: Settings,
    (own, own_plain): (Settings, Settings),
    speakers: &[Speaker<'_>],
    rules: &Rules,
    remarks: &mut Vec<Remark>,
) -> Policy {
    let plain = merge(subject, speakers, |speaker| speaker.plain, &mut Vec::new(), rules);
    let mut spoken = merge(subject, speakers, |speaker| speaker.settings, remarks, rules);
    spoken.enable = enable(subject, speakers, remarks);
    let all = spoken.over(own).over(own_plain).over(plain).over(configured);
    let taking_part: Vec<&Speaker> = speakers.iter().filter(|speaker| speaker.enable.as_ref().is_none_or(|enable| enable.value)).collect();
    Policy {
        enable: all.enable,
        consistency: all.consistency.unwrap_or(Setting::new(Wanted::Auto, Origin::Default)),
        freeze_budget: all.freeze_budget.unwrap_or(Setting::new(FREEZE_BUDGET_DEFAULT, Origin::Default)),
        stop_timeout: all.stop_timeout,
        health: all.health.unwrap_or(Setting::new(Health::Wait, Origin::Default)),
        group: all.group,
        dumps: taking_part.iter().flat_map(|speaker| dumps(speaker)).collect(),
        hooks: taking_part.iter().flat_map(|speaker| hooks(speaker)).collect(),
        keep: all.keep,
        exclude: all.exclude,
        schedule: all.schedule,
        priority: all.priority.unwrap_or(Setting::new(Priority::Medium, Origin::Default)),
        description: all.description,
    }
}

fn dumps(speaker: &Speaker<'_>) -> Vec<Dump> {
    let Some(presets) = &speaker.settings.dump else { return Vec::new() };
    let dump =
        |preset: &String| Dump { container: speaker.container.clone(), preset: Setting::new(preset.clone(), presets.origin.clone()) };
    presets.value.iter().map(dump).collect()
}

fn hooks(speaker: &Speaker<'_>) -> Vec<Hook> {
    let hook = |(moment, hook): (&Moment, &super::settings::HookSettings)| {
        Some(Hook {
            container: speaker.container.clone(),
            moment: *moment,
            command: hook.command.clone()?,
            user: hook.user.clone(),
            timeout: hook.timeout.clone(),
        })
    };
    speaker.settings.hooks.iter().filter_map(hook).collect()
}

/// Whether the containers want the source captured. One that does outweighs those that do not: to leave out what somebody
/// counts on is the worse mistake.
fn enable(subject: &Subject<'_>, speakers: &[Speaker<'_>], remarks: &mut Vec<Remark>) -> Option<Setting<bool>> {
    let said: Vec<&Setting<bool>> = speakers.iter().filter_map(|speaker| speaker.enable.as_ref()).collect();
    let wanted = said.iter().find(|setting| setting.value);
    if let (Some(wanted), Some(other)) = (wanted, said.iter().find(|setting| !setting.value)) {
        remarks.push(Remark::notice(subject.on, format!("it is captured: {} outweighs {}", wanted.origin, other.origin)));
    }
    wanted.or(said.first()).map(|setting| (*setting).clone())
}

/// What the containers say about the source. Settings of the containers themselves are not among it.
fn merge<'a>(
    subject: &Subject<'_>,
    speakers: &[Speaker<'a>],
    of: impl Fn(&Speaker<'a>) -> &'a Settings,
    remarks: &mut Vec<Remark>,
    rules: &Rules,
) -> Settings {
    let all: Vec<&Settings> = speakers.iter().map(&of).collect();
    let mut differing = Vec::new();
    let mut merged = Settings {
        schedule: first(all.iter().map(|settings| &settings.schedule), Key::Schedule, &mut differing),
        consistency: first(all.iter().map(|settings| &settings.consistency), Key::Consistency, &mut differing),
        freeze_budget: first(all.iter().map(|settings| &settings.freeze_budget), Key::FreezeBudget, &mut differing),
        keep: first(all.iter().map(|settings| &settings.keep), Key::Keep, &mut differing),
        exclude: first(all.iter().map(|settings| &settings.exclude), Key::Exclude, &mut differing),
        description: first(all.iter().map(|settings| &settings.description), Key::Description, &mut differing),
        ..Settings::default()
    };
    // The more important one: who thinks less of it loses nothing.
    merged.priority = all.iter().filter_map(|settings| settings.priority.as_ref()).min_by_key(|setting| setting.value).cloned();
    let groups: Vec<Option<Setting<String>>> = speakers
        .iter()
        .map(|speaker| {
            let group = of(speaker).group.clone()?;
            if may_group(subject, speaker, rules) {
                return Some(group);
            }
            let message = format!("{} is ignored: it would hold containers of another project", group.origin);
            remarks.push(Remark::notice(subject.on, message).hint("cross_project_groups = true in the configuration allows that"));
            None
        })
        .collect();
    merged.group = first(groups.iter(), Key::Group, &mut differing);
    for (key, used, other) in differing {
        remarks.push(Remark::notice(subject.on, format!("containers differ about {}: {used} counts, {other} does not", key.name())));
    }
    merged
}

/// Whether a container's labels may choose the group of the source: only within its own project, to which what is nobody's
/// counts as long as nobody else writes to it.
fn may_group(subject: &Subject<'_>, speaker: &Speaker<'_>, rules: &Rules) -> bool {
    let same = |project: Option<&str>| project == speaker.project;
    let writers_too = || subject.users.iter().filter(|user| user.writable).all(|user| same(user.project.as_deref()));
    rules.cross_project_groups || same(subject.project) || (subject.project.is_none() && writers_too())
}

/// The first that is said, and in `differing` a later one that is not the same.
fn first<'s, T: Clone + PartialEq + 's>(
    said: impl Iterator<Item = &'s Option<Setting<T>>>,
    key: Key,
    differing: &mut Vec<(Key, String, String)>,
) -> Option<Setting<T>> {
    let mut said = said.flatten();
    let first = said.next()?;
    if let Some(other) = said.find(|other| other.value != first.value) {
        differing.push((key, first.origin.to_string(), other.origin.to_string()));
    }
    Some(first.clone())
}

impl Policy {
    /// Why a source with a name of its own is not captured by this policy; none when it is.
    pub fn refusal(&self, discover: Discover) -> Option<String> {
        match &self.enable {
            Some(enable) if enable.value => None,
            Some(enable) => Some(format!("left out by {}", enable.origin)),
            None if self.priority.value == Priority::None => Some(format!("its priority is none, by {}", self.priority.origin)),
            None if discover == Discover::Labelled && matches!(self.priority.origin, Origin::Default | Origin::Config(_)) => {
                Some("no label asks for it, and the configuration has discover = \"labelled\"".to_owned())
            }
            None => None,
        }
    }

    /// All that has a value: setting, value and origin as texts. Printable.
    pub fn facts(&self) -> Vec<(&'static str, String, String)> {
        let mut facts = Vec::new();
        let mut add = |key: Key, value: String, origin: &Origin| facts.push((key.name(), value, origin.to_string()));
        if let Some(enable) = &self.enable {
            add(Key::Enable, enable.value.to_string(), &enable.origin);
        }
        add(Key::Priority, self.priority.value.to_string(), &self.priority.origin);
        if let Some(description) = &self.description {
            add(Key::Description, shown(&description.value), &description.origin);
        }
        if let Some(schedule) = &self.schedule {
            add(Key::Schedule, schedule.value.to_string(), &schedule.origin);
        }
        if let Some(keep) = &self.keep {
            add(Key::Keep, keep.value.to_string(), &keep.origin);
        }
        if let Some(exclude) = &self.exclude {
            let globs: Vec<&str> = exclude.value.iter().map(Glob::as_str).collect();
            add(Key::Exclude, globs.join(","), &exclude.origin);
        }
        add(Key::Consistency, self.consistency.value.to_string(), &self.consistency.origin);
        add(Key::FreezeBudget, show_duration(self.freeze_budget.value), &self.freeze_budget.origin);
        if let Some(timeout) = &self.stop_timeout {
            add(Key::StopTimeout, show_duration(timeout.value), &timeout.origin);
        }
        add(Key::Health, self.health.value.to_string(), &self.health.origin);
        if let Some(group) = &self.group {
            add(Key::Group, group.value.clone(), &group.origin);
        }
        for dump in &self.dumps {
            add(Key::Dump, dump.preset.value.clone(), &dump.preset.origin);
        }
        for hook in &self.hooks {
            let argv = serde_json::to_string(&hook.command.value).unwrap_or_default();
            add(Key::Hook(hook.moment), shown(&argv), &hook.command.origin);
            if let Some(user) = &hook.user {
                add(Key::HookUser(hook.moment), user.value.clone(), &user.origin);
            }
            if let Some(timeout) = &hook.timeout {
                add(Key::HookTimeout(hook.moment), show_duration(timeout.value), &timeout.origin);
            }
        }
        facts
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn settings(pairs: &[(Key, &str)], origin: Origin) -> Settings {
        let mut settings = Settings::default();
        pairs.iter().for_each(|(key, text)| settings.set(*key, text, origin.clone()).unwrap());
        settings
    }

    fn config(section: &str, pairs: &[(Key, &str)]) -> Settings {
        settings(pairs, Origin::Config(section.into()))
    }

    fn label(container: &str, pairs: &[(Key, &str)]) -> Settings {
        settings(pairs, Origin::ContainerLabel { container: container.into(), label: "l".into() })
    }

    static NONE: std::sync::LazyLock<Settings> = std::sync::LazyLock::new(Settings::default);

    fn speaker<'a>(name: &str, project: Option<&'a str>, settings: &'a Settings) -> Speaker<'a> {
        let container = ContainerName { id: format!("id-{name}"), name: name.into() };
        Speaker { container, project, settings, plain: &NONE, enable: settings.enable.clone() }
    }

    fn user(container: &str, project: Option<&str>) -> VolumeUser {
        VolumeUser {
            container: container.into(),
            image: String::new(),
            state: "running".into(),
            destination: "/d".into(),
            writable: true,
            project: project.map(str::to_owned),
            service: None,
        }
    }

    fn of(subject: &Subject, rules: &Rules, own: Settings, speakers: &[Speaker]) -> (Policy, Vec<Remark>) {
        let mut remarks = Vec::new();
        let policy =
            resolve(subject, configured(rules, Some("db"), subject.project), (own, Settings::default()), speakers, rules, &mut remarks);
        (policy, remarks)
    }

    const SHOP: Subject = Subject { on: "volume db", project: Some("shop"), users: &[] };

    /// For each setting of a volume two values that differ, as texts.
    const PAIRS: [(Key, &str, &str); 11] = [
        (Key::Enable, "true", "false"),
        (Key::Priority, "high", "low"),
        (Key::Description, "a", "b"),
        (Key::Schedule, "@daily", "@hourly"),
        (Key::Keep, "last=1", "last=2"),
        (Key::Exclude, "a", "b"),
        (Key::Consistency, "pause", "stop"),
        (Key::FreezeBudget, "1s", "2s"),
        (Key::StopTimeout, "1s", "2s"),
        (Key::Health, "wait", "none"),
        (Key::Group, "a", "b"),
    ];

    fn fact(policy: &Policy, key: Key) -> Option<(String, String)> {
        policy.facts().into_iter().find(|(name, ..)| *name == key.name()).map(|(_, value, origin)| (value, origin))
    }

    #[test]
    fn of_each_setting_the_later_source_wins() {
        for (key, low, high) in PAIRS {
            let mut rules = Rules { defaults: config("[defaults]", &[(key, low)]), ..Rules::default() };
            let expect = |rules: &Rules, own: &Settings, speakers: &[Speaker], value: &str, origin: &str| {
                let (policy, remarks) = of(&SHOP, rules, own.clone(), speakers);
                let found = fact(&policy, key).unwrap();
                assert_eq!((found.0.as_str(), found.1.contains(origin)), (value, true), "{key:?} {found:?}");
                assert!(remarks.is_empty(), "{remarks:?}");
            };
            let none = Settings::default();
            expect(&rules, &none, &[], low, "[defaults]");
            rules.stacks.insert("other".into(), config("[other]", &[(key, high)]));
            expect(&rules, &none, &[], low, "[defaults]");
            rules.stacks.insert("shop".into(), config("[stack]", &[(key, high)]));
            expect(&rules, &none, &[], high, "[stack]");
            rules.volumes.insert("db".into(), config("[volume]", &[(key, low)]));
            expect(&rules, &none, &[], low, "[volume]");
            let own = settings(&[(key, high)], Origin::VolumeLabel("v".into()));
            expect(&rules, &own, &[], high, "label v of the volume");
            if !matches!(key, Key::StopTimeout | Key::Health) {
                let spoken = label("web", &[(key, low)]);
                expect(&rules, &own, &[speaker("web", Some("shop"), &spoken)], low, "of container web");
            }
        }
    }

    #[test]
    fn without_any_source_the_built_in_values_count() {
        let (policy, _) = of(&SHOP, &Rules::default(), Settings::default(), &[]);
        assert_eq!((policy.consistency.value, policy.freeze_budget.value), (Wanted::Auto, Duration::from_secs(5)));
        assert_eq!((policy.priority.value, policy.health.value), (Priority::Medium, Health::Wait));
        assert!(policy.facts().iter().all(|(.., origin)| origin == "default"));
        assert_eq!(policy.refusal(Discover::All), None);
    }

    #[test]
    fn plain_labels_of_containers_stand_below_those_of_the_volume() {
        let plain = label("web", &[(Key::Priority, "low"), (Key::Description, "of the container")]);
        let speak = Speaker { plain: &plain, ..speaker("web", Some("shop"), &NONE) };
        let rules = Rules { defaults: config("[defaults]", &[(Key::Priority, "critical")]), ..Rules::default() };
        let (policy, _) = of(&SHOP, &rules, Settings::default(), std::slice::from_ref(&speak));
        assert_eq!((policy.priority.value, policy.description.unwrap().value.as_str()), (Priority::Low, "of the container"));
        let own = settings(&[(Key::Description, "of the volume")], Origin::VolumeLabel("description".into()));
        let (policy, _) = of(&SHOP, &rules, own, &[speak]);
        assert_eq!(policy.description.unwrap().value, "of the volume");
    }

    #[test]
    fn containers_that_differ_are_said_and_the_careful_answer_counts() {
        let (one, two) = (
            label("a", &[(Key::Enable, "false"), (Key::Priority, "low"), (Key::Keep, "last=1")]),
            label("b", &[(Key::Enable, "true"), (Key::Priority, "high"), (Key::Keep, "last=2")]),
        );
        let (policy, remarks) = of(&SHOP, &Rules::default(), Settings::default(), &[speaker("a", None, &one), speaker("b", None, &two)]);
        assert!(policy.enable.unwrap().value);
        assert_eq!((policy.priority.value, policy.keep.unwrap().value.to_string().as_str()), (Priority::High, "last=1"));
        assert_eq!(remarks.len(), 2, "{remarks:?}");
        assert!(remarks.iter().any(|remark| remark.message.contains("differ about keep")));
    }

    #[test]
    fn hooks_and_dumps_run_in_the_container_that_asks_and_only_if_it_takes_part() {
        let asks = label(
            "db",
            &[
                (Key::Dump, "postgres,redis"),
                (Key::Hook(Moment::Pre), "sh: sync"),
                (Key::HookUser(Moment::Pre), "pg"),
                (Key::HookTimeout(Moment::Post), "1m"),
            ],
        );
        let quiet = label("out", &[(Key::Enable, "no"), (Key::Hook(Moment::Pre), "sh: x"), (Key::Dump, "mysql")]);
        let (policy, _) = of(&SHOP, &Rules::default(), Settings::default(), &[speaker("db", None, &asks), speaker("out", None, &quiet)]);
        let hooks: Vec<_> =
            policy.hooks.iter().map(|hook| (hook.container.id.as_str(), hook.moment, hook.command.value[2].as_str())).collect();
        assert_eq!(hooks, [("id-db", Moment::Pre, "sync")]);
        assert_eq!(policy.hooks[0].user.as_ref().unwrap().value, "pg");
        let dumps: Vec<_> = policy.dumps.iter().map(|dump| (dump.container.name.as_str(), dump.preset.value.as_str())).collect();
        assert_eq!(dumps, [("db", "postgres"), ("db", "redis")]);
    }

    #[test]
    fn a_label_cannot_pull_another_project_into_a_group_unless_the_operator_allows_it() {
        let group = label("web", &[(Key::Group, "g")]);
        let allow = Rules { cross_project_groups: true, ..Rules::default() };
        let shop = [user("a", Some("shop"))];
        let mixed = [user("a", Some("shop")), user("b", Some("bank"))];
        for (project, users, speaks, expected) in [
            (Some("shop"), &shop[..], Some("shop"), true),
            (Some("shop"), &shop[..], Some("bank"), false),
            (Some("shop"), &shop[..], None, false),
            (Some("shop"), &mixed[..], Some("shop"), true),
            (None, &shop[..], Some("shop"), true),
            (None, &mixed[..], Some("shop"), false),
            (None, &[][..], None, true),
        ] {
            let subject = Subject { on: "volume db", project, users };
            let (policy, remarks) = of(&subject, &Rules::default(), Settings::default(), &[speaker("web", speaks, &group)]);
            assert_eq!((policy.group.is_some(), remarks.is_empty()), (expected, expected), "{project:?} {speaks:?}");
            assert!(of(&subject, &allow, Settings::default(), &[speaker("web", speaks, &group)]).0.group.is_some());
        }
    }

    #[test]
    fn what_is_left_out_says_by_whom() {
        let refusal = |pairs: &[(Key, &str)], discover| {
            let own = settings(pairs, Origin::VolumeLabel("l".into()));
            of(&SHOP, &Rules::default(), own, &[]).0.refusal(discover)
        };
        for discover in [Discover::All, Discover::Labelled] {
            assert_eq!(refusal(&[(Key::Enable, "true")], discover), None);
            assert_eq!(refusal(&[(Key::Enable, "true"), (Key::Priority, "none")], discover), None);
            assert!(refusal(&[(Key::Enable, "false")], discover).unwrap().contains("label l of the volume"));
            assert!(refusal(&[(Key::Priority, "none")], discover).unwrap().contains("priority"));
            assert_eq!(refusal(&[(Key::Priority, "low")], discover), None, "a priority asks for it");
        }
        assert_eq!(refusal(&[], Discover::All), None);
        assert!(refusal(&[], Discover::Labelled).unwrap().contains("labelled"));
        let rules = Rules { defaults: config("[defaults]", &[(Key::Priority, "high")]), ..Rules::default() };
        assert!(of(&SHOP, &rules, Settings::default(), &[]).0.refusal(Discover::Labelled).is_some(), "a default asks for nothing");
    }
}
