//! `icecore cat`

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::Args;

use super::exit::Outcome;
use super::{Context, open};
use crate::error::{Error, ErrorKind, Result};
use crate::model::TreePath;
use crate::ops;

#[derive(Debug, Args)]
pub(super) struct CatArgs {
    /// The snapshot
    snapshot: String,
    /// The file's path below the snapshot's root
    path: OsString,
}

pub(super) fn run(args: &CatArgs, context: &mut Context) -> Result<Outcome> {
    if context.out.json() {
        return Err(Error::new(ErrorKind::Usage, "cat prints the file itself, which is no JSON document").hint("leave out --json"));
    }
    let path = TreePath::parse(args.path.as_bytes())?;
    let repo = open::repository(context)?;
    let all = context.snapshots(&repo)?.0;
    let snapshot = context.selector(&all)?.snapshot(&args.snapshot)?;
    ops::tree::cat(&repo, &snapshot.record, &path, &mut context.out, &context.progress)?;
    Ok(Outcome::Done)
}
