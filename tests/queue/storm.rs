//! Constant failures, also of Redis: every job still gets exactly one result.
//!
//! The workers here are tasks. At random points they stop while holding an entry, a ticket or a
//! lease, or sleep past their lease and then still try to publish. Nothing is asserted about the
//! time of events.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sandhog_core::class::Class;
use sandhog_core::id::{JobId, WorkerId};
use sandhog_core::submission::{Intake, Routing};
use sandhog_core::units::Millis;
use sandhog_queue::{Admission, Binding, FinishReply, Queue, QueueError, Settlement};
use sandhog_testkit::private_redis::PrivateRedis;
use tokio::task::JoinSet;

use crate::fixture::{CAP, QueueFixture, WAIT_TIMEOUT, named, success, weighing};

const JOBS: usize = 400;
const WORKERS: usize = 8;
const REDIS_KILLS: usize = 3;

/// A lease so short that many are lost.
const SHORT_LEASE: Millis = Millis(100);

/// Sleep of a worker that dawdles: longer than the lease and a round of maintenance.
const DAWDLE_TIME: Duration = Duration::from_millis(250);

/// Time that readers wait for something to do.
const READ_BLOCK: Duration = Duration::from_millis(50);

/// A small pseudo-random number generator (xorshift).
struct Rng(u64);

impl Rng {
    fn one_in(&mut self, n: u64) -> bool {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.is_multiple_of(n)
    }
}

#[derive(Default)]
struct StormCounts {
    published: AtomicUsize,
    stale: AtomicUsize,
    walked_away: AtomicUsize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_job_gets_one_result() {
    let mut redis = PrivateRedis::start(&[]);
    let mut fixture = QueueFixture::on(&redis, "storm").await;
    let classes: [Class; 3] = ["cpu", "gpu", "cpu~m2048c1000"].map(|class| class.parse().unwrap());
    let jobs: Vec<_> = (0..JOBS)
        .map(|n| {
            let routing = Routing {
                class: classes[n % 3].unsized_class(),
                tenant: format!("t{}", n % 5).parse().unwrap(),
                ..named(&format!("job-{n}"))
            };
            let memory = classes[n % 3].size().resources().memory_mib;
            (routing, weighing(memory, 1000))
        })
        .collect();
    let ids = fixture.queue.submit_many(&jobs).await.unwrap();

    let counts = Arc::new(StormCounts::default());
    let mut crowd = JoinSet::new();
    for n in 0..WORKERS {
        let rng = Rng(0x9e37_79b9_7f4a_7c15 ^ ((n as u64 + 1) << 32));
        crowd.spawn(workers(
            fixture.queue.clone(),
            n,
            classes.clone(),
            rng,
            Arc::clone(&counts),
        ));
    }
    crowd.spawn(upkeep(fixture.queue.clone()));

    for kill in 1..=REDIS_KILLS {
        wait_for(&counts, JOBS * kill / (REDIS_KILLS + 1)).await;
        redis.kill();
        redis.start_again();
    }
    wait_for(&counts, JOBS).await;
    crowd.shutdown().await;

    fixture.reconnect().await;
    // Maintenance takes back what the last dawdling workers still held.
    fixture
        .queue
        .maintain_fully(Millis(0), u32::MAX)
        .await
        .unwrap();
    for id in &ids {
        assert_eq!(fixture.result(id).await.id, *id);
        let results: u64 = fixture
            .plain(&["LLEN", &fixture.queue.keys().result(id)])
            .await;
        assert_eq!(results, 1, "job {id}");
    }
    let counters = fixture.queue.snapshot().await.unwrap().counters;
    let finished: u64 = counters
        .iter()
        .filter(|(name, _)| name.starts_with("finished_"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(finished, JOBS as u64, "{counters:?}");
    for class in &classes {
        for kind in ["bound", "fair"] {
            let key = format!("{kind}:{class}");
            assert!(!fixture.keys().await.contains(&key), "{key} is empty");
        }
    }
    assert!(counts.walked_away.load(Ordering::Relaxed) > 0);
    assert!(counts.stale.load(Ordering::Relaxed) > 0);
}

async fn wait_for(counts: &StormCounts, count: usize) {
    let enough = async {
        while counts.published.load(Ordering::Relaxed) < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let timeout = tokio::time::timeout(3 * WAIT_TIMEOUT, enough);
    assert!(timeout.await.is_ok(), "no {count} results were published");
}

/// Runs one worker after another, each with a new name. A worker ends when it abandons its work or
/// Redis fails.
async fn workers(
    queue: Queue,
    n: usize,
    classes: [Class; 3],
    mut rng: Rng,
    counts: Arc<StormCounts>,
) {
    for life in 0.. {
        let who: WorkerId = format!("w{n}-{life}").parse().unwrap();
        match run_worker(&queue, &who, &classes, &mut rng, &counts).await {
            Ok(()) => counts.walked_away.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                assert!(
                    error.is_transient(),
                    "{error}: {:?}",
                    std::error::Error::source(&error)
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
                0
            }
        };
    }
}

/// Runs one worker: it admits, claims and runs jobs until it abandons its work.
async fn run_worker(
    queue: &Queue,
    who: &WorkerId,
    classes: &[Class],
    rng: &mut Rng,
    counts: &StormCounts,
) -> Result<(), QueueError> {
    let mut intake = queue.intake_reader(who).await?;
    let mut tickets = queue.ticket_reader(who).await?;
    loop {
        let mut entries = intake.recover(SHORT_LEASE, 7).await?;
        entries.extend(intake.next(7, Duration::ZERO).await?);
        if !entries.is_empty() && rng.one_in(6) {
            return Ok(());
        }
        let admissions: Vec<Admission> = entries
            .into_iter()
            .map(|entry| match Intake::parse(&entry.fields, CAP) {
                Ok(Intake::Submit(submission)) => Admission::Accept {
                    entry: entry.id,
                    submission,
                },
                other => panic!("only jobs were submitted, not {other:?}"),
            })
            .collect();
        queue.admit(&admissions).await?;

        let Some(ticket) = tickets.next(classes, READ_BLOCK).await? else {
            continue;
        };
        if rng.one_in(9) {
            return Ok(());
        }
        let Binding::Bound(job) = queue.bind(&ticket, who).await? else {
            continue;
        };
        if rng.one_in(9) {
            return Ok(());
        }
        if rng.one_in(9) {
            let _maybe_stale = queue.finish(&job.lease, Settlement::GiveBack).await?;
            continue;
        }
        if rng.one_in(9) {
            tokio::time::sleep(DAWDLE_TIME).await;
        }
        let id: JobId = job.lease.id.clone();
        match queue.finish(&job.lease, success(&id)).await? {
            FinishReply::Settled => counts.published.fetch_add(1, Ordering::Relaxed),
            FinishReply::Stale => counts.stale.fetch_add(1, Ordering::Relaxed),
        };
    }
}

async fn upkeep(queue: Queue) {
    loop {
        if let Err(error) = queue.maintain_fully(SHORT_LEASE, u32::MAX).await {
            assert!(error.is_transient(), "{error}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
