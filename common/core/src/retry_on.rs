//! The outcomes after which a job's program is run again.
//!
//! A job may name only outcomes that its program caused. A job that succeeded, was cancelled,
//! expired or was rejected is never retried. A job that was lost by a fault of ours is retried
//! within a separate budget.

use std::str::FromStr;

use crate::id::clip;
use crate::outcome::{Fault, Outcome};

/// A set of outcomes, in the order of [`Outcome::ALL`]. On the wire: their names, separated by
/// commas.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RetryOn(Vec<Outcome>);

impl RetryOn {
    /// The allowed names, for error messages.
    pub const WANT: &str = "a comma-separated list of failed, timed_out, cpu_limit, out_of_memory, \
                            process_limit, scratch_limit, output_limit";

    /// Returns whether a job is retried after an attempt with this outcome.
    #[must_use]
    pub fn contains(&self, outcome: Outcome) -> bool {
        self.0.contains(&outcome)
    }

    /// Returns whether no outcome is retried.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A word that is not the name of a retryable outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot retry on outcome {word:?} (want {})", RetryOn::WANT)]
pub struct RetryOnError {
    word: String,
}

impl FromStr for RetryOn {
    type Err = RetryOnError;

    /// Parses names in any order. Empty text is the empty set.
    fn from_str(text: &str) -> Result<Self, RetryOnError> {
        let words: Vec<&str> = text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .collect();
        let known = |word: &str| {
            Outcome::ALL
                .iter()
                .any(|outcome| outcome.as_str() == word && outcome.fault() == Fault::Program)
        };
        if let Some(word) = words.iter().find(|word| !known(word)) {
            return Err(RetryOnError {
                word: clip(word, 80),
            });
        }
        let named = |outcome: &Outcome| words.contains(&outcome.as_str());
        Ok(Self(Outcome::ALL.into_iter().filter(named).collect()))
    }
}

impl std::fmt::Display for RetryOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.0.iter().map(|outcome| outcome.as_str()).collect();
        f.write_str(&names.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_program_did_is_tried_again() {
        for outcome in Outcome::ALL {
            let read = outcome.as_str().parse::<RetryOn>();
            assert_eq!(
                read.is_ok_and(|set| set.contains(outcome)),
                outcome.fault() == Fault::Program,
                "case {outcome}"
            );
        }
        let set: RetryOn = "timed_out, failed,failed".parse().unwrap();
        assert_eq!(set.to_string(), "failed,timed_out");
        assert!(!set.contains(Outcome::OutOfMemory));
        assert!("".parse::<RetryOn>().unwrap().is_empty());
        let error = "failed,cancelled".parse::<RetryOn>().unwrap_err();
        assert!(error.to_string().contains("\"cancelled\""), "{error}");
    }
}
