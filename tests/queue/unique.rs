//! Unique keys: a key has one holder at a time, and is free when the holder ends.

use sandhog_core::id::JobId;
use sandhog_core::outcome::Outcome;
use sandhog_core::submission::{Routing, Unique};
use sandhog_core::units::Millis;
use sandhog_queue::{AdmitReply, CancelReply, JobState, RequeueReply, RetryBudget, Settlement};

use crate::fixture::{LEASE, QueueFixture, named, success, worker};

fn unique(id: &str, ttl: Option<u64>) -> Routing {
    Routing {
        unique: Some(Unique {
            key: "nightly".parse().unwrap(),
            ttl: ttl.map(Millis),
        }),
        ..named(id)
    }
}

impl QueueFixture {
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
    let fixture = QueueFixture::shared("unique").await;
    assert!(fixture.taken(&unique("first", None)).await);
    assert!(!fixture.taken(&unique("second", None)).await);
    let second: JobId = "second".parse().unwrap();
    let result = fixture.result(&second).await;
    assert_eq!(result.outcome, Outcome::Rejected);
    let error = result.error.unwrap();
    assert_eq!(error.code, "duplicate");
    assert!(error.message.contains("\"first\""), "{}", error.message);
    assert_eq!(fixture.state(&second).await, JobState::Finished);
    let snapshot = fixture.queue.snapshot().await.unwrap();
    assert_eq!(snapshot.dead, 0, "the duplicate is no dead letter");
    let other = Routing {
        unique: Some(Unique {
            key: "weekly".parse().unwrap(),
            ttl: None,
        }),
        ..named("other")
    };
    assert!(fixture.taken(&other).await, "another key is another lock");

    fixture.end(&"first".parse().unwrap()).await;
    assert!(
        fixture.taken(&unique("third", None)).await,
        "the key is free again"
    );
    assert_eq!(
        fixture
            .queue
            .cancel_now(&"third".parse().unwrap())
            .await
            .unwrap(),
        CancelReply::Cancelled
    );
    assert!(
        fixture.taken(&unique("fourth", None)).await,
        "the key is free after any outcome"
    );
}

#[tokio::test]
async fn who_was_refused_may_come_again_by_the_same_id() {
    let fixture = QueueFixture::shared("unique-again").await;
    assert!(fixture.taken(&unique("first", None)).await);
    let second: JobId = "second".parse().unwrap();
    for _ in 0..2 {
        assert!(!fixture.taken(&unique("second", None)).await, "still held");
        let result = fixture.result(&second).await;
        assert_eq!(result.outcome, Outcome::Rejected);
    }
    assert_eq!(fixture.counter("refused_unique").await, 2);
    fixture.end(&"first".parse().unwrap()).await;
    assert!(fixture.taken(&unique("second", None)).await);
    assert_eq!(fixture.state(&second).await, JobState::Queued);
    assert_eq!(
        fixture.queue.result(&second).await.unwrap(),
        None,
        "later waiters get only the new result"
    );
    fixture.end(&second).await;
    assert_eq!(fixture.result(&second).await.outcome, Outcome::Succeeded);
    fixture.submit(&unique("second", None)).await;
    let became = fixture.admit().await;
    assert_eq!(became, [AdmitReply::Duplicate(second)], "it has run");
}

#[tokio::test]
async fn a_job_that_is_tried_again_holds_its_key() {
    let fixture = QueueFixture::shared("unique-retry").await;
    assert!(fixture.taken(&unique("first", Some(1))).await);
    let lease = fixture.bound(&worker("one")).await.lease;
    let again = Settlement::Retry {
        after: Millis(3_600_000),
        why: "once more".into(),
        counts_as: RetryBudget::Attempt,
    };
    let _settled = fixture.queue.finish(&lease, again).await.unwrap();
    assert!(
        !fixture.taken(&unique("second", None)).await,
        "the key is held although its time to live is over"
    );
}

#[tokio::test]
async fn a_key_with_a_time_is_held_to_its_end() {
    let fixture = QueueFixture::shared("unique-ttl").await;
    assert!(fixture.taken(&unique("first", Some(3_600_000))).await);
    fixture.end(&"first".parse().unwrap()).await;
    assert!(!fixture.taken(&unique("second", None)).await);
    let lock = fixture.queue.keys().unique(&"nightly".parse().unwrap());
    let life: i64 = fixture.plain(&["PTTL", &lock]).await;
    assert!((1..=3_600_000).contains(&life), "{life}");
    let _freed: i64 = fixture.plain(&["DEL", &lock]).await;
    assert!(fixture.taken(&unique("third", None)).await);
}

#[tokio::test]
async fn a_key_whose_holder_is_gone_is_free() {
    let fixture = QueueFixture::shared("unique-gone").await;
    assert!(fixture.taken(&unique("first", None)).await);
    let record = fixture.queue.keys().job(&"first".parse().unwrap());
    let _lost: i64 = fixture.plain(&["DEL", &record]).await;
    assert!(fixture.taken(&unique("second", None)).await);
}

#[tokio::test]
async fn a_dead_letter_needs_its_key_again() {
    let fixture = QueueFixture::shared("unique-dead").await;
    assert!(fixture.taken(&unique("first", None)).await);
    let lease = fixture.bound(&worker("one")).await.lease;
    fixture.age(&lease).await;
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 1)
            .await
            .unwrap()
            .given_up,
        1
    );
    assert!(fixture.taken(&unique("second", None)).await);
    let first: JobId = "first".parse().unwrap();
    assert_eq!(
        fixture.queue.requeue(&first).await.unwrap(),
        RequeueReply::KeyHeld
    );
    assert_eq!(
        fixture.state(&first).await,
        JobState::Dead,
        "nothing happened"
    );
    assert_eq!(fixture.result(&first).await.outcome, Outcome::Lost);
    fixture.end(&"second".parse().unwrap()).await;
    assert_eq!(
        fixture.queue.requeue(&first).await.unwrap(),
        RequeueReply::Requeued
    );
    assert!(
        !fixture.taken(&unique("third", None)).await,
        "the requeued job holds the key again"
    );
}
