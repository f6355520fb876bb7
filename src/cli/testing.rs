//! The parsers of what users type, for fuzz targets: they are private, and their "now" and history are fixed here.

use jiff::Zoned;
use jiff::tz::TimeZone;

use super::config;
use super::select::Selector;
use super::time::{self, At};
use crate::clock::Timestamp;
use crate::model::manifest::SnapshotStats;
use crate::model::{Consistency, Meta, Node, NodeKind, SessionId, Snapshot, SnapshotId, SourceIdentity, SourceKind, Stream, Xattrs};
use crate::repo::Committed;

/// Reads a TIME as on 2026-11-20 in central Europe; `latest` is a moment after all others.
pub fn time(text: &str) -> Option<Timestamp> {
    match time::parse_at(text, &now()).ok()? {
        At::Latest => Some(Timestamp::new(i64::MAX, 999_999_999)),
        At::Moment(moment) => Some(moment),
    }
}

/// Reads an age; seconds.
pub fn age(text: &str) -> Option<u64> {
    time::parse_age(text).ok().map(time::Age::seconds)
}

/// Finds SOURCE|SNAPSHOT among three snapshots: two of the volume `pg`, one of the directory `/srv/data`.
pub fn snapshot(text: &str) -> Option<SnapshotId> {
    let all = [
        committed(0xab, SourceKind::Volume, "pg", 1, 1_795_176_000),
        committed(0xac, SourceKind::Volume, "pg", 2, 1_795_179_600),
        committed(0xbe, SourceKind::Path, "/srv/data", 1, 1_795_183_200),
    ];
    let selector = Selector { all: &all, host: "here".into(), directory: "/home/u".into(), now: now() };
    selector.snapshot(text).ok().map(|found| found.id)
}

/// Reads a configuration file. What is wrong with it, in words.
pub fn settings(text: &str) -> Result<(), String> {
    config::problem(text).map_or(Ok(()), |problem| Err(problem.to_string()))
}

fn now() -> Zoned {
    let moment = jiff::Timestamp::new(1_795_188_615, 0).unwrap_or_default();
    moment.to_zoned(TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap_or(TimeZone::UTC))
}

fn committed(id: u8, kind: SourceKind, name: &str, sequence: u64, seconds: i64) -> Committed {
    let meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: Xattrs::None, links: None, changed: false };
    let record = Snapshot {
        source: SourceIdentity { kind, name: name.into(), host: "here".into() },
        run: SessionId([1; 16]),
        sequence,
        started: Timestamp::new(seconds, 0),
        time: Timestamp::new(seconds, 0),
        milliseconds: 0,
        consistency: Consistency::Stopped,
        frozen_milliseconds: 0,
        root: Node { name: None, meta, kind: NodeKind::Directory(Stream::EMPTY) },
        parent: None,
        unreadable: Vec::new(),
        unreadable_count: 0,
        changed: Vec::new(),
        changed_count: 0,
        stats: SnapshotStats::default(),
        volume: None,
        tags: Vec::new(),
        program: String::new(),
    };
    Committed { id: SnapshotId([id; 32]), record, session: SessionId([1; 16]), sequence: 1 }
}
