//! `icecore completions` and `icecore man`: what the parser knows, as a shell script and as manual pages.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use serde::Serialize;

use super::exit::Outcome;
use super::{Cli, Context, render};
use crate::error::{Error, ErrorKind, IoContext, Result};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Write one page per command to this folder, which must exist
    dir: Option<PathBuf>,
}

#[derive(Serialize)]
struct Script {
    shell: String,
    script: String,
}

#[derive(Serialize)]
struct Page {
    name: String,
    text: String,
}

#[derive(Serialize)]
struct Pages {
    pages: Vec<Page>,
}

#[derive(Serialize)]
struct Written {
    written: Vec<String>,
}

pub(super) fn completions(args: &CompletionsArgs, context: &mut Context) -> Result<Outcome> {
    let mut bytes = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "icecore", &mut bytes);
    let script = Script { shell: args.shell.to_string(), script: String::from_utf8_lossy(&bytes).into_owned() };
    context.out.report(&script, || script.script.clone())?;
    Ok(Outcome::Done)
}

pub(super) fn man(args: &ManArgs, context: &mut Context) -> Result<Outcome> {
    let pages = pages()?;
    match &args.dir {
        None => context.out.report(&Pages { pages }, || first_page().unwrap_or_default())?,
        Some(dir) => {
            let written = pages.iter().map(|page| write(dir, page)).collect::<Result<Vec<_>>>()?;
            let text = format!("wrote {} to {}\n", render::count(written.len() as u64, "page"), render::path(dir));
            context.out.report(&Written { written }, || text)?;
        }
    }
    Ok(Outcome::Done)
}

fn write(dir: &Path, page: &Page) -> Result<String> {
    let path = dir.join(&page.name);
    fs::write(&path, &page.text).context(ErrorKind::Target, "cannot write", render::path(&path))?;
    Ok(render::path(&path))
}

/// The page of the program itself.
fn first_page() -> Option<String> {
    pages().ok()?.into_iter().next().map(|page| page.text)
}

/// The page of the program, then of each command and subcommand.
fn pages() -> Result<Vec<Page>> {
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    let mut waiting = vec![command];
    while let Some(command) = waiting.pop() {
        waiting.extend(command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned());
        let man = Man::new(command);
        let mut bytes = Vec::new();
        man.render(&mut bytes).map_err(|cause| Error::new(ErrorKind::Target, "cannot make a manual page").because(cause))?;
        pages.push(Page { name: man.get_filename(), text: String::from_utf8_lossy(&bytes).into_owned() });
    }
    Ok(pages)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_of_its_own() {
        let pages = pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|page| page.name.as_str()).collect();
        assert_eq!(names[0], "icecore.1");
        for expected in ["icecore-snapshot.1", "icecore-restore.1", "icecore-key-add.1", "icecore-man.1"] {
            assert!(names.contains(&expected), "{expected} in {names:?}");
        }
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        assert!(pages.iter().all(|page| page.text.contains(".TH")));
    }

    #[test]
    fn pages_are_written_to_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        for page in &pages().unwrap() {
            write(dir.path(), page).unwrap();
        }
        assert!(fs::read_to_string(dir.path().join("icecore-forget.1")).unwrap().contains("keep"));
        assert!(write(&dir.path().join("absent"), &pages().unwrap()[0]).is_err());
    }
}
