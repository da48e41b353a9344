//! Unique keys: a key has one holder at a time, and is free when the holder ends.

use sandhog_common::id::JobId;
use sandhog_common::outcome::Outcome;
use sandhog_common::queue::{
    AdmitReply, CancelReply, JobState, RequeueReply, RetryBudget, Settlement,
};
use sandhog_common::submission::{Routing, Unique};
use sandhog_common::units::Millis;

use crate::desk::{Desk, LEASE, named, success, worker};

fn unique(id: &str, ttl: Option<u64>) -> Routing {
    Routing {
        unique: Some(Unique {
            key: "nightly".parse().unwrap(),
            ttl: ttl.map(Millis),
        }),
        ..named(id)
    }
}

impl Desk {
    /// Submits one job, processes the intake, and returns whether the job was admitted.
    async fn taken(&self, routing: &Routing) -> bool {
        let id = self.submit(routing).await;
        match self.admit().await.as_slice() {
            [AdmitReply::Admitted(admitted)] if *admitted == id => true,
            [AdmitReply::Rejected(refused)] if *refused == id => false,
            other => panic!("{other:?}"),
        }
    }

    async fn end(&self, id: &JobId) {
        let lease = self.bound(&worker("one")).await.lease;
        assert_eq!(lease.id, *id);
        let _settled = self.queue.finish(&lease, success(id)).await.unwrap();
    }
}

#[tokio::test]
async fn a_second_job_is_refused_and_told_who_holds_the_key() {
    let desk = Desk::shared("unique").await;
    assert!(desk.taken(&unique("first", None)).await);
    assert!(!desk.taken(&unique("second", None)).await);
    let second: JobId = "second".parse().unwrap();
    let result = desk.result(&second).await;
    assert_eq!(result.outcome, Outcome::Rejected);
    let error = result.error.unwrap();
    assert_eq!(error.code, "duplicate");
    assert!(error.message.contains("\"first\""), "{}", error.message);
    assert_eq!(desk.state(&second).await, JobState::Finished);
    let snapshot = desk.queue.snapshot().await.unwrap();
    assert_eq!(snapshot.dead, 0, "the duplicate is no dead letter");
    let other = Routing {
        unique: Some(Unique {
            key: "weekly".parse().unwrap(),
            ttl: None,
        }),
        ..named("other")
    };
    assert!(desk.taken(&other).await, "another key is another lock");

    desk.end(&"first".parse().unwrap()).await;
    assert!(
        desk.taken(&unique("third", None)).await,
        "the key is free again"
    );
    assert_eq!(
        desk.queue
            .cancel_now(&"third".parse().unwrap())
            .await
            .unwrap(),
        CancelReply::Cancelled
    );
    assert!(
        desk.taken(&unique("fourth", None)).await,
        "the key is free after any outcome"
    );
}

#[tokio::test]
async fn who_was_refused_may_come_again_by_the_same_id() {
    let desk = Desk::shared("unique-again").await;
    assert!(desk.taken(&unique("first", None)).await);
    let second: JobId = "second".parse().unwrap();
    for _ in 0..2 {
        assert!(!desk.taken(&unique("second", None)).await, "still held");
        let result = desk.result(&second).await;
        assert_eq!(result.outcome, Outcome::Rejected);
    }
    assert_eq!(desk.counter("refused_unique").await, 2);
    desk.end(&"first".parse().unwrap()).await;
    assert!(desk.taken(&unique("second", None)).await);
    assert_eq!(desk.state(&second).await, JobState::Queued);
    assert_eq!(
        desk.queue.result(&second).await.unwrap(),
        None,
        "later waiters get only the new result"
    );
    desk.end(&second).await;
    assert_eq!(desk.result(&second).await.outcome, Outcome::Succeeded);
    desk.submit(&unique("second", None)).await;
    let became = desk.admit().await;
    assert_eq!(became, [AdmitReply::Duplicate(second)], "it has run");
}

#[tokio::test]
async fn a_job_that_is_tried_again_holds_its_key() {
    let desk = Desk::shared("unique-retry").await;
    assert!(desk.taken(&unique("first", Some(1))).await);
    let lease = desk.bound(&worker("one")).await.lease;
    let again = Settlement::Retry {
        after: Millis(3_600_000),
        why: "once more".into(),
        counts_as: RetryBudget::Attempt,
    };
    let _settled = desk.queue.finish(&lease, again).await.unwrap();
    assert!(
        !desk.taken(&unique("second", None)).await,
        "the key is held although its time to live is over"
    );
}

#[tokio::test]
async fn a_key_with_a_time_is_held_to_its_end() {
    let desk = Desk::shared("unique-ttl").await;
    assert!(desk.taken(&unique("first", Some(3_600_000))).await);
    desk.end(&"first".parse().unwrap()).await;
    assert!(!desk.taken(&unique("second", None)).await);
    let lock = desk.queue.keys().unique(&"nightly".parse().unwrap());
    let life: i64 = desk.plain(&["PTTL", &lock]).await;
    assert!((1..=3_600_000).contains(&life), "{life}");
    let _freed: i64 = desk.plain(&["DEL", &lock]).await;
    assert!(desk.taken(&unique("third", None)).await);
}

#[tokio::test]
async fn a_key_whose_holder_is_gone_is_free() {
    let desk = Desk::shared("unique-gone").await;
    assert!(desk.taken(&unique("first", None)).await);
    let record = desk.queue.keys().job(&"first".parse().unwrap());
    let _lost: i64 = desk.plain(&["DEL", &record]).await;
    assert!(desk.taken(&unique("second", None)).await);
}

#[tokio::test]
async fn a_dead_letter_needs_its_key_again() {
    let desk = Desk::shared("unique-dead").await;
    assert!(desk.taken(&unique("first", None)).await);
    let lease = desk.bound(&worker("one")).await.lease;
    desk.age(&lease).await;
    assert_eq!(desk.queue.tick(LEASE, 1).await.unwrap().given_up, 1);
    assert!(desk.taken(&unique("second", None)).await);
    let first: JobId = "first".parse().unwrap();
    assert_eq!(
        desk.queue.requeue(&first).await.unwrap(),
        RequeueReply::KeyHeld
    );
    assert_eq!(desk.state(&first).await, JobState::Dead, "nothing happened");
    assert_eq!(desk.result(&first).await.outcome, Outcome::Lost);
    desk.end(&"second".parse().unwrap()).await;
    assert_eq!(
        desk.queue.requeue(&first).await.unwrap(),
        RequeueReply::Requeued
    );
    assert!(
        !desk.taken(&unique("third", None)).await,
        "the requeued job holds the key again"
    );
}
