//! The command line as a whole.

use clap::Parser;

use super::command::Command;
use super::global::GlobalArgs;

/// Run untrusted code in capped containers, from a durable queue.
///
/// Without a Redis address, `run` and `up` start a Redis and a worker of their own; every other
/// command finds a running `sandhog up` by itself.
#[derive(Debug, Parser)]
#[command(name = "sandhog", version, after_long_help = crate::exit::Exit::table())]
pub(crate) struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}
