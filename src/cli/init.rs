//! `icecore init`

use clap::Args;
use serde::Serialize;

use super::exit::Outcome;
use super::{Context, open};
use crate::error::{Error, ErrorKind, Result};
use crate::repo::CreateOptions;

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// Store everything in the clear; checksums still notice damage
    #[arg(long)]
    no_encryption: bool,
    /// Add this much redundancy to each pack
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    parity: u8,
    /// Words for the first key, shown by `icecore key list`
    #[arg(long, default_value = "")]
    label: String,
}

#[derive(Serialize)]
struct Report {
    repository: String,
    location: String,
    encryption: &'static str,
}

pub(super) fn run(args: &InitArgs, context: &mut Context) -> Result<Outcome> {
    if args.parity > 0 {
        return Err(Error::new(ErrorKind::Unsupported, "parity comes with a later version").hint("leave out --parity"));
    }
    // First, so that nothing is left behind when there is none.
    let secret = if args.no_encryption { None } else { Some(open::new_secret(&context.globals)?) };
    let storage = open::new_storage(&context.globals)?;
    let encryption = if secret.is_some() { "aes-256-gcm" } else { "none" };
    let options = CreateOptions { secret, label: args.label.clone(), ..CreateOptions::default() };
    let id = open::create(&*storage, &options, &*context.clock)?;
    let report = Report { repository: id.to_string(), location: storage.describe(), encryption };
    context.out.report(&report, || format!("Created the repository {id} in {} (encryption: {encryption}).\n", report.location))?;
    if !args.no_encryption {
        context.note("keep the passphrase or key file in a second, safe place: without it nobody can read the repository");
    }
    Ok(Outcome::Done)
}
