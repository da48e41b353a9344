//! Chaos run of ten thousand jobs: workers and Redis are killed, workers freeze, jobs are submitted
//! twice and cancelled.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use sandhog_config::SandboxUnit;
use sandhog_testkit::chaos::{self, ChaosPlan, ChaosWorkers, Verdict};
use serde_json::json;

use crate::noop_worker::noop_worker;
use crate::report;

/// Options of the chaos run.
#[derive(Debug, Args)]
pub(crate) struct ChaosOptions {
    /// Number of jobs, each with its own id.
    #[arg(long, default_value_t = 10_000)]
    jobs: usize,
    /// Seconds over which the jobs are submitted. Processes are killed only during this time.
    #[arg(long, default_value_t = 90)]
    seconds: u64,
    /// Number of workers alive at any time.
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// Number of jobs that each worker runs at once.
    #[arg(long, default_value_t = 8)]
    slots: usize,
    /// Interval in milliseconds at which a worker is killed.
    #[arg(long, default_value_t = 1_000)]
    kill_every_ms: u64,
    /// Run programs in sandboxes of this unit, and kill containers and runners too. Without it jobs
    /// run no program.
    #[arg(long)]
    unit: Option<Unit>,
    /// Lease of a worker in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    lease_ms: u64,
    /// Longest sleep of a job in milliseconds. A freeze affects jobs that occupy a worker for a
    /// moment.
    #[arg(long, default_value_t = 300)]
    most_sleep_ms: u64,
    /// Number of times that Redis is killed.
    #[arg(long, default_value_t = 5)]
    redis_kills: usize,
    /// Seed for the choice of the workers that are killed and of the time; the machine's speed
    /// affects both too.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Unit in which the workers make sandboxes.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Unit {
    /// A container for each sandbox.
    Container,
    /// A container with a keeper for each image.
    Sandbox,
}

#[expect(
    clippy::print_stderr,
    reason = "progress, beside the table on standard output"
)]
pub(crate) fn run(options: &ChaosOptions) -> anyhow::Result<ExitCode> {
    let workers_of = match options.unit {
        None => ChaosWorkers::Noop(noop_worker()?),
        Some(Unit::Container) => ChaosWorkers::Real(SandboxUnit::Container),
        Some(Unit::Sandbox) => ChaosWorkers::Real(SandboxUnit::Sandbox),
    };
    let plan = ChaosPlan {
        workers_of,
        jobs: options.jobs,
        span: Duration::from_secs(options.seconds),
        workers: options.workers,
        slots: options.slots,
        lease: Duration::from_millis(options.lease_ms),
        most_sleep: Duration::from_millis(options.most_sleep_ms),
        kill_every: Duration::from_millis(options.kill_every_ms),
        redis_kills: options.redis_kills,
        frozen_percent: 1,
        seed: options.seed,
    };
    let verdict = chaos::run(&plan, |line| eprintln!("==> {line}"));
    show(&verdict);
    Ok(if verdict.met() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
fn show(verdict: &Verdict) {
    let fence = !cfg!(sandhog_test_no_fence);
    let rows = [
        ("jobs", verdict.jobs),
        ("workers killed", verdict.worker_kills),
        ("redis killed", verdict.redis_kills),
        ("containers killed", verdict.container_kills),
        ("runners of keepers killed", verdict.runner_kills),
        ("workers frozen past their lease", verdict.freezes),
        ("jobs held by frozen workers", verdict.frozen_jobs),
        ("jobs submitted twice", verdict.duplicate_submissions),
        ("jobs cancelled by the producer", verdict.cancels),
        ("jobs whose cancel had no effect", verdict.cancels_missed),
        ("jobs without a result", verdict.lost),
        ("results published again", verdict.duplicates),
        ("results of unknown jobs", verdict.unknown_results),
        ("starts above a tenant's cap", verdict.cap_violations),
        ("most jobs of a capped tenant at once", verdict.most_at_once),
        ("keys left behind", verdict.left_behind.len()),
        ("containers left behind", verdict.containers_left.len()),
    ];
    for (what, count) in rows {
        println!("{what:<40} {count:>9}");
    }
    for (what, count) in [
        ("attempts lost with their worker", verdict.lost_attempts),
        ("stale writes rejected and counted", verdict.stale_counted),
        ("stale writes logged by their worker", verdict.stale_logged),
    ] {
        println!("{what:<40} {count:>9}");
    }
    for (outcome, count) in &verdict.outcomes {
        println!("{:<40} {count:>9}", format!("outcome {outcome}"));
    }
    for key in verdict.left_behind.iter().take(20) {
        println!("left behind: {key}");
    }
    println!(
        "{}",
        json!({
            "bench": "chaos",
            "fence": fence,
            "jobs": verdict.jobs,
            "seconds": report::rounded(verdict.seconds),
            "worker_kills": verdict.worker_kills,
            "worker_kills_planned": verdict.worker_kills_planned,
            "redis_kills": verdict.redis_kills,
            "redis_kills_planned": verdict.redis_kills_planned,
            "container_kills": verdict.container_kills,
            "runner_kills": verdict.runner_kills,
            "containers_left": verdict.containers_left.len(),
            "freezes": verdict.freezes,
            "frozen_jobs": verdict.frozen_jobs,
            "duplicate_submissions": verdict.duplicate_submissions,
            "duplicates_known": verdict.duplicates_known,
            "cancels": verdict.cancels,
            "cancels_missed": verdict.cancels_missed,
            "outcomes": verdict.outcomes,
            "lost": verdict.lost,
            "duplicates": verdict.duplicates,
            "strangers": verdict.unknown_results,
            "cap_violations": verdict.cap_violations,
            "most_at_once": verdict.most_at_once,
            "lost_attempts": verdict.lost_attempts,
            "stale_writes": verdict.stale_counted,
            "stale_writes_heard": verdict.stale_logged,
            "left_behind": verdict.left_behind.len(),
            "stormed": verdict.stormed(),
            "met": verdict.met(),
        })
    );
}
