//! Formats an error as one line of text, for results, dead letters, `doctor` and the
//! runner's reports.
//!
//! The text is for humans only. Code that needs the fault of an error, or needs to know whether to
//! retry, uses the error's type.

/// Returns the message of an error followed by the messages of all its sources, separated by
/// colons.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
