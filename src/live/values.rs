//! Reads the values of settings as they stand in labels and in the configuration file. Whoever may set a label on a container
//! writes them, so everything is bounded, and what is not understood is refused rather than guessed.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::nearest::nearest;
use crate::error::{Error, ErrorKind, Result};
use crate::model::path::escape;

/// The longest value that is read, in bytes.
pub const VALUE_BYTES_MAX: usize = 4096;
/// The most items of a list, and arguments of a command.
pub const LIST_ITEMS_MAX: usize = 64;
/// How much of a text is shown, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// A text from outside as it can be shown: escaped and not longer than a few words.
pub fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}...", escape(&text.as_bytes()[..end])),
        None => escape(text.as_bytes()),
    }
}

/// A value that is not what it has to be.
pub(super) fn bad(text: &str, expected: &str) -> Error {
    Error::new(ErrorKind::Usage, format!("not {expected}")).on(shown(text))
}

/// Refuses what no value is: too long, or with characters that steer a terminal.
pub(super) fn checked(text: &str) -> Result<&str> {
    if text.len() > VALUE_BYTES_MAX {
        return Err(Error::new(ErrorKind::Usage, format!("the value has more than {VALUE_BYTES_MAX} bytes")).on(shown(text)));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::new(ErrorKind::Usage, "the value has a control character").on(shown(text)));
    }
    Ok(text.trim())
}

/// `true` or `false`, or another word of YAML for them.
pub(super) fn flag(text: &str) -> Result<bool> {
    match checked(text)?.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(bad(text, "true or false")),
    }
}

/// One of a few words.
pub fn word<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Result<T> {
    let word = checked(text)?.to_ascii_lowercase();
    if let Some((_, value)) = words.iter().find(|(name, _)| *name == word) {
        return Ok(*value);
    }
    let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
    let error = bad(text, &format!("one of {}", names.join(", ")));
    Err(match nearest(&word, names) {
        Some(meant) => error.hint(format!("did you mean `{meant}`?")),
        None => error,
    })
}

/// A duration within bounds, such as `500ms`, `5s`, `1m30s`.
pub(super) fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration> {
    let word = checked(text)?;
    let Some(found) = read_duration(word) else {
        let error = bad(text, "a duration such as 500ms, 5s or 1m30s");
        let only_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
        return Err(if only_number { error.hint(format!("did you mean {word}s?")) } else { error });
    };
    if range.contains(&found) {
        return Ok(found);
    }
    Err(bad(text, &format!("between {} and {}", show_duration(*range.start()), show_duration(*range.end()))))
}

fn read_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        // Nine digits of the largest unit stay far below what a Duration holds.
        let count: u64 = rest.get(..digits).filter(|_| (1..=9).contains(&digits))?.parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        total += match &rest[..letters] {
            "ms" => Duration::from_millis(count),
            "s" | "sec" => Duration::from_secs(count),
            "m" | "min" => Duration::from_secs(count * 60),
            "h" => Duration::from_secs(count * 3600),
            "d" => Duration::from_secs(count * 86_400),
            "w" => Duration::from_secs(count * 7 * 86_400),
            _ => return None,
        };
        rest = &rest[letters..];
    }
    Some(total)
}

/// A duration as it is written: `1m30s`, `500ms`.
pub fn show_duration(duration: Duration) -> String {
    let mut text = String::new();
    let mut seconds = duration.as_secs();
    for (unit, name) in [(86_400, "d"), (3600, "h"), (60, "m"), (1, "s")] {
        if seconds >= unit {
            text.push_str(&format!("{}{name}", seconds / unit));
            seconds %= unit;
        }
    }
    if duration.subsec_millis() > 0 {
        text.push_str(&format!("{}ms", duration.subsec_millis()));
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// A list: texts separated by commas, or a JSON array of texts for those that have commas themselves.
pub fn list(text: &str) -> Result<Vec<String>> {
    let text = checked(text)?;
    let items: Vec<String> = if text.starts_with('[') {
        serde_json::from_str(text).map_err(|_| bad(text, "a JSON array of texts"))?
    } else {
        text.split(',').map(|item| item.trim().to_owned()).collect()
    };
    if items.len() > LIST_ITEMS_MAX {
        return Err(Error::new(ErrorKind::Usage, format!("the list has more than {LIST_ITEMS_MAX} items")).on(shown(text)));
    }
    match items.iter().find(|item| item.is_empty() || item.chars().any(char::is_control)) {
        Some(item) if item.is_empty() => Err(Error::new(ErrorKind::Usage, "the list has an empty item").on(shown(text))),
        Some(item) => Err(Error::new(ErrorKind::Usage, "an item of the list has a control character").on(shown(item))),
        None => Ok(items),
    }
}

/// A command: a JSON array of its arguments, or `sh:` and a script for the container's shell.
pub(super) fn command(text: &str) -> Result<Vec<String>> {
    if text.len() > VALUE_BYTES_MAX {
        return Err(Error::new(ErrorKind::Usage, format!("the command has more than {VALUE_BYTES_MAX} bytes")).on(shown(text)));
    }
    let text = text.trim();
    let argv = match text.strip_prefix("sh:") {
        Some(script) if script.trim().is_empty() => return Err(bad(text, "a command")),
        Some(script) => shell(script.trim()),
        None => serde_json::from_str(text).map_err(|_| {
            bad(text, "a command").hint("write the arguments as JSON, [\"pg_isready\", \"-q\"], or sh: and a script for the shell")
        })?,
    };
    if argv.len() > LIST_ITEMS_MAX {
        return Err(Error::new(ErrorKind::Usage, format!("the command has more than {LIST_ITEMS_MAX} arguments")).on(shown(text)));
    }
    if argv.first().is_none_or(String::is_empty) || argv.iter().any(|argument| argument.contains('\0')) {
        return Err(bad(text, "a command"));
    }
    Ok(argv)
}

/// The command that runs a script.
pub(super) fn shell(script: &str) -> Vec<String> {
    vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()]
}

/// A name for a group.
pub(super) fn name(text: &str) -> Result<String> {
    let name = checked(text)?;
    let fits = name.len() <= 63 && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        return Ok(name.to_owned());
    }
    Err(bad(text, "a name of at most 63 letters, digits, '_', '.' and '-' that starts with a letter or digit"))
}

/// A volume's name, or its key in a Compose file, which follows the same rule but for its length.
pub(super) fn name_of_volume(text: &str) -> Result<String> {
    let name = checked(text)?;
    let fits = (1..=255).contains(&name.len()) && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if fits && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)) {
        return Ok(name.to_owned());
    }
    Err(bad(text, "a volume's name or a path in the container"))
}

/// A user of a container: a name or number, and a group if one follows after `:`.
pub(super) fn user(text: &str) -> Result<String> {
    let user = checked(text)?;
    let is_one = |part: &str| {
        (1..=32).contains(&part.len())
            && !part.starts_with('-')
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
    };
    match user.split_once(':') {
        Some((user_part, group)) if is_one(user_part) && is_one(group) => Ok(user.to_owned()),
        None if is_one(user) => Ok(user.to_owned()),
        _ => Err(bad(text, "a user, such as postgres, 999 or 999:999")),
    }
}

/// An absolute path in a container, without `..` and needless parts.
pub(super) fn destination(text: &str) -> Result<String> {
    let path = checked(text)?;
    if !path.starts_with('/') || path.split('/').any(|part| part == ".." || part == ".") {
        return Err(bad(text, "an absolute path without `.` and `..`"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() {
        return Err(bad(text, "a path below the container's root"));
    }
    Ok(format!("/{}", parts.join("/")))
}

/// Words about a thing. They are only shown, so those that are too long are cut, and what steers a terminal becomes spaces.
pub(super) fn prose(text: &str) -> String {
    const CHARS_MAX: usize = 200;
    let clean = |c: char| if c.is_control() { ' ' } else { c };
    let words: String = text.chars().take(CHARS_MAX).map(clean).collect();
    let words = words.trim();
    if text.chars().nth(CHARS_MAX).is_some() { format!("{words}...") } else { words.to_owned() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(1 << 40);

    #[test]
    fn flags_are_yaml_s_words() {
        for text in ["true", "True", " yes ", "on", "1"] {
            assert!(flag(text).unwrap(), "{text}");
        }
        for text in ["false", "FALSE", "no", "off", "0"] {
            assert!(!flag(text).unwrap(), "{text}");
        }
        for text in ["", "maybe", "truee", "true\n;", "2"] {
            assert_eq!(flag(text).unwrap_err().kind(), ErrorKind::Usage, "{text}");
        }
    }

    #[test]
    fn durations_have_units_and_bounds() {
        for (text, millis) in
            [("500ms", 500), ("5s", 5000), ("1m30s", 90_000), ("2h", 7_200_000), ("1d", 86_400_000), ("0s", 0), ("1w", 604_800_000)]
        {
            let found = duration(text, &ANY).unwrap();
            assert_eq!(found.as_millis(), millis, "{text}");
            assert_eq!(duration(&show_duration(found), &ANY).unwrap(), found, "{text}");
        }
        for text in ["", "s", "5", "5 s", "-5s", "1.5s", "5x", "5s!", "9999999999s", "\u{665}s"] {
            assert!(duration(text, &ANY).is_err(), "{text}");
        }
        assert_eq!(duration("5", &ANY).unwrap_err().advice(), Some("did you mean 5s?"));
        let narrow = Duration::from_secs(1)..=Duration::from_secs(60);
        assert!(duration("61s", &narrow).unwrap_err().to_string().contains("between 1s and 1m"));
        assert!(duration("999ms", &narrow).is_err() && duration("60s", &narrow).is_ok());
    }

    #[test]
    fn a_word_names_the_one_that_was_meant() {
        let words = [("pause", 1), ("stop", 2)];
        assert_eq!(word(" Pause ", &words).unwrap(), 1);
        let error = word("pausse", &words).unwrap_err();
        assert_eq!(error.advice(), Some("did you mean `pause`?"));
        assert!(error.to_string().contains("one of pause, stop"), "{error}");
        assert!(word("never", &words).unwrap_err().advice().is_none());
    }

    #[test]
    fn lists_have_commas_or_are_json_and_are_bounded() {
        assert_eq!(list("a, b,c").unwrap(), ["a", "b", "c"]);
        assert_eq!(list(r#"["a,b", "c"]"#).unwrap(), ["a,b", "c"]);
        assert!(list(&vec!["x"; LIST_ITEMS_MAX].join(",")).is_ok());
        for text in
            ["", "a,,b", "a,", "[1]", "[\"a\"", "[[\"a\"]]", "{}x,\u{7}", r#"["a\u001b"]"#, &vec!["x"; LIST_ITEMS_MAX + 1].join(",")]
        {
            assert!(list(text).is_err(), "{text}");
        }
        assert!(list(&"[".repeat(4000)).is_err(), "nesting has an end");
    }

    #[test]
    fn a_command_is_arguments_or_a_script_for_the_shell() {
        assert_eq!(command(r#"["pg_ctl", "a b"]"#).unwrap(), ["pg_ctl", "a b"]);
        assert_eq!(command("sh: echo a; echo b").unwrap(), ["sh", "-c", "echo a; echo b"]);
        assert_eq!(command("sh:echo a\necho b").unwrap()[2], "echo a\necho b");
        for text in
            ["", "sh:", "sh: ", "pg_ctl start", "[]", r#"[""]"#, r#"[1]"#, r#"["a\u0000"]"#, &format!("sh:{}", "x".repeat(VALUE_BYTES_MAX))]
        {
            assert!(command(text).is_err(), "{text}");
        }
        assert!(command("pg_ctl start").unwrap_err().advice().unwrap().contains("sh:"));
        assert!(command(&format!("[{}]", vec!["\"a\""; LIST_ITEMS_MAX + 1].join(","))).is_err());
    }

    #[test]
    fn names_users_and_paths_are_checked() {
        assert_eq!(name("db-1.x_y").unwrap(), "db-1.x_y");
        for text in ["", "-a", "a/b", "a b", "ä", "a\n", &"a".repeat(64)] {
            assert!(name(text).is_err(), "{text}");
        }
        for text in ["postgres", "999", "999:999", "www-data:www-data"] {
            assert_eq!(user(text).unwrap(), text);
        }
        for text in ["", "-u", "a b", "a:", ":a", "a:b:c", "root;id", &"a".repeat(33)] {
            assert!(user(text).is_err(), "{text}");
        }
        assert_eq!(destination("//var/lib//data/").unwrap(), "/var/lib/data");
        for text in ["", "data", "./data", "/a/../b", "/..", "/a/./b", "/a\0", "/", "//"] {
            assert!(destination(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_is_short_and_harmless() {
        assert_eq!(shown("a\x1b[2J"), "a\\u{1b}[2J");
        assert_eq!(shown(&"ä".repeat(1 << 20)).chars().count(), SHOWN_CHARS_MAX + 3);
        assert_eq!(prose(" A\nB\x1b[2J "), "A B [2J");
        assert_eq!(prose(&"ä".repeat(1 << 20)).chars().count(), 203);
        assert!(checked(&"x".repeat(VALUE_BYTES_MAX + 1)).unwrap_err().to_string().len() < 200);
    }
}
