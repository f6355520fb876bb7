//! What the study found: tables in Markdown, everything in TSV, and what the plot shows.

use std::fmt::Write;

use crate::history::History;
use crate::measure::{Encoded, Outcome, State};
use crate::plot::{Panel, Series, draw};

const MB: f64 = 1e6;

/// One line while the study runs.
pub(crate) fn progress(outcome: &Outcome) -> String {
    let (first, second) = (&outcome.first, &outcome.second);
    let mut line = format!("{:<16} {:<14} {:>7} chunks", outcome.part, outcome.shape.name(), first.new_chunks);
    for ((level, a), b) in outcome.levels.iter().zip(&first.encoded).zip(&second.encoded) {
        let sizes = [a.plain_bytes, b.plain_bytes, b.delta_bytes].map(|bytes| bytes as f64 / MB);
        let _ = write!(line, " | zstd {level}: {:.1} MB, then {:.2} or {:.2}", sizes[0], sizes[1], sizes[2]);
    }
    line
}

/// Everything, one line for each part, shape and level.
pub(crate) fn raw(outcomes: &[Outcome]) -> String {
    let mut out = "part\tshape\tlevel\tstate\tbytes\tnew_chunks\tnew_bytes\tplain_bytes\tdelta_bytes\tdeltas\tcut_s\thash_s\tplain_s\t\
                   plain_beside_delta_s\tdelta_s\n"
        .to_owned();
    for outcome in outcomes {
        for (name, state) in [("first", &outcome.first), ("second", &outcome.second)] {
            for (level, e) in outcome.levels.iter().zip(&state.encoded) {
                let _ = writeln!(
                    out,
                    "{}\t{}\t{level}\t{name}\t{}\t{}\t{}\t{}\t{}\t{}\t{:.4}\t{:.4}\t{:.4}\t{:.4}\t{:.4}",
                    outcome.part,
                    outcome.shape.name(),
                    state.bytes,
                    state.new_chunks,
                    state.new_bytes,
                    e.plain_bytes,
                    e.delta_bytes,
                    e.deltas,
                    state.cut,
                    state.hash,
                    e.plain,
                    e.plain_beside_delta,
                    state.delta
                );
            }
        }
    }
    out
}

/// The tables that people read.
pub(crate) fn tables(outcomes: &[Outcome], histories: &[History]) -> String {
    let mut out = String::new();
    totals(&mut out, outcomes);
    for level in common_levels(outcomes) {
        sizes(&mut out, outcomes, level);
    }
    levels(&mut out, outcomes);
    history(&mut out, histories);
    out
}

/// All parts together.
fn totals(out: &mut String, outcomes: &[Outcome]) {
    let _ = write!(
        out,
        "\nAll parts together; sizes in MB with metadata, processor seconds of one core\n\n\
         | chunks, KiB | zstd | chunks | first | second, plain | second, deltas | first: cut, hash, compress, s | second, plain, s | second, deltas, s |\n\
         |---|---|---|---|---|---|---|---|---|\n"
    );
    let mut shapes: Vec<_> = outcomes.iter().map(|outcome| outcome.shape).collect();
    shapes.dedup();
    for shape in shapes {
        let same: Vec<_> = outcomes.iter().filter(|outcome| outcome.shape == shape).collect();
        let Some(one) = same.first() else { continue };
        for level in &one.levels {
            let sum = |value: &dyn Fn(&Outcome, &Encoded, &Encoded) -> f64| -> f64 {
                same.iter().filter_map(|o| Some(value(o, at_level(o, &o.first, *level)?, at_level(o, &o.second, *level)?))).sum()
            };
            let _ = writeln!(
                out,
                "| {} | {level} | {} | {:.1} | {:.1} | {:.1} | {:.2}, {:.2}, {:.2} | {:.2} | {:.2} |",
                shape.name(),
                same.iter().map(|outcome| outcome.first.new_chunks).sum::<u64>(),
                sum(&|_, a, _| a.plain_bytes as f64 / MB),
                sum(&|_, _, b| b.plain_bytes as f64 / MB),
                sum(&|_, _, b| b.delta_bytes as f64 / MB),
                sum(&|o, _, _| o.first.cut),
                sum(&|o, _, _| o.first.hash),
                sum(&|_, a, _| a.plain),
                sum(&|o, _, b| o.second.cut + o.second.hash + b.plain),
                sum(&|o, _, b| o.second.cut + o.second.hash + o.second.delta + b.plain_beside_delta),
            );
        }
    }
}

fn sizes(out: &mut String, outcomes: &[Outcome], level: i32) {
    let _ = write!(
        out,
        "\nzstd {level}; sizes in MB with metadata, processor seconds of one core\n\n\
         | part | chunks, KiB | chunks | mean, KiB | first | second, plain | second, deltas | first, s | second plain, s | second deltas, s |\n\
         |---|---|---|---|---|---|---|---|---|---|\n"
    );
    for outcome in outcomes {
        let (Some(a), Some(b)) = (at_level(outcome, &outcome.first, level), at_level(outcome, &outcome.second, level)) else { continue };
        let (first, second) = (&outcome.first, &outcome.second);
        let _ = writeln!(
            out,
            "| {} | {} | {} | {:.1} | {:.1} | {:.2} | {:.2} | {:.2} | {:.2} | {:.2} |",
            outcome.part,
            outcome.shape.name(),
            first.new_chunks,
            first.new_bytes as f64 / 1024.0 / first.new_chunks.max(1) as f64,
            a.plain_bytes as f64 / MB,
            b.plain_bytes as f64 / MB,
            b.delta_bytes as f64 / MB,
            first.cut + first.hash + a.plain,
            second.cut + second.hash + b.plain,
            second.cut + second.hash + second.delta + b.plain_beside_delta,
        );
    }
}

/// The shape that was measured at the most levels.
fn levels(out: &mut String, outcomes: &[Outcome]) {
    let _ = write!(
        out,
        "\nLevels; sizes in MB, of plain blobs with metadata, MB/s of one core\n\n\
         | part | chunks, KiB | zstd | first | compress, MB/s | second, plain | second, all as deltas of this level | encode deltas, MB/s |\n\
         |---|---|---|---|---|---|---|---|\n"
    );
    for outcome in outcomes {
        for ((level, a), b) in outcome.levels.iter().zip(&outcome.first.encoded).zip(&outcome.second.encoded) {
            let Some((delta_bytes, delta)) = b.deltas_at_level else { continue };
            let _ = write!(
                out,
                "| {} | {} | {level} | {:.1} | {:.0} | {:.2} |",
                outcome.part,
                outcome.shape.name(),
                a.plain_bytes as f64 / MB,
                outcome.first.new_bytes as f64 / MB / a.plain,
                b.plain_bytes as f64 / MB,
            );
            // Of a few chunks the rate says nothing.
            let _ = if outcome.second.bases > 100 {
                writeln!(out, " {:.2} | {:.0} |", delta_bytes as f64 / MB, outcome.second.base_bytes as f64 / MB / delta)
            } else {
                writeln!(out, " - | - |")
            };
        }
    }
}

fn history(out: &mut String, histories: &[History]) {
    let _ = write!(
        out,
        "\n100 snapshots of 64 MiB of a table with 150 pages written to between them: stored bytes for a page written to\n\n\
         | chunks, KiB | a delta is taken under | bytes | new bases, of all |\n|---|---|---|---|\n"
    );
    for history in histories {
        let (name, share) = (history.shape.name(), 100.0 * history.bases_share);
        let _ = writeln!(out, "| {name} | 1/{} | {:.0} | {share:.1} % |", history.smaller, history.bytes_per_touch);
    }
}

/// Three panels over the average size of chunks: the first state, what the second adds, and what both cost.
pub(crate) fn plot(outcomes: &[Outcome]) -> String {
    let level = common_levels(outcomes).last().copied().unwrap_or(0);
    let mut names: Vec<&str> = outcomes.iter().map(|outcome| outcome.part.as_str()).collect();
    names.dedup();
    names.sort_unstable();
    names.dedup();
    // What hardly changes is not to be seen beside what does.
    let changes = |name: &str| outcomes.iter().filter(|o| o.part == name).any(|o| o.second.new_bytes > 1_000_000);
    let mut first = Panel::new(format!("First state, zstd {level}"), "stored, % of that with 64 KiB");
    let mut second = Panel::new(format!("Second state, zstd {level}"), "stored, MB (dashed: without deltas)");
    second.is_log = true;
    for (color, name) in names.iter().enumerate() {
        let points = |value: &dyn Fn(&Encoded, &Encoded) -> f64| -> Vec<(f64, f64)> {
            let of_part = outcomes.iter().filter(|outcome| outcome.part == *name && outcome.shape.is_content_defined());
            of_part
                .filter_map(|outcome| {
                    let (a, b) = (at_level(outcome, &outcome.first, level)?, at_level(outcome, &outcome.second, level)?);
                    Some(((outcome.shape.average() >> 10) as f64, value(a, b)))
                })
                .collect()
        };
        let sizes = points(&|a, _| a.plain_bytes as f64);
        if let Some((_, whole)) = sizes.iter().find(|(x, _)| *x == 64.0).or(sizes.first()).copied() {
            let shares = sizes.iter().map(|(x, y)| (*x, 100.0 * y / whole)).collect();
            first.series.push(Series { name: (*name).to_owned(), color, is_dashed: false, points: shares });
        }
        if !changes(name) {
            continue;
        }
        second.series.push(Series { name: (*name).to_owned(), color, is_dashed: false, points: points(&|_, b| b.delta_bytes as f64 / MB) });
        second.series.push(Series { name: String::new(), color, is_dashed: true, points: points(&|_, b| b.plain_bytes as f64 / MB) });
    }
    let mut time = Panel::new("Processor time of all parts".to_owned(), "seconds of one core (dashed: second state)");
    for (color, level) in common_levels(outcomes).into_iter().enumerate() {
        let total = |cost: &dyn Fn(&Outcome) -> Option<f64>| -> Vec<(f64, f64)> {
            let mut sums: Vec<(f64, f64)> = Vec::new();
            for outcome in outcomes.iter().filter(|outcome| outcome.shape.is_content_defined()) {
                let x = (outcome.shape.average() >> 10) as f64;
                let cost = cost(outcome).unwrap_or(0.0);
                match sums.iter_mut().find(|(at, _)| *at == x) {
                    Some((_, sum)) => *sum += cost,
                    None => sums.push((x, cost)),
                }
            }
            sums
        };
        let first = total(&|o| Some(o.first.cut + o.first.hash + at_level(o, &o.first, level)?.plain));
        let second = total(&|o| {
            let b = at_level(o, &o.second, level)?;
            Some(o.second.cut + o.second.hash + o.second.delta + b.plain_beside_delta)
        });
        time.series.push(Series { name: format!("zstd {level}"), color, is_dashed: false, points: first });
        time.series.push(Series { name: String::new(), color, is_dashed: true, points: second });
    }
    draw(&[first, second, time], "average size of chunks, KiB")
}

fn at_level<'a>(outcome: &Outcome, state: &'a State, level: i32) -> Option<&'a Encoded> {
    let at = outcome.levels.iter().position(|l| *l == level)?;
    state.encoded.get(at)
}

/// The levels at which every shape was measured.
fn common_levels(outcomes: &[Outcome]) -> Vec<i32> {
    let Some(first) = outcomes.first() else { return Vec::new() };
    first.levels.iter().copied().filter(|level| outcomes.iter().all(|outcome| outcome.levels.contains(level))).collect()
}
