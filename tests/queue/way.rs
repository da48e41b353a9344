//! The whole lifecycle of a job, and the wire contract exercised with plain commands exactly as it
//! is published.

use std::time::Duration;

use sandhog_common::outcome::{JobResult, Outcome};
use sandhog_common::queue::{
    AdmitReply, BeatReply, FinishReply, JobState, LogEntry, LogPosition, LogStream, Settlement,
};
use sandhog_common::submission::Routing;
use sandhog_common::wire::{self, Encoding};
use sandhog_tests::space::decode;

use crate::desk::{Desk, PATIENCE, payload, success, worker};

#[tokio::test]
async fn a_job_goes_all_the_way() {
    let mut desk = Desk::shared("way").await;
    let id = desk.submit(&Routing::default()).await;
    assert_eq!(desk.queue.job(&id).await.unwrap(), None, "not admitted yet");
    assert_eq!(desk.admit().await, [AdmitReply::Admitted(id.clone())]);
    let queued = desk.record(&id).await;
    assert_eq!(queued.state, JobState::Queued);
    assert_eq!((queued.attempts, queued.lost), (0, 0));

    let one = worker("one");
    let job = desk.bound(&one).await;
    assert_eq!(job.lease.id, id);
    assert_eq!(job.payload, payload());
    assert_eq!((job.attempts, job.lost, job.max_attempts), (1, 0, 3));
    assert_eq!(job.encoding, Encoding::Json);
    assert!(!job.cancel_requested);
    assert_eq!(job.enqueued_at, queued.submitted_at);
    let running = desk.record(&id).await;
    assert_eq!(running.state, JobState::Running);
    assert_eq!(running.worker, Some(one.clone()));
    assert_eq!(running.token, Some(job.lease.token.clone()));
    assert!(running.started_at.is_some());

    let beat = desk
        .queue
        .beat(&one, std::slice::from_ref(&job.lease))
        .await;
    assert_eq!(beat.unwrap(), [BeatReply::Held]);
    assert_eq!(desk.queue.result(&id).await.unwrap(), None);
    let reply = desk.queue.finish(&job.lease, success(&id)).await.unwrap();
    assert_eq!(reply, FinishReply::Settled);
    assert_eq!(desk.result(&id).await.outcome, Outcome::Succeeded);
    let finished = desk.record(&id).await;
    assert_eq!(finished.state, JobState::Finished);
    assert_eq!(finished.outcome, Some(Outcome::Succeeded));
    assert!(finished.finished_at.is_some());
    assert_eq!(desk.events().await, ["admitted", "started", "finished"]);
    assert_eq!(desk.claim(&one).await, None, "nothing is left");
}

#[tokio::test]
async fn the_result_stays_for_every_waiter() {
    let desk = Desk::shared("waiters").await;
    let id = desk.ready(&Routing::default()).await;
    let mut early = desk.queue.result_waiter().await.unwrap();
    let waiting = tokio::spawn({
        let id = id.clone();
        async move { early.wait(&id, PATIENCE).await }
    });
    let job = desk.bound(&worker("one")).await;
    let _settled = desk.queue.finish(&job.lease, success(&id)).await.unwrap();
    let first = waiting
        .await
        .unwrap()
        .unwrap()
        .expect("the waiter from before the end gets the result");
    let mut late = desk.queue.result_waiter().await.unwrap();
    for _ in 0..2 {
        let again = late.wait(&id, PATIENCE).await.unwrap();
        assert_eq!(
            again.as_ref(),
            Some(&first),
            "the waiter from after the end gets the result"
        );
    }
    let key = desk.queue.keys().result(&id);
    let life: i64 = desk.plain(&["PTTL", &key]).await;
    assert!(life > 0, "reading keeps the result's time to live: {life}");
    let nobody = "nobody".parse().unwrap();
    let nothing = late.wait(&nobody, Duration::from_millis(1)).await;
    assert_eq!(nothing.unwrap(), None);
}

#[tokio::test]
async fn the_published_commands_work_as_published() {
    let mut desk = Desk::shared("wire").await;
    let keys = desk.queue.keys().clone();
    let json = r#"{"image":"python","code":"print(6*7)"}"#;
    let entry: String = desk.plain(&["XADD", &keys.jobs(), "*", "job", json]).await;
    let id = entry.parse().unwrap();
    desk.admit().await;
    let job = desk.bound(&worker("one")).await;
    assert_eq!(job.lease.id, id, "the entry's id is the job's");
    assert_eq!(job.payload, json.as_bytes());
    desk.queue
        .log(&job.lease, LogStream::Stdout, b"42\n")
        .await
        .unwrap();
    let _settled = desk.queue.finish(&job.lease, success(&id)).await.unwrap();

    let key = keys.result(&id);
    let bytes: Vec<u8> = desk
        .plain(&["BLMOVE", &key, &key, "LEFT", "LEFT", "60"])
        .await;
    assert_eq!(decode(&bytes).outcome, Outcome::Succeeded);
    let log = desk.space.read_stream_until(&keys.log(&id), 2);
    assert_eq!(log[0].text("stream"), "stdout");
    assert_eq!(log[0].text("data"), "42\n");
    assert_eq!(log[0].text("attempt"), "1");
    assert_eq!(log[1].text("stream"), "end");
    assert_eq!(log[1].text("outcome"), "succeeded");

    let entry: String = desk.plain(&["XADD", &keys.jobs(), "*", "job", json]).await;
    let _cancel: String = desk
        .plain(&["XADD", &keys.jobs(), "*", "op", "cancel", "id", &entry])
        .await;
    desk.admit().await;
    let cancelled = desk.result(&entry.parse().unwrap()).await;
    assert_eq!(cancelled.outcome, Outcome::Cancelled);
}

#[tokio::test]
async fn a_messagepack_job_is_answered_in_messagepack_also_by_redis_itself() {
    let desk = Desk::shared("msgpack").await;
    let packed = wire::encode(&crate::desk::job(), Encoding::MessagePack);
    let id = desk
        .queue
        .submit(&Routing::default(), &packed)
        .await
        .unwrap();
    desk.admit().await;
    desk.queue.cancel_now(&id).await.unwrap();
    let bytes = desk.queue.result(&id).await.unwrap().unwrap();
    assert_eq!(wire::sniff(&bytes).unwrap(), Encoding::MessagePack);
    let result: JobResult = decode(&bytes);
    assert_eq!(result.outcome, Outcome::Cancelled);
    assert_eq!(result.id, id);
    let record = desk.record(&id).await;
    assert_eq!(Some(result.finished_at_ms), record.finished_at);
}

#[tokio::test]
async fn a_reply_stream_gets_every_result() {
    let mut desk = Desk::shared("reply").await;
    let routing = Routing {
        reply: Some("batch:7".parse().unwrap()),
        ..Routing::default()
    };
    let first = desk.ready(&routing).await;
    let second = desk.ready(&routing).await;
    for _ in 0..2 {
        let job = desk.bound(&worker("one")).await;
        let id = job.lease.id.clone();
        let _settled = desk.queue.finish(&job.lease, success(&id)).await.unwrap();
    }
    let key = desk.queue.keys().reply(&"batch:7".parse().unwrap());
    let replies = desk.space.read_stream_until(&key, 2);
    for (reply, id) in replies.iter().zip([&first, &second]) {
        assert_eq!(reply.text("id"), id.as_str());
        assert_eq!(reply.text("outcome"), "succeeded");
        assert_eq!(decode(reply.bytes("result").unwrap()).id, *id);
    }
    let life: i64 = desk.plain(&["PTTL", &key]).await;
    assert!(life > 0, "the stream expires: {life}");
}

#[tokio::test]
async fn a_log_is_followed_to_its_end() {
    let desk = Desk::shared("log").await;
    let id = desk.ready(&Routing::default()).await;
    let job = desk.bound(&worker("one")).await;
    let mut reader = desk.queue.log_reader(&id).await.unwrap();
    let follow = tokio::spawn(async move {
        let mut after = LogPosition::start();
        let mut seen = Vec::new();
        loop {
            for entry in reader.next(&after, PATIENCE).await.unwrap() {
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
        assert!(desk.queue.log(&job.lease, *stream, data).await.unwrap());
    }
    let failed = Settlement::Publish {
        result: wire::encode(
            &JobResult::bare(id.clone(), Outcome::TimedOut),
            Encoding::Json,
        ),
        outcome: Outcome::TimedOut,
    };
    let _settled = desk.queue.finish(&job.lease, failed).await.unwrap();
    let (seen, outcome) = follow.await.unwrap();
    assert_eq!(seen, chunks);
    assert_eq!(outcome, Some(Outcome::TimedOut));

    let silent = desk.ready(&Routing::default()).await;
    let job = desk.bound(&worker("one")).await;
    let _settled = desk
        .queue
        .finish(&job.lease, success(&silent))
        .await
        .unwrap();
    let mut reader = desk.queue.log_reader(&silent).await.unwrap();
    let entries = reader.next(&LogPosition::start(), PATIENCE).await.unwrap();
    assert_eq!(entries, [LogEntry::End { outcome: None }], "no log at all");
}
