//! Images of real applications. `tests/images/build` makes them of Debian packages, without any registry; they stay for the
//! next run.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::process::Command;

use crate::program::{is_root, run, wait_until};

/// The name of the image that `tests/images/NAME` is the recipe of. It is made where it is missing, which takes seconds.
/// For tests that have found an engine.
pub(crate) fn image(name: &str) -> String {
    build(&[name]).remove(0)
}

fn build(arguments: &[&str]) -> Vec<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/images/build");
    run(Command::new(script).args(arguments)).expect(0).text().lines().map(str::to_owned).collect()
}

fn has_engine(test: &str) -> bool {
    let answer = Command::new("docker").args(["version", "--format", "{{.Server.Version}}"]).output();
    let answers = answer.is_ok_and(|output| output.status.success());
    if !answers {
        eprintln!("SKIPPED {test}: no container engine answers");
    }
    answers && is_root(test)
}

/// Removed at the end, also when the test fails.
struct Container(String);

impl Container {
    fn start(recipe: &str) -> Self {
        let name = format!("icecore-it-image-{}-{recipe}", std::process::id());
        let passwords = ["--env", "POSTGRES_PASSWORD=p", "--env", "MARIADB_ROOT_PASSWORD=p"];
        let place = ["run", "--detach", "--network", "none", "--hostname", "host", "--name", &name];
        let container = Self(name.clone());
        run(Command::new("docker").args(place).args(passwords).arg(image(recipe))).expect(0);
        container
    }

    /// Its state, and what its image's check says of it when there is one.
    fn state(&self) -> String {
        let format = "{{.State.Status}}{{with .State.Health}} {{.Status}}{{end}}";
        run(Command::new("docker").args(["inspect", "--format", format, &self.0])).expect(0).text().trim().to_owned()
    }

    fn log(&self) -> String {
        run(Command::new("docker").args(["logs", "--tail", "20", &self.0])).transcript()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rm", "--force", "--volumes", &self.0]).output();
    }
}

#[test]
fn every_recipe_makes_an_image_whose_application_starts_and_gets_healthy() {
    let test = "every_recipe_makes_an_image_whose_application_starts_and_gets_healthy";
    if !has_engine(test) {
        return;
    }
    let recipes = build(&["--list"]);
    assert!(recipes.iter().any(|recipe| recipe == "postgres"), "{recipes:?}");
    let containers: Vec<Container> = recipes.iter().map(|recipe| Container::start(recipe)).collect();
    for container in &containers {
        wait_until(&container.0, || {
            let state = container.state();
            assert!(state.starts_with("running"), "{state}: {}", container.log());
            state == "running" || state == "running healthy"
        });
    }
}
