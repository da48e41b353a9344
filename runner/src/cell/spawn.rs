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

use sandhog_runner::protocol::{Caps, End, Fetch, Program, Run};

use super::census::{self, Census};
use super::cgroup::{Counts, Group};
use super::clone::Clone;
use super::control::{Control, FromInit, ToInit};
use super::environment::Invocation;
use super::error::Step;
use super::identity::CellUser;
use super::init::{self, Blueprint, Start};
use super::network::KeptNetworks;
use super::program::{Ends, SourceFile};
use super::{
    Brought, CellError, Collected, Ended, Ground, artifacts, descriptors, environment, input,
    mounts, namespaces, reap_one,
};

/// Timeout for a killed init to be gone.
const FUNERAL: Duration = Duration::from_secs(5);

/// Time added to [`FUNERAL`] for each file that the cell's scratch spaces may hold, because the
/// kernel frees the files one by one.
const FUNERAL_PER_FILE: Duration = Duration::from_micros(20);

/// A cell, with the runner's end of every socket and pipe.
#[derive(Debug)]
pub(crate) struct Cell {
    init: Pid,
    /// Set once the init has been reaped.
    init_gone: bool,
    control: Control,
    group: Option<Group>,
    /// True if the cell's mounts remain when the cell is gone.
    lasting_mounts: bool,
    caps: Caps,
    /// Highest memory and number of threads seen so far, if no cgroup counts them.
    seen: Census,
    /// The program's standard output.
    pub(crate) stdout: Option<File>,
    /// The program's standard error.
    pub(crate) stderr: Option<File>,
    /// The other end of the program's descriptor 3, for a harness.
    pub(crate) harness: Option<UnixStream>,
    /// The runner's end of the socket for inference requests, if the program may send them.
    pub(crate) questions: Option<UnixStream>,
    /// The clone that is to be the cell's program, if there is one.
    pub(super) clone: Option<Clone>,
    /// The working directory, once the init has sent it with its last message.
    work: Option<OwnedFd>,
    /// The cell's network namespace, once the init has sent it.
    network: Option<OwnedFd>,
    /// Store to which the network namespace goes when the cell ends.
    kept_networks: Option<Rc<KeptNetworks>>,
    user: CellUser,
}

/// Resources that a running cell has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    /// CPU time of the whole tree, in microseconds.
    pub(crate) cpu_us: u64,
    /// True if the memory cap was reached.
    pub(crate) out_of_memory: bool,
}

/// Resources that a finished cell used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remains {
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
    /// Makes a cell and starts the run's program in it. [`Cell::hear`] returns the result.
    ///
    /// # Errors
    /// Fails if the kernel refuses a step. Nothing is left behind then.
    pub(crate) fn start(ground: &Ground, run: &Run) -> Result<Self, CellError> {
        let harness = harness_pair(&run.program).step("make the harness's socket")?;
        let (harness, harness_theirs) = harness.unzip();
        let questions = run.questions.map(|_allowed| UnixStream::pair()).transpose();
        let (questions, questions_theirs) = questions
            .step("make the socket for inference requests")?
            .unzip();
        let (ours, theirs) = streams(ground)?;
        let start = Start {
            invocation: Invocation::new(
                argv(&run.program),
                run.caps.cpu_millis,
                &environment::of(run),
            ),
            source: source_file(&run.program),
            stdin: &run.stdin,
            input: run.input_json.as_deref(),
            files: &run.files,
            ends: Ends {
                harness: harness_theirs.map(OwnedFd::from),
                questions: questions_theirs.map(OwnedFd::from),
                ..theirs
            },
        };
        let mut cell = Self::make(ground, &run.caps, ours, harness, Some(start))?;
        if let Some(questions) = &questions {
            questions
                .set_nonblocking(true)
                .step("make a socket nonblocking")?;
        }
        cell.questions = questions;
        Ok(cell)
    }

    /// Makes a cell for a clone of the zygote, before there is a run for it. [`Cell::hear`] returns
    /// [`FromInit::Made`] when it is made. The caller must then request the clone from the zygote.
    ///
    /// # Errors
    /// Fails if the kernel refuses a step. Nothing is left behind then.
    pub(crate) fn start_empty(ground: &Ground, caps: &Caps) -> Result<Self, CellError> {
        let (channel, channel_theirs) = UnixStream::pair().step("make the clone's socket")?;
        let (ours, theirs) = streams(ground)?;
        let (status, status_write) = pipe2(OFlag::O_CLOEXEC).step("make a status pipe")?;
        fcntl(&status, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).step("make a pipe nonblocking")?;
        let theirs = Ends {
            harness: Some(channel_theirs.into()),
            ..theirs
        };
        let mut cell = Self::make(ground, caps, ours, Some(channel), None)?;
        cell.clone = Some(Clone::awaited(theirs, status, status_write));
        Ok(cell)
    }

    fn make(
        ground: &Ground,
        caps: &Caps,
        ours: Streams,
        harness: Option<UnixStream>,
        start: Option<Start<'_>>,
    ) -> Result<Self, CellError> {
        let group = ground.hierarchy.make(caps)?;
        let (control, init_control) = Control::pair().step("make a control socket")?;
        let kept_network = ground.kept_networks.as_ref().and_then(|kept| kept.take());
        let flags = namespaces::flags(ground.has_network_namespaces() && kept_network.is_none());
        let Some(init) = namespaces::clone(flags).step("make a cell's namespaces")? else {
            let blueprint = Blueprint {
                ground,
                group: group.as_ref(),
                caps,
                kept_network,
            };
            init::run(&blueprint, init_control, start);
            namespaces::leave(0);
        };
        let [stdout, stderr] = ours;
        let cell = Self {
            init,
            init_gone: false,
            control,
            group,
            lasting_mounts: ground.lasting_mounts,
            caps: *caps,
            seen: Census::default(),
            stdout: Some(stdout.into()),
            stderr: Some(stderr.into()),
            harness,
            questions: None,
            clone: None,
            work: None,
            network: None,
            kept_networks: ground.kept_networks.clone(),
            user: ground.user,
        };
        cell.make_nonblocking().step("make a pipe nonblocking")?;
        Ok(cell)
    }

    /// Returns whether a run with these caps can use this cell. Only the scratch caps must be
    /// equal, because the others can still be changed.
    pub(crate) fn fits(&self, caps: &Caps) -> bool {
        let scratch = |caps: &Caps| (caps.scratch_bytes, caps.scratch_inodes);
        scratch(&self.caps) == scratch(caps)
    }

    /// Replaces the cell's caps, before its program begins.
    ///
    /// # Errors
    /// Fails if the kernel refuses a cap.
    pub(crate) fn cap(&mut self, caps: &Caps) -> Result<(), CellError> {
        let counted = |caps: &Caps| (caps.memory_bytes, caps.pids, caps.cpu_millis);
        if let Some(group) = &self.group
            && counted(&self.caps) != counted(caps)
        {
            group.cap(caps)?;
        }
        self.caps = *caps;
        Ok(())
    }

    /// Opens the files by which the clone joins the cell's cgroup.
    pub(super) fn entrances(&self) -> Result<Vec<File>, CellError> {
        self.group.as_ref().map_or(Ok(Vec::new()), Group::entrances)
    }

    fn make_nonblocking(&self) -> Result<(), Errno> {
        let ends = [
            Some(self.control.0.as_fd()),
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
    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.0.as_fd()
    }

    /// Receives the next message of the init. `None` means that the init is gone.
    ///
    /// # Errors
    /// Fails if the socket fails.
    pub(crate) fn hear(&mut self) -> io::Result<Option<FromInit>> {
        let Some((message, handed)) = self.control.hear()? else {
            return Ok(None);
        };
        match (&message, &mut self.clone) {
            (FromInit::Made, Some(clone)) => {
                if self.kept_networks.is_some() {
                    self.network = network_of(&handed)?;
                }
                clone.take_spaces(handed);
            }
            _ => self.work = handed.into_iter().next(),
        }
        Ok(Some(message))
    }

    /// Collects files from the working directory of a cell whose processes are all dead. If the
    /// init sent no last message, there is nothing to collect.
    pub(crate) fn collect(&mut self, fetch: &Fetch, brought: &Brought) -> Collected {
        match self.work.take() {
            Some(work) if !fetch.patterns.is_empty() => {
                artifacts::collect(work, self.user, fetch, brought)
            }
            Some(_) | None => Collected::default(),
        }
    }

    /// Sends SIGTERM to every process of the cell.
    pub(crate) fn terminate(&mut self) {
        self.ask(Signal::SIGTERM);
    }

    /// Kills every process of the cell except its init, which then reports the end.
    pub(crate) fn kill(&mut self) {
        if let Some(group) = &self.group {
            group.unthrottle();
        }
        self.ask(Signal::SIGKILL);
    }

    fn ask(&mut self, signal: Signal) {
        // The error is ignored: if the init is gone, the whole cell is, and `hear` returns that.
        drop(self.control.ask(ToInit::Signal(signal as libc::c_int)));
    }

    /// Makes the init end the cell. `end` is the result of the cell's clone.
    pub(crate) fn end(&mut self, end: End) {
        drop(self.control.ask(ToInit::End(end)));
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
    pub(crate) fn bury(&mut self, ended: Ended) -> bool {
        let ours = ended.pid == self.init;
        self.init_gone |= ours;
        ours
    }

    /// Returns the resources that the cell has used so far.
    ///
    /// # Errors
    /// Fails if a counter cannot be read.
    pub(crate) fn spent(&mut self) -> Result<Spent, CellError> {
        if let Some(group) = &self.group {
            let Counts { cpu_us, oom_kills } = group.counts()?;
            return Ok(Spent {
                cpu_us,
                out_of_memory: oom_kills > 0 || group.is_above_its_cap()?,
            });
        }
        let census = census::take(self.init);
        self.seen.memory_bytes = self.seen.memory_bytes.max(census.memory_bytes);
        self.seen.threads = self.seen.threads.max(census.threads);
        Ok(Spent {
            cpu_us: census.cpu_us,
            out_of_memory: census.memory_bytes > self.caps.memory_bytes,
        })
    }

    /// Returns the resources that the cell used. Its program and all processes that it started must
    /// be dead.
    ///
    /// # Errors
    /// Fails if a counter cannot be read.
    pub(crate) fn remains(&self) -> Result<Remains, CellError> {
        let Some(group) = &self.group else {
            return Ok(Remains {
                cpu_us: 0,
                out_of_memory: false,
                pids_refused: self.seen.threads >= u64::from(self.caps.pids),
                memory_peak: self.seen.memory_bytes,
                clean: !self.lasting_mounts,
            });
        };
        let counts = group.counts()?;
        Ok(Remains {
            cpu_us: counts.cpu_us,
            out_of_memory: counts.oom_kills > 0,
            pids_refused: group.pids_refused()?,
            memory_peak: group.memory_peak()?,
            clean: !self.lasting_mounts,
        })
    }

    /// Waits until the init is gone and removes the cgroup. Returns whether nothing of the cell is
    /// left.
    pub(crate) fn clear(mut self) -> bool {
        let gone = self.await_init() && !self.lasting_mounts;
        if gone && let (Some(kept), Some(network)) = (&self.kept_networks, self.network.take()) {
            kept.keep(network);
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
        let until = Instant::now() + FUNERAL + FUNERAL_PER_FILE * files;
        while !self.init_gone && Instant::now() < until {
            match reap_one(false) {
                Ok(Some(ended)) => {
                    self.bury(ended);
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
fn network_of(spaces: &[OwnedFd]) -> io::Result<Option<OwnedFd>> {
    let own = namespaces::place_of_network().and_then(|place| spaces.get(place));
    own.map(OwnedFd::try_clone).transpose()
}

/// The runner's ends of standard output and error.
type Streams = [OwnedFd; 2];

/// Makes both ends of the output streams, and an empty standard input.
fn streams(ground: &Ground) -> Result<(Streams, Ends), CellError> {
    let pipes = descriptors::cell_pipes(ground.user).step("make the cell's pipes")?;
    let [(stdout, stdout_write), (stderr, stderr_write)] = pipes;
    let theirs = Ends {
        stdin: input::nothing().step("open an empty standard input")?,
        stdout: stdout_write,
        stderr: stderr_write,
        harness: None,
        questions: None,
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

fn source_file(program: &Program) -> Option<SourceFile<'_>> {
    match program {
        Program::File { file, source, .. } => Some(SourceFile {
            name: file,
            text: source,
        }),
        Program::Argv { .. } | Program::Harness { .. } | Program::Server { .. } => None,
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.destroy();
    }
}
