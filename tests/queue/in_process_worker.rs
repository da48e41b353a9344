//! A real worker inside the test process, whose jobs only count their runs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sandhog_config::{RedisSettings, Settings};
use sandhog_core::id::Namespace;
use sandhog_core::job::CheckedJob;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::units::Millis;
use sandhog_worker::Worker;
use sandhog_worker::attempt::{Attempt, Execution, Executor, ExecutorError};
use serde_json::json;

/// Returns settings of a worker of `namespace` with a short lease and no HTTP.
pub(crate) fn worker_settings(
    redis: &RedisSettings,
    namespace: &Namespace,
    name: &str,
) -> Settings {
    let mut settings = Settings {
        namespace: namespace.clone(),
        redis: redis.clone(),
        ..Settings::default()
    };
    settings.worker.id = Some(name.parse().unwrap());
    settings.worker.slots = 4;
    settings.worker.lease_ms = Millis(2_000);
    settings.worker.http = String::new();
    // Workers of these tests die often, and never because of a job.
    settings.worker.max_lost = 1_000;
    settings
}

/// Returns the page that a worker serves at `/metrics`.
pub(crate) fn metrics(worker: &Worker) -> String {
    let mut stream = TcpStream::connect(worker.http().unwrap()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// Starts a real worker whose jobs only count their runs.
pub(crate) async fn start_worker(settings: &Settings, counter: &AttemptCounter) -> Worker {
    Worker::start_with(settings, CountingExecutor(counter.clone()))
        .await
        .unwrap()
}

/// Number of attempts so far, and the namespace of each.
#[derive(Debug, Clone, Default)]
pub(crate) struct AttemptCounter(Arc<AtomicUsize>, Arc<Mutex<Vec<Namespace>>>);

impl AttemptCounter {
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Returns the namespaces of the attempts so far, in order.
    pub(crate) fn namespaces(&self) -> Vec<Namespace> {
        self.1.lock().unwrap().clone()
    }

    /// Waits until `count` attempts have been made.
    pub(crate) async fn reach(&self, count: usize) {
        while self.count() < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Counts the attempt, sleeps for the `sleep_ms` of its input or else as long as a small job takes,
/// and returns the count as the job's value.
#[derive(Debug)]
struct CountingExecutor(AttemptCounter);

impl Executor for CountingExecutor {
    async fn execute(
        &self,
        job: &CheckedJob,
        attempt: Attempt,
    ) -> Result<Execution, ExecutorError> {
        self.0.1.lock().unwrap().push(attempt.namespace.clone());
        let count = self.0.0.fetch_add(1, Ordering::SeqCst);
        let takes = job
            .input
            .get("sleep_ms")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or(2);
        let sleep = tokio::time::sleep(Duration::from_millis(takes));
        let slept = attempt.interrupted.token().run_until_cancelled(sleep).await;
        Ok(Execution {
            result: JobResult {
                value: Some(json!(count)),
                ..JobResult::bare(attempt.id, Outcome::Succeeded)
            },
            stopped_by_us: slept.is_none(),
        })
    }
}
