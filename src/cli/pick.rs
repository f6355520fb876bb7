//! Which sources `--all`, `--stack` and `--priority` mean, in which order, and what is left out.

use clap::Args;

use super::exit::{self, Outcome};
use super::{Context, render};
use crate::docker::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::live::labels::{Remark, Severity};
use crate::live::settings::Priority;
use crate::live::stacks::Stack;
use crate::live::survey::Survey;
use crate::volume::spelling::SourceSpec;

#[derive(Debug, Args)]
pub(super) struct PickArgs {
    /// Every volume that has a name and can be read, and what labels add or leave out
    #[arg(long)]
    all: bool,
    /// All that belongs to a Compose project; may be repeated
    #[arg(long, value_name = "NAME")]
    stack: Vec<String>,
    /// Of all, or of the stacks that are named, only what has one of these priorities: critical, high, medium, low, none
    #[arg(long, value_name = "PRIORITY,...", value_delimiter = ',', value_parser = priority, conflicts_with = "sources")]
    priority: Vec<Priority>,
}

fn priority(text: &str) -> Result<Priority, String> {
    Priority::parse(text).map_err(|error| error.to_string())
}

impl PickArgs {
    /// Whether anything is to be picked.
    pub(super) fn any(&self) -> bool {
        self.all || !self.stack.is_empty() || !self.priority.is_empty()
    }
}

/// What was picked.
struct Picked {
    specs: Vec<SourceSpec>,
    /// Wanted, and cannot be had.
    missing: Vec<String>,
    /// Left out on purpose.
    left_out: Vec<String>,
}

/// The sources that `args` mean, the most important first. What is wrong with labels, and what is left out, is said.
pub(super) fn selected(args: &PickArgs, engine: &dyn Engine, context: &Context) -> Result<(Vec<SourceSpec>, Outcome)> {
    let survey = Survey::take(engine, &context.rules)?;
    let picked = pick(args, &survey)?;
    for remark in &survey.remarks {
        say(remark, context);
    }
    for line in picked.missing {
        context.warn(&line);
    }
    for line in picked.left_out {
        context.note(&line);
    }
    for warning in &survey.warnings {
        context.warn(&format!("volumes may be missing: {}", render::name(warning)));
    }
    Ok((picked.specs, if survey.warnings.is_empty() { Outcome::Done } else { Outcome::Incomplete }))
}

/// Says what a survey has to say: problems are warnings.
pub(super) fn say(remark: &Remark, context: &Context) {
    let hint = remark.hint.as_deref().map_or_else(String::new, |hint| format!("; {hint}"));
    let line = exit::printable(&format!("{}: {}{hint}", remark.on, remark.message));
    match remark.severity {
        Severity::Problem => context.warn(&line),
        Severity::Notice => context.note(&line),
    }
}

fn pick(args: &PickArgs, survey: &Survey) -> Result<Picked> {
    let stacks: Vec<&Stack> = args.stack.iter().map(|name| find(survey, name)).collect::<Result<_>>()?;
    let everything = args.all || stacks.is_empty();
    let in_stacks = |name: &str| stacks.iter().any(|stack| stack.volumes.iter().any(|volume| volume.name == name));
    let has_priority = |priority| args.priority.is_empty() || args.priority.contains(&priority);
    let mut found: Vec<(Priority, SourceSpec)> = Vec::new();
    let (mut missing, mut left_out) = (Vec::new(), Vec::new());
    for volume in &survey.volumes {
        let (summary, priority) = (&volume.summary, volume.policy.priority.value);
        if !(everything || in_stacks(&summary.name)) || !has_priority(priority) {
            continue;
        }
        match &volume.uncovered {
            None => found.push((priority, SourceSpec::Volume(summary.name.clone()))),
            Some(why) => {
                let line = format!("left out volume {}: {}", render::name(&summary.name), exit::printable(why));
                let by_policy = summary.anonymous || volume.policy.refusal(survey.rules.discover).is_some();
                match (by_policy, stacks.is_empty()) {
                    (false, _) => missing.push(line),
                    // Of all volumes of the engine, those that nobody wants are no news.
                    (true, false) => left_out.push(line),
                    (true, true) => {}
                }
            }
        }
    }
    for bind in survey.binds.iter().filter(|bind| bind.uncovered.is_none()) {
        let of_stack = stacks.iter().any(|stack| bind.project.as_deref() == Some(&stack.name));
        let priority = bind.policy.priority.value;
        if (everything || of_stack) && has_priority(priority) {
            found.push((priority, SourceSpec::Path(bind.path.clone())));
        }
    }
    // A stable sort: within a priority by name, volumes first.
    found.sort_by_key(|(priority, _)| *priority);
    Ok(Picked { specs: found.into_iter().map(|(_, spec)| spec).collect(), missing, left_out })
}

fn find<'a>(survey: &'a Survey, name: &str) -> Result<&'a Stack> {
    survey.stacks.iter().find(|stack| stack.name == name).ok_or_else(|| {
        let error = Error::new(ErrorKind::NotFound, "there is no such stack").on(render::name(name));
        let names = survey.stacks.iter().map(|stack| stack.name.as_str());
        error.hint(match crate::live::nearest::nearest(name, names) {
            Some(meant) => format!("did you mean {}? `icecore stacks` lists them", render::name(meant)),
            None => "`icecore stacks` lists them".to_owned(),
        })
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::docker::fake::FakeEngine;
    use crate::docker::{ContainerInfo, MountInfo, VolumeInfo};
    use crate::live::rules::Rules;

    fn args(line: &str) -> PickArgs {
        #[derive(clap::Parser)]
        struct Line {
            sources: Vec<String>,
            #[command(flatten)]
            pick: PickArgs,
        }
        let line = <Line as clap::Parser>::parse_from(std::iter::once("x").chain(line.split_whitespace()));
        assert!(line.sources.is_empty());
        line.pick
    }

    fn survey(root: &std::path::Path) -> Survey {
        let engine = FakeEngine::at(root);
        for (name, driver, labels) in [
            ("shop_db", "local", &[("com.docker.compose.project", "shop"), ("backup", "critical")][..]),
            ("shop_cache", "local", &[("com.docker.compose.project", "shop"), ("icecore.enable", "false")]),
            ("shop_nfs", "rexray", &[("com.docker.compose.project", "shop")]),
            ("blog_db", "local", &[("com.docker.compose.project", "blog"), ("icecore.priority", "high")]),
            ("loose", "local", &[]),
            ("external", "local", &[("backup", "low")]),
            (&"ab".repeat(32), "local", &[]),
        ] {
            let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            engine.add_volume(VolumeInfo { name: name.into(), driver: driver.into(), labels, ..VolumeInfo::default() });
        }
        let labels = [("com.docker.compose.project", "shop"), ("com.docker.compose.service", "web")];
        let mounts = ["external", &"ab".repeat(32)].map(|name| MountInfo {
            volume: Some(name.into()),
            destination: "/d".into(),
            writable: true,
            ..MountInfo::default()
        });
        engine.add_container(ContainerInfo {
            id: "1".into(),
            name: "shop-web-1".into(),
            state: "running".into(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            mounts: mounts.into(),
            ..ContainerInfo::default()
        });
        Survey::take(&engine, &Rules::default()).unwrap()
    }

    fn names(picked: &Picked) -> Vec<String> {
        let name = |spec: &SourceSpec| match spec {
            SourceSpec::Volume(name) => name.clone(),
            SourceSpec::Path(path) => path.display().to_string(),
        };
        picked.specs.iter().map(name).collect()
    }

    #[test]
    fn what_is_meant_comes_in_the_order_of_its_priority() {
        let root = tempfile::tempdir().unwrap();
        let survey = survey(root.path());
        for (line, expected) in [
            ("--all", &["shop_db", "blog_db", "loose", "external"][..]),
            ("--stack shop", &["shop_db", "external"]),
            ("--stack blog", &["blog_db"]),
            ("--stack blog --stack shop", &["shop_db", "blog_db", "external"]),
            ("--priority critical,high", &["shop_db", "blog_db"]),
            ("--priority low --priority medium", &["loose", "external"]),
            ("--stack shop --priority low", &["external"]),
            ("--priority none", &[]),
        ] {
            assert_eq!(names(&pick(&args(line), &survey).unwrap()), expected, "{line}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_always_said_and_what_nobody_wants_only_of_a_stack() {
        let root = tempfile::tempdir().unwrap();
        let survey = survey(root.path());
        let all = pick(&args("--all"), &survey).unwrap();
        assert!(all.missing.len() == 1 && all.missing[0].contains("volume shop_nfs") && all.missing[0].contains("rexray"));
        assert_eq!(all.left_out, Vec::<String>::new());
        let stack = pick(&args("--stack shop"), &survey).unwrap();
        assert_eq!(stack.missing.len(), 1);
        assert_eq!(stack.left_out.len(), 2, "{:?}", stack.left_out);
        assert!(stack.left_out.iter().any(|line| line.contains("shop_cache: left out by label icecore.enable of the volume")));
    }

    #[test]
    fn a_stack_that_is_not_there_is_not_found() {
        let root = tempfile::tempdir().unwrap();
        let error = pick(&args("--stack shoop"), &survey(root.path())).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.advice().unwrap().contains("did you mean shop?"));
        assert!(args("--all").any() && args("--stack x").any() && args("--priority low").any() && !args("").any());
    }
}
