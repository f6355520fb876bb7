//! The configuration file: defaults for options, in TOML. An option is taken from the command line, else from its variable
//! of the environment, else from this file, else it is the built-in one. What the file says and this program does not know
//! is an error: a misspelt rule that is silently ignored would be found when a snapshot is missing.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Command, Globals, open, secret};
#[cfg(feature = "testing")]
use crate::error::Error;
use crate::error::Result;
use crate::live::rules::Rules;

mod file;
mod policy;
mod section;

use file::{default_file, exists, load};
use section::{Origin, Section, nothing_unknown};

/// The keys that say where the secret is. They exclude each other, as their flags do.
const SECRET_KEYS: [&str; 3] = ["password_file", "password_command", "key_file"];

/// Defaults for the options of `icecore snapshot`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SnapshotDefaults {
    pub(super) tags: Vec<String>,
    pub(super) compression: Option<i32>,
    pub(super) one_file_system: Option<bool>,
}

/// Defaults for the policy of `icecore forget`. Every number is at least 1, and `keep_within` is an age.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ForgetDefaults {
    pub(super) keep_last: Option<u32>,
    pub(super) keep_within: Option<String>,
    pub(super) keep_minutely: Option<u32>,
    pub(super) keep_hourly: Option<u32>,
    pub(super) keep_daily: Option<u32>,
    pub(super) keep_weekly: Option<u32>,
    pub(super) keep_monthly: Option<u32>,
    pub(super) keep_yearly: Option<u32>,
    pub(super) keep_tags: Vec<String>,
}

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Settings {
    repository: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    index_memory: Option<u32>,
    secret: secret::Flags,
    docker_host: Option<String>,
    snapshot: SnapshotDefaults,
    forget: ForgetDefaults,
    rules: Rules,
}

/// What a file says that no option does, and which file it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Applied {
    /// The file, if one is in use.
    pub(super) file: Option<PathBuf>,
    /// The rules about volumes.
    pub(super) rules: Rules,
}

/// Fills in what the command line and the environment leave open, from the file that `--config` or `ICECORE_CONFIG` names,
/// which must exist, or the default one, which need not.
pub(super) fn apply(globals: &mut Globals, command: &mut Command, environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Applied> {
    if matches!(command, Command::Completions(_) | Command::Man(_)) {
        return Ok(Applied::default());
    }
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    let named = globals.config.clone().or_else(|| set("ICECORE_CONFIG").map(PathBuf::from));
    let Some(path) = named.or_else(|| default_file().filter(|path| exists(path))) else {
        return Ok(Applied::default());
    };
    let settings = load(&path)?;

    if set("ICECORE_REPO").is_none() {
        globals.repo = globals.repo.take().or(settings.repository.map(PathBuf::into_os_string));
    }
    if set("ICECORE_STATE_DIR").is_none() {
        globals.state_dir = globals.state_dir.take().or(settings.state_dir);
    }
    if set("ICECORE_INDEX_MEMORY").is_none() {
        globals.index_memory = globals.index_memory.or(settings.index_memory);
    }
    if set("DOCKER_HOST").is_none() {
        globals.docker_host = globals.docker_host.take().or(settings.docker_host);
    }
    // One secret, not one of each sort: a key file of this file must not push aside a passphrase of the environment.
    if secret::place(&open::flags(globals), environment).is_none() {
        globals.password_file = settings.secret.password_file;
        globals.password_command = settings.secret.password_command;
        globals.key_file = settings.secret.key_file;
    }
    match command {
        Command::Snapshot(args) => args.fill(settings.snapshot),
        Command::Forget(args) => args.fill(settings.forget),
        _ => {}
    }
    Ok(Applied { file: Some(path), rules: settings.rules })
}

/// Reads `text`, which is the content of `path`, and says what is wrong with it; for fuzz targets.
#[cfg(feature = "testing")]
pub(super) fn problem(text: &str) -> Option<Error> {
    parse(Path::new("icecore.toml"), text).err()
}

/// Reads `text`, which is the content of `path`.
fn parse(path: &Path, text: &str) -> Result<Settings> {
    let origin = Origin { path, text };
    let mut top = Section::top(&origin)?;
    only_one_secret(&top)?;
    let mut snapshot = top.section("snapshot")?;
    let mut forget = top.section("forget")?;
    let mut sections = Vec::new();
    let rules = policy::rules(&mut top, &mut sections)?;
    let settings = Settings {
        rules,
        repository: top.location("repository")?,
        state_dir: top.path("state_dir")?,
        index_memory: top.number("index_memory", open::INDEX_MEMORY_MIB)?,
        secret: secret::Flags {
            password_file: top.path("password_file")?,
            password_command: top.text("password_command")?,
            key_file: top.path("key_file")?,
        },
        docker_host: top.text("docker_host")?,
        snapshot: SnapshotDefaults {
            tags: snapshot.words("tags")?,
            compression: snapshot.number("compression", 1..=19)?,
            one_file_system: snapshot.flag("one_file_system")?,
        },
        forget: ForgetDefaults {
            keep_last: forget.number("keep_last", 1..=u32::MAX)?,
            keep_within: forget.age("keep_within")?,
            keep_minutely: forget.number("keep_minutely", 1..=u32::MAX)?,
            keep_hourly: forget.number("keep_hourly", 1..=u32::MAX)?,
            keep_daily: forget.number("keep_daily", 1..=u32::MAX)?,
            keep_weekly: forget.number("keep_weekly", 1..=u32::MAX)?,
            keep_monthly: forget.number("keep_monthly", 1..=u32::MAX)?,
            keep_yearly: forget.number("keep_yearly", 1..=u32::MAX)?,
            keep_tags: forget.words("keep_tags")?,
        },
    };
    sections.extend([top, snapshot, forget]);
    nothing_unknown(&sections)?;
    Ok(settings)
}

fn only_one_secret(top: &Section) -> Result<()> {
    let mut named: Vec<(usize, &str)> =
        SECRET_KEYS.iter().filter_map(|&key| top.table.get_key_value(key).map(|(name, _)| (name.span().start, key))).collect();
    named.sort_unstable();
    match named[..] {
        [(_, first), (at, second), ..] => {
            Err(top.origin.error(at, format!("`{first}` and `{second}` exclude each other")).hint("keep the one that opens the repository"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use clap::Parser;

    use super::super::Cli;
    use super::*;
    use crate::error::ErrorKind;

    const FULL: &str = r#"
repository = "repo"
state_dir = "/var/state"
index_memory = 128
key_file = "../key"
docker_host = "unix:///run/other.sock"

[snapshot]
tags = ["nightly", "host-a"]
compression = 0x0a
one_file_system = true

[forget]
keep_last = 3
keep_within = "2d"
keep_minutely = 4
keep_hourly = 5
keep_daily = 6
keep_weekly = 7
keep_monthly = 8
keep_yearly = 1_000
keep_tags = [
    "keep",
]
"#;

    fn read(text: &str) -> Result<Settings> {
        parse(Path::new("/etc/x/icecore.toml"), text)
    }

    fn command_line(line: &str) -> Cli {
        Cli::parse_from(std::iter::once("icecore").chain(line.split_whitespace()))
    }

    /// What a command line and an environment become beside a file.
    fn applied(line: &str, environment: &[(&str, &str)], file: &Path) -> Result<Cli> {
        let mut cli = command_line(line);
        let variable = |name: &str| match name {
            "ICECORE_CONFIG" => Some(file.into()),
            _ => environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()),
        };
        let used = apply(&mut cli.globals, &mut cli.command, &variable)?;
        assert_eq!(used.file.as_deref(), Some(cli.globals.config.as_deref().unwrap_or(file)));
        Ok(cli)
    }

    pub(super) fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("icecore.toml");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        (dir, path)
    }

    #[test]
    fn every_key_is_read() {
        let expected = Settings {
            repository: Some("/etc/x/repo".into()),
            state_dir: Some("/var/state".into()),
            index_memory: Some(128),
            secret: secret::Flags { key_file: Some("/etc/x/../key".into()), ..secret::Flags::default() },
            docker_host: Some("unix:///run/other.sock".into()),
            snapshot: SnapshotDefaults {
                tags: vec!["nightly".into(), "host-a".into()],
                compression: Some(10),
                one_file_system: Some(true),
            },
            rules: Rules::default(),
            forget: ForgetDefaults {
                keep_last: Some(3),
                keep_within: Some("2d".into()),
                keep_minutely: Some(4),
                keep_hourly: Some(5),
                keep_daily: Some(6),
                keep_weekly: Some(7),
                keep_monthly: Some(8),
                keep_yearly: Some(1000),
                keep_tags: vec!["keep".into()],
            },
        };
        assert_eq!(read(FULL).unwrap(), expected);
        let secret = |text: &str| read(text).unwrap().secret;
        assert_eq!(secret("password_file = 'p'").password_file, Some("/etc/x/p".into()));
        assert_eq!(secret("password_command = 'pass a'").password_command, Some("pass a".into()));
        for empty in ["", "# nothing\n", "[snapshot]\n[forget]\n"] {
            assert_eq!(read(empty).unwrap(), Settings::default());
        }
        // A URL is no path of the file's folder, whether this version can open it or not.
        assert_eq!(read("repository = 's3://bucket/x'").unwrap().repository, Some("s3://bucket/x".into()));
    }

    #[test]
    fn what_the_file_gets_wrong_is_named_with_its_line() {
        for (text, line, word) in [
            ("repository = 3", 1, "`repository`"),
            ("\nrepository = ''", 2, "`repository`"),
            ("state_dir = '~/state'", 1, "`state_dir`"),
            ("key_file = '~'", 1, "`key_file`"),
            ("docker_host = true", 1, "`docker_host`"),
            ("password_command = ['pass']", 1, "`password_command`"),
            ("\n\nsnapshot = 3", 3, "`snapshot`"),
            ("[[forget]]\nkeep_last = 1", 1, "`forget`"),
            ("index_memory = 15", 1, "from 16 to 1048576"),
            ("index_memory = '96'", 1, "`index_memory`"),
            ("[snapshot]\ncompression = 20", 2, "from 1 to 19"),
            ("[snapshot]\ncompression = '3'", 2, "`compression`"),
            ("[snapshot]\none_file_system = 'yes'", 2, "`one_file_system`"),
            ("[snapshot]\ntags = 'x'", 2, "`tags`"),
            ("[snapshot]\ntags = [\n'x',\n3]", 2, "`tags`"),
            ("[forget]\nkeep_last = 0", 2, "`keep_last`"),
            ("[forget]\nkeep_daily = 4294967296", 2, "`keep_daily`"),
            ("[forget]\nkeep_daily = 99999999999999999999", 2, "`keep_daily`"),
            ("[forget]\nkeep_within = 'soon'", 2, "`keep_within`"),
            ("[forget]\nkeep_within = 2", 2, "`keep_within`"),
            ("\nkey_file = 'a'\npassword_file = 'b'", 3, "exclude each other"),
            ("state_dir = '/a'\nstate_dir = '/b'", 2, "not TOML"),
            ("state_dir = '/a'\n\nstate_dir", 3, "not TOML"),
            ("\n\ncolour = 'red'", 3, "`colour`"),
            ("[forget]\nkeep_last = 1\nkeep_dayly = 1\n", 3, "`keep_dayly` in [forget]"),
            ("[forget]\nzebra = 1\n[snapshot]\naardvark = 1\n", 2, "`zebra`"),
        ] {
            let error = read(text).unwrap_err();
            let said = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Usage, "{text}");
            assert!(said.contains(&format!("/etc/x/icecore.toml, line {line}")), "{text}: {said}");
            assert!(said.contains(word), "{text}: {said}");
        }
    }

    #[test]
    fn the_key_that_was_meant_is_named() {
        let hint = |text: &str| read(text).unwrap_err().advice().unwrap_or_default().to_owned();
        assert_eq!(hint("[forget]\nkeep_dayly = 1"), "did you mean `keep_daily`?");
        assert_eq!(hint("[forget]\nkeep-last = 1"), "did you mean `keep_last`?");
        assert_eq!(hint("[forget]\nkeep_tag = ['x']"), "did you mean `keep_tags`?");
        assert_eq!(hint("[Snapshots]\n"), "did you mean `snapshot`?");
        assert_eq!(hint("repo = '/x'"), "did you mean `repository`?");
        assert_eq!(hint("keep_last = 1"), "`keep_last` belongs below [forget]");
        assert_eq!(hint("[snapshot]\nstate_dir = '/x'"), "`state_dir` belongs before the first [section]");
        assert_eq!(hint("[snapshot]\ncolour = 1"), "known are tags, compression, one_file_system");
    }

    #[test]
    fn a_flag_beats_the_environment_beats_the_file() {
        let (_dir, path) = file("repository = '/c/repo'\nstate_dir = '/c/state'\ndocker_host = '/c/sock'");
        let all = [("ICECORE_REPO", "/e/repo"), ("ICECORE_STATE_DIR", "/e/state"), ("DOCKER_HOST", "/e/sock")];
        let of = |line: &str, environment: &[(&str, &str)]| {
            let globals = applied(line, environment, &path).unwrap().globals;
            (globals.repo, globals.state_dir, globals.docker_host)
        };
        assert_eq!(of("stats", &[]), (Some("/c/repo".into()), Some("/c/state".into()), Some("/c/sock".into())));
        // What is in the environment is read from there later, where there is no flag.
        assert_eq!(of("stats", &all), (None, None, None));
        assert_eq!(of("stats", &[("ICECORE_REPO", "")]).0, Some("/c/repo".into()), "empty is not set");
        let flags = "stats --repo /f/repo --state-dir /f/state --docker-host /f/sock";
        for environment in [&all[..], &[]] {
            assert_eq!(of(flags, environment), (Some("/f/repo".into()), Some("/f/state".into()), Some("/f/sock".into())));
        }
    }

    #[test]
    fn the_index_s_memory_comes_from_flag_environment_or_file() {
        let (_dir, path) = file("index_memory = 200");
        let of = |line: &str, environment: &[(&str, &str)]| applied(line, environment, &path).unwrap().globals.index_memory;
        assert_eq!(of("stats", &[]), Some(200));
        assert_eq!(of("stats", &[("ICECORE_INDEX_MEMORY", "300")]), None, "it is read from there later");
        assert_eq!(of("stats --index-memory 400", &[("ICECORE_INDEX_MEMORY", "300")]), Some(400));
    }

    #[test]
    fn one_secret_is_taken_and_from_one_place() {
        let (_dir, path) = file("password_file = '/c/password'");
        let place = |line: &str, environment: &[(&str, &str)]| {
            let globals = applied(line, environment, &path).unwrap().globals;
            secret::place(&open::flags(&globals), &|name| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
        };
        assert_eq!(place("stats", &[]), Some(secret::Place::PassphraseFile("/c/password".into())));
        assert_eq!(place("stats --key-file /f/key", &[]), Some(secret::Place::KeyFile("/f/key".into())));
        assert_eq!(place("stats", &[("ICECORE_KEY_FILE", "/e/key")]), Some(secret::Place::KeyFile("/e/key".into())));
        assert!(matches!(place("stats", &[("ICECORE_PASSWORD", "p")]), Some(secret::Place::Passphrase(_))));
    }

    #[test]
    fn verbs_take_what_their_flags_leave_open() {
        let (_dir, path) = file(FULL);
        let of = |line: &str| format!("{:?}", applied(line, &[], &path).unwrap().command);
        let plain = |line: &str| format!("{:?}", command_line(line).command);
        let rules = |last: u32| {
            format!(
                "--keep-last {last} --keep-within 2d --keep-minutely 4 --keep-hourly 5 --keep-daily 6 --keep-weekly 7 \
                 --keep-monthly 8 --keep-yearly 1000"
            )
        };
        assert_eq!(of("snapshot a"), plain("snapshot a --tag nightly --tag host-a --compression 10 --one-file-system"));
        let flags = "snapshot a --tag x --compression 19 --one-file-system=false";
        assert_eq!(of(flags), plain(flags));
        assert_eq!(of("forget"), plain(&format!("forget --keep-tag keep {}", rules(3))));
        assert_eq!(of("forget a --keep-last 1 --keep-tag x"), plain(&format!("forget a --keep-tag x {}", rules(1))));
        assert_eq!(of("forget abcd abce --yes"), plain("forget abcd abce --yes"), "snapshots that are named are meant");
    }

    #[test]
    fn a_named_file_must_be_there_and_the_flag_names_it_first() {
        let (dir, path) = file("repository = '/c/repo'");
        let other = dir.path().join("other.toml");
        std::fs::write(&other, "repository = 'beside'").unwrap();
        let named = applied(&format!("stats --config {}", other.display()), &[], &path).unwrap();
        assert_eq!(named.globals.repo, Some(dir.path().join("beside").into_os_string()));
        for missing in [dir.path().join("absent.toml"), dir.path().to_owned(), path.join("below-a-file")] {
            assert_eq!(applied("stats", &[], &missing).map(|_| ()).unwrap_err().kind(), ErrorKind::Usage);
            assert_eq!(exists(&missing), missing == dir.path());
        }
        assert!(exists(&path));
        assert_eq!(applied("stats", &[], Path::new("/dev/null")).unwrap().globals.repo, None);
        // What never opens a repository works beside any file.
        let mut cli = command_line("completions bash --config /absent");
        assert_eq!(apply(&mut cli.globals, &mut cli.command, &|_| None).unwrap(), Applied::default());
    }
}
