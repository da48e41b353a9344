//! `sandhog dead`, as typed.

use clap::{ArgGroup, Args, Subcommand};
use sandhog_common::class::Class;
use sandhog_common::id::{JobId, Tenant};
use sandhog_common::queue::LetterId;

/// `sandhog dead`.
#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List dead letters, newest first
    List(DeadListArgs),
    /// Show one, with its job
    Show(DeadShowArgs),
    /// Run them again, with all their attempts and a new result
    Requeue(DeadPickArgs),
    /// Drop them; their results stay as long as they would have
    Drop(DeadPickArgs),
}

/// `sandhog dead list`.
#[derive(Debug, Args)]
pub(crate) struct DeadListArgs {
    /// Which.
    #[command(flatten)]
    pub(crate) filter: DeadFilterArgs,
    /// Show at most this many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) limit: u32,
    /// Show letters older than this one, for the next page
    #[arg(long, value_name = "LETTER")]
    pub(crate) before: Option<LetterId>,
}

/// `sandhog dead show`.
#[derive(Debug, Args)]
pub(crate) struct DeadShowArgs {
    /// The job
    #[arg(value_name = "ID")]
    pub(crate) id: JobId,
}

/// `sandhog dead requeue` and `sandhog dead drop`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").args(["ids", "all", "reason", "class", "tenant"]).required(true).multiple(true))]
pub(crate) struct DeadPickArgs {
    /// The jobs
    #[arg(value_name = "ID", conflicts_with_all = ["all", "reason", "class", "tenant"])]
    pub(crate) ids: Vec<JobId>,
    /// Every dead letter
    #[arg(long, conflicts_with_all = ["reason", "class", "tenant"])]
    pub(crate) all: bool,
    /// Which.
    #[command(flatten)]
    pub(crate) filter: DeadFilterArgs,
}

/// Which dead letters are meant: those that fit all that is given.
#[derive(Debug, Args)]
pub(crate) struct DeadFilterArgs {
    /// Only letters with this reason, such as attempts_lost
    #[arg(long, value_name = "CODE")]
    pub(crate) reason: Option<String>,
    /// Only letters of this class
    #[arg(long, value_name = "TAGS")]
    pub(crate) class: Option<Class>,
    /// Only letters of this tenant
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<Tenant>,
}
