//! What the runner and a cell's init say to each other, over a socket that keeps messages apart.
//!
//! Both ends are trusted code; the program never holds either.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::libc;
use serde::{Deserialize, Serialize};

use sandhog_runner::protocol::End;

use super::{CellError, passing};

/// The longest message.
const MAX_MESSAGE: usize = 4096;

/// What a cell's init says: `Started` and then `Ended`, or one of the others alone. With a clone of the zygote in the
/// program's place, `Made` and then `Ended`.
///
/// `Ended` alone is a program that was killed on its way to the start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// The cell is ready to be entered. Its namespaces come with this, in the order of
    /// [`namespaces::entrances`](super::namespaces::entrances).
    Made,
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

/// What the runner asks of a cell's init.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToInit {
    /// Send this signal to every process of the cell.
    Signal(libc::c_int),
    /// The clone ended like this: end the cell.
    End(End),
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

    /// Says something to the runner and hands it these.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn hand(
        &mut self,
        message: &FromInit,
        what: &[BorrowedFd<'_>],
    ) -> Result<(), Errno> {
        let bytes = rmp_serde::to_vec(message).expect("messages have known lengths");
        passing::send(self.0.as_fd(), &bytes, what)
    }

    /// The next thing the init said, and what it handed over; `None` once it is gone.
    pub(super) fn hear(&mut self) -> io::Result<Option<(FromInit, Vec<OwnedFd>)>> {
        let mut buffer = [0; MAX_MESSAGE];
        let (length, handed) = loop {
            match passing::receive(self.0.as_fd(), &mut buffer) {
                // The init left before it read what it was asked. The kernel tells that once, and ahead of the words
                // that are still there.
                Err(Errno::ECONNRESET) => {}
                other => break other?,
            }
        };
        let Some(message) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return Ok(None);
        };
        rmp_serde::from_slice(message)
            .map(|message| Some((message, handed)))
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Asks something of the init.
    pub(super) fn ask(&mut self, order: ToInit) -> io::Result<()> {
        let bytes = rmp_serde::to_vec(&order).expect("messages have known lengths");
        self.0.write_all(&bytes)
    }

    /// What the runner asks; `None` once the runner is gone.
    pub(super) fn asked(&mut self) -> io::Result<Option<ToInit>> {
        let mut buffer = [0; MAX_MESSAGE];
        let length = self.0.read(&mut buffer)?;
        let Some(message) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return Ok(None);
        };
        rmp_serde::from_slice(message)
            .map(Some)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
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
            assert_eq!(ours.hear().unwrap().unwrap().0, message);
        }
        let orders = [
            ToInit::Signal(libc::SIGTERM),
            ToInit::End(End::Signaled(libc::SIGSEGV)),
        ];
        for order in orders {
            ours.ask(order).unwrap();
        }
        for order in orders {
            assert_eq!(theirs.asked().unwrap(), Some(order));
        }
        theirs
            .hand(&FromInit::Made, &[io::stdin().as_fd()])
            .unwrap();
        let (message, handed) = ours.hear().unwrap().unwrap();
        assert_eq!((message, handed.len()), (FromInit::Made, 1));
        drop(theirs);
        assert!(ours.hear().unwrap().is_none());
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
        ours.ask(ToInit::Signal(libc::SIGKILL)).unwrap();
        drop(theirs);
        assert_eq!(ours.hear().unwrap().unwrap().0, message);
        assert!(ours.hear().unwrap().is_none());
    }
}
