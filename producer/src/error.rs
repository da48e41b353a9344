//! What can go wrong on the producer's side. How a job ended is never one of these.

use std::time::Duration;

use sandhog_common::id::JobId;
use sandhog_common::job::JobError;
use sandhog_common::queue::QueueError;
use sandhog_common::units::ByteCount;
use sandhog_common::wire::WireError;

/// Why a client's call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The queue could not be reached, or refused us.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The job cannot be meant; it was not sent.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The job as a payload is larger than a worker admits; it was not sent.
    #[error(
        "the job is {size} as a payload, above the {most} that workers admit (worker.max_payload)"
    )]
    TooLarge {
        /// Its size.
        size: ByteCount,
        /// The most that is admitted.
        most: ByteCount,
    },
    /// No result came in time. The job may still run.
    #[error("no result of job {id} after {waited:?}")]
    NoResult {
        /// The job.
        id: JobId,
        /// How long was waited.
        waited: Duration,
    },
    /// The queue does not know the job.
    #[error("no job {id} is known")]
    Unknown {
        /// The job.
        id: JobId,
    },
    /// The published result does not read.
    #[error("the result of job {id} cannot be decoded")]
    Result {
        /// The job.
        id: JobId,
        /// What is wrong with it.
        #[source]
        source: WireError,
    },
}

impl ClientError {
    /// Whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Queue(error) => error.is_transient(),
            Self::NoResult { .. } => true,
            Self::Job(_) | Self::TooLarge { .. } | Self::Unknown { .. } | Self::Result { .. } => {
                false
            }
        }
    }

    /// What can be done about it, where we know.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Queue(error) => error.hint(),
            Self::NoResult { .. } => {
                Some("wait again, or see with `sandhog status` whether a worker serves its class")
            }
            Self::TooLarge { .. } => Some(
                "compress large data or put it into an image; an operator may raise worker.max_payload to 16 MiB",
            ),
            Self::Unknown { .. } => Some("it was never submitted, or its retention has passed"),
            Self::Job(_) | Self::Result { .. } => None,
        }
    }
}
