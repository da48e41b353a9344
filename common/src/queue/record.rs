//! The job record: the hash `job:<id>`, and every field in it.
//!
//! | field | what | from |
//! | --- | --- | --- |
//! | `payload` | the job as it was submitted; gone once it has a result, kept for a dead letter | admit |
//! | `spec` | what never changes, in one field: see `spec.rs` | admit |
//! | `unique_until` | until when its unique key is held at least, when it has one with a time | admit |
//! | `expires_at` | when it expires unless started, when it has a time to live | admit |
//! | `state` | `queued`, `delayed`, `running`, `finished` or `dead` | every script |
//! | `ready_at` | when it last became ready: promoted or put back; absent while that is when it was submitted | ready |
//! | `run_at` | while `delayed`: when it becomes ready | admit, finish |
//! | `attempts`, `lost` | attempts begun, and how many of them were lost; absent while none | bind, finish, tick |
//! | `run` | of the running or last attempt: token (`-` once it was taken back), worker, when it started, and the job's score in the ready set, so that it can go back there | bind, tick |
//! | `settled` | token and worker of the last settlement that let the job live on, so that repeating it is recognised | finish |
//! | `log` | it has a log | log |
//! | `cancel` | somebody wants the running attempt stopped | cancel |
//! | `ended` | outcome, and when | the end |
//! | `error` | why it was given up or last put back | finish, the end |
//! | `letter` | the entry of the dead letter stream, while it is one | the end |
//!
//! All times are milliseconds since 1970 by Redis' clock.

use super::reply::Reply;
use super::spec::Spec;
use super::{Queue, QueueError};
use crate::class::Class;
use crate::id::{JobId, Tenant, Token, WorkerId};
use crate::outcome::Outcome;
use crate::size::Size;
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
    /// What it takes of its worker.
    pub size: Size,
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
const FIELDS: [&str; 10] = [
    "state",
    "spec",
    "attempts",
    "lost",
    "run",
    "ended",
    "error",
    "cancel",
    "run_at",
    "expires_at",
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
        let spec = Spec::read("HMGET", &fields.part()?.text()?)?;
        let attempts = fields.part()?.maybe_number()?.unwrap_or(0);
        let lost = fields.part()?.maybe_number()?.unwrap_or(0);
        let run = fields.part()?.maybe_text()?.unwrap_or_default();
        let mut run = run.split(' ');
        let token = run.next().filter(|token| !matches!(*token, "" | "-"));
        let worker = run.next().map(str::parse).transpose();
        let started_at = run.next().and_then(|ms| ms.parse().ok());
        let ended = fields.part()?.maybe_text()?.unwrap_or_default();
        let ended = ended.split_once(' ');
        Ok(Some(JobRecord {
            id: id.clone(),
            state: known(&state, JobState::ALL, JobState::as_str)?,
            class: spec.class.unsized_class(),
            size: spec.class.size(),
            tenant: spec.tenant,
            priority: spec.priority,
            attempts,
            lost,
            max_attempts: spec.max_attempts,
            outcome: ended
                .map(|(outcome, _)| known(outcome, Outcome::ALL, Outcome::as_str))
                .transpose()?,
            error: fields.part()?.maybe_text()?,
            worker: worker.map_err(|source| QueueError::Name {
                command: "HMGET",
                source,
            })?,
            token: token.map(|token| Token::from(token.to_owned())),
            cancel_requested: fields.part()?.maybe_text()?.is_some(),
            submitted_at: spec.submitted_at,
            run_at: fields.part()?.maybe_number()?.map(UnixMillis),
            expires_at: fields.part()?.maybe_number()?.map(UnixMillis),
            started_at: started_at.map(UnixMillis),
            finished_at: ended.and_then(|(_, at)| at.parse().ok()).map(UnixMillis),
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
