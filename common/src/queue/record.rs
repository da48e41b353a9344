//! The job record: the hash `job:<id>`, and every field in it.
//!
//! | field | what | from |
//! | --- | --- | --- |
//! | `payload` | the job as it was submitted; gone once it has a result, kept for a dead letter | admit |
//! | `enc` | `json` or `msgpack`: the payload's encoding, and so the result's | admit |
//! | `class`, `tenant`, `priority` | where it waits | admit |
//! | `max_attempts`, `backoff`, `keep` | its budget, its first backoff (ms), its retention (ms) | admit |
//! | `retry_on` | outcomes that are tried again, when given | admit |
//! | `reply`, `traceparent` | passed on, when given | admit |
//! | `unique`, `unique_ttl`, `unique_until` | its unique key, how long that is held at least, and until when | admit |
//! | `submitted_at`, `expires_at` | when it entered the intake stream; when it expires unless started | admit |
//! | `state` | `queued`, `delayed`, `running`, `finished` or `dead` | every script |
//! | `ready_at` | when it last became ready: submitted, promoted or put back | ready |
//! | `score` | its place in the ready set, so that it can go back there | ready |
//! | `run_at` | while `delayed`: when it becomes ready | admit, finish |
//! | `attempts`, `lost` | attempts begun, and how many of them were lost | bind, finish, tick |
//! | `worker`, `token`, `started_at` | of the running or last attempt | bind |
//! | `cancel` | somebody wants the running attempt stopped | cancel |
//! | `settled` | token and worker of the last settlement, so that repeating it is recognised | finish |
//! | `outcome`, `error`, `finished_at` | how it ended | the end |
//! | `letter` | the entry of the dead letter stream, while it is one | the end |
//!
//! All times are milliseconds since 1970 by Redis' clock.

use std::str::FromStr;

use super::reply::Reply;
use super::{Queue, QueueError};
use crate::id::{Class, JobId, Tenant, Token, WorkerId};
use crate::outcome::Outcome;
use crate::units::UnixMillis;

/// Where a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Ready; waits for a worker.
    Queued,
    /// Waits for its time: a delay, or the pause before a retry.
    Delayed,
    /// A worker holds it.
    Running,
    /// Over, with a result.
    Finished,
    /// Given up: over, with a result and a dead letter.
    Dead,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Queued,
        Self::Delayed,
        Self::Running,
        Self::Finished,
        Self::Dead,
    ];

    /// The name in the record and in events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Delayed => "delayed",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Dead => "dead",
        }
    }

    /// Whether nothing more happens to the job.
    #[must_use]
    pub const fn is_over(self) -> bool {
        match self {
            Self::Finished | Self::Dead => true,
            Self::Queued | Self::Delayed | Self::Running => false,
        }
    }
}

impl std::fmt::Display for JobState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What Redis knows of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// The job.
    pub id: JobId,
    /// Where it stands.
    pub state: JobState,
    /// Which workers may run it.
    pub class: Class,
    /// Whose it is.
    pub tenant: Tenant,
    /// 0 (least) to 9 (most urgent).
    pub priority: u8,
    /// Attempts begun, lost ones included; given-back ones are not.
    pub attempts: u32,
    /// Attempts lost with their worker or to another fault of ours.
    pub lost: u32,
    /// Attempts it may be given, lost ones not counted.
    pub max_attempts: u32,
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
    /// Why it was given up or last put back.
    pub error: Option<String>,
    /// The worker of the running or last attempt.
    pub worker: Option<WorkerId>,
    /// The fencing token of the running or last attempt.
    pub token: Option<Token>,
    /// Whether its running attempt has been asked to stop.
    pub cancel_requested: bool,
    /// When it was submitted. This and all below by Redis' clock.
    pub submitted_at: UnixMillis,
    /// When it may start, while it is delayed.
    pub run_at: Option<UnixMillis>,
    /// When it expires unless it has started.
    pub expires_at: Option<UnixMillis>,
    /// When its last attempt started.
    pub started_at: Option<UnixMillis>,
    /// When it ended.
    pub finished_at: Option<UnixMillis>,
}

/// The fields read for a [`JobRecord`], in the order they are read back.
const FIELDS: [&str; 17] = [
    "state",
    "class",
    "tenant",
    "priority",
    "attempts",
    "lost",
    "max_attempts",
    "outcome",
    "error",
    "worker",
    "token",
    "cancel",
    "submitted_at",
    "run_at",
    "expires_at",
    "started_at",
    "finished_at",
];

impl Queue {
    /// What Redis knows of a job; none before it is admitted and after its retention has passed.
    ///
    /// # Errors
    /// When Redis cannot be reached, or the record does not read.
    pub async fn job(&self, id: &JobId) -> Result<Option<JobRecord>, QueueError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.job(id)).arg(&FIELDS);
        let answer = self.link.repeatable("HMGET", &command).await?;
        let mut fields = Reply::new("HMGET", answer).parts()?;
        let Some(state) = fields.part()?.maybe_text()? else {
            return Ok(None);
        };
        Ok(Some(JobRecord {
            id: id.clone(),
            state: known(&state, JobState::ALL, JobState::as_str)?,
            class: fields.part()?.name()?,
            tenant: fields.part()?.name()?,
            priority: fields.part()?.number()?,
            attempts: fields.part()?.number()?,
            lost: fields.part()?.number()?,
            max_attempts: fields.part()?.number()?,
            outcome: fields
                .part()?
                .maybe_text()?
                .map(|outcome| known(&outcome, Outcome::ALL, Outcome::as_str))
                .transpose()?,
            error: fields.part()?.maybe_text()?,
            worker: maybe_name(fields.part()?)?,
            token: fields.part()?.maybe_text()?.map(Token::from),
            cancel_requested: fields.part()?.maybe_text()?.is_some(),
            submitted_at: UnixMillis(fields.part()?.number()?),
            run_at: fields.part()?.maybe_number()?.map(UnixMillis),
            expires_at: fields.part()?.maybe_number()?.map(UnixMillis),
            started_at: fields.part()?.maybe_number()?.map(UnixMillis),
            finished_at: fields.part()?.maybe_number()?.map(UnixMillis),
        }))
    }
}

/// The one of `all` whose name is `word`.
pub(super) fn known<T: Copy, const N: usize>(
    word: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, QueueError> {
    all.into_iter()
        .find(|one| name(*one) == word)
        .ok_or_else(|| super::reply::unknown_word("HMGET", word))
}

fn maybe_name<T: FromStr<Err = crate::id::IdError>>(reply: Reply) -> Result<Option<T>, QueueError> {
    if reply.is_nil() {
        return Ok(None);
    }
    reply.name().map(Some)
}
