//! `icecore prune`

use clap::Args;
use serde::Serialize;

use super::exit::Outcome;
use super::{Context, confirm, open, render};
use crate::error::Result;
use crate::ops;
use crate::ops::prune::{PruneOptions, PruneReport};

#[derive(Debug, Args)]
pub(super) struct PruneArgs {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Rewrite a pack when less than this share of it is still used
    #[arg(long, value_name = "PERCENT", default_value_t = 70, value_parser = clap::value_parser!(u8).range(0..=100))]
    repack_below: u8,
    /// Refuse when more than this share of the repository would go
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    free_max: Option<u8>,
}

#[derive(Serialize)]
struct Report<'a> {
    dry_run: bool,
    #[serde(flatten)]
    report: &'a PruneReport,
}

pub(super) fn run(args: &PruneArgs, context: &mut Context) -> Result<Outcome> {
    let options = PruneOptions { dry_run: args.dry_run, repack_below_percent: args.repack_below, free_percent_max: args.free_max };
    let repo = open::repository(context)?;
    let prune = |options: &PruneOptions, what: &str| {
        let bars = context.bars(what);
        let report = ops::prune::prune(&repo, options, &context.progress);
        drop(bars);
        report
    };
    if !args.dry_run && !args.yes {
        let plan = prune(&PruneOptions { dry_run: true, ..options.clone() }, "prune: planning")?;
        if frees_something(&plan) {
            confirm::yes(&mut confirm::Terminal, false, &sentence(&plan))?;
        }
    }
    let report = prune(&options, "prune")?;
    let document = Report { dry_run: args.dry_run, report: &report };
    context.out.report(&document, || text(&report, args.dry_run))?;
    Ok(Outcome::Done)
}

fn frees_something(plan: &PruneReport) -> bool {
    plan.packs_removed > 0 || plan.packs_rewritten > 0 || plan.bytes_after < plan.bytes_before
}

fn sentence(plan: &PruneReport) -> String {
    format!(
        "Prune removes {} of {} ({} of them after copying {}) and frees {}",
        render::grouped(plan.packs_removed),
        render::count(plan.packs, "pack"),
        render::grouped(plan.packs_rewritten),
        render::size(plan.bytes_rewritten),
        render::size(plan.bytes_before.saturating_sub(plan.bytes_after))
    )
}

fn text(report: &PruneReport, dry_run: bool) -> String {
    let dropped = match report.snapshots_dropped {
        0 => String::new(),
        dropped => format!("; {} gone", render::count(dropped, "forgotten snapshot")),
    };
    if !frees_something(report) {
        return format!("nothing to free{dropped}\n");
    }
    let (removed, freed) = if dry_run { ("would be removed", "would be freed") } else { ("removed", "freed") };
    format!(
        "{} of {} {removed}, {} rewritten ({}); {} {freed}, {} left{dropped}; {}\n",
        render::grouped(report.packs_removed),
        render::count(report.packs, "pack"),
        render::grouped(report.packs_rewritten),
        render::size(report.bytes_rewritten),
        render::size(report.bytes_before.saturating_sub(report.bytes_after)),
        render::size(report.bytes_after),
        render::duration(report.seconds)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_to_free_is_not_asked_about() {
        let nothing = PruneReport { packs: 5, bytes_before: 100, bytes_after: 100, ..PruneReport::default() };
        assert!(!frees_something(&nothing));
        assert_eq!(text(&nothing, false), "nothing to free\n");
        let dropped = PruneReport { snapshots_dropped: 2, ..nothing.clone() };
        assert!(!frees_something(&dropped));
        assert_eq!(text(&dropped, false), "nothing to free; 2 forgotten snapshots gone\n");
        for something in [
            PruneReport { packs_removed: 1, ..nothing.clone() },
            PruneReport { packs_rewritten: 1, ..nothing.clone() },
            PruneReport { bytes_after: 99, ..nothing },
        ] {
            assert!(frees_something(&something), "{something:?}");
        }
    }

    #[test]
    fn a_plan_says_would() {
        let plan = PruneReport { packs: 5, packs_removed: 2, bytes_before: 4096, bytes_after: 1024, ..PruneReport::default() };
        assert!(text(&plan, true).starts_with("2 of 5 packs would be removed, 0 rewritten (0 B); 3.0 KiB would be freed, 1.0 KiB left"));
        assert!(text(&plan, false).starts_with("2 of 5 packs removed"));
        assert_eq!(sentence(&plan), "Prune removes 2 of 5 packs (0 of them after copying 0 B) and frees 3.0 KiB");
    }
}
