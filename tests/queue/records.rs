//! Records: each step of a job changes exactly the fields of its record that belong to the step.
//!
//! A test of a result or of a dead letter does not detect a wrong field of the record. So these
//! tests compare whole records: the expected one is the record before the step, with the changes
//! that the step makes.

use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::submission::{Routing, Start};
use sandhog_core::units::Millis;
use sandhog_core::wire::{self, Encoding};
use sandhog_queue::{
    CancelReply, FinishReply, JobRecord, JobState, Lease, RequeueReply, RetryBudget, Settlement,
};

use crate::fixture::{LEASE, QueueFixture, named, soon, success, worker};

const AN_HOUR: Millis = Millis(3_600_000);

impl QueueFixture {
    /// Submits, admits and binds a job. Returns its lease and its record.
    async fn running(&self, id: &str) -> (Lease, JobRecord) {
        self.ready(&named(id)).await;
        let lease = self.bound(&worker("one")).await.lease;
        assert_eq!(lease.id.as_str(), id);
        let record = self.record(&lease.id).await;
        (lease, record)
    }

    async fn settle_with(&self, lease: &Lease, settlement: Settlement) {
        let reply = self.queue.finish(lease, settlement).await.unwrap();
        assert_eq!(reply, FinishReply::Settled);
    }
}

/// Checks that a record has exactly the times that its state requires, in the right order.
fn check_times(case: &str, record: &JobRecord) {
    let is_delayed = record.state == JobState::Delayed;
    assert_eq!(record.run_at.is_some(), is_delayed, "{case}: run_at");
    let is_over = record.state.is_over();
    assert_eq!(record.finished_at.is_some(), is_over, "{case}: finished_at");
    assert_eq!(record.outcome.is_some(), is_over, "{case}: outcome");
    let has_run = record.worker.is_some();
    assert_eq!(record.started_at.is_some(), has_run, "{case}: started_at");
    let began = record.started_at.unwrap_or(record.submitted_at);
    assert!(record.submitted_at <= began, "{case}: {record:?}");
    let ended = record.finished_at.unwrap_or(began);
    assert!(began <= ended, "{case}: {record:?}");
}

/// Returns the record of a job that was just admitted and is ready. `now` gives the values that the
/// test cannot know.
fn admitted(now: &JobRecord) -> JobRecord {
    let routing = Routing::default();
    JobRecord {
        id: now.id.clone(),
        state: JobState::Queued,
        class: routing.class,
        size: now.size,
        tenant: routing.tenant,
        priority: routing.priority.level(),
        attempts: 0,
        lost: 0,
        max_attempts: routing.max_attempts,
        outcome: None,
        error: None,
        worker: None,
        token: None,
        cancel_requested: false,
        submitted_at: now.submitted_at,
        run_at: None,
        expires_at: None,
        started_at: None,
        finished_at: None,
    }
}

fn retry(after: Millis, counts_as: RetryBudget) -> Settlement {
    Settlement::Retry {
        after,
        why: "exit code 1".to_owned(),
        counts_as,
    }
}

/// Returns the settlement of a job whose program failed as often as it may.
fn last_failure(lease: &Lease) -> Settlement {
    let result = JobResult::bare(lease.id.clone(), Outcome::Failed);
    Settlement::DeadLetter {
        result: wire::encode(&result, Encoding::Json),
        outcome: Outcome::Failed,
        reason: "max_attempts".to_owned(),
        error: "exit code 1".to_owned(),
    }
}

#[tokio::test]
async fn admission_writes_a_whole_record() {
    let fixture = QueueFixture::shared("record-admit").await;
    let id = fixture.ready(&Routing::default()).await;
    let record = fixture.record(&id).await;
    check_times("ready", &record);
    assert_eq!(record, admitted(&record));

    let later = Routing {
        start: Start::After(AN_HOUR),
        ..Routing::default()
    };
    let id = fixture.ready(&later).await;
    let record = fixture.record(&id).await;
    check_times("delayed", &record);
    let wanted = JobRecord {
        state: JobState::Delayed,
        run_at: record.run_at,
        ..admitted(&record)
    };
    assert_eq!(record, wanted);

    let short_lived = Routing {
        ttl: Some(AN_HOUR),
        ..Routing::default()
    };
    let id = fixture.ready(&short_lived).await;
    let record = fixture.record(&id).await;
    check_times("with a time to live", &record);
    assert!(record.expires_at.is_some());
    let wanted = JobRecord {
        expires_at: record.expires_at,
        ..admitted(&record)
    };
    assert_eq!(record, wanted);
}

#[tokio::test]
async fn binding_writes_the_attempt() {
    let fixture = QueueFixture::shared("record-bind").await;
    let (lease, record) = fixture.running("a").await;
    check_times("bound", &record);
    let wanted = JobRecord {
        state: JobState::Running,
        attempts: 1,
        worker: Some(worker("one")),
        token: Some(lease.token),
        started_at: record.started_at,
        ..admitted(&record)
    };
    assert_eq!(record, wanted);

    let reply = fixture.queue.cancel_now(&record.id).await.unwrap();
    assert_eq!(reply, CancelReply::Asked);
    let wanted = JobRecord {
        cancel_requested: true,
        ..record.clone()
    };
    assert_eq!(fixture.record(&record.id).await, wanted);
}

#[tokio::test]
async fn each_settlement_changes_only_its_own_fields() {
    type Settle = fn(&Lease) -> Settlement;
    type Change = fn(JobRecord, &JobRecord) -> JobRecord;
    let fixture = QueueFixture::shared("record-settle").await;
    let cases: [(&str, Settle, Change); 5] = [
        (
            "published",
            |lease| success(&lease.id),
            |running, now| JobRecord {
                state: JobState::Finished,
                outcome: Some(Outcome::Succeeded),
                finished_at: now.finished_at,
                ..running
            },
        ),
        ("dead-letter", last_failure, |running, now| JobRecord {
            state: JobState::Dead,
            outcome: Some(Outcome::Failed),
            error: Some("exit code 1".to_owned()),
            finished_at: now.finished_at,
            ..running
        }),
        (
            "retry-later",
            |_lease| retry(AN_HOUR, RetryBudget::Lost),
            |running, now| JobRecord {
                state: JobState::Delayed,
                lost: 1,
                error: Some("exit code 1".to_owned()),
                run_at: now.run_at,
                ..running
            },
        ),
        (
            "retry-now",
            |_lease| retry(Millis(0), RetryBudget::Attempt),
            |running, _now| JobRecord {
                state: JobState::Queued,
                error: Some("exit code 1".to_owned()),
                ..running
            },
        ),
        (
            "given-back",
            |_lease| Settlement::GiveBack,
            |running, _now| JobRecord {
                state: JobState::Queued,
                attempts: 0,
                ..running
            },
        ),
    ];
    for (case, settle, change) in cases {
        let (lease, running) = fixture.running(case).await;
        fixture.settle_with(&lease, settle(&lease)).await;
        let record = fixture.record(&lease.id).await;
        check_times(case, &record);
        assert_eq!(record, change(running, &record), "{case}");
        // A job that is ready again must not be the next case's job.
        if record.state == JobState::Queued {
            let reply = fixture.queue.cancel_now(&lease.id).await.unwrap();
            assert_eq!(reply, CancelReply::Cancelled, "{case}");
        }
    }
}

#[tokio::test]
async fn maintenance_takes_the_token_of_a_lapsed_lease() {
    let fixture = QueueFixture::shared("record-lapse").await;
    let (lease, running) = fixture.running("a").await;
    fixture.age(&lease).await;
    let report = fixture.queue.maintain_fully(LEASE, 2).await.unwrap();
    assert_eq!((report.reaped, report.given_up), (1, 0));
    let record = fixture.record(&lease.id).await;
    check_times("taken back", &record);
    let wanted = JobRecord {
        state: JobState::Queued,
        lost: 1,
        token: None,
        ..running
    };
    assert_eq!(record, wanted);

    let lease = fixture.bound(&worker("two")).await.lease;
    let running = fixture.record(&lease.id).await;
    let wanted = JobRecord {
        state: JobState::Running,
        attempts: 2,
        worker: Some(worker("two")),
        token: Some(lease.token.clone()),
        started_at: running.started_at,
        ..wanted
    };
    assert_eq!(running, wanted);
    fixture.age(&lease).await;
    let report = fixture.queue.maintain_fully(LEASE, 2).await.unwrap();
    assert_eq!((report.reaped, report.given_up), (0, 1));
    let record = fixture.record(&lease.id).await;
    check_times("given up", &record);
    let wanted = JobRecord {
        state: JobState::Dead,
        lost: 2,
        token: None,
        outcome: Some(Outcome::Lost),
        error: Some("2 attempts were lost with their workers".to_owned()),
        finished_at: record.finished_at,
        ..running
    };
    assert_eq!(record, wanted);
}

#[tokio::test]
async fn maintenance_ends_a_lapsed_job_whose_cancel_was_requested() {
    let fixture = QueueFixture::shared("record-lapse-cancel").await;
    let (lease, running) = fixture.running("a").await;
    let reply = fixture.queue.cancel_now(&lease.id).await.unwrap();
    assert_eq!(reply, CancelReply::Asked);
    fixture.age(&lease).await;
    let report = fixture.queue.maintain_fully(LEASE, 2).await.unwrap();
    assert_eq!(report.cancelled, 1);
    let record = fixture.record(&lease.id).await;
    check_times("cancelled", &record);
    let wanted = JobRecord {
        state: JobState::Finished,
        lost: 1,
        token: None,
        outcome: Some(Outcome::Cancelled),
        finished_at: record.finished_at,
        ..running
    };
    assert_eq!(record, wanted);
}

#[tokio::test]
async fn a_cancelled_waiting_job_has_no_attempt() {
    let fixture = QueueFixture::shared("record-cancel").await;
    let later = Routing {
        start: Start::After(AN_HOUR),
        ..Routing::default()
    };
    for (case, routing) in [("ready", Routing::default()), ("delayed", later)] {
        let id = fixture.ready(&routing).await;
        let reply = fixture.queue.cancel_now(&id).await.unwrap();
        assert_eq!(reply, CancelReply::Cancelled, "{case}");
        let record = fixture.record(&id).await;
        check_times(case, &record);
        let wanted = JobRecord {
            state: JobState::Finished,
            outcome: Some(Outcome::Cancelled),
            finished_at: record.finished_at,
            ..admitted(&record)
        };
        assert_eq!(record, wanted, "{case}");
    }
}

#[tokio::test]
async fn an_expired_job_keeps_the_time_of_its_expiry() {
    let fixture = QueueFixture::shared("record-expire").await;
    let short_lived = Routing {
        ttl: Some(Millis(1)),
        ..Routing::default()
    };
    let id = fixture.ready(&short_lived).await;
    soon(async {
        while fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .expired
            == 0
        {}
    })
    .await;
    let record = fixture.record(&id).await;
    check_times("expired", &record);
    assert!(record.expires_at.is_some());
    let wanted = JobRecord {
        state: JobState::Finished,
        outcome: Some(Outcome::Expired),
        expires_at: record.expires_at,
        finished_at: record.finished_at,
        ..admitted(&record)
    };
    assert_eq!(record, wanted);
}

#[tokio::test]
async fn a_requeued_job_starts_as_if_it_had_never_run() {
    let fixture = QueueFixture::shared("record-requeue").await;
    let (lease, _running) = fixture.running("a").await;
    fixture.settle_with(&lease, last_failure(&lease)).await;
    assert_eq!(fixture.state(&lease.id).await, JobState::Dead);
    let reply = fixture.queue.requeue(&lease.id).await.unwrap();
    assert_eq!(reply, RequeueReply::Requeued);
    let record = fixture.record(&lease.id).await;
    check_times("requeued", &record);
    assert_eq!(record, admitted(&record));

    let lease = fixture.bound(&worker("two")).await.lease;
    let record = fixture.record(&lease.id).await;
    check_times("bound again", &record);
    let wanted = JobRecord {
        state: JobState::Running,
        attempts: 1,
        worker: Some(worker("two")),
        token: Some(lease.token),
        started_at: record.started_at,
        ..admitted(&record)
    };
    assert_eq!(record, wanted);
}
