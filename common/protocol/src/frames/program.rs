//! The program that a cell runs.

use serde::{Deserialize, Serialize};

use super::harness::HarnessRequest;

/// The program to start in a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Program {
    /// This command line, as it is.
    Argv {
        /// The program and its arguments. Looked up in the cell's `PATH` when it has no slash.
        argv: Vec<String>,
    },
    /// A source file, which is written to the working directory, and the command line that runs it.
    File {
        /// The file's name, without a directory.
        file: String,
        /// The file's text.
        source: String,
        /// The program and all its arguments.
        argv: Vec<String>,
    },
    /// A harness: reads a [`HarnessRequest`] from descriptor 3, and writes displays and a
    /// [`HarnessAnswer`] there.
    Harness {
        /// The harness's program and arguments.
        argv: Vec<String>,
        /// The request that the harness gets.
        request: HarnessRequest,
    },
    /// A model server: speaks the protocol of [`crate::model`] on descriptor 3 until it is stopped.
    Server {
        /// The program and its arguments.
        argv: Vec<String>,
    },
}
