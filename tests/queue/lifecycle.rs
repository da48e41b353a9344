//! The whole lifecycle of a job, and the wire contract exercised with plain commands exactly as it
//! is published.

use std::time::Duration;

use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::submission::Routing;
use sandhog_core::wire::{self, Encoding};
use sandhog_queue::{
    AdmitReply, FinishReply, HeartbeatReply, JobState, LogEntry, LogPosition, LogStream, Settlement,
};
use sandhog_testkit::namespace::decode;

use crate::fixture::{QueueFixture, WAIT_TIMEOUT, payload, success, worker};

#[tokio::test]
async fn a_job_goes_all_the_way() {
    let mut fixture = QueueFixture::shared("way").await;
    let id = fixture.submit(&Routing::default()).await;
    assert_eq!(
        fixture.queue.job(&id).await.unwrap(),
        None,
        "not admitted yet"
    );
    assert_eq!(fixture.admit().await, [AdmitReply::Admitted(id.clone())]);
    let queued = fixture.record(&id).await;
    assert_eq!(queued.state, JobState::Queued);
    assert_eq!((queued.attempts, queued.lost), (0, 0));

    let one = worker("one");
    let job = fixture.bound(&one).await;
    assert_eq!(job.lease.id, id);
    assert_eq!(job.payload, payload());
    assert_eq!((job.attempts, job.lost, job.max_attempts), (1, 0, 3));
    assert_eq!(job.encoding, Encoding::Json);
    assert!(!job.cancel_requested);
    assert_eq!(job.enqueued_at, queued.submitted_at);
    let running = fixture.record(&id).await;
    assert_eq!(running.state, JobState::Running);
    assert_eq!(running.worker, Some(one.clone()));
    assert_eq!(running.token, Some(job.lease.token.clone()));
    assert!(running.started_at.is_some());

    let beat = fixture
        .queue
        .heartbeat(&one, std::slice::from_ref(&job.lease))
        .await;
    assert_eq!(beat.unwrap(), [HeartbeatReply::Held]);
    assert_eq!(fixture.queue.result(&id).await.unwrap(), None);
    let reply = fixture
        .queue
        .finish(&job.lease, success(&id))
        .await
        .unwrap();
    assert_eq!(reply, FinishReply::Settled);
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Succeeded);
    let finished = fixture.record(&id).await;
    assert_eq!(finished.state, JobState::Finished);
    assert_eq!(finished.outcome, Some(Outcome::Succeeded));
    assert!(finished.finished_at.is_some());
    assert_eq!(fixture.events().await, ["admitted", "started", "finished"]);
    assert_eq!(fixture.claim(&one).await, None, "nothing is left");
}

#[tokio::test]
async fn the_result_stays_for_every_waiter() {
    let fixture = QueueFixture::shared("waiters").await;
    let id = fixture.ready(&Routing::default()).await;
    let mut early = fixture.queue.result_waiter().await.unwrap();
    let waiting = tokio::spawn({
        let id = id.clone();
        async move { early.wait(&id, WAIT_TIMEOUT).await }
    });
    let job = fixture.bound(&worker("one")).await;
    let _settled = fixture
        .queue
        .finish(&job.lease, success(&id))
        .await
        .unwrap();
    let first = waiting
        .await
        .unwrap()
        .unwrap()
        .expect("the waiter from before the end gets the result");
    let mut late = fixture.queue.result_waiter().await.unwrap();
    for _ in 0..2 {
        let again = late.wait(&id, WAIT_TIMEOUT).await.unwrap();
        assert_eq!(
            again.as_ref(),
            Some(&first),
            "the waiter from after the end gets the result"
        );
    }
    let key = fixture.queue.keys().result(&id);
    let life: i64 = fixture.plain(&["PTTL", &key]).await;
    assert!(life > 0, "reading keeps the result's time to live: {life}");
    let nobody = "nobody".parse().unwrap();
    let nothing = late.wait(&nobody, Duration::from_millis(1)).await;
    assert_eq!(nothing.unwrap(), None);
}

#[tokio::test]
async fn the_published_commands_work_as_published() {
    let mut fixture = QueueFixture::shared("wire").await;
    let keys = fixture.queue.keys().clone();
    let json = r#"{"image":"python","code":"print(6*7)"}"#;
    let entry: String = fixture
        .plain(&["XADD", &keys.jobs(), "*", "job", json])
        .await;
    let id = entry.parse().unwrap();
    fixture.admit().await;
    let job = fixture.bound(&worker("one")).await;
    assert_eq!(job.lease.id, id, "the entry's id is the job's");
    assert_eq!(job.payload, json.as_bytes());
    fixture
        .queue
        .log(&job.lease, LogStream::Stdout, b"42\n")
        .await
        .unwrap();
    let _settled = fixture
        .queue
        .finish(&job.lease, success(&id))
        .await
        .unwrap();

    let key = keys.result(&id);
    let bytes: Vec<u8> = fixture
        .plain(&["BLMOVE", &key, &key, "LEFT", "LEFT", "60"])
        .await;
    assert_eq!(decode(&bytes).outcome, Outcome::Succeeded);
    let log = fixture.space.read_stream_until(&keys.log(&id), 2);
    assert_eq!(log[0].text("stream"), "stdout");
    assert_eq!(log[0].text("data"), "42\n");
    assert_eq!(log[0].text("attempt"), "1");
    assert_eq!(log[1].text("stream"), "end");
    assert_eq!(log[1].text("outcome"), "succeeded");

    let entry: String = fixture
        .plain(&["XADD", &keys.jobs(), "*", "job", json])
        .await;
    let _cancel: String = fixture
        .plain(&["XADD", &keys.jobs(), "*", "op", "cancel", "id", &entry])
        .await;
    fixture.admit().await;
    let cancelled = fixture.result(&entry.parse().unwrap()).await;
    assert_eq!(cancelled.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn a_messagepack_job_is_answered_in_messagepack_also_by_redis_itself() {
    let fixture = QueueFixture::shared("msgpack").await;
    let packed = wire::encode(&crate::fixture::job(), Encoding::MessagePack);
    let id = fixture
        .queue
        .submit(&Routing::default(), &packed)
        .await
        .unwrap();
    fixture.admit().await;
    fixture.queue.cancel_now(&id).await.unwrap();
    let bytes = fixture.queue.result(&id).await.unwrap().unwrap();
    assert_eq!(wire::sniff(&bytes).unwrap(), Encoding::MessagePack);
    let result: JobResult = decode(&bytes);
    assert_eq!(result.outcome, Outcome::Cancelled);
    assert_eq!(result.id, id);
    let record = fixture.record(&id).await;
    assert_eq!(Some(result.finished_at_ms), record.finished_at);
}

#[tokio::test]
async fn a_reply_stream_gets_every_result() {
    let mut fixture = QueueFixture::shared("reply").await;
    let routing = Routing {
        reply: Some("batch:7".parse().unwrap()),
        ..Routing::default()
    };
    let first = fixture.ready(&routing).await;
    let second = fixture.ready(&routing).await;
    for _ in 0..2 {
        let job = fixture.bound(&worker("one")).await;
        let id = job.lease.id.clone();
        let _settled = fixture
            .queue
            .finish(&job.lease, success(&id))
            .await
            .unwrap();
    }
    let key = fixture.queue.keys().reply(&"batch:7".parse().unwrap());
    let replies = fixture.space.read_stream_until(&key, 2);
    for (reply, id) in replies.iter().zip([&first, &second]) {
        assert_eq!(reply.text("id"), id.as_str());
        assert_eq!(reply.text("outcome"), "succeeded");
        assert_eq!(decode(reply.bytes("result").unwrap()).id, *id);
    }
    let life: i64 = fixture.plain(&["PTTL", &key]).await;
    assert!(life > 0, "the stream expires: {life}");
}

#[tokio::test]
async fn a_log_is_followed_to_its_end() {
    let fixture = QueueFixture::shared("log").await;
    let id = fixture.ready(&Routing::default()).await;
    let job = fixture.bound(&worker("one")).await;
    let mut reader = fixture.queue.log_reader(&id).await.unwrap();
    let follow = tokio::spawn(async move {
        let mut after = LogPosition::start();
        let mut seen = Vec::new();
        loop {
            for entry in reader.next(&after, WAIT_TIMEOUT).await.unwrap() {
                match entry {
                    LogEntry::Chunk {
                        stream,
                        data,
                        after: here,
                        ..
                    } => {
                        seen.push((stream, data));
                        after = here;
                    }
                    LogEntry::End { outcome } => return (seen, outcome),
                }
            }
        }
    });
    let chunks = [
        (LogStream::Stdout, b"one\n".to_vec()),
        (LogStream::Stderr, vec![0xff, 0, b'\n']),
        (LogStream::Stdout, b"two\n".to_vec()),
    ];
    for (stream, data) in &chunks {
        assert!(fixture.queue.log(&job.lease, *stream, data).await.unwrap());
    }
    let failed = Settlement::Publish {
        result: wire::encode(
            &JobResult::bare(id.clone(), Outcome::TimedOut),
            Encoding::Json,
        ),
        outcome: Outcome::TimedOut,
    };
    let _settled = fixture.queue.finish(&job.lease, failed).await.unwrap();
    let (seen, outcome) = follow.await.unwrap();
    assert_eq!(seen, chunks);
    assert_eq!(outcome, Some(Outcome::TimedOut));

    let silent = fixture.ready(&Routing::default()).await;
    let job = fixture.bound(&worker("one")).await;
    let _settled = fixture
        .queue
        .finish(&job.lease, success(&silent))
        .await
        .unwrap();
    let mut reader = fixture.queue.log_reader(&silent).await.unwrap();
    let entries = reader
        .next(&LogPosition::start(), WAIT_TIMEOUT)
        .await
        .unwrap();
    assert_eq!(entries, [LogEntry::End { outcome: None }], "no log at all");
}
