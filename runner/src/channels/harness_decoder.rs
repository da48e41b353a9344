//! Incremental decoder for the bytes that a harness writes to its descriptor: displays, then its
//! answer.
//!
//! Any process in the cell may write there. The runner reads and discards a display that is too
//! long, or that exceeds the cap on displays, without holding it in memory. A display that never
//! ends takes no more memory than its cap; everything that follows it is lost too.

use std::collections::VecDeque;

use sandhog_protocol::frames::{
    DISPLAY_BYTE, DisplayCaps, DisplayPart, MAX_HARNESS_ANSWER, read_display,
};

/// The decoder for the output of one harness.
#[derive(Debug)]
pub(super) struct HarnessDecoder {
    state: DecoderState,
    allowed: DisplayCaps,
    /// Complete displays that the caller has not taken yet.
    complete: VecDeque<Vec<DisplayPart>>,
    dropped: u64,
    answer: Vec<u8>,
    /// Set when the answer is longer than allowed. It is ignored then.
    answer_too_long: bool,
}

/// The position of the next byte in the stream.
#[derive(Debug)]
enum DecoderState {
    /// Before a display or the answer.
    Between,
    /// In the length of a display. Holds the bytes of the length received so far.
    Length(Vec<u8>),
    /// In a display. Holds the bytes received so far and the number of missing ones.
    Body(Vec<u8>, usize),
    /// In a display that is discarded. Holds the number of missing bytes.
    Dropped(usize),
    /// In the answer.
    Answer,
}

impl HarnessDecoder {
    /// Creates a decoder that has received nothing, with these caps on displays.
    pub(super) fn new(allowed: DisplayCaps) -> Self {
        Self {
            state: DecoderState::Between,
            allowed,
            complete: VecDeque::new(),
            dropped: 0,
            answer: Vec::new(),
            answer_too_long: false,
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

    /// Returns the bytes of the answer, which are empty if there were too many, and the number of
    /// dropped displays. A display that is cut off at the end of the stream counts as dropped.
    pub(super) fn end(self) -> (Vec<u8>, u64) {
        let cut = match self.state {
            DecoderState::Length(_) | DecoderState::Body(..) => 1,
            DecoderState::Between | DecoderState::Dropped(_) | DecoderState::Answer => 0,
        };
        (self.answer, self.dropped.saturating_add(cut))
    }

    /// Decodes the first bytes of `piece`, up to the next change of position, and returns the rest.
    fn decode_step<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        match &mut self.state {
            DecoderState::Between => match piece.split_first() {
                Some((&DISPLAY_BYTE, rest)) => {
                    self.state = DecoderState::Length(Vec::with_capacity(4));
                    rest
                }
                _ => {
                    self.state = DecoderState::Answer;
                    piece
                }
            },
            DecoderState::Length(length) => {
                let (some, rest) = piece.split_at(piece.len().min(4 - length.len()));
                length.extend_from_slice(some);
                if let Some(&length) = length.first_chunk::<4>() {
                    self.state = self.start_display(u32::from_be_bytes(length));
                }
                rest
            }
            DecoderState::Body(body, left) => {
                let (some, rest) = piece.split_at(piece.len().min(*left));
                body.extend_from_slice(some);
                *left -= some.len();
                if *left == 0 {
                    let body = std::mem::take(body);
                    self.state = DecoderState::Between;
                    self.finish_display(&body);
                }
                rest
            }
            DecoderState::Dropped(left) => {
                let (some, rest) = piece.split_at(piece.len().min(*left));
                *left -= some.len();
                if *left == 0 {
                    self.state = DecoderState::Between;
                }
                rest
            }
            DecoderState::Answer => {
                if self.answer_too_long || self.answer.len() + piece.len() > MAX_HARNESS_ANSWER {
                    self.answer_too_long = true;
                    self.answer = Vec::new();
                } else {
                    self.answer.extend_from_slice(piece);
                }
                &[]
            }
        }
    }

    /// Returns the position after the length of a display: in a body that is kept, or in one that
    /// is discarded.
    fn start_display(&mut self, length: u32) -> DecoderState {
        let bytes = u64::from(length);
        let allowed = &self.allowed;
        let fits = allowed.count > 0 && bytes <= allowed.bytes && bytes <= allowed.total_bytes;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > 0 && fits {
            return DecoderState::Body(Vec::new(), length);
        }
        self.dropped = self.dropped.saturating_add(1);
        match length {
            0 => DecoderState::Between,
            left => DecoderState::Dropped(left),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: DisplayCaps = DisplayCaps {
        count: 3,
        bytes: 40,
        total_bytes: 70,
    };

    fn display(text: &str) -> Vec<u8> {
        let length = |count: usize| u32::try_from(count).unwrap().to_be_bytes();
        let body = [b"\x0atext/plain", &length(text.len())[..], text.as_bytes()].concat();
        [&[DISPLAY_BYTE], &length(body.len())[..], &body].concat()
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
        let bytes = [display("one"), display("two"), b"{}D".to_vec()].concat();
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
            let (got, answer, lost) = shown(&[bytes, b"{}".to_vec()].concat(), 11);
            assert_eq!((got.len(), lost), (texts, dropped), "{case}");
            assert_eq!(answer, b"{}", "{case}");
        }
    }

    #[test]
    fn fake_displays_cost_nothing_and_fool_nobody() {
        let claims_all = [&[DISPLAY_BYTE], &u32::MAX.to_be_bytes()[..], b"{}"].concat();
        for (case, bytes, answer, dropped) in [
            ("too long to be held", claims_all, "", 1),
            (
                "no body",
                [DISPLAY_BYTE, 0, 0, 0, 0, b'{', b'}'].to_vec(),
                "{}",
                1,
            ),
            (
                "no parts",
                [DISPLAY_BYTE, 0, 0, 0, 1, 9, b'{', b'}'].to_vec(),
                "{}",
                1,
            ),
            ("cut in its length", vec![DISPLAY_BYTE, 0, 0], "", 1),
            ("cut in its body", display("text")[..9].to_vec(), "", 1),
            ("another kind", b"E\0\0\0\x01x".to_vec(), "E\0\0\0\x01x", 0),
        ] {
            let want = (Vec::new(), answer.as_bytes().to_vec(), dropped);
            assert_eq!(shown(&bytes, 4), want, "{case}");
        }
    }
}
