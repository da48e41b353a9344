//! One output stream of a program. It is always drained, its bytes are kept up to the cap, and all
//! of them are counted.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags};

use sandhog_protocol::frames::{CallId, FromRunner, MAX_CHUNK, Stream};

use super::channel::{Channel, PollState, Turn};
use crate::connection::{Connection, retry};

/// The reading end of a program's output pipe.
#[derive(Debug)]
pub(crate) struct OutputChannel {
    call: CallId,
    pipe: Option<File>,
    stream: Stream,
    room: u64,
    total: u64,
}

impl OutputChannel {
    /// Creates the channel of the call's `stream` from a nonblocking pipe. It keeps the first `cap`
    /// bytes.
    pub(crate) fn new(call: CallId, pipe: Option<File>, stream: Stream, cap: u64) -> Self {
        Self {
            call,
            pipe,
            stream,
            room: cap,
            total: 0,
        }
    }

    /// Returns the number of bytes read so far, kept or not.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Returns whether every writer has closed the pipe.
    pub(crate) fn ended(&self) -> bool {
        self.pipe.is_none()
    }

    /// Returns the pipe, which is readable when it has bytes or has ended. `None` after the end,
    /// and while the connection to the worker is `congested` and bytes would be kept: such bytes
    /// wait in the pipe. Bytes beyond the cap are only counted and never wait.
    fn readable(&self, congested: bool) -> Option<BorrowedFd<'_>> {
        self.pipe
            .as_ref()
            .filter(|_| self.room == 0 || !congested)
            .map(AsFd::as_fd)
    }

    /// Reads the available bytes, up to the size of `buffer`. Returns those within the cap, if
    /// there are any.
    ///
    /// It may need several reads: if the writer has put the pipe into packet mode, each read
    /// returns one packet.
    ///
    /// # Errors
    /// Fails if the pipe fails.
    fn read(&mut self, buffer: &mut [u8; MAX_CHUNK]) -> io::Result<OutputRead> {
        let mut count = 0;
        while let Some(pipe) = &mut self.pipe
            && count < buffer.len()
        {
            let rest = buffer.get_mut(count..).unwrap_or_default();
            match retry(|| pipe.read(rest))? {
                None => break,
                Some(0) => self.pipe = None,
                Some(more) => count += more,
            }
        }
        if count == 0 {
            return Ok(OutputRead::Nothing);
        }
        self.total += count as u64;
        let kept = count.min(usize::try_from(self.room).unwrap_or(usize::MAX));
        self.room -= kept as u64;
        let data = buffer.get(..kept).unwrap_or_default().to_vec();
        if data.is_empty() {
            return Ok(OutputRead::BeyondCap);
        }
        Ok(OutputRead::WithinCap {
            stream: self.stream,
            data,
        })
    }
}

impl Channel for OutputChannel {
    fn interest(&self, state: PollState) -> Option<PollFd<'_>> {
        self.readable(state.congested)
            .filter(|_| state.is_reading)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
    }

    /// Reads one piece of the output and passes on the bytes within the cap.
    fn transfer(
        &mut self,
        connection: &mut Connection,
        turn: Turn,
        buffer: &mut [u8; MAX_CHUNK],
    ) -> io::Result<bool> {
        if turn == Turn::Running && self.readable(connection.congested()).is_none() {
            return Ok(false);
        }
        match self.read(buffer)? {
            OutputRead::Nothing => return Ok(false),
            OutputRead::BeyondCap => {}
            OutputRead::WithinCap { stream, data } => {
                let id = self.call;
                connection.send_soon(&FromRunner::Output { id, stream, data })?;
            }
        }
        Ok(true)
    }
}

/// The result of reading a piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
enum OutputRead {
    /// There was no output.
    Nothing,
    /// All of the output is beyond the cap. It was counted only.
    BeyondCap,
    /// Output within the cap.
    WithinCap {
        /// The stream of the output.
        stream: Stream,
        /// The bytes.
        data: Vec<u8>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;
    use std::io::Write;

    #[test]
    fn bytes_beyond_the_cap_are_counted_only() {
        let (read, write) = pipe2(OFlag::O_NONBLOCK).unwrap();
        let mut write = File::from(write);
        let mut channel = OutputChannel::new(CallId(1), Some(read.into()), Stream::Stderr, 5);
        let mut buffer = [0; MAX_CHUNK];
        assert_eq!(channel.read(&mut buffer).unwrap(), OutputRead::Nothing);
        write.write_all(b"abc\xff").unwrap();
        let kept = |data: &[u8]| OutputRead::WithinCap {
            stream: Stream::Stderr,
            data: data.to_vec(),
        };
        assert_eq!(channel.read(&mut buffer).unwrap(), kept(b"abc\xff"));
        assert!(
            channel.readable(true).is_none(),
            "room left, worker congested"
        );
        write.write_all(b"defg").unwrap();
        assert_eq!(channel.read(&mut buffer).unwrap(), kept(b"d"));
        write.write_all(b"hij").unwrap();
        assert_eq!(channel.read(&mut buffer).unwrap(), OutputRead::BeyondCap);
        assert!(
            channel.readable(true).is_some(),
            "only counted, never waits"
        );
        assert_eq!(channel.total(), 11);
        assert!(!channel.ended());
        drop(write);
        assert_eq!(channel.read(&mut buffer).unwrap(), OutputRead::Nothing);
        assert!(channel.ended());
    }

    #[test]
    fn packets_are_taken_together() {
        let flags = OFlag::O_NONBLOCK | OFlag::O_DIRECT;
        let (read, write) = pipe2(flags).unwrap();
        let mut write = File::from(write);
        for byte in b"abcdef" {
            write.write_all(&[*byte]).unwrap();
        }
        drop(write);
        let mut channel = OutputChannel::new(CallId(1), Some(read.into()), Stream::Stdout, 100);
        let mut buffer = [0; MAX_CHUNK];
        let all = OutputRead::WithinCap {
            stream: Stream::Stdout,
            data: b"abcdef".to_vec(),
        };
        assert_eq!(channel.read(&mut buffer).unwrap(), all);
        assert!(channel.ended(), "the end is seen with the last bytes");
    }
}
