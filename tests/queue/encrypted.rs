//! Encrypted connections to a master that Sentinels name and to the nodes of a cluster: clients
//! check the certificate of every server that is named later as they checked the first.

use std::sync::Arc;
use std::time::Duration;

use sandhog_config::RedisSettings;
use sandhog_core::outcome::Outcome;
use sandhog_producer::Client;
use sandhog_queue::{Queue, QueueError};
use sandhog_testkit::certificates::Certificates;
use sandhog_testkit::cluster::{Cluster, MASTERS};
use sandhog_testkit::sentinels::SentinelSetup;
use tokio_util::sync::CancellationToken;

use crate::fixture::{WAIT_TIMEOUT, named, payload, soon};
use crate::in_process_worker::{AttemptCounter, start_worker, worker_settings};

/// Submits a job, retries until Redis accepts it, and waits for its end.
async fn run(client: &Client, id: &str) {
    let submitting = async {
        while let Err(error) = client.queue().submit(&named(id), &payload()).await {
            assert!(error.is_transient(), "{error:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(submitting).await;
    let result = client
        .wait(&id.parse().unwrap(), WAIT_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(result.outcome, Outcome::Succeeded);
}

/// Runs jobs before and after the master dies. The second submission waits for the replica that the
/// old master becomes, so replication must be encrypted too.
async fn sentinels_are_followed(host: &str, name: Option<&str>) {
    let certificates = Arc::new(Certificates::make(host));
    let watched = SentinelSetup::encrypted(&certificates, name, Some("sesame"));
    let redis = RedisSettings {
        sentinel_password: Some("sesame".into()),
        wait_replicas: 1,
        ..certificates.settings(&watched.url())
    };
    let namespace = "encrypted".parse().unwrap();
    let client = Client::connect(&redis, &namespace).await.unwrap();
    let worker = start_worker(
        &worker_settings(&redis, &namespace, "one"),
        &AttemptCounter::default(),
    )
    .await;
    run(&client, "before").await;
    let watched = tokio::task::spawn_blocking(move || {
        let mut watched = watched;
        watched.first().kill();
        watched.wait_until_second_leads();
        watched.first().start_again();
        watched
    })
    .await
    .unwrap();
    run(&client, "after").await;
    soon(worker.stop(CancellationToken::new())).await;
    let snapshot = client.queue().snapshot().await.unwrap();
    let finished = snapshot.counters.get("finished_succeeded").copied();
    assert_eq!(finished, Some(2), "{:?}", snapshot.counters);
    drop(watched);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_tell_an_address_are_followed() {
    sentinels_are_followed("127.0.0.1", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_tell_a_name_are_followed() {
    sentinels_are_followed("localhost", Some("localhost")).await;
}

/// Runs jobs in a namespace of every node, while one namespace moves between nodes, and after a
/// node dies.
async fn a_cluster_is_followed(host: &str, name: Option<&str>) {
    let certificates = Arc::new(Certificates::make(host));
    let mut cluster = Cluster::encrypted(&certificates, name);
    let redis = certificates.settings(&cluster.url());
    let namespaces: Vec<_> = (0..MASTERS).map(|n| cluster.namespace_at(n)).collect();
    let mut settings = worker_settings(&redis, &namespaces[0], "one");
    settings.worker.namespaces = namespaces[1..].to_vec();
    let worker = start_worker(&settings, &AttemptCounter::default()).await;
    let mut clients = Vec::new();
    for namespace in &namespaces {
        let client = Client::connect(&redis, namespace).await.unwrap();
        run(&client, "before").await;
        clients.push(client);
    }
    let moving = namespaces[1].clone();
    let queue = clients[1].queue().clone();
    let runtime = tokio::runtime::Handle::current();
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.move_namespace(&moving, 1, 2, || {
            // Half of the keys are at the other node. The client follows them over one more
            // connection.
            let submitted = runtime.block_on(queue.submit(&named("midway"), &payload()));
            submitted.expect("single commands follow a key under way");
        });
        assert_eq!(cluster.keys_at(1), 0, "nothing was left behind");
        cluster.master(0).kill();
        cluster.wait_until_replica_leads();
        cluster
    })
    .await
    .unwrap();
    for client in &clients {
        run(client, "after").await;
    }
    run(&clients[1], "midway").await;
    soon(worker.stop(CancellationToken::new())).await;
    for client in &clients {
        assert_eq!(client.queue().workers().await.unwrap().len(), 0);
    }
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_tells_addresses_is_followed() {
    a_cluster_is_followed("127.0.0.1", None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_tells_names_is_followed() {
    a_cluster_is_followed("localhost", Some("localhost")).await;
}

/// The certificates hold a name, but servers announce addresses: a typical mistake of a first
/// set-up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_without_what_is_told_is_refused_with_a_hint() {
    let certificates = Arc::new(Certificates::make("localhost"));
    let watched = SentinelSetup::encrypted(&certificates, None, None);
    let mut cluster = Cluster::encrypted(&certificates, None);
    // A node other than the one in the URL, so that the client must follow an announced address.
    let elsewhere = cluster.namespace_at(2);
    let first = cluster.master(0).url();
    let first = first.replace("rediss://", "rediss+cluster://");
    for (case, url, namespace) in [
        ("sentinel", watched.url(), "encrypted".parse().unwrap()),
        ("cluster", first, elsewhere),
    ] {
        let settings = certificates.settings(&url);
        let error = Queue::connect(&settings, &namespace).await.unwrap_err();
        let QueueError::Connect { address, .. } = &error else {
            panic!("case {case}: {error:?}");
        };
        assert!(address.starts_with("127.0.0.1:"), "case {case}: {error:?}");
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains("announce"), "case {case}: {hint}");
    }
}

#[tokio::test]
async fn sentinels_of_another_authority_are_refused_with_a_hint() {
    let certificates = Arc::new(Certificates::make("localhost"));
    let others = Certificates::make("localhost");
    let watched = SentinelSetup::encrypted(&certificates, None, None);
    let settings = RedisSettings {
        tls_ca: Some(others.file("ca.crt")),
        ..certificates.settings(&watched.url())
    };
    let namespace = "encrypted".parse().unwrap();
    let error = Queue::connect(&settings, &namespace).await.unwrap_err();
    assert!(matches!(error, QueueError::NoMaster { .. }), "{error:?}");
    let hint = error.hint().unwrap_or_default();
    assert!(hint.contains("redis.tls_ca"), "{hint}");
}
