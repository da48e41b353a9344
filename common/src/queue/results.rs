//! Results: looking for one, and waiting for one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::blocking::Blocking;
use super::reply::Reply;
use super::{Queue, QueueError, Unblocker};
use crate::id::JobId;
use crate::keys::Keys;

/// The longest single wait: after it the waiter looks whether it should stop, also where it may not be unblocked.
const SLICE: Duration = Duration::from_secs(5);

/// How many jobs are looked for at once.
const TOGETHER: usize = 256;

impl Queue {
    /// A job's result as it was published; none before that and after its retention has passed.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn result(&self, id: &JobId) -> Result<Option<Vec<u8>>, QueueError> {
        let mut command = redis::cmd("LRANGE");
        command.arg(self.keys.result(id)).arg(0).arg(0);
        let answer = self.link.repeatable("LRANGE", &command).await?;
        Reply::new("LRANGE", answer)
            .parts()?
            .next()
            .map(Reply::bytes)
            .transpose()
    }

    /// Which of these jobs have a result now, in order.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn have_results(&self, ids: &[JobId]) -> Result<Vec<bool>, QueueError> {
        let mut have = Vec::with_capacity(ids.len());
        for chunk in ids.chunks(TOGETHER) {
            let mut pipeline = redis::pipe();
            for id in chunk {
                pipeline.cmd("EXISTS").arg(self.keys.result(id));
            }
            for answer in self.link.repeatable_pipeline("EXISTS", &pipeline).await? {
                have.push(Reply::new("EXISTS", answer).number::<u8>()? == 1);
            }
        }
        Ok(have)
    }

    /// A waiter with a connection of its own.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn result_waiter(&self) -> Result<ResultWaiter, QueueError> {
        Ok(ResultWaiter {
            blocking: Blocking::open(&self.link).await?,
            keys: Arc::clone(&self.keys),
        })
    }
}

/// Waits for results, one at a time, on its own connection.
#[derive(Debug)]
pub struct ResultWaiter {
    blocking: Blocking,
    keys: Arc<Keys>,
}

impl ResultWaiter {
    /// Waits for a job's result, at most `timeout`. Reading leaves it in place for others.
    ///
    /// # Cancel safety
    /// Safe: reading removes nothing. A dropped wait gives up its connection, so the next call makes a new one.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn wait(
        &mut self,
        id: &JobId,
        timeout: Duration,
    ) -> Result<Option<Vec<u8>>, QueueError> {
        let _reading = self.blocking.enter();
        let key = self.keys.result(id);
        let deadline = Instant::now() + timeout;
        loop {
            if self.blocking.is_unblocked() {
                return Ok(None);
            }
            // Redis takes zero for "for ever".
            let slice = deadline
                .saturating_duration_since(Instant::now())
                .clamp(Duration::from_millis(1), SLICE);
            let mut command = redis::cmd("BLMOVE");
            command
                .arg(&key)
                .arg(&key)
                .arg(&["LEFT", "LEFT"])
                .arg(format!("{:.3}", slice.as_secs_f64()));
            let answer = self.blocking.wait("BLMOVE", &command, slice).await?;
            let answer = Reply::new("BLMOVE", answer);
            if !answer.is_nil() {
                return answer.bytes().map(Some);
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// A handle that ends a wait from another task.
    #[must_use]
    pub fn unblocker(&self) -> Unblocker {
        self.blocking.unblocker()
    }
}
