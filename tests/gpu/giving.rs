//! Assignment of GPUs to jobs.

use futures_util::FutureExt;
use sandhog_config::GpuSettings;
use sandhog_core::gpu::GpuNeed;
use sandhog_testkit::nvml::{FakeNvml, H100, T4};
use sandhog_worker::gpu::{Demand, Gpus};

use crate::fixture::{demand, memory_demand, settings, two_gpus};

#[tokio::test]
async fn two_jobs_have_a_gpu_each_and_the_third_waits() {
    let (_nvml, gpus) = two_gpus().await;
    let first = gpus.acquire(demand(&gpus, "gpu")).await.unwrap();
    let second = gpus.acquire(demand(&gpus, "gpu")).await.unwrap();
    assert_eq!(
        (first.uuids(), second.uuids()),
        (&[H100.to_owned()][..], &[T4.to_owned()][..])
    );
    assert_eq!(
        gpus.facts().iter().map(|facts| facts.assigned).sum::<u32>(),
        2
    );
    assert!(
        first.wait_for_demand().now_or_never().is_none(),
        "no demand is waiting"
    );
    let mut third = Box::pin(gpus.acquire(demand(&gpus, "gpu")));
    assert!(third.as_mut().now_or_never().is_none());
    assert!(
        first.wait_for_demand().now_or_never().is_some(),
        "an idle server is asked to give its GPU up"
    );
    drop(second);
    assert_eq!(third.await.unwrap().uuids(), [T4]);
    drop(first);
    assert!(gpus.facts().iter().all(|facts| facts.assigned == 0));
}

#[tokio::test]
async fn a_class_names_the_model_and_a_job_may_want_several() {
    let (_nvml, gpus) = two_gpus().await;
    assert_eq!(
        gpus.acquire(demand(&gpus, "gpu+t4")).await.unwrap().uuids(),
        [T4]
    );
    let both = Demand::of(GpuNeed {
        count: 2,
        memory: None,
    });
    assert_eq!(
        gpus.acquire(both.clone()).await.unwrap().uuids(),
        [H100, T4]
    );
    let three = Demand { count: 3, ..both };
    assert!(!gpus.can_meet(&three));
    let unmet = gpus.acquire(three).await.unwrap_err();
    assert_eq!(
        unmet.to_string(),
        "3 GPUs are wanted, and this worker has 2 that work"
    );
    let neither = gpus
        .acquire(demand(&gpus, "gpu+h100+t4"))
        .await
        .unwrap_err();
    assert!(
        neither.to_string().contains("of model h100 of model t4"),
        "{neither}"
    );
}

#[tokio::test]
async fn memory_is_shared_where_the_settings_say_so() {
    let nvml = FakeNvml::build();
    let shared = GpuSettings {
        share: 3,
        devices: "1".parse().unwrap(),
        ..settings(&nvml)
    };
    let gpus = Gpus::start(&shared).await.unwrap();
    assert_eq!(gpus.job_permits().available_permits(), 3);
    let first = gpus.acquire(memory_demand(10)).await.unwrap();
    let second = gpus.acquire(memory_demand(6)).await.unwrap();
    assert_eq!(first.uuids(), second.uuids());
    let mut third = Box::pin(gpus.acquire(memory_demand(1)));
    assert!(
        third.as_mut().now_or_never().is_none(),
        "the GPU has only 16 GiB"
    );
    drop(second);
    let _third = third.await.unwrap();
    let mut whole = Box::pin(gpus.acquire(demand(&gpus, "gpu")));
    assert!(
        whole.as_mut().now_or_never().is_none(),
        "a demand without a memory size needs a whole GPU"
    );
    drop(whole);
    assert!(
        gpus.acquire(memory_demand(17)).await.is_err(),
        "no GPU has this much memory"
    );
}

#[tokio::test]
async fn who_stops_waiting_holds_nobody_up() {
    let (_nvml, gpus) = two_gpus().await;
    let both = Demand::of(GpuNeed {
        count: 2,
        memory: None,
    });
    let one = gpus.acquire(demand(&gpus, "gpu")).await.unwrap();
    let mut patient = Box::pin(gpus.acquire(both));
    assert!(patient.as_mut().now_or_never().is_none());
    let mut behind = Box::pin(gpus.acquire(demand(&gpus, "gpu")));
    assert!(behind.as_mut().now_or_never().is_none(), "it came later");
    drop(patient);
    assert_eq!(behind.await.unwrap().uuids(), [T4]);
    // An assignment whose receiver was dropped is given back.
    let mut unheard = Box::pin(gpus.acquire(demand(&gpus, "gpu+h100")));
    assert!(unheard.as_mut().now_or_never().is_none());
    drop(one);
    drop(unheard);
    assert!(gpus.facts().iter().all(|facts| facts.assigned == 0));
}
