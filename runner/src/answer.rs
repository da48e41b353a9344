//! The harness's socket: the runner sends a request over it and receives displays and an answer. It
//! trusts none of the received bytes.
//!
//! Any process in the cell may write to the socket. So the length of an answer is bounded, and an
//! answer that cannot be decoded counts as empty. [`crate::showing`] decodes the displays.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use sandhog_runner::protocol::{Displays, HarnessAnswer, MAX_CHUNK, Part};

use crate::link::retry;
use crate::showing::Showing;

/// The exchange of a request and an answer with one harness.
#[derive(Debug)]
pub(crate) struct Exchange {
    socket: Option<UnixStream>,
    request: Vec<u8>,
    sent: usize,
    showing: Showing,
}

impl Exchange {
    /// Prepares to send `request` over a nonblocking socket, with these caps on displays. Without a
    /// socket nothing is sent and there is no answer.
    pub(crate) fn new(socket: Option<UnixStream>, request: Vec<u8>, allowed: Displays) -> Self {
        Self {
            socket,
            request,
            sent: 0,
            showing: Showing::new(allowed),
        }
    }

    /// Returns the socket. `None` once the harness has closed it.
    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Returns whether a part of the request has not been sent yet.
    pub(crate) fn sending(&self) -> bool {
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
    pub(crate) fn pull(&mut self, buffer: &mut [u8; MAX_CHUNK]) -> bool {
        let Some(socket) = &mut self.socket else {
            return false;
        };
        match retry(|| socket.read(buffer)) {
            Ok(Some(count)) if count > 0 => {
                self.showing.take(buffer.get(..count).unwrap_or_default());
                true
            }
            Ok(None) => false,
            Ok(Some(_)) | Err(_) => {
                self.socket = None;
                false
            }
        }
    }

    /// Returns the next display that is complete and within the caps.
    pub(crate) fn shown(&mut self) -> Option<Vec<Part>> {
        self.showing.next()
    }

    /// Returns the answer of the harness and the number of its dropped displays. The answer is
    /// empty if the harness sent none, or one that cannot be decoded.
    pub(crate) fn into_answer(self) -> (HarnessAnswer, u64) {
        let (received, dropped) = self.showing.end();
        let mut answer: HarnessAnswer = serde_json::from_slice(&received).unwrap_or_default();
        answer.value_json = answer
            .value_json
            .filter(|text| serde_json::from_str::<serde_json::Value>(text).is_ok());
        (answer, dropped)
    }
}

#[cfg(test)]
mod tests {
    use sandhog_runner::protocol::MAX_ANSWER;

    use super::*;

    fn answer_to(bytes: &[u8]) -> HarnessAnswer {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut exchange = Exchange::new(Some(ours), Vec::new(), Displays::default());
        let mut buffer = [0; MAX_CHUNK];
        for piece in bytes.chunks(MAX_CHUNK) {
            theirs.write_all(piece).unwrap();
            while exchange.pull(&mut buffer) {}
        }
        drop(theirs);
        while exchange.pull(&mut buffer) {}
        assert!(exchange.socket().is_none());
        exchange.into_answer().0
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
        let huge = format!(r#"{{"value_json":"\"{}\""}}"#, "x".repeat(MAX_ANSWER));
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
        let mut exchange = Exchange::new(Some(ours), request.clone(), Displays::default());
        let mut got = Vec::new();
        let mut piece = [0; MAX_CHUNK];
        loop {
            exchange.push();
            match retry(|| theirs.read(&mut piece)).unwrap() {
                Some(0) => break,
                Some(count) => got.extend_from_slice(&piece[..count]),
                None => {}
            }
        }
        assert!(got == request);
    }
}
