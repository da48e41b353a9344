//! The frames a worker and a runner exchange over the container's attached stdin and stdout.
//!
//! A frame is a big-endian `u32` length, followed by that many bytes of MessagePack (named maps).
//! One job runs at a time:
//!
//! ```text
//! runner → worker   Ready
//! worker → runner   Warm, or nothing for an image without a zygote
//! runner → worker   Warmed
//!
//! worker → runner   Run, then perhaps Cancel
//! runner → worker   Started, Output and Display…, then Done or Fault
//! runner → worker   Gone, after a Done
//! ```
//!
//! The runner sends `Done` as soon as the program's last process is dead and its last byte of
//! output is sent. It sends `Gone` when nothing is left of the cell. The worker must not send the
//! next `Run` before `Gone`.
//!
//! A program whose `Run` allows it may send inference requests. The runner passes each request that
//! the program writes on [`QUESTIONS_FD`] to the worker as an `Ask`, and the worker sends one
//! `Answer` for each. The runner cuts the stream into frames and never decodes their content, which
//! `docs/inference.md` defines. An `Answer` that arrives after its program is dead is dropped.
//!
//! A model server is a program that runs until it is stopped. While it runs, the worker may send it
//! bytes as `Say`, and the runner sends the server's bytes back as `Said`. [`crate::model`] defines
//! their content.
//!
//! The worker ends the connection by closing the runner's stdin. Both sides treat the bytes they
//! read as hostile: a length above [`MAX_FRAME`] or a frame that cannot be decoded is a protocol
//! error, after which the container is destroyed and never reused. Unknown map fields are ignored,
//! so that fields can be added. A new kind of frame needs a new [`VERSION`].

mod frames;

use serde::{Deserialize, Serialize};

pub use crate::display::{
    DISPLAY, Displays, MAX_MIME, MAX_PARTS, Part, is_mime, is_sound, read as read_display,
    size as display_size,
};
pub use crate::files::{Fetch, FetchedFile, FileIn, LeftFile, LeftWhy};
pub use crate::secret::Secret;
pub use frames::{FrameError, encode, read, take, write};

/// The version of this protocol. Both sides must have the same.
pub const VERSION: u32 = 5;

/// The largest frame in bytes, without the length prefix: a payload of the largest size and the
/// fields around it.
pub const MAX_FRAME: usize = 24 << 20;

/// The most bytes of output in one frame.
pub const MAX_CHUNK: usize = 64 << 10;

/// The largest answer of a harness, in bytes of JSON. It holds the program's value or its
/// exception.
pub const MAX_ANSWER: usize = 1 << 20;

/// The largest inference request of a program, in bytes, without the length prefix.
pub const MAX_QUESTION: usize = 1 << 20;

/// The descriptor for a program's inference requests. It is open only if the `Run` allows requests.
pub const QUESTIONS_FD: i32 = 4;

/// The environment variable that holds [`QUESTIONS_FD`].
pub const QUESTIONS_VARIABLE: &str = "SANDHOG_INFER_FD";

/// The environment variable that holds the path of the file with the job's `input`, for a program
/// without a harness.
pub const INPUT_VARIABLE: &str = "SANDHOG_INPUT_FILE";

/// The path of the file with the job's `input`.
pub const INPUT_FILE: &str = "/tmp/sandhog-input.json";

/// A frame from the worker to the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRunner {
    /// Starts a zygote. Sent at most once, before the first program.
    Warm(Box<Warm>),
    /// Runs one program in a fresh cell.
    Run(Box<Run>),
    /// Bytes for the running model server. Ignored when no program runs, or when it is not a model
    /// server.
    Say {
        /// The bytes. With the fields around them they are at most [`MAX_FRAME`].
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// The response to one `Ask` of the running program. Ignored when no program runs.
    Answer {
        /// The bytes, without a length prefix.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// Stops the running program. Its report has [`Stop::Cancelled`]. Ignored when no program runs.
    Cancel,
}

/// A zygote to start: an interpreter that is started once and cloned for every program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warm {
    /// The harness (program and arguments) that the zygote replaces.
    pub harness: Vec<String>,
    /// The zygote's program and arguments.
    pub argv: Vec<String>,
    /// The zygote's environment, in addition to a cell's own.
    pub env: Vec<(String, String)>,
    /// The modules that the zygote imports.
    pub imports: Vec<String>,
    /// The caps that most programs are expected to have. The first standby cell is made with them.
    pub caps: Caps,
}

/// One program and everything its cell needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The program to start.
    pub program: Program,
    /// The program's standard input.
    #[serde(with = "serde_bytes")]
    pub stdin: Vec<u8>,
    /// The job's `input` as JSON text, for a program without a harness. It is written to the file
    /// named by [`INPUT_VARIABLE`].
    #[serde(default)]
    pub input_json: Option<String>,
    /// The program's environment, in addition to the cell's own.
    pub env: Vec<(String, String)>,
    /// Environment variables whose values only the program can read.
    #[serde(default)]
    pub secrets: Vec<(String, Secret)>,
    /// The caps of the cell.
    pub caps: Caps,
    /// Files put into the working directory before the program starts.
    #[serde(default)]
    pub files: Vec<FileIn>,
    /// Files taken out of the working directory after the program has ended.
    #[serde(default)]
    pub fetch: Fetch,
    /// Caps on the program's inference requests. Without them the program gets no [`QUESTIONS_FD`].
    #[serde(default)]
    pub questions: Option<Questions>,
    /// Caps on the program's displays. Without them no display is passed on.
    #[serde(default)]
    pub displays: Displays,
    /// Time at which the runner sends the program's report.
    #[serde(default)]
    pub hurry: Hurry,
}

/// Time at which the runner sends the report of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hurry {
    /// As soon as all processes of the program are dead.
    #[default]
    AtOnce,
    /// In the same write as [`FromRunner::Gone`], a fraction of a millisecond later. This saves the
    /// shim, the engine and the worker one wake-up each. For a worker that has more jobs waiting.
    WhenGone,
}

/// Caps on a program's inference requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Questions {
    /// The most open requests: those whose responses the program has not read yet. The next request
    /// is left unread until the program reads a response. Not zero.
    pub at_once: u32,
    /// The most requests in total that are passed on. Later ones are never read.
    pub most: u64,
}

/// The program to start in a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// This command line, as it is.
    Argv {
        /// The program and its arguments. Looked up in the cell's `PATH` when it has no slash.
        argv: Vec<String>,
    },
    /// A source file, which is written to the working directory, and the command line that runs it.
    File {
        /// The file's name, without a directory.
        file: String,
        /// The file's text.
        source: String,
        /// The program and all its arguments.
        argv: Vec<String>,
    },
    /// A harness: reads a [`HarnessRequest`] from descriptor 3, and writes displays and a
    /// [`HarnessAnswer`] there.
    Harness {
        /// The harness's program and arguments.
        argv: Vec<String>,
        /// The request that the harness gets.
        request: HarnessRequest,
    },
    /// A model server: speaks the protocol of [`crate::model`] on descriptor 3 until it is stopped.
    Server {
        /// The program and its arguments.
        argv: Vec<String>,
    },
}

/// The request that a harness reads from descriptor 3: one JSON object, to the end of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HarnessRequest {
    /// The source text.
    pub source: String,
    /// The name, without a directory, of the file that the harness writes the source to. Without it
    /// the harness uses its own default name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The program's arguments.
    pub args: Vec<String>,
    /// The job's `input`, as JSON text.
    pub input_json: String,
}

/// The answer that a harness writes to descriptor 3 after its displays: one JSON object of at most
/// [`MAX_ANSWER`] bytes, then the end of the stream.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HarnessAnswer {
    /// The program's value, as JSON text.
    #[serde(default)]
    pub value_json: Option<String>,
    /// The reason that the program's value was dropped, if it was.
    #[serde(default)]
    pub dropped: Option<Dropped>,
    /// The exception that ended the program.
    #[serde(default)]
    pub exception: Option<Exception>,
    /// True if the program ran to its end. False if it exited early, for example with `sys.exit()`.
    #[serde(default)]
    pub completed: bool,
}

/// A value that was dropped, because it is not plain data or is too large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The name of the value's type, or of the type of the part that is not plain data.
    #[serde(rename = "type")]
    pub kind: String,
    /// The reason for dropping it.
    pub reason: String,
}

/// An exception that the program did not catch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exception {
    /// The name of the exception's type.
    pub name: String,
    /// The exception's message.
    pub message: String,
    /// The traceback, as the language prints it.
    pub traceback: String,
}

/// The caps of one cell. Only the grace period may be zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caps {
    /// Wall-clock time, in milliseconds.
    pub wall_ms: u64,
    /// CPU time of the whole process tree, in milliseconds.
    pub cpu_ms: u64,
    /// CPU share, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory of the whole process tree, scratch space included, in bytes.
    pub memory_bytes: u64,
    /// Stack size of the program's first process, in bytes. Never more than the memory cap.
    #[serde(default = "default_stack")]
    pub stack_bytes: u64,
    /// Processes and threads that may exist at the same time.
    pub pids: u32,
    /// Bytes in each scratch space.
    pub scratch_bytes: u64,
    /// Files and directories in each scratch space.
    pub scratch_inodes: u32,
    /// Bytes kept of each output stream.
    pub output_bytes: u64,
    /// Bytes that the program may write to both output streams together before it is stopped.
    pub output_total_bytes: u64,
    /// Grace period between SIGTERM and SIGKILL, in milliseconds. With zero, SIGKILL is sent at
    /// once.
    pub grace_ms: u64,
}

/// The stack size for a `Run` from a worker that sends none.
const fn default_stack() -> u64 {
    8 << 20
}

/// A frame from the runner to the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromRunner {
    /// The runner can take a job. The first frame, sent once.
    Ready {
        /// [`VERSION`].
        version: u32,
        /// The features of this kernel and runtime.
        features: Features,
    },
    /// The zygote is ready, or it could not be started and every program is started as a new
    /// process.
    Warmed {
        /// The reason that there is no zygote, in a few words.
        missing: Option<String>,
        /// Memory that the whole container uses now, measured as [`Features::memory_bytes`].
        memory_bytes: Option<u64>,
    },
    /// The program has been started.
    Started,
    /// A piece of the program's output, within its cap.
    Output {
        /// The output stream.
        stream: Stream,
        /// The bytes, at most [`MAX_CHUNK`].
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// A display of the program, within its caps.
    Display {
        /// The forms of the display.
        parts: Vec<Part>,
    },
    /// Bytes from the running model server.
    Said {
        /// The bytes, at most [`MAX_CHUNK`].
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// An inference request of the running program. The worker must send one `Answer` for it.
    Ask {
        /// The bytes, at most [`MAX_QUESTION`], without a length prefix.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// The program and every process of its cell are dead.
    Done(Box<Report>),
    /// The cell has been removed. Sent after every `Done`.
    Gone {
        /// True if the cell is known to have left nothing behind. If false, the container must not
        /// be used again.
        clean: bool,
        /// Memory that the whole container uses now, measured as [`Features::memory_bytes`].
        memory_bytes: Option<u64>,
    },
    /// The cell could not be made or watched. This is Sandhog's fault, not the program's. Sent in
    /// place of `Ready`, it means that this container cannot hold cells.
    Fault {
        /// The step that failed.
        message: String,
        /// Set if a resource that all users of the machine share is used up, so that a later
        /// attempt may succeed.
        #[serde(default)]
        machine: bool,
    },
}

/// The isolation features that the kernel and the runtime offer in this sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Features {
    /// The mechanism that counts and caps a cell's memory, processes and CPU.
    pub cgroup: CgroupSupport,
    /// True if each cell has a network namespace of its own.
    pub network_namespace: bool,
    /// True if a seccomp filter can be installed in each cell.
    pub seccomp: bool,
    /// The missing features, each in a few words, for `doctor`.
    pub missing: Vec<String>,
    /// Memory that the whole container uses before its first job, in bytes without the file cache.
    /// `None` where it cannot be measured.
    #[serde(default)]
    pub memory_bytes: Option<u64>,
}

/// The mechanism that counts and caps a cell's resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CgroupSupport {
    /// A nested cgroup of version 2.
    V2,
    /// Nested cgroups of version 1 controllers.
    V1,
    /// No cgroup: only the container's own caps and resource limits apply.
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

/// The report on one program that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The end of the program's first process.
    pub end: End,
    /// The reason for which the runner stopped the program, if it did.
    pub stop: Option<Stop>,
    /// The harness's answer. Empty if the harness sent none that could be decoded.
    pub answer: HarnessAnswer,
    /// True if the kernel refused a process or thread because of the cap.
    pub pids_refused: bool,
    /// True if a scratch space was full at the end.
    pub scratch_full: bool,
    /// Set if SIGSEGV ended the program after its memory peak had reached the stack cap: the stack
    /// may have overflowed.
    #[serde(default)]
    pub stack_suspected: bool,
    /// Wall-clock time, in milliseconds.
    pub wall_ms: u64,
    /// CPU time of the whole process tree, in milliseconds.
    pub cpu_ms: u64,
    /// Peak memory of the whole process tree, in bytes.
    pub memory_peak_bytes: u64,
    /// Bytes written to standard output, kept or not.
    pub stdout_bytes: u64,
    /// Bytes written to standard error, kept or not.
    pub stderr_bytes: u64,
    /// True if the program was cloned from the zygote.
    pub warm: bool,
    /// False if something is already known that forbids using the container again.
    /// [`FromRunner::Gone`] decides.
    pub clean: bool,
    /// Memory that the whole container uses after the cell is gone, measured as
    /// [`Features::memory_bytes`]. The runner leaves it empty; [`FromRunner::Gone`] carries it.
    #[serde(default)]
    pub container_memory_bytes: Option<u64>,
    /// The requested files.
    #[serde(default)]
    pub files: Vec<FetchedFile>,
    /// The files that match a requested pattern but were not taken.
    #[serde(default)]
    pub left: Vec<LeftFile>,
    /// The program's displays. The runner sends each one earlier as a [`FromRunner::Display`]; the
    /// worker collects them here.
    #[serde(skip)]
    pub displays: Vec<Vec<Part>>,
    /// The number of dropped displays: those above a cap, and those that are not valid displays.
    #[serde(default)]
    pub displays_dropped: u64,
}

/// The end of a program's first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The process exited with this code.
    Exited(i32),
    /// This signal ended the process.
    Signaled(i32),
    /// The process could not be started: its program is missing or not executable. The number is an
    /// `errno`.
    NotStarted(i32),
}

/// The reason for which a program was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// The wall-clock time ran out.
    WallClock,
    /// The CPU time ran out.
    CpuTime,
    /// The memory cap was reached.
    Memory,
    /// The output cap was reached.
    Output,
    /// The worker sent [`ToRunner::Cancel`].
    Cancelled,
}
