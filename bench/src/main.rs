//! Benchmarks: Sandhog beside what people would use instead, in turn, in one run.
//!
//! Each prints a table of medians and, as its very last line, one JSON object with the figures, the aims and whether
//! every aim was met. A machine's speed drifts, so rivals take turns round by round and ratios count, not lone
//! figures. Nothing here decides a test.

mod latency;
mod peers;
mod report;
mod throughput;

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
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().bench {
        Bench::Latency(options) => latency::run(&options),
        Bench::Throughput(options) => throughput::run(&options),
    }
}
