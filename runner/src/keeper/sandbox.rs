//! One sandbox of a keeper: a runner as PID 1 of its own namespaces, in its own cgroup.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, execve, pipe2};

use sandhog_protocol::frames::ProgramEnd;
use sandhog_protocol::install::RUNNER_PATH;
use sandhog_protocol::keeper::{EndStatus, MAX_STDERR, SandboxEnd, ZygoteProgram};

use crate::cell::{
    CellError, KEEPER_FD, KEEPER_FD_VARIABLE, SandboxCgroup, SandboxMounts, Step, TRIED_VARIABLE,
    clone, clone_into, close_at_exec_from, control_pair, exit_now, install_at, move_out_of_the_way,
};
use crate::connection::retry;

/// The program that a sandbox runs: the keeper's own.
const OWN_PROGRAM: &std::ffi::CStr = c"/proc/self/exe";

/// Exit code of a child that could not become a runner.
const NOT_STARTED: i32 = 70;

/// Bytes of standard error that are read at once.
const READ_BYTES: usize = 4096;

/// The namespaces that a sandbox enters after its fork, which makes the process namespace.
/// The cgroup namespace comes after the process has joined its cgroup, which becomes the root of
/// that namespace.
const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWNS
    .union(CloneFlags::CLONE_NEWIPC)
    .union(CloneFlags::CLONE_NEWUTS)
    .union(CloneFlags::CLONE_NEWCGROUP);

/// The properties of a new sandbox.
#[derive(Debug)]
pub(super) struct SandboxSpec<'a> {
    /// The name.
    pub(super) name: String,
    /// The cgroup. `None` if the container has none.
    pub(super) cgroup: Option<SandboxCgroup>,
    /// The zygote with which the worker opened the sandbox.
    pub(super) zygote: Option<ZygoteProgram>,
    /// The mounts of each sandbox.
    pub(super) mounts: &'a SandboxMounts,
    /// True if the keeper's trial sandbox missed no feature.
    pub(super) is_tried: bool,
}

/// A running sandbox.
#[derive(Debug)]
pub(super) struct Sandbox {
    name: String,
    process: Pid,
    /// The keeper's copy of the connection, by which it learns that the worker has closed it. The
    /// worker learns of the end of the sandbox when this copy is closed.
    connection: UnixStream,
    cgroup: Option<SandboxCgroup>,
    stderr: Option<File>,
    stderr_start: Vec<u8>,
    /// The socket on which the runner requests a server of the zygote, until it has done so.
    requests: Option<OwnedFd>,
    /// The zygote with which the worker opened the sandbox.
    zygote: Option<ZygoteProgram>,
    killed: bool,
}

impl Sandbox {
    /// Starts a runner that has `connection` as its standard input and output.
    ///
    /// # Errors
    /// Fails if the kernel refuses a step of the fork. A step that fails in the new process is its
    /// exit code and its standard error.
    pub(super) fn start(spec: SandboxSpec<'_>, connection: UnixStream) -> Result<Self, CellError> {
        let SandboxSpec {
            name,
            cgroup,
            zygote,
            mounts,
            is_tried,
        } = spec;
        let (stderr, stderr_theirs) = pipe2(OFlag::O_CLOEXEC).step("make a sandbox's pipe")?;
        let (requests, requests_theirs) = control_pair().step("make a sandbox's socket")?;
        for end in [&stderr, &requests] {
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).step("make a pipe nonblocking")?;
        }
        let (forked, must_join) = fork(cgroup.as_ref()).step("fork a sandbox")?;
        let Some(process) = forked else {
            let joined = cgroup.as_ref().filter(|_| must_join);
            let error = joined
                .map_or(Ok(()), SandboxCgroup::join)
                .and_then(|()| {
                    unshare(namespaces(is_tried)).step("make a sandbox's namespaces")?;
                    mounts.make(cgroup.as_ref())
                })
                .and_then(|()| {
                    become_runner(connection, &stderr_theirs, requests_theirs, is_tried)
                });
            if let Err(error) = error {
                let mut stderr = File::from(stderr_theirs);
                // The keeper is the only reader. If it is gone, so is this process.
                writeln!(stderr, "{}", error.line()).ok();
            }
            exit_now(NOT_STARTED);
        };
        Ok(Self {
            name,
            process,
            connection,
            cgroup,
            stderr: Some(stderr.into()),
            stderr_start: Vec::new(),
            requests: Some(requests),
            zygote,
            killed: false,
        })
    }

    /// Returns the name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether this is the sandbox's first process.
    pub(super) fn is_process(&self, process: Pid) -> bool {
        self.process == process
    }

    /// Returns the connection, on which a hang-up means that the worker has closed it. `None` once
    /// the sandbox is being killed.
    pub(super) fn connection(&self) -> Option<BorrowedFd<'_>> {
        (!self.killed).then(|| self.connection.as_fd())
    }

    /// Returns the standard error, while it is open.
    pub(super) fn stderr(&self) -> Option<BorrowedFd<'_>> {
        self.stderr.as_ref().map(AsFd::as_fd)
    }

    /// Returns the socket for the runner's request, while that may come.
    pub(super) fn requests(&self) -> Option<BorrowedFd<'_>> {
        self.requests.as_ref().map(AsFd::as_fd)
    }

    /// Returns the zygote with which the worker opened the sandbox.
    pub(super) fn zygote(&self) -> Option<&ZygoteProgram> {
        self.zygote.as_ref()
    }

    /// Closes the socket for the runner's request.
    pub(super) fn close_requests(&mut self) {
        self.requests = None;
    }

    /// Kills the first process of the sandbox, and with it the whole process namespace.
    pub(super) fn kill(&mut self) {
        self.killed = true;
        // The process has not been reaped, so its process id is still its own. If it is already
        // dead, the signal has no effect.
        kill(self.process, Signal::SIGKILL).ok();
    }

    /// Reads the standard error, keeps its start and drops the rest.
    pub(super) fn read_stderr(&mut self) {
        let Some(file) = &mut self.stderr else {
            return;
        };
        let mut piece = [0; READ_BYTES];
        match retry(|| file.read(&mut piece)) {
            Ok(Some(count)) if count > 0 => {
                let room = MAX_STDERR.saturating_sub(self.stderr_start.len());
                let kept = piece.get(..count.min(room)).unwrap_or_default();
                self.stderr_start.extend_from_slice(kept);
            }
            Ok(None) => {}
            Ok(Some(_)) | Err(_) => self.stderr = None,
        }
    }

    /// Ends the sandbox, whose first process has been reaped. Returns the end with the cgroup that
    /// is to be removed, and the connection that is to be closed after the end is recorded.
    pub(super) fn end(mut self, end: ProgramEnd) -> EndedSandbox {
        self.read_stderr();
        let status = match end {
            ProgramEnd::Exited(code) => EndStatus::Exited(code),
            ProgramEnd::Signaled(signal) => EndStatus::Signaled(signal),
            ProgramEnd::NotStarted(errno) => {
                EndStatus::NotStarted(Errno::from_raw(errno).to_string())
            }
        };
        EndedSandbox {
            end: SandboxEnd {
                status,
                oom: self.cgroup.as_ref().is_some_and(SandboxCgroup::oom),
                killed: self.killed,
                stderr: String::from_utf8_lossy(&self.stderr_start).into_owned(),
            },
            name: self.name,
            connection: self.connection,
            cgroup: self.cgroup,
        }
    }
}

/// A sandbox that has ended.
#[derive(Debug)]
pub(super) struct EndedSandbox {
    /// The name.
    pub(super) name: String,
    /// The end.
    pub(super) end: SandboxEnd,
    /// The connection to the worker.
    pub(super) connection: UnixStream,
    /// The cgroup.
    pub(super) cgroup: Option<SandboxCgroup>,
}

/// Returns the namespaces of a sandbox. It needs no network of its own where each cell is known to
/// have one: its runner stays in the keeper's network, which has no device that is up and in which
/// nothing listens.
fn namespaces(is_tried: bool) -> CloneFlags {
    let mut flags = NAMESPACES;
    flags.set(CloneFlags::CLONE_NEWNET, !is_tried);
    flags
}

/// Forks the first process of a sandbox, directly into its cgroup if the kernel supports that.
/// Returns also whether the process must still join the cgroup.
fn fork(cgroup: Option<&SandboxCgroup>) -> Result<(Option<Pid>, bool), Errno> {
    let flags = CloneFlags::CLONE_NEWPID;
    if let Some(target) = cgroup.and_then(SandboxCgroup::clone_target)
        && let Ok(forked) = clone_into(flags, target)
    {
        return Ok((forked, false));
    }
    Ok((clone(flags)?, true))
}

/// Turns a fork of the keeper into a runner. Returns only if that fails.
fn become_runner(
    connection: UnixStream,
    stderr: &OwnedFd,
    requests: OwnedFd,
    is_tried: bool,
) -> Result<(), CellError> {
    let place = "place a sandbox's descriptors";
    let connection = move_out_of_the_way(connection.into()).step(place)?;
    let requests = move_out_of_the_way(requests).step(place)?;
    let stderr = move_out_of_the_way(stderr.try_clone().step(place)?).step(place)?;
    for (end, number) in [
        (&connection, 0),
        (&connection, 1),
        (&stderr, 2),
        (&requests, KEEPER_FD),
    ] {
        install_at(end, number).step(place)?;
    }
    close_at_exec_from(KEEPER_FD + 1).step(place)?;
    let arguments = [CString::new(RUNNER_PATH)
        .map_err(io::Error::from)
        .step(place)?];
    let environment = environment(is_tried).step("copy the environment")?;
    let Err(errno) = execve(OWN_PROGRAM, &arguments, &environment);
    Err(CellError::new("start a runner", errno))
}

/// Returns the keeper's environment with the variables that tell a runner of its keeper.
#[expect(
    clippy::disallowed_methods,
    reason = "passed on unread; the runner has no configuration"
)]
fn environment(is_tried: bool) -> io::Result<Vec<CString>> {
    let number = KEEPER_FD.to_string();
    let own = [
        Some((KEEPER_FD_VARIABLE, number.as_str())),
        is_tried.then_some((TRIED_VARIABLE, "1")),
    ];
    let own = own.into_iter().flatten();
    std::env::vars_os()
        .filter(|(name, _)| name != KEEPER_FD_VARIABLE && name != TRIED_VARIABLE)
        .chain(own.map(|(name, value)| (OsString::from(name), OsString::from(value))))
        .map(|(name, value)| {
            let mut text = name.into_vec();
            text.push(b'=');
            text.extend(value.into_vec());
            CString::new(text).map_err(io::Error::from)
        })
        .collect()
}
