//! The command line: what can be typed, with its help. It decides nothing.

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
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Read settings from this file alone [default: /etc/sandhog/sandhog.toml, then the user's own]
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
    /// Log what matches this filter, such as debug or sandhog_worker=debug
    #[arg(long, global = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// Print JSON: one object, or one line for each item
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no progress and no notes
    #[arg(long, short, global = true, action = ArgAction::SetTrue)]
    pub(crate) quiet: bool,
}

impl GlobalArgs {
    /// The flags that are settings.
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

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run one program to its end and pass on its output and exit code
    Run(Box<RunArgs>),
    /// Ask a model one question and print its answer
    Infer(Box<InferArgs>),
    /// Put jobs on the queue and print their ids
    Submit(Box<SubmitArgs>),
    /// Wait for results
    Wait(WaitArgs),
    /// Show what a job printed
    Logs(LogsArgs),
    /// Cancel jobs
    Cancel(CancelArgs),
    /// Show the queue, or one job
    Status(StatusArgs),
    /// Watch the queue: classes, workers, running jobs, recent outcomes
    Top(TopArgs),
    /// List jobs that were given up; run them again or drop them
    #[command(subcommand)]
    Dead(DeadCommand),
    /// Submit jobs on a cron schedule
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Share the workers among tenants: weights, limits, pauses
    #[command(subcommand)]
    Tenant(TenantCommand),
    /// Start no jobs until `resume`; running jobs go on, and new ones are accepted
    Pause,
    /// Start waiting jobs again, within a second
    Resume,
    /// Claim and run jobs until told to stop
    Worker(WorkerArgs),
    /// Build, list and check the images jobs run in
    #[command(subcommand)]
    Images(ImagesCommand),
    /// Start everything on this machine: Redis, images, a worker
    Up(WorkerArgs),
    /// Check this machine, Redis, the engine and the images
    Doctor,
    /// Show the settings in force
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Become a redis-server that ends with its parent
    #[command(name = "redis-guard", hide = true)]
    RedisGuard(GuardArgs),
}

/// Reads `KEY=VALUE`.
fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("want KEY=VALUE".to_owned()),
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
