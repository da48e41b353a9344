//! Outages of Redis: it restarts, forgets its scripts, or is full.

use std::time::Duration;

use sandhog_common::class::Class;
use sandhog_common::outcome::Outcome;
use sandhog_common::queue::{BeatReply, FinishReply, LogStream, Settlement};
use sandhog_common::submission::Routing;
use sandhog_tests::private_redis::PrivateRedis;

use crate::desk::{Desk, LEASE, PATIENCE, named, payload, success, worker};

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let redis = PrivateRedis::start(&[]);
    let desk = Desk::on(&redis, "flush").await;
    let flush = async || desk.plain::<String>(&["SCRIPT", "FLUSH"]).await;
    let one = worker("one");
    let id = desk.submit(&Routing::default()).await;
    flush().await;
    desk.admit().await;
    let ticket = desk.ticket(&one).await.unwrap();
    flush().await;
    let bound = desk.queue.bind(&ticket, &one).await.unwrap();
    let sandhog_common::queue::Binding::Bound(job) = bound else {
        panic!("the job is bound");
    };
    flush().await;
    let beat = desk
        .queue
        .beat(&one, std::slice::from_ref(&job.lease))
        .await;
    assert_eq!(beat.unwrap(), [BeatReply::Held]);
    flush().await;
    assert!(
        desk.queue
            .log(&job.lease, LogStream::Stdout, b"x")
            .await
            .unwrap()
    );
    flush().await;
    desk.queue.tick(LEASE, 3).await.unwrap();
    flush().await;
    let reply = desk.queue.finish(&job.lease, success(&id)).await.unwrap();
    assert_eq!(reply, FinishReply::Settled);
}

#[tokio::test]
async fn a_restart_loses_nothing_and_everyone_reconnects() {
    let mut redis = PrivateRedis::start(&[]);
    let mut desk = Desk::on(&redis, "restart").await;
    let one = worker("one");
    let running = desk.ready(&Routing::default()).await;
    let lease = desk.bound(&one).await.lease;
    let queued = desk.ready(&Routing::default()).await;
    let entered = desk.submit(&Routing::default()).await;
    let mut tickets = desk.queue.ticket_reader(&one).await.unwrap();
    let mut waiter = desk.queue.result_waiter().await.unwrap();

    redis.kill();
    let unreachable = desk.queue.submit(&Routing::default(), &payload()).await;
    assert!(unreachable.unwrap_err().is_transient());
    redis.start_again();
    desk.reconnect().await;

    let beat = desk.queue.beat(&one, std::slice::from_ref(&lease)).await;
    assert_eq!(beat.unwrap(), [BeatReply::Held], "the lease is as it was");
    desk.admit().await;
    // The reader's connection broke with the server: that read fails, and the next one uses a new
    // connection.
    let classes = [Class::default()];
    let ticket = match tickets.next(&classes, PATIENCE).await {
        Ok(ticket) => ticket,
        Err(error) => {
            assert!(error.is_transient(), "{error}");
            tickets.next(&classes, PATIENCE).await.unwrap()
        }
    };
    desk.queue
        .return_tickets(&[ticket.expect("two jobs wait")], &one)
        .await
        .unwrap();
    let reply = desk.queue.finish(&lease, success(&running)).await.unwrap();
    assert_eq!(reply, FinishReply::Settled);
    let result = match waiter.wait(&running, PATIENCE).await {
        Ok(result) => result,
        Err(_broken) => waiter.wait(&running, PATIENCE).await.unwrap(),
    };
    assert!(result.is_some());
    for id in [queued, entered] {
        assert_eq!(desk.bound(&one).await.lease.id, id);
    }
}

#[tokio::test]
async fn a_command_given_while_redis_is_away_is_done_when_it_is_back() {
    let mut redis = PrivateRedis::start(&[]);
    let desk = Desk::on(&redis, "away").await;
    let one = worker("one");
    let id = desk.ready(&named("mine")).await;
    let lease = desk.bound(&one).await.lease;
    redis.kill();
    let queue = desk.queue.clone();
    let settling = tokio::spawn({
        let lease = lease.clone();
        let success = success(&id);
        async move { queue.finish(&lease, success).await }
    });
    let submitting = tokio::spawn({
        let queue = desk.queue.clone();
        async move { queue.submit(&named("next"), &payload()).await }
    });
    redis.start_again();
    assert_eq!(settling.await.unwrap().unwrap(), FinishReply::Settled);
    assert_eq!(submitting.await.unwrap().unwrap().as_str(), "next");
    assert_eq!(desk.result(&id).await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_waiting_read_survives_the_response_timeout() {
    // The reply to a blocking read may take longer than that to an ordinary command.
    let redis = PrivateRedis::start(&[]);
    let desk = Desk::on(&redis, "slow-answer").await;
    let mut settings = crate::desk::settings(desk.space.url());
    settings.response_timeout_ms = sandhog_common::units::Millis(50);
    let queue = sandhog_common::queue::Queue::connect(&settings, desk.space.namespace())
        .await
        .unwrap();
    let mut reader = queue.ticket_reader(&worker("one")).await.unwrap();
    let classes = [Class::default()];
    let nothing = reader.next(&classes, Duration::from_millis(400)).await;
    assert_eq!(nothing.unwrap(), None);
    desk.ready(&Routing::default()).await;
    assert!(reader.next(&classes, PATIENCE).await.unwrap().is_some());
}

#[tokio::test]
async fn a_full_redis_still_finishes_jobs() {
    let redis = PrivateRedis::start(&[]);
    let desk = Desk::on(&redis, "full").await;
    let one = worker("one");
    let (finished, given_back, lost) = (
        desk.ready(&Routing::default()).await,
        desk.ready(&Routing::default()).await,
        desk.ready(&Routing::default()).await,
    );
    let first = desk.bound(&one).await.lease;
    let second = desk.bound(&one).await.lease;
    let third = desk.bound(&one).await.lease;
    let waiting = desk.ready(&Routing::default()).await;
    let fourth = desk.ready(&Routing::default()).await;
    let _set: String = desk.plain(&["CONFIG", "SET", "maxmemory", "1"]).await;

    let refused = desk
        .queue
        .submit(&Routing::default(), &payload())
        .await
        .unwrap_err();
    assert!(refused.is_transient());
    assert!(refused.hint().unwrap().contains("maxmemory"));
    assert!(
        desk.queue
            .log(&first, LogStream::Stdout, b"x")
            .await
            .unwrap(),
        "the lease is held; the chunk is lost"
    );
    let beat = desk.queue.beat(&one, std::slice::from_ref(&first)).await;
    assert_eq!(beat.unwrap(), [BeatReply::Held]);
    let reply = desk.queue.finish(&first, success(&finished)).await.unwrap();
    assert_eq!(reply, FinishReply::Settled);
    assert_eq!(desk.result(&finished).await.outcome, Outcome::Succeeded);
    let reply = desk.queue.finish(&first, success(&finished)).await.unwrap();
    assert_eq!(reply, FinishReply::Settled);
    let _settled = desk
        .queue
        .finish(&second, Settlement::GiveBack)
        .await
        .unwrap();
    assert_eq!(desk.bound(&one).await.lease.id, given_back);
    assert_eq!(
        desk.queue
            .finish(&second, success(&given_back))
            .await
            .unwrap(),
        FinishReply::Settled
    );
    desk.queue.cancel_now(&lost).await.unwrap();
    desk.queue.cancel_now(&waiting).await.unwrap();
    assert_eq!(desk.result(&waiting).await.outcome, Outcome::Cancelled);
    desk.age(&third).await;
    assert_eq!(desk.queue.tick(LEASE, 3).await.unwrap().cancelled, 1);
    assert_eq!(desk.bound(&one).await.lease.id, fourth);
}
