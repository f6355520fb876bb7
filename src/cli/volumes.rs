//! `icecore volumes`

use clap::Args;
use serde::Serialize;

use super::exit::{self, Outcome};
use super::last::{self, History, Last};
use super::render::{Side, Table};
use super::{Context, open, pick, render};
use crate::clock::Timestamp;
use crate::docker::no_such_volume;
use crate::error::Result;
use crate::live::labels::Remark;
use crate::live::policy::Policy;
use crate::live::size;
use crate::live::survey::{Survey, VolumeState};
use crate::model::SourceKind;
use crate::repo::Committed;
use crate::volume::discovery::VolumeSummary;
use crate::volume::host_path::host_path;

#[derive(Debug, Args)]
pub(super) struct VolumesArgs {
    /// Show these volumes with all their settings and where each comes from
    #[arg(value_name = "VOLUME")]
    volumes: Vec<String>,
    /// Measure sizes by walking the volumes, instead of taking them from the last snapshots
    #[arg(long)]
    size: bool,
}

/// A setting that a volume has.
#[derive(Debug, Serialize)]
struct SettingFact {
    setting: &'static str,
    value: String,
    from: String,
}

#[derive(Serialize)]
struct VolumeFact {
    #[serde(flatten)]
    volume: VolumeSummary,
    covered: bool,
    /// Why it is not covered.
    reason: Option<String>,
    priority: String,
    description: Option<String>,
    application: Option<String>,
    /// Bytes of file content: of the last snapshot, or as measured.
    size_bytes: Option<u64>,
    policy: Vec<SettingFact>,
    last_snapshot: Option<Last>,
}

#[derive(Serialize)]
struct BindFact {
    path: String,
    project: Option<String>,
    covered: bool,
    reason: Option<String>,
    priority: String,
    policy: Vec<SettingFact>,
    last_snapshot: Option<Last>,
}

#[derive(Serialize)]
struct Report<'a> {
    volumes: Vec<VolumeFact>,
    binds: Vec<BindFact>,
    remarks: &'a [Remark],
    warnings: &'a [String],
    /// Why the last snapshots are not known.
    repository_error: Option<String>,
}

/// A volume as it is shown.
struct Row<'a> {
    state: &'a VolumeState,
    size: Option<u64>,
    last: Option<&'a Committed>,
}

pub(super) fn run(args: &VolumesArgs, context: &mut Context) -> Result<Outcome> {
    let engine = open::engine(&context.globals)?;
    let survey = Survey::take(&*engine, &context.rules)?;
    let states: Vec<&VolumeState> = if args.volumes.is_empty() {
        survey.volumes.iter().collect()
    } else {
        args.volumes.iter().map(|name| survey.volume(name).ok_or_else(|| no_such_volume(name))).collect::<Result<_>>()?
    };
    let (snapshots, repository_error) = last::snapshots(context);
    let (now, history) = (context.clock.now(), History::new(&snapshots, &open::host()));
    let mut rows = Vec::new();
    for state in states {
        let last = history.newest(SourceKind::Volume, &state.summary.name);
        let size = if args.size { measured(&survey, state, context)? } else { last.map(|last| last.record.stats.bytes) };
        rows.push(Row { state, size, last });
    }
    for warning in &survey.warnings {
        context.warn(&format!("volumes may be missing: {}", render::name(warning)));
    }
    survey.remarks.iter().for_each(|remark| pick::say(remark, context));
    let report = Report {
        volumes: rows.iter().map(|row| volume_fact(row, now)).collect(),
        binds: if args.volumes.is_empty() { bind_facts(&survey, &history, now) } else { Vec::new() },
        remarks: &survey.remarks,
        warnings: &survey.warnings,
        repository_error,
    };
    context.out.report(&report, || {
        if args.volumes.is_empty() { table(&rows, now) + &binds(&report.binds) } else { rows.iter().map(|row| details(row, now)).collect() }
    })?;
    Ok(Outcome::Done)
}

/// The size of a volume that can be read; one that went away meanwhile, or cannot be walked, has none.
fn measured(survey: &Survey, state: &VolumeState, context: &Context) -> Result<Option<u64>> {
    let (name, inventory) = (&state.summary.name, &survey.inventory);
    let found = inventory.found.volumes.iter().find(|volume| volume.name == *name).filter(|_| state.summary.unreadable.is_none());
    let Some(volume) = found else { return Ok(None) };
    let go_on = || context.progress.check();
    let source = host_path(&inventory.info, volume).and_then(|path| open::source(&path));
    let measured = source.and_then(|source| size::measure(&*source, &go_on));
    go_on()?;
    match measured {
        Ok(size) => Ok(Some(size.bytes)),
        Err(error) => {
            context.warn(&format!("cannot measure volume {}: {}", render::name(name), exit::printable(&error.to_string())));
            Ok(None)
        }
    }
}

fn volume_fact(row: &Row<'_>, now: Timestamp) -> VolumeFact {
    let policy = &row.state.policy;
    VolumeFact {
        volume: row.state.summary.clone(),
        covered: row.state.uncovered.is_none(),
        reason: row.state.uncovered.clone(),
        priority: policy.priority.value.to_string(),
        description: policy.description.as_ref().map(|description| description.value.clone()),
        application: row.state.application.clone(),
        size_bytes: row.size,
        policy: setting_facts(policy),
        last_snapshot: row.last.map(|last| last::fact(last, now)),
    }
}

fn bind_facts(survey: &Survey, history: &History<'_>, now: Timestamp) -> Vec<BindFact> {
    let fact = |bind: &crate::live::survey::BindState| {
        let path = bind.path.to_string_lossy().into_owned();
        let last_snapshot = history.newest(SourceKind::Path, &path).map(|last| last::fact(last, now));
        BindFact {
            path,
            project: bind.project.clone(),
            covered: bind.uncovered.is_none(),
            reason: bind.uncovered.clone(),
            priority: bind.policy.priority.value.to_string(),
            policy: setting_facts(&bind.policy),
            last_snapshot,
        }
    };
    survey.binds.iter().map(fact).collect()
}

fn setting_facts(policy: &Policy) -> Vec<SettingFact> {
    policy.facts().into_iter().map(|(setting, value, from)| SettingFact { setting, value, from }).collect()
}

fn users(state: &VolumeState) -> Vec<&str> {
    let mut users: Vec<&str> = state.summary.users.iter().map(|user| user.container.as_str()).collect();
    users.sort_unstable();
    users.dedup();
    users
}

fn table(rows: &[Row<'_>], now: Timestamp) -> String {
    if rows.is_empty() {
        return "no volumes\n".to_owned();
    }
    let mut table = Table::new(&[
        ("VOLUME", Side::Left),
        ("DRIVER", Side::Left),
        ("PROJECT", Side::Left),
        ("APPLICATION", Side::Left),
        ("USERS", Side::Right),
        ("WRITERS", Side::Right),
        ("SIZE", Side::Right),
        ("PRIORITY", Side::Left),
        ("LAST SNAPSHOT", Side::Left),
        ("", Side::Left),
    ]);
    for row in rows {
        let (summary, policy) = (&row.state.summary, &row.state.policy);
        let remark = match (&row.state.uncovered, &policy.description) {
            (Some(why), _) => format!("not covered: {}", exit::printable(why)),
            (None, Some(description)) => render::name(&description.value),
            (None, None) => String::new(),
        };
        table.row(vec![
            render::name(&summary.name),
            render::name(&summary.driver),
            summary.project.as_deref().map_or("-".to_owned(), render::name),
            row.state.application.as_deref().map_or("-".to_owned(), render::name),
            users(row.state).len().to_string(),
            summary.writers.to_string(),
            row.size.map_or("-".to_owned(), render::size),
            policy.priority.value.to_string(),
            last::cell(row.last, now),
            remark,
        ]);
    }
    table.text()
}

fn binds(binds: &[BindFact]) -> String {
    let line = |bind: &BindFact| {
        let reason = bind.reason.as_ref().map_or_else(String::new, |why| format!(", not covered: {}", exit::printable(why)));
        format!("folder {} (priority {}{reason})\n", render::name(&bind.path), bind.priority)
    };
    binds.iter().map(line).collect()
}

/// One volume in full.
fn details(row: &Row<'_>, now: Timestamp) -> String {
    let summary = &row.state.summary;
    let covered = row.state.uncovered.as_ref().map_or("yes".to_owned(), |why| format!("no: {}", exit::printable(why)));
    let mut text = format!("{}\n", render::name(&summary.name));
    let mut add = |name: &str, value: String| text.push_str(&format!("  {name:<24} {value}\n"));
    add("covered", covered);
    add("driver", render::name(&summary.driver));
    add("project", summary.project.as_deref().map_or("-".to_owned(), render::name));
    if let Some(application) = &row.state.application {
        add("application", render::name(application));
    }
    add("users", users(row.state).into_iter().map(render::name).collect::<Vec<_>>().join(", "));
    add("size", row.size.map_or("-".to_owned(), render::size));
    add("last snapshot", last::cell(row.last, now));
    for (setting, value, from) in row.state.policy.facts() {
        add(setting, exit::printable(&format!("{value}   ({from})")));
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::select::tests::committed;
    use super::*;
    use crate::docker::VolumeInfo;
    use crate::docker::fake::FakeEngine;
    use crate::live::rules::Rules;

    fn survey(root: &std::path::Path) -> Survey {
        let engine = FakeEngine::at(root);
        for (name, driver, labels) in [
            ("pg", "local", &[("icecore.priority", "high"), ("description", "Orders\x1b[2J")][..]),
            ("nfs", "rexray", &[]),
            ("cache", "local", &[("icecore.enable", "false")]),
        ] {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            engine.add_volume(VolumeInfo { name: name.into(), driver: driver.into(), labels, ..VolumeInfo::default() });
        }
        Survey::take(&engine, &Rules::default()).unwrap()
    }

    #[test]
    fn a_volume_is_shown_with_its_settings_and_why_it_is_not_covered() {
        let root = tempfile::tempdir().unwrap();
        let survey = survey(root.path());
        let mut snapshot = committed("a2", SourceKind::Volume, "pg", "here", 2, 200);
        snapshot.record.stats.bytes = 2048;
        let now = Timestamp::new(230, 0);
        let rows: Vec<Row> = survey
            .volumes
            .iter()
            .map(|state| {
                let last = (state.summary.name == "pg").then_some(&snapshot);
                Row { state, size: last.map(|last| last.record.stats.bytes), last }
            })
            .collect();
        let text = table(&rows, now);
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        assert!(line("pg").contains("2.0 KiB") && line("pg").contains("high") && line("pg").contains("30 s ago (a200000000)"), "{text}");
        assert!(line("pg").contains("Orders") && !text.contains('\x1b'), "{text}");
        assert!(line("cache").contains("not covered: left out by label icecore.enable of the volume"), "{text}");
        assert!(line("nfs").contains("cannot be read") && line("nfs").contains("rexray"), "{text}");
        assert_eq!(table(&[], now), "no volumes\n");

        let text = details(&rows[2], now);
        assert!(text.contains("high   (label icecore.priority of the volume)") && text.contains("5s   (default)"), "{text}");
        let fact = serde_json::to_value(volume_fact(&rows[0], now)).unwrap();
        assert_eq!((&fact["name"], &fact["covered"]), (&"cache".into(), &false.into()));
        assert_eq!(fact["policy"][0]["from"], "label icecore.enable of the volume");
    }
}
