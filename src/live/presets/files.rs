//! Files in a restored volume that belong to the processes of then, and are in the way of those of now.

use super::Application;

/// A file that has to go after its volume was restored and before the application starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StaleFile {
    /// Its name. One `*` stands for any text.
    pub name: &'static str,
    /// A name that has to be in the same folder, so that nothing else goes; a `*` stands for the same text.
    pub beside: &'static str,
    /// Why.
    pub why: &'static str,
}

const POSTGRES: &[StaleFile] = &[StaleFile {
    name: "postmaster.pid",
    beside: "PG_VERSION",
    why: "it names a process of then, and the server may take it for one of now",
}];

const REDIS: &[StaleFile] = &[
    StaleFile { name: "temp-*.rdb", beside: "dump.rdb", why: "a snapshot that was being written; nothing reads it" },
    StaleFile { name: "temp-*.rdb", beside: "appendonlydir", why: "a snapshot that was being written; nothing reads it" },
];

// Never `*-wal` or `*-journal`: in a frozen copy they are a part of the data.
const SQLITE: &[StaleFile] =
    &[StaleFile { name: "*-shm", beside: "*", why: "shared memory of then; it is made anew from the write-ahead log" }];

/// The files of `application` that have to go from a restored volume. None for those that put up with what they find.
pub fn stale_files(application: Application) -> &'static [StaleFile] {
    match application {
        Application::Postgres | Application::Timescale => POSTGRES,
        Application::Redis => REDIS,
        Application::Sqlite => SQLITE,
        Application::MySql | Application::MongoDb | Application::Vault | Application::Etcd => &[],
    }
}

impl StaleFile {
    /// Whether `name`, in a folder with the names `all`, is meant.
    pub fn is(&self, name: &[u8], all: &[&[u8]]) -> bool {
        let (before, after) = self.name.split_once('*').unwrap_or((self.name, ""));
        let varied = if self.name.contains('*') {
            name.strip_prefix(before.as_bytes()).and_then(|rest| rest.strip_suffix(after.as_bytes()))
        } else {
            (name == self.name.as_bytes()).then_some(&b""[..])
        };
        let Some(varied) = varied else { return false };
        let beside = match self.beside.split_once('*') {
            Some((before, after)) => [before.as_bytes(), varied, after.as_bytes()].concat(),
            None => self.beside.as_bytes().to_vec(),
        };
        !beside.is_empty() && all.contains(&beside.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stale(application: Application, all: &[&str]) -> Vec<String> {
        let names: Vec<&[u8]> = all.iter().map(|name| name.as_bytes()).collect();
        let is_stale = |name: &&&str| stale_files(application).iter().any(|file| file.is(name.as_bytes(), &names));
        all.iter().filter(is_stale).map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_known_files_beside_their_data_go() {
        assert_eq!(stale(Application::Postgres, &["PG_VERSION", "postmaster.pid", "postmaster.opts"]), ["postmaster.pid"]);
        assert!(stale(Application::Postgres, &["postmaster.pid"]).is_empty(), "not a data folder");
        assert_eq!(stale(Application::Redis, &["dump.rdb", "temp-17.rdb", "my-temp-1.rdb"]), ["temp-17.rdb"]);
        assert_eq!(stale(Application::Sqlite, &["a.db", "a.db-wal", "a.db-shm", "b-shm", "-shm"]), ["a.db-shm"]);
        assert!(stale(Application::MySql, &["ibdata1", "ib_logfile0", "mysqld.pid"]).is_empty());
    }
}
