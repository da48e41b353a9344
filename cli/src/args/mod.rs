//! The command line: its commands, arguments and help texts. It contains no logic of the commands.

mod dead;
mod infer;
mod job;
mod manage;
mod schedule;
mod tenant;

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};
use sandhog_common::config::Flag;

pub(crate) use dead::{DeadCommand, DeadFilterArgs, DeadListArgs, DeadPickArgs};
pub(crate) use infer::InferArgs;
pub(crate) use job::{CapArgs, ProgramArgs, RoutingArgs, RunArgs, ScheduleArgs, SubmitArgs};
pub(crate) use manage::{
    CancelArgs, CompletionsArgs, ConfigCommand, GuardArgs, ImagesBuildArgs, ImagesCommand,
    ImagesListArgs, LogsArgs, StatusArgs, TopArgs, WaitArgs, WorkerArgs,
};
pub(crate) use schedule::{ScheduleAddArgs, ScheduleCommand};
pub(crate) use tenant::{TenantCommand, TenantSetArgs};

/// Run untrusted code in capped containers, from a durable queue.
///
/// Without a Redis address, `run` and `up` start a Redis and a worker of their own; every other
/// command finds a running `sandhog up` by itself.
#[derive(Debug, Parser)]
#[command(name = "sandhog", version, after_long_help = crate::exit::Exit::table())]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Read settings only from this file [default: /etc/sandhog/sandhog.toml, then the file in the
    /// user's ~/.config/sandhog]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Use this Redis: redis://[user:password@]host:port[/db] or unix:/path
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) redis: Option<String>,
    /// Use the queue of this namespace
    #[arg(long, short, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Change any setting, such as worker.lease_ms=5000 (`sandhog config keys` lists them)
    #[arg(long = "set", global = true, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// Log filter, such as debug or sandhog_worker=debug
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Print JSON: one object, or one object per line for each item
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Do not print progress and notes
    #[arg(long, short, global = true, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

impl GlobalArgs {
    /// Returns the flags that change settings.
    #[must_use]
    pub(crate) fn flags(&self) -> Vec<Flag> {
        let named = [
            ("redis.url", &self.redis, "--redis"),
            ("namespace", &self.namespace, "--namespace"),
            ("log.filter", &self.log, "--log"),
        ];
        let named = named
            .into_iter()
            .filter_map(|(key, value, name)| Some((key.to_owned(), value.clone()?, name)));
        let set = self
            .set
            .iter()
            .cloned()
            .map(|(key, value)| (key, value, "--set"));
        set.chain(named)
            .map(|(key, value, name)| Flag {
                key,
                value,
                name: name.to_owned(),
            })
            .collect()
    }
}

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

/// Parses `KEY=VALUE`.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("expected KEY=VALUE".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
