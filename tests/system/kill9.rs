//! A worker dies in the middle of many jobs: nothing is lost, published twice or left behind.

use std::collections::BTreeMap;

use sandhog_core::id::JobId;
use sandhog_core::outcome::Outcome;
use sandhog_testkit::containers::{Engine, NAMESPACE_LABEL};
use sandhog_testkit::jobs;
use sandhog_testkit::namespace::{TestNamespace, decode};
use sandhog_testkit::worker::WorkerSpec;

const JOBS: usize = 200;

/// Number of results that the first worker publishes before it is killed.
const BEFORE_THE_KILL: usize = 50;

#[test]
fn two_hundred_jobs_survive_a_killed_worker() {
    let mut space = TestNamespace::shared("kill9");
    let engine = Engine::connect();
    let mut first = WorkerSpec::of(&space).set("WORKER_SLOTS", "4").start();

    let wanted: BTreeMap<JobId, String> = (0..JOBS)
        .map(|n| {
            let job = jobs::python(&format!("import time\ntime.sleep(0.05)\nprint({n})\n"));
            let id = space.submit_with(&job, &[("reply", "all"), ("backoff_ms", "10")]);
            (id, format!("{n}\n"))
        })
        .collect();
    let reply = space.keys().reply(&"all".parse().unwrap());
    let published = space.read_stream_until(&reply, BEFORE_THE_KILL).len();
    first.kill9();
    assert!(published < JOBS, "the worker was killed in the middle");

    let mut second = WorkerSpec::of(&space).set("WORKER_SLOTS", "4").start();
    space.read_stream_until(&reply, JOBS);
    assert!(second.drain().success(), "the second worker drains cleanly");

    // No worker publishes any more, so the stream is complete.
    let entries = space.stream_now(&reply);
    assert_eq!(entries.len(), JOBS, "no job is published twice");
    let mut printed = BTreeMap::new();
    let mut workers = BTreeMap::new();
    for entry in &entries {
        let result = decode(entry.bytes("result").expect("a reply holds the result"));
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        *workers
            .entry(result.worker.expect("a run has a worker"))
            .or_insert(0) += 1;
        printed.insert(result.id, result.stdout.lossy().into_owned());
    }
    assert_eq!(printed, wanted, "every job has its own result");
    assert_eq!(workers.len(), 2, "both workers published some: {workers:?}");
    for id in wanted.keys() {
        assert_eq!(
            printed.get(id).map(String::as_str),
            Some(&*space.result(id).stdout.lossy()),
            "waiters and the reply stream read the same"
        );
    }
    let left = engine.containers_with_label(NAMESPACE_LABEL, space.namespace().as_str());
    assert!(
        left.is_empty(),
        "containers of either worker are left: {left:?}"
    );
}
