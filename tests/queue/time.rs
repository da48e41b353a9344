//! Delays and times to live, by the clock of Redis.

use sandhog_core::outcome::Outcome;
use sandhog_core::submission::{Routing, Start};
use sandhog_core::units::{Millis, UnixMillis};
use sandhog_queue::{Binding, JobState, Settlement};
use sandhog_testkit::eventually::eventually_async;

use crate::fixture::{LEASE, QueueFixture, WAIT_TIMEOUT, worker};

impl QueueFixture {
    /// Waits until the clock of Redis is past `at`.
    async fn wait_until(&self, at: UnixMillis) {
        eventually_async(WAIT_TIMEOUT, async || {
            let (seconds, micros): (u64, u64) = self.plain(&["TIME"]).await;
            if seconds * 1000 + micros / 1000 > at.0 {
                return Ok(());
            }
            Err("the clock of Redis does not advance".to_owned())
        })
        .await;
    }
}

fn in_an_hour() -> Start {
    Start::After(Millis(3_600_000))
}

#[tokio::test]
async fn a_delayed_job_waits_for_its_time() {
    let fixture = QueueFixture::shared("delay").await;
    let one = worker("one");
    let long = Routing {
        start: in_an_hour(),
        ..Routing::default()
    };
    let id = fixture.ready(&long).await;
    let record = fixture.record(&id).await;
    assert_eq!(record.state, JobState::Delayed);
    assert_eq!(
        record.run_at,
        Some(UnixMillis(record.submitted_at.0 + 3_600_000))
    );
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .promoted,
        0
    );
    assert_eq!(fixture.claim(&one).await, None);

    let short = Routing {
        start: Start::After(Millis(20)),
        ..Routing::default()
    };
    let soon = fixture.ready(&short).await;
    // On a slow machine the job may be due already.
    if let Some(at) = fixture.record(&soon).await.run_at {
        fixture.wait_until(at).await;
        assert_eq!(
            fixture
                .queue
                .maintain_fully(LEASE, 3)
                .await
                .unwrap()
                .promoted,
            1
        );
    }
    let job = fixture.bound(&one).await;
    assert_eq!(job.lease.id, soon);
    assert_eq!(fixture.record(&soon).await.run_at, None);
    assert_eq!(fixture.state(&id).await, JobState::Delayed);
}

#[tokio::test]
async fn a_time_that_has_passed_is_now() {
    let fixture = QueueFixture::shared("past").await;
    let routing = Routing {
        start: Start::At(UnixMillis(1)),
        ..Routing::default()
    };
    let id = fixture.ready(&routing).await;
    assert_eq!(fixture.bound(&worker("one")).await.lease.id, id);
}

#[tokio::test]
async fn more_than_one_call_can_take_are_promoted_in_one_round() {
    let fixture = QueueFixture::shared("promote-many").await;
    let routing = Routing {
        start: in_an_hour(),
        ..Routing::default()
    };
    let jobs = vec![(routing, crate::fixture::payload()); 150];
    fixture.queue.submit_many(&jobs).await.unwrap();
    fixture.admit().await;
    let delayed: Vec<String> = fixture
        .plain(&["ZRANGE", &fixture.queue.keys().delayed(), "0", "-1"])
        .await;
    assert_eq!(delayed.len(), 150);
    for id in &delayed {
        let _moved: i64 = fixture
            .plain(&["ZADD", &fixture.queue.keys().delayed(), "1", id])
            .await;
    }
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .promoted,
        150
    );
    let depth = &fixture.queue.snapshot().await.unwrap().classes[0];
    assert_eq!(depth.ready, 150);
}

#[tokio::test]
async fn a_job_that_did_not_start_in_time_expires() {
    let fixture = QueueFixture::shared("ttl").await;
    let one = worker("one");
    for (case, start) in [("queued", Start::Now), ("delayed", in_an_hour())] {
        let routing = Routing {
            ttl: Some(Millis(1)),
            start,
            ..Routing::default()
        };
        let id = fixture.ready(&routing).await;
        fixture
            .wait_until(fixture.record(&id).await.expires_at.unwrap())
            .await;
        assert_eq!(
            fixture
                .queue
                .maintain_fully(LEASE, 3)
                .await
                .unwrap()
                .expired,
            1,
            "case {case}"
        );
        assert_eq!(
            fixture.result(&id).await.outcome,
            Outcome::Expired,
            "case {case}"
        );
        assert_eq!(fixture.state(&id).await, JobState::Finished, "case {case}");
        assert_eq!(fixture.claim(&one).await, None, "case {case}");
    }
}

#[tokio::test]
async fn binding_skips_what_has_expired() {
    let fixture = QueueFixture::shared("ttl-bind").await;
    let one = worker("one");
    let routing = Routing {
        ttl: Some(Millis(1)),
        ..Routing::default()
    };
    let expiring = vec![(routing, crate::fixture::payload()); 70];
    let expired = fixture.queue.submit_many(&expiring).await.unwrap();
    fixture.admit().await;
    let last = expired.last().unwrap();
    fixture
        .wait_until(fixture.record(last).await.expires_at.unwrap())
        .await;
    let id = fixture.ready(&Routing::default()).await;
    let ticket = fixture.ticket(&one).await.unwrap();
    let Binding::Bound(job) = fixture.queue.bind(&ticket, &one).await.unwrap() else {
        panic!("the job behind the expired ones is bound, by the first ticket");
    };
    assert_eq!(job.lease.id, id);
    for id in &expired {
        assert_eq!(fixture.result(id).await.outcome, Outcome::Expired);
    }
}

#[tokio::test]
async fn a_job_that_has_started_no_longer_expires() {
    let fixture = QueueFixture::shared("ttl-started").await;
    let one = worker("one");
    let routing = Routing {
        ttl: Some(Millis(86_400_000)),
        ..Routing::default()
    };
    let id = fixture.ready(&routing).await;
    let lease = fixture.bound(&one).await.lease;
    let key = fixture.queue.keys().job(&id);
    let _changed: i64 = fixture.plain(&["HSET", &key, "expires_at", "1"]).await;
    let expires = format!("{}expires", fixture.queue.keys().prefix());
    let moved: i64 = fixture
        .plain(&["ZADD", &expires, "XX", "CH", "1", id.as_str()])
        .await;
    assert_eq!(moved, 0, "nothing is left to expire");
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .expired,
        0
    );
    fixture.age(&lease).await;
    assert_eq!(
        fixture.queue.maintain_fully(LEASE, 3).await.unwrap().reaped,
        1
    );
    assert_eq!(
        fixture.bound(&one).await.lease.id,
        id,
        "a retried job does not expire"
    );
}

#[tokio::test]
async fn a_job_given_back_by_its_first_worker_still_expires() {
    let fixture = QueueFixture::shared("ttl-given-back").await;
    let one = worker("one");
    let expires = format!("{}expires", fixture.queue.keys().prefix());
    let routing = Routing {
        ttl: Some(Millis(86_400_000)),
        ..Routing::default()
    };
    let id = fixture.ready(&routing).await;
    let at = fixture.record(&id).await.expires_at.unwrap();
    let lease = fixture.bound(&one).await.lease;
    let _settled = fixture
        .queue
        .finish(&lease, Settlement::GiveBack)
        .await
        .unwrap();
    let due: Option<u64> = fixture.plain(&["ZSCORE", &expires, id.as_str()]).await;
    assert_eq!(due, Some(at.0), "the job has not started");

    let lost = fixture.bound(&one).await.lease;
    fixture.age(&lost).await;
    assert_eq!(
        fixture.queue.maintain_fully(LEASE, 3).await.unwrap().reaped,
        1
    );
    let lease = fixture.bound(&one).await.lease;
    let _settled = fixture
        .queue
        .finish(&lease, Settlement::GiveBack)
        .await
        .unwrap();
    let due: Option<u64> = fixture.plain(&["ZSCORE", &expires, id.as_str()]).await;
    assert_eq!(due, None, "the job had started");

    let id = fixture.ready(&routing).await;
    let _again = fixture.bound(&one).await;
    let lease = fixture.bound(&one).await.lease;
    assert_eq!(lease.id, id);
    let _settled = fixture
        .queue
        .finish(&lease, Settlement::GiveBack)
        .await
        .unwrap();
    let _passed: i64 = fixture
        .plain(&["ZADD", &expires, "XX", "1", id.as_str()])
        .await;
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .expired,
        1
    );
    assert_eq!(fixture.result(&id).await.outcome, Outcome::Expired);
}

#[tokio::test]
async fn how_long_a_job_was_ready_is_told_by_redis() {
    let fixture = QueueFixture::shared("waited").await;
    let first = fixture.ready(&Routing::default()).await;
    let second = fixture.ready(&Routing::default()).await;
    let before = fixture.queue.snapshot().await.unwrap();
    assert!(before.classes[0].oldest.is_some());
    let hours_ago = fixture.record(&first).await.submitted_at.0 - 7_200_000;
    let record = fixture.queue.keys().job(&first);
    let _set: i64 = fixture
        .plain(&["HSET", &record, "ready_at", &hours_ago.to_string()])
        .await;
    let snapshot = fixture.queue.snapshot().await.unwrap();
    let oldest = snapshot.classes[0].oldest.unwrap();
    assert!((7_200_000..10_800_000).contains(&oldest.0), "{oldest}");
    let one = worker("one");
    let job = fixture.bound(&one).await;
    assert_eq!(job.lease.id, first);
    assert!((7_200_000..10_800_000).contains(&job.waited.0));
    let _returned = fixture
        .queue
        .finish(&job.lease, Settlement::GiveBack)
        .await
        .unwrap();
    let again = fixture.bound(&one).await;
    assert_eq!(again.lease.id, first);
    assert!(again.waited < Millis(3_600_000), "a new wait begins");
    assert_eq!(fixture.bound(&one).await.lease.id, second);
    let after = fixture.queue.snapshot().await.unwrap();
    assert_eq!(after.classes[0].oldest, None);
}
