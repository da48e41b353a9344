//! Collection of the metrics of this process.

use std::sync::OnceLock;

use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use sandhog_core::outcome::Outcome;

use super::catalogue::{BUILD_INFO, CATALOGUE, JOBS_FINISHED, MetricKind};

/// Bucket limits in seconds, from the start of a fresh cell to the longest job.
const HISTOGRAM_BUCKETS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0,
    3600.0,
];

/// Renderer of the metrics, set once collection has started.
static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Starts collecting, once for the process, and returns the renderer of the text format.
///
/// # Panics
/// Never in practice: the list of buckets is a non-empty literal.
pub fn install_recorder() -> &'static PrometheusHandle {
    HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &HISTOGRAM_BUCKETS)
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
pub(crate) fn drain_histograms() {
    if let Some(handle) = HANDLE.get() {
        handle.run_upkeep();
    }
}

fn describe() {
    for metric in CATALOGUE {
        match metric.kind {
            MetricKind::Counter => describe_counter!(metric.name, metric.help),
            MetricKind::Gauge => describe_gauge!(metric.name, metric.help),
            MetricKind::Histogram => describe_histogram!(metric.name, metric.help),
        }
    }
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    // Serving a counter from zero on makes its first increment visible to Prometheus.
    for metric in CATALOGUE {
        if metric.kind == MetricKind::Counter
            && metric.labels.is_empty()
            && !metric.is_of_containers()
        {
            counter!(metric.name).increment(0);
        }
    }
    for outcome in Outcome::ALL {
        counter!(JOBS_FINISHED, "outcome" => outcome.as_str()).increment(0);
    }
}
