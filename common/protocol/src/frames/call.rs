//! The frame that runs a program in the open cell, and the number by which other frames name it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::call_caps::CallCaps;
use super::display::DisplayCaps;
use super::infer_quota::InferQuota;
use super::program::Program;

/// The environment variable that holds the path of the file with the call's input, for a program
/// without a harness.
pub const INPUT_VARIABLE: &str = "SANDHOG_INPUT_FILE";

/// The path of the file with the call's input.
pub const INPUT_FILE: &str = "/tmp/sandhog-input.json";

/// The number of a call. The worker chooses it; no two calls of one cell have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(pub u64);

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One program to run in the open cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The number of the call.
    pub id: CallId,
    /// The program to start.
    pub program: Program,
    /// The program's standard input.
    #[serde(with = "serde_bytes")]
    pub stdin: Vec<u8>,
    /// The program's input as JSON text, for a program without a harness. It is written to the file
    /// named by [`INPUT_VARIABLE`].
    pub input_json: Option<String>,
    /// The caps of the call.
    pub caps: CallCaps,
    /// Caps on the program's displays.
    pub displays: DisplayCaps,
    /// Caps on the program's inference requests. Without them the program gets no
    /// [`INFER_FD`](super::INFER_FD).
    pub infer_quota: Option<InferQuota>,
}

impl Call {
    /// Returns a call of this program with these caps and nothing else: no standard input, no
    /// `input`, no displays and no inference requests. A caller that needs more sets the fields by
    /// struct update, so that a new field concerns only the callers that use it.
    #[must_use]
    pub fn new(id: CallId, program: Program, caps: CallCaps) -> Self {
        Self {
            id,
            program,
            stdin: Vec::new(),
            input_json: None,
            caps,
            displays: DisplayCaps::default(),
            infer_quota: None,
        }
    }
}
