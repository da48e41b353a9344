//! The colours of text on a terminal.

/// The colours in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colour {
    /// Good.
    Green,
    /// Warning.
    Yellow,
    /// Bad.
    Red,
    /// Advice.
    Cyan,
}

impl Colour {
    /// Returns the number of the colour in an escape sequence.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Green => "32",
            Self::Yellow => "33",
            Self::Red => "1;31",
            Self::Cyan => "36",
        }
    }
}
