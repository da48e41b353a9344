//! The report of the runner on a call that has ended.

use serde::{Deserialize, Serialize};

use super::harness::HarnessAnswer;

/// The report on one call that has ended: the facts about its program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallReport {
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
    pub stack_suspected: bool,
    /// Wall-clock time, in milliseconds.
    pub wall_ms: u64,
    /// Bytes written to standard output, kept or not.
    pub stdout_bytes: u64,
    /// Bytes written to standard error, kept or not.
    pub stderr_bytes: u64,
    /// The number of dropped displays: those above a cap, and those that are not valid displays.
    pub displays_dropped: u64,
    /// True if the program was cloned from the zygote.
    pub warm: bool,
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
