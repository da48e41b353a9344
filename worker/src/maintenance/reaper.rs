//! Removal of the containers of dead workers.

use sandhog_core::id::WorkerId;
use sandhog_queue::{Queue, QueueError};

use crate::sandbox::Sandboxes;

/// Removes the containers of dead workers.
#[derive(Debug)]
pub(crate) struct Reaper {
    pub(crate) queue: Queue,
    pub(crate) worker: WorkerId,
    pub(crate) sandboxes: Sandboxes,
}

impl Reaper {
    /// Removes the containers of all workers that have no record in Redis.
    pub(super) async fn reap(&self) -> Result<(), QueueError> {
        let mut alive: Vec<WorkerId> = self.queue.worker_ids().await?;
        alive.push(self.worker.clone());
        match self.sandboxes.reap(&alive).await {
            Ok(0) => {}
            Ok(removed) => tracing::warn!(removed, "removed containers of dead workers"),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "containers of dead workers not removed"
            ),
        }
        Ok(())
    }
}
