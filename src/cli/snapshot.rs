//! `icecore snapshot`

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::config::SnapshotDefaults;
use super::exit::{Fact, Outcome};
use super::snapshots::SnapshotFact;
use super::{Context, open, render, select};
use crate::docker::Engine;
use crate::docker::users::is_writing;
use crate::error::{Error, ErrorKind, Result};
use crate::model::manifest::VolumeFacts;
use crate::model::{Consistency, SessionId, SourceIdentity};
use crate::ops;
use crate::ops::snapshot::SnapshotOptions;
use crate::progress::Warning;
use crate::repo::{Committed, Repository};
use crate::volume::access;
use crate::volume::discovery::{self, Listing};
use crate::volume::spelling::{self, SourceSpec};

/// zstd level of a snapshot for which none is given.
const COMPRESSION_DEFAULT: i32 = 3;

#[derive(Debug, Args)]
pub(super) struct SnapshotArgs {
    /// Volumes and directories
    #[arg(required_unless_present = "all", value_name = "SOURCE")]
    sources: Vec<OsString>,
    /// Every volume that has a name and can be read
    #[arg(long)]
    all: bool,
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
    /// How still a source must be: auto takes it as it is, stopped refuses a volume that running containers can write to
    #[arg(long, value_name = "LEVEL", value_enum, default_value_t = Wanted::Auto)]
    consistency: Wanted,
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
    Fuzzy,
    Stopped,
}

/// One source, ready to be read.
struct Capture {
    identity: SourceIdentity,
    path: PathBuf,
    volume: Option<VolumeFacts>,
    consistency: Consistency,
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
    let wants_engine = args.all || specs.iter().any(|spec| matches!(spec, SourceSpec::Volume(_)));
    let engine = if wants_engine { Some(open::engine(&context.globals)?) } else { None };
    let repo = open::repository(context)?;
    let mut outcome = Outcome::Done;
    if let Some(engine) = engine.as_deref().filter(|_| args.all) {
        let listing = discovery::list(engine)?;
        outcome = outcome.and(add_all(&mut specs, &listing, context));
    }
    // All sources are looked at before the first is read: a misspelt one must not leave half a run behind.
    let mut captures = Vec::new();
    for spec in &specs {
        let capture = prepare(spec, args.consistency, engine.as_deref(), &repo)?;
        if !captures.iter().any(|(_, other): &(&SourceSpec, Capture)| other.identity == capture.identity) {
            captures.push((spec, capture));
        }
    }
    if captures.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, "there is no volume with a name that can be read").hint("`icecore volumes` lists them"));
    }
    let sources: Vec<(&SourceSpec, SourceIdentity)> = captures.into_iter().map(|(spec, capture)| (spec, capture.identity)).collect();

    let run = SessionId(crate::seal::random_array()?);
    let bars = context.bars("snapshot");
    let mut taken = Vec::new();
    let mut failed: Vec<(SourceIdentity, Error)> = Vec::new();
    let mut fatal = None;
    for (spec, identity) in sources {
        match take(spec, args, run, engine.as_deref(), &repo, context) {
            Ok(done) => taken.push(done),
            Err(error) if concerns_one_source(error.kind()) => failed.push((identity, error)),
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

/// Adds every named volume that can be read. One that cannot is no reason to leave out the others, but is said.
fn add_all(specs: &mut Vec<SourceSpec>, listing: &Listing, context: &Context) -> Outcome {
    for volume in listing.volumes.iter().filter(|volume| !volume.anonymous) {
        match &volume.unreadable {
            None => specs.push(SourceSpec::Volume(volume.name.clone())),
            Some(why) => context.warn(&format!("left out volume {}: {}", render::name(&volume.name), super::exit::printable(why))),
        }
    }
    for warning in &listing.warnings {
        context.warn(&format!("volumes may be missing: {}", render::name(warning)));
    }
    if listing.warnings.is_empty() { Outcome::Done } else { Outcome::Incomplete }
}

/// Finds where a source is and how still it is, now.
fn prepare(spec: &SourceSpec, wanted: Wanted, engine: Option<&dyn Engine>, repo: &Repository) -> Result<Capture> {
    let identity = spelling::identity(spec, repo.host())?;
    match (spec, engine) {
        (SourceSpec::Volume(name), Some(engine)) => {
            let access = access::resolve(engine, name, !open::is_encrypted(repo))?;
            let consistency = settle(wanted, access.consistency, name, &access.facts)?;
            Ok(Capture { identity, path: access.path, volume: Some(access.facts), consistency, notes: access.notes })
        }
        (SourceSpec::Volume(_), None) => Err(Error::new(ErrorKind::Docker, "a volume needs the container engine").on(&identity)),
        (SourceSpec::Path(path), _) => {
            if wanted == Wanted::Stopped {
                return Err(Error::new(ErrorKind::Usage, "whether anybody writes to a directory cannot be told")
                    .on(super::exit::printable(&identity.name))
                    .hint("--consistency stopped is for volumes; leave it out and make sure yourself that nobody writes"));
            }
            Ok(Capture { identity, path: path.clone(), volume: None, consistency: Consistency::Fuzzy, notes: Vec::new() })
        }
    }
}

/// What goes into the record, or why not: the truth about the volume, unless less was asked for.
fn settle(wanted: Wanted, found: Consistency, name: &str, facts: &VolumeFacts) -> Result<Consistency> {
    match wanted {
        Wanted::Auto => Ok(found),
        Wanted::Fuzzy => Ok(Consistency::Fuzzy),
        Wanted::Stopped if found == Consistency::Stopped => Ok(found),
        Wanted::Stopped => Err(Error::new(ErrorKind::Busy, format!("{} can write to the volume", writers(facts)))
            .on(render::name(name))
            .hint("stop them first, or leave out --consistency stopped and accept a fuzzy snapshot")),
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

/// Takes one snapshot. How still the volume is, is looked at again: the sources before this one may have taken hours.
fn take(
    spec: &SourceSpec,
    args: &SnapshotArgs,
    run: SessionId,
    engine: Option<&dyn Engine>,
    repo: &Repository,
    context: &Context,
) -> Result<(Committed, SnapshotFact)> {
    let capture = prepare(spec, args.consistency, engine, repo)?;
    let name = super::exit::printable(&capture.identity.name);
    let mut notes = capture.notes.clone();
    if let Some(facts) = capture.volume.as_ref().filter(|facts| facts.users.iter().any(is_writing)) {
        notes.push(format!(
            "{} can write to it while it is read; this snapshot is fuzzy: its files are of different moments",
            writers(facts)
        ));
    }
    if holds_repository(&capture.path, context) {
        notes.push("the repository lies inside it and is read, too; leave it out by moving it elsewhere".to_owned());
    }
    let seen = context.progress.warnings().len();
    let options = SnapshotOptions {
        identity: capture.identity.clone(),
        run,
        consistency: capture.consistency,
        tags: args.tag.clone(),
        volume: capture.volume.clone(),
        force_read: args.force_read,
        one_file_system: args.one_file_system.unwrap_or(false),
        compression: args.compression.unwrap_or(COMPRESSION_DEFAULT),
        dry_run: args.dry_run,
    };
    let source = open::source(&capture.path)?;
    let confirm = || match capture.consistency {
        Consistency::Stopped => prepare(spec, Wanted::Auto, engine, repo).map_or(Consistency::Fuzzy, |after| after.consistency),
        held => held,
    };
    let report = ops::snapshot::snapshot_confirmed(repo, &*source, &options, &confirm, &context.progress)?;
    if report.snapshot.record.consistency < capture.consistency {
        notes.push("a container that can write to it was started while it was read; this snapshot is fuzzy".to_owned());
    }
    notes.iter().for_each(|note| context.warn(&format!("{name}: {note}")));

    let mut fact = SnapshotFact::from(&report.snapshot);
    fact.seconds = report.seconds;
    fact.warnings = notes.into_iter().map(|message| Warning { path: name.clone(), message }).collect();
    let entries = context.progress.warnings().split_off(seen);
    for warning in &entries {
        context.warn(&format!("{name}: {}: {}", super::exit::printable(&warning.path), super::exit::printable(&warning.message)));
    }
    fact.warnings.extend(entries);
    if args.dry_run {
        fact.id = None;
    }
    Ok((report.snapshot, fact))
}

/// Whether the repository is below `path`: then each snapshot holds all earlier ones.
fn holds_repository(path: &Path, context: &Context) -> bool {
    let repository = open::location(&context.globals).ok().and_then(|location| location.canonicalize().ok());
    repository.zip(path.canonicalize().ok()).is_some_and(|(repository, path)| repository.starts_with(path))
}

/// Failures after which the other sources are still worth trying. All others are about the repository or this process.
fn concerns_one_source(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Source | ErrorKind::Docker | ErrorKind::Unsupported)
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
    use crate::model::manifest::VolumeUser;

    fn facts(state: &str) -> VolumeFacts {
        let user = VolumeUser {
            container: "db".into(),
            image: "postgres".into(),
            state: state.into(),
            destination: "/data".into(),
            writable: true,
            project: None,
            service: None,
        };
        VolumeFacts { users: vec![user], ..VolumeFacts::default() }
    }

    #[test]
    fn a_record_never_claims_more_stillness_than_there_was() {
        let running = facts("running");
        assert_eq!(settle(Wanted::Auto, Consistency::Fuzzy, "pg", &running).unwrap(), Consistency::Fuzzy);
        assert_eq!(settle(Wanted::Auto, Consistency::Stopped, "pg", &facts("exited")).unwrap(), Consistency::Stopped);
        assert_eq!(settle(Wanted::Fuzzy, Consistency::Stopped, "pg", &facts("exited")).unwrap(), Consistency::Fuzzy);
        assert_eq!(settle(Wanted::Stopped, Consistency::Stopped, "pg", &facts("exited")).unwrap(), Consistency::Stopped);
        let refused = settle(Wanted::Stopped, Consistency::Fuzzy, "pg", &running).unwrap_err();
        assert!(refused.to_string().contains("the container db can write"), "{refused}");
        assert!(refused.advice().is_some());
    }

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
