//! When a job runs again: pure policy, no clock and no I/O.
//!
//! What a program did wrong is a result and is not retried here. A fault of ours is retried after a wait that doubles
//! with each loss, with full jitter (Marc Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), so
//! that jobs lost together do not come back together.

use sandhog_common::units::Millis;

/// No wait is longer than this: 10 minutes.
pub const LONGEST_WAIT: Millis = Millis(600_000);

/// What becomes of a job after a fault of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterFault {
    /// Run it again, after this wait.
    Retry(Millis),
    /// It has been lost too often.
    GiveUp,
}

/// Decides for a job that has now been lost `lost` times, this one included. `random` is in `0.0..1.0`.
#[must_use]
pub fn after_fault(lost: u32, max_lost: u32, base: Millis, random: f64) -> AfterFault {
    if lost >= max_lost {
        AfterFault::GiveUp
    } else {
        AfterFault::Retry(wait(lost, base, random))
    }
}

/// The wait before retry number `retry` (1 is the first): between zero and `base × 2^(retry-1)`, capped.
#[must_use]
pub fn wait(retry: u32, base: Millis, random: f64) -> Millis {
    let doublings = retry.saturating_sub(1).min(32);
    let longest = base.0.saturating_mul(1 << doublings).min(LONGEST_WAIT.0);
    Millis::from(Millis(longest).duration().mul_f64(random.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_cap_with_full_jitter() {
        let base = Millis(1000);
        for (case, retry, random, want) in [
            ("no luck", 1, 0.0, 0),
            ("first, longest", 1, 1.0, 1000),
            ("third, longest", 3, 1.0, 4000),
            ("half the jitter", 3, 0.5, 2000),
            ("capped", 30, 1.0, LONGEST_WAIT.0),
            ("far beyond", u32::MAX, 1.0, LONGEST_WAIT.0),
        ] {
            assert_eq!(wait(retry, base, random), Millis(want), "case {case}");
        }
    }

    #[test]
    fn a_poison_job_is_given_up() {
        assert_eq!(after_fault(3, 3, Millis(1), 0.5), AfterFault::GiveUp);
        assert!(matches!(
            after_fault(2, 3, Millis(1), 0.5),
            AfterFault::Retry(_)
        ));
        assert_eq!(
            after_fault(1, 0, Millis(1), 0.5),
            AfterFault::GiveUp,
            "zero retries none"
        );
    }
}
