//! Configurations with which a worker must not start, and its advice for each.

use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::private_redis::PrivateRedis;
use sandhog_testkit::worker::WorkerSpec;

/// Starts a worker that must not start. Returns the end of its output and its exit code, with the
/// parts that differ between runs replaced.
fn refusal(spec: WorkerSpec, space: &TestNamespace) -> String {
    let mut worker = spec.spawn();
    let status = worker.wait();
    let said = worker
        .log()
        .replace(space.url().trim_start_matches("redis://"), "HOST:PORT")
        .replace(space.namespace().as_str(), "NAMESPACE");
    format!("{said}{status}")
}

#[test]
fn a_redis_that_evicts_is_refused() {
    let redis = PrivateRedis::start(&["--maxmemory-policy", "allkeys-lru"]);
    let space = TestNamespace::on(&redis, "refuse");
    insta::assert_snapshot!(refusal(WorkerSpec::of(&space), &space), @r#"
    error: the queue of namespace NAMESPACE cannot be used: redis evicts keys when full (maxmemory-policy is "allkeys-lru", want "noeviction")
    hint: run `redis-cli CONFIG SET maxmemory-policy noeviction` and write it to redis.conf
    exit status: 69
    "#);
}

#[test]
fn a_redis_that_does_not_answer_is_refused() {
    let mut redis = PrivateRedis::start(&[]);
    let space = TestNamespace::on(&redis, "refuse");
    redis.kill();
    insta::assert_snapshot!(refusal(WorkerSpec::of(&space), &space), @r#"
    error: the queue of namespace NAMESPACE cannot be used: cannot connect to redis at HOST:PORT: Connection refused (os error 111)
    hint: start redis-server there, or correct SANDHOG_REDIS_URL
    exit status: 69
    "#);
}

#[test]
fn an_engine_that_does_not_answer_is_refused() {
    let space = TestNamespace::shared("refuse");
    let spec = WorkerSpec::of(&space).set("SANDBOX_ENGINE", "unix:///no/such/engine.sock");
    insta::assert_snapshot!(refusal(spec, &space), @r#"
    error: sandboxes cannot be made: no container engine answers at unix:///no/such/engine.sock: Socket not found: /no/such/engine.sock
    hint: is Docker installed and running (`apt-get install docker.io`)?
    exit status: 69
    "#);
}

#[test]
fn a_setting_that_cannot_be_meant_is_refused() {
    let space = TestNamespace::shared("refuse");
    let spec = WorkerSpec::of(&space)
        .set("WORKER_LEASE_MS", "soon")
        .set("SANDBOX_PIDS", "0")
        .set("WORKER_MAX_PAYLOAD", "17MiB");
    insta::assert_snapshot!(refusal(spec, &space), @r#"
    error: 3 problems in the settings:
      worker.lease_ms = "soon" (SANDHOG_WORKER_LEASE_MS): invalid type: string "soon", expected u64
      worker.max_payload = "17MiB" (SANDHOG_WORKER_MAX_PAYLOAD): want 1 byte to 16MiB
      sandbox.pids = 0 (SANDHOG_SANDBOX_PIDS): want at least 1
    hint: `sandhog config keys` lists every setting with its meaning and default
    exit status: 78
    "#);
}
