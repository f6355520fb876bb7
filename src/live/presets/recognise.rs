//! Which application a container or volume holds, told by its image, its environment and its files. Names are compared whole,
//! never by what they contain: `postgres-exporter`, `redis-commander` and `mongo-express` are not what they talk to.

use std::collections::BTreeMap;

use super::Application;

/// The longest image name that is looked at, in bytes; the engine takes no longer ones.
const IMAGE_BYTES_MAX: usize = 4096;

/// What SQLite writes at the start of a database file.
pub const SQLITE_HEADER: &[u8; 16] = b"SQLite format 3\0";

/// Names of images, without registry, namespace, tag and digest.
const IMAGES: &[(Application, &[&str])] = &[
    (
        Application::Postgres,
        &["postgres", "postgresql", "postgis", "pgvector", "pgautoupgrade", "alpine-postgres", "pgvecto-rs", "vchord-postgres", "paradedb"],
    ),
    (Application::Timescale, &["timescaledb", "timescaledb-ha", "timescaledb-postgis"]),
    (
        Application::MySql,
        &["mysql", "mysql-server", "mariadb", "mariadb-galera", "alpine-mariadb", "percona", "percona-server", "percona-xtradb-cluster"],
    ),
    (Application::MongoDb, &["mongo", "mongodb", "mongodb-community-server", "mongodb-enterprise-server", "percona-server-mongodb"]),
    (Application::Redis, &["redis", "valkey", "keydb", "redis-stack", "redis-stack-server", "valkey-bundle"]),
    (Application::Vault, &["vault", "vault-enterprise", "openbao", "openbao-ubi"]),
    (Application::Etcd, &["etcd"]),
];

/// Variables that the official images of servers set, and that images built from them under other names inherit.
const VARIABLES: &[(Application, &[&str])] = &[
    (Application::Postgres, &["PG_MAJOR", "PGDATA"]),
    (Application::MySql, &["MYSQL_MAJOR", "MYSQL_VERSION"]),
    (Application::MySql, &["MARIADB_VERSION"]),
    (Application::MongoDb, &["MONGO_MAJOR", "MONGO_VERSION"]),
    (Application::Redis, &["REDIS_VERSION", "REDIS_DOWNLOAD_URL"]),
    (Application::Redis, &["VALKEY_VERSION", "VALKEY_DOWNLOAD_URL"]),
];

/// Words in an image's name that say that it works *on* a server and is none, though it may be built from the server's image.
const CLIENT_WORDS: &[&str] = &[
    "admin",
    "backup",
    "backups",
    "client",
    "commander",
    "cron",
    "dump",
    "exporter",
    "express",
    "init",
    "insight",
    "migrate",
    "migration",
    "migrations",
    "operator",
    "proxy",
    "restore",
    "sentinel",
    "tools",
    "ui",
    "web",
];

/// Files that tell what wrote them, as paths of whole names: all of a row have to be in one folder.
const FILES: &[(Application, &[&str])] = &[
    (Application::Postgres, &["PG_VERSION"]),
    (Application::MySql, &["ibdata1"]),
    (Application::MongoDb, &["WiredTiger"]),
    (Application::Redis, &["dump.rdb"]),
    (Application::Redis, &["appendonlydir"]),
    (Application::Vault, &["vault.db", "raft"]),
    (Application::Etcd, &["member/wal"]),
];

/// What is known of a container or a volume; what is not known stays empty.
#[derive(Clone, Copy, Default)]
pub struct Clues<'a> {
    /// The image's name as the container was created with.
    pub image: &'a str,
    /// The container's labels; those of its image are among them.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// The container's environment.
    pub env: &'a [(String, String)],
    /// Paths in the volume, relative to its root: the names at the root, and below it as deep as the caller looked.
    pub paths: &'a [&'a [u8]],
    /// How regular files in the volume begin: at least the first 16 bytes each.
    pub headers: &'a [&'a [u8]],
}

/// The application that the clues point to: the image first, as it decides which programs there are to run, then the
/// environment, then the files.
pub fn recognise(clues: &Clues<'_>) -> Option<Application> {
    let by_image = by_image(clues.image).or_else(|| {
        let title = clues.labels?.get("org.opencontainers.image.title")?;
        by_name(&title.to_ascii_lowercase())
    });
    let by_env = || if is_client(clues.image) { None } else { by_variables(clues.env) };
    by_image.or_else(by_env).or_else(|| by_files(clues.paths)).or_else(|| by_headers(clues.headers))
}

/// By an image's name, such as `docker.io/library/postgres:16-alpine@sha256:...`.
fn by_image(image: &str) -> Option<Application> {
    by_name(base_name(image))
}

/// The last part of an image's name, without tag and digest.
fn base_name(image: &str) -> &str {
    if image.len() > IMAGE_BYTES_MAX {
        return "";
    }
    let name = image.split('@').next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default();
    name.split(':').next().unwrap_or_default()
}

fn by_name(name: &str) -> Option<Application> {
    IMAGES.iter().find(|(_, names)| names.contains(&name)).map(|(application, _)| *application)
}

fn is_client(image: &str) -> bool {
    base_name(image).split(['-', '_', '.']).any(|word| CLIENT_WORDS.contains(&word))
}

fn by_variables(env: &[(String, String)]) -> Option<Application> {
    let is_set = |name: &&str| env.iter().any(|(key, _)| key == name);
    VARIABLES.iter().find(|(_, names)| names.iter().all(is_set)).map(|(application, _)| *application)
}

fn by_files(paths: &[&[u8]]) -> Option<Application> {
    FILES.iter().find(|(_, marks)| is_in_one_folder(paths, marks)).map(|(application, _)| *application)
}

/// Whether some folder has all of `marks`.
fn is_in_one_folder(paths: &[&[u8]], marks: &[&str]) -> bool {
    let Some((first, rest)) = marks.split_first() else { return false };
    paths
        .iter()
        .filter_map(|path| folder_of(path, first))
        .any(|folder| rest.iter().all(|mark| paths.iter().any(|path| folder_of(path, mark) == Some(folder))))
}

/// The folder, with its `/`, in which `path` is `mark`.
fn folder_of<'a>(path: &'a [u8], mark: &str) -> Option<&'a [u8]> {
    path.strip_suffix(mark.as_bytes()).filter(|folder| folder.is_empty() || folder.ends_with(b"/"))
}

fn by_headers(headers: &[&[u8]]) -> Option<Application> {
    headers.iter().any(|header| header.starts_with(SQLITE_HEADER)).then_some(Application::Sqlite)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn of_image(image: &str) -> Option<Application> {
        recognise(&Clues { image, ..Clues::default() })
    }

    fn pairs(names: &[&str]) -> Vec<(String, String)> {
        names.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect()
    }

    #[test]
    fn images_are_recognised_whatever_stands_around_their_name() {
        for (image, expected) in [
            ("postgres", Application::Postgres),
            ("postgres:16-alpine", Application::Postgres),
            ("docker.io/library/postgres:16@sha256:00ff", Application::Postgres),
            ("localhost:5000/postgres", Application::Postgres),
            ("registry.example.org:5000/team/db/postgres:1", Application::Postgres),
            ("ghcr.io/immich-app/postgres:14-vectorchord0.4.3", Application::Postgres),
            ("bitnami/postgresql:15", Application::Postgres),
            ("postgis/postgis", Application::Postgres),
            ("timescale/timescaledb:latest-pg16", Application::Timescale),
            ("timescale/timescaledb-ha:pg17", Application::Timescale),
            ("mysql:8.4", Application::MySql),
            ("lscr.io/linuxserver/mariadb", Application::MySql),
            ("percona/percona-server:8.0", Application::MySql),
            ("mongo:7", Application::MongoDb),
            ("mongodb/mongodb-community-server:7.0-ubi8", Application::MongoDb),
            ("percona/percona-server-mongodb", Application::MongoDb),
            ("redis:7-alpine", Application::Redis),
            ("valkey/valkey:8", Application::Redis),
            ("hashicorp/vault:1.17", Application::Vault),
            ("quay.io/openbao/openbao", Application::Vault),
            ("gcr.io/etcd-development/etcd:v3.5.9", Application::Etcd),
        ] {
            assert_eq!(of_image(image), Some(expected), "{image}");
        }
    }

    #[test]
    fn images_that_only_talk_to_an_application_are_not_it() {
        for image in [
            "my-postgres-exporter",
            "quay.io/prometheuscommunity/postgres-exporter:v0.15.0",
            "prodrigestivill/postgres-backup-local",
            "dpage/pgadmin4",
            "edoburu/pgbouncer",
            "postgrest/postgrest",
            "rediscommander/redis-commander",
            "redis/redisinsight",
            "oliver006/redis_exporter",
            "mongo-express",
            "prom/mysqld-exporter",
            "phpmyadmin/phpmyadmin",
            "vaultwarden/server",
            "hashicorp/vault-k8s",
            "etcd/tools",
            "postgres/app",
            "postgres:5000/app:redis",
            "app@sha256:redis",
            "",
            "/",
            ":@/",
            "sha256:3b1c5c9a",
        ] {
            assert_eq!(of_image(image), None, "{image}");
        }
        assert_eq!(of_image(&format!("{}/redis", "a".repeat(IMAGE_BYTES_MAX))), None);
    }

    #[test]
    fn an_image_built_from_an_official_one_is_recognised_by_what_it_inherits() {
        let env = pairs(&["PATH", "PG_MAJOR", "PGDATA"]);
        let recognised = |image| recognise(&Clues { image, env: &env, ..Clues::default() });
        assert_eq!(recognised("registry.example.org/our-db"), Some(Application::Postgres));
        assert_eq!(recognised("sha256:3b1c5c9a"), Some(Application::Postgres));
        assert_eq!(recognised("prodrigestivill/postgres-backup-local"), None, "built from the server's image, but not one");
        let env = pairs(&["PGDATA"]);
        assert_eq!(recognise(&Clues { image: "app", env: &env, ..Clues::default() }), None, "an application's own setting");
    }

    #[test]
    fn the_image_s_title_counts_when_it_is_a_name() {
        let titled = |title: &str| {
            let labels = BTreeMap::from([("org.opencontainers.image.title".to_owned(), title.to_owned())]);
            recognise(&Clues { image: "mirror/x1", labels: Some(&labels), ..Clues::default() })
        };
        assert_eq!(titled("PostgreSQL"), Some(Application::Postgres));
        assert_eq!(titled("PostgreSQL exporter"), None);
    }

    #[test]
    fn files_tell_the_application() {
        let files = |paths: &[&str]| {
            let paths: Vec<&[u8]> = paths.iter().map(|path| path.as_bytes()).collect();
            recognise(&Clues { paths: &paths, ..Clues::default() })
        };
        assert_eq!(files(&["base", "global", "PG_VERSION"]), Some(Application::Postgres));
        assert_eq!(files(&["18/docker/PG_VERSION"]), Some(Application::Postgres));
        assert_eq!(files(&["ib_logfile0", "ibdata1"]), Some(Application::MySql));
        assert_eq!(files(&["WiredTiger", "WiredTiger.wt"]), Some(Application::MongoDb));
        assert_eq!(files(&["dump.rdb"]), Some(Application::Redis));
        assert_eq!(files(&["appendonlydir"]), Some(Application::Redis));
        assert_eq!(files(&["raft", "vault.db"]), Some(Application::Vault));
        assert_eq!(files(&["member/snap", "member/wal"]), Some(Application::Etcd));
        for other in [
            &["my_PG_VERSION"][..],
            &["PG_VERSION.bak"],
            &["old-dump.rdb"],
            &["vault.db"],
            &["a/vault.db", "b/raft"],
            &["member"],
            &["remember/wal"],
            &[],
        ] {
            assert_eq!(files(other), None, "{other:?}");
        }
    }

    #[test]
    fn sqlite_is_told_by_its_header_and_an_image_outweighs_files() {
        let header = b"SQLite format 3\0\x10\x00";
        assert_eq!(recognise(&Clues { headers: &[b"", &header[..]], ..Clues::default() }), Some(Application::Sqlite));
        assert_eq!(recognise(&Clues { headers: &[b"SQLite format 3"], ..Clues::default() }), None);
        let clues = Clues { image: "redis", paths: &[b"PG_VERSION"], headers: &[&header[..]], ..Clues::default() };
        assert_eq!(recognise(&clues), Some(Application::Redis));
    }
}
