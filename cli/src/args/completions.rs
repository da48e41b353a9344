//! Arguments of `sandhog completions`.

use clap::Args;
use clap_complete::Shell;

/// `sandhog completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}
