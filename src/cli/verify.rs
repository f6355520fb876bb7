//! `icecore verify`

use clap::Args;

use super::exit::Outcome;
use super::{Context, open, render};
use crate::error::Result;
use crate::ops;
use crate::ops::verify::{VerifyOptions, VerifyReport};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Read every byte of every pack and open every blob, not only structure and presence
    #[arg(long)]
    data: bool,
    /// Only snapshots of this source
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
}

pub(super) fn run(args: &VerifyArgs, context: &mut Context) -> Result<Outcome> {
    let repo = open::repository(context)?;
    let all = context.snapshots(&repo)?.0;
    let source = match &args.source {
        Some(text) => Some(context.selector(&all)?.source(text)?),
        None => None,
    };
    let options = VerifyOptions { data: args.data, source };
    let bars = context.bars("verify");
    let report = ops::verify::verify(&repo, &options, &context.progress);
    drop(bars);
    let report = report?;
    context.out.report(&report, || text(&report))?;
    Ok(if report.damaged.is_empty() && report.affected_count == 0 { Outcome::Done } else { Outcome::DamageFound })
}

fn text(report: &VerifyReport) -> String {
    let mut text = String::new();
    for damage in &report.damaged {
        text.push_str(&format!("damaged   {}: {}\n", render::name(&damage.object), render::name(&damage.problem)));
    }
    for damage in &report.healed {
        text.push_str(&format!("healed    {}: {}\n", render::name(&damage.object), render::name(&damage.problem)));
    }
    for affected in &report.affected {
        let snapshot: String = affected.snapshot.chars().take(10).collect();
        text.push_str(&format!(
            "affected  snapshot {} of {}: {}: {}\n",
            render::name(&snapshot),
            render::name(&affected.source),
            super::exit::printable(&affected.path),
            render::name(&affected.problem)
        ));
    }
    let verdict = match (report.damaged.len() as u64, report.affected_count) {
        (0, 0) => "no damage found".to_owned(),
        (damaged, affected) => {
            let unnamed = match affected.saturating_sub(report.affected.len() as u64) {
                0 => String::new(),
                unnamed => format!(" ({} of them not named)", render::grouped(unnamed)),
            };
            format!("{}, {}{unnamed}", render::count(damaged, "damaged object"), render::count(affected, "affected path"))
        }
    };
    text.push_str(&format!(
        "{verdict}; looked at {}, {} and {} ({} read) in {}\n",
        render::count(report.snapshots, "snapshot"),
        render::count(report.packs, "pack"),
        render::count(report.blobs, "blob"),
        render::size(report.bytes),
        render::duration(report.seconds)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::verify::{Affected, Damage};

    #[test]
    fn damage_is_listed_with_what_it_breaks() {
        let sound = VerifyReport { snapshots: 2, packs: 1, blobs: 3, bytes: 2048, seconds: 0.5, ..VerifyReport::default() };
        assert_eq!(text(&sound), "no damage found; looked at 2 snapshots, 1 pack and 3 blobs (2.0 KiB read) in 0.5 s\n");
        let broken = VerifyReport {
            damaged: vec![Damage { object: "packs/ab/abcd".into(), problem: "missing".into() }],
            affected: vec![Affected {
                snapshot: "0123456789abcdef".into(),
                source: "pg\n".into(),
                path: "base/1\\n".into(),
                problem: "a chunk is lost".into(),
            }],
            affected_count: 3,
            ..sound
        };
        let text = text(&broken);
        assert!(
            text.starts_with("damaged   packs/ab/abcd: missing\naffected  snapshot 0123456789 of pg\\n: base/1\\n: a chunk is lost\n"),
            "{text}"
        );
        assert!(text.contains("1 damaged object, 3 affected paths (2 of them not named);"), "{text}");
    }
}
