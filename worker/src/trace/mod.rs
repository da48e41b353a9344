//! Spans of attempts, as part of the submitter's trace.
//!
//! Each attempt creates four spans. `queue wait` and `attempt` are children of the span that
//! submitted the job. `sandbox`, the time until a container was ready, and `cell`, the run of the
//! program, are children of `attempt`. The program receives the `cell` span in its environment, so
//! that its own spans become children of it.
//!
//! Tracing never delays a job: spans wait in a bounded queue, are dropped while it is full, and are
//! sent from a separate thread. A span never contains output of a job.

mod attempt_trace;
mod error;
mod exporter;
mod tracing;

pub use self::attempt_trace::{AttemptTrace, StepSpan};
pub use self::error::TraceError;
pub(crate) use self::tracing::Tracing;
