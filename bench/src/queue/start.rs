//! Time until a job starts: on an idle worker, and after its worker was killed.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sandhog_core::outcome::Outcome;
use sandhog_testkit::namespace::decode;
use sandhog_testkit::noop::now_us;
use sandhog_testkit::private_redis::PrivateRedis;
use serde_json::{Map, Value, json};

use super::options::QueueOptions;
use super::queue_client::QueueClient;
use super::sandhog_contender;
use crate::noop_worker::noop_worker;
use crate::report::{self, Aim, Bound, Samples};

/// Number of jobs started one at a time.
const STARTS: usize = 500;

/// Number of workers that are killed.
const KILLS: usize = 7;

/// Lease of the killed workers. It makes up most of the measured time.
const LEASE: Duration = Duration::from_secs(3);

const KEEP: Duration = Duration::from_secs(60);

#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
pub(super) fn measure_start(
    options: &QueueOptions,
    figures: &mut Map<String, Value>,
    aims: &mut Vec<Aim>,
) -> anyhow::Result<()> {
    let redis = PrivateRedis::start(&["--appendfsync", &options.appendfsync]);
    let client = QueueClient::of(&redis.url(), "start")?;
    let starts = starts(&redis, &client)?;
    let restarts = restarts(&redis, &client)?;
    let of_lease = LEASE.as_secs_f64() * 1e3;
    for (what, figure, most) in [
        ("start_p50_ms", starts.median_ms(), 10.0),
        ("start_p99_ms", starts.quantile_ms(0.99), 50.0),
        // The rest of the lease, and then a round of maintenance, which runs every half second.
        (
            "restart_p99_ms",
            restarts.quantile_ms(0.99),
            of_lease + 1_000.0,
        ),
    ] {
        let bound = Bound::AtMost(most);
        aims.push(Aim {
            what,
            figure,
            bound,
        });
    }
    println!();
    let shown = report::table(&[starts, restarts]);
    figures.extend(shown);
    Ok(())
}

/// Measures the time from just before `XADD` to the executor's first line, on an idle worker of the
/// same machine.
fn starts(redis: &PrivateRedis, client: &QueueClient) -> anyhow::Result<Samples> {
    let folder = tempfile::tempdir()?;
    let spec = sandhog_contender::spec(&redis.url(), "start", 1, noop_worker()?, LEASE);
    let mut worker = sandhog_contender::start(&spec, folder.path(), "idle");
    let mut waiter = client.wait(client.queue.result_waiter())?;
    let mut samples = Samples::of("XADD to start, idle worker");
    for round in 0..STARTS + 10 {
        let began = now_us();
        let id = client.submit(1, &Value::Null, KEEP)?.remove(0);
        let bytes = client
            .wait(waiter.wait(&id, super::contender::WAIT_TIMEOUT))?
            .context("a result comes")?;
        let result = decode(&bytes);
        ensure!(result.outcome == Outcome::Succeeded, "{result:?}");
        let started = result
            .value
            .as_ref()
            .and_then(|value| value["started_us"].as_u64())
            .context("the worker says when it started")?;
        if round >= 10 {
            samples.add(Duration::from_micros(started.saturating_sub(began)));
        }
    }
    worker.drain();
    Ok(samples)
}

/// Measures the time from the SIGKILL of a job's worker to the job's start on another.
fn restarts(redis: &PrivateRedis, client: &QueueClient) -> anyhow::Result<Samples> {
    let folder = tempfile::tempdir()?;
    let spec = sandhog_contender::spec(&redis.url(), "start", 1, noop_worker()?, LEASE);
    let mut samples = Samples::of("kill -9 to restart, lease 3 s");
    for round in 0..KILLS {
        let id = client
            .submit(1, &json!({ "sleep_ms": 600_000 }), KEEP)?
            .remove(0);
        let attempts = |wanted: u32| -> anyhow::Result<()> {
            let deadline = Instant::now() + super::contender::WAIT_TIMEOUT;
            loop {
                let record = client.wait(client.queue.job(&id))?;
                if record.is_some_and(|record| record.attempts >= wanted) {
                    return Ok(());
                }
                ensure!(
                    Instant::now() < deadline,
                    "attempt {wanted} did not start in time"
                );
                std::thread::sleep(Duration::from_millis(2));
            }
        };
        let mut first = sandhog_contender::start(&spec, folder.path(), &format!("a{round}"));
        attempts(1)?;
        let mut second = sandhog_contender::start(&spec, folder.path(), &format!("b{round}"));
        // A worker runs no maintenance before it has announced itself.
        while client
            .wait(client.queue.workers())?
            .iter()
            .all(|one| one.facts.id.as_str() != second.id())
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        first.kill9();
        let killed = Instant::now();
        attempts(2)?;
        samples.add(killed.elapsed());
        client.wait(client.queue.cancel(&id))?;
        let mut waiter = client.wait(client.queue.result_waiter())?;
        client
            .wait(waiter.wait(&id, super::contender::WAIT_TIMEOUT))?
            .context("a cancelled job has a result")?;
        second.drain();
    }
    Ok(samples)
}
