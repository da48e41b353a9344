//! Handling of a queue that does not answer while a command waits for a job.
//!
//! The job is safe in the queue. The command reports the problem and retries for a minute. If the
//! queue still does not answer, the command ends and prints the id of the job, so that the user can
//! wait for the job or cancel it later.

use std::time::{Duration, Instant};

use sandhog_core::id::JobId;
use sandhog_producer::ClientError;

use crate::error::CliError;
use crate::output::Printer;

/// Longest time for which a command retries while the queue does not answer.
const OUTAGE_TIMEOUT: Duration = Duration::from_secs(60);

/// The state of the connection while a command waits.
#[derive(Debug)]
pub(super) struct OutageRetry {
    output: Printer,
    since: Option<Instant>,
}

impl OutageRetry {
    pub(super) const fn new(output: Printer) -> Self {
        Self {
            output,
            since: None,
        }
    }

    /// Records that the queue has answered.
    pub(super) fn record_answer(&mut self) {
        if self.since.take().is_some() && !self.output.is_json() {
            self.output.note("sandhog: the queue answers again");
        }
    }

    /// Records an error and returns whether to retry. Prints a line for the first error.
    pub(super) fn record_error(&mut self, error: &ClientError) -> bool {
        if !error.is_transient() {
            return false;
        }
        match self.since {
            Some(since) => since.elapsed() < OUTAGE_TIMEOUT,
            None => {
                self.since = Some(Instant::now());
                if !self.output.is_json() {
                    self.output.note(&format!(
                        "sandhog: waiting: the queue does not answer (has `sandhog up` or Redis \
                         stopped?); retrying for {} s, Ctrl-C ends the wait",
                        OUTAGE_TIMEOUT.as_secs()
                    ));
                }
                true
            }
        }
    }

    /// Returns the error that ends the wait.
    pub(super) fn final_error(&self, error: ClientError, id: &JobId) -> CliError {
        let error = CliError::from(error);
        match self.since {
            Some(_) => error.hint(job_remains_hint(id)),
            None => error,
        }
    }
}

/// Returns advice about a job that remains in a queue that does not answer.
pub(super) fn job_remains_hint(id: &JobId) -> String {
    format!(
        "job {id} stays in the queue and runs when Redis and a worker are back (`sandhog up` \
         starts both); then `sandhog wait {id}` shows its result and `sandhog cancel {id}` cancels \
         it"
    )
}
