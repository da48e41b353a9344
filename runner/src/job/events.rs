//! Messages from a running cell: from its init, from its clone, and from the zygote that made the
//! clone.

use std::io;
use std::time::Instant;

use nix::errno::Errno;

use sandhog_protocol::frames::{FromRunner, ProgramEnd};

use super::job::JobRun;
use super::report::InitReport;
use crate::cell::{CellError, CloneStatus, FromInit, FromZygote, reap_all};
use crate::connection::Connection;
use crate::standby::Standby;

/// The state of a cell's init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InitState {
    /// The init has not sent its last message.
    Running,
    /// The init has sent its last message, or is gone. Every other process of the cell is dead.
    Finished,
}

/// Handles the dead children and the messages of the cell, of its clone and of the zygote.
///
/// # Errors
/// Fails if the connection to the worker or to the init failed.
pub(super) fn handle_cell_events(
    job: &mut JobRun,
    mut standby: Option<&mut Standby>,
    connection: &mut Connection,
) -> io::Result<InitState> {
    reap_all(|ended| {
        job.cell.note_reaped(ended);
    });
    if let Some(standby) = standby.as_deref_mut() {
        advance(job, standby, connection)?;
    }
    if handle_init_messages(job, connection)? == InitState::Finished {
        return Ok(InitState::Finished);
    }
    if job.cell.needs_clone()
        && let Some(standby) = standby
    {
        // The cell has just been made. No descriptor would wake the loop to request its clone.
        advance(job, standby, connection)?;
    }
    Ok(InitState::Running)
}

/// Reads and handles the messages of the init.
fn handle_init_messages(job: &mut JobRun, connection: &mut Connection) -> io::Result<InitState> {
    loop {
        let message = match job.cell.recv_from_init() {
            Ok(Some(message)) => message,
            Ok(None) => {
                job.ended.get_or_insert_with(Instant::now);
                return Ok(InitState::Finished);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Ok(InitState::Running);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        match message {
            FromInit::Made => continue,
            FromInit::Started => {
                mark_started(job, connection)?;
                continue;
            }
            FromInit::NotStarted { errno } => {
                job.init_report = InitReport::Ended {
                    end: ProgramEnd::NotStarted(errno),
                    scratch_full: errno == Errno::ENOSPC as i32,
                    cpu_us: 0,
                };
            }
            FromInit::Failed { step, errno } => {
                job.fail(CellError::new(step, Errno::from_raw(errno)));
            }
            FromInit::Ended {
                end,
                scratch_full,
                cpu_us,
            } => {
                job.ended.get_or_insert_with(Instant::now);
                if job.init_report == InitReport::Missing {
                    let cpu_us = cpu_us + job.clone_cpu_us;
                    job.init_report = InitReport::Ended {
                        end,
                        scratch_full,
                        cpu_us,
                    };
                }
            }
        }
        return Ok(InitState::Finished);
    }
}

/// Advances the clone that is this job's program. For a job without a clone, advances the standby
/// cell instead.
fn advance(job: &mut JobRun, standby: &mut Standby, connection: &mut Connection) -> io::Result<()> {
    if !job.is_clone {
        standby.advance();
        return Ok(());
    }
    if job.cell.needs_clone()
        && !standby.zygote.is_busy()
        && let Err(error) = job.cell.request_clone(&mut standby.zygote)
    {
        job.give_up(error);
    }
    handle_clone_messages(job, connection)?;
    loop {
        match standby.zygote.recv() {
            Ok(None) => return Ok(()),
            // The message is about the clone of a cell that was discarded for this one.
            Ok(Some(FromZygote::Ended { .. } | FromZygote::Failed(_)))
                if !job.cell.has_requested_clone() => {}
            Ok(Some(FromZygote::Ended { end, cpu_us })) => {
                // The clone may have sent a message between the last read and its death.
                handle_clone_messages(job, connection)?;
                job.ended = Some(Instant::now());
                job.clone_cpu_us = cpu_us;
                job.cell.end(end);
            }
            Ok(Some(FromZygote::Failed(error))) => job.give_up(error),
            Ok(Some(FromZygote::Ready)) => {
                job.give_up(CellError::new("decode the zygote's message", Errno::EPROTO));
            }
            Ok(Some(FromZygote::Gone)) | Err(_) => {
                standby.note_zygote_lost();
                job.give_up(CellError::new("keep the zygote alive", Errno::ECHILD));
                return Ok(());
            }
        }
    }
}

fn handle_clone_messages(job: &mut JobRun, connection: &mut Connection) -> io::Result<()> {
    match job.cell.read_clone_status()? {
        Some(CloneStatus::Started) => mark_started(job, connection)?,
        Some(CloneStatus::Failed(error)) => job.fail(error),
        Some(CloneStatus::Ready) | None => {}
    }
    Ok(())
}

fn mark_started(job: &mut JobRun, connection: &mut Connection) -> io::Result<()> {
    job.note_started();
    connection.send_soon(&FromRunner::Started { id: job.id })
}
