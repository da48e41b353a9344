//! Messages between the runner and a cell's init, over a socket that keeps message boundaries.
//!
//! Both ends are held by trusted code only. The program never holds either.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::libc;
use serde::{Deserialize, Serialize};

use sandhog_protocol::frames::ProgramEnd;

use super::{CellError, fd_passing};

/// Largest message, in bytes.
const MAX_MESSAGE: usize = 4096;

/// Message from a cell's init. The init sends `Started` and then `Ended`, or one of the other
/// messages alone. If the program is a clone of the zygote, it sends `Made` and then `Ended`.
///
/// `Ended` alone means that the program was killed before it started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromInit {
    /// The cell is ready to be entered. The message carries the cell's namespaces, in the order
    /// of [`namespaces::entered_namespaces`](super::namespaces::entered_namespaces).
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
        end: ProgramEnd,
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
    End(ProgramEnd),
}

/// One end of the socket between the runner and an init.
#[derive(Debug)]
pub(super) struct InitChannel(pub(super) UnixStream);

impl InitChannel {
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
    pub(super) fn send(&mut self, message: &FromInit) {
        let bytes = rmp_serde::to_vec(message).expect("messages have known lengths");
        drop(self.0.write(&bytes));
    }

    /// Sends a message to the runner, together with these descriptors.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(super) fn send_with_fds(
        &mut self,
        message: &FromInit,
        what: &[BorrowedFd<'_>],
    ) -> Result<(), Errno> {
        let bytes = rmp_serde::to_vec(message).expect("messages have known lengths");
        fd_passing::send_with_fds(self.0.as_fd(), &bytes, what)
    }

    /// Receives the next message of the init, with the descriptors that came with it. `None` means
    /// that the init is gone.
    pub(super) fn recv(&mut self) -> io::Result<Option<(FromInit, Vec<OwnedFd>)>> {
        let mut buffer = [0; MAX_MESSAGE];
        let (length, handed) = loop {
            match fd_passing::recv_with_fds(self.0.as_fd(), &mut buffer) {
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
    pub(super) fn send_request(&mut self, request: ToInit) -> io::Result<()> {
        let bytes = rmp_serde::to_vec(&request).expect("messages have known lengths");
        self.0.write_all(&bytes)
    }

    /// Receives a request from the runner. `None` means that the runner is gone.
    pub(super) fn recv_request(&mut self) -> io::Result<Option<ToInit>> {
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
        let (mut ours, mut theirs) = InitChannel::pair().unwrap();
        let messages = [
            FromInit::Started,
            FromInit::NotStarted { errno: 2 },
            FromInit::Failed {
                step: "mount /proc".to_owned(),
                errno: 1,
            },
            FromInit::Ended {
                end: ProgramEnd::Signaled(9),
                scratch_full: true,
                cpu_us: 12,
            },
        ];
        for message in &messages {
            theirs.send(message);
        }
        for message in messages {
            assert_eq!(ours.recv().unwrap().unwrap().0, message);
        }
        let requests = [
            ToInit::Signal(libc::SIGTERM),
            ToInit::End(ProgramEnd::Signaled(libc::SIGSEGV)),
        ];
        for request in requests {
            ours.send_request(request).unwrap();
        }
        for request in requests {
            assert_eq!(theirs.recv_request().unwrap(), Some(request));
        }
        theirs
            .send_with_fds(&FromInit::Made, &[io::stdin().as_fd()])
            .unwrap();
        let (message, handed) = ours.recv().unwrap().unwrap();
        assert_eq!((message, handed.len()), (FromInit::Made, 1));
        drop(theirs);
        assert!(ours.recv().unwrap().is_none());
    }

    #[test]
    fn last_words_are_heard_from_an_init_that_left_a_request_unread() {
        let (mut ours, mut theirs) = InitChannel::pair().unwrap();
        let message = FromInit::Ended {
            end: ProgramEnd::Signaled(9),
            scratch_full: false,
            cpu_us: 1,
        };
        theirs.send(&message);
        ours.send_request(ToInit::Signal(libc::SIGKILL)).unwrap();
        drop(theirs);
        assert_eq!(ours.recv().unwrap().unwrap().0, message);
        assert!(ours.recv().unwrap().is_none());
    }
}
