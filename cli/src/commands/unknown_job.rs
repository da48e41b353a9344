//! The error of a command that names a job which the queue does not know.

use sandhog_core::id::JobId;

use crate::error::CliError;
use crate::exit::Exit;

/// Returns the error for an unknown job: it was never submitted, is not admitted yet, or its
/// retention has passed.
pub(super) fn unknown_job(id: &JobId) -> CliError {
    CliError::message(Exit::Missing, format!("no job {id} is known"))
        .hint("it may not be admitted yet (is a worker running?), or its retention has passed")
}
