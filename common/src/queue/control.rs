//! The control stream: what every worker must hear at once.

use std::time::Duration;

use super::{Queue, QueueError, Unblocker};
use crate::id::JobId;

/// Something every worker must hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ControlEvent {
    /// Somebody wants this running job cancelled.
    Cancel(JobId),
}

impl Queue {
    /// A reader of what is said from now on, with a connection of its own.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn control_reader(&self) -> Result<ControlReader, QueueError> {
        unimplemented!()
    }
}

/// Listens to the control stream. Missing an event is harmless: the heartbeat answers it too.
#[derive(Debug)]
pub struct ControlReader {}

impl ControlReader {
    /// What was said since the last call, waiting at most `block` for the first event; empty when nothing was.
    ///
    /// # Cancel safety
    /// Safe: reading removes nothing, and a dropped call's events are read again.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn next(&mut self, block: Duration) -> Result<Vec<ControlEvent>, QueueError> {
        let _ = block;
        unimplemented!()
    }

    /// A handle that ends a wait from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        unimplemented!()
    }
}
