//! Settling: what a lease ends with, exactly once.

use std::borrow::{Borrow, Cow};

use super::lease::read_binding;
use super::reply::{Reply, unknown_word};
use super::script::{FINISH, MOST};
use super::{Binding, BoundJob, Lease, Queue, QueueError, Said, Ticket};
use crate::class::Class;
use crate::id::Token;
use crate::outcome::Outcome;
use crate::size::Amount;
use crate::units::Millis;

/// How many bytes of results one call of the script carries, about.
const BYTES_TOGETHER: usize = 4 << 20;

/// How an attempt is settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The job is over: publish this.
    Publish {
        /// The encoded result.
        result: Vec<u8>,
        /// How it ended.
        outcome: Outcome,
    },
    /// Try again later. A job that somebody wants cancelled is cancelled instead.
    Retry {
        /// After this long; zero means at once.
        after: Millis,
        /// Why, for the record.
        why: String,
        /// What the attempt counts as.
        counts_as: RetryBudget,
    },
    /// Give up: publish this, and write a dead letter.
    DeadLetter {
        /// The encoded result.
        result: Vec<u8>,
        /// How it ended.
        outcome: Outcome,
        /// A stable word, such as `max_attempts`.
        reason: String,
        /// What went wrong, for a person.
        error: String,
    },
    /// Back to its place among the ready jobs, the attempt not counted. A job that somebody wants cancelled is
    /// cancelled instead.
    GiveBack,
}

/// Which of a job's two budgets an attempt that is tried again is taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryBudget {
    /// Its own: `max_attempts`.
    Attempt,
    /// Ours: the attempt was lost to a fault that is not the job's.
    Lost,
}

impl RetryBudget {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Lost => "lost",
        }
    }
}

/// What one lease ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// Which.
    pub lease: Lease,
    /// How.
    pub settlement: Settlement,
    /// What its job printed that its log does not have yet.
    pub log: Vec<Said>,
}

/// An [`Ending`] in pieces.
type Part<'a> = (&'a Lease, &'a Settlement, &'a [Said]);

/// What a settlement claims beside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claiming {
    /// Jobs at most.
    pub most: usize,
    /// What they may take together.
    pub free: Amount,
    /// The classes to claim from, in this order, with what one of their jobs takes.
    pub classes: Vec<(Class, Amount)>,
    /// Calls of one worker that are under way at once are in different lanes: of each, Redis remembers what the last
    /// call claimed, in case that its answer is lost.
    pub lane: usize,
}

impl Claiming {
    /// At most so many jobs of these classes, in this order, whatever they take.
    #[must_use]
    pub fn unbounded(most: usize, classes: &[Class]) -> Self {
        Self {
            most,
            free: Amount::UNBOUNDED,
            classes: (classes.iter())
                .map(|class| (class.clone(), class.size().amount()))
                .collect(),
            lane: 0,
        }
    }
}

/// Whether a settlement counted.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReply {
    /// It did. Repeating it answers this again.
    Settled,
    /// The lease was no longer held: nothing was changed.
    Stale,
}

impl Queue {
    /// Settles a lease: [`Queue::finish_all`] for one.
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

    /// Settles leases, each if it is still held, and answers for each, in order. Acknowledges first, so it works on a
    /// full Redis.
    ///
    /// A lease that was settled stays settled: a second settlement, even a different one, answers
    /// [`FinishReply::Settled`] and changes nothing, until the job has been bound and settled anew.
    ///
    /// # Cancel safety
    /// Not safe: a dropped call may or may not have settled. Repeat it; repeating is harmless.
    ///
    /// # Errors
    /// When Redis cannot be reached; some may have been settled. Repeat it while the leases may still be held.
    pub async fn finish_all(
        &self,
        settlements: &[(Lease, Settlement)],
    ) -> Result<Vec<FinishReply>, QueueError> {
        let parts: Vec<Part<'_>> = (settlements.iter())
            .map(|(lease, settlement)| (lease, settlement, [].as_slice()))
            .collect();
        self.finish_parts(&parts).await
    }

    async fn finish_parts(&self, parts: &[Part<'_>]) -> Result<Vec<FinishReply>, QueueError> {
        let mut replies = Vec::with_capacity(parts.len());
        let mut rest = parts;
        while !rest.is_empty() {
            let (settled, later) = rest.split_at(together(rest));
            rest = later;
            let (mut told, _claimed_nothing) = self.turn(settled, &Claiming::default()).await?;
            replies.append(&mut told);
        }
        Ok(replies)
    }

    /// Settles leases of one worker, and claims jobs in the same step for slots that are freed by it. Answers for each
    /// settlement, in order, and with the claimed jobs, which may be none.
    ///
    /// It settles as [`Queue::finish_all`] does, and what is handed over for a job's log stands there before the log
    /// ends. Nothing is written for a stale lease. More than fit one call are settled without claiming.
    ///
    /// # Cancel safety
    /// Not safe: what a dropped call claimed is taken back by upkeep after a lease.
    ///
    /// # Errors
    /// When Redis cannot be reached; some may have been settled, and what was claimed is taken back after a lease.
    pub async fn finish_and_claim<E: Borrow<Ending>>(
        &self,
        endings: &[E],
        claiming: &Claiming,
    ) -> Result<(Vec<FinishReply>, Vec<BoundJob>), QueueError> {
        let parts: Vec<Part<'_>> = (endings.iter())
            .map(Borrow::borrow)
            .map(|ending: &Ending| (&ending.lease, &ending.settlement, ending.log.as_slice()))
            .collect();
        if together(&parts) == parts.len() {
            return self.turn(&parts, claiming).await;
        }
        Ok((self.finish_parts(&parts).await?, Vec::new()))
    }

    /// One call of the script.
    async fn turn(
        &self,
        parts: &[Part<'_>],
        claiming: &Claiming,
    ) -> Result<(Vec<FinishReply>, Vec<BoundJob>), QueueError> {
        let Some((Lease { worker, .. }, ..)) = parts.first() else {
            return Ok((Vec::new(), Vec::new()));
        };
        let mut call = FINISH
            .call(self.keys.prefix())
            .arg(worker.as_str())
            .arg(rand::random::<u64>())
            .arg(claiming.lane)
            .arg(claiming.most.min(MOST))
            .arg(claiming.free.memory_mib)
            .arg(claiming.free.cpu_millis)
            .arg(claiming.classes.len());
        for (class, each) in &claiming.classes {
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
            for said in *log {
                call.push(said.stream.as_str());
                call.push(&said.data);
            }
        }
        let mut answers = Reply::new("finish", call.run(&self.link).await?).parts()?;
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

/// How many of these one call takes: of one worker, no more than the script may handle, and no more bytes than hold
/// Redis up as long as the largest result must.
fn together(parts: &[Part<'_>]) -> usize {
    let mut bytes = 0;
    parts
        .iter()
        .take(MOST)
        .enumerate()
        .take_while(|(n, (lease, settlement, log))| {
            bytes += settlement.size() + log.iter().map(|said| said.data.len()).sum::<usize>();
            let one_worker = parts
                .first()
                .is_some_and(|(first, ..)| first.worker == lease.worker);
            *n == 0 || (one_worker && bytes <= BYTES_TOGETHER)
        })
        .count()
}

impl Settlement {
    /// How many bytes of a result it carries.
    fn size(&self) -> usize {
        match self {
            Self::Publish { result, .. } | Self::DeadLetter { result, .. } => result.len(),
            Self::Retry { .. } | Self::GiveBack => 0,
        }
    }

    /// The values `finish.lua` takes for it, in its order.
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
