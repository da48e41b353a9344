//! The plan of a chaos run.

use std::path::PathBuf;
use std::time::Duration;

/// The load and the faults of a chaos run.
#[derive(Debug, Clone)]
pub struct ChaosPlan {
    /// Path of the built `sandhog-noop-worker`.
    pub program: PathBuf,
    /// Number of jobs, each with its own id.
    pub jobs: usize,
    /// Time over which the jobs are submitted. Processes are killed only during this time.
    pub span: Duration,
    /// Number of workers alive at any time.
    pub workers: usize,
    /// Number of jobs that each worker runs at once.
    pub slots: usize,
    /// Lease of the workers.
    pub lease: Duration,
    /// Longest sleep of a job.
    pub most_sleep: Duration,
    /// Interval at which a random worker is killed and replaced.
    pub kill_every: Duration,
    /// Number of times that Redis is killed and restarted, spread over the span.
    pub redis_kills: usize,
    /// Approximate share of the jobs, in percent, that a worker holds when it is frozen. Only one
    /// worker is frozen at a time.
    pub frozen_percent: usize,
    /// Seed of all random choices.
    pub seed: u64,
}

impl ChaosPlan {
    /// Number of workers that are killed.
    pub(super) fn worker_kills(&self) -> usize {
        let kills = self.span.as_millis() / self.kill_every.as_millis().max(1);
        usize::try_from(kills).expect("a storm is not that long")
    }
}
