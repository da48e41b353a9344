//! Plan of a cell and of the program in it. The runner makes it and the cell's init carries it out.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use sandhog_protocol::frames::{Call, CellCaps, InputFile};

use super::PreparedContainer;
use super::cgroup::Group;
use super::environment::CommandLine;

/// Plan of the cell to build.
#[derive(Debug)]
pub(super) struct CellSpec<'a> {
    pub(super) container: &'a PreparedContainer,
    pub(super) group: Option<&'a Group>,
    pub(super) caps: &'a CellCaps,
    /// Network namespace to reuse, if it is still unused. If this is `None`, the runner started
    /// this process in a new one.
    pub(super) pooled_network: Option<OwnedFd>,
}

/// Program to start in the cell.
#[derive(Debug)]
pub(super) struct ProgramSpec<'a> {
    pub(super) invocation: Result<CommandLine, Errno>,
    /// The call of the program.
    pub(super) call: &'a Call,
    /// The files of the cell, to put into the working directory before the program starts.
    pub(super) files: &'a [InputFile],
    pub(super) fds: ProgramFds,
}

/// The program's ends of its streams.
#[derive(Debug)]
pub(super) struct ProgramFds {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) harness: Option<OwnedFd>,
    /// The socket for inference requests, if the program may send them.
    pub(super) infer: Option<OwnedFd>,
}
