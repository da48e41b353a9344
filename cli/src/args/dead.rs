//! Arguments of `sandhog dead`.

use clap::{ArgGroup, Args, Subcommand};
use sandhog_core::class::Class;
use sandhog_core::id::{JobId, Tenant};
use sandhog_queue::LetterId;

/// `sandhog dead`.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List dead letters, newest first
    List(DeadListArgs),
    /// Show one dead letter with its job
    Show(DeadShowArgs),
    /// Run the jobs of dead letters again, with all their attempts and a new result
    Requeue(DeadPickArgs),
    /// Delete dead letters; the results of their jobs expire at the usual time
    Drop(DeadPickArgs),
}

/// `sandhog dead list`.
#[derive(Debug, Args)]
pub(crate) struct DeadListArgs {
    /// The filter for dead letters.
    #[command(flatten)]
    pub(crate) filter: DeadFilterArgs,
    /// Show at most this many dead letters
    #[arg(
        long,
        value_name = "N",
        default_value_t = 50,
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    pub(crate) limit: u32,
    /// Show only dead letters older than this one, to get the next page
    #[arg(long, value_name = "LETTER")]
    pub(crate) before: Option<LetterId>,
}

/// `sandhog dead show`.
#[derive(Debug, Args)]
pub(crate) struct DeadShowArgs {
    /// Id of the job
    #[arg(value_name = "ID")]
    pub(crate) id: JobId,
}

/// `sandhog dead requeue` and `sandhog dead drop`.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("which")
        .args(["ids", "all", "reason", "class", "tenant"])
        .required(true)
        .multiple(true)
)]
pub(crate) struct DeadPickArgs {
    /// Ids of the jobs
    #[arg(value_name = "ID", conflicts_with_all = ["all", "reason", "class", "tenant"])]
    pub(crate) ids: Vec<JobId>,
    /// Select every dead letter
    #[arg(long, conflicts_with_all = ["reason", "class", "tenant"])]
    pub(crate) all: bool,
    /// The filter for dead letters.
    #[command(flatten)]
    pub(crate) filter: DeadFilterArgs,
}

/// A filter for dead letters. A letter must match every option that is given.
#[derive(Debug, Args)]
pub(crate) struct DeadFilterArgs {
    /// Only dead letters with this reason, such as attempts_lost
    #[arg(long, value_name = "CODE")]
    pub(crate) reason: Option<String>,
    /// Only dead letters of this class
    #[arg(long, value_name = "TAGS")]
    pub(crate) class: Option<Class>,
    /// Only dead letters of this tenant
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<Tenant>,
}
