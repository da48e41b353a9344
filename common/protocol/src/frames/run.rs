//! The frame that runs a program.

use serde::{Deserialize, Serialize};

use super::cell_caps::CellCaps;
use super::display::DisplayCaps;
use super::file::{Fetch, InputFile};
use super::infer_quota::InferQuota;
use super::program::Program;
use super::secret::Secret;

/// The environment variable that holds the path of the file with the job's `input`, for a program
/// without a harness.
pub const INPUT_VARIABLE: &str = "SANDHOG_INPUT_FILE";

/// The path of the file with the job's `input`.
pub const INPUT_FILE: &str = "/tmp/sandhog-input.json";

/// One program and everything its cell needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// The program to start.
    pub program: Program,
    /// The program's standard input.
    #[serde(with = "serde_bytes")]
    pub stdin: Vec<u8>,
    /// The job's `input` as JSON text, for a program without a harness. It is written to the file
    /// named by [`INPUT_VARIABLE`].
    #[serde(default)]
    pub input_json: Option<String>,
    /// The program's environment, in addition to the cell's own.
    pub env: Vec<(String, String)>,
    /// Environment variables whose values only the program can read.
    #[serde(default)]
    pub secrets: Vec<(String, Secret)>,
    /// The caps of the cell.
    pub caps: CellCaps,
    /// Files put into the working directory before the program starts.
    #[serde(default)]
    pub files: Vec<InputFile>,
    /// Files taken out of the working directory after the program has ended.
    #[serde(default)]
    pub fetch: Fetch,
    /// Caps on the program's inference requests. Without them the program gets no
    /// [`INFER_FD`](super::INFER_FD).
    #[serde(default, rename = "questions")]
    pub infer_quota: Option<InferQuota>,
    /// Caps on the program's displays. Without them no display is passed on.
    #[serde(default)]
    pub displays: DisplayCaps,
    /// Time at which the runner sends the program's report.
    #[serde(default, rename = "hurry")]
    pub report_flush: ReportFlush,
}

impl Run {
    /// Returns a run of this program with these caps and nothing else: no input, no variables, no
    /// files, no displays and no inference requests. The report is sent at once.
    #[must_use]
    pub fn new(program: Program, caps: CellCaps) -> Self {
        Self {
            program,
            stdin: Vec::new(),
            input_json: None,
            env: Vec::new(),
            secrets: Vec::new(),
            caps,
            files: Vec::new(),
            fetch: Fetch::default(),
            infer_quota: None,
            displays: DisplayCaps::default(),
            report_flush: ReportFlush::default(),
        }
    }
}

/// Time at which the runner sends the report of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportFlush {
    /// As soon as all processes of the program are dead.
    #[default]
    #[serde(rename = "at_once")]
    Immediate,
    /// In the same write as [`FromRunner::CellClosed`](super::FromRunner::CellClosed), a fraction
    /// of a millisecond later. This saves the shim, the engine and the worker one wake-up each. For
    /// a worker that has more jobs waiting.
    #[serde(rename = "when_gone")]
    WithCleanup,
}
