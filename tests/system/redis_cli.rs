//! The wire contract from a shell, with nothing but `redis-cli`.

use std::process::Command;

use sandhog_core::outcome::Outcome;
use sandhog_testkit::namespace::{TestNamespace, decode};
use sandhog_testkit::worker::WorkerSpec;

/// Runs one command as a person would type it and returns its output without the last newline.
fn redis_cli(space: &TestNamespace, words: &[&str]) -> String {
    let run = Command::new("redis-cli")
        .args(["-u", space.url()])
        .args(words)
        .output()
        .expect("redis-cli is installed (hint: apt-get install redis-tools)");
    let printed = String::from_utf8(run.stdout).expect("redis-cli prints text");
    assert!(
        run.status.success(),
        "redis-cli {words:?} failed: {printed}"
    );
    printed.trim_end_matches('\n').to_owned()
}

#[test]
fn one_xadd_in_and_one_blmove_out() {
    let space = TestNamespace::shared("rediscli");
    let _worker = WorkerSpec::of(&space).start();
    let jobs = space.keys().jobs();
    let payload = r#"{"image":"python","code":"print(6*7)"}"#;

    let id = redis_cli(&space, &["XADD", &jobs, "*", "job", payload]);
    let key = format!("sandhog:{{{}}}:result:{id}", space.namespace());
    let wait = ["BLMOVE", &key, &key, "LEFT", "LEFT", "60"];
    let first = redis_cli(&space, &wait);
    let result = decode(first.as_bytes());
    assert_eq!(result.id.as_str(), id);
    assert_eq!(result.outcome, Outcome::Succeeded);
    assert_eq!(result.stdout.lossy(), "42\n");
    assert_eq!(
        redis_cli(&space, &wait),
        first,
        "a late waiter reads the same result"
    );
}

#[test]
fn a_log_is_followed_and_its_job_cancelled() {
    let space = TestNamespace::shared("rediscli");
    let _worker = WorkerSpec::of(&space).start();
    let jobs = space.keys().jobs();
    let payload =
        r#"{"image":"python","code":"import time\nprint('begun', flush=True)\ntime.sleep(600)"}"#;

    let id = redis_cli(&space, &["XADD", &jobs, "*", "job", payload]);
    let log = format!("sandhog:{{{}}}:log:{id}", space.namespace());
    let printed = redis_cli(&space, &["XREAD", "BLOCK", "0", "STREAMS", &log, "0"]);
    assert!(
        printed.lines().any(|line| line == "begun"),
        "the log holds what the program printed: {printed}"
    );

    redis_cli(&space, &["XADD", &jobs, "*", "op", "cancel", "id", &id]);
    let key = format!("sandhog:{{{}}}:result:{id}", space.namespace());
    let printed = redis_cli(&space, &["BLMOVE", &key, &key, "LEFT", "LEFT", "60"]);
    let result = decode(printed.as_bytes());
    assert_eq!(result.outcome, Outcome::Cancelled);
    assert_eq!(result.stdout.lossy(), "begun\n", "what it printed is kept");
}

#[test]
fn a_queued_job_is_cancelled_before_any_worker_comes() {
    let mut space = TestNamespace::shared("rediscli");
    let jobs = space.keys().jobs();
    let payload = r#"{"image":"python","code":"print('never')"}"#;
    let id = redis_cli(&space, &["XADD", &jobs, "*", "job", payload]);
    redis_cli(&space, &["XADD", &jobs, "*", "op", "cancel", "id", &id]);

    let _worker = WorkerSpec::of(&space).start();
    let result = space.result(&id.parse().unwrap());
    assert_eq!(result.outcome, Outcome::Cancelled);
    assert_eq!(result.attempts, 0, "it was never started");
}
