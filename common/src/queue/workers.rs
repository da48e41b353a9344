//! Who works here: what each worker says of itself, with a time to live.

use std::collections::BTreeSet;

use super::{Queue, QueueError};
use crate::id::{Class, Tag, WorkerId};
use crate::units::{Millis, UnixMillis};

/// What a worker says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerFacts {
    /// Its name.
    pub id: WorkerId,
    /// What it offers.
    pub labels: BTreeSet<Tag>,
    /// Jobs at once.
    pub slots: u32,
    /// Jobs it runs now.
    pub busy: u32,
    /// Whether it is stopping and claims no more.
    pub draining: bool,
    /// Its program's version.
    pub version: String,
    /// The machine it runs on.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// When it started, by its own clock.
    pub started_at: UnixMillis,
}

/// What Redis knows of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRecord {
    /// What it said of itself.
    pub facts: WorkerFacts,
    /// When it said so, by Redis' clock.
    pub seen_at: UnixMillis,
}

impl Queue {
    /// Says who we are; forgotten after `ttl` unless said again.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn announce(&self, facts: &WorkerFacts, ttl: Millis) -> Result<(), QueueError> {
        let _ = (facts, ttl);
        unimplemented!()
    }

    /// Takes a worker off the list. Its leases, if it has any, are not touched.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn retire(&self, worker: &WorkerId) -> Result<(), QueueError> {
        let _ = worker;
        unimplemented!()
    }

    /// Every class that has had a job, sorted.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn classes(&self) -> Result<Vec<Class>, QueueError> {
        unimplemented!()
    }

    /// The workers heard of lately.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn workers(&self) -> Result<Vec<WorkerRecord>, QueueError> {
        unimplemented!()
    }
}
