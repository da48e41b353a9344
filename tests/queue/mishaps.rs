//! Loss of connections: they are killed, and Redis restarts or is emptied, under a running worker.

use sandhog_common::outcome::Outcome;
use sandhog_common::submission::Routing;
use sandhog_common::units::Millis;
use sandhog_common::wire::{self, Encoding};
use sandhog_producer::Client;
use sandhog_tests::jobs;
use sandhog_tests::private_redis::PrivateRedis;
use sandhog_worker::Worker;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::crew::{Tally, hire, metrics, worker_settings};
use crate::desk::{Desk, LEASE, PATIENCE, named, payload, settings, soon};

const JOBS: usize = 300;

/// Starts a worker. Tests use a short lease where jobs must be taken back, and otherwise one so
/// long that no heartbeat occurs in between.
async fn hired(desk: &Desk, tally: &Tally, lease: Millis) -> Worker {
    let reached = settings(desk.space.url());
    let mut settings = worker_settings(&reached, desk.space.namespace(), "one");
    settings.worker.http = "127.0.0.1:0".to_owned();
    settings.worker.lease_ms = lease;
    hire(&settings, tally).await
}

async fn submit_all(desk: &Desk) {
    let jobs: Vec<_> = (0..JOBS)
        .map(|n| (named(&format!("job-{n}")), payload()))
        .collect();
    desk.queue.submit_many(&jobs).await.unwrap();
}

async fn all_end_once(desk: &Desk) {
    let client = Client::over(desk.queue.clone());
    for n in 0..JOBS {
        let id = format!("job-{n}").parse().unwrap();
        let result = client.wait(&id, PATIENCE).await.unwrap();
        assert_eq!(result.outcome, Outcome::Succeeded);
    }
    assert_eq!(desk.counter("finished_succeeded").await, JOBS as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_killed_again_and_again_lose_nothing() {
    let redis = PrivateRedis::start(&[]);
    let desk = Desk::on(&redis, "client-kill").await;
    let tally = Tally::default();
    let worker = hired(&desk, &tally, Millis(2_000)).await;
    submit_all(&desk).await;
    for kill in 1..=5 {
        soon(tally.reach(JOBS * kill / 6)).await;
        let _killed: i64 = desk
            .plain(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await;
    }
    all_end_once(&desk).await;
    soon(worker.stop(CancellationToken::new())).await;
    assert_eq!(desk.queue.workers().await.unwrap().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_outlives_restarts() {
    let mut redis = PrivateRedis::start(&[]);
    let mut desk = Desk::on(&redis, "worker-restart").await;
    let tally = Tally::default();
    let worker = hired(&desk, &tally, Millis(2_000)).await;
    submit_all(&desk).await;
    for kill in 1..=2 {
        soon(tally.reach(JOBS * kill / 3)).await;
        redis.kill();
        redis.start_again();
    }
    desk.reconnect().await;
    all_end_once(&desk).await;
    soon(worker.stop(CancellationToken::new())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_that_vanished_is_noticed_and_served_anew() {
    let redis = PrivateRedis::start(&[]);
    let desk = Desk::on(&redis, "vanished").await;
    let tally = Tally::default();
    let worker = hired(&desk, &tally, LEASE).await;
    let mut long = jobs::python("pass");
    long.input = json!({ "sleep_ms": 86_400_000 });
    for _ in 0..2 {
        desk.queue
            .submit(&Routing::default(), &wire::encode(&long, Encoding::Json))
            .await
            .unwrap();
    }
    soon(tally.reach(2)).await;
    let _ok: String = desk.plain(&["FLUSHALL"]).await;

    let label = format!("{{namespace=\"{}\"}}", desk.space.namespace());
    let said = |name: &str, value: u64| format!("\n{name}{label} {value}\n");
    let noticed = async {
        while !metrics(&worker).contains(&said("sandhog_namespace_vanished_total", 1)) {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    soon(noticed).await;
    let metrics = metrics(&worker);
    let leases = said("sandhog_leases_vanished_total", 2);
    assert!(metrics.contains(&leases), "{metrics}");

    // Both slots are free again at once, and the worker recreates everything that it needs in
    // Redis.
    submit_all(&desk).await;
    all_end_once(&desk).await;
    assert_eq!(desk.queue.workers().await.unwrap().len(), 1);
    soon(worker.stop(CancellationToken::new())).await;
}
