//! `sandhog completions`: prints a completion script for a shell.

use clap::Command;
use clap::builder::PossibleValuesParser;

use crate::args::CompletionsArgs;
use crate::catalogue::Catalogue;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{OutputStream, Printer};

/// Arguments that take the name of an image: the path of the subcommand and the argument.
const IMAGE_ARGUMENTS: [(&[&str], &str); 6] = [
    (&["run"], "image"),
    (&["submit"], "image"),
    (&["schedule", "add"], "image"),
    (&["infer"], "image"),
    (&["images", "build"], "images"),
    (&["images", "check"], "names"),
];

/// Prints the script. It completes the names of the images that are known when it is generated.
pub(crate) fn completions(
    output: Printer,
    args: &CompletionsArgs,
    command: Command,
    catalogue: &Catalogue,
) -> Result<Exit, CliError> {
    // The parser requires `'static` names. Leaking them is fine, because the process ends soon.
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
    output.bytes(OutputStream::Out, &script)?;
    Ok(Exit::Success)
}

/// Returns the command without its hidden subcommands.
fn without_hidden(command: &Command) -> Command {
    let shown = command
        .get_subcommands()
        .filter(|below| !below.is_hide_set())
        .cloned();
    Command::new("sandhog")
        .args(command.get_arguments().cloned())
        .subcommands(shown)
}

/// Returns the command with these possible values for an argument of the subcommand at `path`.
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
