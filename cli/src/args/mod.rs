//! The command line: its commands, arguments and help texts. It contains no logic of the commands.

mod cli;
mod command;
mod completions;
mod config;
mod dead;
mod global;
mod images;
mod infer;
mod job_options;
mod key_value;
mod run;
mod schedule;
mod status;
mod submit;
mod tenant;
mod wait;
mod worker;

pub(crate) use cli::Cli;
pub(crate) use command::Command;
pub(crate) use completions::CompletionsArgs;
pub(crate) use config::ConfigCommand;
pub(crate) use dead::{DeadCommand, DeadFilterArgs, DeadListArgs, DeadPickArgs};
pub(crate) use images::{ImagesBuildArgs, ImagesCommand, ImagesListArgs};
pub(crate) use infer::InferArgs;
pub(crate) use job_options::{CapArgs, JobOptions, ProgramArgs, RoutingArgs};
pub(crate) use run::RunArgs;
pub(crate) use schedule::{ScheduleAddArgs, ScheduleCommand};
pub(crate) use status::{StatusArgs, TopArgs};
pub(crate) use submit::SubmitArgs;
pub(crate) use tenant::{TenantCommand, TenantSetArgs};
pub(crate) use wait::{CancelArgs, LogsArgs, WaitArgs};
pub(crate) use worker::{GuardArgs, WorkerArgs};
