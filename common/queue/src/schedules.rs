//! Cron schedules in Redis: writes, lists and fires them. The first worker that finds a schedule
//! due fires it.
//!
//! This module does not evaluate cron expressions: its callers compute when a schedule is due next.

use std::collections::HashMap;

use uuid::Uuid;

use crate::resp::{RespValue, unknown_word};
use crate::script::{
    SCHEDULE_CHANGE, SCHEDULE_DUE, SCHEDULE_FIRE, SCHEDULE_PUT, SCRIPT_BATCH, Script, ScriptCall,
};
use crate::{Queue, QueueError};
use sandhog_core::id::{JobId, ScheduleName};
use sandhog_core::schedule::{self, Schedule};
use sandhog_core::units::{Millis, UnixMillis};

/// Result of a request to write a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutReply {
    /// The schedule is new.
    Added,
    /// The schedule replaced one of the same name.
    Replaced,
    /// A schedule of that name exists, and replacing it was not allowed.
    Exists,
    /// The namespace has the maximum number of schedules: 10,000.
    TooMany,
}

/// Result of a request to change a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeReply {
    /// The change is done, or the schedule was in that state already.
    Done,
    /// The schedule has been changed since it was read.
    Stale,
    /// There is no such schedule.
    Unknown,
}

/// Result of a firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FireReply {
    /// The schedule's job is submitted.
    Fired,
    /// Another worker fired it first, or the schedule has changed.
    Stale,
    /// The schedule no longer exists.
    Unknown,
}

/// State of a schedule, which determines whether it fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleState {
    /// The schedule fires.
    Active,
    /// The schedule does not fire until it is resumed.
    Paused,
    /// The schedule never fires again: its expression has no further time.
    Over,
}

impl ScheduleState {
    /// Returns the word for the state.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Over => "over",
        }
    }
}

/// The record of a schedule. Its expression is kept as text, because another version may have
/// written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRecord {
    /// Its name.
    pub name: ScheduleName,
    /// Id of the write that created this version of the schedule.
    pub revision: String,
    /// State of the schedule.
    pub state: ScheduleState,
    /// The cron expression.
    pub cron: String,
    /// The time zone's name.
    pub zone: String,
    /// Policy for missed firings.
    pub missed: String,
    /// Policy for a firing while the last job still runs.
    pub overlap: String,
    /// Next time at which it is due.
    pub next: Option<UnixMillis>,
    /// Time of the last firing, by the clock of Redis.
    pub last: Option<UnixMillis>,
    /// The job that it submitted last.
    pub last_id: Option<JobId>,
    /// Number of jobs that it has submitted.
    pub fired: u64,
    /// Missed firings that were not made up for. Of more than 1,000 firings missed at once, only
    /// 1,000 are counted.
    pub left_out: u64,
    /// Time of the first write, by the clock of Redis.
    pub created_at: UnixMillis,
    /// The routing fields of its jobs.
    pub routing: Vec<(String, String)>,
}

/// A schedule that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSchedule {
    /// Its name.
    pub name: ScheduleName,
    /// Id of the write that created this version of the schedule.
    pub revision: String,
    /// Time at which it was due.
    pub due: UnixMillis,
    /// The cron expression.
    pub cron: String,
    /// The time zone's name.
    pub zone: String,
    /// Policy for missed firings.
    pub missed: String,
}

/// The schedules that are due at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSchedules {
    /// The moment, by Redis' clock.
    pub now: UnixMillis,
    /// The schedules, longest due first.
    pub schedules: Vec<DueSchedule>,
    /// True if there may be more.
    pub more: bool,
}

/// One firing of one schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing<'a> {
    /// The schedule as it was read.
    pub schedule: &'a DueSchedule,
    /// Time at which this firing was due. It is part of the job's id.
    pub at: UnixMillis,
    /// Next time at which it is due.
    pub next: Option<UnixMillis>,
    /// Missed firings that this firing replaces.
    pub left_out: u64,
}

impl Queue {
    /// Returns the time, by the clock of Redis.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn now(&self) -> Result<UnixMillis, QueueError> {
        let answer = self
            .connection
            .run_repeatable("TIME", &redis::cmd("TIME"))
            .await?;
        let mut parts = RespValue::new("TIME", answer).parts()?;
        let seconds: u64 = parts.part()?.number()?;
        let micros: u64 = parts.part()?.number()?;
        Ok(UnixMillis(seconds * 1000 + micros / 1000))
    }

    /// Writes a schedule that is due next at `next`.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn put_schedule(
        &self,
        schedule: &Schedule,
        next: UnixMillis,
        replace: bool,
    ) -> Result<PutReply, QueueError> {
        let routing: Vec<String> = schedule
            .routing()
            .fields()
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect();
        let routing = serde_json::Value::from(routing).to_string();
        let call = SCHEDULE_PUT
            .call(self.keys.prefix())
            .arg(schedule.name().as_str())
            .arg(u8::from(replace))
            .arg(Uuid::now_v7().simple().to_string())
            .arg(next.0)
            .arg(schedule.payload())
            .arg(routing)
            .arg(schedule.cron().expression())
            .arg(schedule.cron().zone())
            .arg(schedule.missed().as_str())
            .arg(schedule.overlap().as_str());
        match self.word(&SCHEDULE_PUT, call).await?.as_str() {
            "added" => Ok(PutReply::Added),
            "replaced" => Ok(PutReply::Replaced),
            "exists" => Ok(PutReply::Exists),
            "too_many" => Ok(PutReply::TooMany),
            other => Err(unknown_word("schedule_put", other)),
        }
    }

    /// Returns all schedules, the one due next first. Schedules that do not fire come last.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRecord>, QueueError> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.keys.schedules()).arg(0).arg(-1);
        let answer = self.connection.run_repeatable("ZRANGE", &command).await?;
        let names = RespValue::new("ZRANGE", answer)
            .parts()?
            .map(RespValue::name)
            .collect::<Result<Vec<ScheduleName>, _>>()?;
        let mut records = Vec::with_capacity(names.len());
        for chunk in names.chunks(SCRIPT_BATCH) {
            let mut pipeline = redis::pipe();
            for name in chunk {
                pipeline
                    .cmd("HMGET")
                    .arg(self.keys.schedule(name))
                    .arg(&FIELDS);
            }
            let answers = self
                .connection
                .run_repeatable_pipeline("HMGET", &pipeline)
                .await?;
            for (name, answer) in chunk.iter().zip(answers) {
                records.extend(record(name.clone(), RespValue::new("HMGET", answer))?);
            }
        }
        Ok(records)
    }

    /// Returns one schedule; `None` if there is none of that name.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn schedule(
        &self,
        name: &ScheduleName,
    ) -> Result<Option<ScheduleRecord>, QueueError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.schedule(name)).arg(&FIELDS);
        let answer = self.connection.run_repeatable("HMGET", &command).await?;
        record(name.clone(), RespValue::new("HMGET", answer))
    }

    /// Returns the payload of a schedule's jobs; `None` if there is no schedule of that name.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn schedule_payload(
        &self,
        name: &ScheduleName,
    ) -> Result<Option<Vec<u8>>, QueueError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.schedule(name)).arg("payload");
        let answer = RespValue::new(
            "HGET",
            self.connection.run_repeatable("HGET", &command).await?,
        );
        if answer.is_nil() {
            return Ok(None);
        }
        answer.bytes().map(Some)
    }

    /// Removes a schedule. The jobs that it has submitted stay.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn remove_schedule(&self, name: &ScheduleName) -> Result<ChangeReply, QueueError> {
        let call = self.change("remove", name);
        self.changed(call).await
    }

    /// Stops a schedule from firing until it is resumed. Firings missed in the meantime are not
    /// made up for.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn pause_schedule(&self, name: &ScheduleName) -> Result<ChangeReply, QueueError> {
        let call = self.change("pause", name);
        self.changed(call).await
    }

    /// Lets a schedule fire again, first at `next`. An active schedule is left unchanged.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn resume_schedule(
        &self,
        found: &ScheduleRecord,
        next: UnixMillis,
    ) -> Result<ChangeReply, QueueError> {
        let call = self
            .change("resume", &found.name)
            .arg(&found.revision)
            .arg(next.0);
        self.changed(call).await
    }

    /// Postpones a schedule that is due by `wait`: this worker cannot decode it, but another may.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn postpone_schedule(
        &self,
        due: &DueSchedule,
        wait: Millis,
    ) -> Result<ChangeReply, QueueError> {
        let call = self
            .change("postpone", &due.name)
            .arg(&due.revision)
            .arg(wait.0);
        self.changed(call).await
    }

    /// Returns the schedules that are due, at most 64.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn due_schedules(&self) -> Result<DueSchedules, QueueError> {
        let call = SCHEDULE_DUE.call(self.keys.prefix()).arg(SCRIPT_BATCH);
        let mut parts =
            RespValue::new(SCHEDULE_DUE.name(), call.run(&self.connection).await?).parts()?;
        let now = UnixMillis(parts.part()?.number()?);
        let mut schedules = Vec::new();
        while let Some(name) = parts.next() {
            schedules.push(DueSchedule {
                name: name.name()?,
                revision: parts.part()?.text()?,
                due: UnixMillis(parts.part()?.number()?),
                cron: parts.part()?.text()?,
                zone: parts.part()?.text()?,
                missed: parts.part()?.text()?,
            });
        }
        Ok(DueSchedules {
            now,
            more: schedules.len() == SCRIPT_BATCH,
            schedules,
        })
    }

    /// Submits the job of one firing and advances the schedule to its next time, unless the
    /// schedule has changed since it was read.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn fire_schedule(&self, firing: &Firing<'_>) -> Result<FireReply, QueueError> {
        let name = &firing.schedule.name;
        let id = schedule::firing_id(name, firing.at);
        let next = firing.next.map_or(String::new(), |next| next.0.to_string());
        let call = SCHEDULE_FIRE
            .call(self.keys.prefix())
            .arg(name.as_str())
            .arg(id.as_str())
            .arg(&firing.schedule.revision)
            .arg(firing.schedule.due.0)
            .arg(next)
            .arg(firing.left_out);
        self.fired(call).await
    }

    /// Submits a schedule's job now, even if the schedule is paused, and leaves its times
    /// unchanged. Returns the job's id; `None` if there is no such schedule.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn run_schedule(&self, name: &ScheduleName) -> Result<Option<JobId>, QueueError> {
        let id = schedule::manual_firing_id(name, &Uuid::now_v7());
        let call = SCHEDULE_FIRE
            .call(self.keys.prefix())
            .arg(name.as_str())
            .arg(id.as_str());
        Ok(match self.fired(call).await? {
            FireReply::Fired => Some(id),
            FireReply::Stale | FireReply::Unknown => None,
        })
    }

    fn change(&self, op: &str, name: &ScheduleName) -> ScriptCall {
        SCHEDULE_CHANGE
            .call(self.keys.prefix())
            .arg(op)
            .arg(name.as_str())
    }

    async fn changed(&self, call: ScriptCall) -> Result<ChangeReply, QueueError> {
        match self.word(&SCHEDULE_CHANGE, call).await?.as_str() {
            "done" => Ok(ChangeReply::Done),
            "stale" => Ok(ChangeReply::Stale),
            "unknown" => Ok(ChangeReply::Unknown),
            other => Err(unknown_word("schedule_change", other)),
        }
    }

    async fn fired(&self, call: ScriptCall) -> Result<FireReply, QueueError> {
        match self.word(&SCHEDULE_FIRE, call).await?.as_str() {
            "fired" => Ok(FireReply::Fired),
            "stale" => Ok(FireReply::Stale),
            "unknown" => Ok(FireReply::Unknown),
            other => Err(unknown_word("schedule_fire", other)),
        }
    }

    async fn word(&self, script: &'static Script, call: ScriptCall) -> Result<String, QueueError> {
        RespValue::new(script.name(), call.run(&self.connection).await?).text()
    }
}

/// Fields of a schedule's hash that are read: all but the payload, which may be large.
const FIELDS: [&str; 13] = [
    "revision",
    "state",
    "cron",
    "zone",
    "missed",
    "overlap",
    "next",
    "last",
    "last_id",
    "fired",
    "left_out",
    "created_at",
    "routing",
];

/// Decodes one schedule's hash; `None` if it does not exist.
fn record(name: ScheduleName, reply: RespValue) -> Result<Option<ScheduleRecord>, QueueError> {
    let mut fields: HashMap<&str, RespValue> = FIELDS.into_iter().zip(reply.parts()?).collect();
    let mut take = |field: &'static str| {
        fields.remove(field).ok_or_else(|| QueueError::Reply {
            command: "HMGET",
            detail: format!("no {field}"),
        })
    };
    let Some(revision) = take("revision")?.maybe_text()? else {
        return Ok(None);
    };
    let state = take("state")?.text()?;
    let last_id = take("last_id")?;
    Ok(Some(ScheduleRecord {
        name,
        revision,
        state: [
            ScheduleState::Active,
            ScheduleState::Paused,
            ScheduleState::Over,
        ]
        .into_iter()
        .find(|known| known.as_str() == state)
        .ok_or_else(|| unknown_word("HMGET", &state))?,
        cron: take("cron")?.text()?,
        zone: take("zone")?.text()?,
        missed: take("missed")?.text()?,
        overlap: take("overlap")?.text()?,
        next: take("next")?.maybe_number()?.map(UnixMillis),
        last: take("last")?.maybe_number()?.map(UnixMillis),
        last_id: if last_id.is_nil() {
            None
        } else {
            Some(last_id.name()?)
        },
        fired: take("fired")?.maybe_number()?.unwrap_or(0),
        left_out: take("left_out")?.maybe_number()?.unwrap_or(0),
        created_at: UnixMillis(take("created_at")?.maybe_number()?.unwrap_or(0)),
        routing: routing(&take("routing")?.text()?)?,
    }))
}

/// Decodes the routing fields from the flat list that the script passes to `XADD`.
fn routing(json: &str) -> Result<Vec<(String, String)>, QueueError> {
    let flat: Vec<String> =
        serde_json::from_str(json).map_err(|_not_a_list| QueueError::Reply {
            command: "HMGET",
            detail: "a routing that is not a JSON list of strings".to_owned(),
        })?;
    let mut pairs = Vec::new();
    let mut words = flat.into_iter();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        pairs.push((name, value));
    }
    Ok(pairs)
}
