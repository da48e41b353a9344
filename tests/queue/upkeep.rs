//! Maintenance of a namespace: one round in each period for all its workers, and bounds on the
//! things that it must check.

use sandhog_testkit::eventually::eventually_async;
use std::time::Duration;

use sandhog_core::class::Class;
use sandhog_core::id::JobId;
use sandhog_core::outcome::Outcome;
use sandhog_core::submission::{Routing, Start};
use sandhog_core::units::Millis;
use sandhog_queue::{JobState, MaintenanceDuty, MaintenanceRequest};
use sandhog_testkit::noop::NoopSpec;
use sandhog_testkit::private_redis::PrivateRedis;
use sandhog_testkit::worker_child::WorkerChild;

use crate::fixture::{LEASE, QueueFixture, WAIT_TIMEOUT, facts, worker};

/// A period that outlives every test.
const PERIOD: Millis = Millis(600_000);

impl QueueFixture {
    async fn duty(&self, who: &str, request: MaintenanceRequest) -> MaintenanceDuty {
        let duty = self
            .queue
            .maintenance_duty(&worker(who), PERIOD, LEASE, request)
            .await;
        duty.unwrap()
    }

    /// Makes the last round look as if it had been a period ago.
    async fn period_passes(&self) {
        let turn = format!("{}upkeep:turn", self.queue.keys().prefix());
        let _gone: i64 = self.plain(&["DEL", &turn]).await;
    }

    async fn submit_class(&self, class: &str, tenant: &str) -> JobId {
        let routing = Routing {
            class: class.parse().unwrap(),
            tenant: tenant.parse().unwrap(),
            ..Routing::default()
        };
        self.submit(&routing).await
    }
}

#[tokio::test]
async fn a_crew_of_three_shares_one_round_in_a_period() {
    let fixture = QueueFixture::shared("duty").await;
    let first = fixture.duty("a", MaintenanceRequest::Take).await;
    assert!(first.is_due && first.is_candidate && first.checks_unroutable && first.sweeps);
    for (who, is_candidate) in [("b", true), ("c", true), ("d", false), ("a", true)] {
        let duty = fixture.duty(who, MaintenanceRequest::Take).await;
        assert_eq!(
            (duty.is_due, duty.is_candidate),
            (false, is_candidate),
            "{who}"
        );
    }
    fixture.period_passes().await;
    let outside = fixture.duty("d", MaintenanceRequest::Take).await;
    assert!(!outside.is_due, "only the crew takes rounds");
    let next = fixture.duty("c", MaintenanceRequest::Take).await;
    assert!(
        next.is_due && !next.checks_unroutable && !next.sweeps,
        "{next:?}"
    );
    assert!(!fixture.duty("b", MaintenanceRequest::Take).await.is_due);
    let early = fixture.duty("b", MaintenanceRequest::Now).await;
    assert!(early.is_due, "the tenant's rate allows a job by now");
}

#[tokio::test]
async fn a_member_that_is_silent_or_leaves_is_followed_by_another() {
    let fixture = QueueFixture::shared("duty-dead").await;
    for who in ["a", "b", "c", "d"] {
        fixture.duty(who, MaintenanceRequest::Take).await;
    }
    // The trace of a worker that was killed: its last request is old.
    let crew = format!("{}crew", fixture.queue.keys().prefix());
    let _aged: i64 = fixture.plain(&["ZADD", &crew, "XX", "1", "a"]).await;
    fixture.period_passes().await;
    let next = fixture.duty("d", MaintenanceRequest::Take).await;
    assert!(next.is_due && next.is_candidate, "{next:?}");

    fixture.period_passes().await;
    let left = fixture.duty("b", MaintenanceRequest::Leave).await;
    assert!(!left.is_due && !left.is_candidate, "{left:?}");
    fixture.queue.retire(&worker("c")).await.unwrap();
    fixture.queue.retire(&worker("d")).await.unwrap();
    let last = fixture.duty("b", MaintenanceRequest::Leave).await;
    assert!(
        last.is_due && !last.is_candidate,
        "no other worker is left: {last:?}"
    );
}

#[tokio::test]
async fn another_worker_goes_on_when_the_one_that_did_the_upkeep_is_killed() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "duty-killed").await;
    let logs = tempfile::tempdir().unwrap();
    let spec = NoopSpec {
        program: env!("CARGO_BIN_EXE_sandhog-noop-worker").into(),
        url: redis.url(),
        namespace: fixture.space.namespace().to_string(),
        slots: 1,
        lease: Duration::from_secs(15),
        most_sleep: Duration::ZERO,
    };
    let mut workers: Vec<WorkerChild> = (0..4)
        .map(|n| spec.start(&format!("w{n}"), &logs.path().join(format!("w{n}"))))
        .collect();
    let turn = format!("{}upkeep:turn", fixture.queue.keys().prefix());
    for left in (1..4).rev() {
        let holder = eventually_async(WAIT_TIMEOUT, async || {
            let holder: Option<String> = fixture.plain(&["GET", &turn]).await;
            holder
                .filter(|holder| workers.iter().any(|one| one.id() == holder))
                .ok_or_else(|| "no live worker runs the maintenance".to_owned())
        })
        .await;
        let at = workers.iter().position(|one| one.id() == holder).unwrap();
        workers.remove(at).kill9();
        // Only a round of maintenance promotes a job when its time comes.
        let later = Routing {
            start: Start::After(Millis(50)),
            ..Routing::default()
        };
        let id = fixture.submit(&later).await;
        let mut waiter = fixture.queue.result_waiter().await.unwrap();
        let result = waiter.wait(&id, WAIT_TIMEOUT).await.unwrap();
        assert!(result.is_some(), "{left} workers are left");
    }
}

#[tokio::test]
async fn one_tenant_leaves_classes_to_the_others() {
    let fixture = QueueFixture::shared("class-share").await;
    let mut ids = Vec::new();
    for n in 0..251 {
        ids.push(fixture.submit_class(&format!("zz{n}"), "greedy").await);
    }
    let other = fixture.submit_class("yy0", "modest").await;
    let known = fixture.submit_class("zz0", "modest").await;
    fixture.admit().await;
    let refused = fixture.result(ids.last().unwrap()).await.error.unwrap();
    assert_eq!(refused.code, "too_many_classes");
    assert!(
        refused.message.contains("\"greedy\""),
        "{}",
        refused.message
    );
    for id in [&ids[249], &other, &known] {
        assert_eq!(fixture.state(id).await, JobState::Queued, "{id}");
    }

    // A class that was forgotten counts no more, even if no worker ever read its tickets.
    for id in &ids[..250] {
        fixture.queue.cancel_now(id).await.unwrap();
    }
    let tickets = fixture
        .queue
        .keys()
        .tickets(&"zz7".parse::<Class>().unwrap());
    let _deleted: i64 = fixture.plain(&["DEL", &tickets]).await;
    let _old: String = fixture.plain(&["XADD", &tickets, "1-1", "t", "1"]).await;
    assert_eq!(
        fixture
            .queue
            .maintain_fully(LEASE, 3)
            .await
            .unwrap()
            .classes_forgotten,
        1
    );
    let again = fixture.submit_class("zz999", "greedy").await;
    fixture.admit().await;
    assert_eq!(fixture.state(&again).await, JobState::Queued);
}

#[tokio::test]
async fn work_that_no_worker_serves_for_a_week_expires() {
    let fixture = QueueFixture::shared("unroutable-life").await;
    fixture
        .queue
        .announce(&facts("one", &["cpu"]), LEASE)
        .await
        .unwrap();
    let mut ids = Vec::new();
    for n in 0..70 {
        ids.push(fixture.submit_class("gpu", &format!("t{}", n % 3)).await);
    }
    let served = fixture.submit_class("cpu", "t0").await;
    fixture.admit().await;
    let gpu: Class = "gpu".parse().unwrap();
    let found = fixture.queue.mark_unroutable(&[&gpu]).await.unwrap();
    assert_eq!(found[0].jobs, 70);
    assert_eq!(fixture.state(&ids[0]).await, JobState::Queued);

    let spells = format!("{}unroutable", fixture.queue.keys().prefix());
    let week_ago = found[0].since.unwrap().0 - 7 * 86_400_000 - 1;
    let _set: i64 = fixture
        .plain(&["HSET", &spells, "gpu", &week_ago.to_string()])
        .await;
    while !fixture
        .queue
        .mark_unroutable(&[&gpu])
        .await
        .unwrap()
        .is_empty()
    {}
    for id in &ids {
        let result = fixture.result(id).await;
        assert_eq!(result.outcome, Outcome::Expired, "{id}");
        let error = result.error.unwrap();
        assert_eq!(error.code, "unroutable");
        assert_eq!(
            error.message,
            "no live worker served class \"gpu\" for 168 hours"
        );
    }
    assert_eq!(fixture.state(&served).await, JobState::Queued);
    assert_eq!(fixture.counter("finished_expired").await, 70);
}
