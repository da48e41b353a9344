//! List of all metrics: name, kind, labels and meaning.
//!
//! Names follow one scheme, `sandhog_<noun>_<unit>[_total]`. The worker describes the metrics to
//! Prometheus from this list, and the table in docs/reference/metrics.md is generated from it. A
//! test compares the list with the metrics that a worker serves.

pub(super) const BUILD_INFO: &str = "sandhog_build_info";
pub(super) const JOBS_ADMITTED: &str = "sandhog_jobs_admitted_total";
pub(super) const JOBS_REJECTED: &str = "sandhog_jobs_rejected_total";
pub(super) const JOBS_FINISHED: &str = "sandhog_jobs_finished_total";
pub(super) const ATTEMPTS_STARTED: &str = "sandhog_attempts_started_total";
pub(super) const ATTEMPTS_LOST: &str = "sandhog_attempts_lost_total";
pub(super) const JOBS_RETRIED: &str = "sandhog_jobs_retried_total";
pub(super) const JOBS_GIVEN_BACK: &str = "sandhog_jobs_given_back_total";
pub(super) const STALE_WRITES: &str = "sandhog_stale_writes_total";
pub(super) const LEASES_REAPED: &str = "sandhog_leases_reaped_total";
pub(super) const JOBS_PROMOTED: &str = "sandhog_jobs_promoted_total";
pub(super) const JOBS_SCHEDULED: &str = "sandhog_jobs_scheduled_total";
pub(super) const NAMESPACE_VANISHED: &str = "sandhog_namespace_vanished_total";
pub(super) const LEASES_VANISHED: &str = "sandhog_leases_vanished_total";
pub(super) const START_LATENCY: &str = "sandhog_start_latency_seconds";
pub(super) const RUN_TIME: &str = "sandhog_run_time_seconds";
pub(super) const SLOTS: &str = "sandhog_worker_slots";
pub(super) const SLOTS_BUSY: &str = "sandhog_worker_slots_busy";
pub(super) const SANDBOXES: &str = "sandhog_worker_sandboxes";
pub(super) const SANDBOXES_STARTED: &str = "sandhog_sandboxes_started_total";
pub(super) const SANDBOXES_FAILED: &str = "sandhog_sandboxes_start_failed_total";
pub(super) const SANDBOXES_LENT: &str = "sandhog_sandboxes_lent_total";
pub(super) const SANDBOXES_DESTROYED: &str = "sandhog_sandboxes_destroyed_total";
pub(super) const POOL_WAITING: &str = "sandhog_pool_waiting_jobs";
pub(super) const POOL_PLACES: &str = "sandhog_pool_places";
pub(super) const POOL_MEMORY: &str = "sandhog_pool_memory_bytes";
pub(super) const POOL_MEMORY_MAX: &str = "sandhog_pool_memory_max_bytes";
pub(super) const POOL_CPU: &str = "sandhog_pool_cpu_millis";
pub(super) const POOL_CPU_MAX: &str = "sandhog_pool_cpu_max_millis";
pub(super) const MODEL_SERVERS: &str = "sandhog_model_servers";
pub(super) const MODEL_RUNNING: &str = "sandhog_model_running_jobs";
pub(super) const MODEL_WAITING: &str = "sandhog_model_waiting_jobs";
pub(super) const MODEL_MEMORY: &str = "sandhog_model_memory_bytes";
pub(super) const MODEL_CALLS: &str = "sandhog_model_calls_total";
pub(super) const MODEL_JOBS: &str = "sandhog_model_jobs_total";
pub(super) const MODEL_LOADS: &str = "sandhog_model_loads_total";
pub(super) const MODEL_LOADS_FAILED: &str = "sandhog_model_loads_failed_total";
pub(super) const MODEL_DEATHS: &str = "sandhog_model_deaths_total";
pub(super) const MODEL_LOAD_TIME: &str = "sandhog_model_load_time_seconds";
pub(super) const GPU_MEMORY: &str = "sandhog_gpu_memory_bytes";
pub(super) const GPU_MEMORY_USED: &str = "sandhog_gpu_memory_used_bytes";
pub(super) const GPU_UTILISATION: &str = "sandhog_gpu_utilisation_ratio";
pub(super) const GPU_HEALTHY: &str = "sandhog_gpu_healthy";
pub(super) const GPU_ASSIGNED: &str = "sandhog_gpu_assigned_jobs";
pub(super) const GPUS_LOST: &str = "sandhog_gpus_lost_total";
pub(super) const READY: &str = "sandhog_queue_ready_jobs";
pub(super) const HELD_BACK: &str = "sandhog_queue_held_back_jobs";
pub(super) const PAUSED: &str = "sandhog_queue_paused";
pub(super) const OLDEST: &str = "sandhog_queue_oldest_ready_seconds";
pub(super) const RUNNING: &str = "sandhog_queue_running_jobs";
pub(super) const DELAYED: &str = "sandhog_queue_delayed_jobs";
pub(super) const INTAKE: &str = "sandhog_queue_intake_entries";
pub(super) const DEAD: &str = "sandhog_queue_dead_letters";
pub(super) const UNROUTABLE: &str = "sandhog_queue_unroutable_jobs";
pub(super) const WORKERS: &str = "sandhog_queue_workers";

/// MetricKind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// A counter only grows, from zero when the worker starts.
    Counter,
    /// A gauge goes up and down.
    Gauge,
    /// A histogram counts values by range, and adds them up.
    Histogram,
}

impl MetricKind {
    /// Returns Prometheus' name for the kind.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The name.
    pub name: &'static str,
    /// The kind.
    pub kind: MetricKind,
    /// The labels that distinguish its series.
    pub labels: &'static [&'static str],
    /// The meaning.
    pub help: &'static str,
}

impl Metric {
    /// Returns whether only workers with containers serve it.
    #[must_use]
    pub fn is_of_containers(&self) -> bool {
        self.name.contains("_sandboxes") || self.name.contains("_pool_") || self.is_of_models()
    }

    /// Returns whether only workers that were asked for a model serve it.
    #[must_use]
    pub fn is_of_models(&self) -> bool {
        self.name.contains("_model_")
    }

    /// Returns whether only workers with GPUs serve it.
    #[must_use]
    pub fn is_of_gpus(&self) -> bool {
        self.labels.contains(&"gpu")
    }
}

const fn metric(
    name: &'static str,
    kind: MetricKind,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        labels,
        help,
    }
}

/// All metrics: the worker's actions, the worker's resources, and the state of the queue.
pub const CATALOGUE: &[Metric] = &[
    metric(
        BUILD_INFO,
        MetricKind::Gauge,
        &["version"],
        "Always 1; the label has the worker's version",
    ),
    metric(
        JOBS_ADMITTED,
        MetricKind::Counter,
        &[],
        "Jobs this worker took in from the intake stream",
    ),
    metric(
        JOBS_REJECTED,
        MetricKind::Counter,
        &["code"],
        "Jobs this worker rejected",
    ),
    metric(
        JOBS_FINISHED,
        MetricKind::Counter,
        &["outcome"],
        "Results this worker published",
    ),
    metric(
        ATTEMPTS_STARTED,
        MetricKind::Counter,
        &[],
        "Attempts this worker began",
    ),
    metric(
        ATTEMPTS_LOST,
        MetricKind::Counter,
        &[],
        "Attempts this worker lost through a fault of the service",
    ),
    metric(
        JOBS_RETRIED,
        MetricKind::Counter,
        &[],
        "Jobs this worker put back to try again",
    ),
    metric(
        JOBS_GIVEN_BACK,
        MetricKind::Counter,
        &[],
        "Jobs this worker gave back unfinished because it was stopping",
    ),
    metric(
        STALE_WRITES,
        MetricKind::Counter,
        &[],
        "Writes refused because the lease had gone to another worker",
    ),
    metric(
        LEASES_REAPED,
        MetricKind::Counter,
        &[],
        "Leases of silent workers that this worker took back",
    ),
    metric(
        JOBS_PROMOTED,
        MetricKind::Counter,
        &[],
        "Delayed jobs that this worker made ready",
    ),
    metric(
        JOBS_SCHEDULED,
        MetricKind::Counter,
        &[],
        "Jobs that this worker submitted for a schedule",
    ),
    metric(
        NAMESPACE_VANISHED,
        MetricKind::Counter,
        &["namespace"],
        "Times that this worker's namespace vanished from Redis: emptied, or replaced by another",
    ),
    metric(
        LEASES_VANISHED,
        MetricKind::Counter,
        &["namespace"],
        "Leases that this worker held in a namespace that vanished",
    ),
    metric(
        START_LATENCY,
        MetricKind::Histogram,
        &[],
        "Time from a job becoming ready to the start of its attempt",
    ),
    metric(
        RUN_TIME,
        MetricKind::Histogram,
        &["outcome"],
        "Time from the start of an attempt to its end",
    ),
    metric(
        SLOTS,
        MetricKind::Gauge,
        &[],
        "Jobs this worker runs at once",
    ),
    metric(
        SLOTS_BUSY,
        MetricKind::Gauge,
        &[],
        "Slots with a job in them",
    ),
    metric(
        SANDBOXES,
        MetricKind::Gauge,
        &["state"],
        "Sandboxes of this worker",
    ),
    metric(
        SANDBOXES_STARTED,
        MetricKind::Counter,
        &[],
        "Sandboxes this worker started",
    ),
    metric(
        SANDBOXES_FAILED,
        MetricKind::Counter,
        &[],
        "Sandboxes that did not start",
    ),
    metric(
        SANDBOXES_LENT,
        MetricKind::Counter,
        &[],
        "Attempts that were given a sandbox",
    ),
    metric(
        SANDBOXES_DESTROYED,
        MetricKind::Counter,
        &["reason"],
        "Sandboxes destroyed",
    ),
    metric(
        POOL_WAITING,
        MetricKind::Gauge,
        &[],
        "Attempts waiting for a sandbox",
    ),
    metric(
        POOL_PLACES,
        MetricKind::Gauge,
        &[],
        "Maximum number of sandboxes at once",
    ),
    metric(
        POOL_MEMORY,
        MetricKind::Gauge,
        &[],
        "Memory reserved for running jobs and for sandboxes",
    ),
    metric(
        POOL_MEMORY_MAX,
        MetricKind::Gauge,
        &[],
        "Total memory that can be reserved",
    ),
    metric(
        POOL_CPU,
        MetricKind::Gauge,
        &[],
        "CPU reserved for running jobs, in thousandths of a core",
    ),
    metric(
        POOL_CPU_MAX,
        MetricKind::Gauge,
        &[],
        "Total CPU that can be reserved, in thousandths of a core",
    ),
    metric(
        MODEL_SERVERS,
        MetricKind::Gauge,
        &["image"],
        "1 while the model's server takes calls, else 0",
    ),
    metric(
        MODEL_RUNNING,
        MetricKind::Gauge,
        &["image"],
        "Jobs and programs' inference requests that a model works on",
    ),
    metric(
        MODEL_WAITING,
        MetricKind::Gauge,
        &["image"],
        "Jobs and programs' inference requests that wait for a model",
    ),
    metric(
        MODEL_MEMORY,
        MetricKind::Gauge,
        &["image"],
        "Memory that a model's server may take; 0 while it is not loaded",
    ),
    metric(
        MODEL_CALLS,
        MetricKind::Counter,
        &["image"],
        "Calls sent to a model; a batch is one call",
    ),
    metric(
        MODEL_JOBS,
        MetricKind::Counter,
        &["image"],
        "Jobs and programs' inference requests sent to a model, over all batches",
    ),
    metric(
        MODEL_LOADS,
        MetricKind::Counter,
        &["image"],
        "Times that a model was loaded",
    ),
    metric(
        MODEL_LOADS_FAILED,
        MetricKind::Counter,
        &["image"],
        "Times that a model did not load",
    ),
    metric(
        MODEL_DEATHS,
        MetricKind::Counter,
        &["image"],
        "Times that a model's server died or had to be replaced",
    ),
    metric(
        MODEL_LOAD_TIME,
        MetricKind::Histogram,
        &["image"],
        "Time from the request for a model's server until it is ready, warm-up included",
    ),
    metric(
        GPU_MEMORY,
        MetricKind::Gauge,
        &["gpu", "model"],
        "Total memory of the GPU",
    ),
    metric(
        GPU_MEMORY_USED,
        MetricKind::Gauge,
        &["gpu", "model"],
        "Memory of the GPU that is in use by any process",
    ),
    metric(
        GPU_UTILISATION,
        MetricKind::Gauge,
        &["gpu", "model"],
        "Fraction of the last sampling period in which the GPU was busy, 0 to 1",
    ),
    metric(
        GPU_HEALTHY,
        MetricKind::Gauge,
        &["gpu", "model"],
        "1 while the GPU works, 0 once it has failed",
    ),
    metric(
        GPU_ASSIGNED,
        MetricKind::Gauge,
        &["gpu", "model"],
        "Jobs and model servers that the GPU is assigned to",
    ),
    metric(
        GPUS_LOST,
        MetricKind::Counter,
        &[],
        "GPUs that failed since this worker started",
    ),
    metric(
        READY,
        MetricKind::Gauge,
        &["namespace", "class"],
        "Jobs ready to be claimed",
    ),
    metric(
        HELD_BACK,
        MetricKind::Gauge,
        &["namespace", "class"],
        "Ready jobs that wait for their tenants' limits or for the end of a pause (approximate)",
    ),
    metric(
        PAUSED,
        MetricKind::Gauge,
        &["namespace"],
        "1 while the queue is paused, else 0",
    ),
    metric(
        OLDEST,
        MetricKind::Gauge,
        &["namespace", "class"],
        "Time since the longest-waiting next job became ready; 0 if none is ready",
    ),
    metric(
        RUNNING,
        MetricKind::Gauge,
        &["namespace", "class"],
        "Jobs leased to a worker",
    ),
    metric(
        DELAYED,
        MetricKind::Gauge,
        &["namespace"],
        "Jobs whose delay has not passed yet",
    ),
    metric(
        INTAKE,
        MetricKind::Gauge,
        &["namespace"],
        "Entries not admitted yet",
    ),
    metric(DEAD, MetricKind::Gauge, &["namespace"], "Dead letters kept"),
    metric(
        UNROUTABLE,
        MetricKind::Gauge,
        &["namespace", "class"],
        "Ready jobs that no live worker serves",
    ),
    metric(
        WORKERS,
        MetricKind::Gauge,
        &["namespace"],
        "Workers with a recent heartbeat",
    ),
];
