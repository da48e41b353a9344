//! The harness's socket: the runner sends a request over it and receives displays and an answer. It
//! trusts none of the received bytes.
//!
//! Any process in the cell may write to the socket. So the length of an answer is bounded, and an
//! answer that cannot be decoded counts as empty. [`super::harness_decoder`] decodes the displays.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use nix::poll::{PollFd, PollFlags};

use sandhog_protocol::frames::{DisplayCaps, FromRunner, HarnessAnswer, MAX_CHUNK};

use super::channel::{Channel, PollState, Turn};
use super::harness_decoder::HarnessDecoder;
use crate::connection::{Connection, retry};

/// The exchange of a request, displays and an answer with one harness.
#[derive(Debug)]
pub(crate) struct HarnessChannel {
    socket: Option<UnixStream>,
    request: Vec<u8>,
    sent: usize,
    decoder: HarnessDecoder,
}

impl HarnessChannel {
    /// Prepares to send `request` over a nonblocking socket, with these caps on displays. Without a
    /// socket nothing is sent and there is no answer.
    pub(crate) fn new(socket: Option<UnixStream>, request: Vec<u8>, allowed: DisplayCaps) -> Self {
        Self {
            socket,
            request,
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
        self.sent < self.request.len()
    }

    /// Sends as much of the request as the socket takes. After the last byte it shuts the socket
    /// down for writing.
    pub(crate) fn push(&mut self) {
        let Some(socket) = &mut self.socket else {
            return;
        };
        let rest = self.request.get(self.sent..).unwrap_or_default();
        if rest.is_empty() {
            return;
        }
        match retry(|| socket.write(rest)) {
            Ok(Some(count)) => self.sent += count,
            Ok(None) => {}
            // The harness is gone, so the rest of the request is dropped. Its answer may still be
            // in the socket.
            Err(_) => self.sent = self.request.len(),
        }
        if self.sent >= self.request.len() {
            self.request = Vec::new();
            self.sent = 0;
            drop(socket.shutdown(Shutdown::Write));
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
            connection.send_soon(&FromRunner::Display { parts })?;
        }
        Ok(has_read)
    }
}

#[cfg(test)]
mod tests {
    use sandhog_protocol::frames::MAX_HARNESS_ANSWER;

    use super::*;

    fn answer_to(bytes: &[u8]) -> HarnessAnswer {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut channel = HarnessChannel::new(Some(ours), Vec::new(), DisplayCaps::default());
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
        assert_eq!(answer_to(br#"{"value_json":"7","more":1}"#), seven);
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
        for (name, bytes) in cases {
            assert_eq!(answer_to(bytes), none, "{name}");
        }
    }

    #[test]
    fn a_large_request_arrives_whole_and_ends() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_nonblocking(true).unwrap();
        let request = "é".repeat(1 << 20).into_bytes();
        let mut channel = HarnessChannel::new(Some(ours), request.clone(), DisplayCaps::default());
        let mut got = Vec::new();
        let mut piece = [0; MAX_CHUNK];
        loop {
            channel.push();
            match retry(|| theirs.read(&mut piece)).unwrap() {
                Some(0) => break,
                Some(count) => got.extend_from_slice(&piece[..count]),
                None => {}
            }
        }
        assert!(got == request);
    }
}
