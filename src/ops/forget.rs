//! Forgets snapshots: by name, or by a retention policy. Space comes back with prune.

use std::collections::{BTreeMap, HashSet};

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{SnapshotId, SourceIdentity};
use crate::repo::{Committed, Repository};

/// Which snapshots of each source to keep. An empty policy keeps all.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The newest N.
    pub last: Option<u32>,
    /// All younger than this many seconds, counted from the source's newest snapshot.
    pub within_seconds: Option<u64>,
    /// The newest of each of the last N minutes that have one.
    pub minutely: Option<u32>,
    /// Likewise hours.
    pub hourly: Option<u32>,
    /// Likewise days.
    pub daily: Option<u32>,
    /// Likewise weeks (Monday first).
    pub weekly: Option<u32>,
    /// Likewise months.
    pub monthly: Option<u32>,
    /// Likewise years.
    pub yearly: Option<u32>,
    /// Keep those that carry one of these tags.
    pub tags: Vec<String>,
}

/// What a policy says of one snapshot.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The snapshot.
    pub snapshot: Committed,
    /// Why it stays (`last`, `daily 2026-11-20`, `newest of its source`...); empty: it is forgotten.
    pub reasons: Vec<String>,
}

impl Policy {
    /// Whether nothing is asked for; then everything stays.
    pub fn is_empty(&self) -> bool {
        self.last.is_none()
            && self.within_seconds.is_none()
            && self.tags.is_empty()
            && self.buckets().iter().all(|(_, count, _)| count.is_none())
    }

    /// Name, how many, and the bucket of a moment.
    #[allow(clippy::type_complexity)]
    fn buckets(&self) -> [(&'static str, Option<u32>, fn(&Moment) -> String); 6] {
        [
            ("minutely", self.minutely, |m| format!("{} {:02}:{:02}", m.date, m.hour, m.minute)),
            ("hourly", self.hourly, |m| format!("{} {:02}h", m.date, m.hour)),
            ("daily", self.daily, |m| m.date.to_string()),
            ("weekly", self.weekly, |m| {
                let week = m.date.iso_week_date();
                format!("{}-W{:02}", week.year(), week.week())
            }),
            ("monthly", self.monthly, |m| m.date.strftime("%Y-%m").to_string()),
            ("yearly", self.yearly, |m| m.date.year().to_string()),
        ]
    }
}

struct Moment {
    date: Date,
    hour: i8,
    minute: i8,
}

/// Applies `policy` to the snapshots of each source. Pure. Never lets go of a source's newest snapshot, nor of its newest
/// complete one; partial snapshots fill no slot while a complete one can. Newest means last in the history, not by the
/// clock: a clock that jumped deletes nothing extra. Days and weeks are those of `zone`.
pub fn plan(snapshots: &[Committed], policy: &Policy, zone: &TimeZone) -> Vec<Verdict> {
    let mut sources: BTreeMap<&SourceIdentity, Vec<&Committed>> = BTreeMap::new();
    for snapshot in snapshots {
        sources.entry(&snapshot.record.source).or_default().push(snapshot);
    }
    sources.into_values().flat_map(|history| plan_one(history, policy, zone)).collect()
}

fn plan_one(mut history: Vec<&Committed>, policy: &Policy, zone: &TimeZone) -> Vec<Verdict> {
    history.sort_by_key(|snapshot| std::cmp::Reverse((snapshot.record.sequence, snapshot.record.time)));
    let mut verdicts: Vec<_> = history.iter().map(|snapshot| Verdict { snapshot: (*snapshot).clone(), reasons: Vec::new() }).collect();
    if policy.is_empty() {
        verdicts.iter_mut().for_each(|verdict| verdict.reasons.push("no policy given".to_owned()));
        return verdicts;
    }
    if let Some(newest) = verdicts.first_mut() {
        newest.reasons.push("newest of its source".to_owned());
    }
    if let Some(complete) = verdicts.iter_mut().find(|verdict| !verdict.snapshot.record.is_partial())
        && complete.reasons.is_empty()
    {
        complete.reasons.push("newest complete of its source".to_owned());
    }
    let newest_time = history.first().map(|snapshot| snapshot.record.time).unwrap_or_default();
    for verdict in &mut verdicts {
        let record = &verdict.snapshot.record;
        if let Some(tag) = record.tags.iter().find(|tag| policy.tags.contains(tag)) {
            verdict.reasons.push(format!("tag {tag}"));
        }
        if let Some(seconds) = policy.within_seconds
            && newest_time.minus(std::time::Duration::from_secs(seconds)) <= record.time
        {
            verdict.reasons.push("within".to_owned());
        }
    }
    // Complete ones choose first, then partial ones fill what is left.
    let (partial, complete): (Vec<usize>, Vec<usize>) = (0..history.len()).partition(|&i| history[i].record.is_partial());
    if let Some(last) = policy.last {
        for &i in complete.iter().take(last as usize) {
            verdicts[i].reasons.push("last".to_owned());
        }
    }
    for (name, count, bucket) in policy.buckets() {
        let mut filled = HashSet::new();
        for &i in complete.iter().chain(&partial) {
            if filled.len() >= count.unwrap_or(0) as usize {
                break;
            }
            if let Some(moment) = moment(&history[i].record, zone) {
                let slot = bucket(&moment);
                if filled.insert(slot.clone()) {
                    verdicts[i].reasons.push(format!("{name} {slot}"));
                }
            }
        }
    }
    verdicts
}

fn moment(record: &crate::model::Snapshot, zone: &TimeZone) -> Option<Moment> {
    let time = jiff::Timestamp::new(record.time.seconds, 0).ok()?.to_zoned(zone.clone());
    Some(Moment { date: time.date(), hour: time.hour(), minute: time.minute() })
}

/// Forgets the named snapshots, durably. They are no longer listed; prune returns their space.
pub fn forget(repo: &Repository, ids: &[SnapshotId]) -> Result<()> {
    let snapshots = repo.snapshots()?;
    for id in ids {
        let snapshot = snapshots.iter().find(|snapshot| snapshot.id == *id);
        repo.forget(snapshot.ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no snapshot with this id").on(id))?)?;
    }
    repo.refresh().map(|_| ())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::model::manifest::SnapshotStats;
    use crate::model::{Consistency, Meta, Node, NodeKind, SessionId, Snapshot, SourceKind, Stream, Xattrs};

    fn snapshot(source: &str, sequence: u64, seconds: i64, partial: bool) -> Committed {
        let meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: Xattrs::None, links: None, changed: false };
        let time = Timestamp::new(seconds, 0);
        let record = Snapshot {
            source: SourceIdentity { kind: SourceKind::Volume, name: source.to_owned(), host: "h".to_owned() },
            run: SessionId([0; 16]),
            sequence,
            started: time,
            time,
            milliseconds: 0,
            consistency: Consistency::Fuzzy,
            frozen_milliseconds: 0,
            root: Node { name: None, meta, kind: NodeKind::Directory(Stream::EMPTY) },
            parent: None,
            unreadable: Vec::new(),
            unreadable_count: u64::from(partial),
            changed: Vec::new(),
            changed_count: 0,
            stats: SnapshotStats::default(),
            volume: None,
            tags: Vec::new(),
            program: String::new(),
        };
        let mut id = [0; 32];
        id[..8].copy_from_slice(&sequence.to_le_bytes());
        Committed { id: SnapshotId(id), record, session: SessionId([0; 16]), sequence: 0 }
    }

    fn kept(snapshots: &[Committed], policy: &Policy) -> Vec<u64> {
        let verdicts = plan(snapshots, policy, &TimeZone::UTC);
        let mut kept: Vec<u64> = verdicts.iter().filter(|v| !v.reasons.is_empty()).map(|v| v.snapshot.record.sequence).collect();
        kept.sort_unstable();
        kept
    }

    const DAY: i64 = 86_400;

    #[test]
    fn no_policy_keeps_everything_and_any_policy_keeps_the_newest() {
        let all: Vec<_> = (1..=5).map(|n| snapshot("a", n, i64::try_from(n).unwrap() * DAY, false)).collect();
        assert_eq!(kept(&all, &Policy::default()), [1, 2, 3, 4, 5]);
        assert_eq!(kept(&all, &Policy { tags: vec!["nobody has it".to_owned()], ..Policy::default() }), [5]);
        assert_eq!(kept(&all, &Policy { last: Some(0), ..Policy::default() }), [5]);
        assert_eq!(kept(&all, &Policy { last: Some(2), ..Policy::default() }), [4, 5]);
    }

    #[test]
    fn buckets_keep_the_newest_of_each_and_count_only_those_that_have_one() {
        let times = [0, 3600, DAY, DAY + 60, 10 * DAY];
        let all: Vec<_> = times.iter().zip(1..).map(|(time, n)| snapshot("a", n, *time, false)).collect();
        assert_eq!(kept(&all, &Policy { daily: Some(2), ..Policy::default() }), [4, 5]);
        assert_eq!(kept(&all, &Policy { daily: Some(9), ..Policy::default() }), [2, 4, 5]);
        assert_eq!(kept(&all, &Policy { within_seconds: Some(9 * DAY as u64), ..Policy::default() }), [3, 4, 5]);
    }

    #[test]
    fn a_partial_snapshot_never_pushes_out_a_complete_one() {
        let all = [snapshot("a", 1, DAY, false), snapshot("a", 2, DAY + 60, true), snapshot("a", 3, DAY + 120, true)];
        assert_eq!(kept(&all, &Policy { last: Some(1), ..Policy::default() }), [1, 3]);
        assert_eq!(kept(&all, &Policy { daily: Some(1), ..Policy::default() }), [1, 3]);
    }

    #[test]
    fn sources_do_not_share_slots_and_a_clock_that_jumped_back_deletes_nothing_new() {
        let mut all: Vec<_> = (1..=3).map(|n| snapshot("a", n, 0, false)).collect();
        all.extend((1..=3).map(|n| snapshot("b", n, 0, false)));
        assert_eq!(kept(&all, &Policy { last: Some(1), ..Policy::default() }), [3, 3]);
        let jumped = [snapshot("a", 1, 50 * DAY, false), snapshot("a", 2, DAY, false)];
        assert_eq!(kept(&jumped, &Policy { last: Some(1), ..Policy::default() }), [2]);
    }
}
