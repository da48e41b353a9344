//! Dead letters: listed, requeued and dropped.

use sandhog_common::id::JobId;
use sandhog_common::outcome::{ErrorInfo, JobResult, Outcome};
use sandhog_common::queue::{
    DeadFilter, DropReply, JobState, LogStream, RequeueReply, Settlement, Swept,
};
use sandhog_common::submission::Routing;
use sandhog_common::units::Millis;
use sandhog_common::wire::{self, Encoding};

use crate::desk::{Desk, named, payload, success, worker};

impl Desk {
    /// Binds the next job and makes it a dead letter.
    async fn give_up(&self, reason: &str) -> JobId {
        let lease = self.bound(&worker("one")).await.lease;
        self.queue
            .log(&lease, LogStream::Stdout, b"last words\n")
            .await
            .unwrap();
        let error = ErrorInfo::new(reason, "enough");
        let result = JobResult::with_error(lease.id.clone(), Outcome::Lost, error);
        let settlement = Settlement::DeadLetter {
            result: wire::encode(&result, Encoding::Json),
            outcome: Outcome::Lost,
            reason: reason.into(),
            error: "enough".into(),
        };
        let _settled = self.queue.finish(&lease, settlement).await.unwrap();
        lease.id
    }

    /// Submits a job of a tenant and makes it a dead letter.
    async fn dead_of(&self, tenant: &str, reason: &str) -> JobId {
        let routing = Routing {
            tenant: tenant.parse().unwrap(),
            ..Routing::default()
        };
        self.ready(&routing).await;
        self.give_up(reason).await
    }

    async fn listed(&self, filter: &DeadFilter) -> Vec<JobId> {
        let page = self.queue.dead_letters(filter, None, 1000).await.unwrap();
        page.letters.into_iter().map(|letter| letter.id).collect()
    }
}

#[tokio::test]
async fn letters_are_listed_newest_first_in_pages() {
    let desk = Desk::shared("dead-list").await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let reason = if n % 2 == 0 { "even" } else { "odd" };
        ids.push(desk.dead_of("acme", reason).await);
    }
    ids.reverse();
    let all = DeadFilter::default();
    let mut seen = Vec::new();
    let mut before = None;
    let mut pages = 0;
    loop {
        let page = desk
            .queue
            .dead_letters(&all, before.as_ref(), 2)
            .await
            .unwrap();
        pages += 1;
        for letter in page.letters {
            assert!(letter.requeueable);
            assert_eq!(letter.error, "enough");
            assert!(letter.letter.written_at().0 > 0);
            seen.push(letter.id);
        }
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!((seen, pages), (ids.clone(), 3));
    let odd = DeadFilter {
        reason: Some("odd".into()),
        ..DeadFilter::default()
    };
    assert_eq!(desk.listed(&odd).await, [ids[1].clone(), ids[3].clone()]);
    let nobody = DeadFilter {
        tenant: Some("nobody".parse().unwrap()),
        ..DeadFilter::default()
    };
    assert_eq!(desk.listed(&nobody).await, []);
    let found = desk.queue.dead_letter(&ids[2]).await.unwrap().unwrap();
    assert_eq!((found.id, found.reason.as_str()), (ids[2].clone(), "even"));
    assert_eq!(
        desk.queue
            .dead_letter(&named("x").id.unwrap())
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn a_filter_reads_past_what_does_not_fit() {
    let desk = Desk::shared("dead-far").await;
    let rare = desk.dead_of("rare", "lost").await;
    // More entries before and after the letter than one read of the stream returns.
    let dead = desk.queue.keys().dead();
    for n in 0..150 {
        let id = format!("other-{n}");
        let words = [
            "XADD", &dead, "*", "id", &id, "reason", "lost", "error", "e",
        ];
        let names = ["class", "cpu", "tenant", "many"];
        let _id: String = desk.plain(&[&words[..], &names].concat()).await;
    }
    let filter = DeadFilter {
        tenant: Some("rare".parse().unwrap()),
        class: Some("cpu".parse().unwrap()),
        ..DeadFilter::default()
    };
    assert_eq!(desk.listed(&filter).await, std::slice::from_ref(&rare));
    let other = "other-3".parse().unwrap();
    let found = desk.queue.dead_letter(&other).await.unwrap().unwrap();
    assert!(!found.requeueable, "the record is gone");
    assert_eq!(
        desk.queue.requeue(&other).await.unwrap(),
        RequeueReply::Unknown
    );
    let many = DeadFilter {
        tenant: Some("many".parse().unwrap()),
        ..DeadFilter::default()
    };
    let swept = desk.queue.requeue_all(&many).await.unwrap();
    assert_eq!(swept, Swept { done: 0, left: 150 });
    let swept = desk.queue.drop_all_dead(&many).await.unwrap();
    assert_eq!(swept, Swept { done: 150, left: 0 });
    assert_eq!(desk.listed(&DeadFilter::default()).await, [rare]);
}

#[tokio::test]
async fn a_requeued_job_starts_anew_and_has_one_result() {
    let mut desk = Desk::shared("requeue").await;
    let routing = Routing {
        ttl: Some(Millis(60_000)),
        reply: Some("answers".parse().unwrap()),
        ..named("phoenix")
    };
    let id = desk.ready(&routing).await;
    assert_eq!(desk.give_up("attempts_lost").await, id);
    assert_eq!(desk.result(&id).await.outcome, Outcome::Lost);
    assert_eq!(
        desk.queue.requeue(&id).await.unwrap(),
        RequeueReply::Requeued
    );
    assert_eq!(
        desk.queue.requeue(&id).await.unwrap(),
        RequeueReply::NotDead,
        "a repeated call changes nothing"
    );
    assert_eq!(desk.listed(&DeadFilter::default()).await, []);
    assert_eq!(desk.queue.result(&id).await.unwrap(), None);
    let record = desk.record(&id).await;
    assert_eq!(record.state, JobState::Queued);
    assert_eq!((record.attempts, record.lost), (0, 0));
    assert_eq!(
        (
            record.outcome,
            record.error,
            record.worker,
            record.expires_at
        ),
        (None, None, None, None)
    );
    let life: i64 = desk.plain(&["PTTL", &desk.queue.keys().job(&id)]).await;
    assert_eq!(life, -1, "the record of a queued job does not expire");

    let job = desk.bound(&worker("two")).await;
    assert_eq!((job.lease.id.clone(), job.attempts), (id.clone(), 1));
    assert_eq!(job.payload, payload());
    assert!(desk.claim(&worker("two")).await.is_none(), "queued once");
    let log: u64 = desk.plain(&["XLEN", &desk.queue.keys().log(&id)]).await;
    assert_eq!(log, 0, "the old log is gone, including its end mark");
    let _settled = desk.queue.finish(&job.lease, success(&id)).await.unwrap();
    assert_eq!(desk.result(&id).await.outcome, Outcome::Succeeded);
    let reply = desk.queue.keys().reply(&"answers".parse().unwrap());
    let answers: Vec<String> = desk
        .space
        .stream_now(&reply)
        .iter()
        .map(|entry| entry.text("outcome").to_owned())
        .collect();
    assert_eq!(answers, ["lost", "succeeded"]);
    assert_eq!(desk.counter("requeued").await, 1);
    assert_eq!(
        desk.queue.requeue(&id).await.unwrap(),
        RequeueReply::NotDead
    );
}

#[tokio::test]
async fn a_settlement_from_before_the_requeue_is_not_believed() {
    let desk = Desk::shared("requeue-stale").await;
    let id = desk.ready(&Routing::default()).await;
    let one = worker("one");
    let old = desk.bound(&one).await.lease;
    desk.age(&old).await;
    desk.queue.tick(crate::desk::LEASE, 1).await.unwrap();
    assert_eq!(desk.state(&id).await, JobState::Dead);
    let requeued = desk.queue.requeue(&id).await.unwrap();
    assert_eq!(requeued, RequeueReply::Requeued);
    let job = desk.bound(&one).await;
    let reply = desk.queue.finish(&old, success(&id)).await.unwrap();
    assert_eq!(reply, sandhog_common::queue::FinishReply::Stale);
    assert_eq!(desk.queue.result(&id).await.unwrap(), None);
    let _settled = desk.queue.finish(&job.lease, success(&id)).await.unwrap();
    assert_eq!(desk.result(&id).await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn all_that_fit_are_requeued_oldest_first() {
    let mut desk = Desk::shared("requeue-all").await;
    let first = desk.dead_of("acme", "attempts_lost").await;
    let other = desk.dead_of("other", "attempts_lost").await;
    let second = desk.dead_of("acme", "attempts_lost").await;
    let refused = desk.space.add(&[("x", b"y".as_slice())]);
    desk.admit().await;
    let acme = DeadFilter {
        tenant: Some("acme".parse().unwrap()),
        ..DeadFilter::default()
    };
    let swept = desk.queue.requeue_all(&acme).await.unwrap();
    assert_eq!(swept, Swept { done: 2, left: 0 });
    let order = [
        desk.bound(&worker("one")).await.lease.id,
        desk.bound(&worker("one")).await.lease.id,
    ];
    assert_eq!(order, [first, second]);
    assert_eq!(
        desk.queue.requeue(&refused).await.unwrap(),
        RequeueReply::NoPayload
    );
    let swept = desk
        .queue
        .requeue_all(&DeadFilter::default())
        .await
        .unwrap();
    assert_eq!(swept, Swept { done: 1, left: 1 });
    assert_eq!(desk.bound(&worker("one")).await.lease.id, other);
    assert_eq!(desk.listed(&DeadFilter::default()).await, [refused]);
}

#[tokio::test]
async fn a_dropped_letter_keeps_its_result() {
    let desk = Desk::shared("dead-drop").await;
    let id = desk.dead_of("acme", "attempts_lost").await;
    let kept = desk.dead_of("other", "attempts_lost").await;
    assert_eq!(desk.queue.drop_dead(&id).await.unwrap(), DropReply::Dropped);
    assert_eq!(desk.queue.drop_dead(&id).await.unwrap(), DropReply::Unknown);
    assert_eq!(
        desk.listed(&DeadFilter::default()).await,
        std::slice::from_ref(&kept)
    );
    assert_eq!(desk.queue.payload(&id).await.unwrap(), None);
    assert_eq!(desk.queue.payload(&kept).await.unwrap(), Some(payload()));
    assert_eq!(desk.result(&id).await.outcome, Outcome::Lost);
    assert_eq!(
        desk.queue.requeue(&id).await.unwrap(),
        RequeueReply::NoPayload
    );
    assert_eq!(desk.counter("dropped").await, 1);
}
