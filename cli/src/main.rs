//! The `sandhog` command: parses the command line, runs one command and maps its result to an exit
//! code.

mod app;
mod args;
mod catalogue;
mod commands;
mod context;
mod embedded;
mod error;
mod exit;
mod input_file;
mod job_request;
mod output;
mod put;
mod quantity;
mod signals;
mod target;
mod top;

use std::process::ExitCode;

fn main() -> ExitCode {
    app::run_app().into()
}
