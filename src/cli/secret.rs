//! Where the passphrase or key file comes from: the command line before the environment before a question on the terminal.

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use super::render;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::seal::slot::{KEY_FILE_BYTES_MIN, Secret};

/// No passphrase is longer; a file that is was named by mistake.
const PASSPHRASE_BYTES_MAX: u64 = 64 << 10;
/// No key file is longer.
const KEY_FILE_BYTES_MAX: u64 = 1 << 20;

/// Where to look for a secret, most wanted first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A file that holds the passphrase.
    PassphraseFile(PathBuf),
    /// A command of the shell that prints the passphrase.
    PassphraseCommand(String),
    /// The passphrase itself.
    Passphrase(Zeroizing<Vec<u8>>),
    /// A key file.
    KeyFile(PathBuf),
}

/// What the command line said about the secret. At most one is given; the parser makes sure of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flags {
    /// `--password-file`
    pub(super) password_file: Option<PathBuf>,
    /// `--password-command`
    pub(super) password_command: Option<String>,
    /// `--key-file`
    pub(super) key_file: Option<PathBuf>,
}

/// Chooses the place: a flag beats the environment; there a key file beats a passphrase beats a passphrase file. An empty
/// variable counts as not set. None: ask.
pub(super) fn place(flags: &Flags, environment: &dyn Fn(&str) -> Option<OsString>) -> Option<Place> {
    let set = |name: &str| environment(name).filter(|value| !value.is_empty());
    let from_flags = (flags.password_file.clone().map(Place::PassphraseFile))
        .or_else(|| flags.password_command.clone().map(Place::PassphraseCommand))
        .or_else(|| flags.key_file.clone().map(Place::KeyFile));
    from_flags
        .or_else(|| set("ICECORE_KEY_FILE").map(|path| Place::KeyFile(path.into())))
        .or_else(|| set("ICECORE_PASSWORD").map(|text| Place::Passphrase(Zeroizing::new(text.into_vec()))))
        .or_else(|| set("ICECORE_PASSWORD_FILE").map(|path| Place::PassphraseFile(path.into())))
}

/// Fetches the secret from its place.
pub(super) fn fetch(place: &Place) -> Result<Secret> {
    match place {
        Place::PassphraseFile(path) => passphrase(read_bounded(path, PASSPHRASE_BYTES_MAX, "passphrase file")?, &render::path(path)),
        Place::PassphraseCommand(command) => passphrase(run(command)?, "--password-command"),
        Place::Passphrase(text) => passphrase(text.clone(), "ICECORE_PASSWORD"),
        Place::KeyFile(path) => {
            let bytes = read_bounded(path, KEY_FILE_BYTES_MAX, "key file")?;
            if bytes.len() < KEY_FILE_BYTES_MIN {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!("a key file has at least {KEY_FILE_BYTES_MIN} bytes, this one {}", bytes.len()),
                )
                .on(render::path(path))
                .hint("make one with: head -c 32 /dev/urandom > FILE; chmod 600 FILE"));
            }
            Ok(Secret::KeyFile(bytes))
        }
    }
}

/// Asks on the terminal, twice when the secret is a new one. An error says what else there is when nobody can be asked.
pub(super) fn ask(what: &str, twice: bool) -> Result<Secret> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::new(ErrorKind::Usage, format!("no {what} was given and there is no terminal to ask on"))
            .hint("use --password-file, --password-command, --key-file, ICECORE_PASSWORD or ICECORE_PASSWORD_FILE"));
    }
    let first = prompt(&format!("{what}: "))?;
    if twice && *first != *prompt(&format!("{what}, once more: "))? {
        return Err(Error::new(ErrorKind::Usage, "the two entries differ").hint("run the command again"));
    }
    passphrase(Zeroizing::new(first.as_bytes().to_vec()), "terminal")
}

fn prompt(question: &str) -> Result<Zeroizing<String>> {
    rpassword::prompt_password(question).map(Zeroizing::new).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::Interrupted => Error::new(ErrorKind::Interrupted, "interrupted"),
        _ => Error::new(ErrorKind::Usage, "cannot read from the terminal").because(cause),
    })
}

/// One trailing line end is not part of a passphrase, wherever it came from.
fn passphrase(mut bytes: Zeroizing<Vec<u8>>, from: &str) -> Result<Secret> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    if bytes.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "the passphrase is empty").on(from));
    }
    Ok(Secret::Passphrase(bytes))
}

fn read_bounded(path: &Path, bytes_max: u64, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    let cannot = |cause| Err(cause).context(ErrorKind::Usage, &format!("cannot read the {what}"), render::path(path));
    let file = match File::open(path) {
        Ok(file) => file,
        Err(cause) => return cannot(cause),
    };
    let mut bytes = Zeroizing::new(Vec::new());
    if let Err(cause) = file.take(bytes_max + 1).read_to_end(&mut bytes) {
        return cannot(cause);
    }
    if bytes.len() as u64 > bytes_max {
        return Err(Error::new(ErrorKind::Usage, format!("the {what} has more than {bytes_max} bytes")).on(render::path(path)));
    }
    Ok(bytes)
}

/// Runs `command` in a shell and takes the first line that it prints. It may talk to the terminal meanwhile.
fn run(command: &str) -> Result<Zeroizing<Vec<u8>>> {
    let failed = |why: String| Error::new(ErrorKind::Usage, format!("the command of --password-command {why}")).on(render::name(command));
    let mut child = Command::new("sh").arg("-c").arg(command).stdout(Stdio::piped()).spawn().context(
        ErrorKind::Usage,
        "cannot start the command of --password-command",
        render::name(command),
    )?;
    let mut output = Zeroizing::new(Vec::new());
    let read = match child.stdout.take() {
        Some(stdout) => stdout.take(PASSPHRASE_BYTES_MAX).read_to_end(&mut output),
        None => Ok(0),
    };
    let status = child.wait().context(ErrorKind::Usage, "cannot wait for the command of --password-command", render::name(command))?;
    read.context(ErrorKind::Usage, "cannot read what --password-command printed", render::name(command))?;
    if !status.success() {
        return Err(failed(format!("failed ({status})")));
    }
    if let Some(end) = output.iter().position(|&b| b == b'\n') {
        output.truncate(end + 1);
    }
    if output.is_empty() {
        return Err(failed("printed nothing".to_owned()));
    }
    Ok(output)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn place_of(flags: &Flags, environment: &[(&str, &str)]) -> Option<Place> {
        place(flags, &|name| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
    }

    fn text(secret: Result<Secret>) -> String {
        match secret.unwrap() {
            Secret::Passphrase(bytes) => String::from_utf8(bytes.to_vec()).unwrap(),
            Secret::KeyFile(_) => panic!("a key file"),
        }
    }

    fn kind(secret: Result<Secret>) -> ErrorKind {
        match secret {
            Ok(_) => panic!("a secret"),
            Err(error) => error.kind(),
        }
    }

    #[test]
    fn the_command_line_beats_the_environment_and_empty_is_not_set() {
        let all = [("ICECORE_KEY_FILE", "k"), ("ICECORE_PASSWORD", "p"), ("ICECORE_PASSWORD_FILE", "f")];
        let flags = Flags { password_file: Some("x".into()), ..Flags::default() };
        assert_eq!(place_of(&flags, &all), Some(Place::PassphraseFile("x".into())));
        let none = Flags::default();
        assert_eq!(place_of(&none, &all), Some(Place::KeyFile("k".into())));
        assert_eq!(place_of(&none, &all[1..]), Some(Place::Passphrase(Zeroizing::new(b"p".to_vec()))));
        assert_eq!(place_of(&none, &all[2..]), Some(Place::PassphraseFile("f".into())));
        assert_eq!(place_of(&none, &[("ICECORE_PASSWORD", ""), ("ICECORE_PASSWORD_FILE", "f")]), Some(Place::PassphraseFile("f".into())));
        assert_eq!(place_of(&none, &[]), None);
    }

    #[test]
    fn exactly_one_trailing_line_end_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        for (content, expected) in
            [("secret", "secret"), ("secret\n", "secret"), ("secret\r\n", "secret"), ("secret\n\n", "secret\n"), (" a b ", " a b ")]
        {
            let path = dir.path().join("password");
            std::fs::write(&path, content).unwrap();
            assert_eq!(text(fetch(&Place::PassphraseFile(path))), expected, "{content:?}");
        }
        assert_eq!(text(fetch(&Place::Passphrase(Zeroizing::new(b"env\n".to_vec())))), "env");
    }

    #[test]
    fn a_command_gives_its_first_line() {
        let fetch = |command: &str| fetch(&Place::PassphraseCommand(command.into()));
        assert_eq!(text(fetch("printf 'one\\ntwo\\n'")), "one");
        assert_eq!(text(fetch("printf one")), "one");
        for bad in ["exit 3", "echo secret; false", "true", "echo", "no-such-command-at-all 2>/dev/null"] {
            assert_eq!(kind(fetch(bad)), ErrorKind::Usage, "{bad}");
        }
        // More than a pipe holds: the command must not be waited for before it is read, nor read without end.
        assert_eq!(kind(fetch("head -c 1000000 /dev/zero | tr '\\0' x; false")), ErrorKind::Usage);
    }

    #[test]
    fn what_cannot_be_a_secret_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, len: usize| {
            let path = dir.path().join(name);
            std::fs::write(&path, vec![b'x'; len]).unwrap();
            path
        };
        assert_eq!(kind(fetch(&Place::PassphraseFile(file("empty", 0)))), ErrorKind::Usage);
        assert_eq!(kind(fetch(&Place::PassphraseFile(file("huge", (64 << 10) + 1)))), ErrorKind::Usage);
        assert_eq!(kind(fetch(&Place::PassphraseFile(dir.path().join("absent")))), ErrorKind::Usage);
        assert_eq!(kind(fetch(&Place::KeyFile(file("short", 31)))), ErrorKind::Usage);
        assert_eq!(kind(fetch(&Place::KeyFile("/dev/zero".into()))), ErrorKind::Usage);
        assert!(matches!(fetch(&Place::KeyFile(file("key", 32))).unwrap(), Secret::KeyFile(bytes) if bytes.len() == 32));
    }
}
