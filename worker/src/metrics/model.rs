//! Metrics of the models.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use sandhog_core::id::ImageName;
use sandhog_queue::ModelFacts;

use super::catalogue::{
    MODEL_CALLS, MODEL_DEATHS, MODEL_JOBS, MODEL_LOAD_TIME, MODEL_LOADS, MODEL_LOADS_FAILED,
    MODEL_MEMORY, MODEL_RUNNING, MODEL_SERVERS, MODEL_WAITING,
};
use super::gauge_value::gauge_value;

/// Sets the gauges of this worker's models.
pub(crate) fn set_models(facts: &[ModelFacts]) {
    for model in facts {
        let image = model.image.to_string();
        let serves = model.state.serves();
        let memory = if serves { model.memory.0 } else { 0 };
        gauge!(MODEL_SERVERS, "image" => image.clone()).set(gauge_value(serves.into()));
        gauge!(MODEL_RUNNING, "image" => image.clone()).set(gauge_value(model.running.into()));
        gauge!(MODEL_WAITING, "image" => image.clone()).set(gauge_value(model.waiting.into()));
        gauge!(MODEL_MEMORY, "image" => image.clone()).set(gauge_value(memory));
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
