//! Leases, and the jobs that are bound under them.

use crate::resp::{RespValue, unknown_word};
use crate::spec::Spec;
use crate::{QueueError, Ticket};
use sandhog_core::class::Class;
use sandhog_core::id::{JobId, Tenant, Token, WorkerId};
use sandhog_core::retry_on::RetryOn;
use sandhog_core::trace::TraceContext;
use sandhog_core::units::{Millis, UnixMillis};
use sandhog_core::wire::Encoding;

/// The right to run one job. It ends when the job is settled or taken back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// Its class.
    pub class: Class,
    /// The fencing token: the ticket's stream id.
    pub token: Token,
    /// The worker that holds it.
    pub worker: WorkerId,
}

/// A job that is bound to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundJob {
    /// The right to run it.
    pub lease: Lease,
    /// The job's payload, as it was submitted.
    pub payload: Vec<u8>,
    /// Encoding of the payload, and therefore of the result.
    pub encoding: Encoding,
    /// Attempts begun, including this one and the lost ones.
    pub attempts: u32,
    /// Attempts lost to faults that are not the job's. `attempts - lost` is compared with
    /// `max_attempts`.
    pub lost: u32,
    /// Maximum number of attempts, lost ones not counted.
    pub max_attempts: u32,
    /// Longest wait before the first retry.
    pub backoff: Millis,
    /// Retention of the job's result.
    pub keep: Millis,
    /// The tenant that owns the job.
    pub tenant: Tenant,
    /// Outcomes of the program after which the job is retried.
    pub retry_on: RetryOn,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
    /// Time of submission, by the clock of Redis.
    pub enqueued_at: UnixMillis,
    /// Time from when the job became ready until it was bound, by the clock of Redis.
    pub waited: Millis,
    /// True if a cancel was requested before this attempt began.
    pub cancel_requested: bool,
}

/// Result of binding one ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// A job.
    Bound(Box<BoundJob>),
    /// No job: the job of the ticket was cancelled or has expired, or the ticket is no longer this
    /// worker's.
    Nothing,
}

/// Decodes the script's answer for one ticket. `None` means that the ticket must be sent again.
pub(crate) fn read_binding(
    answer: RespValue,
    ticket: &Ticket,
    worker: &WorkerId,
) -> Result<Option<Binding>, QueueError> {
    let mut parts = answer.parts()?;
    match parts.part()?.text()?.as_str() {
        "nothing" => return Ok(Some(Binding::Nothing)),
        "again" => return Ok(None),
        "bound" => {}
        other => return Err(unknown_word("bind", other)),
    }
    let id = parts.part()?.name()?;
    let payload = parts.part()?.bytes()?;
    let spec = Spec::read("bind", &parts.part()?.text()?)?;
    Ok(Some(Binding::Bound(Box::new(BoundJob {
        lease: Lease {
            id,
            class: ticket.class.clone(),
            token: ticket.token.clone(),
            worker: worker.clone(),
        },
        payload,
        encoding: spec.encoding,
        attempts: parts.part()?.number()?,
        lost: parts.part()?.number()?,
        max_attempts: spec.max_attempts,
        backoff: spec.backoff,
        keep: spec.keep,
        tenant: spec.tenant,
        retry_on: spec.retry_on,
        trace: spec.trace,
        enqueued_at: spec.submitted_at,
        waited: {
            let started_at: u64 = parts.part()?.number()?;
            let ready_at = parts.part()?.maybe_number()?;
            Millis(started_at.saturating_sub(ready_at.unwrap_or(spec.submitted_at.0)))
        },
        cancel_requested: parts.part()?.number::<u8>()? == 1,
    }))))
}
