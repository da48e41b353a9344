//! The benchmark of the queue, from its start to its report.

use anyhow::Context;
use sandhog_testkit::private_redis::PrivateRedis;
use serde_json::{Map, json};

use super::contender::Contender;
use super::depth::measure_depth;
use super::foreign_queue::ForeignQueue;
use super::leftover::measure_leftover;
use super::options::QueueOptions;
use super::redis_cost::RedisCost;
use super::sandhog_contender::SandhogContender;
use super::start::measure_start;
use crate::noop_worker::noop_worker;
use crate::report::{self, Aim, Bound};

/// Results of one contender's turns.
struct ContenderRow {
    name: &'static str,
    rates: Vec<f64>,
    per_cpu_second: Vec<f64>,
}

pub(crate) fn run(options: &QueueOptions) -> anyhow::Result<()> {
    let redis = PrivateRedis::start(&["--appendfsync", &options.appendfsync]);
    let mut cost = RedisCost::of(&redis.url())?;
    let mut contenders: Vec<Box<dyn Contender>> = vec![Box::new(SandhogContender::new(
        &redis.url(),
        options.concurrency,
        noop_worker()?,
    )?)];
    if !options.alone {
        for foreign in ForeignQueue::all(&redis.url(), options.concurrency)? {
            contenders.push(Box::new(foreign));
        }
    }
    let rows = race(&mut contenders, options, &mut cost)?;
    drop(contenders);

    let mut figures = show_race(&rows);
    let of = |name: &str, of: fn(&ContenderRow) -> &Vec<f64>| {
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

    measure_depth(options, &mut figures, &mut aims)?;
    measure_leftover(options, &mut figures, &mut aims)?;
    measure_start(options, &mut figures, &mut aims)?;
    report::print_report("queue", figures, &aims);
    Ok(())
}

/// Runs the contenders turn by turn, so that a drift of the machine's speed affects all of them.
fn race(
    contenders: &mut [Box<dyn Contender>],
    options: &QueueOptions,
    cost: &mut RedisCost,
) -> anyhow::Result<Vec<ContenderRow>> {
    let mut rows: Vec<ContenderRow> = contenders
        .iter()
        .map(|one| ContenderRow {
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
fn show_race(rows: &[ContenderRow]) -> Map<String, serde_json::Value> {
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
