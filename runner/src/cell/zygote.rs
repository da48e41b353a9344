//! The zygote as a process: started once in the container, asked for clones, heard of their ends.
//!
//! It runs an image's interpreter with the image's libraries, as root with the few capabilities by which cells are
//! entered, and never a job's code: that is what its clones do, after they gave all of that up.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::sys::stat::{Mode, umask};
use nix::unistd::chdir;
use serde::{Deserialize, Serialize};

use sandhog_runner::protocol::{End, Warm};

use super::environment::Invocation;
use super::error::Step;
use super::seccomp::Filter;
use super::{
    CellError, Ground, descriptors, identity, input, namespaces, passing, program, rlimits,
};

/// The descriptor it speaks on.
const CONTROL_FD: i32 = 3;

/// The longest message it sends.
const MAX_MESSAGE: usize = 4096;

/// Has the linker look up every symbol at once, so that no clone looks one up for itself. `ahead.py` says more.
const BIND_NOW: (&str, &str) = ("LD_BIND_NOW", "1");

/// Room for the first message to it, which holds the filter.
const SEND_BUFFER: usize = 1 << 20;

/// A running zygote. Dropping it ends it: it lives as long as its socket.
#[derive(Debug)]
pub(crate) struct Zygote {
    control: OwnedFd,
    /// Whether a clone of it lives, or is being made.
    busy: bool,
}

/// What a zygote says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FromZygote {
    /// Its libraries are imported.
    Ready,
    /// Its clone is dead.
    Ended {
        /// How it ended.
        end: End,
        /// CPU time of the clone and of the children it waited for, in microseconds.
        cpu_us: u64,
    },
    /// It could not do what it was asked.
    Failed(CellError),
    /// It is gone.
    Gone,
}

/// The first message to a zygote.
#[derive(Serialize)]
struct Setup<'a> {
    imports: &'a [String],
    user: u32,
    filter: Option<String>,
    /// The flags of the namespaces that clones enter, in the order in which they are handed over.
    spaces: &'a [i32],
}

/// Asks for a clone. What it is to have comes with this, as descriptors.
const ORDER: &[u8] = b"clone";

/// What it answers; which fields are there says what it is.
#[derive(Deserialize)]
struct Answer {
    ready: Option<u8>,
    status: Option<i32>,
    cpu_us: Option<u64>,
    failed: Option<String>,
    errno: Option<i32>,
}

impl Zygote {
    /// Starts one and has it import what the image names. [`Zygote::hear`] tells when that is done.
    ///
    /// # Errors
    /// When the kernel refuses a step, or the program's words and variables are not fit for an exec.
    pub(crate) fn start(ground: &Ground, warm: &Warm) -> Result<Self, CellError> {
        let (name, value) = BIND_NOW;
        let mut env = warm.env.clone();
        env.push((name.to_owned(), value.to_owned()));
        let invocation =
            Invocation::new(&warm.argv, warm.caps.cpu_millis, &env).step("start a zygote")?;
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .step("make the zygote's socket")?;
        // A hint: where it is not taken, the first message may not fit, and then that is the error.
        setsockopt(&ours, sockopt::SndBuf, &SEND_BUFFER).ok();
        // As a clone's, so that what its interpreter found out of standard input holds for clones.
        let stdin = input::nothing().step("open an empty standard input")?;
        let Some(_process) = namespaces::fork().step("fork the zygote")? else {
            drop(become_zygote(stdin, theirs, &invocation));
            namespaces::leave(127);
        };
        drop(theirs);
        let zygote = Self {
            control: ours,
            busy: false,
        };
        let spaces: Vec<i32> = namespaces::entrances(ground.has_network_namespaces())
            .into_iter()
            .map(|(flag, _)| flag.bits())
            .collect();
        let setup = Setup {
            imports: &warm.imports,
            user: ground.user.number(),
            filter: ground.filter.as_ref().map(Filter::in_hex),
            spaces: &spaces,
        };
        let setup = serde_json::to_vec(&setup).expect("messages have string keys");
        passing::send(zygote.control.as_fd(), &setup, &[]).step("tell the zygote")?;
        Ok(zygote)
    }

    /// Asks for a clone; what it is to have stands in the order that the zygote expects.
    pub(super) fn ask_for_clone(&mut self, handed: &[BorrowedFd<'_>]) -> Result<(), CellError> {
        passing::send(self.control.as_fd(), ORDER, handed).step("ask for a clone")?;
        self.busy = true;
        Ok(())
    }

    /// Whether a clone of it lives or is being made; another one must wait.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Readable when it has something to say, or is gone.
    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// What it says; `None` when that is nothing.
    ///
    /// # Errors
    /// When the socket fails, or it says what cannot be understood.
    pub(crate) fn hear(&mut self) -> io::Result<Option<FromZygote>> {
        let mut buffer = [0; MAX_MESSAGE];
        let (length, _none) = match self.receive(&mut buffer) {
            Ok(received) => received,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(Errno::ECONNRESET) => return Ok(Some(FromZygote::Gone)),
            Err(errno) => return Err(errno.into()),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(Some(FromZygote::Gone));
        }
        let answer: Answer = serde_json::from_slice(bytes)?;
        Ok(Some(self.understand(answer)))
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        // The socket itself blocks, because the zygote sends and receives on its twin, and a message to it must arrive.
        let mut ready = [PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::ZERO)? {
            0 => Err(Errno::EAGAIN),
            _ => passing::receive(self.control.as_fd(), buffer),
        }
    }

    fn understand(&mut self, answer: Answer) -> FromZygote {
        if let Some(step) = answer.failed {
            self.busy = false;
            let errno = answer.errno.filter(|errno| *errno != 0);
            return FromZygote::Failed(CellError::new(
                step,
                errno.map_or(Errno::ENOTRECOVERABLE, Errno::from_raw),
            ));
        }
        match (answer.status, answer.ready) {
            (Some(status), _) => {
                self.busy = false;
                FromZygote::Ended {
                    end: super::reap::end_of(status),
                    cpu_us: answer.cpu_us.unwrap_or(0),
                }
            }
            (None, Some(_)) => FromZygote::Ready,
            (None, None) => {
                FromZygote::Failed(CellError::new("understand the zygote", Errno::EPROTO))
            }
        }
    }
}

/// From a fork of the runner to the zygote's program; comes back only when that cannot be.
fn become_zygote(
    stdin: OwnedFd,
    control: OwnedFd,
    invocation: &Invocation,
) -> Result<(), CellError> {
    let errors = io::stderr().as_fd().try_clone_to_owned();
    let errors = errors.step("keep the engine's log open")?;
    let output = errors.try_clone().step("keep the engine's log open")?;
    let keep = [&stdin, &control, &errors, &output].map(AsFd::as_fd);
    descriptors::close_all_but(&keep).step("close the runner's descriptors")?;
    let wanted = [stdin, output, errors, control];
    let mut lifted = Vec::with_capacity(wanted.len());
    for end in wanted {
        lifted.push(descriptors::lift(end).step("place the zygote's descriptors")?);
    }
    for (number, end) in (0..).zip(&lifted) {
        descriptors::place(end, number).step("place the zygote's descriptors")?;
    }
    descriptors::close_at_exec_from(CONTROL_FD + 1).step("close the runner's descriptors")?;
    identity::become_zygote()?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    chdir("/").step("change to the root")?;
    program::reset_signals().step("reset the signals")?;
    rlimits::make_room_for_stacks().step("make room for stacks")?;
    Err(CellError::new("start a zygote", program::exec(invocation)))
}
