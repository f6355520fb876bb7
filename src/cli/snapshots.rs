//! `icecore snapshots`

use clap::Args;
use serde::Serialize;

use super::exit::Outcome;
use super::render::{Side, Table};
use super::time::At;
use super::{Context, open, render, select, time};
use crate::error::Result;
use crate::model::manifest::{Fault, VolumeFacts};
use crate::progress::Warning;
use crate::repo::Committed;
use crate::volume::access;

#[derive(Debug, Args)]
pub(super) struct SnapshotsArgs {
    /// Only snapshots of this source
    source: Option<String>,
    /// Only what a restore as of this time would take: of each source the newest that is not later
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Only snapshots with this tag
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
}

/// One snapshot as JSON.
#[derive(Debug, Serialize)]
pub(super) struct SnapshotFact {
    /// None after a dry run.
    pub(super) id: Option<String>,
    source: String,
    kind: &'static str,
    host: String,
    run: String,
    sequence: u64,
    time: String,
    consistency: String,
    frozen_ms: u64,
    files: u64,
    directories: u64,
    bytes: u64,
    new_bytes: u64,
    stored_bytes: u64,
    /// Of those, what trees and lists take.
    tree_bytes: u64,
    pub(super) seconds: f64,
    /// What could not be captured as it was.
    pub(super) warnings: Vec<Warning>,
    partial: bool,
    unreadable: u64,
    changed: u64,
    tags: Vec<String>,
    parent: Option<String>,
    program: String,
    /// What the engine knew of the volume; null for a directory. Secrets of its options are masked.
    volume: Option<VolumeFacts>,
}

impl From<&Committed> for SnapshotFact {
    fn from(snapshot: &Committed) -> Self {
        let record = &snapshot.record;
        let warning = |fault: &Fault| Warning { path: fault.path.clone(), message: fault.message.clone() };
        Self {
            id: Some(snapshot.id.to_string()),
            source: record.source.name.clone(),
            kind: select::kind_word(record.source.kind),
            host: record.source.host.clone(),
            run: record.run.to_string(),
            sequence: record.sequence,
            time: record.time.to_string(),
            consistency: record.consistency.to_string(),
            frozen_ms: record.frozen_milliseconds,
            files: record.stats.files,
            directories: record.stats.directories,
            bytes: record.stats.bytes,
            new_bytes: record.stats.new_bytes,
            stored_bytes: record.stats.stored_bytes,
            tree_bytes: record.stats.tree_bytes,
            seconds: record.milliseconds as f64 / 1000.0,
            warnings: record.unreadable.iter().chain(&record.changed).map(warning).collect(),
            partial: record.is_partial(),
            unreadable: record.unreadable_count,
            changed: record.changed_count,
            tags: record.tags.clone(),
            parent: record.parent.map(|id| id.to_string()),
            program: record.program.clone(),
            volume: record.volume.clone().map(masked),
        }
    }
}

/// An encrypted repository keeps the secrets of options; a terminal or log is no place for them.
fn masked(facts: VolumeFacts) -> VolumeFacts {
    let options = access::mask_options(facts.options.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    VolumeFacts { options, ..facts }
}

pub(super) fn run(args: &SnapshotsArgs, context: &mut Context) -> Result<Outcome> {
    let at = args.at.as_deref().map(|text| time::parse_at(text, &context.now())).transpose()?;
    let repo = open::repository(context)?;
    let (all, outcome) = context.snapshots(&repo)?;
    let source = match &args.source {
        Some(text) => Some(context.selector(&all)?.source(text)?),
        None => None,
    };
    let mut shown: Vec<&Committed> = all.iter().collect();
    shown.retain(|snapshot| source.as_ref().is_none_or(|source| snapshot.record.source == *source));
    shown.retain(|snapshot| args.tag.is_empty() || args.tag.iter().any(|tag| snapshot.record.tags.contains(tag)));
    if let Some(at) = at {
        shown = as_of(&shown, at);
    }
    let facts: Vec<SnapshotFact> = shown.iter().map(|snapshot| SnapshotFact::from(*snapshot)).collect();
    let zone = &context.zone;
    context.out.report(&facts, || table(&shown, zone))?;
    Ok(outcome)
}

/// Of each source the newest of `shown` that is not later than `at`. `shown` is ordered by source, then sequence.
fn as_of<'a>(shown: &[&'a Committed], at: At) -> Vec<&'a Committed> {
    let mut newest: Vec<&Committed> = Vec::new();
    let early_enough = |snapshot: &Committed| match at {
        At::Latest => true,
        At::Moment(moment) => snapshot.record.time <= moment,
    };
    for snapshot in shown.iter().copied().filter(|snapshot| early_enough(snapshot)) {
        match newest.last_mut() {
            Some(last) if last.record.source == snapshot.record.source => *last = snapshot,
            _ => newest.push(snapshot),
        }
    }
    newest
}

fn table(shown: &[&Committed], zone: &jiff::tz::TimeZone) -> String {
    if shown.is_empty() {
        return "no snapshots\n".to_owned();
    }
    let mut table = Table::new(&[
        ("ID", Side::Left),
        ("TIME", Side::Left),
        ("SOURCE", Side::Left),
        ("FILES", Side::Right),
        ("SIZE", Side::Right),
        ("NEW", Side::Right),
        ("CONSISTENCY", Side::Left),
        ("TAGS", Side::Left),
    ]);
    for snapshot in shown {
        let record = &snapshot.record;
        let partial = if record.is_partial() { " partial" } else { "" };
        table.row(vec![
            snapshot.id.short(),
            render::local_time(record.time, zone),
            super::exit::printable(&record.source.name),
            render::grouped(record.stats.files),
            render::size(record.stats.bytes),
            render::size(record.stats.new_bytes),
            format!("{}{partial}", record.consistency),
            record.tags.iter().map(|tag| render::name(tag)).collect::<Vec<_>>().join(","),
        ]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::super::select::tests::committed;
    use super::*;
    use crate::clock::Timestamp;
    use crate::model::SourceKind;

    #[test]
    fn as_of_shows_one_of_each_source() {
        let all = [
            committed("a1", SourceKind::Volume, "a", "h", 1, 100),
            committed("a2", SourceKind::Volume, "a", "h", 2, 200),
            committed("b1", SourceKind::Volume, "b", "h", 1, 150),
            committed("c1", SourceKind::Volume, "c", "h", 1, 300),
        ];
        let shown: Vec<&Committed> = all.iter().collect();
        let ids = |at| as_of(&shown, at).iter().map(|snapshot| snapshot.id.to_string()[..2].to_owned()).collect::<Vec<_>>();
        assert_eq!(ids(At::Moment(Timestamp::new(199, 0))), ["a1", "b1"]);
        assert_eq!(ids(At::Latest), ["a2", "b1", "c1"]);
        assert!(ids(At::Moment(Timestamp::new(1, 0))).is_empty());
    }

    #[test]
    fn json_has_the_facts_of_a_volume_without_its_secrets() {
        let mut snapshot = committed("abcdef012345", SourceKind::Volume, "pg", "h", 1, 0);
        let options = vec![("o".to_owned(), "username=u,password=hunter2".to_owned())];
        snapshot.record.volume = Some(VolumeFacts { driver: "local".into(), options, ..VolumeFacts::default() });
        let fact = serde_json::to_value(SnapshotFact::from(&snapshot)).unwrap_or_default();
        assert_eq!(fact["volume"]["driver"], "local");
        assert_eq!(fact["volume"]["options"][0][1], "username=u,password=***");
    }

    #[test]
    fn the_table_flags_partial_snapshots_and_escapes_names() {
        let mut snapshot = committed("abcdef012345", SourceKind::Volume, "pg\x1b", "h", 1, 0);
        snapshot.record.unreadable_count = 1;
        snapshot.record.tags = vec!["x".into(), "\u{7}".into()];
        let text = table(&[&snapshot], &jiff::tz::TimeZone::UTC);
        assert_eq!(text.lines().nth(1), Some("abcdef0123  1970-01-01 00:00:00  pg\\u{1b}      0   0 B  0 B  stopped partial  x,\\u{7}"));
        assert_eq!(table(&[], &jiff::tz::TimeZone::UTC), "no snapshots\n");
    }
}
