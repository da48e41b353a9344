//! Arguments of the commands about submitted jobs: `wait`, `logs` and `cancel`.

use clap::Args;
use sandhog_core::id::{JobId, ReplyName};
use sandhog_core::units::Millis;

use crate::quantity;

/// `sandhog wait`.
#[derive(Debug, Args)]
#[command(
    after_help = "For one job, this command prints the job's output and exits with its exit code, \
        as `run` does. For several jobs, it prints one line for each job that has ended. It then \
        exits with 0 if all jobs succeeded, with 66 if one of them is unknown, and otherwise \
        with 1."
)]
pub(crate) struct WaitArgs {
    /// Ids of the jobs; `-` reads ids from standard input, one on each line
    #[arg(required_unless_present = "reply", value_name = "ID")]
    pub(crate) ids: Vec<JobId>,
    /// Read results from this reply stream: those of the given jobs, or all results if no job is
    /// given
    #[arg(long, value_name = "NAME")]
    pub(crate) reply: Option<ReplyName>,
    /// Stop after this many results of the reply stream; results that the stream no longer holds
    /// count too
    #[arg(long, value_name = "N", requires = "reply", conflicts_with = "ids")]
    pub(crate) count: Option<u64>,
    /// Wait at most this long in total [default: no limit]
    #[arg(long, short, value_name = "DURATION", value_parser = quantity::parse_duration)]
    pub(crate) timeout: Option<Millis>,
    /// Also print the value, as JSON after the program's output
    #[arg(long)]
    pub(crate) value: bool,
}

/// `sandhog logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Id of the job
    #[arg(value_name = "ID")]
    pub(crate) id: JobId,
    /// Follow the output until the job ends
    #[arg(long, short)]
    pub(crate) follow: bool,
}

/// `sandhog cancel`.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// Ids of the jobs
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<JobId>,
}
