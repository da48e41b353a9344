//! Schedules: each firing happens once, regardless of the number of workers; missed firings follow
//! the policy; a removed schedule fires no more.

use std::collections::BTreeSet;

use sandhog_core::cron::CronSchedule;
use sandhog_core::id::ScheduleName;
use sandhog_core::outcome::Outcome;
use sandhog_core::schedule::{Missed, Overlap, Schedule, firing_id};
use sandhog_core::submission::Routing;
use sandhog_core::units::{Millis, UnixMillis};
use sandhog_queue::{
    AdmitReply, CancelReply, ChangeReply, DueSchedule, FireReply, Firing, PutReply, ScheduleRecord,
    ScheduleState,
};
use sandhog_testkit::private_redis::PrivateRedis;
use sandhog_worker::schedule::fire_due;

use crate::fixture::{QueueFixture, payload, success, worker};

const DAY: u64 = 86_400_000;

/// Name of the case, and fields of an entry.
type ScheduleCase<'a> = (&'a str, Vec<(&'a str, &'a [u8])>);

fn name() -> ScheduleName {
    "nightly".parse().unwrap()
}

fn daily(missed: Missed, overlap: Overlap) -> Schedule {
    let cron = CronSchedule::parse("0 0 * * *", "UTC").unwrap();
    let routing = Routing {
        tenant: "acme".parse().unwrap(),
        ..Routing::default()
    };
    Schedule::new(name(), cron, missed, overlap, routing, payload()).unwrap()
}

impl QueueFixture {
    async fn put(&self, schedule: &Schedule) {
        let next = schedule
            .cron()
            .next_after(self.queue.now().await.unwrap())
            .unwrap();
        let put = self.queue.put_schedule(schedule, next, false).await;
        assert_eq!(put.unwrap(), PutReply::Added);
    }

    /// Makes the schedule look as if it had been due `days` days ago and not been checked since.
    /// Returns that time.
    async fn overdue(&self, days: u64) -> UnixMillis {
        let now = self.queue.now().await.unwrap().0;
        let due = now - now % DAY - (days - 1) * DAY;
        let record = self.queue.keys().schedule(&name());
        let _set: i64 = self
            .plain(&["HSET", &record, "next", &due.to_string()])
            .await;
        let schedules = self.queue.keys().schedules();
        let _moved: i64 = self
            .plain(&["ZADD", &schedules, &due.to_string(), "nightly"])
            .await;
        UnixMillis(due)
    }

    async fn schedule(&self) -> ScheduleRecord {
        self.queue.schedule(&name()).await.unwrap().unwrap()
    }

    /// Returns the ids of the jobs in the intake, none of which has been admitted.
    async fn submitted(&mut self) -> Vec<String> {
        let key = self.queue.keys().jobs();
        let entries = self.space.stream_now(&key);
        entries.iter().map(|e| e.text("id").to_owned()).collect()
    }
}

#[tokio::test]
async fn two_schedulers_fire_once() {
    let mut fixture = QueueFixture::shared("cron-twice").await;
    fixture.put(&daily(Missed::Skip, Overlap::Allow)).await;
    assert_eq!(fire_due(&fixture.queue).await.unwrap(), 0, "not due yet");
    let due = fixture.overdue(1).await;
    let fired = tokio::join!(
        fire_due(&fixture.queue),
        fire_due(&fixture.queue),
        fire_due(&fixture.queue)
    );
    assert_eq!(fired.0.unwrap() + fired.1.unwrap() + fired.2.unwrap(), 1);
    let id = firing_id(&name(), due);
    assert_eq!(fixture.submitted().await, [id.as_str()]);
    let schedule = fixture.schedule().await;
    assert_eq!(schedule.next, Some(UnixMillis(due.0 + DAY)));
    assert_eq!((schedule.fired, schedule.left_out), (1, 0));
    assert_eq!(schedule.last_id.as_ref(), Some(&id));
    assert_eq!(fixture.counter("scheduled").await, 1);

    fixture.admit().await;
    let record = fixture.record(&id).await;
    assert_eq!(record.tenant.as_str(), "acme");
    let job = fixture.bound(&worker("one")).await;
    assert_eq!((job.lease.id, job.payload), (id, payload()));
}

#[tokio::test]
async fn a_scheduler_that_was_slow_is_told_so() {
    let mut fixture = QueueFixture::shared("cron-slow").await;
    fixture.put(&daily(Missed::Skip, Overlap::Allow)).await;
    let due = fixture.overdue(1).await;
    let found = fixture.queue.due_schedules().await.unwrap().schedules;
    let [seen] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(fire_due(&fixture.queue).await.unwrap(), 1);
    let firing = |schedule| Firing {
        schedule,
        at: due,
        next: Some(UnixMillis(due.0 + DAY)),
        left_out: 0,
    };
    let late = fixture.queue.fire_schedule(&firing(seen)).await.unwrap();
    assert_eq!(late, FireReply::Stale);

    // The changed schedule is due at the same time as before, but is not the same schedule.
    let again = fixture.overdue(1).await;
    assert_eq!(again, due);
    let changed = DueSchedule {
        revision: "another".to_owned(),
        ..seen.clone()
    };
    let other = fixture
        .queue
        .fire_schedule(&firing(&changed))
        .await
        .unwrap();
    assert_eq!(other, FireReply::Stale);
    assert_eq!(fixture.submitted().await.len(), 1);
}

#[tokio::test]
async fn missed_firings_are_made_up_for_by_one() {
    let mut fixture = QueueFixture::shared("cron-skip").await;
    fixture.put(&daily(Missed::Skip, Overlap::Allow)).await;
    let first = fixture.overdue(5).await;
    assert_eq!(fire_due(&fixture.queue).await.unwrap(), 1);
    let latest = UnixMillis(first.0 + 4 * DAY);
    assert_eq!(
        fixture.submitted().await,
        [firing_id(&name(), latest).as_str()]
    );
    let schedule = fixture.schedule().await;
    assert_eq!((schedule.fired, schedule.left_out), (1, 4));
    assert_eq!(schedule.next, Some(UnixMillis(latest.0 + DAY)));
    assert_eq!(fire_due(&fixture.queue).await.unwrap(), 0);
}

#[tokio::test]
async fn missed_firings_are_made_up_for_by_all_up_to_a_bound() {
    let mut fixture = QueueFixture::shared("cron-all").await;
    fixture.put(&daily(Missed::All, Overlap::Allow)).await;
    let first = fixture.overdue(130).await;
    let both = tokio::join!(fire_due(&fixture.queue), fire_due(&fixture.queue));
    assert_eq!(both.0.unwrap() + both.1.unwrap(), 100);
    let want: Vec<String> = (30..130)
        .map(|day| firing_id(&name(), UnixMillis(first.0 + day * DAY)).to_string())
        .collect();
    assert_eq!(fixture.submitted().await, want);
    let schedule = fixture.schedule().await;
    assert_eq!((schedule.fired, schedule.left_out), (100, 30));
}

#[tokio::test]
async fn overlapping_can_be_skipped() {
    let fixture = QueueFixture::shared("cron-overlap").await;
    fixture.put(&daily(Missed::Skip, Overlap::Skip)).await;
    let first = firing_id(&name(), fixture.overdue(2).await);
    // Only the latest of the two is fired; the next firing is tomorrow's.
    assert_eq!(fire_due(&fixture.queue).await.unwrap(), 1);
    fixture.admit().await;
    let lease = fixture.bound(&worker("one")).await.lease;
    assert_ne!(lease.id, first);
    let now = fixture.queue.run_schedule(&name()).await.unwrap().unwrap();
    fixture.admit().await;
    let refused = fixture.result(&now).await;
    assert_eq!(refused.outcome, Outcome::Rejected);
    assert_eq!(refused.error.unwrap().code, "duplicate");
    let _settled = fixture
        .queue
        .finish(&lease, success(&lease.id))
        .await
        .unwrap();
    let now = fixture.queue.run_schedule(&name()).await.unwrap().unwrap();
    fixture.admit().await;
    assert_eq!(fixture.bound(&worker("one")).await.lease.id, now);
}

#[tokio::test]
async fn paused_schedules_do_not_fire_and_resumed_ones_make_up_for_nothing() {
    let mut fixture = QueueFixture::shared("cron-pause").await;
    fixture.put(&daily(Missed::All, Overlap::Allow)).await;
    fixture.overdue(3).await;
    let name = name();
    let pause = || fixture.queue.pause_schedule(&name);
    assert_eq!(pause().await.unwrap(), ChangeReply::Done);
    assert_eq!(
        pause().await.unwrap(),
        ChangeReply::Done,
        "pausing twice succeeds"
    );
    assert_eq!(fire_due(&fixture.queue).await.unwrap(), 0);
    let paused = fixture.schedule().await;
    assert_eq!((paused.state, paused.next), (ScheduleState::Paused, None));
    let listed = fixture.queue.schedules().await.unwrap();
    assert_eq!(
        listed,
        std::slice::from_ref(&paused),
        "a paused schedule is still listed"
    );

    let ran = fixture.queue.run_schedule(&name).await.unwrap().unwrap();
    assert_eq!(
        fixture.submitted().await,
        [ran.as_str()],
        "a paused schedule can be run by hand"
    );

    let next = UnixMillis(fixture.queue.now().await.unwrap().0 + DAY);
    let old = ScheduleRecord {
        revision: "another".to_owned(),
        ..paused.clone()
    };
    let stale = fixture.queue.resume_schedule(&old, next).await.unwrap();
    assert_eq!(stale, ChangeReply::Stale);
    let resumed = fixture.queue.resume_schedule(&paused, next).await.unwrap();
    assert_eq!(resumed, ChangeReply::Done);
    assert_eq!(fixture.schedule().await.next, Some(next));
    assert_eq!(fire_due(&fixture.queue).await.unwrap(), 0);
}

#[tokio::test]
async fn a_schedule_replaces_another_only_when_told_to() {
    let fixture = QueueFixture::shared("cron-replace").await;
    let first = daily(Missed::Skip, Overlap::Allow);
    fixture.put(&first).await;
    let next = UnixMillis(DAY);
    let queue = &fixture.queue;
    let put = queue.put_schedule(&first, next, false).await.unwrap();
    assert_eq!(put, PutReply::Exists);
    let before = fixture.schedule().await;
    let second = daily(Missed::All, Overlap::Skip);
    let put = queue.put_schedule(&second, next, true).await.unwrap();
    assert_eq!(put, PutReply::Replaced);
    let after = fixture.schedule().await;
    assert_eq!(
        (after.missed.as_str(), after.overlap.as_str()),
        ("all", "skip")
    );
    assert_eq!(after.created_at, before.created_at);
    assert_ne!(after.revision, before.revision);
    assert_eq!(
        after.routing,
        [
            ("tenant".to_owned(), "acme".to_owned()),
            ("unique".to_owned(), "cron:nightly".to_owned())
        ]
    );
}

#[tokio::test]
async fn a_removed_schedule_leaves_nothing() {
    let fixture = QueueFixture::shared("cron-remove").await;
    fixture.put(&daily(Missed::Skip, Overlap::Allow)).await;
    fixture.overdue(1).await;
    let name = name();
    let remove = || fixture.queue.remove_schedule(&name);
    assert_eq!(remove().await.unwrap(), ChangeReply::Done);
    assert_eq!(remove().await.unwrap(), ChangeReply::Unknown);
    assert_eq!(fire_due(&fixture.queue).await.unwrap(), 0);
    assert_eq!(fixture.queue.schedule(&name).await.unwrap(), None);
    assert_eq!(fixture.queue.run_schedule(&name).await.unwrap(), None);
    assert_eq!(fixture.keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_schedule_that_this_version_cannot_read_is_left_to_others() {
    let mut fixture = QueueFixture::shared("cron-unreadable").await;
    fixture.put(&daily(Missed::Skip, Overlap::Allow)).await;
    let due = fixture.overdue(1).await;
    let record = fixture.queue.keys().schedule(&name());
    let _set: i64 = fixture.plain(&["HSET", &record, "cron", "at dawn"]).await;
    assert_eq!(fire_due(&fixture.queue).await.unwrap(), 0);
    let found = fixture.queue.due_schedules().await.unwrap();
    assert_eq!(
        found.schedules,
        [],
        "the schedule is not checked again at once"
    );
    assert_eq!(
        fixture.schedule().await.next,
        Some(due),
        "the schedule is not forgotten"
    );
    assert_eq!(fixture.submitted().await, Vec::<String>::new());
}

#[tokio::test]
async fn schedules_survive_a_restart_of_redis() {
    let mut redis = PrivateRedis::start(&[]);
    let mut fixture = QueueFixture::on(&redis, "cron-restart").await;
    for number in 0..70 {
        let cron = CronSchedule::parse("0 0 * * *", "UTC").unwrap();
        let schedule = Schedule::new(
            format!("n{number}").parse().unwrap(),
            cron,
            Missed::Skip,
            Overlap::Allow,
            Routing::default(),
            payload(),
        )
        .unwrap();
        // All are overdue at once, and there are more of them than one call takes.
        let put = fixture
            .queue
            .put_schedule(&schedule, UnixMillis(60_000 * (number + 1)), false);
        assert_eq!(put.await.unwrap(), PutReply::Added);
    }
    redis.kill();
    redis.start_again();
    assert_eq!(fire_due(&fixture.queue).await.unwrap(), 70);
    fixture.space.reconnect();
    let ids: BTreeSet<String> = fixture.submitted().await.into_iter().collect();
    assert_eq!(ids.len(), 70);
    assert_eq!(fire_due(&fixture.queue).await.unwrap(), 0);
    let records = fixture.queue.schedules().await.unwrap();
    assert!(records.iter().all(|r| r.fired == 1 && r.left_out == 999));
}

#[tokio::test]
async fn a_schedule_without_a_further_time_is_over() {
    let fixture = QueueFixture::shared("cron-over").await;
    fixture.put(&daily(Missed::Skip, Overlap::Allow)).await;
    fixture.overdue(1).await;
    let found = fixture.queue.due_schedules().await.unwrap();
    let firing = Firing {
        schedule: &found.schedules[0],
        at: found.schedules[0].due,
        next: None,
        left_out: 0,
    };
    assert_eq!(
        fixture.queue.fire_schedule(&firing).await.unwrap(),
        FireReply::Fired
    );
    let record = fixture.schedule().await;
    assert_eq!((record.state, record.next), (ScheduleState::Over, None));
    let postponed = fixture
        .queue
        .postpone_schedule(firing.schedule, Millis(1))
        .await;
    assert_eq!(postponed.unwrap(), ChangeReply::Done);
    assert_eq!(fire_due(&fixture.queue).await.unwrap(), 0);
}

#[tokio::test]
async fn only_a_schedule_may_use_its_ids_and_its_unique_key() {
    let mut fixture = QueueFixture::shared("cron-forged").await;
    fixture.put(&daily(Missed::Skip, Overlap::Skip)).await;
    let due = fixture.overdue(1).await;
    let id = firing_id(&name(), due);
    let job = payload();
    let job = job.as_slice();

    // Three ways to forge a firing before the schedule does: as the job, as its cancel, and as the
    // holder of its unique key.
    let entries: [ScheduleCase<'_>; 5] = [
        ("the id", vec![("job", job), ("id", id.as_str().as_bytes())]),
        (
            "the id, malformed",
            vec![("job", b"{"), ("id", id.as_str().as_bytes())],
        ),
        ("another id", vec![("job", job), ("id", b"cron:")]),
        ("the key", vec![("job", job), ("unique", b"cron:nightly")]),
        (
            "the key of another",
            vec![("job", job), ("id", b"mine"), ("unique", b"cron:x")],
        ),
    ];
    for (case, fields) in entries {
        let entry = fixture.space.add(&fields);
        let want = match case {
            "the key of another" => "mine".parse().unwrap(),
            _ => entry,
        };
        let replies = fixture.admit().await;
        assert_eq!(replies, [AdmitReply::Rejected(want.clone())], "case {case}");
        let error = fixture.result(&want).await.error.unwrap();
        let code = if case.ends_with("malformed") {
            "bad_payload"
        } else {
            "bad_id"
        };
        assert_eq!(error.code, code, "case {case}: {}", error.message);
        assert_eq!(fixture.queue.job(&id).await.unwrap(), None, "case {case}");
    }
    fixture
        .space
        .add(&[("op", b"cancel"), ("id", id.as_str().as_bytes())]);
    assert_eq!(fixture.admit().await, []);

    assert_eq!(fire_due(&fixture.queue).await.unwrap(), 1);
    assert_eq!(fixture.admit().await, [AdmitReply::Admitted(id.clone())]);
    let record = fixture.record(&id).await;
    assert_eq!(record.tenant.as_str(), "acme");
    let keys = fixture.keys().await;
    assert!(!keys.contains(&"firings".to_owned()), "{keys:?}");

    // The id is known by now, but it still belongs to the schedule: the entry is rejected and not
    // counted as a duplicate.
    let entry = fixture
        .space
        .add(&[("job", job), ("id", id.as_str().as_bytes())]);
    assert_eq!(fixture.admit().await, [AdmitReply::Rejected(entry)]);
    assert_eq!(fixture.counter("duplicates").await, 0);
    // A waiting job of a schedule is cancelled by its id, like any other.
    assert_eq!(
        fixture.queue.cancel_now(&id).await.unwrap(),
        CancelReply::Cancelled
    );
}

#[tokio::test]
async fn a_firing_that_is_asked_for_is_a_schedules_own() {
    let fixture = QueueFixture::shared("cron-now").await;
    fixture.put(&daily(Missed::Skip, Overlap::Allow)).await;
    let id = fixture.queue.run_schedule(&name()).await.unwrap().unwrap();
    assert_eq!(fixture.admit().await, [AdmitReply::Admitted(id)]);
}
