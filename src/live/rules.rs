//! What the operator of this host says about volumes: which there are to be captured, what labels may not decide, and
//! settings that stand below those of labels.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::glob::match_name;
use super::keep::Keep;
use super::keys::Key;
use super::nearest::nearest;
use super::settings::Settings;
use super::values::{bad, destination};
use crate::error::{Error, ErrorKind, Result};

/// Which volumes are captured of which nobody says whether they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Discover {
    /// All that have a name.
    #[default]
    All,
    /// None.
    Labelled,
}

/// Labels of other programs that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compat {
    /// offen/docker-volume-backup.
    Offen,
    /// stack-back and restic-compose-backup.
    StackBack,
    /// `backup` and `description`, which are read in any case.
    Backup,
}

/// The operator's rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Which volumes are captured.
    pub discover: Discover,
    /// Patterns of keys that labels may not set.
    pub locked: Vec<String>,
    /// Folders below which bind mounts may be captured.
    pub bind_roots: Vec<PathBuf>,
    /// Labels of other programs.
    pub compat: BTreeSet<Compat>,
    /// Groups of one name in several projects are one group.
    pub cross_project_groups: bool,
    /// Containers of other projects that write to a volume are not held with it.
    pub leave_outsiders: bool,
    /// The least that a label may keep.
    pub keep_min: Option<Keep>,
    /// Settings of all volumes.
    pub defaults: Settings,
    /// Settings of a Compose project's volumes, by its name.
    pub stacks: BTreeMap<String, Settings>,
    /// Settings of a volume, by its name.
    pub volumes: BTreeMap<String, Settings>,
    /// Settings of a container, by its name.
    pub containers: BTreeMap<String, Settings>,
}

impl Rules {
    /// Whether labels may not set `key`.
    pub fn is_locked(&self, key: Key) -> bool {
        self.locked.iter().any(|pattern| match_name(pattern.as_bytes(), key.name().as_bytes()))
    }
}

/// Reads a pattern of keys to lock: a key's name, with or without `icecore.`, in which `*` stands for any characters. One that
/// fits no key would lock nothing and is refused.
pub fn lock(text: &str) -> Result<String> {
    let pattern = text.strip_prefix(super::keys::PREFIX).unwrap_or(text);
    let fits = Key::ALL.into_iter().any(|key| match_name(pattern.as_bytes(), key.name().as_bytes()));
    if fits && pattern.len() <= 64 {
        return Ok(pattern.to_owned());
    }
    let error = bad(text, "a setting, or a pattern of settings such as hook.*");
    Err(match Key::meant(pattern) {
        Some(meant) => error.hint(format!("did you mean `{meant}`?")),
        None => error.hint(format!("settings are {}", Key::ALL.map(Key::name).join(", "))),
    })
}

/// Reads a folder below which bind mounts may be captured.
pub fn bind_root(text: &str) -> Result<PathBuf> {
    destination(text).map(PathBuf::from).map_err(|_| {
        Error::new(ErrorKind::Usage, "not a folder below which bind mounts can be allowed")
            .on(super::values::shown(text))
            .hint("write an absolute path without `..`; `/` would allow everything")
    })
}

/// Reads the name of a program whose labels are read.
pub fn compat(text: &str) -> Result<Compat> {
    const NAMES: [(&str, Compat); 4] = [
        ("offen", Compat::Offen),
        ("stack-back", Compat::StackBack),
        ("restic-compose-backup", Compat::StackBack),
        ("backup", Compat::Backup),
    ];
    NAMES.iter().find(|(name, _)| *name == text).map(|(_, compat)| *compat).ok_or_else(|| {
        let names = NAMES.map(|(name, _)| name);
        let error = bad(text, &format!("one of {}", names.join(", ")));
        match nearest(text, names) {
            Some(meant) => error.hint(format!("did you mean `{meant}`?")),
            None => error,
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::live::keys::Moment;

    #[test]
    fn locks_are_names_or_patterns_of_keys() {
        let rules = Rules { locked: ["hook.*", "icecore.dump"].map(|text| lock(text).unwrap()).into(), ..Rules::default() };
        for key in [Key::Hook(Moment::Pre), Key::HookUser(Moment::PostRestore), Key::Dump] {
            assert!(rules.is_locked(key), "{key:?}");
        }
        assert!(!rules.is_locked(Key::Keep) && !Rules::default().is_locked(Key::Dump));
        let users = Rules { locked: vec![lock("hook.*.user").unwrap()], ..Rules::default() };
        assert!(users.is_locked(Key::HookUser(Moment::Post)) && !users.is_locked(Key::Hook(Moment::Post)));
        for text in ["hooks.*", "", "colour", "hook.pre.users", &"*".repeat(65)] {
            assert!(lock(text).is_err(), "{text}");
        }
        assert_eq!(lock("dumps").unwrap_err().advice(), Some("did you mean `dump`?"));
    }

    #[test]
    fn roots_are_absolute_and_not_everything() {
        assert_eq!(bind_root("/srv//data/").unwrap(), PathBuf::from("/srv/data"));
        for text in ["srv", "/", "/srv/..", "", "/srv/../etc"] {
            assert!(bind_root(text).is_err(), "{text}");
        }
    }

    #[test]
    fn programs_are_known_by_name() {
        assert_eq!(compat("restic-compose-backup").unwrap(), Compat::StackBack);
        assert_eq!(compat("backup").unwrap(), Compat::Backup);
        assert_eq!(compat("ofen").unwrap_err().advice(), Some("did you mean `offen`?"));
    }
}
