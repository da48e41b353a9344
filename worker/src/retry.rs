//! Decides when a job runs again: pure policy, without a clock and without I/O.
//!
//! An error of the program is the job's result, unless the job lists that outcome in `retry_on` and
//! has attempts left. A fault of the system is also retried, from a separate policy. Both kinds use
//! exponential backoff with full jitter (Marc Brooker, "Exponential Backoff And Jitter", AWS
//! Architecture Blog, 2015): the upper bound of the wait doubles with each retry, and the jitter
//! keeps jobs that ended together from returning together.

use sandhog_core::outcome::Outcome;
use sandhog_core::retry_on::RetryOn;
use sandhog_core::units::Millis;

/// Upper bound of every wait: 10 minutes.
pub const MAX_RETRY_WAIT: Millis = Millis(600_000);

/// Decision for a job after a fault of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Run the job again after this wait.
    Retry(Millis),
    /// Give the job up, because it has been lost too often.
    GiveUp,
}

/// Decides for a job that has been lost `lost` times, including this time. `random` is in
/// `0.0..1.0`.
#[must_use]
pub fn after_fault(lost: u32, max_lost: u32, base: Millis, random: f64) -> RetryDecision {
    if lost >= max_lost {
        RetryDecision::GiveUp
    } else {
        RetryDecision::Retry(retry_wait(lost, base, random))
    }
}

/// Retry policy of a job for outcomes that its own program causes, with the attempts made so far.
#[derive(Debug, Clone, Copy)]
pub struct RetryPolicy<'a> {
    /// Outcomes that are retried.
    pub retry_on: &'a RetryOn,
    /// Maximum number of attempts.
    pub max_attempts: u32,
    /// Number of attempts that were not lost, including the current one.
    pub spent: u32,
    /// Longest wait before the first retry.
    pub backoff: Millis,
}

/// Returns the wait before a job whose program ended with `outcome` is tried again, or `None` if
/// the outcome is the job's result. `random` is in `0.0..1.0`.
#[must_use]
pub fn after_outcome(outcome: Outcome, policy: RetryPolicy<'_>, random: f64) -> Option<Millis> {
    let again = policy.retry_on.contains(outcome) && policy.spent < policy.max_attempts;
    again.then(|| retry_wait(policy.spent, policy.backoff, random))
}

/// Returns the wait before retry number `retry` (1 is the first): between zero and `base ×
/// 2^(retry-1)`, capped at [`MAX_RETRY_WAIT`].
#[must_use]
pub fn retry_wait(retry: u32, base: Millis, random: f64) -> Millis {
    let doublings = retry.saturating_sub(1).min(32);
    let longest = base.0.saturating_mul(1 << doublings).min(MAX_RETRY_WAIT.0);
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
            ("capped", 30, 1.0, MAX_RETRY_WAIT.0),
            ("far beyond", u32::MAX, 1.0, MAX_RETRY_WAIT.0),
        ] {
            assert_eq!(retry_wait(retry, base, random), Millis(want), "case {case}");
        }
    }

    #[test]
    fn only_named_outcomes_are_tried_again_and_only_so_often() {
        let retry_on = "failed".parse().unwrap();
        for (case, outcome, spent, want) in [
            ("first", Outcome::Failed, 1, Some(1000)),
            ("second waits twice as long", Outcome::Failed, 2, Some(2000)),
            ("the last is the result", Outcome::Failed, 3, None),
            ("not named", Outcome::TimedOut, 1, None),
            ("good", Outcome::Succeeded, 1, None),
            ("cancelled", Outcome::Cancelled, 1, None),
        ] {
            let policy = RetryPolicy {
                retry_on: &retry_on,
                max_attempts: 3,
                spent,
                backoff: Millis(1000),
            };
            let wait = after_outcome(outcome, policy, 1.0);
            assert_eq!(wait, want.map(Millis), "case {case}");
        }
    }

    #[test]
    fn a_poison_job_is_given_up() {
        assert_eq!(after_fault(3, 3, Millis(1), 0.5), RetryDecision::GiveUp);
        assert!(matches!(
            after_fault(2, 3, Millis(1), 0.5),
            RetryDecision::Retry(_)
        ));
        assert_eq!(
            after_fault(1, 0, Millis(1), 0.5),
            RetryDecision::GiveUp,
            "zero retries none"
        );
    }
}
