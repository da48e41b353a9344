//! The order in which jobs are bound: by submission, by priority, and with tenants taking turns.

use std::collections::BTreeMap;

use sandhog_core::class::Class;
use sandhog_core::id::JobId;
use sandhog_core::submission::Routing;
use sandhog_queue::Binding;
use sandhog_testkit::private_redis::PrivateRedis;

use crate::fixture::{QueueFixture, payload, weighing, worker};

impl QueueFixture {
    /// Binds everything that is ready and returns the order.
    async fn drain(&self) -> Vec<JobId> {
        let mut order = Vec::new();
        while let Some(job) = self.claim(&worker("one")).await {
            order.push(job.lease.id);
        }
        order
    }
}

fn of(tenant: &str) -> Routing {
    Routing {
        tenant: tenant.parse().unwrap(),
        ..Routing::default()
    }
}

fn prioritised(level: &str) -> Routing {
    Routing {
        priority: level.parse().unwrap(),
        ..Routing::default()
    }
}

#[tokio::test]
async fn equals_go_in_the_order_of_submission() {
    let fixture = QueueFixture::shared("fifo").await;
    let jobs = vec![(Routing::default(), payload()); 100];
    let ids = fixture.queue.submit_many(&jobs).await.unwrap();
    assert_eq!(fixture.admit().await.len(), 100);
    assert_eq!(fixture.drain().await, ids);
}

#[tokio::test]
async fn the_urgent_go_first() {
    let fixture = QueueFixture::shared("priority").await;
    let low = fixture.submit(&prioritised("0")).await;
    let usual = fixture.submit(&Routing::default()).await;
    let high = fixture.submit(&prioritised("9")).await;
    fixture.admit().await;
    assert_eq!(fixture.drain().await, [high, usual, low]);
}

#[tokio::test]
async fn a_tenant_with_many_jobs_does_not_hold_up_one_with_few() {
    let fixture = QueueFixture::shared("fair").await;
    let many = vec![(of("a-many"), payload()); 20];
    let many = fixture.queue.submit_many(&many).await.unwrap();
    fixture.admit().await;
    let few = vec![(of("b-few"), payload()); 3];
    let few = fixture.queue.submit_many(&few).await.unwrap();
    fixture.admit().await;
    let order = fixture.drain().await;
    assert_eq!(order.len(), 23);
    let last = order.iter().position(|id| *id == few[2]).unwrap();
    assert!(
        last < 8,
        "the last of the three is at {last}, not among the first eight"
    );
    let of_many: Vec<&JobId> = order.iter().filter(|id| many.contains(id)).collect();
    assert_eq!(
        of_many,
        many.iter().collect::<Vec<_>>(),
        "each tenant's own order holds"
    );
}

#[tokio::test]
async fn a_tenants_weight_is_its_share() {
    let fixture = QueueFixture::shared("weight").await;
    let heavy = format!("{}tenant:heavy", fixture.queue.keys().prefix());
    let _set: i64 = fixture.plain(&["HSET", &heavy, "weight", "3"]).await;
    for tenant in ["heavy", "light"] {
        let jobs = vec![(of(tenant), payload()); 30];
        fixture.queue.submit_many(&jobs).await.unwrap();
    }
    fixture.admit().await;
    let mut share = 0;
    for _ in 0..20 {
        let job = fixture.bound(&worker("one")).await;
        share += u32::from(job.tenant.as_str() == "heavy");
    }
    assert!(
        (14..=16).contains(&share),
        "three in four of twenty: {share}"
    );
}

#[tokio::test]
async fn a_tenant_that_brings_its_jobs_one_by_one_gets_no_more() {
    let fixture = QueueFixture::shared("drip").await;
    let light = format!("{}tenant:light", fixture.queue.keys().prefix());
    let _set: i64 = fixture.plain(&["HSET", &light, "weight", "0.25"]).await;
    let jobs = vec![(of("usual"), payload()); 100];
    fixture.queue.submit_many(&jobs).await.unwrap();
    fixture.admit().await;
    let mut share = 0;
    let mut waits = false;
    for _ in 0..50 {
        if !waits {
            fixture.submit(&of("light")).await;
            fixture.admit().await;
        }
        let job = fixture.bound(&worker("one")).await;
        waits = job.tenant.as_str() != "light";
        share += u32::from(!waits);
    }
    assert!((9..=11).contains(&share), "one in five of fifty: {share}");

    // A tenant does not lose its turn if its only job is cancelled and it submits another.
    let usual: f64 = fixture
        .plain(&[
            "ZSCORE",
            &format!("{}fair:cpu", fixture.queue.keys().prefix()),
            "usual",
        ])
        .await;
    let id = fixture.ready(&of("new")).await;
    assert!(usual > 0.0);
    fixture.queue.cancel_now(&id).await.unwrap();
    let id = fixture.ready(&of("new")).await;
    let first = [
        fixture.bound(&worker("one")).await,
        fixture.bound(&worker("one")).await,
    ];
    assert!(first.iter().any(|job| job.lease.id == id), "{first:?}");
}

#[tokio::test]
async fn whoever_comes_late_gets_its_share_at_once() {
    // One tenant queues 20,000 jobs first; then three tenants with the weights 1, 1 and 3 queue 200
    // jobs each.
    let fixture = QueueFixture::shared("fair-share").await;
    let eager = format!("{}tenant:eager", fixture.queue.keys().prefix());
    let _set: i64 = fixture.plain(&["HSET", &eager, "weight", "3"]).await;
    let flood = vec![(of("flood"), payload()); 20_000];
    fixture.queue.submit_many(&flood).await.unwrap();
    fixture.admit().await;
    for _ in 0..20 {
        fixture.bound(&worker("one")).await;
    }
    for tenant in ["calm", "even", "eager"] {
        let jobs = vec![(of(tenant), payload()); 200];
        fixture.queue.submit_many(&jobs).await.unwrap();
    }
    fixture.admit().await;
    let mut started = BTreeMap::new();
    for n in 1..=240 {
        let job = fixture.bound(&worker("one")).await;
        *started.entry(job.tenant.to_string()).or_insert(0_u32) += 1;
        if n % 60 > 0 {
            continue;
        }
        for (tenant, share) in [("eager", 3), ("flood", 1), ("calm", 1), ("even", 1)] {
            let (want, got) = (
                n * share / 6,
                started.get(tenant).copied().unwrap_or_default(),
            );
            assert!(got.abs_diff(want) <= 2, "{tenant}, of {n}: {started:?}");
        }
    }
}

#[tokio::test]
async fn a_load_of_many_sizes_gets_no_more_turns() {
    let fixture = QueueFixture::shared("fair-sizes").await;
    let classes: [Class; 2] = ["cpu", "cpu~m1024c1000"].map(|name| name.parse().unwrap());
    let sized = [weighing(512, 1000), weighing(1024, 1000)];
    let loads = [("both", 0), ("both", 1), ("one", 0)];
    for (tenant, size) in loads {
        let jobs = vec![(of(tenant), sized[size].clone()); 40];
        fixture.queue.submit_many(&jobs).await.unwrap();
    }
    fixture.admit().await;
    let who = worker("one");
    let mut reader = fixture.queue.ticket_reader(&who).await.unwrap();
    let mut started = BTreeMap::new();
    for n in 0..40 {
        // The classes of the two sizes take turns, as they do in a worker.
        let ticket = reader.try_read(&classes[n % 2], 1).await.unwrap().remove(0);
        let Binding::Bound(job) = fixture.queue.bind(&ticket, &who).await.unwrap() else {
            panic!("every ticket is worth a job");
        };
        *started.entry(job.tenant.to_string()).or_insert(0_u32) += 1;
    }
    for tenant in ["both", "one"] {
        assert!(started[tenant].abs_diff(20) <= 2, "{started:?}");
    }
}

/// Returns the number of commands that the server has executed, including those of scripts.
async fn commands(fixture: &QueueFixture) -> u64 {
    let stats: String = fixture.plain(&["INFO", "commandstats"]).await;
    stats
        .lines()
        .filter_map(|line| line.split_once(":calls="))
        .map(|(_, rest)| rest.split(',').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

#[tokio::test]
async fn a_claim_looks_at_few_of_very_many_sizes() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "many-sizes").await;
    let mut jobs = vec![(of("one"), payload()); 2];
    for n in 0..400 {
        jobs.push((of("one"), weighing(576 + 64 * n, 1000 * (1 + n % 8))));
    }
    fixture.queue.submit_many(&jobs).await.unwrap();
    fixture.admit().await;
    let classes: u64 = fixture
        .plain(&["SCARD", &fixture.queue.keys().classes()])
        .await;
    assert!(classes > 200, "{classes} sizes");
    fixture.bound(&worker("one")).await;
    let ticket = fixture.ticket(&worker("one")).await.unwrap();
    let before = commands(&fixture).await;
    let bound = fixture.queue.bind(&ticket, &worker("one")).await.unwrap();
    let given = commands(&fixture).await - before;
    assert!(matches!(bound, Binding::Bound(_)));
    assert!(given < 70, "{given} commands for one claim");
}

#[tokio::test]
async fn a_queue_of_very_many_tenants_is_counted_in_several_calls() {
    let redis = PrivateRedis::start(&[]);
    let fixture = QueueFixture::on(&redis, "many-tenants").await;
    let jobs: Vec<_> = (0..2500)
        .map(|n| (of(&format!("t{n}")), weighing(512 + 512 * (n % 2), 1000)))
        .collect();
    fixture.queue.submit_many(&jobs).await.unwrap();
    fixture.admit().await;
    let snapshot = fixture.queue.snapshot().await.unwrap();
    let ready: Vec<u64> = snapshot.classes.iter().map(|depth| depth.ready).collect();
    assert_eq!(ready, [1250, 1250]);
    assert!(snapshot.classes.iter().all(|depth| depth.oldest.is_some()));
    let stats: String = fixture.plain(&["INFO", "commandstats"]).await;
    let calls = |name: &str| {
        let line = stats.lines().find(|line| line.starts_with(name));
        let calls = line.and_then(|line| line.split("calls=").nth(1)?.split(',').next());
        calls.unwrap().parse::<u64>().unwrap()
    };
    let counted = calls("cmdstat_zcard:");
    assert!(
        (2500..2520).contains(&counted),
        "each tenant once: {counted}"
    );
    let unroutable = fixture.queue.unroutable(&snapshot).await.unwrap();
    assert_eq!(unroutable.len(), 2);
    assert!(unroutable.iter().all(|found| found.jobs > 0));
}
