//! `icecore forget`

use clap::Args;
use serde::Serialize;

use super::config::ForgetDefaults;
use super::exit::{self, Outcome};
use super::render::{Side, Table};
use super::{Context, confirm, open, render, time};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{SnapshotId, SourceIdentity};
use crate::ops;
use crate::ops::forget::{Policy, Verdict};
use crate::repo::Committed;

#[derive(Debug, Args)]
pub(super) struct ForgetArgs {
    /// With a --keep option: only these sources. Without: the snapshots to forget, whatever the configuration file keeps
    #[arg(value_name = "SOURCE|SNAPSHOT")]
    what: Vec<String>,
    /// Keep the newest N of each source
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_last: Option<u32>,
    /// Keep all that are at most this much older than the newest of their source (2d, "3 weeks")
    #[arg(long, value_name = "AGE")]
    keep_within: Option<String>,
    /// Keep one for each of the last N minutes that have some
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_minutely: Option<u32>,
    /// Likewise hours
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_hourly: Option<u32>,
    /// Likewise days
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_daily: Option<u32>,
    /// Likewise weeks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_weekly: Option<u32>,
    /// Likewise months
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_monthly: Option<u32>,
    /// Likewise years
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep_yearly: Option<u32>,
    /// Keep all with this tag; may be repeated
    #[arg(long, value_name = "TAG")]
    keep_tag: Vec<String>,
    /// Only show what would be forgotten
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// With --yes: forget even every snapshot of this source; may be repeated
    #[arg(long, value_name = "NAME")]
    whole_source: Vec<String>,
}

impl ForgetArgs {
    /// Takes from the configuration file the rules that the command line leaves open. Not when snapshots are named and no
    /// rule is given: that forgets them by name, and a file must not change what the arguments mean.
    pub(super) fn fill(&mut self, defaults: ForgetDefaults) {
        let by_name = !self.what.is_empty() && policy(self).is_ok_and(|policy| policy.is_none());
        if by_name {
            return;
        }
        self.keep_last = self.keep_last.or(defaults.keep_last);
        self.keep_within = self.keep_within.take().or(defaults.keep_within);
        self.keep_minutely = self.keep_minutely.or(defaults.keep_minutely);
        self.keep_hourly = self.keep_hourly.or(defaults.keep_hourly);
        self.keep_daily = self.keep_daily.or(defaults.keep_daily);
        self.keep_weekly = self.keep_weekly.or(defaults.keep_weekly);
        self.keep_monthly = self.keep_monthly.or(defaults.keep_monthly);
        self.keep_yearly = self.keep_yearly.or(defaults.keep_yearly);
        if self.keep_tag.is_empty() {
            self.keep_tag = defaults.keep_tags;
        }
    }
}

#[derive(Serialize)]
struct VerdictFact {
    id: String,
    source: String,
    time: String,
    keep: bool,
    reasons: Vec<String>,
}

#[derive(Serialize)]
struct Report {
    dry_run: bool,
    forgotten: usize,
    kept: usize,
    snapshots: Vec<VerdictFact>,
}

pub(super) fn run(args: &ForgetArgs, context: &mut Context) -> Result<Outcome> {
    let policy = policy(args)?;
    if policy.is_none() && args.what.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "say which snapshots to forget, or what to keep")
            .hint("for example: icecore forget --keep-last 3 --keep-daily 14 --dry-run"));
    }
    let repo = open::repository(context)?;
    let all = context.snapshots(&repo)?.0;
    let verdicts = match &policy {
        Some(policy) => by_policy(&all, policy, args, context)?,
        None => by_name(&all, args, context)?,
    };
    let ids: Vec<SnapshotId> = verdicts.iter().filter(|verdict| verdict.reasons.is_empty()).map(|verdict| verdict.snapshot.id).collect();
    let shown = table(&verdicts, context);
    if !args.dry_run && !ids.is_empty() {
        if !args.yes {
            super::say(&shown);
        }
        confirm(args, &all, &ids)?;
        context.progress.check()?;
        ops::forget::forget(&repo, &ids)?;
    }
    let report = Report {
        dry_run: args.dry_run,
        forgotten: ids.len(),
        kept: verdicts.len() - ids.len(),
        snapshots: verdicts.iter().map(fact).collect(),
    };
    context.out.report(&report, || {
        let done = if args.dry_run { "would be forgotten" } else { "forgotten" };
        let space = if !args.dry_run && !ids.is_empty() { "; `icecore prune` returns their space" } else { "" };
        let list = if args.dry_run || args.yes || ids.is_empty() { shown } else { String::new() };
        format!("{list}{} {done}, {} kept{space}\n", render::count(ids.len() as u64, "snapshot"), report.kept)
    })?;
    Ok(Outcome::Done)
}

/// The policy of the flags; none when there are no flags.
fn policy(args: &ForgetArgs) -> Result<Option<Policy>> {
    let within_seconds = args.keep_within.as_deref().map(time::parse_age).transpose()?.map(time::Age::seconds);
    let policy = Policy {
        last: args.keep_last,
        within_seconds,
        minutely: args.keep_minutely,
        hourly: args.keep_hourly,
        daily: args.keep_daily,
        weekly: args.keep_weekly,
        monthly: args.keep_monthly,
        yearly: args.keep_yearly,
        tags: args.keep_tag.clone(),
    };
    Ok((!policy.is_empty()).then_some(policy))
}

fn by_policy(all: &[Committed], policy: &Policy, args: &ForgetArgs, context: &Context) -> Result<Vec<Verdict>> {
    let selector = context.selector(all)?;
    let sources = args.what.iter().map(|text| selector.source(text)).collect::<Result<Vec<SourceIdentity>>>()?;
    let chosen: Vec<Committed> =
        all.iter().filter(|snapshot| sources.is_empty() || sources.contains(&snapshot.record.source)).cloned().collect();
    Ok(ops::forget::plan(&chosen, policy, &context.zone))
}

/// The named snapshots; a source stands for all of its snapshots.
fn by_name(all: &[Committed], args: &ForgetArgs, context: &Context) -> Result<Vec<Verdict>> {
    let selector = context.selector(all)?;
    let mut chosen: Vec<&Committed> = Vec::new();
    for text in &args.what {
        let named = selector.named(text)?;
        chosen.extend(named);
    }
    let mut verdicts: Vec<Verdict> = Vec::new();
    for snapshot in chosen {
        if !verdicts.iter().any(|verdict| verdict.snapshot.id == snapshot.id) {
            verdicts.push(Verdict { snapshot: snapshot.clone(), reasons: Vec::new() });
        }
    }
    Ok(verdicts)
}

/// Asks for a yes, and for the name of each source that would have no snapshot left.
fn confirm(args: &ForgetArgs, all: &[Committed], ids: &[SnapshotId]) -> Result<()> {
    let whole = emptied(all, ids);
    let others = ids.len() - all.iter().filter(|snapshot| whole.contains(&&snapshot.record.source)).count();
    if others > 0 {
        let what = format!("This forgets {}", render::count(ids.len() as u64, "snapshot"));
        confirm::yes(&mut confirm::Terminal, args.yes, &what)?;
    }
    whole.iter().try_for_each(|source| confirm::typed_name(&mut confirm::Terminal, args.yes, &args.whole_source, &source.name))
}

/// Sources all of whose snapshots are among `ids`.
fn emptied<'a>(all: &'a [Committed], ids: &[SnapshotId]) -> Vec<&'a SourceIdentity> {
    let mut sources: Vec<&SourceIdentity> = all.iter().map(|snapshot| &snapshot.record.source).collect();
    sources.sort();
    sources.dedup();
    sources.retain(|source| all.iter().filter(|snapshot| snapshot.record.source == **source).all(|snapshot| ids.contains(&snapshot.id)));
    sources
}

fn fact(verdict: &Verdict) -> VerdictFact {
    VerdictFact {
        id: verdict.snapshot.id.to_string(),
        source: verdict.snapshot.record.source.name.clone(),
        time: verdict.snapshot.record.time.to_string(),
        keep: !verdict.reasons.is_empty(),
        reasons: verdict.reasons.clone(),
    }
}

fn table(verdicts: &[Verdict], context: &Context) -> String {
    let mut table =
        Table::new(&[("ID", Side::Left), ("TIME", Side::Left), ("SOURCE", Side::Left), ("VERDICT", Side::Left), ("WHY", Side::Left)]);
    for verdict in verdicts {
        let record = &verdict.snapshot.record;
        table.row(vec![
            verdict.snapshot.id.short(),
            context.local(record.time),
            exit::printable(&record.source.name),
            if verdict.reasons.is_empty() { "forget" } else { "keep" }.to_owned(),
            verdict.reasons.iter().map(|reason| render::name(reason)).collect::<Vec<_>>().join(", "),
        ]);
    }
    table.text()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser;

    use super::super::select::tests::committed;
    use super::*;
    use crate::model::SourceKind;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ForgetArgs,
    }

    fn args(line: &str) -> ForgetArgs {
        Line::parse_from(std::iter::once("forget").chain(line.split_whitespace())).args
    }

    #[test]
    fn each_flag_is_its_rule_and_no_flag_is_no_policy() {
        assert!(policy(&args("pgdata --yes --dry-run")).unwrap().is_none());
        let full = policy(&args(
            "--keep-last 1 --keep-within 2d --keep-minutely 3 --keep-hourly 4 --keep-daily 5 --keep-weekly 6 --keep-monthly 7 --keep-yearly 8 --keep-tag x --keep-tag y",
        ));
        let full = full.unwrap().unwrap();
        let numbers = [full.last, full.minutely, full.hourly, full.daily, full.weekly, full.monthly, full.yearly];
        assert_eq!(numbers, [1, 3, 4, 5, 6, 7, 8].map(Some));
        assert_eq!((full.within_seconds, full.tags.len()), (Some(172_800), 2));
        assert!(policy(&args("--keep-within soon")).is_err());
        for one in ["--keep-last 1", "--keep-within 1d", "--keep-yearly 1", "--keep-tag x"] {
            assert!(policy(&args(one)).unwrap().is_some(), "{one}");
        }
    }

    #[test]
    fn a_source_that_would_be_emptied_wants_its_name() {
        let all = [
            committed("a1", SourceKind::Volume, "aa", "h", 1, 1),
            committed("a2", SourceKind::Volume, "aa", "h", 2, 2),
            committed("b1", SourceKind::Volume, "bb", "h", 1, 1),
        ];
        let ids = |numbers: &[usize]| numbers.iter().map(|&at| all[at].id).collect::<Vec<_>>();
        assert!(emptied(&all, &ids(&[0])).is_empty());
        assert_eq!(emptied(&all, &ids(&[0, 1])).len(), 1);
        assert_eq!(emptied(&all, &ids(&[0, 1, 2])).len(), 2);
        // Tests have no terminal, so nobody is asked.
        assert!(confirm(&args("a1 --yes"), &all, &ids(&[0])).is_ok());
        assert!(confirm(&args("a1"), &all, &ids(&[0])).is_err());
        assert!(confirm(&args("a1 a2 --yes"), &all, &ids(&[0, 1])).is_err(), "a yes alone does not empty a source");
        assert!(confirm(&args("a1 a2 --yes --whole-source bb"), &all, &ids(&[0, 1])).is_err());
        assert!(confirm(&args("a1 a2 --yes --whole-source aa"), &all, &ids(&[0, 1])).is_ok());
        assert!(confirm(&args("a1 a2 --whole-source aa"), &all, &ids(&[0, 1])).is_err());
    }
}
