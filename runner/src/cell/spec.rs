//! Plan of a cell and of the program in it. The runner makes it and the cell's init carries it out.

use std::os::fd::OwnedFd;

use nix::errno::Errno;

use sandhog_protocol::frames::{CellCaps, InputFile};

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
    pub(super) source: Option<SourceFile<'a>>,
    /// The program's standard input.
    pub(super) stdin: &'a [u8],
    /// The call's input, for a program without a harness.
    pub(super) input: Option<&'a str>,
    pub(super) files: &'a [InputFile],
    /// The cap on the program's CPU time, in milliseconds.
    pub(super) cpu_ms: u64,
    pub(super) fds: ProgramFds,
}

/// A file to put in the working directory before the program starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceFile<'a> {
    /// The file's name, without a directory.
    pub(super) name: &'a str,
    /// The file's content.
    pub(super) text: &'a str,
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
