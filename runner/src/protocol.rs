//! The frames a worker and a runner exchange over the container's attached stdin and stdout.
//!
//! A frame is a big-endian `u32` length and that many bytes of MessagePack (named maps). One job runs at a time:
//!
//! ```text
//! runner → worker   Ready
//! worker → runner   Warm, or nothing for an image without a zygote
//! runner → worker   Warmed
//!
//! worker → runner   Run, then perhaps Cancel
//! runner → worker   Started, Output and Display…, then Done or Fault
//! runner → worker   Gone
//! ```
//!
//! `Done` comes as soon as the program's last process is dead and its last byte is sent; `Gone` when nothing is left of
//! its cell. The next `Run` may not come before.
//!
//! A program whose run says so may ask models: each question it writes on its [`QUESTIONS_FD`] comes as `Ask`, and the
//! worker sends an `Answer` for each. The runner cuts the stream into frames and passes them on unread; what they mean
//! is in `docs/inference.md`. An `Answer` that finds its program dead is dropped.
//!
//! A model server is a program that does not end by itself. While it runs the worker may `Say` bytes to it, and what
//! it answers comes as `Said`; what they mean is in [`crate::model`].
//!
//! The worker ends the conversation by closing the runner's stdin. Both sides treat what they read as hostile: a
//! length above [`MAX_FRAME`] or a frame that does not decode is a protocol error, after which the container is
//! destroyed, never reused. Unknown map fields are ignored, so that fields can be added; a new kind of frame needs a
//! new [`VERSION`].

mod frames;

use serde::{Deserialize, Serialize};

pub use crate::display::{
    DISPLAY, Displays, MAX_MIME, MAX_PARTS, Part, is_mime, is_sound, read as read_display,
    size as display_size,
};
pub use crate::files::{Fetch, FetchedFile, FileIn, LeftFile, LeftWhy};
pub use crate::secret::Secret;
pub use frames::{FrameError, encode, read, take, write};

/// The version of this conversation; both sides must name the same.
pub const VERSION: u32 = 5;

/// The largest frame, length prefix not counted: a full payload and room around it.
pub const MAX_FRAME: usize = 24 << 20;

/// The largest piece of output in one frame.
pub const MAX_CHUNK: usize = 64 << 10;

/// The largest value or exception a harness may answer with, in bytes of JSON.
pub const MAX_ANSWER: usize = 1 << 20;

/// The largest question a program may ask a model, in bytes, length prefix not counted.
pub const MAX_QUESTION: usize = 1 << 20;

/// The descriptor on which a program asks models, where its run lets it.
pub const QUESTIONS_FD: i32 = 4;

/// The variable that tells a program [`QUESTIONS_FD`].
pub const QUESTIONS_VARIABLE: &str = "SANDHOG_INFER_FD";

/// The variable that tells a program without a harness the path of the file with the job's `input`.
pub const INPUT_VARIABLE: &str = "SANDHOG_INPUT_FILE";

/// The path of that file.
pub const INPUT_FILE: &str = "/tmp/sandhog-input.json";

/// What a worker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRunner {
    /// Start a zygote. Once, before the first program.
    Warm(Box<Warm>),
    /// Run one program in a fresh cell.
    Run(Box<Run>),
    /// Bytes for the running model server. Ignored when nothing runs, or no server.
    Say {
        /// The bytes, at most [`MAX_FRAME`] with what is around them.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// The answer to one `Ask` of the running program. Ignored when nothing runs.
    Answer {
        /// The bytes, without a length before them.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// End the running program; its report says [`Stop::Cancelled`]. Ignored when nothing runs.
    Cancel,
}

/// A zygote: an interpreter that is started once and cloned for every program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warm {
    /// The harness whose programs it can run.
    pub harness: Vec<String>,
    /// Its own program and arguments.
    pub argv: Vec<String>,
    /// Its environment, on top of a cell's own.
    pub env: Vec<(String, String)>,
    /// The modules it imports.
    pub imports: Vec<String>,
    /// The caps that most programs will have: the first cell is made for them.
    pub caps: Caps,
}

/// One program and everything its cell needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What to start.
    pub program: Program,
    /// What it reads on standard input.
    #[serde(with = "serde_bytes")]
    pub stdin: Vec<u8>,
    /// The job's `input` as JSON text, for a program without a harness: the file named by
    /// [`INPUT_VARIABLE`] holds it.
    #[serde(default)]
    pub input_json: Option<String>,
    /// Its environment, on top of the cell's own.
    pub env: Vec<(String, String)>,
    /// Variables whose values nothing but the program sees.
    #[serde(default)]
    pub secrets: Vec<(String, Secret)>,
    /// Its caps.
    pub caps: Caps,
    /// Files put into the working directory before it starts.
    #[serde(default)]
    pub files: Vec<FileIn>,
    /// Files taken out of the working directory when it has ended.
    #[serde(default)]
    pub fetch: Fetch,
    /// Whether it may ask models, and how often. Without this it has no descriptor to ask on.
    #[serde(default)]
    pub questions: Option<Questions>,
    /// What it may show. Without this nothing it shows is passed on.
    #[serde(default)]
    pub displays: Displays,
    /// When its end is told.
    #[serde(default)]
    pub hurry: Hurry,
}

/// When the end of a program is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hurry {
    /// As soon as all its processes are dead.
    #[default]
    AtOnce,
    /// With that nothing is left of its cell, a fraction of a millisecond later: two words in one write spare the shim,
    /// the engine and the worker a wake-up, which a worker that is busy has better use for.
    WhenGone,
}

/// How often a program may ask models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Questions {
    /// Questions whose answers it has not taken yet; the next one is left unread until it takes one. Not zero.
    pub at_once: u32,
    /// Questions in all that are passed on; what comes after is never read.
    pub most: u64,
}

/// What to start in the cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// These words, as they stand.
    Argv {
        /// The program and its arguments. Looked up in the cell's `PATH` when it has no slash.
        argv: Vec<String>,
    },
    /// A file with this text in the working directory, then these words.
    File {
        /// The file's plain name.
        file: String,
        /// The text.
        source: String,
        /// The program and all its arguments.
        argv: Vec<String>,
    },
    /// A harness: it reads a [`HarnessRequest`] from descriptor 3, and writes displays and a [`HarnessAnswer`] there.
    Harness {
        /// The harness's program and arguments.
        argv: Vec<String>,
        /// What it is asked to run.
        request: HarnessRequest,
    },
    /// A model server: it speaks [`crate::model`] on descriptor 3 until it is ended.
    Server {
        /// The program and its arguments.
        argv: Vec<String>,
    },
}

/// What a harness reads on descriptor 3: one JSON object, to the end of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HarnessRequest {
    /// The source text.
    pub source: String,
    /// The plain name of the file that the harness puts it in; the harness's own when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The program's arguments.
    pub args: Vec<String>,
    /// The job's `input`, as JSON text.
    pub input_json: String,
}

/// What a harness writes on descriptor 3, after its displays: one JSON object of at most [`MAX_ANSWER`] bytes, then the
/// end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HarnessAnswer {
    /// The program's value, as JSON text.
    #[serde(default)]
    pub value_json: Option<String>,
    /// Why it has no value, although it came to one.
    #[serde(default)]
    pub dropped: Option<Dropped>,
    /// The exception that ended it.
    #[serde(default)]
    pub exception: Option<Exception>,
    /// Whether it came to its end, instead of leaving early.
    #[serde(default)]
    pub completed: bool,
}

/// A value that was dropped, because it is not plain data or too much of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The name of its type, or of the part of it that is not plain data.
    #[serde(rename = "type")]
    pub kind: String,
    /// Why it was dropped.
    pub reason: String,
}

/// An exception that left the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// Its type's name.
    pub name: String,
    /// Its message.
    pub message: String,
    /// Where it came from, as the language prints it.
    pub traceback: String,
}

/// The caps of one cell. None is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caps {
    /// Wall-clock time, in milliseconds.
    pub wall_ms: u64,
    /// CPU time of the whole tree, in milliseconds.
    pub cpu_ms: u64,
    /// Share of the machine, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory of the whole tree, scratch included, in bytes.
    pub memory_bytes: u64,
    /// Stack that a program starts with, in bytes; never more than its memory.
    #[serde(default = "default_stack")]
    pub stack_bytes: u64,
    /// Processes and threads at once.
    pub pids: u32,
    /// Bytes in each scratch space.
    pub scratch_bytes: u64,
    /// Files and directories in each scratch space.
    pub scratch_inodes: u32,
    /// Bytes kept of each output stream.
    pub output_bytes: u64,
    /// Bytes both streams may carry before the program is stopped.
    pub output_total_bytes: u64,
    /// Between SIGTERM and the end of the cell, in milliseconds.
    pub grace_ms: u64,
}

/// The stack of a run whose worker names none.
const fn default_stack() -> u64 {
    8 << 20
}

/// What a runner says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromRunner {
    /// First, once: it can take a job.
    Ready {
        /// [`VERSION`].
        version: u32,
        /// What this kernel and runtime give.
        features: Features,
    },
    /// The zygote is ready, or there will be none and every program is started afresh.
    Warmed {
        /// Why there is none, in a few words.
        missing: Option<String>,
        /// What the whole container holds now, as [`Features::memory_bytes`].
        memory_bytes: Option<u64>,
    },
    /// The program has been started.
    Started,
    /// Some of what the program printed, within its cap.
    Output {
        /// Which stream.
        stream: Stream,
        /// The bytes, at most [`MAX_CHUNK`].
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// Something the program shows, within its caps.
    Display {
        /// Its forms.
        parts: Vec<Part>,
    },
    /// Bytes from the running model server.
    Said {
        /// The bytes, at most [`MAX_CHUNK`].
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// A question of the running program to a model. One `Answer` is owed for it.
    Ask {
        /// The bytes, at most [`MAX_QUESTION`], without a length before them.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// The program and every process of its cell are dead.
    Done(Box<Report>),
    /// What was left of the cell is gone. After every `Done` and every `Fault` of a program.
    Gone {
        /// Whether it is known to be gone without a trace; if not, the container must not be used again.
        clean: bool,
        /// What the whole container holds now, as [`Features::memory_bytes`].
        memory_bytes: Option<u64>,
    },
    /// The cell could not be made or watched: our fault, not the program's. In place of `Ready`: no
    /// cell can be made.
    Fault {
        /// What failed.
        message: String,
        /// Set if something is used up that all users of the machine share, so that it may work
        /// later.
        #[serde(default)]
        machine: bool,
    },
}

/// What the kernel and the runtime give this sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Features {
    /// How a cell's memory, processes and CPU are counted and capped.
    pub cgroup: CgroupSupport,
    /// Whether each cell has a network namespace of its own.
    pub network_namespace: bool,
    /// Whether a seccomp filter can be put on each cell.
    pub seccomp: bool,
    /// What is missing, each in a few words, for `doctor`.
    pub missing: Vec<String>,
    /// What the whole container holds before its first job, in bytes without file cache; none where it cannot be
    /// told.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
}

/// How a cell's resources are counted and capped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupSupport {
    /// A nested cgroup of version 2.
    V2,
    /// Nested cgroups of version 1 controllers.
    V1,
    /// None: the container's own caps and resource limits are all there is.
    #[default]
    None,
}

/// One of a program's two output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How one program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// How its first process ended.
    pub end: End,
    /// Why we stopped it, if we did.
    pub stop: Option<Stop>,
    /// The harness's answer, if there was one to read.
    pub answer: HarnessAnswer,
    /// Whether a process or thread was refused at the cap.
    pub pids_refused: bool,
    /// Whether a scratch space was full at the end.
    pub scratch_full: bool,
    /// Set if SIGSEGV ended it after it had used as much memory as its stack may have: the stack
    /// may have run out.
    #[serde(default)]
    pub stack_suspected: bool,
    /// Wall-clock time, in milliseconds.
    pub wall_ms: u64,
    /// CPU time of the whole tree, in milliseconds.
    pub cpu_ms: u64,
    /// Peak memory of the whole tree, in bytes.
    pub memory_peak_bytes: u64,
    /// Bytes written to standard output, kept or not.
    pub stdout_bytes: u64,
    /// Bytes written to standard error, kept or not.
    pub stderr_bytes: u64,
    /// Whether it was cloned from the zygote.
    pub warm: bool,
    /// Whether nothing is known that forbids using the container again. [`FromRunner::Gone`] has the last word.
    pub clean: bool,
    /// What the whole container holds now that the cell is gone, as [`Features::memory_bytes`]. A runner leaves it to
    /// [`FromRunner::Gone`].
    #[serde(default)]
    pub container_memory_bytes: Option<u64>,
    /// The files that were asked for.
    #[serde(default)]
    pub files: Vec<FetchedFile>,
    /// Files that were asked for and not taken.
    #[serde(default)]
    pub left: Vec<LeftFile>,
    /// What it showed. A runner sends each as [`FromRunner::Display`] before; who hears them puts them here.
    #[serde(skip)]
    pub displays: Vec<Vec<Part>>,
    /// Displays that were dropped: above a cap, or no displays at all.
    #[serde(default)]
    pub displays_dropped: u64,
}

/// How a program's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It exited with this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// It could not be started: its program is missing or not executable. The number is an `errno`.
    NotStarted(i32),
}

/// Why a program was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The wall clock ran out.
    WallClock,
    /// CPU time ran out.
    CpuTime,
    /// The memory cap was reached.
    Memory,
    /// The output cap was reached.
    Output,
    /// The worker asked.
    Cancelled,
}
