//! The `sandhog` command: parses the command line, runs one command and maps its result to an exit
//! code.

mod app;
mod args;
mod catalogue;
mod commands;
mod embedded;
mod exit;
mod fault;
mod output;
mod put;
mod quantity;
mod session;
mod signals;
mod submission;
mod top;

use std::process::ExitCode;

fn main() -> ExitCode {
    app::run().into()
}
