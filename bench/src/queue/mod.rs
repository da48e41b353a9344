//! Cost of the queue with jobs that do nothing: jobs a second and CPU of Redis compared with other
//! queues, claims at depth, memory, and the time until a job starts.
//!
//! All contenders use one private Redis, one at a time, with the same number of jobs at once. A
//! turn ends when the last result is stored. The CPU of Redis is that of the whole server process,
//! including everything that the contender does to it.

mod contender;
mod depth;
mod leftover;
mod ours;
mod redis_cost;
mod start;

use anyhow::Context;
use clap::Args;
use sandhog_tests::private_redis::PrivateRedis;
use serde_json::{Map, json};

use crate::report::{self, Aim, Bound};
pub(crate) use contender::PATIENCE;
use contender::{Contender, Foreign};
pub(crate) use ours::Desk;
use ours::Ours;
pub(crate) use redis_cost::RedisCost;

/// Options of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Number of jobs in one turn of the fast contenders (Sandhog, BullMQ); the others take a
    /// fifth.
    #[arg(long, default_value_t = 10_000)]
    jobs: usize,
    /// Number of turns that each contender takes.
    #[arg(long, default_value_t = 3)]
    turns: usize,
    /// Number of jobs at once, for every contender.
    #[arg(long, default_value_t = 8)]
    concurrency: usize,
    /// Policy by which Redis writes its append-only file to disk: always, everysec or no.
    #[arg(long, default_value = "everysec")]
    appendfsync: String,
    /// Queue depths at which claims are measured, in rising order.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000])]
    depths: Vec<usize>,
    /// Number of jobs over which the worker's memory and the leftovers in Redis are measured.
    #[arg(long, default_value_t = 100_000)]
    memory_jobs: usize,
    /// Leave the other queues out.
    #[arg(long)]
    alone: bool,
}

/// Results of one contender's turns.
struct Row {
    name: &'static str,
    rates: Vec<f64>,
    per_cpu_second: Vec<f64>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let redis = PrivateRedis::start(&["--appendfsync", &options.appendfsync]);
    let mut cost = RedisCost::of(&redis.url())?;
    let mut contenders: Vec<Box<dyn Contender>> = vec![Box::new(Ours::new(
        &redis.url(),
        options.concurrency,
        crate::noop_worker()?,
    )?)];
    if !options.alone {
        for foreign in Foreign::all(&redis.url(), options.concurrency)? {
            contenders.push(Box::new(foreign));
        }
    }
    let rows = race(&mut contenders, options, &mut cost)?;
    drop(contenders);

    let mut figures = show_race(&rows);
    let of = |name: &str, of: fn(&Row) -> &Vec<f64>| {
        rows.iter()
            .find(|row| row.name == name)
            .map_or(f64::NAN, |row| report::median(of(row).clone()))
    };
    let mut aims = vec![Aim {
        what: "jobs_per_redis_cpu_second",
        figure: of("sandhog", |row| &row.per_cpu_second),
        bound: Bound::AtLeast(10_000.0),
    }];
    if !options.alone {
        aims.push(Aim {
            what: "over_bullmq",
            figure: of("sandhog", |row| &row.rates) / of("bullmq", |row| &row.rates),
            bound: Bound::AtLeast(3.0),
        });
    }
    drop(redis);

    depth::measure(options, &mut figures, &mut aims)?;
    leftover::measure(options, &mut figures, &mut aims)?;
    start::measure(options, &mut figures, &mut aims)?;
    report::conclude("queue", figures, &aims);
    Ok(())
}

/// Runs the contenders turn by turn, so that a drift of the machine's speed affects all of them.
fn race(
    contenders: &mut [Box<dyn Contender>],
    options: &Options,
    cost: &mut RedisCost,
) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<Row> = contenders
        .iter()
        .map(|one| Row {
            name: one.name(),
            rates: Vec::new(),
            per_cpu_second: Vec::new(),
        })
        .collect();
    for _ in 0..options.turns {
        for (contender, row) in contenders.iter_mut().zip(&mut rows) {
            let jobs = if contender.is_fast() {
                options.jobs
            } else {
                options.jobs / 5
            };
            contender
                .start()
                .with_context(|| format!("{} does not start", row.name))?;
            let before = cost.cpu_seconds()?;
            let took = contender
                .turn(jobs)
                .with_context(|| format!("{} does not finish", row.name))?;
            let cpu = cost.cpu_seconds()? - before;
            contender.stop();
            row.rates.push(report::per_second(jobs, took.as_secs_f64()));
            row.per_cpu_second.push(report::per_second(jobs, cpu));
        }
    }
    Ok(rows)
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
fn show_race(rows: &[Row]) -> Map<String, serde_json::Value> {
    println!(
        "{:<44} {:>9} {:>16} {:>14}",
        "jobs that do nothing", "jobs/s", "jobs/Redis CPU s", "Redis µs/job"
    );
    let mut figures = Map::new();
    for row in rows {
        let rate = report::median(row.rates.clone());
        let per_cpu = report::median(row.per_cpu_second.clone());
        println!(
            "{:<44} {rate:>9.0} {per_cpu:>16.0} {:>14.1}",
            row.name,
            1e6 / per_cpu
        );
        figures.insert(
            row.name.to_owned(),
            json!({
                "jobs_per_s": report::rounded(rate),
                "jobs_per_redis_cpu_s": report::rounded(per_cpu),
            }),
        );
    }
    figures
}
