//! Owner of the sandboxes that a worker starts.

use sandhog_core::id::{Namespace, WorkerId};
use uuid::Uuid;

/// Owner of the sandboxes that a worker starts. By it, workers recognise the sandboxes that dead
/// workers left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxOwner {
    /// The namespace that the worker serves.
    pub namespace: Namespace,
    /// The worker.
    pub worker: WorkerId,
    /// The identity of the queue, if it is known. Two queues of the same name on different Redis
    /// servers then leave each other's sandboxes alone.
    pub queue: Option<Uuid>,
}
