//! Statistics about the use of containers, and the retention score of an idle container.
//!
//! The functions are pure: the caller passes the current time.

use std::time::{Duration, Instant};

/// Time after which a use counts half.
const USE_HALF_LIFE: Duration = Duration::from_secs(60);

/// Weight of a new measurement in a moving average.
const AVERAGE_WEIGHT: f64 = 0.2;

/// Recent use of one owner's containers: number of uses and average duration of a checkout.
#[derive(Debug, Clone, Copy)]
pub(super) struct CheckoutStats {
    uses: f64,
    at: Instant,
    average: Option<Duration>,
}

impl CheckoutStats {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            uses: 0.0,
            at: now,
            average: None,
        }
    }

    /// Counts one use.
    pub(super) fn record_use(&mut self, now: Instant) {
        self.uses = self.uses(now) + 1.0;
        self.at = now;
    }

    /// Records the duration of a checkout that has ended.
    pub(super) fn record_return(&mut self, took: Duration) {
        self.average = Some(average(self.average, took));
    }

    /// Returns the number of recent uses. Each counts half after every minute.
    pub(super) fn uses(&self, now: Instant) -> f64 {
        let age = now.saturating_duration_since(self.at);
        self.uses * (-age.as_secs_f64() / USE_HALF_LIFE.as_secs_f64()).exp2()
    }

    /// Returns the expected remaining time of a checkout that began at `since`. `None` if none was
    /// measured yet, or if this one already takes unusually long (more than twice the average).
    pub(super) fn remaining(&self, since: Instant, now: Instant) -> Option<Duration> {
        let usual = self.average?;
        let elapsed = now.saturating_duration_since(since);
        (elapsed <= usual * 2).then(|| usual.saturating_sub(elapsed))
    }
}

/// Returns the updated moving average.
pub(super) fn average(known: Option<Duration>, new: Duration) -> Duration {
    match known {
        None => new,
        Some(known) => known.mul_f64(1.0 - AVERAGE_WEIGHT) + new.mul_f64(AVERAGE_WEIGHT),
    }
}

/// Retention score of an idle container: the start time that it saves, times the number of recent
/// uses of containers like it, divided by the bytes it holds. Of several containers alike, the
/// second counts half, the third a third.
pub(super) fn retention_score(uses: f64, rank: usize, start: Duration, memory: u64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a ratio to compare by; memory and ranks stay far below 2^53"
    )]
    let held = (rank.max(1) as f64) * (memory.max(1) as f64);
    uses * start.as_secs_f64() / held
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn uses_fade() {
        let start = Instant::now();
        let mut stats = CheckoutStats::new(start);
        for _ in 0..4 {
            stats.record_use(start);
        }
        assert!((stats.uses(start) - 4.0).abs() < 1e-9);
        assert!((stats.uses(start + USE_HALF_LIFE) - 2.0).abs() < 1e-9);
        stats.record_use(start + USE_HALF_LIFE);
        assert!((stats.uses(start + USE_HALF_LIFE) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn a_checkout_that_takes_too_long_is_no_longer_predicted() {
        let start = Instant::now();
        let mut stats = CheckoutStats::new(start);
        assert_eq!(stats.remaining(start, start), None, "nothing is known");
        stats.record_return(SECOND);
        assert_eq!(stats.remaining(start, start), Some(SECOND));
        assert_eq!(
            stats.remaining(start, start + SECOND * 2),
            Some(Duration::ZERO)
        );
        assert_eq!(stats.remaining(start, start + SECOND * 3), None);
    }

    #[test]
    fn retention_score_follows_use_start_and_memory() {
        let base = retention_score(2.0, 1, SECOND, 100);
        for (case, other) in [
            ("used less", retention_score(1.0, 1, SECOND, 100)),
            ("one of two", retention_score(2.0, 2, SECOND, 100)),
            ("sooner back", retention_score(2.0, 1, SECOND / 2, 100)),
            ("larger", retention_score(2.0, 1, SECOND, 200)),
        ] {
            assert!(other < base, "case {case}");
        }
    }
}
