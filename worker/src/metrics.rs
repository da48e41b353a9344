//! Every metric's name, in one scheme: `sandhog_<noun>_<unit>[_total]`.
//!
//! Labels come from closed sets (outcomes, error codes) or validated names (namespace, class); nothing a job printed is ever a
//! label.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use sandhog_common::id::{Class, Namespace};
use sandhog_common::outcome::Outcome;
use sandhog_common::queue::Snapshot;
use sandhog_common::units::Millis;

use crate::pool::PoolCounts;

const JOBS_ADMITTED: &str = "sandhog_jobs_admitted_total";
const JOBS_REJECTED: &str = "sandhog_jobs_rejected_total";
const JOBS_FINISHED: &str = "sandhog_jobs_finished_total";
const ATTEMPTS_STARTED: &str = "sandhog_attempts_started_total";
const ATTEMPTS_LOST: &str = "sandhog_attempts_lost_total";
const JOBS_RETRIED: &str = "sandhog_jobs_retried_total";
const JOBS_GIVEN_BACK: &str = "sandhog_jobs_given_back_total";
const STALE_WRITES: &str = "sandhog_stale_writes_total";
const LEASES_REAPED: &str = "sandhog_leases_reaped_total";
const JOBS_PROMOTED: &str = "sandhog_jobs_promoted_total";
const JOBS_SCHEDULED: &str = "sandhog_jobs_scheduled_total";
const NAMESPACE_VANISHED: &str = "sandhog_namespace_vanished_total";
const LEASES_VANISHED: &str = "sandhog_leases_vanished_total";
const START_LATENCY: &str = "sandhog_start_latency_seconds";
const RUN_TIME: &str = "sandhog_run_time_seconds";
const SLOTS: &str = "sandhog_worker_slots";
const SLOTS_BUSY: &str = "sandhog_worker_slots_busy";
const SANDBOXES: &str = "sandhog_worker_sandboxes";
const SANDBOXES_STARTED: &str = "sandhog_sandboxes_started_total";
const SANDBOXES_FAILED: &str = "sandhog_sandboxes_start_failed_total";
const SANDBOXES_LENT: &str = "sandhog_sandboxes_lent_total";
const SANDBOXES_DESTROYED: &str = "sandhog_sandboxes_destroyed_total";
const POOL_WAITING: &str = "sandhog_pool_waiting_jobs";
const POOL_PLACES: &str = "sandhog_pool_places";
const POOL_MEMORY: &str = "sandhog_pool_memory_bytes";
const POOL_MEMORY_MAX: &str = "sandhog_pool_memory_max_bytes";
const POOL_CPU: &str = "sandhog_pool_cpu_millis";
const POOL_CPU_MAX: &str = "sandhog_pool_cpu_max_millis";
const READY: &str = "sandhog_queue_ready_jobs";
const HELD_BACK: &str = "sandhog_queue_held_back_jobs";
const PAUSED: &str = "sandhog_queue_paused";
const OLDEST: &str = "sandhog_queue_oldest_ready_seconds";
const RUNNING: &str = "sandhog_queue_running_jobs";
const DELAYED: &str = "sandhog_queue_delayed_jobs";
const INTAKE: &str = "sandhog_queue_intake_entries";
const DEAD: &str = "sandhog_queue_dead_letters";
const UNROUTABLE: &str = "sandhog_queue_unroutable_jobs";
const WORKERS: &str = "sandhog_queue_workers";

/// Seconds, from a fresh cell's start to the longest job.
const BUCKETS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0,
    3600.0,
];

/// Starts collecting, once for the process, and returns what renders the text format.
///
/// # Panics
/// Never in practice: the buckets are a literal that is not empty.
pub fn install() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
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

fn describe() {
    describe_counter!(
        JOBS_ADMITTED,
        "Jobs this worker took in from the intake stream"
    );
    describe_counter!(JOBS_REJECTED, "Jobs this worker refused, by error code");
    describe_counter!(JOBS_FINISHED, "Results this worker published, by outcome");
    describe_counter!(ATTEMPTS_STARTED, "Attempts this worker began");
    describe_counter!(
        ATTEMPTS_LOST,
        "Attempts this worker lost to a fault of ours"
    );
    describe_counter!(JOBS_RETRIED, "Jobs this worker put back to try again");
    describe_counter!(
        JOBS_GIVEN_BACK,
        "Jobs this worker gave back unfinished because it was stopping"
    );
    describe_counter!(
        STALE_WRITES,
        "Writes refused because the lease had gone to another worker"
    );
    describe_counter!(
        NAMESPACE_VANISHED,
        "How often Redis no longer held this worker's namespace: emptied, or another one"
    );
    describe_counter!(
        LEASES_VANISHED,
        "Leases that this worker held in a namespace that vanished"
    );
    describe_counter!(
        LEASES_REAPED,
        "Leases of silent workers that this worker took back"
    );
    describe_counter!(JOBS_PROMOTED, "Delayed jobs that this worker made ready");
    describe_counter!(
        JOBS_SCHEDULED,
        "Jobs that this worker submitted for a schedule"
    );
    describe_histogram!(START_LATENCY, "From being ready to the attempt's start");
    describe_histogram!(RUN_TIME, "From the attempt's start to its end, by outcome");
    describe_gauge!(
        HELD_BACK,
        "Ready jobs that wait for their tenants' limits or a pause to end, about, by class"
    );
    describe_gauge!(PAUSED, "Whether the queue is paused: 1 or 0");
    describe_gauge!(SLOTS, "Jobs this worker runs at once");
    describe_gauge!(SLOTS_BUSY, "Slots with a job in them");
    describe_gauge!(SANDBOXES, "Containers of this worker, by state");
    describe_counter!(SANDBOXES_STARTED, "Containers this worker started");
    describe_counter!(SANDBOXES_FAILED, "Containers that did not start");
    describe_counter!(SANDBOXES_LENT, "Attempts that were given a container");
    describe_counter!(SANDBOXES_DESTROYED, "Containers destroyed, by reason");
    describe_gauge!(POOL_WAITING, "Attempts waiting for a container");
    describe_gauge!(POOL_PLACES, "Containers there may be at once");
    describe_gauge!(
        POOL_MEMORY,
        "Memory set aside for running jobs and for containers"
    );
    describe_gauge!(POOL_MEMORY_MAX, "Memory there is to set aside");
    describe_gauge!(
        POOL_CPU,
        "CPU set aside for running jobs, in thousandths of a core"
    );
    describe_gauge!(
        POOL_CPU_MAX,
        "CPU there is to set aside, in thousandths of a core"
    );
    describe_gauge!(READY, "Jobs ready to be claimed, by class");
    describe_gauge!(
        OLDEST,
        "How long the longest-waiting next job has been ready, by class; 0 when none is"
    );
    describe_gauge!(RUNNING, "Jobs leased to a worker, by class");
    describe_gauge!(DELAYED, "Jobs waiting for their time");
    describe_gauge!(INTAKE, "Entries not admitted yet");
    describe_gauge!(DEAD, "Dead letters kept");
    describe_gauge!(
        UNROUTABLE,
        "Ready jobs that no live worker serves, by class"
    );
    describe_gauge!(WORKERS, "Workers with a recent heartbeat");
}

/// A job was taken in.
pub(crate) fn admitted() {
    counter!(JOBS_ADMITTED).increment(1);
}

/// A job was refused, at intake or by its image. `code` is one of our own words.
pub(crate) fn rejected(code: &str) {
    counter!(JOBS_REJECTED, "code" => code.to_owned()).increment(1);
}

/// An attempt began, this long after its job became ready.
pub(crate) fn attempt_started(waited: Duration) {
    counter!(ATTEMPTS_STARTED).increment(1);
    histogram!(START_LATENCY).record(waited);
}

/// An attempt ended with a published result.
pub(crate) fn finished(outcome: Outcome, ran: Duration) {
    counter!(JOBS_FINISHED, "outcome" => outcome.as_str()).increment(1);
    histogram!(RUN_TIME, "outcome" => outcome.as_str()).record(ran);
}

/// An attempt was lost to a fault of ours.
pub(crate) fn attempt_lost() {
    counter!(ATTEMPTS_LOST).increment(1);
}

/// A job was put back to try again.
pub(crate) fn retried() {
    counter!(JOBS_RETRIED).increment(1);
}

/// A job was given back unfinished.
pub(crate) fn given_back() {
    counter!(JOBS_GIVEN_BACK).increment(1);
}

/// A write was fenced off.
pub(crate) fn stale_write() {
    counter!(STALE_WRITES).increment(1);
}

/// A namespace was gone so many times, and so many leases with it.
pub(crate) fn vanished(namespace: &Namespace, times: u64, leases: usize) {
    counter!(NAMESPACE_VANISHED, "namespace" => namespace.to_string()).increment(times);
    counter!(LEASES_VANISHED, "namespace" => namespace.to_string()).increment(leases as u64);
}

/// Upkeep took back leases and promoted delayed jobs.
pub(crate) fn upkeep(reaped: u64, promoted: u64) {
    counter!(LEASES_REAPED).increment(reaped);
    counter!(JOBS_PROMOTED).increment(promoted);
}

/// Schedules were due and their jobs submitted.
pub(crate) fn scheduled(fired: u64) {
    counter!(JOBS_SCHEDULED).increment(fired);
}

/// How many slots there are and how many are taken.
pub(crate) fn slots(total: usize, busy: usize) {
    gauge!(SLOTS).set(as_f64(total as u64));
    gauge!(SLOTS_BUSY).set(as_f64(busy as u64));
}

/// What the pool has done and holds.
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

/// So many ready jobs of a class have no worker.
pub(crate) fn unroutable(namespace: &Namespace, class: &Class, jobs: u64) {
    gauge!(UNROUTABLE, "namespace" => namespace.to_string(), "class" => class.to_string())
        .set(as_f64(jobs));
}

/// The whole queue, as Redis sees it.
pub(crate) fn queue(namespace: &Namespace, snapshot: &Snapshot) {
    let namespace = namespace.to_string();
    for class in &snapshot.classes {
        let name = class.class.to_string();
        let oldest = class.oldest.unwrap_or(Millis(0)).duration();
        gauge!(OLDEST, "namespace" => namespace.clone(), "class" => name.clone())
            .set(oldest.as_secs_f64());
        gauge!(READY, "namespace" => namespace.clone(), "class" => name.clone())
            .set(as_f64(class.ready));
        gauge!(HELD_BACK, "namespace" => namespace.clone(), "class" => name.clone())
            .set(as_f64(class.held_back));
        gauge!(RUNNING, "namespace" => namespace.clone(), "class" => name)
            .set(as_f64(class.running));
    }
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
