//! Exponential backoff: growing waits between the tries of an operation. It computes the waits; the
//! caller sleeps.

use std::time::Duration;

/// Waits between the tries of an operation: each is twice as long as the one before, up to a
/// maximum. A success starts the series again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    /// The latest wait; `None` before the first one.
    last: Option<Duration>,
}

impl Backoff {
    /// Creates a backoff whose first wait is `initial` and whose longest wait is `max`.
    #[must_use]
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self {
            initial,
            max,
            last: None,
        }
    }

    /// Returns whether a wait was returned since the last reset.
    #[must_use]
    pub const fn has_started(&self) -> bool {
        self.last.is_some()
    }

    /// Returns the wait before the next try.
    #[must_use]
    pub fn next_wait(&mut self) -> Duration {
        let doubled = |last: Duration| last.saturating_mul(2).min(self.max);
        let wait = self.last.map_or(self.initial, doubled);
        self.last = Some(wait);
        wait
    }

    /// Starts the series of waits again.
    pub fn reset(&mut self) {
        self.last = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waits_double_up_to_the_maximum_and_a_reset_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(300));
        assert!(!backoff.has_started());
        for want in [50, 100, 200, 300, 300] {
            assert_eq!(backoff.next_wait(), Duration::from_millis(want));
            assert!(backoff.has_started());
        }
        backoff.reset();
        assert!(!backoff.has_started());
        assert_eq!(backoff.next_wait(), Duration::from_millis(50));
    }
}
