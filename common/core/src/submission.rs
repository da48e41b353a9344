//! A submitted job: the fields of an intake stream entry, parsed once.
//!
//! Routing is in stream fields, so that neither scripts nor exporters parse payloads. Unknown
//! fields are ignored. An invalid field is an [`IntakeError`] that contains it; the entry then
//! becomes a dead letter and a result.

use std::str::FromStr;

use crate::class::Class;
use crate::id::{JobId, ReplyName, Tenant, UniqueKey, clip};
pub use crate::intake_error::IntakeError;
use crate::job::{CheckedJob, Job};
pub use crate::priority::Priority;
use crate::retry_on::RetryOn;
use crate::size::Size;
use crate::trace::TraceContext;
use crate::units::{ByteCount, Millis, UnixMillis};
use crate::wire::{self, Encoding};

/// Maximum number of attempts that a job may request.
pub const MAX_ATTEMPTS: u32 = 100;

/// Maximum delay, time to live or retention: 400 days.
pub const MAX_SPAN: Millis = Millis(400 * 24 * 3_600_000);

/// The routing of a job: the stream fields beside its payload, which select the workers, the time
/// and the number of attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routing {
    /// The caller's own id. Default: the entry's stream id.
    pub id: Option<JobId>,
    /// The class, which selects the workers that may run the job.
    pub class: Class,
    /// The tenant that owns the job.
    pub tenant: Tenant,
    /// The priority, 0 (least urgent) to 9 (most urgent). Default 4.
    pub priority: Priority,
    /// The earliest start.
    pub start: Start,
    /// Time after the submission at which a job that has not started expires; none means never.
    pub ttl: Option<Millis>,
    /// Outcomes of the program after which the job is retried. Default: none.
    pub retry_on: RetryOn,
    /// Maximum number of attempts for these retries. Attempts lost to a fault of ours are not
    /// counted.
    pub max_attempts: u32,
    /// Upper bound of the wait before the first retry. It doubles with each retry, with full
    /// jitter.
    pub backoff: Millis,
    /// The unique key: no other job may hold the same key at the same time.
    pub unique: Option<Unique>,
    /// Retention time of the result and the record after the job's end.
    pub keep: Millis,
    /// A reply stream that also receives the result.
    pub reply: Option<ReplyName>,
    /// The trace it belongs to.
    pub trace: Option<TraceContext>,
}

impl Default for Routing {
    fn default() -> Self {
        Self {
            id: None,
            class: Class::default(),
            tenant: Tenant::default(),
            priority: Priority::default(),
            start: Start::Now,
            ttl: None,
            retry_on: RetryOn::default(),
            max_attempts: 3,
            backoff: Millis(1000),
            unique: None,
            keep: Millis(24 * 3_600_000),
            reply: None,
            trace: None,
        }
    }
}

/// A key that only one job at a time may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// The key.
    pub key: UniqueKey,
    /// Time for which the key is held from the job's admission, even if the job ends sooner. None
    /// frees the key when the job ends. A job that runs longer holds the key until its end in any
    /// case.
    pub ttl: Option<Millis>,
}

/// The earliest start of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At once, when a worker is free.
    Now,
    /// Not before this much time has passed since the submission.
    After(Millis),
    /// Not before this time, by Redis' clock.
    At(UnixMillis),
}

/// One parsed entry of the intake stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Intake {
    /// A job to admit.
    Submit(Box<Submission>),
    /// A request to cancel a job.
    Cancel(JobId),
}

/// A job with its routing.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// The routing.
    pub routing: Routing,
    /// The job.
    pub job: CheckedJob,
    /// The payload as it was submitted; workers decode it again.
    pub payload: Vec<u8>,
    /// The encoding of the payload, and therefore of the result.
    pub encoding: Encoding,
    /// The job's size. It is computed from the job's own limits, unless the admitting worker knows
    /// the job's image.
    pub size: Size,
}

impl Intake {
    /// Parses the fields of one entry. `cap` bounds the payload.
    ///
    /// # Errors
    /// Names the first fault.
    pub fn parse(fields: &[(Vec<u8>, Vec<u8>)], cap: ByteCount) -> Result<Self, IntakeError> {
        if let Some(op) = text(fields, "op")? {
            return match op {
                "cancel" => {
                    let id =
                        text(fields, "id")?.ok_or(IntakeError::OpWithoutId { op: "cancel" })?;
                    Ok(Self::Cancel(id.parse()?))
                }
                other => Err(IntakeError::UnknownOp {
                    op: clip(other, 80),
                }),
            };
        }
        let routing = Routing::parse(fields)?;
        let payload = raw(fields, "job").ok_or(IntakeError::NoJob)?;
        let (job, encoding) = wire::decode::<Job>(payload, cap)?;
        let job = job.check()?;
        Ok(Self::Submit(Box::new(Submission {
            size: job.size(),
            routing,
            job,
            payload: payload.to_vec(),
            encoding,
        })))
    }
}

/// Returns the caller's own id, if the entry has a valid one, so that the result of a rejected job
/// is published under it.
#[must_use]
pub fn readable_id(fields: &[(Vec<u8>, Vec<u8>)]) -> Option<JobId> {
    text(fields, "id")
        .ok()
        .flatten()
        .and_then(|id| id.parse().ok())
}

/// Returns the entry's reply stream, if its name is valid, so that the result of a rejected job is
/// sent there too.
#[must_use]
pub fn readable_reply(fields: &[(Vec<u8>, Vec<u8>)]) -> Option<ReplyName> {
    text(fields, "reply")
        .ok()
        .flatten()
        .and_then(|name| name.parse().ok())
}

/// Returns the encoding for the result of a rejected job: the payload's, if it can be recognised.
#[must_use]
pub fn readable_encoding(fields: &[(Vec<u8>, Vec<u8>)]) -> Encoding {
    raw(fields, "job")
        .and_then(|payload| wire::sniff(payload).ok())
        .unwrap_or_default()
}

impl Routing {
    /// Parses the routing fields of an entry.
    ///
    /// # Errors
    /// Names the first invalid field.
    pub fn parse(fields: &[(Vec<u8>, Vec<u8>)]) -> Result<Self, IntakeError> {
        let default = Self::default();
        let class = match (text(fields, "class")?, text(fields, "tags")?) {
            (Some(class), _) => class.parse()?,
            (None, Some(tags)) => tags.parse()?,
            (None, None) => default.class,
        };
        if class.size() != Size::DEFAULT {
            return Err(bad(
                "class",
                class.as_str(),
                "tags; a size is made of the job's limits",
            ));
        }
        let delay = span(fields, "delay_ms")?;
        let start = match number(fields, "at_ms", u64::MAX >> 12, "milliseconds since 1970")? {
            Some(at) => Start::At(UnixMillis(at)),
            None => delay
                .filter(|delay| delay.0 > 0)
                .map_or(Start::Now, Start::After),
        };
        let keep = number(
            fields,
            "keep_s",
            MAX_SPAN.0 / 1000,
            "seconds, 0 to 34560000",
        )?;
        Ok(Self {
            id: text(fields, "id")?.map(str::parse).transpose()?,
            class,
            tenant: text(fields, "tenant")?
                .map(str::parse)
                .transpose()?
                .unwrap_or_default(),
            priority: parsed(fields, "priority", "0 to 9")?.unwrap_or_default(),
            start,
            ttl: span(fields, "ttl_ms")?.filter(|ttl| ttl.0 > 0),
            retry_on: parsed(fields, "retry_on", RetryOn::WANT)?.unwrap_or_default(),
            max_attempts: attempts(fields)?.unwrap_or(default.max_attempts),
            backoff: span(fields, "backoff_ms")?.unwrap_or(default.backoff),
            unique: unique(fields)?,
            keep: keep.map_or(default.keep, |s| Millis(s * 1000)),
            reply: text(fields, "reply")?.map(str::parse).transpose()?,
            trace: trace(fields),
        })
    }

    /// Returns the routing as stream fields, without those that have the default value.
    #[must_use]
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let default = Self::default();
        let mut fields = Vec::new();
        if let Some(id) = &self.id {
            fields.push(("id", id.to_string()));
        }
        if self.class != default.class {
            fields.push(("class", self.class.to_string()));
        }
        if self.tenant != default.tenant {
            fields.push(("tenant", self.tenant.to_string()));
        }
        if self.priority != default.priority {
            fields.push(("priority", self.priority.level().to_string()));
        }
        match self.start {
            Start::Now => {}
            Start::After(delay) => fields.push(("delay_ms", delay.0.to_string())),
            Start::At(at) => fields.push(("at_ms", at.0.to_string())),
        }
        if let Some(ttl) = self.ttl {
            fields.push(("ttl_ms", ttl.0.to_string()));
        }
        if !self.retry_on.is_empty() {
            fields.push(("retry_on", self.retry_on.to_string()));
        }
        if self.max_attempts != default.max_attempts {
            fields.push(("max_attempts", self.max_attempts.to_string()));
        }
        if self.backoff != default.backoff {
            fields.push(("backoff_ms", self.backoff.0.to_string()));
        }
        if let Some(Unique { key, ttl }) = &self.unique {
            fields.push(("unique", key.to_string()));
            if let Some(ttl) = ttl {
                fields.push(("unique_ttl_ms", ttl.0.to_string()));
            }
        }
        if self.keep != default.keep {
            fields.push(("keep_s", (self.keep.0 / 1000).to_string()));
        }
        if let Some(reply) = &self.reply {
            fields.push(("reply", reply.to_string()));
        }
        if let Some(trace) = &self.trace {
            fields.push(("traceparent", trace.traceparent().to_owned()));
            if let Some(state) = trace.tracestate() {
                fields.push(("tracestate", state.to_owned()));
            }
        }
        fields
    }
}

fn raw<'a>(fields: &'a [(Vec<u8>, Vec<u8>)], name: &str) -> Option<&'a [u8]> {
    fields
        .iter()
        .find(|(key, _)| key == name.as_bytes())
        .map(|(_, value)| value.as_slice())
}

fn text<'a>(
    fields: &'a [(Vec<u8>, Vec<u8>)],
    name: &'static str,
) -> Result<Option<&'a str>, IntakeError> {
    let Some(value) = raw(fields, name) else {
        return Ok(None);
    };
    std::str::from_utf8(value)
        .map(Some)
        .map_err(|_not_utf8| bad(name, &String::from_utf8_lossy(value), "UTF-8 text"))
}

fn bad(field: &'static str, value: &str, want: &'static str) -> IntakeError {
    IntakeError::Field {
        field,
        value: clip(value, 80),
        want,
    }
}

fn parsed<T: FromStr>(
    fields: &[(Vec<u8>, Vec<u8>)],
    name: &'static str,
    want: &'static str,
) -> Result<Option<T>, IntakeError> {
    text(fields, name)?
        .map(|value| value.parse().map_err(|_why| bad(name, value, want)))
        .transpose()
}

fn number(
    fields: &[(Vec<u8>, Vec<u8>)],
    name: &'static str,
    most: u64,
    want: &'static str,
) -> Result<Option<u64>, IntakeError> {
    match parsed::<u64>(fields, name, want)? {
        Some(n) if n > most => Err(bad(name, &n.to_string(), want)),
        within => Ok(within),
    }
}

fn span(fields: &[(Vec<u8>, Vec<u8>)], name: &'static str) -> Result<Option<Millis>, IntakeError> {
    Ok(number(fields, name, MAX_SPAN.0, "milliseconds, 0 to 34560000000")?.map(Millis))
}

/// Parses the unique key. A time to live without a key must be valid, but is ignored.
fn unique(fields: &[(Vec<u8>, Vec<u8>)]) -> Result<Option<Unique>, IntakeError> {
    let ttl = span(fields, "unique_ttl_ms")?.filter(|ttl| ttl.0 > 0);
    let key = text(fields, "unique")?.map(str::parse).transpose()?;
    Ok(key.map(|key| Unique { key, ttl }))
}

/// Parses the trace context. An invalid context is ignored and does not reject the job.
fn trace(fields: &[(Vec<u8>, Vec<u8>)]) -> Option<TraceContext> {
    let text = |name| raw(fields, name).and_then(|value| std::str::from_utf8(value).ok());
    TraceContext::parse(text("traceparent")?, text("tracestate"))
}

fn attempts(fields: &[(Vec<u8>, Vec<u8>)]) -> Result<Option<u32>, IntakeError> {
    match parsed::<u32>(fields, "max_attempts", "1 to 100")? {
        Some(n) if n == 0 || n > MAX_ATTEMPTS => {
            Err(bad("max_attempts", &n.to_string(), "1 to 100"))
        }
        within => Ok(within),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
        pairs
            .iter()
            .map(|(k, v)| (k.as_bytes().to_vec(), v.as_bytes().to_vec()))
            .collect()
    }

    const JOB: (&str, &str) = ("job", r#"{"image":"python","code":"1"}"#);

    #[test]
    fn only_the_job_is_required() {
        let Ok(Intake::Submit(submission)) = Intake::parse(&fields(&[JOB]), wire::MAX_PAYLOAD)
        else {
            panic!("a bare job is admitted");
        };
        assert_eq!(submission.routing, Routing::default());
    }

    #[test]
    fn routing_fields_read_back_as_written() {
        let routing = Routing {
            id: Some("mine".parse().unwrap()),
            class: "gpu".parse().unwrap(),
            tenant: "acme".parse().unwrap(),
            priority: "9".parse().unwrap(),
            start: Start::After(Millis(50)),
            ttl: Some(Millis(1000)),
            retry_on: "failed,timed_out".parse().unwrap(),
            max_attempts: 7,
            backoff: Millis(20),
            unique: Some(Unique {
                key: "nightly:acme".parse().unwrap(),
                ttl: Some(Millis(5000)),
            }),
            keep: Millis(60_000),
            reply: Some("batch:1".parse().unwrap()),
            trace: TraceContext::parse(
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                Some("congo=t61rcWkgMzE"),
            ),
        };
        let written = routing.fields();
        let pairs: Vec<(&str, &str)> = written.iter().map(|(k, v)| (*k, v.as_str())).collect();
        assert_eq!(Routing::parse(&fields(&pairs)).unwrap(), routing);
    }

    #[test]
    fn bad_entries_say_what_is_bad() {
        for (case, pairs, code) in [
            ("nothing", vec![("x", "y")], "bad_entry"),
            (
                "unknown op",
                vec![("op", "explode"), ("id", "a")],
                "bad_entry",
            ),
            ("cancel without id", vec![("op", "cancel")], "bad_entry"),
            ("bad id", vec![JOB, ("id", "a b")], "bad_id"),
            ("priority", vec![JOB, ("priority", "10")], "bad_field"),
            ("delay", vec![JOB, ("delay_ms", "-5")], "bad_field"),
            ("attempts", vec![JOB, ("max_attempts", "0")], "bad_field"),
            ("retry", vec![JOB, ("retry_on", "cancelled")], "bad_field"),
            ("class", vec![JOB, ("class", "GPU")], "bad_id"),
            ("payload", vec![("job", "not json")], "bad_payload"),
            (
                "nothing to run",
                vec![("job", r#"{"image":"python"}"#)],
                "bad_job",
            ),
        ] {
            let error = Intake::parse(&fields(&pairs), wire::MAX_PAYLOAD).expect_err(case);
            assert_eq!(error.code(), code, "case {case}: {error}");
        }
    }
}
