#![allow(clippy::unwrap_used)]

use super::super::keys::Key;
use super::super::labels::Severity;
use super::super::rules::Rules;
use super::super::settings::Settings;
use super::super::testing::{bind, container, engine, mount, volume};
use super::*;
use crate::docker::fake::FakeEngine;
use crate::docker::{MountInfo, VolumeInfo};

const PROJECT: &str = "com.docker.compose.project";

fn of(engine: &FakeEngine, rules: &Rules, names: &[&str]) -> Vec<Group> {
    let survey = Survey::take(engine, rules).unwrap();
    let specs: Vec<SourceSpec> = names.iter().map(|name| SourceSpec::Volume((*name).to_owned())).collect();
    groups(&survey, &specs)
}

/// Each group as `name: sources / holders`.
fn shown(groups: &[Group]) -> Vec<String> {
    let one = |group: &Group| {
        let sources: Vec<String> = group.sources.iter().map(spec_name).collect();
        let holders: Vec<&str> = group.holders.iter().map(|holder| holder.name.as_str()).collect();
        format!("{}: {} / {}", group.name, sources.join(" "), holders.join(" "))
    };
    groups.iter().map(one).collect()
}

#[test]
fn a_project_is_a_group_and_all_its_running_writers_are_held() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    for name in ["shop_db", "shop_files"] {
        engine.add_volume(volume(name, &[(PROJECT, "shop")]));
    }
    engine.add_volume(volume("blog_db", &[(PROJECT, "blog")]));
    let alias = VolumeInfo {
        options: [("device".to_owned(), root.path().join("volumes/shop_db/_data/sub").display().to_string())].into(),
        ..volume("alias", &[(PROJECT, "shop")])
    };
    engine.add_volume(alias);
    let readonly = |name: &str| MountInfo { writable: false, ..mount(name, "/d") };
    let below = root.path().join("volumes/shop_files").display().to_string();
    for (name, state, mounts) in [
        ("db", "running", vec![mount("shop_db", "/a"), mount("shop_db", "/b")]),
        ("bound", "running", vec![bind(&below, "/x")]),
        ("device", "running", vec![mount("alias", "/x")]),
        ("paused", "paused", vec![mount("shop_files", "/x")]),
        ("reader", "running", vec![readonly("shop_db")]),
        ("stopped", "exited", vec![mount("shop_db", "/x")]),
        ("idle", "running", vec![]),
    ] {
        engine.add_container(container(name, Some("shop"), state, &[], mounts));
    }
    engine.add_container(container("blog", Some("blog"), "running", &[], vec![mount("blog_db", "/x")]));
    let found = of(&engine, &Rules::default(), &["shop_db", "blog_db", "shop_files"]);
    assert_eq!(shown(&found), ["shop: shop_db shop_files / bound db device paused", "blog: blog_db / blog"]);
    assert_eq!(found[0].holders[1].id, "id-db");
    assert!(found.iter().all(|group| group.remarks.is_empty() && group.left.is_empty()));
    assert_eq!(
        shown(&of(&engine, &Rules::default(), &["shop_files"])),
        ["shop: shop_files / bound paused"],
        "only who writes to what is captured"
    );
}

#[test]
fn volumes_of_nobody_are_grouped_by_their_writers_and_join_no_two_projects() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    for name in ["v1", "v2", "v3", "v4", "alone", "external", "between"] {
        engine.add_volume(volume(name, &[]));
    }
    engine.add_volume(volume("shop_db", &[(PROJECT, "shop")]));
    engine.add_volume(volume("blog_db", &[(PROJECT, "blog")]));
    engine.add_container(container("a", None, "running", &[], vec![mount("v3", "/x"), mount("v1", "/y")]));
    engine.add_container(container("b", None, "exited", &[], vec![mount("v3", "/x"), mount("v4", "/y")]));
    engine.add_container(container(
        "s",
        Some("shop"),
        "running",
        &[],
        vec![mount("shop_db", "/x"), mount("external", "/y"), mount("between", "/z")],
    ));
    engine.add_container(container("t", Some("blog"), "running", &[], vec![mount("blog_db", "/x"), mount("between", "/z")]));
    let names = ["alone", "between", "blog_db", "external", "shop_db", "v1", "v2", "v3", "v4"];
    let found = of(&engine, &Rules::default(), &names);
    assert_eq!(
        shown(&found),
        ["alone: alone / ", "between: between / s t", "blog: blog_db / t", "shop: external shop_db / s", "v1: v1 v3 v4 / a", "v2: v2 / "]
    );
    assert!(found.iter().flat_map(|group| &group.holders).all(|holder| !holder.outsider), "who writes to nobody's is no outsider");
}

#[test]
fn a_label_s_group_stays_within_its_project_unless_the_operator_allows_more() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    for (name, project) in [("shop_a", "shop"), ("shop_b", "shop"), ("shop_c", "shop"), ("blog_a", "blog")] {
        let group = if name == "shop_c" { &[][..] } else { &[("icecore.group", "g")][..] };
        engine.add_volume(volume(name, &[&[(PROJECT, project)], group].concat()));
    }
    let names = ["blog_a", "shop_a", "shop_b", "shop_c"];
    let found = of(&engine, &Rules::default(), &names);
    assert_eq!(shown(&found), ["blog/g: blog_a / ", "shop/g: shop_a shop_b / ", "shop: shop_c / "]);
    assert!(found[0].remarks[0].message.contains("another project has a group g"));
    let allow = Rules { cross_project_groups: true, ..Rules::default() };
    assert_eq!(shown(&of(&engine, &allow, &names)), ["g: blog_a shop_a shop_b / ", "shop: shop_c / "]);

    let mut own = Settings::default();
    own.set(Key::Group, "night", Origin::Config("[stack]".into())).unwrap();
    engine.change(|state| state.containers.clear());
    let rules = Rules { stacks: [("shop".to_owned(), own)].into(), ..Rules::default() };
    assert_eq!(shown(&of(&engine, &rules, &["shop_c", "blog_a"])), ["night: shop_c / ", "blog/g: blog_a / "]);
}

#[test]
fn a_container_of_another_project_cannot_put_a_volume_into_its_own_group() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    engine.add_volume(volume("shop_db", &[(PROJECT, "shop")]));
    engine.add_volume(volume("evil_x", &[(PROJECT, "evil")]));
    let group = [("icecore.group", "g")];
    engine.add_container(container("evil", Some("evil"), "running", &group, vec![mount("evil_x", "/x"), mount("shop_db", "/y")]));
    let survey = Survey::take(&engine, &Rules::default()).unwrap();
    assert!(survey.remarks.iter().any(|remark| remark.on == "volume shop_db" && remark.message.contains("another project")));
    let found = of(&engine, &Rules::default(), &["shop_db", "evil_x"]);
    assert_eq!(shown(&found), ["shop: shop_db / evil", "evil/g: evil_x / evil"]);
}

#[test]
fn writers_from_outside_are_said_and_held_or_left_as_the_operator_wants() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    engine.add_volume(volume("shop_db", &[(PROJECT, "shop")]));
    engine.add_container(container("db", Some("shop"), "running", &[], vec![mount("shop_db", "/x")]));
    engine.add_container(container("other", Some("blog"), "running", &[], vec![mount("shop_db", "/x")]));
    engine.add_container(container("single", None, "running", &[], vec![mount("shop_db", "/x")]));
    let held = &of(&engine, &Rules::default(), &["shop_db"])[0];
    assert_eq!(
        held.holders.iter().map(|holder| (holder.name.as_str(), holder.outsider)).collect::<Vec<_>>(),
        [("db", false), ("other", true), ("single", true)]
    );
    assert!(held.left.is_empty() && held.remarks.len() == 2 && held.remarks[0].severity == Severity::Notice);
    assert!(held.remarks[0].message.contains("container other of project blog can write to shop_db"));
    let rules = Rules { leave_outsiders: true, ..Rules::default() };
    let left = &of(&engine, &rules, &["shop_db"])[0];
    assert_eq!((left.holders.len(), left.left.len()), (1, 2));
    assert!(left.remarks.iter().all(|remark| remark.severity == Severity::Problem && remark.message.contains("fuzzy")));
}

#[test]
fn times_are_the_container_s_own_before_those_of_its_volumes() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    let slow = [(PROJECT, "shop"), ("icecore.stop-timeout", "20s"), ("icecore.health", "none"), ("icecore.freeze-budget", "9s")];
    engine.add_volume(volume("shop_a", &slow));
    engine.add_volume(volume("shop_b", &[(PROJECT, "shop"), ("icecore.freeze-budget", "2s")]));
    let own = [("icecore.stop-timeout", "1m"), ("icecore.health", "30s")];
    engine.add_container(container("own", Some("shop"), "running", &own, vec![mount("shop_a", "/x")]));
    engine.add_container(container("silent", Some("shop"), "running", &[], vec![mount("shop_a", "/x")]));
    engine.add_container(container("zero", Some("shop"), "running", &[], vec![mount("shop_b", "/x")]));
    let group = &of(&engine, &Rules::default(), &["shop_a", "shop_b"])[0];
    let times: Vec<_> = group
        .holders
        .iter()
        .map(|holder| {
            (holder.name.as_str(), holder.stop_timeout.as_ref().map(|time| time.value.as_secs()), holder.health.value.to_string())
        })
        .collect();
    assert_eq!(times, [("own", Some(60), "30s".to_owned()), ("silent", Some(20), "none".to_owned()), ("zero", None, "wait".to_owned())]);
    assert_eq!(
        (group.freeze_budget.value.as_secs(), group.freeze_budget.origin.to_string().as_str()),
        (2, "label icecore.freeze-budget of the volume")
    );
}

#[test]
fn a_container_s_commands_are_in_its_group_once() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    engine.add_volume(volume("shop_a", &[(PROJECT, "shop")]));
    engine.add_volume(volume("shop_b", &[(PROJECT, "shop")]));
    let labels = [("icecore.hook.pre", "sh: sync"), ("icecore.dump", "postgres")];
    engine.add_container(container("db", Some("shop"), "running", &labels, vec![mount("shop_a", "/a"), mount("shop_b", "/b")]));
    let group = &of(&engine, &Rules::default(), &["shop_a", "shop_b"])[0];
    assert_eq!((group.hooks.len(), group.dumps.len()), (1, 1));
    assert_eq!(group.dumps[0].container.id, "id-db");
}

#[test]
fn folders_are_grouped_with_their_project_and_unknown_sources_stand_alone() {
    let root = tempfile::tempdir().unwrap();
    let base = root.path().canonicalize().unwrap();
    std::fs::create_dir_all(base.join("srv/data")).unwrap();
    let engine = engine(&base);
    engine.add_volume(volume("shop_db", &[(PROJECT, "shop")]));
    let folder = base.join("srv/data");
    let source = folder.display().to_string();
    engine.add_container(container("web", Some("shop"), "running", &[("icecore.binds", "/data")], vec![bind(&source, "/data")]));
    engine.add_container(container("db", Some("shop"), "running", &[], vec![mount("shop_db", "/x")]));
    let rules = Rules { bind_roots: vec![base.join("srv")], ..Rules::default() };
    let survey = Survey::take(&engine, &rules).unwrap();
    let specs = [
        SourceSpec::Volume("shop_db".into()),
        SourceSpec::Path(folder),
        SourceSpec::Volume("none".into()),
        SourceSpec::Path("/other".into()),
    ];
    let found = groups(&survey, &specs);
    assert_eq!(shown(&found), [format!("shop: shop_db {source} / db web"), "none: none / ".to_owned(), "/other: /other / ".to_owned()]);
}
