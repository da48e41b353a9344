//! Placement by size: workers with limited memory and CPU, whose jobs end when the test says so.

use sandhog_testkit::eventually::eventually_async;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandhog_core::job::CheckedJob;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::units::{ByteCount, CpuMillis, Millis};
use sandhog_queue::JobState;
use sandhog_worker::Worker;
use sandhog_worker::attempt::{Attempt, Execution, Executor, ExecutorError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::fixture::{QueueFixture, WAIT_TIMEOUT, named, settings, soon, weighing};
use crate::in_process_worker::worker_settings;

/// A duration longer than any test.
const NEVER: Millis = Millis(86_400_000);

/// Executor of several workers. Each job runs until the test releases it.
#[derive(Debug, Clone, Default)]
struct ManualExecutor(Arc<Mutex<JobLedger>>, Arc<watch::Sender<()>>);

#[derive(Debug, Default)]
struct JobLedger {
    /// Jobs in the order of their start, each with its worker.
    started: Vec<(String, String)>,
    /// Jobs that may end.
    free: HashSet<String>,
    /// Memory of the running jobs in MiB, now and at its highest.
    load: u64,
    most: u64,
}

impl ManualExecutor {
    fn started(&self) -> Vec<String> {
        let ledger = self.0.lock().unwrap();
        ledger.started.iter().map(|(_, job)| job.clone()).collect()
    }

    fn worker_of(&self, job: &str) -> String {
        let ledger = self.0.lock().unwrap();
        let found = ledger.started.iter().find(|(_, other)| other == job);
        found.expect("the job has started").0.clone()
    }

    fn most(&self) -> u64 {
        self.0.lock().unwrap().most
    }

    fn release(&self, job: &str) {
        self.0.lock().unwrap().free.insert(job.to_owned());
        self.1.send_replace(());
    }

    async fn until(&self, what: impl Fn(&JobLedger) -> bool) {
        let mut changes = self.1.subscribe();
        while !what(&self.0.lock().unwrap()) {
            changes.changed().await.unwrap();
        }
    }

    async fn until_started(&self, job: &str) {
        soon(self.until(|ledger| ledger.started.iter().any(|(_, other)| other == job))).await;
    }
}

#[derive(Debug)]
struct WorkerExecutor(ManualExecutor, String);

impl Executor for WorkerExecutor {
    async fn execute(
        &self,
        job: &CheckedJob,
        attempt: Attempt,
    ) -> Result<Execution, ExecutorError> {
        let Self(executor, worker) = self;
        let id = attempt.id.to_string();
        let memory = job.limits.memory.map_or(512, |memory| memory.0 >> 20);
        {
            let mut ledger = executor.0.lock().unwrap();
            ledger.started.push((worker.clone(), id.clone()));
            ledger.load += memory;
            ledger.most = ledger.most.max(ledger.load);
        }
        executor.1.send_replace(());
        let quick = id.starts_with("quick") || id.starts_with("nap");
        if let Some(n) = id.strip_prefix("nap-").and_then(|n| n.parse::<u64>().ok()) {
            tokio::time::sleep(Duration::from_millis(20 + n * 13 % 31)).await;
        }
        let ended = executor.until(|ledger| quick || ledger.free.contains(&id));
        let ended = attempt.interrupted.token().run_until_cancelled(ended).await;
        executor.0.lock().unwrap().load -= memory;
        Ok(Execution {
            result: JobResult::bare(attempt.id, Outcome::Succeeded),
            stopped_by_us: ended.is_none(),
        })
    }
}

/// Starts a worker with this much memory (MiB).
async fn start_worker(
    fixture: &QueueFixture,
    executor: &ManualExecutor,
    name: &str,
    memory: u64,
    after: Millis,
) -> Worker {
    let mut settings = worker_settings(
        &settings(fixture.space.url()),
        fixture.space.namespace(),
        name,
    );
    settings.pool.memory = ByteCount::mib(memory);
    settings.pool.cpu_millis = CpuMillis(64_000);
    settings.worker.reserve_after_ms = after;
    Worker::start_with(&settings, WorkerExecutor(executor.clone(), name.to_owned()))
        .await
        .unwrap()
}

async fn stop_worker(worker: Worker) {
    let hurry = CancellationToken::new();
    hurry.cancel();
    soon(worker.stop(hurry)).await;
}

impl QueueFixture {
    async fn send(&self, id: &str, memory_mib: u64) {
        let payload = weighing(memory_mib, 1000);
        self.queue.submit(&named(id), &payload).await.unwrap();
    }

    async fn is_waiting(&self, id: &str) -> bool {
        self.state(&id.parse().unwrap()).await == JobState::Queued
    }

    async fn until_finished(&self, id: &str) {
        let id = id.parse().unwrap();
        eventually_async(WAIT_TIMEOUT, async || {
            let job = self.queue.job(&id).await.unwrap();
            match job.map(|job| job.state) {
                Some(JobState::Finished) => Ok(()),
                state => Err(format!("job {id} is {state:?}")),
            }
        })
        .await;
    }

    /// Waits until a worker has announced twice that it reserves capacity for this class: by the
    /// second time it has acted on the reply to the first.
    async fn until_room_is_kept(&self, class: &str) {
        let key = self.queue.keys().reserved(&class.parse().unwrap());
        let kept = async {
            let mut seen: HashSet<String> = HashSet::new();
            while seen.len() < 2 {
                let pairs: Vec<String> =
                    self.plain(&["ZRANGE", &key, "0", "-1", "WITHSCORES"]).await;
                seen.extend(pairs.get(1).cloned());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon(kept).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_job_waits_without_blocking_those_that_fit() {
    const SMALL: usize = 40;
    let fixture = QueueFixture::shared("fit-flow").await;
    let executor = ManualExecutor::default();
    let worker = start_worker(&fixture, &executor, "one", 1024, NEVER).await;
    fixture.send("running", 512).await;
    executor.until_started("running").await;
    fixture.send("large", 1024).await;
    for n in 0..SMALL {
        fixture.send(&format!("quick-{n}"), 128).await;
    }
    for n in 0..SMALL {
        fixture.until_finished(&format!("quick-{n}")).await;
    }
    assert!(
        fixture.is_waiting("large").await,
        "no worker has capacity for it"
    );

    executor.release("running");
    executor.until_started("large").await;
    fixture.send("quick-more", 128).await;
    fixture.send("ordinary", 512).await;
    executor.release("large");
    executor.until_started("ordinary").await;
    assert_eq!(executor.most(), 1024);
    stop_worker(worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_job_is_not_starved_by_a_stream_of_small_ones() {
    let fixture = QueueFixture::shared("fit-starve").await;
    let executor = ManualExecutor::default();
    let worker = start_worker(&fixture, &executor, "one", 1024, Millis(0)).await;
    for id in ["a", "b"] {
        fixture.send(id, 512).await;
        executor.until_started(id).await;
    }
    fixture.send("large", 1024).await;
    fixture.until_room_is_kept("cpu~m1024c1000").await;
    for id in ["c", "d", "e"] {
        fixture.send(id, 512).await;
    }
    // There is capacity for a small job now, but not yet for the large one.
    executor.release("a");
    fixture.until_finished("a").await;
    fixture.until_room_is_kept("cpu~m1024c1000").await;
    assert_eq!(
        executor.started(),
        ["a", "b"],
        "capacity is reserved for the large job"
    );
    executor.release("b");
    executor.until_started("large").await;
    assert_eq!(executor.started(), ["a", "b", "large"]);
    executor.release("large");
    for id in ["c", "d", "e"] {
        executor.until_started(id).await;
        executor.release(id);
    }
    assert_eq!(executor.most(), 1024);
    stop_worker(worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_end_lets_a_large_job_in() {
    let fixture = QueueFixture::shared("fit-stream").await;
    let executor = ManualExecutor::default();
    let worker = start_worker(&fixture, &executor, "one", 1024, Millis(500)).await;
    // More of these jobs are always waiting than run at once, and no two end together.
    let mut sent = 0;
    let stream = async {
        loop {
            while sent < executor.started().len() + 4 {
                fixture.send(&format!("nap-{sent}"), 512).await;
                sent += 1;
                if sent == 8 {
                    fixture.send("large", 1024).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(async {
        tokio::select! {
            () = stream => {}
            () = executor.until_started("large") => {}
        }
    })
    .await;
    executor.release("large");
    fixture.until_finished("large").await;
    assert_eq!(executor.most(), 1024);
    stop_worker(worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_job_goes_to_a_worker_that_is_large_enough() {
    let fixture = QueueFixture::shared("fit-two").await;
    let executor = ManualExecutor::default();
    let small = start_worker(&fixture, &executor, "small", 512, NEVER).await;
    fixture.send("large", 2048).await;
    fixture.send("ordinary", 512).await;
    executor.until_started("ordinary").await;
    assert!(fixture.is_waiting("large").await);
    let large = start_worker(&fixture, &executor, "large", 2048, NEVER).await;
    executor.until_started("large").await;
    assert_eq!(executor.worker_of("large"), "large");
    // Both workers are full: the first to have capacity takes the next job.
    fixture.send("next", 512).await;
    fixture.send("later", 1024).await;
    executor.release("large");
    executor.until_started("later").await;
    executor.until_started("next").await;
    assert_eq!(executor.worker_of("later"), "large");
    for worker in [small, large] {
        stop_worker(worker).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_gives_back_starts_a_job_wherever_it_waits() {
    let fixture = QueueFixture::shared("fit-release").await;
    let executor = ManualExecutor::default();
    let mut workers = Vec::new();
    for name in ["one", "two"] {
        workers.push(start_worker(&fixture, &executor, name, 1024, NEVER).await);
    }
    for id in ["a", "b"] {
        fixture.send(id, 1024).await;
        executor.until_started(id).await;
    }
    assert_ne!(executor.worker_of("a"), executor.worker_of("b"));
    for (ends, starts) in [("b", "c"), ("a", "d"), ("c", "e")] {
        fixture.send(starts, 1024).await;
        executor.release(ends);
        executor.until_started(starts).await;
        assert_eq!(executor.worker_of(starts), executor.worker_of(ends));
    }
    for worker in workers {
        stop_worker(worker).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordinary_jobs_run_where_there_is_less_than_they_take() {
    let fixture = QueueFixture::shared("fit-tiny").await;
    let executor = ManualExecutor::default();
    let worker = start_worker(&fixture, &executor, "tiny", 200, NEVER).await;
    fixture.send("ordinary", 512).await;
    executor.until_started("ordinary").await;
    fixture.send("quick", 64).await;
    executor.release("ordinary");
    executor.until_started("quick").await;
    stop_worker(worker).await;
}
