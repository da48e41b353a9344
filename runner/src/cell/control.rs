//! Messages between the runner and a cell's init, over a socket that keeps message boundaries.
//!
//! Both ends are held by trusted code only. The program never holds either.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::libc;
use serde::{Deserialize, Serialize};

use sandhog_runner::protocol::End;

use super::{CellError, passing};

/// Largest message, in bytes.
const MAX_MESSAGE: usize = 4096;

/// Message from a cell's init. The init sends `Started` and then `Ended`, or one of the other
/// messages alone. If the program is a clone of the zygote, it sends `Made` and then `Ended`.
///
/// `Ended` alone means that the program was killed before it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// The cell is ready to be entered. The message carries the cell's namespaces, in the order of
    /// [`namespaces::entrances`](super::namespaces::entrances).
    Made,
    /// The program runs.
    Started,
    /// The program cannot be run.
    NotStarted {
        /// The error of the exec, or of placing a file.
        errno: i32,
    },
    /// A step of the runner's own code failed.
    Failed {
        /// The step that failed.
        step: String,
        /// The error of the kernel.
        errno: i32,
    },
    /// The program's first process ended. Every other process of the cell was killed and reaped.
    Ended {
        /// The exit code or signal of the first process.
        end: End,
        /// True if a scratch space was full at that moment.
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

/// Request from the runner to a cell's init.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToInit {
    /// Send this signal to every process of the cell.
    Signal(libc::c_int),
    /// End the cell, because the clone ended in this way.
    End(End),
}

/// One end of the socket between the runner and an init.
#[derive(Debug)]
pub(super) struct Control(pub(super) UnixStream);

impl Control {
    /// Makes both ends: the runner's and the init's.
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

    /// Sends a message to the runner. If the runner is gone, the message is lost; that is no reason
    /// to stop.
    pub(super) fn tell(&mut self, message: &FromInit) {
        let bytes = rmp_serde::to_vec(message).expect("messages have known lengths");
        drop(self.0.write(&bytes));
    }

    /// Sends a message to the runner, together with these descriptors.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(super) fn hand(
        &mut self,
        message: &FromInit,
        what: &[BorrowedFd<'_>],
    ) -> Result<(), Errno> {
        let bytes = rmp_serde::to_vec(message).expect("messages have known lengths");
        passing::send(self.0.as_fd(), &bytes, what)
    }

    /// Receives the next message of the init, with the descriptors that came with it. `None` means
    /// that the init is gone.
    pub(super) fn hear(&mut self) -> io::Result<Option<(FromInit, Vec<OwnedFd>)>> {
        let mut buffer = [0; MAX_MESSAGE];
        let (length, handed) = loop {
            match passing::receive(self.0.as_fd(), &mut buffer) {
                // The init exited before it read a request. The kernel reports that once, before
                // the messages that the init had already sent, so try again.
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

    /// Sends a request to the init.
    pub(super) fn ask(&mut self, order: ToInit) -> io::Result<()> {
        let bytes = rmp_serde::to_vec(&order).expect("messages have known lengths");
        self.0.write_all(&bytes)
    }

    /// Receives a request from the runner. `None` means that the runner is gone.
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
