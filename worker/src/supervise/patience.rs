//! Waiting out a Redis that does not answer.

use std::time::Duration;

use rand::Rng;
use sandhog_common::queue::QueueError;
use tokio_util::sync::CancellationToken;

/// The first wait; it doubles.
const FIRST: Duration = Duration::from_millis(50);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(5);

/// How long a loop waits after a failure, and whether it has complained yet.
#[derive(Debug)]
pub(crate) struct Patience {
    what: &'static str,
    pause: Duration,
}

impl Patience {
    /// The patience of the loop named `what`.
    pub(crate) fn new(what: &'static str) -> Self {
        Self { what, pause: FIRST }
    }

    /// It worked.
    pub(crate) fn restore(&mut self) {
        if self.pause > FIRST {
            tracing::info!(during = self.what, "redis answers again");
            self.pause = FIRST;
        }
    }

    /// It failed: waits with jitter, twice as long as the last time, or until `stop`. Complains once.
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
