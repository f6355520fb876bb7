//! What is known of the applications that people keep in volumes: how to recognise one, how to have it dump itself, what
//! shortens its recovery from a frozen copy, and how a dump goes back. One file for each application; the commands that they
//! name run in the application's own container, as lists of arguments without a shell, with its own credentials.
//!
//! Presets are plans, that is data; [`run`] carries them out.

mod etcd;
mod files;
mod mongodb;
mod mysql;
pub mod plan;
mod postgres;
pub mod recognise;
mod redis;
pub mod run;
mod secret;
mod skip;
mod sqlite;
mod stream;
mod tool;
mod vault;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::print_stderr)]
mod real_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

pub use files::{StaleFile, stale_files};
pub use plan::{Placement, Plan, Restore};
pub use recognise::{Clues, recognise};
pub use run::{DumpReport, RestoreReport, before_freeze, pipe_back, take, token};
pub use secret::Secret;
pub use stream::Sink;

use crate::docker::ContainerDetail;
use crate::error::{Error, ErrorKind, Result};
use crate::model::path::escape;

/// An application that there is a preset for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Application {
    /// PostgreSQL.
    Postgres,
    /// PostgreSQL with TimescaleDB, whose dumps go back in steps of their own.
    Timescale,
    /// MySQL, MariaDB, Percona Server.
    MySql,
    /// MongoDB.
    MongoDb,
    /// Redis, Valkey, KeyDB.
    Redis,
    /// A database file of SQLite in any application.
    Sqlite,
    /// Vault, OpenBao.
    Vault,
    /// etcd.
    Etcd,
}

/// The names that [`Application::parse`] takes; of several for one application the first is [`Application::name`].
const NAMES: &[(&str, Application)] = &[
    ("postgres", Application::Postgres),
    ("postgresql", Application::Postgres),
    ("timescaledb", Application::Timescale),
    ("mysql", Application::MySql),
    ("mariadb", Application::MySql),
    ("mongodb", Application::MongoDb),
    ("mongo", Application::MongoDb),
    ("redis", Application::Redis),
    ("valkey", Application::Redis),
    ("sqlite", Application::Sqlite),
    ("vault", Application::Vault),
    ("openbao", Application::Vault),
    ("etcd", Application::Etcd),
];

impl Application {
    /// The preset's name, as it is asked for and recorded.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, application)| *application == self).map_or("", |(name, _)| name)
    }

    /// The application of a preset's name.
    pub fn parse(name: &str) -> Option<Self> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, application)| *application)
    }

    /// The name of the file that a dump is kept as.
    pub fn dump_file(self) -> &'static str {
        match self {
            Self::Postgres | Self::Timescale | Self::MySql => "dump.sql",
            Self::MongoDb => "dump.archive",
            Self::Redis => "dump.rdb",
            Self::Sqlite => "backup.db",
            Self::Vault => "vault.snap",
            Self::Etcd => "etcd.db",
        }
    }
}

/// A preset as it is asked for: an application and, for SQLite, the database file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Preset {
    /// The application.
    pub application: Application,
    /// SQLite's database file: its absolute path in the container.
    pub path: Option<String>,
}

impl Preset {
    /// Reads `postgres`, `mariadb`, `sqlite:/data/app.db`.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str, hint: String| Err(Error::new(ErrorKind::Usage, why).on(escape(text.as_bytes())).hint(hint));
        let (name, path) = text.trim().split_once(':').map_or((text.trim(), None), |(name, path)| (name, Some(path)));
        let Some(application) = Application::parse(name) else {
            let names = NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            return bad("there is no such dump preset", format!("presets are: {names}"));
        };
        let hint = || "write the database's path in the container: sqlite:/data/app.db".to_owned();
        match (application, path) {
            (Application::Sqlite, Some(path)) if path.starts_with('/') && !path.contains('\0') => {
                Ok(Self { application, path: Some(path.to_owned()) })
            }
            (Application::Sqlite, _) => bad("the preset for SQLite needs the absolute path of a database", hint()),
            (_, Some(_)) => bad("only the preset for SQLite takes a path", format!("write {name}")),
            (_, None) => Ok(Self { application, path: None }),
        }
    }

    /// How the application in `container` dumps itself. `token` names the folder for what has to be a file before it can be
    /// streamed: letters and digits that nobody can guess, other ones each time.
    pub fn dump(&self, container: &ContainerDetail, token: &str) -> Result<Plan> {
        check_token(token)?;
        Ok(match self.application {
            Application::Postgres | Application::Timescale => postgres::dump(self.application, container),
            Application::MySql => mysql::dump(container)?,
            Application::MongoDb => mongodb::dump(container),
            Application::Redis => redis::dump(container),
            Application::Sqlite => sqlite::dump(self.database()?, container, token),
            Application::Vault => vault::dump(container),
            Application::Etcd => etcd::dump(container, token),
        })
    }

    /// How a dump goes back into the application in `container`. `variant` is what [`DumpReport::variant`] said when the dump
    /// was taken; `token` as for [`Preset::dump`].
    pub fn restore(&self, container: &ContainerDetail, variant: &str, token: &str) -> Result<Restore> {
        check_token(token)?;
        Ok(match self.application {
            Application::Postgres => Restore::Pipe(postgres::restore(container)),
            Application::Timescale => Restore::ByHand(postgres::TIMESCALE_BY_HAND),
            Application::MySql => Restore::Pipe(mysql::restore(container)?),
            Application::MongoDb => Restore::Pipe(mongodb::restore(container, variant, token)),
            Application::Redis => Restore::Place(redis::placement()),
            Application::Sqlite => Restore::Place(sqlite::placement(self.database()?)),
            Application::Vault => Restore::Pipe(vault::restore(container)),
            Application::Etcd => Restore::ByHand(etcd::BY_HAND),
        })
    }

    /// What is worth running right before the application in `container` is frozen, because it shortens the recovery from the
    /// copy. None for applications that gain nothing by it.
    pub fn before_freeze(&self, container: &ContainerDetail) -> Option<Plan> {
        match self.application {
            Application::Postgres | Application::Timescale => Some(postgres::checkpoint(self.application, container)),
            _ => None,
        }
    }

    fn database(&self) -> Result<&str> {
        self.path.as_deref().ok_or_else(|| Error::new(ErrorKind::Usage, "the preset for SQLite needs the path of a database").on("sqlite"))
    }
}

/// The token becomes part of a path in the container.
fn check_token(token: &str) -> Result<()> {
    if (16..=64).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Usage, "not a token for a folder's name").on(escape(token.as_bytes())))
}
