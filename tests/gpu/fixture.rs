//! Fixture of the GPU tests: settings with a fake driver library.

use sandhog_config::GpuSettings;
use sandhog_core::class::Class;
use sandhog_core::gpu::{GpuFacts, GpuNeed};
use sandhog_core::units::{ByteCount, Millis};
use sandhog_testkit::eventually::eventually_async;
use sandhog_testkit::namespace::WAIT_TIMEOUT;
use sandhog_testkit::nvml::FakeNvml;
use sandhog_worker::gpu::{Demand, Gpus};

/// Returns settings for the fake, with a short interval between health checks.
pub(crate) fn settings(stand_in: &FakeNvml) -> GpuSettings {
    GpuSettings {
        library: Some(stand_in.library()),
        check_ms: Millis(20),
        ..GpuSettings::default()
    }
}

/// Starts with two GPUs, each for one job at a time.
pub(crate) async fn two_gpus() -> (FakeNvml, Gpus) {
    let stand_in = FakeNvml::build();
    let gpus = Gpus::start(&settings(&stand_in)).await.unwrap();
    (stand_in, gpus)
}

/// Returns the demand of a job of this class that makes no other GPU request.
pub(crate) fn demand(gpus: &Gpus, class: &str) -> Demand {
    let class: Class = class.parse().unwrap();
    gpus.demand(None, None, &class).unwrap().unwrap()
}

/// Returns a demand for this much of one GPU's memory.
pub(crate) fn memory_demand(gib: u64) -> Demand {
    Demand::of(GpuNeed {
        count: 1,
        memory: Some(ByteCount(gib << 30)),
    })
}

/// Waits until `enough` accepts the facts.
pub(crate) async fn wait_for_facts(
    gpus: &Gpus,
    enough: impl Fn(&[GpuFacts]) -> bool,
) -> Vec<GpuFacts> {
    eventually_async(WAIT_TIMEOUT, async || {
        let facts = gpus.facts();
        if enough(&facts) {
            return Ok(facts);
        }
        Err(format!("the facts are {facts:?}"))
    })
    .await
}
