//! The trace that a job belongs to: the two fields of the W3C trace context.
//!
//! An invalid context is dropped, as the standard requires: it is never a reason to reject a job.
//! This module makes no ids.

use std::fmt;

/// Longest `tracestate` that is passed on, in bytes: the length that the standard requires every
/// participant to pass on.
const TRACESTATE_LEN_MAX: usize = 512;

/// Length of a `traceparent` of version 00 in bytes: version, trace, span and flags, separated by
/// hyphens.
const TRACEPARENT_LEN: usize = 55;

/// A trace, and the span in it that submitted the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    traceparent: String,
    tracestate: Option<String>,
}

impl TraceContext {
    /// Parses the two fields. Returns none if `traceparent` is invalid; an invalid `tracestate` is
    /// left out.
    #[must_use]
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let traceparent = traceparent.trim();
        // A later version may append fields of its own after another hyphen.
        let head = traceparent.get(..TRACEPARENT_LEN)?;
        let tail = traceparent.get(TRACEPARENT_LEN..)?;
        let parts: Vec<&str> = head.split('-').collect();
        let [version, trace, span, flags] = parts.as_slice() else {
            return None;
        };
        let good = is_lower_hex(version, 2)
            && is_lower_hex(trace, 32)
            && is_lower_hex(span, 16)
            && is_lower_hex(flags, 2)
            && *version != "ff"
            && [trace, span]
                .iter()
                .all(|id| id.bytes().any(|digit| digit != b'0'))
            && (tail.is_empty() || (*version != "00" && tail.starts_with('-')));
        good.then(|| Self {
            traceparent: head.to_owned(),
            tracestate: tracestate.map(str::trim).and_then(parse_tracestate),
        })
    }

    /// The `traceparent` field.
    #[must_use]
    pub fn traceparent(&self) -> &str {
        &self.traceparent
    }

    /// The `tracestate` field.
    #[must_use]
    pub fn tracestate(&self) -> Option<&str> {
        self.tracestate.as_deref()
    }

    /// Parses the text that [`fmt::Display`] writes.
    #[must_use]
    pub fn from_pair(pair: &str) -> Option<Self> {
        match pair.split_once(' ') {
            Some((traceparent, tracestate)) => Self::parse(traceparent, Some(tracestate)),
            None => Self::parse(pair, None),
        }
    }
}

impl fmt::Display for TraceContext {
    /// Writes both fields separated by a space, or only `traceparent` if there is no `tracestate`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.traceparent)?;
        match &self.tracestate {
            Some(tracestate) => write!(f, " {tracestate}"),
            None => Ok(()),
        }
    }
}

fn is_lower_hex(digits: &str, count: usize) -> bool {
    digits.len() == count
        && digits
            .bytes()
            .all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn parse_tracestate(text: &str) -> Option<String> {
    let printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    (!text.is_empty() && text.len() <= TRACESTATE_LEN_MAX && printable && text.contains('='))
        .then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn contexts_read_back_as_written() {
        for (case, state) in [
            ("bare", None),
            ("state", Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")),
            ("spaces", Some("a=b c, d=e")),
        ] {
            let context = TraceContext::parse(PARENT, state).expect(case);
            assert_eq!(context.tracestate(), state, "case {case}");
            let again = TraceContext::from_pair(&context.to_string());
            assert_eq!(again, Some(context), "case {case}");
        }
    }

    #[test]
    fn what_is_none_is_dropped() {
        for (case, text) in [
            ("empty", String::new()),
            ("short", "00-ab-cd-01".to_owned()),
            ("capitals", PARENT.to_uppercase()),
            (
                "no trace",
                PARENT.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            ),
            (
                "no span",
                PARENT.replace("b7ad6b7169203331", &"0".repeat(16)),
            ),
            ("version ff", PARENT.replacen("00-", "ff-", 1)),
            ("tail of version 00", format!("{PARENT}-more")),
            (
                "tail without hyphen",
                PARENT.replacen("00-", "01-", 1) + "more",
            ),
            ("not ASCII", PARENT.replacen("00-", "é-", 1)),
        ] {
            assert_eq!(TraceContext::parse(&text, None), None, "case {case}");
        }
        let later = format!("{}-more", PARENT.replacen("00-", "01-", 1));
        assert!(TraceContext::parse(&later, None).is_some());
        for bad in ["", "no pairs", "a=\u{7}", &format!("a={}", "b".repeat(600))] {
            let context = TraceContext::parse(PARENT, Some(bad)).unwrap();
            assert_eq!(context.tracestate(), None, "{bad:?}");
        }
    }
}
