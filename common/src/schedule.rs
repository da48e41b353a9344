//! A schedule: a job template and when it is submitted.
//!
//! Each firing is an ordinary job whose id is made of the schedule's name and the time it was due, so that however many
//! workers fire it, it runs once. It refuses a template with an id, a start time or, where overlapping is skipped, a
//! unique key of its own: the schedule sets those.

use std::str::FromStr;

use serde::Serialize;

use crate::id::{IdError, JobId, ScheduleName, UniqueKey};
use crate::submission::{Routing, Start, Unique};
use crate::timetable::Timetable;
use crate::units::{ByteCount, UnixMillis};
use crate::wire::MAX_PAYLOAD;

/// What happens to firings that were missed because no worker was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// One job makes up for all of them: the latest.
    #[default]
    Skip,
    /// All are fired, oldest first; of more than [`MOST_CAUGHT_UP`] the latest ones.
    All,
}

/// How many missed firings [`Missed::All`] makes up for.
pub const MOST_CAUGHT_UP: usize = 100;

/// What happens when a firing is due and the last one's job has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Both run.
    #[default]
    Allow,
    /// The new job is refused, with a result that says so: all of a schedule's jobs share a unique key.
    Skip,
}

impl Missed {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::All => "all",
        }
    }
}

impl Overlap {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Skip => "skip",
        }
    }
}

impl FromStr for Missed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Skip, Self::All]
            .into_iter()
            .find(|missed| missed.as_str() == text)
            .ok_or_else(|| "want skip or all".to_owned())
    }
}

impl FromStr for Overlap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::Allow, Self::Skip]
            .into_iter()
            .find(|overlap| overlap.as_str() == text)
            .ok_or_else(|| "want allow or skip".to_owned())
    }
}

/// Why a schedule cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The template names one job.
    #[error("the job of schedule {name} has the id {id} of its own, and each firing needs another")]
    OwnId {
        /// The schedule.
        name: ScheduleName,
        /// The id.
        id: JobId,
    },
    /// The template says when to start.
    #[error("the job of schedule {name} has the start time {} of its own", .at.0)]
    OwnStart {
        /// The schedule.
        name: ScheduleName,
        /// The time.
        at: UnixMillis,
    },
    /// Overlapping is skipped by a unique key, and the template has another.
    #[error(
        "the job of schedule {name} has the unique key {key} of its own, and overlap skip needs one too"
    )]
    OwnKey {
        /// The schedule.
        name: ScheduleName,
        /// The key.
        key: UniqueKey,
    },
    /// The job would be refused at the intake.
    #[error("the job of schedule {name} has {size} bytes (want at most {MAX_PAYLOAD})")]
    TooLarge {
        /// The schedule.
        name: ScheduleName,
        /// Its size.
        size: ByteCount,
    },
}

/// A job template and when it is submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    name: ScheduleName,
    timetable: Timetable,
    missed: Missed,
    overlap: Overlap,
    routing: Routing,
    payload: Vec<u8>,
}

impl Schedule {
    /// A schedule that submits `payload` with `routing` when `timetable` says so.
    ///
    /// # Errors
    /// When the template sets what the schedule must.
    pub fn new(
        name: ScheduleName,
        timetable: Timetable,
        missed: Missed,
        overlap: Overlap,
        mut routing: Routing,
        payload: Vec<u8>,
    ) -> Result<Self, ScheduleError> {
        if let Some(id) = routing.id {
            return Err(ScheduleError::OwnId { name, id });
        }
        if let Start::At(at) = routing.start {
            return Err(ScheduleError::OwnStart { name, at });
        }
        if payload.len() > MAX_PAYLOAD.as_usize() {
            let size = ByteCount(u64::try_from(payload.len()).unwrap_or(u64::MAX));
            return Err(ScheduleError::TooLarge { name, size });
        }
        if overlap == Overlap::Skip {
            if let Some(Unique { key, .. }) = routing.unique {
                return Err(ScheduleError::OwnKey { name, key });
            }
            routing.unique = Some(Unique {
                key: valid(format!("cron:{name}").parse()),
                ttl: None,
            });
        }
        Ok(Self {
            name,
            timetable,
            missed,
            overlap,
            routing,
            payload,
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ScheduleName {
        &self.name
    }

    /// When it is due.
    #[must_use]
    pub fn timetable(&self) -> &Timetable {
        &self.timetable
    }

    /// What happens to missed firings.
    #[must_use]
    pub fn missed(&self) -> Missed {
        self.missed
    }

    /// What happens while the last job runs.
    #[must_use]
    pub fn overlap(&self) -> Overlap {
        self.overlap
    }

    /// How each job is routed.
    #[must_use]
    pub fn routing(&self) -> &Routing {
        &self.routing
    }

    /// What each job runs.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// The job of the firing that was due then.
#[must_use]
pub fn job_due(name: &ScheduleName, due: UnixMillis) -> JobId {
    valid(format!("cron:{name}:{}", due.0).parse())
}

/// The job of a firing that somebody asked for. `mark` tells it from others: at most 48 letters, digits or hyphens.
pub(crate) fn job_now(name: &ScheduleName, mark: &uuid::Uuid) -> JobId {
    valid(format!("cron:{name}:run:{}", mark.simple()).parse())
}

fn valid<T>(name: Result<T, IdError>) -> T {
    name.expect("a schedule's name has at most 64 bytes, all of them allowed in ids, and what is added stays below 128")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(overlap: Overlap, routing: Routing) -> Result<Schedule, ScheduleError> {
        Schedule::new(
            "nightly".parse().unwrap(),
            Timetable::parse("@daily", "UTC").unwrap(),
            Missed::Skip,
            overlap,
            routing,
            b"{}".to_vec(),
        )
    }

    #[test]
    fn ids_are_made_of_name_and_time() {
        let longest: ScheduleName = "n".repeat(64).parse().unwrap();
        let id = job_due(&longest, UnixMillis(u64::MAX));
        assert!(id.as_str().ends_with(":18446744073709551615"));
        assert!(job_now(&longest, &uuid::Uuid::now_v7()).as_str().len() <= 128);
        let name = "nightly".parse().unwrap();
        assert_eq!(job_due(&name, UnixMillis(5)).as_str(), "cron:nightly:5");
    }

    #[test]
    fn skipping_overlap_is_a_unique_key() {
        let skipping = schedule(Overlap::Skip, Routing::default()).unwrap();
        let key = skipping.routing().unique.as_ref().map(|u| u.key.as_str());
        assert_eq!(key, Some("cron:nightly"));
        let allowing = schedule(Overlap::Allow, Routing::default()).unwrap();
        assert_eq!(allowing.routing().unique, None);
    }

    #[test]
    fn a_template_must_leave_the_schedules_part_to_it() {
        let id = Routing {
            id: Some("mine".parse().unwrap()),
            ..Routing::default()
        };
        let start = Routing {
            start: Start::At(UnixMillis(7)),
            ..Routing::default()
        };
        let key = Routing {
            unique: Some(Unique {
                key: "mine".parse().unwrap(),
                ttl: None,
            }),
            ..Routing::default()
        };
        for (case, overlap, routing, good) in [
            ("id", Overlap::Allow, id, false),
            ("start", Overlap::Allow, start, false),
            ("key", Overlap::Skip, key.clone(), false),
            ("key and overlap", Overlap::Allow, key, true),
        ] {
            assert_eq!(schedule(overlap, routing).is_ok(), good, "case {case}");
        }
    }
}
