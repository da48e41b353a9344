//! SIGTERM: the worker claims no more, running jobs get a grace period, and jobs that still run
//! then go back to the queue without counting the attempt.

use nix::sys::signal::Signal;
use sandhog_core::outcome::Outcome;
use sandhog_testkit::containers::{Engine, NAMESPACE_LABEL, WORKER_LABEL};
use sandhog_testkit::jobs::sleeping_job;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::worker::WorkerSpec;

#[test]
fn a_job_that_ends_within_the_grace_is_published() {
    let mut space = TestNamespace::shared("drain");
    let mut worker = WorkerSpec::of(&space).start();
    let id = space.submit(&sleeping_job(2));
    let log = space.keys().log(&id);
    space.read_stream(&log, "0");

    worker.signal(Signal::SIGTERM);
    let result = space.result(&id);
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(result.stdout.lossy(), "started\nslept\n");
    assert_eq!(result.attempts, 1);
    assert!(worker.wait().success(), "a drained worker ends well");
    let left = Engine::connect().containers_with_label(WORKER_LABEL, worker.id());
    assert!(left.is_empty(), "containers are left: {left:?}");
}

#[test]
fn a_job_that_outlasts_the_grace_is_given_back_and_finished_elsewhere() {
    let mut space = TestNamespace::shared("drain");
    let mut first = WorkerSpec::of(&space).set("WORKER_GRACE_MS", "100").start();
    let id = space.submit_with(&sleeping_job(15), &[("max_attempts", "1")]);
    let log = space.keys().log(&id);
    space.read_stream(&log, "0");
    assert!(first.drain().success(), "a drained worker ends well");

    let mut second = WorkerSpec::of(&space).start();
    let result = space.result(&id);
    assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
    assert_eq!(result.stdout.lossy(), "started\nslept\n", "a fresh run");
    assert_eq!(
        result.worker.as_ref().map(|worker| worker.as_str()),
        Some(second.id())
    );
    assert_eq!(
        result.attempts, 1,
        "an interruption of ours is not counted against the job"
    );
    assert!(second.drain().success());
    let left = Engine::connect().containers_with_label(NAMESPACE_LABEL, space.namespace().as_str());
    assert!(left.is_empty(), "containers are left: {left:?}");
}

#[test]
fn a_draining_worker_says_so_and_claims_nothing() {
    let mut space = TestNamespace::shared("drain");
    let mut first = WorkerSpec::of(&space).set("WORKER_SLOTS", "1").start();
    let running = space.submit(&sleeping_job(3));
    let log = space.keys().log(&running);
    space.read_stream(&log, "0");
    let waiting = space.submit(&sleeping_job(0));
    first.signal(Signal::SIGTERM);
    assert!(first.wait().success());
    assert_eq!(space.result(&running).outcome, Outcome::Succeeded);

    let second = WorkerSpec::of(&space).start();
    let result = space.result(&waiting);
    assert_eq!(
        result.worker.as_ref().map(|worker| worker.as_str()),
        Some(second.id()),
        "the waiting job was left to another worker"
    );
}
