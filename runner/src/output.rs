//! One output stream of a program: always drained, kept up to its cap, counted to the end.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

use sandhog_runner::protocol::{MAX_CHUNK, Stream};

use crate::link::retry;

/// The reading end of a program's output pipe.
#[derive(Debug)]
pub(crate) struct Capture {
    pipe: Option<File>,
    stream: Stream,
    room: u64,
    total: u64,
}

impl Capture {
    /// Captures `stream` from a nonblocking pipe and keeps its first `cap` bytes.
    pub(crate) fn new(pipe: Option<File>, stream: Stream, cap: u64) -> Self {
        Self {
            pipe,
            stream,
            room: cap,
            total: 0,
        }
    }

    /// Bytes written so far, kept or not.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Whether every writer is gone.
    pub(crate) fn ended(&self) -> bool {
        self.pipe.is_none()
    }

    /// Readable when there is something to take. `None` after the end, and while the worker is `congested` with
    /// bytes that would be kept: those wait in the pipe; what is only counted never does.
    pub(crate) fn readable(&self, congested: bool) -> Option<BorrowedFd<'_>> {
        self.pipe
            .as_ref()
            .filter(|_| self.room == 0 || !congested)
            .map(AsFd::as_fd)
    }

    /// Takes what is there, up to one piece; what of it is kept, if anything.
    ///
    /// One read need not bring all: of a pipe that its writer has made one of packets, each read
    /// brings one packet.
    ///
    /// # Errors
    /// When the pipe fails.
    pub(crate) fn take(&mut self, buffer: &mut [u8; MAX_CHUNK]) -> io::Result<Taken> {
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
            return Ok(Taken::Nothing);
        }
        self.total += count as u64;
        let kept = count.min(usize::try_from(self.room).unwrap_or(usize::MAX));
        self.room -= kept as u64;
        let data = buffer.get(..kept).unwrap_or_default().to_vec();
        if data.is_empty() {
            return Ok(Taken::Counted);
        }
        Ok(Taken::Kept {
            stream: self.stream,
            data,
        })
    }
}

/// What became of a piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// There was none.
    Nothing,
    /// It is beyond the cap.
    Counted,
    /// This much is within the cap.
    Kept {
        /// Of which stream.
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
        let mut capture = Capture::new(Some(read.into()), Stream::Stderr, 5);
        let mut buffer = [0; MAX_CHUNK];
        assert_eq!(capture.take(&mut buffer).unwrap(), Taken::Nothing);
        write.write_all(b"abc\xff").unwrap();
        let kept = |data: &[u8]| Taken::Kept {
            stream: Stream::Stderr,
            data: data.to_vec(),
        };
        assert_eq!(capture.take(&mut buffer).unwrap(), kept(b"abc\xff"));
        assert!(
            capture.readable(true).is_none(),
            "room left, worker congested"
        );
        write.write_all(b"defg").unwrap();
        assert_eq!(capture.take(&mut buffer).unwrap(), kept(b"d"));
        write.write_all(b"hij").unwrap();
        assert_eq!(capture.take(&mut buffer).unwrap(), Taken::Counted);
        assert!(
            capture.readable(true).is_some(),
            "only counted, never waits"
        );
        assert_eq!(capture.total(), 11);
        assert!(!capture.ended());
        drop(write);
        assert_eq!(capture.take(&mut buffer).unwrap(), Taken::Nothing);
        assert!(capture.ended());
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
        let mut capture = Capture::new(Some(read.into()), Stream::Stdout, 100);
        let mut buffer = [0; MAX_CHUNK];
        let all = Taken::Kept {
            stream: Stream::Stdout,
            data: b"abcdef".to_vec(),
        };
        assert_eq!(capture.take(&mut buffer).unwrap(), all);
        assert!(capture.ended(), "the end is seen with the last bytes");
    }
}
