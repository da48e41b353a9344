//! The one settlement of a lease.
//!
//! Every settling method consumes the delivery, so none can run twice. Each retries until Redis has
//! answered, so a restart of Redis does not lose a finished result. Only Redis decides whether this
//! worker still held the lease.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sandhog_core::blob::Blob;
use sandhog_core::clock::{Clock, SystemClock};
use sandhog_core::outcome::{ErrorInfo, JobResult, Outcome, Truncated};
use sandhog_core::units::Millis;
use sandhog_core::wire::{self, Encoding, MAX_ENCODED_RESULT};
use sandhog_queue::{
    BoundJob, FinishReply, Lease, QueueError, RetryBudget, Settlement, SettlementRequest,
};

use super::output::UnflushedOutput;
use super::settlement_batcher::{SettlementBatcher, SettlementReply};
use super::slot::Slot;
use crate::backoff::JitteredBackoff;
use crate::metrics;
use crate::trace::AttemptTrace;

/// The job that the slot of a settled attempt runs next, if there is one.
pub type Next = Option<Box<BoundJob>>;

/// The right and the duty to settle one attempt. Each settling method returns the next job for the
/// slot; this worker already holds the lease of that job.
#[derive(Debug)]
#[must_use = "a lease that is not settled blocks its job until it lapses"]
pub struct Delivery {
    batcher: SettlementBatcher,
    lease: Lease,
    encoding: Encoding,
    attempts: u32,
    trace: AttemptTrace,
    unflushed: UnflushedOutput,
    slot: Slot,
    /// Remarks on the payload, to be added to the result.
    warnings: Vec<String>,
}

impl Delivery {
    /// Creates the delivery of a job that has just been bound. The settlement writes the content of
    /// `unflushed` to the job's log.
    pub fn new(
        batcher: SettlementBatcher,
        bound: &BoundJob,
        trace: AttemptTrace,
        unflushed: UnflushedOutput,
        slot: Slot,
    ) -> Self {
        Self {
            batcher,
            lease: bound.lease.clone(),
            encoding: bound.encoding,
            attempts: bound.attempts,
            trace,
            unflushed,
            slot,
            warnings: Vec::new(),
        }
    }

    /// Adds remarks on the payload to the result.
    pub fn warn(&mut self, warnings: Vec<String>) {
        self.warnings.extend(warnings);
    }

    /// Publishes the result of the program.
    pub async fn complete(self, result: JobResult, ran: Millis) -> Next {
        let outcome = result.outcome;
        let settlement = Settlement::Publish {
            result: encoded(self.with_metadata(result), self.encoding),
            outcome,
        };
        let settled = self.settle(settlement).await;
        if settled.reply == FinishReply::Settled {
            metrics::job_finished(outcome, ran.duration());
            self.trace.end_with_outcome(outcome);
        }
        settled.next
    }

    /// Rejects the job for a fault of its submitter: writes a dead letter and a result with the
    /// reason.
    pub async fn reject(self, error: ErrorInfo) -> Next {
        metrics::job_rejected(&error.code);
        self.settle_as_dead_letter(Outcome::Rejected, error).await
    }

    /// Gives the job up after faults of the system: writes a dead letter and a result with the
    /// reason.
    pub async fn dead_letter(self, message: String) -> Next {
        self.settle_as_dead_letter(Outcome::Lost, ErrorInfo::new("attempts_lost", message))
            .await
    }

    /// Gives the job up after a fault of the system that a retry cannot repair: writes a dead
    /// letter and a result with the reason.
    pub async fn give_up(self, error: ErrorInfo) -> Next {
        self.settle_as_dead_letter(Outcome::Lost, error).await
    }

    /// Runs the job again after a wait and counts the retry against one of its budgets.
    pub async fn retry(self, after: Millis, why: &str, counts_as: RetryBudget) -> Next {
        let settlement = Settlement::Retry {
            after,
            why: why.to_owned(),
            counts_as,
        };
        let settled = self.settle(settlement).await;
        if settled.reply == FinishReply::Settled {
            match counts_as {
                RetryBudget::Attempt | RetryBudget::Lost => metrics::job_retried(),
                RetryBudget::Uncounted => metrics::job_given_back(),
            }
            self.trace.end_unsettled(match counts_as {
                RetryBudget::Attempt => "tried again",
                RetryBudget::Lost => "lost",
                RetryBudget::Uncounted => "given back",
            });
        }
        settled.next
    }

    /// Makes the job ready again for another worker, as if this attempt had not happened. The
    /// settlement claims no job for the slot, because it would claim the same one again.
    pub async fn give_back(self) -> Next {
        let settled = self.settle_with(Settlement::GiveBack, None).await;
        if settled.reply == FinishReply::Settled {
            metrics::job_given_back();
            self.trace.end_unsettled("given back");
        }
        settled.next
    }

    /// Ends the delivery without a settlement: another worker holds the lease now.
    pub fn abandon(self) {
        metrics::stale_write();
        self.trace.end_unsettled("lease lost");
        tracing::warn!(job = %self.lease.id, token = %self.lease.token, "attempt abandoned");
    }

    async fn settle_as_dead_letter(self, outcome: Outcome, error: ErrorInfo) -> Next {
        let result = self.with_metadata(JobResult::with_error(
            self.lease.id.clone(),
            outcome,
            error.clone(),
        ));
        let settlement = Settlement::DeadLetter {
            result: wire::encode(&result, self.encoding),
            outcome,
            reason: error.code,
            error: error.message,
        };
        let settled = self.settle(settlement).await;
        if settled.reply == FinishReply::Settled {
            metrics::job_finished(outcome, Duration::ZERO);
            self.trace.end_with_outcome(outcome);
        }
        settled.next
    }

    fn with_metadata(&self, result: JobResult) -> JobResult {
        JobResult {
            attempts: self.attempts,
            worker: Some(self.lease.worker.clone()),
            warnings: self.warnings.clone(),
            finished_at_ms: SystemClock.now(),
            ..result
        }
    }

    async fn settle(&self, settlement: Settlement) -> SettlementReply {
        let next = self.slot.is_held().then(|| self.slot.clone());
        self.settle_with(settlement, next).await
    }

    async fn settle_with(&self, settlement: Settlement, free: Option<Slot>) -> SettlementReply {
        let ending = Arc::new(SettlementRequest {
            lease: self.lease.clone(),
            settlement,
            log: self.unflushed.take(),
        });
        let settled = self
            .retry_until_answered("settle", || self.batcher.settle(&ending, free.clone()))
            .await
            .unwrap_or(SettlementReply {
                reply: FinishReply::Stale,
                next: None,
            });
        if settled.reply == FinishReply::Stale {
            metrics::stale_write();
            self.trace.end_unsettled("lease lost");
            tracing::warn!(
                job = %self.lease.id,
                token = %self.lease.token,
                "settlement fenced off"
            );
        }
        settled
    }

    /// Repeats the call until Redis answers. Returns `None` if Redis rejects the call permanently.
    async fn retry_until_answered<T, F>(
        &self,
        step: &'static str,
        mut call: impl FnMut() -> F,
    ) -> Option<T>
    where
        F: Future<Output = Result<T, Arc<QueueError>>>,
    {
        let mut backoff = JitteredBackoff::with_full_jitter();
        loop {
            match call().await {
                Ok(answer) => return Some(answer),
                Err(error) if error.is_transient() => {
                    tracing::warn!(
                        job = %self.lease.id,
                        step,
                        error = &*error as &dyn std::error::Error,
                        "redis did not answer"
                    );
                }
                Err(error) => {
                    tracing::error!(
                        job = %self.lease.id,
                        step,
                        error = &*error as &dyn std::error::Error,
                        "redis rejected the call; it is not repeated"
                    );
                    return None;
                }
            }
            tokio::time::sleep(backoff.record_failure()).await;
        }
    }
}

/// Encodes a result. If it is larger than Redis accepts, the program's output and value are dropped
/// and the result reports that.
fn encoded(result: JobResult, encoding: Encoding) -> Vec<u8> {
    let bytes = wire::encode(&result, encoding);
    if bytes.len() <= MAX_ENCODED_RESULT.as_usize() {
        return bytes;
    }
    let message = format!(
        "the output was dropped: the encoded result has {} bytes, above the limit of \
         {MAX_ENCODED_RESULT}",
        bytes.len()
    );
    let error = ErrorInfo::new("output_dropped", message);
    let short = JobResult {
        value: None,
        stdout: Blob::default(),
        stderr: Blob::default(),
        truncated: Truncated {
            stdout: true,
            stderr: true,
        },
        files: BTreeMap::default(),
        displays_dropped: result.displays_dropped + result.displays.len() as u64,
        displays: Vec::new(),
        exception: None,
        error: Some(result.error.unwrap_or(error)),
        ..result
    };
    wire::encode(&short, encoding)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_redis_would_not_take_is_shortened() {
        let result = |bytes: usize| JobResult {
            stderr: Blob("\n".repeat(bytes).into_bytes()),
            exit_code: Some(3),
            ..JobResult::bare("a".parse().unwrap(), Outcome::Failed)
        };
        for (mib, is_whole) in [(16, true), (48, false)] {
            let bytes = encoded(result(mib << 20), Encoding::Json);
            let cap = MAX_ENCODED_RESULT;
            let (read, _) = wire::decode::<JobResult>(&bytes, cap).unwrap();
            assert_eq!(read.exit_code, Some(3));
            assert_eq!(read.error.is_none(), is_whole, "{mib} MiB");
            assert_eq!(read.stderr.is_empty(), !is_whole);
            assert_eq!(read.truncated.stderr, !is_whole);
        }
    }
}
