//! Metrics of jobs and their attempts.

use std::time::Duration;

use metrics::{counter, histogram};
use sandhog_core::outcome::Outcome;

use super::catalogue::{
    ATTEMPTS_LOST, ATTEMPTS_STARTED, JOBS_ADMITTED, JOBS_FINISHED, JOBS_GIVEN_BACK, JOBS_REJECTED,
    JOBS_RETRIED, RUN_TIME, STALE_WRITES, START_LATENCY,
};

/// Counts a job admitted from the intake stream.
pub(crate) fn job_admitted() {
    counter!(JOBS_ADMITTED).increment(1);
}

/// Counts a job rejected at intake or because of its image. `code` is one of Sandhog's own codes.
pub(crate) fn job_rejected(code: &str) {
    counter!(JOBS_REJECTED, "code" => code.to_owned()).increment(1);
}

/// Records the start of an attempt, and the time since its job became ready.
pub(crate) fn attempt_started(waited: Duration) {
    counter!(ATTEMPTS_STARTED).increment(1);
    histogram!(START_LATENCY).record(waited);
}

/// Records an attempt that ended with a published result, and its run time.
pub(crate) fn job_finished(outcome: Outcome, ran: Duration) {
    counter!(JOBS_FINISHED, "outcome" => outcome.as_str()).increment(1);
    histogram!(RUN_TIME, "outcome" => outcome.as_str()).record(ran);
}

/// Counts an attempt lost through a fault of the service.
pub(crate) fn attempt_lost() {
    counter!(ATTEMPTS_LOST).increment(1);
}

/// Counts a job put back for another attempt.
pub(crate) fn job_retried() {
    counter!(JOBS_RETRIED).increment(1);
}

/// Counts a job given back unfinished.
pub(crate) fn job_given_back() {
    counter!(JOBS_GIVEN_BACK).increment(1);
}

/// Counts a write rejected by the fencing token.
pub(crate) fn stale_write() {
    counter!(STALE_WRITES).increment(1);
}
