//! Metrics of a namespace and of its maintenance by this worker.

use metrics::{counter, gauge};
use sandhog_core::id::Namespace;
use sandhog_queue::Snapshot;

use super::catalogue::{
    DEAD, DELAYED, INTAKE, JOBS_PROMOTED, JOBS_SCHEDULED, LEASES_REAPED, LEASES_VANISHED,
    NAMESPACE_VANISHED, PAUSED, WORKERS,
};
use super::gauge_value::gauge_value;

/// Counts how often a namespace has vanished, and the leases lost with it.
pub(crate) fn namespace_vanished(namespace: &Namespace, times: u64, leases: usize) {
    counter!(NAMESPACE_VANISHED, "namespace" => namespace.to_string()).increment(times);
    counter!(LEASES_VANISHED, "namespace" => namespace.to_string()).increment(leases as u64);
}

/// Counts the leases that a maintenance round took back and the delayed jobs that it promoted.
pub(crate) fn maintenance_round(reaped: u64, promoted: u64) {
    counter!(LEASES_REAPED).increment(reaped);
    counter!(JOBS_PROMOTED).increment(promoted);
}

/// Counts jobs submitted for due schedules.
pub(crate) fn jobs_scheduled(fired: u64) {
    counter!(JOBS_SCHEDULED).increment(fired);
}

/// Sets the gauges of the whole queue, as Redis reports it, except those of its classes.
pub(super) fn set_queue(namespace: &Namespace, snapshot: &Snapshot) {
    let namespace = namespace.to_string();
    gauge!(PAUSED, "namespace" => namespace.clone()).set(gauge_value(snapshot.paused.into()));
    gauge!(DELAYED, "namespace" => namespace.clone()).set(gauge_value(snapshot.delayed));
    gauge!(INTAKE, "namespace" => namespace.clone()).set(gauge_value(snapshot.intake));
    gauge!(DEAD, "namespace" => namespace.clone()).set(gauge_value(snapshot.dead));
    gauge!(WORKERS, "namespace" => namespace).set(gauge_value(snapshot.workers));
}
