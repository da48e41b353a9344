//! The reuse of containers.

use serde::{Deserialize, Serialize};

/// The jobs that may use a container after its first job. On the wire: the name in snake case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reuse {
    /// Other jobs of the same tenant.
    Tenant,
    /// None: each container serves one job.
    Never,
    /// Jobs of every tenant.
    Any,
}
