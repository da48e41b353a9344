//! Loss of connections: they are killed, and Redis restarts or is emptied, under a running worker.

use sandhog_core::outcome::Outcome;
use sandhog_core::submission::Routing;
use sandhog_core::units::Millis;
use sandhog_core::wire::{self, Encoding};
use sandhog_producer::Client;
use sandhog_testkit::eventually::eventually_async;
use sandhog_testkit::jobs;
use sandhog_testkit::private_redis::PrivateRedis;
use sandhog_worker::Worker;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fixture::{LEASE, QueueFixture, WAIT_TIMEOUT, named, payload, settings, soon};
use crate::in_process_worker::{AttemptCounter, metrics, start_worker, worker_settings};

const JOBS: usize = 300;

/// Starts a worker. Tests use a short lease where jobs must be taken back, and otherwise one so
/// long that no heartbeat occurs in between.
async fn start_counting_worker(
    fixture: &QueueFixture,
    counter: &AttemptCounter,
    lease: Millis,
) -> Worker {
    let reached = settings(fixture.space.url());
    let mut settings = worker_settings(&reached, fixture.space.namespace(), "one");
    settings.worker.http = "127.0.0.1:0".to_owned();
    settings.worker.lease_ms = lease;
    start_worker(&settings, counter).await
}

async fn submit_all(fixture: &QueueFixture) {
    let jobs: Vec<_> = (0..JOBS)
        .map(|n| (named(&format!("job-{n}")), payload()))
        .collect();
    fixture.queue.submit_many(&jobs).await.unwrap();
}

async fn all_end_once(fixture: &QueueFixture) {
    let client = Client::from_queue(fixture.queue.clone());
    for n in 0..JOBS {
        let id = format!("job-{n}").parse().unwrap();
        let result = client.wait(&id, WAIT_TIMEOUT).await.unwrap();
        assert_eq!(result.outcome, Outcome::Succeeded);
    }
    assert_eq!(fixture.counter("finished_succeeded").await, JOBS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_killed_again_and_again_lose_nothing() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "client-kill").await;
    let counter = AttemptCounter::default();
    let worker = start_counting_worker(&fixture, &counter, Millis(2_000)).await;
    submit_all(&fixture).await;
    for kill in 1..=5 {
        soon(counter.reach(JOBS * kill / 6)).await;
        let _killed: i64 = fixture
            .plain(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await;
    }
    all_end_once(&fixture).await;
    soon(worker.stop(CancellationToken::new())).await;
    assert_eq!(fixture.queue.workers().await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_outlives_restarts() {
    let mut redis = PrivateRedis::start(&[]);
    let mut fixture = QueueFixture::on(&redis, "worker-restart").await;
    let counter = AttemptCounter::default();
    let worker = start_counting_worker(&fixture, &counter, Millis(2_000)).await;
    submit_all(&fixture).await;
    for kill in 1..=2 {
        soon(counter.reach(JOBS * kill / 3)).await;
        redis.kill();
        redis.start_again();
    }
    fixture.reconnect().await;
    all_end_once(&fixture).await;
    soon(worker.stop(CancellationToken::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_vanished_is_noticed_and_served_anew() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "vanished").await;
    let counter = AttemptCounter::default();
    let worker = start_counting_worker(&fixture, &counter, LEASE).await;
    let mut long = jobs::python("pass");
    long.input = json!({ "sleep_ms": 86_400_000 });
    for _ in 0..2 {
        fixture
            .queue
            .submit(&Routing::default(), &wire::encode(&long, Encoding::Json))
            .await
            .unwrap();
    }
    soon(counter.reach(2)).await;
    let _ok: String = fixture.plain(&["FLUSHALL"]).await;

    let label = format!("{{namespace=\"{}\"}}", fixture.space.namespace());
    let said = |name: &str, value: u64| format!("\n{name}{label} {value}\n");
    let vanished = said("sandhog_namespace_vanished_total", 1);
    let metrics = eventually_async(WAIT_TIMEOUT, async || {
        let metrics = metrics(&worker);
        if metrics.contains(&vanished) {
            return Ok(metrics);
        }
        Err(metrics)
    })
    .await;
    let leases = said("sandhog_leases_vanished_total", 2);
    assert!(metrics.contains(&leases), "{metrics}");

    // Both slots are free again at once, and the worker recreates everything that it needs in
    // Redis.
    submit_all(&fixture).await;
    all_end_once(&fixture).await;
    assert_eq!(fixture.queue.workers().await.unwrap().len(), 1);
    soon(worker.stop(CancellationToken::new())).await;
}
