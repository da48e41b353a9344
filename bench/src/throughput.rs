//! Number of isolated jobs that one machine runs each second, with queue, Redis and worker in the
//! path.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use sandhog_core::id::JobId;
use sandhog_core::job::Job;
use sandhog_core::outcome::Outcome;
use sandhog_testkit::containers::Engine;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::private_redis::PrivateRedis;
use sandhog_testkit::worker::WorkerSpec;
use serde_json::{Map, json};

use crate::peers::Peer;
use crate::report::{self, Aim, Bound};

/// Options of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct ThroughputOptions {
    /// Seconds for each contender, divided among the turns.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Number of turns that each contender takes.
    #[arg(long, default_value_t = 6)]
    turns: u64,
    /// Number of jobs that the worker runs at once; zero means one more than there are cores. Jobs
    /// this short leave a core idle for a tenth of their time, because the queue works between
    /// them.
    #[arg(long, default_value_t = 0)]
    slots: u32,
    /// Number of jobs kept queued.
    #[arg(long, default_value_t = 64)]
    queued: usize,
}

const CODE: &str = "print(1)";

#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
pub(crate) fn run(options: &ThroughputOptions) -> anyhow::Result<()> {
    let redis = PrivateRedis::start(&["--appendfsync", "everysec"]);
    let mut space = TestNamespace::on(&redis, "throughput");
    let job = Job::code("python".parse()?, CODE);
    let cores = std::thread::available_parallelism()
        .context("the machine says how many cores it has")?
        .get();
    let slots = match options.slots {
        0 => (cores + 1).to_string(),
        slots => slots.to_string(),
    };
    let _worker = WorkerSpec::of(&space)
        .set("WORKER_LEASE_MS", "15000")
        .set("WORKER_SLOTS", &slots)
        .start();
    let turn = Duration::from_secs(options.seconds) / u32::try_from(options.turns.max(1))?;

    let mut never_space = TestNamespace::on(&redis, "never");
    let mut never_worker = WorkerSpec::of(&never_space)
        .set("WORKER_LEASE_MS", "15000")
        .set("WORKER_SLOTS", &slots)
        .set("POOL_REUSE", "never")
        .start();

    keep_busy(&mut space, &job, options.queued, Duration::from_secs(2))?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    let (mut never, mut engine) = (Vec::new(), Vec::new());
    for turn_number in 0..options.turns {
        report::progress(turn_number, options.turns, "turn");
        bare.push(bare_rate(cores, turn)?);
        ours.push(keep_busy(&mut space, &job, options.queued, turn)?);
        engine.push(engine_rate(cores, turn)?);
        never.push(keep_busy(&mut never_space, &job, 4 * cores, turn)?);
        // The worker refills its pool now, not during another contender's turn.
        while never_worker.idle_sandboxes() < cores {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    // A worker that is killed leaves the containers that it has just requested to its successor,
    // and here there is none.
    let _ended = never_worker.drain();
    let (ours, bare) = (report::median(ours), report::median(bare));
    let (never, engine) = (report::median(never), report::median(engine));
    println!("{:<44} {:>9}", "", "jobs/s");
    println!("{:<44} {bare:>9.1}", "python3 -c in a loop on every core");
    println!("{:<44} {ours:>9.1}", "sandhog, python, fresh cell each");
    println!(
        "{:<44} {engine:>9.1}",
        "the engine's create, start, wait and remove"
    );
    println!(
        "{:<44} {never:>9.1}",
        "sandhog, python, fresh container each"
    );
    let figures = Map::from_iter([
        (
            "sandhog_jobs_per_s".to_owned(),
            json!(report::rounded(ours)),
        ),
        ("bare_python_per_s".to_owned(), json!(report::rounded(bare))),
        ("engine_per_s".to_owned(), json!(report::rounded(engine))),
        (
            "sandhog_never_reused_per_s".to_owned(),
            json!(report::rounded(never)),
        ),
        ("cores".to_owned(), json!(cores)),
        ("slots".to_owned(), json!(slots)),
    ]);
    let aims = [
        Aim {
            what: "jobs_per_s",
            figure: ours,
            bound: Bound::AtLeast(300.0),
        },
        Aim {
            what: "over_bare_python",
            figure: ours / bare,
            bound: Bound::AtLeast(2.0),
        },
        Aim {
            what: "never_reused_over_engine",
            figure: never / engine,
            bound: Bound::AtLeast(0.9),
        },
    ];
    report::print_report("throughput", figures, &aims);
    Ok(())
}

/// Keeps `queued` jobs in the queue for `span` and returns the results for each second.
fn keep_busy(
    space: &mut TestNamespace,
    job: &Job,
    queued: usize,
    span: Duration,
) -> anyhow::Result<f64> {
    let mut waiting: VecDeque<_> = (0..queued).map(|_| space.submit(job)).collect();
    let began = Instant::now();
    let mut finished = 0_u64;
    while began.elapsed() < span {
        let id = waiting.pop_front().context("jobs are always queued")?;
        succeeded(space, &id)?;
        waiting.push_back(space.submit(job));
        finished += 1;
    }
    let rate = per_second(finished, began.elapsed());
    for id in waiting {
        succeeded(space, &id)?;
    }
    Ok(rate)
}

/// Waits for a job's result.
///
/// # Errors
/// If the job did not succeed.
pub(crate) fn succeeded(space: &mut TestNamespace, id: &JobId) -> anyhow::Result<()> {
    let result = space.result(id);
    ensure!(
        result.outcome == Outcome::Succeeded,
        "a job did not succeed: {result:?}"
    );
    Ok(())
}

/// Measures bare interpreters, one after another on every core.
fn bare_rate(cores: usize, span: Duration) -> anyhow::Result<f64> {
    let peer = Peer::python(CODE);
    loops(cores, span, || peer.once().map(drop))
}

/// Measures the engine's own containers, one after another on every core, each with an interpreter
/// like the bare ones.
fn engine_rate(cores: usize, span: Duration) -> anyhow::Result<f64> {
    loops(cores, span, || {
        Engine::connect().run_once("sandhog/python:latest", &["/usr/bin/python3", "-c", CODE]);
        Ok(())
    })
}

/// Returns how often `turn` completes each second, one after another on every core.
fn loops(
    cores: usize,
    span: Duration,
    turn: impl Fn() -> anyhow::Result<()> + Sync,
) -> anyhow::Result<f64> {
    let finished = AtomicU64::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let loops: Vec<_> = (0..cores)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<()> {
                    while began.elapsed() < span {
                        turn()?;
                        finished.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        loops.into_iter().try_for_each(|one| {
            one.join()
                .unwrap_or_else(|_panic| anyhow::bail!("a loop panicked"))
        })
    })?;
    Ok(per_second(finished.into_inner(), began.elapsed()))
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
fn per_second(count: u64, span: Duration) -> f64 {
    count as f64 / span.as_secs_f64()
}
