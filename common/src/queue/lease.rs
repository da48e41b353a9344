//! Leases, and the jobs that are bound under them.

use super::reply::{Reply, unknown_word};
use super::spec::Spec;
use super::{QueueError, Ticket};
use crate::class::Class;
use crate::id::{JobId, Tenant, Token, WorkerId};
use crate::retry_on::RetryOn;
use crate::trace::TraceContext;
use crate::units::{Millis, UnixMillis};
use crate::wire::Encoding;

/// The right to run one job, until another worker is given it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The job.
    pub id: JobId,
    /// Its class.
    pub class: Class,
    /// The fencing token: the ticket's stream id.
    pub token: Token,
    /// Who holds it.
    pub worker: WorkerId,
}

/// A job, bound to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundJob {
    /// The right to run it.
    pub lease: Lease,
    /// What to run, as it was submitted.
    pub payload: Vec<u8>,
    /// How the payload is encoded, and so the result.
    pub encoding: Encoding,
    /// Attempts begun, this one and lost ones included.
    pub attempts: u32,
    /// Attempts lost to faults of ours. `attempts - lost` is what counts against `max_attempts`.
    pub lost: u32,
    /// Attempts it may be given, lost ones not counted.
    pub max_attempts: u32,
    /// The first retry's longest wait.
    pub backoff: Millis,
    /// How long its result is kept.
    pub keep: Millis,
    /// Whose it is.
    pub tenant: Tenant,
    /// Outcomes of its program that are tried again.
    pub retry_on: RetryOn,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
    /// When it was submitted, by Redis' clock.
    pub enqueued_at: UnixMillis,
    /// How long it had been ready, by Redis' clock.
    pub waited: Millis,
    /// Whether it was asked to stop before this attempt began.
    pub cancel_requested: bool,
}

/// What a ticket turned out to be worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binding {
    /// A job.
    Bound(Box<BoundJob>),
    /// Nothing: its job was cancelled or expired, or the ticket is no longer this worker's.
    Nothing,
}

/// Reads the script's answer for one ticket; none when the ticket is to be bound again.
pub(super) fn read_binding(
    answer: Reply,
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
