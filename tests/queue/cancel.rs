//! Cancels of jobs in each state of their lifecycle.

use std::time::Duration;

use sandhog_core::outcome::Outcome;
use sandhog_core::submission::{Routing, Start};
use sandhog_core::units::Millis;
use sandhog_queue::{
    AdmitReply, Binding, CancelReply, FinishReply, HeartbeatReply, JobState, RetryBudget,
    Settlement,
};

use crate::fixture::{LEASE, QueueFixture, WAIT_TIMEOUT, cancel_of, named, success, worker};

#[tokio::test]
async fn a_queued_job_is_over_at_once() {
    let fixture = QueueFixture::shared("cancel-queued").await;
    let id = fixture.ready(&Routing::default()).await;
    assert_eq!(
        fixture.queue.cancel_now(&id).await.unwrap(),
        CancelReply::Cancelled
    );
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Cancelled);
    assert_eq!(fixture.state(&id).await, JobState::Finished);
    let keys = fixture.keys().await;
    assert!(!keys.contains(&"fair:cpu".to_owned()), "{keys:?}");
    let one = worker("one");
    let ticket = fixture
        .ticket(&one)
        .await
        .expect("an undelivered ticket is never deleted");
    assert_eq!(
        fixture.queue.bind(&ticket, &one).await.unwrap(),
        Binding::Nothing
    );
    assert_eq!(fixture.ticket(&one).await, None);
    assert_eq!(
        fixture.queue.cancel_now(&id).await.unwrap(),
        CancelReply::Ended
    );
}

#[tokio::test]
async fn a_delayed_job_is_over_at_once() {
    let fixture = QueueFixture::shared("cancel-delayed").await;
    let routing = Routing {
        start: Start::After(Millis(3_600_000)),
        ..Routing::default()
    };
    let id = fixture.ready(&routing).await;
    assert_eq!(fixture.state(&id).await, JobState::Delayed);
    assert_eq!(
        fixture.queue.cancel_now(&id).await.unwrap(),
        CancelReply::Cancelled
    );
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Cancelled);
    assert_eq!(fixture.queue.snapshot().await.unwrap().delayed, 0);
}

#[tokio::test]
async fn a_running_jobs_worker_is_told_in_every_way() {
    let fixture = QueueFixture::shared("cancel-running").await;
    let id = fixture.ready(&Routing::default()).await;
    let one = worker("one");
    let lease = fixture.bound(&one).await.lease;
    let mut control = fixture.queue.control_reader().await.unwrap();
    let heard = tokio::spawn(async move { control.next(WAIT_TIMEOUT).await });
    fixture.queue.cancel(&id).await.unwrap();
    fixture.admit().await;
    assert_eq!(heard.await.unwrap().unwrap(), [cancel_of(&id)]);
    assert!(fixture.record(&id).await.cancel_requested);
    let beat = fixture
        .queue
        .heartbeat(&one, std::slice::from_ref(&lease))
        .await;
    assert_eq!(beat.unwrap(), [HeartbeatReply::Cancel]);
    assert_eq!(
        fixture.queue.cancel_now(&id).await.unwrap(),
        CancelReply::Asked
    );

    // The program ended before the cancel: its result counts.
    let reply = fixture.queue.finish(&lease, success(&id)).await.unwrap();
    assert_eq!(reply, FinishReply::Settled);
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn a_cancelled_job_is_never_tried_again() {
    let fixture = QueueFixture::shared("cancel-retry").await;
    let one = worker("one");
    for how in ["retry", "give back", "lose"] {
        let id = fixture.ready(&Routing::default()).await;
        let lease = fixture.bound(&one).await.lease;
        fixture.queue.cancel_now(&id).await.unwrap();
        let retry = Settlement::Retry {
            after: Millis(0),
            why: "a fault of ours".into(),
            counts_as: RetryBudget::Lost,
        };
        match how {
            "retry" => {
                let _settled = fixture.queue.finish(&lease, retry).await.unwrap();
            }
            "give back" => {
                let _settled = fixture
                    .queue
                    .finish(&lease, Settlement::GiveBack)
                    .await
                    .unwrap();
            }
            _ => {
                fixture.age(&lease).await;
                assert_eq!(
                    fixture
                        .queue
                        .maintain_fully(LEASE, 3)
                        .await
                        .unwrap()
                        .cancelled,
                    1
                );
            }
        }
        assert_eq!(
            fixture.result(&id).await.outcome,
            Outcome::Cancelled,
            "{how}"
        );
        assert_eq!(fixture.claim(&one).await, None, "{how}");
    }
}

#[tokio::test]
async fn a_cancel_that_overtakes_its_job_still_counts() {
    let fixture = QueueFixture::shared("cancel-early").await;
    let id = fixture.submit(&named("early")).await;
    assert_eq!(
        fixture.queue.cancel_now(&id).await.unwrap(),
        CancelReply::Unknown
    );
    assert_eq!(fixture.admit().await, [AdmitReply::Cancelled(id.clone())]);
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Cancelled);
    assert_eq!(fixture.claim(&worker("one")).await, None);
}

#[tokio::test]
async fn a_listener_hears_only_what_is_new() {
    let fixture = QueueFixture::shared("control").await;
    let one = worker("one");
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(fixture.ready(&Routing::default()).await);
        assert!(fixture.claim(&one).await.is_some());
    }
    fixture.queue.cancel_now(&ids[0]).await.unwrap();
    let mut control = fixture.queue.control_reader().await.unwrap();
    assert_eq!(control.next(Duration::ZERO).await.unwrap(), []);
    fixture.queue.cancel_now(&ids[1]).await.unwrap();
    fixture.queue.cancel_now(&ids[2]).await.unwrap();
    let heard = control.next(WAIT_TIMEOUT).await.unwrap();
    assert_eq!(heard, [cancel_of(&ids[1]), cancel_of(&ids[2])]);
}
