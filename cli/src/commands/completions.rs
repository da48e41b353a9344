//! `sandhog completions`: what to put where a shell looks for completions.

use crate::args::CompletionsArgs;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Output, Stream};

/// Prints the script.
pub(crate) fn completions(
    output: Output,
    args: &CompletionsArgs,
    mut command: clap::Command,
) -> Result<Exit, Fault> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "sandhog", &mut script);
    output.bytes(Stream::Out, &script)?;
    Ok(Exit::Success)
}
