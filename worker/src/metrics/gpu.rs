//! Metrics of the GPUs.

use metrics::{counter, gauge};
use sandhog_core::gpu::GpuFacts;
use sandhog_core::id::Tag;

use super::catalogue::{
    GPU_ASSIGNED, GPU_HEALTHY, GPU_MEMORY, GPU_MEMORY_USED, GPU_UTILISATION, GPUS_LOST,
};
use super::gauge_value::gauge_value;

/// Counts a failed GPU.
pub(crate) fn gpu_lost() {
    counter!(GPUS_LOST).increment(1);
}

/// Sets the gauges of the GPUs.
pub(crate) fn set_gpus(gpus: &[GpuFacts]) {
    for facts in gpus {
        let model = facts.tag.as_ref().map_or("", Tag::as_str).to_owned();
        let set = |name: &'static str, value: f64| {
            gauge!(name, "gpu" => facts.uuid.clone(), "model" => model.clone()).set(value);
        };
        set(GPU_MEMORY, gauge_value(facts.memory.0));
        set(GPU_MEMORY_USED, gauge_value(facts.memory_used.0));
        set(GPU_HEALTHY, gauge_value(facts.failure.is_none().into()));
        set(GPU_ASSIGNED, gauge_value(facts.assigned.into()));
        if let Some(percent) = facts.utilisation_percent {
            set(GPU_UTILISATION, f64::from(percent) / 100.0);
        }
    }
}
