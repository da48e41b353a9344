//! Uniqueness: at most one job for an id, one result for a job, and one owner of a lease.

use sandhog_core::outcome::{ErrorInfo, Outcome};
use sandhog_core::submission::Routing;
use sandhog_core::units::Millis;
use sandhog_core::wire::Encoding;
use sandhog_queue::{
    Admission, AdmitReply, Binding, FinishReply, HeartbeatReply, JobState, LogStream, RetryBudget,
    Settlement,
};
use std::time::Duration;

use crate::fixture::{LEASE, QueueFixture, named, payload, success, worker};

#[tokio::test]
async fn the_second_submission_of_an_id_changes_nothing() {
    let fixture = QueueFixture::shared("idempotent").await;
    let id = fixture.submit(&named("mine")).await;
    let again = fixture.submit(&named("mine")).await;
    assert_eq!(id, again);
    assert_eq!(
        fixture.admit().await,
        [
            AdmitReply::Admitted(id.clone()),
            AdmitReply::Duplicate(id.clone())
        ]
    );
    let job = fixture.bound(&worker("one")).await;
    assert_eq!(
        fixture.claim(&worker("two")).await,
        None,
        "one job, not two"
    );
    let _settled = fixture
        .queue
        .finish(&job.lease, success(&id))
        .await
        .unwrap();

    let malformed: String = fixture
        .plain(&[
            "XADD",
            &fixture.queue.keys().jobs(),
            "*",
            "job",
            "{",
            "id",
            "mine",
        ])
        .await;
    assert!(malformed.contains('-'));
    fixture.submit(&named("mine")).await;
    assert_eq!(
        fixture.admit().await,
        [
            AdmitReply::Duplicate(id.clone()),
            AdmitReply::Duplicate(id.clone())
        ],
        "the same after the end, and for a malformed duplicate"
    );
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Succeeded);
    assert_eq!(fixture.counter("duplicates").await, 3);
}

#[tokio::test]
async fn an_entry_is_admitted_once_however_often_it_is_handed_in() {
    let fixture = QueueFixture::shared("admit-twice").await;
    let id = fixture.submit(&Routing::default()).await;
    let mut reader = fixture.queue.intake_reader(&worker("one")).await.unwrap();
    let entries = reader.next(10, Duration::ZERO).await.unwrap();
    let admission = Admission::Reject {
        entry: entries[0].id.clone(),
        id: None,
        reply: None,
        encoding: Encoding::Json,
        error: ErrorInfo::new("bad_job", "no reason at all"),
    };
    let twice = [admission.clone(), admission];
    assert_eq!(
        fixture.queue.admit(&twice).await.unwrap(),
        [AdmitReply::Rejected(id.clone()), AdmitReply::Gone]
    );
    // The same holds if the record has expired in the meantime.
    let _deleted: i64 = fixture
        .plain(&["DEL", &fixture.queue.keys().job(&id)])
        .await;
    assert_eq!(
        fixture.queue.admit(&twice[..1]).await.unwrap(),
        [AdmitReply::Gone]
    );
}

#[tokio::test]
async fn a_lease_is_settled_once() {
    let fixture = QueueFixture::shared("settle-once").await;
    let id = fixture.ready(&Routing::default()).await;
    let job = fixture.bound(&worker("one")).await;
    let finish = || fixture.queue.finish(&job.lease, success(&id));
    assert_eq!(finish().await.unwrap(), FinishReply::Settled);
    let other = Settlement::Retry {
        after: Millis(0),
        why: "no reason at all".into(),
        counts_as: RetryBudget::Attempt,
    };
    // A caller that lost the reply repeats its call and gets the same reply; nothing happens twice.
    assert_eq!(finish().await.unwrap(), FinishReply::Settled);
    assert_eq!(
        fixture.queue.finish(&job.lease, other).await.unwrap(),
        FinishReply::Settled
    );
    assert_eq!(fixture.state(&id).await, JobState::Finished);
    assert_eq!(fixture.counter("finished_succeeded").await, 1);
    let results: i64 = fixture
        .plain(&["LLEN", &fixture.queue.keys().result(&id)])
        .await;
    assert_eq!(results, 1);
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_can_do_nothing() {
    let fixture = QueueFixture::shared("fence").await;
    let (slow, quick) = (worker("slow"), worker("quick"));
    let id = fixture.ready(&Routing::default()).await;
    let stale = fixture.bound(&slow).await.lease;
    fixture.age(&stale).await;
    let report = fixture.queue.maintain_fully(LEASE, 3).await.unwrap();
    assert_eq!(report.reaped, 1);

    let owner = fixture.bound(&quick).await;
    assert_eq!(owner.lease.id, id);
    assert_eq!((owner.attempts, owner.lost), (2, 1));
    assert_ne!(owner.lease.token, stale.token);
    let beat = fixture
        .queue
        .heartbeat(&slow, std::slice::from_ref(&stale))
        .await;
    assert_eq!(beat.unwrap(), [HeartbeatReply::Lost]);
    let settlements = [
        success(&id),
        Settlement::Retry {
            after: Millis(0),
            why: "late".into(),
            counts_as: RetryBudget::Lost,
        },
        Settlement::DeadLetter {
            result: payload(),
            outcome: Outcome::Lost,
            reason: "late".into(),
            error: "late".into(),
        },
    ];
    for settlement in settlements {
        let reply = fixture.queue.finish(&stale, settlement).await.unwrap();
        assert_eq!(reply, FinishReply::Stale);
    }
    let back = fixture
        .queue
        .finish(&stale, Settlement::GiveBack)
        .await
        .unwrap();
    assert_eq!(back, FinishReply::Stale);
    let logged = fixture.queue.log(&stale, LogStream::Stdout, b"late").await;
    assert!(!logged.unwrap());
    assert_eq!(fixture.counter("stale").await, 4);

    let beat = fixture
        .queue
        .heartbeat(&quick, std::slice::from_ref(&owner.lease))
        .await;
    assert_eq!(
        beat.unwrap(),
        [HeartbeatReply::Held],
        "the owner still holds the lease"
    );
    let reply = fixture
        .queue
        .finish(&owner.lease, success(&id))
        .await
        .unwrap();
    assert_eq!(reply, FinishReply::Settled);
}

#[tokio::test]
async fn the_same_token_in_another_workers_hands_is_fenced_too() {
    // A Redis that lost its last second of writes can deliver the same ticket again.
    let fixture = QueueFixture::shared("fence-worker").await;
    let id = fixture.ready(&Routing::default()).await;
    let owner = fixture.bound(&worker("one")).await.lease;
    let mut other = owner.clone();
    other.worker = worker("two");
    let beat = fixture
        .queue
        .heartbeat(&other.worker, std::slice::from_ref(&other))
        .await;
    assert_eq!(beat.unwrap(), [HeartbeatReply::Lost]);
    let reply = fixture.queue.finish(&other, success(&id)).await.unwrap();
    assert_eq!(reply, FinishReply::Stale);
    let reply = fixture.queue.finish(&owner, success(&id)).await.unwrap();
    assert_eq!(reply, FinishReply::Settled);
    let reply = fixture.queue.finish(&other, success(&id)).await.unwrap();
    assert_eq!(reply, FinishReply::Stale);
}

#[tokio::test]
async fn binding_a_ticket_again_answers_the_same_job() {
    let fixture = QueueFixture::shared("bind-twice").await;
    fixture.ready(&Routing::default()).await;
    fixture.ready(&Routing::default()).await;
    let one = worker("one");
    let ticket = fixture.ticket(&one).await.unwrap();
    let first = fixture.queue.bind(&ticket, &one).await.unwrap();
    assert!(matches!(first, Binding::Bound(_)));
    assert_eq!(fixture.queue.bind(&ticket, &one).await.unwrap(), first);
    let thief = fixture.queue.bind(&ticket, &worker("two")).await.unwrap();
    assert_eq!(thief, Binding::Nothing, "the ticket belongs to the owner");
    assert!(fixture.claim(&worker("two")).await.is_some(), "its own is");
}

#[tokio::test]
async fn a_published_result_is_never_replaced() {
    // The same holds if the record expired before its result and the id is used again.
    let fixture = QueueFixture::shared("first-result").await;
    let id = fixture.ready(&named("mine")).await;
    let lease = fixture.bound(&worker("one")).await.lease;
    let _settled = fixture.queue.finish(&lease, success(&id)).await.unwrap();
    let _deleted: i64 = fixture
        .plain(&["DEL", &fixture.queue.keys().job(&id)])
        .await;
    fixture.ready(&named("mine")).await;
    fixture.queue.cancel_now(&id).await.unwrap();
    assert_eq!(fixture.state(&id).await, JobState::Finished);
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Succeeded);
    let results: i64 = fixture
        .plain(&["LLEN", &fixture.queue.keys().result(&id)])
        .await;
    assert_eq!(results, 1);
}
