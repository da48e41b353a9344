//! The connection to the worker. No call on it blocks.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::dup;

use sandhog_protocol::frames::{self, FramingError, FromRunner, MAX_FRAME, ToRunner};

/// The most bytes read from the worker at once.
const READ_BYTES: usize = 256 << 10;

/// The most bytes that may wait for a slow worker. Above this, the program's output is left in its
/// pipe.
const MAX_PENDING_BYTES: usize = 1 << 20;

/// Time for which a frame that is not urgent is held back, so that it is written together with
/// later frames. The container's shim and the engine copy each write, and each write wakes the
/// worker; together this costs them more than a short program costs the worker.
const BATCH_DELAY: Duration = Duration::from_millis(5);

/// The most bytes that are held back.
const MAX_BATCH_BYTES: usize = 64 << 10;

/// The runner's ends of the attached standard input and output.
#[derive(Debug)]
pub(crate) struct Connection {
    input: File,
    output: File,
    read: Vec<u8>,
    /// A frame that was decoded before it was needed.
    ahead: Option<ToRunner>,
    piece: Box<[u8]>,
    closed: bool,
    pending: Vec<u8>,
    sent: usize,
    /// See [`BATCH_DELAY`].
    batch_delay: Duration,
    batch_until: Option<Instant>,
}

impl Connection {
    /// Takes over this process's standard input and output.
    ///
    /// # Errors
    /// Fails if one of them is not open.
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

    /// Creates a connection over two nonblocking descriptors.
    pub(crate) fn new(input: File, output: File) -> Self {
        Self {
            input,
            output,
            read: Vec::new(),
            ahead: None,
            piece: vec![0; READ_BYTES].into_boxed_slice(),
            closed: false,
            pending: Vec::new(),
            sent: 0,
            batch_delay: BATCH_DELAY,
            batch_until: None,
        }
    }

    /// Returns the input, which is readable when [`Connection::fill`] has bytes to read. `None`
    /// while the buffer is full, and once the worker has closed its side.
    pub(crate) fn readable(&self) -> Option<BorrowedFd<'_>> {
        (!self.closed && self.read.len() < 4 + MAX_FRAME).then(|| self.input.as_fd())
    }

    /// Returns the output, which is writable when [`Connection::flush`] can write more. `None` when
    /// nothing is pending or all pending frames are held back.
    pub(crate) fn writable(&self) -> Option<BorrowedFd<'_>> {
        (!self.pending.is_empty() && self.batch_until.is_none()).then(|| self.output.as_fd())
    }

    /// Returns the time at which [`Connection::flush`] must be called for frames that are held
    /// back, if there are any.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.batch_until
    }

    /// Returns whether the worker has closed its side.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Returns whether more than [`MAX_PENDING_BYTES`] bytes wait for the worker. The caller should
    /// produce no more then.
    pub(crate) fn congested(&self) -> bool {
        self.pending.len() - self.sent > MAX_PENDING_BYTES
    }

    /// Reads the available bytes, up to one piece.
    ///
    /// # Errors
    /// Fails if the stream fails.
    pub(crate) fn fill(&mut self) -> io::Result<()> {
        let room = (4 + MAX_FRAME)
            .saturating_sub(self.read.len())
            .min(READ_BYTES);
        let piece = self.piece.get_mut(..room).unwrap_or_default();
        let got = retry(|| self.input.read(piece))?;
        let count = got.unwrap_or(0);
        self.read
            .extend_from_slice(piece.get(..count).unwrap_or_default());
        self.closed |= got == Some(0) && room > 0;
        Ok(())
    }

    /// Returns the next complete frame, if there is one.
    ///
    /// # Errors
    /// Fails if the worker sent bytes that are not a frame.
    pub(crate) fn next(&mut self) -> Result<Option<ToRunner>, FramingError> {
        match self.ahead.take() {
            Some(frame) => Ok(Some(frame)),
            None => self.decode(),
        }
    }

    /// Decodes the next frame, if it is complete, before [`Connection::next`] returns it. If it is
    /// the last one, this frees the buffer of the frames before it.
    ///
    /// # Errors
    /// Fails if the worker sent bytes that are not a frame.
    pub(crate) fn read_ahead(&mut self) -> Result<(), FramingError> {
        if self.ahead.is_none() {
            self.ahead = self.decode()?;
        }
        Ok(())
    }

    fn decode(&mut self) -> Result<Option<ToRunner>, FramingError> {
        let frame = frames::take(&mut self.read)?;
        if self.read.is_empty() {
            // Frees the buffer of a large job, which is not needed while the job runs.
            self.read = Vec::new();
        }
        Ok(frame)
    }

    /// Queues a frame and sends as much as the output takes.
    ///
    /// # Errors
    /// Fails if the stream fails.
    pub(crate) fn send(&mut self, frame: &FromRunner) -> io::Result<()> {
        self.send_all(std::slice::from_ref(frame))
    }

    /// Queues frames, to be written together, and sends as much as the output takes.
    ///
    /// # Errors
    /// Fails if the stream fails.
    pub(crate) fn send_all(&mut self, frames: &[FromRunner]) -> io::Result<()> {
        self.queue(frames);
        self.batch_until = None;
        self.flush()
    }

    /// Queues a frame that is not urgent. It may be held back for a few milliseconds, to be sent
    /// together with the next one. The caller must not block beyond [`Connection::due`].
    ///
    /// # Errors
    /// Fails if the stream fails.
    pub(crate) fn send_soon(&mut self, frame: &FromRunner) -> io::Result<()> {
        self.send_all_soon(std::slice::from_ref(frame))
    }

    /// Queues frames that are not urgent, to be written together, as [`Connection::send_soon`]
    /// does.
    ///
    /// # Errors
    /// Fails if the stream fails.
    pub(crate) fn send_all_soon(&mut self, frames: &[FromRunner]) -> io::Result<()> {
        if self.pending.is_empty() {
            self.batch_until = Some(Instant::now() + self.batch_delay);
        }
        self.queue(frames);
        self.flush()
    }

    fn queue(&mut self, frames: &[FromRunner]) {
        for frame in frames {
            frames::encode_into(&mut self.pending, frame);
        }
    }

    /// Sends as much as the output takes without blocking, unless all pending frames are still held
    /// back.
    ///
    /// # Errors
    /// Fails if the stream fails.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        let waits = self.batch_until.is_some_and(|until| Instant::now() < until);
        if waits && self.pending.len() < MAX_BATCH_BYTES {
            return Ok(());
        }
        self.batch_until = None;
        while let Some(rest) = self
            .pending
            .get(self.sent..)
            .filter(|rest| !rest.is_empty())
        {
            match retry(|| self.output.write(rest))? {
                Some(0) => return Err(io::ErrorKind::WriteZero.into()),
                Some(count) => self.sent += count,
                None => {
                    forget_sent(&mut self.pending, &mut self.sent);
                    return Ok(());
                }
            }
        }
        self.pending.clear();
        self.pending.shrink_to(MAX_PENDING_BYTES);
        self.sent = 0;
        Ok(())
    }
}

/// Removes the sent bytes of a buffer once they are more than half of it. Otherwise a buffer whose
/// reader is always a little behind would keep all bytes ever sent. The bytes that are moved are
/// fewer than those that were sent.
pub(crate) fn forget_sent(buffer: &mut Vec<u8>, sent: &mut usize) {
    if *sent > buffer.len() / 2 {
        buffer.drain(..*sent);
        *sent = 0;
    }
}

/// Repeats a call that is interrupted. Returns `None` when the call would block.
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
    use sandhog_protocol::frames::CallId;

    fn nonblocking_pipe() -> (File, File) {
        let (read, write) = pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).unwrap();
        (read.into(), write.into())
    }

    #[test]
    fn what_is_in_no_hurry_goes_with_what_is() {
        let (input, _worker_out) = nonblocking_pipe();
        let (mut worker_in, output) = nonblocking_pipe();
        let mut connection = Connection::new(input, output);
        connection.batch_delay = Duration::from_secs(3600);
        let started = FromRunner::Started { id: CallId(1) };
        let closed = FromRunner::CellClosed {
            clean: true,
            memory_bytes: None,
        };
        connection.send_soon(&started).unwrap();
        connection.send_soon(&started).unwrap();
        assert!(connection.due().is_some());
        assert!(connection.writable().is_none(), "frames are held back");
        let mut piece = [0; 4096];
        assert!(worker_in.read(&mut piece).is_err(), "nothing was written");

        connection
            .send_all(&[closed.clone(), closed.clone()])
            .unwrap();
        assert_eq!(connection.due(), None);
        let count = worker_in.read(&mut piece).unwrap();
        let mut received = piece[..count].to_vec();
        for expected in [started.clone(), started.clone(), closed.clone(), closed] {
            assert_eq!(frames::take(&mut received).unwrap(), Some(expected));
        }

        connection.send_soon(&started).unwrap();
        connection.batch_until = Some(Instant::now());
        connection.flush().unwrap();
        assert!(worker_in.read(&mut piece).is_ok(), "the hold is over");

        let large = FromRunner::Output {
            id: CallId(1),
            stream: sandhog_protocol::frames::Stream::Stdout,
            data: vec![0; MAX_BATCH_BYTES],
        };
        connection.send_soon(&large).unwrap();
        assert!(worker_in.read(&mut piece).is_ok(), "too large to be held");
    }

    #[test]
    fn a_frame_that_is_decoded_ahead_is_returned_in_its_turn() {
        let (input, mut worker_out) = nonblocking_pipe();
        let (_worker_in, output) = nonblocking_pipe();
        let mut connection = Connection::new(input, output);
        let cancel = |id| ToRunner::Cancel { id: CallId(id) };
        let mut bytes = Vec::new();
        for id in 1..=3 {
            frames::encode_into(&mut bytes, &cancel(id));
        }
        let (most, last_byte) = bytes.split_at(bytes.len() - 1);
        worker_out.write_all(most).unwrap();
        connection.fill().unwrap();
        assert_eq!(connection.next().unwrap(), Some(cancel(1)));
        connection.read_ahead().unwrap();
        connection.read_ahead().unwrap();
        assert_eq!(connection.next().unwrap(), Some(cancel(2)));
        connection.read_ahead().unwrap();
        assert_eq!(connection.next().unwrap(), None, "it is not complete");
        worker_out.write_all(last_byte).unwrap();
        connection.fill().unwrap();
        connection.read_ahead().unwrap();
        assert_eq!(connection.read.capacity(), 0, "the buffer is freed");
        assert_eq!(connection.next().unwrap(), Some(cancel(3)));
        assert_eq!(connection.next().unwrap(), None);
    }

    #[test]
    fn a_worker_that_is_always_behind_has_nothing_kept_that_it_read() {
        let (input, _worker_out) = nonblocking_pipe();
        let (mut worker_in, output) = nonblocking_pipe();
        let mut connection = Connection::new(input, output);
        let frame = FromRunner::Fault {
            message: "x".repeat(100 << 10),
            machine: false,
        };
        let mut piece = vec![0; 100 << 10];
        connection.send(&frame).unwrap();
        for _ in 0..500 {
            connection.send(&frame).unwrap();
            assert!(
                connection.writable().is_some(),
                "some bytes are always left"
            );
            while connection.pending.len() - connection.sent > frame_size(&frame) {
                let count = worker_in.read(&mut piece).unwrap();
                assert!(count > 0);
                connection.flush().unwrap();
            }
            assert!(
                connection.pending.len() <= 4 * frame_size(&frame),
                "it grows"
            );
        }
    }

    fn frame_size(frame: &FromRunner) -> usize {
        frames::encode(frame).len()
    }

    #[test]
    fn a_worker_that_does_not_read_blocks_nothing() {
        let (input, mut worker_out) = nonblocking_pipe();
        let (mut worker_in, output) = nonblocking_pipe();
        let mut connection = Connection::new(input, output);
        let frame = FromRunner::Fault {
            message: "x".repeat(300 << 10),
            machine: false,
        };
        for _ in 0..5 {
            connection.send(&frame).unwrap();
        }
        assert!(connection.congested());
        assert!(connection.writable().is_some());

        let mut received = Vec::new();
        let mut frames = 0;
        while frames < 5 {
            let mut piece = [0; 64 << 10];
            let count = worker_in.read(&mut piece).unwrap();
            received.extend_from_slice(&piece[..count]);
            connection.flush().unwrap();
            while let Some(got) = frames::take::<FromRunner>(&mut received).unwrap() {
                assert_eq!(got, frame);
                frames += 1;
            }
        }
        assert!(!connection.congested());
        assert!(connection.writable().is_none());

        let cancel = ToRunner::Cancel { id: CallId(1) };
        worker_out.write_all(&frames::encode(&cancel)).unwrap();
        connection.fill().unwrap();
        assert_eq!(connection.next().unwrap(), Some(cancel));
        connection.fill().unwrap();
        assert!(!connection.closed());
        drop(worker_out);
        connection.fill().unwrap();
        assert!(connection.closed());
        assert!(connection.readable().is_none());
    }
}
