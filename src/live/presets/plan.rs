//! Presets as data: the commands of a dump or a restore, in order, what they are given and what is done with what they say.
//! Commands are lists of arguments; no shell reads them, and no secret is among them.

use std::time::Duration;

use super::Application;
use super::secret::Secret;
use super::stream::Trailer;

/// How long a dump or a restore may take.
const STREAM_TIME_MAX: Duration = Duration::from_secs(12 * 3600);
/// How long a dump may be silent: a database that sorts or waits for a lock says nothing for minutes.
const STREAM_IDLE_MAX: Duration = Duration::from_secs(15 * 60);
/// How long a small command (a version, a folder made or removed) may take.
pub(super) const SMALL_TIME_MAX: Duration = Duration::from_secs(30);
/// The folder for files that cannot be streamed, where the container names none.
const SCRATCH_FOLDER: &str = "/tmp";

/// Commands in one container that take a dump or put one back.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The application.
    pub application: Application,
    /// The program that matters.
    pub tool: Tool,
    /// Variables for every command of the plan, on top of the container's own.
    pub env: Vec<(&'static str, Secret)>,
    /// The commands, in order. Once the first was started, those with [`Step::always`] run whatever happens.
    pub steps: Vec<Step>,
    /// What a whole dump ends with.
    pub trailer: Trailer,
}

/// A program under the names that images give it.
#[derive(Debug, Clone)]
pub struct Tool {
    /// Its names, the best first.
    pub names: &'static [&'static str],
    /// The arguments that make it print its version.
    pub version: &'static [&'static str],
    /// The users to run it as, the best first; none is the container's own.
    pub users: &'static [Option<&'static str>],
}

/// One command.
#[derive(Debug, Clone)]
pub struct Step {
    /// What it does, for messages: "save the snapshot".
    pub what: &'static str,
    /// The program.
    pub program: Program,
    /// Its arguments.
    pub variants: Vec<Variant>,
    /// What it reads.
    pub input: Input,
    /// What is done with its stdout.
    pub output: Output,
    /// It runs also when an earlier one failed, and its failure is only a warning: it cleans up.
    pub always: bool,
    /// How long it may take.
    pub deadline: Duration,
    /// How long it may be silent.
    pub idle: Duration,
}

/// Arguments of a command. Of several variants the next is tried when one fails before anything of the dump was handed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Its name, recorded with the dump; empty for the plain one.
    pub name: &'static str,
    /// The arguments.
    pub args: Vec<String>,
    /// What is to be said of a dump that was taken this way.
    pub warning: Option<&'static str>,
}

/// Which program a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The plan's tool, under the name that was found.
    Tool,
    /// One of every system's own, as the tool's user.
    System(&'static str),
}

/// What a step reads.
#[derive(Debug, Clone)]
pub enum Input {
    /// Nothing.
    Nothing,
    /// A text that belongs in no list of arguments.
    Secret(Secret),
    /// The dump.
    Dump {
        /// Leave out the statements that drop and create the role that we are connected as.
        without_own_role: bool,
    },
}

/// What is done with a step's stdout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// It is not looked at.
    Ignored,
    /// It is the dump.
    Dump,
}

/// How a dump goes back.
#[derive(Debug, Clone)]
pub enum Restore {
    /// Into a command in the running container.
    Pipe(Plan),
    /// As a file, while the container is stopped.
    Place(Placement),
    /// In steps that somebody has to decide on, said in words.
    ByHand(&'static str),
}

/// A dump that is put in place as a file while the application is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The file: an absolute path in the container, or a name in the application's data folder.
    pub file: String,
    /// Files of the same folder that belong to the old data and have to go.
    pub remove: Vec<String>,
    /// What else has to be known, in words.
    pub notes: &'static str,
}

impl Step {
    /// A command of the plan's tool that may take as long as a dump.
    pub(super) fn tool(what: &'static str, args: Vec<String>) -> Self {
        Self {
            what,
            program: Program::Tool,
            variants: vec![Variant { name: "", args, warning: None }],
            input: Input::Nothing,
            output: Output::Ignored,
            always: false,
            deadline: STREAM_TIME_MAX,
            idle: STREAM_TIME_MAX,
        }
    }

    /// A command of every system, over soon.
    pub(super) fn system(what: &'static str, program: &'static str, args: Vec<String>) -> Self {
        Self { program: Program::System(program), deadline: SMALL_TIME_MAX, idle: SMALL_TIME_MAX, ..Self::tool(what, args) }
    }

    /// Its stdout is the dump.
    pub(super) fn dumps(mut self) -> Self {
        self.output = Output::Dump;
        self.deadline = STREAM_TIME_MAX;
        self.idle = STREAM_IDLE_MAX;
        self
    }

    /// It reads the dump.
    pub(super) fn reads_dump(mut self, without_own_role: bool) -> Self {
        self.input = Input::Dump { without_own_role };
        self
    }

    /// It reads `secret`.
    pub(super) fn reads(mut self, secret: Secret) -> Self {
        self.input = Input::Secret(secret);
        self
    }

    /// It has to end within `deadline`.
    pub(super) fn within(mut self, deadline: Duration) -> Self {
        (self.deadline, self.idle) = (deadline, deadline);
        self
    }
}

/// A folder in the container for files that only the plan's user can read, gone when the plan is done.
pub(super) struct Scratch {
    path: String,
}

impl Scratch {
    /// `folder` is where the container keeps such things (`TMPDIR`); one with unusual characters is not used.
    pub(super) fn new(folder: Option<&str>, token: &str) -> Self {
        let usual = |b: u8| b.is_ascii_alphanumeric() || b"/_.-".contains(&b);
        let folder = folder.filter(|folder| folder.starts_with('/') && folder.bytes().all(usual)).unwrap_or(SCRATCH_FOLDER);
        Self { path: format!("{}/icecore-{token}", folder.trim_end_matches('/')) }
    }

    /// The path of a file in it.
    pub(super) fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// Makes it; fails where something of that name is there already.
    pub(super) fn make(&self) -> Step {
        Step::system("make a folder for temporary files", "mkdir", args(&["-m", "700", &self.path]))
    }

    /// Hands out a file in it as the dump.
    pub(super) fn stream(&self, name: &str) -> Step {
        Step::system("read the dump", "cat", vec![self.file(name)]).dumps()
    }

    /// Removes it.
    pub(super) fn remove(&self) -> Step {
        Step { always: true, ..Step::system("remove the temporary files", "rm", args(&["-rf", &self.path])) }
    }
}

/// Arguments of texts.
pub(super) fn args(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}
