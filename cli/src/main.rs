//! The `sandhog` command: parses, starts, and maps what happened to an exit code.

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
