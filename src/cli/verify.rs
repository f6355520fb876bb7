//! `icecore verify`

use clap::{Args, ValueEnum};

use super::exit::Outcome;
use super::{Context, open, render, time};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind, Result};
use crate::ops;
use crate::ops::verify::{Amount, Depth, VerifyOptions, VerifyReport};

#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// Also read every byte of every pack and compare it with the pack's checksums; with `deep` also open every blob
    #[arg(long, value_enum, value_name = "DEPTH", num_args = 0..=1, require_equals = true, default_missing_value = "scrub")]
    data: Option<Data>,
    /// With --data: only packs that were not proved at this depth within AGE ("30d", "2 weeks")
    #[arg(long, value_name = "AGE", requires = "data")]
    older_than: Option<String>,
    /// With --data: at most this percentage of the repository's bytes, those first that were proved longest ago
    #[arg(long, value_name = "PCT", requires = "data")]
    sample: Option<String>,
    /// Only snapshots of this source
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Data {
    /// Compare every byte with the packs' checksums
    Scrub,
    /// And open every blob
    Deep,
}

pub(super) fn run(args: &VerifyArgs, context: &mut Context) -> Result<Outcome> {
    let older_than_seconds = args.older_than.as_deref().map(time::parse_age).transpose()?.map(time::Age::seconds);
    let sample_millionths = args.sample.as_deref().map(millionths).transpose()?;
    let repo = open::repository(context)?;
    let all = context.snapshots(&repo)?.0;
    let source = match &args.source {
        Some(text) => Some(context.selector(&all)?.source(text)?),
        None => None,
    };
    let depth = match args.data {
        None => Depth::Structure,
        Some(Data::Scrub) => Depth::Scrub,
        Some(Data::Deep) => Depth::Deep,
    };
    let options = VerifyOptions { depth, source, older_than_seconds, sample_millionths };
    let bars = context.bars("verify");
    let report = ops::verify::verify(&repo, &options, &context.progress);
    drop(bars);
    let report = report?;
    let now = context.clock.now();
    context.out.report(&report, || text(&report, depth, now))?;
    Ok(if report.damaged.is_empty() && report.affected_count == 0 { Outcome::Done } else { Outcome::DamageFound })
}

/// Reads a percentage above 0 and up to 100, such as `5`, `0.5` or `5%`, as millionths, rounded up.
fn millionths(text: &str) -> Result<u32> {
    let bad = || {
        Error::new(ErrorKind::Usage, "not a percentage")
            .on(text.escape_debug())
            .hint("write a number above 0 and up to 100, such as 5 or 0.5")
    };
    let number = text.trim().strip_suffix('%').unwrap_or(text.trim()).trim_end();
    // Only digits and a point: the parser would take `inf` and `1e1`, too.
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let percent = number.parse::<f64>().ok().filter(|percent| plain && *percent > 0.0 && *percent <= 100.0).ok_or_else(bad)?;
    Ok((percent * 10_000.0).ceil() as u32)
}

fn text(report: &VerifyReport, depth: Depth, now: Timestamp) -> String {
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
    text.push_str(&proofs(report, depth, now));
    text
}

/// What is proved now. Where nobody ever proved anything and nobody asked to, there is nothing to say.
fn proofs(report: &VerifyReport, depth: Depth, now: Timestamp) -> String {
    let how = if depth == Depth::Deep { "opened" } else { "scrubbed" };
    let amount = |amount: &Amount| format!("{} ({})", render::count(amount.packs, "pack"), render::size(amount.bytes));
    let mut parts = Vec::new();
    if depth != Depth::Structure {
        parts.push(format!("{how} {}", amount(&report.proved)));
    } else if report.proved_before.packs == 0 {
        return String::new();
    }
    if report.proved_before.packs > 0 {
        let since = report.oldest_proof_seconds.map(|seconds| render::age(Timestamp::new(seconds, 0), now)).unwrap_or_default();
        parts.push(format!("{how} before: {}, the oldest {since}", amount(&report.proved_before)));
    }
    if report.never_proved.packs > 0 {
        parts.push(format!("not {how} so far: {}", amount(&report.never_proved)));
    }
    parts.join("; ") + "\n"
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::ops::verify::{Affected, Damage};

    #[test]
    fn damage_is_listed_with_what_it_breaks() {
        let sound = VerifyReport { snapshots: 2, packs: 1, blobs: 3, bytes: 2048, seconds: 0.5, ..VerifyReport::default() };
        let now = Timestamp::new(1_000_000, 0);
        let text = |report: &VerifyReport| text(report, Depth::Structure, now);
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

    #[test]
    fn what_is_proved_is_told_with_its_age() {
        let now = Timestamp::new(1_000_000, 0);
        let amount = |packs| Amount { packs, bytes: packs << 20 };
        let mut report = VerifyReport { proved: amount(2), ..VerifyReport::default() };
        assert_eq!(proofs(&report, Depth::Scrub, now), "scrubbed 2 packs (2.0 MiB)\n");
        report.proved_before = amount(3);
        report.oldest_proof_seconds = Some(1_000_000 - 7200);
        report.never_proved = amount(1);
        assert_eq!(
            proofs(&report, Depth::Deep, now),
            "opened 2 packs (2.0 MiB); opened before: 3 packs (3.0 MiB), the oldest 2 h ago; not opened so far: 1 pack (1.0 MiB)\n"
        );
        assert!(proofs(&report, Depth::Structure, now).starts_with("scrubbed before: 3 packs"));
    }

    #[test]
    fn percentages_are_read_and_what_is_none_is_refused() {
        for (text, expected) in [("5", 50_000), ("100%", 1_000_000), ("0.5", 5000), (" 2.5 % ", 25_000), ("0.00001", 1)] {
            assert_eq!(millionths(text).unwrap(), expected, "{text}");
        }
        for text in ["", "0", "0.0", "101", "-1", "inf", "nan", "1e1", "%", "5%%", ".", "five"] {
            assert!(millionths(text).is_err(), "{text}");
        }
    }
}
