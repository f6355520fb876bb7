//! A SQL script of `pg_dumpall` without the statements that drop and create one role: a server's first role can be neither
//! dropped nor made again. Only what stands before the first database is looked at; after it, such a line may be data.

use std::io::{self, Read};

/// The longest line that is looked at, in bytes; the lines that are meant are shorter.
const LINE_BYTES_MAX: usize = 1024;

/// Where the script of the first database begins.
const FIRST_DATABASE: &[u8] = b"\\connect ";

/// See the module.
pub(super) struct WithoutRole<'a> {
    script: &'a mut (dyn Read + Send),
    skipped: Vec<Vec<u8>>,
    /// Bytes read and not given out: from `at`, of which lines up to `ready` have been looked at.
    held: Vec<u8>,
    at: usize,
    ready: usize,
    /// What comes next is not the start of a line.
    is_in_line: bool,
    /// Everything that follows is given out as it is.
    is_through: bool,
}

impl<'a> WithoutRole<'a> {
    pub(super) fn new(script: &'a mut (dyn Read + Send), role: &str) -> Self {
        // As a name that needs no quotes, and as one that does.
        let names = [role.to_owned(), format!("\"{}\"", role.replace('"', "\"\""))];
        let statements = ["DROP ROLE IF EXISTS", "DROP ROLE", "CREATE ROLE"];
        let line = |statement: &str, name: &str| format!("{statement} {name};\n").into_bytes();
        let skipped = statements.iter().flat_map(|statement| names.iter().map(|name| line(statement, name))).collect();
        Self { script, skipped, held: Vec::new(), at: 0, ready: 0, is_in_line: false, is_through: false }
    }

    /// Reads the next line that stays, or a part of a long one.
    fn advance(&mut self) -> io::Result<()> {
        self.held.drain(..self.at);
        (self.at, self.ready) = (0, 0);
        loop {
            let end = self.read_line()?;
            let line = &self.held[..end];
            let is_start = !std::mem::replace(&mut self.is_in_line, !line.ends_with(b"\n"));
            if is_start && self.skipped.iter().any(|skipped| skipped == line) {
                self.held.drain(..end);
                continue;
            }
            self.is_through = is_start && line.starts_with(FIRST_DATABASE);
            self.ready = if self.is_through { self.held.len() } else { end };
            return Ok(());
        }
    }

    /// Where the next line ends, or what is looked at of it.
    fn read_line(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 8192];
        loop {
            if let Some(end) = self.held.iter().position(|b| *b == b'\n') {
                return Ok(end + 1);
            }
            if self.held.len() >= LINE_BYTES_MAX {
                return Ok(self.held.len());
            }
            match self.script.read(&mut chunk)? {
                0 => return Ok(self.held.len()),
                count => self.held.extend_from_slice(&chunk[..count]),
            }
        }
    }
}

impl Read for WithoutRole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.ready {
            if self.is_through {
                return self.script.read(buffer);
            }
            self.advance()?;
        }
        let count = buffer.len().min(self.ready - self.at);
        buffer[..count].copy_from_slice(&self.held[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Gives out few bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len());
            (&mut self.0).take(count as u64).read(buffer)
        }
    }

    fn without(role: &str, script: &str) -> String {
        let mut results = [1, 7, 8192].map(|size| {
            let mut text = String::new();
            WithoutRole::new(&mut Slow(script.as_bytes(), size), role).read_to_string(&mut text).unwrap();
            text
        });
        assert!(results.windows(2).all(|pair| pair[0] == pair[1]));
        std::mem::take(&mut results[0])
    }

    #[test]
    fn the_statements_of_one_role_go_and_the_rest_stays() {
        let script = "SET a;\nDROP ROLE IF EXISTS app;\nDROP ROLE IF EXISTS app2;\nCREATE ROLE app;\nALTER ROLE app;\nCREATE ROLE app2;\n";
        assert_eq!(without("app", script), "SET a;\nDROP ROLE IF EXISTS app2;\nALTER ROLE app;\nCREATE ROLE app2;\n");
        assert_eq!(without("a\"B", "CREATE ROLE \"a\"\"B\";\nx"), "x");
        assert_eq!(without("app", "CREATE ROLE app;"), "CREATE ROLE app;", "not a whole line");
    }

    #[test]
    fn data_of_a_database_are_never_touched() {
        let script = "CREATE ROLE app;\n\\connect template1\nCOPY t FROM stdin;\nCREATE ROLE app;\n\\.\n";
        assert_eq!(without("app", script), "\\connect template1\nCOPY t FROM stdin;\nCREATE ROLE app;\n\\.\n");
        for length in LINE_BYTES_MAX - 40..LINE_BYTES_MAX + 10 {
            let one_line = format!("-- {} CREATE ROLE app;\n", "x".repeat(length));
            assert_eq!(without("app", &one_line), one_line);
        }
        let long = format!("-- {}\nCREATE ROLE app;\n", "x".repeat(3 * LINE_BYTES_MAX));
        assert_eq!(without("app", &long), format!("-- {}\n", "x".repeat(3 * LINE_BYTES_MAX)));
    }
}
