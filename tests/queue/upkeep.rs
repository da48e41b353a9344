//! Maintenance of a namespace: one round in each period for all its workers, and bounds on the
//! things that it must check.

use std::time::Duration;

use sandhog_common::class::Class;
use sandhog_common::id::JobId;
use sandhog_common::outcome::Outcome;
use sandhog_common::queue::{JobState, UpkeepDuty, UpkeepRequest};
use sandhog_common::submission::{Routing, Start};
use sandhog_common::units::Millis;
use sandhog_tests::noop::{NoopSpec, NoopWorker};
use sandhog_tests::private_redis::PrivateRedis;

use crate::desk::{Desk, LEASE, PATIENCE, facts, worker};

/// A period that outlives every test.
const PERIOD: Millis = Millis(600_000);

impl Desk {
    async fn duty(&self, who: &str, request: UpkeepRequest) -> UpkeepDuty {
        let duty = self
            .queue
            .upkeep_duty(&worker(who), PERIOD, LEASE, request)
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
    let desk = Desk::shared("duty").await;
    let first = desk.duty("a", UpkeepRequest::Take).await;
    assert!(first.is_due && first.is_on_crew && first.looks && first.sweeps);
    for (who, is_on_crew) in [("b", true), ("c", true), ("d", false), ("a", true)] {
        let duty = desk.duty(who, UpkeepRequest::Take).await;
        assert_eq!((duty.is_due, duty.is_on_crew), (false, is_on_crew), "{who}");
    }
    desk.period_passes().await;
    let outside = desk.duty("d", UpkeepRequest::Take).await;
    assert!(!outside.is_due, "only the crew takes rounds");
    let next = desk.duty("c", UpkeepRequest::Take).await;
    assert!(next.is_due && !next.looks && !next.sweeps, "{next:?}");
    assert!(!desk.duty("b", UpkeepRequest::Take).await.is_due);
    let early = desk.duty("b", UpkeepRequest::Now).await;
    assert!(early.is_due, "the tenant's rate allows a job by now");
}

#[tokio::test]
async fn a_member_that_is_silent_or_leaves_is_followed_by_another() {
    let desk = Desk::shared("duty-dead").await;
    for who in ["a", "b", "c", "d"] {
        desk.duty(who, UpkeepRequest::Take).await;
    }
    // The trace of a worker that was killed: its last request is old.
    let crew = format!("{}crew", desk.queue.keys().prefix());
    let _aged: i64 = desk.plain(&["ZADD", &crew, "XX", "1", "a"]).await;
    desk.period_passes().await;
    let next = desk.duty("d", UpkeepRequest::Take).await;
    assert!(next.is_due && next.is_on_crew, "{next:?}");

    desk.period_passes().await;
    let left = desk.duty("b", UpkeepRequest::Leave).await;
    assert!(!left.is_due && !left.is_on_crew, "{left:?}");
    desk.queue.retire(&worker("c")).await.unwrap();
    desk.queue.retire(&worker("d")).await.unwrap();
    let last = desk.duty("b", UpkeepRequest::Leave).await;
    assert!(
        last.is_due && !last.is_on_crew,
        "no other worker is left: {last:?}"
    );
}

#[tokio::test]
async fn another_worker_goes_on_when_the_one_that_did_the_upkeep_is_killed() {
    let redis = PrivateRedis::start(&[]);
    let desk = Desk::on(&redis, "duty-killed").await;
    let logs = tempfile::tempdir().unwrap();
    let spec = NoopSpec {
        program: env!("CARGO_BIN_EXE_sandhog-noop-worker").into(),
        url: redis.url(),
        namespace: desk.space.namespace().to_string(),
        slots: 1,
        lease: Duration::from_secs(15),
        most_sleep: Duration::ZERO,
    };
    let mut workers: Vec<NoopWorker> = (0..4)
        .map(|n| spec.start(&format!("w{n}"), &logs.path().join(format!("w{n}"))))
        .collect();
    let turn = format!("{}upkeep:turn", desk.queue.keys().prefix());
    for left in (1..4).rev() {
        let holder = loop {
            let holder: Option<String> = desk.plain(&["GET", &turn]).await;
            match holder.filter(|holder| workers.iter().any(|one| one.id() == holder)) {
                Some(holder) => break holder,
                None => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let at = workers.iter().position(|one| one.id() == holder).unwrap();
        workers.remove(at).kill9();
        // Only a round of maintenance promotes a job when its time comes.
        let later = Routing {
            start: Start::After(Millis(50)),
            ..Routing::default()
        };
        let id = desk.submit(&later).await;
        let mut waiter = desk.queue.result_waiter().await.unwrap();
        let result = waiter.wait(&id, PATIENCE).await.unwrap();
        assert!(result.is_some(), "{left} workers are left");
    }
}

#[tokio::test]
async fn one_tenant_leaves_classes_to_the_others() {
    let desk = Desk::shared("class-share").await;
    let mut ids = Vec::new();
    for n in 0..251 {
        ids.push(desk.submit_class(&format!("zz{n}"), "greedy").await);
    }
    let other = desk.submit_class("yy0", "modest").await;
    let known = desk.submit_class("zz0", "modest").await;
    desk.admit().await;
    let refused = desk.result(ids.last().unwrap()).await.error.unwrap();
    assert_eq!(refused.code, "too_many_classes");
    assert!(
        refused.message.contains("\"greedy\""),
        "{}",
        refused.message
    );
    for id in [&ids[249], &other, &known] {
        assert_eq!(desk.state(id).await, JobState::Queued, "{id}");
    }

    // A class that was forgotten counts no more, even if no worker ever read its tickets.
    for id in &ids[..250] {
        desk.queue.cancel_now(id).await.unwrap();
    }
    let tickets = desk.queue.keys().tickets(&"zz7".parse::<Class>().unwrap());
    let _deleted: i64 = desk.plain(&["DEL", &tickets]).await;
    let _old: String = desk.plain(&["XADD", &tickets, "1-1", "t", "1"]).await;
    assert_eq!(
        desk.queue.tick(LEASE, 3).await.unwrap().classes_forgotten,
        1
    );
    let again = desk.submit_class("zz999", "greedy").await;
    desk.admit().await;
    assert_eq!(desk.state(&again).await, JobState::Queued);
}

#[tokio::test]
async fn work_that_no_worker_serves_for_a_week_expires() {
    let desk = Desk::shared("unroutable-life").await;
    desk.queue
        .announce(&facts("one", &["cpu"]), LEASE)
        .await
        .unwrap();
    let mut ids = Vec::new();
    for n in 0..70 {
        ids.push(desk.submit_class("gpu", &format!("t{}", n % 3)).await);
    }
    let served = desk.submit_class("cpu", "t0").await;
    desk.admit().await;
    let gpu: Class = "gpu".parse().unwrap();
    let found = desk.queue.mark_unroutable(&[&gpu]).await.unwrap();
    assert_eq!(found[0].jobs, 70);
    assert_eq!(desk.state(&ids[0]).await, JobState::Queued);

    let spells = format!("{}unroutable", desk.queue.keys().prefix());
    let week_ago = found[0].since.unwrap().0 - 7 * 86_400_000 - 1;
    let _set: i64 = desk
        .plain(&["HSET", &spells, "gpu", &week_ago.to_string()])
        .await;
    while !desk
        .queue
        .mark_unroutable(&[&gpu])
        .await
        .unwrap()
        .is_empty()
    {}
    for id in &ids {
        let result = desk.result(id).await;
        assert_eq!(result.outcome, Outcome::Expired, "{id}");
        let error = result.error.unwrap();
        assert_eq!(error.code, "unroutable");
        assert_eq!(
            error.message,
            "no live worker served class \"gpu\" for 168 hours"
        );
    }
    assert_eq!(desk.state(&served).await, JobState::Queued);
    assert_eq!(desk.counter("finished_expired").await, 70);
}
