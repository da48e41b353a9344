//! The files that frames carry into a cell before a program starts, and out of it after the program
//! has ended.

use sandhog_core::outcome::NotFetched;
use serde::{Deserialize, Serialize};

/// A file for a program. The program's user may read, write and execute it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// The path, relative to the working directory.
    pub path: String,
    /// The content.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// The files to take out of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fetch {
    /// Patterns of paths relative to the working directory: `*` within a name, `**` across
    /// directories, `?`, `[a-z]`, `{a,b}`.
    pub patterns: Vec<String>,
    /// The most files to take.
    pub files: u32,
    /// The most bytes to take of all files together.
    pub bytes: u64,
    /// Leaves out a file that the job brought, the source included, unless the program changed it
    /// or a pattern is exactly its path.
    #[serde(default)]
    pub changed_only: bool,
}

/// A file taken out of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedFile {
    /// The path, relative to the working directory.
    pub path: String,
    /// The content.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// A file that matched a pattern but was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftFile {
    /// The path, relative to the working directory.
    pub path: String,
    /// The reason.
    pub why: NotFetched,
}
