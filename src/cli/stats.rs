//! `icecore stats`

use super::exit::Outcome;
use super::{Context, open, render};
use crate::error::Result;
use crate::ops;

pub(super) fn run(context: &mut Context) -> Result<Outcome> {
    let repo = open::repository(context)?;
    let report = ops::stats::stats(&repo)?;
    context.out.report(&report, || {
        let ratio = |from: u64, to: u64| if to == 0 { String::new() } else { format!(" ({:.1}:1)", from as f64 / to as f64) };
        [
            ("repository", report.repository.clone()),
            ("encryption", render::name(&report.encryption)),
            ("snapshots", render::grouped(report.snapshots)),
            ("they restore to", render::size(report.restore_bytes)),
            ("chunks", render::grouped(report.chunks)),
            ("of", format!("{}{}", render::size(report.raw_bytes), ratio(report.restore_bytes, report.raw_bytes))),
            ("stored in", format!("{}{}", render::size(report.stored_bytes), ratio(report.raw_bytes, report.stored_bytes))),
            ("packs", render::grouped(report.packs)),
            ("local index", render::size(report.index_bytes)),
        ]
        .iter()
        .map(|(what, value)| format!("{what:<16} {value}\n"))
        .collect()
    })?;
    Ok(Outcome::Done)
}
