//! Commands of the user's own, run in the container whose labels name them: before a capture (`pre`), after it (`post`), and
//! after a restore (`post-restore`). A container's labels so never do more than the container could do itself.

use std::time::Duration;

use crate::docker::exec::STDERR_BYTES_MAX;
use crate::docker::{ContainerDetail, Engine, ExecSpec, Tail};
use crate::error::{Error, ErrorKind, Result};
use crate::model::path::escape;

/// How long a hook may take that says nothing about it.
pub const HOOK_TIME_DEFAULT: Duration = Duration::from_secs(60);
/// How long any hook may take.
pub const HOOK_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// The longest command, in bytes with its arguments.
pub const HOOK_BYTES_MAX: usize = 64 << 10;

/// A command in a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    argv: Vec<String>,
    user: Option<String>,
    timeout: Duration,
}

/// When a hook runs; decides what its failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Before the capture, which fails with it.
    Pre,
    /// After the capture; a failure is only said.
    Post,
    /// After a restore; a failure is only said.
    PostRestore,
}

impl Stage {
    /// As the label's name has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Post => "post",
            Self::PostRestore => "post-restore",
        }
    }
}

impl Hook {
    /// A program and its arguments, run as they are.
    pub fn command(argv: Vec<String>) -> Result<Self> {
        let bad = |why: &str| {
            Err(Error::new(ErrorKind::Usage, format!("not a command for a hook: {why}"))
                .hint("write [\"program\", \"argument\"] or sh: and a line for the container's shell"))
        };
        match argv.first() {
            None => bad("it is empty"),
            Some(program) if program.is_empty() => bad("the program's name is empty"),
            _ if argv.iter().any(|text| text.contains('\0')) => bad("it has a zero byte"),
            _ if argv.iter().map(String::len).sum::<usize>() > HOOK_BYTES_MAX => bad("it is longer than 64 KiB"),
            _ => Ok(Self { argv, user: None, timeout: HOOK_TIME_DEFAULT }),
        }
    }

    /// A line for the container's own `sh`.
    pub fn shell(line: &str) -> Result<Self> {
        if line.trim().is_empty() {
            return Self::command(Vec::new());
        }
        Self::command(vec!["sh".into(), "-c".into(), line.into()])
    }

    /// The same command as `user` (`USER[:GROUP]`, by name or number).
    pub fn with_user(mut self, user: &str) -> Result<Self> {
        let usual = |b: u8| b.is_ascii_alphanumeric() || b"_.-:$".contains(&b);
        if user.is_empty() || user.len() > 128 || !user.bytes().all(usual) {
            return Err(Error::new(ErrorKind::Usage, "not a user for a hook").on(escape(user.as_bytes())).hint("write USER or USER:GROUP"));
        }
        self.user = Some(user.to_owned());
        Ok(self)
    }

    /// The same command with another limit of time.
    pub fn with_timeout(mut self, timeout: Duration) -> Result<Self> {
        if timeout.is_zero() || timeout > HOOK_TIME_MAX {
            return Err(Error::new(ErrorKind::Usage, "a hook's timeout is more than nothing and at most a day")
                .on(format!("{} s", timeout.as_secs())));
        }
        self.timeout = timeout;
        Ok(self)
    }

    /// The command as one printable text.
    pub fn text(&self) -> String {
        escape(self.argv.join(" ").as_bytes())
    }

    /// Runs it in `container` and waits for its end. An exit code other than 0 is a failure; the end of what it wrote, both
    /// streams, is in the error.
    pub fn run(&self, engine: &dyn Engine, container: &ContainerDetail, stage: Stage) -> Result<()> {
        let mut spec = ExecSpec::new(self.argv.iter().map(String::as_str), self.timeout);
        spec.user.clone_from(&self.user);
        let stdout = Tail::default();
        let outcome = engine.exec(&container.id, &spec, None, &mut |bytes| {
            stdout.push(bytes);
            Ok(())
        });
        let failed = |what: String| format!("the {} hook of container {} {what}", stage.name(), escape(container.name.as_bytes()));
        match outcome {
            Ok(outcome) if outcome.code == 0 => Ok(()),
            Ok(outcome) => Err(Error::new(ErrorKind::Source, failed(format!("ended with exit code {}", outcome.code)))
                .on(self.text())
                .because(said(&stdout.bytes(), &outcome.stderr))),
            Err(error) if error.kind() == ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                let hint = error.advice().map(str::to_owned);
                let wrapped = Error::new(kind, failed("could not be run to its end".into())).on(self.text()).because(error.to_string());
                Err(hint.into_iter().fold(wrapped, Error::hint))
            }
        }
    }
}

/// Runs the `pre` hooks of a group in order; the first failure ends it, and the capture with it. How many were run well is
/// told to `done`, so that their `post` counterparts can be run.
pub fn run_pre<'a>(
    engine: &dyn Engine,
    hooks: impl IntoIterator<Item = (&'a ContainerDetail, &'a Hook)>,
    mut done: impl FnMut(&'a ContainerDetail),
) -> Result<()> {
    for (container, hook) in hooks {
        hook.run(engine, container, Stage::Pre)?;
        done(container);
    }
    Ok(())
}

/// Runs hooks whose failure is only said, all of them.
pub fn run_all<'a>(engine: &dyn Engine, stage: Stage, hooks: impl IntoIterator<Item = (&'a ContainerDetail, &'a Hook)>) -> Vec<String> {
    hooks.into_iter().filter_map(|(container, hook)| hook.run(engine, container, stage).err()).map(|error| error.to_string()).collect()
}

/// The last 64 KiB of what a command wrote, escaped: stderr, where programs say why they fail, after stdout.
fn said(stdout: &[u8], stderr: &[u8]) -> String {
    let (stdout, stderr) = (stdout.trim_ascii(), stderr.trim_ascii());
    let both = if stdout.is_empty() || stderr.is_empty() { [stdout, stderr].concat() } else { [stdout, b"\n", stderr].concat() };
    if both.is_empty() { "it wrote nothing".into() } else { escape(&both[both.len().saturating_sub(STDERR_BYTES_MAX)..]) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::docker::fake::{FakeEngine, FakeOutput};

    fn container(name: &str) -> ContainerDetail {
        ContainerDetail { id: name.repeat(64), name: name.into(), state: "running".into(), running: true, ..ContainerDetail::default() }
    }

    fn engine(code: i64, stdout: &'static [u8], stderr: &'static [u8]) -> FakeEngine {
        let engine = FakeEngine::new();
        engine.add_detail(container("a"));
        engine.add_detail(container("b"));
        engine.on_exec(move |_, _| Ok(FakeOutput { stdout: stdout.to_vec(), stderr: stderr.to_vec(), code, error: None }));
        engine
    }

    #[test]
    fn hooks_that_cannot_be_meant_are_refused() {
        assert!(Hook::command(vec![]).is_err() && Hook::command(vec![String::new(), "x".into()]).is_err());
        assert!(Hook::command(vec!["a\0".into()]).is_err() && Hook::command(vec!["a".repeat(HOOK_BYTES_MAX + 1)]).is_err());
        assert!(Hook::shell("  \n").is_err());
        let hook = Hook::shell("sync; true").unwrap();
        for bad in ["", "a b", "a\n", &"u".repeat(129)] {
            assert!(hook.clone().with_user(bad).is_err(), "{bad:?}");
        }
        assert!(hook.clone().with_timeout(Duration::ZERO).is_err() && hook.clone().with_timeout(HOOK_TIME_MAX * 2).is_err());
        assert!(hook.with_user("1001:www-data").is_ok());
    }

    #[test]
    fn a_hook_runs_as_its_user_within_its_time_and_a_shell_only_where_asked() {
        let engine = engine(0, b"", b"");
        let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let record = std::sync::Arc::clone(&seen);
        engine.on_exec(move |_, exec| {
            record.lock().unwrap().push(exec.spec.clone());
            Ok(FakeOutput::default())
        });
        let hook = Hook::command(vec!["echo".into(), "$HOME; id".into()]).unwrap().with_user("app").unwrap();
        hook.with_timeout(Duration::from_secs(7)).unwrap().run(&engine, &container("a"), Stage::Pre).unwrap();
        Hook::shell("a | b").unwrap().run(&engine, &container("a"), Stage::Pre).unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen[0].argv, ["echo", "$HOME; id"]);
        assert_eq!((seen[0].user.as_deref(), seen[0].deadline), (Some("app"), Duration::from_secs(7)));
        assert_eq!(seen[1].argv, ["sh", "-c", "a | b"]);
    }

    #[test]
    fn a_hook_that_fails_says_what_it_wrote_in_printable_text() {
        let error = Hook::shell("x").unwrap().run(&engine(3, b"half\x1b[2J", b"disk full"), &container("a"), Stage::Pre).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("pre hook of container a") && text.contains("exit code 3") && text.contains("half"), "{text}");
        assert!(text.ends_with("disk full") && !text.contains('\x1b'), "{text}");
        let long: &[u8] = Box::leak(vec![b'o'; 3 * STDERR_BYTES_MAX].into_boxed_slice());
        let error = Hook::shell("x").unwrap().run(&engine(1, long, b"the reason"), &container("a"), Stage::Pre).unwrap_err();
        assert!(error.to_string().len() < STDERR_BYTES_MAX + 1000 && error.to_string().ends_with("the reason"));
    }

    #[test]
    fn the_first_pre_hook_that_fails_ends_them_and_other_hooks_only_tell() {
        let (a, b) = (container("a"), container("b"));
        let hook = Hook::shell("x").unwrap();
        let hooks = [(&a, &hook), (&b, &hook)];
        let engine = FakeEngine::new();
        engine.add_detail(a.clone());
        engine.add_detail(b.clone());
        engine.on_exec(|_, exec| Ok(if exec.container == "b" { FakeOutput::failed(1, "no") } else { FakeOutput::default() }));
        let mut done = Vec::new();
        let error = run_pre(&engine, hooks, |container| done.push(container.name.clone())).unwrap_err();
        assert_eq!((done, error.kind()), (vec!["a".to_owned()], ErrorKind::Source));
        let told = run_all(&engine, Stage::Post, hooks);
        assert!(told.len() == 1 && told[0].contains("post hook of container b"), "{told:?}");
        engine.on_exec(|_, _| Ok(FakeOutput::failed(1, "no")));
        assert_eq!(run_all(&engine, Stage::PostRestore, hooks).len(), 2, "all of them run");
        assert!(run_pre(&engine, hooks, |_| ()).is_err());
    }

    #[test]
    fn a_hook_that_could_not_be_run_names_itself_and_keeps_the_kind() {
        let engine = FakeEngine::new();
        let paused = ContainerDetail { state: "paused".into(), paused: true, ..container("a") };
        engine.add_detail(paused.clone());
        let error = Hook::shell("backup").unwrap().run(&engine, &paused, Stage::Pre).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("pre hook") && error.subject().is_some_and(|subject| subject.contains("backup")), "{error}");
    }
}
