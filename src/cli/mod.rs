//! The command line: one file per verb, which turns flags into options, calls one function of the library and prints its
//! report. What a user meant is decided here and nowhere deeper.

use std::ffi::OsString;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::error::ErrorKind as ClapKind;
use clap::{Args, Parser, Subcommand};
use jiff::Zoned;
use jiff::tz::TimeZone;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::live::rules::Rules;
use crate::progress::Progress;
use crate::repo::{Committed, Repository};

mod bars;
mod cat;
mod config;
mod confirm;
mod diff;
mod doctor;
mod exit;
mod forget;
mod init;
mod key;
mod last;
mod leftovers;
mod ls;
mod manual;
mod open;
mod out;
mod pick;
mod prune;
mod reindex;
mod render;
mod restore;
mod secret;
mod select;
mod signals;
mod snapshot;
mod snapshots;
mod stacks;
mod stats;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
mod verify;
mod volumes;

use bars::{Bars, Mode};
use exit::Outcome;
use out::Out;
use select::Selector;

/// Incremental, encrypted snapshots of Docker volumes and directories.
#[derive(Debug, Parser)]
#[command(name = "icecore", version, about, after_help = AFTER_HELP, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
SOURCE is a volume's name, a path (starts with / or .), volume:NAME or path:DIR.
SNAPSHOT is an id or its beginning, latest, or SOURCE@TIME.
TIME is RFC 3339, \"2026-11-20 14:03[:07]\", 14:03, \"yesterday 14:00\", or an age such as 90m or \"3 days ago\".

Exit codes: 0 done; 1 failed, nothing committed; 2 usage; 3 done, but some entries unreadable or changed;
4 damage found; 10 no repository; 11 wrong key; 12 busy; 130 interrupted.";

/// What every verb understands.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
struct Globals {
    /// Take options that are given nowhere else from this TOML file [env: ICECORE_CONFIG; default, if it is there:
    /// /etc/icecore/icecore.toml for root, else icecore/icecore.toml in the user's configuration folder]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The repository [env: ICECORE_REPO; default: /var/lib/icecore for root, else icecore in the user's data folder]
    #[arg(long, global = true, value_name = "PATH|URL")]
    repo: Option<OsString>,
    /// Where this host keeps its caches; each repository has a folder of its own in it [env: ICECORE_STATE_DIR; default:
    /// /var/lib/icecore-state for root, else icecore in the user's state folder]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The most memory, in MiB, that the index of chunks may take up; a large repository is looked up faster with more
    /// [env: ICECORE_INDEX_MEMORY; default: 64]
    #[arg(long, global = true, value_name = "MIB", value_parser = clap::value_parser!(u32).range(index_memory_range()))]
    index_memory: Option<u32>,
    /// Read the passphrase from a file [env: ICECORE_PASSWORD_FILE, or ICECORE_PASSWORD for the passphrase itself]
    #[arg(long, global = true, value_name = "FILE", group = "secret")]
    password_file: Option<PathBuf>,
    /// Run a command in a shell and take the first line that it prints as the passphrase
    #[arg(long, global = true, value_name = "COMMAND", group = "secret")]
    password_command: Option<String>,
    /// Open the repository with a key file [env: ICECORE_KEY_FILE]
    #[arg(long, global = true, value_name = "FILE", group = "secret")]
    key_file: Option<PathBuf>,
    /// Print one JSON document on standard output
    #[arg(long, global = true)]
    json: bool,
    /// Print only results and errors
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Log what is done on standard error; twice: in detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Show no progress
    #[arg(long, global = true)]
    no_progress: bool,
    /// The container engine's address [env: DOCKER_HOST]
    #[arg(long, global = true, value_name = "ADDRESS")]
    docker_host: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a repository
    Init(init::InitArgs),
    /// Take snapshots of volumes and directories
    Snapshot(snapshot::SnapshotArgs),
    /// List snapshots
    Snapshots(snapshots::SnapshotsArgs),
    /// Restore a snapshot to a directory, a new volume or a tar archive
    Restore(restore::RestoreArgs),
    /// List a snapshot's entries
    Ls(ls::LsArgs),
    /// Write a file of a snapshot to standard output
    Cat(cat::CatArgs),
    /// Show what differs between two snapshots
    Diff(diff::DiffArgs),
    /// Show the repository's sizes
    Stats,
    /// List the engine's volumes, their last snapshots, and what is not covered
    Volumes(volumes::VolumesArgs),
    /// List the Compose projects, what belongs to them, and what is not covered
    Stacks,
    /// Prove that snapshots can be restored
    Verify(verify::VerifyArgs),
    /// Forget snapshots, by a policy or by name
    Forget(forget::ForgetArgs),
    /// Return the space of what no snapshot refers to
    Prune(prune::PruneArgs),
    /// Manage the keys that open the repository
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Rebuild this host's index from the repository
    Reindex,
    /// Look for what is wrong with the repository, this host and the engine
    Doctor,
    /// Print a completion script for a shell
    Completions(manual::CompletionsArgs),
    /// Print the manual, or write its pages to a folder
    Man(manual::ManArgs),
}

/// MiB that an index can be given.
fn index_memory_range() -> std::ops::RangeInclusive<i64> {
    i64::from(*open::INDEX_MEMORY_MIB.start())..=i64::from(*open::INDEX_MEMORY_MIB.end())
}

/// What a verb works with besides its own flags.
struct Context {
    /// With what the configuration file says where the command line and the environment say nothing.
    globals: Globals,
    /// The configuration file, if one is in use.
    config: Option<PathBuf>,
    /// Its rules about volumes.
    rules: Rules,
    out: Out,
    progress: Arc<Progress>,
    clock: Arc<dyn Clock>,
    zone: TimeZone,
}

impl Context {
    /// The time, in the local time zone.
    fn now(&self) -> Zoned {
        let now = self.clock.now();
        let moment = jiff::Timestamp::new(now.seconds, i32::try_from(now.nanos).unwrap_or(0)).unwrap_or_default();
        moment.to_zoned(self.zone.clone())
    }

    /// The snapshots, by source and sequence. One that cannot be read is said and left out, and makes the outcome
    /// `DamageFound`: without that, an older one could pass for the newest.
    fn snapshots(&self, repo: &Repository) -> Result<(Vec<Committed>, Outcome)> {
        let (found, problems) = repo.snapshots_checked()?;
        for problem in &problems {
            self.warn(&format!("{} cannot be read: {}; run `icecore verify`", render::name(&problem.key), exit::printable(&problem.what)));
        }
        Ok((found, if problems.is_empty() { Outcome::Done } else { Outcome::DamageFound }))
    }

    /// Finds what users mean among `all`.
    fn selector<'a>(&self, all: &'a [Committed]) -> Result<Selector<'a>> {
        Ok(Selector { all, host: open::host(), directory: open::current_directory()?, now: self.now() })
    }

    /// A moment as this user reads it.
    fn local(&self, moment: Timestamp) -> String {
        render::local_time(moment, &self.zone)
    }

    /// Shows progress until the result is dropped.
    fn bars(&self, what: &str) -> Bars {
        let seconds = std::env::var("ICECORE_PROGRESS_SECONDS").ok();
        Bars::start(&self.progress, Mode::choose(self.globals.quiet || self.globals.no_progress, seconds.as_deref()), what)
    }

    /// A line on standard error that is neither result nor error, unless it is unwanted.
    fn note(&self, text: &str) {
        if !self.globals.quiet {
            say(&format!("icecore: {text}\n"));
        }
    }

    /// A line on standard error about something that the user should look at.
    fn warn(&self, text: &str) {
        say(&format!("icecore: warning: {text}\n"));
    }
}

/// Writes to standard error. Nobody may be reading it any more; that is no reason to fail.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Runs the program with these arguments, the program's own name first.
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let json = arguments.iter().skip(1).take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(refused) => return explain(&refused, json),
    };
    start_log(&cli.globals);
    let mut context = Context {
        out: Out::new(Box::new(BufWriter::with_capacity(128 << 10, std::io::stdout())), cli.globals.json),
        globals: cli.globals,
        config: None,
        rules: Rules::default(),
        progress: Arc::new(Progress::new()),
        clock: Arc::new(SystemClock::default()),
        zone: TimeZone::system(),
    };
    let result = run(cli.command, &mut context);
    finish(result, &mut context.out)
}

fn run(mut command: Command, context: &mut Context) -> Result<Outcome> {
    signals::listen(&context.progress)?;
    let applied = config::apply(&mut context.globals, &mut command, &|name| std::env::var_os(name))?;
    (context.config, context.rules) = (applied.file, applied.rules);
    if !matches!(command, Command::Completions(_) | Command::Man(_)) {
        leftovers::undo(context);
    }
    dispatch(command, context)
}

fn dispatch(command: Command, context: &mut Context) -> Result<Outcome> {
    match command {
        Command::Init(args) => init::run(&args, context),
        Command::Snapshot(args) => snapshot::run(&args, context),
        Command::Snapshots(args) => snapshots::run(&args, context),
        Command::Restore(args) => restore::run(&args, context),
        Command::Ls(args) => ls::run(&args, context),
        Command::Cat(args) => cat::run(&args, context),
        Command::Diff(args) => diff::run(&args, context),
        Command::Stats => stats::run(context),
        Command::Volumes(args) => volumes::run(&args, context),
        Command::Stacks => stacks::run(context),
        Command::Verify(args) => verify::run(&args, context),
        Command::Forget(args) => forget::run(&args, context),
        Command::Prune(args) => prune::run(&args, context),
        Command::Key(command) => key::run(&command, context),
        Command::Reindex => reindex::run(context),
        Command::Doctor => doctor::run(context),
        Command::Completions(args) => manual::completions(&args, context),
        Command::Man(args) => manual::man(&args, context),
    }
}

/// Says what went wrong and chooses the exit code.
fn finish(result: Result<Outcome>, out: &mut Out) -> ExitCode {
    let result = result.and_then(|outcome| match out.flush() {
        Err(_) if out.reader_left() => Ok(outcome),
        flushed => flushed.context(ErrorKind::Target, "cannot write", "standard output").map(|()| outcome),
    });
    let result = match result {
        // Whoever read the output has seen enough (`icecore ls ... | head`).
        Err(error) if out.reader_left() && error.io_kind() == Some(std::io::ErrorKind::BrokenPipe) => Ok(Outcome::Done),
        other => other,
    };
    if let Err(error) = &result {
        out.error(error);
        say(&exit::lines(error));
    }
    exit::of(&result)
}

/// Prints help and version where they were asked for; anything else that the parser refuses is a usage error.
fn explain(refused: &clap::Error, json: bool) -> ExitCode {
    // Nobody may be reading; that is no reason to fail.
    let _ = refused.print();
    match refused.kind() {
        ClapKind::DisplayHelp | ClapKind::DisplayVersion => ExitCode::SUCCESS,
        _ => {
            let text = refused.to_string();
            let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let error = Error::new(ErrorKind::Usage, first).hint("see `icecore help`");
            Out::new(Box::new(std::io::stdout()), json).error(&error);
            exit::of(&Err(error))
        }
    }
}

/// Sends the library's log to standard error: warnings, with -v what is done, with -vv details.
fn start_log(globals: &Globals) {
    let level = match (globals.quiet, globals.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    let filter = tracing_subscriber::EnvFilter::new(format!("off,icecore={level}"));
    // Fails only when a log was started before, which then serves as well.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).try_init();
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(std::iter::once("icecore").chain(line.split_whitespace())).is_ok()
    }

    #[test]
    fn the_parser_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_of_the_contract_parses_and_flags_stand_anywhere() {
        for line in [
            "init",
            "init --no-encryption --parity 0 --label laptop",
            "snapshot pgdata",
            "snapshot a ./b volume:c path:/d --tag x --tag y --dry-run --force-read --one-file-system --compression 19",
            "snapshot --all --consistency stopped --one-file-system=false",
            "snapshots",
            "snapshots pgdata --at 14:03 --tag x",
            "restore pgdata --at latest --to /tmp/x",
            "restore abcd --as copy --path a/b --path c --yes",
            "restore abcd --tar - --dry-run",
            "ls abcd",
            "ls abcd etc -l -r",
            "cat abcd etc/passwd",
            "diff abcd abce",
            "stats",
            "volumes",
            "volumes pgdata --size",
            "stacks",
            "snapshot --stack shop --stack blog",
            "snapshot --priority critical,high",
            "snapshot --stack shop --priority low",
            "verify --data --source pgdata",
            "verify --data=scrub --older-than 30d --sample 5",
            "verify --sample 0.5% --data=deep",
            "forget --keep-last 3 --keep-within 2d --keep-minutely 1 --keep-hourly 1 --keep-daily 7 --keep-weekly 4",
            "forget pgdata --keep-monthly 12 --keep-yearly 3 --keep-tag x --dry-run --yes",
            "forget abcd abce --yes --whole-source pgdata",
            "prune --dry-run",
            "key add --label x --new-password-file f",
            "key add --new-key-file f",
            "key list",
            "key remove abcd --yes",
            "reindex",
            "doctor",
            "completions bash",
            "man",
            "man /tmp/x",
            "--repo /r --json stats",
            "stats --config /c",
            "stats --repo /r --state-dir /s --json -q -vv --no-progress --docker-host unix:///x",
            "stats --index-memory 16",
            "--index-memory 4096 stats",
            "stats --password-file f",
            "--password-command c stats",
            "stats --key-file k",
        ] {
            assert!(parses(line), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "",
            "no-such-verb",
            "snapshot",
            "snapshot --priority urgent",
            "snapshot a --priority high",
            "snapshot a --compression 0",
            "snapshot a --compression 20",
            "snapshot a --consistency frozen-ish",
            "restore",
            "restore a --to x --as y",
            "restore a --to x --tar -",
            "cat abcd",
            "diff abcd",
            "forget --keep-last 0",
            "forget --keep-last x",
            "init --parity 101",
            "verify --data=all",
            "verify --sample 5",
            "verify --older-than 3d",
            "key",
            "key add --new-key-file a --new-password-file b",
            "stats --password-file a --key-file b",
            "completions klingon",
            "stats --index-memory 15",
            "stats --index-memory 1048577",
            "stats --index-memory 64MiB",
            "stats --index-memory",
        ] {
            assert!(!parses(line), "{line}");
        }
    }

    #[test]
    fn a_reader_who_left_hides_no_other_failure() {
        let full = || Error::new(ErrorKind::Storage, "cannot write").because(std::io::Error::from(std::io::ErrorKind::StorageFull));
        let mut out = Out::new(Box::new(std::io::sink()), false);
        assert_eq!(finish(Err(full()), &mut out), ExitCode::from(1));
        assert_eq!(finish(Ok(Outcome::Incomplete), &mut out), ExitCode::from(3));
    }
}
