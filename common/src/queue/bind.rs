//! Binding: a ticket meets the best ready job, and that worker holds a lease on it.

use super::finish::settle;
use super::reply::{Reply, unknown_word};
use super::script::BIND;
use super::{FinishReply, Queue, QueueError, Ticket};
use crate::id::{Class, JobId, Tenant, Token, WorkerId};
use crate::retry_on::RetryOn;
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
    /// W3C trace context, as it came.
    pub traceparent: Option<String>,
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

impl Queue {
    /// Binds a ticket to the best ready job of its class. Jobs whose time to live has passed are expired on the way.
    /// Repeating the call answers the same job.
    ///
    /// # Errors
    /// When Redis cannot be reached; what was bound, if anything, is taken back by upkeep after a lease.
    pub async fn bind(&self, ticket: &Ticket, worker: &WorkerId) -> Result<Binding, QueueError> {
        loop {
            let answer = BIND
                .call(self.keys.prefix())
                .arg(worker.as_str())
                .arg(ticket.class.as_str())
                .arg(ticket.token.as_str())
                .run(&self.link)
                .await?;
            let mut parts = Reply::new("bind", answer).parts()?;
            match parts.part()?.text()?.as_str() {
                "nothing" => return Ok(Binding::Nothing),
                "again" => {}
                "bound" => {
                    return Ok(Binding::Bound(Box::new(BoundJob {
                        lease: Lease {
                            id: parts.part()?.name()?,
                            class: ticket.class.clone(),
                            token: ticket.token.clone(),
                            worker: worker.clone(),
                        },
                        payload: parts.part()?.bytes()?,
                        encoding: encoding(&parts.part()?.text()?)?,
                        attempts: parts.part()?.number()?,
                        lost: parts.part()?.number()?,
                        max_attempts: parts.part()?.number()?,
                        backoff: Millis(parts.part()?.number()?),
                        keep: Millis(parts.part()?.number()?),
                        tenant: parts.part()?.name()?,
                        retry_on: retry_on(parts.part()?.maybe_text()?)?,
                        traceparent: parts.part()?.maybe_text()?,
                        enqueued_at: UnixMillis(parts.part()?.number()?),
                        waited: Millis(parts.part()?.number()?),
                        cancel_requested: parts.part()?.number::<u8>()? == 1,
                    })));
                }
                other => return Err(unknown_word("bind", other)),
            }
        }
    }

    /// Gives a job back unrun or interrupted: to the front of its ready set, its attempt not counted. A job that
    /// somebody wants cancelled is cancelled instead.
    ///
    /// # Errors
    /// When Redis cannot be reached; upkeep takes the job back after a lease.
    pub async fn give_back(&self, lease: &Lease) -> Result<FinishReply, QueueError> {
        settle(self, lease, &[b"return"]).await
    }
}

fn retry_on(words: Option<String>) -> Result<RetryOn, QueueError> {
    let words = words.unwrap_or_default();
    words.parse().map_err(|_bad| unknown_word("bind", &words))
}

fn encoding(word: &str) -> Result<Encoding, QueueError> {
    [Encoding::Json, Encoding::MessagePack]
        .into_iter()
        .find(|encoding| encoding.as_str() == word)
        .ok_or_else(|| unknown_word("bind", word))
}
