//! Placement by size: workers with limited memory and CPU, whose jobs end when the test says so.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandhog_common::job::Job;
use sandhog_common::outcome::{JobResult, Outcome};
use sandhog_common::queue::JobState;
use sandhog_common::units::{ByteCount, CpuMillis, Millis};
use sandhog_worker::Worker;
use sandhog_worker::attempt::{Attempt, Execution, Executor, ExecutorError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::crew::worker_settings;
use crate::desk::{Desk, named, settings, soon, weighing};

/// A duration longer than any test.
const NEVER: Millis = Millis(86_400_000);

/// Executor of several workers. Each job runs until the test releases it.
#[derive(Debug, Clone, Default)]
struct Hall(Arc<Mutex<Books>>, Arc<watch::Sender<()>>);

#[derive(Debug, Default)]
struct Books {
    /// Jobs in the order of their start, each with its worker.
    started: Vec<(String, String)>,
    /// Jobs that may end.
    free: HashSet<String>,
    /// Memory of the running jobs in MiB, now and at its highest.
    load: u64,
    most: u64,
}

impl Hall {
    fn started(&self) -> Vec<String> {
        let books = self.0.lock().unwrap();
        books.started.iter().map(|(_, job)| job.clone()).collect()
    }

    fn worker_of(&self, job: &str) -> String {
        let books = self.0.lock().unwrap();
        let found = books.started.iter().find(|(_, other)| other == job);
        found.expect("the job has started").0.clone()
    }

    fn most(&self) -> u64 {
        self.0.lock().unwrap().most
    }

    fn let_go(&self, job: &str) {
        self.0.lock().unwrap().free.insert(job.to_owned());
        self.1.send_replace(());
    }

    async fn until(&self, what: impl Fn(&Books) -> bool) {
        let mut changes = self.1.subscribe();
        while !what(&self.0.lock().unwrap()) {
            changes.changed().await.unwrap();
        }
    }

    async fn until_started(&self, job: &str) {
        soon(self.until(|books| books.started.iter().any(|(_, other)| other == job))).await;
    }
}

#[derive(Debug)]
struct Waiter(Hall, String);

impl Executor for Waiter {
    async fn execute(&self, job: &Job, attempt: Attempt) -> Result<Execution, ExecutorError> {
        let Self(hall, worker) = self;
        let id = attempt.id.to_string();
        let memory = job.limits.memory.map_or(512, |memory| memory.0 >> 20);
        {
            let mut books = hall.0.lock().unwrap();
            books.started.push((worker.clone(), id.clone()));
            books.load += memory;
            books.most = books.most.max(books.load);
        }
        hall.1.send_replace(());
        let quick = id.starts_with("quick") || id.starts_with("nap");
        if let Some(n) = id.strip_prefix("nap-").and_then(|n| n.parse::<u64>().ok()) {
            tokio::time::sleep(Duration::from_millis(20 + n * 13 % 31)).await;
        }
        let ended = hall.until(|books| quick || books.free.contains(&id));
        let ended = attempt.interrupted.token().run_until_cancelled(ended).await;
        hall.0.lock().unwrap().load -= memory;
        Ok(Execution {
            result: JobResult::bare(attempt.id, Outcome::Succeeded),
            stopped_by_us: ended.is_none(),
        })
    }
}

/// Starts a worker with this much memory (MiB).
async fn hire(desk: &Desk, hall: &Hall, name: &str, memory: u64, after: Millis) -> Worker {
    let mut settings = worker_settings(&settings(desk.space.url()), desk.space.namespace(), name);
    settings.pool.memory = ByteCount::mib(memory);
    settings.pool.cpu_millis = CpuMillis(64_000);
    settings.worker.reserve_after_ms = after;
    Worker::start_with(&settings, Waiter(hall.clone(), name.to_owned()))
        .await
        .unwrap()
}

async fn dismiss(worker: Worker) {
    let hurry = CancellationToken::new();
    hurry.cancel();
    soon(worker.stop(hurry)).await;
}

impl Desk {
    async fn send(&self, id: &str, memory_mib: u64) {
        let payload = weighing(memory_mib, 1000);
        self.queue.submit(&named(id), &payload).await.unwrap();
    }

    async fn is_waiting(&self, id: &str) -> bool {
        self.state(&id.parse().unwrap()).await == JobState::Queued
    }

    async fn until_finished(&self, id: &str) {
        let id = id.parse().unwrap();
        let finished = async {
            loop {
                let job = self.queue.job(&id).await.unwrap();
                if job.is_some_and(|job| job.state == JobState::Finished) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        soon(finished).await;
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
    let desk = Desk::shared("fit-flow").await;
    let hall = Hall::default();
    let worker = hire(&desk, &hall, "one", 1024, NEVER).await;
    desk.send("running", 512).await;
    hall.until_started("running").await;
    desk.send("large", 1024).await;
    for n in 0..SMALL {
        desk.send(&format!("quick-{n}"), 128).await;
    }
    for n in 0..SMALL {
        desk.until_finished(&format!("quick-{n}")).await;
    }
    assert!(
        desk.is_waiting("large").await,
        "no worker has capacity for it"
    );

    hall.let_go("running");
    hall.until_started("large").await;
    desk.send("quick-more", 128).await;
    desk.send("ordinary", 512).await;
    hall.let_go("large");
    hall.until_started("ordinary").await;
    assert_eq!(hall.most(), 1024);
    dismiss(worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_job_is_not_starved_by_a_stream_of_small_ones() {
    let desk = Desk::shared("fit-starve").await;
    let hall = Hall::default();
    let worker = hire(&desk, &hall, "one", 1024, Millis(0)).await;
    for id in ["a", "b"] {
        desk.send(id, 512).await;
        hall.until_started(id).await;
    }
    desk.send("large", 1024).await;
    desk.until_room_is_kept("cpu~m1024c1000").await;
    for id in ["c", "d", "e"] {
        desk.send(id, 512).await;
    }
    // There is capacity for a small job now, but not yet for the large one.
    hall.let_go("a");
    desk.until_finished("a").await;
    desk.until_room_is_kept("cpu~m1024c1000").await;
    assert_eq!(
        hall.started(),
        ["a", "b"],
        "capacity is reserved for the large job"
    );
    hall.let_go("b");
    hall.until_started("large").await;
    assert_eq!(hall.started(), ["a", "b", "large"]);
    hall.let_go("large");
    for id in ["c", "d", "e"] {
        hall.until_started(id).await;
        hall.let_go(id);
    }
    assert_eq!(hall.most(), 1024);
    dismiss(worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_end_lets_a_large_job_in() {
    let desk = Desk::shared("fit-stream").await;
    let hall = Hall::default();
    let worker = hire(&desk, &hall, "one", 1024, Millis(500)).await;
    // More of these jobs are always waiting than run at once, and no two end together.
    let mut sent = 0;
    let stream = async {
        loop {
            while sent < hall.started().len() + 4 {
                desk.send(&format!("nap-{sent}"), 512).await;
                sent += 1;
                if sent == 8 {
                    desk.send("large", 1024).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon(async {
        tokio::select! {
            () = stream => {}
            () = hall.until_started("large") => {}
        }
    })
    .await;
    hall.let_go("large");
    desk.until_finished("large").await;
    assert_eq!(hall.most(), 1024);
    dismiss(worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_job_goes_to_a_worker_that_is_large_enough() {
    let desk = Desk::shared("fit-two").await;
    let hall = Hall::default();
    let small = hire(&desk, &hall, "small", 512, NEVER).await;
    desk.send("large", 2048).await;
    desk.send("ordinary", 512).await;
    hall.until_started("ordinary").await;
    assert!(desk.is_waiting("large").await);
    let large = hire(&desk, &hall, "large", 2048, NEVER).await;
    hall.until_started("large").await;
    assert_eq!(hall.worker_of("large"), "large");
    // Both workers are full: the first to have capacity takes the next job.
    desk.send("next", 512).await;
    desk.send("later", 1024).await;
    hall.let_go("large");
    hall.until_started("later").await;
    hall.until_started("next").await;
    assert_eq!(hall.worker_of("later"), "large");
    for worker in [small, large] {
        dismiss(worker).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_worker_gives_back_starts_a_job_wherever_it_waits() {
    let desk = Desk::shared("fit-release").await;
    let hall = Hall::default();
    let mut workers = Vec::new();
    for name in ["one", "two"] {
        workers.push(hire(&desk, &hall, name, 1024, NEVER).await);
    }
    for id in ["a", "b"] {
        desk.send(id, 1024).await;
        hall.until_started(id).await;
    }
    assert_ne!(hall.worker_of("a"), hall.worker_of("b"));
    for (ends, starts) in [("b", "c"), ("a", "d"), ("c", "e")] {
        desk.send(starts, 1024).await;
        hall.let_go(ends);
        hall.until_started(starts).await;
        assert_eq!(hall.worker_of(starts), hall.worker_of(ends));
    }
    for worker in workers {
        dismiss(worker).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ordinary_jobs_run_where_there_is_less_than_they_take() {
    let desk = Desk::shared("fit-tiny").await;
    let hall = Hall::default();
    let worker = hire(&desk, &hall, "tiny", 200, NEVER).await;
    desk.send("ordinary", 512).await;
    hall.until_started("ordinary").await;
    desk.send("quick", 64).await;
    hall.let_go("ordinary");
    hall.until_started("quick").await;
    dismiss(worker).await;
}
