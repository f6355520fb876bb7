//! How users spell a source: a volume's name, a path, `volume:NAME` or `path:DIR`; and the identity that it has in a repository.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::docker::check_volume_name;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::model::path::escape;
use crate::model::{SourceIdentity, SourceKind};

/// What a user named as a source.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SourceSpec {
    /// A volume, by a legal name.
    Volume(String),
    /// A directory, as it was typed.
    Path(PathBuf),
}

impl SourceSpec {
    /// Reads what a user typed. Whether the volume or the path exists is not looked at.
    pub fn parse(text: &OsStr) -> Result<Self> {
        let bytes = text.as_bytes();
        if let Some(name) = bytes.strip_prefix(b"volume:") {
            return volume(name);
        }
        if let Some(path) = bytes.strip_prefix(b"path:") {
            return path_of(path);
        }
        if bytes.starts_with(b"/") || bytes.starts_with(b".") {
            return path_of(bytes);
        }
        volume(bytes).map_err(|error| match bare_word_hint(bytes) {
            Some(hint) => error.hint(hint),
            None => error,
        })
    }
}

/// The identity of `spec` in a repository. A path is made absolute and free of symlinks, so that each directory has one
/// history however it was typed; it has to exist. `host` is the name of the host that the source lives on.
pub fn identity(spec: &SourceSpec, host: &str) -> Result<SourceIdentity> {
    let (kind, name) = match spec {
        SourceSpec::Volume(name) => (SourceKind::Volume, name.clone()),
        SourceSpec::Path(path) => (SourceKind::Path, path_name(&real_path(path)?)),
    };
    Ok(SourceIdentity { kind, name, host: host.to_owned() })
}

/// The path without symlinks, `.` and `..`.
fn real_path(path: &Path) -> Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let shown = escape(path.as_os_str().as_bytes());
            Err(Error::new(ErrorKind::NotFound, "there is no such directory")
                .on(shown)
                .hint("a volume is named without a leading `/` or `.`"))
        }
        other => other.context(ErrorKind::Source, "cannot find out the real path", escape(path.as_os_str().as_bytes())),
    }
}

/// A path as a name: itself, or escaped where it is not UTF-8 or would not be printable. A path with a backslash is escaped,
/// too, so that no two paths ever get the same name.
fn path_name(path: &Path) -> String {
    match path.to_str() {
        Some(text) if !text.contains(|c: char| c == '\\' || c.is_control() || steers_text(c)) => text.to_owned(),
        _ => escape(path.as_os_str().as_bytes()),
    }
}

/// Marks that change the direction of text or break lines: a name with them can pass for another one.
fn steers_text(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn volume(name: &[u8]) -> Result<SourceSpec> {
    let name = std::str::from_utf8(name).map_err(|_| Error::new(ErrorKind::Usage, "not a legal volume name").on(escape(name)))?;
    check_volume_name(name)?;
    Ok(SourceSpec::Volume(name.to_owned()))
}

fn path_of(path: &[u8]) -> Result<SourceSpec> {
    if path.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "the path of the source is empty").hint("write `path:DIR`"));
    }
    Ok(SourceSpec::Path(PathBuf::from(OsString::from_vec(path.to_vec()))))
}

/// What somebody may have meant whose word is no volume's name.
fn bare_word_hint(word: &[u8]) -> Option<String> {
    let shown = escape(word);
    if word.is_empty() {
        Some("a source is a volume's name or a path that starts with `/` or `.`".to_owned())
    } else if word.starts_with(b"~") {
        Some("the shell did not expand `~`; write the path in full".to_owned())
    } else if word.contains(&b'@') {
        Some("SOURCE@TIME names a snapshot; here a source is wanted, without the time".to_owned())
    } else if word.contains(&b'/') {
        Some(format!("for a directory write ./{shown} or path:{shown}"))
    } else if word.contains(&b':') {
        Some("the prefixes are `volume:` and `path:`".to_owned())
    } else {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn sources_are_told_apart_by_their_spelling() {
        for (text, expected) in [
            ("db", Ok("db")),
            ("app_db-data.v2", Ok("app_db-data.v2")),
            ("volume:db", Ok("db")),
            ("path", Ok("path")),
            ("/srv/db", Err("/srv/db")),
            ("./db", Err("./db")),
            (".", Err(".")),
            ("..", Err("..")),
            (".hidden", Err(".hidden")),
            ("/with:colon@x", Err("/with:colon@x")),
            ("path:db", Err("db")),
            ("path:volume:x", Err("volume:x")),
        ] {
            let expected = match expected {
                Ok(name) => SourceSpec::Volume(name.to_owned()),
                Err(path) => SourceSpec::Path(path.into()),
            };
            assert_eq!(SourceSpec::parse(OsStr::new(text)).unwrap(), expected, "{text}");
        }
        let raw = OsStr::from_bytes(b"/srv/\xff");
        assert_eq!(SourceSpec::parse(raw).unwrap(), SourceSpec::Path(raw.into()));
    }

    #[test]
    fn words_that_are_no_source_say_what_may_have_been_meant() {
        for (text, hint) in [
            (&b""[..], "starts with `/`"),
            (b"~/data", "shell"),
            (b"srv/data", "./srv/data or path:srv/data"),
            (b"db@14:03", "without the time"),
            (b"vol:db", "`volume:` and `path:`"),
            (b"-x", "starts with a letter"),
            (b"a", "two or more"),
            (b"a b", "starts with a letter"),
            (b"volume:/srv", "starts with a letter"),
            (b"volume:", "starts with a letter"),
            (b"path:", "path:DIR"),
        ] {
            let error = SourceSpec::parse(OsStr::from_bytes(text)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Usage);
            assert!(error.advice().unwrap_or_default().contains(hint), "{}: {:?}", escape(text), error.advice());
        }
        let error = SourceSpec::parse(OsStr::from_bytes(b"a\x1b[2J\xff")).unwrap_err();
        assert!(error.to_string().ends_with("a\\u{1b}[2J\\xff"), "{error}");
    }

    #[test]
    fn a_directory_has_one_identity_however_it_is_typed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("real")).unwrap();
        symlink(root.join("real"), root.join("link")).unwrap();
        for typed in ["real", "link", "./real/", "link/../real/."] {
            let found = identity(&SourceSpec::Path(root.join(typed)), "h").unwrap();
            let expected = SourceIdentity { kind: SourceKind::Path, name: root.join("real").display().to_string(), host: "h".into() };
            assert_eq!(found, expected, "{typed}");
        }
        assert_eq!(identity(&SourceSpec::Path(root.join("none")), "h").unwrap_err().kind(), ErrorKind::NotFound);
        let volume = identity(&SourceSpec::Volume("db".into()), "h").unwrap();
        assert_eq!((volume.kind, volume.name.as_str()), (SourceKind::Volume, "db"));
    }

    #[test]
    fn different_paths_have_different_names() {
        assert_eq!(path_name(Path::new("/srv/naïve ☃ e\u{301} 'q'")), "/srv/naïve ☃ e\u{301} 'q'", "as people write them");
        let names = [&b"/a\xff"[..], b"/a\\xff", b"/a\\\\xff", b"/a\n", b"/a\\n"].map(|path| path_name(Path::new(OsStr::from_bytes(path))));
        assert_eq!(names[0], "/a\\xff");
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len(), "{names:?}");
        assert!(names.iter().all(|name| !name.contains('\n')));
        assert_eq!(path_name(Path::new("/a\u{202e}b")), "/a\\u{202e}b");
    }
}
