//! Settlement: ends each lease exactly once.

use std::borrow::{Borrow, Cow};

use crate::lease::read_binding;
use crate::resp::{RespValue, unknown_word};
use crate::script::{FINISH, SCRIPT_BATCH};
use crate::{Binding, BoundJob, Lease, LogChunk, Queue, QueueError, Ticket};
use sandhog_core::class::Class;
use sandhog_core::id::Token;
use sandhog_core::outcome::Outcome;
use sandhog_core::size::Resources;
use sandhog_core::units::Millis;

/// Bytes of results that one call of the script carries, approximately.
const BATCH_BYTES: usize = 4 << 20;

/// The way in which an attempt is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The job has ended: publish this result.
    Publish {
        /// The encoded result.
        result: Vec<u8>,
        /// Outcome of the job.
        outcome: Outcome,
    },
    /// Retry the job later. If a cancel was requested, the job is cancelled instead.
    Retry {
        /// Delay before the job is ready again; zero means at once.
        after: Millis,
        /// Reason, for the job's record.
        why: String,
        /// Budget from which the attempt is taken.
        counts_as: RetryBudget,
    },
    /// Give the job up: publish this result and write a dead letter.
    DeadLetter {
        /// The encoded result.
        result: Vec<u8>,
        /// Outcome of the job.
        outcome: Outcome,
        /// Reason as a stable word, such as `max_attempts`.
        reason: String,
        /// Reason as a message for people.
        error: String,
    },
    /// Return the job to its former place among the ready jobs; the attempt is not counted. If a
    /// cancel was requested, the job is cancelled instead.
    GiveBack,
}

/// Retry budget of a job from which an attempt is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryBudget {
    /// The job's own budget: `max_attempts`.
    Attempt,
    /// The budget for lost attempts: the attempt ended by a fault that is not the job's.
    Lost,
    /// None: the attempt is not counted, as if it had not happened.
    Uncounted,
}

impl RetryBudget {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Lost => "lost",
            Self::Uncounted => "none",
        }
    }
}

/// Request to settle one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettlementRequest {
    /// The lease.
    pub lease: Lease,
    /// The settlement.
    pub settlement: Settlement,
    /// Output of the job that its log does not have yet.
    pub log: Vec<LogChunk>,
}

/// The borrowed parts of a [`SettlementRequest`].
type SettlementParts<'a> = (&'a Lease, &'a Settlement, &'a [LogChunk]);

/// Request to claim jobs in the same call as a settlement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClaimRequest {
    /// Maximum number of jobs.
    pub most: usize,
    /// Memory and CPU that the jobs may take together.
    pub free: Resources,
    /// The classes to claim from, in this order, each with the memory and CPU of one of its jobs.
    pub classes: Vec<(Class, Resources)>,
    /// Concurrent calls of one worker use different lanes. For each lane, Redis remembers the jobs
    /// that the last call claimed, so that the call can be repeated if its answer is lost.
    pub lane: usize,
}

impl ClaimRequest {
    /// Requests at most `most` jobs of these classes, in this order, without a limit on memory or
    /// CPU.
    #[must_use]
    pub fn unbounded(most: usize, classes: &[Class]) -> Self {
        Self {
            most,
            free: Resources::UNBOUNDED,
            classes: (classes.iter())
                .map(|class| (class.clone(), class.size().resources()))
                .collect(),
            lane: 0,
        }
    }
}

/// Result of one settlement.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReply {
    /// The lease is settled. Repeating the settlement returns this again.
    Settled,
    /// The lease was no longer held, and nothing was changed.
    Stale,
}

impl Queue {
    /// Settles one lease; see [`Queue::finish_all`].
    ///
    /// # Cancel safety
    /// As [`Queue::finish_all`].
    ///
    /// # Errors
    /// As [`Queue::finish_all`].
    pub async fn finish(
        &self,
        lease: &Lease,
        settlement: Settlement,
    ) -> Result<FinishReply, QueueError> {
        let replies = self.finish_all(&[(lease.clone(), settlement)]).await?;
        replies.first().copied().ok_or_else(|| QueueError::Reply {
            command: "finish",
            detail: "no answer for a lease".to_owned(),
        })
    }

    /// Settles each lease that is still held. Returns one answer for each, in order. The script
    /// acknowledges tickets first, so it works on a full Redis.
    ///
    /// A settled lease stays settled: a second settlement, even a different one, returns
    /// [`FinishReply::Settled`] and changes nothing, until the job has been bound and settled
    /// again.
    ///
    /// # Cancel safety
    /// Not safe: a dropped call may or may not have settled the leases. Repeat it; repeating is
    /// harmless.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached; some of the leases may have been settled. Repeat the
    /// call while the leases may still be held.
    pub async fn finish_all(
        &self,
        settlements: &[(Lease, Settlement)],
    ) -> Result<Vec<FinishReply>, QueueError> {
        let parts: Vec<SettlementParts<'_>> = (settlements.iter())
            .map(|(lease, settlement)| (lease, settlement, [].as_slice()))
            .collect();
        self.finish_parts(&parts).await
    }

    async fn finish_parts(
        &self,
        parts: &[SettlementParts<'_>],
    ) -> Result<Vec<FinishReply>, QueueError> {
        let mut replies = Vec::with_capacity(parts.len());
        let mut rest = parts;
        while !rest.is_empty() {
            let (settled, later) = rest.split_at(batch_len(rest));
            rest = later;
            let (mut settled_replies, _claimed_nothing) =
                self.settle_once(settled, &ClaimRequest::default()).await?;
            replies.append(&mut settled_replies);
        }
        Ok(replies)
    }

    /// Settles leases of one worker, and in the same step claims jobs for the slots that become
    /// free. Returns one answer for each settlement, in order, and the claimed jobs, if any.
    ///
    /// Settles as [`Queue::finish_all`] does. The output given for a job's log is appended before
    /// the log ends. Nothing is written for a stale lease. If the settlements do not fit in one
    /// call, they are settled without claiming.
    ///
    /// # Cancel safety
    /// Not safe: maintenance takes back, after a lease, the jobs that a dropped call claimed.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached; some of the leases may have been settled, and
    /// maintenance takes back claimed jobs after a lease.
    pub async fn finish_and_claim<E: Borrow<SettlementRequest>>(
        &self,
        requests: &[E],
        claim: &ClaimRequest,
    ) -> Result<(Vec<FinishReply>, Vec<BoundJob>), QueueError> {
        let parts: Vec<SettlementParts<'_>> = (requests.iter())
            .map(Borrow::borrow)
            .map(|request: &SettlementRequest| {
                (&request.lease, &request.settlement, request.log.as_slice())
            })
            .collect();
        if batch_len(&parts) == parts.len() {
            return self.settle_once(&parts, claim).await;
        }
        Ok((self.finish_parts(&parts).await?, Vec::new()))
    }

    /// Calls the script once.
    async fn settle_once(
        &self,
        parts: &[SettlementParts<'_>],
        claim: &ClaimRequest,
    ) -> Result<(Vec<FinishReply>, Vec<BoundJob>), QueueError> {
        let Some((Lease { worker, .. }, ..)) = parts.first() else {
            return Ok((Vec::new(), Vec::new()));
        };
        let mut call = FINISH
            .call(self.keys.prefix())
            .arg(worker.as_str())
            .arg(rand::random::<u64>())
            .arg(claim.lane)
            .arg(claim.most.min(SCRIPT_BATCH))
            .arg(claim.free.memory_mib)
            .arg(claim.free.cpu_millis)
            .arg(claim.classes.len());
        for (class, each) in &claim.classes {
            call.push(class.as_str());
            call.push(each.memory_mib);
            call.push(each.cpu_millis);
        }
        for (lease, settlement, log) in parts {
            call.push(lease.class.as_str());
            call.push(lease.token.as_str());
            call.push(lease.id.as_str());
            for argument in settlement.arguments() {
                call.push(argument);
            }
            call.push(log.len());
            for chunk in *log {
                call.push(chunk.stream.as_str());
                call.push(&chunk.data);
            }
        }
        let mut answers = RespValue::new("finish", call.run(&self.connection).await?).parts()?;
        let mut replies = Vec::with_capacity(parts.len());
        for _ in parts {
            replies.push(match answers.part()?.text()?.as_str() {
                "settled" => FinishReply::Settled,
                "stale" => FinishReply::Stale,
                other => return Err(unknown_word("finish", other)),
            });
        }
        let mut claimed = Vec::new();
        while let Some(class) = answers.next() {
            let ticket = Ticket {
                class: class.text()?.parse().map_err(|source| QueueError::Name {
                    command: "finish",
                    source,
                })?,
                token: Token::from(answers.part()?.text()?),
            };
            if let Some(Binding::Bound(job)) = read_binding(answers.part()?, &ticket, worker)? {
                claimed.push(*job);
            }
        }
        Ok((replies, claimed))
    }
}

/// Returns how many of these settlements one call takes: only those of one worker, at most as many
/// as the script may handle, and few enough bytes that the call blocks Redis no longer than the
/// largest single result does.
fn batch_len(parts: &[SettlementParts<'_>]) -> usize {
    let mut bytes = 0;
    parts
        .iter()
        .take(SCRIPT_BATCH)
        .enumerate()
        .take_while(|(n, (lease, settlement, log))| {
            bytes += settlement.size() + log.iter().map(|chunk| chunk.data.len()).sum::<usize>();
            let one_worker = parts
                .first()
                .is_some_and(|(first, ..)| first.worker == lease.worker);
            *n == 0 || (one_worker && bytes <= BATCH_BYTES)
        })
        .count()
}

impl Settlement {
    /// Returns the size of the result that it carries, in bytes.
    fn size(&self) -> usize {
        match self {
            Self::Publish { result, .. } | Self::DeadLetter { result, .. } => result.len(),
            Self::Retry { .. } | Self::GiveBack => 0,
        }
    }

    /// Arguments that `finish.lua` takes for it, in the script's order.
    fn arguments(&self) -> [Cow<'_, [u8]>; 5] {
        const NONE: Cow<'_, [u8]> = Cow::Borrowed(b"");
        let word = |text: &'static str| Cow::Borrowed(text.as_bytes());
        match self {
            Self::Publish { result, outcome } => [
                word("publish"),
                result.into(),
                word(outcome.as_str()),
                NONE,
                NONE,
            ],
            Self::Retry {
                after,
                why,
                counts_as,
            } => [
                word("retry"),
                after.0.to_string().into_bytes().into(),
                why.as_bytes().into(),
                word(counts_as.as_str()),
                NONE,
            ],
            Self::DeadLetter {
                result,
                outcome,
                reason,
                error,
            } => [
                word("dead"),
                result.into(),
                word(outcome.as_str()),
                reason.as_bytes().into(),
                error.as_bytes().into(),
            ],
            Self::GiveBack => [word("return"), NONE, NONE, NONE, NONE],
        }
    }
}
