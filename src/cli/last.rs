//! The last snapshot of each source of this host, and the last run that has all of a stack.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::open::{self, Asking};
use super::{Context, exit, render};
use crate::clock::Timestamp;
use crate::model::{SessionId, SourceKind};
use crate::repo::Committed;

/// When a run began, and what it captured.
type Captured<'a> = (Timestamp, HashSet<(SourceKind, &'a str)>);

/// A snapshot as it stands in a list of sources.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Last {
    id: String,
    time: String,
    age_seconds: i64,
    consistency: String,
    partial: bool,
}

/// Snapshots of this host's sources, by source.
pub(super) struct History<'a> {
    newest: HashMap<(SourceKind, &'a str), &'a Committed>,
    runs: HashMap<SessionId, Captured<'a>>,
}

/// The repository's snapshots, or why they are not known: a list of what the engine has is worth showing without them, and
/// without the repository's key.
pub(super) fn snapshots(context: &Context) -> (Vec<Committed>, Option<String>) {
    let known = open::repository_with(context, Asking::Never).and_then(|repo| context.snapshots(&repo));
    match known {
        Ok((snapshots, _)) => (snapshots, None),
        Err(error) => {
            context.note(&format!("last snapshots are not shown: {}", exit::printable(&error.to_string())));
            (Vec::new(), Some(error.to_string()))
        }
    }
}

impl<'a> History<'a> {
    /// Sorts the snapshots of `host`.
    pub(super) fn new(snapshots: &'a [Committed], host: &str) -> Self {
        let (mut newest, mut runs) = (HashMap::new(), HashMap::new());
        for snapshot in snapshots.iter().filter(|snapshot| snapshot.record.source.host == host) {
            let record = &snapshot.record;
            let source = (record.source.kind, record.source.name.as_str());
            let last = newest.entry(source).or_insert(snapshot);
            if record.sequence > last.record.sequence {
                *last = snapshot;
            }
            if !record.is_partial() {
                let (time, sources): &mut (Timestamp, HashSet<_>) = runs.entry(record.run).or_insert((record.time, HashSet::new()));
                *time = (*time).min(record.time);
                sources.insert(source);
            }
        }
        Self { newest, runs }
    }

    /// The newest snapshot of a source.
    pub(super) fn newest(&self, kind: SourceKind, name: &str) -> Option<&'a Committed> {
        self.newest.get(&(kind, name)).copied()
    }

    /// When the newest run began that has a complete snapshot of each of `sources`; none for no sources.
    pub(super) fn complete(&self, sources: &[(SourceKind, &str)]) -> Option<Timestamp> {
        let all = |of_run: &HashSet<(SourceKind, &str)>| sources.iter().all(|source| of_run.contains(source));
        self.runs.values().filter(|(_, of_run)| !sources.is_empty() && all(of_run)).map(|(time, _)| *time).max()
    }
}

/// A snapshot as JSON.
pub(super) fn fact(snapshot: &Committed, now: Timestamp) -> Last {
    let record = &snapshot.record;
    Last {
        id: snapshot.id.to_string(),
        time: record.time.to_string(),
        age_seconds: now.seconds.saturating_sub(record.time.seconds),
        consistency: record.consistency.to_string(),
        partial: record.is_partial(),
    }
}

/// A snapshot in a table.
pub(super) fn cell(snapshot: Option<&Committed>, now: Timestamp) -> String {
    match snapshot {
        Some(snapshot) => {
            let partial = if snapshot.record.is_partial() { ", partial" } else { "" };
            format!("{} ({}{partial})", render::age(snapshot.record.time, now), snapshot.id.short())
        }
        None => "-".to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::select::tests::committed;
    use super::*;

    #[test]
    fn the_newest_of_this_host_is_found_by_kind_and_name() {
        let snapshots = [
            committed("a2", SourceKind::Volume, "pg", "here", 2, 200),
            committed("a1", SourceKind::Volume, "pg", "here", 1, 100),
            committed("a3", SourceKind::Volume, "pg", "there", 9, 300),
            committed("a4", SourceKind::Path, "pg", "here", 9, 300),
        ];
        let history = History::new(&snapshots, "here");
        let newest = history.newest(SourceKind::Volume, "pg").unwrap();
        assert_eq!(newest.id, snapshots[0].id);
        assert!(history.newest(SourceKind::Volume, "other").is_none());
        assert_eq!(cell(Some(newest), Timestamp::new(230, 0)), "30 s ago (a200000000)");
        assert_eq!(cell(None, Timestamp::default()), "-");
        assert_eq!(fact(newest, Timestamp::new(230, 0)).age_seconds, 30);
    }

    #[test]
    fn a_run_counts_for_a_stack_only_when_it_has_all_of_it() {
        let mut snapshots = [
            committed("a1", SourceKind::Volume, "db", "here", 1, 100),
            committed("a2", SourceKind::Volume, "files", "here", 1, 101),
            committed("a3", SourceKind::Volume, "db", "here", 2, 200),
            committed("a4", SourceKind::Volume, "files", "here", 2, 201),
        ];
        for (snapshot, run) in snapshots.iter_mut().zip([1, 1, 2, 2]) {
            snapshot.record.run = SessionId([run; 16]);
        }
        let stack = [(SourceKind::Volume, "db"), (SourceKind::Volume, "files")];
        assert_eq!(History::new(&snapshots, "here").complete(&stack), Some(Timestamp::new(200, 0)));
        assert_eq!(History::new(&snapshots[..3], "here").complete(&stack), Some(Timestamp::new(100, 0)));
        assert_eq!(History::new(&snapshots, "here").complete(&[]), None);
        snapshots[3].record.unreadable_count = 1;
        assert_eq!(History::new(&snapshots, "here").complete(&stack), Some(Timestamp::new(100, 0)), "a partial one is none");
        assert_eq!(History::new(&snapshots, "there").complete(&stack), None);
    }
}
