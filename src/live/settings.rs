//! Settings as one place gives them: values of the right type, each with the place that it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::glob::{Glob, globs};
use super::keep::Keep;
use super::keys::{Key, Moment};
use super::schedule::Schedule;
use super::values::{self, bad, show_duration};
use crate::error::{Error, ErrorKind, Result};

/// The names of dump presets. SQLite's takes the path of the database: `sqlite:/data/app.db`.
pub const PRESETS: [&str; 13] = [
    "postgres",
    "postgresql",
    "timescaledb",
    "mysql",
    "mariadb",
    "mongodb",
    "mongo",
    "redis",
    "valkey",
    "sqlite",
    "vault",
    "openbao",
    "etcd",
];

const FREEZE_BUDGET: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(300);
const STOP_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(3600);
const HOOK_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
const HEALTH_WAIT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// A freeze budget, as labels and options write it.
pub fn freeze_budget(text: &str) -> Result<Duration> {
    values::duration(text, &FREEZE_BUDGET)
}

/// How still a source is to be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// As still as can be had within the freeze budget, and never `Fuzzy`.
    Auto,
    /// Read as it is.
    Fuzzy,
    /// All writers frozen.
    Pause,
    /// A clone by the file system.
    Clone,
    /// Held by the application through hooks.
    Hook,
    /// A dump by the application.
    Dump,
    /// All writers stopped.
    Stop,
}

/// The words for [`Wanted`]; of several for one the first is its name.
pub const WANTED: [(&str, Wanted); 9] = [
    ("auto", Wanted::Auto),
    ("fuzzy", Wanted::Fuzzy),
    ("pause", Wanted::Pause),
    ("frozen", Wanted::Pause),
    ("clone", Wanted::Clone),
    ("hook", Wanted::Hook),
    ("dump", Wanted::Dump),
    ("stop", Wanted::Stop),
    ("stopped", Wanted::Stop),
];

/// How important a volume is; the most important first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Captured first.
    Critical,
    /// Then.
    High,
    /// Where nothing is said.
    Medium,
    /// Last.
    Low,
    /// Not at all, unless it is enabled all the same.
    None,
}

/// The words for [`Priority`].
pub const PRIORITIES: [(&str, Priority); 5] = [
    ("critical", Priority::Critical),
    ("high", Priority::High),
    ("medium", Priority::Medium),
    ("low", Priority::Low),
    ("none", Priority::None),
];

/// What is waited for after a container was started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Its health check, if its image has one.
    Wait,
    /// Nothing.
    Ignore,
    /// Its health check, for so long.
    WaitFor(Duration),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&WANTED, *self))
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name_of(&PRIORITIES, *self))
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait => f.write_str("wait"),
            Self::Ignore => f.write_str("none"),
            Self::WaitFor(time) => f.write_str(&show_duration(*time)),
        }
    }
}

fn name_of<T: PartialEq>(words: &[(&'static str, T)], value: T) -> &'static str {
    words.iter().find(|(_, known)| *known == value).map_or("", |(name, _)| name)
}

impl Priority {
    /// Reads one of the words.
    pub fn parse(text: &str) -> Result<Self> {
        values::word(text, &PRIORITIES)
    }
}

/// Where a value came from.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nobody said anything.
    #[default]
    Default,
    /// A section of the configuration file, with its brackets.
    Config(String),
    /// A label of the volume, by its whole name.
    VolumeLabel(String),
    /// A label of a container.
    ContainerLabel {
        /// The container's name.
        container: String,
        /// The label's whole name.
        label: String,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Config(section) => write!(f, "configuration {}", values::shown(section)),
            Self::VolumeLabel(label) => write!(f, "label {} of the volume", values::shown(label)),
            Self::ContainerLabel { container, label } => {
                write!(f, "label {} of container {}", values::shown(label), values::shown(container))
            }
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
}

impl<T> Setting<T> {
    /// A value of that origin.
    pub fn new(value: T, origin: Origin) -> Self {
        Self { value, origin }
    }
}

/// A hook as one place gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookSettings {
    /// The command and its arguments.
    pub command: Option<Setting<Vec<String>>>,
    /// As whom it runs in the container.
    pub user: Option<Setting<String>>,
    /// How long it may take.
    pub timeout: Option<Setting<Duration>>,
}

/// What one place says. What is none is not said there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Whether it is captured.
    pub enable: Option<Setting<bool>>,
    /// Volumes (by name, key in the Compose file or destination) that the container's labels are about.
    pub volumes: Option<Setting<Vec<String>>>,
    /// Volumes that are left out.
    pub volumes_exclude: Option<Setting<Vec<String>>>,
    /// Destinations of bind mounts that are captured.
    pub binds: Option<Setting<Vec<String>>>,
    /// When.
    pub schedule: Option<Setting<Schedule>>,
    /// How still.
    pub consistency: Option<Setting<Wanted>>,
    /// How long a freeze may take.
    pub freeze_budget: Option<Setting<Duration>>,
    /// How long a container gets to stop.
    pub stop_timeout: Option<Setting<Duration>>,
    /// With what it is captured.
    pub group: Option<Setting<String>>,
    /// Dump presets, as they are written.
    pub dump: Option<Setting<Vec<String>>>,
    /// Hooks.
    pub hooks: BTreeMap<Moment, HookSettings>,
    /// How many snapshots are kept.
    pub keep: Option<Setting<Keep>>,
    /// Which files are left out.
    pub exclude: Option<Setting<Vec<Glob>>>,
    /// What is waited for after a start.
    pub health: Option<Setting<Health>>,
    /// How important it is.
    pub priority: Option<Setting<Priority>>,
    /// Words about it.
    pub description: Option<Setting<String>>,
}

impl Settings {
    /// Reads `text` as the value of `key`. Nothing is changed when it is none.
    pub fn set(&mut self, key: Key, text: &str, origin: Origin) -> Result<()> {
        match key {
            Key::Enable => self.enable = Some(Setting::new(values::flag(text)?, origin)),
            Key::Volumes => self.volumes = Some(Setting::new(volumes(text)?, origin)),
            Key::VolumesExclude => self.volumes_exclude = Some(Setting::new(volumes(text)?, origin)),
            Key::Binds => self.binds = Some(Setting::new(destinations(text)?, origin)),
            Key::Schedule => self.schedule = Some(Setting::new(Schedule::parse(text)?, origin)),
            Key::Consistency => self.consistency = Some(Setting::new(values::word(text, &WANTED)?, origin)),
            Key::FreezeBudget => self.freeze_budget = Some(Setting::new(values::duration(text, &FREEZE_BUDGET)?, origin)),
            Key::StopTimeout => self.stop_timeout = Some(Setting::new(values::duration(text, &STOP_TIMEOUT)?, origin)),
            Key::Group => self.group = Some(Setting::new(values::name(text)?, origin)),
            Key::Dump => self.dump = Some(Setting::new(dumps(text)?, origin)),
            Key::Hook(moment) => {
                let command = values::command(text)?;
                self.hooks.entry(moment).or_default().command = Some(Setting::new(command, origin));
            }
            Key::HookUser(moment) => {
                let user = values::user(text)?;
                self.hooks.entry(moment).or_default().user = Some(Setting::new(user, origin));
            }
            Key::HookTimeout(moment) => {
                let timeout = values::duration(text, &HOOK_TIMEOUT)?;
                self.hooks.entry(moment).or_default().timeout = Some(Setting::new(timeout, origin));
            }
            Key::Keep => self.keep = Some(Setting::new(Keep::parse(text)?, origin)),
            Key::Exclude => self.exclude = Some(Setting::new(globs(text)?, origin)),
            Key::Health => self.health = Some(Setting::new(health(text)?, origin)),
            Key::Priority => self.priority = Some(Setting::new(Priority::parse(text)?, origin)),
            Key::Description => self.description = Some(Setting::new(values::prose(text), origin)),
        }
        Ok(())
    }

    /// Whether `key` is said here.
    pub fn has(&self, key: Key) -> bool {
        let hook = |moment| self.hooks.get(&moment);
        match key {
            Key::Enable => self.enable.is_some(),
            Key::Volumes => self.volumes.is_some(),
            Key::VolumesExclude => self.volumes_exclude.is_some(),
            Key::Binds => self.binds.is_some(),
            Key::Schedule => self.schedule.is_some(),
            Key::Consistency => self.consistency.is_some(),
            Key::FreezeBudget => self.freeze_budget.is_some(),
            Key::StopTimeout => self.stop_timeout.is_some(),
            Key::Group => self.group.is_some(),
            Key::Dump => self.dump.is_some(),
            Key::Hook(moment) => hook(moment).is_some_and(|hook| hook.command.is_some()),
            Key::HookUser(moment) => hook(moment).is_some_and(|hook| hook.user.is_some()),
            Key::HookTimeout(moment) => hook(moment).is_some_and(|hook| hook.timeout.is_some()),
            Key::Keep => self.keep.is_some(),
            Key::Exclude => self.exclude.is_some(),
            Key::Health => self.health.is_some(),
            Key::Priority => self.priority.is_some(),
            Key::Description => self.description.is_some(),
        }
    }

    /// These settings, and for what they leave open those of `below`.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        let mut hooks = below.hooks;
        for (moment, hook) in self.hooks {
            let under = hooks.remove(&moment).unwrap_or_default();
            let merged = HookSettings {
                command: hook.command.or(under.command),
                user: hook.user.or(under.user),
                timeout: hook.timeout.or(under.timeout),
            };
            hooks.insert(moment, merged);
        }
        Self {
            enable: self.enable.or(below.enable),
            volumes: self.volumes.or(below.volumes),
            volumes_exclude: self.volumes_exclude.or(below.volumes_exclude),
            binds: self.binds.or(below.binds),
            schedule: self.schedule.or(below.schedule),
            consistency: self.consistency.or(below.consistency),
            freeze_budget: self.freeze_budget.or(below.freeze_budget),
            stop_timeout: self.stop_timeout.or(below.stop_timeout),
            group: self.group.or(below.group),
            dump: self.dump.or(below.dump),
            hooks,
            keep: self.keep.or(below.keep),
            exclude: self.exclude.or(below.exclude),
            health: self.health.or(below.health),
            priority: self.priority.or(below.priority),
            description: self.description.or(below.description),
        }
    }
}

/// Volumes, by destination or by name.
fn volumes(text: &str) -> Result<Vec<String>> {
    values::list(text)?
        .iter()
        .map(|item| if item.starts_with('/') { values::destination(item) } else { values::name_of_volume(item) })
        .collect()
}

fn destinations(text: &str) -> Result<Vec<String>> {
    values::list(text)?.iter().map(|item| values::destination(item)).collect()
}

/// Dump presets; `none` for none.
fn dumps(text: &str) -> Result<Vec<String>> {
    let mut items = values::list(text)?;
    items.dedup();
    if items == ["none"] {
        return Ok(Vec::new());
    }
    items.iter().map(|item| preset(item)).collect()
}

fn preset(text: &str) -> Result<String> {
    let (name, path) = text.split_once(':').map_or((text, None), |(name, path)| (name, Some(path)));
    if !PRESETS.contains(&name) {
        let error = bad(text, &format!("a dump preset; they are {}", PRESETS.join(", ")));
        return Err(match super::nearest::nearest(name, PRESETS) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None => error,
        });
    }
    match (name, path) {
        ("sqlite", Some(path)) => Ok(format!("sqlite:{}", values::destination(path)?)),
        ("sqlite", None) => Err(bad(text, "a preset with the path of a database").hint("write sqlite:/data/app.db")),
        (_, Some(_)) => Err(Error::new(ErrorKind::Usage, "only the preset for SQLite takes a path").on(values::shown(text))),
        (_, None) => Ok(name.to_owned()),
    }
}

fn health(text: &str) -> Result<Health> {
    match text.trim().to_ascii_lowercase().as_str() {
        "wait" => Ok(Health::Wait),
        "none" => Ok(Health::Ignore),
        _ => match values::duration(text, &HEALTH_WAIT) {
            Ok(time) => Ok(Health::WaitFor(time)),
            Err(_) => Err(bad(text, "wait, none or a duration from 1s to 1d")),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn set(key: Key, text: &str) -> Result<Settings> {
        let mut settings = Settings::default();
        settings.set(key, text, Origin::Default)?;
        assert!(settings.has(key), "{key:?}");
        Ok(settings)
    }

    /// A value of each key, and ones that are none.
    const SAMPLES: [(Key, &str, &[&str]); 15] = [
        (Key::Enable, "true", &["maybe", ""]),
        (Key::Volumes, "data,/var/lib/db", &["a b", "/a/../b", "../x", ""]),
        (Key::VolumesExclude, "cache", &["-x"]),
        (Key::Binds, "/config,/data", &["data", "/a/../b", "/"]),
        (Key::Schedule, "@daily", &["daily"]),
        (Key::Consistency, "frozen", &["frozenn", "yes"]),
        (Key::FreezeBudget, "2s", &["49ms", "301s", "2", "-1s"]),
        (Key::StopTimeout, "0s", &["-1", "2h"]),
        (Key::Group, "db", &["a/b", ""]),
        (Key::Dump, "postgres,sqlite:/data/app.db", &["oracle", "sqlite", "sqlite:data", "sqlite:/a/../b", "postgres:/x"]),
        (Key::Keep, "last=3", &["3"]),
        (Key::Exclude, "*.log,/cache", &["../x", "**"]),
        (Key::Health, "30s", &["0s", "healthy", "2d"]),
        (Key::Priority, "Critical", &["urgent", ""]),
        (Key::Description, "Orders", &[]),
    ];

    #[test]
    fn every_key_takes_its_values_and_refuses_others() {
        let mut seen: Vec<Key> = SAMPLES.iter().map(|(key, ..)| *key).collect();
        for (key, good, bad) in SAMPLES {
            set(key, good).unwrap();
            for text in bad.iter().copied().chain([&*"x".repeat(5000), "a\x1b[2J"].into_iter().filter(|_| key != Key::Description)) {
                assert_eq!(set(key, text).unwrap_err().kind(), ErrorKind::Usage, "{key:?} {text}");
            }
        }
        for moment in Moment::ALL {
            for (key, good, bad) in [
                (Key::Hook(moment), r#"["pg_ctl", "-x"]"#, &["pg_ctl -x", "sh:"][..]),
                (Key::HookUser(moment), "postgres", &["a b"]),
                (Key::HookTimeout(moment), "1m", &["0s", "25h", "1"]),
            ] {
                set(key, good).unwrap();
                bad.iter().for_each(|text| assert!(set(key, text).is_err(), "{key:?} {text}"));
                seen.push(key);
            }
        }
        assert!(Key::ALL.iter().all(|key| seen.contains(key)), "a key without a test");
    }

    #[test]
    fn levels_have_two_names_each_where_the_ladder_has_one() {
        for (text, expected, name) in [
            ("auto", Wanted::Auto, "auto"),
            ("fuzzy", Wanted::Fuzzy, "fuzzy"),
            ("pause", Wanted::Pause, "pause"),
            ("frozen", Wanted::Pause, "pause"),
            ("clone", Wanted::Clone, "clone"),
            ("hook", Wanted::Hook, "hook"),
            ("dump", Wanted::Dump, "dump"),
            ("stop", Wanted::Stop, "stop"),
            ("STOPPED", Wanted::Stop, "stop"),
        ] {
            let found = set(Key::Consistency, text).unwrap().consistency.unwrap().value;
            assert_eq!((found, found.to_string().as_str()), (expected, name));
        }
    }

    #[test]
    fn values_are_what_they_say() {
        assert_eq!(set(Key::Dump, "none").unwrap().dump.unwrap().value, Vec::<String>::new());
        assert_eq!(set(Key::Dump, "postgress").unwrap_err().advice(), Some("did you mean `postgres`?"));
        assert_eq!(set(Key::Health, "none").unwrap().health.unwrap().value, Health::Ignore);
        assert_eq!(set(Key::Health, "1m").unwrap().health.unwrap().value.to_string(), "1m");
        assert_eq!(set(Key::Priority, "none").unwrap().priority.unwrap().value, Priority::None);
        assert!(Priority::Critical < Priority::High && Priority::Low < Priority::None);
        assert_eq!(set(Key::Description, &"x".repeat(5000)).unwrap().description.unwrap().value.len(), 203, "words are cut, not refused");
    }

    #[test]
    fn what_is_said_above_wins_key_by_key() {
        let origin = |name: &str| Origin::Config(name.to_owned());
        let mut below = Settings::default();
        let mut above = Settings::default();
        below.set(Key::Keep, "last=1", origin("below")).unwrap();
        below.set(Key::Hook(Moment::Pre), "sh: a", origin("below")).unwrap();
        below.set(Key::HookTimeout(Moment::Pre), "1m", origin("below")).unwrap();
        below.set(Key::Hook(Moment::Post), "sh: p", origin("below")).unwrap();
        above.set(Key::Enable, "no", origin("above")).unwrap();
        above.set(Key::Hook(Moment::Pre), "sh: b", origin("above")).unwrap();
        let both = above.over(below);
        assert_eq!(both.keep.unwrap().origin, origin("below"));
        assert_eq!(both.enable.unwrap().origin, origin("above"));
        let pre = &both.hooks[&Moment::Pre];
        assert_eq!(pre.command.as_ref().unwrap().value[2], "b");
        assert_eq!(pre.timeout.as_ref().unwrap().origin, origin("below"));
        assert_eq!(both.hooks[&Moment::Post].command.as_ref().unwrap().value[2], "p");
    }

    #[test]
    fn a_value_that_is_none_changes_nothing() {
        let mut settings = set(Key::FreezeBudget, "2s").unwrap();
        settings.set(Key::FreezeBudget, "soon", Origin::Default).unwrap_err();
        settings.set(Key::Hook(Moment::Pre), "x", Origin::Default).unwrap_err();
        assert_eq!(settings, set(Key::FreezeBudget, "2s").unwrap());
    }
}
