//! A program's inference requests. The runner cuts the program's bytes into frames and passes these
//! on without decoding them. It never lets more requests be open than the call allows.
//!
//! Every byte on the socket is hostile. A frame is a big-endian `u32` length, followed by that many
//! bytes. The runner closes the socket at a frame that claims more than [`MAX_INFER_REQUEST`]. An
//! incomplete frame is kept until the program ends. Until the program reads its responses, the
//! runner reads no further requests, so that the cap on open requests bounds the memory that the
//! runner needs.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags};

use sandhog_protocol::frames::{CallId, FromRunner, InferQuota, MAX_CHUNK, MAX_INFER_REQUEST};
use sandhog_protocol::framing::{PREFIX_LEN, split_body};

use super::channel::{Channel, PollState, Turn};
use crate::connection::{Connection, retry};

/// The runner's side of a program's inference requests.
#[derive(Debug)]
pub(crate) struct InferChannel {
    call: CallId,
    socket: Option<UnixStream>,
    /// True while more may be read. False after the program's end of file, a frame that is too
    /// long, or the program's last allowed request.
    is_reading: bool,
    read_buffer: Vec<u8>,
    /// Responses that are not completely written. The first `written` bytes of the first one are.
    responses: VecDeque<Vec<u8>>,
    written: usize,
    /// The number of requests that were passed on and whose responses the program has not read yet.
    open: u32,
    max_open: u32,
    remaining: u64,
}

impl InferChannel {
    /// Creates the channel of a call over a nonblocking socket. Without a socket there are no
    /// requests.
    pub(crate) fn new(call: CallId, socket: Option<UnixStream>, allowed: InferQuota) -> Self {
        Self {
            call,
            is_reading: socket.is_some(),
            socket,
            read_buffer: Vec::new(),
            responses: VecDeque::new(),
            written: 0,
            open: 0,
            max_open: allowed.max_open,
            remaining: allowed.max_total,
        }
    }

    /// Creates an inactive channel, for a program that may send no requests.
    pub(crate) fn none(call: CallId) -> Self {
        let nothing = InferQuota {
            max_open: 0,
            max_total: 0,
        };
        Self::new(call, None, nothing)
    }

    /// Queues a response for the program. It is dropped if no request is waiting for it, or if the
    /// socket is closed.
    pub(crate) fn respond(&mut self, data: &[u8]) {
        let responses = u32::try_from(self.responses.len()).unwrap_or(u32::MAX);
        let Ok(length) = u32::try_from(data.len()) else {
            return;
        };
        if self.socket.is_none() || responses >= self.open {
            return;
        }
        let mut frame = Vec::with_capacity(4 + data.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(data);
        self.responses.push_back(frame);
    }

    /// Returns the socket, which is readable when the program sends a request. `None` while no
    /// further request may be read.
    fn readable(&self, congested: bool) -> Option<BorrowedFd<'_>> {
        let wanted = self.is_reading && !congested && self.open < self.max_open;
        self.socket.as_ref().filter(|_| wanted).map(AsFd::as_fd)
    }

    /// Returns the socket, which is writable when the program reads more of a response. `None` when
    /// no response is queued.
    fn writable(&self) -> Option<BorrowedFd<'_>> {
        let waiting = !self.responses.is_empty();
        self.socket.as_ref().filter(|_| waiting).map(AsFd::as_fd)
    }

    /// Passes on bytes in both directions, without blocking.
    ///
    /// # Errors
    /// Fails if the stream to the worker fails.
    fn pass(
        &mut self,
        connection: &mut Connection,
        buffer: &mut [u8; MAX_CHUNK],
    ) -> io::Result<()> {
        if self.socket.is_none() {
            return Ok(());
        }
        self.write();
        self.pass_on(connection)?;
        if self.readable(connection.congested()).is_some() {
            self.read(buffer);
            self.pass_on(connection)?;
        }
        Ok(())
    }

    fn write(&mut self) {
        while let (Some(socket), Some(answer)) = (&mut self.socket, self.responses.front()) {
            let rest = answer.get(self.written..).unwrap_or_default();
            match retry(|| socket.write(rest)) {
                Ok(Some(count)) if count < rest.len() && count > 0 => self.written += count,
                Ok(Some(count)) if count == rest.len() => {
                    self.responses.pop_front();
                    self.written = 0;
                    self.open = self.open.saturating_sub(1);
                    if self.remaining == 0 && self.open == 0 {
                        // Otherwise the program could send another request and wait for ever.
                        return self.close();
                    }
                }
                Ok(None) => return,
                // The program has closed its end.
                Ok(Some(_)) | Err(_) => return self.close(),
            }
        }
    }

    fn read(&mut self, buffer: &mut [u8; MAX_CHUNK]) {
        let Some(socket) = &mut self.socket else {
            return;
        };
        match retry(|| socket.read(buffer)) {
            Ok(Some(count)) if count > 0 => {
                let piece = buffer.get(..count).unwrap_or_default();
                self.read_buffer.extend_from_slice(piece);
            }
            Ok(None) => {}
            // A program that sends no more requests may still wait for responses.
            Ok(Some(_)) | Err(_) => self.is_reading = false,
        }
    }

    /// Passes on complete requests, up to the cap on open ones.
    fn pass_on(&mut self, connection: &mut Connection) -> io::Result<()> {
        while self.open < self.max_open && self.remaining > 0 {
            let data = match split_body(&self.read_buffer, MAX_INFER_REQUEST) {
                Ok(Some(body)) => body.to_vec(),
                Ok(None) => return Ok(()),
                Err(_too_long) => {
                    self.close();
                    return Ok(());
                }
            };
            self.read_buffer.drain(..PREFIX_LEN + data.len());
            self.open += 1;
            self.remaining -= 1;
            let id = self.call;
            connection.send(&FromRunner::InferRequest { id, data })?;
        }
        if self.remaining == 0 {
            self.is_reading = false;
            self.read_buffer = Vec::new();
        }
        Ok(())
    }

    /// Closes the socket. The program then reads the end of the stream.
    fn close(&mut self) {
        self.socket = None;
        self.is_reading = false;
        self.read_buffer = Vec::new();
        self.responses = VecDeque::new();
    }
}

impl Channel for InferChannel {
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
        self.pass(connection, buffer)?;
        // No request is read after the program's end, so nothing depends on the result.
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandhog_protocol::frames;
    use std::fs::File;
    use std::os::fd::OwnedFd;

    /// Creates a program's end of the socket, the channel, a connection to a worker, and the
    /// worker's end of that connection.
    fn fixture(
        max_open: u32,
        max_total: u64,
    ) -> (UnixStream, InferChannel, Connection, UnixStream) {
        let pair = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            theirs.set_nonblocking(true).unwrap();
            (ours, theirs)
        };
        let (ours, program) = pair();
        let (output, worker) = pair();
        let file = |socket: UnixStream| File::from(OwnedFd::from(socket));
        let connection = Connection::new(file(output.try_clone().unwrap()), file(output));
        let channel = InferChannel::new(
            CallId(1),
            Some(ours),
            InferQuota {
                max_open,
                max_total,
            },
        );
        (program, channel, connection, worker)
    }

    fn frame(data: &[u8]) -> Vec<u8> {
        let length = u32::try_from(data.len()).unwrap();
        [&length.to_be_bytes(), data].concat()
    }

    fn arrived(worker: &mut UnixStream) -> Vec<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut piece = [0; MAX_CHUNK];
        while let Ok(Some(count)) = retry(|| worker.read(&mut piece)) {
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&piece[..count]);
        }
        let mut asked = Vec::new();
        while let Some(frame) = frames::take::<FromRunner>(&mut bytes).unwrap() {
            match frame {
                FromRunner::InferRequest {
                    id: CallId(1),
                    data,
                } => asked.push(data),
                other => panic!("{other:?}"),
            }
        }
        asked
    }

    #[test]
    fn no_more_questions_are_open_than_may_be() {
        let (mut program, mut channel, mut connection, mut worker) = fixture(2, 4);
        let flood: Vec<u8> = (b'a'..=b'z').flat_map(|byte| frame(&[byte])).collect();
        program.write_all(&flood).unwrap();
        let mut buffer = [0; MAX_CHUNK];
        for _ in 0..3 {
            channel.pass(&mut connection, &mut buffer).unwrap();
        }
        assert_eq!(arrived(&mut worker), [b"a", b"b"]);
        assert!(channel.readable(false).is_none(), "no room for a third");

        channel.respond(b"one");
        channel.respond(b"two");
        channel.respond(b"there was no third request");
        channel.pass(&mut connection, &mut buffer).unwrap();
        assert_eq!(arrived(&mut worker), [b"c", b"d"]);
        let mut taken = [0; 64];
        let count = program.read(&mut taken).unwrap();
        assert_eq!(taken[..count], [frame(b"one"), frame(b"two")].concat());

        channel.respond(b"three");
        channel.pass(&mut connection, &mut buffer).unwrap();
        assert_eq!(arrived(&mut worker).len(), 0, "the cap is reached");
        assert!(channel.readable(false).is_none());
        channel.respond(b"four");
        channel.pass(&mut connection, &mut buffer).unwrap();
        let mut rest = Vec::new();
        program.set_nonblocking(false).unwrap();
        program.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [frame(b"three"), frame(b"four")].concat());
    }

    #[test]
    fn answers_that_are_not_taken_keep_questions_unread() {
        let (mut program, mut channel, mut connection, mut worker) = fixture(1, 100);
        let mut buffer = [0; MAX_CHUNK];
        program
            .write_all(&[frame(b"a"), frame(b"b")].concat())
            .unwrap();
        channel.pass(&mut connection, &mut buffer).unwrap();
        let long = vec![b'x'; 1 << 20];
        channel.respond(&long);
        channel.pass(&mut connection, &mut buffer).unwrap();
        assert_eq!(arrived(&mut worker), [b"a"]);
        assert!(channel.writable().is_some(), "the answer is not taken");
        let mut taken = Vec::new();
        while channel.writable().is_some() {
            let mut piece = [0; MAX_CHUNK];
            while let Some(count) = retry(|| program.read(&mut piece)).unwrap() {
                taken.extend_from_slice(&piece[..count]);
            }
            channel.pass(&mut connection, &mut buffer).unwrap();
        }
        assert_eq!(arrived(&mut worker), [b"b"]);
        assert!(taken.len() > long.len() / 2);
    }

    #[test]
    fn a_frame_that_claims_too_much_ends_the_conversation_and_half_of_one_waits() {
        let (mut program, mut channel, mut connection, mut worker) = fixture(8, 100);
        let mut buffer = [0; MAX_CHUNK];
        program.write_all(&[0, 0, 0, 9, b'h']).unwrap();
        channel.pass(&mut connection, &mut buffer).unwrap();
        assert!(channel.readable(false).is_some());
        assert_eq!(arrived(&mut worker).len(), 0);

        program.write_all(&[b'x'; 8]).unwrap();
        program.write_all(&u32::MAX.to_be_bytes()).unwrap();
        channel.pass(&mut connection, &mut buffer).unwrap();
        assert_eq!(arrived(&mut worker), [b"hxxxxxxxx"]);
        assert!(channel.readable(false).is_none());
        assert_eq!(program.read(&mut [0; 8]).unwrap(), 0, "socket is open");
    }

    #[test]
    fn who_asks_no_more_still_gets_the_answers() {
        let (mut program, mut channel, mut connection, mut worker) = fixture(8, 100);
        let mut buffer = [0; MAX_CHUNK];
        program.write_all(&frame(b"last")).unwrap();
        program.shutdown(std::net::Shutdown::Write).unwrap();
        for _ in 0..2 {
            channel.pass(&mut connection, &mut buffer).unwrap();
        }
        assert_eq!(arrived(&mut worker), [b"last"]);
        assert!(
            channel.readable(false).is_none(),
            "the end is not read again"
        );
        channel.respond(b"yes");
        channel.pass(&mut connection, &mut buffer).unwrap();
        let mut taken = [0; 16];
        let count = program.read(&mut taken).unwrap();
        assert_eq!(taken[..count], frame(b"yes"));
    }
}
