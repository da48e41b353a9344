//! The request and the answer of a harness: JSON in messages on descriptor 3 of a program.

use serde::{Deserialize, Serialize};

use super::exception_frame;
use sandhog_core::outcome::{Exception, ValueDropped};

/// The largest answer of a harness, in bytes of JSON. It holds the program's value or its
/// exception.
pub const MAX_HARNESS_ANSWER: usize = 1 << 20;

/// The request that a harness reads from descriptor 3: one JSON object, in a message of the kind
/// [`Request`](super::HarnessMessageKind::Request).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HarnessRequest {
    /// The source text.
    pub source: String,
    /// The name, without a directory, of the file that the harness writes the source to. Without it
    /// the harness uses its own default name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The program's arguments.
    pub args: Vec<String>,
    /// The job's `input`, as JSON text.
    pub input_json: String,
}

/// The answer that a harness writes to descriptor 3 after its displays: one JSON object of at most
/// [`MAX_HARNESS_ANSWER`] bytes, in a message of the kind
/// [`Answer`](super::HarnessMessageKind::Answer).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HarnessAnswer {
    /// The program's value, as JSON text.
    #[serde(default)]
    pub value_json: Option<String>,
    /// The reason that the program's value was dropped, if it was.
    #[serde(default)]
    pub dropped: Option<ValueDropped>,
    /// The exception that ended the program.
    #[serde(default, with = "exception_frame::optional")]
    pub exception: Option<Exception>,
    /// True if the program ran to its end. False if it exited early, for example with `sys.exit()`.
    #[serde(default)]
    pub completed: bool,
}
