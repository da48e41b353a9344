//! Exponential backoff with jitter, and the random change of fixed periods.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::Rng;
use sandhog_core::backoff::Backoff;
use sandhog_queue::QueueError;
use tokio_util::sync::CancellationToken;

/// Upper bound of the first wait; it doubles with each failure.
const INITIAL_WAIT: Duration = Duration::from_millis(50);

/// Upper bound of every wait.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Backoff whose upper bound of the wait doubles with each failure, and whose wait is a random part
/// of it.
#[derive(Debug)]
pub(crate) struct JitteredBackoff {
    /// Upper bounds of the waits.
    bounds: Backoff,
    /// Part of the bound that a wait has.
    jitter: RangeInclusive<f64>,
}

impl JitteredBackoff {
    /// Creates a backoff whose waits have between half and all of their upper bound.
    pub(crate) fn new() -> Self {
        Self {
            bounds: Backoff::new(INITIAL_WAIT, MAX_WAIT),
            jitter: 0.5..=1.0,
        }
    }

    /// Creates a backoff whose waits have between nothing and all of their upper bound.
    pub(crate) fn with_full_jitter() -> Self {
        Self {
            jitter: 0.0..=1.0,
            ..Self::new()
        }
    }

    /// Returns whether there was a failure since the last success.
    pub(crate) fn has_failed(&self) -> bool {
        self.bounds.has_started()
    }

    /// Records a failure and returns the wait before the next try.
    #[must_use]
    pub(crate) fn record_failure(&mut self) -> Duration {
        jittered(self.bounds.next_wait(), self.jitter.clone())
    }

    /// Records a success. Returns whether there was a failure before.
    pub(crate) fn reset(&mut self) -> bool {
        let had_failed = self.has_failed();
        self.bounds.reset();
        had_failed
    }
}

/// Backoff of a loop while Redis does not answer. It logs the first failure of a series and the
/// recovery.
#[derive(Debug)]
pub(crate) struct LoopBackoff {
    loop_name: &'static str,
    backoff: JitteredBackoff,
}

impl LoopBackoff {
    /// Creates the backoff of the loop with this name.
    pub(crate) fn new(loop_name: &'static str) -> Self {
        Self {
            loop_name,
            backoff: JitteredBackoff::new(),
        }
    }

    /// Records a success: resets the wait and logs the recovery if there was a failure before.
    pub(crate) fn reset(&mut self) {
        if self.backoff.reset() {
            tracing::info!(during = self.loop_name, "redis answers again");
        }
    }

    /// Records a failure: waits before the next try, or until `stop` is cancelled. Logs only the
    /// first failure of a series.
    pub(crate) async fn record_failure(&mut self, error: &QueueError, stop: &CancellationToken) {
        if !self.backoff.has_failed() {
            tracing::warn!(
                during = self.loop_name,
                error = error as &dyn std::error::Error,
                "redis does not answer"
            );
        }
        let wait = self.backoff.record_failure();
        stop.run_until_cancelled(tokio::time::sleep(wait)).await;
    }
}

/// Returns the period multiplied by a random factor, so that workers that started together do not
/// act at the same moment.
pub(crate) fn jittered(period: Duration, factors: RangeInclusive<f64>) -> Duration {
    period.mul_f64(rand::rng().random_range(factors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_double_up_to_the_maximum_and_a_success_resets_them() {
        let mut backoff = JitteredBackoff::new();
        let mut bound = INITIAL_WAIT;
        for failure in 0..10 {
            let wait = backoff.record_failure();
            assert!(
                wait >= bound / 2 && wait <= bound,
                "failure {failure}: {wait:?}"
            );
            bound = (bound * 2).min(MAX_WAIT);
        }
        assert_eq!(bound, MAX_WAIT);
        assert!(backoff.reset());
        assert!(!backoff.reset() && !backoff.has_failed());
        assert!(backoff.record_failure() <= INITIAL_WAIT);
    }
}
