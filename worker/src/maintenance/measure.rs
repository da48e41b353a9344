//! Metrics of everything that the namespaces of a worker share.

use super::worker_load::WorkerLoad;
use crate::metrics::{self, PoolMetrics};
use crate::pool::PoolCounts;

/// Sets the metrics of the worker's slots, containers, models and GPUs.
pub(super) fn measure_worker(load: &WorkerLoad) {
    metrics::set_slots(load.slots(), load.busy());
    metrics::set_gpus(&load.gpus());
    if let Some(counts) = load.pool_counts() {
        metrics::set_pool(&pool_metrics(&counts));
    }
    metrics::set_models(&load.model_facts());
}

fn pool_metrics(counts: &PoolCounts) -> PoolMetrics {
    PoolMetrics {
        idle: counts.idle,
        busy: counts.busy,
        starting: counts.starting,
        leaving: counts.leaving,
        evicted: counts.evicted,
        expired: counts.expired,
        retired: counts.retired,
        spoiled: counts.spoiled,
        grown: counts.grown,
        started: counts.started,
        failed: counts.failed,
        lent: counts.lent,
        waiting: counts.waiting,
        containers_max: counts.containers_max,
        memory: counts.memory,
        memory_max: counts.memory_max,
        cpu_millis: counts.cpu_millis,
        cpu_millis_max: counts.cpu_millis_max,
    }
}
