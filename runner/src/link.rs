//! The conversation with the worker, without ever blocking on it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::dup;

use sandhog_runner::protocol::{self, FrameError, FromRunner, MAX_FRAME, ToRunner};

/// How much is read from the worker at once.
const PIECE: usize = 256 << 10;

/// How much may wait for a slow worker before the program's output is left in its pipe.
const MAX_PENDING: usize = 1 << 20;

/// Our ends of the attached standard input and output.
#[derive(Debug)]
pub(crate) struct Link {
    input: File,
    output: File,
    read: Vec<u8>,
    piece: Box<[u8]>,
    closed: bool,
    pending: Vec<u8>,
    sent: usize,
}

impl Link {
    /// Takes over this process's standard input and output.
    ///
    /// # Errors
    /// When one of them is not open.
    pub(crate) fn open() -> io::Result<Self> {
        let take = |fd: BorrowedFd<'_>| -> io::Result<File> {
            let own = dup(fd)?;
            fcntl(&own, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            fcntl(&own, FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
            Ok(own.into())
        };
        Ok(Self::new(
            take(io::stdin().as_fd())?,
            take(io::stdout().as_fd())?,
        ))
    }

    /// A conversation over two nonblocking descriptors.
    pub(crate) fn new(input: File, output: File) -> Self {
        Self {
            input,
            output,
            read: Vec::new(),
            piece: vec![0; PIECE].into_boxed_slice(),
            closed: false,
            pending: Vec::new(),
            sent: 0,
        }
    }

    /// Readable when [`Link::fill`] has something to do; `None` while the buffer is full or the worker is gone.
    pub(crate) fn readable(&self) -> Option<BorrowedFd<'_>> {
        (!self.closed && self.read.len() < 4 + MAX_FRAME).then(|| self.input.as_fd())
    }

    /// Writable when [`Link::flush`] can go on; `None` when nothing waits.
    pub(crate) fn writable(&self) -> Option<BorrowedFd<'_>> {
        (!self.pending.is_empty()).then(|| self.output.as_fd())
    }

    /// Whether the worker has closed its side.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Whether so much waits for the worker that no more should be produced.
    pub(crate) fn congested(&self) -> bool {
        self.pending.len() - self.sent > MAX_PENDING
    }

    /// Reads what is there, up to one piece.
    ///
    /// # Errors
    /// When the stream fails.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        let room = (4 + MAX_FRAME).saturating_sub(self.read.len()).min(PIECE);
        let piece = self.piece.get_mut(..room).unwrap_or_default();
        let got = retry(|| self.input.read(piece))?;
        let count = got.unwrap_or(0);
        self.read
            .extend_from_slice(piece.get(..count).unwrap_or_default());
        self.closed |= got == Some(0) && room > 0;
        Ok(())
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    /// When the worker sent something that is no frame.
    pub(crate) fn next(&mut self) -> Result<Option<ToRunner>, FrameError> {
        let frame = protocol::take(&mut self.read)?;
        if self.read.is_empty() {
            // A large job's buffer is not kept while it runs.
            self.read = Vec::new();
        }
        Ok(frame)
    }

    /// Queues a frame and sends what can be sent.
    ///
    /// # Errors
    /// When the stream fails.
    pub(crate) fn send(&mut self, frame: &FromRunner) -> io::Result<()> {
        self.pending.extend_from_slice(&protocol::encode(frame));
        self.flush()
    }

    /// Sends what can be sent without waiting.
    ///
    /// # Errors
    /// When the stream fails.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self
            .pending
            .get(self.sent..)
            .filter(|rest| !rest.is_empty())
        {
            match retry(|| self.output.write(rest))? {
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(count) => self.sent += count,
                None => return Ok(()),
            }
        }
        self.pending.clear();
        self.pending.shrink_to(MAX_PENDING);
        self.sent = 0;
        Ok(())
    }
}

/// Calls again when interrupted; `None` when it would have to wait.
pub(crate) fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    loop {
        match call() {
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::pipe2;

    fn nonblocking_pipe() -> (File, File) {
        let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        (read.into(), write.into())
    }

    #[test]
    fn a_worker_that_does_not_read_blocks_nothing() {
        let (input, mut worker_out) = nonblocking_pipe();
        let (mut worker_in, output) = nonblocking_pipe();
        let mut link = Link::new(input, output);
        let frame = FromRunner::Fault {
            message: "x".repeat(300 << 10),
        };
        for _ in 0..5 {
            link.send(&frame).unwrap();
        }
        assert!(link.congested());
        assert!(link.writable().is_some());

        let mut received = Vec::new();
        let mut frames = 0;
        while frames < 5 {
            let mut piece = [0; 64 << 10];
            let count = worker_in.read(&mut piece).unwrap();
            received.extend_from_slice(&piece[..count]);
            link.flush().unwrap();
            while let Some(got) = protocol::take::<FromRunner>(&mut received).unwrap() {
                assert_eq!(got, frame);
                frames += 1;
            }
        }
        assert!(!link.congested());
        assert!(link.writable().is_none());

        worker_out
            .write_all(&protocol::encode(&ToRunner::Cancel))
            .unwrap();
        link.fill().unwrap();
        assert_eq!(link.next().unwrap(), Some(ToRunner::Cancel));
        link.fill().unwrap();
        assert!(!link.closed());
        drop(worker_out);
        link.fill().unwrap();
        assert!(link.closed());
        assert!(link.readable().is_none());
    }
}
