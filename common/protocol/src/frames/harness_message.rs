//! The messages between the runner and a harness, on descriptor 3 of a program.
//!
//! A message is one byte for its kind, a big-endian `u32` length, and a body of that length:
//!
//! ```text
//! runner → harness   InferSocket, only for a clone of the zygote that may send inference requests
//! runner → harness   Request
//! harness → runner   Display…, then Answer
//! ```
//!
//! The answer ends the exchange of one request. The first answer counts, and the runner drops all
//! bytes after it. Neither side needs the end of the stream: each side knows from its messages that
//! a request or an answer is complete. The runner sends one request to each program.
//!
//! All bytes from a program are hostile. A message of an unknown kind, or of a kind that only the
//! other side sends, is no error and has no effect: its reader discards it by its length. A display
//! above its caps is discarded by its length too, and counts as dropped. A message that the end of
//! the stream cuts off has no effect, except that a display then counts as dropped.
//!
//! Inference requests are not messages of this channel. They have a socket of their own,
//! [`INFER_FD`](super::INFER_FD), which programs in any language may use
//! (`docs/guides/inference.md`).

/// Length of the header of a message, in bytes: its kind, and the length of its body.
pub const HARNESS_HEADER_LEN: usize = 5;

/// Kind of a message between the runner and a harness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HarnessMessageKind {
    /// From the runner: a [`HarnessRequest`](super::HarnessRequest) as JSON. For a clone of the
    /// zygote it has more fields, and a zero byte and the program's standard input may follow the
    /// JSON.
    Request,
    /// From the runner, before the request: carries the socket for inference requests as a
    /// descriptor. It has no body.
    InferSocket,
    /// From the harness, before its answer: one display, whose body [`read_display`] decodes.
    ///
    /// [`read_display`]: super::read_display
    Display,
    /// From the harness: a [`HarnessAnswer`](super::HarnessAnswer) as JSON, of at most
    /// [`MAX_HARNESS_ANSWER`](super::MAX_HARNESS_ANSWER) bytes. An announced length above that ends
    /// the exchange with an empty answer.
    Answer,
}

impl HarnessMessageKind {
    /// All kinds.
    const ALL: [Self; 4] = [
        Self::Request,
        Self::InferSocket,
        Self::Display,
        Self::Answer,
    ];

    /// Returns the byte of this kind.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Request => b'R',
            Self::InferSocket => b'I',
            Self::Display => b'D',
            Self::Answer => b'A',
        }
    }

    /// Returns the kind of this byte, or `None` if there is no such kind.
    #[must_use]
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }

    /// Returns the header of a message of this kind whose body has `length` bytes.
    #[must_use]
    pub fn header(self, length: usize) -> [u8; HARNESS_HEADER_LEN] {
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let [first, second, third, fourth] = length.to_be_bytes();
        [self.byte(), first, second, third, fourth]
    }

    /// Decodes a header. Returns the kind of its message, which is `None` if it is unknown, and the
    /// length of the body.
    #[must_use]
    pub fn split_header(header: [u8; HARNESS_HEADER_LEN]) -> (Option<Self>, u32) {
        let [kind, length @ ..] = header;
        (Self::from_byte(kind), u32::from_be_bytes(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_decoded_as_it_was_encoded() {
        for kind in HarnessMessageKind::ALL {
            for length in [0, 1, 0x0102_0304, u32::MAX] {
                let header = kind.header(usize::try_from(length).unwrap());
                let split = HarnessMessageKind::split_header(header);
                assert_eq!(split, (Some(kind), length));
            }
        }
        let answer = HarnessMessageKind::Answer.header(0x0102_0304);
        assert_eq!(&answer, b"A\x01\x02\x03\x04");
    }

    #[test]
    fn every_other_byte_is_an_unknown_kind() {
        let known = HarnessMessageKind::ALL.map(HarnessMessageKind::byte);
        for byte in 0..=u8::MAX {
            let kind = HarnessMessageKind::from_byte(byte);
            assert_eq!(kind.is_some(), known.contains(&byte), "{byte}");
        }
    }
}
