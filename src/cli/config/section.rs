//! Reads the configuration file's tables key by key, and says of what is wrong in which line it stands.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue, Error as Refused};

use super::super::{open, render, time};
use crate::error::{Error, ErrorKind, Result};
use crate::live::nearest::distance;

/// The file that is being read, for what is said about it.
pub(super) struct Origin<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
}

impl Origin<'_> {
    /// A usage error about what stands at byte `at`.
    pub(super) fn error(&self, at: usize, message: impl Into<String>) -> Error {
        let line = 1 + self.text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        Error::new(ErrorKind::Usage, message).on(format!("{}, line {line}", render::path(self.path)))
    }

    /// What the TOML parser says.
    fn refuse(&self, refused: &Refused) -> Error {
        let at = refused.span().map_or(0, |span| span.start);
        self.error(at, format!("not TOML: {}", refused.message())).hint("texts and paths stand in quotes; one KEY = VALUE per line")
    }

    /// A path of the file: a relative one starts from the file's folder, wherever the command is run.
    fn resolve(&self, path: &str) -> PathBuf {
        self.path.parent().map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }
}

/// One section, whose keys are taken out one by one.
pub(super) struct Section<'a, 'i> {
    pub(super) origin: &'a Origin<'i>,
    /// Empty for what stands before the first section.
    name: Cow<'static, str>,
    pub(super) table: DeTable<'i>,
    /// What was asked for.
    known: Vec<&'static str>,
}

impl<'a, 'i> Section<'a, 'i> {
    /// What stands before the first section.
    pub(super) fn top(origin: &'a Origin<'i>) -> Result<Self> {
        let table = DeTable::parse(origin.text).map_err(|refused| origin.refuse(&refused))?.into_inner();
        Ok(Self { origin, name: Cow::Borrowed(""), table, known: Vec::new() })
    }

    pub(super) fn section(&mut self, name: &'static str) -> Result<Section<'a, 'i>> {
        let table = self.value(name, &format!("a section: [{name}]"), |value| match value {
            DeValue::Table(table) => Some(table),
            _ => None,
        })?;
        Ok(Section { origin: self.origin, name: Cow::Borrowed(name), table: table.unwrap_or_default(), known: Vec::new() })
    }

    /// The sections `[kind."NAME"]`, with their names.
    pub(super) fn sections(&mut self, kind: &'static str) -> Result<Vec<(String, Section<'a, 'i>)>> {
        let of_kind = self.section(kind)?;
        let origin = self.origin;
        let one = |(name, value): (Spanned<DeString<'i>>, Spanned<DeValue<'i>>)| match value.into_inner() {
            DeValue::Table(table) => {
                let name = name.into_inner().into_owned();
                let shown = Cow::Owned(format!("{kind}.\"{}\"", render::name(&name)));
                Ok((name, Section { origin, name: shown, table, known: Vec::new() }))
            }
            _ => Err(origin
                .error(name.span().start, format!("`{}` stands in [{kind}], which has only sections", render::name(name.get_ref())))
                .hint(format!("write [{kind}.\"NAME\"] above it"))),
        };
        of_kind.table.into_iter().map(one).collect()
    }

    /// A value that labels can have, too: a text, a flag, or a list, read by `parse` as a label would be.
    pub(super) fn parsed<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
        let origin = self.origin;
        let at = self.table.get_key_value(key).map_or(0, |(name, _)| name.span().start);
        let text = self.value(key, "a text in quotes, true or false, or a list of texts", as_label)?;
        text.map(|text| parse(&text)).transpose().map_err(|error| {
            let located = origin.error(at, format!("`{key}`: {error}"));
            match error.advice() {
                Some(advice) => located.hint(advice),
                None => located,
            }
        })
    }

    /// Takes `key` out; `read` gives nothing for a value that is not what is `expected`.
    pub(super) fn value<T>(&mut self, key: &'static str, expected: &str, read: impl FnOnce(DeValue<'i>) -> Option<T>) -> Result<Option<T>> {
        self.known.push(key);
        let Some((name, value)) = self.table.remove_entry(key) else {
            return Ok(None);
        };
        match read(value.into_inner()) {
            Some(value) => Ok(Some(value)),
            None => Err(self.origin.error(name.span().start, format!("`{key}` must be {expected}"))),
        }
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>> {
        self.value(key, "a text in quotes, and not empty", text)
    }

    pub(super) fn path(&mut self, key: &'static str) -> Result<Option<PathBuf>> {
        let text = self.value(key, "a path in quotes, without ~ (which is not expanded)", path)?;
        Ok(text.map(|text| self.origin.resolve(&text)))
    }

    /// A path, or a URL as it stands.
    pub(super) fn location(&mut self, key: &'static str) -> Result<Option<PathBuf>> {
        let text = self.value(key, "a path in quotes, without ~ (which is not expanded), or a URL", path)?;
        Ok(text.map(|text| if open::is_url(text.as_bytes()) { PathBuf::from(text) } else { self.origin.resolve(&text) }))
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        self.value(key, "true or false", |value| value.as_bool())
    }

    pub(super) fn number<N>(&mut self, key: &'static str, range: RangeInclusive<N>) -> Result<Option<N>>
    where
        N: TryFrom<i64> + PartialOrd + std::fmt::Display,
    {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.value(key, &expected, |value| {
            let number = value.as_integer()?;
            let number = i64::from_str_radix(number.as_str(), number.radix()).ok()?;
            N::try_from(number).ok().filter(|number| range.contains(number))
        })
    }

    pub(super) fn age(&mut self, key: &'static str) -> Result<Option<String>> {
        let expected = "an age in quotes, such as \"90m\", \"2d\" or \"3 weeks\"";
        self.value(key, expected, |value| text(value).filter(|text| time::parse_age(text).is_ok()))
    }

    /// None is an empty list.
    pub(super) fn words(&mut self, key: &'static str) -> Result<Vec<String>> {
        let words = self.value(key, "a list of texts in quotes, such as [\"one\", \"two\"]", |value| match value {
            DeValue::Array(items) => items.into_iter().map(|item| text(item.into_inner())).collect(),
            _ => None,
        })?;
        Ok(words.unwrap_or_default())
    }
}

/// A value as it would stand in a label: a list as JSON, because its items may have commas.
fn as_label(value: DeValue) -> Option<String> {
    match value {
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items.into_iter().map(|item| text(item.into_inner())).collect();
            serde_json::to_string(&items?).ok()
        }
        other => text(other),
    }
}

fn text(value: DeValue) -> Option<String> {
    match value {
        DeValue::String(text) if !text.is_empty() => Some(text.into_owned()),
        _ => None,
    }
}

/// A text that cannot be mistaken for a path below the home folder: taken literally, `~/backup` would be made in a folder
/// named `~` beside the file.
fn path(value: DeValue) -> Option<String> {
    text(value).filter(|text| text != "~" && !text.starts_with("~/"))
}

/// Refuses the first key that no section asked for. All sections must have been read.
pub(super) fn nothing_unknown(sections: &[Section]) -> Result<()> {
    let unknown = sections.iter().flat_map(|section| section.table.keys().map(move |name| (name.span().start, name.get_ref(), section)));
    let Some((at, name, section)) = unknown.min_by_key(|(at, ..)| *at) else {
        return Ok(());
    };
    let place = if section.name.is_empty() { String::new() } else { format!(" in [{}]", section.name) };
    let hint = match nearest(name, &section.name, sections) {
        Some((of, key)) if of == section.name => format!("did you mean `{key}`?"),
        Some(("", key)) => format!("`{key}` belongs before the first [section]"),
        Some((of, key)) => format!("`{key}` belongs below [{of}]"),
        None => format!("known are {}", section.known.join(", ")),
    };
    Err(section.origin.error(at, format!("unknown key `{}`{place}", render::name(name))).hint(hint))
}

/// The known key that was probably meant, with its section; the same section is preferred.
fn nearest<'s>(name: &str, section: &str, sections: &'s [Section]) -> Option<(&'s str, &'static str)> {
    let name = name.to_lowercase().replace('-', "_");
    let known = sections.iter().flat_map(|of| of.known.iter().map(|&key| (&*of.name, key)));
    let close = known.filter_map(|(of, key)| {
        let begins = name.len() >= 3 && (key.starts_with(&name) || name.starts_with(key));
        let edits = if begins { 1 } else { distance(&name, key) };
        (edits <= (key.len() / 4).max(1)).then_some((edits, of != section, Reverse(key.len()), of, key))
    });
    close.min().map(|(.., of, key)| (of, key))
}
