//! Redis dies in the middle of many jobs and comes back: the worker continues, nothing is lost,
//! nothing is published twice.

use std::collections::BTreeMap;

use sandhog_core::id::JobId;
use sandhog_core::outcome::Outcome;
use sandhog_testkit::jobs;
use sandhog_testkit::namespace::{TestNamespace, decode};
use sandhog_testkit::private_redis::PrivateRedis;
use sandhog_testkit::worker::WorkerSpec;

const JOBS: usize = 60;

/// Number of results that are published before Redis is killed.
const BEFORE_THE_KILL: usize = 10;

#[test]
fn a_worker_outlives_its_redis() {
    let mut redis = PrivateRedis::start(&[]);
    let mut space = TestNamespace::on(&redis, "outage");
    let mut worker = WorkerSpec::of(&space).start();
    let wanted: BTreeMap<JobId, String> = (0..JOBS)
        .map(|n| {
            let job = jobs::python(&format!("import time\ntime.sleep(0.1)\nprint({n})\n"));
            (
                space.submit_with(&job, &[("reply", "all")]),
                format!("{n}\n"),
            )
        })
        .collect();
    let reply = space.keys().reply(&"all".parse().unwrap());
    let published = space.read_stream_until(&reply, BEFORE_THE_KILL).len();
    redis.kill();
    assert!(published < JOBS, "Redis was killed in the middle");

    redis.start_again();
    space.reconnect();
    space.read_stream_until(&reply, JOBS);
    worker.wait_until_healthy();
    assert!(worker.drain().success());

    let entries = space.stream_now(&reply);
    assert_eq!(entries.len(), JOBS, "no job is published twice");
    let mut printed = BTreeMap::new();
    for entry in &entries {
        let result = decode(entry.bytes("result").expect("a reply holds the result"));
        assert_eq!(result.outcome, Outcome::Succeeded, "{result:?}");
        printed.insert(result.id, result.stdout.lossy().into_owned());
    }
    assert_eq!(printed, wanted, "every job has its own result");
}
