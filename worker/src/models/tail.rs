//! The last output of a model server, used to explain why it died.

use std::collections::VecDeque;

/// Maximum number of bytes kept.
const MAX_LOG_BYTES: usize = 4 << 10;

/// The last few kilobytes of a log.
#[derive(Debug, Default)]
pub(super) struct LogTail(VecDeque<u8>);

impl LogTail {
    /// Appends printed output.
    pub(super) fn push(&mut self, data: &[u8]) {
        let fresh = data.get(data.len().saturating_sub(MAX_LOG_BYTES)..);
        self.0.extend(fresh.unwrap_or_default());
        let over = self.0.len().saturating_sub(MAX_LOG_BYTES);
        self.0.drain(..over);
    }

    /// Returns the last printed lines with an introduction, or an empty string if nothing was
    /// printed.
    pub(super) fn quoted(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        match printable(&String::from_utf8_lossy(&bytes)).trim() {
            "" => String::new(),
            quoted => format!("; its log ends:\n{quoted}"),
        }
    }
}

/// Makes a model's text safe for a terminal: keeps line breaks, replaces tabs by spaces, and
/// removes other control characters.
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
        let mut tail = LogTail::default();
        assert_eq!(tail.quoted(), "");
        tail.push(&[b'x'; 3 * MAX_LOG_BYTES]);
        tail.push(b"\x1b[31mboom\tbang\r\n");
        let quoted = tail.quoted();
        assert!(quoted.ends_with("x[31mboom bang"), "{quoted:?}");
        assert!(quoted.len() <= MAX_LOG_BYTES + 32);
    }
}
