//! A real worker whose jobs run no program, for tests and benchmarks of the queue and of the
//! worker's own loops.
//!
//! Everything but the sandbox is the product's code: claiming, leases, heartbeats, settlement,
//! maintenance and draining. A job sleeps for the `sleep_ms` of its input, or else for a time
//! between zero and the worker's last argument. At its end it prints the `print` of its input. Its
//! slot becomes free `clear_ms` later, like the slot of a sandbox that is still being cleaned up.
//!
//! A number as a further argument starts that many workers in this one process. Each has its own
//! loops and connections, and its name ends in its number.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sandhog_config::Settings;
use sandhog_config::logging::{self, LogFormat};
use sandhog_core::job::CheckedJob;
use sandhog_core::outcome::{JobResult, Outcome};
use sandhog_core::units::Millis;
use sandhog_queue::LogStream;
use sandhog_worker::Worker;
use sandhog_worker::attempt::{Attempt, Execution, Executor, ExecutorError};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::noop::now_us;

/// Runs the workers that the arguments of this process describe, until SIGTERM.
///
/// # Errors
/// Fails when an argument is missing or not valid, or a worker cannot be started.
pub async fn run_noop_worker() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [
        url,
        namespace,
        id,
        slots,
        lease_ms,
        most_sleep_ms,
        more @ ..,
    ] = words.as_slice()
    else {
        anyhow::bail!("want URL NAMESPACE ID SLOTS LEASE_MS MOST_SLEEP_MS [WORKERS]");
    };
    logging::start_logging("warn", LogFormat::Text);
    let mut settings = Settings {
        namespace: namespace.parse()?,
        ..Settings::default()
    };
    settings.redis.url = Some(url.clone());
    settings.worker.slots = slots.parse().context("slots is a number")?;
    settings.worker.lease_ms = Millis(lease_ms.parse().context("the lease is a number")?);
    settings.worker.http = String::new();
    // With a worker killed every second, a job is sometimes lost more than three times.
    settings.worker.max_lost = 1000;
    let most_sleep_ms: u64 = most_sleep_ms.parse().context("the sleep is a number")?;
    let mut names = vec![id.clone()];
    if let Some(workers) = more.first() {
        let workers: usize = workers
            .parse()
            .context("the number of workers is a number")?;
        names = (0..workers).map(|n| format!("{id}-{n}")).collect();
        // Each worker has four connections.
        let (_soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }

    let mut stop = signal(SignalKind::terminate())?;
    let mut workers = Vec::new();
    for name in names {
        settings.worker.id = Some(name.parse()?);
        workers.push(Worker::start_with(&settings, NoopExecutor { most_sleep_ms }).await?);
    }
    stop.recv().await;
    let stopped = workers
        .into_iter()
        .map(|worker| worker.stop(CancellationToken::new()));
    futures_util::future::join_all(stopped).await;
    Ok(())
}

/// Runs jobs that do nothing.
#[derive(Debug)]
struct NoopExecutor {
    most_sleep_ms: u64,
}

impl Executor for NoopExecutor {
    async fn execute(
        &self,
        job: &CheckedJob,
        attempt: Attempt,
    ) -> Result<Execution, ExecutorError> {
        let started_us = now_us();
        let sleep = job
            .input
            .get("sleep_ms")
            .and_then(serde_json::Value::as_u64)
            .unwrap_or_else(|| self.sleep_ms(&attempt));
        let mut stopped_by_us = false;
        if sleep > 0 {
            let sleep = tokio::time::sleep(Duration::from_millis(sleep));
            let slept = attempt.interrupted.token().run_until_cancelled(sleep).await;
            stopped_by_us = slept.is_none();
        }
        if let Some(text) = job.input.get("print").and_then(serde_json::Value::as_str) {
            let mut output = attempt.output;
            let text = Bytes::from(text.to_owned());
            output.write(LogStream::Stdout, text).await;
            output.finish().await;
        }
        let clear_ms = job
            .input
            .get("clear_ms")
            .and_then(serde_json::Value::as_u64);
        if let Some(clear_ms) = clear_ms {
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(clear_ms)).await;
                drop(attempt.occupancy);
            });
        }
        let outcome = if stopped_by_us {
            Outcome::Cancelled
        } else {
            Outcome::Succeeded
        };
        Ok(Execution {
            result: JobResult {
                value: Some(json!({ "started_us": started_us })),
                ..JobResult::bare(attempt.id, outcome)
            },
            stopped_by_us,
        })
    }
}

impl NoopExecutor {
    /// Returns a sleep time that differs between attempts and needs no random number generator.
    fn sleep_ms(&self, attempt: &Attempt) -> u64 {
        let mut hasher = DefaultHasher::new();
        (attempt.id.as_str(), attempt.number).hash(&mut hasher);
        hasher.finish() % (self.most_sleep_ms + 1)
    }
}
