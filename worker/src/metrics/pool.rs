//! Metrics of the pool of containers.

use metrics::{counter, gauge};

use super::catalogue::{
    POOL_CPU, POOL_CPU_MAX, POOL_MEMORY, POOL_MEMORY_MAX, POOL_PLACES, POOL_WAITING, SANDBOXES,
    SANDBOXES_DESTROYED, SANDBOXES_FAILED, SANDBOXES_LENT, SANDBOXES_STARTED,
};
use super::gauge_value::gauge_value;

/// The numbers of a worker's pool.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct PoolMetrics {
    /// Containers that run no job.
    pub(crate) idle: usize,
    /// Containers that run a job.
    pub(crate) busy: usize,
    /// Containers that are being started.
    pub(crate) starting: usize,
    /// Containers that are being removed.
    pub(crate) leaving: usize,
    /// Idle containers destroyed to make room, or because their image was rebuilt.
    pub(crate) evicted: u64,
    /// Containers destroyed because they were idle for too long.
    pub(crate) expired: u64,
    /// Containers destroyed because they had served their only job.
    pub(crate) retired: u64,
    /// Containers destroyed because their job did not end cleanly or they were found dead.
    pub(crate) spoiled: u64,
    /// Containers destroyed because their memory grew.
    pub(crate) grown: u64,
    /// Containers started.
    pub(crate) started: u64,
    /// Containers that did not start.
    pub(crate) failed: u64,
    /// Attempts that were given a container.
    pub(crate) lent: u64,
    /// Attempts that wait for a container.
    pub(crate) waiting: usize,
    /// Maximum number of containers.
    pub(crate) containers_max: usize,
    /// Reserved memory, in bytes.
    pub(crate) memory: u64,
    /// Total memory that can be reserved, in bytes.
    pub(crate) memory_max: u64,
    /// Reserved CPU, in thousandths of a core.
    pub(crate) cpu_millis: u64,
    /// Total CPU that can be reserved, in thousandths of a core.
    pub(crate) cpu_millis_max: u64,
}

/// Sets the pool's counters and gauges.
pub(crate) fn set_pool(counts: &PoolMetrics) {
    for (state, count) in [
        ("idle", counts.idle),
        ("busy", counts.busy),
        ("starting", counts.starting),
        ("leaving", counts.leaving),
    ] {
        gauge!(SANDBOXES, "state" => state).set(gauge_value(count as u64));
    }
    for (reason, count) in [
        ("evicted", counts.evicted),
        ("expired", counts.expired),
        ("retired", counts.retired),
        ("spoiled", counts.spoiled),
        ("grown", counts.grown),
    ] {
        counter!(SANDBOXES_DESTROYED, "reason" => reason).absolute(count);
    }
    counter!(SANDBOXES_STARTED).absolute(counts.started);
    counter!(SANDBOXES_FAILED).absolute(counts.failed);
    counter!(SANDBOXES_LENT).absolute(counts.lent);
    gauge!(POOL_WAITING).set(gauge_value(counts.waiting as u64));
    gauge!(POOL_PLACES).set(gauge_value(counts.containers_max as u64));
    gauge!(POOL_MEMORY).set(gauge_value(counts.memory));
    gauge!(POOL_MEMORY_MAX).set(gauge_value(counts.memory_max));
    gauge!(POOL_CPU).set(gauge_value(counts.cpu_millis));
    gauge!(POOL_CPU_MAX).set(gauge_value(counts.cpu_millis_max));
}
