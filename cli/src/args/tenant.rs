//! Arguments of `sandhog tenant`.

use clap::{Args, Subcommand};
use sandhog_core::id::Tenant;
use sandhog_core::tenant_limits::{
    Burst, Change, MaxQueued, MaxRetained, MaxRunning, StartRate, Weight,
};

/// `sandhog tenant`.
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// List tenants that have settings of their own
    List,
    /// Show one tenant with the numbers of its running and waiting jobs
    Show(TenantNameArgs),
    /// Set a tenant's weight and limits; the value `none` removes one
    Set(TenantSetArgs),
    /// Start no jobs of these tenants until they are resumed; running jobs continue
    Pause(TenantNamesArgs),
    /// Start the jobs of paused tenants again
    Resume(TenantNamesArgs),
    /// Remove all settings of tenants; their jobs stay
    Remove(TenantNamesArgs),
}

/// One tenant.
#[derive(Debug, Args)]
pub(crate) struct TenantNameArgs {
    /// Name of the tenant
    #[arg(value_name = "NAME")]
    pub(crate) name: Tenant,
}

/// Some tenants.
#[derive(Debug, Args)]
pub(crate) struct TenantNamesArgs {
    /// Names of the tenants
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
    after_help = "After a limit is raised or removed, waiting jobs start within a second. Lowering \
        a limit does not affect jobs that already run."
)]
pub(crate) struct TenantSetArgs {
    /// Name of the tenant
    #[arg(value_name = "NAME")]
    pub(crate) name: Tenant,
    /// Share of the workers relative to other tenants, 0.001 to 1000 [default: 1]
    #[arg(long, value_name = "N")]
    pub(crate) weight: Option<Change<Weight>>,
    /// Most jobs of the tenant that run at the same time
    #[arg(long, value_name = "N")]
    pub(crate) max_running: Option<Change<MaxRunning>>,
    /// Most jobs of the tenant that start in one second, on average
    #[arg(long, value_name = "PER_SECOND")]
    pub(crate) rate: Option<Change<StartRate>>,
    /// Most jobs that start at once under --rate [default: the number for one second]
    #[arg(long, value_name = "N")]
    pub(crate) burst: Option<Change<Burst>>,
    /// Most jobs of the tenant that wait for a worker; further jobs are rejected with backlog_full
    #[arg(long, value_name = "N")]
    pub(crate) max_queued: Option<Change<MaxQueued>>,
    /// Most bytes that are kept of the tenant's large results, such as 256MiB; the oldest results
    /// lose their output
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_retained: Option<Change<MaxRetained>>,
}
