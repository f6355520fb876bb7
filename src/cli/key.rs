//! `icecore key`

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::Outcome;
use super::render::{Side, Table};
use super::secret::{self, Place};
use super::{Context, confirm, open, render};
use crate::error::{Error, ErrorKind, Result};
use crate::repo::SlotInfo;

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Add a key: another passphrase or key file that opens the repository
    Add(AddArgs),
    /// List the keys, without their secrets
    List,
    /// Remove a key
    Remove(RemoveArgs),
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Words that tell what the key is for
    #[arg(long, default_value = "")]
    label: String,
    /// Read the new passphrase from a file
    #[arg(long, value_name = "FILE", group = "new_secret")]
    new_password_file: Option<PathBuf>,
    /// Add this key file
    #[arg(long, value_name = "FILE", group = "new_secret")]
    new_key_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The key's id or its beginning
    id: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Serialize)]
struct Keys {
    keys: Vec<SlotInfo>,
}

#[derive(Serialize)]
struct Added {
    added: SlotInfo,
}

#[derive(Serialize)]
struct Removed {
    removed: SlotInfo,
}

pub(super) fn run(command: &KeyCommand, context: &mut Context) -> Result<Outcome> {
    match command {
        KeyCommand::Add(args) => add(args, context),
        KeyCommand::List => list(context),
        KeyCommand::Remove(args) => remove(args, context),
    }?;
    Ok(Outcome::Done)
}

fn add(args: &AddArgs, context: &mut Context) -> Result<()> {
    let repo = open::repository(context)?;
    let place = match (&args.new_password_file, &args.new_key_file) {
        (Some(file), _) => Some(Place::PassphraseFile(file.clone())),
        (None, Some(file)) => Some(Place::KeyFile(file.clone())),
        (None, None) => None,
    };
    let secret = match place {
        Some(place) => secret::fetch(&place)?,
        None => secret::ask("new passphrase", true).map_err(|error| match error.kind() {
            ErrorKind::Interrupted => error,
            _ => Error::new(error.kind(), error.to_string()).hint("use --new-password-file or --new-key-file"),
        })?,
    };
    let added = repo.add_slot(&secret, &args.label)?;
    let text = format!("Added the key {} ({}).\n", render::name(&added.id), render::name(&added.kind));
    context.out.report(&Added { added }, || text)
}

fn list(context: &mut Context) -> Result<()> {
    let repo = open::repository(context)?;
    let keys = repo.slots()?;
    let text = table(&keys);
    context.out.report(&Keys { keys }, || text)
}

fn table(keys: &[SlotInfo]) -> String {
    if keys.is_empty() {
        return "no keys: the repository is not encrypted\n".to_owned();
    }
    let mut table =
        Table::new(&[("ID", Side::Left), ("KIND", Side::Left), ("CREATED", Side::Left), ("LABEL", Side::Left), ("", Side::Left)]);
    for key in keys {
        let current = if key.current { "in use now" } else { "" };
        table.row(vec![
            render::name(&key.id),
            render::name(&key.kind),
            render::name(&key.created),
            render::name(&key.label),
            current.to_owned(),
        ]);
    }
    table.text()
}

fn remove(args: &RemoveArgs, context: &mut Context) -> Result<()> {
    let repo = open::repository(context)?;
    let what = match &matching(&repo.slots()?, &args.id)[..] {
        [slot] => {
            format!("This removes the key {} ({}); it will not open the repository any more", render::name(&slot.id), described(slot))
        }
        _ => format!("This removes the key {}", render::name(&args.id)),
    };
    confirm::yes(&mut confirm::Terminal, args.yes, &what)?;
    let removed = repo.remove_slot(&args.id)?;
    let text = format!("Removed the key {} ({}).\n", render::name(&removed.id), described(&removed));
    context.out.report(&Removed { removed }, || text)?;
    context.note("whoever copied the repository with its old keys can still open that copy");
    Ok(())
}

fn matching<'a>(slots: &'a [SlotInfo], id: &str) -> Vec<&'a SlotInfo> {
    slots.iter().filter(|slot| slot.id.starts_with(id)).collect()
}

fn described(slot: &SlotInfo) -> String {
    let kind = render::name(&slot.kind);
    if slot.label.is_empty() { kind } else { format!("{kind}, {}", render::name(&slot.label)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_listed_without_steering_the_terminal() {
        let key = |id: &str, label: &str, current| SlotInfo {
            id: id.into(),
            kind: "passphrase".into(),
            label: label.into(),
            created: "2026-11-20T14:03:07Z".into(),
            current,
        };
        let text = table(&[key("aa11", "laptop\x1b", true), key("bb22", "", false)]);
        assert_eq!(
            text,
            "ID    KIND        CREATED               LABEL\n\
             aa11  passphrase  2026-11-20T14:03:07Z  laptop\\u{1b}  in use now\n\
             bb22  passphrase  2026-11-20T14:03:07Z\n"
        );
        assert_eq!(matching(&[key("aa11", "", false), key("ab22", "", false)], "a").len(), 2);
    }
}
