//! The frames from the worker to the runner.

use serde::{Deserialize, Serialize};

use super::cell_caps::CellCaps;
use super::run::Run;

/// A frame from the worker to the runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToRunner {
    /// Starts a zygote. Sent at most once, before the first program.
    #[serde(rename = "warm")]
    StartZygote(Box<StartZygote>),
    /// Runs one program in a fresh cell.
    Run(Box<Run>),
    /// Bytes for the running model server. Ignored when no program runs, or when it is not a model
    /// server.
    #[serde(rename = "say")]
    ModelInput {
        /// The bytes. With the fields around them they are at most [`MAX_FRAME`](super::MAX_FRAME).
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// The response to one `InferRequest` of the running program. Ignored when no program runs.
    #[serde(rename = "answer")]
    InferResponse {
        /// The bytes, without a length prefix.
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// Stops the running program. Its report has [`Stop::Cancelled`](super::Stop::Cancelled).
    /// Ignored when no program runs.
    Cancel,
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
    /// The caps that most programs are expected to have. The first standby cell is made with them.
    pub caps: CellCaps,
}
