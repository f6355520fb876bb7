#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::{Duration, Instant};

use super::super::keys::Moment;
use super::super::labels::Severity;
use super::super::rules::{Compat, Discover, lock};
use super::super::settings::{Priority, Wanted};
use super::super::testing::{bind, container, engine, mount, volume};
use super::*;
use crate::docker::MountInfo;
use crate::docker::fake::FakeEngine;

fn survey(engine: &FakeEngine, rules: &Rules) -> Survey {
    Survey::take(engine, rules).unwrap()
}

/// Why a volume is not covered.
fn reason(survey: &Survey, name: &str) -> Option<String> {
    survey.volume(name).unwrap().uncovered.clone()
}

fn problems(survey: &Survey) -> Vec<String> {
    survey.remarks.iter().filter(|remark| remark.severity == Severity::Problem).map(|remark| remark.message.clone()).collect()
}

fn readonly(name: &str, at: &str) -> MountInfo {
    MountInfo { writable: false, ..mount(name, at) }
}

#[test]
fn without_labels_all_volumes_with_names_are_covered_and_the_rest_has_reasons() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    let hex = "0f".repeat(32);
    engine.add_volume(volume("db", &[]));
    engine.add_volume(volume(&hex, &[]));
    let mut nfs = volume("nfs", &[]);
    nfs.options = [("type".to_owned(), "nfs".to_owned()), ("device".to_owned(), ":/export".to_owned())].into();
    engine.add_volume(nfs);
    let tmpfs = MountInfo { destination: "/tmp".into(), writable: true, ..MountInfo::default() };
    engine.add_container(container("web", None, "running", &[], vec![mount("db", "/d"), mount(&hex, "/a"), bind("/srv", "/s"), tmpfs]));
    let survey = survey(&engine, &Rules::default());
    assert_eq!(engine.calls(), ["info", "volumes", "containers"]);
    assert_eq!(reason(&survey, "db"), None);
    assert!(reason(&survey, &hex).unwrap().contains("no name"));
    assert!(reason(&survey, "nfs").unwrap().contains("cannot be read"));
    let kinds: Vec<(&str, bool)> = survey.uncovered.iter().map(|one| (one.kind, one.reason.is_empty())).collect();
    assert_eq!(kinds, [("volume", false), ("volume", false), ("bind", false), ("tmpfs", false)]);
    assert!(survey.remarks.is_empty() && survey.stacks.is_empty());
}

#[test]
fn a_container_speaks_for_what_it_can_write_to_and_for_nothing_else() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    for name in ["own", "read", "other", "bound"] {
        engine.add_volume(volume(name, &[]));
    }
    let path = root.path().join("volumes/bound/_data").display().to_string();
    let labels = [("icecore.keep", "last=1"), ("icecore.enable", "false"), ("icecore.hook.pre", "sh: x")];
    engine.add_container(container("a", None, "running", &labels, vec![mount("own", "/o"), readonly("read", "/r"), bind(&path, "/b")]));
    let survey = survey(&engine, &Rules::default());
    assert!(reason(&survey, "own").unwrap().contains("icecore.enable of container a"));
    for name in ["read", "other", "bound"] {
        let state = survey.volume(name).unwrap();
        assert!(state.uncovered.is_none() && state.policy.keep.is_none() && state.policy.hooks.is_empty(), "{name}");
    }
}

#[test]
fn a_container_can_choose_among_its_volumes_also_nameless_ones() {
    let root = tempfile::tempdir().unwrap();
    let hex = "0f".repeat(32);
    let with = |labels: &[(&str, &str)], rules: &Rules| {
        let engine = engine(root.path());
        engine.add_volume(volume("shop_db", &[("com.docker.compose.volume", "db")]));
        engine.add_volume(volume("cache", &[]));
        engine.add_volume(volume(&hex, &[]));
        engine.add_container(container(
            "web",
            None,
            "running",
            labels,
            vec![mount("shop_db", "/var/db/"), mount("cache", "/cache"), mount(&hex, "/anonymous")],
        ));
        let survey = survey(&engine, rules);
        let covered = |name: &str| reason(&survey, name).is_none();
        ([covered("shop_db"), covered("cache"), covered(&hex)], problems(&survey))
    };
    let all = Rules::default();
    let labelled = Rules { discover: Discover::Labelled, ..Rules::default() };
    for (labels, expected, expected_labelled) in [
        (&[][..], [true, true, false], [false, false, false]),
        (&[("icecore.enable", "true")], [true, true, false], [true, true, false]),
        (&[("icecore.enable", "false")], [false, false, false], [false, false, false]),
        (&[("icecore.volumes", "db")], [true, false, false], [true, false, false]),
        (&[("icecore.volumes", "shop_db,/cache")], [true, true, false], [true, true, false]),
        (&[("icecore.volumes", "/var/db,/anonymous")], [true, false, true], [true, false, true]),
        (&[("icecore.volumes", "/anonymous"), ("icecore.enable", "false")], [false, false, false], [false, false, false]),
        (&[("icecore.volumes.exclude", "cache")], [true, false, false], [false, false, false]),
        (&[("icecore.volumes.exclude", "/var/db"), ("icecore.enable", "true")], [false, true, false], [false, true, false]),
        (&[("backup", "high")], [true, true, false], [true, true, false]),
        (&[("backup", "none")], [false, false, false], [false, false, false]),
    ] {
        assert_eq!(with(labels, &all), (expected, vec![]), "{labels:?}");
        assert_eq!(with(labels, &labelled).0, expected_labelled, "{labels:?}");
    }
    let (covered, problems) = with(&[("icecore.volumes.exclude", "cahce,/nowhere")], &all);
    assert_eq!((covered, problems.len()), ([true, true, false], 2), "a misspelt name excludes nothing and is said");
}

#[test]
fn a_stack_s_setting_does_not_bring_in_nameless_volumes_but_their_own_name_does() {
    let root = tempfile::tempdir().unwrap();
    let hex = "0f".repeat(32);
    let engine = engine(root.path());
    engine.add_volume(volume(&hex, &[]));
    let mut rules = Rules::default();
    rules.defaults.set(super::super::keys::Key::Enable, "true", Origin::Config("[defaults]".into())).unwrap();
    assert!(reason(&survey(&engine, &rules), &hex).unwrap().contains("no name"));
    let mut own = Settings::default();
    own.set(super::super::keys::Key::Enable, "true", Origin::Config(format!("[volume.\"{hex}\"]"))).unwrap();
    rules.volumes.insert(hex.clone(), own);
    assert_eq!(reason(&survey(&engine, &rules), &hex), None);
}

#[test]
fn bind_mounts_are_covered_only_when_asked_for_and_below_an_allowed_root() {
    let root = tempfile::tempdir().unwrap();
    let base = root.path().canonicalize().unwrap();
    for folder in ["srv/data", "srv/later", "etc"] {
        std::fs::create_dir_all(base.join(folder)).unwrap();
    }
    std::os::unix::fs::symlink(base.join("etc"), base.join("srv/evil")).unwrap();
    let at = |path: &str| base.join(path).display().to_string();
    let engine = engine(&base);
    let labels = [("icecore.binds", "/data,/etc,/evil,/none"), ("icecore.keep", "last=2")];
    let mounts = ["srv/data:/data", "srv/later:/later", "etc:/etc", "srv/evil:/evil"];
    let mounts = mounts.map(|pair| pair.split_once(':').map(|(source, place)| bind(&at(source), place)).unwrap());
    engine.add_container(container("web", Some("shop"), "running", &labels, mounts.into()));
    engine.add_container(container("writer", None, "running", &[], vec![bind(&at("srv"), "/all")]));
    let rules = Rules { bind_roots: vec![base.join("srv")], ..Rules::default() };

    let found = survey(&engine, &rules);
    let [state]: &[BindState; 1] = found.binds.as_slice().try_into().unwrap();
    assert_eq!((&state.path, state.project.as_deref()), (&base.join("srv/data"), Some("shop")));
    assert_eq!(state.policy.keep.as_ref().unwrap().value.to_string(), "last=2");
    let users: Vec<&str> = state.users.iter().map(|user| user.container.as_str()).collect();
    assert_eq!(users, ["web", "writer"]);
    let why = |destination: &str| {
        found.uncovered.iter().find(|one| one.destination.as_deref() == Some(destination)).map(|one| one.reason.clone()).unwrap()
    };
    assert!(why("/later").contains("can ask for it"));
    assert!(why("/etc").contains("outside") && why("/evil").contains("outside"));
    assert_eq!(problems(&found), ["icecore.binds names /none, where no bind mount of it is"]);
    assert_eq!(found.stacks[0].binds, [base.join("srv/data")]);

    assert!(survey(&engine, &Rules::default()).binds.is_empty(), "nothing is allowed without roots");
    let locked = Rules { locked: vec![lock("binds").unwrap()], ..rules.clone() };
    assert!(survey(&engine, &locked).binds.is_empty());
    engine.change(|state| state.info.address = "tcp://elsewhere:2375".into());
    engine.change(|state| state.info.host_name = "elsewhere".into());
    assert!(survey(&engine, &rules).binds.is_empty(), "paths of another host are not ours");
}

#[test]
fn labels_for_other_programs_count_when_the_operator_says_so() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    engine.add_volume(volume("db", &[]));
    let labels = [
        ("docker-volume-backup.stop-during-backup", "true"),
        ("docker-volume-backup.archive-pre", "sync"),
        ("stack-back.postgres", "true"),
    ];
    engine.add_container(container("pg", None, "running", &labels, vec![mount("db", "/d")]));
    let plain = survey(&engine, &Rules::default());
    assert_eq!(plain.volume("db").unwrap().policy.consistency.value, Wanted::Auto);
    let rules = Rules { compat: [Compat::Offen, Compat::StackBack].into(), ..Rules::default() };
    let found = survey(&engine, &rules);
    let policy = &found.volume("db").unwrap().policy;
    assert_eq!(
        (policy.consistency.value, policy.hooks[0].moment, policy.dumps[0].preset.value.as_str()),
        (Wanted::Stop, Moment::Pre, "postgres")
    );
    assert_eq!(policy.dumps[0].container.name, "pg");
}

#[test]
fn the_configuration_s_section_for_a_container_stands_below_its_labels_and_outlives_locks() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    engine.add_volume(volume("db", &[]));
    engine.add_container(container("pg", None, "running", &[("icecore.hook.pre", "sh: label")], vec![mount("db", "/d")]));
    let mut own = Settings::default();
    own.set(super::super::keys::Key::Hook(Moment::Pre), "sh: operator", Origin::Config("[container.\"pg\"]".into())).unwrap();
    let mut rules = Rules { containers: [("pg".to_owned(), own)].into(), ..Rules::default() };
    let script = |rules: &Rules| survey(&engine, rules).volume("db").unwrap().policy.hooks[0].command.value[2].clone();
    assert_eq!(script(&rules), "label");
    rules.locked.push("hook.*".into());
    assert_eq!(script(&rules), "operator");
}

#[test]
fn sections_of_the_configuration_about_nothing_are_noticed() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    engine.add_volume(volume("shop_db", &[("com.docker.compose.project", "shop")]));
    let one = |name: &str| [(name.to_owned(), Settings::default())].into();
    let rules = Rules { volumes: one("shop_bd"), stacks: one("shop"), containers: one("web"), ..Rules::default() };
    let remarks = survey(&engine, &rules).remarks;
    let said: Vec<(&str, Option<&str>)> = remarks.iter().map(|remark| (remark.message.as_str(), remark.hint.as_deref())).collect();
    assert_eq!(
        said,
        [
            ("there is no volume shop_bd now, which has a section", Some("did you mean [volume.\"shop_db\"]?")),
            ("there is no container web now, which has a section", None)
        ]
    );
}

#[test]
fn stacks_are_put_together_from_labels_of_containers_and_volumes() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    let project = |name: &'static str| ("com.docker.compose.project", name);
    engine.add_volume(volume("shop_db", &[project("shop"), ("backup", "critical")]));
    engine.add_volume(volume("gone_db", &[project("gone")]));
    engine.add_volume(volume("shared", &[]));
    engine.add_volume(volume("blog_db", &[project("blog")]));
    engine.add_volume(volume("loose", &[]));
    let labels = [
        ("com.docker.compose.service", "db"),
        ("com.docker.compose.project.working_dir", "/srv/shop"),
        ("com.docker.compose.project.config_files", "/srv/shop/compose.yaml,/srv/shop/override.yaml"),
    ];
    engine.add_container(container(
        "shop-db-1",
        Some("shop"),
        "running",
        &labels,
        vec![mount("shop_db", "/d"), mount("shared", "/s"), bind("/etc", "/e")],
    ));
    engine.add_container(container("shop-db-2", Some("shop"), "exited", &labels[..1], vec![mount("blog_db", "/b")]));
    let all = root.path().join("volumes").display().to_string();
    engine.add_container(container("backup", Some("tools"), "running", &[], vec![bind(&all, "/volumes")]));

    let survey = survey(&engine, &Rules::default());
    let names: Vec<&str> = survey.stacks.iter().map(|stack| stack.name.as_str()).collect();
    assert_eq!(names, ["blog", "gone", "shop", "tools"]);
    let [_, gone, shop, tools]: &[Stack; 4] = survey.stacks.as_slice().try_into().unwrap();
    assert_eq!((gone.services.len(), gone.volumes.len(), gone.priority), (0, 1, Priority::Medium));
    assert_eq!(shop.folder.as_deref(), Some("/srv/shop"));
    assert_eq!(shop.files, ["/srv/shop/compose.yaml", "/srv/shop/override.yaml"]);
    assert_eq!((shop.services.len(), shop.services[0].containers.len(), shop.services[0].running), (1, 2, 1));
    let volumes: Vec<(&str, bool)> = shop.volumes.iter().map(|volume| (volume.name.as_str(), volume.external)).collect();
    assert_eq!(volumes, [("shared", true), ("shop_db", false)], "another project's volume is not its own");
    assert_eq!(shop.volumes[1].users, ["backup", "shop-db-1"]);
    assert_eq!((shop.priority, shop.uncovered.len(), shop.uncovered[0].kind), (Priority::Critical, 1, "bind"));
    assert!(tools.volumes.is_empty(), "who sees the engine's folder owns no volume");
}

#[test]
fn commands_that_never_run_are_noticed() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    engine.add_volume(volume("db", &[]));
    let labels = [("icecore.dump", "postgres")];
    engine.add_container(container("pg", None, "running", &labels, vec![mount("db", "/d")]));
    engine.add_container(container("app", None, "running", &labels, vec![readonly("db", "/d")]));
    engine.add_container(container("out", None, "running", &[labels[0], ("icecore.enable", "no")], vec![mount("db", "/d")]));
    let said: Vec<String> = survey(&engine, &Rules::default()).remarks.into_iter().map(|remark| remark.on).collect();
    assert!(said.contains(&"container app".to_owned()), "{said:?}");
    engine.change(|state| state.containers.retain(|container| container.name == "pg"));
    assert!(survey(&engine, &Rules::default()).remarks.is_empty());
}

#[test]
fn applications_are_filled_in_from_what_is_known_of_a_volume() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    engine.add_volume(volume("db", &[]));
    engine.add_container(container("pg", None, "running", &[], vec![mount("db", "/d")]));
    let mut survey = survey(&engine, &Rules::default());
    survey.recognise(|volume| volume.users.first().map(|user| user.container.clone()));
    assert_eq!(survey.volume("db").unwrap().application.as_deref(), Some("pg"));
}

#[test]
fn two_hundred_containers_and_five_hundred_volumes_take_three_calls_and_little_time() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    for at in 0..500 {
        engine.add_volume(volume(
            &format!("v{at}"),
            &[("com.docker.compose.project", "p"), ("icecore.keep", "last=3"), ("icecore.typo", "x")],
        ));
    }
    for at in 0..200 {
        let mut mounts: Vec<MountInfo> = (0..5).map(|n| mount(&format!("v{}", (at * 5 + n) % 500), &format!("/d{n}"))).collect();
        mounts.extend((0..5).map(|n| bind(&format!("/srv/{at}/{n}"), &format!("/b{n}"))));
        engine.add_container(container(&format!("c{at}"), Some(&format!("p{}", at / 10)), "running", &[("icecore.group", "g")], mounts));
    }
    let begun = Instant::now();
    let survey = survey(&engine, &Rules::default());
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(engine.calls().len(), 3);
    assert_eq!((survey.volumes.len(), survey.stacks.len()), (500, 21));
}

#[test]
fn a_failing_call_fails_the_survey() {
    let root = tempfile::tempdir().unwrap();
    for call in 1..=3 {
        let engine = engine(Path::new(root.path()));
        engine.fail_at(call, crate::error::ErrorKind::Docker);
        assert!(Survey::take(&engine, &Rules::default()).is_err(), "call {call}");
    }
}
