//! Reading the public intake stream.

use std::time::Duration;

use super::{Queue, QueueError, Unblocker};
use crate::id::WorkerId;

/// The stream id of an intake entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntryId(String);

impl EntryId {
    /// The id as Redis wrote it. It is a valid job id, and is one when the submitter named none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One entry of the intake stream, as it came: hostile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntakeEntry {
    /// Its stream id.
    pub id: EntryId,
    /// Its fields, in order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Queue {
    /// A reader of the intake stream that reads in `worker`'s name, with a connection of its own.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn intake_reader(&self, worker: &WorkerId) -> Result<IntakeReader, QueueError> {
        let _ = worker;
        unimplemented!()
    }
}

/// Reads the intake stream.
#[derive(Debug)]
pub struct IntakeReader {}

impl IntakeReader {
    /// At most `most` entries, waiting at most `block` for the first; empty when none came. Each must be handed to
    /// [`Queue::admit`] or [`Queue::done`]; what a dead admitter read and never settled is read again after a while.
    ///
    /// # Cancel safety
    /// Not safe: entries read by a dropped call are delayed until they are recovered. End it with the unblocker.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn next(
        &mut self,
        most: usize,
        block: Duration,
    ) -> Result<Vec<IntakeEntry>, QueueError> {
        let _ = (most, block);
        unimplemented!()
    }

    /// A handle that ends a read from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        unimplemented!()
    }
}
