//! Fixture of the GPU tests: settings with a fake driver library.

use std::time::Duration;

use sandhog_common::class::Class;
use sandhog_common::config::GpuSettings;
use sandhog_common::gpu::{GpuFacts, GpuNeed};
use sandhog_common::units::{ByteCount, Millis};
use sandhog_tests::nvml::StandIn;
use sandhog_worker::gpu::{Demand, Gpus};

/// Returns settings for the fake, with a short interval between health checks.
pub(crate) fn settings(stand_in: &StandIn) -> GpuSettings {
    GpuSettings {
        library: Some(stand_in.library()),
        check_ms: Millis(20),
        ..GpuSettings::default()
    }
}

/// Starts with two GPUs, each for one job at a time.
pub(crate) async fn two() -> (StandIn, Gpus) {
    let stand_in = StandIn::build();
    let gpus = Gpus::start(&settings(&stand_in)).await.unwrap();
    (stand_in, gpus)
}

/// Returns the demand of a job of this class that makes no other GPU request.
pub(crate) fn demand(gpus: &Gpus, class: &str) -> Demand {
    let class: Class = class.parse().unwrap();
    gpus.demand(None, None, &class).unwrap().unwrap()
}

/// Returns a demand for this much of one GPU's memory.
pub(crate) fn part(gib: u64) -> Demand {
    Demand::of(GpuNeed {
        count: 1,
        memory: Some(ByteCount(gib << 30)),
    })
}

/// Waits until `enough` accepts the facts.
pub(crate) async fn until(gpus: &Gpus, enough: impl Fn(&[GpuFacts]) -> bool) -> Vec<GpuFacts> {
    let look = async {
        loop {
            let facts = gpus.facts();
            if enough(&facts) {
                return facts;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let patience = sandhog_tests::space::PATIENCE;
    tokio::time::timeout(patience, look).await.unwrap()
}
