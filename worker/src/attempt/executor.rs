//! What runs a job: the border between the queue's side and the sandbox's.
//!
//! The queue's suites put an executor here that does nothing, so that they measure the queue alone.

use std::future::Future;

use sandhog_common::class::Class;
use sandhog_common::id::{JobId, Namespace, Tenant};
use sandhog_common::job::Job;
use sandhog_common::outcome::{ErrorInfo, JobResult};
use sandhog_common::size::Size;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::output::OutputLog;
use super::slot::Slot;
use crate::lease::Interrupted;
use crate::trace::AttemptTrace;

/// An attempt's place in its worker: no other attempt has it as long as this lives, also after the result.
#[derive(Debug)]
pub struct Place {
    _held: DropGuard,
}

/// Tells whether a place is free.
#[derive(Debug, Clone)]
pub struct Vacancy(CancellationToken);

impl Place {
    /// A place, and what tells when it is free.
    pub(super) fn new() -> (Self, Vacancy) {
        let freed = CancellationToken::new();
        let held = freed.clone().drop_guard();
        (Self { _held: held }, Vacancy(freed))
    }
}

impl Vacancy {
    /// Whether nothing of the attempt is left.
    pub(super) fn is_free(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until it is.
    pub(super) async fn wait(&self) {
        self.0.cancelled().await;
    }
}

/// One attempt, as its executor sees it.
#[derive(Debug)]
pub struct Attempt {
    /// The job.
    pub id: JobId,
    /// The queue it came from.
    pub namespace: Namespace,
    /// The tags it asked for.
    pub class: Class,
    /// Whose it is.
    pub tenant: Tenant,
    /// Whether it followed another in its slot at once: there is more to do than there are slots.
    pub follows: bool,
    /// Which attempt this is; 1 is the first.
    pub number: u32,
    /// Ends when the attempt should stop.
    pub interrupted: Interrupted,
    /// What its time is spent on.
    pub trace: AttemptTrace,
    /// Where its output goes while it runs.
    pub output: OutputLog,
    /// To be kept until nothing of the attempt is left.
    pub place: Place,
    /// The slot it was claimed with; freed at its end, or before if it only waits.
    pub slot: Slot,
}

/// How a run ended that we could carry out.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// What the program did.
    pub result: JobResult,
    /// Whether it ended because the attempt was interrupted, not by itself or by a cap.
    pub stopped_by_us: bool,
}

/// Why a run could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecutorError {
    /// The submitter's fault: the job does not fit its image, or there is no such image. Never retried.
    #[error("{}", .0.message)]
    Rejected(ErrorInfo),
    /// Not the submitter's, and no retry would mend it: given up at once.
    #[error("{}", .0.message)]
    Hopeless(ErrorInfo),
    /// The machine as a whole has no more to give of something that all its users share. Given back
    /// without a mark on the job's record: another worker may have it, or this one later.
    #[error("{message}")]
    Full {
        /// The step that failed, with the reason.
        message: String,
    },
    /// Ours: retried within the job's budget of lost attempts.
    #[error("{message}")]
    Fault {
        /// What failed.
        message: String,
    },
}

/// Runs jobs.
pub trait Executor: Send + Sync + 'static {
    /// What jobs that are being admitted will take of their workers, in order; it need only be a good guess. Unless
    /// their images are known here, that is what they say themselves.
    fn sizes(&self, jobs: &[&Job]) -> impl Future<Output = Vec<Size>> + Send {
        let sizes = jobs.iter().map(|job| job.size()).collect();
        std::future::ready(sizes)
    }

    /// Runs one job to its end.
    ///
    /// It ends early, soon after `attempt.interrupted` does, and then answers `stopped_by_us`.
    ///
    /// # Errors
    /// When the job could not be run at all, with whose fault that is. What the program does wrong is no error.
    fn execute(
        &self,
        job: &Job,
        attempt: Attempt,
    ) -> impl Future<Output = Result<Execution, ExecutorError>> + Send;
}
