//! A schedule: a job template and the times at which it is submitted.
//!
//! Each firing is an ordinary job. Its id consists of the schedule's name and the due time, so that
//! the job runs once even if several workers fire it. A template must not set an id, a start time
//! or, if overlapping jobs are skipped, a unique key: the schedule sets those.

use std::str::FromStr;

use serde::Serialize;

use crate::cron::CronSchedule;
use crate::id::{IdError, JobId, ScheduleName, UniqueKey};
use crate::submission::{Routing, Start, Unique};
use crate::units::{ByteCount, UnixMillis};
use crate::wire::MAX_PAYLOAD;

/// The treatment of firings that were missed because no worker was running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Only the latest missed firing is submitted.
    #[default]
    Skip,
    /// All missed firings are submitted, oldest first; of more than [`CAUGHT_UP_FIRINGS_MAX`], only
    /// the latest ones.
    All,
}

/// Maximum number of missed firings that [`Missed::All`] submits.
pub const CAUGHT_UP_FIRINGS_MAX: usize = 100;

/// The treatment of a firing that is due while the previous job has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Both jobs run.
    #[default]
    Allow,
    /// The new job is rejected, with a result that gives the reason. The mechanism is a unique key
    /// that all jobs of the schedule share.
    Skip,
}

impl Missed {
    /// Returns the name of this value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::All => "all",
        }
    }
}

impl Overlap {
    /// Returns the name of this value.
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

/// The reason why a schedule is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The template sets a job id.
    #[error("the job of schedule {name} sets the id {id} (leave it out: each firing has its own)")]
    OwnId {
        /// The schedule.
        name: ScheduleName,
        /// The id.
        id: JobId,
    },
    /// The template sets a start time.
    #[error("the job of schedule {name} sets at_ms {} (leave it out: the schedule sets it)", .at.0)]
    OwnStart {
        /// The schedule.
        name: ScheduleName,
        /// The time.
        at: UnixMillis,
    },
    /// The template sets a unique key, but skipping overlaps needs a unique key of the schedule.
    #[error(
        "the job of schedule {name} sets the unique key {key} (leave it out: overlap skip sets one)"
    )]
    OwnKey {
        /// The schedule.
        name: ScheduleName,
        /// The key.
        key: UniqueKey,
    },
    /// The payload is larger than the intake accepts.
    #[error("the job of schedule {name} has {size} bytes (want at most {MAX_PAYLOAD})")]
    TooLarge {
        /// The schedule.
        name: ScheduleName,
        /// The size of the payload.
        size: ByteCount,
    },
}

/// A job template and the times at which it is submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    name: ScheduleName,
    cron: CronSchedule,
    missed: Missed,
    overlap: Overlap,
    routing: Routing,
    payload: Vec<u8>,
}

impl Schedule {
    /// Returns a schedule that submits `payload` with `routing` at the times of `cron`.
    ///
    /// # Errors
    /// Fails if the template sets a field that the schedule sets, or is too large.
    pub fn new(
        name: ScheduleName,
        cron: CronSchedule,
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
            cron,
            missed,
            overlap,
            routing,
            payload,
        })
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &ScheduleName {
        &self.name
    }

    /// Returns the cron expression in its time zone.
    #[must_use]
    pub fn cron(&self) -> &CronSchedule {
        &self.cron
    }

    /// Returns the treatment of missed firings.
    #[must_use]
    pub fn missed(&self) -> Missed {
        self.missed
    }

    /// Returns the treatment of overlapping jobs.
    #[must_use]
    pub fn overlap(&self) -> Overlap {
        self.overlap
    }

    /// Returns the routing of each job.
    #[must_use]
    pub fn routing(&self) -> &Routing {
        &self.routing
    }

    /// Returns the payload of each job.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// Returns the id of the job for the firing at `due`.
#[must_use]
pub fn firing_id(name: &ScheduleName, due: UnixMillis) -> JobId {
    valid(format!("cron:{name}:{}", due.0).parse())
}

/// Returns the id of the job for a firing that was requested by hand. `mark` distinguishes it from
/// others.
pub fn manual_firing_id(name: &ScheduleName, mark: &uuid::Uuid) -> JobId {
    valid(format!("cron:{name}:run:{}", mark.simple()).parse())
}

fn valid<T>(name: Result<T, IdError>) -> T {
    name.expect("a schedule's name has at most 64 bytes that ids allow, so the id has at most 128")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(overlap: Overlap, routing: Routing) -> Result<Schedule, ScheduleError> {
        Schedule::new(
            "nightly".parse().unwrap(),
            CronSchedule::parse("@daily", "UTC").unwrap(),
            Missed::Skip,
            overlap,
            routing,
            b"{}".to_vec(),
        )
    }

    #[test]
    fn ids_are_made_of_name_and_time() {
        let longest: ScheduleName = "n".repeat(64).parse().unwrap();
        let id = firing_id(&longest, UnixMillis(u64::MAX));
        assert!(id.as_str().ends_with(":18446744073709551615"));
        assert!(
            manual_firing_id(&longest, &uuid::Uuid::now_v7())
                .as_str()
                .len()
                <= 128
        );
        let name = "nightly".parse().unwrap();
        assert_eq!(firing_id(&name, UnixMillis(5)).as_str(), "cron:nightly:5");
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
