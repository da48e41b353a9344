//! GPUs that fail while a worker has them.

use std::collections::BTreeSet;

use sandhog_tests::nvml::{H100, StandIn, T4};
use sandhog_worker::gpu::Gpus;

use crate::ground::{demand, settings, two, until};

/// Sets a fault, waits until the GPU at this index has failed, and returns the reason.
async fn breaks(stand_in: &StandIn, gpus: &Gpus, place: usize, what: &str) -> String {
    stand_in.say(what);
    let facts = until(gpus, |facts| facts[place].failure.is_some()).await;
    facts[place].failure.clone().unwrap()
}

#[tokio::test]
async fn a_lost_gpu_leaves_the_capacity_and_its_holder_is_told() {
    let (stand_in, gpus) = two().await;
    assert_eq!(
        (gpus.places().available_permits(), gpus.most_jobs()),
        (2, 2)
    );
    let first = gpus.take(demand(&gpus, "gpu")).await.unwrap();
    let second = gpus.take(demand(&gpus, "gpu")).await.unwrap();
    assert_eq!(
        breaks(&stand_in, &gpus, 0, "0 lost").await,
        "the driver has lost it"
    );
    let why = first.lost().await;
    assert_eq!(why, format!("{H100}: the driver has lost it"));
    drop(first);

    // The other GPU still works, for one job at a time.
    assert_eq!(gpus.most_jobs(), 1);
    let places = gpus.places();
    let held = places.acquire().await.unwrap();
    while places.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    drop(held);
    let offered = gpus.offered(&BTreeSet::new());
    let offered: Vec<&str> = offered.iter().map(|tag| tag.as_str()).collect();
    assert_eq!(offered, ["gpu", "t4"]);
    drop(second);
    assert_eq!(gpus.take(demand(&gpus, "gpu")).await.unwrap().uuids(), [T4]);
    assert!(gpus.take(demand(&gpus, "gpu+h100")).await.is_err());

    // The GPU stays out of use although it answers again.
    stand_in.say("1 lost");
    until(&gpus, |facts| facts[1].failure.is_some()).await;
    assert!(gpus.facts()[0].failure.is_some());
    assert!(gpus.offered(&BTreeSet::new()).is_empty());
}

#[tokio::test]
async fn waiting_for_a_gpu_that_fails_ends() {
    let (stand_in, gpus) = two().await;
    let held = gpus.take(demand(&gpus, "gpu+h100")).await.unwrap();
    let waiting = tokio::spawn({
        let (gpus, demand) = (gpus.clone(), demand(&gpus, "gpu+h100"));
        async move { gpus.take(demand).await.map(drop) }
    });
    held.asked_for().await;
    stand_in.say("0 lost");
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
        let (stand_in, gpus) = two().await;
        let why = breaks(&stand_in, &gpus, place, what).await;
        assert!(why.contains(want), "case {case}: {why}");
        assert!(
            gpus.facts()[1 - place].failure.is_none(),
            "case {case}: the other one works"
        );
        loaded.push(stand_in);
    }
}

#[tokio::test]
async fn a_fault_of_a_program_is_none_of_the_gpu() {
    let (stand_in, gpus) = two().await;
    // The second alarm is handled after the first, so the first has been handled when the second
    // takes effect.
    stand_in.say("0 xid 31\n");
    let why = breaks(&stand_in, &gpus, 1, "0 xid 31\n1 xid 48").await;
    assert_eq!(why, "the driver raised Xid 48");
    assert!(gpus.facts()[0].failure.is_none());
}

#[tokio::test]
async fn a_gpu_without_alarms_is_watched_all_the_same() {
    let stand_in = StandIn::build();
    stand_in.say("0 silent\n1 silent");
    let gpus = Gpus::start(&settings(&stand_in)).await.unwrap();
    assert_eq!(
        breaks(&stand_in, &gpus, 1, "1 lost").await,
        "the driver has lost it"
    );
}
