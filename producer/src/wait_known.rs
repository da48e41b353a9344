//! Detection of job ids that the queue does not know. Waiting for such a job would never end.

use std::time::{Duration, Instant};

use sandhog_core::id::JobId;
use sandhog_core::outcome::JobResult;
use sandhog_queue::{IntakeTail, JobLookup};

use crate::client::Client;
use crate::error::ClientError;

/// First pause between two lookups. It doubles while the intake may hold the job.
const LOOKUP_PAUSE_MIN: Duration = Duration::from_millis(100);

/// Longest pause between two lookups; also the pause while the job is known.
const LOOKUP_PAUSE_MAX: Duration = Duration::from_secs(5);

impl Client {
    /// Waits for a job's result as [`Client::wait`] does, but fails with [`ClientError::Unknown`]
    /// when the queue does not know the job: the job has no record, no result and no entry in the
    /// intake. This failure occurs at the earliest `grace` after the start. If the Redis user may
    /// not read these keys, the call waits for `timeout`.
    ///
    /// # Cancel safety
    /// Safe: nothing is removed.
    ///
    /// # Errors
    /// As [`Client::wait`], and [`ClientError::Unknown`].
    pub async fn wait_known(
        &self,
        id: &JobId,
        timeout: Duration,
        grace: Duration,
    ) -> Result<JobResult, ClientError> {
        tokio::select! {
            biased;
            result = Box::pin(self.wait(id, timeout)) => return result,
            () = Box::pin(self.until_unknown(id, grace)) => {}
        }
        // The result may have been published since the lookup that found nothing.
        self.result(id)
            .await?
            .ok_or_else(|| ClientError::Unknown { id: id.clone() })
    }

    /// Completes when the queue does not know a job, as defined at [`Client::wait_known`]. Never
    /// completes if the Redis user may not read the keys.
    ///
    /// # Cancel safety
    /// Safe: nothing is removed.
    pub async fn until_unknown(&self, id: &JobId, grace: Duration) {
        let started = Instant::now();
        let mut mark = IntakeTail::default();
        let mut pause = LOOKUP_PAUSE_MIN;
        loop {
            let seen = self
                .queue()
                .look_up(std::slice::from_ref(id), &mut mark)
                .await;
            match seen.as_deref() {
                Ok([JobLookup::Unknown]) if started.elapsed() >= grace => return,
                Ok([JobLookup::Unknown]) => {
                    mark = IntakeTail::default();
                    pause = LOOKUP_PAUSE_MIN;
                }
                Ok([JobLookup::Known]) => {
                    mark = IntakeTail::default();
                    pause = LOOKUP_PAUSE_MAX;
                }
                Ok([JobLookup::Forbidden]) => return std::future::pending().await,
                // The wait that runs beside this one reports that Redis cannot be reached.
                Ok(_) | Err(_) => pause = (pause * 2).min(LOOKUP_PAUSE_MAX),
            }
            tokio::time::sleep(pause).await;
        }
    }
}
