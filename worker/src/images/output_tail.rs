//! The end of a tool's output, for error messages.

use std::collections::VecDeque;
use std::fmt;

use sandhog_core::id::clip;

/// Number of lines of a tool's output that are kept for an error.
const OUTPUT_TAIL_LINES: usize = 12;

/// Maximum length of a kept line, in characters.
const MAX_LINE_LENGTH: usize = 400;

/// The last lines of an output.
#[derive(Debug, Default)]
pub(super) struct OutputTail(VecDeque<String>);

impl OutputTail {
    /// Appends a line, and drops the oldest one if there are too many.
    pub(super) fn push(&mut self, line: &str) {
        if self.0.len() == OUTPUT_TAIL_LINES {
            self.0.pop_front();
        }
        self.0.push_back(clip(line, MAX_LINE_LENGTH));
    }
}

impl fmt::Display for OutputTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}
