//! Health of a worker: its phase, and whether the Redis of each namespace answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Time after a scrape for which metrics of the whole queue are kept fresh.
const SCRAPE_LIFETIME: Duration = Duration::from_secs(120);

/// Health of a worker.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    phase: AtomicU8,
    /// Time of the last response of each namespace's Redis, in milliseconds after the start.
    last_responses_ms: Vec<AtomicU64>,
    /// Milliseconds after the start at which the metrics were last read, plus one; zero before
    /// that.
    last_scrape_ms: AtomicU64,
    stale_after: Duration,
}

/// WorkerPhase of a worker's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerPhase {
    /// Not yet claiming jobs.
    Starting,
    /// Claiming and running jobs.
    Serving,
    /// Finishing its running jobs.
    Draining,
}

impl Health {
    /// Creates the health of a starting worker with this number of namespaces. It is unhealthy if
    /// the Redis of one of them has not answered for `stale_after`.
    #[must_use]
    pub fn new(stale_after: Duration, namespaces: usize) -> Self {
        Self {
            started: Instant::now(),
            phase: AtomicU8::new(WorkerPhase::Starting as u8),
            last_responses_ms: (0..namespaces).map(|_| AtomicU64::new(0)).collect(),
            last_scrape_ms: AtomicU64::new(0),
            stale_after,
        }
    }

    /// Records that the metrics were read.
    pub(crate) fn record_scrape(&self) {
        let now = self.elapsed_ms().saturating_add(1);
        self.last_scrape_ms.store(now, Ordering::Relaxed);
    }

    /// Returns whether the metrics were scraped recently, so that it is worth asking Redis for the
    /// metrics of the whole queue.
    pub(crate) fn is_scraped(&self) -> bool {
        let last = self.last_scrape_ms.load(Ordering::Relaxed);
        let silent = self.elapsed_ms().saturating_sub(last);
        last > 0 && Duration::from_millis(silent) <= SCRAPE_LIFETIME
    }

    /// Moves to another phase.
    pub fn enter(&self, phase: WorkerPhase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Returns the handle that records responses of the Redis of namespace number `n`.
    #[must_use]
    pub fn redis_liveness(self: &Arc<Self>, n: usize) -> RedisLiveness {
        RedisLiveness(Arc::clone(self), n)
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the current phase.
    #[must_use]
    pub fn phase(&self) -> WorkerPhase {
        [
            WorkerPhase::Starting,
            WorkerPhase::Serving,
            WorkerPhase::Draining,
        ]
        .into_iter()
        .find(|phase| *phase as u8 == self.phase.load(Ordering::Relaxed))
        .unwrap_or(WorkerPhase::Starting)
    }

    /// Returns whether the Redis of every namespace has answered recently.
    #[must_use]
    pub fn redis_answers(&self) -> bool {
        let now = self.elapsed_ms();
        self.last_responses_ms.iter().all(|last| {
            let silent = now.saturating_sub(last.load(Ordering::Relaxed));
            Duration::from_millis(silent) <= self.stale_after
        })
    }
}

/// Handle that records that a namespace's Redis answers.
#[derive(Debug, Clone)]
pub struct RedisLiveness(Arc<Health>, usize);

impl RedisLiveness {
    /// Records that Redis has just answered.
    pub fn record(&self) {
        if let Some(last) = self.0.last_responses_ms.get(self.1) {
            last.store(self.0.elapsed_ms(), Ordering::Relaxed);
        }
    }
}
