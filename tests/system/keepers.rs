//! Workers whose sandboxes are made by keepers: their own with Docker, and those of others.

use sandhog_core::job::Job;
use sandhog_core::outcome::Outcome;
use sandhog_testkit::containers::{Engine, WORKER_LABEL};
use sandhog_testkit::environment;
use sandhog_testkit::eventually::eventually;
use sandhog_testkit::jobs::{python, sleeping_job};
use sandhog_testkit::keeper_container::KeeperContainer;
use sandhog_testkit::namespace::{TestNamespace, WAIT_TIMEOUT};
use sandhog_testkit::worker::WorkerSpec;

/// A worker that starts keepers with Docker.
fn with_docker(space: &TestNamespace) -> WorkerSpec {
    WorkerSpec::of(space)
        .set("SANDBOX_UNIT", "sandbox")
        .set("SANDBOX_IMAGE_REFERENCE", &environment::image_reference())
}

#[test]
fn tenants_share_a_keeper_which_leaves_with_its_worker() {
    let mut space = TestNamespace::shared("keepers");
    let engine = Engine::connect();
    let mut worker = with_docker(&space).start();
    for n in 0..12 {
        let tenant = format!("tenant-{n}");
        let job = python(&format!("print({n})"));
        let id = space.submit_with(&job, &[("tenant", &tenant)]);
        let result = space.result(&id);
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        assert_eq!(result.stdout.lossy(), format!("{n}\n"));
    }
    let found = engine.containers_with_label(WORKER_LABEL, worker.id());
    assert_eq!(found.len(), 1, "one keeper and no other container");
    eventually(WAIT_TIMEOUT, || match worker.idle_sandboxes() {
        12.. => Ok(()),
        fewer => Err(format!("{fewer} idle sandboxes, not one for each tenant")),
    });
    worker.drain();
    let left = engine.containers_with_label(WORKER_LABEL, worker.id());
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_job_whose_keeper_was_killed_runs_again_with_another_one() {
    let mut space = TestNamespace::shared("keepers");
    let engine = Engine::connect();
    let worker = with_docker(&space).set("WORKER_SLOTS", "1").start();
    let routing = [("backoff_ms", "10"), ("max_attempts", "1")];
    let id = space.submit_with(&sleeping_job(2), &routing);
    let log = space.keys().log(&id);
    space.read_stream(&log, "0");
    for keeper in engine.wait_for(WORKER_LABEL, worker.id(), |found| !found.is_empty()) {
        engine.kill(&keeper);
    }
    let result = space.result(&id);
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(result.attempts, 2, "the first one was lost");
    let next = space.run(&python("print('on')"));
    assert_eq!(next.outcome, Outcome::Succeeded, "{next:?}");
}

#[test]
fn each_job_may_have_a_sandbox_of_its_own() {
    for unit in ["container", "sandbox"] {
        let mut space = TestNamespace::shared("keepers");
        let worker = with_docker(&space)
            .set("SANDBOX_UNIT", unit)
            .set("POOL_REUSE", "never")
            .start();
        for n in 0..5 {
            let result = space.run(&python(&format!("print({n})")));
            assert_eq!(result.outcome, Outcome::Succeeded, "{unit}: {result:?}");
        }
        drop(worker);
    }
}

#[test]
fn jobs_wait_while_the_keeper_of_their_image_is_away() {
    let mut space = TestNamespace::shared("keepers");
    let directory = tempfile::tempdir().unwrap();
    let keeper = KeeperContainer::start(directory.path());
    let _worker = WorkerSpec::of(&space)
        .set(
            "SANDBOX_ENGINE",
            &format!("keepers://{}", directory.path().display()),
        )
        .start();
    let result = space.run(&python("print('here')"));
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");

    drop(keeper);
    // No attempt may be lost.
    let id = space.submit_with(&python("print('back')"), &[("max_attempts", "1")]);
    let misspelt = Job {
        image: "pyton".parse().unwrap(),
        ..python("print()")
    };
    let refused = space.submit(&misspelt);
    let events = space.keys().events();
    let mut last = "0".to_owned();
    let mut given_back = 0;
    while given_back < 2 {
        for entry in space.read_stream(&events, &last) {
            last.clone_from(&entry.id);
            let retried = entry.bytes("retried").unwrap_or_default();
            let of_job = format!("id {id} ");
            given_back += usize::from(retried.starts_with(of_job.as_bytes()));
        }
    }
    let _keeper = KeeperContainer::start(directory.path());
    let result = space.result(&id);
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(result.attempts, 1, "the others are not counted");
    let result = space.result(&refused);
    assert_eq!(result.outcome, Outcome::Rejected, "{result:?}");
    assert_eq!(result.error.unwrap().code, "unknown_image");
}
