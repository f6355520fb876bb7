//! File names and paths inside a tree, as bytes: any byte but `/` and NUL, never `.` or `..`, never empty.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};

/// The longest name of a directory entry, in bytes (Linux `NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;

/// Directories deeper than this, or with a longer path, are neither captured nor read back: nothing that is meant is that
/// deep, and walks keep the path of every directory that they are in.
pub const NESTING_MAX: usize = 4096;
/// See [`NESTING_MAX`]; in bytes.
pub const PATH_BYTES_MAX: usize = 128 << 10;

/// One directory entry's name, checked when it was made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// Checks that `bytes` can name a directory entry. Whoever reads a name from a repository goes through here, so a
    /// name can never lead out of its directory.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Result<Self> {
        let bytes = bytes.into();
        let legal = !bytes.is_empty()
            && bytes.len() <= NAME_BYTES_MAX
            && !bytes.contains(&b'/')
            && !bytes.contains(&0)
            && &*bytes != b"."
            && &*bytes != b"..";
        if !legal {
            return Err(Error::new(ErrorKind::Damaged, "not a legal file name").on(escape(&bytes)));
        }
        Ok(Self(bytes))
    }

    /// The name as the file system knows it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A path below a tree's root: names joined by `/`; empty for the root itself.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The root of a tree.
    pub fn root() -> Self {
        Self::default()
    }

    /// Reads what a user typed: leading, trailing and repeated `/` and `.` components mean nothing; `..` is refused.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let mut path = Self::root();
        for part in text.split(|&b| b == b'/').filter(|part| !part.is_empty() && *part != b".") {
            let name = Name::new(part).map_err(|e| e.with_kind(ErrorKind::Usage))?;
            path = path.join(&name);
        }
        Ok(path)
    }

    /// The path of the entry `name` in this directory.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.as_bytes().len());
        bytes.extend_from_slice(&self.0);
        if !bytes.is_empty() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name.as_bytes());
        Self(bytes)
    }

    /// The path's names, from the root down.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|part| !part.is_empty())
    }

    /// The path as bytes, without a leading `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether a directory here, `depth` below the root, is too deep to be entered.
    pub fn is_too_deep(&self, depth: usize) -> bool {
        depth > NESTING_MAX || self.0.len() > PATH_BYTES_MAX
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `self` is `other` or lies below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        other.is_root() || self == other || (self.0.starts_with(&other.0) && self.0.get(other.0.len()) == Some(&b'/'))
    }

    /// The directory that holds this entry, none for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].to_vec()))
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for TreePath {
    /// The order of a walk: name by name, a directory before its entries.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.names().cmp(other.names())
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str("/") } else { f.write_str(&escape(&self.0)) }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Bytes as printable text: control characters, escape sequences, text-direction marks and what is not UTF-8 appear as
/// `\n`, `\u{202e}` or `\xff`, so that a file name can't steer a terminal.
pub fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for piece in bytes.utf8_chunks() {
        for c in piece.valid().chars() {
            if c == '\'' || c == '"' {
                text.push(c);
            } else {
                text.extend(c.escape_debug());
            }
        }
        for byte in piece.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = [b'a'; 256];
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0b", b"/", &long] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        for good in [&b"..."[..], b" ", b"-rf", b"\xff\xfe", b"a\nb", &long[..255]] {
            assert_eq!(Name::new(good).unwrap().as_bytes(), good);
        }
    }

    #[test]
    fn paths_join_split_and_compare_by_component() {
        let path = TreePath::parse(b"//a/./b-c//d/").unwrap();
        assert_eq!(path.as_bytes(), b"a/b-c/d");
        assert_eq!(path.names().count(), 3);
        assert_eq!(path.parent().unwrap().as_bytes(), b"a/b-c");
        assert!(path.starts_with(&TreePath::parse(b"a/b-c").unwrap()));
        assert!(!path.starts_with(&TreePath::parse(b"a/b").unwrap()));
        assert!(TreePath::parse(b"a/../b").is_err());
        assert!(TreePath::parse(b"a/z").unwrap() < TreePath::parse(b"a-/b").unwrap(), "'/' sorts before every byte");
    }

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        assert_eq!(escape(b"\x1b[2J\n\xff \xe2\x80\xae"), "\\u{1b}[2J\\n\\xff \\u{202e}");
        assert_eq!(escape("naïve ☃ 'q'".as_bytes()), "naïve ☃ 'q'");
    }
}
