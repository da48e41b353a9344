//! A connection to the keeper, until it becomes the connection of a runner. No call on it blocks.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};

use sandhog_protocol::framing::PREFIX_LEN;
use sandhog_protocol::keeper::{CodecError, FromKeeper, MAX_REQUEST, ToKeeper, encode, take};

use crate::connection::retry;

/// Time within which a peer must send a whole frame.
const FRAME_TIMEOUT: Duration = Duration::from_secs(5);

/// Time within which a peer must read the last frame before its connection is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that are read from a peer at once.
const READ_BYTES: usize = 4096;

/// A connection.
#[derive(Debug)]
pub(super) struct Peer {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    deadline: Instant,
    /// True once the connection is closed when its output is written.
    closing: bool,
}

/// The result of reading from a peer.
#[derive(Debug)]
pub(super) enum FromPeer {
    /// No whole frame has arrived yet.
    Incomplete,
    /// A valid frame.
    Frame(ToKeeper),
    /// A frame that is not valid, with the reason.
    Invalid(String),
    /// The peer has closed the connection, or the stream failed.
    Closed,
}

impl Peer {
    /// Takes over a new connection.
    ///
    /// # Errors
    /// Fails if the stream cannot be made nonblocking.
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            deadline: Instant::now() + FRAME_TIMEOUT,
            closing: false,
        })
    }

    /// Returns the user of the peer. The kernel shows a user that this namespace does not have as
    /// its overflow user, 65534.
    ///
    /// # Errors
    /// Fails if the kernel refuses.
    pub(super) fn user(&self) -> io::Result<u32> {
        Ok(getsockopt(&self.stream, sockopt::PeerCredentials)?.uid())
    }

    /// Returns the descriptor and whether to wait until it is writable, or else readable.
    pub(super) fn interest(&self) -> (BorrowedFd<'_>, bool) {
        (self.stream.as_fd(), !self.output.is_empty())
    }

    /// Returns the time at which the connection is to be closed.
    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Returns whether the connection is to be closed now.
    pub(super) fn is_done(&self) -> bool {
        self.closing && self.output.is_empty()
    }

    /// Returns whether the connection is about to be closed.
    pub(super) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Queues a frame and writes as much as the peer takes.
    pub(super) fn send(&mut self, frame: &FromKeeper) {
        self.output.extend_from_slice(&encode(frame));
        self.flush();
    }

    /// Sends a reason and closes the connection once the peer has read it.
    pub(super) fn refuse_and_close(&mut self, reason: String, retryable: bool) {
        self.closing = true;
        self.deadline = Instant::now() + CLOSE_TIMEOUT;
        self.send(&FromKeeper::Refused { reason, retryable });
    }

    /// Writes as much as the peer takes.
    pub(super) fn flush(&mut self) {
        while !self.output.is_empty() {
            match retry(|| self.stream.write(&self.output)) {
                Ok(Some(count)) if count > 0 => {
                    self.output.drain(..count);
                }
                Ok(None) => return,
                Ok(Some(_)) | Err(_) => {
                    self.output.clear();
                    self.closing = true;
                }
            }
        }
    }

    /// Reads the next frame, and no byte beyond it: those are the runner's.
    pub(super) fn receive(&mut self) -> FromPeer {
        loop {
            let missing = match self.missing_bytes() {
                Ok(0) => return self.decode(),
                Ok(missing) => missing,
                Err(reason) => return FromPeer::Invalid(reason),
            };
            let mut piece = [0; READ_BYTES];
            let room = piece.get_mut(..missing.min(READ_BYTES)).unwrap_or_default();
            match retry(|| self.stream.read(room)) {
                Ok(None) => return FromPeer::Incomplete,
                Ok(Some(count)) if count > 0 => {
                    let got = piece.get(..count).unwrap_or_default();
                    self.input.extend_from_slice(got);
                }
                Ok(Some(_)) | Err(_) => return FromPeer::Closed,
            }
        }
    }

    /// Returns the number of bytes that the next frame still lacks, as far as it is known.
    fn missing_bytes(&self) -> Result<usize, String> {
        let Some((prefix, body)) = self.input.split_first_chunk::<PREFIX_LEN>() else {
            return Ok(PREFIX_LEN - self.input.len());
        };
        let length = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
        if length > MAX_REQUEST {
            let most = MAX_REQUEST;
            return Err(CodecError::TooLong { length, most }.to_string());
        }
        Ok(length - body.len())
    }

    fn decode(&mut self) -> FromPeer {
        self.deadline = Instant::now() + FRAME_TIMEOUT;
        match take::<ToKeeper>(&mut self.input, MAX_REQUEST) {
            Ok(Some(frame)) => match frame.check() {
                Ok(()) => FromPeer::Frame(frame),
                Err(reason) => FromPeer::Invalid(reason),
            },
            Ok(None) => FromPeer::Incomplete,
            Err(CodecError::Decode(error)) => FromPeer::Invalid(format!(
                "the frame cannot be decoded: {error}; allowed are `open` and `ask`"
            )),
            Err(error @ CodecError::TooLong { .. }) => FromPeer::Invalid(error.to_string()),
        }
    }

    /// Gives the connection away, for a runner.
    pub(super) fn into_stream(self) -> UnixStream {
        self.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixStream, Peer) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (ours, Peer::new(theirs).unwrap())
    }

    #[test]
    fn no_byte_beyond_a_frame_is_read() {
        let (mut worker, mut peer) = pair();
        let ask = ToKeeper::Ask {
            sandbox: "a-1".to_owned(),
        };
        let mut bytes = encode(&ask);
        bytes.extend_from_slice(b"of the runner");
        for byte in bytes {
            worker.write_all(&[byte]).unwrap();
        }
        assert!(matches!(peer.receive(), FromPeer::Frame(frame) if frame == ask));
        let mut rest = [0; 64];
        let count = peer.into_stream().read(&mut rest).unwrap();
        assert_eq!(&rest[..count], b"of the runner");
    }

    #[test]
    fn invalid_frames_are_told_with_their_reason() {
        for (bytes, want) in [
            (vec![0xff; 8], "above the cap"),
            (vec![0, 0, 0, 1, 0xc1], "cannot be decoded"),
            (
                encode(&ToKeeper::Open(sandhog_protocol::keeper::Open::default())),
                "`memory_bytes` is 0",
            ),
        ] {
            let (mut worker, mut peer) = pair();
            worker.write_all(&bytes).unwrap();
            match peer.receive() {
                FromPeer::Invalid(reason) => assert!(reason.contains(want), "{reason}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_peer_that_does_not_read_blocks_nothing() {
        let (worker, mut peer) = pair();
        let large = FromKeeper::Refused {
            reason: "x".repeat(200 << 10),
            retryable: false,
        };
        for _ in 0..5 {
            peer.send(&large);
        }
        assert!(peer.interest().1, "some output waits");
        drop(worker);
        peer.flush();
        assert!(peer.is_done());
    }
}
