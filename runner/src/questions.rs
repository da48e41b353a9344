//! A program's inference requests. The runner cuts the program's bytes into frames and passes these
//! on without decoding them. It never lets more requests be open than the run allows.
//!
//! Every byte on the socket is hostile. A frame is a big-endian `u32` length, followed by that many
//! bytes. The runner closes the socket at a frame that claims more than [`MAX_QUESTION`]. An
//! incomplete frame is kept until the program ends. Until the program reads its responses, the
//! runner reads no further requests, so that the cap on open requests bounds the memory that the
//! runner needs.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use sandhog_runner::protocol::{FromRunner, MAX_CHUNK, MAX_QUESTION, Questions};

use crate::link::{Link, retry};

/// The runner's side of a program's inference requests.
#[derive(Debug)]
pub(crate) struct Desk {
    socket: Option<UnixStream>,
    /// True while more may be read. False after the program's end of file, a frame that is too
    /// long, or the program's last allowed request.
    listening: bool,
    heard: Vec<u8>,
    /// Responses that are not completely written. The first `written` bytes of the first one are.
    answers: VecDeque<Vec<u8>>,
    written: usize,
    /// The number of requests that were passed on and whose responses the program has not read yet.
    open: u32,
    at_once: u32,
    left: u64,
}

impl Desk {
    /// Creates the channel over a nonblocking socket. Without a socket there are no requests.
    pub(crate) fn new(socket: Option<UnixStream>, allowed: Questions) -> Self {
        Self {
            listening: socket.is_some(),
            socket,
            heard: Vec::new(),
            answers: VecDeque::new(),
            written: 0,
            open: 0,
            at_once: allowed.at_once,
            left: allowed.most,
        }
    }

    /// Creates an inactive channel, for a program that may send no requests.
    pub(crate) fn none() -> Self {
        let nothing = Questions {
            at_once: 0,
            most: 0,
        };
        Self::new(None, nothing)
    }

    /// Queues a response for the program. It is dropped if no request is waiting for it, or if the
    /// socket is closed.
    pub(crate) fn answer(&mut self, data: &[u8]) {
        let answers = u32::try_from(self.answers.len()).unwrap_or(u32::MAX);
        let Ok(length) = u32::try_from(data.len()) else {
            return;
        };
        if self.socket.is_none() || answers >= self.open {
            return;
        }
        let mut frame = Vec::with_capacity(4 + data.len());
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(data);
        self.answers.push_back(frame);
    }

    /// Returns the socket, which is readable when the program sends a request. `None` while no
    /// further request may be read.
    pub(crate) fn readable(&self, congested: bool) -> Option<BorrowedFd<'_>> {
        let wanted = self.listening && !congested && self.open < self.at_once;
        self.socket.as_ref().filter(|_| wanted).map(AsFd::as_fd)
    }

    /// Returns the socket, which is writable when the program reads more of a response. `None` when
    /// no response is queued.
    pub(crate) fn writable(&self) -> Option<BorrowedFd<'_>> {
        let waiting = !self.answers.is_empty();
        self.socket.as_ref().filter(|_| waiting).map(AsFd::as_fd)
    }

    /// Passes on bytes in both directions, without blocking.
    ///
    /// # Errors
    /// When the stream to the worker fails.
    pub(crate) fn pass(&mut self, link: &mut Link, buffer: &mut [u8; MAX_CHUNK]) -> io::Result<()> {
        if self.socket.is_none() {
            return Ok(());
        }
        self.write();
        self.pass_on(link)?;
        if self.readable(link.congested()).is_some() {
            self.read(buffer);
            self.pass_on(link)?;
        }
        Ok(())
    }

    fn write(&mut self) {
        while let (Some(socket), Some(answer)) = (&mut self.socket, self.answers.front()) {
            let rest = answer.get(self.written..).unwrap_or_default();
            match retry(|| socket.write(rest)) {
                Ok(Some(count)) if count < rest.len() && count > 0 => self.written += count,
                Ok(Some(count)) if count == rest.len() => {
                    self.answers.pop_front();
                    self.written = 0;
                    self.open = self.open.saturating_sub(1);
                    if self.left == 0 && self.open == 0 {
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
                self.heard.extend_from_slice(piece);
            }
            Ok(None) => {}
            // A program that sends no more requests may still wait for responses.
            Ok(Some(_)) | Err(_) => self.listening = false,
        }
    }

    /// Passes on complete requests, up to the cap on open ones.
    fn pass_on(&mut self, link: &mut Link) -> io::Result<()> {
        while self.open < self.at_once && self.left > 0 {
            let Some((head, _)) = self.heard.split_first_chunk::<4>() else {
                return Ok(());
            };
            let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
            if length > MAX_QUESTION {
                self.close();
                return Ok(());
            }
            let Some(data) = self.heard.get(4..4 + length) else {
                return Ok(());
            };
            let data = data.to_vec();
            self.heard.drain(..4 + length);
            self.open += 1;
            self.left -= 1;
            link.send(&FromRunner::Ask { data })?;
        }
        if self.left == 0 {
            self.listening = false;
            self.heard = Vec::new();
        }
        Ok(())
    }

    /// Closes the socket. The program then reads the end of the stream.
    fn close(&mut self) {
        self.socket = None;
        self.listening = false;
        self.heard = Vec::new();
        self.answers = VecDeque::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandhog_runner::protocol;
    use std::fs::File;
    use std::os::fd::OwnedFd;

    /// Creates a program's end of the socket, the channel, a connection to a worker, and the
    /// worker's end of that connection.
    fn ground(at_once: u32, most: u64) -> (UnixStream, Desk, Link, UnixStream) {
        let pair = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            theirs.set_nonblocking(true).unwrap();
            (ours, theirs)
        };
        let (ours, program) = pair();
        let (output, worker) = pair();
        let file = |socket: UnixStream| File::from(OwnedFd::from(socket));
        let link = Link::new(file(output.try_clone().unwrap()), file(output));
        let desk = Desk::new(Some(ours), Questions { at_once, most });
        (program, desk, link, worker)
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
        while let Some(frame) = protocol::take::<FromRunner>(&mut bytes).unwrap() {
            match frame {
                FromRunner::Ask { data } => asked.push(data),
                other => panic!("{other:?}"),
            }
        }
        asked
    }

    #[test]
    fn no_more_questions_are_open_than_may_be() {
        let (mut program, mut desk, mut link, mut worker) = ground(2, 4);
        let flood: Vec<u8> = (b'a'..=b'z').flat_map(|byte| frame(&[byte])).collect();
        program.write_all(&flood).unwrap();
        let mut buffer = [0; MAX_CHUNK];
        for _ in 0..3 {
            desk.pass(&mut link, &mut buffer).unwrap();
        }
        assert_eq!(arrived(&mut worker), [b"a", b"b"]);
        assert!(desk.readable(false).is_none(), "no room for a third");

        desk.answer(b"one");
        desk.answer(b"two");
        desk.answer(b"nobody asked a third time");
        desk.pass(&mut link, &mut buffer).unwrap();
        assert_eq!(arrived(&mut worker), [b"c", b"d"]);
        let mut taken = [0; 64];
        let count = program.read(&mut taken).unwrap();
        assert_eq!(taken[..count], [frame(b"one"), frame(b"two")].concat());

        desk.answer(b"three");
        desk.pass(&mut link, &mut buffer).unwrap();
        assert_eq!(arrived(&mut worker).len(), 0, "the cap is reached");
        assert!(desk.readable(false).is_none());
        desk.answer(b"four");
        desk.pass(&mut link, &mut buffer).unwrap();
        let mut rest = Vec::new();
        program.set_nonblocking(false).unwrap();
        program.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, [frame(b"three"), frame(b"four")].concat());
    }

    #[test]
    fn answers_that_are_not_taken_keep_questions_unread() {
        let (mut program, mut desk, mut link, mut worker) = ground(1, 100);
        let mut buffer = [0; MAX_CHUNK];
        program
            .write_all(&[frame(b"a"), frame(b"b")].concat())
            .unwrap();
        desk.pass(&mut link, &mut buffer).unwrap();
        let long = vec![b'x'; 1 << 20];
        desk.answer(&long);
        desk.pass(&mut link, &mut buffer).unwrap();
        assert_eq!(arrived(&mut worker), [b"a"]);
        assert!(desk.writable().is_some(), "the answer is not taken");
        let mut taken = Vec::new();
        while desk.writable().is_some() {
            let mut piece = [0; MAX_CHUNK];
            while let Some(count) = retry(|| program.read(&mut piece)).unwrap() {
                taken.extend_from_slice(&piece[..count]);
            }
            desk.pass(&mut link, &mut buffer).unwrap();
        }
        assert_eq!(arrived(&mut worker), [b"b"]);
        assert!(taken.len() > long.len() / 2);
    }

    #[test]
    fn a_frame_that_claims_too_much_ends_the_conversation_and_half_of_one_waits() {
        let (mut program, mut desk, mut link, mut worker) = ground(8, 100);
        let mut buffer = [0; MAX_CHUNK];
        program.write_all(&[0, 0, 0, 9, b'h']).unwrap();
        desk.pass(&mut link, &mut buffer).unwrap();
        assert!(desk.readable(false).is_some());
        assert_eq!(arrived(&mut worker).len(), 0);

        program.write_all(&[b'x'; 8]).unwrap();
        program.write_all(&u32::MAX.to_be_bytes()).unwrap();
        desk.pass(&mut link, &mut buffer).unwrap();
        assert_eq!(arrived(&mut worker), [b"hxxxxxxxx"]);
        assert!(desk.readable(false).is_none());
        assert_eq!(program.read(&mut [0; 8]).unwrap(), 0, "socket is open");
    }

    #[test]
    fn who_asks_no_more_still_gets_the_answers() {
        let (mut program, mut desk, mut link, mut worker) = ground(8, 100);
        let mut buffer = [0; MAX_CHUNK];
        program.write_all(&frame(b"last")).unwrap();
        program.shutdown(std::net::Shutdown::Write).unwrap();
        for _ in 0..2 {
            desk.pass(&mut link, &mut buffer).unwrap();
        }
        assert_eq!(arrived(&mut worker), [b"last"]);
        assert!(desk.readable(false).is_none(), "the end is not read again");
        desk.answer(b"yes");
        desk.pass(&mut link, &mut buffer).unwrap();
        let mut taken = [0; 16];
        let count = program.read(&mut taken).unwrap();
        assert_eq!(taken[..count], frame(b"yes"));
    }
}
