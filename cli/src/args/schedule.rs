//! Arguments of `sandhog schedule`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sandhog_core::id::ScheduleName;
use sandhog_core::schedule::{Missed, Overlap};

use super::job_options::JobOptions;

/// `sandhog schedule`.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Add a schedule, which submits a job at each time of a cron expression
    Add(Box<ScheduleAddArgs>),
    /// List schedules, the one due next first
    List,
    /// Show one schedule with its job
    Show(ScheduleNameArgs),
    /// Remove schedules; jobs that they have submitted stay
    Remove(ScheduleNamesArgs),
    /// Pause schedules until they are resumed
    Pause(ScheduleNamesArgs),
    /// Resume schedules; firings that were due during the pause are skipped
    Resume(ScheduleNamesArgs),
    /// Submit a schedule's job now and print its id
    RunNow(ScheduleNameArgs),
}

/// `sandhog schedule add`.
#[derive(Debug, Args)]
#[command(
    override_usage = "sandhog schedule add [OPTIONS] NAME CRON FILE [ARGUMENT]...\n       \
        sandhog schedule add [OPTIONS] NAME CRON --code CODE [-- ARGUMENT...]\n       \
        sandhog schedule add [OPTIONS] NAME CRON --file JSON\n       \
        sandhog schedule add [OPTIONS] NAME CRON -- PROGRAM [ARGUMENT]...",
    after_help = "Each firing submits a job of its own with the id cron:NAME:DUE, where DUE is the \
        time at which the firing was due, in milliseconds since 1970. Because of this id, the job \
        runs only once, however many workers there are.\n\n\
        Examples:\n  \
        sandhog schedule add nightly '30 3 * * *' report.py --zone Europe/Berlin --overlap skip\n  \
        sandhog schedule add poll '*/30 * * * * *' -c 'print(1)' --ttl 1m"
)]
pub(crate) struct ScheduleAddArgs {
    /// Name of the schedule
    #[arg(value_name = "NAME")]
    pub(crate) name: ScheduleName,
    /// Cron expression: minute, hour, day of month, month and day of week, such as
    /// '30 3 * * MON-FRI'; with six fields, the first is the second; or one of @hourly, @daily,
    /// @weekly, @monthly, @yearly
    #[arg(value_name = "CRON")]
    pub(crate) cron: String,
    /// Time zone of the expression, such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    pub(crate) zone: String,
    /// Handling of firings that were missed while no worker ran: skip fires once for all of them,
    /// all fires each of them, up to 100
    #[arg(long, value_name = "skip|all", default_value = "skip")]
    pub(crate) missed: Missed,
    /// Handling of a firing that is due before the previous firing's job has ended: allow starts a
    /// second job, skip omits the firing
    #[arg(long, value_name = "allow|skip", default_value = "allow")]
    pub(crate) overlap: Overlap,
    /// Replace the schedule of the same name, if there is one
    #[arg(long)]
    pub(crate) replace: bool,
    /// The job that each firing submits.
    #[command(flatten)]
    pub(crate) options: JobOptions,
    /// File with the job as JSON, one payload on one line; - is standard input
    #[arg(
        long = "file",
        value_name = "JSON",
        group = "what",
        conflicts_with_all = ["source", "code", "argv"]
    )]
    pub(crate) job: Option<PathBuf>,
}

/// One schedule.
#[derive(Debug, Args)]
pub(crate) struct ScheduleNameArgs {
    /// Name of the schedule
    #[arg(value_name = "NAME")]
    pub(crate) name: ScheduleName,
}

/// Some schedules.
#[derive(Debug, Args)]
pub(crate) struct ScheduleNamesArgs {
    /// Names of the schedules
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<ScheduleName>,
}
