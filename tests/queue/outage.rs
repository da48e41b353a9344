//! Outages of Redis: it restarts, forgets its scripts, or is full.

use std::time::Duration;

use sandhog_core::class::Class;
use sandhog_core::outcome::Outcome;
use sandhog_core::submission::Routing;
use sandhog_queue::{FinishReply, HeartbeatReply, LogStream, Settlement};
use sandhog_testkit::private_redis::PrivateRedis;

use crate::fixture::{LEASE, QueueFixture, WAIT_TIMEOUT, named, payload, success, worker};

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "flush").await;
    let flush = async || fixture.plain::<String>(&["SCRIPT", "FLUSH"]).await;
    let one = worker("one");
    let id = fixture.submit(&Routing::default()).await;
    flush().await;
    fixture.admit().await;
    let ticket = fixture.ticket(&one).await.unwrap();
    flush().await;
    let bound = fixture.queue.bind(&ticket, &one).await.unwrap();
    let sandhog_queue::Binding::Bound(job) = bound else {
        panic!("the job is bound");
    };
    flush().await;
    let beat = fixture
        .queue
        .heartbeat(&one, std::slice::from_ref(&job.lease))
        .await;
    assert_eq!(beat.unwrap(), [HeartbeatReply::Held]);
    flush().await;
    assert!(
        fixture
            .queue
            .log(&job.lease, LogStream::Stdout, b"x")
            .await
            .unwrap()
    );
    flush().await;
    fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
    flush().await;
    let reply = fixture
        .queue
        .finish(&job.lease, success(&id))
        .await
        .unwrap();
    assert_eq!(reply, FinishReply::Settled);
}

#[tokio::test]
async fn a_restart_loses_nothing_and_everyone_reconnects() {
    let mut redis = PrivateRedis::start(&[]);
    let mut fixture = QueueFixture::on(&redis, "restart").await;
    let one = worker("one");
    let running = fixture.ready(&Routing::default()).await;
    let lease = fixture.bound(&one).await.lease;
    let queued = fixture.ready(&Routing::default()).await;
    let entered = fixture.submit(&Routing::default()).await;
    let mut tickets = fixture.queue.ticket_reader(&one).await.unwrap();
    let mut waiter = fixture.queue.result_waiter().await.unwrap();

    redis.kill();
    let unreachable = fixture.queue.submit(&Routing::default(), &payload()).await;
    assert!(unreachable.unwrap_err().is_transient());
    redis.start_again();
    fixture.reconnect().await;

    let beat = fixture
        .queue
        .heartbeat(&one, std::slice::from_ref(&lease))
        .await;
    assert_eq!(
        beat.unwrap(),
        [HeartbeatReply::Held],
        "the lease is as it was"
    );
    fixture.admit().await;
    // The reader's connection broke with the server: that read fails, and the next one uses a new
    // connection.
    let classes = [Class::default()];
    let ticket = match tickets.next(&classes, WAIT_TIMEOUT).await {
        Ok(ticket) => ticket,
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            tickets.next(&classes, WAIT_TIMEOUT).await.unwrap()
        }
    };
    fixture
        .queue
        .return_tickets(&[ticket.expect("two jobs wait")], &one)
        .await
        .unwrap();
    let reply = fixture
        .queue
        .finish(&lease, success(&running))
        .await
        .unwrap();
    assert_eq!(reply, FinishReply::Settled);
    let result = match waiter.wait(&running, WAIT_TIMEOUT).await {
        Ok(result) => result,
        Err(_broken) => waiter.wait(&running, WAIT_TIMEOUT).await.unwrap(),
    };
    assert!(result.is_some());
    for id in [queued, entered] {
        assert_eq!(fixture.bound(&one).await.lease.id, id);
    }
}

#[tokio::test]
async fn a_command_given_while_redis_is_away_is_done_when_it_is_back() {
    let mut redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "away").await;
    let one = worker("one");
    let id = fixture.ready(&named("mine")).await;
    let lease = fixture.bound(&one).await.lease;
    redis.kill();
    let queue = fixture.queue.clone();
    let settling = tokio::spawn({
        let lease = lease.clone();
        let success = success(&id);
        async move { queue.finish(&lease, success).await }
    });
    let submitting = tokio::spawn({
        let queue = fixture.queue.clone();
        async move { queue.submit(&named("next"), &payload()).await }
    });
    redis.start_again();
    assert_eq!(settling.await.unwrap().unwrap(), FinishReply::Settled);
    assert_eq!(submitting.await.unwrap().unwrap().as_str(), "next");
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_waiting_read_survives_the_response_timeout() {
    // The reply to a blocking read may take longer than that to an ordinary command.
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "slow-answer").await;
    let mut settings = crate::fixture::settings(fixture.space.url());
    settings.response_timeout_ms = sandhog_core::units::Millis(50);
    let queue = sandhog_queue::Queue::connect(&settings, fixture.space.namespace())
        .await
        .unwrap();
    let mut reader = queue.ticket_reader(&worker("one")).await.unwrap();
    let classes = [Class::default()];
    let nothing = reader.next(&classes, Duration::from_millis(400)).await;
    assert_eq!(nothing.unwrap(), None);
    fixture.ready(&Routing::default()).await;
    assert!(reader.next(&classes, WAIT_TIMEOUT).await.unwrap().is_some());
}

#[tokio::test]
async fn a_full_redis_still_finishes_jobs() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "full").await;
    let one = worker("one");
    let (finished, given_back, lost) = (
        fixture.ready(&Routing::default()).await,
        fixture.ready(&Routing::default()).await,
        fixture.ready(&Routing::default()).await,
    );
    let first = fixture.bound(&one).await.lease;
    let second = fixture.bound(&one).await.lease;
    let third = fixture.bound(&one).await.lease;
    let waiting = fixture.ready(&Routing::default()).await;
    let fourth = fixture.ready(&Routing::default()).await;
    let _set: String = fixture.plain(&["CONFIG", "SET", "maxmemory", "1"]).await;

    let refused = fixture
        .queue
        .submit(&Routing::default(), &payload())
        .await
        .unwrap_err();
    assert!(refused.is_transient());
    assert!(refused.hint().unwrap().contains("maxmemory"));
    assert!(
        fixture
            .queue
            .log(&first, LogStream::Stdout, b"x")
            .await
            .unwrap(),
        "the lease is held; the chunk is lost"
    );
    let beat = fixture
        .queue
        .heartbeat(&one, std::slice::from_ref(&first))
        .await;
    assert_eq!(beat.unwrap(), [HeartbeatReply::Held]);
    let reply = fixture
        .queue
        .finish(&first, success(&finished))
        .await
        .unwrap();
    assert_eq!(reply, FinishReply::Settled);
    assert_eq!(fixture.result(&finished).await.outcome, Outcome::Succeeded);
    let reply = fixture
        .queue
        .finish(&first, success(&finished))
        .await
        .unwrap();
    assert_eq!(reply, FinishReply::Settled);
    let _settled = fixture
        .queue
        .finish(&second, Settlement::GiveBack)
        .await
        .unwrap();
    assert_eq!(fixture.bound(&one).await.lease.id, given_back);
    assert_eq!(
        fixture
            .queue
            .finish(&second, success(&given_back))
            .await
            .unwrap(),
        FinishReply::Settled
    );
    fixture.queue.cancel_now(&lost).await.unwrap();
    fixture.queue.cancel_now(&waiting).await.unwrap();
    assert_eq!(fixture.result(&waiting).await.outcome, Outcome::Cancelled);
    fixture.age(&third).await;
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .cancelled,
        1
    );
    assert_eq!(fixture.bound(&one).await.lease.id, fourth);
}
