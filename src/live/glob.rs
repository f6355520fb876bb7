//! Patterns of paths that are left out of a snapshot: `*` and `?` within a name, `**` for any number of folders. Matching takes
//! at most as many steps as the product of the lengths, whatever the pattern: they come from labels.

use super::values::{bad, list};
use crate::error::{Error, ErrorKind, Result};

/// The longest pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 512;
/// The most names of a pattern.
const PATTERN_NAMES_MAX: usize = 32;

/// One pattern. It starts at the volume's root when it has a `/` before its end, else it matches a name in any folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    text: String,
    names: Vec<Vec<u8>>,
}

impl Glob {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(bad(text, &format!("a pattern of at most {PATTERN_BYTES_MAX} bytes")));
        }
        let below = text.trim_end_matches('/');
        let mut names: Vec<&str> = below.split('/').filter(|name| !name.is_empty() && *name != ".").collect();
        if names.contains(&"..") {
            return Err(bad(text, "a pattern of paths below the volume's root").hint("`..` leads out of it"));
        }
        if names.iter().all(|name| name.bytes().all(|byte| byte == b'*')) {
            return Err(Error::new(ErrorKind::Usage, "the pattern leaves out everything").on(text).hint("icecore.enable=false does that"));
        }
        if names.len() > PATTERN_NAMES_MAX {
            return Err(bad(text, &format!("a pattern of at most {PATTERN_NAMES_MAX} names")));
        }
        if !below.contains('/') {
            names.insert(0, "**");
        }
        names.dedup_by(|a, b| a == b && *a == "**");
        // What is in a folder, and not the folder itself.
        if names.last() == Some(&"**") {
            names.push("*");
        }
        Ok(Self { text: text.to_owned(), names: names.into_iter().map(|name| name.as_bytes().to_vec()).collect() })
    }

    /// Whether `path`, relative to the volume's root, is matched; an entry below a folder that is matched is not looked at.
    pub fn matches(&self, path: &[u8]) -> bool {
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        wild(&self.names, &names, |pattern| pattern == b"**", |pattern, name| match_name(pattern, name))
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Whether the whole of `text` is matched by `pattern`, in which `*` stands for any characters and `?` for one.
pub fn match_name(pattern: &[u8], text: &[u8]) -> bool {
    wild(pattern, text, |byte| *byte == b'*', |pattern, byte| *pattern == b'?' || pattern == byte)
}

/// A list of patterns.
pub(super) fn globs(text: &str) -> Result<Vec<Glob>> {
    list(text)?.iter().map(|item| Glob::parse(item)).collect()
}

/// Matches a sequence with wildcards. Only the last wildcard is ever tried again, so it takes at most `pattern * text` steps.
fn wild<P, T>(pattern: &[P], text: &[T], any: impl Fn(&P) -> bool, one: impl Fn(&P, &T) -> bool) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while let Some(item) = text.get(t) {
        match pattern.get(p) {
            Some(wildcard) if any(wildcard) => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(plain) if one(plain, item) => {
                p += 1;
                t += 1;
            }
            _ => match &mut retry {
                Some((after, begin)) => {
                    *begin += 1;
                    (p, t) = (*after, *begin);
                }
                None => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(any))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_people_expect() {
        for (pattern, path, expected) in [
            ("*.log", "a.log", true),
            ("*.log", "deep/er/a.log", true),
            ("*.log", "a.logs", false),
            ("cache", "x/cache", true),
            ("cache", "x/cache/f", false),
            ("cache/", "x/cache", true),
            ("/cache", "cache", true),
            ("/cache", "x/cache", false),
            ("a/*/c", "a/b/c", true),
            ("a/*/c", "a/b/d/c", false),
            ("a/**/c", "a/c", true),
            ("a/**/c", "a/b/d/c", true),
            ("a/**", "a/b/c", true),
            ("a/**", "a", false),
            ("**/tmp/*.?", "x/y/tmp/f.1", true),
            ("./a", "a", true),
            ("?", "ab", false),
            ("a*b*c", "aXbXbXc", true),
            ("a*b*c", "aXbXbX", false),
        ] {
            assert_eq!(Glob::parse(pattern).unwrap().matches(path.as_bytes()), expected, "{pattern} {path}");
        }
        assert!(Glob::parse("*.\u{e4}").unwrap().matches("x.\u{e4}".as_bytes()));
        assert!(Glob::parse("a*").unwrap().matches(b"a\xff"));
    }

    #[test]
    fn what_leads_out_or_leaves_out_everything_is_refused() {
        for pattern in ["..", "../x", "a/../../b", "*", "**", "/", "/**/", "**/*", "", &"a/".repeat(33), &"a".repeat(513)] {
            assert_eq!(Glob::parse(pattern).unwrap_err().kind(), ErrorKind::Usage, "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_the_product_of_the_lengths() {
        let deep = "**/a/".repeat(15) + "b";
        let path = "a/".repeat(10_000);
        assert!(!Glob::parse(&deep).unwrap().matches(path.as_bytes()));
        let stars = "*a".repeat(250) + "b";
        assert!(!Glob::parse(&stars).unwrap().matches("a".repeat(20_000).as_bytes()));
        assert!(match_name(b"hook.*.user", b"hook.post-restore.user"));
    }
}
