//! The interface between the queue side and the sandbox side: an executor runs a job.
//!
//! The queue's test suites use an executor that does nothing, so that they measure the queue alone.

use std::future::Future;

use sandhog_core::class::Class;
use sandhog_core::id::{JobId, Namespace, Tenant};
use sandhog_core::image::FitError;
use sandhog_core::job::CheckedJob;
use sandhog_core::outcome::{ErrorInfo, JobResult};
use sandhog_core::size::Size;

use super::occupancy::OccupancyGuard;
use super::output::OutputLog;
use super::slot::Slot;
use crate::lease::InterruptReceiver;
use crate::trace::AttemptTrace;

/// One attempt, as passed to its executor.
#[derive(Debug)]
pub struct Attempt {
    /// The job.
    pub id: JobId,
    /// The namespace it came from.
    pub namespace: Namespace,
    /// The tags that the job requires.
    pub class: Class,
    /// The tenant of the job.
    pub tenant: Tenant,
    /// `true` if it follows another attempt in its slot without a pause, which means that more jobs
    /// wait than there are slots.
    pub follows: bool,
    /// Number of the attempt; 1 is the first.
    pub number: u32,
    /// Receives interrupts, after which the attempt should stop.
    pub interrupted: InterruptReceiver,
    /// Records the spans of the attempt.
    pub trace: AttemptTrace,
    /// Log that receives the output while the program runs.
    pub output: OutputLog,
    /// Must be kept until nothing of the attempt is left.
    pub occupancy: OccupancyGuard,
    /// The slot it was claimed with. Freed at the end of the attempt, or earlier if the attempt
    /// only waits.
    pub slot: Slot,
}

/// End of a run that was carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// The result of the program.
    pub result: JobResult,
    /// `true` if the run ended because the attempt was interrupted, rather than by itself or at a
    /// limit.
    pub stopped_by_us: bool,
}

/// Reason for which a run could not be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecutorError {
    /// The submitter's fault: the job does not fit its image, or there is no such image. Never
    /// retried.
    #[error("{}", .0.message)]
    Rejected(ErrorInfo),
    /// A fault of the system that a retry cannot repair. The job is given up at once.
    #[error("{}", .0.message)]
    Hopeless(ErrorInfo),
    /// The machine as a whole has run out of a resource that all its users share. The job is given
    /// back without a mark on its record: another worker may have the resource, or this one later.
    #[error("{message}")]
    Full {
        /// The step that failed, with the reason.
        message: String,
    },
    /// The keeper of the job's image cannot be used now. The job is given back without a mark on
    /// its record, and is ready again after a wait.
    #[error("{message}")]
    Away {
        /// The keeper, with the reason.
        message: String,
    },
    /// A fault of the system. Retried within the job's budget of lost attempts.
    #[error("{message}")]
    Fault {
        /// The failure.
        message: String,
    },
}

impl From<FitError> for ExecutorError {
    fn from(error: FitError) -> Self {
        Self::Rejected(ErrorInfo::new(error.code(), error.to_string()))
    }
}

/// Runs jobs.
pub trait Executor: Send + Sync + 'static {
    /// Returns the size of each job that is being admitted, in order. An estimate is sufficient.
    /// The default is the size from each job's own limits, for use where the images are not known.
    fn sizes(&self, jobs: &[&CheckedJob]) -> impl Future<Output = Vec<Size>> + Send {
        let sizes = jobs.iter().map(|job| job.size()).collect();
        std::future::ready(sizes)
    }

    /// Runs one job to its end.
    ///
    /// If `attempt.interrupted` fires, the run ends soon after that and the result has
    /// `stopped_by_us` set.
    ///
    /// # Errors
    /// If the job could not be run at all; the variant tells whose fault that is. An error of the
    /// program is not an error of this call.
    fn execute(
        &self,
        job: &CheckedJob,
        attempt: Attempt,
    ) -> impl Future<Output = Result<Execution, ExecutorError>> + Send;
}
