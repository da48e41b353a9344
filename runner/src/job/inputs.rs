//! The files that a job brought into its cell, kept until the cell is closed.

use sandhog_protocol::frames::{Fetch, InputFile, Program};

use crate::cell::InputSnapshot;

/// The files of a cell and the source of its program. A [`Fetch`] of changed files only compares
/// with them.
#[derive(Debug)]
pub(super) struct Inputs(Option<(Vec<InputFile>, Program)>);

impl Inputs {
    /// Keeps the files and the program of a cell.
    pub(super) fn new(files: Vec<InputFile>, program: Program) -> Self {
        Self(Some((files, program)))
    }

    /// Frees the files if `fetch` compares with none.
    pub(super) fn retain_for(&mut self, fetch: &Fetch) {
        if !fetch.changed_only || fetch.patterns.is_empty() {
            self.0 = None;
        }
    }

    /// Converts the files that are kept into the form in which they are compared.
    pub(super) fn into_snapshot(self) -> InputSnapshot {
        match self.0 {
            Some((files, program)) => InputSnapshot::of(files, program),
            None => InputSnapshot::default(),
        }
    }
}
