//! Backoff of a loop while Redis does not answer.

use std::time::Duration;

use rand::Rng;
use sandhog_common::queue::QueueError;
use tokio_util::sync::CancellationToken;

/// First wait; it doubles with each failure.
const FIRST: Duration = Duration::from_millis(50);

/// Upper bound of the wait.
const LONGEST: Duration = Duration::from_secs(5);

/// Exponential backoff of one loop. It logs the first failure of a series and the recovery.
#[derive(Debug)]
pub(crate) struct Patience {
    what: &'static str,
    pause: Duration,
}

impl Patience {
    /// Creates the backoff of the loop named `what`.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, pause: FIRST }
    }

    /// Records a success: resets the wait and logs the recovery if there was a failure before.
    pub(crate) fn restore(&mut self) {
        if self.pause > FIRST {
            tracing::info!(during = self.what, "redis answers again");
            self.pause = FIRST;
        }
    }

    /// Records a failure: waits with jitter, twice as long as the last time, or until `stop` is
    /// cancelled. Logs only the first failure of a series.
    pub(crate) async fn wear(&mut self, error: &QueueError, stop: &CancellationToken) {
        if self.pause == FIRST {
            tracing::warn!(
                during = self.what,
                error = error as &dyn std::error::Error,
                "redis does not answer"
            );
        }
        let pause = self.pause.mul_f64(rand::rng().random_range(0.5..=1.0));
        self.pause = (self.pause * 2).min(LONGEST);
        stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }
}
