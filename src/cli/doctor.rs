//! `icecore doctor`: looks at everything that a backup depends on and says what to do. It changes nothing but one probe
//! object, which it removes again.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::exit::{self, Outcome};
use super::open::Asking;
use super::{Context, open, render};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{SessionId, SnapshotId};
use crate::repo::{Committed, Problem, Repository};
use crate::storage::{Key, Storage};

mod engine;

/// Less free space than this, in bytes or as a share of the file system, wants attention.
const FREE_BYTES_MIN: u64 = 1 << 30;
const FREE_PERCENT_MIN: u64 = 5;
/// This program did not exist before 2025; a clock that reads less is not set.
const OLDEST_SANE_SECONDS: i64 = 1_735_689_600;
/// Clocks of several hosts differ by so much without being wrong.
const CLOCK_TOLERANCE_SECONDS: i64 = 120;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Note,
    Problem,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    check: &'static str,
    message: String,
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Self { level: Level::Ok, check, message: message.into(), advice: None }
    }

    fn note(check: &'static str, message: impl Into<String>, advice: &str) -> Self {
        Self { level: Level::Note, check, message: message.into(), advice: Some(advice.to_owned()) }
    }

    fn problem(check: &'static str, message: impl Into<String>, advice: &str) -> Self {
        Self { level: Level::Problem, check, message: message.into(), advice: Some(advice.to_owned()) }
    }

    fn error(check: &'static str, error: &Error) -> Self {
        Self { level: Level::Problem, check, message: error.to_string(), advice: error.advice().map(str::to_owned) }
    }
}

#[derive(Serialize)]
struct Report {
    healthy: bool,
    findings: Vec<Finding>,
}

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let mut findings = Vec::new();
    findings.push(Finding::ok(
        "config",
        context
            .config
            .as_deref()
            .map_or_else(|| "no configuration file is in use".to_owned(), |file| format!("{} is in use", render::path(file))),
    ));
    match open::storage(&context.globals) {
        Err(error) => findings.push(Finding::error("repository", &error)),
        Ok(storage) => {
            findings.push(match probe(&*storage) {
                Ok(()) => Finding::ok(
                    "storage",
                    format!("{} can be written, and a second write of a key is refused", exit::printable(&storage.describe())),
                ),
                Err(error) => Finding::error("storage", &error),
            });
            check_repository(&mut findings, context);
        }
    }
    if let Ok(path) = open::location(&context.globals) {
        findings.push(check_space("space", &path));
    }
    engine::check(&mut findings, context);

    let healthy = findings.iter().all(|finding| finding.level != Level::Problem);
    let text: String = findings.iter().map(line).collect();
    context.out.report(&Report { healthy, findings }, || text)?;
    Ok(if healthy { Outcome::Done } else { Outcome::NeedsAttention })
}

fn check_repository(findings: &mut Vec<Finding>, context: &Context) {
    let now = context.clock.now();
    let opened = open::repository_with(context, Asking::Allowed);
    let (repo, (snapshots, problems)) = match opened.and_then(|repo| repo.snapshots_checked().map(|found| (repo, found))) {
        Ok(opened) => opened,
        Err(error) => {
            findings.push(Finding::error("repository", &error));
            findings.push(check_clock(now, &[]));
            return;
        }
    };
    let message =
        format!("opens; {} of {}", render::count(snapshots.len() as u64, "snapshot"), render::count(sources(&snapshots), "source"));
    findings.push(Finding::ok("repository", message));
    findings.push(check_keys(&repo));
    findings.push(check_clock(now, &snapshots));
    findings.push(check_journals(&problems));
    findings.extend(check_sessions(&repo));
    findings.push(check_partial(&snapshots));
    match open::state_dir(&context.globals, repo.id()) {
        Ok(dir) => findings.push(check_space("state", &dir)),
        Err(error) => findings.push(Finding::error("state", &error)),
    }
}

fn sources(snapshots: &[Committed]) -> u64 {
    let mut sources: Vec<_> = snapshots.iter().map(|snapshot| &snapshot.record.source).collect();
    sources.sort();
    sources.dedup();
    sources.len() as u64
}

/// Puts one object twice, reads it and removes it.
fn probe(storage: &dyn Storage) -> Result<()> {
    let key: Key = format!("probe/{}", SessionId(crate::seal::random_array()?)).parse()?;
    storage.put_new(&key, b"probe")?;
    let second = storage.put_new(&key, b"other");
    let kept = storage.get(&key, 16);
    storage.delete(&key)?;
    match (second, kept?) {
        (Err(error), kept) if error.kind() == ErrorKind::AlreadyExists && kept == b"probe" => Ok(()),
        (Err(error), _) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Err(Error::new(ErrorKind::Storage, "a second write of a key was not refused")
            .on(storage.describe())
            .hint("several writers could destroy each other's snapshots here; move the repository to a local file system")),
    }
}

fn check_keys(repo: &Repository) -> Finding {
    if !open::is_encrypted(repo) {
        return Finding::note("keys", "the repository is not encrypted", "keep its folder readable by root alone");
    }
    match repo.slots() {
        Err(error) => Finding::error("keys", &error),
        Ok(slots) if slots.len() == 1 => Finding::note(
            "keys",
            "only one key opens the repository",
            "add a second one with `icecore key add` and keep it in another place",
        ),
        Ok(slots) => Finding::ok("keys", format!("{} open the repository", render::count(slots.len() as u64, "key"))),
    }
}

fn check_clock(now: Timestamp, snapshots: &[Committed]) -> Finding {
    if now.seconds < OLDEST_SANE_SECONDS {
        return Finding::problem("clock", format!("it reads {now}"), "set the clock; snapshots are found by their times");
    }
    match snapshots.iter().max_by_key(|snapshot| snapshot.record.time) {
        Some(last) if last.record.time.seconds > now.seconds.saturating_add(CLOCK_TOLERANCE_SECONDS) => Finding::problem(
            "clock",
            format!("snapshot {} is from the future: {}", last.id.short(), last.record.time),
            "compare this clock with the one of the host that took it; until then name snapshots by id, not by time",
        ),
        _ => Finding::ok("clock", format!("{now}")),
    }
}

fn check_journals(problems: &[Problem]) -> Finding {
    match problems.first() {
        None => Finding::ok("journals", "all entries can be read"),
        Some(first) => Finding::problem(
            "journals",
            format!("{} cannot be read; the first is {}: {}", render::count(problems.len() as u64, "object"), first.key, first.what),
            "run `icecore verify` to see which snapshots that breaks",
        ),
    }
}

/// Writers that began and did not end: alive, or dead with something left behind.
fn check_sessions(repo: &Repository) -> Vec<Finding> {
    let view = repo.view();
    let open: Vec<_> = view.sessions.iter().filter(|(_, state)| !state.resolved).map(|(id, _)| *id).collect();
    let (mut alive, mut dead) = (0, 0);
    for session in open {
        let held = crate::repo::hold_key(&session).and_then(|key| repo.storage().held(&key));
        match held {
            Ok(true) => alive += 1,
            Ok(false) => dead += 1,
            Err(error) => return vec![Finding::error("sessions", &error)],
        }
    }
    let mut findings = Vec::new();
    if dead > 0 {
        let message = format!("{} ended without saying so", render::count(dead, "writer"));
        findings.push(Finding::note("sessions", message, "their snapshots are safe; `icecore prune` returns what they left"));
    }
    if alive > 0 || dead == 0 {
        findings.push(Finding::ok("sessions", format!("{} now", render::count(alive, "active writer"))));
    }
    findings
}

fn check_partial(snapshots: &[Committed]) -> Finding {
    let newest = |snapshot: &&Committed| {
        let same = |other: &&Committed| other.record.source == snapshot.record.source;
        snapshots.iter().filter(same).all(|other| other.record.sequence <= snapshot.record.sequence)
    };
    let partial: Vec<SnapshotId> = snapshots.iter().filter(newest).filter(|snapshot| snapshot.record.is_partial()).map(|s| s.id).collect();
    match partial.first() {
        None => Finding::ok("snapshots", "the newest of each source is complete"),
        Some(first) => Finding::problem(
            "snapshots",
            format!("the newest of {} is partial (the first: {})", render::count(partial.len() as u64, "source"), first.short()),
            "run the snapshot again as a user who may read everything; its warnings name what could not be read",
        ),
    }
}

fn check_space(check: &'static str, path: &Path) -> Finding {
    let place = existing(path);
    match rustix::fs::statvfs(&place) {
        Err(cause) => Finding::error(
            check,
            &Error::new(ErrorKind::Storage, "cannot look at the file system").on(render::path(&place)).because(std::io::Error::from(cause)),
        ),
        Ok(found) => space_finding(
            check,
            &render::path(path),
            found.f_bavail.saturating_mul(found.f_frsize),
            found.f_blocks.saturating_mul(found.f_frsize),
        ),
    }
}

fn space_finding(check: &'static str, shown: &str, free: u64, total: u64) -> Finding {
    let message = format!("{} of {} free for {shown}", render::size(free), render::size(total));
    if free < FREE_BYTES_MIN || u128::from(free) * 100 < u128::from(total) * u128::from(FREE_PERCENT_MIN) {
        Finding::problem(check, message, "make room: forget snapshots you do not need and run `icecore prune`, or enlarge the file system")
    } else {
        Finding::ok(check, message)
    }
}

/// The nearest folder above `path` that exists.
fn existing(path: &Path) -> PathBuf {
    let found = path.ancestors().find(|folder| !folder.as_os_str().is_empty() && folder.exists());
    found.map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn line(finding: &Finding) -> String {
    let level = match finding.level {
        Level::Ok => "ok",
        Level::Note => "note",
        Level::Problem => "PROBLEM",
    };
    let mut text = format!("{level:<8} {:<10} {}\n", finding.check, exit::printable(&finding.message));
    if let Some(advice) = &finding.advice {
        text.push_str(&format!("{:<19} -> {}\n", "", exit::printable(advice)));
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::select::tests::committed;
    use super::*;
    use crate::model::SourceKind;
    use crate::storage::memory::MemoryStorage;

    #[test]
    fn the_probe_leaves_nothing_behind() {
        let storage = MemoryStorage::new();
        probe(&storage).unwrap();
        assert!(storage.list("probe").unwrap().is_empty());
    }

    #[test]
    fn a_clock_that_is_not_set_or_behind_is_a_problem() {
        let at = |seconds| Timestamp::new(seconds, 0);
        let of = |seconds| [committed("a1", SourceKind::Volume, "pg", "h", 1, seconds)];
        assert_eq!(check_clock(at(0), &[]).level, Level::Problem);
        assert_eq!(check_clock(at(1_800_000_000), &of(1_800_000_100)).level, Level::Ok);
        assert_eq!(check_clock(at(1_800_000_000), &of(1_800_000_121)).level, Level::Problem);
    }

    #[test]
    fn little_space_is_a_problem() {
        assert_eq!(space_finding("space", "/", 2 << 30, 10 << 30).level, Level::Ok);
        assert_eq!(space_finding("space", "/", 1 << 29, 10 << 30).level, Level::Problem, "under a gigabyte");
        assert_eq!(space_finding("space", "/", 4 << 30, 100 << 30).level, Level::Problem, "under five percent");
        assert_eq!(space_finding("space", "/", 5 << 30, 100 << 30).level, Level::Ok);
        assert_eq!(check_space("space", Path::new("/no/such/folder")).check, "space");
        assert_eq!(existing(Path::new("/no/such/folder")), PathBuf::from("/"));
        assert_eq!(existing(Path::new("no-such-folder")), PathBuf::from("."));
    }

    #[test]
    fn only_the_newest_of_a_source_must_be_complete() {
        let mut all = [committed("a1", SourceKind::Volume, "pg", "h", 1, 1), committed("a2", SourceKind::Volume, "pg", "h", 2, 2)];
        all[0].record.unreadable_count = 1;
        assert_eq!(check_partial(&all).level, Level::Ok);
        all[1].record.unreadable_count = 1;
        assert_eq!(check_partial(&all).level, Level::Problem);
    }

    #[test]
    fn a_finding_reads_well() {
        let finding = Finding::problem("clock", "it reads \x1b[2J", "set it");
        assert_eq!(line(&finding), "PROBLEM  clock      it reads \\u{1b}[2J\n                    -> set it\n");
    }
}
