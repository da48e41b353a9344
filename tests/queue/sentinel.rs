//! Failover and handover of the master: the Sentinels name another server, and clients and workers
//! follow.

use std::collections::BTreeSet;
use std::time::Duration;

use sandhog_config::RedisSettings;
use sandhog_core::outcome::Outcome;
use sandhog_core::units::Millis;
use sandhog_producer::Client;
use sandhog_queue::{Queue, QueueError};
use sandhog_testkit::sentinels::SentinelSetup;
use tokio_util::sync::CancellationToken;

use crate::fixture::{FOR_EVER, WAIT_TIMEOUT, named, payload, settings, soon};
use crate::in_process_worker::{AttemptCounter, start_worker, worker_settings};

/// Number of jobs that are submitted while the master dies.
const JOBS: usize = 600;

/// Returns the value of a successful call. After a transient error it pauses and returns `None`,
/// because the servers are changing their roles.
async fn done<T>(answer: Result<T, QueueError>) -> Option<T> {
    match answer {
        Ok(done) => Some(done),
        Err(error) => {
            assert!(error.is_transient(), "{error:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
            None
        }
    }
}

/// Submits a job and retries until Redis accepts it.
async fn submit(queue: &Queue, id: &str) {
    let routing = named(id);
    while done(queue.submit(&routing, &payload()).await)
        .await
        .is_none()
    {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_ends_once_though_the_master_is_killed() {
    let mut watched = SentinelSetup::start();
    let redis = RedisSettings {
        // A submission or a settlement counts only once the replica has it.
        wait_replicas: 1,
        ..settings(&watched.url())
    };
    let namespace = "failover".parse().unwrap();
    let client = Client::connect(&redis, &namespace).await.unwrap();
    let counter = AttemptCounter::default();
    let workers = [
        start_worker(&worker_settings(&redis, &namespace, "one"), &counter).await,
        start_worker(&worker_settings(&redis, &namespace, "two"), &counter).await,
    ];
    let submitting = tokio::spawn({
        let queue = client.queue().clone();
        async move {
            for n in 0..JOBS {
                submit(&queue, &format!("job-{n}")).await;
            }
        }
    });
    soon(counter.reach(JOBS / 4)).await;
    let mut watched = tokio::task::spawn_blocking(move || {
        watched.first().kill();
        watched.wait_until_second_leads();
        // The old server comes back as a master, and the Sentinels make it the replica for which
        // writes wait.
        watched.first().start_again();
        watched
    })
    .await
    .unwrap();
    tokio::time::timeout(3 * WAIT_TIMEOUT, submitting)
        .await
        .expect("all are submitted")
        .unwrap();
    let mut ids = BTreeSet::new();
    for n in 0..JOBS {
        let id = format!("job-{n}").parse().unwrap();
        let result = client.wait(&id, WAIT_TIMEOUT).await.unwrap();
        assert_eq!(result.outcome, Outcome::Succeeded);
        ids.insert(result.id);
    }
    assert_eq!(ids.len(), JOBS);
    for worker in workers {
        worker.stop(CancellationToken::new()).await;
    }

    let queue = Queue::connect(&settings(&watched.second().url()), &namespace)
        .await
        .unwrap();
    let snapshot = queue.snapshot().await.unwrap();
    let finished = snapshot.counters.get("finished_succeeded").copied();
    assert_eq!(finished, Some(JOBS as u64), "{:?}", snapshot.counters);
    assert_eq!((snapshot.intake, snapshot.dead), (0, 0));
}

#[tokio::test]
async fn those_who_wait_follow_a_hand_over() {
    let watched = SentinelSetup::start();
    let redis = settings(&watched.url());
    let namespace = "hand-over".parse().unwrap();
    let queue = Queue::connect(&redis, &namespace).await.unwrap();
    let counter = AttemptCounter::default();
    let worker = start_worker(&worker_settings(&redis, &namespace, "one"), &counter).await;
    let mut waiter = queue.result_waiter().await.unwrap();
    let waiting = tokio::spawn(async move {
        let id = "a".parse().unwrap();
        loop {
            if let Some(result) = done(waiter.wait(&id, FOR_EVER).await).await {
                return result;
            }
        }
    });
    let mut watched = tokio::task::spawn_blocking(move || {
        watched.hand_over();
        watched
    })
    .await
    .unwrap();
    // The worker's readers have been waiting at the old master, which is still alive.
    submit(&queue, "a").await;
    assert!(soon(waiting).await.unwrap().is_some());
    worker.stop(CancellationToken::new()).await;
    let old = Queue::connect(&settings(&watched.first().url()), &namespace)
        .await
        .unwrap();
    let error = old.submit(&named("b"), &payload()).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn a_master_that_hangs_is_left() {
    let mut watched = SentinelSetup::start();
    let namespace = "hangs".parse().unwrap();
    let redis = RedisSettings {
        response_timeout_ms: Millis(1_000),
        connect_timeout_ms: Millis(1_000),
        ..settings(&watched.url())
    };
    let queue = Queue::connect(&redis, &namespace).await.unwrap();
    submit(&queue, "before").await;
    watched.first().freeze(true);
    let mut watched = tokio::task::spawn_blocking(move || {
        watched.wait_until_second_leads();
        watched
    })
    .await
    .unwrap();
    // The connections to the frozen master are still open but silent.
    soon(submit(&queue, "after")).await;
    let second = Queue::connect(&settings(&watched.second().url()), &namespace)
        .await
        .unwrap();
    assert!(second.snapshot().await.unwrap().intake >= 1);
    watched.first().freeze(false);
}

#[tokio::test]
async fn a_promise_waits_for_replicas() {
    let mut watched = SentinelSetup::start();
    let namespace = "promise".parse().unwrap();
    let redis = RedisSettings {
        wait_replicas: 1,
        response_timeout_ms: Millis(6_000),
        ..settings(&watched.url())
    };
    let queue = Queue::connect(&redis, &namespace).await.unwrap();
    queue.submit(&named("a"), &payload()).await.unwrap();
    let two = [(named("b"), payload()), (named("c"), payload())];
    assert_eq!(queue.submit_many(&two).await.unwrap().len(), 2);
    watched.second().kill();
    let error = queue.submit(&named("d"), &payload()).await.unwrap_err();
    assert!(
        matches!(
            error,
            QueueError::NotReplicated {
                have: 0,
                want: 1,
                ..
            }
        ),
        "{error:?}"
    );
    assert!(error.is_transient() && error.hint().is_some());
    assert!(queue.submit_many(&two).await.is_err());
    watched.second().start_again();
    submit(&queue, "d").await;
}

#[tokio::test]
async fn sentinels_that_do_not_help_are_an_error_with_a_hint() {
    let watched = SentinelSetup::guarded("sesame");
    let namespace = "guarded".parse().unwrap();
    let closed = settings(&watched.url());
    let error = Queue::connect(&closed, &namespace).await.unwrap_err();
    assert!(matches!(error, QueueError::NoMaster { .. }), "{error:?}");
    assert!(
        error.hint().unwrap().contains("redis.sentinel_password"),
        "{error}"
    );
    let open = RedisSettings {
        sentinel_password: Some("sesame".into()),
        ..closed
    };
    let queue = Queue::connect(&open, &namespace).await.unwrap();
    queue.submit(&named("a"), &payload()).await.unwrap();
    let unknown = RedisSettings {
        url: open.url.map(|url| url.replace("/main", "/other")),
        ..open
    };
    let error = Queue::connect(&unknown, &namespace).await.unwrap_err();
    assert!(
        error.to_string().contains("names a master of \"other\""),
        "{error}"
    );
}
