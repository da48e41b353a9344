//! A queue that does not answer while a command waits for a job.
//!
//! The job is safe in the queue, so the command says what happens and tries for a minute. After
//! that it ends with the id of the job, which can be waited for or cancelled later.

use std::time::{Duration, Instant};

use sandhog_common::id::JobId;
use sandhog_producer::ClientError;

use crate::fault::Fault;
use crate::output::Output;

/// Time for which the queue may be away.
const AWAY: Duration = Duration::from_secs(60);

/// The state of the connection while a command waits.
#[derive(Debug)]
pub(super) struct Away {
    output: Output,
    since: Option<Instant>,
}

impl Away {
    pub(super) const fn new(output: Output) -> Self {
        Self {
            output,
            since: None,
        }
    }

    /// Records that the queue has answered.
    pub(super) fn is_back(&mut self) {
        if self.since.take().is_some() && !self.output.is_json() {
            self.output.note("sandhog: the queue answers again");
        }
    }

    /// Records an error. Returns whether to try again; the first time a line says so.
    pub(super) fn may_try_again(&mut self, error: &ClientError) -> bool {
        if !error.is_transient() {
            return false;
        }
        match self.since {
            Some(since) => since.elapsed() < AWAY,
            None => {
                self.since = Some(Instant::now());
                if !self.output.is_json() {
                    self.output.note(&format!(
                        "sandhog: waiting: the queue does not answer (has `sandhog up` or Redis stopped?); trying for {} s, Ctrl-C ends the wait",
                        AWAY.as_secs()
                    ));
                }
                true
            }
        }
    }

    /// The error at the end of the wait.
    pub(super) fn fault(&self, error: ClientError, id: &JobId) -> Fault {
        let fault = Fault::from(error);
        match self.since {
            Some(_) => fault.hint(left_behind(id)),
            None => fault,
        }
    }
}

/// Advice about a job that stays in a queue that does not answer.
pub(super) fn left_behind(id: &JobId) -> String {
    format!(
        "job {id} stays in the queue and runs when Redis and a worker are back (`sandhog up` starts both); then `sandhog wait {id}` shows its result and `sandhog cancel {id}` cancels it"
    )
}
