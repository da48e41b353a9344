//! Turns a fork of the init into the program. All rights that a program must not have are given up
//! here, in this order.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, execve, setsid};

use sandhog_protocol::frames::{INFER_FD, Program};
use sandhog_protocol::install::WORK_DIR;

use super::environment::CommandLine;
use super::error::{INSTALL_FILTER, Step, errno_of};
use super::init_channel::FromInit;
use super::rlimits::Enforcement;
use super::spec::{CellSpec, ProgramFds, ProgramSpec};
use super::wall::Wall;
use super::{CellError, artifacts, cell_user, descriptors, input, rlimits};

/// OOM score with which the kernel kills the program before any process of the runner when memory
/// runs out.
const OOM_SCORE: &str = "1000";

/// Byte written to the status pipe when all steps are done and only the exec is left.
const READY: u8 = b'R';

/// Result of a forked program's start, as read from its status pipe.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StartStatus {
    /// The exec succeeded: the pipe closed after the byte [`READY`].
    Started,
    /// The process reported why the program could not start.
    Refused(FromInit),
    /// The process ended before it was ready.
    Lost,
}

/// Position of a forked program relative to its cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CgroupEntry {
    /// In the cgroup from the start.
    Forked,
    /// Outside the cgroup, which the process must join.
    MustJoin,
}

/// Turns this process into the program. Returns only after writing the reason of a failure to
/// `status`.
pub(super) fn become_program(
    spec: &CellSpec<'_>,
    start: ProgramSpec<'_>,
    cgroup_entry: CgroupEntry,
    status: OwnedFd,
) {
    // Placing the program's own descriptors must not overwrite the pipe.
    let Ok(status) = descriptors::move_out_of_the_way(status) else {
        return;
    };
    let mut status = File::from(status);
    let Err(why) = prepare_and_exec(spec, start, cgroup_entry, &mut status);
    let bytes = rmp_serde::to_vec(&why).expect("messages have known lengths");
    // The init reads until the end of the pipe and lives for as long as this process does.
    drop(status.write_all(&bytes));
}

/// Waits until a forked program has started or has failed to start.
///
/// # Errors
/// Fails if the pipe cannot be read or holds an unknown message.
pub(super) fn read_status(status: OwnedFd) -> io::Result<StartStatus> {
    let mut bytes = Vec::new();
    File::from(status).read_to_end(&mut bytes)?;
    let (ready, message) = match bytes.split_first() {
        Some((&READY, message)) => (true, message),
        Some(_) | None => (false, bytes.as_slice()),
    };
    if message.is_empty() {
        return Ok(if ready {
            StartStatus::Started
        } else {
            StartStatus::Lost
        });
    }
    rmp_serde::from_slice(message)
        .map(StartStatus::Refused)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

fn prepare_and_exec(
    spec: &CellSpec<'_>,
    start: ProgramSpec<'_>,
    cgroup_entry: CgroupEntry,
    status: &mut File,
) -> Result<Infallible, FromInit> {
    let ProgramSpec {
        invocation,
        call,
        files,
        fds,
    } = start;
    setsid().step("start a session")?;
    let enforcement = match spec.group {
        Some(group) => {
            if cgroup_entry == CgroupEntry::MustJoin && Wall::Cgroup.stands() {
                group.join()?;
            }
            Enforcement::Cgroup
        }
        None => Enforcement::RlimitsOnly,
    };
    std::fs::write("/proc/self/oom_score_adj", OOM_SCORE).step("raise the oom score")?;
    install_descriptors(fds).step("place the program's descriptors")?;
    if Wall::User.stands() {
        cell_user::become_cell_user(spec.container.user)?;
    }

    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    chdir(WORK_DIR).step("change to the working directory")?;
    if let Program::File { file, source, .. } = &call.program {
        // The program's user writes the file inside the program's cgroup, so it counts toward the
        // program's caps. A lack of room is therefore the program's failure.
        write_source(file, source).map_err(|error| not_started(errno_of(&error)))?;
    }
    if !call.stdin.is_empty() {
        input::install_stdin(&call.stdin).map_err(|error| not_started(errno_of(&error)))?;
    }
    if let Some(job_input) = &call.input_json {
        input::write_input(job_input).map_err(|error| not_started(errno_of(&error)))?;
    }
    artifacts::write_job_files(files).map_err(|error| not_started(errno_of(&error)))?;
    reset_signals().step("reset the signals")?;
    if Wall::Rlimits.stands() {
        rlimits::set_rlimits(spec.caps, call, enforcement)?;
    }
    if let Some(filter) = &spec.container.filter {
        filter
            .install()
            .map_err(|_error| FromInit::from(CellError::new(INSTALL_FILTER, Errno::last())))?;
    }
    status.write_all(&[READY]).step("report to the init")?;
    match invocation {
        Ok(invocation) => Err(not_started(exec(&invocation))),
        Err(errno) => Err(not_started(errno)),
    }
}

fn not_started(errno: Errno) -> FromInit {
    FromInit::NotStarted {
        errno: errno as i32,
    }
}

/// Puts the streams at 0 to 2, a harness's socket at 3 and the socket for inference requests at 4.
/// All other descriptors close at exec.
fn install_descriptors(fds: ProgramFds) -> Result<(), Errno> {
    let ProgramFds {
        stdin,
        stdout,
        stderr,
        harness,
        infer,
    } = fds;
    let wanted = [Some(stdin), Some(stdout), Some(stderr), harness];
    // First move the descriptors out of each other's way, then put each in its place.
    let mut lifted = Vec::with_capacity(wanted.len());
    for end in wanted.into_iter().flatten() {
        lifted.push(descriptors::move_out_of_the_way(end)?);
    }
    let infer = infer.map(descriptors::move_out_of_the_way).transpose()?;
    let mut first_closed = 0;
    for (number, end) in (0..).zip(&lifted) {
        descriptors::install_at(end, number)?;
        first_closed = number + 1;
    }
    descriptors::close_at_exec_from(first_closed)?;
    match &infer {
        Some(infer) => descriptors::install_at(infer, INFER_FD),
        None => Ok(()),
    }
}

/// Writes the source file `name` to the working directory.
fn write_source(name: &str, text: &str) -> io::Result<()> {
    if name.contains(['/', '\0']) || matches!(name, "" | "." | "..") {
        return Err(io::Error::from_raw_os_error(Errno::EINVAL as i32));
    }
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(name)?
        .write_all(text.as_bytes())
}

/// Resets every signal to the state that a new program expects. The runner blocks some signals and
/// ignores others.
pub(super) fn reset_signals() -> Result<(), Errno> {
    for each in Signal::iterator() {
        if matches!(each, Signal::SIGKILL | Signal::SIGSTOP) {
            continue;
        }
        // SAFETY: the default action runs no code of this process.
        unsafe { signal(each, SigHandler::SigDfl) }?;
    }
    SigSet::empty().thread_set_mask()
}

/// Tries to execute each candidate. Returns the reason why none could be executed.
pub(super) fn exec(invocation: &CommandLine) -> Errno {
    let mut why = Errno::ENOENT;
    for place in &invocation.candidates {
        match try_exec(place, invocation) {
            // Continue, but remember that there was a program that could not be executed.
            Errno::EACCES => why = Errno::EACCES,
            Errno::ENOENT | Errno::ENOTDIR => {}
            errno => return errno,
        }
    }
    why
}

fn try_exec(place: &CString, invocation: &CommandLine) -> Errno {
    let Err(errno) = execve(place, &invocation.argv, &invocation.env);
    errno
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::pipe2;

    fn status_of(bytes: &[u8]) -> io::Result<StartStatus> {
        let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        File::from(write).write_all(bytes).unwrap();
        read_status(read)
    }

    #[test]
    fn only_a_program_that_was_ready_can_have_started() {
        let refusal = not_started(Errno::ENOENT);
        let message = rmp_serde::to_vec(&refusal).unwrap();
        let late = [&[READY], message.as_slice()].concat();
        assert_eq!(status_of(&[READY]).unwrap(), StartStatus::Started);
        assert_eq!(status_of(b"").unwrap(), StartStatus::Lost);
        assert_eq!(
            status_of(&message).unwrap(),
            StartStatus::Refused(not_started(Errno::ENOENT))
        );
        assert_eq!(status_of(&late).unwrap(), StartStatus::Refused(refusal));
        assert!(status_of(b"x").is_err());
    }
}
