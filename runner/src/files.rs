//! Files that go into a cell with a program and come out after it, as frames carry them.

use serde::{Deserialize, Serialize};

/// A file for a program. Whoever it is for may read, write and execute it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIn {
    /// Where, below the working directory.
    pub path: String,
    /// What it holds.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// What to take out of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fetch {
    /// Patterns of paths below the working directory: `*` within a name, `**` over directories, `?`, `[a-z]`, `{a,b}`.
    pub patterns: Vec<String>,
    /// The most files.
    pub files: u32,
    /// The most bytes of all files together.
    pub bytes: u64,
    /// Leaves a file that was put there, the source included, unless it was changed or a pattern
    /// is its whole path.
    #[serde(default)]
    pub changed_only: bool,
}

/// A file taken out of a cell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchedFile {
    /// Where it was, below the working directory.
    pub path: String,
    /// What it held.
    #[serde(with = "serde_bytes")]
    pub data: Vec<u8>,
}

/// A file that matched and was not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftFile {
    /// Where it was, below the working directory.
    pub path: String,
    /// Why it stayed.
    pub why: LeftWhy,
}

/// Why a file was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftWhy {
    /// It is larger than what is left of the cap on bytes.
    TooLarge,
    /// The cap on files was reached.
    TooMany,
    /// It lies in too many directories.
    TooDeep,
    /// More names than are looked at.
    TooManySeen,
    /// It is a link, FIFO, socket or device, or of another file system.
    NotAFile,
    /// It may not be read by its own program's user.
    Unreadable,
    /// Its name is not text.
    Name,
}
