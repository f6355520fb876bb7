//! `icecore snapshot`

mod groups;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::config::SnapshotDefaults;
use super::exit::{Fact, Outcome};
use super::pick::{self, PickArgs};
use super::snapshots::SnapshotFact;
use super::{Context, open, render, select};
use crate::docker::Engine;
use crate::docker::users::is_writing;
use crate::error::{Error, ErrorKind, Result};
use crate::live::survey::Survey;
use crate::model::manifest::VolumeFacts;
use crate::model::{Consistency, SessionId, SourceIdentity};
use crate::ops;
use crate::ops::snapshot::{SnapshotOptions, SnapshotReport};
use crate::progress::Warning;
use crate::repo::{Committed, Repository};
use crate::volume::access;
use crate::volume::spelling::{self, SourceSpec};

use groups::Run;

/// zstd level of a snapshot for which none is given.
const COMPRESSION_DEFAULT: i32 = 3;

#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    /// Volumes and directories
    #[arg(required_unless_present_any = ["all", "stack", "priority"], value_name = "SOURCE")]
    sources: Vec<OsString>,
    #[command(flatten)]
    pick: PickArgs,
    /// Attach a word to the snapshots; may be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Only find out what would be read and stored
    #[arg(long)]
    dry_run: bool,
    /// Read every file, also those that seem unchanged
    #[arg(long)]
    force_read: bool,
    /// Do not descend into other file systems
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    one_file_system: Option<bool>,
    /// zstd level [default: 3]
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(i32).range(1..=19))]
    compression: Option<i32>,
    /// How still volumes are held: auto freezes whoever can write to them, for about a second; stopped stops and starts them;
    /// hook leaves it to the containers' own hooks; fuzzy reads what is there while it changes
    #[arg(long, value_name = "LEVEL", value_enum)]
    consistency: Option<Wanted>,
    /// How long a freeze may take [default: 5s, or what labels and the configuration say]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    freeze_budget: Option<Duration>,
}

fn duration(text: &str) -> std::result::Result<Duration, String> {
    crate::live::settings::freeze_budget(text).map_err(|error| error.to_string())
}

impl SnapshotArgs {
    /// Takes from the configuration file what the command line leaves open. Tags of the command line replace the file's.
    pub(super) fn fill(&mut self, defaults: SnapshotDefaults) {
        if self.tag.is_empty() {
            self.tag = defaults.tags;
        }
        self.compression = self.compression.or(defaults.compression);
        self.one_file_system = self.one_file_system.or(defaults.one_file_system);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wanted {
    Auto,
    Frozen,
    Stopped,
    Hook,
    Fuzzy,
}

/// A snapshot and what is told of it.
type Taken = (Committed, SnapshotFact);

/// One source, ready to be read.
struct Capture {
    identity: SourceIdentity,
    path: PathBuf,
    volume: Option<VolumeFacts>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct Failure<'a> {
    source: String,
    #[serde(flatten)]
    error: Fact<'a>,
}

#[derive(Serialize)]
struct Report<'a> {
    run: String,
    dry_run: bool,
    snapshots: Vec<SnapshotFact>,
    /// Sources that could not be captured while others were.
    failed: Vec<Failure<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Fact<'a>>,
}

pub(super) fn run(args: &SnapshotArgs, context: &mut Context) -> Result<Outcome> {
    let mut specs = Vec::new();
    for text in &args.sources {
        specs.push(SourceSpec::parse(text)?);
    }
    let wants_engine = args.pick.any() || specs.iter().any(|spec| matches!(spec, SourceSpec::Volume(_)));
    let engine = if wants_engine { Some(open::engine(&context.globals)?) } else { None };
    let repo = open::repository(context)?;
    let mut outcome = Outcome::Done;
    if let Some(engine) = engine.as_deref().filter(|_| args.pick.any()) {
        let (picked, complete) = pick::selected(&args.pick, engine, context)?;
        specs.extend(picked);
        outcome = outcome.and(complete);
    }
    // All sources are looked at before the first is read: a misspelt one must not leave half a run behind.
    let mut known: Vec<(SourceSpec, SourceIdentity)> = Vec::new();
    for spec in specs {
        let capture = prepare(&spec, engine.as_deref(), &repo)?;
        if !known.iter().any(|(_, other)| *other == capture.identity) {
            known.push((spec, capture.identity));
        }
    }
    if known.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, "there is nothing that could be captured")
            .hint("`icecore volumes` and `icecore stacks` say why"));
    }
    let specs: Vec<SourceSpec> = known.iter().map(|(spec, _)| spec.clone()).collect();
    let units = groups::units(engine.as_deref(), &specs, context)?;

    let run = SessionId(crate::seal::random_array()?);
    let bars = context.bars("snapshot");
    let mut taken = Vec::new();
    let mut failed: Vec<(SourceIdentity, Error)> = Vec::new();
    let mut fatal = None;
    for unit in units {
        match (Run { args, run, repo: &repo, context }).take(&unit, engine.as_deref()) {
            Ok(done) => taken.extend(done),
            Err(error) if concerns_one_source(error.kind()) => {
                let mut identities = known.iter().filter(|(spec, _)| unit.contains(spec)).map(|(_, identity)| identity);
                let Some(first) = identities.next() else { continue };
                for other in identities {
                    let why = Error::new(error.kind(), format!("it is captured together with {} or not at all", first.name));
                    failed.push((other.clone(), why));
                }
                failed.push((first.clone(), error));
            }
            Err(error) => {
                fatal = Some(error);
                break;
            }
        }
    }
    drop(bars);

    if taken.is_empty() {
        // Nothing was committed, so one error can tell all; the others are said before it.
        let last = fatal.or_else(|| failed.pop().map(|(_, error)| error));
        failed.iter().for_each(|(identity, error)| say_failed(identity, error));
        return last.map_or(Ok(outcome), Err);
    }
    failed.iter().for_each(|(identity, error)| say_failed(identity, error));
    outcome = taken.iter().fold(outcome, |outcome, (snapshot, _)| outcome.and(outcome_of(snapshot)));
    if !failed.is_empty() {
        outcome = outcome.and(Outcome::Incomplete);
    }
    let text: String = taken.iter().map(|(snapshot, fact)| line(snapshot, fact)).collect();
    let report = Report {
        run: run.to_string(),
        dry_run: args.dry_run,
        snapshots: taken.into_iter().map(|(_, fact)| fact).collect(),
        failed: failed.iter().map(|(identity, error)| Failure { source: identity.name.clone(), error: error.into() }).collect(),
        error: fatal.as_ref().map(Fact::from),
    };
    context.out.report(&report, || text)?;
    fatal.map_or(Ok(outcome), Err)
}

/// Finds where a source is and how still it is, now.
fn prepare(spec: &SourceSpec, engine: Option<&dyn Engine>, repo: &Repository) -> Result<Capture> {
    let identity = spelling::identity(spec, repo.host())?;
    match (spec, engine) {
        (SourceSpec::Volume(name), Some(engine)) => {
            let access = access::resolve(engine, name, !open::is_encrypted(repo))?;
            Ok(Capture { identity, path: access.path, volume: Some(access.facts), notes: access.notes })
        }
        (SourceSpec::Volume(_), None) => Err(Error::new(ErrorKind::Docker, "a volume needs the container engine").on(&identity)),
        (SourceSpec::Path(path), _) => Ok(Capture { identity, path: path.clone(), volume: None, notes: Vec::new() }),
    }
}

fn writers(facts: &VolumeFacts) -> String {
    let mut names: Vec<String> = facts.users.iter().filter(|user| is_writing(user)).map(|user| render::name(&user.container)).collect();
    names.dedup();
    match &names[..] {
        [] => "nobody".to_owned(),
        [one] => format!("the container {one}"),
        several => format!("the containers {}", several.join(", ")),
    }
}

/// Takes one snapshot of a source as it is, while others may write to it.
fn take_alone(spec: &SourceSpec, run: &Run<'_>, engine: Option<&dyn Engine>, survey: Option<&Survey>) -> Result<Taken> {
    let capture = prepare(spec, engine, run.repo)?;
    if capture.volume.is_none() && run.args.consistency == Some(Wanted::Stopped) {
        return Err(Error::new(ErrorKind::Usage, "whether anybody writes to a directory cannot be told")
            .on(super::exit::printable(&capture.identity.name))
            .hint("--consistency stopped is for volumes; leave it out and make sure yourself that nobody writes"));
    }
    let mut notes = Vec::new();
    if let Some(facts) = capture.volume.as_ref().filter(|facts| facts.users.iter().any(is_writing)) {
        notes.push(format!(
            "{} can write to it while it is read; this snapshot is fuzzy: its files are of different moments",
            writers(facts)
        ));
    }
    let options = options_of(&capture, Consistency::Fuzzy, run);
    let source = match survey {
        Some(survey) => groups::source(survey, spec, &capture)?,
        None => open::source(&capture.path)?,
    };
    let report = ops::snapshot::snapshot(run.repo, &*source, &options, &run.context.progress)?;
    Ok(finish(report, &capture, notes, run))
}

fn options_of(capture: &Capture, consistency: Consistency, run: &Run<'_>) -> SnapshotOptions {
    SnapshotOptions {
        identity: capture.identity.clone(),
        run: run.run,
        consistency,
        tags: run.args.tag.clone(),
        volume: capture.volume.clone(),
        force_read: run.args.force_read,
        one_file_system: run.args.one_file_system.unwrap_or(false),
        compression: run.args.compression.unwrap_or(COMPRESSION_DEFAULT),
        dry_run: run.args.dry_run,
    }
}

/// What is told of a snapshot: what a user should know of the source, then the entries that are not as they were.
fn finish(report: SnapshotReport, capture: &Capture, more: Vec<String>, run: &Run<'_>) -> Taken {
    let name = super::exit::printable(&capture.identity.name);
    let mut notes = capture.notes.clone();
    notes.extend(more);
    if holds_repository(&capture.path, run.context) {
        notes.push("the repository lies inside it and is read, too; leave it out by moving it elsewhere".to_owned());
    }
    notes.iter().for_each(|note| run.context.warn(&format!("{name}: {note}")));
    let mut fact = SnapshotFact::from(&report.snapshot);
    fact.seconds = report.seconds;
    for warning in &fact.warnings {
        run.context.warn(&format!("{name}: {}: {}", super::exit::printable(&warning.path), super::exit::printable(&warning.message)));
    }
    fact.warnings.splice(0..0, notes.into_iter().map(|message| Warning { path: name.clone(), message }));
    if run.args.dry_run {
        fact.id = None;
    }
    (report.snapshot, fact)
}

/// Whether the repository is below `path`: then each snapshot holds all earlier ones.
fn holds_repository(path: &Path, context: &Context) -> bool {
    let repository = open::location(&context.globals).ok().and_then(|location| location.canonicalize().ok());
    repository.zip(path.canonicalize().ok()).is_some_and(|(repository, path)| repository.starts_with(path))
}

/// Failures after which the other sources are still worth trying. All others are about the repository or this process.
fn concerns_one_source(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Source | ErrorKind::Docker | ErrorKind::Unsupported | ErrorKind::Busy)
}

fn say_failed(identity: &SourceIdentity, error: &Error) {
    super::say(&format!("icecore: no snapshot of {}:\n{}", super::exit::printable(&identity.name), super::exit::lines(error)));
}

/// Entries that are missing, or that are of several moments although nobody was to write.
fn outcome_of(snapshot: &Committed) -> Outcome {
    let record = &snapshot.record;
    if record.unreadable_count > 0 || record.changed_count > 0 { Outcome::Incomplete } else { Outcome::Done }
}

fn line(snapshot: &Committed, fact: &SnapshotFact) -> String {
    let record = &snapshot.record;
    let what = match fact.id {
        Some(_) => format!("snapshot {} ({})", snapshot.id.short(), record.consistency),
        None => "would store".to_owned(),
    };
    let missing = match (record.unreadable_count, record.changed_count) {
        (0, 0) => String::new(),
        (unreadable, changed) => format!("; {unreadable} unreadable, {changed} changed while read"),
    };
    format!(
        "{}:{} {what}: {}, {}; {} new, {} stored; {}{missing}\n",
        select::kind_word(record.source.kind),
        super::exit::printable(&record.source.name),
        render::count(record.stats.files, "file"),
        render::size(record.stats.bytes),
        render::size(record.stats.new_bytes),
        render::size(record.stats.stored_bytes),
        render::duration(fact.seconds)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::select::tests::committed;
    use super::*;
    use crate::model::SourceKind;

    #[test]
    fn a_failing_repository_ends_the_run_and_a_failing_source_does_not() {
        for kind in [ErrorKind::Storage, ErrorKind::Interrupted, ErrorKind::Damaged, ErrorKind::Cache, ErrorKind::WrongKey] {
            assert!(!concerns_one_source(kind), "{kind:?}");
        }
        assert!(concerns_one_source(ErrorKind::Source));
    }

    #[test]
    fn a_line_tells_what_was_taken() {
        let mut snapshot = committed("abcdef012345", SourceKind::Volume, "pg\x1b", "h", 1, 0);
        let fact = SnapshotFact::from(&snapshot);
        assert_eq!(line(&snapshot, &fact), "volume:pg\\u{1b} snapshot abcdef0123 (stopped): 0 files, 0 B; 0 B new, 0 B stored; 0.0 s\n");
        assert_eq!(outcome_of(&snapshot), Outcome::Done);
        snapshot.record.changed_count = 1;
        assert_eq!(outcome_of(&snapshot), Outcome::Incomplete);
        let mut dry = fact;
        dry.id = None;
        assert!(line(&snapshot, &dry).contains(" would store: "));
        assert!(line(&snapshot, &dry).ends_with("; 0 unreadable, 1 changed while read\n"));
    }
}
