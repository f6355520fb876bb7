//! Labels that stacks carry for other programs, put in terms of our settings.

use std::collections::{BTreeMap, BTreeSet};

use super::keys::{Key, Moment};
use super::rules::Compat;
use super::values::shell;

/// offen/docker-volume-backup's labels.
const OFFEN: &str = "docker-volume-backup.";
/// stack-back's labels, and those of the program that it comes from.
const STACK_BACK: [&str; 2] = ["stack-back.", "restic-compose-backup."];
/// Databases of stack-back, and the presets that dump them.
const DATABASES: [(&str, &str); 3] = [("postgres", "postgres"), ("mysql", "mysql"), ("mariadb", "mariadb")];

/// A label of another program as a setting of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Translated {
    /// The setting.
    pub(super) key: Key,
    /// Its value, as one of our labels would have it.
    pub(super) text: String,
    /// The label's whole name.
    pub(super) label: String,
}

impl Translated {
    fn new(key: Key, text: impl Into<String>, label: impl Into<String>) -> Self {
        Self { key, text: text.into(), label: label.into() }
    }
}

/// The labels `backup` and `description`, which say how important a thing is and what.
pub(super) fn plain(labels: &BTreeMap<String, String>) -> Vec<Translated> {
    let known = [("backup", Key::Priority), ("description", Key::Description)];
    known.iter().filter_map(|(label, key)| labels.get(*label).map(|text| Translated::new(*key, text, *label))).collect()
}

/// What a container's labels for the programs of `compat` mean. Where two labels give one setting, the later one counts for
/// nothing.
pub(super) fn container(labels: &BTreeMap<String, String>, compat: &BTreeSet<Compat>) -> Vec<Translated> {
    let mut found = Vec::new();
    if compat.contains(&Compat::Offen) {
        found.extend(offen(labels));
    }
    if compat.contains(&Compat::StackBack) {
        STACK_BACK.iter().for_each(|prefix| found.extend(stack_back(labels, prefix)));
    }
    let mut seen = BTreeSet::new();
    found.retain(|translated| seen.insert(translated.key));
    found
}

/// offen stops the containers whose label has the right value, which by default is `true`; those of another backup's
/// (`stop-during-backup=other`) are meant as well, as there is only one icecore. Commands run in the container's shell. A label
/// `exec-label` says for which of several backups its commands are, and is needed no more.
fn offen(labels: &BTreeMap<String, String>) -> Vec<Translated> {
    let mut found = Vec::new();
    for label in ["stop-during-backup", "stop-during-backup-no-restart"] {
        let name = format!("{OFFEN}{label}");
        if labels.get(&name).is_some_and(|value| !is_false(value)) {
            found.push(Translated::new(Key::Consistency, "stop", name));
        }
    }
    let hooks = [("archive-pre", Moment::Pre), ("exec-pre", Moment::Pre), ("archive-post", Moment::Post), ("exec-post", Moment::Post)];
    for (label, moment) in hooks {
        let name = format!("{OFFEN}{label}");
        let Some(command) = labels.get(&name).filter(|command| !command.trim().is_empty()) else { continue };
        found.push(Translated::new(Key::Hook(moment), script(command), &name));
        if let Some(user) = labels.get(&format!("{name}.user")) {
            found.push(Translated::new(Key::HookUser(moment), user, format!("{name}.user")));
        }
    }
    found
}

/// A line of shell as the value of a hook. Whatever is in it, also `/bin/sh -c '...'` as offen's own examples have it, a shell
/// reads it rightly.
fn script(command: &str) -> String {
    serde_json::to_string(&shell(command.trim())).unwrap_or_default()
}

/// stack-back takes a container's volumes when `volumes` is true, then those that are included or not excluded, by parts of
/// their names; it stops containers that say so and dumps databases.
fn stack_back(labels: &BTreeMap<String, String>, prefix: &str) -> Vec<Translated> {
    let get = |name: &str| labels.get(&format!("{prefix}{name}")).map(|value| (value, format!("{prefix}{name}")));
    let mut found = Vec::new();
    if let Some((value, label)) = get("volumes") {
        found.push(Translated::new(Key::Enable, value, label));
    }
    for (name, key) in [("volumes.include", Key::Volumes), ("volumes.exclude", Key::VolumesExclude)] {
        if let Some((value, label)) = get(name).filter(|(value, _)| !value.trim().is_empty()) {
            found.push(Translated::new(key, value, label));
        }
    }
    if let Some((_, label)) = get("volumes.stop-during-backup").filter(|(value, _)| is_true(value)) {
        found.push(Translated::new(Key::Consistency, "stop", label));
    }
    let dumps: Vec<&(&str, &str)> = DATABASES.iter().filter(|(name, _)| get(name).is_some_and(|(value, _)| is_true(value))).collect();
    if let Some((first, _)) = dumps.first() {
        let presets: Vec<&str> = dumps.iter().map(|(_, preset)| *preset).collect();
        found.push(Translated::new(Key::Dump, presets.join(","), format!("{prefix}{first}")));
    }
    found
}

fn is_true(value: &str) -> bool {
    super::values::flag(value).unwrap_or(false)
}

fn is_false(value: &str) -> bool {
    super::values::flag(value).is_ok_and(|flag| !flag)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn read(pairs: &[(&str, &str)], compat: &[Compat]) -> Vec<(Key, String)> {
        let found = container(&labels(pairs), &compat.iter().copied().collect());
        found.into_iter().map(|translated| (translated.key, translated.text)).collect()
    }

    #[test]
    fn nothing_is_read_that_was_not_asked_for() {
        let all =
            [("docker-volume-backup.stop-during-backup", "true"), ("stack-back.volumes", "true"), ("restic-compose-backup.mysql", "true")];
        assert_eq!(read(&all, &[]), []);
        assert_eq!(read(&all, &[Compat::Backup]), []);
        assert_eq!(read(&all, &[Compat::Offen]).len(), 1);
        assert_eq!(read(&all, &[Compat::StackBack]).len(), 2);
    }

    #[test]
    fn offen_s_labels_are_understood() {
        let of = |pairs: &[(&str, &str)]| read(pairs, &[Compat::Offen]);
        let stop = vec![(Key::Consistency, "stop".to_owned())];
        assert_eq!(of(&[("docker-volume-backup.stop-during-backup", "true")]), stop);
        assert_eq!(of(&[("docker-volume-backup.stop-during-backup", "service1")]), stop);
        assert_eq!(of(&[("docker-volume-backup.stop-during-backup-no-restart", "true")]), stop);
        assert_eq!(of(&[("docker-volume-backup.stop-during-backup", "false")]), []);
        let hooks = of(&[
            ("docker-volume-backup.archive-pre", "/bin/sh -c 'mysqldump -psecret \"a b\" > /tmp/d.sql'"),
            ("docker-volume-backup.archive-pre.user", "git"),
            ("docker-volume-backup.exec-pre", "old"),
            ("docker-volume-backup.archive-post", "rm /tmp/d.sql"),
            ("docker-volume-backup.exec-label", "database"),
            ("docker-volume-backup.copy-post", "x"),
        ]);
        assert_eq!(
            hooks,
            [
                (Key::Hook(Moment::Pre), r#"["sh","-c","/bin/sh -c 'mysqldump -psecret \"a b\" > /tmp/d.sql'"]"#.to_owned()),
                (Key::HookUser(Moment::Pre), "git".to_owned()),
                (Key::Hook(Moment::Post), r#"["sh","-c","rm /tmp/d.sql"]"#.to_owned()),
            ]
        );
    }

    #[test]
    fn stack_back_s_labels_are_understood_under_both_names() {
        for prefix in STACK_BACK {
            let with = |pairs: &[(&str, &str)]| {
                let pairs: Vec<(String, &str)> = pairs.iter().map(|(key, value)| (format!("{prefix}{key}"), *value)).collect();
                read(&pairs.iter().map(|(key, value)| (key.as_str(), *value)).collect::<Vec<_>>(), &[Compat::StackBack])
            };
            assert_eq!(with(&[("volumes", "true")]), [(Key::Enable, "true".to_owned())]);
            assert_eq!(with(&[("volumes", "false")]), [(Key::Enable, "false".to_owned())]);
            assert_eq!(with(&[("volumes.include", "data,conf")]), [(Key::Volumes, "data,conf".to_owned())]);
            assert_eq!(with(&[("volumes.exclude", "cache")]), [(Key::VolumesExclude, "cache".to_owned())]);
            assert_eq!(with(&[("volumes.stop-during-backup", "true")]), [(Key::Consistency, "stop".to_owned())]);
            assert_eq!(with(&[("volumes.stop-during-backup", "false")]), []);
            for database in ["postgres", "mysql", "mariadb"] {
                assert_eq!(with(&[(database, "true")]), [(Key::Dump, database.to_owned())]);
                assert_eq!(with(&[(database, "false")]), []);
            }
            assert_eq!(with(&[("postgres", "true"), ("mysql", "yes")]), [(Key::Dump, "postgres,mysql".to_owned())]);
        }
    }

    #[test]
    fn plain_labels_are_read_always() {
        let found = plain(&labels(&[("backup", "high"), ("description", "Orders"), ("other", "x")]));
        let found: Vec<_> = found.iter().map(|translated| (translated.key, translated.text.as_str(), translated.label.as_str())).collect();
        assert_eq!(found, [(Key::Priority, "high", "backup"), (Key::Description, "Orders", "description")]);
    }
}
