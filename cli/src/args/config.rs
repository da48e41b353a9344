//! Arguments of `sandhog config`.

use clap::{Args, Subcommand};

/// `sandhog config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Show the value of every setting
    Show(ConfigShowArgs),
    /// List every setting with its variable, default and meaning
    Keys,
}

/// `sandhog config show`.
#[derive(Debug, Args)]
pub(crate) struct ConfigShowArgs {
    /// Also show where each value comes from
    #[arg(long)]
    pub(crate) origin: bool,
}
