//! The unit in which a container engine makes sandboxes.

use serde::{Deserialize, Serialize};

/// The unit in which a container engine makes sandboxes. On the wire: the name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxUnit {
    /// [`SandboxUnit::Sandbox`] where that works, and else [`SandboxUnit::Container`].
    Auto,
    /// A container for each sandbox.
    Container,
    /// A container for each image, in which a keeper makes the sandboxes.
    Sandbox,
}
