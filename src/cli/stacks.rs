//! `icecore stacks`

use serde::Serialize;

use super::exit::{self, Outcome};
use super::last::{self, History};
use super::render::{Side, Table};
use super::{Context, open, pick, render};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::live::labels::Remark;
use crate::live::stacks::Stack;
use crate::live::survey::{Survey, Uncovered};
use crate::model::SourceKind;

#[derive(Serialize)]
struct StackFact<'a> {
    #[serde(flatten)]
    stack: &'a Stack,
    /// The newest run that has a complete snapshot of all that is covered.
    last_complete: Option<String>,
    last_complete_age_seconds: Option<i64>,
}

#[derive(Serialize)]
struct Report<'a> {
    stacks: Vec<StackFact<'a>>,
    /// What is not covered and belongs to no stack.
    uncovered: Vec<&'a Uncovered>,
    remarks: &'a [Remark],
    warnings: &'a [String],
    /// Why the last snapshots are not known.
    repository_error: Option<String>,
}

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let engine = open::engine(&context.globals)?;
    let survey = Survey::take(&*engine, &context.rules)?;
    let (snapshots, repository_error) = last::snapshots(context);
    let (now, history) = (context.clock.now(), History::new(&snapshots, &open::host()));
    for warning in &survey.warnings {
        context.warn(&format!("volumes may be missing: {}", render::name(warning)));
    }
    survey.remarks.iter().for_each(|remark| pick::say(remark, context));
    let stacks: Vec<(&Stack, Option<Timestamp>)> = survey.stacks.iter().map(|stack| (stack, complete(stack, &history))).collect();
    let text = text(&stacks, now);
    let facts = stacks.iter().map(|(stack, last)| StackFact {
        stack,
        last_complete: last.map(|time| time.to_string()),
        last_complete_age_seconds: last.map(|time| now.seconds.saturating_sub(time.seconds)),
    });
    let report = Report {
        stacks: facts.collect(),
        uncovered: survey.uncovered.iter().filter(|one| one.project.is_none()).collect(),
        remarks: &survey.remarks,
        warnings: &survey.warnings,
        repository_error,
    };
    context.out.report(&report, || text)?;
    Ok(Outcome::Done)
}

/// When the newest run began that has all of the stack.
fn complete(stack: &Stack, history: &History<'_>) -> Option<Timestamp> {
    let paths: Vec<String> = stack.binds.iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let volumes = stack.volumes.iter().filter(|volume| volume.uncovered.is_none()).map(|volume| (SourceKind::Volume, volume.name.as_str()));
    let sources: Vec<(SourceKind, &str)> = volumes.chain(paths.iter().map(|path| (SourceKind::Path, path.as_str()))).collect();
    history.complete(&sources)
}

/// A table of the stacks, then what each does not cover. Mounts that are only read are left to JSON: most are files of the
/// system.
fn text(stacks: &[(&Stack, Option<Timestamp>)], now: Timestamp) -> String {
    if stacks.is_empty() {
        return "no Compose projects\n".to_owned();
    }
    let mut table = Table::new(&[
        ("STACK", Side::Left),
        ("SERVICES", Side::Right),
        ("RUNNING", Side::Right),
        ("VOLUMES", Side::Right),
        ("COVERED", Side::Right),
        ("FOLDERS", Side::Right),
        ("PRIORITY", Side::Left),
        ("LAST COMPLETE RUN", Side::Left),
    ]);
    for (stack, last) in stacks {
        let covered = stack.volumes.iter().filter(|volume| volume.uncovered.is_none()).count();
        table.row(vec![
            render::name(&stack.name),
            stack.services.len().to_string(),
            stack.services.iter().filter(|service| service.running > 0).count().to_string(),
            stack.volumes.len().to_string(),
            covered.to_string(),
            stack.binds.len().to_string(),
            stack.priority.to_string(),
            last.map_or("-".to_owned(), |time| render::age(time, now)),
        ]);
    }
    let mut text = table.text();
    for (stack, _) in stacks {
        for one in stack.uncovered.iter().filter(|one| one.writable || one.kind == "volume") {
            text.push_str(&format!("{}: not covered: {}\n", render::name(&stack.name), line(one)));
        }
    }
    text
}

/// One thing that is not covered.
pub(super) fn line(one: &Uncovered) -> String {
    let name = if one.name.is_empty() { String::new() } else { format!(" {}", render::name(&one.name)) };
    let place = match (&one.container, &one.destination) {
        (Some(container), Some(destination)) => format!(" (at {} in {})", render::name(destination), render::name(container)),
        _ => String::new(),
    };
    format!("{}{name}{place}: {}", one.kind, exit::printable(&one.reason))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::select::tests::committed;
    use super::*;
    use crate::docker::fake::FakeEngine;
    use crate::docker::{ContainerInfo, MountInfo, VolumeInfo};
    use crate::live::rules::Rules;
    use std::collections::BTreeMap;

    fn survey(root: &std::path::Path) -> Survey {
        let engine = FakeEngine::at(root);
        let project = |service: &str| {
            BTreeMap::from([
                ("com.docker.compose.project".to_owned(), "shop".to_owned()),
                ("com.docker.compose.service".to_owned(), service.to_owned()),
            ])
        };
        for name in ["shop_db", "shop_files"] {
            engine.add_volume(VolumeInfo { name: name.into(), driver: "local".into(), labels: project("x"), ..VolumeInfo::default() });
        }
        let bind =
            |source: &str, writable| MountInfo { source: source.into(), destination: "/in\x1b".into(), writable, ..MountInfo::default() };
        engine.add_container(ContainerInfo {
            id: "1".into(),
            name: "shop-db-1".into(),
            state: "running".into(),
            labels: project("db"),
            mounts: vec![bind("/srv/data", true), bind("/etc/localtime", false)],
            ..ContainerInfo::default()
        });
        Survey::take(&engine, &Rules::default()).unwrap()
    }

    #[test]
    fn stacks_are_shown_with_their_last_complete_run_and_what_is_missing() {
        let root = tempfile::tempdir().unwrap();
        let survey = survey(root.path());
        let snapshots = [
            committed("a1", SourceKind::Volume, "shop_db", "here", 1, 100),
            committed("a2", SourceKind::Volume, "shop_files", "here", 1, 100),
        ];
        let show = |snapshots: &[crate::repo::Committed]| {
            let history = History::new(snapshots, "here");
            let stacks: Vec<_> = survey.stacks.iter().map(|stack| (stack, complete(stack, &history))).collect();
            text(&stacks, Timestamp::new(130, 0))
        };
        let shown = show(&snapshots);
        assert!(shown.contains("30 s ago") && shown.contains("medium"), "{shown}");
        assert!(shown.contains("shop: not covered: bind /srv/data (at /in\\u{1b} in shop-db-1): a bind mount"), "{shown}");
        assert!(!shown.contains("localtime") && !shown.contains('\x1b'), "{shown}");
        assert!(!show(&snapshots[..1]).contains("ago"), "one of two is not complete");
        assert_eq!(text(&[], Timestamp::default()), "no Compose projects\n");
        let fact =
            serde_json::to_value(StackFact { stack: &survey.stacks[0], last_complete: None, last_complete_age_seconds: None }).unwrap();
        assert_eq!((&fact["name"], &fact["services"][0]["running"], &fact["priority"]), (&"shop".into(), &1.into(), &"medium".into()));
        assert_eq!(fact["uncovered"].as_array().unwrap().len(), 2);
    }
}
