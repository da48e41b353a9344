//! An error as one line of text, for results, dead letters and `doctor`.
//!
//! It refuses to decide anything: whose fault an error is and whether to retry are asked of its type.

/// An error and everything below it, parted by colons.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        below = cause.source();
    }
    text
}
