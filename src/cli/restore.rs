//! `icecore restore`

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::exit::{self, Outcome};
use super::{Context, confirm, open, render, time};
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::model::manifest::VolumeFacts;
use crate::model::{SourceKind, TreePath};
use crate::ops;
use crate::ops::restore::{RestoreOptions, RestorePlan, RestoreReport};
use crate::repo::{Committed, Repository};
use crate::target::{Reflinks, Target};
use crate::volume::recreate;

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// What to restore; of a source its newest snapshot, or the one of --at
    #[arg(value_name = "SOURCE|SNAPSHOT")]
    what: String,
    /// Restore the source as of this time, or latest
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// Restore into this directory, which is made if need be
    #[arg(long, value_name = "DIR", group = "destination")]
    to: Option<PathBuf>,
    /// Restore as a new volume of this name
    #[arg(long, value_name = "VOLUME", group = "destination")]
    r#as: Option<String>,
    /// Write a tar archive to this file, or to standard output when it is -
    #[arg(long, value_name = "FILE", group = "destination")]
    tar: Option<PathBuf>,
    /// Restore only this entry and what is below it; may be repeated
    #[arg(long, value_name = "PATH")]
    path: Vec<OsString>,
    /// Remove what the directory has and the snapshot has not
    #[arg(long, requires = "to")]
    delete: bool,
    /// Begin large new files as clones of those with the same paths in this directory, where the file system can share them
    #[arg(long, value_name = "DIR", conflicts_with = "tar")]
    reflink_from: Option<PathBuf>,
    /// Make a plain local volume, whatever driver and options the original had
    #[arg(long, requires = "as")]
    ignore_options: bool,
    /// Only count what would be restored, and check that all of it is there
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct Planned {
    snapshot: String,
    source: String,
    time: String,
    dry_run: bool,
    #[serde(flatten)]
    plan: RestorePlan,
}

#[derive(Serialize)]
struct Done<'a> {
    snapshot: String,
    source: String,
    time: String,
    dry_run: bool,
    destination: String,
    #[serde(flatten)]
    report: &'a RestoreReport,
}

pub(super) fn run(args: &RestoreArgs, context: &mut Context) -> Result<Outcome> {
    let has_destination = args.to.is_some() || args.r#as.is_some() || args.tar.is_some();
    if !has_destination && !args.dry_run {
        return Err(Error::new(ErrorKind::Usage, "say where to: --to DIR, --as VOLUME or --tar FILE")
            .hint("restoring into the volume that is in use comes with a later version; restore with --as and switch over"));
    }
    let to_stdout = args.tar.as_deref() == Some(Path::new("-"));
    if to_stdout && context.out.json() && !args.dry_run {
        return Err(
            Error::new(ErrorKind::Usage, "the archive and the JSON document cannot both go to standard output").hint("use --tar FILE")
        );
    }
    let paths = args.path.iter().map(|path| TreePath::parse(path.as_bytes())).collect::<Result<Vec<_>>>()?;
    let options = RestoreOptions { paths, delete: args.delete };
    let at = args.at.as_deref().map(|text| time::parse_at(text, &context.now())).transpose()?;

    let repo = open::repository(context)?;
    let all = context.snapshots(&repo)?.0;
    let snapshot = context.selector(&all)?.wanted(&args.what, at)?;
    let title =
        format!("{} of {} ({})", snapshot.id.short(), exit::printable(&snapshot.record.source.name), context.local(snapshot.record.time));
    if snapshot.record.is_partial() {
        let missing = render::count(snapshot.record.unreadable_count, "entry");
        context.warn(&format!("snapshot {title} is partial: {missing} could not be read when it was taken"));
    }
    if args.dry_run {
        return dry_run(&repo, snapshot, &options, &title, context);
    }
    if let Some(dir) = &args.to {
        confirm_directory(dir, args)?;
    }
    // Every chunk must be known before anything is touched.
    let plan = ops::restore::plan(&repo, &snapshot.record, &options, &context.progress)?;
    context.note(&format!("restoring snapshot {title}: {}, {}", render::count(plan.files, "file"), render::size(plan.bytes)));

    let (report, destination) = match (&args.to, &args.r#as, &args.tar) {
        (Some(dir), _, _) => (to_directory(dir, args, &repo, snapshot, &options, context)?, render::path(dir)),
        (_, Some(name), _) => (to_volume(name, args, &repo, snapshot, &options, context)?, format!("volume {}", render::name(name))),
        (_, _, Some(file)) if !to_stdout => (to_file(file, args, &repo, snapshot, &options, context)?, render::path(file)),
        _ => (fill(&*open::tar_target(Box::new(io::stdout())), &repo, snapshot, &options, context)?, "standard output".to_owned()),
    };
    for warning in &report.warnings {
        context.warn(&format!("{}: {}", exit::printable(&warning.path), exit::printable(&warning.message)));
    }
    if report.failed > 0 {
        let what = format!("{} entries are missing or not whole; the destination stays marked as unfinished", report.failed);
        context.warn(&format!("{what}. `icecore verify --data` says what is damaged"));
    }
    let text = format!("restored snapshot {title} to {destination}: {}\n", summary(&report));
    if to_stdout {
        context.note(text.trim_end());
    } else {
        let (id, source, time) = (snapshot.id.to_string(), snapshot.record.source.name.clone(), snapshot.record.time.to_string());
        let done = Done { snapshot: id, source, time, dry_run: false, destination, report: &report };
        context.out.report(&done, || text)?;
    }
    Ok(match &report {
        report if report.damaged > 0 => Outcome::DamageFound,
        report if report.warnings.is_empty() => Outcome::Done,
        _ => Outcome::Incomplete,
    })
}

fn dry_run(repo: &Repository, snapshot: &Committed, options: &RestoreOptions, title: &str, context: &mut Context) -> Result<Outcome> {
    let plan = ops::restore::plan(repo, &snapshot.record, options, &context.progress)?;
    let text = format!(
        "would restore snapshot {title}: {}, {}, {}\n",
        render::count(plan.files, "file"),
        render::count(plan.directories, "directory"),
        render::size(plan.bytes)
    );
    let (id, source, time) = (snapshot.id.to_string(), snapshot.record.source.name.clone(), snapshot.record.time.to_string());
    context.out.report(&Planned { snapshot: id, source, time, dry_run: true, plan }, || text)?;
    Ok(Outcome::Done)
}

fn summary(report: &RestoreReport) -> String {
    let removed = if report.removed > 0 { format!(", {} removed", render::grouped(report.removed)) } else { String::new() };
    let kept = if report.kept_bytes > 0 { format!(", {} were right already", render::size(report.kept_bytes)) } else { String::new() };
    let cloned = match report.reflinks {
        Reflinks::Untried => String::new(),
        Reflinks::Made => format!(", {} cloned", render::grouped(report.cloned_files)),
        Reflinks::Unsupported => ", no clones on this file system".to_owned(),
    };
    format!(
        "{}, {}, {}{kept}{cloned}{removed}; {}",
        render::count(report.files, "file"),
        render::count(report.directories, "directory"),
        render::size(report.bytes),
        render::duration(report.seconds)
    )
}

/// A directory with contents is only written to when somebody says so. An unreadable one counts as having some.
fn confirm_directory(dir: &Path, args: &RestoreArgs) -> Result<()> {
    let empty = match fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => true,
        Err(cause) => return Err(cause).context(ErrorKind::Target, "cannot look into the directory to restore to", render::path(dir)),
    };
    if empty {
        return Ok(());
    }
    let also = if args.delete { " and what the snapshot has not is REMOVED" } else { "" };
    let what = format!("{} is not empty: entries of the same name are replaced{also}", render::path(dir));
    confirm::yes(&mut confirm::Terminal, args.yes, &what)
}

fn fill(
    target: &dyn Target,
    repo: &Repository,
    snapshot: &Committed,
    options: &RestoreOptions,
    context: &Context,
) -> Result<RestoreReport> {
    let bars = context.bars("restore");
    let report = ops::restore::restore(repo, &snapshot.record, target, options, &context.progress);
    drop(bars);
    report
}

fn to_directory(
    dir: &Path,
    args: &RestoreArgs,
    repo: &Repository,
    snapshot: &Committed,
    options: &RestoreOptions,
    context: &Context,
) -> Result<RestoreReport> {
    let target = open::directory_target(dir, snapshot.id, args.reflink_from.as_deref())?;
    fill(&*target, repo, snapshot, options, context)
}

/// Restores into a new volume, and takes the volume back when that fails.
fn to_volume(
    name: &str,
    args: &RestoreArgs,
    repo: &Repository,
    snapshot: &Committed,
    options: &RestoreOptions,
    context: &Context,
) -> Result<RestoreReport> {
    let engine = open::engine(&context.globals)?;
    let source = &snapshot.record.source;
    let origin = if source.kind == SourceKind::Volume { source.name.as_str() } else { "" };
    let plain = VolumeFacts { driver: "local".to_owned(), ..VolumeFacts::default() };
    let facts = snapshot.record.volume.as_ref().unwrap_or(&plain);
    let made = recreate::recreate(&*engine, name, origin, facts, args.ignore_options).map_err(|error| match error.kind() {
        ErrorKind::Unsupported => {
            Error::new(ErrorKind::Unsupported, error.to_string()).hint("add --ignore-options for a plain local volume")
        }
        _ => error,
    })?;
    if !made.dropped_labels.is_empty() {
        let labels: Vec<String> = made.dropped_labels.iter().map(|label| render::name(label)).collect();
        context.note(&format!("the new volume did not get the labels that make it part of a project: {}", labels.join(", ")));
    }
    match to_directory(&made.path, args, repo, snapshot, options, context) {
        Ok(report) => Ok(report),
        Err(error) => {
            if let Err(second) = made.undo(&*engine) {
                let shown = render::name(name);
                context.warn(&format!("the unfinished volume {shown} is still there ({second}); remove it with: docker volume rm {shown}"));
            }
            Err(error)
        }
    }
}

/// Writes the archive beside `file` and puts it in place when it is whole, so that no half archive ever has the name.
fn to_file(
    file: &Path,
    args: &RestoreArgs,
    repo: &Repository,
    snapshot: &Committed,
    options: &RestoreOptions,
    context: &Context,
) -> Result<RestoreReport> {
    let shown = render::path(file);
    match fs::metadata(file) {
        // A device, pipe or /dev/fd/N is written to as it is.
        Ok(found) if !found.is_file() && !found.is_dir() => {
            let to = File::options().write(true).open(file).context(ErrorKind::Target, "cannot write", &shown)?;
            return fill(&*open::tar_target(Box::new(to)), repo, snapshot, options, context);
        }
        Ok(found) if found.is_dir() => return Err(Error::new(ErrorKind::Usage, "this is a directory; --tar wants a file").on(shown)),
        Ok(_) => confirm::yes(&mut confirm::Terminal, args.yes, &format!("{shown} exists and is replaced"))?,
        Err(_) => {}
    }
    let unfinished = Unfinished::create(file)?;
    let archive = unfinished.file.try_clone().context(ErrorKind::Target, "cannot write", &shown)?;
    let report = fill(&*open::tar_target(Box::new(archive)), repo, snapshot, options, context)?;
    unfinished.put_in_place(file)?;
    Ok(report)
}

/// A file under a temporary name, removed again unless it is put in place.
struct Unfinished {
    file: File,
    path: PathBuf,
}

impl Unfinished {
    fn create(file: &Path) -> Result<Self> {
        let mut name = OsString::from(".");
        name.push(file.file_name().ok_or_else(|| Error::new(ErrorKind::Usage, "this names no file").on(render::path(file)))?);
        name.push(format!(".icecore-{}", std::process::id()));
        let path = file.with_file_name(name);
        let opened = File::options().write(true).create_new(true).open(&path);
        Ok(Self { file: opened.context(ErrorKind::Target, "cannot create", render::path(&path))?, path })
    }

    fn put_in_place(mut self, file: &Path) -> Result<()> {
        let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let done = (self.file.flush())
            .and_then(|()| self.file.sync_all())
            .and_then(|()| fs::rename(&self.path, file))
            .and_then(|()| File::open(folder)?.sync_all());
        done.context(ErrorKind::Target, "cannot finish", render::path(file))?;
        self.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn args(yes: bool) -> RestoreArgs {
        RestoreArgs {
            what: "pg".into(),
            at: None,
            to: None,
            r#as: None,
            tar: None,
            path: vec![],
            delete: false,
            reflink_from: None,
            ignore_options: false,
            dry_run: false,
            yes,
        }
    }

    #[test]
    fn an_unfinished_archive_leaves_no_trace_and_a_finished_one_has_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.tar");
        drop(Unfinished::create(&file).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let mut unfinished = Unfinished::create(&file).unwrap();
        unfinished.file.write_all(b"archive").unwrap();
        assert!(!file.exists());
        unfinished.put_in_place(&file).unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"archive");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(Unfinished::create(Path::new("/")).err().unwrap().kind(), ErrorKind::Usage);
    }

    #[test]
    fn a_directory_with_contents_is_refused_without_a_yes() {
        let dir = tempfile::tempdir().unwrap();
        confirm_directory(dir.path(), &args(false)).unwrap();
        confirm_directory(&dir.path().join("absent"), &args(false)).unwrap();
        fs::write(dir.path().join("x"), "x").unwrap();
        confirm_directory(dir.path(), &args(true)).unwrap();
        assert!(confirm_directory(&dir.path().join("x"), &args(true)).is_err(), "a file is no directory");
    }

    #[test]
    fn the_summary_tells_what_happened() {
        let report =
            RestoreReport { files: 2, directories: 1, bytes: 2048, kept_bytes: 1024, removed: 3, seconds: 1.0, ..RestoreReport::default() };
        assert_eq!(summary(&report), "2 files, 1 directory, 2.0 KiB, 1.0 KiB were right already, 3 removed; 1.0 s");
        let cloned = RestoreReport { files: 1, cloned_files: 1, reflinks: Reflinks::Made, ..RestoreReport::default() };
        assert!(summary(&cloned).contains(", 1 cloned; "), "{}", summary(&cloned));
        let written = RestoreReport { files: 1, reflinks: Reflinks::Unsupported, ..RestoreReport::default() };
        assert!(summary(&written).contains(", no clones on this file system; "), "{}", summary(&written));
    }
}
