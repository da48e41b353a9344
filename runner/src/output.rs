//! One output stream of a program. It is always drained, its bytes are kept up to the cap, and all
//! of them are counted.

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
    /// Creates a capture of `stream` from a nonblocking pipe that keeps the first `cap` bytes.
    pub(crate) fn new(pipe: Option<File>, stream: Stream, cap: u64) -> Self {
        Self {
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
    pub(crate) fn readable(&self, congested: bool) -> Option<BorrowedFd<'_>> {
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

/// The result of reading a piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// There was no output.
    Nothing,
    /// All of the output is beyond the cap. It was counted only.
    Counted,
    /// Output within the cap.
    Kept {
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
