//! Admission: turns an intake entry into a job record, a member of a ready set and a ticket, or
//! into a dead letter.

use crate::resp::{RespValue, unknown_word};
use crate::script::{ADMIT, DONE, SCRIPT_BATCH};
use crate::spec::encode_spec;
use crate::{EntryId, Queue, QueueError};
use sandhog_core::id::{JobId, ReplyName};
use sandhog_core::outcome::ErrorInfo;
use sandhog_core::size::Size;
use sandhog_core::submission::{Routing, Start, Submission};
use sandhog_core::wire::Encoding;

/// Payload bytes that one call of the script carries, approximately.
const BATCH_BYTES: usize = 4 << 20;

/// Number of arguments that the script takes for one entry.
const STRIDE: usize = 9;

/// An admitter's decision on one intake entry.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// The entry is a valid job.
    Accept {
        /// The entry.
        entry: EntryId,
        /// The job.
        submission: Box<Submission>,
    },
    /// The entry is not a valid job: it becomes a dead letter, with a result that its submitter can
    /// read.
    Reject {
        /// The entry.
        entry: EntryId,
        /// Job id that the entry gives, if it gives a valid one.
        id: Option<JobId>,
        /// Reply stream from which the submitter reads results, if the entry gives a valid one.
        reply: Option<ReplyName>,
        /// Encoding of the result.
        encoding: Encoding,
        /// Reason for the rejection.
        error: ErrorInfo,
    },
}

/// Result of admitting one intake entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdmitReply {
    /// The job waits for a worker, or for its start time.
    Admitted(JobId),
    /// The entry was rejected: its dead letter and its result are written.
    Rejected(JobId),
    /// The job was cancelled before it was admitted.
    Cancelled(JobId),
    /// A job of this id exists already. The entry was dropped and changes nothing.
    Duplicate(JobId),
    /// Another admitter has admitted the entry, or this call did so before its connection broke and
    /// the call was repeated.
    Gone,
}

impl Queue {
    /// Admits or rejects entries, in order. Repeating the call changes nothing.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached; the entries stay pending and are read again.
    pub async fn admit(&self, entries: &[Admission]) -> Result<Vec<AdmitReply>, QueueError> {
        let mut replies = Vec::with_capacity(entries.len());
        let mut rest = entries;
        while !rest.is_empty() {
            let mut call = ADMIT.call(self.keys.prefix());
            let mut bytes = 0;
            let mut count = 0;
            for admission in rest.iter().take(SCRIPT_BATCH) {
                if count > 0 && bytes + payload_size(admission) > BATCH_BYTES {
                    break;
                }
                bytes += payload_size(admission);
                count += 1;
                for argument in arguments(admission) {
                    call.push(argument);
                }
            }
            let (_sent, later) = rest.split_at(count);
            rest = later;
            let mut parts = RespValue::new("admit", call.run(&self.connection).await?).parts()?;
            for _ in 0..count {
                let became = parts.part()?.text()?;
                let id = parts.part()?.name()?;
                replies.push(match became.as_str() {
                    "admitted" => AdmitReply::Admitted(id),
                    "rejected" => AdmitReply::Rejected(id),
                    "cancelled" => AdmitReply::Cancelled(id),
                    "duplicate" => AdmitReply::Duplicate(id),
                    "gone" => AdmitReply::Gone,
                    other => return Err(unknown_word("admit", other)),
                });
            }
        }
        Ok(replies)
    }

    /// Deletes intake entries that were requests, such as cancels, and have been carried out.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn done(&self, entries: &[EntryId]) -> Result<(), QueueError> {
        for chunk in entries.chunks(SCRIPT_BATCH) {
            let mut call = DONE.call(self.keys.prefix());
            for entry in chunk {
                call.push(entry.as_str());
            }
            call.run(&self.connection).await?;
        }
        Ok(())
    }
}

fn payload_size(admission: &Admission) -> usize {
    match admission {
        Admission::Accept { submission, .. } => submission.payload.len(),
        Admission::Reject { .. } => 0,
    }
}

/// Arguments that `admit.lua` takes for one entry, in the script's order.
fn arguments(admission: &Admission) -> [Vec<u8>; STRIDE] {
    let text = |text: &str| text.as_bytes().to_vec();
    let number = |n: u64| n.to_string().into_bytes();
    match admission {
        Admission::Accept { entry, submission } => {
            let routing = &submission.routing;
            let (delay, at) = match routing.start {
                Start::Now => (0, 0),
                Start::After(delay) => (delay.0, 0),
                Start::At(at) => (0, at.0),
            };
            [
                text("accept"),
                text(entry.as_str()),
                text(routing.id.as_ref().map_or("", JobId::as_str)),
                submission.payload.clone(),
                encode_spec(routing, submission.size, submission.encoding).into_bytes(),
                number(delay),
                number(at),
                number(routing.ttl.map_or(0, |ttl| ttl.0)),
                Vec::new(),
            ]
        }
        Admission::Reject {
            entry,
            id,
            reply,
            encoding,
            error,
        } => {
            // The entry's own routing cannot be trusted: it may be the reason for the rejection.
            let routing = Routing {
                reply: reply.clone(),
                ..Routing::default()
            };
            [
                text("reject"),
                text(entry.as_str()),
                text(id.as_ref().map_or("", JobId::as_str)),
                Vec::new(),
                encode_spec(&routing, Size::DEFAULT, *encoding).into_bytes(),
                number(0),
                number(0),
                number(0),
                format!("{} {}", error.code, error.message).into_bytes(),
            ]
        }
    }
}
