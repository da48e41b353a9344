//! The unchanging part of a job, which is the field `spec` of its record.
//!
//! The field holds thirteen words, separated by one space. A word is empty if the job has no such
//! value. Only the last word, the trace context, may contain spaces. The order of the words is
//! defined here and in `job.lua` only. It is one field instead of thirteen, because a record is
//! read more often than it is written, and each field of a read costs Redis a lookup.

use std::str::{FromStr, SplitN};

use crate::QueueError;
use sandhog_core::class::Class;
use sandhog_core::id::{IdError, Tenant};
use sandhog_core::retry_on::RetryOn;
use sandhog_core::size::Size;
use sandhog_core::submission::Routing;
use sandhog_core::trace::TraceContext;
use sandhog_core::units::{Millis, UnixMillis};
use sandhog_core::wire::Encoding;

const WORDS: usize = 13;

/// The unchanging part of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) submitted_at: UnixMillis,
    pub(crate) class: Class,
    pub(crate) tenant: Tenant,
    pub(crate) priority: u8,
    pub(crate) encoding: Encoding,
    pub(crate) keep: Millis,
    pub(crate) max_attempts: u32,
    pub(crate) backoff: Millis,
    pub(crate) retry_on: RetryOn,
    pub(crate) trace: Option<TraceContext>,
}

/// Encodes all words but the first, the time of submission, which the script adds.
pub(crate) fn encode_spec(routing: &Routing, size: Size, encoding: Encoding) -> String {
    let unique = routing.unique.as_ref();
    let unique_ttl = unique.and_then(|unique| unique.ttl).map_or(0, |ttl| ttl.0);
    let trace = routing.trace.as_ref();
    format!(
        "{} {} {} {} {} {} {} {unique_ttl} {} {} {} {}",
        routing.class.sized(size),
        routing.tenant,
        routing.priority.level(),
        encoding.as_str(),
        routing.keep.0,
        routing.reply.as_ref().map_or("", |reply| reply.as_str()),
        unique.map_or("", |unique| unique.key.as_str()),
        routing.max_attempts,
        routing.backoff.0,
        routing.retry_on,
        trace.map(ToString::to_string).unwrap_or_default(),
    )
}

impl Spec {
    /// Decodes the field, which `command` returned.
    pub(crate) fn read(command: &'static str, text: &str) -> Result<Self, QueueError> {
        let mut words = Words {
            command,
            rest: text.splitn(WORDS, ' '),
        };
        let spec = Self {
            submitted_at: UnixMillis(words.number()?),
            class: words.name()?,
            tenant: words.name()?,
            priority: words.number()?,
            encoding: {
                let word = words.next()?;
                [Encoding::Json, Encoding::MessagePack]
                    .into_iter()
                    .find(|encoding| encoding.as_str() == word)
                    .ok_or_else(|| crate::resp::unknown_word(command, word))?
            },
            keep: Millis(words.number()?),
            max_attempts: {
                let (_reply, _unique, _unique_ttl) = (words.next()?, words.next()?, words.next()?);
                words.number()?
            },
            backoff: Millis(words.number()?),
            retry_on: {
                let word = words.next()?;
                word.parse()
                    .map_err(|_bad| crate::resp::unknown_word(command, word))?
            },
            trace: TraceContext::from_pair(words.next()?),
        };
        Ok(spec)
    }
}

struct Words<'a> {
    command: &'static str,
    rest: SplitN<'a, char>,
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Result<&'a str, QueueError> {
        self.rest.next().ok_or_else(|| QueueError::Reply {
            command: self.command,
            detail: "a job's spec with too few words".to_owned(),
        })
    }

    fn number<T: FromStr>(&mut self) -> Result<T, QueueError> {
        let word = self.next()?;
        word.parse()
            .map_err(|_bad| crate::resp::unknown_word(self.command, word))
    }

    fn name<T: FromStr<Err = IdError>>(&mut self) -> Result<T, QueueError> {
        let command = self.command;
        self.next()?
            .parse()
            .map_err(|source| QueueError::Name { command, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandhog_core::submission::Unique;
    use sandhog_core::units::{ByteCount, CpuMillis};

    #[test]
    fn a_spec_reads_back_as_written() {
        let full = Routing {
            class: "gpu,a100".parse().unwrap(),
            tenant: "acme".parse().unwrap(),
            retry_on: "failed,timed_out".parse().unwrap(),
            max_attempts: 7,
            unique: Some(Unique {
                key: "nightly:acme".parse().unwrap(),
                ttl: Some(Millis(5000)),
            }),
            reply: Some("batch:1".parse().unwrap()),
            trace: TraceContext::parse(
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                Some("a=b c, d=e"),
            ),
            ..Routing::default()
        };
        let large = Size::of(ByteCount::mib(2048), CpuMillis(4000));
        for (case, routing, size) in [
            ("bare", Routing::default(), Size::DEFAULT),
            ("full", full, large),
        ] {
            let text = format!("17 {}", encode_spec(&routing, size, Encoding::MessagePack));
            let read = Spec::read("test", &text).unwrap();
            assert_eq!(read.submitted_at, UnixMillis(17), "case {case}");
            assert_eq!(read.class, routing.class.sized(size), "case {case}");
            assert_eq!(read.tenant, routing.tenant, "case {case}");
            assert_eq!(read.priority, routing.priority.level(), "case {case}");
            assert_eq!(read.encoding, Encoding::MessagePack, "case {case}");
            assert_eq!(read.keep, routing.keep, "case {case}");
            assert_eq!(read.max_attempts, routing.max_attempts, "case {case}");
            assert_eq!(read.backoff, routing.backoff, "case {case}");
            assert_eq!(read.retry_on, routing.retry_on, "case {case}");
            assert_eq!(read.trace, routing.trace, "case {case}");
        }
        assert!(Spec::read("test", "17 cpu default").is_err());
    }
}
