//! The way in which the sandboxes of a worker are made.

use std::fmt;

/// The way in which the sandboxes of a worker are made. Displayed as people read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SandboxSource {
    /// By keepers that the worker starts, one container for each image.
    OwnKeepers,
    /// By keepers that another program has started.
    ForeignKeepers,
    /// By the engine, a container for each sandbox.
    Containers {
        /// The reason for which no keepers are used, if the settings allow them.
        reason: Option<String>,
    },
}

impl fmt::Display for SandboxSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OwnKeepers => f.write_str("made by a keeper for each image"),
            Self::ForeignKeepers => f.write_str("made by the keepers at sandbox.engine"),
            Self::Containers { reason: None } => f.write_str("a container each"),
            Self::Containers {
                reason: Some(reason),
            } => write!(f, "a container each, because {reason}"),
        }
    }
}
