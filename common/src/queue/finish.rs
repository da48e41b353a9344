//! Settling: what a lease ends with, exactly once.

use super::{Lease, Queue, QueueError};
use crate::outcome::Outcome;
use crate::units::Millis;

/// How an attempt is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The job is over: publish this.
    Publish {
        /// The encoded result.
        result: Vec<u8>,
        /// How it ended.
        outcome: Outcome,
    },
    /// Try again later. A job that somebody wants cancelled is cancelled instead.
    Retry {
        /// After this long; zero means at once.
        after: Millis,
        /// Why, for the record.
        why: String,
        /// What the attempt counts as.
        counts_as: RetryBudget,
    },
    /// Give up: publish this, and write a dead letter.
    DeadLetter {
        /// The encoded result.
        result: Vec<u8>,
        /// How it ended.
        outcome: Outcome,
        /// A stable word, such as `max_attempts`.
        reason: String,
        /// What went wrong, for a person.
        error: String,
    },
}

/// Which of a job's two budgets an attempt that is tried again is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryBudget {
    /// Its own: `max_attempts`.
    Attempt,
    /// Ours: the attempt was lost to a fault that is not the job's.
    Lost,
}

/// Whether a settlement counted.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReply {
    /// It did. Repeating the same settlement answers this again.
    Settled,
    /// The lease was no longer held: nothing was changed.
    Stale,
}

impl Queue {
    /// Settles a lease, if it is still held: acknowledges first, so it works on a full Redis.
    ///
    /// # Cancel safety
    /// Not safe: a dropped call may or may not have settled. Repeat it; repeating is harmless.
    ///
    /// # Errors
    /// When Redis cannot be reached. Repeat it while the lease may still be held.
    pub async fn finish(
        &self,
        lease: &Lease,
        settlement: Settlement,
    ) -> Result<FinishReply, QueueError> {
        let _ = (lease, settlement);
        unimplemented!()
    }
}
