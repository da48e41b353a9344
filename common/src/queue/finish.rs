//! Settling: what a lease ends with, exactly once.

use super::reply::{Reply, unknown_word};
use super::script::FINISH;
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

impl RetryBudget {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Lost => "lost",
        }
    }
}

/// Whether a settlement counted.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReply {
    /// It did. Repeating it answers this again.
    Settled,
    /// The lease was no longer held: nothing was changed.
    Stale,
}

impl Queue {
    /// Settles a lease, if it is still held: acknowledges first, so it works on a full Redis.
    ///
    /// A lease that was settled stays settled: a second settlement, even a different one, answers
    /// [`FinishReply::Settled`] and changes nothing, until the job has been bound and settled anew.
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
        match settlement {
            Settlement::Publish { result, outcome } => {
                settle(
                    self,
                    lease,
                    &[b"publish", &result, outcome.as_str().as_bytes()],
                )
                .await
            }
            Settlement::Retry {
                after,
                why,
                counts_as,
            } => {
                settle(
                    self,
                    lease,
                    &[
                        b"retry",
                        after.0.to_string().as_bytes(),
                        why.as_bytes(),
                        counts_as.as_str().as_bytes(),
                    ],
                )
                .await
            }
            Settlement::DeadLetter {
                result,
                outcome,
                reason,
                error,
            } => {
                settle(
                    self,
                    lease,
                    &[
                        b"dead",
                        &result,
                        outcome.as_str().as_bytes(),
                        reason.as_bytes(),
                        error.as_bytes(),
                    ],
                )
                .await
            }
        }
    }
}

/// Runs `finish.lua` for a lease.
pub(super) async fn settle(
    queue: &Queue,
    lease: &Lease,
    settlement: &[&[u8]],
) -> Result<FinishReply, QueueError> {
    let mut call = FINISH
        .call(queue.keys.prefix())
        .arg(lease.worker.as_str())
        .arg(lease.class.as_str())
        .arg(lease.token.as_str())
        .arg(lease.id.as_str());
    for part in settlement {
        call.push(*part);
    }
    match Reply::new("finish", call.run(&queue.link).await?)
        .text()?
        .as_str()
    {
        "settled" => Ok(FinishReply::Settled),
        "stale" => Ok(FinishReply::Stale),
        other => Err(unknown_word("finish", other)),
    }
}
