//! The zygote as a process. The runner starts it once in the container, requests clones from it,
//! and receives its reports on how they ended.
//!
//! The zygote runs an image's interpreter with the image's libraries, as root with the few
//! capabilities that are needed to enter cells. It never runs a job's code. Its clones do that,
//! after they have given up root and these capabilities.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, chdir};
use serde::{Deserialize, Serialize};

use sandhog_protocol::frames::{ProgramEnd, StartZygote};
use sandhog_protocol::keeper::ZygoteProgram;

use super::environment::CommandLine;
use super::error::Step;
use super::seccomp::Filter;
use super::server_request::{CloneSetup, control_pair};
use super::{
    CellError, PreparedContainer, cell_user, descriptors, fd_passing, input, namespaces, program,
    rlimits,
};

/// Descriptor of the zygote's control socket.
const CONTROL_FD: i32 = 3;

/// Largest message from the zygote, in bytes.
const MAX_MESSAGE_BYTES: usize = 4096;

/// Variable that makes the dynamic linker look up every symbol at once, so that no clone has to
/// look one up. `prefault.py` has the details.
const BIND_NOW: (&str, &str) = ("LD_BIND_NOW", "1");

/// A running zygote. It lives as long as its socket, so dropping this value ends it.
#[derive(Debug)]
pub(crate) struct Zygote {
    control: OwnedFd,
    /// True while a clone of the zygote lives or is being made.
    busy: bool,
}

/// Message from a zygote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FromZygote {
    /// The zygote has imported its libraries.
    Ready,
    /// The zygote's clone is dead.
    Ended {
        /// The exit code or signal of the clone.
        end: ProgramEnd,
        /// CPU time of the clone and of the children it waited for, in microseconds.
        cpu_us: u64,
    },
    /// The zygote could not carry out a request.
    Failed(CellError),
    /// The zygote is gone.
    Gone,
}

/// First message to a zygote.
#[derive(Serialize)]
struct Setup<'a> {
    imports: &'a [String],
    /// `None` for a template zygote, which makes no clones itself.
    #[serde(flatten)]
    clones: Option<&'a CloneSetup>,
}

/// Request for a clone. The message carries the clone's descriptors.
const CLONE_REQUEST: &[u8] = b"clone";

/// Message of the zygote as JSON. The fields that are present determine its meaning.
#[derive(Deserialize)]
struct ZygoteMessage {
    ready: Option<u8>,
    status: Option<i32>,
    cpu_us: Option<u64>,
    failed: Option<String>,
    errno: Option<i32>,
}

impl Zygote {
    /// Starts a zygote and makes it import the libraries that the image names. [`Zygote::recv`]
    /// returns [`FromZygote::Ready`] when that is done.
    ///
    /// In a sandbox of a keeper, the keeper provides a server of its own zygote instead, if the
    /// worker opened the sandbox for the program of that zygote.
    ///
    /// # Errors
    /// Fails if the kernel refuses a step, or if the program's arguments and variables are not
    /// valid for an exec.
    pub(crate) fn start(
        container: &PreparedContainer,
        warm: &StartZygote,
    ) -> Result<Self, CellError> {
        let namespaces = namespaces::entered_namespaces(container.has_network_namespaces())
            .into_iter()
            .map(|(flag, _)| flag.bits())
            .collect();
        let clones = CloneSetup {
            user: container.user.number(),
            filter: container.filter.as_ref().map(Filter::in_hex),
            namespaces,
        };
        if let Some(keeper) = &container.keeper {
            match keeper.request(&clones)? {
                Ok(control) => {
                    return Ok(Self {
                        control,
                        busy: false,
                    });
                }
                // The keeper reads the first lines of this sandbox's standard error.
                Err(reason) => drop(writeln!(
                    io::stderr(),
                    "the keeper gives no zygote, so the runner starts its own: {reason}"
                )),
            }
        }
        let zygote = ZygoteProgram {
            argv: warm.argv.clone(),
            env: warm.env.clone(),
            imports: warm.imports.clone(),
            cpu_millis: warm.caps.cpu_millis,
        };
        let (control, _process) = spawn(&zygote, || Ok(()))?;
        configure(&control, &zygote, Some(&clones))?;
        Ok(Self {
            control,
            busy: false,
        })
    }

    /// Starts a template zygote: one that makes no clones, but forks servers that do. Returns its
    /// process too. Its socket does not block.
    ///
    /// # Errors
    /// As for [`Zygote::start`].
    pub(crate) fn start_template(program: &ZygoteProgram) -> Result<(Self, Pid), CellError> {
        let (control, process) = spawn(program, || {
            // The keeper itself keeps its bounding set, because its runners need their
            // capabilities.
            cell_user::make_zygote_caps_inheritable()?;
            cell_user::empty_bounding_set()
        })?;
        configure(&control, program, None)?;
        fcntl(&control, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).step("configure the zygote")?;
        let zygote = Self {
            control,
            busy: false,
        };
        Ok((zygote, process))
    }

    /// Requests a server from a template zygote. The server gets its control socket and the cgroup
    /// namespace of its sandbox.
    ///
    /// # Errors
    /// `EAGAIN` if the zygote is behind with earlier requests.
    pub(crate) fn request_server(
        &self,
        clones: &CloneSetup,
        control: BorrowedFd<'_>,
        cgroups: BorrowedFd<'_>,
    ) -> Result<(), Errno> {
        let setup = serde_json::to_vec(clones).expect("messages have string keys");
        fd_passing::send_with_fds(self.control.as_fd(), &setup, &[control, cgroups])
    }

    /// Requests a clone. `handed` holds the clone's descriptors in the order that the zygote
    /// expects.
    pub(super) fn request_clone(&mut self, handed: &[BorrowedFd<'_>]) -> Result<(), CellError> {
        fd_passing::send_with_fds(self.control.as_fd(), CLONE_REQUEST, handed)
            .step("ask for a clone")?;
        self.busy = true;
        Ok(())
    }

    /// Returns whether a clone lives or is being made. A new clone must wait until it is gone.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy
    }

    /// Returns the descriptor that becomes readable when the zygote sends a message or is gone.
    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// Receives the next message of the zygote. `None` if there is none yet.
    ///
    /// # Errors
    /// Fails if the socket fails, or if a message cannot be decoded.
    pub(crate) fn recv(&mut self) -> io::Result<Option<FromZygote>> {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
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
        let message: ZygoteMessage = serde_json::from_slice(bytes)?;
        Ok(Some(self.decode(message)))
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        // The socket itself is a blocking one, because the zygote sends and receives on its other
        // end and a message to the zygote must arrive. So check before each receive.
        let mut ready = [PollFd::new(self.control.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::ZERO)? {
            0 => Err(Errno::EAGAIN),
            _ => fd_passing::recv_with_fds(self.control.as_fd(), buffer),
        }
    }

    fn decode(&mut self, message: ZygoteMessage) -> FromZygote {
        if let Some(step) = message.failed {
            self.busy = false;
            let errno = message.errno.filter(|errno| *errno != 0);
            return FromZygote::Failed(CellError::new(
                step,
                errno.map_or(Errno::ENOTRECOVERABLE, Errno::from_raw),
            ));
        }
        match (message.status, message.ready) {
            (Some(status), _) => {
                self.busy = false;
                FromZygote::Ended {
                    end: super::reap::end_of(status),
                    cpu_us: message.cpu_us.unwrap_or(0),
                }
            }
            (None, Some(_)) => FromZygote::Ready,
            (None, None) => {
                FromZygote::Failed(CellError::new("decode the zygote's message", Errno::EPROTO))
            }
        }
    }
}

/// Starts the process of a zygote. The new process runs `prepare` before its exec.
fn spawn(
    zygote: &ZygoteProgram,
    prepare: impl FnOnce() -> Result<(), CellError>,
) -> Result<(OwnedFd, Pid), CellError> {
    let (name, value) = BIND_NOW;
    let mut env = zygote.env.clone();
    env.push((name.to_owned(), value.to_owned()));
    let invocation =
        CommandLine::new(&zygote.argv, zygote.cpu_millis, &env).step("start a zygote")?;
    let (ours, theirs) = control_pair().step("make the zygote's socket")?;
    // The zygote has the same kind of standard input as a clone, so that the properties that its
    // interpreter detects also hold for clones.
    let stdin = input::open_empty_input().step("open an empty standard input")?;
    match namespaces::fork().step("fork the zygote")? {
        Some(process) => Ok((ours, process)),
        None => {
            drop(prepare().and_then(|()| become_zygote(stdin, theirs, &invocation)));
            namespaces::exit_now(127);
        }
    }
}

/// Sends a new zygote its first message.
fn configure(
    control: &OwnedFd,
    zygote: &ZygoteProgram,
    clones: Option<&CloneSetup>,
) -> Result<(), CellError> {
    let setup = Setup {
        imports: &zygote.imports,
        clones,
    };
    let setup = serde_json::to_vec(&setup).expect("messages have string keys");
    fd_passing::send_with_fds(control.as_fd(), &setup, &[]).step("configure the zygote")
}

/// Turns a fork of the runner into the zygote's program. Returns only if that fails.
fn become_zygote(
    stdin: OwnedFd,
    control: OwnedFd,
    invocation: &CommandLine,
) -> Result<(), CellError> {
    let errors = io::stderr().as_fd().try_clone_to_owned();
    let errors = errors.step("duplicate the engine's log")?;
    let output = errors.try_clone().step("duplicate the engine's log")?;
    let keep = [&stdin, &control, &errors, &output].map(AsFd::as_fd);
    descriptors::close_descriptors_except(&keep).step("close the runner's descriptors")?;
    let wanted = [stdin, output, errors, control];
    let mut lifted = Vec::with_capacity(wanted.len());
    for end in wanted {
        lifted.push(descriptors::move_out_of_the_way(end).step("place the zygote's descriptors")?);
    }
    for (number, end) in (0..).zip(&lifted) {
        descriptors::install_at(end, number).step("place the zygote's descriptors")?;
    }
    descriptors::close_at_exec_from(CONTROL_FD + 1).step("close the runner's descriptors")?;
    cell_user::become_zygote()?;
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    chdir("/").step("change to the root")?;
    program::reset_signals().step("reset the signals")?;
    rlimits::reserve_stack_space().step("reserve address space for stacks")?;
    Err(CellError::new("start a zygote", program::exec(invocation)))
}
