//! The harness's socket: the runner sends a request over it and receives displays and an answer. It
//! trusts none of the received bytes.
//!
//! Any process in the cell may write to the socket. So the length of an answer is bounded, and an
//! answer that cannot be decoded counts as empty. [`super::harness_decoder`] decodes the messages.
//! After the request the socket stays open in both directions. It ends when the last process of the
//! cell that has it is dead.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags};

use sandhog_protocol::frames::{
    CallId, DisplayCaps, FromRunner, HarnessAnswer, HarnessMessageKind, MAX_CHUNK,
};

use super::channel::{Channel, PollState, Turn};
use super::harness_decoder::HarnessDecoder;
use crate::connection::{Connection, retry};

/// The exchange of a request, displays and an answer with one harness.
#[derive(Debug)]
pub(crate) struct HarnessChannel {
    call: CallId,
    socket: Option<UnixStream>,
    /// The message with the request. Empty once all of it is sent.
    message: Vec<u8>,
    sent: usize,
    decoder: HarnessDecoder,
}

impl HarnessChannel {
    /// Prepares to send `request` as one message over a nonblocking socket, with these caps on
    /// displays. Without a socket nothing is sent and there is no answer.
    pub(crate) fn new(
        call: CallId,
        socket: Option<UnixStream>,
        mut request: Vec<u8>,
        allowed: DisplayCaps,
    ) -> Self {
        let header = HarnessMessageKind::Request.header(request.len());
        drop(request.splice(..0, header));
        Self {
            call,
            socket,
            message: request,
            sent: 0,
            decoder: HarnessDecoder::new(allowed),
        }
    }

    /// Returns whether the harness has closed the socket, or there is none.
    pub(crate) fn ended(&self) -> bool {
        self.socket.is_none()
    }

    /// Returns whether a part of the request has not been sent yet.
    fn is_sending(&self) -> bool {
        self.sent < self.message.len()
    }

    /// Sends as much of the request as the socket takes.
    pub(crate) fn push(&mut self) {
        let Some(socket) = &mut self.socket else {
            return;
        };
        let rest = self.message.get(self.sent..).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
        match retry(|| socket.write(rest)) {
            Ok(Some(count)) => self.sent += count,
            Ok(None) => {}
            // The harness is gone, so the rest of the request is dropped. Its answer may still be
            // in the socket.
            Err(_) => self.sent = self.message.len(),
        }
        if self.sent >= self.message.len() {
            self.message = Vec::new();
            self.sent = 0;
        }
    }

    /// Reads one piece from the harness. Returns whether there was a piece.
    fn pull(&mut self, buffer: &mut [u8; MAX_CHUNK]) -> bool {
        let Some(socket) = &mut self.socket else {
            return false;
        };
        match retry(|| socket.read(buffer)) {
            Ok(Some(count)) if count > 0 => {
                self.decoder.feed(buffer.get(..count).unwrap_or_default());
                true
            }
            Ok(None) => false,
            Ok(Some(_)) | Err(_) => {
                self.socket = None;
                false
            }
        }
    }

    /// Returns the answer of the harness and the number of its dropped displays. The answer is
    /// empty if the harness sent none, or one that cannot be decoded.
    pub(crate) fn into_answer(self) -> (HarnessAnswer, u64) {
        let (received, dropped) = self.decoder.end();
        let mut answer: HarnessAnswer = serde_json::from_slice(&received).unwrap_or_default();
        answer.value_json = answer
            .value_json
            .filter(|text| serde_json::from_str::<serde_json::Value>(text).is_ok());
        (answer, dropped)
    }
}

impl Channel for HarnessChannel {
    fn interest(&self, state: PollState) -> Option<PollFd<'_>> {
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, state.is_reading && !state.congested);
        events.set(PollFlags::POLLOUT, self.is_sending());
        let socket = self.socket.as_ref().filter(|_| !events.is_empty());
        socket.map(|socket| PollFd::new(socket.as_fd(), events))
    }

    /// Sends a part of the request, reads one piece from the harness, and passes on the displays
    /// that are complete.
    fn transfer(
        &mut self,
        connection: &mut Connection,
        turn: Turn,
        buffer: &mut [u8; MAX_CHUNK],
    ) -> io::Result<bool> {
        if turn != Turn::Drain {
            self.push();
            if connection.congested() {
                return Ok(false);
            }
        }
        let has_read = self.pull(buffer);
        while let Some(parts) = self.decoder.next() {
            let id = self.call;
            connection.send_soon(&FromRunner::Display { id, parts })?;
        }
        Ok(has_read)
    }
}

#[cfg(test)]
mod tests {
    use sandhog_protocol::frames::{HARNESS_HEADER_LEN, MAX_HARNESS_ANSWER};

    use super::*;

    fn answer_message(body: &[u8]) -> Vec<u8> {
        let header = HarnessMessageKind::Answer.header(body.len());
        [header.as_slice(), body].concat()
    }

    /// Returns the answer that the channel finds in these bytes of a harness.
    fn answer_in(bytes: &[u8]) -> HarnessAnswer {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut channel =
            HarnessChannel::new(CallId(1), Some(ours), Vec::new(), DisplayCaps::default());
        let mut buffer = [0; MAX_CHUNK];
        for piece in bytes.chunks(MAX_CHUNK) {
            theirs.write_all(piece).unwrap();
            while channel.pull(&mut buffer) {}
        }
        drop(theirs);
        while channel.pull(&mut buffer) {}
        assert!(channel.ended());
        channel.into_answer().0
    }

    #[test]
    fn only_a_whole_and_bounded_answer_counts() {
        let none = HarnessAnswer::default();
        let seven = HarnessAnswer {
            value_json: Some("7".to_owned()),
            dropped: None,
            exception: None,
            completed: false,
        };
        let good = answer_message(br#"{"value_json":"7","more":1}"#);
        assert_eq!(answer_in(&good), seven);
        let huge = format!(
            r#"{{"value_json":"\"{}\""}}"#,
            "x".repeat(MAX_HARNESS_ANSWER)
        );
        let deep = format!(r#"{{"value_json":"{}"}}"#, "[".repeat(100_000));
        let cases: [(&str, &[u8]); 7] = [
            ("nothing", b""),
            ("not JSON", b"\xff\x00"),
            ("cut short", br#"{"value_json":"7""#),
            ("two objects", br#"{"value_json":"7"}{"value_json":"8"}"#),
            ("a value that is no JSON", br#"{"value_json":"NaN"}"#),
            ("too long", huge.as_bytes()),
            ("too deep", deep.as_bytes()),
        ];
        for (name, body) in cases {
            assert_eq!(answer_in(&answer_message(body)), none, "{name}");
        }
        assert_eq!(answer_in(b""), none, "no message");
        assert_eq!(answer_in(&good[..good.len() - 1]), none, "a cut message");
        assert_eq!(answer_in(br#"{"value_json":"7"}"#), none, "no header");
    }

    #[test]
    fn the_first_answer_counts() {
        let first = answer_message(br#"{"value_json":"7"}"#);
        let second = answer_message(br#"{"value_json":"8"}"#);
        let answer = answer_in(&[first, second].concat());
        assert_eq!(answer.value_json.as_deref(), Some("7"));
    }

    #[test]
    fn a_large_request_arrives_whole_and_the_socket_stays_open() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let request = "é".repeat(1 << 20).into_bytes();
        let mut channel = HarnessChannel::new(
            CallId(1),
            Some(ours),
            request.clone(),
            DisplayCaps::default(),
        );
        let mut got = Vec::new();
        let mut piece = [0; MAX_CHUNK];
        while channel.is_sending() || got.len() < HARNESS_HEADER_LEN + request.len() {
            channel.push();
            if let Some(count) = retry(|| theirs.read(&mut piece)).unwrap() {
                assert!(count > 0, "the socket has ended");
                got.extend_from_slice(&piece[..count]);
            }
        }
        let (header, body) = got.split_first_chunk().unwrap();
        let (kind, length) = HarnessMessageKind::split_header(*header);
        assert_eq!(kind, Some(HarnessMessageKind::Request));
        assert_eq!(usize::try_from(length).unwrap(), request.len());
        assert!(body == request);
        let after = retry(|| theirs.read(&mut piece)).unwrap();
        assert_eq!(after, None, "nothing follows, and the socket is open");
    }
}
