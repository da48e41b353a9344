//! Cancelling a job that a real worker runs: through the control stream, and through the reply to
//! the heartbeat alone.

use sandhog_core::outcome::Outcome;
use sandhog_testkit::jobs::sleeping_job;
use sandhog_testkit::namespace::{TestNamespace, WAIT_TIMEOUT};
use sandhog_testkit::worker::WorkerSpec;

/// Returns the time in a stream id, in milliseconds by the clock of Redis.
fn time_of(entry: &str) -> u64 {
    let (time, _) = entry.split_once('-').expect("a stream id has two parts");
    time.parse().expect("a stream id begins with a time")
}

#[test]
fn a_running_job_is_stopped_without_waiting_for_a_heartbeat() {
    // With this lease, the first heartbeat comes long after the timeout of the test.
    let lease = (WAIT_TIMEOUT * 10).as_millis().to_string();
    let mut space = TestNamespace::shared("cancel");
    let _worker = WorkerSpec::of(&space)
        .set("WORKER_LEASE_MS", &lease)
        .start();
    let id = space.submit(&sleeping_job(600));
    let log = space.keys().log(&id);
    space.read_stream(&log, "0");

    let asked = space.add(&[("op", b"cancel"), ("id", id.as_str().as_bytes())]);
    let result = space.result(&id);
    assert_eq!(result.outcome, Outcome::Cancelled, "{result:?}");
    assert_eq!(
        result.stdout.lossy(),
        "started\n",
        "what it printed is kept"
    );
    assert_eq!(result.attempts, 1);
    let entries = space.stream_now(&log);
    let end = entries.last().expect("the log has an end");
    assert_eq!(end.text("stream"), "end");
    let took = time_of(&end.id) - time_of(asked.as_str());
    println!("from XADD of the cancel to the published end: {took} ms (promised: 1000)");
}

#[test]
fn a_cancel_that_nobody_was_told_of_comes_with_the_heartbeat() {
    let mut space = TestNamespace::shared("cancel");
    let _worker = WorkerSpec::of(&space).start();
    let id = space.submit(&sleeping_job(600));
    let log = space.keys().log(&id);
    space.read_stream(&log, "0");

    // As if the entry in the control stream had been lost: only the flag in the job's record is
    // set.
    let _set: i64 = redis::cmd("HSET")
        .arg(space.keys().job(&id))
        .arg(&["cancel", "1"])
        .query(&mut space.connection())
        .expect("redis takes the flag");
    let result = space.result(&id);
    assert_eq!(result.outcome, Outcome::Cancelled, "{result:?}");
    assert_eq!(result.attempts, 1);
    // The stream also contains announcements of classes.
    let control = space.keys().control();
    let mut told = space.stream_now(&control);
    told.retain(|entry| entry.bytes("op") == Some(b"cancel"));
    assert_eq!(told, [], "no worker was told");
}
