//! What the runner and a cell's init say to each other, over a socket that keeps messages apart.
//!
//! Both ends are trusted code; the program never holds either.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};

use sandhog_runner::protocol::End;

use super::CellError;

/// The longest message.
const MAX_MESSAGE: usize = 4096;

/// What a cell's init says: `Started` and then `Ended`, or one of the others alone.
///
/// `Ended` alone is a program that was killed on its way to the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// The program runs.
    Started,
    /// The program cannot be run.
    NotStarted {
        /// Why.
        errno: i32,
    },
    /// A step of ours failed.
    Failed {
        /// Which.
        step: String,
        /// Why.
        errno: i32,
    },
    /// The program's first process ended, and every other process of the cell was killed and reaped.
    Ended {
        /// How it ended.
        end: End,
        /// Whether a scratch space was full at that moment.
        scratch_full: bool,
        /// CPU time of all the cell's reaped processes, in microseconds.
        cpu_us: u64,
    },
}

impl From<CellError> for FromInit {
    fn from(error: CellError) -> Self {
        Self::Failed {
            step: error.step,
            errno: error.errno as i32,
        }
    }
}

/// One end of the conversation.
#[derive(Debug)]
pub(super) struct Control(pub(super) UnixStream);

impl Control {
    /// Both ends: the runner's and the init's.
    pub(super) fn pair() -> Result<(Self, Self), Errno> {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )?;
        Ok((Self(ours.into()), Self(theirs.into())))
    }

    /// Says something to the runner. A runner that is gone cannot be told and is no reason to stop.
    pub(super) fn tell(&mut self, message: &FromInit) {
        let bytes = rmp_serde::to_vec(message).expect("messages have known lengths");
        drop(self.0.write(&bytes));
    }

    /// The next thing the init said; `None` once it is gone.
    pub(super) fn hear(&mut self) -> io::Result<Option<FromInit>> {
        let mut buffer = [0; MAX_MESSAGE];
        let length = loop {
            match self.0.read(&mut buffer) {
                // The init left before it read what it was asked. The kernel tells that once, and ahead of the words
                // that are still there.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                other => break other?,
            }
        };
        let Some(message) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return Ok(None);
        };
        rmp_serde::from_slice(message)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Asks the init to send a signal to every process of the cell.
    pub(super) fn ask(&mut self, signal: Signal) -> io::Result<()> {
        self.0.write_all(&[signal as u8])
    }

    /// The signal the runner asks for, if it is one of the two it may; `None` once the runner is gone.
    pub(super) fn asked(&mut self) -> io::Result<Option<Signal>> {
        let mut byte = [0];
        if self.0.read(&mut byte)? == 0 {
            return Ok(None);
        }
        let [byte] = byte;
        Ok(Some(if i32::from(byte) == Signal::SIGTERM as i32 {
            Signal::SIGTERM
        } else {
            Signal::SIGKILL
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_understand_each_other() {
        let (mut ours, mut theirs) = Control::pair().unwrap();
        let messages = [
            FromInit::Started,
            FromInit::NotStarted { errno: 2 },
            FromInit::Failed {
                step: "mount /proc".to_owned(),
                errno: 1,
            },
            FromInit::Ended {
                end: End::Signaled(9),
                scratch_full: true,
                cpu_us: 12,
            },
        ];
        for message in &messages {
            theirs.tell(message);
        }
        for message in messages {
            assert_eq!(ours.hear().unwrap(), Some(message));
        }
        ours.ask(Signal::SIGTERM).unwrap();
        ours.ask(Signal::SIGKILL).unwrap();
        assert_eq!(theirs.asked().unwrap(), Some(Signal::SIGTERM));
        assert_eq!(theirs.asked().unwrap(), Some(Signal::SIGKILL));
        drop(theirs);
        assert_eq!(ours.hear().unwrap(), None);
    }

    #[test]
    fn last_words_are_heard_from_an_init_that_left_a_request_unread() {
        let (mut ours, mut theirs) = Control::pair().unwrap();
        let message = FromInit::Ended {
            end: End::Signaled(9),
            scratch_full: false,
            cpu_us: 1,
        };
        theirs.tell(&message);
        ours.ask(Signal::SIGKILL).unwrap();
        drop(theirs);
        assert_eq!(ours.hear().unwrap(), Some(message));
        assert_eq!(ours.hear().unwrap(), None);
    }
}
