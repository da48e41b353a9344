//! A redis-server that ends when `sandhog` does.
//!
//! `sandhog` starts the server through a second process of this program. That process asks the
//! kernel to send it SIGTERM when its parent dies, and then replaces itself by redis-server. Even
//! after `kill -9` of `sandhog`, no server is left behind.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use crate::args::GuardArgs;
use crate::error::CliError;
use crate::exit::Exit;

/// Replaces this process by the server. Returns only if that fails.
pub(crate) fn become_guarded_server(args: &GuardArgs) -> CliError {
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGTERM) {
        return CliError::new(Exit::Fault, error);
    }
    // The parent may have died before the call to `prctl`.
    if getppid().as_raw().unsigned_abs() != args.parent {
        return CliError::message(
            Exit::Fault,
            format!("the parent process {} has ended", args.parent),
        );
    }
    let (program, rest) = match args.argv.split_first() {
        Some(split) => split,
        None => return CliError::message(Exit::Usage, "the path of redis-server is missing"),
    };
    let error = Command::new(program).args(rest).exec();
    CliError::new(
        Exit::Fault,
        anyhow::Error::new(error).context(format!("could not execute {program}")),
    )
}
