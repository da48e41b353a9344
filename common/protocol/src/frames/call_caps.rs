//! The caps of a call, as the runner enforces them.

use serde::{Deserialize, Serialize};

/// The caps of one call. Only the grace period may be zero.
///
/// They apply to one program. The [`CellCaps`](super::CellCaps) apply to all processes of its cell
/// together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallCaps {
    /// Wall-clock time, in milliseconds.
    pub wall_ms: u64,
    /// CPU time of the program and of all processes that it starts, in milliseconds.
    pub cpu_ms: u64,
    /// Bytes kept of each output stream.
    pub output_bytes: u64,
    /// Bytes that the program may write to both output streams together before it is stopped.
    pub output_total_bytes: u64,
    /// Grace period between SIGTERM and SIGKILL, in milliseconds. With zero, SIGKILL is sent at
    /// once.
    pub grace_ms: u64,
}
