//! Upkeep, done by every worker now and then: whoever comes first does the work, the others find none.

use super::{Queue, QueueError};
use crate::units::Millis;

/// What one round of upkeep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TickReport {
    /// Delayed jobs whose time had come.
    pub promoted: u64,
    /// Jobs whose time to live had passed.
    pub expired: u64,
    /// Jobs taken back from workers that stopped renewing, and queued again.
    pub reaped: u64,
    /// Jobs lost once too often: dead letters.
    pub given_up: u64,
    /// Jobs of dead workers that somebody had wanted cancelled.
    pub cancelled: u64,
    /// Tickets read by a worker that never bound them, issued again.
    pub reissued: u64,
    /// Consumers of long-gone workers, removed.
    pub consumers_removed: u64,
    /// Workers no longer heard of, removed from the list.
    pub workers_removed: u64,
}

impl Queue {
    /// One round of upkeep: promotes, expires, takes back what has not been renewed for `lease`, gives up what has
    /// been lost `max_lost` times, and removes what dead workers left. Call it with jitter.
    ///
    /// # Errors
    /// When Redis cannot be reached; what was done stays done.
    pub async fn tick(&self, lease: Millis, max_lost: u32) -> Result<TickReport, QueueError> {
        let _ = (lease, max_lost);
        unimplemented!()
    }
}
