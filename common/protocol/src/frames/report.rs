//! The report of the runner on a program that has ended.

use serde::{Deserialize, Serialize};

use super::display::DisplayPart;
use super::file::{FetchedFile, LeftFile};
use super::harness::HarnessAnswer;

/// The report on one program that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The end of the program's first process.
    pub end: ProgramEnd,
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
    /// [`FromRunner::CellClosed`](super::FromRunner::CellClosed) decides.
    pub clean: bool,
    /// Memory that the whole container uses after the cell is gone, measured as
    /// [`Features::memory_bytes`](super::Features::memory_bytes). The runner leaves it empty;
    /// `CellClosed` carries it.
    #[serde(default)]
    pub container_memory_bytes: Option<u64>,
    /// The requested files.
    #[serde(default)]
    pub files: Vec<FetchedFile>,
    /// The files that match a requested pattern but were not taken.
    #[serde(default)]
    pub left: Vec<LeftFile>,
    /// The program's displays. The runner sends each one earlier as a
    /// [`FromRunner::Display`](super::FromRunner::Display); the worker collects them here.
    #[serde(skip)]
    pub displays: Vec<Vec<DisplayPart>>,
    /// The number of dropped displays: those above a cap, and those that are not valid displays.
    #[serde(default)]
    pub displays_dropped: u64,
}

/// The end of a program's first process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgramEnd {
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
    /// The worker sent [`ToRunner::Cancel`](super::ToRunner::Cancel).
    Cancelled,
}
