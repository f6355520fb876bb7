//! The question before something is destroyed: asked on a terminal, refused elsewhere unless the command line answered it.

use std::io::{BufRead, IsTerminal, Write};

use super::signals;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// Who can be asked.
pub(super) trait Asker {
    /// Whether somebody sits there.
    fn present(&self) -> bool;
    /// Shows `question` and returns the line that was typed, without its end.
    fn ask(&mut self, question: &str) -> Result<String>;
}

/// The terminal: questions on standard error, answers from standard input.
pub(super) struct Terminal;

impl Asker for Terminal {
    fn present(&self) -> bool {
        std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        let mut stderr = std::io::stderr().lock();
        stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush()).context(ErrorKind::Usage, "cannot ask", "terminal")?;
        let mut line = String::new();
        signals::while_asking(|| std::io::stdin().lock().read_line(&mut line)).context(ErrorKind::Usage, "cannot read", "terminal")?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

/// Goes on when the command line said `--yes` or somebody types `yes`. `what` says what will happen, as a sentence without
/// its full stop.
pub(super) fn yes(asker: &mut dyn Asker, given: bool, what: &str) -> Result<()> {
    if given {
        return Ok(());
    }
    if !asker.present() {
        return Err(
            Error::new(ErrorKind::Usage, format!("{what}; not done without --yes")).hint("look at what --dry-run prints, then add --yes")
        );
    }
    if asker.ask(&format!("{what}. Type 'yes' to go on: "))?.trim() == "yes" { Ok(()) } else { Err(declined()) }
}

/// Goes on when `name` was typed in full: by `--whole-source NAME` together with `--yes`, or on the terminal.
pub(super) fn typed_name(asker: &mut dyn Asker, given: bool, names: &[String], name: &str) -> Result<()> {
    if given && names.iter().any(|typed| typed == name) {
        return Ok(());
    }
    let shown = super::render::name(name);
    if !asker.present() {
        return Err(Error::new(ErrorKind::Usage, "this forgets every snapshot of a source; not done without its name")
            .on(&shown)
            .hint(format!("add: --yes --whole-source {shown}")));
    }
    if asker.ask(&format!("This forgets EVERY snapshot of {shown}. Type its name to go on: "))? == name { Ok(()) } else { Err(declined()) }
}

fn declined() -> Error {
    Error::new(ErrorKind::Interrupted, "not confirmed; nothing was changed")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Scripted {
        answers: Option<Vec<&'static str>>,
        asked: Vec<String>,
    }

    impl Asker for Scripted {
        fn present(&self) -> bool {
            self.answers.is_some()
        }

        fn ask(&mut self, question: &str) -> Result<String> {
            self.asked.push(question.to_owned());
            Ok(self.answers.as_mut().unwrap().remove(0).to_owned())
        }
    }

    fn nobody() -> Scripted {
        Scripted { answers: None, asked: Vec::new() }
    }

    fn somebody(answer: &'static str) -> Scripted {
        Scripted { answers: Some(vec![answer]), asked: Vec::new() }
    }

    #[test]
    fn only_yes_is_yes() {
        assert!(yes(&mut nobody(), true, "This removes 3 packs").is_ok());
        assert_eq!(yes(&mut nobody(), false, "This removes 3 packs").unwrap_err().kind(), ErrorKind::Usage);
        assert!(yes(&mut somebody("yes"), false, "This removes 3 packs").is_ok());
        for no in ["", "y", "no", "Yes", "yess"] {
            assert_eq!(yes(&mut somebody(no), false, "This removes 3 packs").unwrap_err().kind(), ErrorKind::Interrupted, "{no}");
        }
        let mut asker = somebody("yes");
        yes(&mut asker, true, "This removes 3 packs").unwrap();
        assert!(asker.asked.is_empty());
    }

    #[test]
    fn a_whole_source_wants_its_name() {
        let names = ["pgdata".to_owned()];
        assert!(typed_name(&mut nobody(), true, &names, "pgdata").is_ok());
        assert!(typed_name(&mut nobody(), false, &names, "pgdata").is_err(), "the name alone is not a yes");
        assert!(typed_name(&mut nobody(), true, &names, "other").is_err());
        assert!(typed_name(&mut nobody(), true, &[], "pgdata").is_err(), "a yes alone is not the name");
        assert!(typed_name(&mut somebody("pgdata"), true, &[], "pgdata").is_ok());
        assert!(typed_name(&mut somebody("yes"), true, &[], "pgdata").is_err());
    }
}
