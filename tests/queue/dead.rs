//! Dead letters: listed, requeued and dropped.

use sandhog_core::id::JobId;
use sandhog_core::outcome::{ErrorInfo, JobResult, Outcome};
use sandhog_core::submission::Routing;
use sandhog_core::units::Millis;
use sandhog_core::wire::{self, Encoding};
use sandhog_queue::{
    DeadFilter, DropReply, JobState, LogStream, RequeueReply, Settlement, SweepReport,
};

use crate::fixture::{QueueFixture, named, payload, success, worker};

impl QueueFixture {
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
    let fixture = QueueFixture::shared("dead-list").await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let reason = if n % 2 == 0 { "even" } else { "odd" };
        ids.push(fixture.dead_of("acme", reason).await);
    }
    ids.reverse();
    let all = DeadFilter::default();
    let mut seen = Vec::new();
    let mut before = None;
    let mut pages = 0;
    loop {
        let page = fixture
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
    assert_eq!(fixture.listed(&odd).await, [ids[1].clone(), ids[3].clone()]);
    let nobody = DeadFilter {
        tenant: Some("nobody".parse().unwrap()),
        ..DeadFilter::default()
    };
    assert_eq!(fixture.listed(&nobody).await, []);
    let found = fixture.queue.dead_letter(&ids[2]).await.unwrap().unwrap();
    assert_eq!((found.id, found.reason.as_str()), (ids[2].clone(), "even"));
    assert_eq!(
        fixture
            .queue
            .dead_letter(&named("x").id.unwrap())
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn a_filter_reads_past_what_does_not_fit() {
    let fixture = QueueFixture::shared("dead-far").await;
    let rare = fixture.dead_of("rare", "lost").await;
    // More entries before and after the letter than one read of the stream returns.
    let dead = fixture.queue.keys().dead();
    for n in 0..150 {
        let id = format!("other-{n}");
        let words = [
            "XADD", &dead, "*", "id", &id, "reason", "lost", "error", "e",
        ];
        let names = ["class", "cpu", "tenant", "many"];
        let _id: String = fixture.plain(&[&words[..], &names].concat()).await;
    }
    let filter = DeadFilter {
        tenant: Some("rare".parse().unwrap()),
        class: Some("cpu".parse().unwrap()),
        ..DeadFilter::default()
    };
    assert_eq!(fixture.listed(&filter).await, std::slice::from_ref(&rare));
    let other = "other-3".parse().unwrap();
    let found = fixture.queue.dead_letter(&other).await.unwrap().unwrap();
    assert!(!found.requeueable, "the record is gone");
    assert_eq!(
        fixture.queue.requeue(&other).await.unwrap(),
        RequeueReply::Unknown
    );
    let many = DeadFilter {
        tenant: Some("many".parse().unwrap()),
        ..DeadFilter::default()
    };
    let swept = fixture.queue.requeue_all(&many).await.unwrap();
    assert_eq!(swept, SweepReport { done: 0, left: 150 });
    let swept = fixture.queue.drop_all_dead(&many).await.unwrap();
    assert_eq!(swept, SweepReport { done: 150, left: 0 });
    assert_eq!(fixture.listed(&DeadFilter::default()).await, [rare]);
}

#[tokio::test]
async fn a_requeued_job_starts_anew_and_has_one_result() {
    let mut fixture = QueueFixture::shared("requeue").await;
    let routing = Routing {
        ttl: Some(Millis(60_000)),
        reply: Some("answers".parse().unwrap()),
        ..named("phoenix")
    };
    let id = fixture.ready(&routing).await;
    assert_eq!(fixture.give_up("attempts_lost").await, id);
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Lost);
    assert_eq!(
        fixture.queue.requeue(&id).await.unwrap(),
        RequeueReply::Requeued
    );
    assert_eq!(
        fixture.queue.requeue(&id).await.unwrap(),
        RequeueReply::NotDead,
        "a repeated call changes nothing"
    );
    assert_eq!(fixture.listed(&DeadFilter::default()).await, []);
    assert_eq!(fixture.queue.result(&id).await.unwrap(), None);
    let record = fixture.record(&id).await;
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
    let life: i64 = fixture
        .plain(&["PTTL", &fixture.queue.keys().job(&id)])
        .await;
    assert_eq!(life, -1, "the record of a queued job does not expire");

    let job = fixture.bound(&worker("two")).await;
    assert_eq!((job.lease.id.clone(), job.attempts), (id.clone(), 1));
    assert_eq!(job.payload, payload());
    assert!(fixture.claim(&worker("two")).await.is_none(), "queued once");
    let log: u64 = fixture
        .plain(&["XLEN", &fixture.queue.keys().log(&id)])
        .await;
    assert_eq!(log, 0, "the old log is gone, including its end mark");
    let _settled = fixture
        .queue
        .finish(&job.lease, success(&id))
        .await
        .unwrap();
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Succeeded);
    let reply = fixture.queue.keys().reply(&"answers".parse().unwrap());
    let answers: Vec<String> = fixture
        .space
        .stream_now(&reply)
        .iter()
        .map(|entry| entry.text("outcome").to_owned())
        .collect();
    assert_eq!(answers, ["lost", "succeeded"]);
    assert_eq!(fixture.counter("requeued").await, 1);
    assert_eq!(
        fixture.queue.requeue(&id).await.unwrap(),
        RequeueReply::NotDead
    );
}

#[tokio::test]
async fn a_settlement_from_before_the_requeue_is_not_believed() {
    let fixture = QueueFixture::shared("requeue-stale").await;
    let id = fixture.ready(&Routing::default()).await;
    let one = worker("one");
    let old = fixture.bound(&one).await.lease;
    fixture.age(&old).await;
    fixture
        .queue
        .maintain_fully(crate::fixture::LEASE, 1)
        .await
        .unwrap();
    assert_eq!(fixture.state(&id).await, JobState::Dead);
    let requeued = fixture.queue.requeue(&id).await.unwrap();
    assert_eq!(requeued, RequeueReply::Requeued);
    let job = fixture.bound(&one).await;
    let reply = fixture.queue.finish(&old, success(&id)).await.unwrap();
    assert_eq!(reply, sandhog_queue::FinishReply::Stale);
    assert_eq!(fixture.queue.result(&id).await.unwrap(), None);
    let _settled = fixture
        .queue
        .finish(&job.lease, success(&id))
        .await
        .unwrap();
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn all_that_fit_are_requeued_oldest_first() {
    let mut fixture = QueueFixture::shared("requeue-all").await;
    let first = fixture.dead_of("acme", "attempts_lost").await;
    let other = fixture.dead_of("other", "attempts_lost").await;
    let second = fixture.dead_of("acme", "attempts_lost").await;
    let refused = fixture.space.add(&[("x", b"y".as_slice())]);
    fixture.admit().await;
    let acme = DeadFilter {
        tenant: Some("acme".parse().unwrap()),
        ..DeadFilter::default()
    };
    let swept = fixture.queue.requeue_all(&acme).await.unwrap();
    assert_eq!(swept, SweepReport { done: 2, left: 0 });
    let order = [
        fixture.bound(&worker("one")).await.lease.id,
        fixture.bound(&worker("one")).await.lease.id,
    ];
    assert_eq!(order, [first, second]);
    assert_eq!(
        fixture.queue.requeue(&refused).await.unwrap(),
        RequeueReply::NoPayload
    );
    let swept = fixture
        .queue
        .requeue_all(&DeadFilter::default())
        .await
        .unwrap();
    assert_eq!(swept, SweepReport { done: 1, left: 1 });
    assert_eq!(fixture.bound(&worker("one")).await.lease.id, other);
    assert_eq!(fixture.listed(&DeadFilter::default()).await, [refused]);
}

#[tokio::test]
async fn a_dropped_letter_keeps_its_result() {
    let fixture = QueueFixture::shared("dead-drop").await;
    let id = fixture.dead_of("acme", "attempts_lost").await;
    let kept = fixture.dead_of("other", "attempts_lost").await;
    assert_eq!(
        fixture.queue.drop_dead(&id).await.unwrap(),
        DropReply::Dropped
    );
    assert_eq!(
        fixture.queue.drop_dead(&id).await.unwrap(),
        DropReply::Unknown
    );
    assert_eq!(
        fixture.listed(&DeadFilter::default()).await,
        std::slice::from_ref(&kept)
    );
    assert_eq!(fixture.queue.payload(&id).await.unwrap(), None);
    assert_eq!(fixture.queue.payload(&kept).await.unwrap(), Some(payload()));
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Lost);
    assert_eq!(
        fixture.queue.requeue(&id).await.unwrap(),
        RequeueReply::NoPayload
    );
    assert_eq!(fixture.counter("dropped").await, 1);
}
