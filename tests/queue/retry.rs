//! Retries of attempts, and jobs that are given up after the last one.

use sandhog_core::outcome::{ErrorInfo, JobResult, Outcome};
use sandhog_core::submission::Routing;
use sandhog_core::units::Millis;
use sandhog_core::wire::{self, Encoding};
use sandhog_queue::{FinishReply, JobState, LogChunk, LogStream, RetryBudget, Settlement};

use crate::fixture::{LEASE, QueueFixture, payload, success, worker};

fn again(after: Millis, counts_as: RetryBudget) -> Settlement {
    Settlement::Retry {
        after,
        why: "the engine did not answer".into(),
        counts_as,
    }
}

#[tokio::test]
async fn a_retry_waits_for_its_backoff_and_counts_what_it_is_told() {
    let fixture = QueueFixture::shared("retry").await;
    let one = worker("one");
    let id = fixture.ready(&Routing::default()).await;
    let lease = fixture.bound(&one).await.lease;
    let reply = fixture
        .queue
        .finish(&lease, again(Millis(3_600_000), RetryBudget::Lost))
        .await
        .unwrap();
    assert_eq!(reply, FinishReply::Settled);
    let record = fixture.record(&id).await;
    assert_eq!(record.state, JobState::Delayed);
    assert!(record.run_at.is_some());
    assert_eq!(record.error.as_deref(), Some("the engine did not answer"));
    assert_eq!((record.attempts, record.lost), (1, 1));
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .promoted,
        0
    );

    let delayed = fixture.queue.keys().delayed();
    let _moved: i64 = fixture.plain(&["ZADD", &delayed, "1", id.as_str()]).await;
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .promoted,
        1
    );
    let job = fixture.bound(&one).await;
    assert_eq!((job.attempts, job.lost), (2, 1));
    assert_eq!(job.payload, payload(), "the payload is still there");

    let at_once = again(Millis(0), RetryBudget::Attempt);
    let _settled = fixture.queue.finish(&job.lease, at_once).await.unwrap();
    assert_eq!(fixture.state(&id).await, JobState::Queued);
    let job = fixture.bound(&one).await;
    assert_eq!((job.attempts, job.lost), (3, 1));
    assert_eq!(fixture.counter("retried").await, 2);
}

#[tokio::test]
async fn what_an_earlier_attempt_left_is_over_with_the_last_one() {
    let mut fixture = QueueFixture::shared("earlier").await;
    let id = fixture.ready(&Routing::default()).await;
    let lease = fixture.bound(&worker("one")).await.lease;
    let said = [LogChunk {
        stream: LogStream::Stdout,
        data: b"halfway".to_vec(),
    }];
    assert!(fixture.queue.log_all(&lease, &said).await.unwrap());
    let at_once = again(Millis(0), RetryBudget::Attempt);
    let _settled = fixture.queue.finish(&lease, at_once).await.unwrap();

    let lease = fixture.bound(&worker("two")).await.lease;
    let _asked = fixture.queue.cancel_now(&id).await.unwrap();
    assert!(fixture.record(&id).await.cancel_requested);
    let reply = fixture.queue.finish(&lease, success(&id)).await.unwrap();
    assert_eq!(reply, FinishReply::Settled);
    assert!(!fixture.record(&id).await.cancel_requested);
    let log = fixture.space.stream_now(&fixture.queue.keys().log(&id));
    assert_eq!(log.len(), 2);
    assert_eq!(
        log[1].text("stream"),
        "end",
        "a finished log has an end mark"
    );
}

#[tokio::test]
async fn a_job_given_up_is_a_dead_letter_with_a_result() {
    let mut fixture = QueueFixture::shared("dead").await;
    let id = fixture.ready(&Routing::default()).await;
    let lease = fixture.bound(&worker("one")).await.lease;
    let error = ErrorInfo::new("engine", "no such image");
    let result = JobResult::with_error(id.clone(), Outcome::Lost, error);
    let settlement = Settlement::DeadLetter {
        result: wire::encode(&result, Encoding::Json),
        outcome: Outcome::Lost,
        reason: "max_attempts".into(),
        error: "no such image".into(),
    };
    let reply = fixture.queue.finish(&lease, settlement).await.unwrap();
    assert_eq!(reply, FinishReply::Settled);
    assert_eq!(fixture.result(&id).await, result);
    let record = fixture.record(&id).await;
    assert_eq!(record.state, JobState::Dead);
    assert_eq!(record.error.as_deref(), Some("no such image"));
    let key = fixture.queue.keys().dead();
    let dead = fixture.space.stream_now(&key);
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0].text("id"), id.as_str());
    assert_eq!(dead[0].text("reason"), "max_attempts");
    assert_eq!(dead[0].text("error"), "no such image");
    let kept: Vec<u8> = fixture
        .plain(&["HGET", &fixture.queue.keys().job(&id), "payload"])
        .await;
    assert_eq!(kept, payload(), "a dead letter can be requeued");
    assert_eq!(fixture.queue.snapshot().await.unwrap().dead, 1);
}
