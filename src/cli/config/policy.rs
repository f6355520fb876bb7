//! The sections about volumes: the operator's rules, and settings of all volumes, of stacks, volumes and containers.

use std::collections::BTreeMap;

use super::section::Section;
use crate::error::Result;
use crate::live::keep::Keep;
use crate::live::keys::Key;
use crate::live::rules::{Discover, Rules, bind_root, compat, lock};
use crate::live::settings::{Origin, Settings};
use crate::live::values::{list, word};

/// The sections' names, as they are read.
const TABLES: [&str; 3] = ["stack", "volume", "container"];

/// Reads the sections out of `top` and adds them to `read`, for what is unknown in them to be found.
pub(super) fn rules<'a, 'i>(top: &mut Section<'a, 'i>, read: &mut Vec<Section<'a, 'i>>) -> Result<Rules> {
    let mut volumes = top.section("volumes")?;
    let mut defaults = top.section("defaults")?;
    let [stacks, by_volume, containers] = TABLES;
    let rules = Rules {
        discover: volumes
            .parsed("discover", |text| {
                word(text, &[("all", Discover::All), ("labelled", Discover::Labelled), ("labeled", Discover::Labelled)])
            })?
            .unwrap_or_default(),
        locked: volumes.parsed("locked", |text| each(text, lock))?.unwrap_or_default(),
        bind_roots: volumes.parsed("bind_roots", |text| each(text, bind_root))?.unwrap_or_default(),
        compat: volumes.parsed("compat", |text| each(text, compat))?.unwrap_or_default(),
        cross_project_groups: volumes.flag("cross_project_groups")?.unwrap_or(false),
        leave_outsiders: volumes.parsed("outsiders", |text| word(text, &[("hold", false), ("leave", true)]))?.unwrap_or(false),
        keep_min: volumes.parsed("keep_min", Keep::parse)?,
        defaults: settings(&mut defaults, "[defaults]", Key::fits_volume)?,
        stacks: named(top, stacks, Key::fits_volume, read)?,
        volumes: named(top, by_volume, Key::fits_volume, read)?,
        containers: named(top, containers, Key::fits_container_section, read)?,
    };
    read.extend([volumes, defaults]);
    Ok(rules)
}

fn each<T, C: FromIterator<T>>(text: &str, parse: impl Fn(&str) -> Result<T>) -> Result<C> {
    list(text)?.iter().map(|item| parse(item)).collect()
}

/// The sections `[kind."NAME"]`.
fn named<'a, 'i>(
    top: &mut Section<'a, 'i>,
    kind: &'static str,
    fits: fn(Key) -> bool,
    read: &mut Vec<Section<'a, 'i>>,
) -> Result<BTreeMap<String, Settings>> {
    let mut found = BTreeMap::new();
    for (name, mut section) in top.sections(kind)? {
        let shown = format!("[{kind}.\"{name}\"]");
        found.insert(name, settings(&mut section, &shown, fits)?);
        read.push(section);
    }
    Ok(found)
}

fn settings(section: &mut Section<'_, '_>, shown: &str, fits: fn(Key) -> bool) -> Result<Settings> {
    let mut settings = Settings::default();
    for key in Key::ALL.into_iter().filter(|key| fits(*key)) {
        section.parsed(key.config_name(), |text| settings.set(key, text, Origin::Config(shown.to_owned())))?;
    }
    Ok(settings)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::super::parse;
    use super::*;
    use crate::error::Error;
    use crate::live::keys::Moment;
    use crate::live::rules::Compat;

    fn read(text: &str) -> Result<Rules, Error> {
        parse(Path::new("/etc/x/icecore.toml"), text).map(|settings| settings.rules)
    }

    #[test]
    fn the_operator_s_rules_are_read() {
        let rules = read(
            r#"
            [volumes]
            discover = "labelled"
            locked = ["hook.*", "dump"]
            bind_roots = ["/srv"]
            compat = ["offen", "stack-back", "backup"]
            cross_project_groups = true
            outsiders = "leave"
            keep_min = "last=3"
            "#,
        )
        .unwrap();
        assert_eq!(rules.discover, Discover::Labelled);
        assert!(rules.is_locked(Key::Hook(Moment::Pre)) && rules.is_locked(Key::Dump) && !rules.is_locked(Key::Keep));
        assert_eq!(rules.bind_roots, [PathBuf::from("/srv")]);
        assert_eq!(rules.compat, [Compat::Offen, Compat::StackBack, Compat::Backup].into());
        assert!(rules.cross_project_groups && rules.leave_outsiders);
        assert_eq!(rules.keep_min.unwrap().to_string(), "last=3");
        assert_eq!(read("").unwrap(), Rules::default());
    }

    #[test]
    fn every_setting_has_its_sections() {
        let sample = |key: Key| match key {
            Key::Enable => "true",
            Key::Volumes | Key::VolumesExclude | Key::Exclude => "['data']",
            Key::Binds => "['/data']",
            Key::Schedule => "'@daily'",
            Key::Consistency => "'frozen'",
            Key::FreezeBudget | Key::StopTimeout | Key::Health | Key::HookTimeout(_) => "'7s'",
            Key::Group | Key::HookUser(_) | Key::Description => "'x'",
            Key::Dump => "['postgres', 'sqlite:/x']",
            Key::Hook(_) => "['prog', 'a,b']",
            Key::Keep => "'last=1'",
            Key::Priority => "'low'",
        };
        for key in Key::ALL {
            let line = format!("{} = {}", key.config_name(), sample(key));
            for (section, fits) in [
                ("defaults", key.fits_volume()),
                ("stack.\"shop\"", key.fits_volume()),
                ("volume.\"shop_db\"", key.fits_volume()),
                ("container.\"shop-db-1\"", key.fits_container_section()),
            ] {
                let found = read(&format!("[{section}]\n{line}\n"));
                assert_eq!(found.is_ok(), fits, "[{section}] {line}: {found:?}");
                let Ok(rules) = found else { continue };
                let all = [&rules.stacks, &rules.volumes, &rules.containers].into_iter().flat_map(|map| map.values());
                let said: Vec<_> = all.chain([&rules.defaults]).filter(|settings| settings.has(key)).collect();
                assert_eq!(said.len(), 1, "[{section}] {line}");
            }
        }
        let rules = read("[container.\"a\"]\nhook_pre = ['prog', 'a,b']\n[volume.\"v\"]\nexclude = ['a,b']").unwrap();
        assert_eq!(rules.containers["a"].hooks[&Moment::Pre].command.as_ref().unwrap().value, ["prog", "a,b"]);
        let exclude = rules.volumes["v"].exclude.as_ref().unwrap();
        assert_eq!((exclude.value.len(), exclude.origin.to_string().as_str()), (1, "configuration [volume.\"v\"]"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_was_meant() {
        for (text, line, word, hint) in [
            ("[volumes]\ndiscover = 'labeld'", 2, "`discover`", "`labeled`"),
            ("[volumes]\n\nlocked = ['hooks.*']", 3, "`locked`", "settings are"),
            ("[volumes]\nlocked = ['dumps']", 2, "`locked`", "`dump`"),
            ("[volumes]\nbind_roots = ['/']", 2, "`bind_roots`", "everything"),
            ("[volumes]\ncompat = 'ofen'", 2, "`compat`", "`offen`"),
            ("[volumes]\nkeep_min = 'last=0'", 2, "`keep_min`", ""),
            ("[volumes]\ndiscovr = 'all'", 2, "`discovr` in [volumes]", "`discover`"),
            ("[defaults]\nfreeze-budget = '1s'", 2, "`freeze-budget`", "`freeze_budget`"),
            ("[defaults]\nfreeze_budget = '1'", 2, "`freeze_budget`", "1s"),
            ("[defaults]\nfreeze_budget = 1", 2, "`freeze_budget`", ""),
            ("[defaults]\nhook_pre = 'sh: x'", 2, "`hook_pre` in [defaults]", ""),
            ("[defaults]\ndump = 'postgres'", 2, "`dump` in [defaults]", ""),
            ("[volume.\"db\"]\nkep = 'last=1'", 2, "`kep` in [volume.\"db\"]", "`keep`"),
            ("[volume.\"db\"]\nkeep = {last = 1}", 2, "`keep`", ""),
            ("[volume]\nkeep = 'last=1'", 2, "`keep`", "[volume.\"NAME\"]"),
            ("volume = 3", 1, "`volume`", ""),
            ("[container.\"c\"]\nkeep = 'last=1'", 2, "`keep` in [container.\"c\"]", ""),
            ("[volume.\"a\\u001bb\"]\nkep = 1", 2, "[volume.\"a\\u{1b}b\"]", ""),
        ] {
            let error = read(text).unwrap_err();
            let said = error.to_string();
            assert!(said.contains(&format!("icecore.toml, line {line}")) && said.contains(word), "{text}: {said}");
            assert!(error.advice().unwrap_or_default().contains(hint), "{text}: {:?}", error.advice());
        }
    }
}
