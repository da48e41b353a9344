//! Cron schedules in Redis: written, looked through, and fired by whichever worker comes first.
//!
//! It refuses to reckon: when a schedule is due next is said by its callers, who read its timetable.

use std::collections::HashMap;

use uuid::Uuid;

use super::reply::{Reply, unknown_word};
use super::script::{
    Call, MOST, SCHEDULE_CHANGE, SCHEDULE_DUE, SCHEDULE_FIRE, SCHEDULE_PUT, Script,
};
use super::{Queue, QueueError};
use crate::id::{JobId, ScheduleName};
use crate::schedule::{self, Schedule};
use crate::units::{Millis, UnixMillis};

/// What became of a request to write a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutReply {
    /// It is new.
    Added,
    /// It took the place of one of that name.
    Replaced,
    /// There is one of that name, and it was not to be replaced.
    Exists,
    /// There are as many as a namespace may have: 10,000.
    TooMany,
}

/// What became of a request to change a schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeReply {
    /// It is so now, or was before.
    Done,
    /// Somebody has changed it since it was read.
    Stale,
    /// There is no such schedule.
    Unknown,
}

/// What became of a firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FireReply {
    /// Its job is submitted.
    Fired,
    /// Another worker was first, or the schedule has changed.
    Stale,
    /// There is no such schedule any more.
    Unknown,
}

/// Whether a schedule fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleState {
    /// It does.
    Active,
    /// Not until it is resumed.
    Paused,
    /// Never again: its expression has no further time.
    Over,
}

impl ScheduleState {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Over => "over",
        }
    }
}

/// A schedule as it is kept. Its expression is text here: another version may have written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRecord {
    /// Its name.
    pub name: ScheduleName,
    /// Which writing of it this is.
    pub revision: String,
    /// Whether it fires.
    pub state: ScheduleState,
    /// The cron expression.
    pub cron: String,
    /// The time zone's name.
    pub zone: String,
    /// What happens to missed firings.
    pub missed: String,
    /// What happens while the last job runs.
    pub overlap: String,
    /// When it is due next.
    pub next: Option<UnixMillis>,
    /// When it last fired, by Redis' clock.
    pub last: Option<UnixMillis>,
    /// The job it last submitted.
    pub last_id: Option<JobId>,
    /// Jobs it has submitted.
    pub fired: u64,
    /// Missed firings it did not make up for; of more than 1,000 at once only so many are counted.
    pub left_out: u64,
    /// When it was first written, by Redis' clock.
    pub created_at: UnixMillis,
    /// The routing fields of its jobs.
    pub routing: Vec<(String, String)>,
}

/// A schedule whose time has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSchedule {
    /// Its name.
    pub name: ScheduleName,
    /// Which writing of it this is.
    pub revision: String,
    /// When it was due.
    pub due: UnixMillis,
    /// The cron expression.
    pub cron: String,
    /// The time zone's name.
    pub zone: String,
    /// What happens to missed firings.
    pub missed: String,
}

/// What is due at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueSchedules {
    /// The moment, by Redis' clock.
    pub now: UnixMillis,
    /// The schedules, longest due first.
    pub schedules: Vec<DueSchedule>,
    /// Whether there may be more.
    pub more: bool,
}

/// One firing of one schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing<'a> {
    /// The schedule, as it was found.
    pub schedule: &'a DueSchedule,
    /// The time that names the job: when this firing was due.
    pub at: UnixMillis,
    /// When it is due next.
    pub next: Option<UnixMillis>,
    /// Missed firings that this one makes up for.
    pub left_out: u64,
}

impl Queue {
    /// The time by Redis' clock.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn now(&self) -> Result<UnixMillis, QueueError> {
        let answer = self.link.repeatable("TIME", &redis::cmd("TIME")).await?;
        let mut parts = Reply::new("TIME", answer).parts()?;
        let seconds: u64 = parts.part()?.number()?;
        let micros: u64 = parts.part()?.number()?;
        Ok(UnixMillis(seconds * 1000 + micros / 1000))
    }

    /// Writes a schedule that is due next at `next`.
    ///
    /// # Errors
    /// When Redis cannot be reached.
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
            .arg(schedule.timetable().expression())
            .arg(schedule.timetable().zone())
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

    /// Every schedule, the one due next first, those that do not fire last.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn schedules(&self) -> Result<Vec<ScheduleRecord>, QueueError> {
        let mut command = redis::cmd("ZRANGE");
        command.arg(self.keys.schedules()).arg(0).arg(-1);
        let answer = self.link.repeatable("ZRANGE", &command).await?;
        let names = Reply::new("ZRANGE", answer)
            .parts()?
            .map(Reply::name)
            .collect::<Result<Vec<ScheduleName>, _>>()?;
        let mut records = Vec::with_capacity(names.len());
        for chunk in names.chunks(MOST) {
            let mut pipeline = redis::pipe();
            for name in chunk {
                pipeline
                    .cmd("HMGET")
                    .arg(self.keys.schedule(name))
                    .arg(&FIELDS);
            }
            let answers = self.link.repeatable_pipeline("HMGET", &pipeline).await?;
            for (name, answer) in chunk.iter().zip(answers) {
                records.extend(record(name.clone(), Reply::new("HMGET", answer))?);
            }
        }
        Ok(records)
    }

    /// One schedule; none when there is none of that name.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn schedule(
        &self,
        name: &ScheduleName,
    ) -> Result<Option<ScheduleRecord>, QueueError> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.schedule(name)).arg(&FIELDS);
        let answer = self.link.repeatable("HMGET", &command).await?;
        record(name.clone(), Reply::new("HMGET", answer))
    }

    /// What a schedule's jobs run; none when there is none of that name.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn schedule_payload(
        &self,
        name: &ScheduleName,
    ) -> Result<Option<Vec<u8>>, QueueError> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.schedule(name)).arg("payload");
        let answer = Reply::new("HGET", self.link.repeatable("HGET", &command).await?);
        if answer.is_nil() {
            return Ok(None);
        }
        answer.bytes().map(Some)
    }

    /// Removes a schedule. Jobs it has submitted stay.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn remove_schedule(&self, name: &ScheduleName) -> Result<ChangeReply, QueueError> {
        let call = self.change("remove", name);
        self.changed(call).await
    }

    /// Stops a schedule from firing until it is resumed. What would have fired meanwhile is not made up for.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn pause_schedule(&self, name: &ScheduleName) -> Result<ChangeReply, QueueError> {
        let call = self.change("pause", name);
        self.changed(call).await
    }

    /// Lets a schedule fire again, at `next` first. One that fires already is left as it is.
    ///
    /// # Errors
    /// When Redis cannot be reached.
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

    /// Leaves a schedule that is due alone for a while: this worker cannot read it, another may.
    ///
    /// # Errors
    /// When Redis cannot be reached.
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

    /// The schedules whose time has come, at most 64.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn due_schedules(&self) -> Result<DueSchedules, QueueError> {
        let call = SCHEDULE_DUE.call(self.keys.prefix()).arg(MOST);
        let mut parts = Reply::new(SCHEDULE_DUE.name(), call.run(&self.link).await?).parts()?;
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
            more: schedules.len() == MOST,
            schedules,
        })
    }

    /// Submits the job of one firing and moves the schedule on, if it still is as it was found.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn fire_schedule(&self, firing: &Firing<'_>) -> Result<FireReply, QueueError> {
        let name = &firing.schedule.name;
        let id = schedule::job_due(name, firing.at);
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

    /// Submits a schedule's job now, whether it is paused or not, and leaves its times as they are. Answers the job;
    /// none when there is no such schedule.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn run_schedule(&self, name: &ScheduleName) -> Result<Option<JobId>, QueueError> {
        let id = schedule::job_now(name, &Uuid::now_v7());
        let call = SCHEDULE_FIRE
            .call(self.keys.prefix())
            .arg(name.as_str())
            .arg(id.as_str());
        Ok(match self.fired(call).await? {
            FireReply::Fired => Some(id),
            FireReply::Stale | FireReply::Unknown => None,
        })
    }

    fn change(&self, op: &str, name: &ScheduleName) -> Call {
        SCHEDULE_CHANGE
            .call(self.keys.prefix())
            .arg(op)
            .arg(name.as_str())
    }

    async fn changed(&self, call: Call) -> Result<ChangeReply, QueueError> {
        match self.word(&SCHEDULE_CHANGE, call).await?.as_str() {
            "done" => Ok(ChangeReply::Done),
            "stale" => Ok(ChangeReply::Stale),
            "unknown" => Ok(ChangeReply::Unknown),
            other => Err(unknown_word("schedule_change", other)),
        }
    }

    async fn fired(&self, call: Call) -> Result<FireReply, QueueError> {
        match self.word(&SCHEDULE_FIRE, call).await?.as_str() {
            "fired" => Ok(FireReply::Fired),
            "stale" => Ok(FireReply::Stale),
            "unknown" => Ok(FireReply::Unknown),
            other => Err(unknown_word("schedule_fire", other)),
        }
    }

    async fn word(&self, script: &'static Script, call: Call) -> Result<String, QueueError> {
        Reply::new(script.name(), call.run(&self.link).await?).text()
    }
}

/// What of a schedule's hash is read: all but the payload, which may be large.
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

/// One schedule's hash; none when it is gone.
fn record(name: ScheduleName, reply: Reply) -> Result<Option<ScheduleRecord>, QueueError> {
    let mut fields: HashMap<&str, Reply> = FIELDS.into_iter().zip(reply.parts()?).collect();
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

/// The routing fields, out of the flat list the script hands to `XADD`.
fn routing(json: &str) -> Result<Vec<(String, String)>, QueueError> {
    let flat: Vec<String> =
        serde_json::from_str(json).map_err(|_not_a_list| QueueError::Reply {
            command: "HMGET",
            detail: "a routing that is no list of texts".to_owned(),
        })?;
    let mut pairs = Vec::new();
    let mut words = flat.into_iter();
    while let (Some(name), Some(value)) = (words.next(), words.next()) {
        pairs.push((name, value));
    }
    Ok(pairs)
}
