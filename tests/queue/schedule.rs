//! Schedules: each firing happens once, regardless of the number of workers; missed firings follow
//! the policy; a removed schedule fires no more.

use std::collections::BTreeSet;

use sandhog_common::id::ScheduleName;
use sandhog_common::outcome::Outcome;
use sandhog_common::queue::{
    AdmitReply, CancelReply, ChangeReply, DueSchedule, FireReply, Firing, PutReply, ScheduleRecord,
    ScheduleState,
};
use sandhog_common::schedule::{Missed, Overlap, Schedule, job_due};
use sandhog_common::submission::Routing;
use sandhog_common::timetable::Timetable;
use sandhog_common::units::{Millis, UnixMillis};
use sandhog_tests::private_redis::PrivateRedis;
use sandhog_worker::schedule::fire_due;

use crate::desk::{Desk, payload, success, worker};

const DAY: u64 = 86_400_000;

/// Name of the case, and fields of an entry.
type Case<'a> = (&'a str, Vec<(&'a str, &'a [u8])>);

fn name() -> ScheduleName {
    "nightly".parse().unwrap()
}

fn daily(missed: Missed, overlap: Overlap) -> Schedule {
    let timetable = Timetable::parse("0 0 * * *", "UTC").unwrap();
    let routing = Routing {
        tenant: "acme".parse().unwrap(),
        ..Routing::default()
    };
    Schedule::new(name(), timetable, missed, overlap, routing, payload()).unwrap()
}

impl Desk {
    async fn put(&self, schedule: &Schedule) {
        let next = schedule
            .timetable()
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
    let mut desk = Desk::shared("cron-twice").await;
    desk.put(&daily(Missed::Skip, Overlap::Allow)).await;
    assert_eq!(fire_due(&desk.queue).await.unwrap(), 0, "not due yet");
    let due = desk.overdue(1).await;
    let fired = tokio::join!(
        fire_due(&desk.queue),
        fire_due(&desk.queue),
        fire_due(&desk.queue)
    );
    assert_eq!(fired.0.unwrap() + fired.1.unwrap() + fired.2.unwrap(), 1);
    let id = job_due(&name(), due);
    assert_eq!(desk.submitted().await, [id.as_str()]);
    let schedule = desk.schedule().await;
    assert_eq!(schedule.next, Some(UnixMillis(due.0 + DAY)));
    assert_eq!((schedule.fired, schedule.left_out), (1, 0));
    assert_eq!(schedule.last_id.as_ref(), Some(&id));
    assert_eq!(desk.counter("scheduled").await, 1);

    desk.admit().await;
    let record = desk.record(&id).await;
    assert_eq!(record.tenant.as_str(), "acme");
    let job = desk.bound(&worker("one")).await;
    assert_eq!((job.lease.id, job.payload), (id, payload()));
}

#[tokio::test]
async fn a_scheduler_that_was_slow_is_told_so() {
    let mut desk = Desk::shared("cron-slow").await;
    desk.put(&daily(Missed::Skip, Overlap::Allow)).await;
    let due = desk.overdue(1).await;
    let found = desk.queue.due_schedules().await.unwrap().schedules;
    let [seen] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert_eq!(fire_due(&desk.queue).await.unwrap(), 1);
    let firing = |schedule| Firing {
        schedule,
        at: due,
        next: Some(UnixMillis(due.0 + DAY)),
        left_out: 0,
    };
    let late = desk.queue.fire_schedule(&firing(seen)).await.unwrap();
    assert_eq!(late, FireReply::Stale);

    // The changed schedule is due at the same time as before, but is not the same schedule.
    let again = desk.overdue(1).await;
    assert_eq!(again, due);
    let changed = DueSchedule {
        revision: "another".to_owned(),
        ..seen.clone()
    };
    let other = desk.queue.fire_schedule(&firing(&changed)).await.unwrap();
    assert_eq!(other, FireReply::Stale);
    assert_eq!(desk.submitted().await.len(), 1);
}

#[tokio::test]
async fn missed_firings_are_made_up_for_by_one() {
    let mut desk = Desk::shared("cron-skip").await;
    desk.put(&daily(Missed::Skip, Overlap::Allow)).await;
    let first = desk.overdue(5).await;
    assert_eq!(fire_due(&desk.queue).await.unwrap(), 1);
    let latest = UnixMillis(first.0 + 4 * DAY);
    assert_eq!(desk.submitted().await, [job_due(&name(), latest).as_str()]);
    let schedule = desk.schedule().await;
    assert_eq!((schedule.fired, schedule.left_out), (1, 4));
    assert_eq!(schedule.next, Some(UnixMillis(latest.0 + DAY)));
    assert_eq!(fire_due(&desk.queue).await.unwrap(), 0);
}

#[tokio::test]
async fn missed_firings_are_made_up_for_by_all_up_to_a_bound() {
    let mut desk = Desk::shared("cron-all").await;
    desk.put(&daily(Missed::All, Overlap::Allow)).await;
    let first = desk.overdue(130).await;
    let both = tokio::join!(fire_due(&desk.queue), fire_due(&desk.queue));
    assert_eq!(both.0.unwrap() + both.1.unwrap(), 100);
    let want: Vec<String> = (30..130)
        .map(|day| job_due(&name(), UnixMillis(first.0 + day * DAY)).to_string())
        .collect();
    assert_eq!(desk.submitted().await, want);
    let schedule = desk.schedule().await;
    assert_eq!((schedule.fired, schedule.left_out), (100, 30));
}

#[tokio::test]
async fn overlapping_can_be_skipped() {
    let desk = Desk::shared("cron-overlap").await;
    desk.put(&daily(Missed::Skip, Overlap::Skip)).await;
    let first = job_due(&name(), desk.overdue(2).await);
    // Only the latest of the two is fired; the next firing is tomorrow's.
    assert_eq!(fire_due(&desk.queue).await.unwrap(), 1);
    desk.admit().await;
    let lease = desk.bound(&worker("one")).await.lease;
    assert_ne!(lease.id, first);
    let now = desk.queue.run_schedule(&name()).await.unwrap().unwrap();
    desk.admit().await;
    let refused = desk.result(&now).await;
    assert_eq!(refused.outcome, Outcome::Rejected);
    assert_eq!(refused.error.unwrap().code, "duplicate");
    let _settled = desk.queue.finish(&lease, success(&lease.id)).await.unwrap();
    let now = desk.queue.run_schedule(&name()).await.unwrap().unwrap();
    desk.admit().await;
    assert_eq!(desk.bound(&worker("one")).await.lease.id, now);
}

#[tokio::test]
async fn paused_schedules_do_not_fire_and_resumed_ones_make_up_for_nothing() {
    let mut desk = Desk::shared("cron-pause").await;
    desk.put(&daily(Missed::All, Overlap::Allow)).await;
    desk.overdue(3).await;
    let name = name();
    let pause = || desk.queue.pause_schedule(&name);
    assert_eq!(pause().await.unwrap(), ChangeReply::Done);
    assert_eq!(
        pause().await.unwrap(),
        ChangeReply::Done,
        "pausing twice succeeds"
    );
    assert_eq!(fire_due(&desk.queue).await.unwrap(), 0);
    let paused = desk.schedule().await;
    assert_eq!((paused.state, paused.next), (ScheduleState::Paused, None));
    let listed = desk.queue.schedules().await.unwrap();
    assert_eq!(
        listed,
        std::slice::from_ref(&paused),
        "a paused schedule is still listed"
    );

    let ran = desk.queue.run_schedule(&name).await.unwrap().unwrap();
    assert_eq!(
        desk.submitted().await,
        [ran.as_str()],
        "a paused schedule can be run by hand"
    );

    let next = UnixMillis(desk.queue.now().await.unwrap().0 + DAY);
    let old = ScheduleRecord {
        revision: "another".to_owned(),
        ..paused.clone()
    };
    let stale = desk.queue.resume_schedule(&old, next).await.unwrap();
    assert_eq!(stale, ChangeReply::Stale);
    let resumed = desk.queue.resume_schedule(&paused, next).await.unwrap();
    assert_eq!(resumed, ChangeReply::Done);
    assert_eq!(desk.schedule().await.next, Some(next));
    assert_eq!(fire_due(&desk.queue).await.unwrap(), 0);
}

#[tokio::test]
async fn a_schedule_takes_anothers_place_only_when_told_to() {
    let desk = Desk::shared("cron-replace").await;
    let first = daily(Missed::Skip, Overlap::Allow);
    desk.put(&first).await;
    let next = UnixMillis(DAY);
    let queue = &desk.queue;
    let put = queue.put_schedule(&first, next, false).await.unwrap();
    assert_eq!(put, PutReply::Exists);
    let before = desk.schedule().await;
    let second = daily(Missed::All, Overlap::Skip);
    let put = queue.put_schedule(&second, next, true).await.unwrap();
    assert_eq!(put, PutReply::Replaced);
    let after = desk.schedule().await;
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
    let desk = Desk::shared("cron-remove").await;
    desk.put(&daily(Missed::Skip, Overlap::Allow)).await;
    desk.overdue(1).await;
    let name = name();
    let remove = || desk.queue.remove_schedule(&name);
    assert_eq!(remove().await.unwrap(), ChangeReply::Done);
    assert_eq!(remove().await.unwrap(), ChangeReply::Unknown);
    assert_eq!(fire_due(&desk.queue).await.unwrap(), 0);
    assert_eq!(desk.queue.schedule(&name).await.unwrap(), None);
    assert_eq!(desk.queue.run_schedule(&name).await.unwrap(), None);
    assert_eq!(desk.keys().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_schedule_that_this_version_cannot_read_is_left_to_others() {
    let mut desk = Desk::shared("cron-unreadable").await;
    desk.put(&daily(Missed::Skip, Overlap::Allow)).await;
    let due = desk.overdue(1).await;
    let record = desk.queue.keys().schedule(&name());
    let _set: i64 = desk.plain(&["HSET", &record, "cron", "at dawn"]).await;
    assert_eq!(fire_due(&desk.queue).await.unwrap(), 0);
    let found = desk.queue.due_schedules().await.unwrap();
    assert_eq!(
        found.schedules,
        [],
        "the schedule is not checked again at once"
    );
    assert_eq!(
        desk.schedule().await.next,
        Some(due),
        "the schedule is not forgotten"
    );
    assert_eq!(desk.submitted().await, Vec::<String>::new());
}

#[tokio::test]
async fn schedules_survive_a_restart_of_redis() {
    let mut redis = PrivateRedis::start(&[]);
    let mut desk = Desk::on(&redis, "cron-restart").await;
    for number in 0..70 {
        let timetable = Timetable::parse("0 0 * * *", "UTC").unwrap();
        let schedule = Schedule::new(
            format!("n{number}").parse().unwrap(),
            timetable,
            Missed::Skip,
            Overlap::Allow,
            Routing::default(),
            payload(),
        )
        .unwrap();
        // All are overdue at once, and there are more of them than one call takes.
        let put = desk
            .queue
            .put_schedule(&schedule, UnixMillis(60_000 * (number + 1)), false);
        assert_eq!(put.await.unwrap(), PutReply::Added);
    }
    redis.kill();
    redis.start_again();
    assert_eq!(fire_due(&desk.queue).await.unwrap(), 70);
    desk.space.reconnect();
    let ids: BTreeSet<String> = desk.submitted().await.into_iter().collect();
    assert_eq!(ids.len(), 70);
    assert_eq!(fire_due(&desk.queue).await.unwrap(), 0);
    let records = desk.queue.schedules().await.unwrap();
    assert!(records.iter().all(|r| r.fired == 1 && r.left_out == 999));
}

#[tokio::test]
async fn a_schedule_without_a_further_time_is_over() {
    let desk = Desk::shared("cron-over").await;
    desk.put(&daily(Missed::Skip, Overlap::Allow)).await;
    desk.overdue(1).await;
    let found = desk.queue.due_schedules().await.unwrap();
    let firing = Firing {
        schedule: &found.schedules[0],
        at: found.schedules[0].due,
        next: None,
        left_out: 0,
    };
    assert_eq!(
        desk.queue.fire_schedule(&firing).await.unwrap(),
        FireReply::Fired
    );
    let record = desk.schedule().await;
    assert_eq!((record.state, record.next), (ScheduleState::Over, None));
    let postponed = desk
        .queue
        .postpone_schedule(firing.schedule, Millis(1))
        .await;
    assert_eq!(postponed.unwrap(), ChangeReply::Done);
    assert_eq!(fire_due(&desk.queue).await.unwrap(), 0);
}

#[tokio::test]
async fn only_a_schedule_may_use_its_ids_and_its_unique_key() {
    let mut desk = Desk::shared("cron-forged").await;
    desk.put(&daily(Missed::Skip, Overlap::Skip)).await;
    let due = desk.overdue(1).await;
    let id = job_due(&name(), due);
    let job = payload();
    let job = job.as_slice();

    // Three ways to forge a firing before the schedule does: as the job, as its cancel, and as the
    // holder of its unique key.
    let entries: [Case<'_>; 5] = [
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
        let entry = desk.space.add(&fields);
        let want = match case {
            "the key of another" => "mine".parse().unwrap(),
            _ => entry,
        };
        let replies = desk.admit().await;
        assert_eq!(replies, [AdmitReply::Rejected(want.clone())], "case {case}");
        let error = desk.result(&want).await.error.unwrap();
        let code = if case.ends_with("malformed") {
            "bad_payload"
        } else {
            "bad_id"
        };
        assert_eq!(error.code, code, "case {case}: {}", error.message);
        assert_eq!(desk.queue.job(&id).await.unwrap(), None, "case {case}");
    }
    desk.space
        .add(&[("op", b"cancel"), ("id", id.as_str().as_bytes())]);
    assert_eq!(desk.admit().await, []);

    assert_eq!(fire_due(&desk.queue).await.unwrap(), 1);
    assert_eq!(desk.admit().await, [AdmitReply::Admitted(id.clone())]);
    let record = desk.record(&id).await;
    assert_eq!(record.tenant.as_str(), "acme");
    let keys = desk.keys().await;
    assert!(!keys.contains(&"firings".to_owned()), "{keys:?}");

    // The id is known by now, but it still belongs to the schedule: the entry is rejected and not
    // counted as a duplicate.
    let entry = desk
        .space
        .add(&[("job", job), ("id", id.as_str().as_bytes())]);
    assert_eq!(desk.admit().await, [AdmitReply::Rejected(entry)]);
    assert_eq!(desk.counter("duplicates").await, 0);
    // A waiting job of a schedule is cancelled by its id, like any other.
    assert_eq!(
        desk.queue.cancel_now(&id).await.unwrap(),
        CancelReply::Cancelled
    );
}

#[tokio::test]
async fn a_firing_that_is_asked_for_is_a_schedules_own() {
    let desk = Desk::shared("cron-now").await;
    desk.put(&daily(Missed::Skip, Overlap::Allow)).await;
    let id = desk.queue.run_schedule(&name()).await.unwrap().unwrap();
    assert_eq!(desk.admit().await, [AdmitReply::Admitted(id)]);
}
