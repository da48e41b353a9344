//! The event loop of one job, from its `Call` frame to the end of the call.

use std::io;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use sandhog_protocol::frames::{
    Call, CallReport, CellCaps, FromRunner, MAX_CHUNK, OpenCell, Program, Stop, ToRunner,
};

use super::ended_cell::EndedCell;
use super::events::{InitState, handle_cell_events};
use super::job::{JobRun, USAGE_SAMPLE_INTERVAL};
use super::report::{EndReports, InitReport};
use crate::cell::{Cell, CellError, PreparedContainer, clone_request};
use crate::cell_calls::CellCalls;
use crate::channels::{PollState, Turn};
use crate::connection::Connection;
use crate::error::ServeError;
use crate::signals::{SignalEvent, Signals};
use crate::standby::{Standby, StandbyCell};

/// Timeout for reading the last bytes from the pipes of a dead cell.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// The next step of the serve loop.
#[derive(Debug)]
pub(crate) enum NextStep {
    /// Wait for the next job.
    Job,
    /// Wait until the worker closes this cell. The end of its call has been sent.
    Close(Box<EndedCell>),
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

/// Runs one job: makes the cell of `open`, runs `call` in it, and sends its output and its end to
/// the worker. If the worker has closed the cell by then, the cell is removed too.
///
/// # Errors
/// Only when the connection to the worker failed or the worker broke the protocol. The cell is dead
/// then too.
pub(crate) fn run_job(
    container: &PreparedContainer,
    connection: &mut Connection,
    signals: &Signals,
    mut standby: Option<&mut Standby>,
    calls: &mut CellCalls,
    mut open: OpenCell,
    call: Call,
) -> Result<NextStep, ServeError> {
    let secrets = open.secrets.drain(..);
    open.env
        .extend(secrets.map(|(name, value)| (name, value.reveal())));
    if matches!(call.program, Program::Harness { .. }) {
        // A harness may have a thread of its own, which flushes the program's output.
        open.caps.pids = open.caps.pids.saturating_add(1);
    }
    let id = call.id;
    let job = match start(container, standby.as_deref_mut(), open, call) {
        Ok(job) => job,
        Err(error) => return send_fault(connection, calls, &error),
    };
    let mut supervisor = Supervisor {
        job,
        connection,
        signals,
        standby: standby.as_deref_mut(),
        calls,
    };
    let init_report = match supervisor.supervise()? {
        SupervisionEnd::Ended(init_report) => init_report,
        SupervisionEnd::HungUp => return Ok(NextStep::End),
    };
    let (report, cell) = match supervisor.end_call(init_report)? {
        Ok(ended) => ended,
        Err(error) => return send_fault(connection, calls, &error),
    };
    calls.end_call();
    let call_ended = FromRunner::CallEnded {
        id,
        report: Box::new(report),
    };
    match calls.take_close_request() {
        Some(close) => {
            let call_ended = Some(call_ended);
            cell.close(close, call_ended, container, connection, standby, calls)?;
            Ok(NextStep::Job)
        }
        None => {
            connection.send(&call_ended).map_err(ServeError::Stream)?;
            Ok(NextStep::Close(Box::new(cell)))
        }
    }
}

fn send_fault(
    connection: &mut Connection,
    calls: &mut CellCalls,
    error: &CellError,
) -> Result<NextStep, ServeError> {
    connection
        .send(&error.frame())
        .map_err(ServeError::Stream)?;
    calls.note_failed();
    Ok(NextStep::Job)
}

/// Starts the job in its cell. Uses the standby cell if a clone can run the job's program, and
/// makes a new cell otherwise.
fn start(
    container: &PreparedContainer,
    standby: Option<&mut Standby>,
    open: OpenCell,
    call: Call,
) -> Result<JobRun, CellError> {
    let standby = standby.filter(|standby| standby.can_run(&open, &call));
    let standby_cell = match standby {
        Some(standby) => take_standby_cell(container, standby, &open.caps)?,
        None => None,
    };
    let mut is_clone_ready = false;
    let (cell, request) = match (&call.program, standby_cell) {
        (Program::Harness { request, .. }, Some(standby_cell)) => {
            let StandbyCell {
                mut cell, is_ready, ..
            } = standby_cell;
            is_clone_ready = is_ready;
            if call.infer_quota.is_some() {
                cell.send_infer_socket()?;
            }
            (cell, clone_request(request, &open, &call)?)
        }
        (Program::Harness { request, .. }, None) => {
            let request = serde_json::to_vec(request).expect("a request has string keys");
            (Cell::start(container, &open, &call)?, request)
        }
        (Program::Argv { .. } | Program::File { .. } | Program::Server { .. }, _) => {
            (Cell::start(container, &open, &call)?, Vec::new())
        }
    };
    let mut job = JobRun::new(cell, request, open, call);
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
    calls: &'a mut CellCalls,
}

impl Supervisor<'_> {
    /// Supervises the program until the last process of its cell is dead.
    ///
    /// # Errors
    /// Fails if the connection to the worker failed, or the worker broke the protocol.
    fn supervise(&mut self) -> Result<SupervisionEnd, ServeError> {
        let mut buffer = [0; MAX_CHUNK];
        // The frames that arrived together with the call.
        self.handle_frames()?;
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
            let channels = &mut self.job.channels;
            match frame {
                ToRunner::Cancel { id } => {
                    if self.calls.is_running(id)? {
                        self.job.stop_for(Stop::Cancelled);
                    }
                }
                ToRunner::ModelInput { id, data } => {
                    if self.calls.is_running(id)? && !channels.model.queue(&data) {
                        return Err(ServeError::ModelInputOverflow);
                    }
                }
                ToRunner::InferResponse { id, data } => {
                    if self.calls.is_running(id)? {
                        channels.infer.respond(&data);
                    }
                }
                ToRunner::CloseCell(close) => {
                    self.job.inputs.retain_for(&close.fetch);
                    self.calls.close(close)?;
                }
                // These fail while a call is running.
                ToRunner::StartZygote(_) => self.calls.check_zygote()?,
                ToRunner::OpenCell(open) => self.calls.open(open)?,
                ToRunner::Call(call) => drop(self.calls.begin_call(call.id)?),
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

    /// Drains the remaining output, reads the counters a last time and makes the reports. Returns
    /// the report on the call, and the cell, or the fault because of which there is no report.
    ///
    /// # Errors
    /// Fails if the connection to the worker failed.
    fn end_call(
        mut self,
        init_report: InitReport,
    ) -> Result<Result<(CallReport, EndedCell), CellError>, ServeError> {
        self.drain().map_err(ServeError::Stream)?;
        let Self { job, .. } = self;
        let (cell_caps, caps, is_clone) = (job.cell_caps, job.caps, job.is_clone);
        let (facts, cell, inputs) = job.into_end_facts(init_report);
        let usage = cell.usage();
        let reports = usage.and_then(|usage| facts.reports(&cell_caps, &caps, &usage));
        Ok(reports.map(|EndReports { call, cell: report }| {
            let ended = EndedCell {
                cell,
                caps: cell_caps,
                is_clone,
                inputs,
                report,
            };
            (call, ended)
        }))
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
