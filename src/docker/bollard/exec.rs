//! Running a command in a container to its very end.
//!
//! That output ended proves nothing (the engine may have died), and neither does an exit code without the whole output: both
//! are waited for. No engine can end a command; one that misses its deadline is left running and named in the error.

use std::io::{self, BufReader, Read};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::bollard::errors::Error as ApiError;
use ::bollard::exec::CreateExecOptions;
use ::bollard::models::ExecInspectResponse;

use super::BollardEngine;
use super::failure::{cause_of, container_failure, failure, seconds, status};
use super::frames::{Channel, Frames, timed_out};
use super::hijack::Socket;
use super::streams::PART_BYTES;
use crate::docker::check_container_id;
use crate::docker::exec::{ExecOutcome, ExecSpec, Tail};
use crate::error::{Error, ErrorKind, Result};
use crate::model::path::escape;

/// How often a wait looks at what else happened.
const TICK: Duration = Duration::from_millis(500);
/// The longest deadline that can be added to a moment.
const DEADLINE_SECONDS_MAX: u64 = 366 * 24 * 3600;
/// How much of the beginning of stdout is kept for a command that could not be started: there the engine says why.
const EXCUSE_BYTES_MAX: usize = 4096;

/// The attempt, for errors.
const RUN: &str = "run a command in";

/// A command that was started.
struct Command<'a> {
    engine: &'a BollardEngine,
    id: &'a str,
    exec: String,
    spec: &'a ExecSpec,
    end: Instant,
    start: Instant,
    /// When bytes went either way the last time, in milliseconds after the start.
    moved: AtomicU64,
}

/// Why the output was not read to its end.
enum Broken {
    /// The caller's function failed.
    Receiver(Error),
    Stream(io::Error),
    /// It did not end, or nothing moved.
    Slow(Slow),
}

/// What took longer than it may.
#[derive(Clone, Copy)]
enum Slow {
    Whole,
    Idle,
}

impl BollardEngine {
    pub(super) fn run_command(
        &self,
        id: &str,
        spec: &ExecSpec,
        stdin: Option<&mut (dyn Read + Send)>,
        stdout: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
    ) -> Result<ExecOutcome> {
        let start = Instant::now();
        let end = start + spec.deadline.min(Duration::from_secs(DEADLINE_SECONDS_MAX));
        let exec = self.create_exec(id, spec, stdin.is_some())?;
        let path = format!("/exec/{exec}/start");
        let command = Command { engine: self, id, exec, spec, end, start, moved: AtomicU64::new(0) };
        let stream = self.hijack(&path, r#"{"Detach":false,"Tty":false}"#, spec.deadline).map_err(|cause| match status(&cause) {
            Some(_) => container_failure(&self.address, RUN, id, &cause),
            // It may have been started all the same.
            None => command.broken(cause_of(&cause)),
        })?;
        command.run(stream, stdin, stdout)
    }

    fn create_exec(&self, id: &str, spec: &ExecSpec, stdin: bool) -> Result<String> {
        let options = CreateExecOptions {
            attach_stdin: Some(stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(false),
            privileged: Some(false),
            env: Some(spec.env.iter().map(|(key, value)| format!("{key}={value}")).collect()),
            cmd: Some(spec.argv.clone()),
            user: spec.user.clone(),
            working_dir: spec.working_dir.clone(),
            ..CreateExecOptions::default()
        };
        let asked = id.to_owned();
        let made = self.ask(|docker| async move { docker.create_exec(&asked, options).await })?;
        let made = made.map_err(|cause| container_failure(&self.address, RUN, id, &cause))?;
        check_container_id(&made.id).map_err(|error| error.with_kind(ErrorKind::Docker))?;
        Ok(made.id)
    }

    fn inspect_exec(&self, exec: &str) -> Result<Result<ExecInspectResponse, ApiError>> {
        let asked = exec.to_owned();
        self.ask(|docker| async move { docker.inspect_exec(&asked).await })
    }
}

impl Command<'_> {
    fn run(
        &self,
        stream: BufReader<Socket>,
        stdin: Option<&mut (dyn Read + Send)>,
        stdout: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
    ) -> Result<ExecOutcome> {
        let socket = stream.get_ref().try_clone().map_err(|error| self.broken(error))?;
        let (stderr, mut excuse) = (Tail::default(), Excuse::default());
        let mut receive = |bytes: &[u8]| {
            excuse.push(bytes);
            stdout(bytes)
        };
        let (fed, received) = std::thread::scope(|scope| {
            let feeder = stdin.map(|stdin| scope.spawn(|| self.feed(stdin, &socket)));
            let received = self.receive(stream, &mut receive, &stderr);
            // Also ends the feeder, wherever it is in sending.
            socket.shutdown(Shutdown::Both);
            (feeder.map_or(Ok(()), |feeder| feeder.join().unwrap_or(Ok(()))), received)
        });
        fed?;
        match received {
            Ok(()) => {}
            Err(Broken::Receiver(error)) => return Err(error),
            Err(Broken::Stream(error)) => return Err(self.broken(error)),
            Err(Broken::Slow(slow)) => return Err(self.hangs(slow)),
        }
        let code = self.wait()?;
        let stderr = if matches!(code, 126 | 127) && stderr.bytes().is_empty() { excuse.bytes } else { stderr.bytes() };
        Ok(ExecOutcome { code, stderr })
    }

    /// Sends all of `stdin` and ends the command's stdin. A command that stops reading is no error here: its exit code tells.
    fn feed(&self, stdin: &mut (dyn Read + Send), socket: &Socket) -> Result<()> {
        let mut buffer = vec![0; PART_BYTES];
        loop {
            let length = match stdin.read(&mut buffer) {
                Ok(0) => {
                    socket.shutdown(Shutdown::Write);
                    return Ok(());
                }
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    // The command must not take this for the end, as far as that is in our hands.
                    socket.shutdown(Shutdown::Both);
                    let attempt = format!("cannot read what is sent to {} in the container", self.program());
                    return Err(Error::new(ErrorKind::Source, attempt).on(self.id).because(error));
                }
            };
            let mut rest = buffer.get(..length).unwrap_or_default();
            while !rest.is_empty() {
                match socket.send(rest) {
                    Ok(sent) if sent > 0 => {
                        self.touch();
                        rest = rest.get(sent..).unwrap_or_default();
                    }
                    Err(error) if timed_out(&error) || error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(_) | Err(_) => return Ok(()),
                }
            }
        }
    }

    /// Receives all output, to the end of the stream.
    fn receive(
        &self,
        stream: BufReader<Socket>,
        stdout: &mut (dyn FnMut(&[u8]) -> Result<()> + Send),
        stderr: &Tail,
    ) -> Result<(), Broken> {
        let mut frames = Frames::new(stream);
        let mut buffer = vec![0; PART_BYTES];
        loop {
            frames.input().get_ref().set_read_timeout(self.patience()?).map_err(Broken::Stream)?;
            match frames.read(&mut buffer) {
                Ok(Some((channel, length))) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    match channel {
                        Channel::Stdout => stdout(bytes).map_err(Broken::Receiver)?,
                        Channel::Stderr | Channel::Engine => stderr.push(bytes),
                    }
                    self.touch();
                }
                Ok(None) => return Ok(()),
                Err(error) if timed_out(&error) => {}
                Err(error) => return Err(Broken::Stream(error)),
            }
        }
    }

    /// How long to wait for more.
    fn patience(&self) -> Result<Duration, Broken> {
        let silent = self.start.elapsed().saturating_sub(Duration::from_millis(self.moved.load(Ordering::Relaxed)));
        let whole = self.end.saturating_duration_since(Instant::now());
        let idle = self.spec.idle.saturating_sub(silent);
        match (whole.is_zero(), idle.is_zero()) {
            (true, _) => Err(Broken::Slow(Slow::Whole)),
            (_, true) => Err(Broken::Slow(Slow::Idle)),
            _ => Ok(whole.min(idle).min(TICK)),
        }
    }

    fn touch(&self) {
        self.moved.store(self.start.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// How a command ended, and how it did not.
impl Command<'_> {
    /// Waits until the engine says that the command has ended.
    fn wait(&self) -> Result<i64> {
        let mut pause = Duration::from_millis(2);
        loop {
            let exec = self.engine.inspect_exec(&self.exec)?.map_err(|cause| self.lost(&cause))?;
            match (exec.running, exec.exit_code) {
                (Some(false), Some(code)) => return Ok(code),
                (Some(false), None) => return Err(self.error("the engine does not say how a command ended")),
                _ => {}
            }
            if Instant::now() >= self.end {
                return Err(self.hangs(Slow::Whole));
            }
            if pause >= TICK && !self.engine.inspect(self.id)?.running {
                return Err(self.error("the container ended, and the engine does not say how a command in it did"));
            }
            std::thread::sleep(pause.min(self.end.saturating_duration_since(Instant::now())));
            pause = (pause * 2).min(TICK);
        }
    }

    /// The engine knows nothing of the command any more: its container was removed, or the engine restarted.
    fn lost(&self, cause: &ApiError) -> Error {
        match self.engine.inspect(self.id) {
            Err(error) if error.kind() == ErrorKind::NotFound => error,
            _ => failure(&self.engine.address, &self.attempt("cannot learn how a command ended"), cause),
        }
    }

    /// The stream of the command is not what it should be. It may be running on.
    fn broken(&self, cause: io::Error) -> Error {
        let error = failure(&self.engine.address, &self.attempt("lost the output of a command"), &cause.into());
        match self.left_running() {
            Some(left) => error.hint(left),
            None => error,
        }
    }

    fn hangs(&self, slow: Slow) -> Error {
        let what = match slow {
            Slow::Whole => format!("a command did not end within {}", seconds(self.spec.deadline)),
            Slow::Idle => format!("a command neither wrote nor read for {}", seconds(self.spec.idle)),
        };
        let cause = io::Error::new(io::ErrorKind::TimedOut, "nobody waits for it any more");
        let left = self.left_running().unwrap_or_else(|| "by now it has ended, or the engine does not say".into());
        Error::new(ErrorKind::Docker, self.attempt(&what)).on(&self.engine.address).because(cause).hint(left)
    }

    fn error(&self, what: &str) -> Error {
        Error::new(ErrorKind::Docker, self.attempt(what)).on(&self.engine.address)
    }

    fn attempt(&self, what: &str) -> String {
        format!("{what} ({} in the container {})", self.program(), self.id)
    }

    fn program(&self) -> String {
        escape(self.spec.argv.first().map(String::as_bytes).unwrap_or_default())
    }

    /// What is left of the command in the container, in words; none when it has ended or the engine doesn't say.
    fn left_running(&self) -> Option<String> {
        let exec = self.engine.inspect_exec(&self.exec).ok()?.ok().filter(|exec| exec.running == Some(true))?;
        let pid = exec.pid.filter(|pid| *pid > 0)?;
        let container = exec.container_id.unwrap_or_default();
        let local = self.engine.address.starts_with("unix://");
        Some(match pid_inside(pid, &container).filter(|_| local) {
            Some(inside) => format!(
                "it was left running as process {inside} of the container ({pid} on the host); `docker exec {} kill {inside}` ends it",
                self.id
            ),
            None => format!("it was left running as process {pid} on the engine's host; `kill {pid}` there ends it"),
        })
    }
}

/// A process's number in its container, when `pid` on this host is a process of that container: the engine may live in a
/// virtual machine, where its numbers mean others.
fn pid_inside(pid: i64, container: &str) -> Option<i64> {
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    let inside = numbers.split_ascii_whitespace().skip(1).last()?.parse().ok()?;
    (!container.is_empty() && cgroup.contains(container)).then_some(inside)
}

/// The beginning of stdout.
#[derive(Default)]
struct Excuse {
    bytes: Vec<u8>,
}

impl Excuse {
    fn push(&mut self, bytes: &[u8]) {
        let room = EXCUSE_BYTES_MAX.saturating_sub(self.bytes.len()).min(bytes.len());
        self.bytes.extend_from_slice(bytes.get(..room).unwrap_or_default());
    }
}
