//! GPUs that fail while a worker has them.

use std::collections::BTreeSet;

use sandhog_testkit::nvml::{FakeNvml, H100, T4};
use sandhog_worker::gpu::Gpus;

use crate::fixture::{demand, settings, two_gpus, wait_for_facts};

/// Sets a fault, waits until the GPU at this index has failed, and returns the reason.
async fn breaks(nvml: &FakeNvml, gpus: &Gpus, place: usize, what: &str) -> String {
    nvml.set_faults(what);
    let facts = wait_for_facts(gpus, |facts| facts[place].failure.is_some()).await;
    facts[place].failure.clone().unwrap()
}

#[tokio::test]
async fn a_lost_gpu_leaves_the_capacity_and_its_holder_is_told() {
    let (nvml, gpus) = two_gpus().await;
    assert_eq!(
        (gpus.job_permits().available_permits(), gpus.max_jobs()),
        (2, 2)
    );
    let first = gpus.acquire(demand(&gpus, "gpu")).await.unwrap();
    let second = gpus.acquire(demand(&gpus, "gpu")).await.unwrap();
    assert_eq!(
        breaks(&nvml, &gpus, 0, "0 lost").await,
        "the driver has lost it"
    );
    let why = first.lost().await;
    assert_eq!(why, format!("{H100}: the driver has lost it"));
    drop(first);

    // The other GPU still works, for one job at a time.
    assert_eq!(gpus.max_jobs(), 1);
    let places = gpus.job_permits();
    let held = places.acquire().await.unwrap();
    while places.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    drop(held);
    let offered = gpus.offered(&BTreeSet::new());
    let offered: Vec<&str> = offered.iter().map(|tag| tag.as_str()).collect();
    assert_eq!(offered, ["gpu", "t4"]);
    drop(second);
    assert_eq!(
        gpus.acquire(demand(&gpus, "gpu")).await.unwrap().uuids(),
        [T4]
    );
    assert!(gpus.acquire(demand(&gpus, "gpu+h100")).await.is_err());

    // The GPU stays out of use although it answers again.
    nvml.set_faults("1 lost");
    wait_for_facts(&gpus, |facts| facts[1].failure.is_some()).await;
    assert!(gpus.facts()[0].failure.is_some());
    assert!(gpus.offered(&BTreeSet::new()).is_empty());
}

#[tokio::test]
async fn waiting_for_a_gpu_that_fails_ends() {
    let (nvml, gpus) = two_gpus().await;
    let held = gpus.acquire(demand(&gpus, "gpu+h100")).await.unwrap();
    let waiting = tokio::spawn({
        let (gpus, demand) = (gpus.clone(), demand(&gpus, "gpu+h100"));
        async move { gpus.acquire(demand).await.map(drop) }
    });
    held.wait_for_demand().await;
    nvml.set_faults("0 lost");
    assert!(waiting.await.unwrap().is_err());
}

#[tokio::test]
async fn what_counts_as_a_failure() {
    // The loader identifies a library by its inode number. The fakes are kept, because the next
    // file could reuse the number of a deleted one.
    let mut loaded = Vec::new();
    for (case, place, what, want) in [
        (
            "memory",
            0,
            "0 errors 7",
            "its memory has 2 uncorrected errors",
        ),
        ("alarm", 1, "1 xid 79", "the driver raised Xid 79"),
        ("unreadable", 1, "1 unreadable", "could not be read 3 times"),
    ] {
        let (nvml, gpus) = two_gpus().await;
        let why = breaks(&nvml, &gpus, place, what).await;
        assert!(why.contains(want), "case {case}: {why}");
        assert!(
            gpus.facts()[1 - place].failure.is_none(),
            "case {case}: the other one works"
        );
        loaded.push(nvml);
    }
}

#[tokio::test]
async fn a_fault_of_a_program_is_none_of_the_gpu() {
    let (nvml, gpus) = two_gpus().await;
    // The second alarm is handled after the first, so the first has been handled when the second
    // takes effect.
    nvml.set_faults("0 xid 31\n");
    let why = breaks(&nvml, &gpus, 1, "0 xid 31\n1 xid 48").await;
    assert_eq!(why, "the driver raised Xid 48");
    assert!(gpus.facts()[0].failure.is_none());
}

#[tokio::test]
async fn a_gpu_without_alarms_is_watched_all_the_same() {
    let nvml = FakeNvml::build();
    nvml.set_faults("0 silent\n1 silent");
    let gpus = Gpus::start(&settings(&nvml)).await.unwrap();
    assert_eq!(
        breaks(&nvml, &gpus, 1, "1 lost").await,
        "the driver has lost it"
    );
}
