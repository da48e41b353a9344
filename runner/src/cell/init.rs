//! The cell's init: pid 1 of the process namespace and parent of the program. It ends the cell.
//!
//! It is a fork of the runner and runs only the runner's code. After set-up it holds no capability
//! but `KILL` and reads nothing from the program. The program cannot reach it: it has another user,
//! it is undumpable, and the kernel protects pid 1 from signals.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeValLike;
use nix::unistd::{Pid, pipe2, sethostname};

use sandhog_runner::protocol::{Caps, End, FileIn};

use super::cgroup::Group;
use super::control::{Control, FromInit, ToInit};
use super::environment::Invocation;
use super::error::Step;
use super::ground::Network;
use super::program::{self, Place, SourceFile, Status};
use super::wall::Wall;
use super::{
    CellError, Ground, artifacts, descriptors, etc, identity, loopback, mounts, namespaces,
    network, reap_one,
};

/// Plan of the cell to build.
#[derive(Debug)]
pub(super) struct Blueprint<'a> {
    pub(super) ground: &'a Ground,
    pub(super) group: Option<&'a Group>,
    pub(super) caps: &'a Caps,
    /// Network namespace to reuse, if it is still unused. If this is `None`, the runner started
    /// this process in a new one.
    pub(super) kept_network: Option<OwnedFd>,
}

/// Program to start in the cell.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) invocation: Result<Invocation, Errno>,
    pub(super) source: Option<SourceFile<'a>>,
    /// The program's standard input.
    pub(super) stdin: &'a [u8],
    /// The job's `input`, for a program without a harness.
    pub(super) input: Option<&'a str>,
    pub(super) files: &'a [FileIn],
    pub(super) ends: program::Ends,
}

/// Runs the init until the cell ends. Without `start`, the cell is made for a clone of the zygote.
pub(super) fn run(blueprint: &Blueprint<'_>, mut control: Control, start: Option<Start<'_>>) {
    let lived = match start {
        Some(start) => live_with_program(blueprint, &mut control, start),
        None => live_with_clone(blueprint, &mut control),
    };
    let last_word = lived.map_or_else(Some, |end| end.map(bury));
    if let Some(last_word) = last_word {
        // The runner collects the job's files through this handle, which stays valid after the end
        // of the namespace.
        let told = artifacts::handle().and_then(|work| control.hand(&last_word, &[work.as_fd()]));
        if told.is_err() {
            control.tell(&last_word);
        }
        // Yield, because the runner may wait for this CPU to forward the report. This process has
        // nothing left to do but exit.
        std::thread::yield_now();
    }
}

/// Makes a cell and runs it until its program ends. `None` means that the runner is gone.
fn live_with_program(
    blueprint: &Blueprint<'_>,
    control: &mut Control,
    start: Start<'_>,
) -> Result<Option<End>, FromInit> {
    let signals = set_up(blueprint, control, Some(&start.ends))?;
    let first = begin(blueprint, start)?;
    control.tell(&FromInit::Started);
    Ok(watch(control, &signals, Some(first)))
}

/// Makes a cell and runs it until the runner reports the end of its clone. `None` means that the
/// runner is gone.
fn live_with_clone(
    blueprint: &Blueprint<'_>,
    control: &mut Control,
) -> Result<Option<End>, FromInit> {
    let signals = set_up(blueprint, control, None)?;
    let network = blueprint.ground.has_network_namespaces();
    let own = namespaces::open_own(network).step("open the cell's namespaces")?;
    identity::keep_only_kill()?;
    let handed: Vec<_> = own.iter().map(AsFd::as_fd).collect();
    control
        .hand(&FromInit::Made, &handed)
        .step("hand over the cell's namespaces")?;
    drop(own);
    Ok(watch(control, &signals, None))
}

/// Builds the cell. Returns the descriptor that reports dead children.
fn set_up(
    blueprint: &Blueprint<'_>,
    control: &Control,
    program: Option<&program::Ends>,
) -> Result<SignalFd, FromInit> {
    // An exec would reset this, but this process never makes one.
    set_dumpable(false).step("make the init undumpable")?;
    if let Some(kept) = &blueprint.kept_network {
        network::settle(kept.as_fd()).step("enter a network namespace")?;
    }
    close_the_runners(blueprint, control, program)?;
    sethostname(etc::HOST).step("set the host name")?;
    mounts::enter(
        blueprint.caps,
        blueprint.ground.user,
        blueprint.ground.mounts,
    )?;
    match blueprint.ground.network {
        // A reused namespace has its loopback up already.
        Network::Own if blueprint.kept_network.is_some() => {}
        Network::Own => loopback::bring_up().step("bring up the loopback")?,
        Network::OwnDown | Network::Shared => {}
    }

    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().step("block SIGCHLD")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok(SignalFd::with_flags(&mask, flags).step("watch SIGCHLD")?)
}

/// Starts the program. Returns the process id.
fn begin(blueprint: &Blueprint<'_>, start: Start<'_>) -> Result<Pid, FromInit> {
    let (status, status_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).step("make a status pipe")?;
    let (forked, place) = fork_program(blueprint.group).step("fork the program")?;
    let Some(first) = forked else {
        drop(status);
        program::become_program(blueprint, start, place, status_write);
        namespaces::leave(127);
    };
    drop(start);
    drop(status_write);
    identity::keep_only_kill()?;
    match program::read_status(status).step("read the program's status")? {
        Status::Started => Ok(first),
        Status::Refused(why) => Err(why),
        Status::Lost => match wait_for(first) {
            // The kernel's OOM killer chooses a process by its own rules. The runner determines
            // whether the cell's cap was the cause.
            Some(End::Signaled(signal)) => Err(FromInit::Ended {
                end: End::Signaled(signal),
                scratch_full: false,
                cpu_us: 0,
            }),
            Some(End::Exited(_) | End::NotStarted(_)) | None => {
                Err(CellError::new("keep the program alive until its start", Errno::ECHILD).into())
            }
        },
    }
}

/// Forks the program, directly into its cgroup if the kernel supports that.
fn fork_program(group: Option<&Group>) -> Result<(Option<Pid>, Place), Errno> {
    let birthplace = group.and_then(Group::birthplace);
    if let Some(birthplace) = birthplace.filter(|_| Wall::Cgroup.stands())
        && let Ok(forked) = namespaces::fork_into(birthplace)
    {
        return Ok((forked, Place::Born));
    }
    // If `fork_into` failed because of the process limit, `fork` fails too. Other causes (an old
    // kernel, seccomp) do not affect `fork`.
    Ok((namespaces::fork()?, Place::Outside))
}

/// Waits for one process to end. `None` if there is no such child.
fn wait_for(child: Pid) -> Option<End> {
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
fn close_the_runners(
    blueprint: &Blueprint<'_>,
    control: &Control,
    program: Option<&program::Ends>,
) -> Result<(), CellError> {
    let mut keep = vec![control.0.as_fd()];
    if let Some(program) = program {
        keep.extend([&program.stdin, &program.stdout, &program.stderr].map(AsFd::as_fd));
        keep.extend(program.harness.as_ref().map(AsFd::as_fd));
        keep.extend(program.questions.as_ref().map(AsFd::as_fd));
    }
    if let Some(group) = blueprint.group {
        keep.extend(group.descriptors());
    }
    descriptors::close_all_but(&keep).step("close the runner's descriptors")
}

/// Reaps children and carries out the runner's requests until the first process is dead or the
/// runner reports the end of the clone. `None` means that the runner is gone.
fn watch(control: &mut Control, signals: &SignalFd, first: Option<Pid>) -> Option<End> {
    loop {
        let mut ready = [
            PollFd::new(control.0.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        // An interrupted call needs no handling: the code below checks which descriptors are ready.
        poll(&mut ready, PollTimeout::NONE).ok();
        let [asked, died] = ready.map(|fd| fd.any().unwrap_or(true));
        if died && let Some(end) = reap_all(signals, first) {
            return Some(end);
        }
        if asked {
            match control.asked() {
                Ok(Some(ToInit::Signal(number))) => signal_all(number),
                Ok(Some(ToInit::End(end))) => return Some(end),
                // Without a runner the result has no recipient. The whole process namespace ends
                // with this process.
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// Reaps every dead process. Returns how the first process ended, if it did.
fn reap_all(signals: &SignalFd, first: Option<Pid>) -> Option<End> {
    while let Ok(Some(_)) = signals.read_signal() {}
    loop {
        match reap_one(false) {
            Ok(Some(ended)) if Some(ended.pid) == first => return Some(ended.end),
            Ok(Some(_)) => {}
            Ok(None) => return None,
            // There is no child at all. If the end of the first process was not seen, assume the
            // worst.
            Err(_) => return first.map(|_unseen| End::Signaled(Signal::SIGKILL as i32)),
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
fn bury(end: End) -> FromInit {
    let scratch_full = mounts::scratch_full()
        // The limit on the size of a file equals the scratch cap, so this signal means the same.
        || end == End::Signaled(Signal::SIGXFSZ as i32);
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
