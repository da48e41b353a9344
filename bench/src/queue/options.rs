//! Options of the benchmark of the queue.

use clap::Args;

/// Options of the benchmark.
#[derive(Debug, Args)]
pub(crate) struct QueueOptions {
    /// Number of jobs in one turn of the fast contenders (Sandhog, BullMQ, apalis); the others take
    /// a fifth.
    #[arg(long, default_value_t = 10_000)]
    pub(super) jobs: usize,
    /// Number of turns that each contender takes.
    #[arg(long, default_value_t = 3)]
    pub(super) turns: usize,
    /// Number of jobs at once, for every contender.
    #[arg(long, default_value_t = 8)]
    pub(super) concurrency: usize,
    /// Policy by which Redis writes its append-only file to disk: always, everysec or no.
    #[arg(long, default_value = "everysec")]
    pub(super) appendfsync: String,
    /// Queue depths at which claims are measured, in rising order.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 100_000, 1_000_000])]
    pub(super) depths: Vec<usize>,
    /// Number of jobs over which the worker's memory and the leftovers in Redis are measured.
    #[arg(long, default_value_t = 100_000)]
    pub(super) memory_jobs: usize,
    /// Leave the other queues out.
    #[arg(long)]
    pub(super) alone: bool,
}
