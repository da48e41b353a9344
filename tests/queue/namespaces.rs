//! One worker for several namespaces.

use sandhog_core::outcome::Outcome;
use sandhog_producer::Client;
use sandhog_testkit::private_redis::PrivateRedis;
use tokio_util::sync::CancellationToken;

use crate::fixture::{QueueFixture, WAIT_TIMEOUT, named, payload, settings, soon};
use crate::in_process_worker::{AttemptCounter, metrics, start_worker, worker_settings};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_take_turns_at_a_slot() {
    const MANY: usize = 60;
    const FEW: usize = 10;
    let redis = PrivateRedis::start(&[]);
    let flood = QueueFixture::on(&redis, "flood").await;
    let trickle = QueueFixture::on(&redis, "trickle").await;
    let mut jobs = Vec::new();
    for n in 0..MANY {
        jobs.push((named(&format!("job-{n}")), payload()));
    }
    flood.queue.submit_many(&jobs).await.unwrap();
    trickle.queue.submit_many(&jobs[..FEW]).await.unwrap();
    flood.admit().await;
    trickle.admit().await;

    let counter = AttemptCounter::default();
    let mut worker = worker_settings(&settings(&redis.url()), flood.space.namespace(), "one");
    worker.worker.namespaces = vec![trickle.space.namespace().clone()];
    worker.worker.slots = 1;
    let worker = start_worker(&worker, &counter).await;
    soon(counter.reach(MANY + FEW)).await;
    soon(worker.stop(CancellationToken::new())).await;
    let order = counter.namespaces();
    let last = order
        .iter()
        .rposition(|namespace| namespace == trickle.space.namespace());
    // Every other attempt belongs to the small namespace, except for the first few, because the
    // loops start one after another.
    assert!(last.unwrap() < 2 * FEW + 10, "{order:?}");
    for fixture in [&flood, &trickle] {
        let finished = fixture.counter("finished_succeeded").await;
        assert_eq!(finished, fixture.counter("admitted").await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_namespace_holds_no_slot() {
    let idle = QueueFixture::shared("idle").await;
    let busy = QueueFixture::shared("busy").await;
    let reached = settings(idle.space.url());
    let mut worker = worker_settings(&reached, idle.space.namespace(), "one");
    worker.worker.namespaces = vec![busy.space.namespace().clone()];
    worker.worker.slots = 1;
    worker.worker.http = "127.0.0.1:0".to_owned();
    let worker = start_worker(&worker, &AttemptCounter::default()).await;
    let client = Client::from_queue(busy.queue.clone());
    // The jobs come one after another, so each arrives while both namespaces are idle.
    for n in 0..20 {
        let id = client
            .queue()
            .submit(&named(&format!("job-{n}")), &payload())
            .await
            .unwrap();
        let result = client.wait(&id, WAIT_TIMEOUT).await.unwrap();
        assert_eq!(result.outcome, Outcome::Succeeded);
    }
    for fixture in [&idle, &busy] {
        let workers = fixture.queue.workers().await.unwrap();
        assert_eq!(workers.len(), 1);
        let metrics = metrics(&worker);
        let label = format!("namespace=\"{}\"", fixture.space.namespace());
        assert!(
            metrics
                .lines()
                .any(|line| line.starts_with("sandhog_queue_workers") && line.contains(&label)),
            "{metrics}"
        );
    }
    soon(worker.stop(CancellationToken::new())).await;
    for fixture in [&idle, &busy] {
        assert_eq!(fixture.queue.workers().await.unwrap().len(), 0);
    }
}
