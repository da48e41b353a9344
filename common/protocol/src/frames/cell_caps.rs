//! The caps of a cell, as the runner enforces them.

use serde::{Deserialize, Serialize};

/// The caps of one cell, none of which may be zero.
///
/// They apply to all processes of the cell together, for as long as it is open. The caps of one
/// program in it are [`CallCaps`](super::CallCaps). The worker computes both from a job's
/// [`Limits`](sandhog_core::limits::Limits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellCaps {
    /// CPU share, in thousandths of a core.
    pub cpu_millis: u64,
    /// Memory of all processes, scratch space included, in bytes.
    pub memory_bytes: u64,
    /// Stack size of a program's first process, in bytes. Never more than the memory cap.
    pub stack_bytes: u64,
    /// Processes and threads that may exist at the same time.
    pub pids: u32,
    /// Bytes in each scratch space.
    pub scratch_bytes: u64,
    /// Files and directories in each scratch space.
    pub scratch_inodes: u32,
}
