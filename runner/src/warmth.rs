//! The zygote and the standby cell. With them a program starts without the start of an interpreter.
//!
//! While no program runs, the runner makes a cell for the next one, and a clone of the zygote waits
//! in this standby cell. Some programs cannot run in a clone: those that are not source for the
//! zygote's harness, and those that set environment variables which the interpreter or its
//! libraries read when they start. The runner starts these as new processes, each in a new cell.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use sandhog_runner::protocol::{Caps, Program, Run, Warm};

use crate::cell::{
    Cell, CellError, FromClone, FromInit, FromZygote, Ground, Zygote, thread_counts,
};

/// Timeout for a zygote to import its libraries.
const IMPORT_BOUND: Duration = Duration::from_secs(60);

/// Timeout for the first clone to be ready.
const CLONE_BOUND: Duration = Duration::from_secs(10);

/// Prefixes of the environment variables that an interpreter or a numeric library reads when it
/// starts.
const READ_AT_START: [&str; 14] = [
    "BLIS_",
    "GLIBC_",
    "GOMP_",
    "GOTO_",
    "KMP_",
    "LANG",
    "LC_",
    "LD_",
    "MALLOC_",
    "MKL_",
    "NUMEXPR_",
    "OMP_",
    "OPENBLAS_",
    "PYTHON",
];

/// A running zygote and the standby cell for the next program.
#[derive(Debug)]
pub(crate) struct Warmth {
    /// The zygote.
    pub(crate) zygote: Zygote,
    harness: Vec<String>,
    env: BTreeMap<String, String>,
    spare: Option<Spare>,
    alive: bool,
}

/// The standby cell: a cell with a clone, ready or being made ready.
#[derive(Debug)]
pub(crate) struct Spare {
    /// The cell.
    pub(crate) cell: Cell,
    /// The error because of which the cell will never be ready.
    pub(crate) failed: Option<CellError>,
    /// True once the clone waits for a request.
    pub(crate) waits: bool,
}

impl Warmth {
    /// Starts a zygote, waits until it has imported its libraries, and makes the first standby
    /// cell.
    ///
    /// # Errors
    /// With the step that fails in this container or takes too long.
    pub(crate) fn start(ground: &Ground, warm: &Warm) -> Result<Self, CellError> {
        if !ground.is_whole() {
            return Err(CellError::new(
                "keep a zygote while a test leaves out a wall of the cells",
                Errno::ENOTSUP,
            ));
        }
        if !ground.counts_by_cgroup() {
            // Without cgroups a cell's usage is counted over all processes of the container, so
            // that the zygote would be counted with it.
            return Err(CellError::new(
                "keep a zygote without cgroups",
                Errno::ENOTSUP,
            ));
        }
        let mut warmth = Self {
            zygote: Zygote::start(ground, warm)?,
            harness: warm.harness.clone(),
            env: warm.env.iter().cloned().collect(),
            spare: None,
            alive: true,
        };
        warmth.await_ready()?;
        warmth.make_spare(ground, &warm.caps)?;
        warmth.await_spare()?;
        Ok(warmth)
    }

    fn await_ready(&mut self) -> Result<(), CellError> {
        let until = Instant::now() + IMPORT_BOUND;
        loop {
            match self.zygote.hear().map_err(|error| io_error(&error))? {
                Some(FromZygote::Ready) => return Ok(()),
                Some(FromZygote::Failed(error)) => return Err(error),
                Some(FromZygote::Gone) => {
                    return Err(CellError::new("keep the zygote alive", Errno::ECHILD));
                }
                Some(FromZygote::Ended { .. }) | None => {}
            }
            wait(&self.descriptors(), until, "await the zygote's imports")?;
        }
    }

    fn await_spare(&mut self) -> Result<(), CellError> {
        let until = Instant::now() + CLONE_BOUND;
        loop {
            self.attend();
            match &self.spare {
                Some(Spare {
                    failed: Some(error),
                    ..
                }) => return Err(error.clone()),
                Some(Spare { waits: true, .. }) => return Ok(()),
                Some(_) | None => wait(&self.descriptors(), until, "await the first clone")?,
            }
        }
    }

    /// Returns whether a clone can run this program.
    pub(crate) fn serves(&self, run: &Run) -> bool {
        let ours = match &run.program {
            Program::Harness { argv, .. } => *argv == self.harness,
            Program::Argv { .. } | Program::File { .. } | Program::Server { .. } => false,
        };
        // The variables with the thread counts for the run's CPU share do no harm: a clone applies
        // them itself.
        let is_own = |name: &str, value: &str| {
            thread_counts(run.caps.cpu_millis).any(|own| (own.0 == name) && (own.1 == value))
        };
        let fits = |(name, value): &(String, String)| match self.env.get(name) {
            Some(ours) => ours == value,
            None => {
                let read_at_start = READ_AT_START.iter().any(|start| name.starts_with(start));
                !read_at_start || is_own(name, value)
            }
        };
        // Files are put in place by the program's own process before it starts an interpreter,
        // which a clone cannot do.
        ours && run.files.is_empty() && run.env.iter().all(fits)
    }

    /// Takes the standby cell. If the cell does not fit these caps or has failed, it is removed and
    /// a new one is made.
    ///
    /// # Errors
    /// When there is no usable standby cell and none can be made.
    pub(crate) fn take_spare(&mut self, ground: &Ground, caps: &Caps) -> Result<Spare, CellError> {
        let fits = |spare: &Spare| spare.failed.is_none() && spare.cell.fits(caps);
        if self.spare.as_ref().is_none_or(|spare| !fits(spare)) {
            if let Some(mut spare) = self.spare.take() {
                spare.cell.destroy();
                if !spare.cell.clear() {
                    return Err(CellError::new(
                        "remove a cell that was not used",
                        Errno::EBUSY,
                    ));
                }
            }
            self.make_spare(ground, caps)?;
        }
        self.spare
            .take()
            .ok_or_else(|| CellError::new("find the cell just made", Errno::ENOENT))
    }

    /// Begins to make the standby cell for the next program, which will likely have these caps.
    /// Does nothing while there is a standby cell.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn make_spare(&mut self, ground: &Ground, caps: &Caps) -> Result<(), CellError> {
        if self.spare.is_none() && self.alive {
            self.spare = Some(Spare {
                cell: Cell::start_empty(ground, caps)?,
                failed: None,
                waits: false,
            });
        }
        Ok(())
    }

    /// Returns the descriptors to wait for. When one is readable, [`Warmth::attend`] has to be
    /// called.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = Vec::with_capacity(3);
        if self.alive {
            all.push(self.zygote.control());
        }
        if let Some(spare) = self.spare.as_ref().filter(|spare| spare.failed.is_none()) {
            all.push(spare.cell.control());
            all.extend(spare.cell.clone_status());
        }
        all
    }

    /// Advances the standby cell, and handles the messages of the zygote.
    pub(crate) fn attend(&mut self) {
        if let Some(spare) = &mut self.spare
            && let Err(error) = spare.go_on(&mut self.zygote)
        {
            spare.failed.get_or_insert(error);
        }
        loop {
            let failed = match self.zygote.hear() {
                Ok(None) => return,
                // Unless the standby cell has requested its clone, the message is about the clone
                // of a cell that was discarded.
                Ok(Some(FromZygote::Ready)) => continue,
                Ok(Some(FromZygote::Ended { .. })) => {
                    CellError::new("keep a clone waiting", Errno::ECHILD)
                }
                Ok(Some(FromZygote::Failed(error))) => error,
                Ok(Some(FromZygote::Gone)) | Err(_) => {
                    self.alive = false;
                    return;
                }
            };
            if let Some(spare) = self.spare.as_mut().filter(|spare| spare.cell.has_asked()) {
                spare.failed.get_or_insert(failed);
            }
        }
    }

    /// Records that the zygote is gone.
    pub(crate) fn lost(&mut self) {
        self.alive = false;
    }

    /// Returns whether the zygote is still running. If not, the container must not be used again.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive
    }
}

impl Spare {
    /// Reads the messages of the cell's init and clone, and requests the clone once the cell is
    /// made and the zygote is free.
    fn go_on(&mut self, zygote: &mut Zygote) -> Result<(), CellError> {
        if self.failed.is_some() {
            return Ok(());
        }
        loop {
            match self.cell.hear() {
                Ok(Some(FromInit::Made)) => {}
                Ok(Some(FromInit::Failed { step, errno })) => {
                    return Err(CellError::new(step, Errno::from_raw(errno)));
                }
                Ok(Some(
                    FromInit::Started | FromInit::NotStarted { .. } | FromInit::Ended { .. },
                )) => return Err(CellError::new("decode a cell's message", Errno::EPROTO)),
                Ok(None) => return Err(CellError::new("keep a standby cell", Errno::ECHILD)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(io_error(&error)),
            }
        }
        if self.cell.wants_clone() && !zygote.is_busy() {
            self.cell.ask_for_clone(zygote)?;
        }
        match self.cell.hear_clone().map_err(|error| io_error(&error))? {
            Some(FromClone::Waits) => self.waits = true,
            Some(FromClone::Failed(error)) => return Err(error),
            Some(FromClone::Started) | None => {}
        }
        Ok(())
    }
}

/// Waits until one of these descriptors is ready.
fn wait(all: &[BorrowedFd<'_>], until: Instant, step: &str) -> Result<(), CellError> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(CellError::new(step, Errno::ETIMEDOUT));
    }
    let mut ready: Vec<PollFd<'_>> = all
        .iter()
        .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
        .collect();
    // An interrupted `poll` does no harm: all descriptors are read again, and the time is bounded
    // above.
    poll(
        &mut ready,
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX),
    )
    .ok();
    Ok(())
}

fn io_error(error: &io::Error) -> CellError {
    let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    CellError::new("read a clone's message", errno)
}
