//! The cell's init: pid 1 of its process namespace, the program's parent, and the one that ends the cell.
//!
//! It is a fork of the runner and runs only our code. After set-up it holds no capability but `KILL`, reads nothing
//! from the program, and is out of its reach: another user, undumpable, and the kernel keeps signals from pid 1.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::time::TimeValLike;
use nix::unistd::{Pid, pipe2, sethostname};

use sandhog_runner::protocol::{Caps, End};

use super::cgroup::Group;
use super::control::{Control, FromInit};
use super::environment::Invocation;
use super::error::Step;
use super::ground::Network;
use super::program::{self, SourceFile, Status};
use super::{
    CellError, Ground, descriptors, etc, identity, loopback, mounts, namespaces, reap_one,
};

/// What to build in the cell.
#[derive(Debug)]
pub(super) struct Blueprint<'a> {
    pub(super) ground: &'a Ground,
    pub(super) group: Option<&'a Group>,
    pub(super) caps: &'a Caps,
    pub(super) invocation: Result<Invocation, Errno>,
    pub(super) source: Option<SourceFile<'a>>,
}

/// The cell's ends of everything.
#[derive(Debug)]
pub(super) struct InitEnds {
    pub(super) control: Control,
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) harness: Option<OwnedFd>,
}

/// Lives the init's life; the code to leave with.
pub(super) fn run(blueprint: &Blueprint<'_>, ends: InitEnds) -> i32 {
    let InitEnds {
        mut control,
        stdin,
        stdout,
        stderr,
        harness,
    } = ends;
    let program = program::Ends {
        stdin,
        stdout,
        stderr,
        harness,
    };
    match set_up(blueprint, &control, program) {
        Ok(Started { first, signals }) => {
            control.tell(&FromInit::Started);
            let end = watch(&mut control, &signals, first);
            control.tell(&bury(end));
            0
        }
        Err(why) => {
            control.tell(&why);
            0
        }
    }
}

struct Started {
    first: Pid,
    signals: SignalFd,
}

/// Builds the cell and starts the program.
fn set_up(
    blueprint: &Blueprint<'_>,
    control: &Control,
    program: program::Ends,
) -> Result<Started, FromInit> {
    // An exec would reset it, but this process never makes one.
    set_dumpable(false).step("make the init undumpable")?;
    close_the_runners(blueprint, control, &program)?;
    sethostname(etc::HOST).step("set the host name")?;
    mounts::enter(
        blueprint.caps,
        blueprint.ground.user,
        blueprint.ground.mounts,
    )?;
    match blueprint.ground.network {
        Network::Own => loopback::bring_up().step("bring up the loopback")?,
        Network::OwnDown | Network::Shared => {}
    }

    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    mask.thread_block().step("block SIGCHLD")?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .step("watch SIGCHLD")?;

    let (status, status_write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).step("make a status pipe")?;
    let Some(first) = namespaces::fork().step("fork the program")? else {
        drop(status);
        program::become_program(blueprint, program, status_write);
        namespaces::leave(127);
    };
    drop(program);
    drop(status_write);
    identity::keep_only_kill()?;
    match program::read_status(status).step("read the program's status")? {
        Status::Started => Ok(Started { first, signals }),
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
    program: &program::Ends,
) -> Result<(), CellError> {
    let mut keep = vec![
        control.0.as_fd(),
        program.stdin.as_fd(),
        program.stdout.as_fd(),
        program.stderr.as_fd(),
    ];
    keep.extend(program.harness.as_ref().map(AsFd::as_fd));
    if let Some(group) = blueprint.group {
        keep.extend(group.descriptors());
    }
    descriptors::close_all_but(&keep).step("close the runner's descriptors")
}

/// Reaps, and signals the cell when the runner asks, until the first process is dead.
fn watch(control: &mut Control, signals: &SignalFd, first: Pid) -> End {
    loop {
        let mut ready = [
            PollFd::new(control.0.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        // Interrupted or not, what is ready is looked at below.
        poll(&mut ready, PollTimeout::NONE).ok();
        let [asked, died] = ready.map(|fd| fd.any().unwrap_or(true));
        if died && let Some(end) = reap_all(signals, first) {
            return end;
        }
        if asked {
            match control.asked() {
                Ok(Some(signal)) => signal_all(signal),
                // Without a runner there is nobody to run for.
                Ok(None) | Err(_) => signal_all(Signal::SIGKILL),
            }
        }
    }
}

/// Takes every dead process; how the first one ended, if it did.
fn reap_all(signals: &SignalFd, first: Pid) -> Option<End> {
    while let Ok(Some(_)) = signals.read_signal() {}
    loop {
        match reap_one(false) {
            Ok(Some(ended)) if ended.pid == first => return Some(ended.end),
            Ok(Some(_)) => {}
            Ok(None) => return None,
            // No child at all, and the first one not seen to end: it cannot be, so say the worst.
            Err(_) => return Some(End::Signaled(Signal::SIGKILL as i32)),
        }
    }
}

/// Signals every process of the namespace but this one.
fn signal_all(signal: Signal) {
    // There may be none left.
    kill(Pid::from_raw(-1), signal).ok();
}

/// Ends the cell: looks at the scratch spaces, kills every other process and waits until none is left.
fn bury(end: End) -> FromInit {
    let scratch_full = mounts::scratch_full()
        // The file size limit is the scratch cap by another name.
        || end == End::Signaled(Signal::SIGXFSZ as i32);
    signal_all(Signal::SIGKILL);
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
