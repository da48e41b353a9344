//! Number of jobs that one worker runs each second when the jobs of several tenants alternate.
//!
//! A sandbox serves one tenant, so a worker with more active tenants than sandboxes replaces
//! sandboxes all the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use sandhog_core::id::JobId;
use sandhog_core::job::Job;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::private_redis::PrivateRedis;
use sandhog_testkit::worker::WorkerSpec;
use serde_json::{Map, json};

use crate::queue::RedisCost;
use crate::report::{self, Aim, Bound, Samples};
use crate::throughput::succeeded;

/// Options of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct TenantsOptions {
    /// Numbers of tenants, in rising order. The first one is the base of the ratios.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 20, 100, 4000])]
    tenants: Vec<usize>,
    /// Images of the jobs.
    #[arg(long, value_delimiter = ',', default_value = "python,datascience")]
    images: Vec<String>,
    /// Seconds for each number of tenants, divided among the turns.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Number of turns that each number of tenants takes.
    #[arg(long, default_value_t = 2)]
    turns: u64,
    /// Number of jobs kept queued. Consecutive jobs are of different tenants.
    #[arg(long, default_value_t = 64)]
    queued: usize,
    /// Settings of the worker besides those of the benchmark, for example `SANDBOX_UNIT=container`.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Number of single jobs of new tenants whose start is measured while one job each of the
    /// largest number of tenants is queued.
    #[arg(long, default_value_t = 30)]
    newcomers: usize,
}

const CODE: &str = "pass";

/// Lowest acceptable rates for numbers of tenants, as shares of the rate of one tenant.
const LEAST_SHARES: [(usize, f64); 4] = [(4, 0.9), (20, 0.8), (100, 0.7), (4000, 0.3)];

/// Highest acceptable Redis CPU time for each job, as a multiple of that of one tenant.
const MOST_REDIS_CPU: f64 = 1.5;

/// The measurements of one number of tenants.
#[derive(Debug, Default)]
struct Measured {
    jobs_per_s: Vec<f64>,
    redis_us_per_job: Vec<f64>,
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
pub(crate) fn run(options: &TenantsOptions) -> anyhow::Result<()> {
    let turn = Duration::from_secs(options.seconds) / u32::try_from(options.turns.max(1))?;
    let (mut figures, mut aims) = (Map::new(), Vec::new());
    println!(
        "{:<14} {:>8} {:>9} {:>9} {:>16} {:>9}",
        "image", "tenants", "jobs/s", "of one's", "Redis us a job", "of one's"
    );
    for image in &options.images {
        let redis = PrivateRedis::start(&["--appendfsync", "everysec"]);
        let mut space = TestNamespace::on(&redis, "tenants");
        let mut worker = WorkerSpec::of(&space).set("WORKER_LEASE_MS", "15000");
        for setting in &options.settings {
            let (name, value) = setting
                .split_once('=')
                .with_context(|| format!("{setting:?} is no setting: want NAME=VALUE"))?;
            worker = worker.set(name, value);
        }
        let mut worker = worker.start();
        let job = Job::code(image.parse()?, CODE);
        let mut cost = RedisCost::of(&redis.url())?;
        let mut measured: Vec<Measured> = Vec::new();
        measured.resize_with(options.tenants.len(), Measured::default);
        for turn_number in 0..options.turns {
            report::progress(turn_number, options.turns, "turn");
            for (count, measured) in options.tenants.iter().zip(&mut measured) {
                let mut tenants = Tenants::of(*count);
                // The sandboxes of the count before give way.
                tenants.keep_busy(&mut space, &job, options.queued, turn / 4)?;
                let cpu = cost.cpu_seconds()?;
                let began = Instant::now();
                let jobs = tenants.keep_busy(&mut space, &job, options.queued, turn)?;
                let cpu = cost.cpu_seconds()? - cpu;
                let seconds = began.elapsed().as_secs_f64();
                measured.jobs_per_s.push(report::per_second(jobs, seconds));
                measured
                    .redis_us_per_job
                    .push(cpu * 1e6 / report::count(jobs));
            }
        }
        let mut base = None;
        for (count, measured) in options.tenants.iter().zip(measured) {
            let rate = report::median(measured.jobs_per_s);
            let redis_us = report::median(measured.redis_us_per_job);
            let (base_rate, base_us) = *base.get_or_insert((rate, redis_us));
            println!(
                "{image:<14} {count:>8} {rate:>9.1} {:>9.2} {redis_us:>16.0} {:>9.2}",
                rate / base_rate,
                redis_us / base_us
            );
            figures.insert(
                format!("{image}_{count}"),
                json!({
                    "jobs_per_s": report::rounded(rate),
                    "redis_us_per_job": report::rounded(redis_us),
                }),
            );
            if let Some((_, least)) = LEAST_SHARES.iter().find(|(of, _)| of == count) {
                aims.push(Aim {
                    what: "share_of_one_tenants_rate",
                    figure: rate / base_rate,
                    bound: Bound::AtLeast(*least),
                });
                aims.push(Aim {
                    what: "redis_cpu_of_one_tenants",
                    figure: redis_us / base_us,
                    bound: Bound::AtMost(MOST_REDIS_CPU),
                });
            }
        }
        let among = options.tenants.last().copied().unwrap_or(1);
        let waits = newcomers(&mut space, &job, among, options.newcomers)?;
        println!(
            "{image:<14} a new tenant's single job among {among}: p50 {:.1} ms, p99 {:.1} ms",
            waits.median_ms(),
            waits.quantile_ms(0.99)
        );
        figures.insert(
            format!("{image}_newcomer_ms"),
            json!({ "p50": waits.median_ms(), "p99": waits.quantile_ms(0.99) }),
        );
        let _ended = worker.drain();
    }
    report::print_report("tenants", figures, &aims);
    Ok(())
}

/// Tenants that take turns.
struct Tenants {
    names: Vec<String>,
    next: usize,
}

impl Tenants {
    fn of(count: usize) -> Self {
        Self {
            names: (0..count).map(|n| format!("t{n}")).collect(),
            next: 0,
        }
    }

    fn submit(&mut self, space: &mut TestNamespace, job: &Job) -> anyhow::Result<JobId> {
        let name = self
            .names
            .get(self.next % self.names.len().max(1))
            .context("a benchmark of tenants needs at least one")?;
        self.next += 1;
        Ok(space.submit_with(job, &[("tenant", name)]))
    }

    /// Keeps `queued` jobs in the queue for `span`. Returns the number of results, those of the
    /// last jobs included.
    fn keep_busy(
        &mut self,
        space: &mut TestNamespace,
        job: &Job,
        queued: usize,
        span: Duration,
    ) -> anyhow::Result<usize> {
        let mut waiting = VecDeque::new();
        for _ in 0..queued {
            waiting.push_back(self.submit(space, job)?);
        }
        let began = Instant::now();
        let mut finished = 0;
        while let Some(id) = waiting.pop_front() {
            succeeded(space, &id)?;
            finished += 1;
            if began.elapsed() < span {
                waiting.push_back(self.submit(space, job)?);
            }
        }
        Ok(finished)
    }
}

/// Measures the time from a new tenant's only job to its result, while one job each of `among`
/// other tenants is queued.
fn newcomers(
    space: &mut TestNamespace,
    job: &Job,
    among: usize,
    count: usize,
) -> anyhow::Result<Samples> {
    let mut samples = Samples::of("a new tenant's single job");
    let mut tenants = Tenants::of(among);
    let mut backlog = VecDeque::new();
    for _ in 0..among {
        backlog.push_back(tenants.submit(space, job)?);
    }
    for n in 0..count {
        let began = Instant::now();
        let id = space.submit_with(job, &[("tenant", &format!("new{n}"))]);
        succeeded(space, &id)?;
        samples.add(began.elapsed());
    }
    for id in backlog {
        succeeded(space, &id)?;
    }
    Ok(samples)
}
