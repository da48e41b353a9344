//! Benchmarks: Sandhog and its alternatives, in turn, in one run.
//!
//! Each benchmark prints a table of medians and, as its last line, one JSON object with the
//! figures, the targets and whether every target was met. A machine's speed drifts, so the
//! contenders take turns round by round, and ratios count rather than single figures. No test
//! depends on the figures.

mod chaos;
mod fleet;
mod inference;
mod latency;
mod noop_worker;
mod peers;
mod queue;
mod report;
mod soak;
mod tenants;
mod throughput;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "sandhog-bench", about = "Benchmarks with peers side by side")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// From XADD to the result of `print(1)`, one job at a time, beside bare python3, bubblewrap
    /// and docker run.
    Latency(latency::LatencyOptions),
    /// Isolated jobs a second with everything in the path, beside bare python3 on every core.
    Throughput(throughput::ThroughputOptions),
    /// A hundred thousand jobs of every kind through one worker, and the resources that it holds in
    /// between.
    Soak(soak::SoakOptions),
    /// Cost of the queue with jobs that do nothing, beside BullMQ, apalis, Celery, huey and
    /// RQ.
    Queue(queue::QueueOptions),
    /// Jobs a second when the jobs of many tenants alternate, for 1 to 4,000 tenants.
    Tenants(tenants::TenantsOptions),
    /// Costs of idle workers, for 1, 50 and 500 of them.
    Fleet(fleet::FleetOptions),
    /// Cost of a model behind the queue, beside the same model called in process.
    Inference(inference::InferenceOptions),
    /// Jobs while workers and Redis die: nothing is lost or published twice. See scripts/chaos.
    Chaos(chaos::ChaosOptions),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().bench {
        Bench::Latency(options) => latency::run(&options)?,
        Bench::Throughput(options) => throughput::run(&options)?,
        Bench::Soak(options) => soak::run(&options)?,
        Bench::Queue(options) => queue::run(&options)?,
        Bench::Tenants(options) => tenants::run(&options)?,
        Bench::Fleet(options) => fleet::run(&options)?,
        Bench::Inference(options) => inference::run(&options)?,
        Bench::Chaos(options) => return chaos::run(&options),
    }
    Ok(ExitCode::SUCCESS)
}
