//! Errors of the client. A job that ends without success is not an error here; its result says so.

use std::time::Duration;

use sandhog_core::id::JobId;
use sandhog_core::job::JobError;
use sandhog_core::units::ByteCount;
use sandhog_core::wire::WireError;
use sandhog_queue::QueueError;

/// An error of a call of the client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The queue could not be reached or rejected the request.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The job is not valid. It was not sent.
    #[error(transparent)]
    Job(#[from] JobError),
    /// The job's payload is larger than a worker admits. It was not sent.
    #[error(
        "the job's payload has {size}, more than the {most} that workers admit \
         (worker.max_payload)"
    )]
    TooLarge {
        /// Size of the payload.
        size: ByteCount,
        /// Largest size that is admitted.
        most: ByteCount,
    },
    /// No result arrived in time. The job may still run.
    #[error("no result of job {id} after {waited:?}")]
    NoResult {
        /// The job's id.
        id: JobId,
        /// Duration of the wait.
        waited: Duration,
    },
    /// The queue has no job of this id.
    #[error("no job {id} is known")]
    Unknown {
        /// The job's id.
        id: JobId,
    },
    /// The published result cannot be decoded.
    #[error("the result of job {id} cannot be decoded")]
    Result {
        /// The job's id.
        id: JobId,
        /// The cause.
        #[source]
        source: WireError,
    },
}

impl ClientError {
    /// Returns whether the same call may succeed later without any change by a person.
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

    /// Advice for the user, if there is any.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Queue(error) => error.hint(),
            Self::NoResult { .. } => {
                Some("wait again, or check with `sandhog status` that a worker serves its class")
            }
            Self::TooLarge { .. } => Some(
                "compress large data or build it into an image; an operator can raise \
                 worker.max_payload to at most 16MiB",
            ),
            Self::Unknown { .. } => Some("it was never submitted, or its retention has passed"),
            Self::Job(_) | Self::Result { .. } => None,
        }
    }
}
