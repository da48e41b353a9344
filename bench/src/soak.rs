//! Soak test: a hundred thousand jobs of every kind through one worker, and the resources that it
//! holds in between, none of which may grow.

use std::time::Instant;

use clap::Args;
use sandhog_testkit::namespace::TestNamespace;
use sandhog_testkit::private_redis::PrivateRedis;
use sandhog_testkit::soak::{ResourceUsage, Soak};
use sandhog_testkit::worker::WorkerSpec;
use serde_json::{Map, json};

use crate::report::{self, Aim, Bound};

/// Options of the soak test.
#[derive(Debug, Args)]
pub(crate) struct SoakOptions {
    /// Total number of jobs.
    #[arg(long, default_value_t = 100_000)]
    jobs: usize,
    /// Number of tenants, whose jobs alternate.
    #[arg(long, default_value_t = 1)]
    tenants: usize,
    /// Number of measurements of the worker's resources.
    #[arg(long, default_value_t = 10)]
    looks: usize,
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
pub(crate) fn run(options: &SoakOptions) -> anyhow::Result<()> {
    let redis = PrivateRedis::start(&["--appendfsync", "everysec"]);
    let mut space = TestNamespace::on(&redis, "soak");
    let worker = WorkerSpec::of(&space)
        .set("WORKER_LEASE_MS", "15000")
        .start();
    let mut soak = Soak::of_tenants(options.tenants);
    // Warm caches, grown buffers and started containers are no leak.
    soak.run(&mut space, (options.jobs / 50).max(200));
    let first = soak.resource_usage(&worker);
    println!(
        "{:>8} {:>9} {:>4} {:>8} {:>11} {:>10} {:>7} {:>8} {:>14}",
        "jobs",
        "rss KiB",
        "fds",
        "threads",
        "containers",
        "processes",
        "mounts",
        "cgroups",
        "container KiB"
    );
    row(0, &first);
    let part = options.jobs.div_ceil(options.looks.max(1));
    let (mut done, mut last) = (0, first);
    let began = Instant::now();
    while done < options.jobs {
        let now = part.min(options.jobs - done);
        soak.run(&mut space, now);
        done += now;
        last = soak.resource_usage(&worker);
        row(done, &last);
    }
    let rate = report::per_second(done, began.elapsed().as_secs_f64());
    println!("\n{done} jobs of every kind, {rate:.0} a second");

    let grown = |what, before: usize, after: usize| Aim {
        what,
        figure: report::count(after) - report::count(before),
        bound: Bound::AtMost(0.0),
    };
    let memory = |what, before: u64, after: u64| Aim {
        what,
        figure: mib(after) - mib(before),
        bound: Bound::AtMost(32.0),
    };
    let aims = [
        memory(
            "worker_memory_grown_mib",
            first.worker_memory,
            last.worker_memory,
        ),
        memory(
            "container_memory_grown_mib",
            first.container_memory,
            last.container_memory,
        ),
        grown("descriptors_grown", first.descriptors, last.descriptors),
        grown("threads_grown", first.threads, last.threads),
        grown("containers_grown", first.containers, last.containers),
        grown("processes_grown", first.processes, last.processes),
        grown("mounts_grown", first.mounts, last.mounts),
        grown("cgroups_grown", first.cgroups, last.cgroups),
    ];
    let figures = Map::from_iter([
        ("jobs".to_owned(), json!(done)),
        ("jobs_per_s".to_owned(), json!(report::rounded(rate))),
    ]);
    report::print_report("soak", figures, &aims);
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark prints its results")]
fn row(jobs: usize, holding: &ResourceUsage) {
    println!(
        "{jobs:>8} {:>9} {:>4} {:>8} {:>11} {:>10} {:>7} {:>8} {:>14}",
        holding.worker_memory >> 10,
        holding.descriptors,
        holding.threads,
        holding.containers,
        holding.processes,
        holding.mounts,
        holding.cgroups,
        holding.container_memory >> 10
    );
}

#[expect(clippy::cast_precision_loss, reason = "memory stays far below 2^53")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
