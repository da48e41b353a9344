//! A redis-server that cannot outlive us.
//!
//! The server is started through this program itself, which first asks the kernel to end it when its parent dies, and
//! then becomes redis-server. So even `kill -9` leaves no server behind.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

use crate::args::GuardArgs;
use crate::exit::Exit;
use crate::fault::Fault;

/// Becomes the server. Returns only when that fails.
pub(crate) fn become_server(args: &GuardArgs) -> Fault {
    if let Err(error) = prctl::set_pdeathsig(Signal::SIGTERM) {
        return Fault::new(Exit::Fault, error);
    }
    // The parent may have died before the kernel was asked.
    if getppid().as_raw().unsigned_abs() != args.parent {
        return Fault::message(Exit::Fault, "the parent process is gone");
    }
    let (program, rest) = match args.argv.split_first() {
        Some(split) => split,
        None => return Fault::message(Exit::Usage, "no server is named"),
    };
    let error = Command::new(program).args(rest).exec();
    Fault::new(
        Exit::Fault,
        anyhow::Error::new(error).context(format!("could not become {program}")),
    )
}
