//! The plan of a chaos run.

use std::path::PathBuf;
use std::time::Duration;

use sandhog_config::SandboxUnit;

/// The load and the faults of a chaos run.
#[derive(Debug, Clone)]
pub struct ChaosPlan {
    /// Workers of the run.
    pub workers_of: ChaosWorkers,
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
    /// Interval at which a random worker is killed and replaced. A container or a runner is killed
    /// in the middle of each interval.
    pub kill_every: Duration,
    /// Number of times that Redis is killed and restarted, spread over the span.
    pub redis_kills: usize,
    /// Approximate share of the jobs, in percent, that a worker holds when it is frozen. Only one
    /// worker is frozen at a time.
    pub frozen_percent: usize,
    /// Seed of all random choices.
    pub seed: u64,
}

/// Workers of a chaos run.
#[derive(Debug, Clone)]
pub enum ChaosWorkers {
    /// `sandhog-noop-worker`, whose jobs run no program. The value is its path.
    Noop(PathBuf),
    /// `sandhog worker`, whose jobs run in sandboxes of this unit. The containers and the runners
    /// of sandboxes are killed too.
    Real(SandboxUnit),
}

impl ChaosPlan {
    /// Number of workers that are killed.
    pub(super) fn worker_kills(&self) -> usize {
        let kills = self.span.as_millis() / self.kill_every.as_millis().max(1);
        usize::try_from(kills).expect("a storm is not that long")
    }
}
