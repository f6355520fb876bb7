//! Turns values into text for people: tables, sizes, durations, times, modes. Every name passes through an escape, so
//! that nothing in a repository or an engine can steer a terminal.

use std::fmt::Write as _;
use std::path::Path;

use jiff::tz::TimeZone;

use crate::clock::Timestamp;
use crate::model::path::escape;
use crate::model::{Node, NodeKind};

/// Bytes in units of 1024: `0 B`, `1023 B`, `1.0 KiB`, `12.5 GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths, rounded down and in integers: 1023.99 KiB must not read 1024.0 KiB.
    let mut unit = 0;
    let mut step: u64 = 1024;
    while bytes / step >= 1024 && unit + 1 < UNITS.len() {
        step *= 1024;
        unit += 1;
    }
    let tenths = u128::from(bytes) * 10 / u128::from(step);
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A count with its noun: `1 file`, `2 files`, `12 345 files`.
pub(super) fn count(number: u64, noun: &str) -> String {
    let plural = match noun.strip_suffix('y') {
        _ if number == 1 => noun.to_owned(),
        Some(stem) if !noun.ends_with("ay") && !noun.ends_with("ey") => format!("{stem}ies"),
        _ => format!("{noun}s"),
    };
    format!("{} {plural}", grouped(number))
}

/// A number with its digits in groups of three.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

/// Seconds as `0.4 s`, `12.3 s`, `4m 05s`, `2h 07m`, `3d 04h`.
pub(super) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    if seconds < 60.0 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds as u64;
    match whole {
        0..3600 => format!("{}m {:02}s", whole / 60, whole % 60),
        3600..86_400 => format!("{}h {:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d {:02}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// How long `then` lies before `now`: `5 s ago`, `3 h ago`; `in the future` when it does not.
pub(super) fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.seconds.saturating_sub(then.seconds);
    match seconds {
        ..0 => "in the future".to_owned(),
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// A moment in the given time zone, to the second.
pub(super) fn local_time(moment: Timestamp, zone: &TimeZone) -> String {
    match jiff::Timestamp::new(moment.seconds, i32::try_from(moment.nanos).unwrap_or(0)) {
        Ok(timestamp) => timestamp.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => moment.to_string(),
    }
}

/// A text from outside, safe to print.
pub(super) fn name(text: &str) -> String {
    escape(text.as_bytes())
}

/// Bytes as text: as they are when they are UTF-8, else escaped.
pub(super) fn bytes(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| escape(bytes), str::to_owned)
}

/// A path of this host, safe to print.
pub(super) fn path(path: &Path) -> String {
    escape(path.as_os_str().as_encoded_bytes())
}

/// The mode as `ls -l` shows it: `drwxr-xr-x`, `-rwsr-xr-t`.
pub(super) fn mode(node: &Node) -> String {
    let kind = match node.kind {
        NodeKind::File(_) | NodeKind::InlineFile(_) => '-',
        NodeKind::Directory(_) => 'd',
        NodeKind::Symlink(_) => 'l',
        NodeKind::Fifo => 'p',
        NodeKind::Socket => 's',
        NodeKind::CharDevice { .. } => 'c',
        NodeKind::BlockDevice { .. } => 'b',
    };
    let mode = node.meta.mode;
    let mut text = String::from(kind);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// On which side of its column a cell stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a heading, columns as wide as their widest cell. Cells must be printable already.
pub(super) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns.
    pub(super) fn new(columns: &[(&'static str, Side)]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; as many cells as there are columns.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells);
    }

    /// The table as text, one line a row.
    pub(super) fn text(&self) -> String {
        let widths: Vec<usize> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, (heading, _))| {
                let widest = self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max();
                widest.unwrap_or(0).max(heading.len())
            })
            .collect();
        let mut text = String::new();
        let headings: Vec<String> = self.columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, side)) in row.iter().zip(&widths).zip(&self.columns) {
                let _ = match side {
                    Side::Left => write!(line, "{cell:<width$}  "),
                    Side::Right => write!(line, "{cell:>width$}  "),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::{Meta, Xattrs};

    #[test]
    fn sizes_are_in_units_of_1024_and_never_round_up_into_the_next() {
        for (bytes, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1023.9 KiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn counts_and_durations_read_well() {
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "file"), "0 files");
        assert_eq!(count(1_234_567, "entry"), "1 234 567 entries");
        assert_eq!(count(2, "day"), "2 days");
        for (seconds, expected) in [(0.44, "0.4 s"), (59.9, "59.9 s"), (65.0, "1m 05s"), (7500.0, "2h 05m"), (97_200.0, "1d 03h")] {
            assert_eq!(duration(seconds), expected);
        }
        assert_eq!(duration(f64::NAN), "?");
    }

    #[test]
    fn ages_and_times_are_of_the_zone_that_was_asked_for() {
        let now = Timestamp::new(1_000_000, 0);
        for (before, expected) in [(5, "5 s ago"), (61, "1 min ago"), (7200, "2 h ago"), (200_000, "2 d ago"), (-1, "in the future")] {
            assert_eq!(age(Timestamp::new(1_000_000 - before, 0), now), expected);
        }
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        assert_eq!(local_time(Timestamp::new(1_795_179_787, 5), &zone), "2026-11-20 14:03:07");
        assert_eq!(local_time(Timestamp::new(i64::MAX, 0), &zone), format!("{}s", i64::MAX), "a forged time does not fail");
    }

    #[test]
    fn modes_look_as_ls_prints_them() {
        let node = |mode, kind| Node {
            name: None,
            meta: Meta { mode, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: Xattrs::None, links: None, changed: false },
            kind,
        };
        for (bits, expected) in [
            (0o755, "prwxr-xr-x"),
            (0o4755, "prwsr-xr-x"),
            (0o2644, "prw-r-Sr--"),
            (0o1777, "prwxrwxrwt"),
            (0o1000, "p--------T"),
            (0, "p---------"),
        ] {
            assert_eq!(mode(&node(bits, NodeKind::Fifo)), expected);
        }
        assert!(mode(&node(0o777, NodeKind::Symlink(b"x".to_vec()))).starts_with('l'));
    }

    #[test]
    fn tables_align_and_leave_no_trailing_blanks() {
        let mut table = Table::new(&[("ID", Side::Left), ("SIZE", Side::Right), ("TAGS", Side::Left)]);
        table.row(vec!["abc".into(), "1.0 KiB".into(), String::new()]);
        table.row(vec!["naïve☃".into(), "5 B".into(), "x".into()]);
        assert_eq!(table.text(), "ID         SIZE  TAGS\nabc     1.0 KiB\nnaïve☃      5 B  x\n");
    }
}
