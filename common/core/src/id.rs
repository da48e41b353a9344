//! Validated names of jobs, namespaces, tenants, images, workers and others.
//!
//! A name is checked once, where it enters the system. All names are short ASCII, so they can stand
//! in a Redis key, a container label and a log line without escaping. This module never guesses or
//! repairs: a bad name is an error that contains the name, cut to a bounded length because it is
//! hostile input.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

/// An invalid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid (want {want})")]
pub struct IdError {
    what: &'static str,
    value: String,
    want: &'static str,
}

impl IdError {
    pub(crate) fn new(what: &'static str, value: &str, want: &'static str) -> Self {
        Self {
            what,
            value: clip(value, 160),
            want,
        }
    }
}

/// Returns the first `most` characters of hostile text, for an error message.
#[must_use]
pub fn clip(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn within(text: &str, most: usize, allowed: fn(char) -> bool) -> bool {
    !text.is_empty() && text.len() <= most && text.chars().all(allowed)
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $most:literal, $allowed:expr, $want:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $type(String);

        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if within(text, $most, $allowed) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError::new($what, text, $want))
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fn identifier(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-')
}

fn plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn variable(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'
}

fn image_reference(c: char) -> bool {
    identifier(c) || matches!(c, '/' | '@')
}

name!(
    /// A job's name and idempotency key: the caller's own, or the id of its intake stream entry.
    JobId, "job id", 128, identifier, "1 to 128 of A-Z a-z 0-9 . _ : -"
);
name!(
    /// An independent queue: the unit of atomicity and of sharding.
    Namespace, "namespace", 64, plain, "1 to 64 of A-Z a-z 0-9 . _ -"
);
name!(
    /// The owner of a job: the unit of fairness and of container reuse.
    Tenant, "tenant", 64, plain, "1 to 64 of A-Z a-z 0-9 . _ -"
);
name!(
    /// The name of a secret in a worker's folder, and of the environment variable that gives it to
    /// a program.
    SecretName, "secret", 64, variable, "1 to 64 of A-Z 0-9 _"
);
name!(
    /// The name of a reply stream: a producer's stream of results.
    ReplyName, "reply stream", 128, identifier, "1 to 128 of A-Z a-z 0-9 . _ : -"
);
name!(
    /// A key that only one unfinished job of a namespace may hold.
    UniqueKey, "unique key", 128, identifier, "1 to 128 of A-Z a-z 0-9 . _ : -"
);
name!(
    /// The name of a cron schedule.
    ScheduleName, "schedule", 64, plain, "1 to 64 of A-Z a-z 0-9 . _ -"
);
name!(
    /// One worker process, as it appears in Redis and on its containers' labels.
    WorkerId, "worker id", 96, plain, "1 to 96 of A-Z a-z 0-9 . _ -"
);
name!(
    /// The image that a sandbox starts from: a Sandhog image name such as `python`, or a Docker
    /// reference.
    ImageName, "image", 200, image_reference, "1 to 200 of A-Z a-z 0-9 . _ : / @ -"
);
name!(
    /// The container engine's name for one of its runtimes: `runc`, `runsc`.
    RuntimeName, "runtime", 64, plain, "1 to 64 of A-Z a-z 0-9 . _ -"
);
name!(
    /// A tag that a job requires and a worker offers: `cpu`, `gpu`, `a100`.
    Tag,
    "tag",
    32,
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'),
    "1 to 32 of a-z 0-9 . _ -"
);

impl Default for Tenant {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

/// The fencing token of a lease: the stream id of the ticket that grants it. A newer lease has a
/// greater token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Token(String);

impl Token {
    /// The token as Redis wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for Token {
    /// Wraps a stream id that Redis itself returned.
    fn from(stream_id: String) -> Self {
        Self(stream_id)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_ids_are_short_ascii() {
        for (case, text, good) in [
            ("stream id", "1795425649921-0", true),
            ("all kinds", "A.b_c:d-9", true),
            ("empty", "", false),
            ("space", "a b", false),
            ("brace would leave the slot", "a{b}", false),
            ("not ascii", "jöb", false),
            ("newline", "a\n", false),
        ] {
            assert_eq!(text.parse::<JobId>().is_ok(), good, "case {case}");
        }
        assert!("x".repeat(128).parse::<JobId>().is_ok());
        let error = "x".repeat(500).parse::<JobId>().unwrap_err().to_string();
        assert!(
            error.len() < 300,
            "a hostile value is cut in the message: {error}"
        );
    }
}
