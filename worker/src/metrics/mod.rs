//! Metrics in Prometheus format. [`CATALOGUE`] lists all of them.
//!
//! Label values come from closed sets (outcomes, error codes) or are validated names (namespace,
//! class); output of a job is never a label value.

mod catalogue;
mod classes;

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use sandhog_common::gpu::GpuFacts;
use sandhog_common::id::{ImageName, Namespace, Tag};
use sandhog_common::outcome::Outcome;
use sandhog_common::queue::{ModelFacts, Snapshot};

use crate::pool::PoolCounts;

use catalogue::{
    ATTEMPTS_LOST, ATTEMPTS_STARTED, BUILD_INFO, DEAD, DELAYED, GPU_ASSIGNED, GPU_HEALTHY,
    GPU_MEMORY, GPU_MEMORY_USED, GPU_UTILISATION, GPUS_LOST, INTAKE, JOBS_ADMITTED, JOBS_FINISHED,
    JOBS_GIVEN_BACK, JOBS_PROMOTED, JOBS_REJECTED, JOBS_RETRIED, JOBS_SCHEDULED, LEASES_REAPED,
    LEASES_VANISHED, MODEL_CALLS, MODEL_DEATHS, MODEL_JOBS, MODEL_LOAD_TIME, MODEL_LOADS,
    MODEL_LOADS_FAILED, MODEL_MEMORY, MODEL_RUNNING, MODEL_SERVERS, MODEL_WAITING,
    NAMESPACE_VANISHED, PAUSED, POOL_CPU, POOL_CPU_MAX, POOL_MEMORY, POOL_MEMORY_MAX, POOL_PLACES,
    POOL_WAITING, RUN_TIME, SANDBOXES, SANDBOXES_DESTROYED, SANDBOXES_FAILED, SANDBOXES_LENT,
    SANDBOXES_STARTED, SLOTS, SLOTS_BUSY, STALE_WRITES, START_LATENCY, WORKERS,
};
pub use catalogue::{CATALOGUE, Kind, Metric};
pub(crate) use classes::ClassLabels;

/// Bucket limits in seconds, from the start of a fresh cell to the longest job.
const BUCKETS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0,
    3600.0,
];

/// Renderer of the metrics, set once collection has started.
static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts collecting, once for the process, and returns the renderer of the text format.
///
/// # Panics
/// Never in practice: the list of buckets is a non-empty literal.
pub fn install() -> &'static PrometheusHandle {
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)
            .expect("the buckets are not empty")
            .build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!("another metrics recorder is installed; /metrics will stay empty");
        }
        describe();
        handle
    })
}

/// Sorts recorded durations into their buckets. The recorder keeps each one separately until then,
/// so the worker must call this regularly even if no client reads the metrics; otherwise they fill
/// the memory.
pub(crate) fn fold() {
    if let Some(handle) = HANDLE.get() {
        handle.run_upkeep();
    }
}

fn describe() {
    for metric in CATALOGUE {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Gauge => describe_gauge!(metric.name, metric.help),
            Kind::Histogram => describe_histogram!(metric.name, metric.help),
        }
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // Serving a counter from zero on makes its first increment visible to Prometheus.
    for metric in CATALOGUE {
        if metric.kind == Kind::Counter && metric.labels.is_empty() && !metric.is_of_containers() {
            counter!(metric.name).increment(0);
        }
    }
    for outcome in Outcome::ALL {
        counter!(JOBS_FINISHED, "outcome" => outcome.as_str()).increment(0);
    }
}

/// Counts a job admitted from the intake stream.
pub(crate) fn admitted() {
    counter!(JOBS_ADMITTED).increment(1);
}

/// Counts a job rejected at intake or because of its image. `code` is one of Sandhog's own codes.
pub(crate) fn rejected(code: &str) {
    counter!(JOBS_REJECTED, "code" => code.to_owned()).increment(1);
}

/// Records the start of an attempt, and the time since its job became ready.
pub(crate) fn attempt_started(waited: Duration) {
    counter!(ATTEMPTS_STARTED).increment(1);
    histogram!(START_LATENCY).record(waited);
}

/// Records an attempt that ended with a published result, and its run time.
pub(crate) fn finished(outcome: Outcome, ran: Duration) {
    counter!(JOBS_FINISHED, "outcome" => outcome.as_str()).increment(1);
    histogram!(RUN_TIME, "outcome" => outcome.as_str()).record(ran);
}

/// Counts an attempt lost through a fault of the service.
pub(crate) fn attempt_lost() {
    counter!(ATTEMPTS_LOST).increment(1);
}

/// Counts a job put back for another attempt.
pub(crate) fn retried() {
    counter!(JOBS_RETRIED).increment(1);
}

/// Counts a job given back unfinished.
pub(crate) fn given_back() {
    counter!(JOBS_GIVEN_BACK).increment(1);
}

/// Counts a write rejected by the fencing token.
pub(crate) fn stale_write() {
    counter!(STALE_WRITES).increment(1);
}

/// Counts how often a namespace has vanished, and the leases lost with it.
pub(crate) fn vanished(namespace: &Namespace, times: u64, leases: usize) {
    counter!(NAMESPACE_VANISHED, "namespace" => namespace.to_string()).increment(times);
    counter!(LEASES_VANISHED, "namespace" => namespace.to_string()).increment(leases as u64);
}

/// Counts the leases that upkeep took back and the delayed jobs that it promoted.
pub(crate) fn upkeep(reaped: u64, promoted: u64) {
    counter!(LEASES_REAPED).increment(reaped);
    counter!(JOBS_PROMOTED).increment(promoted);
}

/// Counts jobs submitted for due schedules.
pub(crate) fn scheduled(fired: u64) {
    counter!(JOBS_SCHEDULED).increment(fired);
}

/// Sets the gauges of the slots: the total and the busy ones.
pub(crate) fn slots(total: usize, busy: usize) {
    gauge!(SLOTS).set(as_f64(total as u64));
    gauge!(SLOTS_BUSY).set(as_f64(busy as u64));
}

/// Sets the pool's counters and gauges.
pub(crate) fn pool(counts: &PoolCounts) {
    for (state, count) in [
        ("idle", counts.idle),
        ("busy", counts.busy),
        ("starting", counts.starting),
        ("leaving", counts.leaving),
    ] {
        gauge!(SANDBOXES, "state" => state).set(as_f64(count as u64));
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
    gauge!(POOL_WAITING).set(as_f64(counts.waiting as u64));
    gauge!(POOL_PLACES).set(as_f64(counts.containers_max as u64));
    gauge!(POOL_MEMORY).set(as_f64(counts.memory));
    gauge!(POOL_MEMORY_MAX).set(as_f64(counts.memory_max));
    gauge!(POOL_CPU).set(as_f64(counts.cpu_millis));
    gauge!(POOL_CPU_MAX).set(as_f64(counts.cpu_millis_max));
}

/// Sets the gauges of this worker's models.
pub(crate) fn models(facts: &[ModelFacts]) {
    for model in facts {
        let image = model.image.to_string();
        let serves = model.state.serves();
        let memory = if serves { model.memory.0 } else { 0 };
        gauge!(MODEL_SERVERS, "image" => image.clone()).set(as_f64(serves.into()));
        gauge!(MODEL_RUNNING, "image" => image.clone()).set(as_f64(model.running.into()));
        gauge!(MODEL_WAITING, "image" => image.clone()).set(as_f64(model.waiting.into()));
        gauge!(MODEL_MEMORY, "image" => image.clone()).set(as_f64(memory));
        // Served from zero on.
        for name in [
            MODEL_CALLS,
            MODEL_JOBS,
            MODEL_LOADS,
            MODEL_LOADS_FAILED,
            MODEL_DEATHS,
        ] {
            counter!(name, "image" => image.clone()).increment(0);
        }
    }
}

/// Counts a failed GPU.
pub(crate) fn gpu_lost() {
    counter!(GPUS_LOST).increment(1);
}

/// Sets the gauges of the GPUs.
pub(crate) fn gpus(gpus: &[GpuFacts]) {
    for facts in gpus {
        let model = facts.tag.as_ref().map_or("", Tag::as_str).to_owned();
        let set = |name: &'static str, value: f64| {
            gauge!(name, "gpu" => facts.uuid.clone(), "model" => model.clone()).set(value);
        };
        set(GPU_MEMORY, as_f64(facts.memory.0));
        set(GPU_MEMORY_USED, as_f64(facts.memory_used.0));
        set(GPU_HEALTHY, as_f64(facts.failure.is_none().into()));
        set(GPU_ASSIGNED, as_f64(facts.assigned.into()));
        if let Some(percent) = facts.utilisation_percent {
            set(GPU_UTILISATION, f64::from(percent) / 100.0);
        }
    }
}

/// Records a loaded model, and the time that loading took.
pub(crate) fn model_loaded(image: &ImageName, took: Duration) {
    counter!(MODEL_LOADS, "image" => image.to_string()).increment(1);
    histogram!(MODEL_LOAD_TIME, "image" => image.to_string()).record(took);
}

/// Counts a model that did not load.
pub(crate) fn model_not_loaded(image: &ImageName) {
    counter!(MODEL_LOADS_FAILED, "image" => image.to_string()).increment(1);
}

/// Counts a model server that died.
pub(crate) fn model_died(image: &ImageName) {
    counter!(MODEL_DEATHS, "image" => image.to_string()).increment(1);
}

/// Counts a call to a model, and the jobs in it.
pub(crate) fn model_called(image: &ImageName, jobs: usize) {
    counter!(MODEL_CALLS, "image" => image.to_string()).increment(1);
    counter!(MODEL_JOBS, "image" => image.to_string()).increment(jobs as u64);
}

/// Sets the gauges of the whole queue, as Redis reports it, except those of its classes.
fn queue(namespace: &Namespace, snapshot: &Snapshot) {
    let namespace = namespace.to_string();
    gauge!(PAUSED, "namespace" => namespace.clone()).set(as_f64(snapshot.paused.into()));
    gauge!(DELAYED, "namespace" => namespace.clone()).set(as_f64(snapshot.delayed));
    gauge!(INTAKE, "namespace" => namespace.clone()).set(as_f64(snapshot.intake));
    gauge!(DEAD, "namespace" => namespace.clone()).set(as_f64(snapshot.dead));
    gauge!(WORKERS, "namespace" => namespace).set(as_f64(snapshot.workers));
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float; counts stay far below 2^53"
)]
fn as_f64(count: u64) -> f64 {
    count as f64
}
