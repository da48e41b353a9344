//! Metrics in Prometheus format. [`CATALOGUE`] lists all of them.
//!
//! Label values come from closed sets (outcomes, error codes) or are validated names (namespace,
//! class); output of a job is never a label value.

mod catalogue;
mod class_labels;
mod gauge_value;
mod gpu;
mod job;
mod model;
mod pool;
mod queue;
mod recorder;
mod slot;

pub use catalogue::{CATALOGUE, Metric, MetricKind};
pub(crate) use class_labels::ClassLabels;
pub(crate) use gpu::{gpu_lost, set_gpus};
pub(crate) use job::{
    attempt_lost, attempt_started, job_admitted, job_finished, job_given_back, job_rejected,
    job_retried, stale_write,
};
pub(crate) use model::{model_called, model_died, model_loaded, model_not_loaded, set_models};
pub(crate) use pool::{PoolMetrics, set_pool};
pub(crate) use queue::{jobs_scheduled, maintenance_round, namespace_vanished};
pub(crate) use recorder::drain_histograms;
pub use recorder::install_recorder;
pub(crate) use slot::set_slots;
