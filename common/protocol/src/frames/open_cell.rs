//! The frame that opens a cell.

use serde::{Deserialize, Serialize};

use super::cell_caps::CellCaps;
use super::file::InputFile;
use super::secret::Secret;

/// A cell to open, with everything that its calls share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenCell {
    /// The caps of the cell.
    pub caps: CellCaps,
    /// The environment of every program in the cell, in addition to the cell's own.
    pub env: Vec<(String, String)>,
    /// Environment variables whose values only the programs of the cell can read.
    pub secrets: Vec<(String, Secret)>,
    /// Files put into the working directory before the first program starts.
    pub files: Vec<InputFile>,
}
