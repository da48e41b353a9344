//! The frames from the runner to the worker.

use serde::{Deserialize, Serialize};

use super::display::DisplayPart;
use super::report::Report;

/// The version of this protocol. Both sides must have the same.
pub const VERSION: u32 = 5;

/// The most bytes of output in one frame.
pub const MAX_CHUNK: usize = 64 << 10;

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
    #[serde(rename = "warmed")]
    ZygoteReady {
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
        parts: Vec<DisplayPart>,
    },
    /// Bytes from the running model server.
    #[serde(rename = "said")]
    ModelOutput {
        /// The bytes, at most [`MAX_CHUNK`].
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// An inference request of the running program. The worker must send one `InferResponse` for
    /// it.
    #[serde(rename = "ask")]
    InferRequest {
        /// The bytes, at most [`MAX_INFER_REQUEST`](super::MAX_INFER_REQUEST), without a length
        /// prefix.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// The program and every process of its cell are dead.
    #[serde(rename = "done")]
    Report(Box<Report>),
    /// The cell has been removed. Sent after every `Report`.
    #[serde(rename = "gone")]
    CellClosed {
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
