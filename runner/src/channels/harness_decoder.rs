//! Incremental decoder for the messages that a harness writes to its descriptor: displays, then its
//! answer.
//!
//! Any process in the cell may write there. The decoder discards these bytes without holding them
//! in memory: the body of a message of an unknown kind, a display that is too long or that exceeds
//! the cap on displays, and all bytes after the answer. A message that never ends takes no more
//! memory than the cap of its kind; everything that follows it is lost too.

use std::collections::VecDeque;

use sandhog_protocol::frames::{
    DisplayCaps, DisplayPart, HARNESS_HEADER_LEN, HarnessMessageKind, MAX_HARNESS_ANSWER,
    read_display,
};

/// The decoder for the output of one harness.
#[derive(Debug)]
pub(super) struct HarnessDecoder {
    state: DecoderState,
    /// The bytes of an incomplete header received so far.
    header: Vec<u8>,
    allowed: DisplayCaps,
    /// Complete displays that the caller has not taken yet.
    complete: VecDeque<Vec<DisplayPart>>,
    dropped: u64,
    /// The body of the complete answer. Empty before, and if the answer is longer than allowed.
    answer: Vec<u8>,
}

/// The position of the next byte in the stream.
#[derive(Debug)]
enum DecoderState {
    /// In the header of a message, or before it.
    Header,
    /// In a display. Holds the bytes received so far and the number of missing ones.
    Display(Vec<u8>, usize),
    /// In the answer. Holds the bytes received so far and the number of missing ones.
    Answer(Vec<u8>, usize),
    /// In a body that is discarded. Holds the number of missing bytes.
    Discarded(usize),
    /// After the answer. All bytes are discarded.
    Answered,
}

impl HarnessDecoder {
    /// Creates a decoder that has received nothing, with these caps on displays.
    pub(super) fn new(allowed: DisplayCaps) -> Self {
        Self {
            state: DecoderState::Header,
            header: Vec::new(),
            allowed,
            complete: VecDeque::new(),
            dropped: 0,
            answer: Vec::new(),
        }
    }

    /// Decodes the bytes of `piece`.
    pub(super) fn feed(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            piece = self.decode_step(piece);
        }
    }

    /// Returns the next complete display.
    pub(super) fn next(&mut self) -> Option<Vec<DisplayPart>> {
        self.complete.pop_front()
    }

    /// Returns the body of the answer and the number of dropped displays. The body is empty if
    /// there is no complete answer, or if it is too long. A display that is cut off at the end of
    /// the stream counts as dropped.
    pub(super) fn end(self) -> (Vec<u8>, u64) {
        let display = HarnessMessageKind::Display.byte();
        let is_cut = match self.state {
            DecoderState::Header => self.header.first() == Some(&display),
            DecoderState::Display(..) => true,
            DecoderState::Answer(..) | DecoderState::Discarded(_) | DecoderState::Answered => false,
        };
        (self.answer, self.dropped.saturating_add(u64::from(is_cut)))
    }

    /// Decodes the first bytes of `piece`, up to the next change of position, and returns the rest.
    fn decode_step<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        match &mut self.state {
            DecoderState::Header => {
                let missing = HARNESS_HEADER_LEN - self.header.len();
                let (some, rest) = piece.split_at(piece.len().min(missing));
                self.header.extend_from_slice(some);
                if let Some(&header) = self.header.first_chunk() {
                    self.header.clear();
                    self.state = self.start_body(header);
                }
                rest
            }
            DecoderState::Display(body, missing) => {
                let rest = take_body(body, missing, piece);
                if *missing == 0 {
                    let body = std::mem::take(body);
                    self.state = DecoderState::Header;
                    self.finish_display(&body);
                }
                rest
            }
            DecoderState::Answer(body, missing) => {
                let rest = take_body(body, missing, piece);
                if *missing == 0 {
                    self.answer = std::mem::take(body);
                    self.state = DecoderState::Answered;
                }
                rest
            }
            DecoderState::Discarded(missing) => {
                let (some, rest) = piece.split_at(piece.len().min(*missing));
                *missing -= some.len();
                if *missing == 0 {
                    self.state = DecoderState::Header;
                }
                rest
            }
            DecoderState::Answered => &[],
        }
    }

    /// Returns the position after a header: in a body that is kept or discarded, or after a message
    /// without a body.
    fn start_body(&mut self, header: [u8; HARNESS_HEADER_LEN]) -> DecoderState {
        let (kind, length) = HarnessMessageKind::split_header(header);
        let missing = usize::try_from(length).unwrap_or(usize::MAX);
        match kind {
            Some(HarnessMessageKind::Display) if self.takes_display(length) => {
                return DecoderState::Display(Vec::new(), missing);
            }
            Some(HarnessMessageKind::Display) => self.dropped = self.dropped.saturating_add(1),
            Some(HarnessMessageKind::Answer) if (1..=MAX_HARNESS_ANSWER).contains(&missing) => {
                return DecoderState::Answer(Vec::new(), missing);
            }
            Some(HarnessMessageKind::Answer) => return DecoderState::Answered,
            Some(HarnessMessageKind::Request | HarnessMessageKind::InferSocket) | None => {}
        }
        match missing {
            0 => DecoderState::Header,
            missing => DecoderState::Discarded(missing),
        }
    }

    /// Returns whether a body of this length may hold a display that is within the caps.
    fn takes_display(&self, length: u32) -> bool {
        let bytes = u64::from(length);
        let allowed = &self.allowed;
        length > 0 && allowed.count > 0 && bytes <= allowed.bytes && bytes <= allowed.total_bytes
    }

    fn finish_display(&mut self, body: &[u8]) {
        match read_display(body) {
            Some(parts) => {
                self.allowed.count -= 1;
                self.allowed.total_bytes -= body.len() as u64;
                self.complete.push_back(parts);
            }
            None => self.dropped = self.dropped.saturating_add(1),
        }
    }
}

/// Appends the first bytes of `piece` to `body`, at most as many as are missing, and returns the
/// rest.
fn take_body<'a>(body: &mut Vec<u8>, missing: &mut usize, piece: &'a [u8]) -> &'a [u8] {
    let (some, rest) = piece.split_at(piece.len().min(*missing));
    body.extend_from_slice(some);
    *missing -= some.len();
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: DisplayCaps = DisplayCaps {
        count: 3,
        bytes: 40,
        total_bytes: 70,
    };

    fn message(kind: HarnessMessageKind, body: &[u8]) -> Vec<u8> {
        [kind.header(body.len()).as_slice(), body].concat()
    }

    fn display(text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        let body = [b"\x0atext/plain", length.as_slice(), text.as_bytes()].concat();
        message(HarnessMessageKind::Display, &body)
    }

    fn answer(body: &[u8]) -> Vec<u8> {
        message(HarnessMessageKind::Answer, body)
    }

    /// Returns the message of a kind that no harness sends.
    fn unknown(body: &[u8]) -> Vec<u8> {
        let mut bytes = answer(body);
        bytes[0] = b'E';
        bytes
    }

    /// Decodes `bytes` in pieces of one size. Returns the texts of the displays, the answer, and
    /// the number of dropped displays.
    fn shown(bytes: &[u8], pieces: usize) -> (Vec<String>, Vec<u8>, u64) {
        let mut decoder = HarnessDecoder::new(ALLOWED);
        let mut texts = Vec::new();
        for piece in bytes.chunks(pieces) {
            decoder.feed(piece);
            while let Some(parts) = decoder.next() {
                texts.push(String::from_utf8(parts[0].data.clone()).unwrap());
            }
        }
        let (answer, dropped) = decoder.end();
        (texts, answer, dropped)
    }

    #[test]
    fn displays_and_the_answer_come_apart_however_they_arrive() {
        let bytes = [display("one"), display("two"), answer(b"{}D")].concat();
        for pieces in [1, 2, 3, 5, 7, 1000] {
            let want = (vec!["one".to_owned(), "two".to_owned()], b"{}D".to_vec(), 0);
            assert_eq!(shown(&bytes, pieces), want, "in pieces of {pieces}");
        }
    }

    #[test]
    fn what_is_above_a_cap_is_dropped_and_counted() {
        let [most, long] = [25, 26].map(|count| "x".repeat(count));
        for (case, displays, texts, dropped) in [
            ("too many", ["1", "2", "3", "4", "5"].as_slice(), 3, 2),
            ("one too long", &["1", &long, "3"], 2, 1),
            ("too much in all", &[&most, &most, "3"], 2, 1),
        ] {
            let bytes: Vec<u8> = displays.iter().flat_map(|text| display(text)).collect();
            let (got, body, lost) = shown(&[bytes, answer(b"{}")].concat(), 11);
            assert_eq!((got.len(), lost), (texts, dropped), "{case}");
            assert_eq!(body, b"{}", "{case}");
        }
    }

    #[test]
    fn fake_displays_cost_nothing_and_fool_nobody() {
        let huge = HarnessMessageKind::Display.header(usize::MAX).to_vec();
        for (case, bytes, dropped, body) in [
            ("too long to be held", [huge, answer(b"{}")].concat(), 1, ""),
            (
                "no body",
                [message(HarnessMessageKind::Display, b""), answer(b"{}")].concat(),
                1,
                "{}",
            ),
            (
                "no parts",
                [message(HarnessMessageKind::Display, b"\x09"), answer(b"{}")].concat(),
                1,
                "{}",
            ),
            ("cut after its kind", display("text")[..1].to_vec(), 1, ""),
            ("cut in its length", display("text")[..3].to_vec(), 1, ""),
            ("cut after its header", display("text")[..5].to_vec(), 1, ""),
            ("cut in its body", display("text")[..9].to_vec(), 1, ""),
        ] {
            let want = (Vec::new(), body.as_bytes().to_vec(), dropped);
            assert_eq!(shown(&bytes, 4), want, "{case}");
        }
    }

    #[test]
    fn messages_of_other_kinds_count_as_nothing() {
        let request = message(HarnessMessageKind::Request, b"{}");
        let socket = message(HarnessMessageKind::InferSocket, b"");
        let before = [unknown(b"x"), unknown(b""), display("one"), request, socket].concat();
        let endless = b"E\xff\xff\xff\xff".to_vec();
        for (case, last, body) in [
            ("before the answer", unknown(&[b'A'; 100]), "{}"),
            ("longer than the stream", endless, ""),
            ("cut in its header", b"E\0\0".to_vec(), ""),
        ] {
            let is_cut = last.len() < HARNESS_HEADER_LEN;
            let after = if is_cut { Vec::new() } else { answer(b"{}") };
            let bytes = [before.clone(), last, after].concat();
            for pieces in [1, 4, 1000] {
                let want = (vec!["one".to_owned()], body.as_bytes().to_vec(), 0);
                assert_eq!(shown(&bytes, pieces), want, "{case}, in pieces of {pieces}");
            }
        }
    }

    #[test]
    fn the_first_answer_ends_the_exchange() {
        let long = HarnessMessageKind::Answer
            .header(MAX_HARNESS_ANSWER + 1)
            .to_vec();
        let claims_all = HarnessMessageKind::Answer.header(usize::MAX).to_vec();
        for (case, first, body) in [
            ("a good one", answer(b"1"), "1"),
            ("an empty one", answer(b""), ""),
            ("a length just above the cap", long, ""),
            ("the longest length", claims_all, ""),
        ] {
            let rest = [answer(b"2"), display("late"), b"D\0\0".to_vec()].concat();
            for pieces in [1, 4, 1000] {
                let got = shown(&[first.clone(), rest.clone()].concat(), pieces);
                let want = (Vec::new(), body.as_bytes().to_vec(), 0);
                assert_eq!(got, want, "{case}, in pieces of {pieces}");
            }
        }
    }

    #[test]
    fn an_answer_counts_only_when_it_is_whole() {
        let most = vec![b'x'; MAX_HARNESS_ANSWER];
        assert_eq!(shown(&answer(&most), 1 << 16).1, most);
        let bytes = answer(b"{}");
        for length in 0..bytes.len() {
            let want = (Vec::new(), Vec::new(), 0);
            assert_eq!(shown(&bytes[..length], 3), want, "cut after {length} bytes");
        }
    }
}
