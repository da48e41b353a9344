//! Messages from a running cell: from its init, from its clone, and from the zygote that made the
//! clone.

use std::io;
use std::time::Instant;

use nix::errno::Errno;

use sandhog_runner::protocol::{End, FromRunner};

use crate::cell::{CellError, FromClone, FromInit, FromZygote};
use crate::job::Job;
use crate::link::Link;
use crate::report::LastWord;
use crate::warmth::Warmth;

/// The state of a cell's init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Init {
    /// The init has not sent its last message.
    There,
    /// The init has sent its last message, or is gone. Every other process of the cell is dead.
    Done,
}

impl Job {
    /// Reads and handles the messages of the init.
    ///
    /// # Errors
    /// When the connection to the worker or to the init failed.
    pub(crate) fn hear(&mut self, link: &mut Link) -> io::Result<Init> {
        loop {
            let message = match self.cell.hear() {
                Ok(Some(message)) => message,
                Ok(None) => {
                    self.ended.get_or_insert_with(Instant::now);
                    return Ok(Init::Done);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Init::There),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            match message {
                FromInit::Made => continue,
                FromInit::Started => {
                    self.begun(link)?;
                    continue;
                }
                FromInit::NotStarted { errno } => {
                    self.last_word = LastWord::Ended {
                        end: End::NotStarted(errno),
                        scratch_full: errno == Errno::ENOSPC as i32,
                        cpu_us: 0,
                    };
                }
                FromInit::Failed { step, errno } => {
                    self.fail(CellError::new(step, Errno::from_raw(errno)));
                }
                FromInit::Ended {
                    end,
                    scratch_full,
                    cpu_us,
                } => {
                    self.ended.get_or_insert_with(Instant::now);
                    if self.last_word == LastWord::Silence {
                        let cpu_us = cpu_us + self.clone_cpu_us;
                        self.last_word = LastWord::Ended {
                            end,
                            scratch_full,
                            cpu_us,
                        };
                    }
                }
            }
            return Ok(Init::Done);
        }
    }

    /// Advances the clone that is this job's program. For a job without a clone, advances the
    /// standby cell instead.
    ///
    /// # Errors
    /// When the connection to the worker failed.
    pub(crate) fn attend(&mut self, warmth: &mut Warmth, link: &mut Link) -> io::Result<()> {
        if !self.warm {
            warmth.attend();
            return Ok(());
        }
        if self.cell.wants_clone()
            && !warmth.zygote.is_busy()
            && let Err(error) = self.cell.ask_for_clone(&mut warmth.zygote)
        {
            self.give_up(error);
        }
        self.hear_clone(link)?;
        loop {
            match warmth.zygote.hear() {
                Ok(None) => return Ok(()),
                // The message is about the clone of a cell that was discarded for this one.
                Ok(Some(FromZygote::Ended { .. } | FromZygote::Failed(_)))
                    if !self.cell.has_asked() => {}
                Ok(Some(FromZygote::Ended { end, cpu_us })) => {
                    // The clone may have sent a message between the last read and its death.
                    self.hear_clone(link)?;
                    self.ended = Some(Instant::now());
                    self.clone_cpu_us = cpu_us;
                    self.cell.end(end);
                }
                Ok(Some(FromZygote::Failed(error))) => self.give_up(error),
                Ok(Some(FromZygote::Ready)) => {
                    self.give_up(CellError::new("decode the zygote's message", Errno::EPROTO));
                }
                Ok(Some(FromZygote::Gone)) | Err(_) => {
                    warmth.lost();
                    self.give_up(CellError::new("keep the zygote alive", Errno::ECHILD));
                    return Ok(());
                }
            }
        }
    }

    fn hear_clone(&mut self, link: &mut Link) -> io::Result<()> {
        match self.cell.hear_clone()? {
            Some(FromClone::Started) => self.begun(link)?,
            Some(FromClone::Failed(error)) => self.fail(error),
            Some(FromClone::Waits) | None => {}
        }
        Ok(())
    }

    fn begun(&mut self, link: &mut Link) -> io::Result<()> {
        self.started = self.handed.or_else(|| Some(Instant::now()));
        self.schedule.started();
        link.send_soon(&FromRunner::Started)
    }

    /// Records a failure of the runner's own. If there are several, the first one is reported.
    fn fail(&mut self, error: CellError) {
        match self.last_word {
            LastWord::Failed(_) => {}
            LastWord::Silence | LastWord::Ended { .. } => self.last_word = LastWord::Failed(error),
        }
    }

    /// Records a failure of the runner's own after which the cell is of no use, and destroys the
    /// cell.
    fn give_up(&mut self, error: CellError) {
        self.fail(error);
        self.cell.destroy();
    }
}
