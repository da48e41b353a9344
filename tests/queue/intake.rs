//! The public intake: hostile entries, and workers that die during admission.

use std::time::Duration;

use sandhog_core::outcome::Outcome;
use sandhog_core::submission::{Intake, Routing};
use sandhog_core::units::Millis;
use sandhog_queue::{Admission, AdmitReply, JobState};
use sandhog_testkit::namespace::decode;
use tokio_util::sync::CancellationToken;

use crate::fixture::{CAP, FOR_EVER, QueueFixture, WAIT_TIMEOUT, payload, settings, soon, worker};
use crate::in_process_worker::{AttemptCounter, start_worker, worker_settings};

/// Name of the case, fields of the entry, and expected error code.
type IntakeCase<'a> = (&'a str, Vec<(&'a str, &'a [u8])>, &'a str);

#[tokio::test]
async fn a_malformed_entry_is_a_dead_letter_and_a_readable_result() {
    let mut fixture = QueueFixture::shared("malformed").await;
    let huge = format!(
        "{{\"image\":\"python\",\"code\":\"{}\"}}",
        "x".repeat(CAP.as_usize())
    );
    let cases: [IntakeCase<'_>; 9] = [
        ("nothing", vec![("x", b"y")], "bad_entry"),
        ("not json", vec![("job", b"hello")], "bad_payload"),
        ("array", vec![("job", &[0x92, 1, 2])], "bad_payload"),
        (
            "wrong type",
            vec![("job", br#"{"image":3,"code":"1"}"#)],
            "bad_payload",
        ),
        ("huge", vec![("job", huge.as_bytes())], "payload_too_large"),
        ("bad id", vec![("job", b"{}"), ("id", b"a b")], "bad_id"),
        (
            "bad priority",
            vec![("job", b"{}"), ("priority", b"high")],
            "bad_field",
        ),
        (
            "not utf-8",
            vec![("job", b"{}"), ("class", &[0xff])],
            "bad_field",
        ),
        (
            "nothing to run",
            vec![("job", br#"{"image":"python"}"#)],
            "bad_job",
        ),
    ];
    for (case, fields, code) in cases {
        let id = fixture.space.add(&fields);
        assert_eq!(
            fixture.admit().await,
            [AdmitReply::Rejected(id.clone())],
            "case {case}"
        );
        let result = fixture.result(&id).await;
        assert_eq!(result.outcome, Outcome::Rejected, "case {case}");
        let error = result.error.unwrap();
        assert_eq!(error.code, code, "case {case}");
        let record = fixture.record(&id).await;
        assert_eq!(record.state, JobState::Dead, "case {case}");
        assert_eq!(
            record.error.as_deref(),
            Some(error.message.as_str()),
            "case {case}"
        );
        let key = fixture.queue.keys().dead();
        let dead = fixture.space.stream_now(&key).pop().unwrap();
        assert_eq!(dead.text("id"), id.as_str(), "case {case}");
        assert_eq!(dead.text("reason"), code, "case {case}");
        assert_eq!(dead.text("error"), error.message, "case {case}");
    }
    let snapshot = fixture.queue.snapshot().await.unwrap();
    assert_eq!((snapshot.intake, snapshot.dead), (0, 9));
    assert_eq!(snapshot.classes, []);
}

#[tokio::test]
async fn a_rejected_job_answers_to_its_own_name() {
    let mut fixture = QueueFixture::shared("rejected-name").await;
    fixture.space.add(&[("job", b"{}"), ("id", b"mine")]);
    let id = "mine".parse().unwrap();
    assert_eq!(fixture.admit().await, [AdmitReply::Rejected(id)]);
    assert_eq!(
        fixture.result(&"mine".parse().unwrap()).await.outcome,
        Outcome::Rejected
    );
}

#[tokio::test]
async fn what_a_dead_admitter_read_is_admitted_by_another() {
    let fixture = QueueFixture::shared("dead-admitter").await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(fixture.submit(&Routing::default()).await);
    }
    let mut dead = fixture.queue.intake_reader(&worker("dead")).await.unwrap();
    assert_eq!(dead.next(64, Duration::ZERO).await.unwrap().len(), 5);
    drop(dead);
    assert_eq!(
        fixture.admit().await,
        [],
        "another worker holds the entries"
    );

    let mut reader = fixture.queue.intake_reader(&worker("alive")).await.unwrap();
    let mut recovered = Vec::new();
    loop {
        // Two entries at a time, so that the reader must follow the cursor.
        let entries = reader.recover(Millis(0), 2).await.unwrap();
        if entries.is_empty() {
            break;
        }
        assert!(entries.len() <= 2);
        let done: Vec<_> = entries.iter().map(|entry| entry.id.clone()).collect();
        fixture.queue.done(&done).await.unwrap();
        recovered.extend(entries);
    }
    let names: Vec<&str> = recovered.iter().map(|entry| entry.id.as_str()).collect();
    let want: Vec<&str> = ids.iter().map(|id| id.as_str()).collect();
    assert_eq!(names, want);
    assert_eq!(fixture.queue.snapshot().await.unwrap().intake, 0);
}

#[tokio::test]
async fn entries_written_before_any_worker_was_there_are_read() {
    let fixture = QueueFixture::shared("early-entries").await;
    let id = fixture.submit(&Routing::default()).await;
    let jobs = fixture.queue.keys().jobs();
    let _destroyed: i64 = fixture.plain(&["XGROUP", "DESTROY", &jobs, "admit"]).await;
    assert_eq!(fixture.admit().await, [AdmitReply::Admitted(id)]);
}

#[tokio::test]
async fn a_reader_is_woken_by_an_entry_and_ended_by_an_unblock() {
    let fixture = QueueFixture::shared("intake-wake").await;
    let mut reader = fixture.queue.intake_reader(&worker("one")).await.unwrap();
    let unblocker = reader.unblocker();
    let reading = tokio::spawn(async move {
        let entries = reader.next(10, crate::fixture::WAIT_TIMEOUT).await.unwrap();
        (reader, entries)
    });
    let id = fixture.submit(&Routing::default()).await;
    let (mut reader, entries) = reading.await.unwrap();
    assert_eq!(entries[0].id.as_str(), id.as_str());
    assert_eq!(entries[0].fields, [(b"job".to_vec(), payload())]);
    let reading = tokio::spawn(async move { reader.next(10, FOR_EVER).await });
    unblocker.unblock().await.unwrap();
    assert_eq!(soon(reading).await.unwrap().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_job_of_a_record_is_checked_before_it_runs() {
    let fixture = QueueFixture::shared("record-check").await;
    let id = fixture.submit(&Routing::default()).await;
    let mut reader = fixture.queue.intake_reader(&worker("one")).await.unwrap();
    let mut entries = reader.next(1, Duration::ZERO).await.unwrap();
    let entry = entries.remove(0);
    let Ok(Intake::Submit(mut submission)) = entry.parse(CAP) else {
        panic!("the entry is a valid job");
    };
    // An admitter with other rules writes a job with nothing to run.
    submission.payload = br#"{"image":"python"}"#.to_vec();
    let entry = entry.id;
    let admission = Admission::Accept { entry, submission };
    let replies = fixture.queue.admit(&[admission]).await.unwrap();
    assert_eq!(replies, [AdmitReply::Admitted(id.clone())]);
    let of_worker = worker_settings(
        &settings(fixture.space.url()),
        fixture.space.namespace(),
        "two",
    );
    let counter = AttemptCounter::default();
    let running = start_worker(&of_worker, &counter).await;
    let mut waiter = fixture.queue.result_waiter().await.unwrap();
    let result = waiter.wait(&id, WAIT_TIMEOUT).await.unwrap();
    running.stop(CancellationToken::new()).await;
    let result = decode(&result.expect("it ends long before that"));
    let error = result.error.unwrap();
    assert_eq!(
        (result.outcome, error.code.as_str(), error.message.as_str()),
        (
            Outcome::Rejected,
            "bad_job",
            "the job names nothing to run (want code, or argv)"
        )
    );
    assert_eq!(counter.count(), 0, "no executor was given the job");
}

#[tokio::test]
async fn meeting_requests_does_not_disturb_other_commands() {
    // All commands of a worker share one connection: a missing or an extra reply would shift every
    // later reply to the wrong command.
    let fixture = QueueFixture::shared("in-step").await;
    let id = fixture.ready(&Routing::default()).await;
    for _ in 0..50 {
        fixture.queue.cancel(&id).await.unwrap();
    }
    let mut reader = fixture.queue.intake_reader(&worker("one")).await.unwrap();
    let entries = reader.next(50, Duration::ZERO).await.unwrap();
    assert_eq!(entries.len(), 50);
    let mut crowd = tokio::task::JoinSet::new();
    for entry in entries {
        let (queue, id) = (fixture.queue.clone(), id.clone());
        crowd.spawn(async move { queue.job(&id).await.unwrap().unwrap().state });
        let queue = fixture.queue.clone();
        crowd.spawn(async move {
            queue.done(&[entry.id]).await.unwrap();
            JobState::Queued
        });
    }
    for state in crowd.join_all().await {
        assert_eq!(state, JobState::Queued);
    }
    assert_eq!(fixture.queue.snapshot().await.unwrap().intake, 0);
}
