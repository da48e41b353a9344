//! One cell and the runner's ends of its sockets and pipes.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2};

use sandhog_protocol::frames::{Call, CellCaps, Fetch, OpenCell, Program, ProgramEnd};

use super::cell_user::CellUser;
use super::cgroup::{Counts, Group};
use super::clone::{self, CloneStatus, PendingClone};
use super::environment::CommandLine;
use super::error::Step;
use super::init;
use super::init_channel::{FromInit, InitChannel, ToInit};
use super::namespaces::network_index;
use super::network::NetworkPool;
use super::proc_usage::{ProcUsage, sample_proc_usage};
use super::spec::{CellSpec, ProgramFds, ProgramSpec};
use super::{
    CellError, Collected, Ended, InputSnapshot, PreparedContainer, Zygote, artifacts, descriptors,
    environment, input, mounts, namespaces, reap_one,
};

/// Timeout for a killed init to be gone.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);

/// Time added to [`REAP_TIMEOUT`] for each file that the cell's scratch spaces may hold, because
/// the kernel frees the files one by one.
const REAP_TIMEOUT_PER_FILE: Duration = Duration::from_micros(20);

/// A cell, with the runner's end of every socket and pipe.
#[derive(Debug)]
pub(crate) struct Cell {
    init: Pid,
    /// Set once the init has been reaped.
    init_gone: bool,
    init_channel: InitChannel,
    group: Option<Group>,
    /// True if the cell's mounts remain when the cell is gone.
    mounts_leak: bool,
    caps: CellCaps,
    /// Highest memory and number of threads seen so far, if no cgroup counts them.
    peak: ProcUsage,
    /// The program's standard output.
    pub(crate) stdout: Option<File>,
    /// The program's standard error.
    pub(crate) stderr: Option<File>,
    /// The other end of the program's descriptor 3, for a harness.
    pub(crate) harness: Option<UnixStream>,
    /// The runner's end of the socket for inference requests, if the program may send them.
    pub(crate) infer: Option<UnixStream>,
    /// The clone that is to be the cell's program, if there is one.
    clone: Option<PendingClone>,
    /// The working directory, once the init has sent it with its last message.
    work: Option<OwnedFd>,
    /// The cell's network namespace, once the init has sent it.
    network: Option<OwnedFd>,
    /// Store to which the network namespace goes when the cell ends.
    network_pool: Option<Rc<NetworkPool>>,
    user: CellUser,
}

/// Resources that a running cell has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunningUsage {
    /// CPU time of the whole tree, in microseconds.
    pub(crate) cpu_us: u64,
    /// True if the memory cap was reached.
    pub(crate) out_of_memory: bool,
}

/// Resources that a finished cell used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CellUsage {
    /// CPU time of the whole tree, in microseconds; zero without a cgroup.
    pub(crate) cpu_us: u64,
    /// True if the kernel killed a process because memory was used up.
    pub(crate) out_of_memory: bool,
    /// True if a process or thread was refused at the cap. Without a cgroup, true if the cap was
    /// ever seen reached.
    pub(crate) pids_refused: bool,
    /// Most memory in use at once, in bytes.
    pub(crate) memory_peak: u64,
    /// True if nothing of the cell is known to remain.
    pub(crate) clean: bool,
}

impl Cell {
    /// Makes a cell and starts the call's program in it. [`Cell::recv_from_init`] returns the
    /// result.
    ///
    /// # Errors
    /// Fails if the kernel refuses a step. Nothing is left behind then.
    pub(crate) fn start(
        container: &PreparedContainer,
        open: &OpenCell,
        call: &Call,
    ) -> Result<Self, CellError> {
        let harness = harness_pair(&call.program).step("make the harness's socket")?;
        let (harness, harness_theirs) = harness.unzip();
        let infer = call
            .infer_quota
            .map(|_allowed| UnixStream::pair())
            .transpose();
        let (infer, infer_theirs) = infer
            .step("make the socket for inference requests")?
            .unzip();
        let (ours, theirs) = streams(container)?;
        let start = ProgramSpec {
            invocation: CommandLine::new(
                argv(&call.program),
                open.caps.cpu_millis,
                &environment::call_environment(open, call),
            ),
            call,
            files: &open.files,
            fds: ProgramFds {
                harness: harness_theirs.map(OwnedFd::from),
                infer: infer_theirs.map(OwnedFd::from),
                ..theirs
            },
        };
        let mut cell = Self::make(container, &open.caps, ours, harness, Some(start))?;
        if let Some(infer) = &infer {
            infer
                .set_nonblocking(true)
                .step("make a socket nonblocking")?;
        }
        cell.infer = infer;
        Ok(cell)
    }

    /// Makes a cell for a clone of the zygote, before there is a call for it.
    /// [`Cell::recv_from_init`] returns [`FromInit::Made`] when it is made. The caller must then
    /// request the clone from the zygote.
    ///
    /// # Errors
    /// Fails if the kernel refuses a step. Nothing is left behind then.
    pub(crate) fn start_empty(
        container: &PreparedContainer,
        caps: &CellCaps,
    ) -> Result<Self, CellError> {
        let (channel, channel_theirs) = UnixStream::pair().step("make the clone's socket")?;
        let (ours, theirs) = streams(container)?;
        let (status, status_write) = pipe2(OFlag::O_CLOEXEC).step("make a status pipe")?;
        fcntl(&status, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).step("make a pipe nonblocking")?;
        let theirs = ProgramFds {
            harness: Some(channel_theirs.into()),
            ..theirs
        };
        let mut cell = Self::make(container, caps, ours, Some(channel), None)?;
        cell.clone = Some(PendingClone::new(theirs, status, status_write));
        Ok(cell)
    }

    fn make(
        container: &PreparedContainer,
        caps: &CellCaps,
        ours: OutputPipes,
        harness: Option<UnixStream>,
        start: Option<ProgramSpec<'_>>,
    ) -> Result<Self, CellError> {
        let group = container.hierarchy.make(caps)?;
        let (init_channel, init_end) = InitChannel::pair().step("make a control socket")?;
        let pooled_network = container.network_pool.as_ref().and_then(|pool| pool.take());
        let flags = namespaces::cell_namespaces(
            container.has_network_namespaces() && pooled_network.is_none(),
        );
        let Some(init) = namespaces::clone(flags).step("make a cell's namespaces")? else {
            let spec = CellSpec {
                container,
                group: group.as_ref(),
                caps,
                pooled_network,
            };
            init::run_init(&spec, init_end, start);
            namespaces::exit_now(0);
        };
        let [stdout, stderr] = ours;
        let cell = Self {
            init,
            init_gone: false,
            init_channel,
            group,
            mounts_leak: container.mounts_leak,
            caps: *caps,
            peak: ProcUsage::default(),
            stdout: Some(stdout.into()),
            stderr: Some(stderr.into()),
            harness,
            infer: None,
            clone: None,
            work: None,
            network: None,
            network_pool: container.network_pool.clone(),
            user: container.user,
        };
        cell.make_nonblocking().step("make a pipe nonblocking")?;
        Ok(cell)
    }

    /// Returns whether this cell can get these caps. Only the scratch caps must be equal, because
    /// the others can still be changed.
    pub(crate) fn fits(&self, caps: &CellCaps) -> bool {
        let scratch = |caps: &CellCaps| (caps.scratch_bytes, caps.scratch_inodes);
        scratch(&self.caps) == scratch(caps)
    }

    /// Replaces the cell's caps, before its program begins.
    ///
    /// # Errors
    /// Fails if the kernel refuses a cap.
    pub(crate) fn set_caps(&mut self, caps: &CellCaps) -> Result<(), CellError> {
        let counted = |caps: &CellCaps| (caps.memory_bytes, caps.pids, caps.cpu_millis);
        if let Some(group) = &self.group
            && counted(&self.caps) != counted(caps)
        {
            group.cap(caps)?;
        }
        self.caps = *caps;
        Ok(())
    }

    fn make_nonblocking(&self) -> Result<(), Errno> {
        let ends = [
            Some(self.init_channel.0.as_fd()),
            self.stdout.as_ref().map(AsFd::as_fd),
            self.stderr.as_ref().map(AsFd::as_fd),
            self.harness.as_ref().map(AsFd::as_fd),
        ];
        ends.into_iter()
            .flatten()
            .try_for_each(|end| fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(drop))
    }

    /// Returns the descriptor that becomes readable when the cell's init sends a message or is
    /// gone.
    pub(crate) fn init_fd(&self) -> BorrowedFd<'_> {
        self.init_channel.0.as_fd()
    }

    /// Receives the next message of the init. `None` means that the init is gone.
    ///
    /// # Errors
    /// Fails if the socket fails.
    pub(crate) fn recv_from_init(&mut self) -> io::Result<Option<FromInit>> {
        let Some((message, fds)) = self.init_channel.recv()? else {
            return Ok(None);
        };
        match (&message, &mut self.clone) {
            (FromInit::Made, Some(clone)) => {
                if self.network_pool.is_some() {
                    self.network = network_of(&fds)?;
                }
                clone.set_namespaces(fds);
            }
            _ => self.work = fds.into_iter().next(),
        }
        Ok(Some(message))
    }

    /// Requests the clone for this cell from the zygote. The cell must be made.
    ///
    /// # Errors
    /// Fails if the request cannot be sent, or if the clone was already requested.
    pub(crate) fn request_clone(&mut self, zygote: &mut Zygote) -> Result<(), CellError> {
        let group = self.group.as_ref();
        let join_files = group.map_or(Ok(Vec::new()), Group::join_files)?;
        let clone = self.clone.as_mut().ok_or_else(clone::requested_twice)?;
        clone.request(&join_files, zygote)
    }

    /// Sends the clone its socket for inference requests. Must be called before the clone's request
    /// is sent.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn send_infer_socket(&mut self) -> Result<(), CellError> {
        self.infer = Some(clone::send_infer_socket(self.harness.as_ref())?);
        Ok(())
    }

    /// Returns whether the cell's program is a clone, or is to be one.
    pub(crate) fn is_for_clone(&self) -> bool {
        self.clone.is_some()
    }

    /// Returns whether the cell is made and its clone has not been requested.
    pub(crate) fn needs_clone(&self) -> bool {
        self.clone.as_ref().is_some_and(PendingClone::is_due)
    }

    /// Returns whether the cell's clone has been requested.
    pub(crate) fn has_requested_clone(&self) -> bool {
        self.clone.as_ref().is_some_and(PendingClone::is_requested)
    }

    /// Returns the descriptor that becomes readable when the clone sends a status message. `None`
    /// if the program runs, if the clone is gone, or if there is no clone.
    pub(crate) fn clone_status_fd(&self) -> Option<BorrowedFd<'_>> {
        self.clone.as_ref().and_then(PendingClone::status_fd)
    }

    /// Reads the clone's status message. `None` if there is no new one.
    ///
    /// # Errors
    /// Fails if the pipe cannot be read.
    pub(crate) fn read_clone_status(&mut self) -> io::Result<Option<CloneStatus>> {
        match &mut self.clone {
            Some(clone) => clone.read_status(),
            None => Ok(None),
        }
    }

    /// Collects files from the working directory of a cell whose processes are all dead. If the
    /// init sent no last message, there is nothing to collect.
    pub(crate) fn collect(&mut self, fetch: &Fetch, snapshot: &InputSnapshot) -> Collected {
        match self.work.take() {
            Some(work) if !fetch.patterns.is_empty() => {
                artifacts::collect(work, self.user, fetch, snapshot)
            }
            Some(_) | None => Collected::default(),
        }
    }

    /// Sends SIGTERM to every process of the cell.
    pub(crate) fn terminate(&mut self) {
        self.request_signal(Signal::SIGTERM);
    }

    /// Kills every process of the cell except its init, which then reports the end.
    pub(crate) fn kill(&mut self) {
        if let Some(group) = &self.group {
            group.unthrottle();
        }
        self.request_signal(Signal::SIGKILL);
    }

    fn request_signal(&mut self, signal: Signal) {
        // The error is ignored: if the init is gone, the whole cell is, and `recv_from_init`
        // returns that.
        drop(
            self.init_channel
                .send_request(ToInit::Signal(signal as libc::c_int)),
        );
    }

    /// Makes the init end the cell. `end` is the result of the cell's clone.
    pub(crate) fn end(&mut self, end: ProgramEnd) {
        drop(self.init_channel.send_request(ToInit::End(end)));
    }

    /// Kills the init, and with it the whole process namespace.
    pub(crate) fn destroy(&mut self) {
        if let Some(group) = &self.group {
            group.unthrottle();
        }
        if !self.init_gone {
            // The init has not been reaped, so its process id is still its own. If it is already
            // dead, the signal has no effect.
            kill(self.init, Signal::SIGKILL).ok();
        }
    }

    /// Records a dead child of the runner. Returns whether it was the init.
    pub(crate) fn note_reaped(&mut self, ended: Ended) -> bool {
        let ours = ended.pid == self.init;
        self.init_gone |= ours;
        ours
    }

    /// Returns the resources that the cell has used so far.
    ///
    /// # Errors
    /// Fails if a counter cannot be read.
    pub(crate) fn sample_usage(&mut self) -> Result<RunningUsage, CellError> {
        if let Some(group) = &self.group {
            let Counts { cpu_us, oom_kills } = group.counts()?;
            return Ok(RunningUsage {
                cpu_us,
                out_of_memory: oom_kills > 0 || group.is_above_its_cap()?,
            });
        }
        let usage = sample_proc_usage(self.init);
        self.peak.memory_bytes = self.peak.memory_bytes.max(usage.memory_bytes);
        self.peak.threads = self.peak.threads.max(usage.threads);
        Ok(RunningUsage {
            cpu_us: usage.cpu_us,
            out_of_memory: usage.memory_bytes > self.caps.memory_bytes,
        })
    }

    /// Returns the resources that the cell used. Its program and all processes that it started must
    /// be dead.
    ///
    /// # Errors
    /// Fails if a counter cannot be read.
    pub(crate) fn usage(&self) -> Result<CellUsage, CellError> {
        let Some(group) = &self.group else {
            return Ok(CellUsage {
                cpu_us: 0,
                out_of_memory: false,
                pids_refused: self.peak.threads >= u64::from(self.caps.pids),
                memory_peak: self.peak.memory_bytes,
                clean: !self.mounts_leak,
            });
        };
        let counts = group.counts()?;
        Ok(CellUsage {
            cpu_us: counts.cpu_us,
            out_of_memory: counts.oom_kills > 0,
            pids_refused: group.pids_refused()?,
            memory_peak: group.memory_peak()?,
            clean: !self.mounts_leak,
        })
    }

    /// Waits until the init is gone and removes the cgroup. Returns whether nothing of the cell is
    /// left.
    pub(crate) fn remove(mut self) -> bool {
        let gone = self.await_init() && !self.mounts_leak;
        if gone && let (Some(pool), Some(network)) = (&self.network_pool, self.network.take()) {
            pool.put(network);
        }
        let removed = self.group.take().is_none_or(Group::remove);
        gone && removed
    }

    /// Reaps children until the init is gone or the time is over. Returns whether the init is gone.
    fn await_init(&mut self) -> bool {
        let files = self
            .caps
            .scratch_inodes
            .saturating_mul(mounts::SCRATCH_SPACES);
        let until = Instant::now() + REAP_TIMEOUT + REAP_TIMEOUT_PER_FILE * files;
        while !self.init_gone && Instant::now() < until {
            match reap_one(false) {
                Ok(Some(ended)) => {
                    self.note_reaped(ended);
                }
                // The init has closed its socket and is about to exit.
                Ok(None) => std::thread::sleep(Duration::from_micros(100)),
                Err(_) => return false,
            }
        }
        self.init_gone
    }
}

/// Returns a copy of the network namespace from the namespaces that an init sends.
fn network_of(namespaces: &[OwnedFd]) -> io::Result<Option<OwnedFd>> {
    let own = network_index().and_then(|index| namespaces.get(index));
    own.map(OwnedFd::try_clone).transpose()
}

/// The runner's ends of standard output and error.
type OutputPipes = [OwnedFd; 2];

/// Makes both ends of the output streams, and an empty standard input.
fn streams(container: &PreparedContainer) -> Result<(OutputPipes, ProgramFds), CellError> {
    let pipes = descriptors::cell_pipes(container.user).step("make the cell's pipes")?;
    let [(stdout, stdout_write), (stderr, stderr_write)] = pipes;
    let theirs = ProgramFds {
        stdin: input::open_empty_input().step("open an empty standard input")?,
        stdout: stdout_write,
        stderr: stderr_write,
        harness: None,
        infer: None,
    };
    Ok(([stdout, stderr], theirs))
}

/// Makes both ends of a harness's socket, if the program uses one.
fn harness_pair(program: &Program) -> io::Result<Option<(UnixStream, UnixStream)>> {
    match program {
        Program::Harness { .. } | Program::Server { .. } => UnixStream::pair().map(Some),
        Program::Argv { .. } | Program::File { .. } => Ok(None),
    }
}

fn argv(program: &Program) -> &[String] {
    match program {
        Program::Argv { argv }
        | Program::File { argv, .. }
        | Program::Harness { argv, .. }
        | Program::Server { argv } => argv,
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.destroy();
    }
}
