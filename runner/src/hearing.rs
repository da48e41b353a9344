//! What a running cell says of itself: its init, its clone, and the zygote that made the clone.

use std::io;
use std::time::Instant;

use nix::errno::Errno;

use sandhog_runner::protocol::{End, FromRunner};

use crate::cell::{CellError, FromClone, FromInit, FromZygote};
use crate::job::Job;
use crate::link::Link;
use crate::report::LastWord;
use crate::warmth::Warmth;

/// Whether a cell's init still has something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Init {
    /// It has not said its last word.
    There,
    /// It has said its last word, or is gone: every other process of the cell is dead.
    Done,
}

impl Job {
    /// Takes what the init has to say.
    ///
    /// # Errors
    /// When the conversation with the worker or the init cannot go on.
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

    /// Goes on with the clone that is this job's program; for any other job, with the cell that is kept ready.
    ///
    /// # Errors
    /// When the conversation with the worker cannot go on.
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
                // Of a cell that gave way to this one.
                Ok(Some(FromZygote::Ended { .. } | FromZygote::Failed(_)))
                    if !self.cell.has_asked() => {}
                Ok(Some(FromZygote::Ended { end, cpu_us })) => {
                    // What it said before it died may have come after the last look.
                    self.hear_clone(link)?;
                    self.ended = Some(Instant::now());
                    self.clone_cpu_us = cpu_us;
                    self.cell.end(end);
                }
                Ok(Some(FromZygote::Failed(error))) => self.give_up(error),
                Ok(Some(FromZygote::Ready)) => {
                    self.give_up(CellError::new("understand the zygote", Errno::EPROTO));
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

    /// Something of ours failed; the first such thing is told.
    fn fail(&mut self, error: CellError) {
        match self.last_word {
            LastWord::Failed(_) => {}
            LastWord::Silence | LastWord::Ended { .. } => self.last_word = LastWord::Failed(error),
        }
    }

    /// Something of ours failed, and nothing more can come of this cell.
    fn give_up(&mut self, error: CellError) {
        self.fail(error);
        self.cell.destroy();
    }
}
