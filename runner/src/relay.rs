//! The bytes between the worker and a model server's descriptor 3, in both directions for as long
//! as the server runs.
//!
//! The runner does not decode them. It holds at most [`MAX_WAITING`] bytes for a server that does
//! not read.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use sandhog_runner::protocol::{FromRunner, MAX_CHUNK};

use crate::link::{Link, forget_sent, retry};

/// The most bytes that may wait for a server: a few calls of the largest size.
const MAX_WAITING: usize = 64 << 20;

/// The runner's side of a server's socket.
#[derive(Debug)]
pub(crate) struct Relay {
    socket: Option<UnixStream>,
    waiting: Vec<u8>,
    sent: usize,
}

impl Relay {
    /// Creates a relay over a nonblocking socket. Without a socket, bytes for the server are
    /// dropped.
    pub(crate) fn new(socket: Option<UnixStream>) -> Self {
        Self {
            socket,
            waiting: Vec::new(),
            sent: 0,
        }
    }

    /// Queues bytes for the server. Returns false if they would exceed [`MAX_WAITING`].
    pub(crate) fn take(&mut self, data: &[u8]) -> bool {
        if self.socket.is_none() {
            return true;
        }
        if self.waiting.len() - self.sent + data.len() > MAX_WAITING {
            return false;
        }
        self.waiting.extend_from_slice(data);
        true
    }

    /// Returns the socket, which is readable when the server has sent bytes. `None` while the
    /// connection to the worker is `congested`.
    pub(crate) fn readable(&self, congested: bool) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().filter(|_| !congested).map(AsFd::as_fd)
    }

    /// Returns the socket, which is writable when the server takes more bytes. `None` when no bytes
    /// wait for it.
    pub(crate) fn writable(&self) -> Option<BorrowedFd<'_>> {
        self.socket
            .as_ref()
            .filter(|_| self.sent < self.waiting.len())
            .map(AsFd::as_fd)
    }

    /// Passes on bytes in both directions, without blocking. Returns whether the server sent any.
    ///
    /// # Errors
    /// When the stream to the worker fails.
    pub(crate) fn pass(
        &mut self,
        link: &mut Link,
        buffer: &mut [u8; MAX_CHUNK],
    ) -> io::Result<bool> {
        self.push();
        let Some(socket) = self.socket.as_mut().filter(|_| !link.congested()) else {
            return Ok(false);
        };
        match retry(|| socket.read(buffer)) {
            Ok(Some(count)) if count > 0 => {
                let data = buffer.get(..count).unwrap_or_default().to_vec();
                link.send(&FromRunner::Said { data })?;
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
        while let Some(rest) = self.waiting.get(self.sent..).filter(|r| !r.is_empty()) {
            match retry(|| socket.write(rest)) {
                Ok(Some(count)) if count > 0 => self.sent += count,
                Ok(None) => {
                    forget_sent(&mut self.waiting, &mut self.sent);
                    return;
                }
                Ok(Some(_)) | Err(_) => break,
            }
        }
        self.waiting = Vec::new();
        self.sent = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_read_is_not_waited_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut relay = Relay::new(Some(ours));
        let megabyte = vec![b'x'; 1 << 20];
        let mut taken = 0;
        while relay.take(&megabyte) {
            relay.push();
            taken += megabyte.len();
            assert!(taken <= MAX_WAITING + (8 << 20), "no bound");
        }
        assert!(relay.writable().is_some());

        theirs.set_nonblocking(true).unwrap();
        let (mut got, mut piece) = (0, vec![0; 1 << 20]);
        while got < taken {
            match retry(|| theirs.read(&mut piece)).unwrap() {
                Some(count) => got += count,
                None => relay.push(),
            }
        }
        relay.push();
        assert!(relay.writable().is_none());
    }

    #[test]
    fn a_server_that_is_always_behind_has_nothing_kept_that_it_read() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut relay = Relay::new(Some(ours));
        let megabyte = vec![b'x'; 1 << 20];
        let mut piece = megabyte.clone();
        assert!(relay.take(&megabyte));
        for _ in 0..200 {
            assert!(relay.take(&megabyte));
            relay.push();
            assert!(relay.writable().is_some(), "some bytes are always left");
            while relay.waiting.len() - relay.sent > megabyte.len() {
                assert!(theirs.read(&mut piece).unwrap() > 0);
                relay.push();
            }
            assert!(relay.waiting.len() <= 4 * megabyte.len(), "it grows");
        }
    }
}
