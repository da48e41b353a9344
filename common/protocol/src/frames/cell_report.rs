//! The report of the runner on a cell whose processes are all dead.

use serde::{Deserialize, Serialize};

use super::file::{FetchedFile, LeftFile};

/// The report on one cell: its usage over all calls, and its files. The cell may still exist.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CellReport {
    /// CPU time of all processes of the cell, in milliseconds.
    pub cpu_ms: u64,
    /// Peak memory of all processes of the cell together, in bytes.
    pub memory_peak_bytes: u64,
    /// The requested files.
    pub files: Vec<FetchedFile>,
    /// The files that match a requested pattern but were not taken.
    pub left: Vec<LeftFile>,
    /// False if something is already known that forbids using the container again.
    /// [`FromRunner::CellClosed`](super::FromRunner::CellClosed) decides.
    pub clean: bool,
}
