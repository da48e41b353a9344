//! Reply streams: many results on one connection, and the submission of a stream of jobs.

use sandhog_testkit::eventually::eventually_async;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt, stream};
use sandhog_core::id::JobId;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::submission::Routing;
use sandhog_core::wire::{self, Encoding};
use sandhog_producer::{Client, ClientError, Pending, Replies};
use sandhog_testkit::private_redis::PrivateRedis;
use tokio_util::sync::CancellationToken;

use crate::fixture::{
    FOR_EVER, QueueFixture, WAIT_TIMEOUT, checked_job, job, named, settings, success, worker,
};
use crate::in_process_worker::{AttemptCounter, start_worker, worker_settings};

/// Returns a queue fixture on a private server, and a client's reply stream there.
async fn desk_with_replies(redis: &PrivateRedis, name: &str) -> (QueueFixture, Replies) {
    let fixture = QueueFixture::on(redis, name).await;
    let client = Client::from_queue(fixture.queue.clone());
    let replies = client.replies().await.unwrap();
    (fixture, replies)
}

impl QueueFixture {
    /// Breaks every connection except the fixture's own plain one.
    async fn break_connections(&self) {
        let _killed: i64 = self
            .plain(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"])
            .await;
    }

    async fn connections(&self) -> usize {
        let clients: String = self.plain(&["CLIENT", "LIST"]).await;
        clients.lines().count()
    }
}

fn result_of(id: &JobId) -> String {
    let result = JobResult::bare(id.clone(), Outcome::Succeeded);
    String::from_utf8(wire::encode(&result, Encoding::Json)).unwrap()
}

async fn outcome(pending: &mut Pending) -> Outcome {
    pending.wait(WAIT_TIMEOUT).await.unwrap().outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_thousand_jobs_are_waited_for_on_one_connection() {
    const JOBS: usize = 5_000;
    let redis = PrivateRedis::start(&["--appendfsync", "no"]);
    let fixture = QueueFixture::on(&redis, "five-thousand").await;
    let reached = settings(fixture.space.url());
    let namespace = fixture.space.namespace().clone();
    let before = fixture.connections().await;
    let client = Client::connect(&reached, &namespace).await.unwrap();
    let replies = client.replies().await.unwrap();
    let mut waiting = stream::iter(0..JOBS)
        .map(|_| async { replies.submit(&checked_job(), Routing::default()).await })
        .buffer_unordered(64)
        .map(|submitted| {
            let mut pending = submitted.unwrap();
            tokio::spawn(async move { pending.wait(3 * WAIT_TIMEOUT).await })
        })
        .collect::<Vec<_>>()
        .await;
    assert_eq!(replies.waiting(), JOBS);
    assert_eq!(
        fixture.connections().await - before,
        2,
        "one connection submits and one waits"
    );
    let mut settings = worker_settings(&reached, &namespace, "one");
    settings.worker.slots = 64;
    let worker = start_worker(&settings, &AttemptCounter::default()).await;
    for waiter in &mut waiting {
        let result = waiter.await.unwrap().unwrap();
        assert_eq!(result.outcome, Outcome::Succeeded);
    }
    assert_eq!(replies.waiting(), 0);
    worker.stop(CancellationToken::new()).await;
}

#[tokio::test]
async fn a_result_that_the_stream_lost_is_found_after_the_connection_broke() {
    let redis = PrivateRedis::start(&[]);
    let (fixture, replies) = desk_with_replies(&redis, "lost-reply").await;
    let mut a = replies.submit(&checked_job(), named("a")).await.unwrap();
    let mut b = replies
        .submit(&checked_job(), Routing::default())
        .await
        .unwrap();
    let keys = fixture.queue.keys().clone();
    // The result is published, but its entry was trimmed from the reply stream before the client
    // read it.
    let _length: i64 = fixture
        .plain(&["RPUSH", &keys.result(b.id()), &result_of(b.id())])
        .await;
    fixture.break_connections().await;
    assert_eq!(outcome(&mut b).await, Outcome::Succeeded);

    // A stream that lost its last entries assigns ids again that the client has already passed.
    let stream = keys.reply(replies.name());
    let tell = async |entry: &str, id: &JobId| {
        let _entry: String = fixture
            .plain(&[
                "XADD",
                &stream,
                entry,
                "id",
                id.as_str(),
                "outcome",
                "succeeded",
                "result",
                &result_of(id),
            ])
            .await;
    };
    tell("1000-0", a.id()).await;
    assert_eq!(outcome(&mut a).await, Outcome::Succeeded);
    let _deleted: i64 = fixture.plain(&["DEL", &stream]).await;
    let mut c = replies
        .submit(&checked_job(), Routing::default())
        .await
        .unwrap();
    tell("5-0", c.id()).await;
    fixture.break_connections().await;
    assert_eq!(outcome(&mut c).await, Outcome::Succeeded);
    let again = c.wait(FOR_EVER).await.unwrap_err();
    assert!(matches!(again, ClientError::NoResult { .. }), "{again}");
}

#[tokio::test]
async fn waiting_outlives_a_restart() {
    let mut redis = PrivateRedis::start(&[]);
    let (mut fixture, replies) = desk_with_replies(&redis, "reply-restart").await;
    let mut pending = replies
        .submit(&checked_job(), Routing::default())
        .await
        .unwrap();
    redis.kill();
    redis.start_again();
    fixture.reconnect().await;
    fixture.admit().await;
    let lease = fixture.bound(&worker("one")).await.lease;
    let id = pending.id().clone();
    let _settled = fixture.queue.finish(&lease, success(&id)).await.unwrap();
    assert_eq!(outcome(&mut pending).await, Outcome::Succeeded);
}

#[tokio::test]
async fn a_job_that_is_known_already_answers_all_the_same() {
    let fixture = QueueFixture::shared("known-reply").await;
    let replies = Client::from_queue(fixture.queue.clone())
        .replies()
        .await
        .unwrap();
    let id = fixture.ready(&named("mine")).await;
    let lease = fixture.bound(&worker("one")).await.lease;
    let _settled = fixture.queue.finish(&lease, success(&id)).await.unwrap();
    // The job is submitted again, as after a crash of the producer.
    let mut pending = replies.submit(&checked_job(), named("mine")).await.unwrap();
    assert_eq!(outcome(&mut pending).await, Outcome::Succeeded);
    let other = replies
        .submit(&checked_job(), named("other"))
        .await
        .unwrap();
    assert_eq!(replies.waiting(), 1);
    drop(other);
    assert_eq!(replies.waiting(), 0);
}

#[tokio::test]
async fn what_has_been_read_does_not_stay_in_the_stream() {
    let fixture = QueueFixture::shared("reply-trim").await;
    let replies = Client::from_queue(fixture.queue.clone())
        .replies()
        .await
        .unwrap();
    let mut last = None;
    for _ in 0..5 {
        let mut pending = replies
            .submit(&checked_job(), Routing::default())
            .await
            .unwrap();
        fixture.admit().await;
        let lease = fixture.bound(&worker("one")).await.lease;
        let id = pending.id().clone();
        let _settled = fixture.queue.finish(&lease, success(&id)).await.unwrap();
        assert_eq!(outcome(&mut pending).await, Outcome::Succeeded);
        last = Some(pending);
    }
    let stream = fixture.queue.keys().reply(replies.name());
    eventually_async(WAIT_TIMEOUT, async || {
        match fixture.plain::<usize>(&["XLEN", &stream]).await {
            0 | 1 => Ok(()),
            more => Err(format!("the stream has {more} entries")),
        }
    })
    .await;
    drop(last);
    let ttl: i64 = fixture.plain(&["PTTL", &stream]).await;
    assert!(ttl > 0, "it expires");
}

#[tokio::test]
async fn a_stream_of_jobs_is_submitted_in_order_and_piece_by_piece() {
    const JOBS: usize = 1_000;
    const BAD: usize = 300;
    let fixture = QueueFixture::shared("submit-stream").await;
    let client = Client::from_queue(fixture.queue.clone());
    let pulled = AtomicUsize::new(0);
    let jobs = stream::iter(0..JOBS).map(|n| {
        pulled.fetch_add(1, Ordering::SeqCst);
        let mut job = job();
        if n == BAD {
            job.code = None;
        }
        (job, named(&format!("job-{n}")))
    });
    let mut submitted = client.submit_many(jobs);
    let mut answered = 0;
    while let Some(answer) = submitted.next().await {
        if answered == BAD {
            assert!(matches!(answer, Err(ClientError::Job(_))));
        } else {
            assert_eq!(answer.unwrap().as_str(), format!("job-{answered}"));
        }
        answered += 1;
        assert!(pulled.load(Ordering::SeqCst) <= answered + 256);
    }
    assert_eq!(answered, JOBS);
    let intake = fixture.queue.snapshot().await.unwrap().intake;
    assert_eq!(intake, JOBS as u64 - 1);
}

#[tokio::test]
async fn a_stream_of_jobs_ends_with_the_queue() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "submit-full").await;
    let _set: String = fixture.plain(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let client = Client::from_queue(fixture.queue.clone());
    let jobs = stream::repeat_with(|| (job(), Routing::default()));
    let answers: Vec<_> = client.submit_many(jobs).collect().await;
    assert_eq!(answers.len(), 1);
    assert!(matches!(answers[0], Err(ClientError::Queue(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_many_jobs_keeps_few_of_them_in_flight() {
    const JOBS: usize = 200;
    const IN_FLIGHT: usize = 10;
    let fixture = QueueFixture::shared("run-many").await;
    let reached = settings(fixture.space.url());
    let worker = start_worker(
        &worker_settings(&reached, fixture.space.namespace(), "one"),
        &AttemptCounter::default(),
    )
    .await;
    let replies = Client::from_queue(fixture.queue.clone())
        .replies()
        .await
        .unwrap();
    let ended = Arc::new(AtomicUsize::new(0));
    let jobs = stream::iter(0..JOBS).map({
        let ended = Arc::clone(&ended);
        move |n| {
            assert!(n < ended.load(Ordering::SeqCst) + IN_FLIGHT, "job {n}");
            (job(), Routing::default())
        }
    });
    let mut results = replies.run_many(jobs, IN_FLIGHT, WAIT_TIMEOUT);
    while let Some(result) = results.next().await {
        assert_eq!(result.unwrap().outcome, Outcome::Succeeded);
        ended.fetch_add(1, Ordering::SeqCst);
    }
    assert_eq!(ended.load(Ordering::SeqCst), JOBS);
    worker.stop(CancellationToken::new()).await;
}

#[tokio::test]
async fn a_job_that_was_turned_away_is_not_told_its_old_result_again() {
    let redis = PrivateRedis::start(&[]);
    let (fixture, replies) = desk_with_replies(&redis, "turned-away").await;
    let unique = |id: &str| Routing {
        unique: Some(sandhog_core::submission::Unique {
            key: "nightly".parse().unwrap(),
            ttl: None,
        }),
        ..named(id)
    };
    let holder = fixture.ready(&unique("holder")).await;
    let mut pending = replies
        .submit(&checked_job(), unique("other"))
        .await
        .unwrap();
    fixture.admit().await;
    assert_eq!(outcome(&mut pending).await, Outcome::Rejected);
    let lease = fixture.bound(&worker("one")).await.lease;
    let _settled = fixture
        .queue
        .finish(&lease, success(&holder))
        .await
        .unwrap();

    let mut pending = replies
        .submit(&checked_job(), unique("other"))
        .await
        .unwrap();
    let at_once = pending.wait(std::time::Duration::ZERO).await;
    assert!(
        matches!(at_once, Err(ClientError::NoResult { .. })),
        "{at_once:?}"
    );
    fixture.admit().await;
    let lease = fixture.bound(&worker("one")).await.lease;
    let _settled = fixture
        .queue
        .finish(&lease, success(&lease.id))
        .await
        .unwrap();
    assert_eq!(outcome(&mut pending).await, Outcome::Succeeded);
}
