//! Arguments of the commands that show the queue: `status` and `top`.

use clap::Args;
use sandhog_core::id::JobId;
use sandhog_core::units::Millis;

use crate::quantity;

/// `sandhog status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Id of a job [default: the whole queue]
    #[arg(value_name = "ID")]
    pub(crate) id: Option<JobId>,
}

/// `sandhog top`.
#[derive(Debug, Args)]
#[command(
    after_help = "Keys: q quit, s sort running jobs, r reverse the order, / filter, Esc show all, \
        p freeze the screen, arrows scroll.\n\n\
        Without a terminal, this command prints the tables once, $COLUMNS characters wide, and \
        exits."
)]
pub(crate) struct TopArgs {
    /// Time between two refreshes
    #[arg(
        long,
        short,
        value_name = "DURATION",
        default_value = "1s",
        value_parser = quantity::parse_interval
    )]
    pub(crate) interval: Millis,
    /// Print the tables once and exit
    #[arg(long)]
    pub(crate) once: bool,
}
