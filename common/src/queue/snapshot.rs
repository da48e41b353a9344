//! How full the queue is, for people and for metrics.

use std::collections::BTreeMap;

use super::{Queue, QueueError};
use crate::id::Class;

/// One class's share of the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassDepth {
    /// The class.
    pub class: Class,
    /// Jobs that wait for a worker.
    pub ready: u64,
    /// Jobs that are held by a worker.
    pub running: u64,
}

/// The queue at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// Each class, sorted.
    pub classes: Vec<ClassDepth>,
    /// Entries nobody has admitted yet.
    pub intake: u64,
    /// Jobs that wait for their time.
    pub delayed: u64,
    /// Dead letters.
    pub dead: u64,
    /// Workers heard of lately.
    pub workers: u64,
    /// Counters since the namespace began, by name: `admitted`, `lost`, `stale`, `finished_succeeded`…
    pub counters: BTreeMap<String, u64>,
}

impl Queue {
    /// How full the queue is.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn snapshot(&self) -> Result<Snapshot, QueueError> {
        unimplemented!()
    }
}
