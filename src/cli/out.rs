//! Standard output: the one place that writes to it. It makes sure that a JSON run prints exactly one document, also when
//! it fails half way, and that a reader who went away (a broken pipe) ends the run quietly.

use std::io::{self, Write};

use serde::Serialize;

use super::exit::Fact;
use crate::error::{Error, ErrorKind, IoContext, Result};

/// Where a verb's results go.
pub(super) struct Out {
    to: Box<dyn Write>,
    json: bool,
    document: Document,
    reader_left: bool,
}

/// How far the JSON document is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Document {
    None,
    /// An object with an open list, and whether the list has items yet.
    List {
        empty: bool,
    },
    Complete,
}

impl Out {
    /// Results as text, or as one JSON document, to `to`.
    pub(super) fn new(to: Box<dyn Write>, json: bool) -> Self {
        Self { to, json, document: Document::None, reader_left: false }
    }

    /// Whether results are wanted as JSON.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// Whether nobody reads the output any more.
    pub(super) fn reader_left(&self) -> bool {
        self.reader_left
    }

    /// Prints a verb's whole result: `document` with `--json`, else what `text` makes. A reader who left changes nothing
    /// about what the verb did, so that is not an error.
    pub(super) fn report<T: Serialize>(&mut self, document: &T, text: impl FnOnce() -> String) -> Result<()> {
        let printed = if self.json {
            self.document = Document::Complete;
            serde_json::to_string_pretty(document).map(|text| text + "\n").map_err(io::Error::from)
        } else {
            Ok(text())
        };
        let result = printed.and_then(|text| self.write_all(text.as_bytes())).and_then(|()| self.flush());
        match result {
            Err(_) if self.reader_left => Ok(()),
            other => other.context(ErrorKind::Target, "cannot write", "standard output"),
        }
    }

    /// Begins a list that is printed while it is made. With `--json` it becomes `{HEAD.., "name": [..]}`; `head` must
    /// serialize as an object. Without, nothing is printed.
    pub(super) fn begin_list<T: Serialize>(&mut self, head: &T, name: &str) -> Result<()> {
        if self.json {
            let mut text = serde_json::to_string(head).map_err(json_error)?;
            text.pop();
            let comma = if text.len() > 1 { "," } else { "" };
            self.put(&format!("{text}{comma}\"{name}\":["))?;
            self.document = Document::List { empty: true };
        }
        Ok(())
    }

    /// Prints one item of the list: `document` with `--json`, else the line that `text` makes.
    pub(super) fn item<T: Serialize>(&mut self, document: &T, text: impl FnOnce() -> String) -> Result<()> {
        if !self.json {
            return self.put(&(text() + "\n"));
        }
        let comma = if self.document == (Document::List { empty: true }) { "\n" } else { ",\n" };
        let text = serde_json::to_string(document).map_err(json_error)?;
        self.put(&format!("{comma}{text}"))?;
        self.document = Document::List { empty: false };
        Ok(())
    }

    /// Ends the list: with `--json` adds the fields of `tail` (an object) and closes the document, else prints the text.
    pub(super) fn end_list<T: Serialize>(&mut self, tail: &T, text: impl FnOnce() -> String) -> Result<()> {
        if self.json {
            let tail = serde_json::to_string(tail).map_err(json_error)?;
            let fields = tail.get(1..).filter(|fields| *fields != "}").map_or("}".to_owned(), |fields| format!(",{fields}"));
            self.document = Document::Complete;
            self.put(&format!("\n]{fields}\n"))?;
        } else {
            self.put(&text())?;
        }
        self.flush().context(ErrorKind::Target, "cannot write", "standard output")
    }

    /// With `--json`, completes the document with an error, or makes one of it alone; where the verb printed its document
    /// before it failed, that one stands.
    pub(super) fn error(&mut self, error: &Error) {
        if !self.json || self.reader_left {
            return;
        }
        let Ok(fact) = serde_json::to_string(&Fact::from(error)) else { return };
        let text = match self.document {
            Document::None => format!("{{\"error\":{fact}}}\n"),
            Document::List { .. } => format!("\n],\"error\":{fact}}}\n"),
            Document::Complete => return,
        };
        self.document = Document::Complete;
        // Standard error and the exit code tell the same; there is nowhere left to report this to.
        let _ = self.write_all(text.as_bytes()).and_then(|()| self.flush());
    }

    fn put(&mut self, text: &str) -> Result<()> {
        self.write_all(text.as_bytes()).context(ErrorKind::Target, "cannot write", "standard output")
    }

    fn notice<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
            self.reader_left = true;
        }
        result
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.to.write(bytes);
        self.notice(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.to.flush();
        self.notice(result)
    }
}

fn json_error(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Target, "cannot write JSON").because(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A writer whose bytes can be looked at, and that breaks like a pipe after some bytes.
    #[derive(Clone, Default)]
    pub(in super::super) struct Kept {
        bytes: Arc<Mutex<Vec<u8>>>,
        room: Option<usize>,
    }

    impl Kept {
        pub(in super::super) fn text(&self) -> String {
            String::from_utf8(self.bytes.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Kept {
        fn write(&mut self, new: &[u8]) -> io::Result<usize> {
            let mut bytes = self.bytes.lock().unwrap();
            if self.room.is_some_and(|room| bytes.len() + new.len() > room) {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            bytes.extend_from_slice(new);
            Ok(new.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn document(act: impl FnOnce(&mut Out) -> Result<()>) -> serde_json::Value {
        let kept = Kept::default();
        let mut out = Out::new(Box::new(kept.clone()), true);
        if let Err(error) = act(&mut out) {
            out.error(&error);
        }
        serde_json::from_str(&kept.text()).unwrap_or_else(|error| panic!("{error}: {}", kept.text()))
    }

    #[derive(Serialize)]
    struct Head {
        snapshot: u8,
    }
    #[derive(Serialize)]
    struct Nothing {}

    #[test]
    fn a_list_is_one_document_however_it_ends() {
        let whole = document(|out| {
            out.begin_list(&Head { snapshot: 7 }, "entries")?;
            out.item(&1, String::new)?;
            out.item(&2, String::new)?;
            out.end_list(&Head { snapshot: 8 }, String::new)
        });
        assert_eq!(whole["entries"], serde_json::json!([1, 2]));
        let empty = document(|out| {
            out.begin_list(&Nothing {}, "entries")?;
            out.end_list(&Nothing {}, String::new)
        });
        assert_eq!(empty, serde_json::json!({"entries": []}));
        for items in 0..3 {
            let failed = document(|out| {
                out.begin_list(&Head { snapshot: 7 }, "entries")?;
                for item in 0..items {
                    out.item(&item, String::new)?;
                }
                Err(Error::damaged("a tree is damaged"))
            });
            assert_eq!(failed["entries"].as_array().unwrap().len(), items);
            assert_eq!(failed["error"]["kind"], "damaged");
        }
    }

    #[test]
    fn an_error_is_a_document_only_when_there_is_none_yet() {
        let alone = document(|_| Err(Error::new(ErrorKind::Busy, "busy")));
        assert_eq!(alone["error"]["kind"], "busy");
        let after = document(|out| {
            out.report(&Head { snapshot: 7 }, String::new)?;
            Err(Error::new(ErrorKind::Busy, "busy"))
        });
        assert_eq!(after, serde_json::json!({"snapshot": 7}));
    }

    #[test]
    fn a_reader_who_left_does_not_fail_a_report_but_ends_a_list() {
        let mut out = Out::new(Box::new(Kept { room: Some(3), ..Kept::default() }), false);
        out.report(&Nothing {}, || "more than three".to_owned()).unwrap();
        assert!(out.reader_left());
        let mut out = Out::new(Box::new(Kept { room: Some(3), ..Kept::default() }), false);
        assert!(out.item(&1, || "more than three".to_owned()).is_err());
        assert!(out.reader_left());
    }
}
