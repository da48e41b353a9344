//! `sandhog schedule`, as typed.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sandhog_common::id::ScheduleName;
use sandhog_common::schedule::{Missed, Overlap};

use super::job::{CapArgs, ProgramArgs, RoutingArgs, ScheduleArgs};

/// `sandhog schedule`.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Submit a job at each time of a cron expression
    Add(Box<ScheduleAddArgs>),
    /// List schedules, the one due next first
    List,
    /// Show one, with its job
    Show(ScheduleNameArgs),
    /// Remove schedules; jobs they have submitted stay
    Remove(ScheduleNamesArgs),
    /// Stop schedules until they are resumed
    Pause(ScheduleNamesArgs),
    /// Resume schedules; firings due in the meantime are not made up for
    Resume(ScheduleNamesArgs),
    /// Submit a schedule's job now and print its id
    RunNow(ScheduleNameArgs),
}

/// `sandhog schedule add`.
#[derive(Debug, Args)]
#[command(
    override_usage = "sandhog schedule add [OPTIONS] NAME CRON FILE [ARGUMENT]...\n       sandhog schedule add [OPTIONS] NAME CRON --code CODE [-- ARGUMENT...]\n       sandhog schedule add [OPTIONS] NAME CRON --file JSON\n       sandhog schedule add [OPTIONS] NAME CRON -- PROGRAM [ARGUMENT]...",
    after_help = "Each firing is a job of its own with the id cron:NAME:DUE, where DUE is the time it was due in milliseconds since 1970, so it runs once however many workers there are.\n\nExamples:\n  sandhog schedule add nightly '30 3 * * *' report.py --zone Europe/Berlin --overlap skip\n  sandhog schedule add poll '*/30 * * * * *' -c 'print(1)' --ttl 1m"
)]
pub(crate) struct ScheduleAddArgs {
    /// The schedule's name
    #[arg(value_name = "NAME")]
    pub(crate) name: ScheduleName,
    /// Minute, hour, day of month, month and day of week, such as '30 3 * * MON-FRI'; a sixth field in front is the second; or @hourly, @daily, @weekly, @monthly, @yearly
    #[arg(value_name = "CRON")]
    pub(crate) cron: String,
    /// Time zone of the expression, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub(crate) zone: String,
    /// Firings missed while no worker ran: skip fires once for all of them, all fires each, up to
    /// 100
    #[arg(long, value_name = "skip|all", default_value = "skip")]
    pub(crate) missed: Missed,
    /// While the last firing's job has not ended: allow a second one, or skip the new one
    #[arg(long, value_name = "allow|skip", default_value = "allow")]
    pub(crate) overlap: Overlap,
    /// Replace a schedule of the same name
    #[arg(long)]
    pub(crate) replace: bool,
    /// What runs.
    #[command(flatten)]
    pub(crate) program: ProgramArgs,
    /// The job as JSON, one payload on one line; - is standard input
    #[arg(
        long = "file",
        value_name = "JSON",
        group = "what",
        conflicts_with_all = ["source", "code", "argv"]
    )]
    pub(crate) job: Option<PathBuf>,
    /// Under which caps.
    #[command(flatten)]
    pub(crate) caps: CapArgs,
    /// Whose it is and who may run it.
    #[command(flatten)]
    pub(crate) routing: RoutingArgs,
    /// When and how often each job runs.
    #[command(flatten)]
    pub(crate) schedule: ScheduleArgs,
}

/// One schedule.
#[derive(Debug, Args)]
pub(crate) struct ScheduleNameArgs {
    /// The schedule
    #[arg(value_name = "NAME")]
    pub(crate) name: ScheduleName,
}

/// Some schedules.
#[derive(Debug, Args)]
pub(crate) struct ScheduleNamesArgs {
    /// The schedules
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<ScheduleName>,
}
