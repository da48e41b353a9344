//! `sandhog completions`: the script to put where a shell looks for completions.

use clap::Command;
use clap::builder::PossibleValuesParser;

use crate::args::CompletionsArgs;
use crate::catalogue::Catalogue;
use crate::exit::Exit;
use crate::fault::Fault;
use crate::output::{Output, Stream};

/// Arguments that are names of images, each with the commands that have it.
const IMAGE_ARGUMENTS: [(&[&str], &str); 6] = [
    (&["run"], "image"),
    (&["submit"], "image"),
    (&["schedule", "add"], "image"),
    (&["infer"], "image"),
    (&["images", "build"], "images"),
    (&["images", "check"], "names"),
];

/// Prints the script. It completes the names of the images that are known when it is made.
pub(crate) fn completions(
    output: Output,
    args: &CompletionsArgs,
    command: Command,
    catalogue: &Catalogue,
) -> Result<Exit, Fault> {
    // The parser takes names that live as long as the process, which ends soon.
    let names: Vec<&'static str> = catalogue
        .names()
        .iter()
        .map(|&name| &*name.to_owned().leak())
        .collect();
    let mut command = IMAGE_ARGUMENTS
        .iter()
        .fold(without_hidden(&command), |command, (path, argument)| {
            with_values(command, path, argument, &names)
        });
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "sandhog", &mut script);
    output.bytes(Stream::Out, &script)?;
    Ok(Exit::Success)
}

/// The same command without the subcommands that help does not show.
fn without_hidden(command: &Command) -> Command {
    let shown = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
        .cloned();
    Command::new("sandhog")
        .args(command.get_arguments().cloned())
        .subcommands(shown)
}

/// The same command, with these values for an argument of the subcommand at `path`.
fn with_values(
    command: Command,
    path: &[&str],
    argument: &str,
    values: &[&'static str],
) -> Command {
    match path.split_first() {
        Some((first, rest)) => {
            command.mut_subcommand(*first, |below| with_values(below, rest, argument, values))
        }
        None => command.mut_arg(argument, |argument| {
            argument.value_parser(PossibleValuesParser::new(values.to_vec()))
        }),
    }
}
