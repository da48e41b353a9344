//! `sandhog tenant`, `sandhog pause` and `sandhog resume`, as typed.

use clap::{Args, Subcommand};
use sandhog_common::id::Tenant;
use sandhog_common::tenancy::{
    Burst, Change, MaxQueued, MaxRetained, MaxRunning, StartRate, Weight,
};

/// `sandhog tenant`.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// List tenants that have settings of their own
    List,
    /// Show one, with its jobs that run and wait
    Show(TenantNameArgs),
    /// Set its share and its limits; `none` lifts one
    Set(TenantSetArgs),
    /// Start none of its jobs until it is resumed; those that run go on
    Pause(TenantNamesArgs),
    /// Start its jobs again
    Resume(TenantNamesArgs),
    /// Lift everything set for it; its jobs stay
    Remove(TenantNamesArgs),
}

/// One tenant.
#[derive(Debug, Args)]
pub(crate) struct TenantNameArgs {
    /// The tenant
    #[arg(value_name = "NAME")]
    pub(crate) name: Tenant,
}

/// Some tenants.
#[derive(Debug, Args)]
pub(crate) struct TenantNamesArgs {
    /// The tenants
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<Tenant>,
}

/// `sandhog tenant set`.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("what")
        .args(["weight", "max_running", "rate", "burst", "max_queued", "max_retained"])
        .required(true)
        .multiple(true),
    after_help = "A limit that is raised or lifted lets jobs start within a second. One that is lowered leaves alone what runs already."
)]
pub(crate) struct TenantSetArgs {
    /// The tenant
    #[arg(value_name = "NAME")]
    pub(crate) name: Tenant,
    /// Its share beside the others', 0.001 to 1000 [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) weight: Option<Change<Weight>>,
    /// Run at most so many of its jobs at once
    #[arg(long, value_name = "N")]
    pub(crate) max_running: Option<Change<MaxRunning>>,
    /// Start at most so many of its jobs in a second, on average
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<Change<StartRate>>,
    /// Start at most so many at once under that rate [default: one second's worth]
    #[arg(long, value_name = "N")]
    pub(crate) burst: Option<Change<Burst>>,
    /// Let at most so many of its jobs wait for a worker; more are refused with backlog_full
    #[arg(long, value_name = "N")]
    pub(crate) max_queued: Option<Change<MaxQueued>>,
    /// Keep at most this much of its large results, such as 256MiB; the oldest lose their output
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_retained: Option<Change<MaxRetained>>,
}
