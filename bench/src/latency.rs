//! Time of one job from `XADD` to its result, warm, one job at a time.

use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use sandhog_core::job::Job;
use sandhog_core::outcome::Outcome;
use sandhog_testkit::containers::{Engine, WORKER_LABEL};
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::private_redis::PrivateRedis;
use sandhog_testkit::worker::{WorkerProcess, WorkerSpec};

use crate::peers::Peer;
use crate::report::{self, Aim, Bound, Samples};

/// Options of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct LatencyOptions {
    /// Number of rounds. Each contender takes one turn in a round.
    #[arg(long, default_value_t = 200)]
    rounds: usize,
    /// Number of rounds between two turns of the slow contenders (docker run).
    #[arg(long, default_value_t = 20)]
    slow_every: usize,
    /// Number of times that the prepared single-job containers are used up.
    #[arg(long, default_value_t = 10)]
    batches: usize,
}

/// Number of single-job containers that are kept ready.
const PREPARED_CONTAINERS: usize = 4;

/// Timeout for these containers to become ready.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

const CODE: &str = "print(1)";
const DATA_CODE: &str = "import pandas as pd\nprint(pd.DataFrame({'a': [1, 2]}).a.sum())";

pub(crate) fn run(options: &LatencyOptions) -> anyhow::Result<()> {
    let redis = PrivateRedis::start(&["--appendfsync", "everysec"]);
    let mut space = TestNamespace::on(&redis, "latency");
    let _worker = WorkerSpec::of(&space)
        .set("WORKER_LEASE_MS", "15000")
        .start();
    let plain = Job::code("python".parse()?, CODE);
    let data = Job::code("datascience".parse()?, DATA_CODE);

    let mut bare = Samples::of("python3 -c, no isolation");
    let mut ours = Samples::of("sandhog, python, fresh cell");
    let mut ours_data = Samples::of("sandhog, datascience with pandas, fresh cell");
    let mut bubblewrap = Samples::of("bubblewrap + python3 -c");
    let mut docker = Samples::of("docker run --rm python3 -c");
    let peers = (
        Peer::python(CODE),
        Peer::bubblewrap(CODE),
        Peer::docker_run("sandhog/python:latest", CODE),
    );

    for _ in 0..10 {
        one(&mut space, &plain)?;
        one(&mut space, &data)?;
        peers.0.once()?;
    }
    for round in 0..options.rounds {
        bare.add(peers.0.once()?);
        ours.add(one(&mut space, &plain)?);
        bubblewrap.add(peers.1.once()?);
        ours_data.add(one(&mut space, &data)?);
        if round % options.slow_every == 0 {
            docker.add(peers.2.once()?);
            report::progress(round as u64, options.rounds as u64, "round");
        }
    }

    let never = ahead(&redis, "never", &plain, ("POOL_REUSE", "never"), options)?;
    let sentry = Job {
        runtime: Some("runsc".parse()?),
        ..plain
    };
    let sentry = ahead(
        &redis,
        "gvisor",
        &sentry,
        ("SANDBOX_JOB_RUNTIMES", "runsc"),
        options,
    )?;
    let never = never.named("sandhog, python, container of one job, ready");
    let sentry = sentry.named("sandhog, python, gVisor, ready");

    let aims = [
        Aim {
            what: "p50_over_bare_python",
            figure: ours.median_ms() / bare.median_ms(),
            bound: Bound::AtMost(0.3),
        },
        Aim {
            what: "p50_ms",
            figure: ours.median_ms(),
            bound: Bound::AtMost(4.0),
        },
        Aim {
            what: "p99_over_p50",
            figure: ours.quantile_ms(0.99) / ours.median_ms(),
            bound: Bound::AtMost(4.0),
        },
        Aim {
            what: "datascience_p50_ms",
            figure: ours_data.median_ms(),
            bound: Bound::AtMost(10.0),
        },
        Aim {
            what: "never_reused_p50_ms",
            figure: never.median_ms(),
            bound: Bound::AtMost(20.0),
        },
    ];
    let figures = report::table(&[bare, ours, ours_data, never, sentry, bubblewrap, docker]);
    report::print_report("latency", figures, &aims);
    Ok(())
}

/// Measures jobs that each use up one of the prepared containers, and waits for new containers
/// between the batches.
fn ahead(
    redis: &PrivateRedis,
    name: &str,
    job: &Job,
    (setting, value): (&str, &str),
    options: &LatencyOptions,
) -> anyhow::Result<Samples> {
    let mut space = TestNamespace::on(redis, name);
    let mut worker = WorkerSpec::of(&space)
        .set("WORKER_LEASE_MS", "15000")
        .set("WORKER_SLOTS", "1")
        .set("POOL_AHEAD", &PREPARED_CONTAINERS.to_string())
        .set(setting, value)
        .start();
    // The first job of a kind shows the worker that its containers run one job each, the second
    // that they are needed.
    one(&mut space, job)?;
    one(&mut space, job)?;
    let engine = Engine::connect();
    // The count includes containers that are being made or removed.
    let containers = |worker: &WorkerProcess| {
        engine
            .containers_with_label(WORKER_LABEL, worker.id())
            .len()
    };
    let mut samples = Samples::of("");
    for batch in 0..options.batches {
        report::progress(batch as u64, options.batches as u64, name);
        let deadline = Instant::now() + WAIT_TIMEOUT;
        // Also waits until no container of the last batch is being removed, because the engine does
        // one thing at a time.
        while worker.idle_sandboxes() < PREPARED_CONTAINERS
            || containers(&worker) > PREPARED_CONTAINERS
        {
            ensure!(
                Instant::now() < deadline,
                "the pool of {name} is not filled"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        for _ in 0..PREPARED_CONTAINERS {
            samples.add(one(&mut space, job)?);
        }
    }
    // A worker that is killed leaves the containers that it has just requested to its successor,
    // and here there is none.
    let _ended = worker.drain();
    Ok(samples)
}

fn one(space: &mut TestNamespace, job: &Job) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let id = space.submit(job);
    let bytes = space.result_bytes(&id);
    let took = began.elapsed();
    let result = sandhog_testkit::namespace::decode(&bytes);
    ensure!(
        result.outcome == Outcome::Succeeded,
        "the job did not succeed: {result:?}"
    );
    Ok(took)
}
