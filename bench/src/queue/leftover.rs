//! Data that finished jobs leave in Redis and in the worker.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use sandhog_testkit::private_redis::PrivateRedis;
use serde_json::{Map, Value, json};

use super::options::QueueOptions;
use super::queue_client::QueueClient;
use super::redis_cost::RedisCost;
use super::sandhog_contender;
use crate::noop_worker::noop_worker;
use crate::report::{self, Aim, Bound};

/// Runs many jobs whose results are kept for a second, and measures what they leave in Redis and
/// whether the worker grows.
#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
pub(super) fn measure_leftover(
    options: &QueueOptions,
    figures: &mut Map<String, Value>,
    aims: &mut Vec<Aim>,
) -> anyhow::Result<()> {
    let redis = PrivateRedis::start(&["--appendfsync", &options.appendfsync]);
    let mut cost = RedisCost::of(&redis.url())?;
    let client = QueueClient::of(&redis.url(), "memory")?;
    let events = client.queue.keys().events();
    let folder = tempfile::tempdir()?;
    let lease = Duration::from_secs(15);
    let spec = sandhog_contender::spec(
        &redis.url(),
        "memory",
        options.concurrency,
        noop_worker()?,
        lease,
    );
    let mut worker = sandhog_contender::start(&spec, folder.path(), "grows");
    let keep = Duration::from_secs(1);
    let tenth = options.memory_jobs / 10;
    let mut resident = Vec::new();
    let mut baseline = (0_u64, 0.0);
    for turn in 1..=10 {
        client.submit(tenth, &Value::Null, keep)?;
        client.wait_for(u64::try_from(turn * tenth)?)?;
        resident.push(resident_kib(worker.pid())?);
        if turn == 5 {
            baseline = settled(&mut cost, &events)?;
        }
    }
    let (keys, bytes) = settled(&mut cost, &events)?;
    worker.drain();
    let jobs = report::count(5 * tenth);
    let per_job = (bytes - baseline.1) / jobs;
    let left = report::count(usize::try_from(keys)?) - report::count(usize::try_from(baseline.0)?);
    let (early, late) = (resident[1], resident[9]);
    println!(
        "\n{} jobs, results kept 1 s: {left:.0} keys and {per_job:.1} bytes a job left; worker \
         {early} KiB after \
         {} jobs, {late} KiB after {}",
        options.memory_jobs,
        2 * tenth,
        10 * tenth
    );
    figures.insert(
        "after_ttl".to_owned(),
        json!({ "keys": left, "bytes_per_job": report::rounded(per_job), "worker_kib": resident }),
    );
    aims.push(Aim {
        what: "keys_left_after_ttl",
        figure: left,
        bound: Bound::AtMost(0.0),
    });
    // Less than a byte is the server's own housekeeping.
    aims.push(Aim {
        what: "bytes_left_per_job_after_ttl",
        figure: per_job,
        bound: Bound::AtMost(1.0),
    });
    aims.push(Aim {
        what: "worker_growth",
        figure: report::count(late) / report::count(early),
        bound: Bound::AtMost(1.1),
    });
    Ok(())
}

/// Returns the number of keys and bytes after every result has expired, without the stream of
/// events, which grows until it reaches its bound.
fn settled(cost: &mut RedisCost, events: &str) -> anyhow::Result<(u64, f64)> {
    let deadline = Instant::now() + super::contender::WAIT_TIMEOUT;
    loop {
        let records: u64 = cost.ask(&["DBSIZE"])?;
        // Streams, sets and counters of the namespace itself, and the worker's record.
        if records < 16 {
            let bounded: Option<f64> = cost.ask(&["MEMORY", "USAGE", events, "SAMPLES", "0"])?;
            return Ok((records, cost.memory()? - bounded.unwrap_or(0.0)));
        }
        ensure!(Instant::now() < deadline, "{records} keys do not expire");
        std::thread::sleep(super::queue_client::POLL_INTERVAL);
    }
}

fn resident_kib(pid: u32) -> anyhow::Result<usize> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next())
        .context("the kernel tells a process' memory")?
        .parse()
        .context("it is a number")
}
