//! Uniqueness: at most one job for an id, one result for a job, and one owner of a lease.

use sandhog_common::outcome::{ErrorInfo, Outcome};
use sandhog_common::queue::{
    Admission, AdmitReply, BeatReply, Binding, FinishReply, JobState, LogStream, RetryBudget,
    Settlement,
};
use sandhog_common::submission::Routing;
use sandhog_common::units::Millis;
use sandhog_common::wire::Encoding;
use std::time::Duration;

use crate::desk::{Desk, LEASE, named, payload, success, worker};

#[tokio::test]
async fn the_second_submission_of_an_id_changes_nothing() {
    let desk = Desk::shared("idempotent").await;
    let id = desk.submit(&named("mine")).await;
    let again = desk.submit(&named("mine")).await;
    assert_eq!(id, again);
    assert_eq!(
        desk.admit().await,
        [
            AdmitReply::Admitted(id.clone()),
            AdmitReply::Duplicate(id.clone())
        ]
    );
    let job = desk.bound(&worker("one")).await;
    assert_eq!(desk.claim(&worker("two")).await, None, "one job, not two");
    let _settled = desk.queue.finish(&job.lease, success(&id)).await.unwrap();

    let malformed: String = desk
        .plain(&[
            "XADD",
            &desk.queue.keys().jobs(),
            "*",
            "job",
            "{",
            "id",
            "mine",
        ])
        .await;
    assert!(malformed.contains('-'));
    desk.submit(&named("mine")).await;
    assert_eq!(
        desk.admit().await,
        [
            AdmitReply::Duplicate(id.clone()),
            AdmitReply::Duplicate(id.clone())
        ],
        "the same after the end, and for a malformed duplicate"
    );
    assert_eq!(desk.result(&id).await.outcome, Outcome::Succeeded);
    assert_eq!(desk.counter("duplicates").await, 3);
}

#[tokio::test]
async fn an_entry_is_admitted_once_however_often_it_is_handed_in() {
    let desk = Desk::shared("admit-twice").await;
    let id = desk.submit(&Routing::default()).await;
    let mut reader = desk.queue.intake_reader(&worker("one")).await.unwrap();
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
        desk.queue.admit(&twice).await.unwrap(),
        [AdmitReply::Rejected(id.clone()), AdmitReply::Gone]
    );
    // The same holds if the record has expired in the meantime.
    let _deleted: i64 = desk.plain(&["DEL", &desk.queue.keys().job(&id)]).await;
    assert_eq!(
        desk.queue.admit(&twice[..1]).await.unwrap(),
        [AdmitReply::Gone]
    );
}

#[tokio::test]
async fn a_lease_is_settled_once() {
    let desk = Desk::shared("settle-once").await;
    let id = desk.ready(&Routing::default()).await;
    let job = desk.bound(&worker("one")).await;
    let finish = || desk.queue.finish(&job.lease, success(&id));
    assert_eq!(finish().await.unwrap(), FinishReply::Settled);
    let other = Settlement::Retry {
        after: Millis(0),
        why: "no reason at all".into(),
        counts_as: RetryBudget::Attempt,
    };
    // A caller that lost the reply repeats its call and gets the same reply; nothing happens twice.
    assert_eq!(finish().await.unwrap(), FinishReply::Settled);
    assert_eq!(
        desk.queue.finish(&job.lease, other).await.unwrap(),
        FinishReply::Settled
    );
    assert_eq!(desk.state(&id).await, JobState::Finished);
    assert_eq!(desk.counter("finished_succeeded").await, 1);
    let results: i64 = desk.plain(&["LLEN", &desk.queue.keys().result(&id)]).await;
    assert_eq!(results, 1);
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_can_do_nothing() {
    let desk = Desk::shared("fence").await;
    let (slow, quick) = (worker("slow"), worker("quick"));
    let id = desk.ready(&Routing::default()).await;
    let stale = desk.bound(&slow).await.lease;
    desk.age(&stale).await;
    let report = desk.queue.tick(LEASE, 3).await.unwrap();
    assert_eq!(report.reaped, 1);

    let owner = desk.bound(&quick).await;
    assert_eq!(owner.lease.id, id);
    assert_eq!((owner.attempts, owner.lost), (2, 1));
    assert_ne!(owner.lease.token, stale.token);
    let beat = desk.queue.beat(&slow, std::slice::from_ref(&stale)).await;
    assert_eq!(beat.unwrap(), [BeatReply::Lost]);
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
        let reply = desk.queue.finish(&stale, settlement).await.unwrap();
        assert_eq!(reply, FinishReply::Stale);
    }
    let back = desk
        .queue
        .finish(&stale, Settlement::GiveBack)
        .await
        .unwrap();
    assert_eq!(back, FinishReply::Stale);
    let logged = desk.queue.log(&stale, LogStream::Stdout, b"late").await;
    assert!(!logged.unwrap());
    assert_eq!(desk.counter("stale").await, 4);

    let beat = desk
        .queue
        .beat(&quick, std::slice::from_ref(&owner.lease))
        .await;
    assert_eq!(
        beat.unwrap(),
        [BeatReply::Held],
        "the owner still holds the lease"
    );
    let reply = desk.queue.finish(&owner.lease, success(&id)).await.unwrap();
    assert_eq!(reply, FinishReply::Settled);
}

#[tokio::test]
async fn the_same_token_in_another_workers_hands_is_fenced_too() {
    // A Redis that lost its last second of writes can deliver the same ticket again.
    let desk = Desk::shared("fence-worker").await;
    let id = desk.ready(&Routing::default()).await;
    let owner = desk.bound(&worker("one")).await.lease;
    let mut other = owner.clone();
    other.worker = worker("two");
    let beat = desk
        .queue
        .beat(&other.worker, std::slice::from_ref(&other))
        .await;
    assert_eq!(beat.unwrap(), [BeatReply::Lost]);
    let reply = desk.queue.finish(&other, success(&id)).await.unwrap();
    assert_eq!(reply, FinishReply::Stale);
    let reply = desk.queue.finish(&owner, success(&id)).await.unwrap();
    assert_eq!(reply, FinishReply::Settled);
    let reply = desk.queue.finish(&other, success(&id)).await.unwrap();
    assert_eq!(reply, FinishReply::Stale);
}

#[tokio::test]
async fn binding_a_ticket_again_answers_the_same_job() {
    let desk = Desk::shared("bind-twice").await;
    desk.ready(&Routing::default()).await;
    desk.ready(&Routing::default()).await;
    let one = worker("one");
    let ticket = desk.ticket(&one).await.unwrap();
    let first = desk.queue.bind(&ticket, &one).await.unwrap();
    assert!(matches!(first, Binding::Bound(_)));
    assert_eq!(desk.queue.bind(&ticket, &one).await.unwrap(), first);
    let thief = desk.queue.bind(&ticket, &worker("two")).await.unwrap();
    assert_eq!(thief, Binding::Nothing, "the ticket belongs to the owner");
    assert!(desk.claim(&worker("two")).await.is_some(), "its own is");
}

#[tokio::test]
async fn a_published_result_is_never_replaced() {
    // The same holds if the record expired before its result and the id is used again.
    let desk = Desk::shared("first-result").await;
    let id = desk.ready(&named("mine")).await;
    let lease = desk.bound(&worker("one")).await.lease;
    let _settled = desk.queue.finish(&lease, success(&id)).await.unwrap();
    let _deleted: i64 = desk.plain(&["DEL", &desk.queue.keys().job(&id)]).await;
    desk.ready(&named("mine")).await;
    desk.queue.cancel_now(&id).await.unwrap();
    assert_eq!(desk.state(&id).await, JobState::Finished);
    assert_eq!(desk.result(&id).await.outcome, Outcome::Succeeded);
    let results: i64 = desk.plain(&["LLEN", &desk.queue.keys().result(&id)]).await;
    assert_eq!(results, 1);
}
