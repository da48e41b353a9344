//! Requirements of the worker on a provider of sandboxes, run over each provider.
//!
//! Plain `cargo test` runs them over a provider in memory. The feature `with-docker` adds Docker, a
//! keeper, and Docker with keepers.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that panics fails the test that called it, which is its purpose"
)]

#[cfg(feature = "with-docker")]
mod docker_fixture;
#[cfg(feature = "with-docker")]
mod docker_keepers_fixture;
#[cfg(feature = "with-docker")]
mod keeper_probe;
#[cfg(feature = "with-docker")]
mod keepers_fixture;
mod memory;
mod program;
mod provider_fixture;
mod requirements;

use provider_fixture::ProviderFixture;
use sandhog_config::SandboxSettings;
use sandhog_worker::images;

/// Makes a module with one test for each requirement, over one provider.
macro_rules! conformance {
    ($provider:ident, $fixture:ty) => {
        conformance! {
            $provider, $fixture:
            the_facts_describe_a_machine,
            an_image_is_found_and_a_missing_one_is_refused,
            a_build_that_is_gone_is_replaced_by_the_present_one,
            programs_run_one_after_another,
            output_arrives_complete_and_in_order,
            a_closed_receiver_of_output_is_no_error,
            a_program_is_cancelled_and_the_next_one_runs,
            a_program_is_stopped_at_its_time_limit,
            a_sandbox_is_usable_again_only_after_its_cell_is_cleared,
            a_sandbox_whose_run_was_dropped_is_not_usable,
            a_sandbox_that_ended_is_an_error_and_the_next_one_works,
            a_lack_of_memory_is_told_from_other_ends,
            a_removed_container_releases_its_resource,
            a_start_that_is_dropped_leaves_nothing,
            a_pool_keeps_and_removes_its_sandboxes,
        }
    };
    ($provider:ident, $fixture:ty: $($requirement:ident,)+) => {
        mod $provider {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $requirement() {
                    use crate::provider_fixture::ProviderFixture;
                    let fixture = <$fixture>::new().await;
                    crate::requirements::$requirement(&fixture).await;
                    fixture.until_nothing_is_left().await;
                }
            )+
        }
    };
}

conformance!(over_memory, crate::memory::MemoryFixture);

#[cfg(feature = "with-docker")]
conformance!(over_docker, crate::docker_fixture::DockerFixture);

#[cfg(feature = "with-docker")]
conformance!(over_keepers, crate::keepers_fixture::KeepersFixture);

#[cfg(feature = "with-docker")]
conformance!(
    over_docker_keepers,
    crate::docker_keepers_fixture::DockerKeepersFixture
);

// A keeper ends the sandboxes of a worker whose connections are closed. Nothing is left to reap.
conformance!(
    reaping_over_memory, crate::memory::MemoryFixture:
    only_containers_of_dead_workers_are_reaped,
);

#[cfg(feature = "with-docker")]
conformance!(
    reaping_over_docker, crate::docker_fixture::DockerFixture:
    only_containers_of_dead_workers_are_reaped,
);

#[tokio::test]
async fn a_provider_without_a_builder_names_the_addresses_that_build() {
    let fixture = memory::MemoryFixture::new().await;
    let sandboxes = fixture.connect("one").await;
    let listed = images::list(&sandboxes, &SandboxSettings::default()).await;
    let listed = listed.unwrap();
    assert_eq!(listed.len(), 1, "only the provider's own image: {listed:?}");
    assert_eq!((listed[0].current, listed[0].size), (None, None));
    let error = sandboxes.builder().unwrap_err();
    assert_eq!(error.code(), "no_image_builder");
    assert_eq!(
        error.to_string(),
        "images cannot be built with sandbox.engine \"memory://test\" (want unix:///path or \
         tcp://host:port of Docker)"
    );
    assert!(error.hint().is_some());
}
