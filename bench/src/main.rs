//! Benchmarks: Sandhog beside what people would use instead, in turn, in one run.
//!
//! Each prints a table of medians and, as its very last line, one JSON object with the figures, the aims and whether
//! every aim was met. A machine's speed drifts, so rivals take turns round by round and ratios count, not lone
//! figures. Nothing here decides a test.

mod chaos;
mod fleet;
mod inference;
mod latency;
mod peers;
mod queue;
mod report;
mod soak;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "sandhog-bench", about = "Benchmarks with peers side by side")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// From XADD to the result of `print(1)`, one job at a time, beside bare python3, bubblewrap and docker run.
    Latency(latency::Options),
    /// Isolated jobs a second with everything in the path, beside bare python3 on every core.
    Throughput(throughput::Options),
    /// A hundred thousand jobs of every kind through one worker, and what it holds between them.
    Soak(soak::Options),
    /// What the queue costs when jobs do nothing, beside BullMQ, Celery, huey and RQ.
    Queue(queue::Options),
    /// Costs of workers that have nothing to do, of 1, 50 and 500 of them.
    Fleet(fleet::Options),
    /// What a model costs behind the queue, beside the same model called in process.
    Inference(inference::Options),
    /// Jobs through a storm of dying workers and a dying Redis: nothing lost, nothing twice. See scripts/chaos.
    Chaos(chaos::Options),
}

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().bench {
        Bench::Latency(options) => latency::run(&options)?,
        Bench::Throughput(options) => throughput::run(&options)?,
        Bench::Soak(options) => soak::run(&options)?,
        Bench::Queue(options) => queue::run(&options)?,
        Bench::Fleet(options) => fleet::run(&options)?,
        Bench::Inference(options) => inference::run(&options)?,
        Bench::Chaos(options) => return chaos::run(&options),
    }
    Ok(ExitCode::SUCCESS)
}

/// The worker whose jobs do nothing, of the same build as this program.
fn noop_worker() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()
        .context("a running program has a path")?
        .with_file_name("sandhog-noop-worker");
    ensure!(
        path.exists(),
        "{} does not exist; scripts/bench and scripts/chaos build it",
        path.display()
    );
    Ok(path)
}
