//! Binding: a ticket is exchanged for the best ready job, and the worker gets a lease on it.

use std::collections::BTreeMap;

use super::reply::{Reply, unknown_word};
use super::script::{BIND, MOST};
use super::spec::Spec;
use super::{FinishReply, Queue, QueueError, Settlement, Ticket};
use crate::id::{Class, JobId, Tenant, Token, WorkerId};
use crate::retry_on::RetryOn;
use crate::trace::TraceContext;
use crate::units::{Millis, UnixMillis};
use crate::wire::Encoding;

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

impl Queue {
    /// Binds one ticket; see [`Queue::bind_all`].
    ///
    /// # Errors
    /// As [`Queue::bind_all`].
    pub async fn bind(&self, ticket: &Ticket, worker: &WorkerId) -> Result<Binding, QueueError> {
        let mut bindings = self.bind_all(std::slice::from_ref(ticket), worker).await?;
        Ok(bindings.pop().unwrap_or(Binding::Nothing))
    }

    /// Binds each ticket to the best ready job of its class. Returns one answer for each ticket, in
    /// order. Jobs whose time to live has passed are expired on the way. Repeating the call returns
    /// the same jobs.
    ///
    /// # Cancel safety
    /// Not safe: maintenance takes back, after a lease, the jobs that a dropped call bound.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached; maintenance takes back, after a lease, the jobs that
    /// were bound, if any.
    pub async fn bind_all(
        &self,
        tickets: &[Ticket],
        worker: &WorkerId,
    ) -> Result<Vec<Binding>, QueueError> {
        let mut bindings = vec![Binding::Nothing; tickets.len()];
        let mut by_class: BTreeMap<&Class, Vec<usize>> = BTreeMap::new();
        for (at, ticket) in tickets.iter().enumerate() {
            by_class.entry(&ticket.class).or_default().push(at);
        }
        for (class, places) in by_class {
            for mut places in places.chunks(MOST).map(<[usize]>::to_vec) {
                while !places.is_empty() {
                    let mut call = BIND
                        .call(self.keys.prefix())
                        .arg(worker.as_str())
                        .arg(class.as_str());
                    for ticket in places.iter().filter_map(|&at| tickets.get(at)) {
                        call.push(ticket.token.as_str());
                    }
                    let mut answers = Reply::new("bind", call.run(&self.link).await?).parts()?;
                    let mut again = Vec::new();
                    for at in places {
                        let (Some(ticket), Some(binding)) = (tickets.get(at), bindings.get_mut(at))
                        else {
                            continue;
                        };
                        match read(answers.part()?, ticket, worker)? {
                            Some(found) => *binding = found,
                            None => again.push(at),
                        }
                    }
                    places = again;
                }
            }
        }
        Ok(bindings)
    }

    /// Returns a job to the queue that was not run or was interrupted. It goes to its former place
    /// in its ready set and the attempt is not counted. If a cancel was requested, the job is
    /// cancelled instead.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached; maintenance takes the job back after a lease.
    pub async fn give_back(&self, lease: &Lease) -> Result<FinishReply, QueueError> {
        self.finish(lease, Settlement::GiveBack).await
    }
}

/// Decodes the script's answer for one ticket. `None` means that the ticket must be sent again.
pub(super) fn read(
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
