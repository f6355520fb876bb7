//! The parameter study: what the size of chunks, the zstd level and deltas cost and save, on two states of some folders.
//!
//! ```text
//! cargo bench --bench study -- [--out DIR] [--averages 16,64,256] [--levels 1,3] [--all-levels-at 128] [OLD NEW]...
//! ```
//!
//! OLD and NEW are two states of one folder; each subfolder of OLD is a part of its own, and so is a `pg_wal` below it.
//! Without any, small data is made. Every stage runs alone in one thread and its processor time is taken, so other work
//! on the machine disturbs little. What is written: `study.md` (tables), `study.tsv` (everything), `study.svg` (the plot).
//!
//! It models the store, it does not run it: sizes count what `docs/format.md` writes for a chunk, packs are not built.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod history;
mod measure;
mod parts;
mod plot;
mod report;
mod stages;

use std::error::Error;
use std::path::PathBuf;

use history::History;
use measure::{Outcome, measure};
use stages::Shape;

/// Parts whose longest file is a table of a database.
const HISTORY_PARTS: [&str; 2] = ["pg", "pages"];

type Failure = Box<dyn Error>;

struct Options {
    out: PathBuf,
    averages: Vec<usize>,
    levels: Vec<i32>,
    /// More levels, for the shape with this average only: they are slow, and what they save depends little on the shape.
    more_levels: Vec<i32>,
    all_levels_at: usize,
    folders: Vec<PathBuf>,
}

fn main() -> Result<(), Failure> {
    let options = parse(std::env::args().skip(1))?;
    std::fs::create_dir_all(&options.out)?;
    let made = if options.folders.is_empty() { Some(parts::make(&options.out.join("study-data"))?) } else { None };
    let folders = made.as_ref().unwrap_or(&options.folders);
    let mut found = Vec::new();
    for pair in folders.chunks(2) {
        let [old, new] = pair else { return Err("folders are given in pairs: OLD NEW".into()) };
        found.extend(parts::find(old, new)?);
    }
    let mut outcomes = Vec::new();
    let shapes = std::iter::once(Shape::PAGES).chain(options.averages.iter().map(|kib| Shape::content(kib << 10)));
    for shape in shapes {
        let with_all = shape.is_content_defined() && shape.average() == options.all_levels_at << 10;
        let mut levels = options.levels.clone();
        if with_all {
            levels.extend(&options.more_levels);
            levels.sort_unstable();
            levels.dedup();
        }
        for part in &found {
            let outcome = measure(part, &shape, &levels, with_all)?;
            eprintln!("{}", report::progress(&outcome));
            outcomes.push(outcome);
        }
    }
    let mut histories = Vec::new();
    if let Some(part) = found.iter().find(|part| HISTORY_PARTS.contains(&part.name.as_str())) {
        for average in [64, 128, 256] {
            for smaller in [2, 4, 8] {
                histories.extend(history::run(&part.old, &part.old_files, Shape::content(average << 10), smaller, 3)?);
            }
        }
    }
    if made.is_some() {
        std::fs::remove_dir_all(options.out.join("study-data"))?;
    }
    write(&options, &outcomes, &histories)
}

fn write(options: &Options, outcomes: &[Outcome], histories: &[History]) -> Result<(), Failure> {
    std::fs::write(options.out.join("study.tsv"), report::raw(outcomes))?;
    std::fs::write(options.out.join("study.svg"), report::plot(outcomes))?;
    let tables = report::tables(outcomes, histories);
    std::fs::write(options.out.join("study.md"), &tables)?;
    println!("{tables}");
    Ok(())
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, Failure> {
    let mut options = Options {
        out: std::env::var_os("STUDY_OUT").map_or_else(|| std::env::temp_dir().join("icecore-study"), PathBuf::from),
        averages: vec![16, 32, 64, 128, 256, 512, 1024],
        levels: vec![1, 3],
        more_levels: vec![-1, 2, 6],
        all_levels_at: 128,
        folders: Vec::new(),
    };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            // cargo gives this to every benchmark.
            "--bench" => {}
            "--out" => options.out = value()?.into(),
            "--averages" => options.averages = list(&value()?)?,
            "--levels" => options.levels = list(&value()?)?,
            "--more-levels" => options.more_levels = list(&value()?)?,
            "--all-levels-at" => options.all_levels_at = value()?.parse()?,
            flag if flag.starts_with("--") => return Err(format!("unknown option {flag}").into()),
            folder => options.folders.push(folder.into()),
        }
    }
    Ok(options)
}

fn list<T: std::str::FromStr>(text: &str) -> Result<Vec<T>, T::Err> {
    text.split(',').map(str::parse).collect()
}
