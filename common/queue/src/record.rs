//! The job record: the hash `job:<id>` and its fields, each with the scripts or the Lua functions
//! that write it (`make_ready` of `ready_set.lua`, `end_job` and `write_dead_letter` of
//! `terminal.lua`).
//!
//! - `payload` (admit): the job as it was submitted. Deleted once the job has a result, but kept
//!   for a dead letter.
//! - `spec` (admit): everything that never changes, in one field; see `spec.rs`.
//! - `unique_until` (admit): time until which its unique key is held at least, if it has one with a
//!   time to live.
//! - `expires_at` (admit): time at which it expires unless it has started, if it has a time to
//!   live.
//! - `state` (every script): `queued`, `delayed`, `running`, `finished` or `dead`.
//! - `ready_at` (`make_ready`): time at which it was last promoted or put back; absent while it has
//!   been ready since its submission.
//! - `run_at` (admit, finish): time at which it becomes ready, while it is `delayed`.
//! - `attempts`, `lost` (bind, finish, tick): attempts begun, and the lost ones among them; absent
//!   while there are none.
//! - `run` (bind, tick): token (`-` once it was taken back), worker and start time of the running
//!   or last attempt, and the job's score in the ready set, so that it can go back to its place.
//! - `settled` (finish): token and worker of the last settlement after which the job lives on, so
//!   that a repeated settlement is recognised.
//! - `log` (log, finish): present if the job has a log.
//! - `cancel` (cancel): present if a cancel of the running attempt was requested.
//! - `ended` (`end_job`): outcome, and time of the end.
//! - `error` (finish, `end_job`): reason why it was given up or last put back.
//! - `letter` (`write_dead_letter`): its entry in the dead letter stream, while it has one.
//!
//! All times are in milliseconds since 1970, by the clock of Redis.

use crate::resp::RespValue;
use crate::spec::Spec;
use crate::{Queue, QueueError};
use sandhog_core::class::Class;
use sandhog_core::id::{JobId, Tenant, Token, WorkerId};
use sandhog_core::outcome::Outcome;
use sandhog_core::size::Size;
use sandhog_core::units::UnixMillis;

/// State of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobState {
    /// The job is ready and waits for a worker.
    Queued,
    /// The job waits for its start time: it was submitted with a delay, or is to be retried.
    Delayed,
    /// A worker holds the job.
    Running,
    /// The job has ended, with a result.
    Finished,
    /// The job was given up: it has ended, with a result and a dead letter.
    Dead,
}

impl JobState {
    /// All states.
    pub const ALL: [Self; 5] = [
        Self::Queued,
        Self::Delayed,
        Self::Running,
        Self::Finished,
        Self::Dead,
    ];

    /// Returns the name in the record and in events.
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

    /// Returns whether the job has ended.
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

/// The record of one job, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecord {
    /// The job.
    pub id: JobId,
    /// State of the job.
    pub state: JobState,
    /// The job's class, which selects the workers that may run it.
    pub class: Class,
    /// Memory and CPU that the job takes from its worker's capacity.
    pub size: Size,
    /// The tenant that owns the job.
    pub tenant: Tenant,
    /// Priority, from 0 (least urgent) to 9 (most urgent).
    pub priority: u8,
    /// Attempts begun, including lost ones but not the ones that were given back.
    pub attempts: u32,
    /// Attempts lost with their worker or to another fault that is not the job's.
    pub lost: u32,
    /// Maximum number of attempts, lost ones not counted.
    pub max_attempts: u32,
    /// Outcome of the job, once it has ended.
    pub outcome: Option<Outcome>,
    /// Reason why the job was given up or last put back.
    pub error: Option<String>,
    /// The worker of the running or last attempt.
    pub worker: Option<WorkerId>,
    /// The fencing token of the running or last attempt.
    pub token: Option<Token>,
    /// True if a cancel of the running attempt was requested.
    pub cancel_requested: bool,
    /// Time of submission. This time and the following ones are by the clock of Redis.
    pub submitted_at: UnixMillis,
    /// Time at which the job becomes ready, while it is delayed.
    pub run_at: Option<UnixMillis>,
    /// Time at which the job expires unless it has started.
    pub expires_at: Option<UnixMillis>,
    /// Start time of the last attempt.
    pub started_at: Option<UnixMillis>,
    /// Time of the job's end.
    pub finished_at: Option<UnixMillis>,
}

/// Fields that are read for a [`JobRecord`], in the order in which they are decoded.
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
    /// Returns a job's record. `None` before the job is admitted and after its retention has
    /// passed.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached, or when the record cannot be decoded.
    pub async fn job(&self, id: &JobId) -> Result<Option<JobRecord>, QueueError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.job(id)).arg(&FIELDS);
        let answer = self.connection.run_repeatable("HMGET", &command).await?;
        let mut fields = RespValue::new("HMGET", answer).parts()?;
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

/// Returns the value in `all` whose name is `word`.
pub(crate) fn known<T: Copy, const N: usize>(
    word: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, QueueError> {
    all.into_iter()
        .find(|one| name(*one) == word)
        .ok_or_else(|| crate::resp::unknown_word("HMGET", word))
}
