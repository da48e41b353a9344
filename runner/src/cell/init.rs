//! The cell's init: pid 1 of the process namespace and parent of the program. It ends the cell.
//!
//! It is a fork of the runner and runs only the runner's code. After set-up it holds no capability
//! but `KILL` and reads nothing from the program. The program cannot reach it: it has another user,
//! it is undumpable, and the kernel protects pid 1 from signals.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeValLike;
use nix::unistd::{Pid, pipe2, sethostname};

use sandhog_protocol::frames::ProgramEnd;

use super::cgroup::Group;
use super::container::Network;
use super::error::Step;
use super::init_channel::{FromInit, InitChannel, ToInit};
use super::program::{self, CgroupEntry, StartStatus};
use super::spec::{CellSpec, ProgramFds, ProgramSpec};
use super::wall::Wall;
use super::{
    CellError, artifacts, cell_user, descriptors, etc, loopback, mounts, namespaces, network,
    reap_one,
};

/// Runs the init until the cell ends. Without `start`, the cell is made for a clone of the zygote.
pub(super) fn run_init(
    spec: &CellSpec<'_>,
    mut channel: InitChannel,
    start: Option<ProgramSpec<'_>>,
) {
    let end = match start {
        Some(start) => run_program(spec, &mut channel, start),
        None => run_with_clone(spec, &mut channel),
    };
    let init_report = end.map_or_else(Some, |end| end.map(end_cell));
    if let Some(init_report) = init_report {
        // The runner collects the job's files through this handle, which stays valid after the end
        // of the namespace.
        let sent = artifacts::open_work_dir()
            .and_then(|work| channel.send_with_fds(&init_report, &[work.as_fd()]));
        if sent.is_err() {
            channel.send(&init_report);
        }
        // Yield, because the runner may wait for this CPU to forward the report. This process has
        // nothing left to do but exit.
        std::thread::yield_now();
    }
}

/// Makes a cell and runs it until its program ends. `None` means that the runner is gone.
fn run_program(
    spec: &CellSpec<'_>,
    channel: &mut InitChannel,
    start: ProgramSpec<'_>,
) -> Result<Option<ProgramEnd>, FromInit> {
    let signals = set_up(spec, channel, Some(&start.fds))?;
    let program = start_program(spec, start)?;
    channel.send(&FromInit::Started);
    Ok(supervise(channel, &signals, Some(program)))
}

/// Makes a cell and runs it until the runner reports the end of its clone. `None` means that the
/// runner is gone.
fn run_with_clone(
    spec: &CellSpec<'_>,
    channel: &mut InitChannel,
) -> Result<Option<ProgramEnd>, FromInit> {
    let signals = set_up(spec, channel, None)?;
    let network = spec.container.has_network_namespaces();
    let own = namespaces::open_own_namespaces(network).step("open the cell's namespaces")?;
    cell_user::keep_only_kill()?;
    let handed: Vec<_> = own.iter().map(AsFd::as_fd).collect();
    channel
        .send_with_fds(&FromInit::Made, &handed)
        .step("hand over the cell's namespaces")?;
    drop(own);
    Ok(supervise(channel, &signals, None))
}

/// Builds the cell. Returns the descriptor that reports dead children.
fn set_up(
    spec: &CellSpec<'_>,
    channel: &InitChannel,
    program: Option<&ProgramFds>,
) -> Result<SignalFd, FromInit> {
    // An exec would reset this, but this process never makes one.
    set_dumpable(false).step("make the init undumpable")?;
    if let Some(kept) = &spec.pooled_network {
        network::enter_or_replace(kept.as_fd()).step("enter a network namespace")?;
    }
    close_runner_fds(spec, channel, program)?;
    sethostname(etc::HOST).step("set the host name")?;
    mounts::make_cell_mounts(spec.caps, spec.container.user, spec.container.mounts)?;
    match spec.container.network {
        // A reused namespace has its loopback up already.
        Network::Own if spec.pooled_network.is_some() => {}
        Network::Own => loopback::bring_up_loopback().step("bring up the loopback")?,
        Network::OwnDown | Network::Shared => {}
    }

    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().step("block SIGCHLD")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&mask, flags).step("watch SIGCHLD")?)
}

/// Starts the program. Returns the process id.
fn start_program(spec: &CellSpec<'_>, start: ProgramSpec<'_>) -> Result<Pid, FromInit> {
    let (status, status_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).step("make a status pipe")?;
    let (forked, cgroup_entry) = fork_program(spec.group).step("fork the program")?;
    let Some(program) = forked else {
        drop(status);
        program::become_program(spec, start, cgroup_entry, status_write);
        namespaces::exit_now(127);
    };
    drop(start);
    drop(status_write);
    cell_user::keep_only_kill()?;
    match program::read_status(status).step("read the program's status")? {
        StartStatus::Started => Ok(program),
        StartStatus::Refused(why) => Err(why),
        StartStatus::Lost => match wait_for(program) {
            // The kernel's OOM killer chooses a process by its own rules. The runner determines
            // whether the cell's cap was the cause.
            Some(ProgramEnd::Signaled(signal)) => Err(FromInit::Ended {
                end: ProgramEnd::Signaled(signal),
                scratch_full: false,
                cpu_us: 0,
            }),
            Some(ProgramEnd::Exited(_) | ProgramEnd::NotStarted(_)) | None => {
                Err(CellError::new("keep the program alive until its start", Errno::ECHILD).into())
            }
        },
    }
}

/// Forks the program, directly into its cgroup if the kernel supports that.
fn fork_program(group: Option<&Group>) -> Result<(Option<Pid>, CgroupEntry), Errno> {
    let clone_target = group.and_then(Group::clone_target);
    if let Some(clone_target) = clone_target.filter(|_| Wall::Cgroup.stands())
        && let Ok(forked) = namespaces::fork_into(clone_target)
    {
        return Ok((forked, CgroupEntry::Forked));
    }
    // If `fork_into` failed because of the process limit, `fork` fails too. Other causes (an old
    // kernel, seccomp) do not affect `fork`.
    Ok((namespaces::fork()?, CgroupEntry::MustJoin))
}

/// Waits for one process to end. `None` if there is no such child.
fn wait_for(child: Pid) -> Option<ProgramEnd> {
    while let Ok(ended) = reap_one(true) {
        if let Some(ended) = ended
            && ended.pid == child
        {
            return Some(ended.end);
        }
    }
    None
}

/// Closes the descriptors that the fork copied from the runner, above all the other ends of the
/// cell's own pipes.
fn close_runner_fds(
    spec: &CellSpec<'_>,
    channel: &InitChannel,
    program: Option<&ProgramFds>,
) -> Result<(), CellError> {
    let mut keep = vec![channel.0.as_fd()];
    if let Some(program) = program {
        keep.extend([&program.stdin, &program.stdout, &program.stderr].map(AsFd::as_fd));
        keep.extend(program.harness.as_ref().map(AsFd::as_fd));
        keep.extend(program.infer.as_ref().map(AsFd::as_fd));
    }
    if let Some(group) = spec.group {
        keep.extend(group.descriptors());
    }
    descriptors::close_descriptors_except(&keep).step("close the runner's descriptors")
}

/// Reaps children and carries out the runner's requests until the program is dead or the
/// runner reports the end of the clone. `None` means that the runner is gone.
fn supervise(
    channel: &mut InitChannel,
    signals: &SignalFd,
    program: Option<Pid>,
) -> Option<ProgramEnd> {
    loop {
        let mut ready = [
            PollFd::new(channel.0.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        // An interrupted call needs no handling: the code below checks which descriptors are ready.
        poll(&mut ready, PollTimeout::NONE).ok();
        let [has_request, has_dead_child] = ready.map(|fd| fd.any().unwrap_or(true));
        if has_dead_child && let Some(end) = reap_all(signals, program) {
            return Some(end);
        }
        if has_request {
            match channel.recv_request() {
                Ok(Some(ToInit::Signal(number))) => signal_all(number),
                Ok(Some(ToInit::End(end))) => return Some(end),
                // Without a runner the result has no recipient. The whole process namespace ends
                // with this process.
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// Reaps every dead process. Returns how the program ended, if it did.
fn reap_all(signals: &SignalFd, program: Option<Pid>) -> Option<ProgramEnd> {
    while let Ok(Some(_)) = signals.read_signal() {}
    loop {
        match reap_one(false) {
            Ok(Some(ended)) if Some(ended.pid) == program => return Some(ended.end),
            Ok(Some(_)) => {}
            Ok(None) => return None,
            // There is no child at all. If the end of the program was not seen, assume the worst.
            Err(_) => return program.map(|_unseen| ProgramEnd::Signaled(Signal::SIGKILL as i32)),
        }
    }
}

/// Signals every process of the namespace but this one.
fn signal_all(number: libc::c_int) {
    // The error is ignored, because there may be no process left.
    if let Ok(signal) = Signal::try_from(number) {
        kill(Pid::from_raw(-1), signal).ok();
    }
}

/// Ends the cell: checks the scratch spaces, kills every other process and waits until none is
/// left.
fn end_cell(end: ProgramEnd) -> FromInit {
    let scratch_full = mounts::scratch_full()
        // The limit on the size of a file equals the scratch cap, so this signal means the same.
        || end == ProgramEnd::Signaled(Signal::SIGXFSZ as i32);
    signal_all(libc::SIGKILL);
    while let Ok(Some(_)) = reap_one(true) {}
    let cpu_us = getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |usage| {
        let total = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        u64::try_from(total).unwrap_or(0)
    });
    FromInit::Ended {
        end,
        scratch_full,
        cpu_us,
    }
}
