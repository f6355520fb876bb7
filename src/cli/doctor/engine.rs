//! The part of `icecore doctor` about the engine: labels that are wrong or ignored, and what is not covered.

use super::super::{Context, open, render, stacks};
use super::{Finding, Level};
use crate::live::labels::{Remark, Severity};
use crate::live::survey::Survey;

/// How many uncovered things are named.
const UNCOVERED_SHOWN_MAX: usize = 10;

/// Looks at the engine, at labels and at what is not covered.
pub(super) fn check(findings: &mut Vec<Finding>, context: &Context) {
    let found = open::engine(&context.globals).and_then(|engine| Ok((engine.info()?, Survey::take(&*engine, &context.rules)?)));
    match found {
        Ok((info, survey)) => {
            findings.push(Finding::ok("docker", format!("engine {} at {}", info.version, info.address)));
            findings.extend(check_labels(&survey));
            findings.extend(check_cover(&survey));
        }
        Err(error) => findings.push(Finding::note(
            "docker",
            error.to_string(),
            error.advice().unwrap_or("only directories can be snapshotted until the engine answers"),
        )),
    }
}

/// What is wrong with labels is a problem here: what somebody asked for does not happen.
fn check_labels(survey: &Survey) -> Vec<Finding> {
    let finding = |remark: &Remark| Finding {
        level: if remark.severity == Severity::Problem { Level::Problem } else { Level::Note },
        check: "labels",
        message: format!("{}: {}", remark.on, remark.message),
        advice: remark.hint.clone(),
    };
    if survey.remarks.is_empty() {
        return vec![Finding::ok("labels", "all settings in labels are understood")];
    }
    survey.remarks.iter().map(finding).collect()
}

/// What is not covered, the writable first: what is only read is most often a file of the system.
fn check_cover(survey: &Survey) -> Vec<Finding> {
    let mut findings: Vec<Finding> = survey
        .warnings
        .iter()
        .map(|warning| Finding::problem("cover", format!("volumes may be missing: {}", render::name(warning)), "look at the volume driver"))
        .collect();
    let covered = survey.volumes.iter().filter(|volume| volume.uncovered.is_none()).count();
    let message = format!("{} of {} captured by `snapshot --all`", covered, render::count(survey.volumes.len() as u64, "volume"));
    let missing: Vec<String> = survey.uncovered.iter().filter(|one| one.writable || one.kind == "volume").map(stacks::line).collect();
    if missing.is_empty() {
        findings.push(Finding::ok("cover", message));
        return findings;
    }
    let more = missing.len().saturating_sub(UNCOVERED_SHOWN_MAX);
    let shown = missing.iter().take(UNCOVERED_SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join("; ");
    let rest = if more == 0 { String::new() } else { format!("; and {more} more") };
    let message = format!("{message}; not covered: {shown}{rest}");
    findings.push(Finding::note("cover", message, "`icecore volumes` and `icecore stacks` list them with the reasons"));
    findings
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::docker::VolumeInfo;
    use crate::docker::fake::FakeEngine;
    use crate::live::rules::Rules;

    #[test]
    fn misspelt_labels_are_problems_and_what_is_not_covered_is_named() {
        let root = tempfile::tempdir().unwrap();
        let engine = FakeEngine::at(root.path());
        let volume = |name: &str, label: (&str, &str)| VolumeInfo {
            name: name.into(),
            driver: "local".into(),
            labels: [(label.0.to_owned(), label.1.to_owned())].into(),
            ..VolumeInfo::default()
        };
        engine.add_volume(volume("db", ("icecore.enabled", "true")));
        engine.add_volume(volume("locked", ("icecore.priority", "high")));
        engine.add_volume(volume("out", ("icecore.enable", "false")));
        let rules = Rules { locked: vec!["priority".into()], ..Rules::default() };
        let survey = Survey::take(&engine, &rules).unwrap();
        let labels: Vec<(Level, Option<String>)> = check_labels(&survey).into_iter().map(|f| (f.level, f.advice)).collect();
        assert_eq!(labels, [(Level::Problem, Some("did you mean icecore.enable?".to_owned())), (Level::Note, None)]);
        let cover = check_cover(&survey).pop().unwrap();
        assert_eq!(cover.level, Level::Note);
        assert!(cover.message.contains("2 of 3 volumes") && cover.message.contains("volume out: left out by label"), "{}", cover.message);

        engine.change(|state| state.warnings.push("slow".into()));
        assert_eq!(check_cover(&Survey::take(&engine, &rules).unwrap())[0].level, Level::Problem);
        let empty = Survey::take(&FakeEngine::new(), &rules).unwrap();
        assert!(check_labels(&empty).iter().chain(&check_cover(&empty)).all(|finding| finding.level == Level::Ok));
    }
}
