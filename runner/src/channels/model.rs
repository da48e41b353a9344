//! The bytes between the worker and a model server's descriptor 3, in both directions for as long
//! as the server runs.
//!
//! The runner does not decode them. It holds at most [`MAX_PENDING_INPUT_BYTES`] bytes for a server
//! that reads too slowly.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags};

use sandhog_protocol::frames::{CallId, FromRunner, MAX_CHUNK};

use super::channel::{Channel, PollState, Turn};
use crate::connection::{Connection, forget_sent, retry};

/// The most bytes that may wait for a server: a few calls of the largest size.
const MAX_PENDING_INPUT_BYTES: usize = 64 << 20;

/// The runner's side of a server's socket.
#[derive(Debug)]
pub(crate) struct ModelChannel {
    call: CallId,
    socket: Option<UnixStream>,
    pending: Vec<u8>,
    sent: usize,
}

impl ModelChannel {
    /// Creates the channel of a call over a nonblocking socket. Without a socket, bytes for the
    /// server are dropped.
    pub(crate) fn new(call: CallId, socket: Option<UnixStream>) -> Self {
        Self {
            call,
            socket,
            pending: Vec::new(),
            sent: 0,
        }
    }

    /// Queues bytes for the server. Returns false if they would exceed [`MAX_PENDING_INPUT_BYTES`].
    pub(crate) fn queue(&mut self, data: &[u8]) -> bool {
        if self.socket.is_none() {
            return true;
        }
        if self.pending.len() - self.sent + data.len() > MAX_PENDING_INPUT_BYTES {
            return false;
        }
        self.pending.extend_from_slice(data);
        true
    }

    /// Returns the socket, which is readable when the server has sent bytes. `None` while the
    /// connection to the worker is `congested`.
    fn readable(&self, congested: bool) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().filter(|_| !congested).map(AsFd::as_fd)
    }

    /// Returns the socket, which is writable when the server takes more bytes. `None` when no bytes
    /// wait for it.
    fn writable(&self) -> Option<BorrowedFd<'_>> {
        self.socket
            .as_ref()
            .filter(|_| self.sent < self.pending.len())
            .map(AsFd::as_fd)
    }

    /// Passes on bytes in both directions, without blocking. Returns whether the server sent any.
    ///
    /// # Errors
    /// Fails if the stream to the worker fails.
    fn pass(
        &mut self,
        connection: &mut Connection,
        buffer: &mut [u8; MAX_CHUNK],
    ) -> io::Result<bool> {
        self.push();
        let Some(socket) = self.socket.as_mut().filter(|_| !connection.congested()) else {
            return Ok(false);
        };
        match retry(|| socket.read(buffer)) {
            Ok(Some(count)) if count > 0 => {
                let data = buffer.get(..count).unwrap_or_default().to_vec();
                let id = self.call;
                connection.send(&FromRunner::ModelOutput { id, data })?;
                Ok(true)
            }
            Ok(None) => Ok(false),
            // The server closed the socket. The end of its program follows and is reported then.
            Ok(Some(_)) | Err(_) => {
                self.socket = None;
                Ok(false)
            }
        }
    }

    fn push(&mut self) {
        let Some(socket) = &mut self.socket else {
            return;
        };
        while let Some(rest) = self.pending.get(self.sent..).filter(|r| !r.is_empty()) {
            match retry(|| socket.write(rest)) {
                Ok(Some(count)) if count > 0 => self.sent += count,
                Ok(None) => {
                    forget_sent(&mut self.pending, &mut self.sent);
                    return;
                }
                Ok(Some(_)) | Err(_) => break,
            }
        }
        self.pending = Vec::new();
        self.sent = 0;
    }
}

impl Channel for ModelChannel {
    fn interest(&self, state: PollState) -> Option<PollFd<'_>> {
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, self.readable(state.congested).is_some());
        events.set(PollFlags::POLLOUT, self.writable().is_some());
        let socket = self.socket.as_ref().filter(|_| !events.is_empty());
        socket.map(|socket| PollFd::new(socket.as_fd(), events))
    }

    fn transfer(
        &mut self,
        connection: &mut Connection,
        _turn: Turn,
        buffer: &mut [u8; MAX_CHUNK],
    ) -> io::Result<bool> {
        self.pass(connection, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_read_is_not_waited_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut channel = ModelChannel::new(CallId(1), Some(ours));
        let megabyte = vec![b'x'; 1 << 20];
        let mut taken = 0;
        while channel.queue(&megabyte) {
            channel.push();
            taken += megabyte.len();
            assert!(taken <= MAX_PENDING_INPUT_BYTES + (8 << 20), "no bound");
        }
        assert!(channel.writable().is_some());

        theirs.set_nonblocking(true).unwrap();
        let (mut got, mut piece) = (0, vec![0; 1 << 20]);
        while got < taken {
            match retry(|| theirs.read(&mut piece)).unwrap() {
                Some(count) => got += count,
                None => channel.push(),
            }
        }
        channel.push();
        assert!(channel.writable().is_none());
    }

    #[test]
    fn a_server_that_is_always_behind_has_nothing_kept_that_it_read() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut channel = ModelChannel::new(CallId(1), Some(ours));
        let megabyte = vec![b'x'; 1 << 20];
        let mut piece = megabyte.clone();
        assert!(channel.queue(&megabyte));
        for _ in 0..200 {
            assert!(channel.queue(&megabyte));
            channel.push();
            assert!(channel.writable().is_some(), "some bytes are always left");
            while channel.pending.len() - channel.sent > megabyte.len() {
                assert!(theirs.read(&mut piece).unwrap() > 0);
                channel.push();
            }
            assert!(channel.pending.len() <= 4 * megabyte.len(), "it grows");
        }
    }
}
