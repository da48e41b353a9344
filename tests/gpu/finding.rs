//! Discovery of GPUs, and the report on a machine without any.

use std::collections::BTreeSet;

use sandhog_config::GpuSettings;
use sandhog_core::id::Tag;
use sandhog_testkit::nvml::{FakeNvml, H100, T4};
use sandhog_worker::gpu::{self, GpuError, Gpus};

use crate::fixture::{settings, two_gpus, wait_for_facts};

fn tags(tags: &[&str]) -> BTreeSet<Tag> {
    tags.iter().map(|tag| tag.parse().unwrap()).collect()
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let source = error.source().map(ToString::to_string);
    format!("{error}: {}", source.unwrap_or_default())
}

#[tokio::test]
async fn every_gpu_is_found_with_its_name_memory_and_tags() {
    let (nvml, gpus) = two_gpus().await;
    let found = gpu::discover(&settings(&nvml)).await.unwrap();
    assert_eq!(found.driver, "550.54.15");
    let seen: Vec<_> = found
        .gpus
        .iter()
        .map(|gpu| {
            (
                gpu.uuid.as_str(),
                gpu.tag.as_ref().unwrap().as_str(),
                gpu.memory.0 >> 30,
            )
        })
        .collect();
    assert_eq!(seen, [(H100, "h100", 80), (T4, "t4", 16)]);
    assert_eq!(
        gpus.offered(&tags(&["cpu"])),
        tags(&["cpu", "gpu", "h100", "t4"])
    );
    assert_eq!(gpus.offered(&tags(&["gpu"])), tags(&["gpu", "h100", "t4"]));
    for (class, for_gpus) in [
        ("gpu", true),
        ("gpu+h100", true),
        ("t4", true),
        ("cpu", false),
        ("fast", false),
    ] {
        assert_eq!(
            gpus.serves_class(&class.parse().unwrap()),
            for_gpus,
            "class {class}"
        );
    }
    // The measurements come from the health thread.
    let facts = wait_for_facts(&gpus, |facts| {
        facts.iter().all(|facts| facts.memory_used.0 > 0)
    })
    .await;
    assert_eq!(facts[0].memory_used.0 >> 30, 1);
    assert_eq!(facts[0].utilisation_percent, Some(37));
    assert_eq!(
        facts[1].utilisation_percent, None,
        "the driver does not say"
    );
    assert!(facts.iter().all(|facts| facts.failure.is_none()));
}

#[tokio::test]
async fn the_settings_choose() {
    let nvml = FakeNvml::build();
    for (case, choice, want) in [
        ("all", "all", vec![H100, T4]),
        ("by number", "1", vec![T4]),
        ("by uuid", H100, vec![H100]),
        ("none", "none", vec![]),
    ] {
        let chosen = GpuSettings {
            devices: choice.parse().unwrap(),
            ..settings(&nvml)
        };
        let gpus = Gpus::start(&chosen).await.unwrap();
        let uuids: Vec<String> = gpus.facts().into_iter().map(|facts| facts.uuid).collect();
        assert_eq!(uuids, want, "case {case}");
    }
    let unknown = GpuSettings {
        devices: "0,7".parse().unwrap(),
        ..settings(&nvml)
    };
    let error = Gpus::start(&unknown).await.unwrap_err();
    assert!(
        matches!(&error, GpuError::Unknown { name } if name == "7"),
        "{error}"
    );
}

#[tokio::test]
async fn a_machine_without_the_driver_has_none_and_offers_none() {
    let gpus = Gpus::start(&GpuSettings::default()).await.unwrap();
    assert!(!gpus.has_any());
    assert_eq!(gpus.offered(&tags(&["cpu", "gpu"])), tags(&["cpu"]));
    assert_eq!(gpus.offered(&tags(&["gpu"])), tags(&[]));
    let class = "cpu".parse().unwrap();
    assert_eq!(gpus.demand(None, None, &class), Ok(None));

    let error = gpu::discover(&GpuSettings::default()).await.unwrap_err();
    assert!(matches!(error, GpuError::NoLibrary { .. }), "{error}");
    let named = GpuSettings {
        library: Some("/nowhere/libnvidia-ml.so.1".into()),
        ..GpuSettings::default()
    };
    let error = Gpus::start(&named).await.unwrap_err();
    assert_eq!(error.to_string(), "no /nowhere/libnvidia-ml.so.1 to load");
}

#[tokio::test]
async fn a_library_that_works_by_half_is_an_error_that_says_which_half() {
    let no_count = FakeNvml::without(&["WITHOUT_COUNT"]);
    let error = gpu::discover(&settings(&no_count)).await.unwrap_err();
    let text = with_sources(&error);
    assert!(text.contains("failed to count GPUs"), "{text}");
    assert!(text.contains("nvmlDeviceGetCount_v2"), "{text}");

    // One call for each GPU is missing: no GPU can be used, but the library still counts as
    // working.
    let no_memory = FakeNvml::without(&["WITHOUT_MEMORY"]);
    let found = gpu::discover(&settings(&no_memory)).await.unwrap();
    assert!(found.gpus.is_empty());
    assert_eq!(found.left_out.len(), 2);
    assert!(
        found.left_out[0].contains("nvmlDeviceGetMemoryInfo_v2"),
        "{:?}",
        found.left_out
    );

    let no_end = FakeNvml::without(&["WITHOUT_END"]);
    drop(Gpus::start(&settings(&no_end)).await.unwrap());

    let undriven = FakeNvml::build();
    undriven.set_faults("9 undriven");
    let error = gpu::discover(&settings(&undriven)).await.unwrap_err();
    let text = with_sources(&error);
    assert!(
        text.contains("failed to initialise: NVIDIA driver is not loaded"),
        "{text}"
    );
}

#[tokio::test]
async fn a_gpu_that_is_lost_from_the_start_is_left_out() {
    let nvml = FakeNvml::build();
    nvml.set_faults("0 lost");
    let gpus = Gpus::start(&settings(&nvml)).await.unwrap();
    assert_eq!(gpus.offered(&tags(&["cpu"])), tags(&["cpu", "gpu", "t4"]));
    let found = gpu::discover(&settings(&nvml)).await.unwrap();
    assert!(
        found.left_out[0].starts_with("gpu 0: device fell off the bus"),
        "{:?}",
        found.left_out
    );
}
