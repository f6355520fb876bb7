//! Finds a preset's program in a container: images differ in its name (`mariadb-dump`, `mysqldump`) and in their users.

use super::plan::{SMALL_TIME_MAX, Tool};
use crate::docker::{ContainerDetail, Engine, ExecOutcome, ExecSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::model::path::escape;

/// How much of a version is kept, in bytes.
const VERSION_BYTES_MAX: usize = 200;

/// The exit codes for a program that cannot be run and for one that is not there.
const CANNOT_RUN: [i64; 2] = [126, 127];

/// How engines say that a program or a user is not in the container: all words of a row. Less would also be true of an engine
/// whose socket is not there or not for us.
const ABSENT: [&[&str]; 5] = [
    &["executable file", "not found"],
    &["unable to find user"],
    &["no matching entries in passwd file"],
    &["oci runtime", "no such file or directory"],
    &["oci runtime", "permission denied"],
];

/// A program that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) name: &'static str,
    pub(super) user: Option<&'static str>,
    /// What it says of its version, in one printable line.
    pub(super) version: String,
}

/// Looks for `tool`, by asking it for its version.
pub(super) fn find(engine: &dyn Engine, container: &ContainerDetail, tool: &Tool) -> Result<Found> {
    for user in tool.users {
        for name in tool.names {
            let mut spec = ExecSpec::new([*name].iter().chain(tool.version).copied(), SMALL_TIME_MAX);
            spec.user = user.map(str::to_owned);
            let mut out = Vec::new();
            let outcome = engine.exec(&container.id, &spec, None, &mut |bytes| {
                out.extend_from_slice(&bytes[..bytes.len().min(VERSION_BYTES_MAX.saturating_sub(out.len()))]);
                Ok(())
            });
            if is_absent(&outcome) {
                continue;
            }
            let line = out.split(|b| *b == b'\n').next().unwrap_or_default();
            let version = if outcome?.code == 0 { escape(line) } else { String::new() };
            return Ok(Found { name, user: *user, version });
        }
    }
    Err(Error::new(ErrorKind::Unsupported, format!("the container has no {}", tool.names.join(" or ")))
        .on(&container.name)
        .hint("put the program into the image, or have the volume captured frozen instead"))
}

/// Whether a command did not run at all because its program or its user is not there.
pub(super) fn is_absent(outcome: &Result<ExecOutcome>) -> bool {
    match outcome {
        Ok(outcome) => CANNOT_RUN.contains(&outcome.code),
        Err(error) if matches!(error.kind(), ErrorKind::Docker | ErrorKind::NotFound) => {
            let text = error.to_string().to_lowercase();
            ABSENT.iter().any(|row| row.iter().all(|words| text.contains(words)))
        }
        Err(_) => false,
    }
}
