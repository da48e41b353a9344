//! The frames from the worker to the runner.

use serde::{Deserialize, Serialize};

use super::call::{Call, CallId};
use super::cell_caps::CellCaps;
use super::close_cell::CloseCell;
use super::open_cell::OpenCell;

/// A frame from the worker to the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRunner {
    /// Starts a zygote. Sent at most once, before the first cell.
    StartZygote(Box<StartZygote>),
    /// Opens a cell. Not sent while another one is open.
    OpenCell(Box<OpenCell>),
    /// Runs one program in the open cell.
    Call(Box<Call>),
    /// Bytes for a running model server. Ignored when the call has ended, or when its program is
    /// not a model server.
    ModelInput {
        /// The call of the server.
        id: CallId,
        /// The bytes. With the fields around them they are at most [`MAX_FRAME`](super::MAX_FRAME).
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// The response to one `InferRequest` of a running program. Ignored when the call has ended.
    InferResponse {
        /// The call of the program.
        id: CallId,
        /// The bytes, without a length prefix.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// Stops the program of a call. Its report has [`Stop::Cancelled`](super::Stop::Cancelled).
    /// Ignored when the call has ended.
    Cancel {
        /// The call.
        id: CallId,
    },
    /// Closes the open cell once its calls have ended.
    CloseCell(CloseCell),
}

/// A zygote to start: an interpreter that is started once and cloned for every program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartZygote {
    /// The harness (program and arguments) that the zygote replaces.
    pub harness: Vec<String>,
    /// The zygote's program and arguments.
    pub argv: Vec<String>,
    /// The zygote's environment, in addition to a cell's own.
    pub env: Vec<(String, String)>,
    /// The modules that the zygote imports.
    pub imports: Vec<String>,
    /// The caps that most cells are expected to have. The first standby cell is made with them.
    pub caps: CellCaps,
}
