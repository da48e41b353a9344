//! What a producer does: submit a job, ask for one to be cancelled.

use super::{Queue, QueueError};
use crate::id::JobId;
use crate::submission::Routing;

/// What became of a request to cancel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelReply {
    /// It was waiting; it is over now, with outcome `cancelled`.
    Cancelled,
    /// It is running; its worker has been told.
    Asked,
    /// It had ended before.
    Ended,
    /// No such job is known. Should it be admitted within the next minute, it is cancelled then: two admitters may
    /// see a job and its cancel in either order.
    Unknown,
}

impl Queue {
    /// Submits one job: a single `XADD` to the intake stream. Answers the routing's own id, else the entry's.
    ///
    /// With an id of its own the job is safe to submit again: only the first counts. Without one a broken
    /// connection is an error, and the job may or may not have been submitted.
    ///
    /// # Errors
    /// When Redis cannot be reached or refuses the entry.
    pub async fn submit(&self, routing: &Routing, payload: &[u8]) -> Result<JobId, QueueError> {
        let _ = (routing, payload);
        unimplemented!()
    }

    /// Submits many jobs, pipelined, in order. Answers their ids in the same order.
    ///
    /// # Errors
    /// As [`Queue::submit`]; some of the jobs may have been submitted then.
    pub async fn submit_many(&self, jobs: &[(Routing, Vec<u8>)]) -> Result<Vec<JobId>, QueueError> {
        let _ = jobs;
        unimplemented!()
    }

    /// Asks for a job to be cancelled, through the intake stream: this needs no more rights than submitting.
    ///
    /// # Errors
    /// When Redis cannot be reached or refuses the entry.
    pub async fn cancel(&self, id: &JobId) -> Result<(), QueueError> {
        let _ = id;
        unimplemented!()
    }

    /// Cancels a job now: what an admitter does with the request. A waiting job ends at once; a running one gets a
    /// flag in its record, which the next heartbeat answers, and a line in the control stream.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn cancel_now(&self, id: &JobId) -> Result<CancelReply, QueueError> {
        let _ = id;
        unimplemented!()
    }
}
