//! The caps of a cell, as the runner enforces them.

use serde::{Deserialize, Serialize};

/// The caps of one cell. Only the grace period may be zero.
///
/// They are separate from a job's [`Limits`](sandhog_core::limits::Limits), from which the worker
/// computes them: a cell has a grace period, and knows nothing of files and displays, which have
/// caps of their own in a `Run`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellCaps {
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
