//! One cell, as the runner holds it.

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

/// How long a killed init may take to be gone.
const FUNERAL: Duration = Duration::from_secs(5);

/// Added to that for each file that the cell's scratch spaces may hold: the kernel frees them one
/// by one.
const FUNERAL_PER_FILE: Duration = Duration::from_micros(20);

/// A cell and the runner's ends of everything.
#[derive(Debug)]
pub(crate) struct Cell {
    init: Pid,
    /// Set once the init has been reaped.
    init_gone: bool,
    control: Control,
    group: Option<Group>,
    /// Whether the cell's mounts stay when it is gone.
    lasting_mounts: bool,
    caps: Caps,
    /// The most seen at once of memory and of threads, where no cgroup keeps count.
    seen: Census,
    /// The program's standard output.
    pub(crate) stdout: Option<File>,
    /// The program's standard error.
    pub(crate) stderr: Option<File>,
    /// The other end of the program's descriptor 3, for a harness.
    pub(crate) harness: Option<UnixStream>,
    /// The other end of the descriptor on which the program asks models, where it may.
    pub(crate) questions: Option<UnixStream>,
    /// The clone that is to be its program, if one is.
    pub(super) clone: Option<Clone>,
    /// The working directory, once the init has handed it over with its last word.
    work: Option<OwnedFd>,
    /// Its network namespace, once the init has handed it over.
    network: Option<OwnedFd>,
    /// Where that goes when the cell is over.
    kept_networks: Option<Rc<KeptNetworks>>,
    user: CellUser,
}

/// What a running cell has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    /// CPU time of the whole tree, in microseconds.
    pub(crate) cpu_us: u64,
    /// Whether the memory cap was reached.
    pub(crate) out_of_memory: bool,
}

/// What a cell that is over used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remains {
    /// CPU time of the whole tree, in microseconds; zero without a cgroup.
    pub(crate) cpu_us: u64,
    /// Whether the kernel killed a process because memory was used up.
    pub(crate) out_of_memory: bool,
    /// Whether a process or thread was refused at the cap; without a cgroup, whether the cap was ever seen reached.
    pub(crate) pids_refused: bool,
    /// Most memory in use at once, in bytes.
    pub(crate) memory_peak: u64,
    /// Whether nothing of it stays that is known to.
    pub(crate) clean: bool,
}

impl Cell {
    /// Makes a cell and starts the run's program in it. What comes of that, [`Cell::hear`] tells.
    ///
    /// # Errors
    /// When the kernel refuses a step; nothing is left behind then.
    pub(crate) fn start(ground: &Ground, run: &Run) -> Result<Self, CellError> {
        let harness = harness_pair(&run.program).step("make the harness's socket")?;
        let (harness, harness_theirs) = harness.unzip();
        let questions = run.questions.map(|_allowed| UnixStream::pair()).transpose();
        let (questions, questions_theirs) = questions.step("make a socket for questions")?.unzip();
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

    /// Makes a cell for a clone of the zygote, before there is a run for it. [`Cell::hear`] tells when it is made; then
    /// the zygote is to be asked for the clone.
    ///
    /// # Errors
    /// When the kernel refuses a step; nothing is left behind then.
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

    /// Whether a run with these caps can have this cell.
    pub(crate) fn fits(&self, caps: &Caps) -> bool {
        let scratch = |caps: &Caps| (caps.scratch_bytes, caps.scratch_inodes);
        scratch(&self.caps) == scratch(caps)
    }

    /// Caps it anew, before its program begins.
    ///
    /// # Errors
    /// When the kernel refuses one.
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

    /// Files by which the clone joins the cell's cgroup.
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

    /// Readable when the cell's init has something to say, or is gone.
    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.0.as_fd()
    }

    /// What the init says; `None` once it is gone.
    ///
    /// # Errors
    /// When the socket fails.
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

    /// Takes files out of the working directory of a cell whose processes are all dead. Of one whose init gave no last
    /// word there is nothing to take.
    pub(crate) fn collect(&mut self, fetch: &Fetch, brought: &Brought) -> Collected {
        match self.work.take() {
            Some(work) if !fetch.patterns.is_empty() => {
                artifacts::collect(work, self.user, fetch, brought)
            }
            Some(_) | None => Collected::default(),
        }
    }

    /// Asks every process of the cell to end.
    pub(crate) fn terminate(&mut self) {
        self.ask(Signal::SIGTERM);
    }

    /// Kills every process of the cell but its init, which then reports.
    pub(crate) fn kill(&mut self) {
        if let Some(group) = &self.group {
            group.unthrottle();
        }
        self.ask(Signal::SIGKILL);
    }

    fn ask(&mut self, signal: Signal) {
        // An init that is gone took the whole cell with it, and `hear` tells.
        drop(self.control.ask(ToInit::Signal(signal as libc::c_int)));
    }

    /// Has the init end the cell: its clone ended like this.
    pub(crate) fn end(&mut self, end: End) {
        drop(self.control.ask(ToInit::End(end)));
    }

    /// Kills the init, and with it the whole process namespace.
    pub(crate) fn destroy(&mut self) {
        if let Some(group) = &self.group {
            group.unthrottle();
        }
        if !self.init_gone {
            // It has not been reaped, so the number is still its own; a dead one needs no signal.
            kill(self.init, Signal::SIGKILL).ok();
        }
    }

    /// Takes note of a dead child of the runner's; whether it was the init.
    pub(crate) fn bury(&mut self, ended: Ended) -> bool {
        let ours = ended.pid == self.init;
        self.init_gone |= ours;
        ours
    }

    /// What it has used so far.
    ///
    /// # Errors
    /// When the counts do not read.
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

    /// What it used, now that its program and everything that started are dead.
    ///
    /// # Errors
    /// When the counts do not read.
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

    /// Waits for the init to be gone and removes the cgroup; whether nothing of the cell is left.
    pub(crate) fn clear(mut self) -> bool {
        let gone = self.await_init() && !self.lasting_mounts;
        if gone && let (Some(kept), Some(network)) = (&self.kept_networks, self.network.take()) {
            kept.keep(network);
        }
        let removed = self.group.take().is_none_or(Group::remove);
        gone && removed
    }

    /// Reaps until the init is gone; whether it is.
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
                // It has closed its socket and is about to be gone.
                Ok(None) => std::thread::sleep(Duration::from_micros(100)),
                Err(_) => return false,
            }
        }
        self.init_gone
    }
}

/// A copy of the network namespace among those that an init hands over.
fn network_of(spaces: &[OwnedFd]) -> io::Result<Option<OwnedFd>> {
    let own = namespaces::place_of_network().and_then(|place| spaces.get(place));
    own.map(OwnedFd::try_clone).transpose()
}

/// The runner's ends of standard output and error.
type Streams = [OwnedFd; 2];

/// Both ends of the output streams, and an empty standard input.
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

/// Both ends of a harness's socket, for a program that is one.
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
