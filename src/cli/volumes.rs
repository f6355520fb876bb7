//! `icecore volumes`

use serde::Serialize;

use super::exit::{self, Outcome};
use super::open::{self, Asking};
use super::render::{Side, Table};
use super::{Context, render};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::model::SourceKind;
use crate::repo::Committed;
use crate::volume::discovery::{self, VolumeSummary};

#[derive(Serialize)]
struct VolumeFact {
    #[serde(flatten)]
    volume: VolumeSummary,
    last_snapshot: Option<Last>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Last {
    id: String,
    time: String,
    age_seconds: i64,
    consistency: String,
    partial: bool,
}

#[derive(Serialize)]
struct Report {
    volumes: Vec<VolumeFact>,
    warnings: Vec<String>,
    /// Why the last snapshots are not known.
    repository_error: Option<String>,
}

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let engine = open::engine(&context.globals)?;
    let listing = discovery::list(&*engine)?;
    // The repository is a nicety here: without one, or without its key, the volumes are listed all the same.
    let known = open::repository_with(context, Asking::Never).and_then(|repo| context.snapshots(&repo));
    let repository_error = known.as_ref().err().map(ToString::to_string);
    let snapshots = known.map(|(snapshots, _)| snapshots).unwrap_or_default();
    let (now, host) = (context.clock.now(), open::host());
    let last = |volume: &VolumeSummary| newest(&snapshots, &volume.name, &host);
    let text = table(&listing.volumes, &last, now);
    for warning in &listing.warnings {
        context.warn(&format!("volumes may be missing: {}", render::name(warning)));
    }
    if let Some(error) = &repository_error {
        context.note(&format!("last snapshots are not shown: {}", exit::printable(error)));
    }
    let volumes =
        listing.volumes.iter().map(|volume| VolumeFact { volume: volume.clone(), last_snapshot: last(volume).map(|s| fact(s, now)) });
    let report = Report { volumes: volumes.collect(), warnings: listing.warnings.clone(), repository_error };
    context.out.report(&report, || text)?;
    Ok(Outcome::Done)
}

fn newest<'a>(snapshots: &'a [Committed], volume: &str, host: &str) -> Option<&'a Committed> {
    let of_volume = |snapshot: &&Committed| {
        let source = &snapshot.record.source;
        source.kind == SourceKind::Volume && source.name == volume && source.host == host
    };
    snapshots.iter().filter(of_volume).max_by_key(|snapshot| snapshot.record.sequence)
}

fn fact(snapshot: &Committed, now: Timestamp) -> Last {
    let record = &snapshot.record;
    Last {
        id: snapshot.id.to_string(),
        time: record.time.to_string(),
        age_seconds: now.seconds.saturating_sub(record.time.seconds),
        consistency: record.consistency.to_string(),
        partial: record.is_partial(),
    }
}

fn table<'a>(volumes: &[VolumeSummary], last: &dyn Fn(&VolumeSummary) -> Option<&'a Committed>, now: Timestamp) -> String {
    if volumes.is_empty() {
        return "no volumes\n".to_owned();
    }
    let mut table = Table::new(&[
        ("VOLUME", Side::Left),
        ("DRIVER", Side::Left),
        ("PROJECT", Side::Left),
        ("USERS", Side::Right),
        ("WRITERS", Side::Right),
        ("LAST SNAPSHOT", Side::Left),
        ("", Side::Left),
    ]);
    for volume in volumes {
        let mut users: Vec<&str> = volume.users.iter().map(|user| user.container.as_str()).collect();
        users.sort_unstable();
        users.dedup();
        let snapshot = match last(volume) {
            Some(snapshot) => {
                let partial = if snapshot.record.is_partial() { ", partial" } else { "" };
                format!("{} ({}{partial})", render::age(snapshot.record.time, now), snapshot.id.short())
            }
            None => "-".to_owned(),
        };
        let remark = match (&volume.unreadable, volume.anonymous) {
            (Some(why), _) => format!("cannot be read: {}", exit::printable(why)),
            (None, true) => "anonymous".to_owned(),
            (None, false) => String::new(),
        };
        table.row(vec![
            render::name(&volume.name),
            render::name(&volume.driver),
            volume.project.as_deref().map_or("-".to_owned(), render::name),
            users.len().to_string(),
            volume.writers.to_string(),
            snapshot,
            remark,
        ]);
    }
    table.text()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::select::tests::committed;
    use super::*;

    fn volume(name: &str, unreadable: Option<&str>) -> VolumeSummary {
        VolumeSummary {
            name: name.into(),
            driver: "local".into(),
            users: vec![],
            writers: 0,
            project: None,
            anonymous: false,
            unreadable: unreadable.map(str::to_owned),
            labels: vec![],
        }
    }

    #[test]
    fn a_volume_is_shown_with_its_last_snapshot_of_this_host() {
        let snapshots = [
            committed("a1", SourceKind::Volume, "pg", "here", 1, 100),
            committed("a2", SourceKind::Volume, "pg", "here", 2, 200),
            committed("a3", SourceKind::Volume, "pg", "there", 9, 300),
            committed("a4", SourceKind::Path, "pg", "here", 9, 300),
        ];
        assert_eq!(newest(&snapshots, "pg", "here").unwrap().id, snapshots[1].id);
        assert!(newest(&snapshots, "other", "here").is_none());
        let last = |volume: &VolumeSummary| newest(&snapshots, &volume.name, "here");
        let text = table(&[volume("pg", None), volume("nfs", Some("it is remote"))], &last, Timestamp::new(230, 0));
        assert!(text.contains("30 s ago (a200000000)"), "{text}");
        assert!(text.contains("cannot be read: it is remote"), "{text}");
        assert_eq!(table(&[], &last, Timestamp::default()), "no volumes\n");
        assert_eq!(fact(&snapshots[1], Timestamp::new(230, 0)).age_seconds, 30);
    }
}
