//! The frame that closes a cell.

use serde::{Deserialize, Serialize};

use super::file::Fetch;

/// The end of a cell: no further call follows, and the cell ends with its last call.
///
/// It does not stop a running program; [`ToRunner::Cancel`](super::ToRunner::Cancel) does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CloseCell {
    /// Files taken out of the working directory once every process of the cell is dead.
    pub fetch: Fetch,
    /// Time at which the runner sends the reports of the last call and of the cell.
    pub report_flush: ReportFlush,
    /// Preparation for the next cell, once this one is removed.
    #[serde(default)]
    pub standby: StandbyPlan,
}

/// Preparation of a runner with a zygote for the next cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandbyPlan {
    /// The runner makes a standby cell.
    #[default]
    Make,
    /// The runner makes no standby cell: the worker does not expect to use this sandbox again. If
    /// it does, the next cell is made when its call arrives.
    Omit,
}

/// Time at which the runner sends [`FromRunner::CallEnded`](super::FromRunner::CallEnded) and
/// [`FromRunner::CellEnded`](super::FromRunner::CellEnded). It has no effect on a call that ended
/// before `CloseCell` arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportFlush {
    /// As soon as all processes of the cell are dead.
    #[default]
    Immediate,
    /// In the same write as [`FromRunner::CellClosed`](super::FromRunner::CellClosed), a fraction
    /// of a millisecond later. This saves the shim, the engine and the worker one wake-up each. For
    /// a worker that has more jobs waiting.
    WithCleanup,
}
