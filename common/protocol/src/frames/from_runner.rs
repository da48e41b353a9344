//! The frames from the runner to the worker.

use serde::{Deserialize, Serialize};

use super::call::CallId;
use super::call_report::CallReport;
use super::cell_report::CellReport;
use super::display::DisplayPart;

/// The version of this protocol. Both sides must have the same.
pub const VERSION: u32 = 6;

/// The most bytes of output in one frame.
pub const MAX_CHUNK: usize = 64 << 10;

/// A frame from the runner to the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromRunner {
    /// The runner can open a cell. The first frame, sent once.
    Ready {
        /// [`VERSION`].
        version: u32,
        /// The features of this kernel and runtime.
        features: Features,
    },
    /// The zygote is ready, or it could not be started and every program is started as a new
    /// process.
    ZygoteReady {
        /// The reason that there is no zygote, in a few words.
        missing: Option<String>,
        /// Memory that the whole container uses now, measured as [`Features::memory_bytes`].
        memory_bytes: Option<u64>,
    },
    /// The program of a call has been started.
    Started {
        /// The call.
        id: CallId,
    },
    /// A piece of a program's output, within its cap.
    Output {
        /// The call of the program.
        id: CallId,
        /// The output stream.
        stream: Stream,
        /// The bytes, at most [`MAX_CHUNK`].
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// A display of a program, within its caps.
    Display {
        /// The call of the program.
        id: CallId,
        /// The forms of the display.
        parts: Vec<DisplayPart>,
    },
    /// Bytes from a running model server.
    ModelOutput {
        /// The call of the server.
        id: CallId,
        /// The bytes, at most [`MAX_CHUNK`].
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// An inference request of a running program. The worker must send one `InferResponse` for it.
    InferRequest {
        /// The call of the program.
        id: CallId,
        /// The bytes, at most [`MAX_INFER_REQUEST`](super::MAX_INFER_REQUEST), without a length
        /// prefix.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// A call has ended, and its last output has been sent. No further frame of this call follows.
    CallEnded {
        /// The call.
        id: CallId,
        /// The facts about its program.
        report: Box<CallReport>,
    },
    /// Every process of the cell is dead, and its files have been collected. Sent after `CloseCell`
    /// and the last `CallEnded`, before the cell is removed.
    CellEnded(Box<CellReport>),
    /// The cell has been removed. Sent after every `CellEnded`.
    CellClosed {
        /// True if the cell is known to have left nothing behind. If false, the container must not
        /// be used again.
        clean: bool,
        /// Memory that the whole container uses now, measured as [`Features::memory_bytes`].
        memory_bytes: Option<u64>,
    },
    /// The cell could not be made or watched. This is Sandhog's fault, not the program's. It
    /// replaces the `CallEnded`, `CellEnded` and `CellClosed` of the cell. Sent in place of
    /// `Ready`, it means that this container cannot hold cells.
    Fault {
        /// The step that failed.
        message: String,
        /// Set if a resource that all users of the machine share is used up, so that a later
        /// attempt may succeed.
        machine: bool,
    },
}

impl FromRunner {
    /// Returns the call that the frame belongs to. `None` for a frame about the container or its
    /// cell.
    #[must_use]
    pub const fn call(&self) -> Option<CallId> {
        match self {
            Self::Started { id }
            | Self::Output { id, .. }
            | Self::Display { id, .. }
            | Self::ModelOutput { id, .. }
            | Self::InferRequest { id, .. }
            | Self::CallEnded { id, .. } => Some(*id),
            Self::Ready { .. }
            | Self::ZygoteReady { .. }
            | Self::CellEnded(_)
            | Self::CellClosed { .. }
            | Self::Fault { .. } => None,
        }
    }
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
    /// Memory that the whole container uses before its first cell, in bytes without the file cache.
    /// `None` where it cannot be measured.
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
