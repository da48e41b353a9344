//! Results: looking for one, and waiting for one.

use std::time::Duration;

use super::{Queue, QueueError, Unblocker};
use crate::id::JobId;

impl Queue {
    /// A job's result as it was published; none before that and after its retention has passed.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn result(&self, id: &JobId) -> Result<Option<Vec<u8>>, QueueError> {
        let _ = id;
        unimplemented!()
    }

    /// A waiter with a connection of its own.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn result_waiter(&self) -> Result<ResultWaiter, QueueError> {
        unimplemented!()
    }
}

/// Waits for results, one at a time, on its own connection.
#[derive(Debug)]
pub struct ResultWaiter {}

impl ResultWaiter {
    /// Waits for a job's result, at most `timeout`. Reading leaves it in place for others.
    ///
    /// # Cancel safety
    /// Safe: reading removes nothing. A dropped wait leaves its connection mid-command, so the next call makes a
    /// new one.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn wait(
        &mut self,
        id: &JobId,
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, QueueError> {
        let _ = (id, timeout);
        unimplemented!()
    }

    /// A handle that ends a wait from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        unimplemented!()
    }
}
