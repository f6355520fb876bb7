//! MySQL and MariaDB: `mariadb-dump` or `mysqldump`, all databases as one SQL script. Tables of InnoDB in it are of one moment;
//! tables of MyISAM and Aria are not.

use super::Application;
use super::plan::{Plan, Step, Tool, args};
use super::secret::Secret;
use super::stream::{Ends, Trailer, Verdict};
use crate::docker::ContainerDetail;
use crate::error::{Error, ErrorKind, Result};

const TRAILER: &[u8] = b"-- Dump completed";

/// The root passwords that images are told.
const PASSWORDS: &[&str] = &["MARIADB_ROOT_PASSWORD", "MYSQL_ROOT_PASSWORD", "MYSQL_PWD"];

/// What both programs are told: the server's socket whatever MYSQL_HOST says, and four-byte characters, which older versions
/// would turn into question marks.
const CONNECTION: &[&str] = &["--user=root", "--host=localhost", "--default-character-set=utf8mb4", "--max-allowed-packet=1G"];

/// See [`super::Preset::dump`].
pub(super) fn dump(container: &ContainerDetail) -> Result<Plan> {
    let more = &[
        "--all-databases",
        "--single-transaction",
        "--quick",
        "--routines",
        "--events",
        "--triggers",
        "--hex-blob",
        "--flush-privileges",
        // Otherwise two dumps of the same data differ.
        "--skip-dump-date",
    ];
    let step = Step::tool("dump all databases", args(&[CONNECTION, more].concat())).dumps();
    plan(container, &["mariadb-dump", "mysqldump"], step)
}

/// See [`super::Preset::restore`].
pub(super) fn restore(container: &ContainerDetail) -> Result<Plan> {
    let step = Step::tool("run the dump", args(&[CONNECTION, &["--batch"]].concat())).reads_dump(false);
    plan(container, &["mariadb", "mysql"], step)
}

fn plan(container: &ContainerDetail, names: &'static [&'static str], step: Step) -> Result<Plan> {
    let password = Secret::of_env(container, PASSWORDS);
    let is_random = ["MARIADB_RANDOM_ROOT_PASSWORD", "MYSQL_RANDOM_ROOT_PASSWORD"]
        .iter()
        .any(|name| container.env_value(name).is_some_and(|value| !value.is_empty()));
    if password.is_none() && is_random {
        return Err(Error::new(ErrorKind::Unsupported, "the root password of the database is random and nobody kept it")
            .on(&container.name)
            .hint("give the container MYSQL_PWD or MYSQL_ROOT_PASSWORD_FILE with the password, or capture it frozen"));
    }
    Ok(Plan {
        application: Application::MySql,
        tool: Tool { names, version: &["--version"], users: &[None] },
        env: password.map(|password| ("MYSQL_PWD", password)).into_iter().collect(),
        steps: vec![step],
        trailer: Trailer::MySql,
    })
}

/// Whether `ends` are those of a whole dump.
pub(super) fn judge(ends: &Ends<'_>) -> Verdict {
    let tail = ends.tail.trim_ascii_end();
    let last = tail.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    // The date may follow.
    if last.starts_with(TRAILER) { Ok(0) } else { Err("it does not end with `-- Dump completed`".into()) }
}
