//! SQLite: the backup API by way of the `sqlite3` shell, within one read transaction, into a temporary file that is then
//! streamed. It keeps every page where it is, so that two dumps share what did not change.

use super::Application;
use super::plan::{Placement, Plan, Scratch, Step, Tool, args};
use super::recognise::SQLITE_HEADER;
use super::stream::{Ends, Trailer, Verdict};
use crate::docker::ContainerDetail;

const FILE: &str = "backup.db";

/// See [`super::Preset::dump`]. `database` is an absolute path.
pub(super) fn dump(database: &str, container: &ContainerDetail, token: &str) -> Plan {
    let scratch = Scratch::new(container.env_value("TMPDIR"), token);
    let backup = args(&[
        "-batch",
        "-bail",
        // A database that is not there is an error, not a new one.
        "-readonly",
        database,
        ".timeout 30000",
        // Without it, each write by the application makes the backup start again.
        "BEGIN",
        "SELECT 1 FROM sqlite_master LIMIT 1",
        &format!(".backup main {}", scratch.file(FILE)),
    ]);
    Plan {
        application: Application::Sqlite,
        tool: Tool { names: &["sqlite3"], version: &["--version"], users: &[None] },
        env: Vec::new(),
        steps: vec![scratch.make(), Step::tool("back the database up", backup), scratch.stream(FILE), scratch.remove()],
        trailer: Trailer::Sqlite,
    }
}

/// See [`super::Preset::restore`].
pub(super) fn placement(database: &str) -> Placement {
    Placement {
        file: database.to_owned(),
        remove: ["-wal", "-shm", "-journal"].iter().map(|suffix| format!("{database}{suffix}")).collect(),
        notes: "owner and mode as the old file's; PRAGMA integrity_check tells whether it is sound",
    }
}

/// Whether `ends` are those of a whole database: as many pages as its header says.
pub(super) fn judge(ends: &Ends<'_>) -> Verdict {
    if !ends.head.starts_with(SQLITE_HEADER) {
        return Err("it does not begin as a SQLite database".into());
    }
    let page_bytes = match ends.head.get(16..18) {
        Some([0, 1]) => 65536,
        Some([high, low]) => u64::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    };
    let pages = ends.head.get(28..).and_then(|rest| rest.first_chunk()).map_or(0, |pages| u64::from(u32::from_be_bytes(*pages)));
    if page_bytes == 0 || pages.checked_mul(page_bytes) != Some(ends.len) {
        return Err(format!("its header says {pages} pages of {page_bytes} bytes, but it has {} bytes", ends.len));
    }
    Ok(0)
}
