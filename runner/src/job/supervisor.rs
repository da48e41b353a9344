//! The event loop of one job, from its `Run` frame to its report and the removal of its cell.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use sandhog_protocol::frames::{
    CellCaps, FromRunner, MAX_CHUNK, Program, Report, ReportFlush, Run, Stop, ToRunner,
};

use super::events::{InitState, handle_cell_events};
use super::job::{JobRun, USAGE_SAMPLE_INTERVAL};
use super::report::InitReport;
use crate::cell::{Cell, CellError, Collected, PreparedContainer, clone_request};
use crate::channels::{PollState, Turn};
use crate::connection::Connection;
use crate::error::ServeError;
use crate::signals::{SignalEvent, Signals};
use crate::standby::{Standby, StandbyCell};

/// Timeout for reading the last bytes from the pipes of a dead cell.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The next step of the serve loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NextStep {
    /// Wait for the next job.
    Job,
    /// End: the worker closed the connection, or the engine asked this container to stop.
    End,
}

/// The reason for which the supervision of a cell ended.
enum SupervisionEnd {
    /// The program and every process of its cell are dead. Holds the init's last message.
    Ended(InitReport),
    /// The worker closed the connection, or the container is to end, so no report is needed.
    HungUp,
}

/// Runs one job and sends its output, its report and the end of its cell to the worker.
///
/// # Errors
/// Only when the connection to the worker failed or the worker broke the protocol. The cell is dead
/// then too.
pub(crate) fn run_job(
    container: &PreparedContainer,
    connection: &mut Connection,
    signals: &Signals,
    mut standby: Option<&mut Standby>,
    mut run: Run,
) -> Result<NextStep, ServeError> {
    let secrets = run.secrets.drain(..);
    run.env
        .extend(secrets.map(|(name, value)| (name, value.reveal())));
    if matches!(run.program, Program::Harness { .. }) {
        // A harness may have a thread of its own, which flushes the program's output.
        run.caps.pids = run.caps.pids.saturating_add(1);
    }
    let (caps, report_flush) = (run.caps, run.report_flush);
    let job = match start(container, standby.as_deref_mut(), run) {
        Ok(job) => job,
        Err(error) => return send_fault(connection, &error),
    };
    let is_clone = job.is_clone;
    let mut supervisor = Supervisor {
        job,
        connection,
        signals,
        standby: standby.as_deref_mut(),
    };
    let init_report = match supervisor.supervise()? {
        SupervisionEnd::Ended(init_report) => init_report,
        SupervisionEnd::HungUp => return Ok(NextStep::End),
    };
    let (report, cell) = supervisor.report(init_report)?;
    let report = match report {
        Ok(report) => FromRunner::Report(Box::new(report)),
        Err(error) => return send_fault(connection, &error),
    };
    match report_flush {
        ReportFlush::Immediate => {
            connection.send(&report).map_err(ServeError::Stream)?;
            // Yield, so that the shim forwards the report before the runner spends CPU time on
            // cleanup.
            std::thread::yield_now();
        }
        ReportFlush::WithCleanup => connection.send_soon(&report).map_err(ServeError::Stream)?,
    }
    let clean = cell.remove() && standby.as_ref().is_none_or(|standby| standby.is_alive());
    let closed = FromRunner::CellClosed {
        clean,
        memory_bytes: container.memory_in_use(),
    };
    connection.send(&closed).map_err(ServeError::Stream)?;
    if let Some(standby) = standby
        && is_clone
    {
        // Not earlier: the zygote makes one clone at a time, and the last cell's clone has to be
        // gone first. If the standby cell cannot be made now, it is made when the next job needs
        // it, and an error is reported then.
        std::thread::yield_now();
        standby.make_cell(container, &caps).ok();
    }
    Ok(NextStep::Job)
}

fn send_fault(connection: &mut Connection, error: &CellError) -> Result<NextStep, ServeError> {
    connection
        .send(&error.frame())
        .map_err(ServeError::Stream)?;
    Ok(NextStep::Job)
}

/// Starts the job in its cell. Uses the standby cell if a clone can run the job's program, and
/// makes a new cell otherwise.
fn start(
    container: &PreparedContainer,
    standby: Option<&mut Standby>,
    run: Run,
) -> Result<JobRun, CellError> {
    let standby = standby.filter(|standby| standby.can_run(&run));
    let standby_cell = match standby {
        Some(standby) => take_standby_cell(container, standby, &run.caps)?,
        None => None,
    };
    let mut is_clone_ready = false;
    let (cell, request) = match (&run.program, standby_cell) {
        (Program::Harness { request, .. }, Some(standby_cell)) => {
            let StandbyCell {
                mut cell, is_ready, ..
            } = standby_cell;
            is_clone_ready = is_ready;
            if run.infer_quota.is_some() {
                cell.send_infer_socket()?;
            }
            (cell, clone_request(request, &run)?)
        }
        (Program::Harness { request, .. }, None) => {
            let request = serde_json::to_vec(request).expect("a request has string keys");
            (Cell::start(container, &run)?, request)
        }
        (Program::Argv { .. } | Program::File { .. } | Program::Server { .. }, _) => {
            (Cell::start(container, &run)?, Vec::new())
        }
    };
    let mut job = JobRun::new(cell, request, run);
    if is_clone_ready {
        job.send_request();
    }
    Ok(job)
}

/// Takes the standby cell and applies these caps to it. Returns `None` if the clone that waits in
/// the cell already holds more memory than the caps allow, so that they cannot be set. The program
/// is then started as a new process, and runs out of memory by itself.
fn take_standby_cell(
    container: &PreparedContainer,
    standby: &mut Standby,
    caps: &CellCaps,
) -> Result<Option<StandbyCell>, CellError> {
    let mut standby_cell = standby.take_cell(container, caps)?;
    match standby_cell.cell.set_caps(caps) {
        Ok(()) => Ok(Some(standby_cell)),
        Err(error) if error.errno == Errno::EBUSY => {
            standby_cell.cell.destroy();
            standby_cell.cell.remove().then_some(None).ok_or(error)
        }
        Err(error) => Err(error),
    }
}

/// The event loop of one job.
pub(super) struct Supervisor<'a> {
    job: JobRun,
    connection: &'a mut Connection,
    signals: &'a Signals,
    standby: Option<&'a mut Standby>,
}

impl Supervisor<'_> {
    /// Supervises the program until the last process of its cell is dead.
    ///
    /// # Errors
    /// Fails if the connection to the worker failed, or the worker broke the protocol.
    fn supervise(&mut self) -> Result<SupervisionEnd, ServeError> {
        let mut buffer = [0; MAX_CHUNK];
        loop {
            self.wait();

            self.connection.flush().map_err(ServeError::Stream)?;
            self.connection.fill().map_err(ServeError::Stream)?;
            self.handle_frames()?;
            if self.connection.closed() || self.signals.take() == SignalEvent::Shutdown {
                return Ok(SupervisionEnd::HungUp);
            }

            self.transfer(&mut buffer).map_err(ServeError::Stream)?;
            let standby = self.standby.as_deref_mut();
            let init = handle_cell_events(&mut self.job, standby, self.connection)
                .map_err(ServeError::Stream)?;
            if init == InitState::Finished {
                return Ok(SupervisionEnd::Ended(self.job.take_init_report()));
            }
            if let Err(error) = self.job.enforce_caps() {
                self.job.cell.destroy();
                return Ok(SupervisionEnd::Ended(InitReport::Failed(error)));
            }
            if self.job.termination.is_init_killed_twice() {
                return Ok(SupervisionEnd::Ended(self.job.take_init_report()));
            }
        }
    }

    /// Waits until a descriptor is ready or a deadline has come.
    fn wait(&self) {
        let now = Instant::now();
        let state = PollState {
            congested: self.connection.congested(),
            is_reading: self.job.ended.is_none() && self.job.read_paused_until(now).is_none(),
        };
        let cell = &self.job.cell;
        let standby = self.standby.as_deref();
        let reads = [
            Some(cell.init_fd()),
            Some(self.signals.as_fd()),
            self.connection.readable(),
            cell.clone_status_fd().filter(|_| state.is_reading),
        ];
        let mut polled: Vec<PollFd<'_>> = Vec::with_capacity(14);
        polled.extend(
            reads
                .into_iter()
                .flatten()
                .chain(standby.map_or(Vec::new(), Standby::descriptors))
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        let writable = self.connection.writable();
        polled.extend(writable.map(|fd| PollFd::new(fd, PollFlags::POLLOUT)));
        let channels = self.job.channels.all();
        polled.extend(
            channels
                .into_iter()
                .filter_map(|channel| channel.interest(state)),
        );
        // An interrupted `poll` does no harm: all descriptors are tried afterwards, without
        // blocking.
        poll(&mut polled, self.timeout(now)).ok();
    }

    /// Returns the time until the next deadline.
    fn timeout(&self, now: Instant) -> PollTimeout {
        let job = &self.job;
        let wall = job
            .started
            .map(|at| at + Duration::from_millis(job.caps.wall_ms));
        let next_sample = job.usage_sampled_at + USAGE_SAMPLE_INTERVAL;
        let next = [
            Some(next_sample),
            wall.filter(|_| job.stop.is_none()),
            job.termination.due(),
            job.read_paused_until(now),
            self.connection.due(),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(next_sample);
        let left = next.saturating_duration_since(now);
        // Rounded up; otherwise the loop would spin for the last fraction of a millisecond.
        let millis = left.as_micros().div_ceil(1000);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::ZERO)
    }

    /// Handles the frames that the worker has sent.
    fn handle_frames(&mut self) -> Result<(), ServeError> {
        while let Some(frame) = self.connection.next().map_err(ServeError::Frame)? {
            match frame {
                ToRunner::Cancel => self.job.stop_for(Stop::Cancelled),
                ToRunner::ModelInput { data } if self.job.channels.model.queue(&data) => {}
                ToRunner::ModelInput { .. } => return Err(ServeError::ModelInputOverflow),
                ToRunner::InferResponse { data } => self.job.channels.infer.respond(&data),
                ToRunner::Run(_) | ToRunner::StartZygote(_) => {
                    return Err(ServeError::UnexpectedFrame);
                }
            }
        }
        Ok(())
    }

    /// Passes on bytes in every channel.
    fn transfer(&mut self, buffer: &mut [u8; MAX_CHUNK]) -> io::Result<()> {
        let before = self.job.channels.output_bytes();
        let turn = if self.job.ended.is_none() {
            Turn::Running
        } else {
            Turn::Ended
        };
        for channel in self.job.channels.all_mut() {
            channel.transfer(self.connection, turn, buffer)?;
        }
        let read = self.job.channels.output_bytes() - before;
        self.job.pause_reading_after(read);
        Ok(())
    }

    /// Drains the remaining output, reads the counters a last time and makes the report. Returns
    /// the cell too, which the caller has to remove.
    ///
    /// # Errors
    /// Fails if the connection to the worker failed.
    fn report(
        mut self,
        init_report: InitReport,
    ) -> Result<(Result<Report, CellError>, Cell), ServeError> {
        self.drain().map_err(ServeError::Stream)?;
        let Self { mut job, .. } = self;
        let fetch = std::mem::take(&mut job.fetch);
        let snapshot = std::mem::take(&mut job.snapshot);
        let caps = job.caps;
        let (facts, mut cell) = job.into_end_facts(init_report);
        let usage = cell.usage();
        let report = usage.and_then(|usage| {
            let Collected { files, skipped } = cell.collect(&fetch, &snapshot);
            let report = facts.report(&caps, &usage)?;
            Ok(Report {
                files,
                left: skipped,
                ..report
            })
        });
        Ok((report, cell))
    }

    /// Reads the last bytes from the pipes, which have no writer left.
    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0; MAX_CHUNK];
        let until = Instant::now() + DRAIN_TIMEOUT;
        self.job.ended.get_or_insert_with(Instant::now);
        loop {
            let mut has_read = false;
            for channel in self.job.channels.all_to_drain() {
                has_read |= channel.transfer(self.connection, Turn::Drain, &mut buffer)?;
            }
            if self.job.channels.have_ended() || Instant::now() >= until {
                return Ok(());
            }
            if !has_read {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
