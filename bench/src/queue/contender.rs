//! A contender of the benchmark.
//!
//! Each queue is used as its own documentation shows: with its own worker command, and its own bulk
//! call if it has one. Its producer waits by counting stored results, which costs Redis nearly
//! nothing.

use std::time::Duration;

/// Time after which the benchmark gives up on a turn.
pub(crate) const WAIT_TIMEOUT: Duration = Duration::from_secs(600);

/// A queue with its worker.
pub(super) trait Contender {
    /// Returns the name.
    fn name(&self) -> &'static str;
    /// Returns whether it takes full turns.
    fn is_fast(&self) -> bool;
    /// Starts its worker, and returns after the worker has run a job.
    fn start(&mut self) -> anyhow::Result<()>;
    /// Runs a turn, and returns the time from the first submission to the last stored result.
    fn turn(&mut self, jobs: usize) -> anyhow::Result<Duration>;
    /// Stops its worker.
    fn stop(&mut self);
}
