//! The heartbeat: one call renews all of a worker's leases.

use super::{Lease, Queue, QueueError};
use crate::id::WorkerId;

/// What the queue says of one lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BeatReply {
    /// It is held, and renewed.
    Held,
    /// It is held and renewed, and somebody wants the job cancelled.
    Cancel,
    /// It is another's now: end the sandbox, publish nothing.
    Lost,
}

impl Queue {
    /// Renews leases and answers for each, in order.
    ///
    /// # Errors
    /// When Redis cannot be reached; some may have been renewed.
    pub async fn beat(
        &self,
        worker: &WorkerId,
        leases: &[Lease],
    ) -> Result<Vec<BeatReply>, QueueError> {
        let _ = (worker, leases);
        unimplemented!()
    }
}
