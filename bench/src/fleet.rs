//! Costs of idle workers: the load that a fleet of them puts on Redis, and the time until a job
//! starts in it.
//!
//! The workers are real except for their sandboxes: all loops, connections and readers are the
//! product's, with many workers in a process. The worker that runs the maintenance of the namespace
//! is killed by SIGKILL, to measure how soon another takes over.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use sandhog_core::outcome::Outcome;
use sandhog_testkit::namespace::decode;
use sandhog_testkit::noop::{NoopSpec, now_us};
use sandhog_testkit::private_redis::PrivateRedis;
use sandhog_testkit::worker_child::WorkerChild;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::noop_worker::noop_worker;
use crate::queue::{QueueClient, RedisCost, WAIT_TIMEOUT};
use crate::report::{self, Aim, Bound, Samples};

/// Options of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct FleetOptions {
    /// Sizes of the fleet, in rising order.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 50, 500])]
    workers: Vec<usize>,
    /// Seconds for which each idle fleet is measured.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Number of jobs started in each fleet, one at a time.
    #[arg(long, default_value_t = 300)]
    starts: usize,
    /// Number of kills of the worker that runs maintenance, in the largest fleet with several
    /// processes.
    #[arg(long, default_value_t = 5)]
    kills: usize,
}

/// Maximum number of worker processes of a fleet. Each has the same number of workers.
const PROCESSES: usize = 10;

/// Time from the last worker's start to the measurement.
const SETTLING: Duration = Duration::from_secs(12);

/// Lease of a worker; the default.
const LEASE: Duration = Duration::from_secs(15);

/// Time for which results are kept.
const KEEP: Duration = Duration::from_secs(60);

/// Period of a namespace's maintenance, including its jitter.
const PERIOD_MS: f64 = 625.0;

struct Fleet {
    workers: Vec<WorkerChild>,
    _logs: TempDir,
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
pub(crate) fn run(options: &FleetOptions) -> anyhow::Result<()> {
    let mut figures = Map::new();
    let mut aims = Vec::new();
    let mut all = Vec::new();
    let mut first_p50 = None;
    println!(
        "{:>8} {:>14} {:>18} {:>22}",
        "workers", "commands/s", "of a core, %", "% a worker"
    );
    for &count in &options.workers {
        let redis = PrivateRedis::start(&["--appendfsync", "everysec", "--maxclients", "20000"]);
        let client = QueueClient::of(&redis.url(), "fleet")?;
        let empty = idle_cost(&redis, options.seconds.min(10))?;
        let mut fleet = Fleet::start(&redis, &client, count)?;
        std::thread::sleep(SETTLING);
        let (share, commands) = idle_cost(&redis, options.seconds)?;
        let each = (share - empty.0).max(0.0) * 100.0 / f64::from(u32::try_from(count)?);
        println!(
            "{count:>8} {commands:>14.1} {:>18.3} {each:>22.4}",
            share * 100.0
        );
        let starts = starts(&client, options.starts)?;
        figures.insert(
            format!("workers_{count}"),
            json!({
                "commands_per_second": commands,
                "core_percent": share * 100.0,
                "core_percent_each": each,
                "start_p50_ms": starts.median_ms(),
                "start_p99_ms": starts.quantile_ms(0.99),
            }),
        );
        // A fleet of one also pays for all of the maintenance.
        if count > 1 {
            aims.push(Aim {
                what: "core_percent_each",
                figure: each,
                bound: Bound::AtMost(0.03),
            });
            let alone = *first_p50.get_or_insert(starts.median_ms());
            aims.push(Aim {
                what: "start_p50_of_one_worker",
                figure: starts.median_ms() / alone,
                bound: Bound::AtMost(1.5),
            });
        } else {
            first_p50 = Some(starts.median_ms());
        }
        if fleet.workers.len() > options.kills && Some(&count) == options.workers.last() {
            let gaps = takeovers(&redis, &client, &mut fleet, options.kills)?;
            aims.push(Aim {
                what: "takeover_longest_ms",
                figure: gaps.quantile_ms(1.0),
                // The killed worker's own round may have been due when it died.
                bound: Bound::AtMost(2.0 * PERIOD_MS),
            });
            all.push(gaps);
        }
        all.push(starts.named(name_of(count)));
        fleet.stop();
    }
    println!();
    figures.extend(report::table(&all));
    report::print_report("fleet", figures, &aims);
    Ok(())
}

fn name_of(workers: usize) -> &'static str {
    match workers {
        1 => "XADD to start, 1 worker",
        50 => "XADD to start, 50 workers",
        500 => "XADD to start, 500 workers",
        _ => "XADD to start",
    }
}

impl Fleet {
    /// Starts the workers and waits until each has announced itself.
    fn start(redis: &PrivateRedis, client: &QueueClient, count: usize) -> anyhow::Result<Self> {
        let logs = tempfile::tempdir()?;
        let processes = count.min(PROCESSES);
        let spec = NoopSpec {
            program: noop_worker()?,
            url: redis.url(),
            namespace: "fleet".to_owned(),
            slots: 1,
            lease: LEASE,
            most_sleep: Duration::ZERO,
        };
        let workers: Vec<WorkerChild> = (0..processes)
            .map(|n| {
                let name = format!("p{n}");
                let each = count / processes + usize::from(n < count % processes);
                spec.start_many(&name, &logs.path().join(&name), each)
            })
            .collect();
        let deadline = Instant::now() + WAIT_TIMEOUT;
        while client.wait(client.queue.worker_ids())?.len() < count {
            ensure!(
                Instant::now() < deadline,
                "{count} workers did not start in time"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(Self {
            workers,
            _logs: logs,
        })
    }

    fn stop(self) {
        for mut worker in self.workers {
            worker.kill9();
        }
    }
}

/// Returns the share of a core that Redis uses, and the commands that it executes each second,
/// including those of scripts.
fn idle_cost(redis: &PrivateRedis, seconds: u64) -> anyhow::Result<(f64, f64)> {
    let mut cost = RedisCost::of(&redis.url())?;
    let began = Instant::now();
    let (cpu, commands) = (cost.cpu_seconds()?, cost.commands_processed()?);
    std::thread::sleep(Duration::from_secs(seconds));
    let (cpu, commands) = (
        cost.cpu_seconds()? - cpu,
        cost.commands_processed()? - commands,
    );
    let seconds = began.elapsed().as_secs_f64();
    Ok((cpu / seconds, commands / seconds))
}

/// Measures the time from just before `XADD` to the executor's first line.
fn starts(client: &QueueClient, count: usize) -> anyhow::Result<Samples> {
    let mut waiter = client.wait(client.queue.result_waiter())?;
    let mut samples = Samples::of("XADD to start");
    for round in 0..count + 10 {
        let began = now_us();
        let id = client.submit(1, &Value::Null, KEEP)?.remove(0);
        let bytes = client
            .wait(waiter.wait(&id, WAIT_TIMEOUT))?
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
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(samples)
}

/// Measures the time from the SIGKILL of the process whose worker ran the last round of maintenance
/// to the next round.
fn takeovers(
    redis: &PrivateRedis,
    client: &QueueClient,
    fleet: &mut Fleet,
    kills: usize,
) -> anyhow::Result<Samples> {
    let mut redis = RedisCost::of(&redis.url())?;
    let prefix = client.queue.keys().prefix().to_owned();
    let mut samples = Samples::of("kill -9 of the upkeep to its next round");
    for _ in 0..kills {
        let deadline = Instant::now() + WAIT_TIMEOUT;
        let holder = loop {
            let holder: Option<String> = redis.ask(&["GET", &format!("{prefix}upkeep:turn")])?;
            if let Some(holder) = holder {
                break holder;
            }
            ensure!(Instant::now() < deadline, "no worker runs the maintenance");
        };
        let process = holder.split('-').next().unwrap_or_default();
        let at = fleet
            .workers
            .iter()
            .position(|worker| worker.id() == process);
        let mut worker = fleet
            .workers
            .remove(at.context("the process of the worker runs")?);
        worker.kill9();
        let killed = Instant::now();
        let round = |redis: &mut RedisCost| -> anyhow::Result<String> {
            let upkeep: String = redis.ask(&["GET", &format!("{prefix}upkeep")])?;
            Ok(upkeep.split(' ').next().unwrap_or_default().to_owned())
        };
        let last = round(&mut redis)?;
        while round(&mut redis)? == last {
            ensure!(
                Instant::now() < deadline,
                "no other worker took over the maintenance"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        samples.add(killed.elapsed());
        std::thread::sleep(Duration::from_secs(3));
    }
    Ok(samples)
}
