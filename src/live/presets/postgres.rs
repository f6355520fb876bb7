//! PostgreSQL: `pg_dumpall`, all roles and databases as one SQL script. Each database in it is of one moment, different
//! databases are not of the same.

use std::time::Duration;

use super::Application;
use super::plan::{Plan, Step, Tool, args};
use super::secret::Secret;
use super::stream::{Ends, Trailer, Verdict};
use crate::docker::ContainerDetail;

/// The end of a cluster's dump, up to white space.
const TRAILER: &[u8] = b"\n-- PostgreSQL database cluster dump complete\n--";

/// A checkpoint only shortens the recovery: it gets this long.
const CHECKPOINT_TIME_MAX: Duration = Duration::from_secs(20);

/// The server's own user first: with `peer` authentication nobody else gets in. Official images have it, others may not.
const SERVER_USER: &[Option<&str>] = &[Some("postgres"), None];
const OWN_USER: &[Option<&str>] = &[None];

/// How a dump goes back into TimescaleDB.
pub(super) const TIMESCALE_BY_HAND: &str = "TimescaleDB wants its own steps: start a server of the same version of TimescaleDB; for each database \
     CREATE DATABASE, CREATE EXTENSION timescaledb, SELECT timescaledb_pre_restore(); pipe dump.sql into psql without ON_ERROR_STOP, \
     looking through its errors; SELECT timescaledb_post_restore() and ANALYZE in each database. The volume of the same run needs none of this";

/// See [`super::Preset::dump`].
pub(super) fn dump(application: Application, container: &ContainerDetail) -> Plan {
    let step = Step::tool(
        "dump all databases",
        // With these two, the script also goes into a new server that has made the role and the database it was told to.
        args(&["--clean", "--if-exists", "--no-password", "--lock-wait-timeout=300000"]),
    );
    plan(application, container, &["pg_dumpall"], step.dumps())
}

/// See [`super::Preset::restore`].
pub(super) fn restore(container: &ContainerDetail) -> Plan {
    // The script begins with the roles, the server's first one included. That one exists in every new server and can neither
    // be dropped nor made, so that no script of pg_dumpall would go through with ON_ERROR_STOP.
    let step = Step::tool("run the dump", psql(&["--quiet", "--output=/dev/null", "--file=-"])).reads_dump(true);
    plan(Application::Postgres, container, &["psql"], step)
}

/// See [`super::Preset::before_freeze`].
pub(super) fn checkpoint(application: Application, container: &ContainerDetail) -> Plan {
    let step = Step::tool("CHECKPOINT", psql(&["--command=CHECKPOINT"])).within(CHECKPOINT_TIME_MAX);
    plan(application, container, &["psql"], step)
}

fn psql(more: &[&str]) -> Vec<String> {
    args(&[&["--no-psqlrc", "--no-password", "--set=ON_ERROR_STOP=1", "--dbname=postgres"][..], more].concat())
}

fn plan(application: Application, container: &ContainerDetail, names: &'static [&'static str], step: Step) -> Plan {
    let as_root = matches!(container.user.split(':').next(), Some("" | "0" | "root"));
    let users = if as_root { SERVER_USER } else { OWN_USER };
    Plan {
        application,
        tool: Tool { names, version: &["--version"], users },
        env: credentials(container),
        steps: vec![step],
        trailer: Trailer::PostgresCluster,
    }
}

/// The superuser that the image was told to make, or Bitnami's.
fn credentials(container: &ContainerDetail) -> Vec<(&'static str, Secret)> {
    let bitnami = Secret::of_env(container, &["POSTGRESQL_POSTGRES_PASSWORD"]);
    let (user, password) = match bitnami {
        Some(password) => (None, Some(password)),
        None => (
            Secret::of_env(container, &["POSTGRES_USER", "POSTGRESQL_USERNAME"]),
            Secret::of_env(container, &["POSTGRES_PASSWORD", "POSTGRESQL_PASSWORD"]),
        ),
    };
    let mut env = vec![("PGUSER", user.unwrap_or_else(|| Secret::value("postgres"))), ("PGAPPNAME", Secret::value("icecore"))];
    env.extend(password.map(|password| ("PGPASSWORD", password)));
    env
}

/// Whether `ends` are those of a whole dump.
pub(super) fn judge(ends: &Ends<'_>) -> Verdict {
    if ends.tail.trim_ascii_end().ends_with(TRAILER) {
        return Ok(0);
    }
    Err("it does not end with `-- PostgreSQL database cluster dump complete`".into())
}
