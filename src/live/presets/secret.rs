//! Names and passwords that a preset's commands need: where they come from, never shown.

use std::fmt;

use crate::docker::ContainerDetail;

/// Where a part of a secret is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Known already.
    Value(String),
    /// In a file in the container, up to the line breaks at its end, as the official images read theirs.
    File(String),
}

/// A text that a command is given by its environment or its stdin, made of one or more parts when it is needed.
#[derive(Clone)]
pub struct Secret {
    pub(super) parts: Vec<Source>,
    pub(super) form: fn(&[String]) -> String,
}

impl fmt::Debug for Secret {
    /// No value and no file name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Secret {
    /// A text that is known.
    pub(super) fn value(text: impl Into<String>) -> Self {
        Self::of(Source::Value(text.into()))
    }

    /// The text of one source.
    pub(super) fn of(source: Source) -> Self {
        Self { parts: vec![source], form: |parts| parts.concat() }
    }

    /// The first of `names` that the container's environment has with a value, as `NAME` or as `NAME_FILE`.
    pub(super) fn of_env(container: &ContainerDetail, names: &[&str]) -> Option<Self> {
        Source::of_env(container, names).map(Self::of)
    }
}

impl Source {
    /// See [`Secret::of_env`].
    pub(super) fn of_env(container: &ContainerDetail, names: &[&str]) -> Option<Self> {
        let set = |name: &str| container.env_value(name).filter(|value| !value.is_empty()).map(str::to_owned);
        names.iter().find_map(|name| set(name).map(Self::Value).or_else(|| set(&format!("{name}_FILE")).map(Self::File)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn container(env: &[(&str, &str)]) -> ContainerDetail {
        let env = env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        ContainerDetail { env, ..ContainerDetail::default() }
    }

    #[test]
    fn a_secret_comes_from_the_first_variable_that_is_set_itself_or_names_a_file() {
        let found = |env: &[(&str, &str)]| Source::of_env(&container(env), &["A", "B"]);
        assert!(found(&[("B", "2"), ("A", "1")]) == Some(Source::Value("1".into())));
        assert!(found(&[("B", "2"), ("A", "")]) == Some(Source::Value("2".into())));
        assert!(found(&[("B", "2"), ("A_FILE", "/run/secrets/a")]) == Some(Source::File("/run/secrets/a".into())));
        assert!(found(&[("C", "3")]).is_none());
    }

    #[test]
    fn no_secret_is_in_its_debug_text() {
        let secret = Secret::of_env(&container(&[("A", "hunter2")]), &["A"]).unwrap();
        let file = Secret::of_env(&container(&[("A_FILE", "/run/secrets/hunter2")]), &["A"]).unwrap();
        assert!(!format!("{secret:?}{file:?}").contains("hunter2"));
    }
}
