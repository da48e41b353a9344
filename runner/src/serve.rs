//! The runner's main loop: prepares the container, sends `Ready`, runs one job after another, and
//! ends when the worker closes the connection.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use sandhog_protocol::frames::{Features, FromRunner, Run, StartZygote, ToRunner, VERSION};

use crate::cell::{CellError, PreparedContainer, reap_all};
use crate::connection::Connection;
use crate::error::ServeError;
use crate::job::{NextStep, run_job};
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
    loop {
        match next_command(&mut connection, &signals, standby.as_mut())? {
            Command::Run(run) => {
                match run_job(
                    &container,
                    &mut connection,
                    &signals,
                    standby.as_mut(),
                    *run,
                )? {
                    NextStep::Job => {}
                    NextStep::End => return Ok(()),
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
            Command::StartZygote(_) => return Err(ServeError::UnexpectedFrame),
            Command::End => return Ok(()),
        }
    }
}

/// Prepares the container, and makes a cell in it as a test where that is possible.
fn prepare() -> Result<PreparedContainer, CellError> {
    let container = PreparedContainer::prepare()?;
    if container.supports_trial_cell() {
        run_self_test(&container)?;
    }
    Ok(container)
}

/// A command of the worker.
enum Command {
    /// Start a zygote.
    StartZygote(Box<StartZygote>),
    /// Run a program.
    Run(Box<Run>),
    /// End: no further command will come.
    End,
}

/// Waits for the worker's next command. Meanwhile it keeps the standby cell going.
fn next_command(
    connection: &mut Connection,
    signals: &Signals,
    mut standby: Option<&mut Standby>,
) -> Result<Command, ServeError> {
    loop {
        while let Some(frame) = connection.next().map_err(ServeError::Frame)? {
            match frame {
                ToRunner::StartZygote(warm) => return Ok(Command::StartZygote(warm)),
                ToRunner::Run(run) => return Ok(Command::Run(run)),
                // The frame was sent before the worker received the report of its job.
                ToRunner::Cancel | ToRunner::ModelInput { .. } | ToRunner::InferResponse { .. } => {
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
        reap_all(|_orphan| {});
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
