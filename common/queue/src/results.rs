//! Results: reads the result of a job, or waits for it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::blocking::BlockingConnection;
use crate::keys::Keys;
use crate::resp::RespValue;
use crate::{Queue, QueueError, Unblocker, redis_error};
use sandhog_core::id::JobId;

/// Longest single wait. After it, the waiter checks whether it should stop; a user who may not use
/// CLIENT UNBLOCK needs this.
const WAIT_SLICE: Duration = Duration::from_secs(5);

/// First pause between two checks, for a user who may not block. Each pause is half as long again
/// as the one before.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(2);

/// Longest of these pauses.
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(100);

/// Maximum number of jobs of one pipeline.
const PIPELINE_BATCH: usize = 256;

impl Queue {
    /// Returns a job's result as it was published. `None` before that and after its retention has
    /// passed.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn result(&self, id: &JobId) -> Result<Option<Vec<u8>>, QueueError> {
        let mut command = redis::cmd("LRANGE");
        command.arg(self.keys.result(id)).arg(0).arg(0);
        let answer = self.connection.run_repeatable("LRANGE", &command).await?;
        RespValue::new("LRANGE", answer)
            .parts()?
            .next()
            .map(RespValue::bytes)
            .transpose()
    }

    /// Returns whether each of these jobs has a result, in order.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn have_results(&self, ids: &[JobId]) -> Result<Vec<bool>, QueueError> {
        let mut have = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(PIPELINE_BATCH) {
            let mut pipeline = redis::pipe();
            for id in chunk {
                pipeline.cmd("EXISTS").arg(self.keys.result(id));
            }
            for answer in self
                .connection
                .run_repeatable_pipeline("EXISTS", &pipeline)
                .await?
            {
                have.push(RespValue::new("EXISTS", answer).number::<u8>()? == 1);
            }
        }
        Ok(have)
    }

    /// Opens a waiter with a connection of its own.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn result_waiter(&self) -> Result<ResultWaiter, QueueError> {
        Ok(ResultWaiter {
            blocking: BlockingConnection::open(&self.connection).await?,
            keys: Arc::clone(&self.keys),
            polls: false,
        })
    }
}

/// Waits for results, one at a time, on a connection of its own.
#[derive(Debug)]
pub struct ResultWaiter {
    blocking: BlockingConnection,
    keys: Arc<Keys>,
    /// True if the user may only read. The blocking wait moves an element of a list to the same
    /// list, which counts as a write.
    polls: bool,
}

impl ResultWaiter {
    /// Waits for a job's result, at most `timeout`. The result stays in place for other readers.
    ///
    /// # Cancel safety
    /// Safe: reading removes nothing. A dropped wait closes its connection, and the next call opens
    /// a new one.
    ///
    /// # Errors
    /// Fails when Redis cannot be reached.
    pub async fn wait(
        &mut self,
        id: &JobId,
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, QueueError> {
        let _call = self.blocking.enter();
        let key = self.keys.result(id);
        let deadline = Instant::now() + timeout;
        let mut pause = POLL_INTERVAL_MIN;
        loop {
            if self.blocking.is_unblocked() {
                return Ok(None);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let found = if self.polls {
                self.read_result(&key).await?
            } else {
                self.wait_slice(&key, left).await?
            };
            if found.is_some() {
                return Ok(found);
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            if self.polls {
                self.blocking.idle(pause.min(left)).await;
                pause = (pause * 3 / 2).min(POLL_INTERVAL_MAX);
            }
        }
    }

    /// Waits for one slice of time. Switches to polling if the user may not block.
    async fn wait_slice(
        &mut self,
        key: &str,
        left: Duration,
    ) -> Result<Option<Vec<u8>>, QueueError> {
        // Redis treats a timeout of zero as no timeout.
        let slice = left.clamp(Duration::from_millis(1), WAIT_SLICE);
        let mut command = redis::cmd("BLMOVE");
        command
            .arg(key)
            .arg(key)
            .arg(&["LEFT", "LEFT"])
            .arg(format!("{:.3}", slice.as_secs_f64()));
        match self.blocking.wait("BLMOVE", &command, slice).await {
            Ok(answer) => {
                let answer = RespValue::new("BLMOVE", answer);
                (!answer.is_nil()).then(|| answer.bytes()).transpose()
            }
            Err(QueueError::Command { source, .. }) if redis_error::is_forbidden(&source) => {
                self.polls = true;
                self.read_result(key).await
            }
            Err(error) => Err(error),
        }
    }

    /// Checks for the result once.
    async fn read_result(&mut self, key: &str) -> Result<Option<Vec<u8>>, QueueError> {
        let mut command = redis::cmd("LRANGE");
        command.arg(key).arg(0).arg(0);
        let answer = self.blocking.ask("LRANGE", &command).await?;
        RespValue::new("LRANGE", answer)
            .parts()?
            .next()
            .map(RespValue::bytes)
            .transpose()
    }

    /// Returns a handle that ends a wait from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        self.blocking.unblocker()
    }
}
