//! Tenants' limits and the pause of a queue: limits are never exceeded, lose no job, and delay no
//! other tenant.

use std::collections::BTreeMap;

use sandhog_core::class::Class;
use sandhog_core::id::Tenant;
use sandhog_core::outcome::Outcome;
use sandhog_core::submission::{Routing, Start};
use sandhog_core::tenant_limits::{Change, TenantChange};
use sandhog_core::units::Millis;
use sandhog_queue::{BoundJob, FinishReply, JobState, RetryBudget, Settlement};

use crate::fixture::{LEASE, QueueFixture, payload, success, worker};

fn tenant(name: &str) -> Tenant {
    name.parse().unwrap()
}

fn of(name: &str) -> Routing {
    Routing {
        tenant: tenant(name),
        ..Routing::default()
    }
}

fn capped(most: &str) -> TenantChange {
    TenantChange {
        max_running: most.parse().unwrap(),
        ..TenantChange::default()
    }
}

fn rated(rate: &str, burst: &str) -> TenantChange {
    TenantChange {
        rate: rate.parse().unwrap(),
        burst: burst.parse().unwrap(),
        ..TenantChange::default()
    }
}

fn paused(change: Change<()>) -> TenantChange {
    TenantChange {
        paused: change,
        ..TenantChange::default()
    }
}

impl QueueFixture {
    async fn set(&self, name: &str, change: TenantChange) {
        self.queue.set_tenant(&tenant(name), &change).await.unwrap();
    }

    /// Submits and admits `count` jobs of a tenant.
    async fn queue_up(&self, name: &str, count: usize) {
        let jobs = vec![(of(name), payload()); count];
        self.queue.submit_many(&jobs).await.unwrap();
        self.admit().await;
    }

    /// Claims until no job is ready.
    async fn claim_all(&self, who: &str) -> Vec<BoundJob> {
        let mut jobs = Vec::new();
        while let Some(job) = self.claim(&worker(who)).await {
            jobs.push(job);
        }
        jobs
    }

    async fn publish(&self, job: &BoundJob) {
        let reply = self.queue.finish(&job.lease, success(&job.lease.id)).await;
        assert_eq!(reply.unwrap(), FinishReply::Settled);
    }

    async fn tick(&self) -> sandhog_queue::MaintenanceReport {
        self.queue.maintain_fully(LEASE, 3).await.unwrap()
    }

    async fn held_back(&self) -> u64 {
        self.queue.snapshot().await.unwrap().classes[0].held_back
    }

    /// Runs all remaining jobs and counts them by tenant. Checks that no tenant ever runs more than
    /// its `most` at once.
    async fn run_dry(&self, most: &BTreeMap<&str, usize>) -> BTreeMap<String, usize> {
        let mut ended: BTreeMap<String, usize> = BTreeMap::new();
        loop {
            let jobs = self.claim_all("drain").await;
            if jobs.is_empty() && self.tick().await.released == 0 {
                return ended;
            }
            let mut now: BTreeMap<&str, usize> = BTreeMap::new();
            for job in &jobs {
                *now.entry(job.tenant.as_str()).or_default() += 1;
                *ended.entry(job.tenant.to_string()).or_default() += 1;
            }
            for (name, count) in now {
                let cap = most.get(name).copied().unwrap_or(usize::MAX);
                assert!(count <= cap, "{name} runs {count} of {cap}");
            }
            for job in &jobs {
                self.publish(job).await;
            }
        }
    }
}

#[tokio::test]
async fn a_cap_is_never_exceeded_and_everything_runs_in_the_end() {
    let fixture = QueueFixture::shared("cap").await;
    fixture.set("small", capped("2")).await;
    fixture.queue_up("small", 7).await;
    fixture.queue_up("free", 3).await;
    let first = fixture.claim_all("one").await;
    let small = |jobs: &[BoundJob]| jobs.iter().filter(|j| j.tenant.as_str() == "small").count();
    assert_eq!((small(&first), first.len()), (2, 5));
    assert_eq!(
        fixture.claim_all("two").await,
        [],
        "another worker gets no more"
    );
    assert_eq!(fixture.held_back().await, 5);
    assert_eq!(
        fixture.tick().await.released,
        0,
        "maintenance releases no more"
    );
    let record = fixture.queue.tenant(&tenant("small")).await.unwrap();
    assert_eq!((record.running, record.ready), (2, 5));

    for job in &first {
        fixture.publish(job).await;
    }
    // Each job of the tenant that ended makes room for another; that needs no maintenance.
    assert_eq!(small(&fixture.claim_all("one").await), 2);
    let caps = BTreeMap::from([("small", 2)]);
    let record = fixture.queue.tenant(&tenant("small")).await.unwrap();
    assert_eq!((record.running, record.ready), (2, 3));
    fixture.set("small", capped("none")).await;
    assert!(
        fixture.tick().await.released >= 1,
        "without the limit the rest starts"
    );
    let rest = fixture.run_dry(&BTreeMap::new()).await;
    assert_eq!(rest["small"], 3, "{caps:?}");
    assert_eq!(fixture.held_back().await, 0);
    assert_eq!(fixture.queue.tenants().await.unwrap(), []);
}

#[tokio::test]
async fn every_way_a_lease_ends_makes_room() {
    let fixture = QueueFixture::shared("cap-ends").await;
    fixture.set("small", capped("1")).await;
    fixture.queue_up("small", 6).await;
    let retry = |after| Settlement::Retry {
        after: Millis(after),
        why: "again".into(),
        counts_as: RetryBudget::Attempt,
    };
    let dead = Settlement::DeadLetter {
        result: payload(),
        outcome: Outcome::Lost,
        reason: "lost".into(),
        error: "no reason at all".into(),
    };
    let ends = [Settlement::GiveBack, retry(0), retry(3_600_000), dead];
    for settlement in ends {
        let mut jobs = fixture.claim_all("one").await;
        assert_eq!(jobs.len(), 1, "before {settlement:?}");
        let lease = jobs.remove(0).lease;
        let _settled = fixture.queue.finish(&lease, settlement).await.unwrap();
    }
    let lost = fixture.claim_all("one").await;
    fixture.age(&lost[0].lease).await;
    assert_eq!(fixture.tick().await.reaped, 1);
    let ended = fixture.run_dry(&BTreeMap::from([("small", 1)])).await;
    assert_eq!(
        ended["small"], 4,
        "all but the delayed job and the dead letter"
    );
    let running = fixture
        .queue
        .tenant(&tenant("small"))
        .await
        .unwrap()
        .running;
    assert_eq!(running, 0);
}

#[tokio::test]
async fn a_cancelled_backlog_leaves_no_debt() {
    let fixture = QueueFixture::shared("cap-cancel").await;
    fixture.set("small", capped("1")).await;
    let ids = fixture
        .queue
        .submit_many(&vec![(of("small"), payload()); 4])
        .await
        .unwrap();
    fixture.admit().await;
    let running = fixture.claim_all("one").await;
    assert_eq!(fixture.held_back().await, 3);
    for id in &ids[1..3] {
        fixture.queue.cancel_now(id).await.unwrap();
    }
    fixture.tick().await;
    assert_eq!(
        fixture.held_back().await,
        1,
        "cancelled jobs are no longer held back"
    );
    fixture.publish(&running[0]).await;
    assert_eq!(fixture.claim_all("one").await.len(), 1);
}

#[tokio::test]
async fn a_rate_allows_its_burst_and_then_one_an_interval_by_redis_clock() {
    let fixture = QueueFixture::shared("rate").await;
    // A rate of one job in a thousand seconds, with a burst of three.
    fixture.set("slow", rated("0.001", "3")).await;
    fixture.queue_up("slow", 6).await;
    fixture.queue_up("free", 2).await;
    assert_eq!(fixture.claim_all("one").await.len(), 5);
    let report = fixture.tick().await;
    assert_eq!(report.released, 0);
    let wait = report.next_start.expect("the next is a matter of time");
    assert!(
        (800_000..=1_000_000).contains(&wait.0),
        "a thousand seconds, less what has passed: {wait:?}"
    );
    // A thousand seconds pass, as far as the queue can tell.
    let key = format!("{}rate:slow", fixture.queue.keys().prefix());
    let arrival: f64 = fixture.plain(&["GET", &key]).await;
    let earlier = (arrival - 1_000_000.0).to_string();
    let _set: String = fixture.plain(&["SET", &key, &earlier]).await;
    assert_eq!(fixture.tick().await.released, 1);
    assert_eq!(fixture.claim_all("one").await.len(), 1);
    assert_eq!(fixture.claim_all("one").await.len(), 0);
    fixture.set("slow", rated("none", "none")).await;
    assert_eq!(fixture.run_dry(&BTreeMap::new()).await["slow"], 2);
}

#[tokio::test]
async fn a_rate_that_is_changed_counts_at_once() {
    let fixture = QueueFixture::shared("rate-change").await;
    fixture.set("slow", rated("0.001", "3")).await;
    fixture.queue_up("slow", 12).await;
    assert_eq!(fixture.claim_all("one").await.len(), 3);
    fixture.set("slow", rated("0.001", "3")).await;
    assert_eq!(
        fixture.tick().await.released,
        0,
        "setting the same rate changes nothing"
    );
    fixture.set("slow", rated("0.002", "3")).await;
    assert_eq!(fixture.tick().await.released, 3, "another rate");
    assert_eq!(fixture.claim_all("one").await.len(), 3);
    let wait = fixture.tick().await.next_start.expect("a matter of time");
    assert!(
        wait.0 <= 500_000,
        "at most the interval of the new rate: {wait:?}"
    );
    fixture.set("slow", rated("0.002", "4")).await;
    assert_eq!(fixture.claim_all("one").await.len(), 0);
    assert_eq!(fixture.tick().await.released, 4, "another burst");
}

#[tokio::test]
async fn a_paused_tenant_waits_and_the_others_do_not() {
    let fixture = QueueFixture::shared("pause-tenant").await;
    fixture.set("quiet", paused(Change::Set(()))).await;
    fixture.queue_up("quiet", 3).await;
    fixture.queue_up("free", 3).await;
    let jobs = fixture.claim_all("one").await;
    assert!(jobs.iter().all(|job| job.tenant.as_str() == "free"));
    assert_eq!(jobs.len(), 3);
    for job in &jobs {
        fixture.publish(job).await;
    }
    assert_eq!(fixture.claim_all("one").await, []);
    assert!(
        fixture
            .queue
            .tenant(&tenant("quiet"))
            .await
            .unwrap()
            .settings
            .paused
    );
    fixture.set("quiet", paused(Change::Remove)).await;
    assert_eq!(fixture.tick().await.released, 3);
    assert_eq!(fixture.claim_all("one").await.len(), 3);
}

#[tokio::test]
async fn a_paused_queue_starts_nothing_and_has_nothing_to_read() {
    let fixture = QueueFixture::shared("pause-queue").await;
    fixture.queue_up("a", 2).await;
    let running = fixture.claim(&worker("one")).await.unwrap();
    fixture.queue.pause().await.unwrap();
    fixture.queue_up("b", 3).await;
    assert_eq!(fixture.claim_all("one").await, []);
    assert_eq!(fixture.tick().await.released, 0);
    let tickets = fixture.queue.keys().tickets(&Class::default());
    let left: u64 = fixture.plain(&["XLEN", &tickets]).await;
    assert_eq!(
        left, 1,
        "only the ticket of the running job, so no worker spins"
    );
    fixture.publish(&running).await;
    assert!(fixture.queue.snapshot().await.unwrap().paused);
    fixture.queue.resume().await.unwrap();
    assert_eq!(fixture.tick().await.released, 4);
    assert_eq!(fixture.claim_all("two").await.len(), 4);
    assert!(!fixture.queue.snapshot().await.unwrap().paused);
}

#[tokio::test]
async fn one_round_lets_all_start_that_a_pause_held_back() {
    let fixture = QueueFixture::shared("pause-many").await;
    fixture.queue.pause().await.unwrap();
    fixture.queue_up("a", 200).await;
    assert_eq!(fixture.claim_all("one").await, []);
    assert_eq!(fixture.held_back().await, 200);
    fixture.queue.resume().await.unwrap();
    assert_eq!(
        fixture.tick().await.released,
        200,
        "regardless of the number that one call releases"
    );
    assert_eq!(fixture.claim_all("one").await.len(), 200);
    assert_eq!(fixture.held_back().await, 0);
}

#[tokio::test]
async fn beyond_the_high_water_mark_jobs_are_refused_readably() {
    let fixture = QueueFixture::shared("high-water").await;
    let change = TenantChange {
        max_queued: "3".parse().unwrap(),
        ..TenantChange::default()
    };
    fixture.set("small", change).await;
    let ids = fixture
        .queue
        .submit_many(&vec![(of("small"), payload()); 5])
        .await
        .unwrap();
    fixture.queue_up("free", 5).await;
    for (n, id) in ids.iter().enumerate() {
        let record = fixture.record(id).await;
        if n < 3 {
            assert_eq!(record.state, JobState::Queued);
        } else {
            assert_eq!(record.state, JobState::Finished, "and no dead letter");
            let result = fixture.result(id).await;
            assert_eq!(result.outcome, Outcome::Rejected);
            let error = result.error.unwrap();
            assert_eq!(error.code, "backlog_full");
            assert!(error.message.contains("small"), "{error:?}");
        }
    }
    assert_eq!(fixture.counter("refused_backlog").await, 2);
    let snapshot = fixture.queue.snapshot().await.unwrap();
    assert_eq!((snapshot.classes[0].ready, snapshot.dead), (8, 0));
    let jobs = fixture.claim_all("one").await;
    assert_eq!(jobs.len(), 8);
    assert_eq!(
        fixture.queue.tenant(&tenant("small")).await.unwrap().ready,
        0
    );
    let again = fixture.ready(&of("small")).await;
    assert_eq!(
        fixture.state(&again).await,
        JobState::Queued,
        "the tenant may queue jobs again"
    );
    let refused = Routing {
        id: Some(ids[4].clone()),
        ..of("small")
    };
    assert_eq!(fixture.ready(&refused).await, ids[4]);
    assert_eq!(fixture.state(&ids[4]).await, JobState::Queued, "for it too");
    assert_eq!(fixture.queue.result(&ids[4]).await.unwrap(), None);
}

#[tokio::test]
async fn a_delay_is_no_way_around_the_high_water_mark() {
    let fixture = QueueFixture::shared("high-water-delay").await;
    let change = TenantChange {
        max_queued: "3".parse().unwrap(),
        ..TenantChange::default()
    };
    fixture.set("small", change).await;
    let later = Routing {
        start: Start::After(Millis(3_600_000)),
        ..of("small")
    };
    let ids = [
        fixture.ready(&of("small")).await,
        fixture.ready(&later).await,
        fixture.ready(&later).await,
    ];
    let many = vec![(later.clone(), payload()); 2];
    let refused = fixture.queue.submit_many(&many).await.unwrap();
    fixture.admit().await;
    for id in &refused {
        assert_eq!(fixture.result(id).await.error.unwrap().code, "backlog_full");
    }
    assert_eq!(fixture.queue.snapshot().await.unwrap().delayed, 2);

    fixture.queue.cancel_now(&ids[1]).await.unwrap();
    let instead = fixture.ready(&later).await;
    assert_eq!(
        fixture.state(&instead).await,
        JobState::Delayed,
        "its place"
    );
    let delayed = fixture.queue.keys().delayed();
    for id in [&ids[2], &instead] {
        let _due: i64 = fixture
            .plain(&["ZADD", &delayed, "XX", "1", id.as_str()])
            .await;
    }
    assert_eq!(fixture.tick().await.promoted, 2);
    let full = fixture.ready(&later).await;
    assert_eq!(
        fixture.result(&full).await.outcome,
        Outcome::Rejected,
        "ready"
    );
    assert_eq!(fixture.claim_all("one").await.len(), 3);
    assert!(!fixture.keys().await.contains(&"later:small".to_owned()));
    let last = fixture.ready(&later).await;
    assert_eq!(fixture.state(&last).await, JobState::Delayed);
    let key = format!("{}later:small", fixture.queue.keys().prefix());
    let life: i64 = fixture.plain(&["PTTL", &key]).await;
    assert!((3_600_000..3_700_000).contains(&life), "{life}");
}

#[tokio::test]
async fn time_at_a_limit_earns_no_credit() {
    let fixture = QueueFixture::shared("no-credit").await;
    fixture.set("late", paused(Change::Set(()))).await;
    fixture.queue_up("late", 20).await;
    fixture.queue_up("busy", 40).await;
    for _ in 0..20 {
        let job = fixture.claim(&worker("one")).await.unwrap();
        assert_eq!(job.tenant.as_str(), "busy");
    }
    fixture.set("late", paused(Change::Remove)).await;
    fixture.tick().await;
    let mut late = 0;
    for _ in 0..10 {
        let job = fixture.claim(&worker("one")).await.unwrap();
        late += usize::from(job.tenant.as_str() == "late");
    }
    assert!(
        (4..=6).contains(&late),
        "tenants take turns, not 10 jobs in a row: {late}"
    );
}

#[tokio::test]
async fn one_who_may_start_is_found_behind_many_who_may_not() {
    let fixture = QueueFixture::shared("many-held").await;
    let mut jobs = Vec::new();
    for n in 0..300 {
        let name = format!("held{n:03}");
        fixture.set(&name, paused(Change::Set(()))).await;
        jobs.push((of(&name), payload()));
    }
    fixture.queue.submit_many(&jobs).await.unwrap();
    fixture.admit().await;
    let id = fixture.ready(&of("zfree")).await;
    let job = fixture.claim(&worker("one")).await.expect("one may start");
    assert_eq!(job.lease.id, id);
    assert_eq!(fixture.claim_all("one").await, []);
}

#[tokio::test]
async fn a_running_set_that_lies_is_put_right() {
    let fixture = QueueFixture::shared("drift").await;
    fixture.set("small", capped("1")).await;
    let key = format!("{}running:small", fixture.queue.keys().prefix());
    let _added: i64 = fixture.plain(&["SADD", &key, "no-such-job"]).await;
    fixture.queue_up("small", 1).await;
    assert_eq!(fixture.claim_all("one").await, []);
    let mut swept = Vec::new();
    while swept.is_empty() {
        fixture.tick().await;
        swept = fixture.claim_all("one").await;
    }
    assert_eq!(swept.len(), 1);
}
