//! One cell, as the runner holds it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use sandhog_runner::protocol::{Program, Run};

use super::census::{self, Census};
use super::cgroup::{Counts, Group};
use super::control::{Control, FromInit};
use super::environment::Invocation;
use super::error::Step;
use super::init::{self, Blueprint, InitEnds};
use super::program::SourceFile;
use super::{CellError, Ended, Ground, descriptors, namespaces, reap_one};

/// How long a killed init may take to be gone.
const FUNERAL: Duration = Duration::from_secs(5);

/// A running cell and the runner's ends of everything.
#[derive(Debug)]
pub(crate) struct Cell {
    init: Pid,
    /// Set once the init has been reaped.
    init_gone: bool,
    control: Control,
    group: Option<Group>,
    /// Whether the cell's mounts stay when it is gone.
    lasting_mounts: bool,
    memory_cap: u64,
    pids_cap: u32,
    /// The most seen at once of memory and of threads, where no cgroup keeps count.
    seen: Census,
    /// The program's standard input.
    pub(crate) stdin: Option<File>,
    /// The program's standard output.
    pub(crate) stdout: Option<File>,
    /// The program's standard error.
    pub(crate) stderr: Option<File>,
    /// The other end of the program's descriptor 3, for a harness.
    pub(crate) harness: Option<UnixStream>,
}

/// What a running cell has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spent {
    /// CPU time of the whole tree, in microseconds.
    pub(crate) cpu_us: u64,
    /// Whether the memory cap was reached.
    pub(crate) out_of_memory: bool,
}

/// What a cell that is over used, and whether it is gone.
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
    /// Whether every process, every mount and the cgroup are gone.
    pub(crate) clean: bool,
}

impl Cell {
    /// Makes a cell and starts the run's program in it. What comes of that, [`Cell::hear`] tells.
    ///
    /// # Errors
    /// When the kernel refuses a step; nothing is left behind then.
    pub(crate) fn start(ground: &Ground, run: &Run) -> Result<Self, CellError> {
        let group = ground.hierarchy.make(&run.caps)?;
        let (control, init_control) = Control::pair().step("make a control socket")?;
        let pipe = || descriptors::cell_pipe(ground.user).step("make a pipe");
        let (stdin_read, stdin) = pipe()?;
        let (stdout, stdout_write) = pipe()?;
        let (stderr, stderr_write) = pipe()?;
        let harness = harness_pair(&run.program).step("make the harness's socket")?;
        let (harness, harness_theirs) = harness.unzip();

        let flags = namespaces::flags(ground.network != super::ground::Network::Shared);
        let Some(init) = namespaces::clone(flags).step("make a cell's namespaces")? else {
            let ends = InitEnds {
                control: init_control,
                stdin: stdin_read,
                stdout: stdout_write,
                stderr: stderr_write,
                harness: harness_theirs.map(OwnedFd::from),
            };
            let blueprint = Blueprint {
                ground,
                group: group.as_ref(),
                caps: &run.caps,
                invocation: Invocation::new(argv(&run.program), &run.env),
                source: source_file(&run.program),
            };
            namespaces::leave(init::run(&blueprint, ends));
        };
        let cell = Self {
            init,
            init_gone: false,
            control,
            group,
            lasting_mounts: ground.lasting_mounts,
            memory_cap: run.caps.memory_bytes,
            pids_cap: run.caps.pids,
            seen: Census::default(),
            stdin: Some(stdin.into()),
            stdout: Some(stdout.into()),
            stderr: Some(stderr.into()),
            harness,
        };
        cell.make_nonblocking().step("make a pipe nonblocking")?;
        Ok(cell)
    }

    fn make_nonblocking(&self) -> Result<(), Errno> {
        let ends = [
            Some(self.control.0.as_fd()),
            self.stdin.as_ref().map(AsFd::as_fd),
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
        self.control.hear()
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
        drop(self.control.ask(signal));
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
                out_of_memory: oom_kills > 0,
            });
        }
        let census = census::take(self.init);
        self.seen.memory_bytes = self.seen.memory_bytes.max(census.memory_bytes);
        self.seen.threads = self.seen.threads.max(census.threads);
        Ok(Spent {
            cpu_us: census.cpu_us,
            out_of_memory: census.memory_bytes > self.memory_cap,
        })
    }

    /// Waits for the init to be gone, takes the last counts and removes the cgroup.
    ///
    /// # Errors
    /// When the counts do not read; the cgroup is removed all the same.
    pub(crate) fn finish(mut self) -> Result<Remains, CellError> {
        let gone = self.await_init() && !self.lasting_mounts;
        let Some(group) = self.group.take() else {
            return Ok(Remains {
                cpu_us: 0,
                out_of_memory: false,
                pids_refused: self.seen.threads >= u64::from(self.pids_cap),
                memory_peak: self.seen.memory_bytes,
                clean: gone,
            });
        };
        let counts = group.counts();
        let peak = group.memory_peak();
        let refused = group.pids_refused();
        let removed = group.remove();
        let counts = counts?;
        Ok(Remains {
            cpu_us: counts.cpu_us,
            out_of_memory: counts.oom_kills > 0,
            pids_refused: refused?,
            memory_peak: peak?,
            clean: gone && removed,
        })
    }

    /// Reaps until the init is gone; whether it is.
    fn await_init(&mut self) -> bool {
        let until = Instant::now() + FUNERAL;
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

/// Both ends of a harness's socket, for a program that is one.
fn harness_pair(program: &Program) -> io::Result<Option<(UnixStream, UnixStream)>> {
    match program {
        Program::Harness { .. } => UnixStream::pair().map(Some),
        Program::Argv { .. } | Program::File { .. } => Ok(None),
    }
}

fn argv(program: &Program) -> &[String] {
    match program {
        Program::Argv { argv } | Program::File { argv, .. } | Program::Harness { argv, .. } => argv,
    }
}

fn source_file(program: &Program) -> Option<SourceFile<'_>> {
    match program {
        Program::File { file, source, .. } => Some(SourceFile {
            name: file,
            text: source,
        }),
        Program::Argv { .. } | Program::Harness { .. } => None,
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        self.destroy();
    }
}
