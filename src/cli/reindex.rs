//! `icecore reindex`

use serde::Serialize;

use super::exit::Outcome;
use super::{Context, open, render};
use crate::error::Result;

#[derive(Serialize)]
struct ProblemFact {
    object: String,
    problem: String,
}

#[derive(Serialize)]
struct Report {
    packs: u64,
    chunks: u64,
    snapshots: u64,
    problems: Vec<ProblemFact>,
}

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let repo = open::repository(context)?;
    let bars = context.bars("reindex");
    let view = repo.reindex();
    drop(bars);
    let view = view?;
    let counts = repo.index().counts()?;
    let problems: Vec<ProblemFact> =
        view.problems.iter().map(|problem| ProblemFact { object: problem.key.clone(), problem: problem.what.clone() }).collect();
    let report = Report { packs: counts.packs, chunks: counts.chunks, snapshots: view.snapshots.len() as u64, problems };
    context.out.report(&report, || {
        let mut text = String::new();
        for problem in &report.problems {
            text.push_str(&format!("damaged   {}: {}\n", render::name(&problem.object), render::name(&problem.problem)));
        }
        text + &format!("the index holds {} of {}\n", render::count(report.chunks, "chunk"), render::count(report.packs, "pack"))
    })?;
    Ok(if report.problems.is_empty() { Outcome::Done } else { Outcome::DamageFound })
}
