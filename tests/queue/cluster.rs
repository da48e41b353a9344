//! A namespace on one node of a cluster: when it moves or its node dies, clients and workers
//! follow.

use std::sync::mpsc;
use std::time::Duration;

use sandhog_config::RedisSettings;
use sandhog_core::id::Namespace;
use sandhog_core::outcome::Outcome;
use sandhog_producer::Client;
use sandhog_queue::{Queue, QueueError};
use sandhog_testkit::cluster::{Cluster, MASTERS};
use sandhog_worker::Worker;
use tokio_util::sync::CancellationToken;

use crate::fixture::{WAIT_TIMEOUT, named, payload, settings, soon};
use crate::in_process_worker::{AttemptCounter, start_worker, worker_settings};

/// Number of jobs that are submitted while slots move or nodes die.
const JOBS: usize = 400;

/// Submits `JOBS` jobs and retries each until Redis accepts it.
async fn submit_all(queue: Queue) {
    for n in 0..JOBS {
        while let Err(error) = queue.submit(&named(&format!("job-{n}")), &payload()).await {
            assert!(error.is_transient(), "{error:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits for `JOBS` results, stops the worker, and then counts the results again.
async fn all_end_once(client: &Client, worker: Worker) {
    for n in 0..JOBS {
        let id = format!("job-{n}").parse().unwrap();
        let result = client.wait(&id, 2 * WAIT_TIMEOUT).await.unwrap();
        assert_eq!(result.outcome, Outcome::Succeeded);
    }
    worker.stop(CancellationToken::new()).await;
    let snapshot = client.queue().snapshot().await.unwrap();
    let finished = snapshot.counters.get("finished_succeeded").copied();
    assert_eq!(finished, Some(JOBS as u64), "{:?}", snapshot.counters);
    assert_eq!((snapshot.intake, snapshot.dead), (0, 0));
}

async fn start(
    redis: &RedisSettings,
    namespace: &Namespace,
    counter: &AttemptCounter,
) -> (Client, Worker) {
    let client = Client::connect(redis, namespace).await.unwrap();
    let worker = start_worker(&worker_settings(redis, namespace, "one"), counter).await;
    (client, worker)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaces_are_spread_over_the_nodes() {
    let cluster = Cluster::start();
    let redis = settings(&cluster.url());
    let namespaces: Vec<_> = (0..MASTERS).map(|n| cluster.namespace_at(n)).collect();
    // One worker, with fewer slots than namespaces.
    let mut worker = worker_settings(&redis, &namespaces[0], "one");
    worker.worker.namespaces = namespaces[1..].to_vec();
    worker.worker.slots = 1;
    let worker = start_worker(&worker, &AttemptCounter::default()).await;
    for namespace in &namespaces {
        let client = Client::connect(&redis, namespace).await.unwrap();
        let queue = client.queue();
        assert_eq!(queue.workers().await.unwrap().len(), 1);
        queue.submit(&named("a"), &payload()).await.unwrap();
        let result = client
            .wait(&"a".parse().unwrap(), WAIT_TIMEOUT)
            .await
            .unwrap();
        assert_eq!(result.outcome, Outcome::Succeeded);
    }
    // The stop ends the readers' waits at the right nodes.
    soon(worker.stop(CancellationToken::new())).await;
    for n in 0..MASTERS {
        assert!(cluster.keys_at(n) > 0, "node {n}");
    }
}

#[tokio::test]
async fn a_submitter_needs_no_more_rights_in_a_cluster() {
    let mut cluster = Cluster::start();
    for n in 0..MASTERS {
        let client = cluster.master(n).client();
        let _ok: String = redis::cmd("ACL")
            .arg(&[
                "SETUSER",
                "submitter",
                "on",
                ">secret",
                "resetkeys",
                "-@all",
            ])
            .arg(&["+xadd", "%W~sandhog:*:jobs"])
            .query(&mut client.get_connection().unwrap())
            .unwrap();
    }
    let url = cluster
        .url()
        .replace("redis+cluster://", "redis+cluster://submitter:secret@");
    for n in 0..MASTERS {
        let namespace = cluster.namespace_at(n);
        let queue = Queue::connect(&settings(&url), &namespace).await.unwrap();
        queue.submit(&named("a"), &payload()).await.unwrap();
        assert!(queue.snapshot().await.is_err());
        assert_eq!(cluster.keys_at(n), 1, "node {n}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_ends_once_though_its_namespace_moves() {
    let cluster = Cluster::start();
    let namespace = cluster.namespace_at(1);
    let redis = settings(&cluster.url());
    let counter = AttemptCounter::default();
    let (client, worker) = start(&redis, &namespace, &counter).await;
    let submitting = tokio::spawn(submit_all(client.queue().clone()));
    soon(counter.reach(JOBS / 4)).await;
    let (reached, midway) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let moving = tokio::task::spawn_blocking({
        let namespace = namespace.clone();
        move || {
            cluster.move_namespace(&namespace, 1, 2, || {
                reached.send(()).unwrap();
                // The send fails only if the test has failed already.
                wait.recv().ok();
            });
            cluster
        }
    });
    let midway = tokio::task::spawn_blocking(move || midway.recv());
    soon(midway).await.unwrap().unwrap();
    // Half of the keys are at another node: a script must not run on only the other half.
    let hasty = RedisSettings {
        response_timeout_ms: sandhog_core::units::Millis(500),
        ..redis.clone()
    };
    let queue = Queue::connect(&hasty, &namespace).await.unwrap();
    let error = queue.snapshot().await.unwrap_err();
    assert!(
        matches!(error, QueueError::Command { .. }) && error.is_transient(),
        "{error:?}"
    );
    // A command on one key may run: this job is already known, so the command changes nothing.
    queue.submit(&named("job-0"), &payload()).await.unwrap();
    go_on.send(()).unwrap();
    let cluster = soon(moving).await.unwrap();
    soon(submitting).await.unwrap();
    assert_eq!(cluster.keys_at(1), 0, "nothing was left behind");
    all_end_once(&client, worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_ends_once_though_its_node_dies() {
    let mut cluster = Cluster::start();
    let namespace = cluster.namespace_at(0);
    let redis = RedisSettings {
        wait_replicas: 1,
        ..settings(&cluster.url())
    };
    let counter = AttemptCounter::default();
    let (client, worker) = start(&redis, &namespace, &counter).await;
    let submitting = tokio::spawn(submit_all(client.queue().clone()));
    soon(counter.reach(JOBS / 4)).await;
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.master(0).kill();
        cluster.wait_until_replica_leads();
        // The old master comes back as the replica for which writes wait.
        cluster.master(0).start_again();
        cluster
    })
    .await
    .unwrap();
    tokio::time::timeout(3 * WAIT_TIMEOUT, submitting)
        .await
        .expect("all are submitted")
        .unwrap();
    all_end_once(&client, worker).await;
    drop(cluster);
}
