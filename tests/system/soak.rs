//! A worker holds the same resources after many jobs as after few. `scripts/bench soak` runs the
//! same test for any length of time.

use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::soak::Soak;
use sandhog_testkit::worker::WorkerSpec;

/// Memory by which a measurement may vary, because allocators return it late.
const SLACK: u64 = 32 << 20;

#[test]
fn nothing_grows_with_the_number_of_jobs() {
    let mut space = TestNamespace::shared("soak");
    let worker = WorkerSpec::of(&space)
        .set("WORKER_LEASE_MS", "30000")
        .start();
    let mut soak = Soak::new();
    soak.run(&mut space, 200);
    let before = soak.resource_usage(&worker);
    soak.run(&mut space, 400);
    let after = soak.resource_usage(&worker);
    assert!(before.containers > 0 && before.mounts > 0, "{before:?}");
    assert_eq!(
        (after.containers, after.mounts, after.cgroups),
        (before.containers, before.mounts, before.cgroups),
        "{before:?} then {after:?}"
    );
    assert!(
        after.descriptors <= before.descriptors
            && after.threads <= before.threads
            && after.processes <= before.processes
            && after.worker_memory <= before.worker_memory + SLACK
            && after.container_memory <= before.container_memory + SLACK,
        "{before:?} then {after:?}"
    );
}
