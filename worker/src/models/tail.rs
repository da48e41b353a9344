//! The end of what a model server printed, for when it is asked why it died.

use std::collections::VecDeque;

/// How much is kept, in bytes.
const KEPT: usize = 4 << 10;

/// The last few kilobytes of a log.
#[derive(Debug, Default)]
pub(super) struct Tail(VecDeque<u8>);

impl Tail {
    /// Takes what was printed.
    pub(super) fn push(&mut self, data: &[u8]) {
        let fresh = data.get(data.len().saturating_sub(KEPT)..);
        self.0.extend(fresh.unwrap_or_default());
        let over = self.0.len().saturating_sub(KEPT);
        self.0.drain(..over);
    }

    /// The last lines that were printed, introduced; empty if nothing was.
    pub(super) fn said(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        match printable(&String::from_utf8_lossy(&bytes)).trim() {
            "" => String::new(),
            said => format!("; its log ends:\n{said}"),
        }
    }
}

/// Text of a model's for a person's terminal: lines stay lines, tabs become spaces, and other
/// control characters are left out.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| !c.is_control() || *c == '\n')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_kept() {
        let mut tail = Tail::default();
        assert_eq!(tail.said(), "");
        tail.push(&[b'x'; 3 * KEPT]);
        tail.push(b"\x1b[31mboom\tbang\r\n");
        let said = tail.said();
        assert!(said.ends_with("x[31mboom bang"), "{said:?}");
        assert!(said.len() <= KEPT + 32);
    }
}
