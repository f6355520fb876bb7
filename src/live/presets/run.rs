//! Carries a preset's plan out in its container. Whatever was begun is cleaned up, whatever fails; and a dump counts only when
//! its command ended well *and* its end is that of a whole one.

use std::io::Read;

use super::plan::{Input, Output, Plan, Program, SMALL_TIME_MAX, Step, Variant};
use super::secret::{Secret, Source};
use super::skip::WithoutRole;
use super::stream::{Sink, Stream};
use super::tool::{Found, find};
use crate::docker::{ContainerDetail, Engine, ExecOutcome, ExecSpec};
use crate::error::{Error, ErrorKind, Result};
use crate::model::path::escape;
use crate::seal::random_array;

/// The longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 64 << 10;
/// How much of what a command said goes into an error, in bytes. All of it is in a report.
const COMPLAINT_BYTES_MAX: usize = 2000;

/// A dump that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpReport {
    /// The name of the file that it is to be kept as.
    pub file: &'static str,
    /// Its length in bytes.
    pub bytes: u64,
    /// The program that made it, and its version in its own words.
    pub tool: String,
    /// See there.
    pub version: String,
    /// How it was taken, where there are several ways; a restore has to know.
    pub variant: &'static str,
    /// What the command said on stderr, its last 64 KiB. Unescaped.
    pub stderr: Vec<u8>,
    /// What is to be said about it.
    pub warnings: Vec<String>,
}

/// A dump that was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreReport {
    /// The program that took it, and its version in its own words.
    pub tool: String,
    /// See there.
    pub version: String,
    /// What the command said on stderr, its last 64 KiB. Unescaped.
    pub stderr: Vec<u8>,
    /// What is to be said about it.
    pub warnings: Vec<String>,
}

/// A token for [`super::Preset::dump`] and [`super::Preset::restore`].
pub fn token() -> Result<String> {
    Ok(random_array::<16>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Takes a dump and hands it to `sink` piece by piece. What `sink` was given is a dump only when this returns well.
pub fn take(engine: &dyn Engine, container: &ContainerDetail, plan: &Plan, sink: &mut Sink<'_>) -> Result<DumpReport> {
    let mut pass = |bytes: &[u8]| sink(bytes);
    let mut run = Run::begin(engine, container, plan, ErrorKind::Source)?;
    let mut stream = Stream::new(plan.trailer, &mut pass);
    run.steps(None, Some(&mut stream))?;
    let bytes = stream.finish()?.map_err(|why| {
        run.error(format!("the dump is not whole: {why}")).hint("nothing of it was kept; the command itself reported no failure")
    })?;
    let Run { found, variant, stderr, warnings, .. } = run;
    let tool = found.name.to_owned();
    Ok(DumpReport { file: plan.application.dump_file(), bytes, tool, version: found.version, variant, stderr, warnings })
}

/// Pipes a dump into the application.
pub fn pipe_back(engine: &dyn Engine, container: &ContainerDetail, plan: &Plan, dump: &mut (dyn Read + Send)) -> Result<RestoreReport> {
    let mut run = Run::begin(engine, container, plan, ErrorKind::Target)?;
    run.steps(Some(dump), None)?;
    let Run { found, stderr, warnings, .. } = run;
    Ok(RestoreReport { tool: found.name.to_owned(), version: found.version, stderr, warnings })
}

/// Does what shortens the recovery from a frozen copy. A failure costs nothing but time later, so it is only said.
pub fn before_freeze(engine: &dyn Engine, container: &ContainerDetail, plan: &Plan) -> Option<String> {
    let done = Run::begin(engine, container, plan, ErrorKind::Source).and_then(|mut run| run.steps(None, None));
    done.err().map(|error| format!("not prepared for the freeze, so that its recovery takes longer: {error}"))
}

/// A plan being carried out.
struct Run<'a> {
    engine: &'a dyn Engine,
    container: &'a ContainerDetail,
    plan: &'a Plan,
    /// The kind of its failures.
    kind: ErrorKind,
    found: Found,
    env: Vec<(String, String)>,
    variant: &'static str,
    stderr: Vec<u8>,
    warnings: Vec<String>,
}

impl<'a> Run<'a> {
    /// Finds the program and the secrets; does nothing yet.
    fn begin(engine: &'a dyn Engine, container: &'a ContainerDetail, plan: &'a Plan, kind: ErrorKind) -> Result<Self> {
        let found = find(engine, container, &plan.tool)?;
        let mut run = Self { engine, container, plan, kind, found, env: Vec::new(), variant: "", stderr: Vec::new(), warnings: Vec::new() };
        for (name, secret) in &plan.env {
            let value = run.reveal(secret)?;
            run.env.push(((*name).to_owned(), value));
        }
        Ok(run)
    }

    /// All commands in order; after a failure those that clean up.
    fn steps(&mut self, mut dump_in: Option<&mut (dyn Read + Send)>, mut dump_out: Option<&mut Stream<'_>>) -> Result<()> {
        let mut failure: Option<Error> = None;
        for step in &self.plan.steps {
            if failure.is_some() && !step.always {
                continue;
            }
            let dump_in = dump_in.as_mut().map(|dump| &mut **dump as &mut (dyn Read + Send));
            let result = self.step(step, dump_in, dump_out.as_deref_mut());
            match result {
                Err(error) if step.always => self.warnings.push(error.to_string()),
                Err(error) => failure = Some(error),
                Ok(()) => {}
            }
        }
        match failure {
            None => Ok(()),
            Some(error) if self.warnings.is_empty() => Err(error),
            Some(error) => Err(error.hint(format!("it could not be cleaned up either: {}", self.warnings.join("; ")))),
        }
    }

    /// One command, in the first variant that works.
    fn step(&mut self, step: &Step, dump_in: Option<&mut (dyn Read + Send)>, mut dump_out: Option<&mut Stream<'_>>) -> Result<()> {
        let (last, others) = step.variants.split_last().ok_or_else(|| self.error(format!("there is no way to {}", step.what)))?;
        // What was read from a dump cannot be read again.
        let others = if dump_in.is_some() && matches!(step.input, Input::Dump { .. }) { &[][..] } else { others };
        for variant in others {
            let outcome = self.command(step, variant, None, dump_out.as_deref_mut())?;
            if outcome.code == 0 {
                return self.succeed(step, variant, outcome);
            }
            if !dump_out.as_mut().is_none_or(|stream| stream.start_again()) {
                return Err(self.complaint(step, &outcome));
            }
        }
        let outcome = self.command(step, last, dump_in, dump_out)?;
        if outcome.code == 0 { self.succeed(step, last, outcome) } else { Err(self.complaint(step, &outcome)) }
    }

    fn succeed(&mut self, step: &Step, variant: &Variant, outcome: ExecOutcome) -> Result<()> {
        if step.program == Program::Tool {
            self.variant = variant.name;
            self.stderr = outcome.stderr;
        }
        self.warnings.extend(variant.warning.map(str::to_owned));
        Ok(())
    }

    fn command(
        &self,
        step: &Step,
        variant: &Variant,
        dump_in: Option<&mut (dyn Read + Send)>,
        mut dump_out: Option<&mut Stream<'_>>,
    ) -> Result<ExecOutcome> {
        let program = match step.program {
            Program::Tool => self.found.name,
            Program::System(name) => name,
        };
        let mut spec = ExecSpec::new(std::iter::once(program).chain(variant.args.iter().map(String::as_str)), step.deadline);
        spec.user = self.found.user.map(str::to_owned);
        spec.env = self.env.clone();
        spec.idle = step.idle;
        let mut stdout = |bytes: &[u8]| match (&mut dump_out, step.output) {
            (Some(stream), Output::Dump) => stream.push(bytes),
            _ => Ok(()),
        };
        let id = &self.container.id;
        match (&step.input, dump_in) {
            (Input::Nothing, _) | (Input::Dump { .. }, None) => self.engine.exec(id, &spec, None, &mut stdout),
            (Input::Secret(secret), _) => {
                let text = self.reveal(secret)?;
                self.engine.exec(id, &spec, Some(&mut text.as_bytes()), &mut stdout)
            }
            (Input::Dump { without_own_role: false }, Some(dump)) => self.engine.exec(id, &spec, Some(dump), &mut stdout),
            (Input::Dump { without_own_role: true }, Some(dump)) => {
                let role = self.env.iter().find(|(name, _)| name == "PGUSER").map_or("postgres", |(_, role)| role.as_str());
                self.engine.exec(id, &spec, Some(&mut WithoutRole::new(dump, role)), &mut stdout)
            }
        }
    }

    /// A secret in clear.
    fn reveal(&self, secret: &Secret) -> Result<String> {
        let parts = secret.parts.iter().map(|part| match part {
            Source::Value(value) => Ok(value.clone()),
            Source::File(path) => self.read_secret(path),
        });
        Ok((secret.form)(&parts.collect::<Result<Vec<_>>>()?))
    }

    /// Reads a secret's file in the container, as the container's own user, whom it was made for.
    fn read_secret(&self, path: &str) -> Result<String> {
        let bad = |why: &str| self.error(format!("the password's file {} {why}", escape(path.as_bytes())));
        if !path.starts_with('/') {
            return Err(bad("is not an absolute path"));
        }
        let mut bytes = Vec::new();
        let outcome = self.engine.exec(&self.container.id, &ExecSpec::new(["cat", path], SMALL_TIME_MAX), None, &mut |more| {
            bytes.extend_from_slice(&more[..more.len().min(SECRET_BYTES_MAX + 1 - bytes.len())]);
            Ok(())
        })?;
        if outcome.code != 0 {
            return Err(bad(&format!("cannot be read in the container: {}", complaint(&outcome.stderr))));
        }
        if bytes.len() > SECRET_BYTES_MAX {
            return Err(bad("is too long for one"));
        }
        let text = String::from_utf8(bytes).map_err(|_| bad("is not UTF-8"))?;
        let text = text.trim_end_matches(['\n', '\r']);
        if text.contains('\0') { Err(bad("has a zero byte")) } else { Ok(text.to_owned()) }
    }

    fn error(&self, message: String) -> Error {
        Error::new(self.kind, format!("{}: {message}", self.plan.application.name())).on(&self.container.name)
    }

    fn complaint(&self, step: &Step, outcome: &ExecOutcome) -> Error {
        let said = complaint(&outcome.stderr);
        let said = if said.is_empty() { "it said nothing".to_owned() } else { said };
        self.error(format!("cannot {} (exit code {})", step.what, outcome.code)).because(said)
    }
}

/// The end of what a command said, as printable text.
fn complaint(stderr: &[u8]) -> String {
    let stderr = stderr.trim_ascii();
    escape(&stderr[stderr.len().saturating_sub(COMPLAINT_BYTES_MAX)..])
}
