//! A job's payload: the program or model call, its image and its caps.
//!
//! A payload is parsed as a [`Job`], and [`Job::check`] turns it into a [`CheckedJob`]. All code
//! that submits, admits or runs jobs takes the latter. Each process checks a job once: a producer
//! after it has built the job, a worker after it has read the job from Redis.
//!
//! Routing, such as the class and the start time, is in the stream fields beside the payload
//! ([`crate::submission`]). Unknown fields are ignored, so that an old worker can read the job of a
//! newer producer.

mod checked_job;
mod error;
mod job;

pub(crate) use checked_job::check_env;
pub use checked_job::{CheckedJob, Program};
pub use error::JobError;
pub use job::{Job, Kind};
