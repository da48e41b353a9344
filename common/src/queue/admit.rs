//! Admitting: an intake entry becomes a job record, a place in a ready set and a ticket; or a dead letter.

use super::{EntryId, Queue, QueueError};
use crate::id::JobId;
use crate::outcome::ErrorInfo;
use crate::submission::Submission;
use crate::wire::Encoding;

/// What to do with one intake entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// It is a job.
    Accept {
        /// The entry.
        entry: EntryId,
        /// The job.
        submission: Box<Submission>,
    },
    /// It cannot be one: a dead letter, and a result its submitter can read.
    Reject {
        /// The entry.
        entry: EntryId,
        /// The job's own name, where the entry shows one.
        id: Option<JobId>,
        /// How to encode the result.
        encoding: Encoding,
        /// Why.
        error: ErrorInfo,
    },
}

/// What became of one intake entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmitReply {
    /// It waits for a worker, or for its time.
    Admitted(JobId),
    /// It was refused: dead letter and result are written.
    Rejected(JobId),
    /// It was cancelled before it was admitted.
    Cancelled(JobId),
    /// A job of this name is known already; the entry was dropped and changes nothing.
    Duplicate(JobId),
    /// Somebody else admitted the entry.
    Gone,
}

impl Queue {
    /// Admits or refuses entries, in order. Repeating the call changes nothing.
    ///
    /// # Errors
    /// When Redis cannot be reached; the entries stay pending and are read again.
    pub async fn admit(&self, entries: &[Admission]) -> Result<Vec<AdmitReply>, QueueError> {
        let _ = entries;
        unimplemented!()
    }

    /// Drops intake entries that were requests and have been met.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn done(&self, entries: &[EntryId]) -> Result<(), QueueError> {
        let _ = entries;
        unimplemented!()
    }
}
