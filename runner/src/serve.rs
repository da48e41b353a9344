//! The runner's main loop: prepares the container, sends `Ready`, runs the jobs one after another,
//! each in a cell of its own, and ends when the worker closes the connection.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use sandhog_protocol::frames::{
    Call, CloseCell, Features, FromRunner, OpenCell, StartZygote, ToRunner, VERSION,
};

use crate::cell::{CellError, PreparedContainer, reap_all};
use crate::cell_calls::{CellCalls, UnexpectedFrame};
use crate::connection::Connection;
use crate::error::ServeError;
use crate::job::{EndedCell, NextStep, run_job};
use crate::self_test::run_self_test;
use crate::signals::{SignalEvent, Signals};
use crate::standby::Standby;

/// Runs jobs until the worker closes the connection.
///
/// # Errors
/// Fails if the container cannot hold cells, or the worker breaks the protocol.
pub(crate) fn serve() -> Result<(), ServeError> {
    let mut connection = Connection::open().map_err(ServeError::Stream)?;
    let signals = Signals::watch().map_err(ServeError::Signals)?;
    let container = match prepare() {
        Ok(container) => container,
        Err(error) => {
            connection
                .send(&error.frame())
                .map_err(ServeError::Stream)?;
            return Err(ServeError::Prepare(error));
        }
    };
    let ready = FromRunner::Ready {
        version: VERSION,
        features: Features {
            memory_bytes: container.memory_in_use(),
            ..container.features().clone()
        },
    };
    connection.send(&ready).map_err(ServeError::Stream)?;
    let mut standby = None;
    let mut calls = CellCalls::default();
    let mut unclosed: Option<EndedCell> = None;
    loop {
        let command = next_command(
            &mut connection,
            &signals,
            standby.as_mut(),
            &mut calls,
            unclosed.as_mut(),
        )?;
        match command {
            Command::Call(open, call) => {
                match run_job(
                    &container,
                    &mut connection,
                    &signals,
                    standby.as_mut(),
                    &mut calls,
                    *open,
                    *call,
                )? {
                    NextStep::Job => {}
                    NextStep::Close(cell) => unclosed = Some(*cell),
                    NextStep::End => return Ok(()),
                }
            }
            Command::CloseCell(close) => {
                if let Some(cell) = unclosed.take() {
                    let standby = standby.as_mut();
                    cell.close(
                        close,
                        None,
                        &container,
                        &mut connection,
                        standby,
                        &mut calls,
                    )?;
                }
            }
            Command::StartZygote(warm) if standby.is_none() => {
                let (made, missing) = match Standby::start(&container, &warm) {
                    Ok(made) => (Some(made), None),
                    Err(error) => (None, Some(error.line())),
                };
                standby = made;
                let warmed = FromRunner::ZygoteReady {
                    missing,
                    memory_bytes: container.memory_in_use(),
                };
                connection.send(&warmed).map_err(ServeError::Stream)?;
            }
            Command::StartZygote(_) => return Err(UnexpectedFrame::StartZygote.into()),
            Command::End => return Ok(()),
        }
    }
}

/// Prepares the container, and makes a cell in it as a test where that is possible.
fn prepare() -> Result<PreparedContainer, CellError> {
    let container = PreparedContainer::prepare()?;
    if container.needs_trial_cell() {
        run_self_test(&container)?;
    }
    Ok(container)
}

/// A command of the worker.
enum Command {
    /// Start a zygote.
    StartZygote(Box<StartZygote>),
    /// Open a cell and run a call in it.
    Call(Box<OpenCell>, Box<Call>),
    /// Close the cell whose call has ended.
    CloseCell(CloseCell),
    /// End: no further command will come.
    End,
}

/// Waits for the worker's next command, while no call is running. Meanwhile it keeps the standby
/// cell going, and reaps the children of the runner, one of which may be the init of the cell that
/// is not closed.
fn next_command(
    connection: &mut Connection,
    signals: &Signals,
    mut standby: Option<&mut Standby>,
    calls: &mut CellCalls,
    mut unclosed: Option<&mut EndedCell>,
) -> Result<Command, ServeError> {
    loop {
        while let Some(frame) = connection.next().map_err(ServeError::Frame)? {
            match frame {
                ToRunner::StartZygote(warm) => {
                    calls.check_zygote()?;
                    return Ok(Command::StartZygote(warm));
                }
                ToRunner::OpenCell(open) => calls.open(open)?,
                ToRunner::Call(call) => {
                    let open = calls.begin_call(call.id)?;
                    // `CloseCell` usually arrives with the call. This frees the buffer of a large
                    // call before the cell is made.
                    connection.read_ahead().map_err(ServeError::Frame)?;
                    return Ok(Command::Call(open, call));
                }
                ToRunner::CloseCell(close) => {
                    calls.close(close)?;
                    if let Some(close) = calls.take_close_request() {
                        return Ok(Command::CloseCell(close));
                    }
                }
                // The call has ended. The frame was sent before the worker received its end.
                ToRunner::Cancel { id }
                | ToRunner::ModelInput { id, .. }
                | ToRunner::InferResponse { id, .. } => {
                    calls.is_running(id)?;
                }
            }
        }
        if connection.closed() {
            return Ok(Command::End);
        }
        let mut ready = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        ready.extend(
            connection
                .readable()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        ready.extend(
            connection
                .writable()
                .map(|fd| PollFd::new(fd, PollFlags::POLLOUT)),
        );
        let standby_fds = standby
            .as_ref()
            .map_or(Vec::new(), |standby| standby.descriptors());
        ready.extend(
            standby_fds
                .into_iter()
                .map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
        );
        // An interrupted `poll` does no harm: the calls below never block.
        poll(&mut ready, PollTimeout::NONE).ok();
        if signals.take() == SignalEvent::Shutdown {
            return Ok(Command::End);
        }
        reap_all(|ended| {
            if let Some(cell) = unclosed.as_deref_mut() {
                cell.note_reaped(ended);
            }
        });
        if let Some(standby) = standby.as_deref_mut() {
            standby.advance();
            if !standby.is_alive() {
                return Err(ServeError::Zygote);
            }
        }
        connection.fill().map_err(ServeError::Stream)?;
        connection.flush().map_err(ServeError::Stream)?;
    }
}
