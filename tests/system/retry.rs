//! Internal faults: the job runs again without any effect for its submitter, until it has been lost
//! too often.

use sandhog_core::outcome::Outcome;
use sandhog_testkit::containers::{Engine, WORKER_LABEL};
use sandhog_testkit::jobs::{python, sleeping_job};
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::{WorkerProcess, WorkerSpec};

/// Kills every container of `worker`, as the kernel or an operator could.
fn kill_containers(engine: &Engine, worker: &WorkerProcess) {
    let found = engine.wait_for(WORKER_LABEL, worker.id(), |found| !found.is_empty());
    for id in found {
        engine.kill(&id);
    }
}

#[test]
fn a_job_whose_container_dies_runs_again() {
    let mut space = TestNamespace::shared("retry");
    let engine = Engine::connect();
    let worker = WorkerSpec::of(&space).set("WORKER_SLOTS", "1").start();
    let id = space.submit_with(
        &sleeping_job(4),
        &[("backoff_ms", "10"), ("max_attempts", "1")],
    );
    let log = space.keys().log(&id);
    space.read_stream(&log, "0");
    kill_containers(&engine, &worker);

    let result = space.result(&id);
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(
        result.stdout.lossy(),
        "started\nslept\n",
        "of one attempt alone"
    );
    assert_eq!(result.attempts, 2);
    let next = space.run(&python("print('on')"));
    assert_eq!(
        next.outcome,
        Outcome::Succeeded,
        "the worker goes on: {next:?}"
    );
}

#[test]
fn a_job_that_is_lost_every_time_is_given_up_and_never_called_a_failure() {
    let mut space = TestNamespace::shared("retry");
    let engine = Engine::connect();
    let worker = WorkerSpec::of(&space)
        .set("WORKER_SLOTS", "1")
        .set("WORKER_MAX_LOST", "2")
        .start();
    let id = space.submit_with(&sleeping_job(600), &[("backoff_ms", "10")]);
    let log = space.keys().log(&id);
    let mut last = "0".to_owned();
    for _ in 0..2 {
        last = space
            .read_stream(&log, &last)
            .last()
            .map(|entry| entry.id.clone())
            .expect("the attempt says that it has started");
        kill_containers(&engine, &worker);
    }

    let result = space.result(&id);
    assert_eq!(result.outcome, Outcome::Lost, "{result:?}");
    assert_eq!(result.attempts, 2);
    assert_eq!(result.exception, None);
    let error = result.error.expect("it says why");
    assert_eq!(error.code, "attempts_lost");
    let dead = space.stream_now(&space.keys().dead());
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].text("id"), id.as_str());
    assert_eq!(dead[0].text("reason"), "attempts_lost");
}

#[test]
fn a_job_that_kills_its_workers_is_given_up() {
    let mut space = TestNamespace::shared("retry");
    let id = space.submit_with(&sleeping_job(600), &[("backoff_ms", "10")]);
    let log = space.keys().log(&id);
    let mut last = "0".to_owned();
    for _ in 0..2 {
        let mut worker = WorkerSpec::of(&space)
            .set("WORKER_MAX_LOST", "2")
            .set("WORKER_LEASE_MS", "1000")
            .start();
        last = space
            .read_stream(&log, &last)
            .last()
            .map(|entry| entry.id.clone())
            .expect("the attempt says that it has started");
        worker.kill9();
    }
    let _witness = WorkerSpec::of(&space)
        .set("WORKER_MAX_LOST", "2")
        .set("WORKER_LEASE_MS", "1000")
        .start();
    let result = space.result(&id);
    assert_eq!(result.outcome, Outcome::Lost, "{result:?}");
    assert_eq!(result.attempts, 2);
    let dead = space.stream_now(&space.keys().dead());
    assert_eq!(dead.len(), 1, "{dead:?}");
    assert_eq!(dead[0].text("id"), id.as_str());
}
