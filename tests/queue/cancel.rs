//! Cancels of jobs in each state of their lifecycle.

use std::time::Duration;

use sandhog_common::outcome::Outcome;
use sandhog_common::queue::{
    AdmitReply, BeatReply, Binding, CancelReply, FinishReply, JobState, RetryBudget, Settlement,
};
use sandhog_common::submission::{Routing, Start};
use sandhog_common::units::Millis;

use crate::desk::{Desk, LEASE, PATIENCE, cancel_of, named, success, worker};

#[tokio::test]
async fn a_queued_job_is_over_at_once() {
    let desk = Desk::shared("cancel-queued").await;
    let id = desk.ready(&Routing::default()).await;
    assert_eq!(
        desk.queue.cancel_now(&id).await.unwrap(),
        CancelReply::Cancelled
    );
    assert_eq!(desk.result(&id).await.outcome, Outcome::Cancelled);
    assert_eq!(desk.state(&id).await, JobState::Finished);
    let keys = desk.keys().await;
    assert!(!keys.contains(&"fair:cpu".to_owned()), "{keys:?}");
    let one = worker("one");
    let ticket = desk
        .ticket(&one)
        .await
        .expect("an undelivered ticket is never deleted");
    assert_eq!(
        desk.queue.bind(&ticket, &one).await.unwrap(),
        Binding::Nothing
    );
    assert_eq!(desk.ticket(&one).await, None);
    assert_eq!(
        desk.queue.cancel_now(&id).await.unwrap(),
        CancelReply::Ended
    );
}

#[tokio::test]
async fn a_delayed_job_is_over_at_once() {
    let desk = Desk::shared("cancel-delayed").await;
    let routing = Routing {
        start: Start::After(Millis(3_600_000)),
        ..Routing::default()
    };
    let id = desk.ready(&routing).await;
    assert_eq!(desk.state(&id).await, JobState::Delayed);
    assert_eq!(
        desk.queue.cancel_now(&id).await.unwrap(),
        CancelReply::Cancelled
    );
    assert_eq!(desk.result(&id).await.outcome, Outcome::Cancelled);
    assert_eq!(desk.queue.snapshot().await.unwrap().delayed, 0);
}

#[tokio::test]
async fn a_running_jobs_worker_is_told_in_every_way() {
    let desk = Desk::shared("cancel-running").await;
    let id = desk.ready(&Routing::default()).await;
    let one = worker("one");
    let lease = desk.bound(&one).await.lease;
    let mut control = desk.queue.control_reader().await.unwrap();
    let heard = tokio::spawn(async move { control.next(PATIENCE).await });
    desk.queue.cancel(&id).await.unwrap();
    desk.admit().await;
    assert_eq!(heard.await.unwrap().unwrap(), [cancel_of(&id)]);
    assert!(desk.record(&id).await.cancel_requested);
    let beat = desk.queue.beat(&one, std::slice::from_ref(&lease)).await;
    assert_eq!(beat.unwrap(), [BeatReply::Cancel]);
    assert_eq!(
        desk.queue.cancel_now(&id).await.unwrap(),
        CancelReply::Asked
    );

    // The program ended before the cancel: its result counts.
    let reply = desk.queue.finish(&lease, success(&id)).await.unwrap();
    assert_eq!(reply, FinishReply::Settled);
    assert_eq!(desk.result(&id).await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_cancelled_job_is_never_tried_again() {
    let desk = Desk::shared("cancel-retry").await;
    let one = worker("one");
    for how in ["retry", "give back", "lose"] {
        let id = desk.ready(&Routing::default()).await;
        let lease = desk.bound(&one).await.lease;
        desk.queue.cancel_now(&id).await.unwrap();
        let retry = Settlement::Retry {
            after: Millis(0),
            why: "a fault of ours".into(),
            counts_as: RetryBudget::Lost,
        };
        match how {
            "retry" => {
                let _settled = desk.queue.finish(&lease, retry).await.unwrap();
            }
            "give back" => {
                let _settled = desk
                    .queue
                    .finish(&lease, Settlement::GiveBack)
                    .await
                    .unwrap();
            }
            _ => {
                desk.age(&lease).await;
                assert_eq!(desk.queue.tick(LEASE, 3).await.unwrap().cancelled, 1);
            }
        }
        assert_eq!(desk.result(&id).await.outcome, Outcome::Cancelled, "{how}");
        assert_eq!(desk.claim(&one).await, None, "{how}");
    }
}

#[tokio::test]
async fn a_cancel_that_overtakes_its_job_still_counts() {
    let desk = Desk::shared("cancel-early").await;
    let id = desk.submit(&named("early")).await;
    assert_eq!(
        desk.queue.cancel_now(&id).await.unwrap(),
        CancelReply::Unknown
    );
    assert_eq!(desk.admit().await, [AdmitReply::Cancelled(id.clone())]);
    assert_eq!(desk.result(&id).await.outcome, Outcome::Cancelled);
    assert_eq!(desk.claim(&worker("one")).await, None);
}

#[tokio::test]
async fn a_listener_hears_only_what_is_new() {
    let desk = Desk::shared("control").await;
    let one = worker("one");
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(desk.ready(&Routing::default()).await);
        assert!(desk.claim(&one).await.is_some());
    }
    desk.queue.cancel_now(&ids[0]).await.unwrap();
    let mut control = desk.queue.control_reader().await.unwrap();
    assert_eq!(control.next(Duration::ZERO).await.unwrap(), []);
    desk.queue.cancel_now(&ids[1]).await.unwrap();
    desk.queue.cancel_now(&ids[2]).await.unwrap();
    let heard = control.next(PATIENCE).await.unwrap();
    assert_eq!(heard, [cancel_of(&ids[1]), cancel_of(&ids[2])]);
}
