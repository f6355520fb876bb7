//! Reads the labels of one volume or container: what they set, and what in them is wrong or not allowed.

use std::collections::BTreeMap;

use serde::Serialize;

use super::compat::{self, Translated};
use super::keys::{Key, PREFIX};
use super::nearest::distance;
use super::rules::Rules;
use super::settings::{Origin, Settings};
use super::values::shown;

/// Containers with this label are our own helpers, whose labels are no settings.
pub const HELPER_LABEL: &str = "icecore.helper";

/// How many things are said about the labels of one carrier; labels can be made by the thousand.
const REMARKS_MAX: usize = 20;
/// The longest first part of a label's name that can be a misspelling of ours.
const PREFIX_BYTES_MAX: usize = 12;

/// How serious a remark is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Somebody asked for something and does not get it.
    Problem,
    /// Worth knowing.
    Notice,
}

/// Something to say about labels or about what is captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remark {
    /// How serious it is.
    pub severity: Severity,
    /// What it is about: `volume db`, `container web`.
    pub on: String,
    /// What there is to say. Printable.
    pub message: String,
    /// What can be done about it.
    pub hint: Option<String>,
}

impl Remark {
    /// A problem with `on`.
    pub fn problem(on: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Problem, on: on.into(), message: message.into(), hint: None }
    }

    /// A notice about `on`.
    pub fn notice(on: impl Into<String>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Notice, on: on.into(), message: message.into(), hint: None }
    }

    /// Adds what can be done about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// What labels stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier<'a> {
    /// A volume, by its name.
    Volume(&'a str),
    /// A container, by its name.
    Container(&'a str),
}

impl Carrier<'_> {
    /// As it is named in remarks.
    pub fn shown(&self) -> String {
        match self {
            Self::Volume(name) => format!("volume {}", shown(name)),
            Self::Container(name) => format!("container {}", shown(name)),
        }
    }

    fn origin(&self, label: &str) -> Origin {
        match self {
            Self::Volume(_) => Origin::VolumeLabel(label.to_owned()),
            Self::Container(name) => Origin::ContainerLabel { container: (*name).to_owned(), label: label.to_owned() },
        }
    }
}

/// What the labels of one carrier say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// Labels of ours, and of other programs where those leave something open.
    pub settings: Settings,
    /// The labels `backup` and `description`.
    pub plain: Settings,
    /// What is wrong.
    pub remarks: Vec<Remark>,
}

/// Reads `labels`.
pub fn read(labels: &BTreeMap<String, String>, carrier: Carrier<'_>, rules: &Rules) -> Reading {
    let mut reading = Reading::default();
    if labels.contains_key(HELPER_LABEL) {
        return reading;
    }
    let on = carrier.shown();
    for (label, text) in labels {
        match label.strip_prefix(PREFIX) {
            Some(name) => own(&mut reading, name, label, text, carrier, rules),
            None => reading.remarks.extend(misspelt_prefix(label, &on)),
        }
    }
    for translated in compat::plain(labels) {
        // Anybody may use such a word for something else, so it is no problem when it is not one of ours.
        if let Err(remark) = foreign(&mut reading.plain, &translated, carrier, rules) {
            reading.remarks.push(Remark { severity: Severity::Notice, ..remark });
        }
    }
    if matches!(carrier, Carrier::Container(_)) {
        for translated in compat::container(labels, &rules.compat) {
            if reading.settings.has(translated.key) {
                continue;
            }
            if let Err(remark) = foreign(&mut reading.settings, &translated, carrier, rules) {
                reading.remarks.push(remark);
            }
        }
    }
    if let Some(keep) = reading.settings.keep.as_mut()
        && let Some(least) = &rules.keep_min
        && keep.value.at_least(least) != keep.value
    {
        let raised = keep.value.at_least(least);
        reading
            .remarks
            .push(Remark::notice(&on, format!("icecore.keep={} is raised to the least that is kept here, {raised}", keep.value)));
        keep.value = raised;
    }
    if reading.remarks.len() > REMARKS_MAX {
        let more = reading.remarks.len() - REMARKS_MAX;
        reading.remarks.sort_by_key(|remark| remark.severity);
        reading.remarks.truncate(REMARKS_MAX);
        reading.remarks.push(Remark::problem(&on, format!("{more} more labels are wrong or ignored")));
    }
    reading
}

/// Reads one label of ours.
fn own(reading: &mut Reading, name: &str, label: &str, text: &str, carrier: Carrier<'_>, rules: &Rules) {
    let on = carrier.shown();
    let Some(key) = Key::find(name) else {
        let remark = Remark::problem(on, format!("there is no setting for the label {}", shown(label)));
        reading.remarks.push(match Key::meant(name) {
            Some(meant) => remark.hint(format!("did you mean {PREFIX}{meant}?")),
            None => remark.hint("docs/labels.md lists the settings"),
        });
        return;
    };
    if matches!(carrier, Carrier::Volume(_)) && !key.fits_volume() {
        let remark = Remark::problem(on, format!("the label {label} means nothing on a volume"));
        reading.remarks.push(remark.hint("put it on the container that uses the volume"));
        return;
    }
    if let Some(remark) = locked(key, label, carrier, rules) {
        reading.remarks.push(remark);
        return;
    }
    if let Err(error) = reading.settings.set(key, text, carrier.origin(label)) {
        let remark = Remark::problem(on, format!("the label {label} is ignored: {error}"));
        reading.remarks.push(Remark { hint: error.advice().map(str::to_owned), ..remark });
    }
}

/// Sets what a label of another program means.
fn foreign(settings: &mut Settings, translated: &Translated, carrier: Carrier<'_>, rules: &Rules) -> Result<(), Remark> {
    if let Some(remark) = locked(translated.key, &translated.label, carrier, rules) {
        return Err(remark);
    }
    settings.set(translated.key, &translated.text, carrier.origin(&translated.label)).map_err(|error| {
        let remark = Remark::problem(carrier.shown(), format!("the label {} is ignored: {error}", shown(&translated.label)));
        Remark { hint: error.advice().map(str::to_owned), ..remark }
    })
}

fn locked(key: Key, label: &str, carrier: Carrier<'_>, rules: &Rules) -> Option<Remark> {
    rules
        .is_locked(key)
        .then(|| Remark::notice(carrier.shown(), format!("the label {} is ignored: the configuration locks {}", shown(label), key.name())))
}

/// A label that nearly begins as ours do and goes on with a setting's name.
fn misspelt_prefix(label: &str, on: &str) -> Option<Remark> {
    let ours = PREFIX.trim_end_matches('.');
    let end = label.find(['.', '_', '-', '/', ':']).filter(|end| *end <= PREFIX_BYTES_MAX)?;
    let (first, rest) = (label[..end].to_ascii_lowercase(), &label[end + 1..]);
    let near = distance(&first, ours) <= 2;
    // `ice-core.keep`: the separator may stand in the middle.
    let (near, rest) = match rest.split_once('.') {
        Some((second, rest)) if !near && format!("{first}{second}").eq_ignore_ascii_case(ours) => (true, rest),
        _ => (near, rest),
    };
    let meant = Key::find(rest).map(Key::name).or_else(|| Key::meant(rest)).filter(|_| near && !rest.is_empty())?;
    Some(Remark::problem(on, format!("the label {} is not read", shown(label))).hint(format!("did you mean {PREFIX}{meant}?")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::live::keep::Keep;
    use crate::live::keys::Moment;
    use crate::live::rules::{Compat, lock};
    use crate::live::settings::{Priority, Wanted};

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn on_container(pairs: &[(&str, &str)], rules: &Rules) -> Reading {
        read(&labels(pairs), Carrier::Container("web"), rules)
    }

    #[test]
    fn labels_of_ours_are_read_with_their_origin() {
        let reading = on_container(&[("icecore.consistency", "stop"), ("icecore.keep", "last=3"), ("other", "x")], &Rules::default());
        let consistency = reading.settings.consistency.unwrap();
        assert_eq!(
            (consistency.value, consistency.origin.to_string()),
            (Wanted::Stop, "label icecore.consistency of container web".to_owned())
        );
        assert!(reading.remarks.is_empty());
        let reading = read(&labels(&[("icecore.enable", "no")]), Carrier::Volume("db"), &Rules::default());
        assert_eq!(reading.settings.enable.unwrap().origin.to_string(), "label icecore.enable of the volume");
    }

    #[test]
    fn misspelt_labels_are_problems_that_name_what_was_meant() {
        for (label, meant) in [
            ("icecore.enabled", "icecore.enable"),
            ("icecore.freeze_budget", "icecore.freeze-budget"),
            ("icecore.hook.per", "icecore.hook.pre"),
            ("icecore.Keep", "icecore.keep"),
            ("iceore.keep", "icecore.keep"),
            ("Icecore.keep", "icecore.keep"),
            ("icecore_keep", "icecore.keep"),
            ("icecore-keep", "icecore.keep"),
            ("ice-core.keep", "icecore.keep"),
            ("icecroe.hook.pre", "icecore.hook.pre"),
        ] {
            let reading = on_container(&[(label, "last=1")], &Rules::default());
            assert_eq!(reading.settings, Settings::default(), "{label}");
            let [remark]: &[Remark; 1] = reading.remarks.as_slice().try_into().unwrap();
            assert_eq!((remark.severity, remark.hint.clone()), (Severity::Problem, Some(format!("did you mean {meant}?"))), "{label}");
        }
        for label in ["icecore.colour", "icecore.", "icecore.helperx"] {
            assert_eq!(on_container(&[(label, "")], &Rules::default()).remarks.len(), 1, "{label}");
        }
        for label in ["keep", "com.docker.compose.project", "traefik.enable", "icy.keep", "icecore", "icecream.flavour", "", "."] {
            assert!(on_container(&[(label, "x")], &Rules::default()).remarks.is_empty(), "{label}");
        }
    }

    #[test]
    fn what_belongs_on_a_container_is_refused_on_a_volume() {
        for key in Key::ALL.into_iter().filter(|key| !key.fits_volume()) {
            let label = format!("icecore.{}", key.name());
            let reading = read(&labels(&[(&label, "/x")]), Carrier::Volume("db"), &Rules::default());
            assert!(
                reading.settings == Settings::default() && reading.remarks[0].hint.as_deref().unwrap().contains("container"),
                "{label}"
            );
        }
    }

    #[test]
    fn a_locked_key_is_ignored_with_a_notice_under_any_name() {
        let rules = Rules {
            locked: ["hook.*", "consistency", "priority"].map(|text| lock(text).unwrap()).into(),
            compat: [Compat::Offen].into(),
            ..Rules::default()
        };
        let pairs = [
            ("icecore.hook.pre", "sh: reboot"),
            ("icecore.hook.pre.user", "root"),
            ("docker-volume-backup.archive-post", "reboot"),
            ("docker-volume-backup.stop-during-backup", "true"),
            ("backup", "critical"),
        ];
        let reading = on_container(&pairs, &rules);
        assert_eq!((reading.settings, reading.plain), (Settings::default(), Settings::default()));
        assert_eq!(reading.remarks.len(), pairs.len());
        assert!(reading.remarks.iter().all(|remark| remark.severity == Severity::Notice && remark.message.contains("locks")));
    }

    #[test]
    fn our_own_label_beats_another_program_s() {
        let rules = Rules { compat: [Compat::Offen].into(), ..Rules::default() };
        let pairs = [
            ("icecore.consistency", "pause"),
            ("docker-volume-backup.stop-during-backup", "true"),
            ("docker-volume-backup.archive-pre", "sync"),
        ];
        let settings = on_container(&pairs, &rules).settings;
        assert_eq!(settings.consistency.unwrap().value, Wanted::Pause);
        assert_eq!(settings.hooks[&Moment::Pre].command.as_ref().unwrap().value, ["sh", "-c", "sync"]);
    }

    #[test]
    fn plain_labels_are_kept_apart_and_odd_words_in_them_are_no_problem() {
        let reading = on_container(&[("backup", "high"), ("description", "Shop\x1b[2J")], &Rules::default());
        assert_eq!(reading.plain.priority.unwrap().value, Priority::High);
        assert_eq!(reading.plain.description.unwrap().value, "Shop [2J");
        let odd = on_container(&[("backup", "every day at 3")], &Rules::default());
        assert_eq!((odd.plain.priority, odd.remarks[0].severity), (None, Severity::Notice));
    }

    #[test]
    fn retention_is_not_lower_than_the_operator_s_least() {
        let rules = Rules { keep_min: Some(Keep::parse("last=5,min=2").unwrap()), ..Rules::default() };
        let reading = on_container(&[("icecore.keep", "last=1,daily=3")], &rules);
        assert_eq!(reading.settings.keep.unwrap().value.to_string(), "last=5,daily=3,min=2");
        assert!(reading.remarks[0].message.contains("raised"));
        assert!(on_container(&[("icecore.keep", "last=5,min=2")], &rules).remarks.is_empty());
    }

    #[test]
    fn hostile_labels_make_few_and_harmless_words() {
        let mut many: BTreeMap<String, String> = (0..5000).map(|n| (format!("icecore.x{n}"), String::new())).collect();
        many.insert(format!("icecore.{}", "a\x1b[2J".repeat(10_000)), "x".repeat(1 << 20));
        many.insert("icecore.keep".to_owned(), "last=".repeat(1 << 18));
        many.insert("icecore.group".to_owned(), "a\nicecore: everything is fine".to_owned());
        let remarks = read(&many, Carrier::Container("a\x1b[2Jb"), &Rules::default()).remarks;
        assert_eq!(remarks.len(), REMARKS_MAX + 1);
        assert!(remarks.last().unwrap().message.contains("4983 more"), "{:?}", remarks.last());
        assert!(remarks.iter().all(|remark| remark.message.len() < 400 && !remark.message.contains(['\x1b', '\n'])));
        assert!(remarks.iter().all(|remark| remark.on == "container a\\u{1b}[2Jb"));
    }

    #[test]
    fn a_helper_s_labels_are_no_settings() {
        let reading = on_container(&[("icecore.helper", "1"), ("icecore.owner", "x"), ("icecore.enable", "false")], &Rules::default());
        assert_eq!(reading, Reading::default());
    }
}
