//! The cell's init: pid 1 of its process namespace, the program's parent, and the one that ends the cell.
//!
//! It is a fork of the runner and runs only our code. After set-up it holds no capability but `KILL`, reads nothing
//! from the program, and is out of its reach: another user, undumpable, and the kernel keeps signals from pid 1.

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

/// What to build in the cell.
#[derive(Debug)]
pub(super) struct Blueprint<'a> {
    pub(super) ground: &'a Ground,
    pub(super) group: Option<&'a Group>,
    pub(super) caps: &'a Caps,
    /// A network namespace to live in, if nobody used it; without one, this process was started in a new one.
    pub(super) kept_network: Option<OwnedFd>,
}

/// What to start in the cell.
#[derive(Debug)]
pub(super) struct Start<'a> {
    pub(super) invocation: Result<Invocation, Errno>,
    pub(super) source: Option<SourceFile<'a>>,
    /// Its standard input.
    pub(super) stdin: &'a [u8],
    /// The job's `input`, for a program without a harness.
    pub(super) input: Option<&'a str>,
    pub(super) files: &'a [FileIn],
    pub(super) ends: program::Ends,
}

/// Lives the init's life. Without something to start, the cell is made for a clone of the zygote.
pub(super) fn run(blueprint: &Blueprint<'_>, mut control: Control, start: Option<Start<'_>>) {
    let lived = match start {
        Some(start) => live_with_program(blueprint, &mut control, start),
        None => live_with_clone(blueprint, &mut control),
    };
    let last_word = lived.map_or_else(Some, |end| end.map(bury));
    if let Some(last_word) = last_word {
        // The runner takes files out of it, if the job wants some. The handle outlives the namespace it is of.
        let told = artifacts::handle().and_then(|work| control.hand(&last_word, &[work.as_fd()]));
        if told.is_err() {
            control.tell(&last_word);
        }
        // The runner, which may wait for this very core, has a report to pass on; here there is only an end to come to.
        std::thread::yield_now();
    }
}

/// From the making of a cell to the end of the program in it; `None` when the runner is gone.
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

/// From the making of a cell to the end of the clone in it, of which the runner tells; `None` when the runner is gone.
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

/// Builds the cell; what tells of dead children.
fn set_up(
    blueprint: &Blueprint<'_>,
    control: &Control,
    program: Option<&program::Ends>,
) -> Result<SignalFd, FromInit> {
    // An exec would reset it, but this process never makes one.
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
        // A kept one has its loopback up.
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

/// Starts the program; its process.
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
            // A kernel short of memory kills by rules of its own: the runner knows whether that was the cell's cap.
            Some(End::Signaled(signal)) => Err(FromInit::Ended {
                end: End::Signaled(signal),
                scratch_full: false,
                cpu_us: 0,
            }),
            Some(End::Exited(_) | End::NotStarted(_)) | None => {
                Err(CellError::new("bring the program to its start", Errno::ECHILD).into())
            }
        },
    }
}

/// Forks the program, where that can be straight into its cgroup.
fn fork_program(group: Option<&Group>) -> Result<(Option<Pid>, Place), Errno> {
    let birthplace = group.and_then(Group::birthplace);
    if let Some(birthplace) = birthplace.filter(|_| Wall::Cgroup.stands())
        && let Ok(forked) = namespaces::fork_into(birthplace)
    {
        return Ok((forked, Place::Born));
    }
    // What was refused for want of a process is refused again, and what was for another reason is not.
    Ok((namespaces::fork()?, Place::Outside))
}

/// Waits for one process to end; `None` when there is no such child.
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

/// Closes what the fork copied of the runner's: most of all the other ends of the cell's own pipes.
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

/// Reaps, and does what the runner asks, until the first process is dead or the runner tells of its end; `None` when
/// the runner is gone.
fn watch(control: &mut Control, signals: &SignalFd, first: Option<Pid>) -> Option<End> {
    loop {
        let mut ready = [
            PollFd::new(control.0.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        // Interrupted or not, what is ready is looked at below.
        poll(&mut ready, PollTimeout::NONE).ok();
        let [asked, died] = ready.map(|fd| fd.any().unwrap_or(true));
        if died && let Some(end) = reap_all(signals, first) {
            return Some(end);
        }
        if asked {
            match control.asked() {
                Ok(Some(ToInit::Signal(number))) => signal_all(number),
                Ok(Some(ToInit::End(end))) => return Some(end),
                // Without a runner there is nobody to run for: the whole namespace ends with this process.
                Ok(None) | Err(_) => return None,
            }
        }
    }
}

/// Takes every dead process; how the first one ended, if it did.
fn reap_all(signals: &SignalFd, first: Option<Pid>) -> Option<End> {
    while let Ok(Some(_)) = signals.read_signal() {}
    loop {
        match reap_one(false) {
            Ok(Some(ended)) if Some(ended.pid) == first => return Some(ended.end),
            Ok(Some(_)) => {}
            Ok(None) => return None,
            // No child at all. If there was a first one, and it was not seen to end, say the worst.
            Err(_) => return first.map(|_unseen| End::Signaled(Signal::SIGKILL as i32)),
        }
    }
}

/// Signals every process of the namespace but this one.
fn signal_all(number: libc::c_int) {
    // There may be none left.
    if let Ok(signal) = Signal::try_from(number) {
        kill(Pid::from_raw(-1), signal).ok();
    }
}

/// Ends the cell: looks at the scratch spaces, kills every other process and waits until none is left.
fn bury(end: End) -> FromInit {
    let scratch_full = mounts::scratch_full()
        // The file size limit is the scratch cap by another name.
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
