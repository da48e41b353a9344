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

use sandhog_protocol::frames::{Call, CellCaps, OpenCell, Program, StartZygote};

use crate::cell::{
    Cell, CellError, CloneStatus, FromInit, FromZygote, PreparedContainer, Zygote, thread_counts,
};

/// Timeout for a zygote to import its libraries.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(60);

/// Timeout for the first clone to be ready.
const CLONE_TIMEOUT: Duration = Duration::from_secs(10);

/// Prefixes of the environment variables that an interpreter or a numeric library reads when it
/// starts.
const START_UP_VARIABLE_PREFIXES: [&str; 14] = [
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
pub(crate) struct Standby {
    /// The zygote.
    pub(crate) zygote: Zygote,
    harness: Vec<String>,
    env: BTreeMap<String, String>,
    standby_cell: Option<StandbyCell>,
    alive: bool,
}

/// The standby cell: a cell with a clone, ready or being made ready.
#[derive(Debug)]
pub(crate) struct StandbyCell {
    /// The cell.
    pub(crate) cell: Cell,
    /// The error because of which the cell will never be ready.
    pub(crate) failed: Option<CellError>,
    /// True once the clone waits for a request.
    pub(crate) is_ready: bool,
}

impl Standby {
    /// Starts a zygote, waits until it has imported its libraries, and makes the first standby
    /// cell.
    ///
    /// # Errors
    /// With the step that fails in this container or takes too long.
    pub(crate) fn start(
        container: &PreparedContainer,
        warm: &StartZygote,
    ) -> Result<Self, CellError> {
        if !container.has_all_walls() {
            return Err(CellError::new(
                "keep a zygote while a test leaves out a wall of the cells",
                Errno::ENOTSUP,
            ));
        }
        if !container.counts_by_cgroup() {
            // Without cgroups a cell's usage is counted over all processes of the container, so
            // that the zygote would be counted with it.
            return Err(CellError::new(
                "keep a zygote without cgroups",
                Errno::ENOTSUP,
            ));
        }
        let mut standby = Self {
            zygote: Zygote::start(container, warm)?,
            harness: warm.harness.clone(),
            env: warm.env.iter().cloned().collect(),
            standby_cell: None,
            alive: true,
        };
        // The cell is made while the zygote starts.
        standby.make_cell(container, &warm.caps)?;
        let ended = standby.await_ready().and_then(|()| standby.await_cell());
        match ended {
            Ok(()) => Ok(standby),
            Err(error) => {
                // If the cell stays, its name does too; the runner has others.
                standby.remove_cell();
                Err(error)
            }
        }
    }

    /// Removes the standby cell, if there is one. Returns whether nothing of it is left.
    fn remove_cell(&mut self) -> bool {
        let Some(StandbyCell { mut cell, .. }) = self.standby_cell.take() else {
            return true;
        };
        cell.destroy();
        cell.remove()
    }

    fn await_ready(&mut self) -> Result<(), CellError> {
        let until = Instant::now() + IMPORT_TIMEOUT;
        loop {
            match self.zygote.recv().map_err(|error| io_error(&error))? {
                Some(FromZygote::Ready) => return Ok(()),
                Some(FromZygote::Failed(error)) => return Err(error),
                Some(FromZygote::Gone) => {
                    return Err(CellError::new("keep the zygote alive", Errno::ECHILD));
                }
                Some(FromZygote::Ended { .. }) | None => {}
            }
            wait_for_any(
                &[self.zygote.control()],
                until,
                "await the zygote's imports",
            )?;
        }
    }

    fn await_cell(&mut self) -> Result<(), CellError> {
        let until = Instant::now() + CLONE_TIMEOUT;
        loop {
            self.advance();
            match &self.standby_cell {
                Some(StandbyCell {
                    failed: Some(error),
                    ..
                }) => return Err(error.clone()),
                Some(StandbyCell { is_ready: true, .. }) => return Ok(()),
                Some(_) | None => {
                    wait_for_any(&self.descriptors(), until, "await the first clone")?
                }
            }
        }
    }

    /// Returns whether a clone can run the program of this call as the first one of this cell.
    pub(crate) fn can_run(&self, open: &OpenCell, call: &Call) -> bool {
        let ours = match &call.program {
            Program::Harness { argv, .. } => *argv == self.harness,
            Program::Argv { .. } | Program::File { .. } | Program::Server { .. } => false,
        };
        // The variables with the thread counts for the cell's CPU share do no harm: a clone applies
        // them itself.
        let is_own = |name: &str, value: &str| {
            thread_counts(open.caps.cpu_millis).any(|own| (own.0 == name) && (own.1 == value))
        };
        let fits = |(name, value): &(String, String)| match self.env.get(name) {
            Some(ours) => ours == value,
            None => {
                let read_at_start = START_UP_VARIABLE_PREFIXES
                    .iter()
                    .any(|start| name.starts_with(start));
                !read_at_start || is_own(name, value)
            }
        };
        // Files are put in place by the program's own process before it starts an interpreter,
        // which a clone cannot do.
        ours && open.files.is_empty() && open.env.iter().all(fits)
    }

    /// Takes the standby cell. If the cell does not fit these caps or has failed, it is removed and
    /// a new one is made.
    ///
    /// # Errors
    /// Fails if there is no usable standby cell and none can be made.
    pub(crate) fn take_cell(
        &mut self,
        container: &PreparedContainer,
        caps: &CellCaps,
    ) -> Result<StandbyCell, CellError> {
        let fits = |made: &StandbyCell| made.failed.is_none() && made.cell.fits(caps);
        if self.standby_cell.as_ref().is_none_or(|made| !fits(made)) {
            if !self.remove_cell() {
                return Err(CellError::new(
                    "remove a cell that was not used",
                    Errno::EBUSY,
                ));
            }
            self.make_cell(container, caps)?;
        }
        self.standby_cell
            .take()
            .ok_or_else(|| CellError::new("find the cell just made", Errno::ENOENT))
    }

    /// Begins to make the standby cell for the next program, which will likely have these caps.
    /// Does nothing while there is a standby cell.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(crate) fn make_cell(
        &mut self,
        container: &PreparedContainer,
        caps: &CellCaps,
    ) -> Result<(), CellError> {
        if self.standby_cell.is_none() && self.alive {
            self.standby_cell = Some(StandbyCell {
                cell: Cell::start_empty(container, caps)?,
                failed: None,
                is_ready: false,
            });
        }
        Ok(())
    }

    /// Returns the descriptors to wait for. When one is readable, [`Standby::advance`] has to be
    /// called.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let mut all = Vec::with_capacity(3);
        if self.alive {
            all.push(self.zygote.control());
        }
        let made = self.standby_cell.as_ref();
        if let Some(StandbyCell { cell, .. }) = made.filter(|made| made.failed.is_none()) {
            all.push(cell.init_fd());
            all.extend(cell.clone_status_fd());
        }
        all
    }

    /// Advances the standby cell, and handles the messages of the zygote.
    pub(crate) fn advance(&mut self) {
        if let Some(made) = &mut self.standby_cell
            && let Err(error) = made.advance(&mut self.zygote)
        {
            made.failed.get_or_insert(error);
        }
        loop {
            let failed = match self.zygote.recv() {
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
            let made = self.standby_cell.as_mut();
            if let Some(made) = made.filter(|made| made.cell.has_requested_clone()) {
                made.failed.get_or_insert(failed);
            }
        }
    }

    /// Records that the zygote is gone.
    pub(crate) fn note_zygote_lost(&mut self) {
        self.alive = false;
    }

    /// Returns whether the zygote is still running. If not, the container must not be used again.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive
    }
}

impl StandbyCell {
    /// Reads the messages of the cell's init and clone, and requests the clone once the cell is
    /// made and the zygote is free.
    fn advance(&mut self, zygote: &mut Zygote) -> Result<(), CellError> {
        if self.failed.is_some() {
            return Ok(());
        }
        loop {
            match self.cell.recv_from_init() {
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
        if self.cell.needs_clone() && !zygote.is_busy() {
            self.cell.request_clone(zygote)?;
        }
        match self
            .cell
            .read_clone_status()
            .map_err(|error| io_error(&error))?
        {
            Some(CloneStatus::Ready) => self.is_ready = true,
            Some(CloneStatus::Failed(error)) => return Err(error),
            Some(CloneStatus::Started) | None => {}
        }
        Ok(())
    }
}

/// Waits until one of these descriptors is ready.
fn wait_for_any(all: &[BorrowedFd<'_>], until: Instant, step: &str) -> Result<(), CellError> {
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
