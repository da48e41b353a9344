//! The job record: the hash `job:<id>`, and every field in it.

use super::{Queue, QueueError};
use crate::id::{Class, JobId, Tenant, Token, WorkerId};
use crate::outcome::Outcome;
use crate::units::UnixMillis;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Ready; waits for a worker.
    Queued,
    /// Waits for its time: a delay, or the pause before a retry.
    Delayed,
    /// A worker holds it.
    Running,
    /// Over, with a result.
    Finished,
    /// Given up: over, with a result and a dead letter.
    Dead,
}

/// What Redis knows of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// The job.
    pub id: JobId,
    /// Where it stands.
    pub state: JobState,
    /// Which workers may run it.
    pub class: Class,
    /// Whose it is.
    pub tenant: Tenant,
    /// 0 (least) to 9 (most urgent).
    pub priority: u8,
    /// Attempts begun, lost ones included; given-back ones are not.
    pub attempts: u32,
    /// Attempts lost with their worker or to another fault of ours.
    pub lost: u32,
    /// Attempts it may be given, lost ones not counted.
    pub max_attempts: u32,
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
    /// Why it was given up or last put back.
    pub error: Option<String>,
    /// The worker of the running or last attempt.
    pub worker: Option<WorkerId>,
    /// The fencing token of the running or last attempt.
    pub token: Option<Token>,
    /// Whether its running attempt has been asked to stop.
    pub cancel_requested: bool,
    /// When it was submitted. This and all below by Redis' clock.
    pub submitted_at: UnixMillis,
    /// When it may start, while it is delayed.
    pub run_at: Option<UnixMillis>,
    /// When it expires unless it has started.
    pub expires_at: Option<UnixMillis>,
    /// When its last attempt started.
    pub started_at: Option<UnixMillis>,
    /// When it ended.
    pub finished_at: Option<UnixMillis>,
}

impl Queue {
    /// What Redis knows of a job; none before it is admitted and after its retention has passed.
    ///
    /// # Errors
    /// When Redis cannot be reached, or the record does not read.
    pub async fn job(&self, id: &JobId) -> Result<Option<JobRecord>, QueueError> {
        let _ = id;
        unimplemented!()
    }
}
