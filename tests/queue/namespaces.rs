//! One worker for several namespaces.

use sandhog_common::outcome::Outcome;
use sandhog_producer::Client;
use sandhog_tests::private_redis::PrivateRedis;
use tokio_util::sync::CancellationToken;

use crate::crew::{Tally, hire, metrics, worker_settings};
use crate::desk::{Desk, PATIENCE, named, payload, settings, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_take_turns_at_a_slot() {
    const MANY: usize = 60;
    const FEW: usize = 10;
    let redis = PrivateRedis::start(&[]);
    let flood = Desk::on(&redis, "flood").await;
    let trickle = Desk::on(&redis, "trickle").await;
    let mut jobs = Vec::new();
    for n in 0..MANY {
        jobs.push((named(&format!("job-{n}")), payload()));
    }
    flood.queue.submit_many(&jobs).await.unwrap();
    trickle.queue.submit_many(&jobs[..FEW]).await.unwrap();
    flood.admit().await;
    trickle.admit().await;

    let tally = Tally::default();
    let mut worker = worker_settings(&settings(&redis.url()), flood.space.namespace(), "one");
    worker.worker.namespaces = vec![trickle.space.namespace().clone()];
    worker.worker.slots = 1;
    let worker = hire(&worker, &tally).await;
    soon(tally.reach(MANY + FEW)).await;
    soon(worker.stop(CancellationToken::new())).await;
    let order = tally.namespaces();
    let last = order
        .iter()
        .rposition(|namespace| namespace == trickle.space.namespace());
    // Every other attempt belongs to the small namespace, except for the first few, because the
    // loops start one after another.
    assert!(last.unwrap() < 2 * FEW + 10, "{order:?}");
    for desk in [&flood, &trickle] {
        let finished = desk.counter("finished_succeeded").await;
        assert_eq!(finished, desk.counter("admitted").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_namespace_holds_no_slot() {
    let idle = Desk::shared("idle").await;
    let busy = Desk::shared("busy").await;
    let reached = settings(idle.space.url());
    let mut worker = worker_settings(&reached, idle.space.namespace(), "one");
    worker.worker.namespaces = vec![busy.space.namespace().clone()];
    worker.worker.slots = 1;
    worker.worker.http = "127.0.0.1:0".to_owned();
    let worker = hire(&worker, &Tally::default()).await;
    let client = Client::over(busy.queue.clone());
    // The jobs come one after another, so each arrives while both namespaces are idle.
    for n in 0..20 {
        let id = client
            .queue()
            .submit(&named(&format!("job-{n}")), &payload())
            .await
            .unwrap();
        let result = client.wait(&id, PATIENCE).await.unwrap();
        assert_eq!(result.outcome, Outcome::Succeeded);
    }
    for desk in [&idle, &busy] {
        let workers = desk.queue.workers().await.unwrap();
        assert_eq!(workers.len(), 1);
        let metrics = metrics(&worker);
        let label = format!("namespace=\"{}\"", desk.space.namespace());
        assert!(
            metrics
                .lines()
                .any(|line| line.starts_with("sandhog_queue_workers") && line.contains(&label)),
            "{metrics}"
        );
    }
    soon(worker.stop(CancellationToken::new())).await;
    for desk in [&idle, &busy] {
        assert_eq!(desk.queue.workers().await.unwrap().len(), 0);
    }
}
