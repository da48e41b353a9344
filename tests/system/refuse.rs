//! What a worker refuses to start with, and that it says what to do about it.

use sandhog_tests::private_redis::PrivateRedis;
use sandhog_tests::space::Space;
use sandhog_tests::worker::WorkerSpec;

/// Starts a worker that must refuse, and returns its last words with what differs between runs replaced.
fn refusal(spec: WorkerSpec, space: &Space) -> String {
    let mut worker = spec.spawn();
    let status = worker.wait();
    assert!(!status.success(), "the worker refuses to start");
    worker
        .log()
        .replace(space.url().trim_start_matches("redis://"), "HOST:PORT")
}

#[test]
fn a_redis_that_evicts_is_refused() {
    let redis = PrivateRedis::start(&["--maxmemory-policy", "allkeys-lru"]);
    let space = Space::on(&redis, "refuse");
    insta::assert_snapshot!(refusal(WorkerSpec::of(&space), &space), @"");
}

#[test]
fn a_redis_that_does_not_answer_is_refused() {
    let mut redis = PrivateRedis::start(&[]);
    let space = Space::on(&redis, "refuse");
    redis.kill();
    insta::assert_snapshot!(refusal(WorkerSpec::of(&space), &space), @"");
}

#[test]
fn an_engine_that_does_not_answer_is_refused() {
    let space = Space::shared("refuse");
    let spec = WorkerSpec::of(&space).set("SANDBOX_ENGINE", "unix:///no/such/engine.sock");
    insta::assert_snapshot!(refusal(spec, &space), @"");
}
