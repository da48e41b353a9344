//! Runs of jobs in their slots, from a bound ticket to the settlement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sandhog_core::id::Namespace;
use sandhog_core::job::Job;
use sandhog_core::outcome::{ErrorInfo, JobResult, Outcome};
use sandhog_core::submission::IntakeError;
use sandhog_core::units::{ByteCount, Millis};
use sandhog_core::wire;
use sandhog_queue::{BoundJob, Queue, RetryBudget};

use super::delivery::{Delivery, Next};
use super::executor::{Attempt, Execution, Executor, ExecutorError};
use super::occupancy::{Occupancy, OccupancyGuard};
use super::output::{OutputLog, UnflushedOutput};
use super::settlement_batcher::SettlementBatcher;
use super::slot::Slot;
use crate::lease::{Interrupt, Leases};
use crate::metrics;
use crate::retry::{self, RetryDecision, RetryPolicy};
use crate::trace::Tracing;

/// Maximum wait of a claimed job for the removal of the previous cell in its slot; after that the
/// job is given back to the queue. A cell is normally removed within milliseconds, but that is not
/// guaranteed.
const CELL_REMOVAL_TIMEOUT: Duration = Duration::from_millis(500);

/// Mean wait before a job is given back because the machine has no resources for a cell. The actual
/// wait is up to half shorter or longer.
const MACHINE_FULL_BACKOFF: Duration = Duration::from_secs(1);

/// Mean wait until a job is ready again after the keeper of its image could not be used. The actual
/// wait is up to half shorter or longer.
const KEEPER_AWAY_BACKOFF: Duration = Duration::from_secs(2);

/// Time for which a slot stays occupied by a job whose image's keeper cannot be used. Without it, a
/// queue with many such jobs would occupy Redis and this worker; with a longer one, they would hold
/// up the jobs of other images.
const KEEPER_AWAY_PAUSE: Duration = Duration::from_millis(20);

/// State that all attempts of one worker in one namespace share.
#[derive(Debug)]
pub(crate) struct Attempts<E> {
    /// The namespace.
    pub(crate) namespace: Namespace,
    /// The queue that jobs come from and results go to.
    pub(crate) queue: Queue,
    /// Settles the attempts.
    pub(crate) batcher: SettlementBatcher,
    /// Runs the attempts.
    pub(crate) executor: Arc<E>,
    /// Records the spans of the attempts.
    pub(crate) tracing: Tracing,
    /// The leases of the attempts, which the heartbeat renews.
    pub(crate) leases: Leases,
    /// Maximum size of a payload.
    pub(crate) max_payload: ByteCount,
    /// Number of losses after which a job is given up.
    pub(crate) max_lost: u32,
}

impl<E: Executor> Attempts<E> {
    /// Runs `bound` in `slot` until it is settled and nothing of it is left, then the job that the
    /// settlement claimed for the slot, and so on.
    ///
    /// # Cancel safety
    /// Not cancel safe: if the future is dropped, a lease stays held until it expires. It is
    /// spawned as a task, never used in a `select!`.
    pub(crate) async fn run(self: Arc<Self>, bound: BoundJob, slot: Slot) {
        let mut next = Some(Box::new(bound));
        let mut before: Option<Occupancy> = None;
        while let Some(bound) = next {
            let (guard, occupancy) = OccupancyGuard::new();
            next = self.attempt(*bound, guard, before.as_ref(), &slot).await;
            slot.end_occupancy();
            // If an attempt did not start in time, the cell before it is still being removed, so
            // the next attempt waits for that same cell.
            before = Some(match before {
                Some(before) if !before.has_ended() => before,
                Some(_) | None => occupancy,
            });
        }
        if let Some(last) = before {
            last.wait_for_end().await;
        }
    }

    async fn attempt(
        &self,
        bound: BoundJob,
        occupancy: OccupancyGuard,
        before: Option<&Occupancy>,
        slot: &Slot,
    ) -> Next {
        let held = self.leases.hold(bound.lease.clone());
        let trace = self.tracing.attempt(&bound);
        let unflushed = UnflushedOutput::default();
        let mut delivery = Delivery::new(
            self.batcher.clone(),
            &bound,
            trace.clone(),
            unflushed.clone(),
            slot.clone(),
        );
        let claimed = Instant::now();
        if let Some(before) = before
            && tokio::time::timeout(CELL_REMOVAL_TIMEOUT, before.wait_for_end())
                .await
                .is_err()
        {
            tracing::warn!(
                job = %bound.lease.id,
                "cell of the previous job not removed in time, job given back"
            );
            return delivery.give_back().await;
        }
        metrics::attempt_started(bound.waited.duration() + claimed.elapsed());
        if bound.cancel_requested {
            let result = JobResult::bare(bound.lease.id.clone(), Outcome::Cancelled);
            return delivery.complete(result, Millis(0)).await;
        }
        let job = match wire::decode_noting::<Job>(&bound.payload, self.max_payload) {
            Ok((job, unknown)) => {
                delivery.warn(unknown.warnings());
                job
            }
            Err(error) => {
                return delivery
                    .reject(ErrorInfo::new("bad_payload", error.to_string()))
                    .await;
            }
        };
        // The payload comes from a store that other processes write, and a worker of another
        // version may have admitted it.
        let job = match job.check() {
            Ok(job) => job,
            Err(error) => return delivery.reject(IntakeError::from(error).info()).await,
        };
        let attempt = Attempt {
            id: bound.lease.id.clone(),
            namespace: self.namespace.clone(),
            class: bound.lease.class.clone(),
            tenant: bound.tenant.clone(),
            follows: before.is_some(),
            number: bound.attempts,
            interrupted: held.interrupted().clone(),
            trace,
            output: OutputLog::new(self.queue.clone(), bound.lease.clone(), unflushed),
            occupancy,
            slot: slot.clone(),
        };
        let began = Instant::now();
        let ended = self.executor.execute(&job, attempt).await;
        let ran = Millis::from(began.elapsed());
        match (held.interrupted().why(), ended) {
            (Some(Interrupt::LeaseLost), _) => {
                delivery.abandon();
                None
            }
            (
                Some(Interrupt::Draining),
                Ok(Execution {
                    result,
                    stopped_by_us: false,
                }),
            ) => conclude(delivery, &bound, result, ran).await,
            (Some(Interrupt::Draining), _) => delivery.give_back().await,
            (Some(Interrupt::Cancelled), Ok(Execution { result, .. })) => {
                delivery.complete(result, ran).await
            }
            (None, Ok(Execution { result, .. })) => conclude(delivery, &bound, result, ran).await,
            (
                Some(Interrupt::Cancelled),
                Err(
                    ExecutorError::Fault { .. }
                    | ExecutorError::Full { .. }
                    | ExecutorError::Away { .. },
                ),
            ) => {
                let result = JobResult::bare(bound.lease.id.clone(), Outcome::Cancelled);
                delivery.complete(result, ran).await
            }
            (_, Err(ExecutorError::Rejected(error))) => delivery.reject(error).await,
            (_, Err(ExecutorError::Hopeless(error))) => delivery.give_up(error).await,
            (None, Err(ExecutorError::Full { message })) => {
                tracing::warn!(
                    job = %bound.lease.id,
                    what = %message,
                    "machine full, job given back"
                );
                // The slot stays occupied during the pause. Otherwise this worker would claim
                // another job, which would fail in the same way.
                tokio::time::sleep(MACHINE_FULL_BACKOFF.mul_f64(0.5 + rand::random::<f64>())).await;
                delivery.give_back().await
            }
            (None, Err(ExecutorError::Away { message })) => {
                tracing::debug!(
                    job = %bound.lease.id,
                    what = %message,
                    "keeper away, job given back"
                );
                tokio::time::sleep(KEEPER_AWAY_PAUSE).await;
                let after = KEEPER_AWAY_BACKOFF.mul_f64(0.5 + rand::random::<f64>());
                delivery
                    .retry(Millis::from(after), &message, RetryBudget::Uncounted)
                    .await
            }
            (None, Err(ExecutorError::Fault { message })) => {
                self.fault(delivery, &bound, message).await
            }
        }
    }

    /// Handles a fault of the system: the job runs again unless it has been lost too often.
    async fn fault(&self, delivery: Delivery, bound: &BoundJob, message: String) -> Next {
        metrics::attempt_lost();
        let lost = bound.lost.saturating_add(1);
        tracing::warn!(job = %bound.lease.id, lost, fault = %message, "attempt lost");
        match retry::after_fault(lost, self.max_lost, bound.backoff, rand::random()) {
            RetryDecision::Retry(after) => delivery.retry(after, &message, RetryBudget::Lost).await,
            RetryDecision::GiveUp => delivery.dead_letter(message).await,
        }
    }
}

/// Settles an attempt whose program ended. The outcome is the job's result unless the job retries
/// this outcome. If a client cancels the job in the meantime, the queue publishes it as cancelled.
async fn conclude(delivery: Delivery, bound: &BoundJob, result: JobResult, ran: Millis) -> Next {
    let policy = RetryPolicy {
        retry_on: &bound.retry_on,
        max_attempts: bound.max_attempts,
        spent: bound.attempts.saturating_sub(bound.lost),
        backoff: bound.backoff,
    };
    match retry::after_outcome(result.outcome, policy, rand::random()) {
        None => delivery.complete(result, ran).await,
        Some(after) => {
            let why = format!("attempt {} ended {}", bound.attempts, result.outcome);
            tracing::info!(
                job = %bound.lease.id,
                outcome = %result.outcome,
                "attempt failed, job will be retried"
            );
            delivery.retry(after, &why, RetryBudget::Attempt).await
        }
    }
}
