//! Jobs that the queue does not know: waiting for one would never end.

use std::time::{Duration, Instant};

use sandhog_common::id::JobId;
use sandhog_common::outcome::JobResult;
use sandhog_common::queue::{IntakeMark, Sight};

use crate::client::Client;
use crate::error::ClientError;

/// The first pause between two looks; it doubles while the intake may hold the job.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest such pause, and the one while the job is known.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

impl Client {
    /// Waits for a job's result as [`Client::wait`] does, and ends with [`ClientError::Unknown`]
    /// when the queue does not know the job, `grace` after the start at the earliest: it has no
    /// record and no result, and no entry of the intake is it. A user who may not look waits for
    /// `timeout`.
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
        // The result may have been published and dropped between the two.
        self.result(id)
            .await?
            .ok_or_else(|| ClientError::Unknown { id: id.clone() })
    }

    /// Returns when the queue does not know a job, as [`Client::wait_known`] has it; never, where
    /// this user may not look.
    ///
    /// # Cancel safety
    /// Safe: nothing is removed.
    pub async fn until_unknown(&self, id: &JobId, grace: Duration) {
        let started = Instant::now();
        let mut mark = IntakeMark::default();
        let mut pause = PAUSE;
        loop {
            let seen = self
                .queue()
                .sight(std::slice::from_ref(id), &mut mark)
                .await;
            match seen.as_deref() {
                Ok([Sight::Unknown]) if started.elapsed() >= grace => return,
                Ok([Sight::Unknown]) => {
                    mark = IntakeMark::default();
                    pause = PAUSE;
                }
                Ok([Sight::Known]) => {
                    mark = IntakeMark::default();
                    pause = LONGEST_PAUSE;
                }
                Ok([Sight::Forbidden]) => return std::future::pending().await,
                // The wait beside this one tells of a Redis that is away.
                Ok(_) | Err(_) => pause = (pause * 2).min(LONGEST_PAUSE),
            }
            tokio::time::sleep(pause).await;
        }
    }
}
