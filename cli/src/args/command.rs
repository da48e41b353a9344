//! The commands.

use clap::Subcommand;

use super::completions::CompletionsArgs;
use super::config::ConfigCommand;
use super::dead::DeadCommand;
use super::images::ImagesCommand;
use super::infer::InferArgs;
use super::run::RunArgs;
use super::schedule::ScheduleCommand;
use super::status::{StatusArgs, TopArgs};
use super::submit::SubmitArgs;
use super::tenant::TenantCommand;
use super::wait::{CancelArgs, LogsArgs, WaitArgs};
use super::worker::{GuardArgs, WorkerArgs};

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one program to its end, print its output and exit with its exit code
    Run(Box<RunArgs>),
    /// Call a model once and print its answer
    Infer(Box<InferArgs>),
    /// Add jobs to the queue and print their ids
    Submit(Box<SubmitArgs>),
    /// Wait for jobs to end and print their results
    Wait(WaitArgs),
    /// Show the output of a job
    Logs(LogsArgs),
    /// Cancel jobs
    Cancel(CancelArgs),
    /// Show the state of the queue, or of one job
    Status(StatusArgs),
    /// Watch the queue live: classes, workers, running jobs, recent outcomes
    Top(TopArgs),
    /// List dead letters (jobs that were given up), run them again or delete them
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Submit jobs on a cron schedule
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Set how tenants share the workers: weights, limits, pauses
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Start no jobs until `sandhog resume`; running jobs continue, and new jobs are accepted
    Pause,
    /// Start waiting jobs again after `sandhog pause`, within a second
    Resume,
    /// Run a worker: claim and run jobs until it is stopped
    Worker(WorkerArgs),
    /// Build, list and check the images that jobs run in
    #[command(subcommand)]
    Images(ImagesCommand),
    /// Start Redis and a worker on this machine, and build missing images
    Up(WorkerArgs),
    /// Check this machine, Redis, the container engine and the images
    Doctor,
    /// Show the settings in force, or list all settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Become a redis-server that ends when its parent does
    #[command(name = "redis-guard", hide = true)]
    RedisGuard(GuardArgs),
}
