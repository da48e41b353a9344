//! The scripts that a runner in memory interprets: a part of the shell's language, so that the same
//! script runs in a real container.

use std::time::Duration;

use sandhog_protocol::frames::Stream;

/// One command of a script.
#[derive(Debug, PartialEq)]
pub(super) enum Command {
    /// `echo TEXT`, or `echo TEXT >&2` for standard error.
    Echo(Stream, String),
    /// `cat`: copies standard input to standard output.
    Cat,
    /// `sleep SECONDS`.
    Sleep(Duration),
    /// `exit CODE`.
    Exit(i32),
    /// A command that the interpreter does not know.
    Unknown(String),
}

/// Splits a script at its semicolons.
pub(super) fn commands(script: &str) -> Vec<Command> {
    let parts = script.split(';').map(str::trim);
    parts.filter(|part| !part.is_empty()).map(command).collect()
}

fn command(text: &str) -> Command {
    let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
    let known = match name {
        "echo" => Some(match rest.strip_suffix(" >&2") {
            Some(rest) => Command::Echo(Stream::Stderr, format!("{rest}\n")),
            None => Command::Echo(Stream::Stdout, format!("{rest}\n")),
        }),
        "cat" if rest.is_empty() => Some(Command::Cat),
        "sleep" => rest
            .parse()
            .ok()
            .map(Duration::from_secs)
            .map(Command::Sleep),
        "exit" => rest.parse().ok().map(Command::Exit),
        _ => None,
    };
    known.unwrap_or_else(|| Command::Unknown(text.to_owned()))
}

#[test]
fn a_script_is_split_into_commands() {
    let script = "echo a b; echo c >&2; cat; sleep 2; exit 3; exit x;";
    let want = [
        Command::Echo(Stream::Stdout, "a b\n".to_owned()),
        Command::Echo(Stream::Stderr, "c\n".to_owned()),
        Command::Cat,
        Command::Sleep(Duration::from_secs(2)),
        Command::Exit(3),
        Command::Unknown("exit x".to_owned()),
    ];
    assert_eq!(commands(script), want);
}
