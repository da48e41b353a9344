//! The client library with a queue whose worker is the test itself.

use std::time::Duration;

use futures_util::{StreamExt, stream};
use sandhog_core::blob::Blob;
use sandhog_core::job::Job;
use sandhog_core::outcome::Outcome;
use sandhog_core::submission::Routing;
use sandhog_core::units::{ByteCount, Millis};
use sandhog_producer::{Client, ClientError};
use sandhog_queue::{JobState, LogStream, WorkerFacts};

use crate::fixture::{QueueFixture, WAIT_TIMEOUT, checked_job, facts, job, named, success, worker};

#[tokio::test]
async fn a_client_runs_follows_and_inspects() {
    let fixture = QueueFixture::shared("client").await;
    let client = Client::from_queue(fixture.queue.clone());
    let id = client
        .submit(&checked_job(), Routing::default())
        .await
        .unwrap();
    assert_eq!(client.inspect(&id).await.unwrap(), None);
    assert_eq!(client.result(&id).await.unwrap(), None);
    fixture.admit().await;
    assert_eq!(
        client.inspect(&id).await.unwrap().unwrap().state,
        JobState::Queued
    );
    let waiting = tokio::spawn({
        let (client, id) = (client.clone(), id.clone());
        async move { client.wait(&id, WAIT_TIMEOUT).await }
    });
    let lease = fixture.bound(&worker("one")).await.lease;
    let mut follow = client.follow(&id).await.unwrap();
    fixture
        .queue
        .log(&lease, LogStream::Stderr, b"hi\n")
        .await
        .unwrap();
    let chunk = follow.next().await.unwrap().unwrap();
    assert_eq!(
        (chunk.stream, chunk.data.as_slice(), chunk.attempt),
        (LogStream::Stderr, &b"hi\n"[..], 1)
    );
    let _settled = fixture.queue.finish(&lease, success(&id)).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().outcome, Outcome::Succeeded);
    assert_eq!(follow.next().await.unwrap(), None);
    assert_eq!(
        follow.next().await.unwrap(),
        None,
        "reads after the end return nothing"
    );
    assert_eq!(follow.outcome(), Some(Outcome::Succeeded));
    assert_eq!(client.result(&id).await.unwrap().unwrap().id, id);
}

#[tokio::test]
async fn an_invalid_job_is_not_sent() {
    let fixture = QueueFixture::shared("client-refuses").await;
    let client = Client::from_queue(fixture.queue.clone());
    let mut bad = job();
    bad.code = None;
    let jobs = stream::iter([(bad, Routing::default())]);
    let answers: Vec<_> = client.submit_many(jobs).collect().await;
    assert!(
        matches!(answers[..], [Err(ClientError::Job(_))]),
        "{answers:?}"
    );
    assert_eq!(fixture.queue.snapshot().await.unwrap().intake, 0);
}

#[tokio::test]
async fn many_jobs_keep_their_order_and_their_own_ids() {
    let fixture = QueueFixture::shared("client-many").await;
    let client = Client::from_queue(fixture.queue.clone());
    let jobs = [
        (checked_job(), named("a")),
        (checked_job(), Routing::default()),
        (checked_job(), named("c")),
    ];
    let ids = client.submit_batch(jobs).await.unwrap();
    assert_eq!((ids[0].as_str(), ids[2].as_str()), ("a", "c"));
    fixture.admit().await;
    for id in &ids {
        assert_eq!(fixture.bound(&worker("one")).await.lease.id, *id);
    }
    client.cancel(&ids[1]).await.unwrap();
    fixture.admit().await;
    assert!(fixture.record(&ids[1]).await.cancel_requested);
    let error = client
        .wait(&ids[0], Duration::from_millis(1))
        .await
        .unwrap_err();
    assert!(matches!(error, ClientError::NoResult { .. }), "{error}");
}

/// Such a job must not be written to Redis at all.
#[tokio::test]
async fn a_job_that_no_live_worker_admits_is_not_sent() {
    let fixture = QueueFixture::shared("large").await;
    let client = Client::from_queue(fixture.queue.clone());
    let large = |bytes: usize| {
        let job = Job {
            stdin: Blob(vec![b'x'; bytes]),
            ..job()
        };
        job.check().unwrap()
    };
    let mib = 1 << 20;
    // No worker has announced the largest payload that it admits.
    client
        .submit(&large(3 * mib), Routing::default())
        .await
        .unwrap();
    let says = |id, max_payload| WorkerFacts {
        max_payload,
        ..facts(id, &["cpu"])
    };
    let most = Some(ByteCount::mib(2));
    let announce = async |facts| {
        fixture
            .queue
            .announce(&facts, Millis(60_000))
            .await
            .unwrap()
    };
    announce(says("one", Some(ByteCount::mib(1)))).await;
    announce(says("two", most)).await;
    for (case, bytes, taken) in [
        ("as much as all take", mib / 2, true),
        ("as much as one takes", 3 * mib / 2, true),
        ("more than any takes", 3 * mib, false),
        ("more than any could", 17 * mib, false),
    ] {
        let sent = client.submit(&large(bytes), Routing::default()).await;
        let batch = [(large(bytes), Routing::default())];
        let batch = client.submit_batch(batch).await;
        assert_eq!(sent.is_ok(), taken, "{case}: {sent:?}");
        assert_eq!(batch.is_ok(), taken, "{case}: {batch:?}");
        if let Err(error) = sent {
            assert!(matches!(error, ClientError::TooLarge { .. }), "{error:?}");
            assert!(error.hint().is_some(), "{case}");
        }
    }
    announce(says("old", None)).await;
    let sent = client.submit(&large(3 * mib), Routing::default()).await;
    assert!(sent.is_ok(), "one worker announces no maximum: {sent:?}");
}
